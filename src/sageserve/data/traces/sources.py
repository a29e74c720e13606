"""Files as batches of columns: CSV, JSON lines and Parquet, plain or compressed, told apart by their bytes.

Yields arrow columns with the numbers of the rows they came from. Converts no value and refuses no request
(`columns.py` does), and knows nothing of scenarios. Read next: `columns.py`.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from sageserve.base.errors import TraceError
from sageserve.base.records import Ints
from sageserve.data.traces.formats import FIELDS, NAMED, OWN, Field, FileColumns, formats_hint, match_layout

Progress: TypeAlias = Callable[[int, int], None]
"""Told how many bytes of how many were read."""

MARK: Final = b"sageserve.trace"
"""Key in the metadata of our own Parquet files."""

_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_PARQUET: Final = b"PAR1"
_PEEK: Final = 1 << 16  # bytes looked at to tell formats apart; a header is shorter than that
_BLOCK: Final = 8 << 20  # bytes per CSV batch: large enough for arrow to be fast, small beside the columns
_ROWS: Final = 1 << 19  # rows per batch where rows can be counted
_NULLS: Final = ["", "NA", "N/A", "NaN", "nan", "NULL", "null", "None"]


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Some rows of a file: arrow columns by field, all of the same length."""

    columns: Mapping[Field, pa.Array]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


@dataclass(slots=True)
class LineNumbers:
    """Which line of the file a row came from, and the lines that did not become rows."""

    first: int = 1
    skipped: list[int] = field(default_factory=list)
    reasons: dict[str, list[int]] = field(default_factory=dict)

    def of(self, rows: Ints) -> Ints:
        """Line numbers, counted from 1, of these row numbers, counted from 0."""
        gone = np.array(self.skipped, dtype=np.int64) - self.first
        before = np.searchsorted(gone - np.arange(len(gone)), rows, side="right")
        return rows + before + self.first

    def skip(self, line: int, reason: str) -> None:
        """Remember a line that cannot be split into columns."""
        self.skipped.append(line)
        self.reasons.setdefault(reason, []).append(line)


@dataclass(frozen=True, slots=True)
class TraceFile:
    """An open trace file: what its columns mean, its batches, and where its rows stand."""

    layout: FileColumns
    batches: Iterator[RowBatch]
    lines: LineNumbers
    metadata: bytes | None = None


def open_source(path: Path, explicit: Mapping[str, str], progress: Progress | None = None) -> TraceFile:
    """Open a trace file of any known format.

    Args:
        path: the file.
        explicit: our column names -> the file's, from `--column`.
        progress: told about bytes read; None when nobody watches.

    Raises:
        TraceError: no such file, empty, not text, cut off, or of no known format.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise TraceError(f"{path} {what}", hint="give the path of a trace file")
    with path.open("rb") as file:
        magic = file.read(4)
    if not magic:
        raise TraceError(f"{path} is empty", hint=formats_hint())
    if magic == _PARQUET:
        return _open_parquet(path, explicit, progress)
    return _open_text(path, magic, explicit, progress)


def unreadable(path: Path, error: Exception) -> TraceError:
    """What an error of the reading library means for the person who gave the file."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "runcated" in text:
        return TraceError(f"{path} is cut off: its compressed data ends early", hint="copy or download the file again")
    return TraceError(f"{path} cannot be read: {text}", hint=formats_hint())


def _open_text(path: Path, magic: bytes, explicit: Mapping[str, str], progress: Progress | None) -> TraceFile:
    try:
        with _stream(path, magic, None) as stream:
            head = bytes(stream.read(_PEEK))
    except (OSError, pa.ArrowInvalid) as error:
        raise unreadable(path, error) from None
    if not head.strip():
        raise TraceError(f"{path} holds nothing but blanks", hint=formats_hint())
    if b"\0" in head or head[:4] in {_PARQUET, _ZSTD} or head[:2] == _GZIP:
        raise TraceError(f"{path} is not text inside", hint=formats_hint())
    stream = _stream(path, magic, progress)
    first = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if first[:1] in {b"{", b"["}:
        return _open_json(path, stream, first, explicit)
    return _open_csv(path, stream, head, explicit)


class _Watched:
    """A raw file that reports how far it was read; arrow reads from it as from any file object."""

    def __init__(self, path: Path, progress: Progress | None) -> None:
        self._file = path.open("rb")
        self._size = path.stat().st_size
        self._progress = progress

    @property
    def closed(self) -> bool:
        return self._file.closed

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        if self._progress is not None:
            self._progress(self._file.tell(), self._size)
        return data

    def close(self) -> None:
        self._file.close()

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False


def _stream(path: Path, magic: bytes, progress: Progress | None) -> pa.NativeFile:
    raw = pa.PythonFile(_Watched(path, progress), mode="r")
    if magic[:2] == _GZIP:
        return pa.CompressedInputStream(raw, "gzip")
    if magic == _ZSTD:
        return pa.CompressedInputStream(raw, "zstd")
    return raw


def _known(path: Path, names: Sequence[str], explicit: Mapping[str, str]) -> FileColumns:
    layout = match_layout(names, explicit)
    if layout is None:
        shown = ", ".join(repr(name.strip()[:40]) for name in names[:15])
        raise TraceError(f"{path} has columns of no known trace format: {shown}", hint=formats_hint())
    return layout


# ------------------------------------------------------------------------------------------------- CSV


