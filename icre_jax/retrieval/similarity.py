"""The similarity that a search reports, whoever computes it: an inner product in float64, rounded to float32 once.

A product in float32 depends in its last bits on how its sum is cut up: on chunks, on the number of queries, on threads,
devices and kinds of CPU. It only says which rows are worth a closer look. What those get here does not depend on any of
that, and so one machine, several devices and several machines report the same numbers in the same order.

Shape letters: Q queries, N rows of the gallery, D size of an embedding, M pairs.
"""

import numpy as np
import numpy.typing as npt

from icre_jax.evals.ranks import Float32Array, IntArray

_PAIR_ELEMENTS = 2**18  # of pairs in float64 at a time: 2 MiB on each side
_UNIT = 2.0**-24  # relative error of a rounding to float32
_SPARE = 8  # roundings beside those of the sum: of the result, of a threshold
_SMALLEST_NORMAL = 2.0**-126  # what a device may take for zero


def score_pairs(
    queries: Float32Array, rows: npt.NDArray[np.floating], query_of: IntArray, row_of: IntArray
) -> Float32Array:
    """Inner products of single queries with single rows.

    Args:
      queries: [Q, D].
      rows: [N, D] floats of any width; wider ones are rounded to float32 first.
      query_of, row_of: [M] each.

    Returns:
      [M] float32. Products of float32 numbers are exact in float64.
    """
    scores = np.empty(len(query_of), np.float32)
    step = max(1, _PAIR_ELEMENTS // queries.shape[1])
    for first in range(0, len(scores), step):
        pairs = slice(first, first + step)
        left = queries[query_of[pairs]].astype(np.float64)
        right = rows[row_of[pairs]].astype(np.float32).astype(np.float64)
        scores[pairs] = np.vecdot(left, right)
    return scores


def sizes_by_largest(queries: Float32Array, largest: float) -> npt.NDArray[np.float64]:
    """What the sizes of an inner product's terms sum up to at most, if no number of the rows is larger than `largest`.

    Args:
      queries: [Q, D].
      largest: size of the largest number.

    Returns:
      [Q].
    """
    return np.abs(queries).sum(axis=1, dtype=np.float64) * largest


def sizes_by_length(queries: Float32Array, longest: float) -> npt.NDArray[np.float64]:
    """The same if no row is longer than `longest` (Cauchy and Schwarz); a closer bound for rows of one length."""
    return np.sqrt(np.vecdot(queries, queries, dtype=np.float64)) * longest


def rounding_bound(dimensions: int, sizes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """By how much an inner product in float32 may differ from that of `score_pairs`, in whatever order it was summed.

    A sum of D products that is rounded at every step is off by at most D u / (1 - D u) times the sum of their sizes
    (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1), u the unit of rounding.

    Args:
      dimensions: D.
      sizes: [Q], the largest sums of sizes.

    Returns:
      [Q], a bound for every query; 0 where all terms are.
    """
    steps = dimensions + _SPARE
    bound = steps * _UNIT / (1 - steps * _UNIT) * sizes + steps * _SMALLEST_NORMAL
    return np.where(sizes > 0, bound, 0.0)
