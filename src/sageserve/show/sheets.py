"""Tables of a page: cells with the exact number behind their text, rows, and a sheet of them.

Knows nothing of what they hold. Read next: `page.py`, `bill.py`.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TableCell:
    """A cell of a table.

    Args:
        text: for people.
        key: of summary.json, after the strategy; empty for what is derived.
        exact: the number behind the text.
        mark: `good` or `bad`, where a promise is kept or missed.
        small: a second line.
    """

    text: str
    key: str = ""
    exact: float | None = None
    mark: str = ""
    small: str = ""


@dataclass(frozen=True, slots=True)
class TableRow:
    """A strategy (or a tier of one)."""

    name: str
    cells: tuple[TableCell, ...]
    chosen: bool = False
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table with its headings; the first column holds the rows' names."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]
    notes: tuple[str, ...] = ()
    first: str = ""  # heading of the rows' names; empty: strategy, and below the first table tier
