"""Laws every forecaster keeps, on generated histories; the library's methods keep them too, on fewer cases.

Read next: `test_forecast_parts.py` for the pieces, `test_forecast_accuracy.py` for figures on real demand.
"""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sageserve.base.errors import PlanError
from sageserve.base.records import Floats
from sageserve.base.rng import stream
from sageserve.base.units import DAY, HOUR, MINUTE
from sageserve.core.forecast import DEFAULT, FORECASTERS, QuantileForecast, Series, backtest, forecaster, origins

LEVELS = (0.1, 0.5, 0.9)
FAST = ("blend", "last-value", "seasonal-naive", "weekly-naive")
SLOW = tuple(name for name in FORECASTERS if name not in FAST)
BINS = st.sampled_from([MINUTE, 2 * MINUTE, 5 * MINUTE, 7 * MINUTE, 10 * MINUTE, 15 * MINUTE, HOUR])


def demand(seed: int, bins: int, *, bin_us: int, level: float, gaps: float) -> Series:
    """Noisy demand with a daily cycle, some bins missing; a few patterns by seed."""
    rng = stream(seed, "tests/forecast")
    hours = np.arange(bins) * bin_us / HOUR
    shape = 1 + rng.uniform(0, 0.95) * np.sin(2 * np.pi * (hours / 24 + rng.uniform()))
    values = level * shape * rng.lognormal(0, rng.choice([0.02, 0.2, 1.0]), bins)
    if rng.uniform() < 0.3:  # a client that sleeps part of the day
        values[np.sin(2 * np.pi * hours / 24) < rng.uniform(-0.5, 0.9)] = 0.0
    values[rng.uniform(size=bins) < gaps] = np.nan
    return Series(values, bin_us, start=seed * MINUTE)


