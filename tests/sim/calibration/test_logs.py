"""Fits with the simulator in the loop: known engines are found again, the same twice, and what tells nothing is refused."""

from dataclasses import replace

import numpy as np
import pytest

from sageserve.base.errors import MeasurementError
from sageserve.base.rng import stream
from sageserve.base.units import SECOND
from sageserve.data.measured.runs import MeasuredRun, MeasuredSeries, requests_of
from sageserve.data.profiles.naming import known_gpu, known_model
from sageserve.data.profiles.roofline import scaled
from sageserve.sim.calibration.anchor import anchor_of, capacity_of
from sageserve.sim.calibration.coefficients import FLAT, NAMES, Form, blank
from sageserve.sim.calibration.judge import judge
from sageserve.sim.calibration.logs import REQUESTS_LEAST, arrivals_of, fit_logs
from sageserve.sim.calibration.profile import from_logs
from sageserve.sim.calibration.validation import validate_run
from sageserve.sim.replay import replay, replay_series
from tests.sim.calibration.made import TRUTH, made_run

VALUES = np.array([2.0, 6.0, 30.0, 1.0, 60.0, 40.0, 1.0, 6.0])  # in the order of NAMES
KNOWN = Form(TRUTH, FLAT).profile(VALUES)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_known_engine_is_found_again(seed: int) -> None:
    """From a start that is up to twice off in every coefficient, the times of requests not fitted come out."""
    factors = stream(seed, "tests/start").uniform(0.5, 2.0, len(NAMES))
    run = made_run(KNOWN, seed=seed)
    assert run.requests is not None
    early = run.requests.first_half()
    found = fit_logs(run.requests, KNOWN, early, starts=(VALUES * factors,))
    errors = judge(run.requests, replay(found.profile, arrivals_of(run.requests)), ~early)
    assert errors.e2e_mape is not None
    assert errors.tpot_mape is not None
    assert errors.e2e_mape < 0.003
    assert errors.tpot_mape < 0.003


def test_a_verdict_is_the_same_twice_and_knows_the_truth() -> None:
    first, second = validate_run(made_run()), validate_run(made_run())
    assert first.verdict == second.verdict
    assert first.verdict.heldout.e2e_mape is not None
    assert first.verdict.heldout.e2e_mape < 0.01
    assert first.verdict.curves is not None
    assert first.verdict.curves.running < 0.5


def test_the_fit_does_not_see_the_second_half() -> None:
    run = made_run()
    assert run.requests is not None
    late = ~run.requests.first_half()
    slower = replace(run.requests, e2e=np.where(late, run.requests.e2e * 3, run.requests.e2e))
    other = replace(run, requests=slower, series=None)
    assert validate_run(other).fit.profile == validate_run(replace(run, series=None)).fit.profile


def test_a_slow_engine_is_judged_slow() -> None:
    run = made_run()
    assert run.requests is not None
    everything = np.ones(len(run.requests), bool)
    played = replay(scaled(TRUTH, 1.1, ""), arrivals_of(run.requests))
    bias = judge(run.requests, played, everything).e2e_bias
    assert bias is not None
    assert 0.09 < bias < 0.3


def test_too_few_requests_are_refused() -> None:
    run = made_run(requests=2 * REQUESTS_LEAST - 2)
    with pytest.raises(MeasurementError, match=f"{REQUESTS_LEAST} are the least"):
        validate_run(run)


def test_an_engine_of_several_ranks_is_refused() -> None:
    with pytest.raises(MeasurementError, match="ran on 8 data parallel ranks"):
        validate_run(replace(made_run(), dp=8))


def test_requests_that_are_all_alike_are_refused() -> None:
    n = 100
    ones = np.ones(n, np.int64)
    columns = {"arrival": np.arange(n) * 10_000_000, "prompt": ones * 100, "output": ones * 50}
    alike = requests_of({**columns, "ttft": ones * 20_000, "e2e": ones * 900_000}, "made up")
    with pytest.raises(MeasurementError, match="nothing tells the coefficients apart"):
        validate_run(MeasuredRun("alike", requests=alike))


