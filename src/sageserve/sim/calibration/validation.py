"""Hold the engine model against measured runs: the first half of a run fits, the second half judges.

The whole run is played, because the second half queues behind the first; the fit is told the times of the first half only.
Read next: `logs.py`, `counters.py`, `means.py`, docs/reference/engine-model.md for results.
"""

from collections.abc import Callable
from dataclasses import dataclass

from sageserve.base.config import ProfileSettings
from sageserve.base.errors import MeasurementError
from sageserve.data.measured.runs import MeasuredRequests, MeasuredRun
from sageserve.data.measured.validation import FromCounters, RunPicture, RunVerdict
from sageserve.sim.calibration.anchor import anchor_of, capacity_of, with_usual_limits
from sageserve.sim.calibration.coefficients import NAMES, STREAMED, PlainCosts, blank, coefficients_of
from sageserve.sim.calibration.counters import CountersFit, first_seconds, fit_counters
from sageserve.sim.calibration.judge import judge, judge_curves, judge_low_load, judge_parts, picture
from sageserve.sim.calibration.logs import LogsFit, arrivals_of, fit_logs, notes_on
from sageserve.sim.replay import replay, replay_series


@dataclass(frozen=True, slots=True)
class JudgedRun:
    """A run with its fit: the verdict, what to draw, and the profile that was judged."""

    verdict: RunVerdict
    picture: RunPicture
    fit: LogsFit


def validate_run(run: MeasuredRun, progress: Callable[[int], None] | None = None) -> JudgedRun:
    """Fit the first half of a run's requests and judge both halves.

    Args:
        run: with requests.
        progress: told how many simulations were played.

    Raises:
        MeasurementError: the run cannot support a fit; says why.
    """
    run = with_usual_limits(run)
    requests = run.requests
    if requests is None:
        raise MeasurementError(f"{run.name} has no requests", hint="requests.csv holds one row per finished request")
    fit, notes = fit_run(run, progress)
    played, simulated = replay_series(fit.profile, arrivals_of(requests), None if run.series is None else run.series.time)
    drawn = picture(run.name, requests, played, run.series, simulated)
    early = requests.first_half()
    verdict = RunVerdict(
        fit=judge(requests, played, early),
        heldout=judge(requests, played, ~early),
        low_load=judge_low_load(requests, played, run.limits.max_sequences),
        curves=judge_curves(drawn.curves) if drawn.curves else None,
        counters=_from_counters(run, requests),
        coefficients=coefficients_of(fit.profile),
        terms=dict(zip(NAMES, fit.values.tolist(), strict=True)),
        spread=fit.spread,
        untold=fit.untold,
        evaluations=fit.evaluations,
        preemptions=played.preemptions,
        notes=notes,
        where=judge_parts(requests, played, ~early),
    )
    return JudgedRun(verdict, drawn, fit)


def fit_run(run: MeasuredRun, progress: Callable[[int], None] | None = None) -> tuple[LogsFit, tuple[str, ...]]:
    """Fit the first half of a run's requests; also returns what had to be assumed.

    Raises:
        MeasurementError: the run cannot support a fit; says why.
    """
    requests = run.requests
    assert requests is not None
    anchor = anchor_of(run)
    capacity, assumed = capacity_of(run, anchor)
    start = blank(run, capacity)
    starts = [] if anchor is None else [anchor.values]
    counted = _counted(run, start)
    if isinstance(counted, CountersFit):
        starts.append(PlainCosts(*(1e6 * counted.costs).tolist()).values(STREAMED[0]))
    fit = fit_logs(requests, start, requests.first_half(), starts=starts, anchor=anchor, progress=progress)
    return fit, (*run.notes, *([assumed] if assumed else []), *notes_on(fit, anchored=anchor is not None))


def _counted(run: MeasuredRun, start: ProfileSettings) -> CountersFit | MeasurementError:
    if run.series is None:
        return MeasurementError("there are no counters")
    try:
        return fit_counters(first_seconds(run.series), start, capacity_known=run.limits.kv_tokens is not None)
    except MeasurementError as error:
        return error


def _from_counters(run: MeasuredRun, requests: MeasuredRequests) -> FromCounters | None:
    """What the earlier half of the seconds predicts of the later half of the requests; None without counters."""
    if run.series is None:
        return None
    capacity, _ = capacity_of(run, anchor_of(run))
    found = _counted(run, blank(run, capacity))
    if isinstance(found, MeasurementError):
        return FromCounters(None, found.message)
    played = replay(found.profile, arrivals_of(requests))
    return FromCounters(judge(requests, played, ~requests.first_half()), "", coefficients_of(found.profile))
