"""Columns of text or numbers become times, lengths and names; what cannot is marked with a reason.

Works on whole arrow columns; a slower, row-aware path is taken only for a batch that holds something broken.
Reads no file (`sources.py`) and knows no scenario (`naming.py`). Read next: `read.py`, which joins them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sageserve.base.records import UNSET, Bools, Ints
from sageserve.base.units import SECOND
from sageserve.data.traces.formats import NAMED, Clock, Field, FileColumns
from sageserve.data.traces.sources import RowBatch

Codes: TypeAlias = NDArray[np.int32]
Numbers: TypeAlias = NDArray[np.int64] | NDArray[np.float64]

LENGTH_MAX: Final = 2**31 - 1  # lengths are int32 columns
_TIME_MAX: Final = 2**62  # microseconds; leaves room to add a duration to any time
_MICROS: Final[Mapping[Clock, int]] = {"us": 1, "ms": 1_000, "s": SECOND}
_NUMBER: Final = r"^\s*[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?\s*$"
_INSTANT: Final = (
    r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[ T]([01][0-9]|2[0-3]):[0-5][0-9]"
    r"(:[0-5][0-9](\.[0-9]{1,9})?)?"
)
_ZONE: Final = r"(Z|[+-][0-9]{2}(:?[0-9]{2})?)$"

FAILED: Final = "failed request in the source (no output tokens)"
REASONS: Final = (
    "",
    "time is missing",
    "time is not a number or an instant",
    "time is negative",
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
    FAILED,
    "blank line",
)
"""Why a row cannot be a request; a row has one reason, the first that applies."""

BLANK: Final = REASONS.index("blank line")


@dataclass(frozen=True, slots=True)
class Piece:
    """The requests of one batch.

    Args:
        time: int64[n], microseconds; since 1970 when the file has a wall clock.
        prompt: int32[n].
        output: int32[n].
        codes: int32[n] by named field that the file has, codes into the converter's `names`.
        deadline: int64[n], microseconds after arrival (absolute in our own files), UNSET for none.
        cached: int32[n], fewer than `prompt`, UNSET for those that do not say.
        why: int8[rows], one per row of the batch: 0 for those that are in the columns, else a row of REASONS.
    """

    time: Ints
    prompt: NDArray[np.int32]
    output: NDArray[np.int32]
    codes: Mapping[Field, Codes]
    deadline: Ints | None
    cached: NDArray[np.int32] | None
    why: NDArray[np.int8]


class Converter:
    """Converts the batches of one file; remembers the names it met and the clock the file turned out to have."""

    def __init__(self, layout: FileColumns) -> None:
        self._layout = layout
        self._clock: Clock | None = None if layout.clock == "auto" else layout.clock
        self.names: dict[Field, dict[str, int]] = {part: {} for part in NAMED if part in layout.columns}
        self.wall_clock = False

    def convert(self, batch: RowBatch) -> Piece:
        """The requests of a batch, and why its other rows are none."""
        why = np.zeros(len(batch), dtype=np.int8)
        if all(column.null_count for column in batch.columns.values()):
            _mark(why, _all_null(batch), "blank line")
        time = self._times(batch.columns["time"], why)
        prompt = _lengths(batch.columns["prompt"], "prompt", why)
        output = self._outputs(batch.columns["output"], why)
        codes = {part: self._codes(part, batch.columns[part], why) for part in self.names}
        deadline = self._deadlines(batch, why)
        cached = _cached(batch.columns["cached"], prompt, why) if "cached" in batch.columns else None
        if not why.any():
            return Piece(time, prompt, output, codes, deadline, cached, why)
        good = why == 0
        return Piece(
            time[good],
            prompt[good],
            output[good],
            {part: column[good] for part, column in codes.items()},
            None if deadline is None else deadline[good],
            None if cached is None else cached[good],
            why,
        )

    def _times(self, column: pa.Array, why: NDArray[np.int8]) -> Ints:
        if pa.types.is_timestamp(column.type):
            self.wall_clock = True
            column = pc.cast(column, pa.timestamp("us", column.type.tz), safe=False).cast(pa.int64())
            return _times_of(*_numbers(column), 1, why)
        if self._clock is None and self._is_instant(column):
            self.wall_clock = True
            return _instants(column, why)
        if self._clock is None:
            self._clock = "s"
        return _times_of(*_numbers(column), _MICROS[self._clock], why)

    def _is_instant(self, column: pa.Array) -> bool:
        if self.wall_clock:
            return True
        if not pa.types.is_string(column.type):
            return False
        present = column.drop_null()[:100]
        return bool(pc.any(pc.match_substring_regex(present, _INSTANT)).as_py())

    def _outputs(self, column: pa.Array, why: NDArray[np.int8]) -> NDArray[np.int32]:
        if not self._layout.format.failures:
            return _lengths(column, "output", why)
        values, missing, wrong = _numbers(column)
        _mark(why, ~missing & ~wrong & (values == 0), FAILED)
        return _lengths(column, "output", why)

    def _codes(self, part: Field, column: pa.Array, why: NDArray[np.int8]) -> Codes:
        known = self.names[part]
        rename = self._layout.format.renames.get(part)
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        codes = []
        for value in column.dictionary.to_pylist():
            text = _name_text(value)
            text = rename(text) if rename is not None else text
            codes.append(known.setdefault(text, len(known)) if text else -1)
        table = np.array([*codes, -1], dtype=np.int32)
        indices = column.indices.cast(pa.int64()).fill_null(len(codes)).to_numpy(zero_copy_only=False)
        found: Codes = table[indices]
        _mark(why, found < 0, f"{part} is missing")
        return found

    def _deadlines(self, batch: RowBatch, why: NDArray[np.int8]) -> Ints | None:
        if "deadline" not in batch.columns:
            return None
        unit = _MICROS["us" if self._layout.clock == "us" else "s"]
        values, missing, wrong = _numbers(batch.columns["deadline"])
        with np.errstate(invalid="ignore", over="ignore"):
            wrong = wrong | (~missing & ~((values > 0) & (values < _TIME_MAX // unit)))
            found = np.where(missing | wrong, UNSET, np.round(values * unit)).astype(np.int64)
        _mark(why, wrong, "deadline is not a positive number")
        return found


def _name_text(value: object) -> str:
    text = value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value or "")
    return text.strip()


def _all_null(batch: RowBatch) -> Bools:
    empty = np.ones(len(batch), dtype=np.bool_)
    for column in batch.columns.values():
        empty &= column.is_null().to_numpy(zero_copy_only=False)
    return empty


def _mark(why: NDArray[np.int8], rows: Bools, reason: str) -> None:
    why[rows & (why == 0)] = REASONS.index(reason)


def _numbers(column: pa.Array) -> tuple[Numbers, Bools, Bools]:
    """Numbers of a column (int64 when all are whole and fit, else float64), the missing, and the unreadable."""
    missing: Bools = column.is_null().to_numpy(zero_copy_only=False)
    wrong: Bools = np.zeros(len(column), dtype=np.bool_)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        try:
            column = pc.cast(column, pa.int64())
        except pa.ArrowInvalid:
            fits = pc.fill_null(pc.match_substring_regex(column, _NUMBER), False)
            wrong = ~fits.to_numpy(zero_copy_only=False) & ~missing
            trimmed = pc.utf8_trim_whitespace(pc.if_else(fits, column, pa.scalar(None, pa.string())))
            column = pc.cast(pc.replace_substring_regex(trimmed, r"^\+", ""), pa.float64())
    if pa.types.is_integer(column.type):
        return column.cast(pa.int64(), safe=False).fill_null(0).to_numpy(zero_copy_only=False), missing, wrong
    if not pa.types.is_floating(column.type) and not pa.types.is_decimal(column.type):
        return np.zeros(len(column)), missing, ~missing
    values = column.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False)
    return np.nan_to_num(values, nan=0.0), missing | np.isnan(values), wrong | np.isinf(values)


def _times_of(values: Numbers, missing: Bools, wrong: Bools, unit: int, why: NDArray[np.int8]) -> Ints:
    limit = _TIME_MAX // unit
    wrong = wrong | (np.abs(values) >= limit)
    _mark(why, missing, "time is missing")
    _mark(why, wrong, "time is not a number or an instant")
    _mark(why, values < 0, "time is negative")
    values = np.where(wrong, 0, values) if wrong.any() else values
    scaled = values * unit
    return np.round(scaled).astype(np.int64, copy=False)


def _lengths(column: pa.Array, part: str, why: NDArray[np.int8]) -> NDArray[np.int32]:
    values, missing, wrong = _numbers(column)
    if values.dtype != np.int64:
        wrong = wrong | (values != np.floor(values))
    _mark(why, missing, f"{part} length is missing")
    _mark(why, wrong, f"{part} length is not a whole number")
    _mark(why, values < 1, f"{part} length is below 1")
    _mark(why, values > LENGTH_MAX, f"{part} length is above 2,147,483,647")
    return np.clip(values, 0, LENGTH_MAX).astype(np.int32)


def _cached(column: pa.Array, prompt: NDArray[np.int32], why: NDArray[np.int8]) -> NDArray[np.int32]:
    """Cached tokens; of a prompt that is cached whole the last token is computed all the same, as vLLM does."""
    values, missing, wrong = _numbers(column)
    wrong = wrong | (~missing & ((values < 0) | (values > prompt) | (values != np.floor(values))))
    _mark(why, wrong, "cached tokens are not a whole number from 0 to the prompt's length")
    return np.where(missing | wrong, UNSET, np.minimum(values, prompt.astype(np.int64) - 1)).astype(np.int32)


def _instants(column: pa.Array, why: NDArray[np.int8]) -> Ints:
    """Microseconds since 1970 of ISO 8601 instants; those without a zone count as UTC."""
    missing: Bools = column.is_null().to_numpy(zero_copy_only=False)
    _mark(why, missing, "time is missing")
    zoned = pc.any(pc.match_substring_regex(column[:100], _ZONE)).as_py()
    try:  # arrow is slow to fail, so the likely form is the only one tried on the whole column
        return _micros(pc.cast(column, pa.timestamp("ns", "UTC" if zoned else None)))
    except pa.ArrowInvalid:
        pass  # mixed forms, or broken ones: row by row below
    found = np.zeros(len(column), dtype=np.int64)
    wrong = ~missing
    for pattern, zone in ((_INSTANT + "$", None), (_INSTANT + _ZONE, "UTC")):
        fits = pc.fill_null(pc.match_substring_regex(column, pattern), False)
        rows = np.flatnonzero(fits.to_numpy(zero_copy_only=False))
        parsed, good = _instants_one_by_one(column.take(pa.array(rows)), zone)
        found[rows] = parsed
        wrong[rows] = ~good
    _mark(why, wrong, "time is not a number or an instant")
    return found


def _instants_one_by_one(column: pa.Array, zone: str | None) -> tuple[Ints, Bools]:
    """As `_instants` for texts of the right form, some of which may be no date (30 February, year 9999)."""
    kind = pa.timestamp("ns", zone)
    try:
        return _micros(pc.cast(column, kind)), np.ones(len(column), dtype=np.bool_)
    except pa.ArrowInvalid:
        if len(column) == 1:
            return np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.bool_)
    half = len(column) // 2
    left, right = _instants_one_by_one(column[:half], zone), _instants_one_by_one(column[half:], zone)
    return np.concatenate([left[0], right[0]]), np.concatenate([left[1], right[1]])


def _micros(column: pa.Array) -> Ints:
    nanos: Ints = column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    return nanos // 1000
