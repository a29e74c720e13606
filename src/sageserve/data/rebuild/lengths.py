"""Token lengths drawn so that they fill the buckets of a histogram and meet its sum.

Between two bounds, log tokens rise straight with the share of requests. Below the first known share and above the last, they rise
straight with its normal score, as log-normal lengths do: a straight line to the last bound would make tails far too long. Lengths
of the highest bucket, of which least is known, are then drawn together or apart until the sum agrees; where that does not do, all
are scaled inside their buckets. Equal arguments give equal lengths. Read next: `requests.py`; docs/why/decisions has the figures.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from sageserve.base.records import Floats, Ints

_CERTAIN = 1e-12  # shares nearer to 0 and 1 have no normal score worth the name
_HALVINGS = 40  # of the scale; a factor within 2**-30
_DRAWN_MOST = 0.9  # of the way to a bucket's end: lengths are never all alike
_SCALE_MOST = 64.0  # vLLM's buckets are at most 2.5 wide, others' may be wider


@dataclass(frozen=True, slots=True)
class Buckets:
    """Shares of lengths by bucket, and their mean.

    Args:
        bounds: float64[buckets - 1], upper bounds of all but the last.
        counts: float64[buckets], relative.
        mean: tokens; NaN: nothing is known beyond the buckets.
        longest: tokens; no length is longer.
    """

    bounds: Floats
    counts: Floats
    mean: float
    longest: int

    def limits(self) -> tuple[Ints, Ints]:
        """int64[buckets] twice: the least and the most whole tokens in each bucket."""
        inner = np.minimum(np.floor(self.bounds), self.longest - 1).astype(np.int64)
        low = np.maximum(np.concatenate(([0], inner)) + 1, 1)
        high = np.maximum(np.concatenate((inner, [self.longest])), low)
        return low, high


def draw_lengths(buckets: Buckets, n: int, rng: np.random.Generator) -> NDArray[np.int32]:
    """int32[n], in random order: as many in each bucket as its share, and together n times the mean.

    Systematic sampling: when n is the number of observations, every bucket holds exactly as many as were counted. The sum is met
    within one token per bucket edge that it runs into, or as near as lengths inside their buckets can come.

    Args:
        buckets: with at least one count above 0.
        n: how many.
        rng: decides which request gets which length, and fractions of requests per bucket.
    """
    if n == 0:
        return np.zeros(0, np.int32)
    share = buckets.counts / buckets.counts.sum()
    edge = np.concatenate(([0.0], np.cumsum(share)))
    edge[-1] = 1.0
    counts = np.diff(np.floor(np.round(edge * n, 9) + rng.random())).astype(np.int64)
    bucket = np.repeat(np.arange(len(share)), counts)
    within = (np.arange(n) - np.repeat(np.cumsum(counts) - counts, counts) + 0.5) / np.repeat(counts, counts)
    low, high = buckets.limits()
    value = _quantiles(buckets, edge, edge[bucket] + within * share[bucket])
    found = _whole(_met(value, buckets.mean * n, (low[bucket], high[bucket])), low[bucket], high[bucket])
    return rng.permutation(found).astype(np.int32)


def _quantiles(buckets: Buckets, edge: Floats, at: Floats) -> Floats:
    """Lengths at these cumulative shares; stretches between empty buckets have curves of their own."""
    low, high = buckets.limits()
    filled = np.concatenate(([False], np.diff(edge) > 0, [False]))
    starts, ends = np.flatnonzero(np.diff(filled.astype(np.int8)) > 0), np.flatnonzero(np.diff(filled.astype(np.int8)) < 0)
    found = np.empty(len(at))
    for first, last in zip(starts.tolist(), ends.tolist(), strict=True):
        inside = (at >= edge[first]) & (at <= edge[last])
        bounds = np.log(np.concatenate(([max(low[first] - 0.5, 0.5)], high[first:last] + 0.5)))
        found[inside] = np.exp(_curve(edge[first : last + 1], bounds, at[inside]))
    return found


def _curve(share: Floats, bounds: Floats, at: Floats) -> Floats:
    """Log tokens at cumulative shares, of one stretch of filled buckets."""
    found: Floats = np.interp(at, share, bounds)
    known = np.flatnonzero((share > _CERTAIN) & (share < 1 - _CERTAIN))
    if len(known) < 2:  # one or two buckets hold everything: no slope is known
        return found
    score = ndtri(np.clip(at, _CERTAIN, 1 - _CERTAIN))
    x, y = ndtri(share[known]), bounds[known]
    below = y[0] + (score - x[0]) * (y[1] - y[0]) / (x[1] - x[0])
    above = y[-1] + (score - x[-1]) * (y[-1] - y[-2]) / (x[-1] - x[-2])
    found = np.where(score < x[0], below, np.where(score > x[-1], above, found))
    clipped: Floats = np.clip(found, bounds[0], bounds[-1])
    return clipped


def _met(value: Floats, total: float, limits: tuple[Ints, Ints]) -> Floats:
    """Lengths that add up to the total, as nearly as their buckets allow.

    Inside most buckets the curve lies between two shares that are known. In the highest one it is drawn on from there, so what
    is missing or too much is looked for in that one first, and then in all by a common factor.
    """
    low, high = limits
    inside: Floats = np.clip(value, low, high).astype(np.float64)
    if np.isnan(total):
        return inside
    top = low == low.max()
    inside[top] = _stretched(inside[top], total - float(inside[~top].sum()), (low[top], high[top]))
    return _scaled(inside, total, limits)


def _stretched(value: Floats, total: float, limits: tuple[Ints, Ints]) -> Floats:
    """Lengths of one bucket, drawn towards one of its ends, but not closer than to a tenth."""
    low, high = limits
    excess = float(value.sum()) - total
    room = float((value - low).sum()) if excess > 0 else float((high - value).sum())
    part = min(abs(excess) / room, _DRAWN_MOST) if room > 0 else 0.0
    return value + part * ((low if excess > 0 else high) - value)


def _scaled(value: Floats, total: float, limits: tuple[Ints, Ints]) -> Floats:
    """Lengths times a common factor, kept inside their buckets."""
    low, high = limits
    inside = value
    least, most = 1.0 / _SCALE_MOST, _SCALE_MOST
    for _ in range(_HALVINGS):
        factor = float(np.sqrt(least * most))
        inside = np.clip(value * factor, low, high)
        if float(inside.sum()) < total:
            least = factor
        else:
            most = factor
    return inside


def _whole(value: Floats, low: Ints, high: Ints) -> Ints:
    """Whole tokens with the same sum: fractions are carried to the next length of the same bucket."""
    carried: Ints = np.diff(np.rint(np.cumsum(value)), prepend=0.0).astype(np.int64)
    return np.clip(carried, low, high)
