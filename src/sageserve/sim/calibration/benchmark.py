"""Coefficients from a benchmark: fitted on its closed loop, judged on the open loop that was kept out.

The closed loop holds what a production log rarely does: single requests of several prompt lengths, and every size of batch.
So the search can begin from what those say by themselves. Read next: `logs.py` for the fit, docs/how-to/benchmark-an-engine.md.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from sageserve.base.config import ProfileSettings
from sageserve.base.errors import MeasurementError
from sageserve.base.records import Floats, Ints
from sageserve.data.measured.runs import MeasuredRequests, MeasuredRun
from sageserve.data.measured.validation import LatencyErrors
from sageserve.sim.calibration.anchor import anchor_of, capacity_of
from sageserve.sim.calibration.coefficients import blank
from sageserve.sim.calibration.judge import company, judge
from sageserve.sim.calibration.logs import arrivals_of, fit_logs
from sageserve.sim.replay import replay

ERROR_MOST: Final = 0.2  # E2E error on the open loop above which a profile is worth less than the roofline
_ALONE_LEAST: Final = 4
_MICRO: Final = 1e3  # microseconds in a millisecond
_EAGER_MS: Final = 1.0  # a prefill beside CUDA graphs: where the search begins
_ENTRY_LEAST: Final = 5e3  # microseconds once per request: a search in logarithms does not come back from nothing


@dataclass(frozen=True, slots=True)
class BenchmarkFit:
    """A profile and how far to trust it.

    Args:
        profile: with source, range and error.
        closed: errors on the requests it was fitted on.
        opened: errors on the open loop, which it has not seen.
        evaluations: simulations that were played.
        notes: what had to be assumed, in sentences.
    """

    profile: ProfileSettings
    closed: LatencyErrors
    opened: LatencyErrors
    evaluations: int
    notes: tuple[str, ...]


def fit_benchmark(closed: MeasuredRun, opened: MeasuredRun, progress: Callable[[int], None] | None = None) -> BenchmarkFit:
    """Fit the closed loop and judge the open one.

    Args:
        closed: levels of concurrency one after the other.
        opened: Poisson arrivals.
        progress: told how many simulations were played.

    Raises:
        MeasurementError: nothing can be fitted, or the profile fails on the open loop; says why.
    """
    seen, kept_out = closed.requests, opened.requests
    if seen is None or kept_out is None:
        raise MeasurementError("a benchmark has requests in both loops", hint="the folder was not written by a benchmark")
    anchor = anchor_of(closed)
    capacity, assumed = capacity_of(closed, anchor)
    start = blank(closed, capacity)
    starts = [first_guess(seen, closed.limits.max_batched_tokens)]
    if anchor is not None:
        starts.append(anchor.values)
    everything = np.ones(len(seen), np.bool_)
    fit = fit_logs(seen, start, everything, starts=tuple(starts), anchor=anchor, progress=progress)
    errors_seen = judge(seen, replay(fit.profile, arrivals_of(seen)), everything)
    errors = judge(kept_out, replay(fit.profile, arrivals_of(kept_out)), np.ones(len(kept_out), np.bool_))
    _refuse(errors)
    profile = fit.profile.model_copy(
        update={
            "source": f"{closed.source}; model {closed.model}" + (f", {closed.engine}" if closed.engine else ""),
            "fitted": f"closed loop: {fit.range}",
            "error": sentence(errors),
        }
    )
    return BenchmarkFit(profile, errors_seen, errors, fit.evaluations, (*closed.notes, *([assumed] if assumed else [])))


def sentence(errors: LatencyErrors) -> str:
    """Errors on the open loop for people."""
    parts = [
        f"{name} {value:.1%}"
        for name, value in (("E2E", errors.e2e_mape), ("TPOT", errors.tpot_mape), ("TTFT", errors.ttft_mape))
        if value is not None
    ]
    bias = "" if errors.e2e_bias is None else f"; mean E2E {errors.e2e_bias:+.1%}"
    return f"{', '.join(parts)} per request{bias}, on an open loop of {errors.requests} requests that was kept out"


def _refuse(errors: LatencyErrors) -> None:
    if errors.e2e_mape is None or errors.e2e_mape <= ERROR_MOST:
        return
    bias = errors.e2e_bias or 0.0
    cause = "was slower or faster for a while (other work on its machine, throttling, other clients)"
    if abs(bias) > ERROR_MOST / 2:
        cause = f"was {'slower' if bias < 0 else 'faster'} in the open loop than before, or its limits were not given"
    raise MeasurementError(
        f"no profile: it misses the open loop by {errors.e2e_mape:.0%} of E2E ({sentence(errors)}); {ERROR_MOST:.0%} is the most",
        hint=f"probably the engine {cause}; check --max-sequences and --max-batched-tokens, and measure again",
    )


def first_guess(requests: MeasuredRequests, max_batched: int) -> Floats:
    """float64[8] in the order of coefficients.NAMES, read off requests that were alone and off those that were not.

    Alone, a token takes an iteration, and a prompt one per piece, tokens x prefill, and what comes once per request.
    In company of n, a token takes decode x n more, and waits for pieces of prompts, which the search has to sort out.
    How much of an iteration is streaming, nothing of this says: a quarter is taken for what is not.
    """
    together = company(requests)
    alone = (together == 0) & (requests.output > 1)
    if int(alone.sum()) < _ALONE_LEAST:
        alone = requests.output > 1
    step = float(np.median(requests.tpot[alone]))
    slope, once = _line(requests.prompt[alone], requests.ttft[alone])
    prefill = max(slope - step / max_batched, 0.05 * max(slope, 1.0))
    crowd = float(max(together.max(), 1))
    slower = float(np.median(requests.tpot[together >= crowd / 2])) - step if crowd > 1 else 0.1 * step
    decode = max(slower / crowd / 2, 0.01 * step)
    base = 0.9 * step / _MICRO
    entry = max(once - step, _ENTRY_LEAST) / _MICRO
    return np.array([0.25 * base, 0.75 * base, prefill, _EAGER_MS, decode, 50.0, 0.5, entry])


def _line(x: Ints, y: Ints) -> tuple[float, float]:
    """Slope and height of the straight line through medians of equal x; slope of the means where x hardly varies."""
    values = np.unique(x)
    if len(values) < 2:
        return float(np.median(y) / max(float(np.median(x)), 1.0)), 0.0
    low, high = x <= np.median(x), x > np.median(x)
    if not high.any():
        low, high = x < np.median(x), x >= np.median(x)
    run = float(x[high].mean() - x[low].mean())
    slope = max(float(np.median(y[high]) - np.median(y[low])) / max(run, 1.0), 1e-2)
    return slope, max(float(np.median(y[low]) - slope * x[low].mean()), 0.0)
