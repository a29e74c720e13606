"""The pieces of forecasting: causality of what would have been forecast, sums over the past, bands, the backtest.

Read next: `test_forecast_laws.py` for what holds of whole forecasters.
"""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sageserve.base.errors import PlanError
from sageserve.base.records import Floats
from sageserve.base.rng import stream
from sageserve.base.units import DAY, HOUR, MINUTE
from sageserve.core.forecast import FittedForecaster, LastValue, QuantileForecast, SeasonalNaive, Series, Span, backtest, origins
from sageserve.core.forecast.bands import bands, grid_of
from sageserve.core.forecast.blend import members, weights
from sageserve.core.forecast.naive import filled, seasonal
from sageserve.core.forecast.rolling import centred, cycle_mean, decayed, decayed_mean, weighted_quantiles

VALUES = arrays(np.float64, st.integers(1, 60), elements=st.floats(0, 1e6))


def noisy(seed: int, n: int) -> Floats:
    hours = np.arange(n) / 4
    return np.asarray((2 + np.sin(2 * np.pi * hours / 24)) * stream(seed, "tests/parts").lognormal(0, 0.2, n))


class TestRolling:
    @given(x=VALUES, half_life=st.floats(0.2, 50))
    @example(x=np.array([1e6, *[0.0] * 40]), half_life=1.0)
    def test_decayed_is_the_recursion(self, x: Floats, half_life: float) -> None:
        keep, total, slow = 0.5 ** (1 / half_life), 0.0, []
        for value in x:
            total = total * keep + value
            slow.append(total)
        unseen = 1e-9 * float(x.sum())  # what weighs less than a thousand-millionth is left out
        np.testing.assert_allclose(decayed(x, half_life), slow, rtol=1e-9, atol=1e-6 + unseen)

    def test_decayed_along_another_axis(self) -> None:
        x = stream(1, "tests/axis").normal(size=(3, 40, 2))
        np.testing.assert_array_equal(decayed(x, 2.5, axis=1), np.moveaxis(decayed(np.moveaxis(x, 1, -1), 2.5), -1, 1))

    @given(x=VALUES, reach=st.integers(0, 5))
    def test_centred_is_the_mean_around(self, x: Floats, reach: int) -> None:
        slow = [x[max(0, i - reach) : i + reach + 1].mean() for i in range(len(x))]
        np.testing.assert_allclose(centred(x, reach), slow, rtol=1e-9, atol=1e-6)

    def test_missing_bins_are_not_zeros(self) -> None:
        x = np.array([np.nan, 4.0, np.nan, 4.0])
        np.testing.assert_allclose(decayed_mean(x, 2.0), [np.nan, 4.0, 4.0, 4.0])
        np.testing.assert_allclose(centred(x, 1), [4.0, 4.0, 4.0, 4.0])
        np.testing.assert_allclose(cycle_mean(x, 2, 0.5), [np.nan, 4.0, np.nan, 4.0])

    def test_cycle_mean_weighs_newer_turns_more(self) -> None:
        np.testing.assert_allclose(cycle_mean(np.array([1.0, 2.0, 4.0]), 1, 0.5)[2], (4 + 0.5 * 2 + 0.25) / 1.75)

    def test_quantiles_move_outwards_with_few_values(self) -> None:
        values, weight = np.arange(1.0, 20.0), np.ones(19)
        low, high = weighted_quantiles(values, weight, (0.1, 0.9))
        assert (low, high) == (1.0, 18.0)  # conformal: rank ceil(0.9 · 20) of 19, and its mirror image
        assert weighted_quantiles(values, weight, (0.1, 0.9), repeats=2.0)[1] > high


