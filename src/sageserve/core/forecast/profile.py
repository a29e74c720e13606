"""Regression of demand some bins ahead on its level now and on what the same hours did on earlier days.

In logarithms, for each lead h:  x(t+h) − level(t) = β · features(t, h), where the features are yesterday's change over the
same hours, the mean change of earlier days, the distance to yesterday's and to the mean day's value, and the slope between
a fast, an hourly and a slow level. β is a ridge regression whose older rows count less, pulled towards a prior so that it
is usable after one day. Rows with large surprises count less (Huber's weights), busy rows more (demand is judged in
tokens). Knows nothing of intervals and other methods. Read next: `blend.py`, which weighs several of these.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from sageserve.base.records import Bools, Floats, Ints
from sageserve.base.units import DAY, HOUR
from sageserve.core.forecast.rolling import centred, cycle_mean, decayed, decayed_mean, take
from sageserve.core.forecast.series import Series

FEATURES: Final = 7
# Before any row was seen: a third of yesterday's change, a third of the mean day's, a little pull to yesterday's value,
# and a third of the way from the fast to the hourly level, as fast levels are noisy.
PRIOR: Final = np.array([0.0, 0.3, 0.3, 0.15, 0.0, 0.3, 0.0])
# The prior counts as this many hours of rows; the intercept's three times, as a lasting drift is rare.
PRIOR_HOURS: Final = 0.42
INTERCEPT_PULL: Final = 3.0
INCREMENT_MOST: Final = 3.0  # no forecast leaves the level by more than a factor of 20

HALF_LIFE_HOURS: Final = 36.0  # of the weight of a row: follows a weekend within a day
LEVEL_HOURS_MIDDLE: Final = 1.0
LEVEL_HOURS_SLOW: Final = 4.0
DAYS_KEEP: Final = 0.7  # weight of a day against the one after it, in the mean day
SURPRISE: Final = 0.05  # log error from which a row's weight falls
BUSY_POWER: Final = 0.5  # weight of a row ~ level^0.5: between judging in tokens (1) and in per cent (0)
ROWS_DAYS: Final = 7  # older rows weigh less than 4 % and are left out; features still reach further back


@dataclass(frozen=True, slots=True)
class RegressionShape:
    """What one profile regression looks at.

    Args:
        floor: added before the logarithm, as a share of the mean: small treats demand as ratios, large as amounts.
        level_hours: half-life of the fast level.
        smooth_hours: demand of earlier days is averaged over this much to either side.
        period_days: 1 for the daily, 7 for the weekly cycle, 0 for none: level and slope only.
    """

    floor: float
    level_hours: float
    smooth_hours: float
    period_days: int


class Past(NamedTuple):
    """Forecasts a method would have made.

    Args:
        made: float64[k, n]: row t holds what would have been forecast with bins ≤ t for bin t + leads[k]; NaN where the
            method had too little history.
        coming: float64[h]: what it forecasts now for leads 1 … h; NaN as above.
    """

    made: Floats
    coming: Floats


class _Levels(NamedTuple):
    log: Floats  # float64[n], NaN where missing
    fast: Floats
    middle: Floats
    slow: Floats
    smooth: Floats  # reads `reach` bins ahead: only ever used a whole cycle later
    smooth_mean: Floats  # mean over the cycles up to this one
    fast_mean: Floats
    reach: int
    period: int  # bins; 0 for none


def _levels(grid: Series, shape: RegressionShape, floor: float) -> _Levels:
    per_hour = HOUR / grid.bin
    log = np.log(grid.values + floor)
    fast = decayed_mean(log, shape.level_hours * per_hour)
    reach = round(shape.smooth_hours * per_hour)
    smooth = centred(log, reach)
    period = round(shape.period_days * 24 * per_hour)
    turn = max(period, 1)
    return _Levels(
        log=log,
        fast=fast,
        middle=decayed_mean(log, LEVEL_HOURS_MIDDLE * per_hour),
        slow=decayed_mean(log, LEVEL_HOURS_SLOW * per_hour),
        smooth=smooth,
        smooth_mean=cycle_mean(smooth, turn, DAYS_KEEP) if period else smooth,
        fast_mean=cycle_mean(fast, turn, DAYS_KEEP) if period else fast,
        reach=reach,
        period=period,
    )


def _features(levels: _Levels, rows: Ints, leads: Ints) -> Floats:
    """float64[leads, rows, FEATURES]; NaN where history does not reach back far enough.

    The newest whole cycle that lies wholly before a row is used: one cycle back, more for leads beyond a cycle.
    """
    fast, middle, slow = (take(x, rows) for x in (levels.fast, levels.middle, levels.slow))
    out = np.zeros((len(leads), len(rows), FEATURES))
    out[:, :, 0] = 1.0
    out[:, :, 5] = middle - fast
    out[:, :, 6] = slow - fast
    if levels.period == 0:
        return out
    back = -(-(leads + levels.reach) // levels.period) * levels.period
    then = rows[None, :] + (leads - back)[:, None]
    last = rows[None, :] - back[:, None]
    value, mean = take(levels.smooth, then), take(levels.smooth_mean, then)
    out[:, :, 1] = value - take(levels.fast, last)
    out[:, :, 2] = mean - take(levels.fast_mean, last)
    out[:, :, 3] = value - middle
    out[:, :, 4] = mean - middle
    return out


def _moments(rows: Floats, weights: Floats, block: int) -> Floats:
    """float64[leads, blocks, q, q]: weighted sums of products per block of rows, the blocks aligned to the end."""
    leads, n, q = rows.shape
    pad = -n % block
    full = np.concatenate([np.zeros((leads, pad, q)), rows * np.sqrt(weights)[:, :, None]], axis=1)
    cut = full.reshape(leads, -1, block, q)
    return np.matmul(cut.swapaxes(-1, -2), cut)


def _solve(moments: Floats, rows_per_hour: float) -> Floats:
    """float64[..., FEATURES]: ridge coefficients of moments whose last row and column belong to the target."""
    pull = np.full(FEATURES, PRIOR_HOURS * rows_per_hour)
    pull[0] *= INTERCEPT_PULL
    left = moments[..., :FEATURES, :FEATURES] + np.diag(pull)
    right = moments[..., :FEATURES, FEATURES] + pull * PRIOR
    solved: Floats = np.linalg.solve(left, right[..., None])[..., 0]
    return solved


def _weights(levels: _Levels, rows: Ints, surprise: Floats, base: float) -> Floats:
    level = take(levels.fast, rows)
    busy = np.exp(BUSY_POWER * (np.where(np.isfinite(level), level, base) - base))
    weights: Floats = busy / np.maximum(np.abs(surprise) / SURPRISE, 1.0)
    return weights


def _regress(levels: _Levels, rows: Ints, leads: Ints, *, per_hour: float, base: float) -> tuple[Floats, Floats]:
    """What would have been forecast (float64[leads, rows], log scale), and the coefficients now (float64[leads, F])."""
    features = _features(levels, rows, leads)
    level = take(levels.fast, rows)
    target = take(levels.log, rows[None, :] + leads[:, None]) - level
    known: Bools = np.isfinite(features).all(axis=-1) & np.isfinite(target)
    clean = np.where(known[:, :, None], features, 0.0)
    answer = np.where(known, target, 0.0)
    weights = _weights(levels, rows, answer - clean @ PRIOR, base) * known

    block = max(1, round(per_hour))
    moments = _moments(np.concatenate([clean, answer[:, :, None]], axis=-1), weights, block)
    sums = decayed(moments, HALF_LIFE_HOURS * per_hour / block, axis=1)
    betas = _solve(np.concatenate([sums, np.zeros_like(sums[:, :1])], axis=1), per_hour)  # the last one: of no rows

    # A row may use blocks whose targets had all been seen when the block before its own ended.
    own = (np.arange(len(rows)) + -len(rows) % block) // block
    usable = np.maximum(own[None, :] - (1 + -(-leads // block))[:, None], -1)
    step = np.einsum("krf,krf->kr", features, betas[np.arange(len(leads))[:, None], usable])
    return level + np.minimum(np.maximum(step, -INCREMENT_MOST), INCREMENT_MOST), betas[:, -2]


def profile(grid: Series, shape: RegressionShape, leads: Ints, horizon: int) -> Past:
    """Forecast from every past bin at some leads, and from the end at every lead.

    Args:
        grid: the history; at least one bin observed, and their mean above zero.
        shape: what to look at.
        leads: int64[k], ascending, bins ahead, from 1 to `horizon`.
        horizon: bins ahead to forecast from the end; coefficients between two leads are interpolated.
    """
    n, per_hour = len(grid), HOUR / grid.bin
    mean = float(np.nanmean(grid.values))
    floor = shape.floor * mean
    levels = _levels(grid, shape, floor)
    rows = np.arange(max(0, n - ROWS_DAYS * DAY // grid.bin), n)
    made_log, now = _regress(levels, rows, leads, per_hour=per_hour, base=float(np.log(mean)))
    made = np.full((len(leads), n), np.nan)
    made[:, rows] = np.exp(made_log) - floor

    ahead = np.arange(1, horizon + 1)
    between = np.stack([np.interp(ahead, leads, now[:, f]) for f in range(FEATURES)], axis=-1)
    step = np.einsum("hf,hf->h", _features(levels, np.array([n - 1]), ahead)[:, 0], between)
    coming = np.exp(levels.fast[-1] + np.minimum(np.maximum(step, -INCREMENT_MOST), INCREMENT_MOST)) - floor
    return Past(np.maximum(made, 0.0), np.maximum(coming, 0.0))
