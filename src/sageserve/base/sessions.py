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
        session: int32[n], codes of the trace's sessions; UNSET for requests of none.
        number: int32[n], which turn of its session each is, from 1; UNSET for requests of none.
    """

    order: Ints
    first: int
    before: NDArray[np.int32]
    after: NDArray[np.int32]
    pause: Ints
    session: NDArray[np.int32]
    number: NDArray[np.int32]

    def longest(self) -> tuple[int, int]:
        """The most turns of a session, and the longest sum of the pauses of one in microseconds."""
        some = self.session != UNSET
        sums = np.bincount(self.session[some], weights=self.pause[some])
        return int(self.number.max()), int(sums.max())


def turns_before(trace: Trace) -> Ints:
    """int64[n]: row of the turn before each request; UNSET for first turns, and for requests of no session.

    Turns of a session go by their number where the source has one, else by their time.
    """
    before = np.full(len(trace), UNSET, dtype=np.int64)
    rows, later = _by_session(trace)
    before[rows[1:][later[1:]]] = rows[:-1][later[1:]]
    return before


def _by_session(trace: Trace) -> tuple[Ints, Bools]:
    """Rows of sessions, session by session in the order of their turns; and which of them are not the first of theirs."""
    if "session" not in trace.labels:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.bool_)
    codes = trace.labels["session"].codes
    turn = trace.counts.get("turn", np.zeros(len(trace), dtype=np.int32))
    rows = np.lexsort((np.arange(len(trace)), turn, codes))
    rows = rows[codes[rows] != UNSET]
    return rows, np.diff(codes[rows], prepend=UNSET) == 0


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
    return Turns(order, first, linked, after, pause, trace.labels["session"].codes[order], _numbers(trace)[order])


def _numbers(trace: Trace) -> NDArray[np.int32]:
    """int32[n]: which turn of its session each request is, from 1."""
    rows, later = _by_session(trace)
    places = np.arange(len(rows))
    starts = np.maximum.accumulate(np.where(later, 0, places))
    numbers = np.full(len(trace), UNSET, dtype=np.int32)
    numbers[rows] = places - starts + 1
    return numbers
