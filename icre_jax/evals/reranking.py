"""k-reciprocal re-ranking (Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", 2017).

The published algorithm, to the letter, with memory that grows with N times k1, not with N x N: distances are computed
in blocks of rows, neighbour sets and the encoding V are sparse matrices. Queries and gallery are one set of N = Q + G
images there, so a query's answer depends on the other queries: a re-ranked number is not comparable with a plain one.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from icre_jax.evals.ranking import Embedded, Float32Array, IntArray, check_feature_sizes, normalize

# Elements of one block: of distances (4 bytes each), of gathered features, of pairs of non-zeros.
_BLOCK_ELEMENTS = 2**22


def rerank(query: Embedded, gallery: Embedded, *, k1: int = 20, k2: int = 6, weight: float = 0.3) -> Float32Array:
    """[Q, G] float32: 1 minus the re-ranked distance, to be ranked like a similarity.

    The distance is (1 - weight) J + weight d, where J is the Jaccard distance of the encodings, and d the squared
    Euclidean distance of normalised features, divided by the largest of its row over all N images.

    Args:
      query: Q images.
      gallery: G images, those of the trial alone: all of them take part.
      k1: size of the neighbourhoods. k2: of the local query expansion. weight: lambda of the paper.

    Raises:
      InputError: the feature sizes differ.
    """
    check_feature_sizes(query, gallery)
    unit = normalize(np.concatenate([query.features, gallery.features]))
    neighbours, largest = _nearest(unit, k1 + 1)
    encoding = _encode(unit, neighbours, largest, k1)
    if k2 > 1:
        expansion = neighbours[:, :k2]
        encoding = (_indicator(expansion).astype(np.float32) / np.float32(expansion.shape[1])) @ encoding
    answer = np.empty((len(query), len(gallery)), np.float32)
    of_gallery = sparse.csc_matrix(encoding[len(query) :])
    for start, stop, shared in _shared_mass(encoding[: len(query)], of_gallery):
        distance = (2 - 2 * (unit[start:stop] @ unit[len(query) :].T)) / largest[start:stop, None]
        jaccard = 1 - shared / (2 - shared)
        answer[start:stop] = 1 - ((1 - weight) * jaccard + weight * distance)
    return answer


def _nearest(unit: Float32Array, k: int) -> tuple[IntArray, Float32Array]:
    """The k nearest of all N images, itself among them, nearest first, ties by index: [N, k]; largest distances [N]."""
    num_images = len(unit)
    k = min(k, num_images)
    neighbours = np.empty((num_images, k), np.int64)
    largest = np.empty(num_images, np.float32)
    step = max(1, _BLOCK_ELEMENTS // num_images)
    for start in range(0, num_images, step):
        distance = 2 - 2 * (unit[start : start + step] @ unit.T)
        largest[start : start + step] = distance.max(axis=1)
        kth = np.partition(distance, k - 1, axis=1)[:, k - 1, None]
        # All that tie with the k-th are in, so at least k in each row.
        row, column = np.nonzero(distance <= kth)
        order = np.lexsort((column, distance[row, column], row))
        begin = np.searchsorted(row, np.arange(len(distance)))
        neighbours[start : start + step] = column[order[begin[:, None] + np.arange(k)]]
    # All images alike: every distance is 0, whatever it is divided by.
    return neighbours, np.maximum(largest, np.finfo(np.float32).tiny)


def _indicator(neighbours: IntArray) -> sparse.csr_matrix:
    """[N, N], 1 where the column is among the row's neighbours [N, k]."""
    num_images, k = neighbours.shape
    ones = np.ones(neighbours.size, np.int32)
    return sparse.csr_matrix((ones, neighbours.ravel(), np.arange(0, neighbours.size + 1, k)), (num_images, num_images))


def _reciprocal(neighbours: IntArray) -> sparse.csr_matrix:
    """R(p, k) of the paper: [N, N], 1 where each is among the other's neighbours."""
    forward = _indicator(neighbours)
    return sparse.csr_matrix(forward.multiply(forward.T))


def _encode(unit: Float32Array, neighbours: IntArray, largest: Float32Array, k1: int) -> sparse.csr_matrix:
    """V of the paper: [N, N], exp(-d) over the expanded reciprocal neighbours R*(p, k1), rows summing to 1."""
    full = _reciprocal(neighbours)
    half = _reciprocal(neighbours[:, : int(np.around(k1 / 2)) + 1])
    # A neighbour's own (half as wide) set joins if more than two thirds of it are neighbours already.
    overlap = sparse.coo_matrix((full @ half.T).multiply(full))
    size = np.asarray(half.sum(axis=1)).ravel()
    joins = overlap.data > 2 / 3 * size[overlap.col]
    candidates = sparse.csr_matrix(
        (np.ones(int(joins.sum()), np.int32), (overlap.row[joins], overlap.col[joins])), full.shape
    )
    expanded = sparse.coo_matrix(full + candidates @ half)
    row, column = expanded.row, expanded.col
    weights = np.empty(len(row), np.float32)
    step = max(1, _BLOCK_ELEMENTS // unit.shape[1])
    for start in range(0, len(row), step):
        pairs = slice(start, start + step)
        similarity = np.einsum("nd,nd->n", unit[row[pairs]], unit[column[pairs]])
        weights[pairs] = np.exp(-(2 - 2 * similarity) / largest[row[pairs]])
    sums = np.bincount(row, weights, minlength=len(unit))
    return sparse.csr_matrix((weights / sums[row].astype(np.float32), (row, column)), full.shape)


def _shared_mass(
    of_query: sparse.csr_matrix, of_gallery: sparse.csc_matrix
) -> Iterator[tuple[int, int, npt.NDArray[Any]]]:
    """Blocks (start, stop, [stop - start, G]) of sum over n of min(V[q, n], V[g, n]); 1 is the most."""
    num_queries, num_gallery = of_query.shape[0], of_gallery.shape[0]
    length = np.diff(of_gallery.indptr)
    pairs = np.add.accumulate(np.append(0, length[of_query.indices]), dtype=np.int64)[of_query.indptr]
    start = 0
    while start < num_queries:
        # As many queries as the block holds, in pairs of non-zeros and in columns of the answer.
        fits = int(np.searchsorted(pairs, pairs[start] + _BLOCK_ELEMENTS, side="right")) - 1
        stop = max(start + 1, min(fits, start + max(1, _BLOCK_ELEMENTS // num_gallery), num_queries))
        begin, end = of_query.indptr[start], of_query.indptr[stop]
        column, value = of_query.indices[begin:end], of_query.data[begin:end]
        row = np.repeat(np.arange(stop - start), np.diff(of_query.indptr[start : stop + 1]))
        count = length[column]
        # Every non-zero of a query meets all gallery non-zeros of its column, which lie side by side.
        before = np.cumsum(count) - count
        met = np.arange(int(count.sum())) + np.repeat(of_gallery.indptr[column] - before, count)
        least = np.minimum(np.repeat(value, count), of_gallery.data[met])
        cell = np.repeat(row * num_gallery, count) + of_gallery.indices[met]
        shared = np.bincount(cell, least, minlength=(stop - start) * num_gallery)
        yield start, stop, shared.reshape(stop - start, num_gallery)
        start = stop
