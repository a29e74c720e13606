"""Times as people and programs write them become microseconds: numbers of any unit, and dates in many spellings.

A unit that nobody names is told by the year it gives. What is written without a zone counts as UTC. Knows no file and no
format. Read next: `convert.py`, which asks for one column of a batch at a time.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sageserve.base.errors import TraceError
from sageserve.base.records import Bools, Floats, Ints
from sageserve.base.units import DAY, HOUR, MINUTE, SECOND, Micros
from sageserve.data.traces.columns.fields import Clock
from sageserve.data.traces.columns.numbers import Numbers, is_number_text, numbers_of

TIME_MAX: Final = 2**62  # microseconds; leaves room to add a duration to any time
YEAR_2000: Final[Micros] = 946_684_800 * SECOND
YEAR_2100: Final[Micros] = 4_102_444_800 * SECOND
_SPAN_MAX: Final[Micros] = 20 * 366 * DAY  # numbers that would be dates of a longer time count something else
_EXCEL_ZERO: Final[Micros] = -25_569 * DAY  # 30 December 1899, day 0 of spreadsheets
_MICROS: Final[Mapping[Clock, float]] = {"us": 1, "ms": 1_000, "s": SECOND, "ns": 1e-3, "days": DAY}
_EPOCHS: Final[tuple[Clock, ...]] = ("s", "ms", "us", "ns")
_UNIT_WORDS: Final[Mapping[Clock, str]] = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_SAMPLE: Final = 10_000  # numbers of the first batch that decide their unit
_LOOKED_AT: Final = 200  # values of a column that decide how it is written
_NAMES: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS: Final = {name: number for number, name in enumerate(_NAMES, start=1)}

_TIME: Final = r"(?P<h>[0-9]{1,2}):(?P<mi>[0-9]{2})(?::(?P<s>[0-9]{2})(?:[.,](?P<f>[0-9]+))?)?(?:\s*(?P<ap>[AaPp])\.?[Mm]\.?)?"
_ZONE: Final = r"(?:\s*(?P<z>Z|z|(?:UTC|GMT)?[+-][0-9]{1,2}(?::?[0-9]{2})?|UTC|GMT))?(?:\s*\([^)]*\))?"
_DAY_NAME: Final = r"(?:[A-Za-z]{3,9},?\s+)?"
_MONTH: Final = r"(?P<mon>[A-Za-z]{3})[a-z]*\.?"
SPELLINGS: Final[tuple[str, ...]] = (
    rf"^\s*(?P<y>[0-9]{{4}})[-/.](?P<mo>[0-9]{{1,2}})[-/.](?P<d>[0-9]{{1,2}})(?:[Tt\s,]+{_TIME}{_ZONE})?\s*$",
    rf"^\s*(?P<a>[0-9]{{1,2}})(?P<sep>[-/.])(?P<b>[0-9]{{1,2}})[-/.](?P<y>[0-9]{{4}}|[0-9]{{2}})(?:[T\s,]+{_TIME}{_ZONE})?\s*$",
    rf"^\s*{_DAY_NAME}(?P<d>[0-9]{{1,2}})[-/\s]{_MONTH}[-/\s,]+(?P<y>[0-9]{{4}})(?:[T\s,:]+{_TIME}{_ZONE})?\s*$",
    rf"^\s*{_DAY_NAME}{_MONTH}\s+(?P<d>[0-9]{{1,2}}),?\s+(?P<y>[0-9]{{4}})(?:[\s,]+{_TIME}{_ZONE})?\s*$",
    rf"^\s*{_DAY_NAME}{_MONTH}\s+(?P<d>[0-9]{{1,2}})\s+{_TIME}{_ZONE}\s+(?P<y>[0-9]{{4}})\s*$",
    r"^\s*(?:(?P<days>[0-9]+) days?,?\s+)?(?P<h>[0-9]{1,4}):(?P<mi>[0-9]{2})(?::(?P<s>[0-9]{2})(?:[.,](?P<f>[0-9]+))?)?\s*$",
)
"""Dates as Python, Postgres, BigQuery, Polars and ISO 8601 write them; as Excel does; as e-mail and web servers; as JavaScript's
`Date` and `toLocaleString`; as C's `ctime`; and times of day or durations without a date."""


