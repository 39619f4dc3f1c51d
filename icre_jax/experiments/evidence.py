"""What scores of several runs can show: Welch's and the paired t-test, Holm's correction, and a verdict in words."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
SIGNIFICANCE = 0.05
# Differences of fractions below this are those of rounding.
ROUNDING = 1e-12


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A difference of two means, in the units of the scores; NaN for what cannot be said.

    Attributes:
      difference: first minus second.
      low, high: its confidence interval, at the level `CONFIDENCE`.
      p: probability of a difference at least as large, of either sign, where there is no effect.
    """

    difference: float
    low: float
    high: float
    p: float


def welch(first: Sequence[float], second: Sequence[float]) -> Outcome:
    """Welch's t-test of independent runs, whose spreads may differ.

    Args:
      first, second: scores, at least one each. One alone has no spread, so there is no test then; neither is there
        where all of both are equal, because equal scores of few runs are chance, not certainty.
    """
    difference = float(np.mean(first) - np.mean(second))
    if min(len(first), len(second)) < 2 or max(np.std(first), np.std(second)) < ROUNDING:
        return Outcome(difference, math.nan, math.nan, math.nan)
    result = stats.ttest_ind(first, second, equal_var=False)
    interval = result.confidence_interval(CONFIDENCE)
    return Outcome(difference, float(interval.low), float(interval.high), float(result.pvalue))


def paired(first: Sequence[float], second: Sequence[float]) -> Outcome:
    """The paired t-test: both scores of a pair belong to the same network.

    Args:
      first, second: scores, at least one each, pair by pair. If no network changes its score at all, the difference is
        0 in all of them and p is 1; equal differences other than 0 have no spread, so there is no test.
    """
    differences = np.subtract(first, second)
    difference = float(np.mean(differences))
    if len(differences) < 2:
        return Outcome(difference, math.nan, math.nan, math.nan)
    if np.max(np.abs(differences)) < ROUNDING:
        return Outcome(0.0, 0.0, 0.0, 1.0)
    if np.std(differences) < ROUNDING:
        return Outcome(difference, math.nan, math.nan, math.nan)
    result = stats.ttest_rel(first, second)
    interval = result.confidence_interval(CONFIDENCE)
    return Outcome(difference, float(interval.low), float(interval.high), float(result.pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: below 0.05 in any of them by chance alone with a probability of at most 0.05.

    The i-th smallest of m is multiplied by m - i + 1, at most 1 and at least what the smaller ones have become (Holm,
    Scandinavian Journal of Statistics 6, 1979).

    Args:
      p_values: of all comparisons of one table; NaN where there was no test, which counts as none and stays NaN.

    Returns:
      As many, in the same order.
    """
    adjusted = [math.nan] * len(p_values)
    ascending = sorted((i for i, p in enumerate(p_values) if not math.isnan(p)), key=lambda i: p_values[i])
    largest = 0.0
    for rank, i in enumerate(ascending):
        largest = max(largest, min(1.0, (len(ascending) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def verdict(test: Outcome, adjusted: float, *, num_runs: int, margin: float) -> str:
    """What a comparison shows, in words.

    Args:
      test: in fractions.
      adjusted: its p after correction.
      num_runs: of the side that has fewer.
      margin: percentage points, above 0; an effect that is smaller for certain is called none.
    """
    if num_runs < 2:
        return "one run: nothing can be said"
    if adjusted < SIGNIFICANCE:
        return f"resolved: {'better' if test.difference > 0 else 'worse'}"
    if -margin <= 100 * test.low and 100 * test.high <= margin:
        return f"no effect larger than {margin}"
    return "not resolved"
