"""Differences and chance: equal to SciPy's own tests, and no more false alarms than promised.

Read next: `tests/show/test_diff.py` for what is made of them.
"""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from sageserve.base.rng import stream
from sageserve.data.results.significance import beyond_chance, paired, proportions, welch

NUMBER = st.floats(-100, 100).map(lambda value: round(value, 3))
SIDE = st.lists(NUMBER, min_size=2, max_size=6)


@given(st.lists(st.tuples(NUMBER, NUMBER), min_size=2, max_size=6))
def test_equal_seeds_are_judged_as_scipy_judges_pairs(pairs: list[tuple[float, float]]) -> None:
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    assume(len({round(b - a, 6) for a, b in pairs}) > 1)
    found, asked = paired(first, second), stats.ttest_rel(second, first)
    low, high = asked.confidence_interval(0.95)
    assert (found.low, found.high, found.p) == pytest.approx((low, high, asked.pvalue), rel=1e-6, abs=1e-9)


@given(SIDE, SIDE)
def test_other_seeds_are_judged_as_scipy_judges_unequal_variances(first: list[float], second: list[float]) -> None:
    assume(len(set(first)) > 1 and len(set(second)) > 1)
    found, asked = welch(first, second), stats.ttest_ind(second, first, equal_var=False)
    low, high = asked.confidence_interval(0.95)
    assert (found.low, found.high, found.p) == pytest.approx((low, high, asked.pvalue), rel=1e-6, abs=1e-9)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_many_numbers_are_judged_as_benjamini_and_hochberg_say(p_values: list[float]) -> None:
    assume(all(abs(p - 0.05 * k / len(p_values)) > 1e-9 for p in p_values for k in range(1, len(p_values) + 1)))
    assert beyond_chance(p_values) == [bool(p <= 0.05) for p in stats.false_discovery_control(p_values)]


def test_the_same_difference_with_every_seed_is_no_chance() -> None:
    assert (paired([1.0, 2.0], [1.0, 2.0]).p, paired([1.0, 2.0], [2.0, 3.0]).p) == (1.0, 0.0)
    assert (welch([1.0, 1.0], [1.0, 1.0]).p, welch([1.0, 1.0], [3.0, 3.0]).p) == (1.0, 0.0)
    assert beyond_chance([]) == []


def test_shares_of_equal_services_differ_as_often_as_promised() -> None:
    draws = stream(7, "shares").binomial(500, 0.9, size=(2000, 2)) / 500
    outside = sum(not (one := proportions(a, 500, b, 500)).low <= 0 <= one.high for a, b in draws.tolist())
    assert 0.03 < outside / len(draws) < 0.07
    assert proportions(1.0, 500, 1.0, 500).low < 0 < proportions(1.0, 500, 1.0, 500).high  # all is not certainty
