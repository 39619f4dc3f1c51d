"""Tests, correction and verdicts: by hand, by other formulas, and by the properties that they must have."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from icre_jax.experiments.evidence import Outcome, holm, paired, verdict, welch

P_VALUES = st.lists(st.floats(0, 1), max_size=12)


def two_sided(t: float, degrees: float) -> float:
    """P(|T| >= |t|) by the incomplete beta function."""
    return special.betainc(degrees / 2, 0.5, degrees / (degrees + t * t))


def test_welch_by_its_own_formula():
    """Means 2 and 6, variances 1 and 4, three runs each: t = -4 / sqrt(5/3), 50/17 degrees of freedom."""
    outcome = welch([1, 2, 3], [4, 6, 8])
    error = math.sqrt(1 / 3 + 4 / 3)
    degrees = (1 / 3 + 4 / 3) ** 2 / ((1 / 3) ** 2 / 2 + (4 / 3) ** 2 / 2)
    assert degrees == pytest.approx(50 / 17)
    assert outcome.difference == -4
    assert outcome.p == pytest.approx(two_sided(4 / error, degrees))
    # At the ends of the interval t is the one whose p is 0.05.
    assert two_sided((outcome.high + 4) / error, degrees) == pytest.approx(0.05)
    assert outcome.high + outcome.low == pytest.approx(-8)


def test_the_paired_test_by_its_own_formula():
    """Differences 1, 2, 3: mean 2, standard error 1 / sqrt(3), two degrees of freedom."""
    outcome = paired([11, 22, 33], [10, 20, 30])
    t = 2 * math.sqrt(3)
    assert outcome.difference == 2
    assert outcome.p == pytest.approx(two_sided(t, 2))
    assert outcome.p == pytest.approx(1 - t / math.sqrt(2 + t * t))  # the closed form of two degrees of freedom
    assert two_sided((outcome.high - 2) * math.sqrt(3), 2) == pytest.approx(0.05)
    assert outcome.high + outcome.low == pytest.approx(4)


@pytest.mark.parametrize("test", [welch, paired])
def test_what_has_no_spread_has_no_test(test):
    for first, second in (([0.3], [0.2]), ([0.3, 0.3, 0.3], [0.2, 0.2, 0.2])):
        outcome = test(first, second)
        assert outcome.difference == pytest.approx(0.1)
        assert all(map(math.isnan, (outcome.low, outcome.high, outcome.p)))
    # Rounding is no spread.
    assert math.isnan(test([0.1 + 0.2, 0.3], [0.2, 0.2]).p)


def test_one_run_beside_many_is_too_few():
    assert math.isnan(welch([0.3], [0.2, 0.1, 0.3]).p)


def test_a_part_that_changes_no_score_has_no_effect():
    assert paired([0.1, 0.3, 0.2], [0.1, 0.3, 0.2]) == Outcome(0, 0, 0, 1)
    assert math.isnan(welch([0.1, 0.1], [0.1, 0.1]).p)  # equal by chance


def test_holm_by_hand():
    # 0.005 x 4; 0.01 x 3; 0.03 x 2; 0.04 x 1, which may not be below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([0.04]) == [0.04]
    assert holm([]) == []


def test_holm_counts_tests_only():
    adjusted = holm([0.02, math.nan, 0.03])
    assert adjusted[::2] == pytest.approx([0.04, 0.04])
    assert math.isnan(adjusted[1])


@given(P_VALUES)
@settings(deadline=None)
def test_holm_keeps_order_and_never_helps(raw):
    adjusted = holm(raw)
    for i, p in enumerate(raw):
        assert p <= adjusted[i] <= 1
        # Another formula: the worst of the tests that are as small or smaller, each times the tests not below it.
        worst = max(q * sum(other >= q for other in raw) for q in raw if q <= p)
        assert adjusted[i] == pytest.approx(min(1, worst))
        for j, q in enumerate(raw):
            assert p > q or adjusted[i] <= adjusted[j]


@given(P_VALUES, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_holm_does_not_depend_on_the_order(raw, random):
    order = list(range(len(raw)))
    random.shuffle(order)
    adjusted = holm(raw)
    assert holm([raw[i] for i in order]) == [adjusted[i] for i in order]


@pytest.mark.parametrize(
    ("outcome", "adjusted", "words"),
    [
        (Outcome(0.02, 0.01, 0.03, 0.01), 0.049, "resolved: better"),
        (Outcome(-0.02, -0.03, -0.01, 0.01), 0.049, "resolved: worse"),
        (Outcome(0.02, 0.001, 0.039, 0.01), 0.05, "not resolved"),
        (Outcome(0.001, -0.004, 0.006, 0.6), 1.0, "no effect larger than 1.0"),
        (Outcome(0.001, -0.004, 0.0101, 0.6), 1.0, "not resolved"),
        (Outcome(-0.001, -0.0101, 0.004, 0.6), 1.0, "not resolved"),
        (Outcome(0.0, 0.0, 0.0, 1.0), 1.0, "no effect larger than 1.0"),
        (Outcome(0.02, math.nan, math.nan, math.nan), math.nan, "not resolved"),
    ],
)
def test_verdicts(outcome, adjusted, words):
    assert verdict(outcome, adjusted, num_runs=3, margin=1.0) == words
    assert verdict(outcome, adjusted, num_runs=1, margin=1.0) == "one run: nothing can be said"


def test_a_wider_margin_takes_more_for_no_effect():
    outcome = Outcome(0.001, -0.015, 0.017, 0.8)
    assert verdict(outcome, 1.0, num_runs=8, margin=1.0) == "not resolved"
    assert verdict(outcome, 1.0, num_runs=8, margin=2.0) == "no effect larger than 2.0"


def test_where_there_is_no_effect_few_intervals_miss_it():
    """Of 400 pairs of samples of one distribution about 20 are called different; 400 x 0.05 ± 4 standard errors."""
    rng = np.random.default_rng(0)
    outcomes = [welch(*rng.normal(0.1, [[0.01], [0.02]], (2, 8))) for _ in range(400)]
    missed = sum(not outcome.low <= 0 <= outcome.high for outcome in outcomes)
    assert missed == sum(outcome.p < 0.05 for outcome in outcomes)
    assert 3 <= missed <= 37
