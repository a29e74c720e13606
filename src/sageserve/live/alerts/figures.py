"""What dashboards are made of: figures, the PromQL of each, and what a reader may choose.

Knows no Grafana and no metric. Read next: `boards.py`, which figures there are; `grafana.py`, which writes them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

STEP: Final = "$__rate_interval"
"""Grafana's: at least four scrapes."""


@dataclass(frozen=True, slots=True)
class Query:
    """A line or several.

    Args:
        expr: PromQL; `$model` and `$region` stand for what is chosen.
        legend: with labels in braces.
        instant: asked at the end of the range alone.
    """

    expr: str
    legend: str
    instant: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """A figure.

    Args:
        title: what it answers.
        about: how to read it.
        unit: Grafana's name of it.
        queries: its lines.
        kind: lines over time, or numbers.
        marks: values from which on it is told by colour, growing; (value, colour).
        width: of 24.
        stacked: lines are parts of a whole.
    """

    title: str
    about: str
    unit: str
    queries: tuple[Query, ...]
    kind: Literal["lines", "numbers"] = "lines"
    marks: tuple[tuple[float | None, str], ...] = ()
    width: int = 12
    stacked: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """A row of figures."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class BoardChoice:
    """What a reader may choose: values of a label, found by a query."""

    name: str
    query: str


@dataclass(frozen=True, slots=True)
class Board:
    """A dashboard.

    Args:
        name: of its file, and its id in Grafana.
        title: of it.
        about: a sentence.
        choices: what may be chosen.
        sections: rows.
    """

    name: str
    title: str
    about: str
    choices: tuple[BoardChoice, ...]
    sections: tuple[Section, ...]

    def panels(self) -> Iterator[Panel]:
        """All of them."""
        return (panel for section in self.sections for panel in section.panels)
