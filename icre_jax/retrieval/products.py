"""Products of queries with all rows of a gallery, block by block: the arithmetic of an exact search.

Whatever the gallery's size, the same little memory is used. Rows in float16 are converted to float32 exactly.

Shape letters: Q queries, N rows of the gallery, D size of an embedding, R rows at a time.
"""

import collections
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from icre_jax.errors import InputError
from icre_jax.evals.ranks import Float32Array
from icre_jax.retrieval.similarity import sizes_by_largest, sizes_by_length

_CHUNK_ELEMENTS = 2**23  # of the gallery in float32 at a time, for many queries: 32 MiB
_BLOCK_ELEMENTS = 2**22  # similarities at a time: 16 MiB
_CACHED_ELEMENTS = 2**17  # that stay in a core's cache from their conversion to their use
_FEW = 96  # queries, up to which it is faster to multiply rows one by one while they are in the cache
_SIGN_AND_REST = np.int32(-0x70002000)  # bits of a float16 in their places of a float32; the others are zero
_HALF_INFINITY = 0x7C00  # the bits of an infinite float16; NaN has larger ones, finite numbers smaller ones
_BROKEN = "The gallery holds numbers that are not finite (NaN or infinite). Embed its images again."
NOT_FINITE = (
    "A similarity is not finite: numbers of queries or gallery are too large (normalize them), or the gallery holds "
    "some that are not finite (embed its images again)."
)


@dataclass(frozen=True)
class Products:
    """A product of few queries with rows in float16 that is faster than NumPy's.

    Attributes:
      num_rows: R, how many rows it takes at a time.
      multiply: [Q, D] float32 and [R, D] float16 to [Q, R] float32; sums in float32, in any order. It is called by
        several threads at once.
    """

    num_rows: int
    multiply: Callable[[Float32Array, npt.NDArray[np.float16]], Float32Array]


class Block(NamedTuple):
    """Products of some queries with some rows of the gallery.

    Attributes:
      start: number of the first row.
      rows: of the gallery, in any width.
      sizes: [Q] of all queries, what the sizes of a product's terms sum up to at most.
      queries: which.
      products: [queries, rows] float32.
    """

    start: int
    rows: npt.NDArray[np.floating]
    sizes: npt.NDArray[np.float64]
    queries: slice
    products: Float32Array


def multiply(
    queries: Float32Array,
    gallery: npt.NDArray[np.floating],
    pool: Executor,
    products: Products | None,
    longest: float | None,
) -> Iterator[Block]:
    """All products in turn, in the way that is fastest for this many queries and rows."""
    if len(queries) > _FEW:
        yield from _multiply_many(queries, gallery, pool)
        return
    done = 0
    if products is not None and gallery.dtype == np.float16 and gallery.dtype.isnative and gallery.flags.c_contiguous:
        done = len(gallery) // products.num_rows * products.num_rows
        yield from _multiply_with(products, queries, gallery[:done], pool, longest)
    if done < len(gallery):
        for block in _multiply_few(queries, gallery[done:], pool):
            yield block._replace(start=done + block.start)


def _multiply_with(
    products: Products,
    queries: Float32Array,
    gallery: npt.NDArray[np.float16],
    pool: Executor,
    longest: float | None,
) -> Iterator[Block]:
    """Whole blocks of rows, some of them ahead of what is asked for."""
    known = None if longest is None else sizes_by_length(queries, longest)

    def multiply(start: int) -> Block:
        rows = gallery[start : start + products.num_rows]
        product = products.multiply(queries, rows)  # first, as it brings the rows into the cache
        sizes = sizes_by_largest(queries, _largest(rows)) if known is None else known
        if not np.isfinite(product).all():
            raise InputError(NOT_FINITE)
        return Block(start, rows, sizes, slice(0, len(queries)), product)

    ahead = 2 * (os.cpu_count() or 1)  # so that no core waits for what is done with a block
    coming = collections.deque[Future[Block]]()
    for start in range(0, len(gallery), products.num_rows):
        coming.append(pool.submit(multiply, start))
        if len(coming) > ahead:
            yield coming.popleft().result()
    while coming:
        yield coming.popleft().result()


def _multiply_few(queries: Float32Array, gallery: npt.NDArray[np.floating], pool: Executor) -> Iterator[Block]:
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
        yield Block(start, chunk, sizes_by_largest(queries, largest), slice(0, len(queries)), block)


def _multiply_many(queries: Float32Array, gallery: npt.NDArray[np.floating], pool: Executor) -> Iterator[Block]:
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
        converted, sizes = memory[: len(chunk)], sizes_by_largest(queries, largest)
        for first in range(0, len(queries), block_rows):
            rows = slice(first, first + block_rows)
            yield Block(start, converted, sizes, rows, queries[rows] @ converted.T)


def _run_shares(work: Callable[[range], float], starts: range, pool: Executor) -> float:
    """The largest result of a task for each thread: handing a task over takes about as long as a step of it."""
    per_thread = -(-len(starts) // (os.cpu_count() or 1))
    return max(pool.map(work, [starts[i : i + per_thread] for i in range(0, len(starts), per_thread)]))


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
        largest = _largest(source)
        np.copyto(bits, source.view(np.int16))
        np.left_shift(bits, 13, out=bits)
        np.bitwise_and(bits, _SIGN_AND_REST, out=bits)
        np.multiply(filled, np.float32(2.0**112), out=filled)
        return filled, largest
    if not np.isfinite(largest):
        raise InputError(_BROKEN)
    return filled, largest


def _largest(rows: npt.NDArray[np.float16]) -> float:
    """Size of the largest number; `rows` without gaps, as an infinite one or a NaN is refused."""
    # As whole numbers, the largest are at the upper end of the positive and of the negative ones.
    size = max(int(rows.view(np.int16).max()), int(rows.view(np.uint16).max()) - 2**15, 0)
    if size >= _HALF_INFINITY:
        raise InputError(_BROKEN)
    return float(np.uint16(size).view(np.float16))
