"""What readers of every kind of file give: batches of columns, and the lines they came from; and how bytes reach them.

Knows no kind of file. Read next: `sources.py`.
"""

import codecs
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, TypeAlias

import numpy as np
import pyarrow as pa

from sageserve.base.errors import TraceError
from sageserve.base.records import Ints
from sageserve.data.traces.columns.fields import Field
from sageserve.data.traces.columns.layout import ColumnNames, FileColumns, match_layout

Progress: TypeAlias = Callable[[int, int], None]
"""Told how many bytes of how many were read."""

BLOCK: Final = 8 << 20  # bytes per read: large enough for arrow to be fast, small beside the columns
WHAT_IS_READ: Final = "what is read, with an example of each: sageserve trace formats"
_CODECS: Final = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2"}


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Some rows of a file: arrow columns by field, all of the same length."""

    columns: Mapping[Field, pa.Array]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


@dataclass(slots=True)
class LineNumbers:
    """Which line of the file a row came from, and the lines that did not become rows.

    Args:
        first: line of the first row.
        word: what is counted: lines, rows, or records of files that have no lines.
        of_row: line of each row, where one line may hold several.
    """

    first: int = 1
    word: str = "line"
    of_row: list[int] | None = None
    skipped: list[int] = field(default_factory=list)
    reasons: dict[str, list[int]] = field(default_factory=dict)

    def of(self, rows: Ints) -> Ints:
        """Line numbers, counted from 1, of these row numbers, counted from 0."""
        if self.of_row is not None:
            return np.array([self.of_row[row] for row in rows.tolist()], dtype=np.int64)
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
    batches: Iterable[RowBatch]
    lines: LineNumbers
    metadata: bytes | None = None


class _Watched:
    """A raw file that reports how far it was read; arrow reads from it as from any file object."""

    def __init__(self, path: Path, progress: Progress | None) -> None:
        self._file: BinaryIO | pa.NativeFile = path.open("rb")
        self._size = path.stat().st_size
        self._progress = progress

    @property
    def closed(self) -> bool:
        return bool(self._file.closed)

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


def unpacked(path: Path, magic: bytes, progress: Progress | None = None) -> pa.NativeFile:
    """The bytes of a file, unpacked where its first ones say that it is compressed."""
    raw = pa.PythonFile(_Watched(path, progress), mode="r")
    codec = next((codec for start, codec in _CODECS.items() if magic.startswith(start)), None)
    return raw if codec is None else pa.CompressedInputStream(raw, codec)


class _ValidText(_Watched):
    """Text whose bytes that are no UTF-8 are replaced by �, since arrow cannot tell of a broken row that holds such bytes."""

    def __init__(self, stream: pa.NativeFile) -> None:
        self._file = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def read(self, size: int = -1) -> bytes:
        while data := bytes(self._file.read(size)):
            if data.isascii() and not self._decoder.getstate()[0]:
                return data
            if text := self._decoder.decode(data):
                return text.encode()
        return self._decoder.decode(b"", final=True).encode()


def valid_text(stream: pa.NativeFile) -> pa.NativeFile:
    """The same text in valid UTF-8."""
    return pa.PythonFile(_ValidText(stream), mode="r")


def packed(head: bytes) -> bool:
    """Whether bytes begin as compressed ones do."""
    return any(head.startswith(start) for start in _CODECS)


def unreadable(path: Path, error: Exception) -> TraceError:
    """What an error of the reading library means for the person who gave the file."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "runcated" in text:
        return TraceError(f"{path} is cut off: its compressed data ends early", hint="copy or download the file again")
    return TraceError(f"{path} cannot be read: {text}", hint=WHAT_IS_READ)


def layout_of_file(path: Path, header: ColumnNames, explicit: Mapping[str, str]) -> FileColumns:
    """What the columns of a file mean.

    Raises:
        TraceError: they fit no format, or one that is needed is there twice.
    """
    try:
        layout = match_layout(header, explicit)
    except TraceError as error:
        joint = ": " if error.message.startswith("--") else " "
        raise TraceError(f"{path}{joint}{error.message}", hint=error.hint) from None
    _refuse_twins(path, header.names, {place.name for place in layout.columns.values()})
    return layout


def _refuse_twins(path: Path, names: Sequence[str], used: set[str]) -> None:
    alike = Counter(name.strip().lower() for name in names)
    for name in names:
        word = name.strip().lower()
        if alike[word] > 1 and word in {each.strip().lower() for each in used}:
            places = [str(place) for place, other in enumerate(names, start=1) if other.strip().lower() == word]
            raise TraceError(
                f"{path} has {alike[word]} columns called {name.strip()!r}, at positions {' and '.join(places)}",
                hint="rename or remove all but the one that counts",
            )
