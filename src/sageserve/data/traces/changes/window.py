"""Which part of a trace is played: cut out by `--from` and `--until`, and refused where it is mostly silence.

A slice of a longer trace and a single row of 1970 look alike here: one silence fills most of the window, and days of an idle
fleet would be simulated and paid for. Knows whole traces, no files. Read next: `data/traces/requests.py`.
"""

from dataclasses import replace
from typing import Final

import numpy as np
import pyarrow as pa

from sageserve.base.errors import TraceError
from sageserve.base.records import UNSET, Demand, Ints, Trace
from sageserve.base.units import HOUR, MINUTE, SECOND, Micros, duration_us, show_duration
from sageserve.data.traces.changes.transform import demand_of
from sageserve.data.traces.columns.times import TimeReader
from sageserve.data.traces.options import TraceOptions

FIRST: Final = "first"
KEPT: Final = "without an arrival are kept"
"""How the note on long silences ends."""
SILENCE: Final[Micros] = 6 * HOUR  # shorter ones are never refused
EXCEL_DAYS: Final = range(36_526, 54_789)
"""Days since 1900 of the years 2000 to 2049, as spreadsheets keep dates."""
_EXCEL: Final = "are these a spreadsheet's dates, days since 1900? Save the column as text, such as 2026-06-13 10:00:00"
_UNIT: Final = "is the unit wrong? Name it, for example --column arrival_ms=NAME"
_MOSTLY: Final = 0.5  # share of the window that one silence may fill


def cut(trace: Trace, begin: str | None, until: str | None) -> tuple[Trace, Demand | None]:
    """The part of a trace between two times, counted from its first; and the demand of what lies before, as history.

    Args:
        trace: all of it.
        begin: `first` (arrival), a duration from the start, or a date; None: the start.
        until: a duration from the start or a date; None: the end.

    Raises:
        TraceError: a time that is none, or between them nothing arrives.
    """
    if begin is None and until is None:
        return trace, None
    low = 0 if begin is None else _moment("--from", begin, trace)
    high = trace.window if until is None else min(_moment("--until", until, trace), trace.window)
    rows = np.flatnonzero((trace.arrival >= low) & (trace.arrival < high))
    if not len(rows):
        first, last = (show_duration(int(trace.arrival[row])) for row in (0, -1))
        raise TraceError(
            f"nothing arrives between --from {begin or '0s'} and --until {until or 'the end'}",
            hint=f"the trace is {show_duration(trace.window)} long; its first request arrives at {first}, its last at {last}",
        )
    some = trace.take(rows)
    deadline = None if some.deadline is None else np.where(some.deadline == UNSET, UNSET, some.deadline - low)
    note = f"cut from {show_duration(low)} to {show_duration(high)}: {len(rows):,} of {len(trace):,} requests"
    part = replace(
        some,
        arrival=some.arrival - low,
        deadline=deadline,
        window=high - low,
        start=None if trace.start is None else trace.start + low,
        notes=(*trace.notes, note),
    )
    return part, _before(trace, low)


def _before(trace: Trace, low: Micros) -> Demand | None:
    """The demand of the whole minutes before an instant, counted backwards from it."""
    minutes = low // MINUTE
    first = low - minutes * MINUTE
    rows = np.flatnonzero((trace.arrival >= first) & (trace.arrival < low))
    if not len(rows):
        return None
    some = trace.take(rows)
    earlier = demand_of(replace(some, arrival=some.arrival - first, window=minutes * MINUTE), MINUTE)
    return replace(earlier, start=-minutes * MINUTE)


def known_before(trace: Trace, history: Trace, options: TraceOptions) -> tuple[Trace, Demand | None]:
    """A trace with a note, and the demand of what came before it.

    With dates on both, what of the history lies before the trace; without, the history ends where the trace begins.

    Args:
        trace: what is played.
        history: what came before, with the same names.
        options: for how files are laid, and how long the trace is played.

    Raises:
        TraceError: nothing of the history lies before the trace, or minutes of it would have another length.
    """
    if options.time_scale != 1.0:
        raise TraceError(
            "--history tells minutes as they were, and --time-scale changes their length", hint="leave one of them out"
        )
    dated = trace.start is not None and history.start is not None and not options.end_to_end
    length = trace.start - history.start if dated and trace.start is not None and history.start is not None else history.window
    before = None if length < MINUTE else _before(history, length)
    if before is None:
        raise TraceError(
            "nothing of --history lies before the trace", hint="name requests that came before it, or lay both --end-to-end"
        )
    silent = length - history.window
    told = f"; {show_duration(silent // MINUTE * MINUTE)} between them count as silence" if silent >= MINUTE else ""
    note = f"forecasters know the {show_duration(length // MINUTE * MINUTE)} before it from --history{told}"
    return replace(trace, notes=(*trace.notes, note)), before


