"""Growth of counters and means of gauges on a grid: resets, samples that are missing, requests that are inside.

A counter that falls has begun anew from zero. Growth between two samples is spread evenly between them, which is
exact to what lies between two scrapes. A missing sample is no zero: the growth over it is known, and where it happened is not.
Works on arrays; knows no metric and no label. Read next: `collect.py`.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from sageserve.base.records import Bools, Floats, Ints
from sageserve.data.history.records import NO_INSTANCE, NOT_SCRAPED, SEEN_LEAST, Gap


def growth(value: Floats, reset: Bools) -> Floats:
    """float64[n - 1]: what a counter grew by between its samples.

    Args:
        value: float64[n], its samples.
        reset: bool[n - 1], where the program that counts began anew.
    """
    return np.where(reset, value[1:], np.maximum(np.diff(value), 0.0))


def resets(values: list[Floats]) -> Bools:
    """bool[n - 1]: where any of the counters of one program fell; all of them then counted from zero."""
    fell = np.zeros(max(0, len(values[0]) - 1), dtype=np.bool_) if values else np.zeros(0, dtype=np.bool_)
    for value in values:
        fell |= np.diff(value) < 0
    return fell


def arrivals(completed: Floats, inside: Floats, reset: Bools, owed: float = 0.0) -> tuple[Floats, float]:
    """What arrived between samples: completions and the change of what is inside; never negative.

    A request may leave without having been completed. Then the sum falls, and so much is taken from the next arrivals. What
    was inside an engine that began anew is gone, and nothing is owed for it.

    Args:
        completed: float64[n - 1], growth of completions.
        inside: float64[n], running and waiting requests.
        reset: bool[n - 1].
        owed: taken from the first arrivals.

    Returns:
        float64[n - 1], and what is still owed.
    """
    change = completed + np.where(reset, inside[1:], np.diff(inside))
    found = np.zeros_like(change)
    starts = [0, *(np.flatnonzero(reset)).tolist(), len(change)]
    for first, last in itertools.pairwise(starts):
        if first == last:
            continue
        if reset[first]:
            owed = 0.0
        total = np.concatenate(([0.0], np.cumsum(change[first:last]) - owed))
        highest = np.maximum.accumulate(total)
        found[first:last] = np.diff(highest)
        owed = float(highest[-1] - total[-1])
    return found, owed


def on_grid(time: Ints, grown: Floats, edges: Ints) -> Floats:
    """float64[edges - 1]: growth between samples, spread evenly, by interval.

    Args:
        time: int64[n], of the samples.
        grown: float64[n - 1].
        edges: int64[intervals + 1].
    """
    cumulative = np.concatenate(([0.0], np.cumsum(grown)))
    found: Floats = np.diff(np.interp(edges, time, cumulative))
    return found


def mean_on_grid(time: Ints, value: Floats, edges: Ints) -> Floats:
    """float64[edges - 1]: mean of a gauge's samples by interval; where an interval has none, straight between its neighbours."""
    rows = np.searchsorted(edges, time, side="right") - 1
    inside = (rows >= 0) & (rows < len(edges) - 1)
    count = np.bincount(rows[inside], minlength=len(edges) - 1)
    total = np.bincount(rows[inside], weights=value[inside], minlength=len(edges) - 1)
    middle = 0.5 * (edges[:-1] + edges[1:])
    return np.where(count > 0, total / np.maximum(count, 1), np.interp(middle, time, value))


@dataclass(slots=True)
class Presence:
    """When one instance was there, and when it was seen.

    Args:
        first: its first sample, microseconds.
        last: its last one so far.
        seen: (begin, end) of stretches without a hole, the last of them still growing.
    """

    first: int
    last: int
    seen: list[tuple[int, int]]

    def extend(self, time: Ints, hole: int) -> None:
        """More samples, after the last one; more than `hole` microseconds without one is a hole."""
        whole = np.concatenate(([self.last], time))
        apart = np.flatnonzero(np.diff(whole) > hole)
        begin = self.seen.pop()[0]
        for row in apart.tolist():
            self.seen.append((begin, int(whole[row])))
            begin = int(whole[row + 1])
        self.seen.append((begin, int(whole[-1])))
        self.last = int(whole[-1])


def seen_of(found: list[Presence], edges: Ints) -> tuple[Ints, Ints]:
    """int64[intervals] twice: how many instances are known by interval, and how many of them were seen."""
    known = _covered(np.array([(one.first, one.last) for one in found], np.int64).reshape(-1, 2), edges)
    seen = _covered(np.array([stretch for one in found for stretch in one.seen], np.int64).reshape(-1, 2), edges)
    return known, np.minimum(seen, known)


def gaps_of(known: Ints, seen: Ints) -> tuple[Gap, ...]:
    """Stretches in which nobody is known, and those in which too few of the known were seen."""
    found = [
        Gap(int(first), int(last), why)
        for dark, why in (((known == 0), NO_INSTANCE), ((known > 0) & (seen < SEEN_LEAST * known), NOT_SCRAPED))
        for first, last in np.flatnonzero(np.diff(np.concatenate(([False], dark, [False])).astype(np.int8))).reshape(-1, 2)
    ]
    return tuple(sorted(found, key=lambda gap: gap.first))


def _covered(stretches: Ints, edges: Ints) -> Ints:
    """Of each interval, how many stretches cover half of it or more."""
    count = len(edges) - 1
    half = (edges[1] - edges[0]) // 2
    first = np.clip(np.searchsorted(edges, stretches[:, 0] - half, side="left"), 0, count)
    last = np.clip(np.searchsorted(edges, stretches[:, 1] + half, side="right") - 1, 0, count)
    changes = np.zeros(count + 1, np.int64)
    keep = last > first
    np.add.at(changes, first[keep], 1)
    np.add.at(changes, last[keep], -1)
    return np.cumsum(changes[:-1])
