"""A profile out of a calibration: coefficients with their source, the range they were fitted on, and their held-out error.

The coefficients are those that were judged: fitted on the earlier half, held against the later half. A profile that misses
by more than HELDOUT_MOST is refused. Read next: `data/profiles/write.py`, which writes it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sageserve.base.config import ProfileSettings
from sageserve.base.errors import MeasurementError
from sageserve.data.measured.runs import MeasuredRun
from sageserve.data.measured.validation import LatencyErrors
from sageserve.data.profiles.naming import known_gpu
from sageserve.sim.calibration.anchor import anchor_of, capacity_of, with_usual_limits
from sageserve.sim.calibration.coefficients import blank
from sageserve.sim.calibration.counters import judge_counters
from sageserve.sim.calibration.validation import validate_run

HELDOUT_MOST: Final = 0.15  # of E2E or of time: a roofline is as good, and needs no measurement


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A profile that the measurements support.

    Args:
        profile: whole.
        notes: what had to be assumed, in sentences.
        heldout: errors over requests that were not fitted; None where there were none.
    """

    profile: ProfileSettings
    notes: tuple[str, ...]
    heldout: LatencyErrors | None = None


def from_logs(run: MeasuredRun, progress: Callable[[int], None] | None = None) -> Calibrated:
    """A profile from a run's requests.

    Args:
        run: with requests; counters and known model and GPU make it better.
        progress: told how many simulations were played.

    Raises:
        MeasurementError: the requests cannot support a profile; says why.
    """
    judged = validate_run(run, progress)
    held = judged.verdict.heldout
    assert held.e2e_mape is not None
    _refuse(held.e2e_mape, "E2E of requests that were not fitted")
    parts = [("E2E", held.e2e_mape), ("TPOT", held.tpot_mape), ("TTFT", held.ttft_mape)]
    errors = ", ".join(f"{name} {value:.1%}" for name, value in parts if value is not None)
    profile = _described(
        run,
        judged.fit.profile,
        source=f"sageserve calibrate logs: {run.name}",
        fitted=judged.fit.fitted,
        error=f"per request, {held.requests} held out: {errors}; bias of mean E2E {held.e2e_bias or 0.0:+.1%}",
    )
    return Calibrated(profile, judged.verdict.notes, held)


def from_counters(run: MeasuredRun) -> Calibrated:
    """A profile from a run's counters alone.

    Args:
        run: with a series, and its KV capacity unless it can be inferred.

    Raises:
        MeasurementError: the counters cannot support a profile; says why.
    """
    run = with_usual_limits(run)
    if run.series is None:
        raise MeasurementError(f"{run.name} has no counters", hint="timeseries.csv holds one row per second")
    anchor = anchor_of(run)
    capacity, assumed = capacity_of(run, anchor)
    if run.limits.kv_tokens is None and anchor is None and "inferred" not in assumed:
        raise MeasurementError(
            "the engine's KV capacity is not known, and these counters do not tell it",
            hint="give --kv-tokens: num_gpu_blocks x block_size, which vLLM logs when it starts (GPU KV cache size)",
        )
    known = run.limits.kv_tokens is not None or "inferred" in assumed
    found = judge_counters(run.series, blank(run, capacity), capacity_known=known)
    assert found.heldout is not None
    _refuse(found.heldout, "time of the seconds that were not fitted")
    profile = _described(
        run,
        found.profile,
        source=f"sageserve calibrate counters: {run.source or run.name}",
        fitted=found.range,
        error=f"seconds of the later half, held out: {found.heldout:.1%} of their time; requests were not seen",
    )
    return Calibrated(profile, (*run.notes, *found.notes, *([assumed] if assumed else [])))


def _refuse(error: float, what: str) -> None:
    if error > HELDOUT_MOST:
        raise MeasurementError(
            f"the best fit misses the {what} by {error:.0%}, more than {HELDOUT_MOST:.0%}: no profile is made of it",
            hint="check the engine's limits and the recording; was the engine shared, restarted or changed on the way?",
        )


def _described(run: MeasuredRun, profile: ProfileSettings, *, source: str, fitted: str, error: str) -> ProfileSettings:
    anchor = anchor_of(run)
    engine = f" ({run.engine})" if run.engine else ""
    sizes = {} if anchor is None else {"weights": anchor.profile.weights, "kv_per_token": anchor.profile.kv_per_token}
    return profile.model_copy(
        update={
            "gpu": known_gpu(run.gpu) or profile.gpu,
            "source": source + engine,
            "engine": run.engine[:80],
            "fitted": fitted,
            "error": error,
            **sizes,
        }
    )
