"""Intervals from errors really made: conformal bands around any forecast.

A forecaster shows what it would have forecast at past bins; the errors of those forecasts, each divided by how large
errors of that lead had been just before it, give quantiles that hold for the next forecast as far as tomorrow's errors,
so scaled, look like yesterday's (split conformal prediction with local scaling and weights that fade with age).
Knows nothing of how the forecast is made. Read next: `blend.py`, `naive.py` and `library.py`, its three callers.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from sageserve.base.records import Floats, Ints
from sageserve.base.units import HOUR
from sageserve.core.forecast.rolling import centred, decayed_mean, take_rows, weighted_quantiles
from sageserve.core.forecast.series import Series

LEVEL_FLOOR: Final = 0.3  # share of the mean added to a forecast before errors are taken relative to it
RECENT_HOURS: Final = 3.0  # half-lives of the mean error: how the last hours went,
LASTING_HOURS: Final = 24.0  # and the last day
SAME_TIME_HOURS: Final = 1.5  # how the same time of the last day went, this much to either side
ERRORS_HALF_LIFE_HOURS: Final = 36.0  # weight of a past error: a changed habit is half of what counts after a day and a half
ERRORS_ALIKE_HOURS: Final = 1.0  # errors this close in time are about the same event
ERRORS_LEAST: Final = 20  # fewer errors than this say nothing about a tail


@dataclass(frozen=True, slots=True)
class HistoryGrid:
    """A history at the resolution it is modelled at, beside the resolution it came in.

    Args:
        series: the history in bins of at least the modelling resolution, n of them.
        native: float64[n, f]: the same bins as they came, each times f, so that they estimate their group's sum.
    """

    series: Series
    native: Floats

    @property
    def factor(self) -> int:
        """How many bins as they came make one of the grid."""
        return self.native.shape[1]

    @property
    def mean(self) -> float:
        """Mean of the observed bins."""
        return float(np.nanmean(self.series.values))

    def newest(self, bins: int) -> "HistoryGrid":
        """Its last `bins` bins, or all when there are fewer; all when nothing was observed in the last ones."""
        older = max(0, len(self.series) - bins)
        if not np.isfinite(self.series.values[older:]).any():
            return self
        start = self.series.start + older * self.series.bin
        return HistoryGrid(Series(self.series.values[older:], self.series.bin, start), self.native[older:])


def grid_of(history: Series, resolution: int) -> HistoryGrid:
    """The history in bins of at least `resolution` microseconds (its own bins when they are no finer)."""
    factor = max(1, -(-resolution // history.bin))
    if len(history) < 4 * factor:
        factor = 1
    coarse = history.coarser(factor)
    skip = len(history) - len(coarse) * factor
    return HistoryGrid(coarse, history.values[skip:].reshape(-1, factor) * factor)


def leads_for(horizon: int) -> Ints:
    """Leads at which past forecasts are made: 1, 2, 4, 8, … and the horizon; what lies between is interpolated."""
    return np.unique(np.minimum(2 ** np.arange(horizon.bit_length() + 1), horizon))


def by_target(x: Floats, leads: Ints) -> Floats:
    """float64[e, k, n] moved so that column t holds what belongs to target bin t, instead of to origin t."""
    return take_rows(x, np.arange(x.shape[-1])[None, :] - leads[:, None])


def same_time(x: Floats, leads: Ints, reach: int, period: int) -> Floats:
    """Mean of x[e, k, ·] (by target) around the target's time of day on the newest day that is wholly past."""
    back = -(-(leads + reach) // period) * period
    return take_rows(centred(x, reach), np.arange(x.shape[-1])[None, :] + (leads - back)[:, None])


def targets(values: Floats, leads: Ints) -> Floats:
    """float64[k, n]: the value at t + leads[k]; NaN beyond the end."""
    return take_rows(values[None, None, :], np.arange(len(values))[None, :] + leads[:, None])[0]


def typical_errors(relative: Floats, leads: Ints, bin_us: int) -> Floats:
    """float64[k, n]: mean size of relative errors as known at each origin; NaN before any error is known."""
    per_hour = HOUR / bin_us
    known = by_target(relative[None], leads)
    parts = [decayed_mean(known, hours * per_hour) for hours in (RECENT_HOURS, LASTING_HOURS)]
    if HOUR * 24 % bin_us == 0:
        parts.append(same_time(known, leads, round(SAME_TIME_HOURS * per_hour), round(24 * per_hour)))
    stack = np.concatenate(parts)
    seen = np.isfinite(stack)
    count = seen.sum(axis=0)
    return np.where(count > 0, np.where(seen, stack, 0.0).sum(axis=0) / np.maximum(count, 1), np.nan)


def bands(
    grid: HistoryGrid, made: Floats, coming: Floats, *, leads: Ints, levels: tuple[float, ...], first: int = 0
) -> Floats | None:
    """Quantiles around a forecast; None when it has made too few errors to tell.

    Args:
        grid: the history, n bins.
        made: float64[k, n]: forecasts made at bin t for bin t + leads[k], from bins ≤ t only; NaN where none was.
        coming: float64[h]: the forecast from the end.
        leads: int64[k], ascending.
        levels: q ascending quantile levels.
        first: origins before this bin are left out, as their forecasts had less history than the coming one has.

    Returns:
        float64[h, q] in units of the grid's bins: not negative, never decreasing along a row.
    """
    floor = max(LEVEL_FLOOR * grid.mean, np.finfo(np.float64).tiny)  # where nothing ever arrived, no error is made
    truth = targets(grid.series.values, leads)
    typical = typical_errors(np.abs(truth - made) / (made + floor), leads, grid.series.bin)
    unit = np.maximum(np.maximum(typical, 1e-9) * (made + floor), np.finfo(np.float64).tiny)
    native = np.stack([targets(column, leads) for column in grid.native.T], axis=-1)
    scores = (native - made[:, :, None]) / unit[:, :, None]
    scores[:, :first] = np.nan
    age = np.arange(len(grid.series))[::-1]
    repeats = max(1.0, ERRORS_ALIKE_HOURS * HOUR / grid.series.bin * grid.factor)
    weight = np.repeat(0.5 ** (age * grid.series.bin / HOUR / ERRORS_HALF_LIFE_HOURS), grid.factor)

    quantiles = np.full((len(leads), len(levels)), np.nan)
    for k in range(len(leads)):
        row = scores[k].ravel()
        seen = np.isfinite(row)
        if seen.sum() >= ERRORS_LEAST:
            quantiles[k] = weighted_quantiles(row[seen], weight[seen], levels, repeats=repeats)
    scale = _newest(typical)
    usable = np.isfinite(quantiles).all(axis=1) & np.isfinite(scale)
    if not usable.any() or not levels:
        return None
    ahead = np.arange(1, len(coming) + 1)
    spread = np.interp(ahead, leads[usable], scale[usable]) * (coming + floor)
    shift = np.stack([np.interp(ahead, leads[usable], column) for column in quantiles[usable].T], axis=-1)
    values = np.maximum(coming[:, None] + spread[:, None] * shift, 0.0)
    return np.maximum.accumulate(values, axis=1)


def _newest(typical: Floats) -> Floats:
    """float64[k]: the newest known typical error of each lead."""
    seen = np.isfinite(typical)
    last = typical.shape[1] - 1 - np.argmax(seen[:, ::-1], axis=1)
    return np.where(seen.any(axis=1), typical[np.arange(len(typical)), last], np.nan)
