"""How far a replay is from what was measured: errors over requests, over low load, and over curves.

Read next: `data/measured/validation.py` for what the numbers mean.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

import numpy as np

from sageserve.base.records import UNSET, Bools, Floats, Ints
from sageserve.base.units import SECOND
from sageserve.data.measured.runs import MeasuredRequests, MeasuredSeries
from sageserve.data.measured.validation import Curve, CurveErrors, ErrorPart, LatencyErrors, LowLoad, RunPicture, Scatter
from sageserve.sim.replay import Replayed, ReplayedSeries

PARTS: Final = 3
LOW_SHARE: Final = 16  # an engine that holds at most a sixteenth of what it may is nearly idle


def judge(measured: MeasuredRequests, replayed: Replayed, chosen: Bools) -> LatencyErrors:
    """Errors over the chosen requests."""
    several = chosen & (measured.output > 1)
    return LatencyErrors(
        requests=int(chosen.sum()),
        e2e_mape=_mape(replayed.e2e, measured.e2e, chosen),
        tpot_mape=_mape(replayed.tpot, measured.tpot, several),
        ttft_mape=_mape(replayed.ttft, measured.ttft, chosen),
        e2e_bias=_bias(replayed.e2e, measured.e2e, chosen),
        tpot_bias=_bias(replayed.tpot, measured.tpot, several),
        ttft_bias=_bias(replayed.ttft, measured.ttft, chosen),
    )


def judge_parts(measured: MeasuredRequests, replayed: Replayed, chosen: Bools) -> tuple[ErrorPart, ...]:
    """Errors over thirds of the chosen requests, by prompts, by the others they met and by time; equal values stay together."""
    ways: dict[str, Floats] = {
        "prompt": measured.prompt.astype(np.float64),
        "company": company(measured).astype(np.float64),
        "time": measured.arrival / SECOND,
    }
    return tuple(part for by, values in ways.items() for part in _thirds(by, values, measured, replayed, chosen))


def _thirds(by: str, values: Floats, measured: MeasuredRequests, replayed: Replayed, chosen: Bools) -> Iterator[ErrorPart]:
    if not chosen.any():
        return
    cuts = np.unique(np.quantile(values[chosen], [0.0, 1 / PARTS, 2 / PARTS, 1.0], method="nearest"))
    for number, (low, high) in enumerate(pairwise(cuts)) if len(cuts) > 1 else [(0, (cuts[0], cuts[0]))]:
        inside = chosen & (values <= high) & ((values >= low) if number == 0 else (values > low))
        if inside.any():
            found, own = judge(measured, replayed, inside), values[inside]
            errors = (found.e2e_mape, found.ttft_mape, found.e2e_bias)
            yield ErrorPart(by, float(own.min()), float(own.max()), found.requests, *errors)


def judge_low_load(measured: MeasuredRequests, replayed: Replayed, max_sequences: int) -> LowLoad:
    """TTFT errors of requests that met a nearly idle engine, the first one of the run left out."""
    others = max(1, max_sequences // LOW_SHARE)
    quiet = company(measured) <= others
    quiet[:1] = False
    if not quiet.any():
        return LowLoad(0, others, None, None, None)
    error = (replayed.ttft[quiet] - measured.ttft[quiet]) / 1000.0
    return LowLoad(
        requests=int(quiet.sum()),
        others=others,
        ttft_mape=_mape(replayed.ttft, measured.ttft, quiet),
        ttft_error_ms=float(np.median(np.abs(error))),
        ttft_bias_ms=float(error.mean()),
    )


def company(measured: MeasuredRequests) -> Ints:
    """int64[n]: how many others were in the engine, as measured, when each request arrived."""
    finished = np.sort(measured.arrival + measured.e2e)
    before = np.arange(len(measured))
    return before - np.searchsorted(finished, measured.arrival, side="right")


def picture(
    name: str, measured: MeasuredRequests, replayed: Replayed, series: MeasuredSeries | None, simulated: ReplayedSeries
) -> RunPicture:
    """What is drawn of a run."""
    held = (~measured.first_half()).astype(np.float64)
    scatters = tuple(
        Scatter(label, ours_theirs[1] / SECOND, ours_theirs[0] / SECOND, held)
        for label, ours_theirs in (
            ("TTFT", (replayed.ttft, measured.ttft)),
            ("TPOT", (replayed.tpot, measured.tpot)),
            ("E2E", (replayed.e2e, measured.e2e)),
        )
    )
    return RunPicture(name, () if series is None else curves(series, simulated), scatters)


def curves(series: MeasuredSeries, simulated: ReplayedSeries) -> tuple[Curve, ...]:
    """Running, waiting and KV share at the measured instants.

    Args:
        series: as measured.
        simulated: looked at at the same instants.
    """
    pairs = (
        ("running", series.running, simulated.running),
        ("waiting", series.waiting, simulated.waiting),
        ("KV share", series.kv_share, simulated.kv_share),
    )
    time = series.time / SECOND
    return tuple(Curve(name, time, theirs, ours) for name, theirs, ours in pairs)


def judge_curves(found: tuple[Curve, ...]) -> CurveErrors:
    """Mean absolute errors of the curves."""
    running, waiting, share = found
    return CurveErrors(
        running=_distance(running),
        running_mean=float(running.measured.mean()),
        waiting=_distance(waiting),
        waiting_mean=float(waiting.measured.mean()),
        kv_share=None if np.isnan(share.measured).all() else _distance(share),
    )


def _distance(curve: Curve) -> float:
    return float(np.nanmean(np.abs(curve.simulated - curve.measured)))


def _mape(ours: Ints, theirs: Ints, chosen: Bools) -> float | None:
    if not chosen.any():
        return None
    return float(np.mean(np.abs(ours[chosen] - theirs[chosen]) / np.maximum(theirs[chosen], 1)))


def _bias(ours: Ints, theirs: Ints, chosen: Bools) -> float | None:
    if not chosen.any() or bool((ours[chosen] == UNSET).any()):
        return None
    return float(ours[chosen].mean() / max(float(theirs[chosen].mean()), 1.0) - 1.0)
