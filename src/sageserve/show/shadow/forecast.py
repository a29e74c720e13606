"""How good the forecasts in a journal were, against the demand that came: weighted error, bias, share inside the band.

A forecast is judged on the bins of the hour after it was made, where every minute was seen. Read next: `reckon.py`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from msgspec import Struct

from sageserve.base.records import Bools, Floats, Ints
from sageserve.base.units import HOUR, MINUTE, Micros
from sageserve.core.work import FitAsked, Forecasted
from sageserve.data.results.journal import JournalLine

AHEAD: Final[Micros] = HOUR


class ForecastScore(Struct, frozen=True):
    """Forecasts of one endpoint's interactive prompt tokens.

    Args:
        bins: that were judged.
        wape: sum of errors without their sign, over the sum of what came.
        bias: sum of errors, over the sum of what came; above 0: too high.
        band: lowest and highest quantile that were forecast; None: there was one alone.
        inside: share of bins between them; None likewise.
    """

    bins: int
    wape: float
    bias: float
    band: tuple[float, float] | None = None
    inside: float | None = None


@dataclass(slots=True)
class _Sums:
    came: list[float] = field(default_factory=list)
    said: list[float] = field(default_factory=list)
    inside: list[bool] = field(default_factory=list)
    band: tuple[float, float] | None = None


class ForecastJudge:
    """Judges series by series.

    Args:
        series: how many a forecast has: regions x models.
    """

    def __init__(self, series: int) -> None:
        self._levels: dict[int, tuple[float, ...]] = {}
        self._sums = [_Sums() for _ in range(series)]

    def read(self, lines: Iterable[JournalLine], tokens: "dict[int, TokenMinutes]") -> None:
        """Take in a journal.

        Args:
            lines: with instants from where the journal begins.
            tokens: what came, by number of the series, on the same clock.
        """
        for line in lines:
            self._levels.update({one.number: one.levels for one in line.actions if isinstance(one, FitAsked)})
            if isinstance(line.event, Forecasted):
                self._judge(line.now, line.event, tokens)

    def score(self, series: int) -> ForecastScore | None:
        """Of one series; None where nothing could be judged."""
        sums = self._sums[series]
        came, said = np.array(sums.came), np.array(sums.said)
        if not came.sum() > 0:
            return None
        return ForecastScore(
            len(came),
            float(np.abs(said - came).sum() / came.sum()),
            float((said - came).sum() / came.sum()),
            sums.band,
            float(np.mean(sums.inside)) if sums.inside else None,
        )

    def _judge(self, now: Micros, event: Forecasted, tokens: "dict[int, TokenMinutes]") -> None:
        levels = self._levels.pop(event.number, ())
        for number, points in enumerate(event.points):
            if number not in tokens or number >= len(self._sums):
                continue
            sums = self._sums[number]
            for row in _judged(now, event, len(points)):
                begin = event.start + row * event.bin
                if (came := tokens[number].between(begin, begin + event.bin)) is None:
                    continue
                sums.came.append(came)
                sums.said.append(points[row])
                if len(levels) > 1 and row < len(event.quantiles[number]):
                    low, high = min(levels), max(levels)
                    values = dict(zip(levels, event.quantiles[number][row], strict=True))
                    sums.band = low, high
                    sums.inside.append(values[low] <= came <= values[high])


@dataclass(frozen=True, slots=True)
class TokenMinutes:
    """Interactive prompt tokens of one series.

    Args:
        begin: int64[n], where minutes begin, on the journal's clock.
        tokens: float64[n].
        seen: bool[n].
    """

    begin: Ints
    tokens: Floats
    seen: Bools

    def between(self, begin: Micros, end: Micros) -> float | None:
        """What came in a bin; None where a minute of it is missing or was not seen. Minutes need not begin with bins."""
        first, last = np.searchsorted(self.begin, (begin - MINUTE // 2, end - MINUTE // 2))
        if last - first < (end - begin) // MINUTE or not self.seen[first:last].all():
            return None
        return float(self.tokens[first:last].sum())


def _judged(now: Micros, event: Forecasted, bins: int) -> Iterator[int]:
    """Bins that begin within the hour after the forecast."""
    for row in range(bins):
        begin = event.start + row * event.bin
        if now - event.bin < begin < now + AHEAD:
            yield row
