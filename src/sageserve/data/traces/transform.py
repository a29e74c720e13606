"""What can be done to a whole trace: change its speed, its load, join several, and sum it into demand.

Each function returns a new trace that says in its notes what was done. Reads no file; what is random is drawn
from named streams, so equal seeds give equal traces. Read next: `read.py`.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sageserve.base.errors import TraceError
from sageserve.base.records import UNSET, Bools, Demand, Floats, Ints, Names, Trace
from sageserve.base.rng import stream
from sageserve.base.units import MINUTE, SECOND, Micros, show_duration

JITTER: Final[Micros] = 30 * SECOND
"""Copies arrive up to this much earlier or later: minutes keep their rate, no instant has twins."""


def scale_time(trace: Trace, factor: float) -> Trace:
    """The trace played `factor` times as long; promises keep their length.

    Raises:
        TraceError: a factor that is not above 0, or that makes times too large.
    """
    if factor == 1.0:
        return trace
    window = trace.window * factor
    if not factor > 0 or not window < 2**61:  # half of what int64 microseconds hold, deadlines come on top
        raise TraceError(f"--time-scale {factor:g} must be above 0 and keep the trace below 70,000 years")
    arrival = np.floor(trace.arrival * factor).astype(np.int64)
    old, new = show_duration(trace.window), show_duration(round(window))
    note = f"times are multiplied by {factor:g}: {old} became {new}"
    return replace(
        trace,
        arrival=arrival,
        window=max(round(window), int(arrival[-1]) + 1 if len(arrival) else 1),
        deadline=_moved(trace, arrival - trace.arrival),
        notes=(*trace.notes, note),
    )


def load(trace: Trace, factor: float, seed: int) -> Trace:
    """The trace with exactly round(n × factor) requests at the same shape of rate.

    Below 1, a seeded choice of requests; above 1, all requests and as many seeded copies as needed, each
    shifted by up to `JITTER` within the window.

    Args:
        trace: what to change.
        factor: load relative to now.
        seed: of the streams `load/thin`, `load/copies` and `load/jitter`.

    Raises:
        TraceError: a factor that is not above 0, or that leaves nothing.
    """
    if factor == 1.0:
        return trace
    n = len(trace)
    wanted = round(n * factor) if factor > 0 and np.isfinite(factor) else 0
    if wanted < 1:
        raise TraceError(f"--load {factor:g} leaves none of {n:,} requests", hint="give a factor above 0, such as 0.5")
    if factor < 1:
        kept = np.flatnonzero(_chosen(n, wanted, seed, "load/thin"))
        note = f"load × {factor:g}: {wanted:,} of {n:,} requests, chosen with seed {seed}"
        return replace(trace.take(kept), notes=(*trace.notes, note))
    whole, rest = divmod(wanted, n)
    extra = np.flatnonzero(_chosen(n, rest, seed, "load/copies")) if rest else np.zeros(0, dtype=np.int64)
    rows = np.concatenate([np.tile(np.arange(n), whole), extra])
    shift = stream(seed, "load/jitter").integers(-JITTER, JITTER, size=len(rows), endpoint=True)
    shift[:n] = 0  # the originals stay where they are
    arrival = np.minimum(np.abs(trace.arrival[rows] + shift), trace.window - 1)
    order = np.argsort(arrival, kind="stable")
    rows, arrival = rows[order], arrival[order]
    copied = trace.take(rows)
    note = f"load × {factor:g}: {wanted:,} requests from {n:,}, copies shifted by up to {show_duration(JITTER)} with seed {seed}"
    return replace(copied, arrival=arrival, deadline=_moved(copied, arrival - copied.arrival), notes=(*trace.notes, note))


def load_earlier(demand: Demand, factor: float) -> Demand:
    """The demand before a trace whose `load` was changed by the same factor: every rate times it."""
    return Demand(
        demand.start, demand.bin, demand.prompt_tokens * factor, demand.output_tokens * factor, demand.requests * factor
    )


def splice(traces: Sequence[Trace]) -> Trace:
    """One trace after the other, each beginning where the window of the one before ends; names are joined.

    Raises:
        TraceError: nothing to join, or more names than codes.
    """
    if not traces:
        raise TraceError("there is no trace to splice", hint="give at least one")
    if len(traces) == 1:
        return traces[0]
    names = Names(
        _union([trace.names.models for trace in traces]),
        _union([trace.names.regions for trace in traces]),
        _union([trace.names.tiers for trace in traces]),
    )
    starts = np.cumsum([0, *(trace.window for trace in traces)])
    parts = [
        replace(
            trace,
            arrival=trace.arrival + start,
            deadline=_moved(trace, np.full(len(trace), start, dtype=np.int64)),
            model=_recoded(trace.names.models, names.models)[trace.model],
            region=_recoded(trace.names.regions, names.regions)[trace.region],
            tier=_recoded(trace.names.tiers, names.tiers)[trace.tier],
        )
        for trace, start in zip(traces, starts[:-1].tolist(), strict=True)
    ]
    at = ", ".join(show_duration(start) for start in starts[1:-1].tolist())
    notes = [note for trace in traces for note in trace.notes]
    return Trace(
        arrival=np.concatenate([part.arrival for part in parts]),
        prompt=np.concatenate([part.prompt for part in parts]),
        output=np.concatenate([part.output for part in parts]),
        model=np.concatenate([part.model for part in parts]),
        region=np.concatenate([part.region for part in parts]),
        tier=np.concatenate([part.tier for part in parts]),
        names=names,
        window=int(starts[-1]),
        deadline=_joined_deadlines(parts),
        cached=_joined_cached(parts),
        notes=(*dict.fromkeys(notes), f"{len(traces)} traces one after the other, joined at {at}"),
    ).check()


def demand_of(trace: Trace, bin: Micros = MINUTE) -> Demand:  # noqa: A002 # the word the record uses
    """Arriving requests and tokens per bin, region, model and tier, over the trace's window.

    Args:
        trace: the requests.
        bin: length of a bin, microseconds; the last bin may be cut by the window.

    Raises:
        TraceError: a bin that is not above 0.
    """
    if bin < 1:
        raise TraceError(f"a bin of {bin} microseconds cannot be counted", hint="give at least 1 microsecond")
    shape = (
        -(-trace.window // bin),
        len(trace.names.regions),
        len(trace.names.models),
        len(trace.names.tiers),
    )
    cell = np.ravel_multi_index((trace.arrival // bin, trace.region, trace.model, trace.tier), shape)
    size = int(np.prod(shape))

    def total(weights: NDArray[np.int32] | None) -> Floats:
        return np.bincount(cell, weights=weights, minlength=size).astype(np.float64).reshape(shape)

    return Demand(0, bin, total(trace.prompt), total(trace.output), total(None))


def _chosen(n: int, k: int, seed: int, name: str) -> Bools:
    """Exactly k of n rows, each equally likely: those with the k smallest draws."""
    draws = stream(seed, name).random(n)
    chosen = np.zeros(n, dtype=np.bool_)
    if k:
        chosen[np.argpartition(draws, k - 1)[:k]] = True
    return chosen


def _moved(trace: Trace, shift: Ints) -> Ints | None:
    """Deadlines after their requests moved by `shift`; a promise keeps its length."""
    if trace.deadline is None:
        return None
    return np.where(trace.deadline == UNSET, UNSET, trace.deadline + shift)


def _joined_deadlines(parts: Sequence[Trace]) -> Ints | None:
    if all(part.deadline is None for part in parts):
        return None
    return np.concatenate([np.full(len(p), UNSET, dtype=np.int64) if p.deadline is None else p.deadline for p in parts])


def _joined_cached(parts: Sequence[Trace]) -> NDArray[np.int32] | None:
    if all(part.cached is None for part in parts):
        return None
    return np.concatenate([np.full(len(p), UNSET, dtype=np.int32) if p.cached is None else p.cached for p in parts])


def _union(lists: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name for each in lists for name in each))
    if len(names) > 256:  # codes are uint8
        raise TraceError(f"together the traces have {len(names)} names of one kind, more than 256")
    return names


def _recoded(old: tuple[str, ...], new: tuple[str, ...]) -> NDArray[np.uint8]:
    return np.array([new.index(name) for name in old], dtype=np.uint8)
