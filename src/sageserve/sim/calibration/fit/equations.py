"""What requests' times are made of: how far each is off in a replay, and how it changes with every coefficient.

A time is a sum over the blocks between two instants. From the first token to the last those are the request's own blocks.
Before the first token there are two views, and neither is always right: that a request waits for the blocks after its arrival
(the engine is often idle), or that its first token comes so many blocks after the engine became busy (it never is again).
Finite differences of a replay would see neither: an arrival waits for the end of an iteration, so small changes make the
teeth of a saw. Knows no search. Read next: `descent.py`.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from sageserve.base.records import Bools, Floats, Ints
from sageserve.data.measured.runs import MeasuredRequests
from sageserve.sim.replay import Replayed, ReplayedBlocks

GAP: Final = 2.0  # microseconds between two blocks from which the engine was idle: lengths are rounded to one
OWN_TTFT: Final = 0.2  # of its weight that TTFT keeps where a request's own blocks are trusted, not its waiting


@dataclass(frozen=True, slots=True)
class Weights:
    """What mean relative errors of E2E, TPOT and TTFT count in a cost."""

    e2e: float
    tpot: float
    ttft: float


@dataclass(frozen=True, slots=True)
class Equations:
    """Relative errors as functions of the coefficients: off + slopes @ (values - values played), one row per time.

    Args:
        off: float64[m], (simulated - measured) / measured.
        slopes: float64[m, k], change of `off` per unit of each coefficient.
        weight: float64[m]; their sum with |off| is the cost.
        request: int64[m], row of the request.
        kind: int64[m]: 0 E2E, 1 TPOT, 2 TTFT.
    """

    off: Floats
    slopes: Floats
    weight: Floats
    request: Ints
    kind: Ints


@dataclass(frozen=True, slots=True)
class Work:
    """What coefficients a replay was played with, and what its blocks take per unit of each.

    Args:
        values: float64[k].
        blocks: as played.
        per_block: float64[b, k], microseconds per unit.
        once: float64[k], microseconds per unit that a request takes once.
    """

    values: Floats
    blocks: ReplayedBlocks
    per_block: Floats
    once: Floats


def equations(requests: MeasuredRequests, seen: Bools, played: Replayed, work: Work, weights: Weights) -> tuple[Equations, ...]:
    """Three sets: waiting counted from the arrival, from when the engine became busy, and hardly counted.

    Args:
        requests: as measured, n rows.
        seen: bool[n], whose times count.
        played: the replay, n rows.
        work: of that replay.
        weights: of the three times.
    """
    several = seen & (requests.output > 1)
    total = np.vstack([np.zeros(work.per_block.shape[1]), np.cumsum(work.per_block, axis=0)])
    entry = round(float(work.once @ work.values))
    first = np.searchsorted(work.blocks.start, requests.arrival + played.ttft - entry, side="left")
    last = np.searchsorted(work.blocks.start, requests.arrival + played.e2e - entry, side="left")
    decoding = total[last] - total[first]
    arrived = _at(requests.arrival, work, total)
    began = total[_busy_since(work)[np.maximum(first - 1, 0)]]

    def rows(since: Floats, counts: Weights) -> Equations:
        waited = total[first] - since + work.once
        parts = (
            (played.e2e, requests.e2e, waited + decoding, seen, counts.e2e),
            (played.tpot, requests.tpot, decoding / np.maximum(requests.output - 1, 1)[:, None], several, counts.tpot),
            (played.ttft, requests.ttft, waited, seen, counts.ttft),
        )
        made = [
            (*_relative(ours[some], theirs[some], slope[some], weight), np.flatnonzero(some), np.full(int(some.sum()), kind))
            for kind, (ours, theirs, slope, some, weight) in enumerate(parts)
        ]
        return Equations(*(np.concatenate(columns) for columns in zip(*made, strict=True)))

    own = Weights(0.0, weights.tpot, OWN_TTFT * weights.ttft)
    return rows(arrived, weights), rows(began, weights), rows(arrived, own)


def _relative(ours: Ints, theirs: Ints, slope: Floats, weight: float) -> tuple[Floats, Floats, Floats]:
    measured = np.maximum(theirs, 1).astype(np.float64)
    return (ours - theirs) / measured, slope / measured[:, None], np.full(len(ours), weight / max(len(ours), 1))


def _at(time: Ints, work: Work, total: Floats) -> Floats:
    """float64[n, k]: microseconds per unit of all work done by `time`, inside a block in proportion to its time."""
    block = np.maximum(np.searchsorted(work.blocks.start, time, side="right") - 1, 0)
    length = np.maximum(work.per_block @ work.values, 1.0)
    share = np.clip((time - work.blocks.start[block]) / length[block], 0.0, 1.0)
    done: Floats = total[block] + share[:, None] * work.per_block[block]
    return done


def _busy_since(work: Work) -> Ints:
    """int64[b]: the block with which the engine became busy, for each block."""
    start = work.blocks.start
    end = start + work.per_block @ work.values
    fresh = np.append(True, start[1:] > end[:-1] + GAP)
    return np.maximum.accumulate(np.where(fresh, np.arange(len(start)), 0))