def _open_csv(path: Path, stream: pa.NativeFile, head: bytes, explicit: Mapping[str, str]) -> TraceFile:
    text = head.decode("utf-8-sig", errors="replace")
    blank = len(text) - len(text.lstrip("\r\n"))
    header = text[blank:].splitlines()[0]
    delimiter = max(",;\t|", key=header.count)
    names = [name.strip('"') for name in header.split(delimiter)]
    layout = _known(path, names, explicit)
    above = text[:blank].count("\n")
    lines = LineNumbers(first=above + 2)
    return TraceFile(layout, _csv_batches(path, stream, (layout, delimiter, names), lines), lines)


def _csv_batches(
    path: Path, stream: pa.NativeFile, dialect: tuple[FileColumns, str, Sequence[str]], lines: LineNumbers
) -> Iterator[RowBatch]:
    layout, delimiter, names = dialect

    def odd(row: pyarrow.csv.InvalidRow) -> str:
        lines.skip(row.number, f"{row.actual_columns} columns where {row.expected_columns} are expected")
        return "skip"

    types = {
        name: pa.binary() if part in NAMED else pa.string()  # names may be badly encoded and still be names
        for part, name in layout.columns.items()
    }
    try:
        reader = pyarrow.csv.open_csv(
            stream,
            read_options=pyarrow.csv.ReadOptions(
                use_threads=False,  # row numbers are known only then
                block_size=_BLOCK,
                column_names=list(names),
                skip_rows=lines.first - 1,
            ),
            parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, ignore_empty_lines=False, invalid_row_handler=odd),
            convert_options=pyarrow.csv.ConvertOptions(
                check_utf8=False,
                column_types=types,
                include_columns=list(types),
                strings_can_be_null=True,
                null_values=_NULLS,
            ),
        )
        for batch in reader:
            yield RowBatch({part: batch.column(name) for part, name in layout.columns.items()})
    except (OSError, pa.ArrowInvalid) as error:
        raise unreadable(path, error) from None


# ------------------------------------------------------------------------------------------ JSON lines


def _open_json(path: Path, stream: pa.NativeFile, first: bytes, explicit: Mapping[str, str]) -> TraceFile:
    try:
        record = json.loads(first.splitlines()[0])
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise TraceError(f"{path} looks like JSON, but its first line is not one object", hint=formats_hint())
    layout = _known(path, list(record), explicit)
    lines = LineNumbers(first=1)
    return TraceFile(layout, _json_batches(path, stream, layout, lines), lines)


def _json_batches(path: Path, stream: pa.NativeFile, layout: FileColumns, lines: LineNumbers) -> Iterator[RowBatch]:
    parts = [part for part in FIELDS if part in layout.columns]
    row_type = msgspec.defstruct(
        "Row",
        [(part, int | float | str | None, None) for part in parts],
        rename={part: layout.columns[part] for part in parts},
    )
    decoder = msgspec.json.Decoder(row_type)
    rows: list[msgspec.Struct] = []
    try:
        for number, line in enumerate(_split_lines(stream), start=1):
            try:
                rows.append(decoder.decode(line))
            except (msgspec.DecodeError, UnicodeDecodeError):
                if line.strip():
                    lines.skip(number, "line is not a JSON object with usable fields")
                else:
                    rows.append(row_type())
            if len(rows) == _ROWS:
                yield _json_batch(rows, parts)
                rows = []
    except (OSError, pa.ArrowInvalid) as error:
        raise unreadable(path, error) from None
    if rows:
        yield _json_batch(rows, parts)


def _split_lines(stream: pa.NativeFile) -> Iterator[bytes]:
    rest = b""
    while data := stream.read(_BLOCK):
        pieces = (rest + bytes(data)).split(b"\n")
        rest = pieces.pop()
        yield from pieces
    if rest:
        yield rest


def _json_batch(rows: Sequence[msgspec.Struct], parts: Sequence[Field]) -> RowBatch:
    def text(value: float | str | None) -> str | None:
        return None if value is None else str(value)

    return RowBatch({part: pa.array([text(getattr(row, part)) for row in rows], pa.string()) for part in parts})


# --------------------------------------------------------------------------------------------- Parquet


def _open_parquet(path: Path, explicit: Mapping[str, str], progress: Progress | None) -> TraceFile:
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise unreadable(path, error) from None
    metadata = (file.schema_arrow.metadata or {}).get(MARK)
    names = file.schema_arrow.names
    if metadata is None:
        layout = _known(path, names, explicit)
    else:
        layout = FileColumns(OWN, {part: name for part, name in OWN.columns.items() if name in names}, "us")
    lines = LineNumbers(first=1)
    return TraceFile(layout, _parquet_batches(path, file, layout, progress), lines, metadata)


def _parquet_batches(path: Path, file: pq.ParquetFile, layout: FileColumns, progress: Progress | None) -> Iterator[RowBatch]:
    done, total = 0, file.metadata.num_rows
    try:
        for batch in file.iter_batches(batch_size=_ROWS, columns=list(layout.columns.values())):
            done += len(batch)
            if progress is not None:
                progress(done, total)
            yield RowBatch({part: _plain(batch.column(name)) for part, name in layout.columns.items()})
    except (OSError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise unreadable(path, error) from None


def _plain(column: pa.Array) -> pa.Array:
    """A dictionary of anything but text is unpacked: only names stay dictionaries."""
    kind = column.type
    if pa.types.is_dictionary(kind) and not _is_text(kind.value_type):
        return pc.cast(column, kind.value_type)
    return column


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind))