@st.composite
def histories(draw: st.DrawFn) -> Series:
    bin_us = draw(BINS)
    longest = min(1_500, 10 * DAY // bin_us)
    return demand(
        draw(st.integers(0, 10_000)),
        draw(st.integers(1, longest)),
        bin_us=bin_us,
        level=draw(st.sampled_from([1e-3, 1.0, 1e6])),
        gaps=draw(st.sampled_from([0.0, 0.1, 0.7])),
    )


def observed(series: Series) -> bool:
    return bool(np.isfinite(series.values).any())


def check(series: Series, bins: int, made: QuantileForecast) -> None:
    assert made.start == series.start + len(series) * series.bin
    assert made.bin == series.bin
    assert made.point.shape == (bins,)
    assert made.values.shape == (bins, len(LEVELS))
    assert np.isfinite(made.point).all()
    assert np.isfinite(made.values).all()
    assert (made.point >= 0).all()
    assert (made.values >= 0).all()
    assert (np.diff(made.values, axis=1) >= 0).all()


@pytest.mark.parametrize("name", FAST)
class TestFast:
    @given(series=histories(), bins=st.integers(1, 40))
    def test_shape_sign_order_and_timestamps(self, name: str, series: Series, bins: int) -> None:
        assume(observed(series))
        check(series, bins, forecaster(name).fit(series).predict(bins, LEVELS))

    @given(series=histories(), bins=st.integers(1, 40), power=st.integers(-20, 20))
    def test_scale_equivariant(self, name: str, series: Series, bins: int, power: int) -> None:
        assume(observed(series))
        factor = 3.0**power
        scaled = Series(series.values * factor, series.bin, series.start)
        one = forecaster(name).fit(series).predict(bins, LEVELS)
        other = forecaster(name).fit(scaled).predict(bins, LEVELS)
        near = 1e-6 * factor * float(np.nanmean(series.values))
        np.testing.assert_allclose(other.point, one.point * factor, rtol=1e-6, atol=near)
        np.testing.assert_allclose(other.values, one.values * factor, rtol=1e-5, atol=10 * near)

    @given(series=histories(), cut=st.floats(0.3, 1.0), bins=st.integers(1, 20), late=st.integers(0, 1000))
    def test_the_future_changes_nothing(self, name: str, series: Series, cut: float, bins: int, late: int) -> None:
        now = series.start + int(cut * len(series) * series.bin)
        known = series.until(now)
        assume(len(known) > 0 and observed(known))
        changed = series.values.copy()
        changed[len(known) :] = 1e9 + late
        same = Series(changed, series.bin, series.start).until(now)
        assert known.end <= now
        one = forecaster(name).fit(known).predict(bins, LEVELS)
        other = forecaster(name).fit(same).predict(bins, LEVELS)
        np.testing.assert_array_equal(one.point, other.point)
        np.testing.assert_array_equal(one.values, other.values)

    @given(level=st.floats(1e-3, 1e9), n=st.integers(1, 900), bin_us=BINS, bins=st.integers(1, 40))
    def test_constant_stays_constant(self, name: str, level: float, n: int, bin_us: int, bins: int) -> None:
        made = forecaster(name).fit(Series(np.full(n, level), bin_us)).predict(bins, LEVELS)
        np.testing.assert_allclose(made.point, level, rtol=1e-6)
        np.testing.assert_allclose(made.values, level, rtol=1e-4)

    @given(n=st.integers(1, 900), bin_us=BINS)
    def test_nothing_stays_nothing(self, name: str, n: int, bin_us: int) -> None:
        made = forecaster(name).fit(Series(np.zeros(n), bin_us)).predict(12, LEVELS)
        assert not made.point.any()
        assert not made.values.any()

    def test_a_longer_horizon_begins_with_the_shorter(self, name: str) -> None:
        series = demand(3, 900, bin_us=10 * MINUTE, level=1.0, gaps=0.0)
        fitted = forecaster(name).fit(series)
        np.testing.assert_allclose(fitted.predict(8).point, fitted.predict(64).point[:8], rtol=0.02)

    def test_predicts_further_than_the_history_is_long(self, name: str) -> None:
        series = demand(5, 300, bin_us=15 * MINUTE, level=1.0, gaps=0.0)
        check(series, 700, forecaster(name).fit(series).predict(700, LEVELS))


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
class TestLibrary:
    @pytest.fixture(autouse=True)
    def _library(self) -> None:
        pytest.importorskip("statsforecast", reason="the extra `forecast` is not installed")

    @settings(max_examples=2)
    @given(seed=st.integers(0, 100), gaps=st.sampled_from([0.0, 0.3]), n=st.integers(1, 250))
    def test_shape_sign_order_and_timestamps(self, name: str, seed: int, gaps: float, n: int) -> None:
        series = demand(seed, n, bin_us=15 * MINUTE, level=1e6, gaps=gaps)
        assume(observed(series))
        check(series, 4, forecaster(name).fit(series).predict(4, LEVELS))

    def test_scale_equivariant(self, name: str) -> None:
        series = demand(1, 250, bin_us=15 * MINUTE, level=1.0, gaps=0.0)
        one = forecaster(name).fit(series).predict(4).point
        other = forecaster(name).fit(Series(series.values * 1e6, series.bin)).predict(4).point
        np.testing.assert_allclose(other, one * 1e6, rtol=1e-3)

    def test_constant_stays_constant(self, name: str) -> None:
        made = forecaster(name).fit(Series(np.full(200, 7.0), 15 * MINUTE)).predict(4, LEVELS)
        np.testing.assert_allclose(made.point, 7.0, rtol=1e-6)


@pytest.mark.parametrize("name", FORECASTERS)
def test_nothing_observed_is_a_clear_error(name: str) -> None:
    for values in (np.empty(0), np.full(50, np.nan)):
        with pytest.raises(PlanError, match="at least one observed bin"):
            forecaster(name).fit(Series(values, MINUTE))


@pytest.mark.parametrize("name", FAST)
def test_one_bin_of_history_falls_back_to_it_and_says_it_is_not_calibrated(name: str) -> None:
    made = forecaster(name).fit(Series(np.array([np.nan, 5.0]), MINUTE)).predict(3, LEVELS)
    np.testing.assert_allclose(made.point, 5.0)
    np.testing.assert_allclose(made.values, 5.0)
    assert not made.calibrated


BAD: list[tuple[str, Callable[[], object]]] = [
    ("no forecaster is called", lambda: forecaster("oracle-bone")),
    ("is empty", lambda: forecaster(DEFAULT).fit(Series(np.ones(9), MINUTE)).predict(0)),
    ("between 0 and 1", lambda: forecaster(DEFAULT).fit(Series(np.ones(9), MINUTE)).predict(1, (1.0,))),
    ("not negative", lambda: Series(np.array([1.0, -1.0]), MINUTE)),
    ("not negative", lambda: Series(np.array([np.inf]), MINUTE)),
    ("one column", lambda: Series(np.ones((2, 2)), MINUTE)),
    ("no length", lambda: Series(np.ones(2), 0)),
    ("origins inside", lambda: backtest(Series(np.ones(9), MINUTE), forecaster("last-value"), at=[])),
    ("origins inside", lambda: backtest(Series(np.ones(9), MINUTE), forecaster("last-value"), at=[10])),
]


@pytest.mark.parametrize(("words", "mistake"), BAD)
def test_mistakes_are_named(words: str, mistake: Callable[[], object]) -> None:
    with pytest.raises(PlanError, match=words) as caught:
        mistake()
    assert caught.value.hint


def test_a_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "statsforecast", None)
    with pytest.raises(PlanError, match="not installed") as caught:
        forecaster("arima")
    assert "sageserve[forecast]" in caught.value.hint


def daily(bins: int, bin_us: int, noise: float) -> Floats:
    """Demand of a working day, exactly repeated up to noise."""
    rng = stream(1, "tests/forecast/daily")
    hours = np.arange(bins) * bin_us / HOUR
    return np.asarray((2 + np.sin(2 * np.pi * hours / 24)) * rng.lognormal(0, noise, bins))


@pytest.mark.parametrize("noise", [0.05, 0.3])
def test_the_default_beats_both_baselines_and_covers_on_a_daily_cycle(noise: float) -> None:
    series = Series(daily(5 * 144, 10 * MINUTE, noise), 10 * MINUTE)
    at = origins(series, first=3 * DAY, last=5 * DAY, every=2 * HOUR)
    scores = {name: backtest(series, forecaster(name), at=at)["20-60 min"] for name in FAST[:3]}
    missed = {name: score.missed for name, score in scores.items()}
    assert missed["blend"] < min(missed["last-value"], missed["seasonal-naive"])
    coverage = scores["blend"].coverage
    assert coverage is not None
    assert 0.72 < coverage < 0.88  # 96 bins: 80 % give or take two standard errors


def test_a_broken_habit_is_noticed_within_hours() -> None:
    values = daily(6 * 288, 5 * MINUTE, 0.05)
    values[5 * 288 :] = 0.2  # the weekend
    series = Series(values, 5 * MINUTE)
    at = [5 * 288 + 12 * hour for hour in range(6, 20)]
    score = backtest(series, forecaster(DEFAULT), at=at)["20-60 min"]
    assert score.wape is not None
    assert score.wape < 0.1
