"""Noise-free logs of engines that obey the formula: the coefficients come back, or the fit says which ones cannot.

What a fit finds is held against what it was made of: coefficients, times of requests that it did not see, and its own cost.
Read next: `made.py`, `sim/calibration/fit/descent.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import pytest

from sageserve.base.config import ProfileSettings
from sageserve.base.records import Floats
from sageserve.base.rng import stream
from sageserve.data.measured.runs import EngineLimits, MeasuredRequests, MeasuredRun, requests_of
from sageserve.data.profiles.curve import IterationCurve
from sageserve.sim.calibration.coefficients import FLAT, LEAST, NAMES, SHARPNESS, Anchor, Form
from sageserve.sim.calibration.fit.first_values import first_costs
from sageserve.sim.calibration.fit.told import TOLD
from sageserve.sim.calibration.judge import judge
from sageserve.sim.calibration.logs import LogsFit, arrivals_of, distance, fit_logs
from sageserve.sim.calibration.validation import validate_run
from sageserve.sim.replay import Arrivals, replay, replay_blocks
from tests.sim.calibration.made import TRUTH

EXACT = 1e-4  # of a cost: what rounding times to microseconds makes
FORM = Form(TRUTH, FLAT)
PLAIN = (8.0, LEAST[1], 30.0, LEAST[3], 30.0, 40.0, 1.0, 6.0)  # in the order of NAMES: a straight line in the tokens
DENSE = (2.0, 6.0, 30.0, 1.0, 60.0, 40.0, 1.0, 6.0)
SLOW = (7.0, 24.7, 118.3, 1.7, 94.6, 151.1, 4.37, 21.9)
SMALL = (1.2, 3.01, 12.7, 0.4, 20.4, 40.0, 1.0, 6.0)


@dataclass(frozen=True, slots=True)
class Log:
    """What is served: an engine, its limits, and requests per second times what it can do at most, about."""

    values: tuple[float, ...]
    load: float
    requests: int = 240
    ramp: bool = False
    cached: bool = False
    longest: int = 1_500
    limits: Mapping[str, int | bool] = field(default_factory=dict)

    @property
    def form(self) -> Form:
        return Form(TRUTH.model_copy(update=self.limits), FLAT)

    @property
    def engine(self) -> ProfileSettings:
        return self.form.profile(np.array(self.values))


LOGS = {
    "light": Log(PLAIN, 0.2),
    "busy": Log(DENSE, 0.7),
    "critical": Log(SLOW, 0.95, requests=300),
    "overloaded": Log(SMALL, 1.4),
    "ramp": Log(PLAIN, 0.7, ramp=True),
    "ramp of a slow engine": Log(SLOW, 0.7, ramp=True),
    "short pieces": Log(SMALL, 0.8, ramp=True, limits={"max_batched_tokens": 256}),
    "prefill first": Log(DENSE, 0.6, ramp=True, limits={"chunked": False, "max_batched_tokens": 4_096}),
    "cached": Log(PLAIN, 0.6, cached=True, ramp=True),
    "preempting": Log(SLOW, 0.9, ramp=True, limits={"kv_tokens": 9_000}),
    "preempting and cached": Log(DENSE, 1.1, cached=True, limits={"kv_tokens": 12_000, "prefix_caching": True}),
}


def made_log(log: Log, seed: int = 1) -> MeasuredRequests:
    """The log that this engine would write: times in whole microseconds, no noise."""
    random = stream(seed, "tests/truth")
    prompt, output = random.integers(50, log.longest, log.requests), random.integers(2, 200, log.requests)
    fixed, streamed, token, _, decode, *_ = log.values
    work = token * prompt.mean() + output.mean() * ((fixed + streamed) * 1e3 / 16 + decode)
    gaps = random.exponential(work / log.load, log.requests)
    if log.ramp:
        gaps = gaps / np.linspace(0.3, 1.7, log.requests)
    cached = np.where(random.uniform(size=log.requests) < 0.5, prompt * 4 // 5, 0) if log.cached else None
    arrivals = Arrivals(np.cumsum(gaps).astype(np.int64), prompt, output, cached)
    played = replay(log.engine, arrivals)
    columns = {"arrival": arrivals.arrival, "prompt": prompt, "output": output, "ttft": played.ttft, "e2e": played.e2e}
    return requests_of(columns if cached is None else columns | {"cached": cached}, "made up")


def fitted(log: Log, requests: MeasuredRequests, *starts: Floats) -> LogsFit:
    return fit_logs(requests, log.engine, requests.first_half(), starts=starts)


@cache
def exact_fit(name: str) -> tuple[MeasuredRequests, LogsFit]:
    """A log, and what is found in it."""
    requests = made_log(LOGS[name])
    return requests, fitted(LOGS[name], requests)


@pytest.mark.parametrize("name", LOGS)
def test_the_truth_is_found(name: str) -> None:
    log = LOGS[name]
    requests, found = exact_fit(name)
    late = ~requests.first_half()
    errors = judge(requests, replay(found.profile, arrivals_of(requests)), late)
    assert errors.e2e_mape is not None
    assert errors.e2e_mape < 0.003
    for name_of, share, true, our in zip(NAMES, found.spread.values(), log.values, found.values.tolist(), strict=True):
        nearly = abs(our - true) < TOLD * (true if true > 0.01 else 1.0)
        assert share > TOLD or nearly, f"{name_of} is {our}, not {true}, and said to be known to {share:.1%}"
    assert found.cost <= EXACT + distance(requests, replay(log.engine, arrivals_of(requests)), requests.first_half())


def test_preemption_is_among_the_cases() -> None:
    for name in ("preempting", "preempting and cached"):
        assert replay(LOGS[name].engine, arrivals_of(made_log(LOGS[name]))).preemptions > 10


def test_logs_in_thousandths_of_a_millisecond_cost_no_more_than_at_the_truth() -> None:
    """Times that were rounded leave an error at the truth; an answer with a larger one was not looked for closely enough."""
    log = LOGS["ramp"]
    exact = made_log(log)
    rounded = replace(exact, ttft=(exact.ttft + 50) // 100 * 100, e2e=(exact.e2e + 50) // 100 * 100)
    seen = rounded.first_half()
    at_truth = distance(rounded, replay(log.engine, arrivals_of(rounded)), seen)
    found = fitted(log, rounded)
    assert at_truth > 0
    assert distance(rounded, replay(found.profile, arrivals_of(rounded)), seen) <= at_truth


@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_a_start_that_is_ten_times_off_does_not_matter(factor: float) -> None:
    log = LOGS["busy"]
    requests = made_log(log)
    found = fitted(log, requests, np.array(log.values) * factor)
    assert found.cost < EXACT
    np.testing.assert_allclose(found.values, log.values, rtol=0.02)


def test_a_wrong_roofline_does_not_pull_an_exact_answer_away() -> None:
    log = LOGS["ramp of a slow engine"]
    requests = made_log(log)
    wrong = anchor_with((12.0, 3.0, 90.0, 2.0, 90.0, 400.0, 1.0, 20.0))
    found = fit_logs(requests, log.engine, requests.first_half(), anchor=wrong, starts=(wrong.values,))
    np.testing.assert_allclose(found.values, log.values, rtol=0.02)


def anchor_with(values: tuple[float, ...]) -> Anchor:
    """A roofline that says so."""
    streamed, token = values[1] * 1e3 * FLAT, values[2]
    curve = IterationCurve(fixed=values[0] * 1e3, each=0.0, streamed=streamed, multiplied=token, sharpness=SHARPNESS)
    return Anchor(FORM.profile(np.array(values)), curve)


def made_alone(n: int = 120) -> MeasuredRequests:
    """One request at a time, which sees base and decode as one number; prompts nearly alike, which do not show a curve."""
    random = stream(3, "tests/truth/alone")
    arrivals = Arrivals(np.arange(n) * 20_000_000, random.integers(350, 450, n), random.integers(2, 300, n))
    played = replay(FORM.profile(np.array(PLAIN)), arrivals)
    columns = {"arrival": arrivals.arrival, "prompt": arrivals.prompt, "output": arrivals.output}
    return requests_of({**columns, "ttft": played.ttft, "e2e": played.e2e}, "made up")


def test_what_cannot_be_told_is_named() -> None:
    limits = EngineLimits(TRUTH.max_sequences, TRUTH.max_batched_tokens, TRUTH.kv_tokens)
    verdict = validate_run(MeasuredRun("alone", limits=limits, requests=made_alone())).verdict
    assert {"decode_us_per_sequence", "attention_ns_per_token2"} <= set(verdict.untold)
    assert any("do not tell" in note and "attention_ns_per_token2" in note for note in verdict.notes)
    assert verdict.heldout.e2e_mape is not None
    assert verdict.heldout.e2e_mape < 0.003, "what they come to together is told"


@pytest.mark.parametrize("decode", [30.0, 120.0])
def test_a_roofline_stands_in_for_what_nothing_tells(decode: float) -> None:
    requests = made_alone()
    noise = stream(6, "tests/truth/alone").lognormal(0, 0.02, len(requests))
    columns = {name: getattr(requests, name) for name in ("arrival", "prompt", "output", "ttft")}
    noisy = requests_of({**columns, "e2e": requests.ttft + ((requests.e2e - requests.ttft) * noise).astype(np.int64)}, "made up")
    roofline = anchor_with((PLAIN[0] + (PLAIN[4] - decode) / 1e3, *PLAIN[1:4], decode, *PLAIN[5:]))
    found = fit_logs(noisy, TRUTH, noisy.first_half(), anchor=roofline)
    assert "decode_us_per_sequence" in found.untold
    assert found.profile.decode_us_per_sequence == pytest.approx(decode, rel=0.15)


def test_cached_tokens_count() -> None:
    log = LOGS["cached"]
    requests, with_column = exact_fit("cached")
    without = fitted(log, replace(requests, cached=None))
    assert with_column.values[2] == pytest.approx(log.values[2], rel=0.01)
    assert without.values[2] < 0.9 * log.values[2]
    assert without.cost > 100 * with_column.cost


def test_the_order_of_rows_and_the_zero_of_time_do_not_matter() -> None:
    log = LOGS["busy"]
    requests, found = exact_fit("busy")
    mixed = stream(4, "tests/truth/mixed").permutation(len(requests))
    columns = {name: getattr(requests, name)[mixed] for name in ("arrival", "prompt", "output", "ttft", "e2e")}
    assert fitted(log, requests_of(columns, "made up")).profile == found.profile


def test_noise_is_not_taken_for_knowledge() -> None:
    """With a tenth of noise hardly anything is told to 5 %, and the fit says so."""
    log = LOGS["busy"]
    exact, clean = exact_fit("busy")
    random = stream(5, "tests/truth/noise")
    ttft = np.rint(exact.ttft * random.lognormal(0, 0.1, len(exact))).astype(np.int64)
    e2e = ttft + np.rint((exact.e2e - exact.ttft) * random.lognormal(0, 0.1, len(exact))).astype(np.int64)
    columns = {name: getattr(exact, name) for name in ("arrival", "prompt", "output")}
    noisy = fitted(log, requests_of({**columns, "ttft": ttft, "e2e": e2e}, "made up"))
    assert clean.untold == ()
    assert {"decode_us_per_sequence", "kv_ns_per_token", "attention_ns_per_token2"} <= set(noisy.untold)
    assert all(noisy.spread[name] > 20 * clean.spread[name] for name in NAMES)


@pytest.mark.parametrize("name", ["preempting", "prefill first", "busy"])
def test_slopes_are_what_blocks_take_longer(name: str) -> None:
    log = LOGS[name]
    _, blocks = replay_blocks(log.engine, arrivals_of(made_log(log)))
    values = np.array(log.values)
    lengths = log.form.slopes(blocks, values) @ values
    following = blocks.start[1:] - blocks.start[:-1]
    busy = following < lengths[:-1] + 2
    assert busy.mean() > 0.8
    np.testing.assert_allclose(lengths[:-1][busy], following[busy], atol=1.0)


def test_first_costs_are_about_right_where_answers_are_alone() -> None:
    log = Log(PLAIN, 0.05)
    requests = made_log(log)
    found = first_costs(requests, requests.first_half())
    assert found.iteration == pytest.approx(PLAIN[0] * 1e3, rel=0.05)
    assert found.prompt_token == pytest.approx(PLAIN[2], rel=0.3)
    assert found.once >= 0
