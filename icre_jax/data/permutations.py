"""The official gallery draws of SYSU-MM01: `exp/rand_perm_cam.mat`, kept as JSON beside the prepared records.

The file is not in the data set's archive; users fetch it from the official repository. It holds a 6 x 1 cell; per
camera a cell of one matrix per id (row index = id - 1); each is 10 x n, one permutation of image numbers per trial.
The file is read as data: MATLAB files hold no code.
"""

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from icre_jax.datasets import CARDS
from icre_jax.errors import InputError, UnreadableError, join_findings
from icre_jax.files import write_file
from icre_jax.files.json_files import read_json_object
from icre_jax.files.matlab import read_matlab
from icre_jax.sums import list_anew

SOURCE = "exp/rand_perm_cam.mat"
STORED = "gallery_permutations.json"
NUM_CAMERAS = 6
NUM_TRIALS = 10
_VARIABLE = "rand_perm_cam"
_HOW_TO_GET = f"Fetch {SOURCE} from the official repository of SYSU-MM01 again, or remove it to do without."

# (pid, camid) -> for each trial the image numbers in the order drawn.
Permutations = dict[tuple[int, int], list[list[int]]]


def read_mat(path: Path) -> Permutations:
    """The permutations of every id and camera that has images.

    Raises:
      InputError: no such file, not a MATLAB file, or not of the shape above; every camera or id that is wrong is named.
    """
    try:
        content = read_matlab(path, _VARIABLE)
    except UnreadableError as error:
        raise InputError(f"{path} cannot be read as a MATLAB file: {error.reason}. {_HOW_TO_GET}") from error
    cameras = content.get(_VARIABLE)
    if cameras is None:
        names = ", ".join(content)[:200] or "nothing"
        raise InputError(f"{path} holds {names}, but no {_VARIABLE}. {_HOW_TO_GET}")
    if not isinstance(cameras, np.ndarray) or cameras.dtype != object or cameras.size != NUM_CAMERAS:
        raise InputError(
            f"{_VARIABLE} in {path} must be a {NUM_CAMERAS} x 1 cell, not {_describe(cameras)}. {_HOW_TO_GET}"
        )
    permutations: Permutations = {}
    findings = []
    for camid, cell in enumerate(cameras.ravel(), start=1):
        if not isinstance(cell, np.ndarray) or cell.dtype != object or cell.ndim != 2 or 1 not in cell.shape:
            findings.append(f"camera {camid} must be a cell of one matrix per id, not {_describe(cell)}")
            continue
        for pid, matrix in enumerate(cell.ravel(), start=1):
            finding = _find_defect(matrix)
            if finding:
                findings.append(f"camera {camid}, id {pid} {finding}")
            elif matrix.size:
                permutations[pid, camid] = matrix.astype(np.int64).tolist()
    if not permutations and not findings:
        findings.append("no camera has a permutation")
    if findings:
        raise InputError(f"{path} does not hold the official draws:\n{join_findings(findings)}\n{_HOW_TO_GET}")
    return permutations


def keep_permutations(data_dir: Path, folder: Path) -> None:
    """Store what `exp/rand_perm_cam.mat` in `data_dir` says as JSON in `folder`, if there is such a file.

    It joins the list of the sums of `folder`. What was stored earlier stays where the tree has no such file (any more).

    Raises:
      InputError: the file is not what it should be, or `folder` cannot be written.
    """
    source = data_dir / SOURCE
    if not source.is_file():
        return
    permutations = read_mat(source)
    try:
        kept = read_permutations(folder)
    except InputError:  # damaged, it is replaced
        kept = None
    rows = [[pid, camid, trials] for (pid, camid), trials in permutations.items()]
    try:
        if kept != permutations:
            write_file(folder / STORED, json.dumps({"source": SOURCE, "pid_camid_trials": rows}))
        with contextlib.suppress(ValueError):  # whoever opens the records says what is wrong with the list
            list_anew(folder, STORED)
    except OSError as error:
        raise InputError(f"The official draws cannot be kept in {folder}: {error}. Free space there.") from error


def read_permutations(folder: Path) -> Permutations | None:
    """What `keep_permutations` stored in `folder`; None if nothing is there.

    Raises:
      InputError: it is damaged.
    """
    stored = folder / STORED
    if not stored.is_file():
        return None
    try:
        rows = read_json_object(stored)["pid_camid_trials"]
        permutations: Permutations = {(pid, camid): trials for pid, camid, trials in rows}
        for (pid, camid), trials in permutations.items():
            if finding := _find_defect(np.array(trials)):
                raise ValueError(f"camera {camid}, id {pid} {finding}")
    except (UnreadableError, ValueError, KeyError, TypeError) as error:
        reason = error.reason if isinstance(error, UnreadableError) else error
        raise InputError(f"{stored} is damaged ({reason}). Delete it; with {SOURCE} it is made anew.") from error
    return permutations


def hash_permutations(permutations: Permutations) -> str:
    """SHA-256 of the draws, whatever the order in which ids and cameras stand."""
    return hashlib.sha256(json.dumps(sorted(permutations.items())).encode()).hexdigest()


def describe_official_draws(dataset: str, folder: Path) -> str | None:
    """One line for the screen: whether the official draws are at hand; None where the data set has none."""
    if not CARDS[dataset].official_draws:
        return None
    if (folder / STORED).is_file():
        return f"Official gallery draws: at hand ({SOURCE}), and the default."
    return f"Official gallery draws: absent ({SOURCE}). Galleries are drawn by python-random; the results say so."


def _find_defect(matrix: Any) -> str | None:
    if not isinstance(matrix, np.ndarray) or matrix.dtype.kind not in "iuf":
        return f"must be a matrix of numbers, not {_describe(matrix)}"
    if not matrix.size:
        return None  # no image of this id at this camera
    if matrix.ndim != 2 or len(matrix) != NUM_TRIALS:
        return f"must be {NUM_TRIALS} x n, one row for each trial, not {' x '.join(map(str, matrix.shape))}"
    if not (np.sort(matrix, axis=1) == np.arange(1, matrix.shape[1] + 1)).all():
        return f"must hold a permutation of 1 to {matrix.shape[1]} in each row"
    return None


def _describe(value: Any) -> str:
    if not isinstance(value, np.ndarray):
        return str(value)
    return f"{' x '.join(map(str, value.shape))} {'cell' if value.dtype == object else value.dtype}"
