"""Forecast against what came: the newest forecast made before each quarter of an hour, its intervals, and how good they were.

Interactive prompt tokens per second by region of origin, which is what planners forecast. Read next: `show/chronicle.py`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from sageserve.base.records import Floats
from sageserve.base.units import MINUTE, SECOND
from sageserve.core.history import BIN
from sageserve.show.chronicle import Forecast
from sageserve.show.figures.parts import Fields, Figure, View, band, panel, panels, series, stroke
from sageserve.show.reading import RunReading

_SAYS = (
    "For every quarter of an hour the newest forecast that was made before it began. The shaded range reaches from the"
    " point forecast to the"
    " quantile that capacity is planned for; what arrives above it is met by the rule that corrects the plan, or"
    " waits. The axis ends at twice the highest demand, also where a quantile"
    " goes further. Error: sum of errors over the sum of what came; held: share of quarters of an hour that stayed"
    " below the quantile."
)
_AXIS = 2.0  # times the highest of what came and was forecast: quantiles beyond that are cut off
_TITLE = "Was demand foreseen?"


@dataclass(frozen=True, slots=True)
class Seen:
    """A forecast series beside what came, tokens/s per bin of 15 minutes; nan where nothing was forecast."""

    actual: Floats
    point: Floats
    quantiles: dict[float, Floats]

    def error(self) -> float | None:
        """Sum of absolute errors over the sum of what came (WAPE), where there was a forecast."""
        there = np.isfinite(self.point)
        total = float(self.actual[there].sum())
        return float(np.abs(self.actual - self.point)[there].sum()) / total if total else None

    def covered(self, level: float) -> float | None:
        """Share of bins in which no more came than the quantile."""
        line = self.quantiles[level]
        there = np.isfinite(line)
        return float((self.actual <= line)[there].mean()) if there.any() else None


def forecasts(readings: Mapping[str, RunReading]) -> Figure:
    """The figure; strategies that forecast nothing have no view."""
    with_one = {name: one for name, one in readings.items() if one.chronicle.forecasts}
    silent = [name for name in readings if name not in with_one]
    verb = "forecasts" if len(silent) == 1 else "forecast"
    notes = [f"{' and '.join(silent)} {verb} nothing: decisions follow what is seen."] if silent and with_one else []
    views = [_view(name, one, model) for name, one in with_one.items() for model in one.digest.layout.names.models]
    nothing = (
        ""
        if views
        else f"{' and '.join(silent)} {verb} nothing: decisions follow what is seen, so there is no forecast to judge."
    )
    return Figure("forecast", _TITLE, _SAYS, views, timed=True, nothing=nothing, notes=notes)


def seen(one: RunReading, region: int, model: int) -> Seen:
    """The newest forecast made before each bin, of one series."""
    names = one.digest.layout.names
    bins = one.digest.tokens.shape[2]
    number = region * len(names.models) + model
    point = np.full(bins, np.nan)
    lines: dict[float, Floats] = {}
    for made in one.chronicle.forecasts:
        if not made.points[number]:
            continue
        places = _places(made, len(made.points[number]), bins)
        point[places[1]] = np.array(made.points[number])[places[0]] / (made.bin / SECOND)
        values = np.array(made.quantiles[number])
        for column, level in enumerate(made.levels):
            line = lines.setdefault(level, np.full(bins, np.nan))
            line[places[1]] = values[places[0], column] / (made.bin / SECOND)
    return Seen(one.digest.tokens[region, model], point, lines)


def _places(made: Forecast, length: int, bins: int) -> tuple["np.ndarray[tuple[int], np.dtype[np.int64]]", ...]:
    """Numbers within the forecast and within the window of the bins that began when it was there, or were beginning."""
    steps = np.arange(length)
    starts = made.start + steps * made.bin
    keep = (starts + made.bin > made.made) & (starts // BIN < bins) & (starts >= 0)
    return steps[keep], starts[keep] // BIN


def _view(name: str, one: RunReading, model: str) -> View:
    names = one.digest.layout.names
    traces, titles, tops = list[Fields](), list[str](), list[float]()
    for number, region in enumerate(names.regions):
        found = seen(one, number, names.models.index(model))
        traces += _panel(found, region, number)
        titles.append(f"{region}{_judged(found)}")
        tops.append(_top(found))
    layout = panels(titles, "prompt tokens/s")
    for number, top in enumerate(tops):
        axis = layout["yaxis" if number == 0 else f"yaxis{number + 1}"]
        assert isinstance(axis, dict)
        axis |= {"range": [0, top]} if top else {}
    alt = f"Forecast and actual interactive demand of {model} under {name}: {'; '.join(titles)}."
    return View({"strategy": name, "model": model}, alt, traces, layout)


def _top(found: Seen) -> float:
    """Where the axis ends when a quantile goes so far beyond what came that it would flatten everything; 0: nowhere."""
    usual = _AXIS * float(np.nanmax(np.concatenate((found.actual, found.point)), initial=0.0))
    most = max((float(np.nanmax(line, initial=0.0)) for line in found.quantiles.values()), default=0.0)
    return usual if most > usual else 0.0


def _judged(found: Seen) -> str:
    error = found.error()
    if error is None:
        return ": nothing to judge"
    text = f": error {error:.0%}"
    for level in found.quantiles:
        share = found.covered(level)
        if level != 0.5 and share is not None:
            text += f", {level:.0%} quantile held {share:.0%}"
    return text


def _panel(found: Seen, region: str, number: int) -> Iterator[Fields]:
    step = BIN / MINUTE

    def curve(title: str, values: Floats, look: Fields) -> Fields:
        more: Fields = {
            "line": look,
            "legendgroup": title,
            "showlegend": number == 0,
            "col": f"{region}: {title}",
            **panel(number),
        }
        return series(title, values, start=step / 2, step=step, **more)

    for level, line in found.quantiles.items():
        if level != 0.5:
            low, high = np.minimum(found.point, line), np.maximum(found.point, line)
            yield from band(low, high, start=step / 2, step=step, colour="@c0", panel=panel(number))
            yield curve(f"{level:.0%} quantile", line, stroke("@c0", "dot", 1.2))
    yield curve("forecast", found.point, stroke("@c0", "dash", 1.8))
    yield curve("actual", found.actual, stroke("@c1", width=1.8))
