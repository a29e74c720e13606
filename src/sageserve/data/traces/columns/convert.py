"""A batch of columns becomes times, lengths, numbers and codes; a row that cannot be a request is marked with the reason.

Works on whole arrow columns. Reads no file (`readers/`) and knows no scenario (`data/traces/naming.py`). Read next: `times.py`,
`numbers.py`, and `data/traces/read.py`, which joins the pieces.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sageserve.base.records import UNSET, Bools, Ints
from sageserve.base.units import SECOND
from sageserve.data.traces.columns.fields import NAMED, Clock, Field, clock_of
from sageserve.data.traces.columns.formats import OWN
from sageserve.data.traces.columns.hashes import HashReader, RaggedHashes
from sageserve.data.traces.columns.layout import FileColumns
from sageserve.data.traces.columns.numbers import Numbers, numbers_of, values_of
from sageserve.data.traces.columns.times import TIME_MAX, ReadTimes, TimeReader

Codes: TypeAlias = NDArray[np.int32]

LENGTH_MAX: Final = 2**31 - 1  # lengths are int32 columns
Lengths: TypeAlias = NDArray[np.int32] | NDArray[np.int64]
"""Tokens of requests are int32; of sums of many they are int64."""

NO_TIME: Final = -(2**63)
"""Stands for the time of a request that has none of its own."""

_MICROS: Final[Mapping[str, float]] = {"us": 1, "ms": 1_000, "s": SECOND, "ns": 1e-3, "auto": SECOND}
_COUNTED: Final[tuple[Field, ...]] = ("turn", "images", "audio", "block")
_CODED: Final[tuple[Field, ...]] = (*NAMED, "session", "request", "parent", "adapter", "tenant", "user", "key")
_NO_ANSWER: Final = r"(?i)embed|speech|transcri|image|rerank|moderation"
_NO_FAILURE: Final = ("", "0", "ok", "none", "null", "false", "success", "succeeded", "completed", "default", "[]", "{}")
_KEY_DIGITS: Final = 10  # of the hash that stands for an API key

FAILED: Final = "failed request in the source (no output tokens)"
REASONS: Final = (
    "",
    "time is missing",
    "time is not a number or an instant",
    "time is too large for a date",
    "time is negative",
    "time is before 1970",
    "prompt length is missing",
    "prompt length is not a whole number",
    "prompt length is below 1",
    "prompt length is above 2,147,483,647",
    "output length is missing",
    "output length is not a whole number",
    "output length is below 1",
    "output length is above 2,147,483,647",
    "model is missing",
    "tier is missing",
    "region is missing",
    "deadline is not a positive number",
    "cached tokens are not a whole number from 0 to the prompt's length",
    "number of requests is not a whole number from 1",
    FAILED,
    "blank line",
    "record of another kind",
)
"""Why a row cannot be a request; a row has one reason, the first that applies."""

BLANK: Final = REASONS.index("blank line")
OTHER: Final = REASONS.index("record of another kind")
_LENGTHS: Final = tuple(number for number, reason in enumerate(REASONS) if "length is" in reason)


@dataclass(frozen=True, slots=True)
class Piece:
    """The requests of one batch.

    Args:
        time: int64[n], microseconds; since 1970 when the file has dates; NO_TIME for requests without one; None: no request has.
        prompt: tokens; characters where the converter says so.
        output: tokens.
        codes: int32[n] by coded field that the file has, codes into the converter's `names`; UNSET where it does not say.
        numbers: int64[n] by field: cached, deadline and delay (microseconds), turn, images, audio, block, count, end,
            rate (requests in a million seconds); UNSET likewise.
        hashes: of the prompts' blocks.
        why: int8[rows], one per row of the batch: 0 for those that are in the columns, else a row of REASONS.
    """

    time: Ints | None
    prompt: Lengths
    output: Lengths
    codes: Mapping[Field, Codes]
    numbers: Mapping[Field, Ints]
    hashes: RaggedHashes | None
    why: NDArray[np.int8]


class Converter:
    """Converts the batches of one file; remembers the names it met and how times turned out to be written.

    Args:
        layout: of the file.
        early: times before 0 are times, as for a trace that begins at its first request.
    """

    def __init__(self, layout: FileColumns, *, early: bool = False) -> None:
        self._layout = layout
        self._early = early
        self.names: dict[Field, dict[str, int]] = {part: {} for part in _CODED if part in layout.columns}
        clock = layout.clocks.get("time", "auto")
        self.times = TimeReader(clock, asked=clock != "auto" and ("time" in layout.named or layout.format is OWN))
        self._ends = TimeReader(layout.clocks.get("end", "auto"))
        self._hashes = HashReader()
        self._sums = "count" in layout.columns
        self.characters = "prompt" not in layout.columns

    def convert(self, columns: Mapping[Field, pa.Array]) -> Piece:
        """The requests of a batch, and why its other rows are none."""
        rows = len(next(iter(columns.values())))
        why = np.zeros(rows, dtype=np.int8)
        if all(column.null_count for column in columns.values()):
            _mark(why, _all_null(columns, rows), "blank line")
        prompts, outputs = (numbers_of(columns[part]) for part in ("text" if self.characters else "prompt", "output"))
        self._mark_others(columns, why, prompts[0], outputs[0])
        time = self._time(columns, why)
        prompt = _lengths(prompts, "prompt", why, sums=self._sums)
        numbers: dict[Field, Ints] = {}
        prompt = self._add_cache(columns, prompt, numbers, why)
        if self._layout.format.failures:
            _mark(why, ~outputs[1] & ~outputs[2] & (outputs[0] == 0), FAILED)
        output = _lengths(outputs, "output", why, sums=self._sums)
        codes = {part: self._codes(part, columns[part], why) for part in self.names}
        self._add_numbers(columns, numbers, why)
        if "failed" in columns:
            why[np.isin(why, _LENGTHS) & _failures(columns["failed"])] = REASONS.index(FAILED)
        hashes = self._hashes.read(columns["blocks"]) if "blocks" in columns else None
        piece = Piece(time, prompt, output, codes, numbers, hashes, why)
        return piece if not why.any() else _only(piece, why == 0)

    def _mark_others(self, columns: Mapping[Field, pa.Array], why: NDArray[np.int8], prompt: Numbers, output: Numbers) -> None:
        """Mark records that are no request at all: spans and tool calls among requests, and calls without an answer."""
        if self._layout.format.mixed:
            _mark(why, (prompt == 0) & (output == 0), REASONS[OTHER])
        if "kind" in columns and pa.types.is_string(columns["kind"].type):
            other = pc.fill_null(pc.match_substring_regex(columns["kind"], _NO_ANSWER), False)
            _mark(why, other.to_numpy(zero_copy_only=False) & (output == 0), REASONS[OTHER])

    def _time(self, columns: Mapping[Field, pa.Array], why: NDArray[np.int8]) -> Ints | None:
        if "time" not in columns:
            return None
        read = self.times.read(columns["time"])
        follows = np.zeros(len(why), np.bool_)
        if "delay" in columns and "session" in columns:
            follows = read.missing & ~columns["session"].is_null().to_numpy(zero_copy_only=False)
        _mark(why, read.missing & ~follows, "time is missing")
        _mark_times(read, why)
        if not self._early or self.times.dated:
            _mark(why, (read.micros < 0) & ~read.missing, "time is before 1970" if self.times.dated else "time is negative")
        return np.where(read.missing, NO_TIME, read.micros) if read.missing.any() else read.micros

    def _add_cache(
        self, columns: Mapping[Field, pa.Array], prompt: Lengths, numbers: dict[Field, Ints], why: NDArray[np.int8]
    ) -> Lengths:
        """Cached tokens, and prompts with what was counted beside them.

        Of a prompt that is cached whole the last token is computed all the same, as vLLM does.
        """
        reason = "cached tokens are not a whole number from 0 to the prompt's length"
        extra: dict[Field, Ints] = {}
        for part in ("cache_read", "cache_write"):
            if part in columns:
                values, missing, wrong = numbers_of(columns[part])
                _mark(why, wrong | (~missing & ((values < 0) | (values != np.floor(values)))), reason)
                extra[part] = np.where(missing | wrong, 0, values).astype(np.int64)
                prompt = prompt + extra[part]
        if "cached" in columns:
            values, missing, wrong = numbers_of(columns["cached"])
            wrong = wrong | (~missing & ((values < 0) | (values > prompt) | (values != np.floor(values))))
            _mark(why, wrong, reason)
            numbers["cached"] = np.where(missing | wrong, UNSET, np.minimum(values, prompt - 1)).astype(np.int64)
        elif "cache_read" in extra:
            numbers["cached"] = np.minimum(extra["cache_read"], prompt - 1)
        return prompt

    def _add_numbers(self, columns: Mapping[Field, pa.Array], numbers: dict[Field, Ints], why: NDArray[np.int8]) -> None:
        for part in _COUNTED:
            if part in columns:
                numbers[part] = _counts(columns[part])
        if "rate" in columns:
            values, missing, wrong = numbers_of(columns["rate"])
            fits = ~missing & ~wrong & (values > 0) & (values < LENGTH_MAX)
            numbers["rate"] = np.where(fits, np.round(values * SECOND), UNSET).astype(np.int64)
        for part in ("deadline", "delay"):
            if part in columns:
                unit = _MICROS[self._clock_of(part)]
                values, missing, wrong = numbers_of(columns[part])
                with np.errstate(invalid="ignore", over="ignore"):
                    least = values > 0 if part == "deadline" else values >= 0
                    wrong = wrong | (~missing & ~(least & (values < TIME_MAX / unit)))
                    numbers[part] = np.where(missing | wrong, UNSET, np.round(values * unit)).astype(np.int64)
                if part == "deadline":
                    _mark(why, wrong, "deadline is not a positive number")
        if self._sums:
            values, missing, wrong = numbers_of(columns["count"])
            bad = missing | wrong | (values < 1) | (values != np.floor(values)) | (values > LENGTH_MAX)
            _mark(why, bad, "number of requests is not a whole number from 1")
            numbers["count"] = np.where(bad, 0, values).astype(np.int64)
            if "end" in columns:
                ends = self._ends.read(columns["end"])
                numbers["end"] = np.where(ends.missing | ends.wrong | ends.beyond, UNSET, ends.micros)

    def _clock_of(self, part: Field) -> Clock:
        """The unit of a field that is a length of time; where times turned out to be seconds, pauses of this format are too."""
        clock = self._layout.clocks[part]
        own = part in self._layout.named or clock_of(self._layout.columns[part].text().rpartition(".")[2])[1] != "auto"
        if part != "delay" or own or not self.times.in_seconds:
            return clock
        said = "pauses are read as seconds, as times are; --column delay_ms=NAME reads them as milliseconds"
        if said not in self.times.notes:
            self.times.notes.append(said)
        return "s"

    def _codes(self, part: Field, column: pa.Array, why: NDArray[np.int8]) -> Codes:
        known = self.names[part]
        rename = self._layout.format.renames.get(part)
        if pa.types.is_nested(column.type):  # a list of names is a name of its own
            column = pa.array([None if value is None else str(value) for value in values_of(column)], pa.string())
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        codes = []
        for value in values_of(column.dictionary):
            text = _name_text(value)
            text = rename(text) if rename is not None else text
            if part == "key" and text and self._layout.format is not OWN:  # ours holds such hashes already
                text = "key-" + hashlib.sha256(text.encode()).hexdigest()[:_KEY_DIGITS]
            codes.append(known.setdefault(text, len(known)) if text else UNSET)
        table = np.array([*codes, UNSET], dtype=np.int32)
        indices = column.indices.cast(pa.int64()).fill_null(len(codes)).to_numpy(zero_copy_only=False)
        found: Codes = table[indices]
        if part in NAMED:
            _mark(why, found < 0, f"{part} is missing")
        return found


def _only(piece: Piece, good: Bools) -> Piece:
    return Piece(
        None if piece.time is None else piece.time[good],
        piece.prompt[good],
        piece.output[good],
        {part: column[good] for part, column in piece.codes.items()},
        {part: column[good] for part, column in piece.numbers.items()},
        None if piece.hashes is None else piece.hashes.only(good),
        piece.why,
    )


def _name_text(value: object) -> str:
    if value is None or value != value:  # noqa: PLR0124 # NaN is the one value that is not itself
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a whole number among missing ones, as pandas writes it
    return (value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)).strip()


def _all_null(columns: Mapping[Field, pa.Array], rows: int) -> Bools:
    empty = np.ones(rows, dtype=np.bool_)
    for column in columns.values():
        empty &= column.is_null().to_numpy(zero_copy_only=False)
    return empty


def _mark(why: NDArray[np.int8], rows: Bools, reason: str) -> None:
    why[rows & (why == 0)] = REASONS.index(reason)


def _mark_times(read: ReadTimes, why: NDArray[np.int8]) -> None:
    _mark(why, read.wrong, "time is not a number or an instant")
    _mark(why, read.beyond, "time is too large for a date")


def _lengths(
    read: tuple[NDArray[np.int64] | NDArray[np.float64], Bools, Bools], part: str, why: NDArray[np.int8], *, sums: bool
) -> Lengths:
    values, missing, wrong = read
    if values.dtype != np.int64:
        wrong = wrong | (values != np.floor(values))
    _mark(why, missing, f"{part} length is missing")
    _mark(why, wrong, f"{part} length is not a whole number")
    _mark(why, values < 1, f"{part} length is below 1")
    most = TIME_MAX if sums else LENGTH_MAX
    _mark(why, values > most, f"{part} length is above 2,147,483,647")
    clipped = np.clip(values, 0, most)
    return clipped.astype(np.int64, copy=False) if sums else clipped.astype(np.int32)


def _counts(column: pa.Array) -> Ints:
    """Whole numbers, or lengths of lists; what is none of both is not said."""
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        column = pc.list_value_length(column)
    values, missing, wrong = numbers_of(column)
    fits = ~missing & ~wrong & (values >= 0) & (values <= LENGTH_MAX) & (values == np.floor(values))
    return np.where(fits, values, UNSET).astype(np.int64)


def _failures(column: pa.Array) -> Bools:
    """Rows whose error or status says that they failed; 2xx and 3xx are fine."""
    texts = [_name_text(value).lower() for value in values_of(column)]
    return np.array([text not in _NO_FAILURE and not (text.isdecimal() and int(text[:9]) < 400) for text in texts], np.bool_)
