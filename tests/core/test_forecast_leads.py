"""Forecasts at every lead up to a whole season and beyond: against the value one season earlier, looked up bin by bin.

Read next: `src/sageserve/core/forecast/naive.py`; `test_forecast_laws.py` for what holds at any lead.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sageserve.base.records import Floats
from sageserve.base.rng import stream
from sageserve.base.units import DAY, HOUR, WEEK
from sageserve.core.forecast import Series, forecaster
from sageserve.core.forecast.naive import last_value, or_else, seasonal

DAILY, WEEKLY = 24, 168  # bins of an hour


def cycle(period: int, seed: int = 1) -> Floats:
    """One season in which every bin has a value of its own."""
    return np.asarray(stream(seed, "tests/forecast/leads").permutation(period) + 1.0)


def looked_up(values: Floats, lead: int, period: int) -> float:
    """The value of the newest earlier season at the same phase; where that is missing, the last that was observed."""
    at = len(values) - 1 + lead
    while at >= len(values):
        at -= period
    if at >= 0 and np.isfinite(values[at]):
        return float(values[at])
    return float(values[np.isfinite(values)][-1])


@pytest.mark.parametrize(("name", "period", "span"), [("seasonal-naive", DAILY, DAY), ("weekly-naive", WEEKLY, WEEK)])
@pytest.mark.parametrize("more", [0, 1, 5, 23])
def test_a_season_that_repeats_is_foretold_at_every_lead(name: str, period: int, span: int, more: int) -> None:
    """Also when the history ends in the middle of one, and up to two seasons ahead."""
    assert span == period * HOUR
    season = cycle(period)
    known = np.tile(season, 3)[: 2 * period + more]
    made = forecaster(name).fit(Series(known, HOUR)).predict(2 * period)
    coming = np.tile(season, 5)[len(known) : len(known) + 2 * period]
    assert made.point.tolist() == coming.tolist()


@pytest.mark.parametrize("more", [0, 7])
def test_the_default_foretells_a_day_that_repeats_at_every_lead(more: int) -> None:
    season = 100.0 + 50.0 * np.sin(2 * np.pi * np.arange(DAILY) / DAILY)
    known = np.tile(season, 7)[: 6 * DAILY + more]
    made = forecaster("blend").fit(Series(known, HOUR)).predict(DAILY + 3)
    coming = np.tile(season, 9)[len(known) : len(known) + DAILY + 3]
    assert made.point == pytest.approx(coming, rel=0.03)


@given(
    st.lists(st.one_of(st.floats(0, 100), st.just(float("nan"))), min_size=1, max_size=40).filter(
        lambda row: np.isfinite(row).any()
    ),
    st.integers(1, 12),
    st.integers(1, 40),
)
def test_the_value_one_season_earlier_is_found_as_if_looked_up(values: list[float], period: int, horizon: int) -> None:
    known, leads = np.array(values), np.arange(1, horizon + 1)
    past = or_else(seasonal(known, leads, horizon, period=period), last_value(known, leads, horizon))
    assert past.coming.tolist() == [looked_up(known, lead, period) for lead in leads.tolist()]
    for origin in range(int(np.argmax(np.isfinite(known))), len(known)):
        seen = known[: origin + 1]
        assert past.made[:, origin].tolist() == [looked_up(seen, lead, period) for lead in leads.tolist()], "at any origin"


@pytest.mark.parametrize("bins", [1, 23, 24, 25, 96, 97])
def test_fine_bins_are_foretold_as_fine_ones_at_every_lead(bins: int) -> None:
    """A quarter of an hour a bin: the season of a day has 96."""
    season = cycle(96, seed=2)
    made = forecaster("seasonal-naive").fit(Series(np.tile(season, 3), DAY // 96)).predict(bins)
    assert made.point.tolist() == np.tile(season, 2)[:bins].tolist()
    assert made.start == 3 * DAY
