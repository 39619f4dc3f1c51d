"""Exact search: the rows of a gallery that are most similar to each query, whatever the gallery's size.

The gallery is read in parts, each converted to float32 and multiplied with all queries: the memory that is needed does
not grow with the gallery. Nothing is approximated; a gallery in float16 (`icre_jax.retrieval.index`) is searched as
exactly as its rows are stored. The product in float32 says which rows can be among the best; their similarities, and
so their order, are those of `icre_jax.retrieval.similarity`.

Shape letters: Q queries, N rows of the gallery, D size of an embedding, k results of a query.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from icre_jax.errors import InputError
from icre_jax.evals.ranks import Float32Array, IntArray
from icre_jax.retrieval.similarity import rounding_bound, score_pairs

_CHUNK_ELEMENTS = 2**23  # of the gallery in float32 at a time, for many queries: 32 MiB
_BLOCK_ELEMENTS = 2**22  # similarities at a time: 16 MiB
_CACHED_ELEMENTS = 2**17  # that stay in a core's cache from their conversion to their use
_FEW = 96  # queries, up to which it is faster to multiply rows one by one while they are in the cache
_SIGN_AND_REST = np.int32(-0x70002000)  # bits of a float16 in their places of a float32; the others are zero
_HALF_INFINITY = 0x7C00  # the bits of an infinite float16; NaN has larger ones, finite numbers smaller ones


@dataclass(frozen=True, eq=False)
class Found:
    """The best k rows of the gallery for each query, best first; equal similarities keep the gallery's order.

    Attributes:
      indices: [Q, k] int64 rows of the gallery.
      similarities: [Q, k] float32 inner products of `icre_jax.retrieval.similarity`; cosines, if rows have length 1.
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
    queries = check_queries(queries, gallery, top)
    k = min(top, len(gallery))
    values = np.full((len(queries), k), -np.inf, np.float32)
    indices = np.full((len(queries), k), len(gallery), np.int64)
    multiply = _multiply_few if len(queries) <= _FEW else _multiply_many
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for block in multiply(queries, gallery, pool):
            _keep_best(block, queries[block.queries], values[block.queries], indices[block.queries])
    return Found(indices, values)


def to_float32(rows: npt.NDArray[np.floating], memory: Float32Array) -> Float32Array:
    """[M, D] floats of any width as float32 in the first M rows of `memory`, exactly where they are float16.

    NumPy converts float16 one number at a time on most CPUs. The same by steps on whole arrays takes a quarter of the
    time: the bits are moved to where float32 has them, and the exponent, which counts from another zero, is mended by a
    product with a power of two. That is exact for all finite numbers, those without a leading one included.

    Raises:
      InputError: a number that is not finite.
    """
    return _convert(rows, memory)[0]


def _convert(rows: npt.NDArray[np.floating], memory: Float32Array) -> tuple[Float32Array, float]:
    """What `to_float32` gives, and the size of the largest number in it."""
    filled = memory[: len(rows)]
    if rows.dtype != np.float16 or not rows.dtype.isnative:
        np.copyto(filled, rows, casting="same_kind")
        largest = float(np.maximum(filled.max(), -filled.min()))  # NaN if one of them is
    else:
        source, bits = np.ascontiguousarray(rows), filled.view(np.int32)
        # As whole numbers, the largest are at the upper end of the positive and of the negative ones.
        sizes = int(source.view(np.int16).max()), int(source.view(np.uint16).max()) - 2**15, 0
        largest = float(np.uint16(max(sizes)).view(np.float16)) if max(sizes) < _HALF_INFINITY else np.inf
        np.copyto(bits, source.view(np.int16))
        np.left_shift(bits, 13, out=bits)
        np.bitwise_and(bits, _SIGN_AND_REST, out=bits)
        np.multiply(filled, np.float32(2.0**112), out=filled)
    if not np.isfinite(largest):
        raise InputError("The gallery holds numbers that are not finite (NaN or infinite). Embed its images again.")
    return filled, largest


class _Block(NamedTuple):
    """Products of some queries with some rows of the gallery.

    Attributes:
      start: number of the first row.
      rows: of the gallery, in any width.
      largest: size of the largest number in them.
      queries: which.
      products: [queries, rows] float32.
    """

    start: int
    rows: npt.NDArray[np.floating]
    largest: float
    queries: slice
    products: Float32Array


