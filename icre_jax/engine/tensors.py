"""safetensors files: arrays by name and no code. The one place that reads and writes the format."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 (NumPy knows bfloat16 by it)
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from icre_jax.errors import InputError, UnreadableError, join_findings
from icre_jax.files import write_file
from icre_jax.files.regular import file_size

# Beside the arrays themselves: the list of their names, and room for what other writers add.
_SPARE_BYTES = 16 * 2**20


def open_tensors(path: Path) -> Any:
    """A file for reading, to be used as a context; nothing but its list of arrays is read yet.

    Raises:
      InputError: no such file, or none of this format, or a truncated one.
    """
    _size(path)
    try:
        return safe_open(path, framework="np")
    except SafetensorError as error:
        raise InputError(f"{path} is no safetensors file, or a damaged one ({error}).") from error


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write arrays by name, whole or not at all.

    Raises:
      OSError: the file cannot be written.
    """
    # safetensors writes the memory as it lies, whatever the strides say.
    arrays = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    write_file(path, save(arrays, metadata=dict(metadata)))


def read_tensors(path: Path, like: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Just the arrays of `like`, as float32.

    Args:
      path: a file stored as float32 or float16. What it holds is compared with `like` before any array is read.
      like: name -> anything with the shape that is wanted.

    Raises:
      InputError: as `open_tensors`; or the file is larger than these arrays can be, or holds arrays of other names,
        shapes or kinds, of which all are named.
    """
    largest = sum(4 * int(np.prod(leaf.shape)) for leaf in like.values()) + _SPARE_BYTES
    if (size := _size(path)) > largest:
        raise InputError(
            f"{path} has {size:,} bytes, and this network at most {largest:,}: it is another file. "
            "Take the one that was exported with its config.json."
        )
    with open_tensors(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        found = {name: tuple(part.get_shape()) for name, part in slices.items()}
        wanted = {name: tuple(leaf.shape) for name, leaf in like.items()}
        findings = [
            f"{name}: {_shape(found, name)} in the file, {_shape(wanted, name)} in this network"
            for name in sorted(found.keys() | wanted.keys())
            if found.get(name) != wanted.get(name)
        ]
        findings += [
            f"{name}: stored as {part.get_dtype()}; float32 or float16 is read"
            for name, part in slices.items()
            if part.get_dtype() not in ("F32", "F16")
        ]
        if findings:
            raise InputError(
                f"{path} is of another network than its config.json:\n{join_findings(findings, limit=10)}\n"
                "Take both from one export."
            )
        return {name: file.get_tensor(name).astype(np.float32) for name in like}


def _size(path: Path) -> int:
    try:
        return file_size(path)
    except UnreadableError as error:
        raise InputError(f"There is no weights file {path}: {error.reason}.") from error


def _shape(shapes: Mapping[str, tuple[int, ...]], name: str) -> str:
    return str(list(shapes[name])) if name in shapes else "absent"
