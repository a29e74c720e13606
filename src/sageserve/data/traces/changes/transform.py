"""What can be done to a whole trace: change its speed, its load, and sum it into demand.

Each function returns a new trace that says in its notes what was done. Reads no file; what is random is drawn
from named streams, so equal seeds give equal traces. Read next: `data/traces/requests.py`.
"""

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sageserve.base.errors import TraceError
from sageserve.base.records import UNSET, Demand, Floats, Ints, Labels, Trace
from sageserve.base.rng import stream
from sageserve.base.units import MINUTE, SECOND, Micros, show_duration

JITTER: Final[Micros] = 30 * SECOND
"""Copies arrive up to this much earlier or later: minutes keep their rate, no instant has twins."""


NEAR: Final = 15
"""Minutes: a resampled minute is another one at most as far away, so that the shape of the day stays."""


def scale_time(trace: Trace, factor: float) -> Trace:
    """The trace played `factor` times as long, pauses between turns included; promises keep their length.

    Raises:
        TraceError: a factor that is not above 0, or that makes times too large.
    """
    if factor == 1.0:
        return trace
    window = trace.window * factor
    if not factor > 0 or not window < 2**61:  # half of what int64 microseconds hold, deadlines come on top
        raise TraceError(
            f"--time-scale {factor:g} must be above 0 and keep the trace below 70,000 years", hint="such as --time-scale 0.5"
        )
    arrival = np.floor(trace.arrival * factor).astype(np.int64)
    old, new = show_duration(trace.window), show_duration(round(window))
    note = f"times are multiplied by {factor:g}: {old} became {new}"
    return replace(
        trace,
        arrival=arrival,
        window=max(round(window), int(arrival[-1]) + 1 if len(arrival) else 1),
        deadline=_moved(trace, arrival - trace.arrival),
        delay=None if trace.delay is None else _scaled(trace.delay, factor),
        notes=(*trace.notes, note),
    )


def _scaled(delay: Ints, factor: float) -> Ints:
    scaled: Ints = np.where(delay == UNSET, UNSET, np.floor(delay * factor)).astype(np.int64)
    return scaled


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
    units = _units(trace)
    if factor < 1:
        kept = np.sort(_chosen(units, wanted, seed, "load/thin"))
        note = f"load × {factor:g}: {wanted:,} of {n:,} requests, chosen with seed {seed}"
        return replace(trace.take(kept), notes=(*trace.notes, note))
    whole, rest = divmod(wanted, n)
    extra = np.sort(_chosen(units, rest, seed, "load/copies"))
    rows = np.concatenate([np.tile(np.arange(n), whole), extra])
    copy = np.repeat(np.arange(whole + 1), [n] * whole + [rest])
    together = "session" in trace.labels  # a conversation is shifted as one
    draws = stream(seed, "load/jitter").integers(-JITTER, JITTER, size=(whole + 1) * n if together else len(rows), endpoint=True)
    shift = draws[copy * n + units[rows]] if together else draws
    shift = np.where(copy == 0, 0, shift)  # the originals stay where they are
    begin = trace.arrival[units[rows]]  # what would begin before the window is mirrored into it, its turns in their order
    arrival = np.minimum(trace.arrival[rows] + np.abs(begin + shift) - begin, trace.window - 1)
    order = np.argsort(arrival, kind="stable")
    arrival = arrival[order]
    copied = _told_apart(trace, rows, copy).take(order)
    note = f"load × {factor:g}: {wanted:,} requests from {n:,}, copies shifted by up to {show_duration(JITTER)} with seed {seed}"
    return replace(copied, arrival=arrival, deadline=_moved(copied, arrival - copied.arrival), notes=(*trace.notes, note))