@dataclass(frozen=True, slots=True)
class ReadTimes:
    """Times of a batch.

    Args:
        micros: int64[n]; since 1970 where `dated` of the reader; 0 where there is none.
        missing: bool[n], nothing is written.
        wrong: bool[n], something is written that is no time.
        beyond: bool[n], a number too large for any date.
    """

    micros: Ints
    missing: Bools
    wrong: Bools
    beyond: Bools


@dataclass(slots=True)
class TimeReader:
    """Reads one column of times, batch after batch; the first batch decides how it is written.

    Args:
        clock: as the user or the format says.
        asked: the user says it, so it is not doubted.
    """

    clock: Clock
    asked: bool = False
    dated: bool = False
    of_day: bool = False
    assumed: bool = False
    in_seconds: bool = False  # though the format counts milliseconds
    notes: list[str] = field(default_factory=list)
    _unit: Clock | None = None
    _days_first: bool | None = None

    def read(self, column: pa.Array) -> ReadTimes:
        """The times of a column.

        Raises:
            TraceError: days and months cannot be told apart, or the unit that the user names gives impossible years.
        """
        kind = column.type
        if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            self.dated = True
            return _plain(pc.cast(column, pa.timestamp("us", getattr(kind, "tz", None)), safe=False).cast(pa.int64()))
        if pa.types.is_time(kind) or pa.types.is_duration(kind):
            self.of_day = pa.types.is_time(kind)
            wide = pa.time64("us") if pa.types.is_time(kind) else pa.duration("us")
            return _plain(pc.cast(column, wide, safe=False).cast(pa.int64()))
        if pa.types.is_string(kind) and self._unit is None and not self._looks_like_numbers(column):
            return self._spelled(column)
        return self._counted(*numbers_of(column))

    def _looks_like_numbers(self, column: pa.Array) -> bool:
        if self.dated or self.of_day:
            return False
        present = column.drop_null()[:_LOOKED_AT]
        numbers = is_number_text(present)
        return 2 * int(numbers.sum()) >= len(present)

    def _counted(self, values: Numbers, missing: Bools, wrong: Bools) -> ReadTimes:
        if self._unit is None:
            self._unit = self._choose_unit(values[~(missing | wrong)].astype(np.float64), whole=values.dtype == np.int64)
        unit = _MICROS[self._unit]
        beyond = np.abs(values) >= TIME_MAX / unit
        safe: Numbers = np.where(wrong | beyond, 0, values) if (wrong | beyond).any() else values
        if safe.dtype == np.int64:  # a float would lose the last digits of nanoseconds
            whole: Ints = safe.astype(np.int64, copy=False)
            micros = whole // 1000 if self._unit == "ns" else whole if unit == 1 else whole * int(unit)
        else:
            micros = np.round(safe * unit).astype(np.int64)
        if self._unit == "days":
            micros = np.where(missing, 0, micros + _EXCEL_ZERO)
        return ReadTimes(micros, missing, wrong, beyond & ~wrong)

    def _choose_unit(self, values: Floats, *, whole: bool) -> Clock:
        """The unit of a column of numbers, and whether they are dates."""
        values = values[:: max(1, len(values) // _SAMPLE)]
        middle = float(np.median(np.abs(values))) if len(values) else 0.0
        likely = next((unit for unit in _EPOCHS if _are_dates(values * _MICROS[unit])), None)
        if self.clock == "days":
            self.dated = True
            return "days"
        if self.clock in {"auto", "mdy", "dmy"}:
            self.dated = likely is not None
            self.assumed = likely is None
            return likely or "s"
        at = middle * _MICROS[self.clock]
        self.dated = at >= YEAR_2000
        if likely is None or likely == self.clock:
            return "s" if not whole and self._fractions_of_whole(values) else self.clock
        if at < YEAR_2100 and self.dated:
            return self.clock
        words, better = _UNIT_WORDS[self.clock], _UNIT_WORDS[likely]
        if self.asked and at >= YEAR_2100:
            raise TraceError(
                f"its times are no {words}: they would lie in the year {1970 + int(at / DAY / 365.2425):,}",
                hint=f"as {better} they are dates of this century: --column arrival_{likely}=NAME, or timestamp=NAME",
            )
        if self.asked:
            return self.clock
        self.dated = True
        self.notes.append(f"times are read as {better} since 1970: as the {words} of this format they would be no dates")
        return likely

    def _fractions_of_whole(self, values: Floats) -> bool:
        """Whether a format of whole milliseconds holds fractions, which are seconds then."""
        if self.asked or self.clock != "ms" or self.dated:
            return False
        if bool((values == np.floor(values)).all()):
            return False
        self.notes.append(
            "times have fractions and are read as seconds, though this format counts whole milliseconds; "
            "--column arrival_ms=NAME reads them as milliseconds"
        )
        self.in_seconds = True
        return True

    def _spelled(self, column: pa.Array) -> ReadTimes:
        missing: Bools = column.is_null().to_numpy(zero_copy_only=False)
        fast = None if self.of_day else _as_iso(column)
        if fast is not None:
            self.dated = True
            return ReadTimes(fast, missing, np.zeros(len(column), np.bool_), np.zeros(len(column), np.bool_))
        text = pc.replace_substring_regex(column, "[\u00a0\u202f]", " ")
        micros = np.zeros(len(column), dtype=np.int64)
        left = ~missing
        for number, spelling in enumerate(SPELLINGS):
            if number == len(SPELLINGS) - 1 and self.dated:
                break  # a time of day among dates has no date
            rows = np.flatnonzero(left)
            if not len(rows):
                break
            fits, values = self._spelled_so(text.take(pa.array(rows)), spelling)
            micros[rows[fits]] = values[fits]
            left[rows[fits]] = False
            if fits.any():
                self.of_day = number == len(SPELLINGS) - 1
                self.dated = not self.of_day
        return ReadTimes(micros, missing, left, np.zeros(len(column), np.bool_))

    def _spelled_so(self, text: pa.Array, spelling: str) -> tuple[Bools, Ints]:
        """Which texts are spelled so and are real instants, and what they are."""
        found = pc.extract_regex(text, spelling)
        fits: Bools = found.is_valid().to_numpy(zero_copy_only=False)
        if not fits.any():
            return fits, np.zeros(len(text), np.int64)
        groups = {name: found.field(place) for place, name in enumerate(f.name for f in found.type)}
        hours = _part(groups, "h")
        if "ap" in groups:
            half = _coded(groups["ap"], {"a": 0, "p": 12}, -1)
            hours = np.where(half >= 0, hours % 12 + half, hours)
        clock = hours * HOUR + _part(groups, "mi") * MINUTE + _part(groups, "s") * SECOND + _fraction(groups)
        fits &= (_part(groups, "mi") < 60) & (_part(groups, "s") <= 60)
        if "days" in groups:
            return fits, clock + _part(groups, "days") * DAY
        fits &= hours < 24
        if "a" in groups:
            month, day = self._ordered(_part(groups, "a"), _part(groups, "b"), fits, _coded(groups["sep"], {".": 1}, 0))
        else:
            month = _part(groups, "mo") if "mo" in groups else _coded(groups["mon"], _MONTHS, 0)
            day = _part(groups, "d")
        year = _part(groups, "y")
        year = np.where(year < 100, year + 2000, year)
        days, real = _civil_days(year, month, day)
        return fits & real, days * DAY + clock - _offsets(groups)

    def _ordered(self, a: Ints, b: Ints, fits: Bools, dotted: Ints) -> tuple[Ints, Ints]:
        """Month and day of dates such as 11/16/2023, in the order that the column itself shows.

        Raises:
            TraceError: nothing shows it.
        """
        if self._days_first is None:
            if self.clock in {"mdy", "dmy"}:
                self._days_first = self.clock == "dmy"
            elif bool((a[fits] > 12).any()) or bool(dotted[fits].all()):
                self._days_first = True
            elif bool((b[fits] > 12).any()):
                self._days_first = False
            else:
                shown = f"{int(a[fits][0])}/{int(b[fits][0])}"
                raise TraceError(
                    f"its dates can be read in two ways: {shown} is in month {int(a[fits][0])} or in month {int(b[fits][0])}",
                    hint="say which: --column timestamp_mdy=NAME (month first) or --column timestamp_dmy=NAME (day first)",
                )
        return (b, a) if self._days_first else (a, b)


def _are_dates(micros: Floats) -> bool:
    """Whether most times are dates of this century, and near enough to each other for one trace."""
    dates = micros[(micros >= YEAR_2000) & (micros < YEAR_2100)]
    return len(dates) > 0 and 2 * len(dates) >= len(micros) and float(dates.max() - dates.min()) < _SPAN_MAX


def _plain(column: pa.Array) -> ReadTimes:
    missing: Bools = column.is_null().to_numpy(zero_copy_only=False)
    none = np.zeros(len(column), np.bool_)
    return ReadTimes(column.fill_null(0).to_numpy(zero_copy_only=False), missing, none, none)


def _as_iso(column: pa.Array) -> Ints | None:
    """Times that arrow reads by itself, all of them in one form; None where it cannot."""
    first = column.drop_null()[:_LOOKED_AT]
    zoned = bool(pc.any(pc.match_substring_regex(first, r"(Z|[+-][0-9]{2}(:?[0-9]{2})?)$")).as_py())
    if not bool(pc.all(pc.match_substring_regex(first, r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}")).as_py()):
        return None
    try:
        nanos = pc.cast(column, pa.timestamp("ns", "UTC" if zoned else None)).cast(pa.int64())
    except pa.ArrowInvalid:
        return None
    found: Ints = nanos.fill_null(0).to_numpy(zero_copy_only=False) // 1000
    return found


def _coded(column: pa.Array, table: Mapping[str, int], otherwise: int) -> Ints:
    """int64[n]: the numbers that texts stand for, whatever their case."""
    coded = pc.utf8_lower(pc.fill_null(column, "")).dictionary_encode()
    numbers = np.array([table.get(text, otherwise) for text in coded.dictionary.to_pylist()], dtype=np.int64)
    found: Ints = numbers[coded.indices.to_numpy(zero_copy_only=False)]
    return found


def _part(groups: Mapping[str, pa.Array], name: str) -> Ints:
    """int64[n] of a group; 0 where it did not take part."""
    column = groups[name]
    digits = pc.if_else(pc.equal(pc.fill_null(column, ""), ""), pa.scalar("0"), column)
    found: Ints = pc.cast(digits, pa.int64()).to_numpy(zero_copy_only=False)
    return found


def _fraction(groups: Mapping[str, pa.Array]) -> Ints:
    """Microseconds of the digits after the point; further ones are cut."""
    digits = pc.utf8_rpad(pc.utf8_slice_codeunits(pc.fill_null(groups["f"], ""), 0, 6), 6, "0")
    found: Ints = pc.cast(digits, pa.int64()).to_numpy(zero_copy_only=False)
    return found


def _offsets(groups: Mapping[str, pa.Array]) -> Ints:
    """Microseconds that local time is ahead of UTC."""
    coded = pc.fill_null(groups["z"], "").dictionary_encode()
    table = np.array([_offset(text) for text in coded.dictionary.to_pylist()], dtype=np.int64)
    found: Ints = table[coded.indices.to_numpy(zero_copy_only=False)]
    return found


def _offset(zone: str) -> Micros:
    text = zone.removeprefix("UTC").removeprefix("GMT")
    if text[:1] not in {"+", "-"}:
        return 0
    digits = text[1:].replace(":", "")
    hours, minutes = (digits[:-2], digits[-2:]) if len(digits) > 2 else (digits, "0")
    offset = int(hours) * HOUR + int(minutes) * MINUTE
    return -offset if text[0] == "-" else offset


def _civil_days(year: Ints, month: Ints, day: Ints) -> tuple[Ints, Bools]:
    """Days since 1970 of calendar dates, and which of these exist."""
    real = (month >= 1) & (month <= 12) & (day >= 1) & (year >= 1) & (year <= 9999)
    months = np.where(real, (year - 1970) * 12 + month - 1, 0).astype("datetime64[M]")
    days = months.astype("datetime64[D]").astype(np.int64) + day - 1
    length = (months + 1).astype("datetime64[D]").astype(np.int64) - months.astype("datetime64[D]").astype(np.int64)
    return days, real & (day <= length)
