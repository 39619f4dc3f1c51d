"""Features in files: of any code base, read from a NumPy archive and checked; ours, written for anybody."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from icre_jax.errors import InputError, UnreadableError, join_findings
from icre_jax.evals.ranking import Embedded
from icre_jax.files import whole_file
from icre_jax.files.arrays import open_archive

FORMATS = (".npz", ".parquet")  # of `write_features`
_HOW_TO_WRITE = "Write it with numpy.savez(path, features=..., pid=..., camid=...)."


def read_features(path: Path, *, side: str, cameras: Sequence[int] | None, needs_camid: bool) -> Embedded:
    """One side of a ranking from `path`, an .npz; nothing is unpickled.

    Args:
      path: holds `features` [N, D] (floats, any length), `pid` [N] and `camid` [N] (integers).
      side: "query" or "gallery", for messages.
      cameras: those that may occur; None for any.
      needs_camid: False where no rule asks for cameras: `camid` may then be absent.

    Returns:
      The images in their order; as path, each has its row, e.g. "q.npz[3]".

    Raises:
      InputError: no such archive, an array that is absent, of another shape or kind, not finite, or an impossible
        camera. All that is wrong with the shapes is named at once.
    """
    arrays = _read_arrays(path, side, needs_camid)
    features = arrays["features"]
    findings = []
    if features.dtype.kind != "f":
        findings.append(f"features must be floats, not {features.dtype}")
    if features.ndim != 2 or 0 in features.shape:
        findings.append(f"features must be [N, D] with N, D > 0, not {list(features.shape)}")
    for name, array in [*arrays.items()][1:]:
        if array.dtype.kind not in "iu":
            findings.append(f"{name} must be integers, not {array.dtype}")
        if array.shape != features.shape[:1]:
            findings.append(
                f"{name} must be [N], one for each row of features {list(features.shape)}, not {list(array.shape)}"
            )
    if findings:
        raise InputError(f"The {side} file {path} cannot be scored:\n{join_findings(findings)}")
    camid = arrays["camid"].astype(np.int64) if "camid" in arrays else np.zeros(len(features), np.int64)
    wrong = sorted(set(camid.tolist()) - set(cameras)) if cameras is not None else []
    if wrong:
        assert cameras is not None
        raise InputError(
            f"The {side} file {path} holds camera {', '.join(map(str, wrong[:10]))}; this protocol takes its {side} "
            f"from camera {', '.join(map(str, cameras))}, as the data set numbers them. Are the two files swapped?"
        )
    broken = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if broken.size:
        raise InputError(
            f"{broken.size} of {len(features)} rows of features in the {side} file {path} are not finite (NaN or "
            f"infinite), first row {broken[0]}. Look for the cause where they were computed."
        )
    return Embedded(
        features=_to_float32(features),
        pid=arrays["pid"].astype(np.int64),
        camid=camid,
        path=np.array([f"{path.name}[{row}]" for row in range(len(features))]),
    )


def require_features_file(path: Path, flag: str) -> None:
    """Find out before minutes of work whether `write_features` can write `path`, which `flag` names.

    Raises:
      InputError: another ending, something is there already, or pyarrow is needed and not installed.
    """
    if path.suffix not in FORMATS:
        raise InputError(f"{flag} is {path}; it must end in {' or '.join(FORMATS)}.")
    if path.suffix == ".parquet":
        _pyarrow()
    if path.exists():
        raise InputError(f"{path} exists already. Choose another {flag} or delete it.")


def write_features(path: Path, columns: Mapping[str, np.ndarray], facts: Mapping[str, str]) -> None:
    """Write one row per image, whole or not at all.

    Args:
      path: a file that `require_features_file` accepts: .npz, which `read_features` takes, or .parquet.
      columns: `features` [N, D] float32, `path` [N] str, and `pid` and `camid` [N] where they are known.
      facts: about all rows; in an .npz an array of one string each, in Parquet metadata of the schema.

    Raises:
      InputError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial, partial.open("wb") as stream:
            if path.suffix == ".npz":
                arrays: dict[str, Any] = {**columns, **{name: np.array(text) for name, text in facts.items()}}
                np.savez(stream, **arrays)
            else:
                _write_parquet(stream, columns, facts)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error}. Free space, or name another file.") from error


def _write_parquet(stream: IO[bytes], columns: Mapping[str, np.ndarray], facts: Mapping[str, str]) -> None:
    pyarrow = _pyarrow()
    features = columns["features"]
    flat = pyarrow.array(np.ascontiguousarray(features).reshape(-1))
    arrays = {name: pyarrow.array(column) for name, column in columns.items() if name != "features"}
    arrays["features"] = pyarrow.FixedSizeListArray.from_arrays(flat, features.shape[1])
    pyarrow.parquet.write_table(pyarrow.table(arrays, metadata=dict(facts)), stream)


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            "Parquet needs pyarrow, which is not installed. Install `icre_jax[parquet]`, or write an .npz."
        ) from error
    return pyarrow


def _read_arrays(path: Path, side: str, needs_camid: bool) -> dict[str, np.ndarray]:
    """`features`, `pid` and, where it is needed or there, `camid`; whatever else is in the file is not read."""
    try:
        with open_archive(path) as archive:
            names = ["features", "pid"] + (["camid"] if needs_camid or "camid" in archive.names else [])
            missing = [name for name in names if name not in archive.names]
            if not missing:
                return {name: archive[name] for name in names}
    except UnreadableError as error:
        raise InputError(
            f"The {side} file {path} cannot be read as a NumPy archive: {error.reason}. {_HOW_TO_WRITE} (plain arrays "
            "only)."
        ) from error
    there = ", ".join(archive.names[:20]) or "nothing"
    raise InputError(f"The {side} file {path} lacks {', '.join(missing)}; it holds {there}. {_HOW_TO_WRITE}")


def _to_float32(features: np.ndarray) -> np.ndarray:
    """Only directions count: rows too long or too short to be normalised in float32 are scaled first."""
    largest = np.abs(features).max(axis=1, keepdims=True).astype(np.float64)
    scaled = ((largest > 1e6) | (largest < 1e-6)) & (largest > 0)
    if scaled.any():
        features = features / np.where(scaled, largest, 1)
    return features.astype(np.float32, copy=False)
