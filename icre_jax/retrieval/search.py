"""Exact search: the rows of a gallery that are most similar to each query, whatever the gallery's size.

The gallery is read in chunks, each converted to float32 and multiplied with all queries: the memory that is needed does
not grow with the gallery. Nothing is approximated; a gallery in float16 (`icre_jax.retrieval.index`) is searched as
exactly as its rows are stored, with sums in float32.

Shape letters: Q queries, N rows of the gallery, D size of an embedding, k results of a query.
"""

import os
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from icre_jax.errors import InputError
from icre_jax.evals.ranks import Float32Array, IntArray

_CHUNK_ELEMENTS = 2**23  # of the gallery in float32 at a time: 32 MiB
_BLOCK_ELEMENTS = 2**22  # similarities at a time: 16 MiB
_CONVERTED_TOGETHER = 2**17  # elements that stay in a core's cache between two steps of a conversion
_SIGN_AND_REST = np.int32(-0x70002000)  # bits of a float16 in their places of a float32; the others are zero
_HALF_LIMIT = np.float32(2**16)  # what an infinite float16 would become; every finite one is smaller


@dataclass(frozen=True, eq=False)
class Found:
    """The best k rows of the gallery for each query, best first; equal similarities keep the gallery's order.

    Attributes:
      indices: [Q, k] int64 rows of the gallery.
      similarities: [Q, k] float32 inner products; cosines, if rows have length 1.
    """

    indices: IntArray
    similarities: Float32Array


def search(queries: npt.NDArray[np.floating], gallery: npt.NDArray[np.floating], *, top: int = 10) -> Found:
    """Find the `top` rows of the gallery that have the largest inner product with each query.

    Args:
      queries: [Q, D] floats.
      gallery: [N, D] floats of any width, in memory or memory-mapped.
      top: k at most; fewer where the gallery has fewer rows.

    Raises:
      InputError: sizes that differ, an empty gallery, `top` below 1, or a value that is not finite.
    """
    queries = _checked_queries(queries, gallery, top)
    num_queries, num_rows = len(queries), len(gallery)
    k = min(top, num_rows)
    values = np.full((num_queries, k), -np.inf, np.float32)
    indices = np.full((num_queries, k), num_rows, np.int64)
    chunk_rows = max(1, min(num_rows, _CHUNK_ELEMENTS // gallery.shape[1]))
    block_rows = max(1, min(num_queries, _BLOCK_ELEMENTS // chunk_rows))
    memory = np.empty((chunk_rows, gallery.shape[1]), np.float32)
    products = np.empty((block_rows, chunk_rows), np.float32)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, num_rows, chunk_rows):
            chunk = to_float32(gallery[start : start + chunk_rows], memory, pool)
            for first in range(0, num_queries, block_rows):
                rows = slice(first, first + block_rows)
                block = products[: len(queries[rows]), : len(chunk)]
                if block.flags.c_contiguous:
                    np.matmul(queries[rows], chunk.T, out=block)
                else:
                    block = queries[rows] @ chunk.T
                _keep_best(block, start, values[rows], indices[rows])
    return Found(indices, values)


def to_float32(rows: npt.NDArray[np.floating], memory: Float32Array, pool: Executor) -> Float32Array:
    """[M, D] floats of any width as float32 in the first M rows of `memory`, exactly where they are float16.

    NumPy converts float16 one number at a time on most CPUs. The same by steps on whole arrays takes a quarter of the
    time: the bits are moved to where float32 has them, and the exponent, which counts from another zero, is mended by a
    product with a power of two. That is exact for all finite numbers, those without a leading one included.

    Raises:
      InputError: a number that is not finite.
    """
    filled = memory[: len(rows)]
    if rows.dtype != np.float16 or not rows.dtype.isnative:
        np.copyto(filled, rows, casting="same_kind")
        if not np.isfinite(filled).all():
            raise _not_finite()
        return filled
    step = max(1, _CONVERTED_TOGETHER // rows.shape[1])

    def convert(share: range) -> bool:
        for start in share:
            part = filled[start : start + step]
            bits = part.view(np.int32)
            np.copyto(bits, np.ascontiguousarray(rows[start : start + step]).view(np.int16))
            np.left_shift(bits, 13, out=bits)
            np.bitwise_and(bits, _SIGN_AND_REST, out=bits)
            np.multiply(part, np.float32(2.0**112), out=part)
            if not (part.max() < _HALF_LIMIT and part.min() > -_HALF_LIMIT):
                return False
        return True

    # One task for each thread, as handing them over takes about as long as one step.
    starts = range(0, len(rows), step)
    per_thread = -(-len(starts) // (os.cpu_count() or 1))
    shares = [starts[first : first + per_thread] for first in range(0, len(starts), per_thread)]
    if not all(list(pool.map(convert, shares))):
        raise _not_finite()
    return filled


def _not_finite() -> InputError:
    return InputError("The gallery holds numbers that are not finite (NaN or infinite). Embed its images again.")


def _checked_queries(queries: npt.NDArray[np.floating], gallery: npt.NDArray[np.floating], top: int) -> Float32Array:
    for name, array in (("queries", queries), ("the gallery", gallery)):
        if array.ndim != 2 or array.dtype.kind != "f" or 0 in array.shape:
            raise InputError(
                f"A search needs {name} as floats [rows, size of an embedding], at least one of each, not "
                f"{array.dtype} {list(array.shape)}."
            )
    if queries.shape[1] != gallery.shape[1]:
        raise InputError(
            f"The queries have {queries.shape[1]} dimensions, the gallery {gallery.shape[1]}: embed both with the same "
            "network."
        )
    if top < 1:
        raise InputError(f"top is {top}; it must be 1 or more.")
    queries = np.ascontiguousarray(queries, np.float32)
    if not np.isfinite(queries).all():
        raise InputError("A query has an embedding that is not finite: the network has diverged or is damaged.")
    return queries


def _keep_best(block: Float32Array, start: int, values: Float32Array, indices: IntArray) -> None:
    """Put what is better in `block` [Q, C], whose first column is row `start`, into `values` and `indices` [Q, k]."""
    k = values.shape[1]
    largest = block.max(axis=1)  # NaN if one of them is
    if not np.isfinite(largest).all():
        raise InputError(
            "A similarity is not finite: the numbers of queries and gallery are too large. Normalize them."
        )
    # An equal one that comes later loses.
    better = np.flatnonzero(largest > values[:, -1])
    if not better.size:
        return
    some = block[better]
    chosen = some > values[better, -1:]
    crowded = np.flatnonzero(np.count_nonzero(chosen, axis=1) > k)
    if crowded.size:
        position = block.shape[1] - k
        chosen[crowded] &= some[crowded] >= np.partition(some[crowded], position, axis=1)[:, position, None]
    row, column = np.nonzero(chosen)
    of_row = np.concatenate([np.repeat(np.arange(len(better)), k), row])
    value = np.concatenate([values[better].ravel(), some[row, column]])
    index = np.concatenate([indices[better].ravel(), start + column])
    order = np.lexsort((index, -value, of_row))
    first = np.searchsorted(of_row[order], np.arange(len(better)))
    kept = order[first[:, None] + np.arange(k)]
    values[better], indices[better] = value[kept], index[kept]
