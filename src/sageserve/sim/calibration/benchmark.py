"""Coefficients from a benchmark: fitted on its closed loop, judged on the open loop that was kept out.

The closed loop holds what a production log rarely does: single requests of several prompt lengths, and every size of
batch. Read next: `logs.py` for the fit, docs/how-to/benchmark-an-engine.md.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from sageserve.base.config import ProfileSettings
from sageserve.base.errors import MeasurementError
from sageserve.data.measured.runs import MeasuredRun
from sageserve.data.measured.validation import LatencyErrors
from sageserve.sim.calibration.anchor import anchor_of, capacity_of, with_usual_limits
from sageserve.sim.calibration.coefficients import blank
from sageserve.sim.calibration.judge import judge
from sageserve.sim.calibration.logs import arrivals_of, fit_logs, notes_on
from sageserve.sim.replay import replay

ERROR_MOST: Final = 0.2  # E2E error on the open loop above which a profile is worth less than the roofline


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
    closed = with_usual_limits(closed)
    seen, kept_out = closed.requests, opened.requests
    if seen is None or kept_out is None:
        raise MeasurementError("a benchmark has requests in both loops", hint="the folder was not written by a benchmark")
    anchor = anchor_of(closed)
    capacity, assumed = capacity_of(closed, anchor)
    starts = [] if anchor is None else [anchor.values]
    everything = np.ones(len(seen), np.bool_)
    fit = fit_logs(seen, blank(closed, capacity), everything, starts=starts, anchor=anchor, progress=progress)
    errors_seen = judge(seen, replay(fit.profile, arrivals_of(seen)), everything)
    errors = judge(kept_out, replay(fit.profile, arrivals_of(kept_out)), np.ones(len(kept_out), np.bool_))
    _refuse(errors)
    profile = fit.profile.model_copy(
        update={
            "engine": closed.engine[:80],
            "source": f"{closed.source}; model {closed.model}" + (f", {closed.engine}" if closed.engine else ""),
            "fitted": f"closed loop: {fit.fitted}",
            "error": sentence(errors),
        }
    )
    notes = (*closed.notes, *([assumed] if assumed else []), *notes_on(fit, anchored=anchor is not None))
    return BenchmarkFit(profile, errors_seen, errors, fit.evaluations, notes)


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
