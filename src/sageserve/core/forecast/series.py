"""What a forecaster is given and gives back: a series of past bins, quantiles of future bins, and the protocol between.

Knows no method and no file. A missing bin is NaN: it is neither a zero nor repaired here; every method says how it
bridges it. Read next: `blend.py` for the forecaster that the planner uses unless told otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sageserve.base.errors import PlanError
from sageserve.base.records import Floats
from sageserve.base.units import DAY, HOUR, Micros


@dataclass(frozen=True, slots=True)
class Series:
    """Amounts per bin (tokens, requests), oldest first.

    Args:
        values: float64[n], not negative; NaN where nothing was observed.
        bin: length of a bin, microseconds.
        start: the instant the first bin begins, microseconds.

    Raises:
        PlanError: not one column, a negative or infinite value, a bin without length.
    """

    values: Floats
    bin: Micros
    start: Micros = 0

    def __post_init__(self) -> None:
        if self.values.ndim != 1:
            raise PlanError(
                f"a series to forecast is one column, not an array of shape {self.values.shape}",
                hint="forecast each column on its own",
            )
        if self.bin <= 0:
            raise PlanError(f"a bin of {self.bin} microseconds has no length", hint="use bins of 1 to 60 minutes")
        bad = np.isinf(self.values) | (self.values < 0)
        if bad.any():
            first = int(np.argmax(bad))
            raise PlanError(
                f"bin {first} of the series holds {self.values[first]}; demand is finite and not negative",
                hint="mark bins that were not observed as NaN",
            )

    def __len__(self) -> int:
        return len(self.values)

    @property
    def end(self) -> Micros:
        """The instant the last bin ends: where a forecast begins."""
        return self.start + len(self.values) * self.bin

    def until(self, now: Micros) -> "Series":
        """The bins that had ended by `now`: all that may be known then."""
        whole = min(max(now - self.start, 0) // self.bin, len(self.values))
        return Series(self.values[:whole], self.bin, self.start)

    def coarser(self, factor: int) -> "Series":
        """Sums of `factor` bins, aligned to the end; the oldest bins that fill no whole group are left out.

        A group with missing bins is the mean of its observed bins times `factor`; with none observed it is missing.
        """
        if factor == 1:
            return self
        skip = len(self.values) % factor
        groups = self.values[skip:].reshape(-1, factor)
        seen = np.isfinite(groups)
        count = seen.sum(axis=1)
        total = np.where(seen, groups, 0.0).sum(axis=1)
        sums = np.where(count > 0, total * factor / np.maximum(count, 1), np.nan)
        return Series(sums, self.bin * factor, self.start + skip * self.bin)

    def observed(self) -> "Series":
        """The series itself.

        Raises:
            PlanError: it holds not one observed bin, so nothing can be said about what comes next.
        """
        if not np.isfinite(self.values).any():
            raise PlanError(
                "a forecast needs at least one observed bin of history",
                hint="give a longer history, or let the strategy scale on what it sees until there is one",
            )
        return self


@dataclass(frozen=True, slots=True)
class QuantileForecast:
    """What is expected in the bins after a history, with its uncertainty.

    Args:
        start: the instant the first predicted bin begins: the end of the history.
        bin: length of a bin, microseconds; that of the history.
        point: float64[h], the central forecast, not negative.
        levels: the quantiles asked for, ascending, each in (0, 1).
        values: float64[h, levels], not negative, never decreasing along a row.
        calibrated: whether the quantiles come from errors this forecaster made on the history; False when the
            history is too short to have made any, and then every quantile equals the central forecast.
    """

    start: Micros
    bin: Micros
    point: Floats
    levels: tuple[float, ...]
    values: Floats
    calibrated: bool

    def at(self, level: float) -> Floats:
        """float64[h]: the forecast at one of the levels that were asked for.

        Raises:
            PlanError: a level that was not asked for.
        """
        if level not in self.levels:
            raise PlanError(f"no {level} quantile was forecast", hint=f"forecast were {self.levels}")
        return self.values[:, self.levels.index(level)]

    def peak(self, after: Micros, before: Micros, *, level: float | None = None) -> float:
        """The largest bin that begins in [after, before) from the start of the forecast: of the point, or of a quantile.

        The maximum of quantiles is not the quantile of the maximum (it is a little lower when bins are independent).

        Raises:
            PlanError: the forecast has no bin in that span, or no such level.
        """
        begins = np.arange(len(self.point)) * self.bin
        inside = (begins >= after) & (begins < before)
        if not inside.any():
            raise PlanError(
                f"the forecast has no bin between {after / HOUR:g} h and {before / HOUR:g} h ahead",
                hint=f"it covers {len(self.point) * self.bin / HOUR:g} h; ask for more bins",
            )
        column = self.point if level is None else self.at(level)
        return float(column[inside].max())


class FittedForecaster(Protocol):
    """A forecaster that has read a history."""

    def predict(self, bins: int, quantiles: Sequence[float] = ()) -> QuantileForecast:
        """Forecast the `bins` bins that follow the history."""
        ...


class Forecaster(Protocol):
    """A way to forecast; holds settings only, so that one object serves any number of series."""

    @property
    def name(self) -> str:
        """The word people choose it by."""
        ...

    def fit(self, history: Series) -> FittedForecaster:
        """Read a history; nothing else is ever known to the forecast.

        Raises:
            PlanError: nothing was observed, or the library the method needs is not installed.
        """
        ...


def levels_checked(bins: int, quantiles: Sequence[float]) -> tuple[float, ...]:
    """The quantile levels in ascending order.

    Raises:
        PlanError: no bins asked for, or a level outside (0, 1).
    """
    if bins < 1:
        raise PlanError(f"a forecast of {bins} bins is empty", hint="ask for at least one bin")
    if any(not 0 < level < 1 for level in quantiles):
        raise PlanError(f"quantile levels lie between 0 and 1, got {tuple(quantiles)}", hint="for example 0.1, 0.5, 0.9")
    return tuple(sorted(quantiles))


def day_bins(bin_us: Micros) -> int:
    """Bins in a day; 0 when a day is not a whole number of bins, and then no daily cycle can be used."""
    return DAY // bin_us if DAY % bin_us == 0 else 0
