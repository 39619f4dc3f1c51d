"""SYSU-MM01: the published counts, folder and file names, and the official gallery draws where they are."""

import re
from pathlib import Path

import numpy as np
import scipy.io

from icre_jax.data.layouts import sysu_mm01
from icre_jax.data.records import INFRARED, VISIBLE, Record
from icre_jax.data.verification.report import Report

# Split -> identities, visible images, infrared images. Training uses train + val.
PUBLISHED = {"train": (296, 20_284, 9_929), "val": (99, 1_974, 1_980), "test": (96, 6_775, 3_803)}
# Test camera -> identities, images.
PUBLISHED_CAMERAS = {
    1: (56, 1_374),
    2: (56, 1_565),
    3: (93, 1_883),
    4: (94, 1_918),
    5: (95, 1_918),
    6: (96, 1_920),
}
DRAWS = "exp/rand_perm_cam.mat"
NUM_TRIALS = 10


def check(data_dir: Path, trial: int | None, report: Report, *, published: bool) -> list[Record]:
    """Everything but the pixels; the pictures."""
    del trial
    splits, findings = sysu_mm01.survey(data_dir)
    report.errors += findings
    test = splits["query"] + splits["gallery"]
    for name, records in (("train", splits["train"]), ("val", splits["val"]), ("test", test)):
        expected = PUBLISHED[name] if published else (None, None, None)
        report.count(name, "identities", len({record.pid for record in records}), expected[0])
        for modality, number in zip((VISIBLE, INFRARED), expected[1:], strict=True):
            report.count(f"{name}, {modality}", "images", sum(r.modality == modality for r in records), number)
    for camera, numbers in PUBLISHED_CAMERAS.items():
        here = [record for record in test if record.camid == camera]
        ids, images = numbers if published else (None, None)
        report.count(f"test, camera {camera}", "identities", len({record.pid for record in here}), ids)
        report.count(f"test, camera {camera}", "images", len(here), images)
    pictures = [record for records in splits.values() for record in records]
    _check_names(data_dir, pictures, report)
    if (data_dir / DRAWS).is_file():
        _check_draws(data_dir / DRAWS, test, report)
    else:
        report.notes.append(f"{DRAWS} is not there: the official gallery draws cannot be used, python-random can.")
    return pictures


def _check_names(data_dir: Path, pictures: list[Record], report: Report) -> None:
    numbers: dict[tuple[int, int, int], str] = {}
    for record in pictures:
        stem = Path(record.path).stem
        if not re.fullmatch(r"\d{4}", stem):
            report.errors.append(f"{record.path}: its name is no four-digit number")
            continue
        other = numbers.setdefault((record.camid, record.pid, int(stem)), record.path)
        if other != record.path:
            report.errors.append(f"{record.path} has the number of {other}")
    listed = {record.path.split("/")[1] for record in pictures}
    unlisted = set()
    for camera in range(1, 7):
        folder = data_dir / f"cam{camera}"
        for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
            if entry.name.startswith(".") or entry.name == "Thumbs.db":
                continue
            if not entry.is_dir() or not re.fullmatch(r"\d{4}", entry.name):
                report.warnings.append(
                    f"cam{camera}/{entry.name} is no folder of a four-digit identity; nobody reads it"
                )
            elif entry.name not in listed:
                unlisted.add(entry.name)
    if unlisted:
        report.notes.append(
            f"{len(unlisted)} identities have folders and are in no list: {', '.join(sorted(unlisted))}"
        )


def _check_draws(path: Path, test: list[Record], report: Report) -> None:
    """A 6 x 1 cell; in it a cell per identity, in that 10 x n: for each trial a permutation of the numbers 1 .. n."""
    try:
        # MATLAB's own format; arrays only, no code.
        cameras = scipy.io.loadmat(path)["rand_perm_cam"]
    except Exception as error:  # a damaged file makes the reader fail in any way
        report.errors.append(f"{DRAWS} cannot be read ({type(error).__name__}: {error})")
        return
    if cameras.shape != (6, 1) or cameras.dtype != object:
        report.errors.append(f"{DRAWS} holds an array {list(cameras.shape)}; it must be a cell of 6 x 1 cameras")
        return
    for camera in range(1, 7):
        per_id = np.asarray(cameras[camera - 1, 0])
        cells = per_id.ravel() if per_id.dtype == object else np.empty(0, object)
        for pid in sorted({record.pid for record in test if record.camid == camera}):
            here = [record for record in test if (record.camid, record.pid) == (camera, pid)]
            rows = np.asarray(cells[pid - 1]) if 0 < pid <= len(cells) else np.empty((0, 0))
            good = rows.shape == (NUM_TRIALS, len(here)) and np.array_equal(
                np.sort(rows, axis=1), np.tile(np.arange(1, len(here) + 1), (NUM_TRIALS, 1))
            )
            if not good:
                report.errors.append(
                    f"{DRAWS}: camera {camera}, identity {pid} has an array {list(rows.shape)}; with its {len(here)} "
                    f"pictures it must be {NUM_TRIALS} permutations of 1 .. {len(here)}"
                )
