"""Exact search: the rows of a gallery that are most similar to each query, whatever the gallery's size.

The gallery is read in parts, each converted to float32 and multiplied with all queries: the memory that is needed does
not grow with the gallery. Nothing is approximated; a gallery in float16 (`icre_jax.retrieval.index`) is searched as
exactly as its rows are stored. The product in float32 says which rows can be among the best; their similarities, and
so their order, are those of `icre_jax.retrieval.similarity`. So whoever has a faster product may bring it (`Products`)
and finds the same.

Shape letters: Q queries, N rows of the gallery, D size of an embedding, k results of a query.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from icre_jax.errors import InputError
from icre_jax.evals.ranks import Float32Array, IntArray
from icre_jax.retrieval.products import NOT_FINITE, Block, Products, multiply
from icre_jax.retrieval.similarity import rounding_bound, score_pairs


@dataclass(frozen=True, eq=False)
class Found:
    """The best k rows of the gallery for each query, best first; equal similarities keep the gallery's order.

    Attributes:
      indices: [Q, k] int64 rows of the gallery.
      similarities: [Q, k] float32 inner products of `icre_jax.retrieval.similarity`; cosines, if rows have length 1.
    """

    indices: IntArray
    similarities: Float32Array


def search(
    queries: npt.NDArray[np.floating],
    gallery: npt.NDArray[np.floating],
    *,
    top: int = 10,
    products: Products | None = None,
    longest: float | None = None,
) -> Found:
    """Find the `top` rows of the gallery that have the largest inner product with each query.

    Args:
      queries: [Q, D] floats.
      gallery: [N, D] floats of any width, in memory or memory-mapped.
      top: k at most; fewer where the gallery has fewer rows.
      products: what to multiply few queries with float16 rows by; None for NumPy. The result is the same.
      longest: length that no row exceeds, where that is known, as of an index; None to look at all numbers.

    Raises:
      InputError: sizes that differ, an empty gallery, `top` below 1, or a value that is not finite.
    """
    queries = check_queries(queries, gallery, top)
    k = min(top, len(gallery))
    values = np.full((len(queries), k), -np.inf, np.float32)
    indices = np.full((len(queries), k), len(gallery), np.int64)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for block in multiply(queries, gallery, pool, products, longest):
            _keep_best(block, queries[block.queries], values[block.queries], indices[block.queries])
    return Found(indices, values)


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


def _keep_best(block: Block, queries: Float32Array, values: Float32Array, indices: IntArray) -> None:
    """Put what is better in `block` into `values` and `indices` [Q, k] of its queries [Q, D]."""
    k, products = values.shape[1], block.products
    largest = products.max(axis=1)  # NaN if one of them is
    if not np.isfinite(largest).all():
        raise InputError(NOT_FINITE)
    error = rounding_bound(queries.shape[1], block.sizes[block.queries])
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
