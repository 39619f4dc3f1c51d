"""How far scores scatter, and what difference that leaves to be seen: intervals, power of Welch's t-test, an F test."""

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
from scipy import optimize, special, stats

from icre_jax.experiments.evidence import CONFIDENCE, ROUNDING, SIGNIFICANCE

POWER = 0.8
_NUM_QUANTILES = 400  # of each of the two integrals


@dataclasses.dataclass(frozen=True)
class Deviation:
    """A sample standard deviation (divisor n - 1) with its confidence interval; NaN where one run is too few."""

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Ratio:
    """Of two standard deviations, first over second, with confidence interval and p; NaN where nothing can be said."""

    value: float
    low: float
    high: float
    p: float


def deviation(values: Sequence[float]) -> Deviation:
    """Standard deviation of normal values: (n - 1) s^2 / sigma^2 has a chi-square distribution, n - 1 degrees.

    Args:
      values: at least one.
    """
    degrees = len(values) - 1
    if degrees < 1:
        return Deviation(math.nan, math.nan, math.nan)
    value = float(np.std(values, ddof=1))
    tail = (1 - CONFIDENCE) / 2
    low, high = (value * math.sqrt(degrees / stats.chi2.ppf(share, degrees)) for share in (1 - tail, tail))
    return Deviation(value, low, high)


def compare(first: Sequence[float], second: Sequence[float]) -> Ratio:
    """The F test of two independent samples of normal values, two-sided: do they scatter alike?

    F = s1^2 / s2^2 over sigma1^2 / sigma2^2 has an F distribution with n1 - 1 and n2 - 1 degrees.

    Args:
      first, second: the samples. Without two values of each, or where one does not scatter at all, there is no test.
    """
    if min(len(first), len(second)) < 2:
        return Ratio(math.nan, math.nan, math.nan, math.nan)
    spreads = float(np.std(first, ddof=1)), float(np.std(second, ddof=1))
    if min(spreads) < ROUNDING:
        return Ratio(math.nan, math.nan, math.nan, math.nan)
    ratio = spreads[0] / spreads[1]
    law = stats.f(len(first) - 1, len(second) - 1)
    tail = (1 - CONFIDENCE) / 2
    low, high = (ratio / math.sqrt(law.ppf(share)) for share in (1 - tail, tail))
    p = min(1.0, 2 * min(law.cdf(ratio**2), law.sf(ratio**2)))
    return Ratio(ratio, low, high, float(p))


def power(difference: float, num_runs: int) -> float:
    """Probability that Welch's t-test, two-sided at 5 %, tells two rows apart.

    t = (m1 - m2) / sqrt((s1^2 + s2^2) / k) is compared with the 97.5 % quantile c of Student's t of
    nu = (k - 1) / (b^2 + (1 - b)^2) degrees, b = s1^2 / (s1^2 + s2^2). Of normal scores that scatter with sigma in both
    rows, b has a Beta((k - 1) / 2, (k - 1) / 2) distribution, and t is (z + delta sqrt(k / 2) / sigma) / sqrt(w / 2 /
    (k - 1)) with z ~ N(0, 1) and w ~ chi-square of 2 (k - 1) degrees, all of them independent. The power is the
    probability of |t| > c: over z by its formula, over b and w as a mean over equally probable values.

    Args:
      difference: delta / sigma, the true difference of the rows in standard deviations over runs, 0 or more.
      num_runs: k of either row, 2 or more.
    """
    middles = (np.arange(_NUM_QUANTILES) + 0.5) / _NUM_QUANTILES
    shares = stats.beta.ppf(middles, (num_runs - 1) / 2, (num_runs - 1) / 2)
    critical = stats.t.ppf(1 - SIGNIFICANCE / 2, (num_runs - 1) / (shares**2 + (1 - shares) ** 2))
    degrees = 2 * (num_runs - 1)
    limits = np.outer(critical, np.sqrt(stats.chi2.ppf(middles, degrees) / degrees))
    shift = difference * math.sqrt(num_runs / 2)
    return float(np.mean(special.ndtr(shift - limits) + special.ndtr(-shift - limits)))


@functools.cache
def smallest_difference(num_runs: int) -> float:
    """The true difference, in standard deviations over runs, that k runs per row resolve with a power of 80 %.

    Args:
      num_runs: k, 2 or more.
    """
    enough = 1.0
    while power(enough, num_runs) < POWER:
        enough *= 2
    return float(optimize.brentq(lambda difference: power(difference, num_runs) - POWER, 0, enough))