def _moment(option: str, text: str, trace: Trace) -> Micros:
    """Microseconds from the start of a trace."""
    if text == FIRST and option == "--from":
        return int(trace.arrival[0])
    try:
        return duration_us(0 if text.strip() == "0" else text)
    except ValueError:
        pass
    read = TimeReader("auto").read(pa.array([text]))
    if read.wrong[0] or read.missing[0] or read.beyond[0]:
        first = f", or `{option} first`" if option == "--from" else ""
        raise TraceError(f"{option} {text} is no time", hint=f"write a duration from the start such as 6h, a date{first}")
    if trace.start is None:
        raise TraceError(f"{option} {text} is a date, and the trace has none", hint=f"for example {option} 6h")
    return max(0, int(read.micros[0]) - trace.start)


def check_filled(trace: Trace, options: TraceOptions) -> Trace:
    """The trace, if no silence fills most of its window; without the few requests beyond such a silence, where that is asked.

    Raises:
        TraceError: a silence does, and nothing is said about it.
    """
    dropped = 0
    while not options.keep_gaps and (silence := _silence(trace)) is not None:
        after, length = silence
        if not options.drop_outliers or after == 0:
            raise _mostly_empty(trace, after, length)
        many = after * 2 >= len(trace)
        rows = np.arange(after) if many else np.arange(after, len(trace))
        dropped += len(trace) - len(rows)
        trace = _narrowed(trace, rows)
    if not dropped:
        return trace
    note = f"{dropped:,} requests beyond a silence that fills most of the window are left out (--drop-outliers)"
    return replace(trace, notes=(*(said for said in trace.notes if not said.endswith(KEPT)), note))


def _silence(trace: Trace) -> tuple[int, Micros] | None:
    """The longest silence, if it is long and most of the window: how many requests come before it, and its length."""
    waits = np.diff(trace.arrival, prepend=0)
    after = int(waits.argmax())
    length = int(waits[after])
    return (after, length) if length >= SILENCE and length > _MOSTLY * trace.window else None


def _narrowed(trace: Trace, rows: Ints) -> Trace:
    """These requests, the window from the first minute of them to the last."""
    some = trace.take(rows)
    low = 0 if rows[0] == 0 else int(some.arrival[0])
    deadline = None if some.deadline is None else np.where(some.deadline == UNSET, UNSET, some.deadline - low)
    arrival = some.arrival - low
    return replace(
        some,
        arrival=arrival,
        deadline=deadline,
        window=(int(arrival[-1]) // MINUTE + 1) * MINUTE,
        start=None if trace.start is None else trace.start + low,
    )


def _mostly_empty(trace: Trace, after: int, length: Micros) -> TraceError:
    share = length / trace.window
    window, silence = _rough(trace.window), _rough(length)
    if after == 0:
        of_days = trace.start is None and length // SECOND in EXCEL_DAYS
        return TraceError(
            f"the first request arrives {silence} after the start of a window of {window}: {share:.1%} of it is empty",
            hint="--from first begins there (a slice of a longer trace); --keep-gaps plays the silence too\n"
            f"{_EXCEL if of_days else _UNIT}",
        )
    before, rest = f"{after:,} request{'s' if after > 1 else ''}", len(trace) - after
    dated = f" ({_date(trace, after - 1)} to {_date(trace, after)})" if trace.start is not None else ""
    return TraceError(
        f"nothing arrives for {silence}{dated}, {share:.1%} of a window of {window}: {before} before, {rest:,} after",
        hint=f"--drop-outliers leaves out the {'later' if after >= rest else 'earlier'} {min(after, rest):,}; --from and --until "
        "cut out a part; --end-to-end lays dated files one after the other; --keep-gaps plays the silence too",
    )


def _rough(length: Micros) -> str:
    return show_duration(length // MINUTE * MINUTE if length >= MINUTE else length // SECOND * SECOND)


def _date(trace: Trace, row: int) -> str:
    assert trace.start is not None
    return str(np.datetime64((trace.start + int(trace.arrival[row])) // SECOND, "s")).replace("T", " ")
