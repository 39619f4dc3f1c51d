"""The rows of an index as they lie in a file: [N, D] float16 in NumPy's format, with a sum of every block of rows.

The first sum is of the bytes before the rows, which say how they lie; one follows for each `BLOCK_ROWS` rows. Who reads
a part of the rows compares that part.
"""

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from icre_jax.errors import InputError
from icre_jax.evals.ranking import normalize
from icre_jax.files.arrays import map_array
from icre_jax.files.regular import file_size, open_regular
from icre_jax.sums import hash_blocks

BLOCK_ROWS = 2**14
# Length that no row exceeds: 1, rounded to float16 number by number.
LONGEST = 1.01
_LONGEST_START = 2**16  # bytes before the rows


def write_rows(
    path: Path,
    blocks: Iterable[npt.NDArray[np.floating]],
    *,
    num_rows: int,
    dimensions: int,
    name: Callable[[int], str],
) -> list[str]:
    """Write rows to a new file, and what `map_rows` and `compare_rows` compare them with.

    Args:
      path: of the file.
      blocks: [M, dimensions], one after the other; scaled to length 1 unless they are float16.
      num_rows: of all blocks together.
      dimensions: of a row.
      name: what a row shows, for people.

    Raises:
      InputError: an embedding that is not finite.
      ValueError: blocks of another size, or a float16 row that is longer than 1.
      OSError: the file cannot be written.
    """
    start = io.BytesIO()
    descr = {"descr": "<f2", "fortran_order": False, "shape": (num_rows, dimensions)}
    np.lib.format.write_array_header_1_0(start, descr)
    sums = _Sums(start.getvalue(), BLOCK_ROWS * dimensions * 2)
    # Written, not mapped: a full disk is then an error, and not the end of the process.
    with path.open("wb") as file:
        file.write(start.getvalue())
        written = 0
        for block in blocks:
            if block.ndim != 2 or block.shape[1] != dimensions:
                raise ValueError(f"Embeddings must be [M, {dimensions}], not {list(block.shape)}.")
            content = _to_rows(block, written, name).tobytes()
            file.write(content)
            sums.add(content)
            written += len(block)
        if written != num_rows:
            raise ValueError(f"There are {written} embeddings for {num_rows} entries.")
        file.flush()
        os.fsync(file.fileno())
    return sums.finish()


def map_rows(path: Path, sums: Sequence[str], *, num_rows: int, dimensions: int) -> npt.NDArray[np.float16]:
    """Rows [num_rows, dimensions] of a file, memory-mapped; none of them is read yet.

    Raises:
      UnreadableError: it cannot be read, or is no array.
      ValueError: it is not what was written, as far as its size and its first bytes tell.
    """
    size = file_size(path)
    first = size - num_rows * dimensions * 2
    if not 0 < first <= _LONGEST_START or len(sums) != 1 + -(-num_rows // BLOCK_ROWS):
        raise ValueError(f"{size:,} bytes and {len(sums)} sums are not those of {num_rows} rows of {dimensions}")
    with open_regular(path, most_bytes=size) as file:
        start = file.read(first)
    if hashlib.sha256(start).hexdigest() != sums[0]:
        raise ValueError("its first bytes are not what was written")
    rows = map_array(path)
    if rows.dtype != np.float16 or rows.shape != (num_rows, dimensions) or not rows.flags.c_contiguous:
        raise ValueError(f"it is {rows.dtype} {list(rows.shape)}, not float16 {[num_rows, dimensions]}")
    return rows


def compare_rows(rows: npt.NDArray[np.float16], sums: Sequence[str], part: range) -> list[str]:
    """What of a part of the rows is not as it was written, in words; whole blocks are read.

    Args:
      rows: all of them, as `map_rows` gives them.
      sums: of them.
      part: those that will be used.
    """
    blocks = range(part.start // BLOCK_ROWS, -(-part.stop // BLOCK_ROWS))
    found = hash_blocks(_bytes_of(rows[block * BLOCK_ROWS : (block + 1) * BLOCK_ROWS]) for block in blocks)
    return [
        f"rows {block * BLOCK_ROWS} to {min((block + 1) * BLOCK_ROWS, len(rows)) - 1} are not what was written"
        for block, digest in zip(blocks, found, strict=True)
        if digest != sums[1 + block]
    ]


class _Sums:
    """Sums of rows that come in pieces of any size."""

    def __init__(self, start: bytes, block_bytes: int):
        self._sums = [hashlib.sha256(start).hexdigest()]
        self._block_bytes = block_bytes
        self._digest, self._filled = hashlib.sha256(), 0

    def add(self, content: bytes) -> None:
        rest = memoryview(content)
        while rest:
            piece = rest[: self._block_bytes - self._filled]
            self._digest.update(piece)
            self._filled += len(piece)
            rest = rest[len(piece) :]
            if self._filled == self._block_bytes:
                self._close()

    def finish(self) -> list[str]:
        if self._filled:
            self._close()
        return self._sums

    def _close(self) -> None:
        self._sums.append(self._digest.hexdigest())
        self._digest, self._filled = hashlib.sha256(), 0


def _bytes_of(rows: npt.NDArray[np.float16]) -> npt.NDArray[np.uint8]:
    return rows.reshape(-1).view(np.uint8)


def _to_rows(block: npt.NDArray[np.floating], first: int, name: Callable[[int], str]) -> npt.NDArray[np.float16]:
    """[M, D] as they are stored; those that are stored already stay as they are."""
    if block.dtype == np.float16:
        rows = np.asarray(block, "<f2")
    else:
        with np.errstate(over="ignore", invalid="ignore"):  # looked at below
            rows = normalize(np.asarray(block, np.float32)).astype("<f2")
    broken = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if broken.size:
        raise InputError(
            f"The embedding of {name(first + int(broken[0]))} is not finite: the network has diverged or is damaged."
        )
    squares = np.vecdot(rows, rows, dtype=np.float32)
    if squares.max(initial=0) > LONGEST**2:
        raise ValueError(f"Embeddings in float16 must be of length 1; one has {float(np.sqrt(squares.max())):.3f}.")
    return rows
