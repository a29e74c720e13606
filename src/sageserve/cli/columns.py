"""Tables that fit any terminal: columns that find no room go to a table of their own below, and no digit is cut.

The first column begins each table. Draws what it is given. Read next: `render.py`, `render_compare.py`.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from rich import table as rich_table
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

WIDTH: Final = 100  # columns: wider lines are hard to follow, and pipes have no width
_GAP: Final = 2  # blanks between two columns
_NARROWEST: Final = 12  # letters of a name beside each other, at least
_SENTENCE: Final = 24  # letters of a sentence beside numbers, at least
_UNBOUND: Final = 10_000  # columns: wider than any line
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
    console = Console(soft_wrap=False, highlight=False, emoji=False)
    console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    return console


def prose(console: Console, markup: str, *, under: int = 0, style: str = "") -> None:
    """Print a sentence that fits the width; words are never broken, because a path may be one.

    Args:
        console: where to.
        markup: the sentence, perhaps with blanks before it.
        under: blanks before its further lines.
        style: of all of it.
    """
    text, cuts, room = Text.from_markup(markup, style=style, emoji=False), list[int](), console.width
    for word in re.finditer(r"\S+", text.plain):
        if word.end() > room and text.plain[cuts[-1] if cuts else 0 : word.start()].strip():
            cuts.append(word.start())
            room = word.start() + console.width - under
    for number, line in enumerate(text.divide(cuts)):
        line.rstrip()
        console.print(Text(" " * under if number else "").append_text(line), soft_wrap=True)


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


class StackedTable(Table):
    """A table that fits: columns without room go below, behind the first ones again; only names and sentences are broken.

    A column that is neither right-justified nor `no_wrap` holds names or sentences.

    Args:
        titles: of the columns; more may be added with `add_column`.
        left: so many of these are names or sentences, the others numbers.
        keys: so many columns begin each part.
        title: a line above.
    """

    def __init__(self, *titles: str, left: int = 1, keys: int = 1, title: str | None = None) -> None:
        shown = any(titles) or not titles
        super().__init__(
            box=None,
            pad_edge=False,
            padding=(0, _GAP, 0, 0),
            header_style="dim",
            show_header=shown,
            title=title,
            title_justify="left",
            title_style="bold",
        )
        self._keys = keys
        for number, name in enumerate(titles):
            self.add_column(name, justify="left" if number < left else "right")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The parts, one below the other."""
        most = [self._widest(console, options, column) for column in self.columns]
        least = [
            width if not _breaks(column) else min(width, _NARROWEST if number < self._keys else _SENTENCE)
            for number, (column, width) in enumerate(zip(self.columns, most, strict=True))
        ]
        keys, rest = list(range(self._keys)), list(range(self._keys, len(self.columns)))
        gap = _GAP if sum(least) + _GAP * (len(least) - 1) <= options.max_width else 1
        title = self.title
        while rest or keys:
            part = list(keys)
            while rest and (
                len(part) == len(keys) or sum(least[one] + gap for one in (*part, rest[0])) - gap <= options.max_width
            ):
                part.append(rest.pop(0))
            widths = _shared([most[one] for one in part], [least[one] for one in part], options.max_width - gap * (len(part) - 1))
            made = self._part(part, widths, gap)
            made.title, title = title, None
            yield made
            if not rest:
                return

    def _widest(self, console: Console, options: ConsoleOptions, column: rich_table.Column) -> int:
        unbound = options.update(width=_UNBOUND)
        shown = (*([column.header] if self.show_header else []), *column.cells)
        return max((Measurement.get(console, unbound, one).maximum for one in shown), default=0)

    def _part(self, numbers: Sequence[int], widths: Sequence[int], gap: int) -> Table:
        made = Table(
            box=None,
            pad_edge=False,
            padding=(0, gap, 0, 0),
            header_style=self.header_style,
            show_header=self.show_header,
            title_justify=self.title_justify,
            title_style=self.title_style,
        )
        for number, width in zip(numbers, widths, strict=True):
            column = self.columns[number]
            made.add_column(
                column.header,
                justify=column.justify,
                style=column.style,
                no_wrap=not _breaks(column),
                overflow="fold",
                max_width=width if _breaks(column) else None,
            )
        room = widths[0] if _breaks(self.columns[numbers[0]]) else _UNBOUND
        for first, *cells in zip(*(self.columns[number].cells for number in numbers), strict=True):
            made.add_row(_broken(first, room) if isinstance(first, str) else first, *cells)
        return made


def _breaks(column: rich_table.Column) -> bool:
    """Whether its lines may be broken."""
    return column.justify == "left" and not column.no_wrap


def _broken(name: str, room: int) -> str:
    """A name in lines that end behind a slash or a hyphen, where it is too long and has any."""
    if " " in name or "[" in name:  # a sentence, which is broken at blanks, or marked
        return name
    lines = [""]
    for piece in re.split(r"(?<=[/-])", name):
        if len(lines[-1]) + len(piece) > room and lines[-1]:
            lines.append("")
        lines[-1] += piece
    return "\n".join(lines)


def _shared(most: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Widths that fit the room: the widest of what may be narrower is, and then the first."""
    widths = list(most)
    while sum(widths) > room:
        able = [number for number, width in enumerate(widths) if width > least[number]]
        if not able:
            widths[0] = max(1, widths[0] - (sum(widths) - room))
            break
        widths[max(able, key=lambda number: widths[number])] -= 1
    return widths
