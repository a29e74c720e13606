"""Tables that fit any terminal: columns that find no room go to a table of their own below, and no digit is cut.

The first column begins each table. Draws what it is given. Read next: `render.py`, `render_compare.py`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

WIDTH: Final = 100  # columns: wider lines are hard to follow, and pipes have no width
_GAP: Final = 2  # blanks between two columns
_NARROWEST: Final = 12  # letters of a name beside each other, at least
_COLOURS: Final = {"✓": "[green]✓[/green]", "✗": "[red]✗[/red]"}


@dataclass(frozen=True, slots=True)
class Column:
    """Lines of a title, and a cell of as many lines for each row.

    Args:
        title: its lines.
        cells: one for each row.
        style: of all its cells, such as bold.
        words: it holds names and not numbers.
        beside: the title where all columns stand side by side, and the one before says the rest; empty: the same.
    """

    title: str
    cells: Sequence[str]
    style: str = ""
    words: bool = False
    beside: str = ""

    @property
    def width(self) -> int:
        """Of the widest line."""
        return max(len(line) for text in (self.title, *self.cells) for line in text.split("\n"))


def terminal() -> Console:
    """Standard output: as wide as the terminal, at most WIDTH; WIDTH where it is none."""
    console = Console(soft_wrap=False, highlight=False)
    console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    return console


def tables(columns: Sequence[Column], width: int) -> Iterator[Table]:
    """As few tables as fit the width; the first column begins each of them, its names broken where they are too long."""
    short = [replace(each, title=each.beside or each.title) for each in columns]
    if sum(each.width + 1 for each in short) - 1 <= width:
        columns = short
    head, rest = columns[0], columns[1:]
    widest = max((column.width for column in rest), default=0)
    room = max(_NARROWEST, width - widest - 1)
    first = min(head.width, room)
    gap = _GAP if first + sum(each.width + _GAP for each in rest) <= width else 1
    part = list[Column]()
    for column in rest:
        if part and first + sum(each.width + gap for each in (*part, column)) > width:
            yield _table(head, part, gap, first)
            part = []
        part.append(column)
    yield _table(head, part, gap, first)


def _table(head: Column, columns: Sequence[Column], gap: int, first: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="dim")
    table.add_column(escape(head.title), style=head.style, overflow="fold", max_width=first, no_wrap=False, vertical="top")
    for column in columns:
        justify: Literal["left", "right"] = "left" if column.words else "right"
        table.add_column(escape(column.title), justify=justify, style=column.style, no_wrap=True, vertical="top")
    for row in zip(head.cells, *(column.cells for column in columns), strict=True):
        table.add_row(*(_marked(cell) for cell in row))
    return table


def _marked(cell: str) -> str:
    text = escape(cell)
    for mark, coloured in _COLOURS.items():
        text = text.replace(mark, coloured)
    return text
