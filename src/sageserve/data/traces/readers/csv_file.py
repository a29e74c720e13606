"""CSV files: any of four separators, quotes in the header too, rows of the wrong length counted and left out.

Only columns that mean something are read. Read next: `batches.py`, `data/traces/columns/layout.py`.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.csv

from sageserve.base.errors import TraceError
from sageserve.data.traces.columns.fields import NAMED, Field
from sageserve.data.traces.columns.layout import ColumnNames, FileColumns
from sageserve.data.traces.readers.batches import (
    BLOCK,
    WHAT_IS_READ,
    LineNumbers,
    RowBatch,
    TraceFile,
    layout_of_file,
    unreadable,
)
from sageserve.data.traces.readers.cells import dig

_SEPARATORS: Final = ",;\t|"
_NULLS: Final = ["", "NA", "N/A", "NaN", "nan", "NULL", "null", "None"]
_LOOKED_AT: Final = 40  # rows below the header that show what columns look like
_TEXT_MAX: Final = 1 << 24  # characters of one cell: prompts are long


@dataclass(frozen=True, slots=True)
class _Dialect:
    separator: str
    names: Sequence[str]
    breaks: bool  # cells may hold line breaks


def open_csv(path: Path, stream: pa.NativeFile, head: bytes, explicit: Mapping[str, str]) -> TraceFile:
    """Open a CSV file.

    Args:
        path: for messages.
        stream: its text, from the beginning.
        head: the first bytes of it.
        explicit: our column names -> the file's.

    Raises:
        TraceError: there is no header, or the columns are of no known format.
    """
    text = head.decode("utf-8-sig", errors="replace")
    blank = len(text) - len(text.lstrip("\r\n"))
    rows, separator = _first_rows(path, text[blank:])
    names = rows[0]
    if "\n" in "".join(names):
        raise TraceError(f"{path} has a line break inside its header", hint="put the names of its columns on one line")
    if all(_is_data(name) for name in names if name.strip()):
        raise TraceError(
            f"{path} has no header: its first line is {separator.join(names)[:80]!r}",
            hint="add a first line with the names of its columns, such as arrival_s,prompt_tokens,output_tokens",
        )
    examples = {
        name: next((row[place] for row in rows[1:] if place < len(row) and row[place].strip()), "")
        for place, name in reversed(list(enumerate(names)))
    }
    layout = layout_of_file(path, ColumnNames(names, examples, cells_may_nest=True), explicit)
    lines = LineNumbers(first=text[:blank].count("\n") + 2)
    dialect = _Dialect(separator, names, breaks='"' in text)
    return TraceFile(layout, _batches(path, stream, (layout, dialect), lines), lines)


def _first_rows(path: Path, text: str) -> tuple[list[list[str]], str]:
    """The header and some rows, split by the separator that makes the most columns of the header."""
    csv.field_size_limit(_TEXT_MAX)
    found: tuple[list[list[str]], str] = ([], ",")
    for separator in _SEPARATORS:
        reader = csv.reader(text.splitlines(keepends=True), delimiter=separator)
        try:
            rows = [row for row, _ in zip(reader, range(_LOOKED_AT), strict=False)]
        except csv.Error as error:
            raise TraceError(f"{path} cannot be read: {error}", hint=WHAT_IS_READ) from None
        if rows and (not found[0] or len(rows[0]) > len(found[0][0])):
            found = rows, separator
    return found


def _is_data(name: str) -> bool:
    """Whether a name of a header looks like a number or a time."""
    return name.strip()[:1].isdecimal() and not any(letter.isalpha() for letter in name.replace("T", "").replace("Z", ""))


def _batches(path: Path, stream: pa.NativeFile, meaning: tuple[FileColumns, _Dialect], lines: LineNumbers) -> Iterator[RowBatch]:
    layout, dialect = meaning

    def odd(row: pyarrow.csv.InvalidRow) -> str:
        lines.skip(row.number, f"{row.actual_columns} columns where {row.expected_columns} are expected")
        return "skip"

    inner = {field: f"c{dialect.names.index(place.name)}" for field, place in layout.columns.items()}
    types = {name: _type(field) for field, name in inner.items()}
    try:
        reader = pyarrow.csv.open_csv(
            stream,
            read_options=pyarrow.csv.ReadOptions(
                use_threads=False,  # row numbers are known only then
                block_size=BLOCK,
                column_names=[f"c{number}" for number in range(len(dialect.names))],
                skip_rows=lines.first - 1,
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=dialect.separator,
                ignore_empty_lines=False,
                invalid_row_handler=odd,
                newlines_in_values=dialect.breaks,
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                check_utf8=False,
                column_types=types,
                include_columns=list(types),
                strings_can_be_null=True,
                null_values=_NULLS,
            ),
        )
        for batch in reader:
            yield RowBatch({field: dig(batch.column(name), layout.columns[field].path) for field, name in inner.items()})
    except (OSError, pa.ArrowInvalid) as error:
        raise unreadable(path, error) from None


def _type(field: Field) -> pa.DataType:
    return pa.binary() if field in NAMED else pa.string()  # names may be badly encoded and still be names
