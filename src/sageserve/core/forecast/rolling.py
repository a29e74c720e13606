"""Sums over the past of many series at once: decayed sums, moving averages, lags, weighted quantiles.

All work along the last axis, treat NaN as "not observed", and never let a later value into an earlier result, except
`centred`, whose callers must lag it by its window. Pure numpy. Read next: `profile.py`, which is built from these.
"""

import numpy as np

from sageserve.base.records import Floats, Ints


def decayed(x: Floats, half_life: float, *, axis: int = -1) -> Floats:
    """Sum of a^j · x[t − j] over j ≥ 0 with a = ½^(1/half_life), by doubling the span log2(n) times."""
    out = np.array(x, np.float64)
    along = np.moveaxis(out, axis, 0)
    older = np.empty_like(along)  # one room for all spans: arrays of this size are not cheap to have
    keep, span, n = 0.5 ** (1.0 / half_life), 1, len(along)
    while span < n and keep**span > 1e-9:  # what is left of older values would not be seen
        along[span:] += np.multiply(along[:-span], keep**span, out=older[span:])
        span *= 2
    return out


def decayed_mean(x: Floats, half_life: float) -> Floats:
    """Exponentially weighted mean of what was observed so far; NaN before anything was."""
    seen = np.isfinite(x)
    weight = decayed(seen.astype(np.float64), half_life)
    total = decayed(np.where(seen, x, 0.0), half_life)
    return np.where(weight > 1e-6, total / np.maximum(weight, 1e-6), np.nan)


def centred(x: Floats, reach: int) -> Floats:
    """Mean of the observed values within `reach` bins to either side; reads up to `reach` bins ahead."""
    if reach <= 0:
        return x
    seen = np.isfinite(x)
    n = x.shape[-1]
    low, high = np.maximum(np.arange(n) - reach, 0), np.minimum(np.arange(n) + reach + 1, n)

    def sums(values: Floats) -> Floats:
        total = np.zeros((*values.shape[:-1], n + 1))
        np.cumsum(values, axis=-1, out=total[..., 1:])
        spans: Floats = total[..., high] - total[..., low]
        return spans

    count = sums(seen.astype(np.float64))
    return np.where(count > 0.5, sums(np.where(seen, x, 0.0)) / np.maximum(count, 1.0), np.nan)


def cycle_mean(x: Floats, period: int, keep: float) -> Floats:
    """Weighted mean of x[t], x[t − period], x[t − 2·period], …, each turn counting `keep` times the one after it."""
    seen = np.isfinite(x)
    weight, total = seen.astype(np.float64), np.where(seen, x, 0.0)
    for begin in range(period, x.shape[-1], period):
        end = min(begin + period, x.shape[-1])
        weight[..., begin:end] += keep * weight[..., begin - period : end - period]
        total[..., begin:end] += keep * total[..., begin - period : end - period]
    return np.where(weight > 0, total / np.maximum(weight, 1e-12), np.nan)


def take(x: Floats, index: Ints) -> Floats:
    """x[index], NaN where the index lies outside; x is one-dimensional, index has any shape."""
    inside = (index >= 0) & (index < len(x))
    return np.where(inside, x.take(index, mode="clip"), np.nan)


def take_rows(x: Floats, index: Ints) -> Floats:
    """float64[..., n] taken along the last axis by index[k, m], where k is the axis before; NaN outside.

    Args:
        x: float64[e, k, n].
        index: int64[k, m].
    """
    inside = (index >= 0) & (index < x.shape[-1])
    safe = np.minimum(np.maximum(index, 0), x.shape[-1] - 1)
    taken = x[:, np.arange(x.shape[1])[:, None], safe]
    return np.where(inside, taken, np.nan)


def weighted_quantiles(values: Floats, weights: Floats, levels: tuple[float, ...], *, repeats: float = 1.0) -> Floats:
    """float64[levels]: smallest value at which the weight reaches `level` of the total plus one typical value.

    The extra value is conformal prediction's correction for a finite sample: it moves every quantile outwards.

    Args:
        values: float64[n], at least one.
        weights: float64[n], above zero.
        levels: quantile levels.
        repeats: how many neighbouring values tell the same thing, and so count as one in that correction.
    """
    order = np.argsort(values, kind="stable")
    ranked = values[order]
    reached = np.cumsum(weights[order])
    total = reached[-1]
    typical = repeats * float((weights**2).sum() / total)  # the total over the effective number of values
    out = np.empty(len(levels))
    for i, level in enumerate(levels):
        goal = level * (total + typical) if level >= 0.5 else level * (total + typical) - typical
        out[i] = ranked[min(int(np.searchsorted(reached, goal)), len(ranked) - 1)]
    return out
