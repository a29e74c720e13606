"""How well would it have done: forecasts made again and again from growing histories, judged on what then happened.

At each origin a forecaster is fitted to the bins before it and to nothing else, so no number here is in-sample.
Knows nothing of methods and files. Read next: `series.py` for the protocol, `bench/forecast.py` for the measurements.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from sageserve.base.errors import PlanError
from sageserve.base.records import Floats
from sageserve.base.units import HOUR, MINUTE, Micros
from sageserve.core.forecast.series import Forecaster, Series

INTERVAL: Final = (0.1, 0.9)
"""The 80 % interval whose coverage is reported."""

ROUNDING: Final = 1e-6
"""Share of the largest value known by which an interval may miss: where demand hardly varies, it is as narrow as rounding."""


@dataclass(frozen=True, slots=True)
class Span:
    """Which bins after an origin are judged together.

    Args:
        name: what it is called in a report.
        after: first instant of the span, microseconds after the origin.
        before: end of the span; bins that begin in [after, before) belong to it.
        summed: judge the sum over the span as one number instead of every bin; it has no interval.
    """

    name: str
    after: Micros
    before: Micros
    summed: bool = False


HOUR_AHEAD: Final = Span("next hour", 0, HOUR, summed=True)
PLANNING: Final = Span("20-60 min", 20 * MINUTE, 60 * MINUTE)


@dataclass(frozen=True, slots=True)
class Score:
    """How one forecaster did over one span.

    Args:
        wape: sum of absolute errors over sum of demand; None when there was no demand.
        bias: sum of errors (forecast minus demand) over sum of demand; None as well.
        coverage: share of judged bins inside the 80 % interval; None for a sum, which has no interval, and where no
            interval was calibrated.
        judged: how many numbers were compared.
        missed: sum of absolute errors, in units of demand.
    """

    wape: float | None
    bias: float | None
    coverage: float | None
    judged: int
    missed: float


@dataclass(slots=True)
class _Tally:
    error: float = 0.0
    signed: float = 0.0
    demand: float = 0.0
    judged: int = 0
    inside: int = 0
    with_interval: int = 0

    def add(self, truth: Floats, point: Floats) -> None:
        seen = np.isfinite(truth)
        self.error += float(np.abs(point - truth)[seen].sum())
        self.signed += float((point - truth)[seen].sum())
        self.demand += float(truth[seen].sum())
        self.judged += int(seen.sum())

    def cover(self, truth: Floats, low: Floats, high: Floats, *, slack: float) -> None:
        seen = np.isfinite(truth)
        self.inside += int(((low - slack <= truth) & (truth <= high + slack))[seen].sum())
        self.with_interval += int(seen.sum())

    def score(self) -> Score:
        some = self.demand > 0
        return Score(
            wape=self.error / self.demand if some else None,
            bias=self.signed / self.demand if some else None,
            coverage=self.inside / self.with_interval if self.with_interval else None,
            judged=self.judged,
            missed=self.error,
        )


def origins(series: Series, *, first: Micros, last: Micros, every: Micros = HOUR) -> list[int]:
    """Lengths of history, in bins, ascending: `last` and one `every` so often before it down to `first`.

    Both count from the series' start; counted back from the newest, so that what was known last is always judged.
    """
    step = max(1, every // series.bin)
    begin, end = max(-(-first // series.bin), 1), min(last // series.bin, len(series))
    return list(range(end, begin - 1, -step))[::-1]


def backtest(
    series: Series,
    forecaster: Forecaster,
    *,
    at: Sequence[int],
    spans: Sequence[Span] = (HOUR_AHEAD, PLANNING),
    intervals: bool = True,
) -> dict[str, Score]:
    """Forecast from every origin and judge each span that lies wholly within the series.

    Args:
        series: the whole series.
        forecaster: fitted afresh at every origin.
        at: how many bins are known at each origin.
        spans: what to judge.
        intervals: whether to judge coverage as well; for the library's methods that costs twenty times as much.

    Returns:
        A score per span, by name.

    Raises:
        PlanError: no origin was given, or one beyond the series; or the forecaster's own.
    """
    if not at or min(at) < 1 or max(at) > len(series):
        raise PlanError(
            f"a backtest needs origins inside the series of {len(series)} bins",
            hint="give a longer trace, a shorter horizon, or an earlier first origin",
        )
    tallies = {span.name: _Tally() for span in spans}
    places = {span: (-(-span.after // series.bin), -(-span.before // series.bin)) for span in spans}
    bins = max(high for _, high in places.values())
    for known in at:
        history = Series(series.values[:known], series.bin, series.start)
        whole = {span: (low, high) for span, (low, high) in places.items() if low < high <= len(series) - known}
        if not whole or not np.isfinite(history.values).any():
            continue
        made = forecaster.fit(history).predict(bins, INTERVAL if intervals else ())
        for span, (low, high) in whole.items():
            here = slice(low, high)
            truth, point = series.values[known + low : known + high], made.point[here]
            if span.summed:
                truth, point = truth.sum(keepdims=True), point.sum(keepdims=True)
            tallies[span.name].add(truth, point)
            if intervals and made.calibrated and not span.summed:
                slack = ROUNDING * float(np.nanmax(history.values))
                tallies[span.name].cover(truth, made.values[here, 0], made.values[here, 1], slack=slack)
    return {name: tally.score() for name, tally in tallies.items()}
