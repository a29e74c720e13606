"""Demand against capacity: what arrived, as instances it keeps busy, what served and what was paid for, and every scale action.

One view per strategy and model, one panel per region. Read next: `show/minutes.py`, `show/chronicle.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from sageserve.base.units import MINUTE
from sageserve.show.chronicle import REASONS, Change
from sageserve.show.figures.parts import DASHES, Fields, Figure, Json, View, clock, panel, panels, points, series, stroke, wrapped
from sageserve.show.minutes import HELD, ThinnedLine, line
from sageserve.show.reading import RunReading
from sageserve.show.reduce import BATCH, INTERACTIVE

_MARKS: Final = 250  # per panel and direction: more are not told apart, and are put together by bucket
_CROWD: Final = 120  # decisions in a panel beyond which marks are small, or they would hide the lines
_MARKERS: Final = (
    ("added", "triangle-up", "@c2", 1),
    ("taken away", "triangle-down", "@c3", -1),
    ("not possible", "x", "@c6", 0),
)
_SAYS: Final = (
    "Demand is drawn as the number of instances it keeps busy at full batches, by the region where it arrives, so that it can"
    " be held against the instances that serve. Triangles are instances added (up) or taken away (down), crosses what was"
    " wanted and not possible; hover over one to read why. Where demand passes what serves, requests queue or go elsewhere."
)


def capacity(readings: Mapping[str, RunReading]) -> Figure:
    """The figure."""
    views = [_view(name, one, model) for name, one in readings.items() for model in one.digest.layout.names.models]
    return Figure("capacity", "Was there capacity when demand came?", _SAYS, views, timed=True)


def fleet(readings: Mapping[str, RunReading]) -> Figure:
    """GPUs held over time, strategies on top of each other."""
    traces = []
    for number, (name, one) in enumerate(readings.items()):
        gpus = np.array([one.gpus_of(model) for model in one.minutes.models])
        held = np.sum([one.minutes.columns[state] * gpus for state in HELD], axis=(0, 2))
        drawn = line(one.minutes.times, held.astype(np.float64), one.digest.grid)
        look = stroke(f"@c{number % 8}", DASHES[number % len(DASHES)])
        traces.append(_line(name, drawn, line=look, col=f"{name}: GPUs held"))
    layout = panels([""], "GPUs held", height=260)
    alt = f"GPUs held over time by {', '.join(readings)}, one line each."
    says = "All models and regions together. A lower line costs less; a line that follows the day scales, a flat one does not."
    return Figure("fleet", "How many GPUs does each strategy hold?", says, [View({}, alt, traces, layout)], timed=True)


def _view(name: str, one: RunReading, model: str) -> View:
    names = one.digest.layout.names
    traces = [trace for number, region in enumerate(names.regions) for trace in _panel(one, model, region, number)]
    alt = (
        f"Demand and instances over time for {model} under {name}, one panel for each of {', '.join(names.regions)}, with"
        f" {sum(change.model == model for change in one.chronicle.changes)} scale decisions marked."
    )
    layout = {**panels(names.regions, "instances"), "hovermode": "closest"}  # words of several decisions at once are too much
    return View({"strategy": name, "model": model}, alt, traces, layout)


def _panel(one: RunReading, model: str, region: str, number: int) -> Iterator[Fields]:
    minutes, grid, place = one.minutes, one.digest.grid, panel(number)
    names = one.digest.layout.names
    here = one.digest.work[names.regions.index(region), names.models.index(model)]
    step = grid.width / MINUTE
    legend: Fields = {"showlegend": number == 0, **place}

    def col(text: str) -> Fields:
        return {**legend, "legendgroup": text, "col": f"{region}: {text}"}

    paid = line(minutes.times, minutes.held(region=region, model=model), grid)
    serving = line(minutes.times, minutes.of("serving", region=region, model=model), grid)
    area: Fields = {"fill": "tozeroy", "fillcolor": "@c0/18", "line": stroke("@c0", width=2, shape="hv")}
    yield _line("paid for", paid, **{"line": stroke("@c0", "dot", 1.2, shape="hv"), **col("paid for")})
    yield _line("serving", serving, **{**area, **col("serving")})
    both = here[INTERACTIVE] + here[BATCH]
    for title, values, look in (
        ("interactive demand", here[INTERACTIVE], stroke("@c1", "dash", 1.5)),
        ("all demand", both, stroke("@c1", width=1.8)),
    ):
        yield series(title, values, start=step / 2, step=step, **{"line": look, **col(title)})
    changes = [change for change in one.chronicle.changes if (change.region, change.model) == (region, model)]
    for title, symbol, colour, way in _MARKERS:
        mine = [change for change in changes if int(np.sign(change.done)) == way]
        yield _marks(
            title,
            mine,
            grid.width,
            {"marker": _marker(symbol, colour, 9 if len(changes) <= _CROWD else 5), "cliponaxis": False, **col(title)},
        )


def _line(name: str, drawn: ThinnedLine, **more: Json) -> Fields:
    return series(name, drawn.values, start=drawn.start, step=drawn.step, **more)


def _marker(symbol: str, colour: str, size: int) -> Fields:
    return {"symbol": symbol, "color": colour, "size": size, "line": {"color": "@bg", "width": 1 if size > 5 else 0}}


def _marks(title: str, changes: Sequence[Change], width: int, look: Fields) -> Fields:
    """A mark per decision, or per bucket where there are too many."""
    groups: dict[int, list[Change]] = {}
    for change in changes:
        groups.setdefault(change.at if len(changes) <= _MARKS else change.at // width, []).append(change)
    told = [group[0] for group in groups.values()]
    heights = [change.serving + max(change.done, 0) if change.change > 0 else change.serving for change in told]
    words = [_told(group) for group in groups.values()]
    return points(title, [change.at / MINUTE for change in told], heights, words, **look)


def _told(group: Sequence[Change]) -> str:
    first = group[0]
    total = sum(change.done for change in group)
    head = f"<b>{clock(first.at / MINUTE)}: {first.change:+d} wanted, {first.done:+d} done</b>"
    if len(group) > 1:
        head = f"<b>from {clock(first.at / MINUTE)}: {len(group)} decisions, {total:+d} done</b><br>the first:"
    return f"{head}<br>{REASONS[first.reason]}:<br>{wrapped(first.words)}"
