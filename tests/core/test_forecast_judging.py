"""What is judged of a series: the newest origin, what a short history allows, verdicts, and quantiles nobody should believe.

Read next: `core/forecast/judging.py`.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sageserve.base.records import Floats
from sageserve.base.rng import stream
from sageserve.base.units import HOUR, MINUTE
from sageserve.core.forecast import (
    INTERVAL,
    Score,
    Series,
    Span,
    backtest,
    forecaster,
    incredible,
    judging_plan,
    library,
    verdict,
)
from sageserve.core.forecast.judging import ORIGINS_SLOW

FIVE = 5 * MINUTE
BASELINES = ("last-value", "seasonal-naive")


def score(wape: float | None, *, coverage: float | None = 0.8, judged: int = 100, missed: float = 1.0) -> Score:
    return Score(wape, None if wape is None else 0.0, coverage, judged, missed)


class TestPlan:
    @given(n=st.integers(2, 3000), bin_us=st.sampled_from([MINUTE, FIVE, 15 * MINUTE, HOUR]), ahead=st.integers(1, 200))
    def test_the_newest_origin_is_always_judged_to_the_end(self, n: int, bin_us: int, ahead: int) -> None:
        plan = judging_plan(Series(np.ones(n), bin_us), ahead * MINUTE)
        longest = max(-(-span.before // bin_us) for span in plan.spans)
        assert plan.at[-1] + longest == n
        assert plan.at[0] >= 1
        assert list(plan.at) == sorted(set(plan.at))

    def test_a_step_in_the_last_hour_is_seen(self) -> None:
        """Only the newest origin has that hour in its span: without it the step would go unjudged."""
        values = np.ones(288)
        values[-1] = 100.0
        series = Series(values, FIVE)
        plan = judging_plan(series, HOUR)
        assert backtest(series, forecaster("last-value"), at=plan.at, spans=plan.spans)["20m to 1h"].missed == pytest.approx(99.0)

    def test_a_long_history_is_judged_every_hour_without_a_note(self) -> None:
        plan = judging_plan(Series(np.ones(7 * 288), FIVE), HOUR)
        assert np.diff(plan.at).tolist() == [12] * (len(plan.at) - 1)
        assert len(plan.at) == 48
        assert plan.notes == ()

    def test_a_short_history_is_judged_by_what_fits_and_says_so(self) -> None:
        plan = judging_plan(Series(np.ones(36), FIVE), HOUR)
        assert plan.at == tuple(range(18, 25))
        assert "judged from 7 origins only" in plan.notes[0]
        assert "seasonal-naive" in plan.notes[1]

    def test_a_horizon_longer_than_half_of_the_history_is_cut(self) -> None:
        plan = judging_plan(Series(np.ones(11), FIVE), HOUR)
        assert plan.at == (5, 6)
        assert [span.before for span in plan.spans] == [5 * FIVE]
        assert "55m of history: judged 25m ahead" in plan.notes[0]

    def test_one_bin_cannot_be_judged(self) -> None:
        plan = judging_plan(Series(np.ones(1), FIVE), HOUR)
        assert (plan.at, plan.spans) == ((), ())
        assert "nothing can be judged" in plan.notes[0]

    def test_slow_forecasters_have_few_origins_and_the_newest(self) -> None:
        series = Series(np.ones(7 * 288), FIVE)
        slow, fast = judging_plan(series, HOUR, slow=True), judging_plan(series, HOUR)
        assert len(slow.at) == ORIGINS_SLOW < len(fast.at)
        assert set(slow.at) <= set(fast.at)
        assert slow.at[-1] == fast.at[-1]
        assert "seconds for each" in slow.notes[0]


NEARLY_CONSTANT: dict[str, Floats] = {
    "constant": np.full(600, 7.0),
    "rounding": 7.0 * (1 + 1e-15 * stream(1, "tests/judging").standard_normal(600)),
    "a millionth": 1000 + 1e-3 * stream(2, "tests/judging").standard_normal(600),
    "a step": np.where(np.arange(600) < 60, 7.0, 7.01),
    "silent after a peak": np.where(np.arange(600) == 4, 19.68, 0.0),
    "rarely one more": np.where(stream(3, "tests/judging").uniform(size=600) < 0.02, 8.0, 7.0),
}


@pytest.mark.parametrize("name", ["blend", *BASELINES])
@pytest.mark.parametrize("kind", NEARLY_CONSTANT)
def test_intervals_of_nearly_constant_demand_hold_it(kind: str, name: str) -> None:
    series = Series(NEARLY_CONSTANT[kind], FIVE)
    plan = judging_plan(series, HOUR)
    found = backtest(series, forecaster(name), at=plan.at, spans=plan.spans)["20m to 1h"].coverage
    assert found is not None
    assert found > 0.8


def test_an_interval_that_misses_by_more_than_rounding_does_not_count() -> None:
    values = np.append(np.full(200, 7.0), np.full(12, 7.001))
    found = backtest(Series(values, FIVE), forecaster("last-value"), at=[200], spans=(Span("next", 0, HOUR),))["next"]
    assert found.coverage == 0.0


class TestVerdict:
    def said(self, ours: Score, last: float | None, seasonal: float | None) -> str:
        return verdict({"blend": ours, "last-value": score(last), "seasonal-naive": score(seasonal)}, "blend", BASELINES)

    def test_better_alike_worse_and_hopeless(self) -> None:
        assert self.said(score(0.1), 0.2, 0.3).startswith("blend misses by 50% less than last-value (10.0% against 20.0%)")
        assert "no better than seasonal-naive" in self.said(score(0.2), 0.3, 0.201)
        assert "last-value is better than blend (30.0% against 20.0%): use it" in self.said(score(0.3), 0.2, 0.4)
        assert "nothing forecasts this series" in self.said(score(3.0), 2.0, 4.0)
        assert "blend and last-value miss nothing" in self.said(score(0.0), 0.0, 0.4)

    def test_an_interval_that_is_too_narrow_is_told_where_enough_was_judged(self) -> None:
        assert "80 % interval held 40%, so it is too narrow" in self.said(score(0.1, coverage=0.4), 0.2, 0.3)
        assert "narrow" not in self.said(score(0.1, coverage=0.4, judged=5), 0.2, 0.3)
        assert "no interval" in self.said(score(0.1, coverage=None), 0.2, 0.3)

    def test_without_demand_or_without_a_score_nothing_is_claimed(self) -> None:
        assert "no demand in the judged bins" in self.said(score(None), None, None)
        assert self.said(score(None, judged=0), None, None) == "nothing could be judged"
        assert verdict({}, "blend", BASELINES) == "nothing could be judged"

    def test_a_baseline_is_compared_with_the_other(self) -> None:
        scores = {"last-value": score(0.1), "seasonal-naive": score(0.2)}
        assert verdict(scores, "last-value", BASELINES).startswith("last-value misses by 50% less than seasonal-naive")


def test_no_demand_has_no_relative_error() -> None:
    found = backtest(Series(np.zeros(40), FIVE), forecaster("last-value"), at=[20], spans=(Span("next", 0, HOUR),))["next"]
    assert (found.wape, found.bias, found.judged, found.missed) == (None, None, 12, 0.0)


def test_a_quantile_far_above_everything_seen_carries_a_note() -> None:
    series = Series(np.array([1.0, 2.0, 4.0] * 20), FIVE)
    coming = forecaster("last-value").fit(series).predict(3, INTERVAL)
    assert incredible(series, coming) is None
    far = type(coming)(coming.start, coming.bin, coming.point, coming.levels, coming.values * 0 + 41.0, calibrated=True)
    note = incredible(series, far)
    assert note is not None
    assert "the 90% quantile reaches 41, 10 times the largest value seen (4)" in note


@pytest.mark.slow
def test_auto_arima_searches_twice_however_many_errors_it_looks_at(monkeypatch: pytest.MonkeyPatch) -> None:
    models = pytest.importorskip("statsforecast.models", reason="the extra `forecast` is not installed")
    searches = [0]
    plain_fit, plain_forecast = models.AutoARIMA.fit, models.AutoARIMA.forecast

    def fit(self: object, **given: object) -> object:
        searches[0] += 1
        return plain_fit(self, **given)

    def forecast(self: object, **given: object) -> object:
        searches[0] += 1
        return plain_forecast(self, **given)

    monkeypatch.setattr(models.AutoARIMA, "fit", fit)
    monkeypatch.setattr(models.AutoARIMA, "forecast", forecast)
    hours = np.arange(192) / 4
    series = Series((2 + np.sin(2 * np.pi * hours / 24)) * stream(4, "tests/judging").lognormal(0, 0.2, 192), 15 * MINUTE)
    made = forecaster("auto-arima").fit(series).predict(4, INTERVAL)
    assert searches == [2]
    assert made.calibrated
    assert library.searched(series.values) == library.searched(series.values * 1e3)
