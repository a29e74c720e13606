"""The two forecasts everything else must beat: the last value, and the value one day or week earlier.

Both bridge missing bins with the last observed value. Read next: `blend.py`, which also uses them as members.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from sageserve.base.records import Floats, Ints
from sageserve.base.units import DAY, Micros
from sageserve.core.forecast.bands import HistoryGrid, bands, grid_of, leads_for
from sageserve.core.forecast.profile import Past
from sageserve.core.forecast.rolling import take
from sageserve.core.forecast.series import QuantileForecast, Series, levels_checked

ERRORS_AFTER: Final = 0.25  # share of the history after which past forecasts count as errors


def filled(values: Floats) -> Floats:
    """float64[n]: missing bins hold the last value observed before them; those before the first hold the first."""
    seen = np.isfinite(values)
    newest = np.maximum.accumulate(np.where(seen, np.arange(len(values)), -1))
    first = int(np.argmax(seen))
    filled_values: Floats = values[np.where(newest >= 0, newest, first)]
    return filled_values


def last_value(values: Floats, leads: Ints, horizon: int) -> Past:
    """The last observed value at every lead; `values` has one observed bin at least."""
    last = filled(values)
    return Past(np.broadcast_to(last, (len(leads), len(last))).copy(), np.full(horizon, last[-1]))


def seasonal(values: Floats, leads: Ints, horizon: int, *, period: int) -> Past:
    """The value of the newest earlier cycle at the same phase; NaN where that was missing or before the history.

    Args:
        values: float64[n].
        leads: int64[k].
        horizon: bins ahead from the end.
        period: bins in a cycle, at least 1.
    """
    n = len(values)

    def back(lead: Ints) -> Ints:
        return lead - -(-lead // period) * period

    made = take(values, np.arange(n)[None, :] + back(leads)[:, None])
    return Past(made, take(values, n - 1 + back(np.arange(1, horizon + 1))))


def or_else(past: Past, other: Past) -> Past:
    """The forecasts of one method, those of another where the first has none."""
    return Past(
        np.where(np.isfinite(past.made), past.made, other.made),
        np.where(np.isfinite(past.coming), past.coming, other.coming),
    )


def finish(grid: HistoryGrid, past: Past, bins: int, *, leads: Ints, levels: tuple[float, ...], first: int) -> QuantileForecast:
    """Bands around a forecast on the grid, brought back to the bins the history came in."""
    values = bands(grid, past.made, past.coming, leads=leads, levels=levels, first=first)
    calibrated = values is not None
    if values is None:
        values = np.repeat(past.coming[:, None], len(levels), axis=1)
    factor = grid.factor
    return QuantileForecast(
        start=grid.series.end,
        bin=grid.series.bin // factor,
        point=np.repeat(past.coming, factor)[:bins] / factor,
        levels=levels,
        values=np.repeat(values, factor, axis=0)[:bins] / factor,
        calibrated=calibrated,
    )


@dataclass(frozen=True, slots=True)
class _FittedNaive:
    grid: HistoryGrid
    period: int

    def predict(self, bins: int, quantiles: Sequence[float] = ()) -> QuantileForecast:
        levels = levels_checked(bins, quantiles)
        leads, values = leads_for(bins), self.grid.series.values
        past = last_value(values, leads, bins)
        if self.period:
            past = or_else(seasonal(values, leads, bins, period=self.period), past)
        first = max(self.period, round(ERRORS_AFTER * len(values)))
        first = first if first < len(values) - bins else 0
        return finish(self.grid, past, bins, leads=leads, levels=levels, first=first)


@dataclass(frozen=True, slots=True)
class LastValue:
    """Tomorrow is like now: the last observed bin, at every lead."""

    name: str = "last-value"

    def fit(self, history: Series) -> _FittedNaive:
        """Remember the history."""
        return _FittedNaive(grid_of(history.observed(), history.bin), 0)


@dataclass(frozen=True, slots=True)
class SeasonalNaive:
    """The value one cycle earlier; a week falls back to a day, a day to the last value, when history is shorter.

    Args:
        cycle: length of the cycle, microseconds.
        name: the word people choose it by.
    """

    cycle: Micros = DAY
    name: str = "seasonal-naive"

    def fit(self, history: Series) -> _FittedNaive:
        """Choose the longest usable cycle: a whole number of bins, and no longer than the history."""
        history.observed()
        for cycle in (self.cycle, DAY):
            if cycle <= self.cycle and cycle % history.bin == 0 and cycle // history.bin <= len(history):
                return _FittedNaive(grid_of(history, history.bin), cycle // history.bin)
        return _FittedNaive(grid_of(history, history.bin), 0)