class TestSeries:
    def test_until_leaves_out_the_bin_that_has_not_ended(self) -> None:
        series = Series(np.arange(5.0), MINUTE, start=3)
        assert len(series.until(3 + 2 * MINUTE)) == 2
        assert len(series.until(3 + 3 * MINUTE - 1)) == 2
        assert len(series.until(0)) == 0
        assert series.until(DAY).end == series.end

    def test_coarser_aligns_to_the_end_and_fills_gaps_with_the_group_mean(self) -> None:
        series = Series(np.array([9.0, 1.0, 2.0, np.nan, 4.0, np.nan, np.nan]), MINUTE)
        coarse = series.coarser(2)
        np.testing.assert_array_equal(coarse.values, [3.0, 8.0, np.nan])
        assert (coarse.start, coarse.end, coarse.bin) == (MINUTE, series.end, 2 * MINUTE)

    def test_filled_carries_the_last_observation(self) -> None:
        np.testing.assert_array_equal(filled(np.array([np.nan, 1.0, np.nan, 2.0, np.nan])), [1.0, 1.0, 1.0, 2.0, 2.0])

    def test_peak_reads_the_span_it_is_asked_for(self) -> None:
        point = np.array([9.0, 1.0, 2.0, 3.0, 8.0])
        made = QuantileForecast(0, MINUTE, point, (0.9,), 2 * point[:, None], calibrated=True)
        assert made.peak(MINUTE, 4 * MINUTE) == 3.0
        assert made.peak(MINUTE, 4 * MINUTE, level=0.9) == 6.0
        with pytest.raises(PlanError, match="no bin between"):
            made.peak(HOUR, 2 * HOUR)
        with pytest.raises(PlanError, match=r"no 0\.5 quantile"):
            made.at(0.5)


class TestCausality:
    """What would have been forecast at a past bin must not change when later bins trade places."""

    LEADS = np.array([1, 3, 8])

    @given(seed=st.integers(0, 50), cut=st.integers(150, 380))
    def test_members_and_weights_read_nothing_later(self, seed: int, cut: int) -> None:
        values = noisy(seed, 400)
        mixed = values.copy()
        mixed[cut:] = mixed[cut:][::-1]  # the mean, which scales everything, stays as it was
        made, shares = [], []
        for each in (values, mixed):
            grid = grid_of(Series(each, 15 * MINUTE), MINUTE)
            past = np.stack([member.made for member in members(grid, self.LEADS, 8)])
            made.append(past[:, :, :cut])
            shares.append(weights(grid, past, self.LEADS)[:, :, :cut])
        np.testing.assert_allclose(made[0], made[1], rtol=1e-7)
        np.testing.assert_allclose(shares[0], shares[1], rtol=1e-5, atol=1e-9)

    def test_seasonal_uses_the_newest_cycle_that_is_wholly_past(self) -> None:
        values = np.arange(10.0)
        past = seasonal(values, np.array([1, 4, 5]), 5, period=4)
        np.testing.assert_array_equal(past.coming, [6.0, 7.0, 8.0, 9.0, 6.0])
        np.testing.assert_array_equal(past.made[:, 6], [3.0, 6.0, 3.0])

    def test_weights_prefer_the_member_that_was_right(self) -> None:
        values = noisy(1, 300)
        grid, leads = grid_of(Series(values, 15 * MINUTE), MINUTE), np.array([1])
        right = np.append(values[1:], np.nan)[None, None, :]
        share = weights(grid, np.concatenate([right, right * 1.2]), leads)
        np.testing.assert_allclose(share.sum(axis=0), 1.0)
        assert share[0, 0, 100:].min() > 0.99

    def test_week_ago_is_used_once_it_can_be_judged(self) -> None:
        leads = np.array([1])
        counts = [len(members(grid_of(Series(noisy(1, n), 15 * MINUTE), MINUTE), leads, 1)) for n in (7 * 96, 8 * 96)]
        assert counts[1] == counts[0] + 2