@pytest.mark.parametrize(("factor", "unit"), [(1_000, "seconds"), (1e-3, "microseconds")])
def test_times_in_another_unit_are_refused(factor: float, unit: str) -> None:
    requests = made_run().requests
    assert requests is not None
    columns = {name: getattr(requests, name) for name in ("arrival", "prompt", "output")}
    slipped = {name: np.maximum((getattr(requests, name) / factor).astype(np.int64), 1) for name in ("ttft", "e2e")}
    with pytest.raises(MeasurementError, match="a token takes") as caught:
        validate_run(MeasuredRun("slipped", requests=requests_of(columns | slipped, "made up")))
    assert unit in caught.value.hint


def test_a_run_that_changed_half_way_makes_no_profile() -> None:
    run = made_run()
    assert run.requests is not None
    late = ~run.requests.first_half()
    slower = replace(run.requests, e2e=np.where(late, run.requests.e2e * 2, run.requests.e2e))
    with pytest.raises(MeasurementError, match="no profile is made"):
        from_logs(replace(run, requests=slower, series=None))


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("meta-llama/Llama-3.1-8B", "llama-3.1-8b"),
        ("meta-llama/Llama-3.1-70B-Instruct", "llama-3.1-70b"),
        ("meta-llama/Llama-2-70b-hf", "llama-2-70b"),
        ("mistralai/Mixtral-8x7B-v0.1", "mixtral-8x7b"),
        ("acme/unheard-of", None),
    ],
)
def test_hub_names_of_models_are_known(name: str, ours: str | None) -> None:
    assert known_model(name) == ours


@pytest.mark.parametrize(
    ("name", "ours"), [("RTX4090", "rtx-4090"), ("H100", "h100-80gb"), ("H100-80GB", "h100-80gb"), ("?", None)]
)
def test_names_of_gpus_are_known(name: str, ours: str | None) -> None:
    assert known_gpu(name) == ours


def test_capacity_is_inferred_from_shares() -> None:
    truth = TRUTH.model_copy(update={"kv_tokens": 40_000})
    run = made_run(truth)
    hidden = replace(run, limits=replace(run.limits, kv_tokens=None), model="meta-llama/Llama-3.1-8B", gpu="H100")
    capacity, assumed = capacity_of(hidden, anchor_of(hidden))
    assert "inferred" in assumed
    assert abs(capacity / truth.kv_tokens - 1) < 0.25  # the roofline plays a faster or slower engine than this one


def test_curves_are_compared_at_the_instants_that_were_measured() -> None:
    """A scrape comes at any instant of a second; what it saw is not what is there half a second later."""
    run = made_run(KNOWN)
    assert run.requests is not None
    requests = arrivals_of(run.requests)
    odd = np.arange(1, 40, dtype=np.int64) * SECOND - 370_000
    _, seen = replay_series(KNOWN, requests, odd)
    _, later = replay_series(KNOWN, requests, odd + SECOND // 2)
    assert seen.time.tolist() == odd.tolist()
    assert (seen.running != later.running).any()
    nothing = np.zeros(len(odd))
    series = MeasuredSeries(odd, nothing, nothing, seen.running, seen.waiting, seen.kv_share, nothing)
    verdict = validate_run(replace(run, series=series)).verdict
    assert verdict.curves is not None
    assert verdict.curves.running < 0.1


@pytest.mark.parametrize(
    ("printed", "ours"), [("NVIDIA H200", "h200"), ("NVIDIA L20 (48 GB)", "nvidia-l20-48-gb"), ("", "unknown"), ("—", "unknown")]
)
def test_a_gpu_has_the_name_that_tools_print(printed: str, ours: str) -> None:
    assert blank(replace(made_run(), gpu=printed), 40_000).gpu == ours
