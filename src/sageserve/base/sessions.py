"""Conversations of a trace: which turn comes after which, and which of them wait for the answer before.

A closed loop is what people and agents are: the next turn comes some time after the answer, so a slow fleet is asked later, not
more. Knows columns only; the simulator's kernel plays what is found here. Read next: docs/reference/traces.md, "Conversations".
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sageserve.base.records import UNSET, Bools, Ints, Trace


@dataclass(frozen=True, slots=True)
class Turns:
    """The requests of a trace in the order in which a closed loop holds them, and what links them.

    Args:
        order: int64[n], rows of the trace: those that arrive by themselves in order of arrival, then those that follow an answer.
        first: how many arrive by themselves.
        before: int32[n], the turn before each, as a place in `order`; UNSET where there is none.
        after: int32[n], the turn that waits for each one's answer; UNSET where none does.
        pause: int64[n], microseconds from that answer to the turn itself; 0 for those that arrive by themselves.
    """

    order: Ints
    first: int
    before: NDArray[np.int32]
    after: NDArray[np.int32]
    pause: Ints


def turns_before(trace: Trace) -> Ints:
    """int64[n]: row of the turn before each request; UNSET for first turns, and for requests that stand alone.

    Turns of a session go by their number where the source has one, else by their time.
    """
    before = np.full(len(trace), UNSET, dtype=np.int64)
    if "session" not in trace.labels:
        return before
    codes = trace.labels["session"].codes
    turn = trace.counts.get("turn", np.zeros(len(trace), dtype=np.int32))
    order = np.lexsort((np.arange(len(trace)), turn, codes))
    order = order[codes[order] != UNSET]
    same = np.diff(codes[order]) == 0
    before[order[1:][same]] = order[:-1][same]
    return before


def follows(trace: Trace, before: Ints) -> Bools:
    """bool[n]: the request has a turn before it and a pause after that one's answer.

    Args:
        trace: the requests.
        before: `turns_before` of it.
    """
    return np.zeros(len(trace), np.bool_) if trace.delay is None else (before != UNSET) & (trace.delay != UNSET)


def closed_loop(trace: Trace) -> Turns | None:
    """What a closed loop plays; None when every request of the trace arrives by itself."""
    before = turns_before(trace)
    waits = follows(trace, before)
    if trace.delay is None or not waits.any():
        return None
    order = np.concatenate([np.flatnonzero(~waits), np.flatnonzero(waits)])
    place = np.empty(len(trace), dtype=np.int32)
    place[order] = np.arange(len(trace), dtype=np.int32)
    linked = np.where(before == UNSET, UNSET, place[before]).astype(np.int32)[order]
    first = int(len(trace) - waits.sum())
    after = np.full(len(trace), UNSET, dtype=np.int32)
    after[linked[first:]] = np.arange(first, len(trace), dtype=np.int32)
    pause = np.where(waits, np.maximum(trace.delay, 0), 0)[order]
    return Turns(order, first, linked, after, pause)