class TestBands:
    @given(seed=st.integers(0, 30), spread=st.sampled_from([0.05, 0.4]))
    def test_bands_hold_the_share_they_promise(self, seed: int, spread: float) -> None:
        rng = stream(seed, "tests/bands")
        values = 10 * rng.lognormal(0, spread, 1_200)
        grid, leads = grid_of(Series(values[:1_000], 10 * MINUTE), MINUTE), np.array([1])
        made, coming = np.full((1, 1_000), 10.0), np.full(200, 10.0)
        values_made = bands(grid, made, coming, leads=leads, levels=(0.1, 0.9))
        assert values_made is not None
        inside = (values_made[:, 0] <= values[1_000:]) & (values[1_000:] <= values_made[:, 1])
        assert 0.68 < inside.mean() < 0.94

    def test_too_few_errors_give_no_bands(self) -> None:
        grid = grid_of(Series(np.ones(10), MINUTE), MINUTE)
        assert bands(grid, np.ones((1, 10)), np.ones(3), leads=np.array([1]), levels=(0.5,)) is None

    def test_finer_bins_have_wider_bands_than_their_sums(self) -> None:
        rng = stream(3, "tests/bands/fine")
        fine = Series(rng.gamma(1.0, 10.0, 3 * 1440), MINUTE)
        width = {}
        for series in (fine, fine.coarser(5)):
            made = LastValue().fit(series).predict(1, (0.1, 0.9))
            width[series.bin] = (made.values[0, 1] - made.values[0, 0]) / float(np.mean(series.values))
        assert width[MINUTE] > width[5 * MINUTE]


class TestBacktest:
    def test_scores_are_sums_over_demand(self) -> None:
        series = Series(np.array([1.0, 2.0, 4.0, 8.0]), HOUR)
        score = backtest(series, LastValue(), at=[1, 2, 3], spans=(Span("next", 0, HOUR),))["next"]
        assert score.wape == pytest.approx(7 / 14)
        assert score.bias == pytest.approx(-7 / 14)
        assert score.judged == 3

    def test_a_sum_forgives_errors_that_cancel(self) -> None:
        series = Series(np.array([2.0, 1.0, 3.0]), 30 * MINUTE)
        spans = (Span("bins", 0, HOUR), Span("sum", 0, HOUR, summed=True))
        scores = backtest(series, LastValue(), at=[1], spans=spans, intervals=False)
        assert scores["bins"].wape == pytest.approx(2 / 4)
        assert scores["sum"].wape == 0.0
        assert scores["sum"].coverage is None

    def test_missing_bins_are_not_judged(self) -> None:
        series = Series(np.array([1.0, 1.0, np.nan, 1.0]), HOUR)
        score = backtest(series, LastValue(), at=[1, 2, 3], spans=(Span("next", 0, HOUR),))["next"]
        assert (score.wape, score.judged) == (0.0, 2)

    def test_only_whole_spans_are_judged(self) -> None:
        series = Series(np.ones(10), HOUR)
        assert backtest(series, LastValue(), at=[8, 9], spans=(Span("two", 0, 2 * HOUR),))["two"].judged == 2

    def test_nothing_after_the_origin_is_shown_to_the_forecaster(self) -> None:
        shown: list[int] = []

        class Spy:
            name = "spy"

            def fit(self, history: Series) -> FittedForecaster:
                shown.append(len(history))
                return LastValue().fit(history)

        backtest(Series(np.ones(30), HOUR), Spy(), at=[5, 9])
        assert shown == [5, 9]

    def test_origins_step_through_the_span(self) -> None:
        series = Series(np.ones(100), 15 * MINUTE)
        assert origins(series, first=2 * HOUR, last=5 * HOUR) == [8, 12, 16, 20]
        assert origins(series, first=2 * HOUR, last=5 * HOUR + 30 * MINUTE) == [10, 14, 18, 22]

    def test_a_week_falls_back_to_a_day_and_a_day_to_the_last_value(self) -> None:
        weekly = SeasonalNaive(cycle=7 * DAY, name="weekly-naive")
        values = np.arange(200.0)
        assert weekly.fit(Series(values, HOUR)).predict(1).point[0] == 200 - 168
        assert weekly.fit(Series(values[:100], HOUR)).predict(1).point[0] == 100 - 24
        assert weekly.fit(Series(values[:20], HOUR)).predict(1).point[0] == 19
