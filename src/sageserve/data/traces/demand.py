"""What a controller would have heard of a trace's demand by an instant: a run's events, minute by minute, without the run.

Engine time is that of the model's fastest engine for each prompt and the mean answer seen so far, which a run learns from what
finishes. Must not look past the instant. Read next: `core/history.py`, which the events are for.
"""

from collections.abc import Iterator

import numpy as np

from sageserve.base.records import Floats, Trace, cached_tokens
from sageserve.base.units import MINUTE, Micros
from sageserve.core.events import DemandSeen
from sageserve.core.layout import Layout
from sageserve.core.perf import request_work


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
    work = sums(_work(trace, layout, count))
    for minute in range(minutes):
        yield DemandSeen(
            minute * MINUTE,
            MINUTE,
            tuple(prompts[minute].tolist()),
            tuple(outputs[minute].tolist()),
            tuple(requests[minute].tolist()),
            tuple(work[minute].tolist()),
        )


def _work(trace: Trace, layout: Layout, count: int) -> Floats:
    """float64[count]: engine microseconds of each request on its model's fastest engine, with the mean answer of its tier."""
    work = np.zeros(count)
    cached = cached_tokens(trace, layout.prefix_hits)
    for model in range(len(trace.names.models)):
        fastest = layout.fastest(model)
        if fastest < 0:
            continue
        profile = layout.profiles[fastest]
        for tier in range(len(trace.names.tiers)):
            mine = np.flatnonzero((trace.model[:count] == model) & (trace.tier[:count] == tier))
            if len(mine):
                answer = float(trace.output[mine].mean())
                lengths, back = np.unique(trace.prompt[mine].astype(np.int64) << 32 | cached[mine], return_inverse=True)
                pairs = zip((lengths >> 32).tolist(), (lengths & 0xFFFFFFFF).tolist(), strict=True)
                each = [request_work(profile, prompt, found, answer) for prompt, found in pairs]
                work[mine] = np.array(each)[back]
    return work
