"""What every figure is made of: views, traces, panels, tables, and numbers short enough to send.

A figure has one or more views; the page shows the one that fits what is selected (strategy, model, tier). Colours are names
such as `@c0` that the page replaces by those of its theme; times are minutes from the start. Knows no data.
Read next: `templates/report.js`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np

from sageserve.base.records import Floats

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
Fields: TypeAlias = dict[str, Json]

DASHES: Final = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
ALL: Final = "all models"
_DIGITS: Final = 4  # significant ones of what is drawn; summary.json has the exact numbers
_HEADING: Final = 24  # pixels above a panel for its title
_GAP: Final = 22  # pixels between a panel and the next title
_AROUND: Final = 90  # pixels for legend and time axis


@dataclass(frozen=True, slots=True)
class FigureTable:
    """What a figure shows as rows; every row has a cell per column."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Json, ...], ...]


@dataclass(frozen=True, slots=True)
class View:
    """One state of a figure.

    Args:
        keys: what must be selected to see it, such as {"strategy": "lt-ua", "model": "bloom-176b"}.
        alt: what it shows, for those who do not see it.
        data: Plotly traces.
        layout: Plotly layout beyond the page's own.
        tables: what the traces do not tell; the page makes tables of lines itself.
    """

    keys: Mapping[str, str]
    alt: str
    data: Sequence[Fields]
    layout: Fields = field(default_factory=dict)
    tables: Mapping[str, FigureTable] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Figure:
    """A section of the report.

    Args:
        name: for links and files.
        title: what question it answers.
        says: how to read it, a sentence or two.
        views: of equal key names; none: `nothing` says why.
        timed: its x axis is time and takes part in the linked zoom.
        nothing: why there is nothing to draw.
        notes: sentences below it.
    """

    name: str
    title: str
    says: str
    views: Sequence[View] = ()
    timed: bool = False
    nothing: str = ""
    notes: Sequence[str] = ()


def numbers(values: Iterable[float] | Floats, digits: int = _DIGITS) -> list[Json]:
    """Numbers of so many significant digits, whole ones without a point; null for nan."""
    found: list[Json] = []
    for value in values:
        if not np.isfinite(value):
            found.append(None)
        else:
            short = float(f"{value:.{digits}g}")
            found.append(int(short) if short.is_integer() else short)
    return found


def series(name: str, values: Iterable[float] | Floats, *, start: float, step: float, **more: Json) -> Fields:
    """A line over time: `start` and `step` in minutes; `col`, its heading in the table, is the name unless given."""
    given: Fields = {"type": "scatter", "mode": "lines", "name": name, "xt": [start, step], "y": numbers(values), "col": name}
    return {**given, **more}


def points(name: str, minutes: Iterable[float], values: Iterable[float], words: Sequence[str], **more: Json) -> Fields:
    """Marks at instants, each with words shown on hover."""
    given: Fields = {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "xm": numbers(minutes, 7),
        "y": numbers(values),
        "text": list(words),
        "col": name,
        "hovertemplate": "%{text}<extra></extra>",
    }
    return {**given, **more}


def stroke(colour: str, dash: str = "solid", width: float = 2, **more: Json) -> Fields:
    """A line's look."""
    return {"color": colour, "dash": dash, "width": width, **more}


def band(low: Floats, high: Floats, *, start: float, step: float, colour: str, panel: Fields) -> list[Fields]:
    """The range between two lines, filled; not in legend, hover or table."""
    quiet: Fields = {"hoverinfo": "skip", "showlegend": False, "line": {"width": 0}, "col": "", **panel}
    return [
        series("", low, start=start, step=step, **quiet),
        series("", high, start=start, step=step, **{**quiet, "fill": "tonexty", "fillcolor": f"{colour}/22"}),
    ]


def panel(number: int) -> Fields:
    """Where a trace of panel `number` (0 is the top) belongs."""
    return {"yaxis": "y" if number == 0 else f"y{number + 1}"}


def panels(titles: Sequence[str], units: Sequence[str] | str, *, height: int = 170) -> Fields:
    """Panels one above the other that share the x axis: a title above each, a unit beside it."""
    count = len(titles)
    room = height * count  # pixels that panels and their headings share; around them are legend and time axis
    above = _HEADING / room if any(titles) else 0.0
    between = (_HEADING + _GAP) / room
    size = (1 - above - between * (count - 1)) / count
    layout: Fields = {"height": room + _AROUND, "xaxis": {"anchor": "y" if count == 1 else f"y{count}"}}
    notes: list[Json] = []
    for number, title in enumerate(titles):
        top = 1 - above - number * (size + between)
        unit = units if isinstance(units, str) else units[number]
        layout["yaxis" if number == 0 else f"yaxis{number + 1}"] = {
            "domain": [max(0.0, round(top - size, 4)), round(top, 4)],
            "title": {"text": unit},
            "rangemode": "tozero",
        }
        if title:
            notes.append(heading(title, top))
    layout["annotations"] = notes
    return layout


def heading(text: str, top: float) -> Fields:
    """A panel's title, left above it."""
    return {
        "text": f"<b>{text}</b>",
        "xref": "paper",
        "yref": "paper",
        "x": 0,
        "y": round(top, 4),
        "xanchor": "left",
        "yanchor": "bottom",
        "showarrow": False,
    }


def wrapped(text: str, width: int = 56) -> str:
    """A sentence in lines short enough for a hover label on a phone."""
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + len(word) >= width:
            lines.append(line)
            line = ""
        line = f"{line} {word}".strip()
    return "<br>".join([*lines, line])


def clock(minutes: float) -> str:
    """An instant as the axes show it: day 2 06:30."""
    whole = int(minutes)
    return f"day {whole // 1440 + 1} {whole % 1440 // 60:02d}:{whole % 60:02d}"
