"""Fits of counters: a known engine's requests come out, and counters that tell nothing are refused with the reason."""

from dataclasses import replace

import numpy as np
import pytest

from sageserve.base.errors import MeasurementError
from sageserve.core.engine.timing import iteration_time, row_of
from sageserve.data.measured.runs import MeasuredSeries
from sageserve.sim.calibration.counters import SECONDS_LEAST, fit_counters, judge_counters
from sageserve.sim.calibration.judge import judge
from sageserve.sim.calibration.logs import arrivals_of
from sageserve.sim.calibration.profile import from_counters
from sageserve.sim.replay import replay
from tests.sim.calibration.made import TRUTH, made_run

SECONDS = 60


def series(running: float | None = None, prompt: float = 4_000.0, share: float = 0.3) -> MeasuredSeries:
    """Counters of an engine that obeys the formula exactly; the load rises unless `running` is given."""
    load = np.linspace(4, 100, SECONDS) if running is None else np.full(SECONDS, running)
    prompts = np.where(np.arange(SECONDS) % 3 == 0, prompt, prompt / 2)
    rest = 1.0 - 40e-6 * prompts
    iterations = rest / (10e-3 + 100e-6 * load)
    time = (np.arange(SECONDS) + 1) * 1_000_000
    return MeasuredSeries(time, prompts, iterations * load, load, np.zeros(SECONDS), np.full(SECONDS, share))


def test_coefficients_of_exact_counters_are_found() -> None:
    found = fit_counters(series(), TRUTH, capacity_known=False)
    assert found.costs[:3] * 1e6 == pytest.approx([10_000, 40, 100], rel=0.1)  # running is averaged over each second
    row = row_of(found.profile)
    assert iteration_time(row, 0, 0.0, 50, 0) == pytest.approx(10_000 + 50 * 100, rel=0.1)
    assert iteration_time(row, 2_000, 0.0, 0, 0) == pytest.approx(10_000 + 2_000 * 40, rel=0.1)
    assert judge_counters(series(), TRUTH, capacity_known=False).heldout == pytest.approx(0, abs=0.04)


def test_counters_of_a_known_engine_predict_its_requests() -> None:
    run = made_run(requests=400, seconds=80)
    assert run.requests is not None
    found = from_counters(run)
    assert found.profile.kv_tokens == TRUTH.kv_tokens
    assert "held out" in found.profile.error
    errors = judge(run.requests, replay(found.profile, arrivals_of(run.requests)), np.ones(len(run.requests), bool))
    assert errors.e2e_mape is not None
    assert errors.e2e_mape < 0.1


def test_flat_load_is_refused() -> None:
    with pytest.raises(MeasurementError, match="load hardly varied"):
        fit_counters(series(running=64.0), TRUTH, capacity_known=False)


def test_too_few_seconds_are_refused() -> None:
    few = series().rows(np.arange(SECONDS) < SECONDS_LEAST + 3)
    with pytest.raises(MeasurementError, match=f"{SECONDS_LEAST} are the least"):
        fit_counters(few, TRUTH, capacity_known=False)


def test_no_decoding_is_refused() -> None:
    silent = replace(series(), output_rate=np.zeros(SECONDS))
    with pytest.raises(MeasurementError, match="0 seconds of steady work"):
        fit_counters(silent, TRUTH, capacity_known=False)


def test_no_prompts_are_refused() -> None:
    with pytest.raises(MeasurementError, match="no prompt tokens"):
        fit_counters(series(prompt=0.0), TRUTH, capacity_known=False)


@pytest.mark.parametrize("counted", [False, True])
def test_an_engine_that_preempts_is_refused(counted: bool) -> None:
    full = series(share=0.99)
    if counted:
        full = replace(series(), preemptions=np.ones(SECONDS))
    with pytest.raises(MeasurementError, match="preempts"):
        fit_counters(full, TRUTH, capacity_known=False)


def test_seconds_with_preemptions_are_left_out() -> None:
    lost = np.where(np.arange(SECONDS) % 5 == 4, 1.0, 0.0)
    wrong = np.where(lost > 0, 2_000.0, series().prompt_rate)
    found = fit_counters(replace(series(), prompt_rate=wrong, preemptions=lost), TRUTH, capacity_known=False)
    assert found.costs[1] * 1e6 == pytest.approx(40, rel=0.1)


def test_an_unknown_capacity_is_asked_for() -> None:
    run = made_run(requests=400, seconds=80)
    assert run.series is not None
    blind = replace(run.series, kv_share=np.full(len(run.series), np.nan))
    with pytest.raises(MeasurementError, match="KV capacity is not known") as caught:
        from_counters(replace(run, series=blind, limits=replace(run.limits, kv_tokens=None)))
    assert "--kv-tokens" in caught.value.hint
