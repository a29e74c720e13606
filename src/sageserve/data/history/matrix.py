"""Prometheus' JSON of raw samples, read while it streams in: memory holds one series, whatever the size of the answer.

    {"status":"success","data":{"resultType":"matrix","result":[{"metric":{...},"values":[[1700000000.123,"42"],...]},...]}}

Samples are numbers in text, and nine tenths of the time go into them: Arrow's CSV reader makes columns of them, and of long
answers a compiled function (`data/digits.py`), which takes a fifth. Everything else is taken apart as bytes, and checked as
JSON in the end. An answer that is cut, too large, unordered or foreign raises `NotMatrix` with a reason out of a closed list.
Knows no server. Read next: `files.py`, `live/prometheus/`.
"""

import re
import sys
from collections.abc import Mapping
from enum import Enum, auto
from typing import Final, Literal, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.csv as pc

from sageserve.base.records import Floats, Ints
from sageserve.data.history.raw import RawSeries

WORDS_MAX: Final = 1 << 20  # bytes before, between and after samples: labels of one series are some hundred
LONG: Final = 1 << 22  # bytes of samples from which loading the compiler costs less than it spares
PIECE: Final = 1 << 18  # bytes of samples turned into columns at once: fewer cost more per sample, more do not cost less
_DIGITS: Final = "sageserve.data.digits"
_RESULT: Final = re.compile(rb'"result"\s*:\s*\[')
_VALUES: Final = re.compile(rb'"values"\s*:\s*\[')
_ENDED: Final = re.compile(rb"^\[\s*\]|\]\s*\]")  # with room between, as people's tools print JSON
_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}]', re.DOTALL)
_LINES: Final = bytes.maketrans(b"]", b"\n")
_READ: Final = pc.ReadOptions(column_names=["nothing", "time", "value"], use_threads=False, block_size=1 << 24)
_TYPES: Final = {"nothing": pa.string(), "time": pa.float64(), "value": pa.float64()}
_CONVERT: Final = pc.ConvertOptions(include_columns=["time", "value"], column_types=_TYPES, null_values=[])

Why: TypeAlias = Literal["not-json", "refused", "not-raw", "too-large", "cut", "order", "not-samples"]


class NotMatrix(ValueError):
    """The answer is no raw samples, or no whole ones; `why` is one of a closed list."""

    def __init__(self, why: Why, text: str) -> None:
        super().__init__(text)
        self.why: Final = why


class _Metric(msgspec.Struct):
    metric: dict[str, str] = {}


class _Data(msgspec.Struct):
    resultType: str = ""  # noqa: N815 # Prometheus' spelling


class _Envelope(msgspec.Struct):
    status: str = ""
    data: _Data | None = None
    error: str = ""
    errorType: str = ""  # noqa: N815 # Prometheus' spelling
    warnings: list[str] = []
    isPartial: bool = False  # noqa: N815 # VictoriaMetrics' spelling


class _Place(Enum):
    HEAD = auto()
    BETWEEN = auto()
    WORDS = auto()
    SAMPLES = auto()
    TAIL = auto()