def _multiply_few(queries: Float32Array, gallery: npt.NDArray[np.floating], pool: Executor) -> Iterator[_Block]:
    """Every row is converted and multiplied while it is in a core's cache; each thread has its share of the rows."""
    size = gallery.shape[1]
    step = max(1, _CACHED_ELEMENTS // size)
    chunk_rows = min(len(gallery), max(1, _BLOCK_ELEMENTS // len(queries)))
    memory = np.empty((len(queries), chunk_rows), np.float32)
    for start in range(0, len(gallery), chunk_rows):
        chunk = gallery[start : start + chunk_rows]
        block = memory[:, : len(chunk)]

        def multiply(share: range, chunk: npt.NDArray[np.floating] = chunk, block: Float32Array = block) -> float:
            cached, largest = np.empty((step, size), np.float32), 0.0
            for first in share:
                rows, size_of_largest = _convert(chunk[first : first + step], cached)
                np.vecdot(queries[:, None], rows, out=block[:, first : first + step])
                largest = max(largest, size_of_largest)
            return largest

        largest = _run_shares(multiply, range(0, len(chunk), step), pool)
        yield _Block(start, chunk, largest, slice(0, len(queries)), block)


def _multiply_many(queries: Float32Array, gallery: npt.NDArray[np.floating], pool: Executor) -> Iterator[_Block]:
    """Chunks are converted, and multiplied with blocks of queries by the library of matrix products."""
    size = gallery.shape[1]
    step = max(1, _CACHED_ELEMENTS // size)
    chunk_rows = min(len(gallery), max(1, _CHUNK_ELEMENTS // size))
    block_rows = max(1, _BLOCK_ELEMENTS // chunk_rows)
    memory = np.empty((chunk_rows, size), np.float32)
    for start in range(0, len(gallery), chunk_rows):
        chunk = gallery[start : start + chunk_rows]

        def convert(share: range, chunk: npt.NDArray[np.floating] = chunk) -> float:
            return max(_convert(chunk[first : first + step], memory[first : first + step])[1] for first in share)

        largest = _run_shares(convert, range(0, len(chunk), step), pool)
        converted = memory[: len(chunk)]
        for first in range(0, len(queries), block_rows):
            rows = slice(first, first + block_rows)
            yield _Block(start, converted, largest, rows, queries[rows] @ converted.T)


def _run_shares(work: Callable[[range], float], starts: range, pool: Executor) -> float:
    """The largest result of a task for each thread: handing a task over takes about as long as a step of it."""
    per_thread = -(-len(starts) // (os.cpu_count() or 1))
    return max(pool.map(work, [starts[i : i + per_thread] for i in range(0, len(starts), per_thread)]))


def check_queries(queries: npt.NDArray[np.floating], gallery: npt.NDArray[np.floating], top: int) -> Float32Array:
    """Queries as a search takes them, see `search`."""
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


def _keep_best(block: _Block, queries: Float32Array, values: Float32Array, indices: IntArray) -> None:
    """Put what is better in `block` into `values` and `indices` [Q, k] of its queries [Q, D]."""
    k, products = values.shape[1], block.products
    largest = products.max(axis=1)  # NaN if one of them is
    if not np.isfinite(largest).all():
        raise InputError(
            "A similarity is not finite: the numbers of queries and gallery are too large. Normalize them."
        )
    error = rounding_bound(queries, block.largest)
    floor = _below(values[:, -1] - error)
    better = np.flatnonzero(largest > floor)
    if not better.size:
        return
    some = products[better]
    chosen = some > floor[better, None]
    crowded = np.flatnonzero(np.count_nonzero(chosen, axis=1) > k)
    if crowded.size:
        position = products.shape[1] - k
        least = np.partition(some[crowded], position, axis=1)[:, position]
        chosen[crowded] &= some[crowded] >= _below(least - 2 * error[better[crowded]])[:, None]
    row, column = np.nonzero(chosen)
    value = score_pairs(queries[better], block.rows, row, column)
    of_row = np.concatenate([np.repeat(np.arange(len(better)), k), row])
    value = np.concatenate([values[better].ravel(), value])
    index = np.concatenate([indices[better].ravel(), block.start + column])
    order = np.lexsort((index, -value, of_row))
    first = np.searchsorted(of_row[order], np.arange(len(better)))
    kept = order[first[:, None] + np.arange(k)]
    values[better], indices[better] = value[kept], index[kept]


def _below(bounds: npt.NDArray[np.float64]) -> Float32Array:
    """The largest numbers of float32 that are not above these."""
    rounded = bounds.astype(np.float32)
    return np.where(rounded > bounds, np.nextafter(rounded, np.float32(-np.inf)), rounded)
