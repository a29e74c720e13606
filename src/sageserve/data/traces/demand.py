"""What a controller would have heard of a trace's demand by an instant: a run's events, minute by minute, without the run.

Engine time is that of the model's fastest engine for each prompt and the mean answer seen so far, which a run learns from what
finishes. Must not look past the instant. Read next: `core/history.py`, which the events are for.
"""

from collections.abc import Iterator

import numpy as np

from sageserve.base.records import Floats, Trace, cached_tokens
from sageserve.base.units import MINUTE, NEVER, Micros
from sageserve.core.events import DemandSeen
from sageserve.core.feed import DIRECT
from sageserve.core.layout import Layout
from sageserve.core.pace import ANSWER_WIDTH, length_column
from sageserve.core.response import MIX_WIDTH, note_requests


def heard(trace: Trace, layout: Layout, until: Micros) -> Iterator[DemandSeen]:
    """Demand per whole minute from 0 to `until`.

    Args:
        trace: coded for the names of `layout`.
        layout: for the engines.
        until: microseconds; a minute that is not over by then is left out.
    """
    minutes = max(0, until) // MINUTE
    if minutes == 0:
        return
    count = int(np.searchsorted(trace.arrival, minutes * MINUTE))
    shape = (len(trace.names.regions), len(trace.names.models), len(trace.names.tiers))
    where = (trace.arrival[:count] // MINUTE, trace.region[:count], trace.model[:count], trace.tier[:count])
    cell = np.ravel_multi_index(where, (minutes, *shape)) if count else np.zeros(0, np.int64)
    size = minutes * int(np.prod(shape))

    def sums(weights: Floats | None) -> Floats:
        return np.bincount(cell, weights=weights, minlength=size).astype(np.float64).reshape(minutes, -1)

    prompts = sums(trace.prompt[:count].astype(np.float64)).round().astype(np.int64)
    outputs = sums(trace.output[:count].astype(np.float64)).round().astype(np.int64)
    requests = sums(None).astype(np.int64)
    each, mixes = _work(trace, layout, count, minutes)
    answers = _answers(trace, layout, count, minutes)
    work = sums(each)
    for minute in range(minutes):
        yield DemandSeen(
            minute * MINUTE,
            MINUTE,
            tuple(prompts[minute].tolist()),
            tuple(outputs[minute].tolist()),
            tuple(requests[minute].tolist()),
            tuple(work[minute].tolist()),
            tuple(map(tuple, mixes[minute].tolist())),
            answers=tuple(map(tuple, answers[minute].tolist())) if answers.size else (),
        )


def _answers(trace: Trace, layout: Layout, count: int, minutes: int) -> Floats:
    """float64[minutes, models x tiers, ANSWER_WIDTH]: interactive answers by length; of no size where no tier promises a pace."""
    tiers = len(trace.names.tiers)
    if not layout.tiers["gap"].any():
        return np.zeros(0)
    shape = minutes, len(trace.names.models) * tiers, ANSWER_WIDTH
    mine = np.flatnonzero(layout.tiers["batch"][trace.tier[:count]] == 0)
    columns = np.array([length_column(output) for output in trace.output[mine].tolist()], np.int64)
    where = trace.arrival[mine] // MINUTE, trace.model[mine].astype(np.int64) * tiers + trace.tier[mine], columns
    return np.bincount(np.ravel_multi_index(where, shape), minlength=int(np.prod(shape))).astype(np.float64).reshape(shape)


def _work(trace: Trace, layout: Layout, count: int, minutes: int) -> tuple[Floats, Floats]:
    """Engine microseconds of each request, and what waits depend on.

    Returns:
        float64[count], on the model's fastest engine, with the mean answer of its tier.
        float64[minutes, models, MIX_WIDTH], of interactive requests.
    """
    work, mixes = np.zeros(count), np.zeros((minutes, len(trace.names.models), MIX_WIDTH))
    cached = cached_tokens(trace, layout.prefix_hits)
    nearby = np.diagonal(layout.rtt)[trace.region[:count]]
    if layout.handover is not None:  # a first token waits until the KV cache is where it is decoded
        nearby = nearby + layout.handover.way(trace.model[:count], trace.prompt[:count]).round().astype(np.int64)
    for model in range(len(trace.names.models)):
        fastest = layout.fastest(model)
        if fastest < 0:
            continue
        profile = layout.profiles[fastest]
        for tier in range(len(trace.names.tiers)):
            mine = np.flatnonzero((trace.model[:count] == model) & (trace.tier[:count] == tier))
            if len(mine):
                requests = trace.arrival[mine], trace.prompt[mine], cached[mine], nearby[mine]
                queued = layout.feed != DIRECT and bool(layout.tiers["batch"][tier])
                patience = NEVER if queued else int(layout.tiers["patience"][tier])
                promise = patience, int(layout.tiers["growth"][tier])
                work[mine] = note_requests(requests, profile, float(trace.output[mine].mean()), promise, mixes[:, model])
    return work, mixes
