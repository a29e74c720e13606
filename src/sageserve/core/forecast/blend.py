"""The default forecaster: several fast methods, weighted by the errors each would have made on this history.

Members are the naive forecasts, four profile regressions of different reach and, from eight days on, their weekly
siblings. For every lead a member's weight falls steeply with its mean error: over the last hour, the last day, and the
same time of the last day. Near-ties share, clear losers vanish, and a broken habit (a weekend, a stopped client) is
noticed within an hour or two. Everything is array work: no iteration, no start values, no randomness.
Must not look at anything but the history. Read next: `profile.py`, `bands.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from sageserve.base.records import Floats, Ints
from sageserve.base.units import DAY, HOUR, MINUTE, WEEK, Micros
from sageserve.core.forecast.bands import HistoryGrid, by_target, grid_of, leads_for, same_time, targets
from sageserve.core.forecast.naive import finish, last_value, or_else, seasonal
from sageserve.core.forecast.profile import ROWS_DAYS, Past, RegressionShape, profile
from sageserve.core.forecast.rolling import decayed
from sageserve.core.forecast.series import QuantileForecast, Series, day_bins, levels_checked

# Chosen by errors on days 3 and 4 of the public O365 and ServeGen weeks; docs/reference/forecasting.md says how strictly.
RESOLUTION: Final = 5 * MINUTE  # finer bins are summed first: a minute is mostly noise
SHAPES: Final = (
    RegressionShape(floor=0.02, level_hours=0.25, smooth_hours=0.25, period_days=1),
    RegressionShape(floor=0.3, level_hours=0.1, smooth_hours=0.0, period_days=1),  # follows scheduled starts and stops to the bin
    RegressionShape(floor=0.02, level_hours=0.5, smooth_hours=1.0, period_days=1),
    RegressionShape(floor=0.02, level_hours=0.25, smooth_hours=0.0, period_days=0),
)
WEEKLY: Final = RegressionShape(floor=0.02, level_hours=0.25, smooth_hours=0.25, period_days=7)
WEEKLY_AFTER: Final = WEEK + DAY  # a week-ago forecast needs a day of its own errors before it can be weighed
STEEPNESS: Final = 16.0  # weight ~ error^-16: a member 10 % worse counts a fifth
JUDGED_HOURS: Final = ((1.0, 2.0), (24.0, 1.0))  # half-life of a mean error, and how much that mean counts
SAME_TIME_SHARE: Final = 0.5
SAME_TIME_HOURS: Final = 1.0
LEVEL_POWER: Final = 0.5  # members' errors are divided by level^0.5, as rows are weighed in the regressions
LEVEL_FLOOR: Final = 0.3  # of the mean, added to that level, so that an idle night does not decide
ERROR_FLOOR: Final = 1e-6  # two members without any error count the same


def leads_most(grid: HistoryGrid, horizon: int) -> int:
    """The horizon as far as leads are worth past forecasts: no further than a third of the history."""
    return max(1, min(horizon, len(grid.series) // 3))


def members(grid: HistoryGrid, leads: Ints, horizon: int) -> list[Past]:
    """What each member would have forecast; the last value stands in where one has too little history."""
    series = grid.series
    last = last_value(series.values, leads, horizon)
    if grid.mean == 0.0:  # nothing ever arrived: a level has no logarithm, and every method says zero
        return [last]
    day = day_bins(series.bin)
    pasts = [last]
    shapes = [shape for shape in SHAPES if day or shape.period_days == 0]
    if day:
        pasts.append(or_else(seasonal(series.values, leads, horizon, period=day), last))
    if day and len(series) * series.bin >= WEEKLY_AFTER:
        pasts.append(or_else(seasonal(series.values, leads, horizon, period=7 * day), last))
        shapes.append(WEEKLY)
    return pasts + [or_else(profile(series, shape, leads, horizon), last) for shape in shapes]


def weights(grid: HistoryGrid, made: Floats, leads: Ints) -> Floats:
    """float64[e, k, n], summing to 1 over members: their weights at each origin, from errors known by then.

    Args:
        grid: the history, n bins.
        made: float64[e, k, n], forecasts of e members at k leads.
        leads: int64[k].
    """
    bin_us: Micros = grid.series.bin
    # Halfway between amounts and ratios: the large errors of a busy Friday must not decide all of a quiet Saturday.
    mean = grid.mean or 1.0
    level = np.median(made, axis=0) / mean + LEVEL_FLOOR
    error = np.abs(made - targets(grid.series.values, leads)) / mean
    known = by_target(error / level**LEVEL_POWER, leads)
    clean = np.where(np.isfinite(known), known, 0.0)
    score = np.full(made.shape, ERROR_FLOOR)
    for hours, share in JUDGED_HOURS:
        half_life = hours * HOUR / bin_us
        score += share * decayed(clean, half_life) * (1 - 0.5 ** (1 / half_life))
    day = day_bins(bin_us)
    if day:
        around = same_time(known, leads, round(SAME_TIME_HOURS * HOUR / bin_us), day)
        score += SAME_TIME_SHARE * np.where(np.isfinite(around), around, 0.0)
    merit = (score / score.min(axis=0)) ** -STEEPNESS
    shares: Floats = merit / merit.sum(axis=0)
    return shares


@dataclass(frozen=True, slots=True)
class _FittedBlend:
    grid: HistoryGrid

    def predict(self, bins: int, quantiles: Sequence[float] = ()) -> QuantileForecast:
        levels = levels_checked(bins, quantiles)
        grid = self.grid
        horizon = -(-bins // grid.factor)
        leads = leads_for(leads_most(grid, horizon))
        pasts = members(grid, leads, horizon)
        judged = grid.newest(ROWS_DAYS * DAY // grid.series.bin)  # members made no forecasts before
        n, day = len(judged.series), day_bins(grid.series.bin)
        past = _blended(judged, [Past(each.made[:, -n:], each.coming) for each in pasts], leads)
        first = day + day // 4 if n > 2 * day else n // 4
        return finish(judged, past, bins, leads=leads, levels=levels, first=first)


def _blended(grid: HistoryGrid, pasts: Sequence[Past], leads: Ints) -> Past:
    """The members' forecasts, past and coming, as one; between two leads their weights are interpolated."""
    made = np.stack([past.made for past in pasts])
    share = weights(grid, made, leads)
    ahead = np.arange(1, len(pasts[0].coming) + 1)
    now = np.stack([np.interp(ahead, leads, row) for row in share[:, :, -1]])
    coming = (now * np.stack([past.coming for past in pasts])).sum(axis=0) / now.sum(axis=0)
    return Past((share * made).sum(axis=0), coming)


@dataclass(frozen=True, slots=True)
class Blend:
    """Fast methods weighted by their recent errors; about 40 ms per series of a week in 5-minute bins."""

    name: str = "blend"

    def fit(self, history: Series) -> _FittedBlend:
        """Sum the history to 5-minute bins; the work is done when the horizon is known."""
        return _FittedBlend(grid_of(history.observed(), RESOLUTION))