class MatrixReader:
    """Takes bytes as they come, gives series as they are complete.

    Args:
        samples_max: more samples than this in one answer are refused as too large.
    """

    def __init__(self, samples_max: int) -> None:
        self._left = samples_max
        self._taken = 0
        self._place = _Place.HEAD
        self._buffer = b""
        self._head = b""
        self._words = b""
        self._pieces: list[tuple[Ints, Floats]] = []
        self.warnings: tuple[str, ...] = ()
        self.skipped = 0

    def feed(self, data: bytes) -> list[RawSeries]:
        """The series that these bytes complete.

        Raises:
            NotMatrix: this is no answer with raw samples, or too many.
        """
        self._buffer += data
        found: list[RawSeries] = []
        while self._step(found):
            pass
        if self._place is not _Place.SAMPLES and len(self._buffer) + len(self._words) > WORDS_MAX:
            raise NotMatrix("too-large", f"more than {WORDS_MAX >> 20} MiB without samples")
        return found

    def close(self) -> None:
        """The answer has ended; its warnings can be read now.

        Raises:
            NotMatrix: it ended in its middle, or the server said an error.
        """
        whole = self._buffer if self._place is _Place.HEAD else self._head + b"]" + self._buffer
        if self._place not in (_Place.HEAD, _Place.TAIL):
            raise NotMatrix("cut", "the answer ends in the middle of its samples")
        try:
            told = msgspec.json.decode(whole, type=_Envelope)
        except (ValueError, RecursionError):
            raise NotMatrix("cut" if self._head else "not-json", "the answer is no JSON of Prometheus") from None
        if told.status != "success":
            raise NotMatrix("refused", told.error or told.status or "the answer says neither success nor error")
        if told.data is None or told.data.resultType != "matrix" or self._place is _Place.HEAD:
            raise NotMatrix("not-raw", "the answer holds no raw samples: ask for a range, or save query_range's answer")
        partial = ("the answer is partial",) if told.isPartial else ()
        self.warnings = (*told.warnings, *partial)

    def _step(self, found: list[RawSeries]) -> bool:
        """Go one part further; whether there may be more in the buffer."""
        match self._place:
            case _Place.HEAD:
                return self._begin()
            case _Place.BETWEEN:
                return self._next_series()
            case _Place.WORDS:
                return self._read_words(found)
            case _Place.SAMPLES:
                return self._read_samples()
            case _Place.TAIL:
                return False

    def _begin(self) -> bool:
        self._buffer = self._buffer.lstrip(b" \t\r\n\xef\xbb\xbf")
        if self._buffer and self._buffer[:1] != b"{":
            raise NotMatrix("not-json", "the answer is no JSON")
        match = _RESULT.search(self._buffer)
        if match is None:
            return False
        self._head, self._buffer = self._buffer[: match.end()], self._buffer[match.end() :]
        self._place = _Place.BETWEEN
        return True

    def _next_series(self) -> bool:
        self._buffer = self._buffer.lstrip(b" \t\r\n,")
        if not self._buffer:
            return False
        first, self._buffer = self._buffer[:1], self._buffer[1:]
        if first == b"{":
            self._place, self._words = _Place.WORDS, b"{"
        elif first == b"]":
            self._place = _Place.TAIL
        else:
            raise NotMatrix("not-raw", "the answer's results are no series")
        return True

    def _read_words(self, found: list[RawSeries]) -> bool:
        text = self._words + self._buffer
        match = None if self._pieces else _VALUES.search(text)
        if match and _closing(text[: match.start()]) < 0:  # else it is the next series that has values
            self._words, self._buffer = text[: match.start()] + b'"values":null', b"[" + text[match.end() :]
            self._place = _Place.SAMPLES
            return True
        end = _closing(text)
        if end < 0:
            return False
        series = self._series(text[:end])
        self._words, self._buffer, self._place = b"", text[end:], _Place.BETWEEN
        if series is not None:
            found.append(series)
        return True

    def _read_samples(self) -> bool:
        end = self._end_of_samples()
        if end:
            self._take(self._buffer[: end - 1])
            self._buffer, self._place = self._buffer[end:], _Place.WORDS
            return True
        cut = self._buffer.rfind(b"]", 0, len(self._buffer) - 1) + 1  # the last one may be the first of two
        if cut >= PIECE:
            self._take(self._buffer[:cut])
            self._buffer = self._buffer[cut:]
        elif len(self._buffer) > WORDS_MAX:
            raise NotMatrix("not-samples", "the answer holds a sample without an end")
        return False

    def _end_of_samples(self) -> int:
        """Where the list of samples has ended; 0 while it has not."""
        if self._buffer.startswith(b"[]"):
            return 2
        if (end := self._buffer.find(b"]]")) >= 0:
            return end + 2
        if b"\n" in self._buffer or b" " in self._buffer:
            match = _ENDED.search(self._buffer)
            return match.end() if match else 0
        return 0

    def _take(self, text: bytes) -> None:
        self._taken += len(text)
        found = _compiled(text) if self._taken > LONG or _DIGITS in sys.modules else None
        time, value = _slowly(text) if found is None else found
        self._left -= len(time)
        if self._left < 0:
            raise NotMatrix("too-large", "more samples than were asked for")
        if len(time):
            self._pieces.append((time, value))

    def _series(self, words: bytes) -> RawSeries | None:
        try:
            labels: Mapping[str, str] = msgspec.json.decode(words, type=_Metric).metric
        except (ValueError, RecursionError):
            raise NotMatrix("not-raw", "the answer holds a series whose labels cannot be read") from None
        pieces, self._pieces = self._pieces, []
        if not pieces:
            self.skipped += 1  # a native histogram, or nothing
            return None
        time = np.concatenate([piece[0] for piece in pieces])
        if len(time) > 1 and int(np.diff(time).min()) <= 0:
            raise NotMatrix("order", "the answer holds samples that are out of order")
        return RawSeries(labels, time, np.concatenate([piece[1] for piece in pieces]))


def _closing(text: bytes) -> int:
    """Where the object that begins the text has ended; -1 while it has not."""
    depth = 0
    for match in _TOKEN.finditer(text):
        token = match[0]
        depth += (token == b"{") - (token == b"}")
        if depth == 0 and token == b"}":
            return match.end()
    return -1


def _compiled(text: bytes) -> tuple[Ints, Floats] | None:
    """Samples of a text that is plain; None: it is not."""
    from sageserve.data.digits import NOT_PLAIN, read_pairs  # noqa: PLC0415 # loads the compiler

    most = text.count(b"]")
    time, value = np.empty(most, np.int64), np.empty(most, np.float64)
    return (time, value) if read_pairs(np.frombuffer(text, np.uint8), time, value) != NOT_PLAIN else None


def _slowly(text: bytes) -> tuple[Ints, Floats]:
    """Samples of any text that holds some."""
    # Every piece begins with what stands before a sample: `[[` at first, `,[` later; a comma makes it an empty column.
    lines = b"," + text.translate(_LINES, b'["\t\r\n ').lstrip(b",")
    if len(lines) == 1:
        return np.empty(0, np.int64), np.empty(0, np.float64)
    try:
        table = pc.read_csv(pa.BufferReader(lines), read_options=_READ, convert_options=_CONVERT)
    except pa.ArrowInvalid:
        raise NotMatrix("not-samples", "the answer holds samples that are no pairs of time and value") from None
    time = np.rint(table["time"].to_numpy() * 1e3)
    if not np.isfinite(time).all() or len(table) != text.count(b"]"):
        raise NotMatrix("not-samples", "the answer holds samples that are no pairs of time and value")
    return time.astype(np.int64) * 1000, table["value"].to_numpy()