def resample(trace: Trace, seed: int) -> Trace:
    """Another window that might have been: each minute has the requests of a minute drawn from those within `NEAR` of it.

    A local block bootstrap (Paparoditis and Politis, 2002) in blocks of a minute: rates by the hour and bursts within a minute
    stay, their sequence is another. A conversation belongs to the minute it begins in, and moves as one. What differs from day to
    day, and is not in the trace, is not in it either.

    Args:
        trace: what was recorded.
        seed: of the stream `resample/minutes`.
    """
    blocks = int(-(-trace.window // MINUTE))
    units = _units(trace)
    block = trace.arrival[units] // MINUTE
    order = np.argsort(block, kind="stable")
    begins = np.searchsorted(block[order], np.arange(blocks + 1))
    drawn = np.arange(blocks) + stream(seed, "resample/minutes").integers(-NEAR, NEAR, size=blocks, endpoint=True)
    whole = max(int(trace.window // MINUTE), 1)  # what is left of a minute at the end stands for no other
    source = np.abs(drawn)
    source = np.where(source >= whole, 2 * (whole - 1) - source, source).clip(0, whole - 1)  # mirrored at both ends
    sizes = np.diff(begins)[source]
    target = np.repeat(np.arange(blocks), sizes)
    within = np.arange(len(target)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    rows = order[begins[source[target]] + within]
    seen = np.zeros(blocks, np.int64)
    copies = np.zeros(blocks, np.int64)
    for b, s in enumerate(source.tolist()):
        copies[b] = seen[s]
        seen[s] += 1
    shift = (target - source[target]) * MINUTE
    arrival = np.minimum(trace.arrival[rows] + shift, trace.window - 1)  # of turns behind the end
    again = np.argsort(arrival, kind="stable")
    again = again[(trace.arrival[units[rows]] + shift < trace.window)[again]]
    rows, arrival, copy = rows[again], arrival[again], copies[target[again]]
    moved = _told_apart(trace, rows, copy)
    note = f"resampled with seed {seed}: each minute is one within {NEAR} minutes of it; {len(rows):,} requests"
    return replace(moved, arrival=arrival, deadline=_moved(moved, arrival - moved.arrival), notes=(*trace.notes, note))


def _units(trace: Trace) -> Ints:
    """int64[n]: what is chosen or copied together: a conversation, else a request; the row of its first request."""
    rows = np.arange(len(trace))
    if "session" not in trace.labels:
        return rows
    codes = trace.labels["session"].codes.astype(np.int64)
    own = np.where(codes == UNSET, len(trace.labels["session"].names) + rows, codes)
    _, firsts, back = np.unique(own, return_index=True, return_inverse=True)
    units: Ints = firsts[back]
    return units


def _chosen(units: Ints, k: int, seed: int, name: str) -> Ints:
    """K rows, those of the units with the smallest draws; the last unit may be cut behind its first requests."""
    if not k:
        return np.zeros(0, dtype=np.int64)
    draws = stream(seed, name).random(len(units))
    rows = np.arange(len(units))
    if (units == rows).all():
        return np.argpartition(draws, k - 1)[:k]
    return np.lexsort((rows, draws[units]))[:k]


def _told_apart(trace: Trace, rows: Ints, copy: Ints) -> Trace:
    """These rows; copies of a conversation are conversations of their own."""
    copied = trace.take(rows)
    if "session" not in trace.labels:
        return copied
    names, codes = trace.labels["session"].names, copied.labels["session"].codes
    every = tuple(
        f"{name} (copy {number})" if number else name for number in range(int(copy.max(initial=0)) + 1) for name in names
    )
    moved = np.where(codes == UNSET, UNSET, codes + copy * len(names)).astype(np.int32)
    return replace(copied, labels={**copied.labels, "session": Labels(moved, every)})


def load_earlier(demand: Demand, factor: float) -> Demand:
    """The demand before a trace whose `load` was changed by the same factor: every rate times it."""
    return Demand(
        demand.start, demand.bin, demand.prompt_tokens * factor, demand.output_tokens * factor, demand.requests * factor
    )


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


def _moved(trace: Trace, shift: Ints) -> Ints | None:
    """Deadlines after their requests moved by `shift`; a promise keeps its length."""
    if trace.deadline is None:
        return None
    return np.where(trace.deadline == UNSET, UNSET, trace.deadline + shift)


def demand_before(history: Demand | None, cut_off: Demand | None) -> Demand | None:
    """Demand per minute that ends at time 0: an earlier history, then what was cut off before the trace.

    Args:
        history: ends where what was cut off begins; None: unknown.
        cut_off: ends at time 0; None: nothing was.
    """
    if cut_off is None or history is None or not len(history.requests):
        return history if cut_off is None else cut_off
    return Demand(
        history.start + cut_off.start,
        MINUTE,
        np.concatenate([history.prompt_tokens, cut_off.prompt_tokens]),
        np.concatenate([history.output_tokens, cut_off.output_tokens]),
        np.concatenate([history.requests, cut_off.requests]),
    )
