"""Reading request traces: any known file becomes a `Trace` that fits a scenario, and a report on the way there.

Joins `sources` (bytes to columns), `columns` (columns to numbers) and `naming` (names to codes). Loses nothing
silently: rows read = rows kept + rows counted as bad. Read next: `formats.py` for what can be read,
`transform.py` for what can be done with a trace, `archive.py` for our own files.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sageserve.base.config import Scenario
from sageserve.base.errors import TraceError
from sageserve.base.records import UNSET, Bools, Ints, Names, Trace
from sageserve.base.units import DAY, HOUR, MINUTE, Micros, show_duration
from sageserve.data.traces.archive import Header, parse_header
from sageserve.data.traces.columns import BLANK, REASONS, Codes, Converter, Piece
from sageserve.data.traces.formats import NAMED, Field, parse_columns
from sageserve.data.traces.naming import UNNAMED, NamedColumn, fit_names, parse_maps, rename
from sageserve.data.traces.sources import Progress, TraceFile, open_source
from sageserve.data.traces.transform import scale_time

GAP: Final[Micros] = 6 * HOUR  # a silence this long is worth a note; it never ends a trace
_EPOCH: Final[Micros] = 365 * DAY  # a first arrival later than this is a date, not a time since the start
_LINES_KEPT: Final = 1000  # line numbers remembered per reason


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read a file.

    Args:
        maps: FROM=TO, as `--map`.
        columns: OURS=THEIRS, as `--column`.
        time_scale: times are multiplied by it; 0.5 plays the trace twice as fast.
        strict: refuse a file with any bad row.
        shown: line numbers shown per kind of bad row.
        progress: told about bytes read.
    """

    maps: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    time_scale: float = 1.0
    strict: bool = False
    shown: int = 3
    progress: Progress | None = None


@dataclass(frozen=True, slots=True)
class BadRows:
    """Rows that are no requests, by reason; the first line numbers of them (row numbers in Parquet)."""

    reason: str
    count: int
    lines: tuple[int, ...]

    def text(self, shown: int) -> str:
        """One line for people: `12 rows: output length is below 1 (lines 3, 8, 9, …)`."""
        listed = ", ".join(f"{line:,}" for line in self.lines[:shown])
        more = ", …" if self.count > shown else ""
        rows, lines = ("row", "line") if self.count == 1 else ("rows", "lines")
        return f"{self.count:,} {rows}: {self.reason} ({lines} {listed}{more})"


@dataclass(frozen=True, slots=True)
class ReadReport:
    """What reading a file found; `rows == kept + bad_count` always holds.

    Args:
        source: the file.
        format: name of the format it was recognised as.
        rows: rows with anything in them.
        kept: rows that became requests.
        bad: the others, by reason.
        notes: what the user should know, in sentences; the same as the trace's own.
        shown: line numbers to show per reason.
    """

    source: Path
    format: str
    rows: int
    kept: int
    bad: tuple[BadRows, ...]
    notes: tuple[str, ...]
    shown: int = 3

    @property
    def bad_count(self) -> int:
        """Rows that did not become requests."""
        return sum(each.count for each in self.bad)

    def bad_lines(self) -> list[str]:
        """One line per kind of bad row, for people."""
        return [each.text(self.shown) for each in self.bad]


@dataclass(frozen=True, slots=True)
class _Rows:
    """A file's requests, sorted, with the names the file uses."""

    arrival: Ints
    prompt: NDArray[np.int32]
    output: NDArray[np.int32]
    named: Mapping[Field, NamedColumn]
    deadline: Ints | None
    cached: NDArray[np.int32] | None
    window: Micros


def read_trace(source: Path, scenario: Scenario, options: ReadOptions | None = None) -> tuple[Trace, ReadReport]:
    """Read a trace so that it fits a scenario: its names become the scenario's, what it lacks is filled.

    Args:
        source: a file of any known format, plain or compressed.
        scenario: whose models, regions and tiers count, and whose `workload.assign` fills missing columns.
        options: maps, columns, time scale, strictness.

    Raises:
        TraceError: the file cannot be read, holds no requests, or holds bad rows under `strict`.
        UnknownName: it names models, tiers or regions the scenario does not define.
    """
    options = options or ReadOptions()
    maps = parse_maps(options.maps)
    rows, report = _read(source, options)
    codes, names, notes = fit_names(rows.named, len(rows.arrival), scenario, maps)
    notes += context_notes(rows.prompt, rows.output, codes["model"], scenario)
    return _finish(rows, codes, names, (report, notes, options))


def read_as_is(source: Path, options: ReadOptions | None = None) -> tuple[Trace, ReadReport]:
    """Read a trace with the names it has; columns it lacks hold the single name `UNNAMED`.

    Raises:
        TraceError: as `read_trace`; also more than 256 names in one column.
    """
    options = options or ReadOptions()
    maps = parse_maps(options.maps)
    rows, report = _read(source, options)
    codes: dict[Field, NDArray[np.uint8]] = {}
    found: dict[Field, tuple[str, ...]] = {}
    for part in NAMED:
        empty = NamedColumn(np.zeros(len(rows.arrival), dtype=np.int32), (UNNAMED,))
        named = rename(part, rows.named.get(part, empty), maps)
        if len(named.names) > 256:  # codes are uint8
            raise TraceError(
                f"{source} names {len(named.names):,} different {part}s; 256 can be told apart",
                hint=f"join them with --map '{part}:*=NAME', or name another column: --column {part}=NAME",
            )
        codes[part], found[part] = named.codes.astype(np.uint8), named.names
    names = Names(found["model"], found["region"], found["tier"])
    return _finish(rows, codes, names, (report, [], options))


def context_notes(
    prompt: NDArray[np.int32], output: NDArray[np.int32], model: NDArray[np.uint8], scenario: Scenario
) -> list[str]:
    """A counted warning of requests longer than their model's context: they stay, the door refuses them."""
    context = np.array([each.context for each in scenario.models.values()], dtype=np.int64)[model]
    total = prompt.astype(np.int64) + output
    long = int((total > context).sum())
    if not long:
        return []
    share = f"{long:,} of {len(prompt):,} requests are longer than their model's context"
    return [f"{share} (longest prompt {int(prompt.max()):,} tokens): kept, and refused at the door"]


def _finish(
    rows: _Rows,
    codes: Mapping[Field, NDArray[np.uint8]],
    names: Names,
    extra: tuple[ReadReport, Sequence[str], ReadOptions],
) -> tuple[Trace, ReadReport]:
    report, more, options = extra
    notes = (*report.notes, *more)
    trace = Trace(
        arrival=rows.arrival,
        prompt=rows.prompt,
        output=rows.output,
        model=codes["model"],
        region=codes["region"],
        tier=codes["tier"],
        names=names,
        window=rows.window,
        deadline=rows.deadline,
        cached=rows.cached,
        notes=notes,
    )
    trace = scale_time(trace, options.time_scale).check()
    return trace, replace(report, notes=trace.notes)


def _read(source: Path, options: ReadOptions) -> tuple[_Rows, ReadReport]:
    opened = open_source(source, parse_columns(options.columns), options.progress)
    converter = Converter(opened.layout)
    pieces = []
    bad: dict[str, list[int]] = {}
    counts: Counter[str] = Counter()
    row = 0
    for batch in opened.batches:
        piece = converter.convert(batch)
        _count_bad(piece.why, row, bad, counts)
        row += len(piece.why)
        pieces.append(piece)
    report = _report(source, opened, (bad, counts), (row, options))
    if report.kept == 0:
        raise _nothing(report)
    if options.strict and report.bad:
        raise TraceError(
            f"{source} has {report.bad_count:,} bad rows of {report.rows:,}\n" + "\n".join(report.bad_lines()),
            hint="repair them, or read without --strict: they are then counted and left out",
        )
    header = parse_header(source, opened.metadata) if opened.metadata is not None else None
    rows, notes = _assemble(pieces, converter, header)
    return rows, replace(report, notes=(*report.notes, *notes))


def _count_bad(why: NDArray[np.int8], first: int, bad: dict[str, list[int]], counts: Counter[str]) -> None:
    if not why.any():
        return
    for code in np.unique(why[why > 0]):
        rows = np.flatnonzero(why == code)
        counts[REASONS[code]] += len(rows)
        bad.setdefault(REASONS[code], []).extend((rows[:_LINES_KEPT] + first).tolist())


def _report(
    source: Path,
    opened: TraceFile,
    found: tuple[Mapping[str, Sequence[int]], Counter[str]],
    extent: tuple[int, ReadOptions],
) -> ReadReport:
    (bad, counts), (rows, options) = found, extent
    blanks = counts.pop(REASONS[BLANK], 0)
    kinds = [
        BadRows(
            reason,
            count,
            tuple(opened.lines.of(np.array(bad[reason][:_LINES_KEPT], dtype=np.int64)).tolist()),
        )
        for reason, count in counts.items()
    ]
    kinds += [BadRows(reason, len(lines), tuple(lines[:_LINES_KEPT])) for reason, lines in opened.lines.reasons.items()]
    notes = list(opened.layout.format.notes)
    if blanks:
        notes.append(f"{blanks:,} blank lines were skipped")
    ordered = tuple(sorted(kinds, key=lambda each: (-each.count, each.reason)))
    wrong = sum(each.count for each in ordered)
    total = rows - blanks + len(opened.lines.skipped)
    if wrong:
        notes.append(f"{wrong:,} of {total:,} rows are left out: " + "; ".join(e.text(options.shown) for e in ordered))
    return ReadReport(source, opened.layout.format.name, total, total - wrong, ordered, tuple(notes), options.shown)


def _nothing(report: ReadReport) -> TraceError:
    if report.rows == 0:
        return TraceError(f"{report.source} has a header and no requests", hint="give a file with at least one request")
    return TraceError(
        f"{report.source} was read as {report.format}, and none of its {report.rows:,} rows is a request:\n"
        + "\n".join(report.bad_lines()),
        hint="name the columns yourself with --column, for example --column prompt_tokens=ContextTokens",
    )


def _assemble(pieces: Sequence[Piece], converter: Converter, header: Header | None) -> tuple[_Rows, list[str]]:
    arrival = np.concatenate([piece.time for piece in pieces])
    prompt = np.concatenate([piece.prompt for piece in pieces])
    output = np.concatenate([piece.output for piece in pieces])
    deadline = None
    if pieces[0].deadline is not None:
        deadline = np.concatenate([piece.deadline for piece in pieces if piece.deadline is not None])
    cached = None
    if pieces[0].cached is not None:
        cached = np.concatenate([piece.cached for piece in pieces if piece.cached is not None])
    codes = {part: np.concatenate([piece.codes[part] for piece in pieces]) for part in converter.names}
    notes = [] if header is None else list(header.notes)
    order, note = _order(arrival)
    if order is not None:
        arrival, prompt, output = arrival[order], prompt[order], output[order]
        deadline = None if deadline is None else deadline[order]
        cached = None if cached is None else cached[order]
        codes = {part: column[order] for part, column in codes.items()}
        notes.append(note)
    dated = header is None and (converter.wall_clock or int(arrival[0]) >= _EPOCH)
    start = int(arrival[0]) if dated else 0
    if start:
        arrival = arrival - start
        notes.append(f"time starts at the first arrival, {np.datetime64(start, 'us')} UTC")
    if deadline is not None and header is None:
        deadline = np.where(deadline == UNSET, UNSET, deadline + arrival)
    notes += _gap_notes(arrival)
    named = {part: _named(part, column, converter, header) for part, column in codes.items()}
    window = _window(arrival) if header is None else header.window
    return _Rows(arrival, prompt, output, named, deadline, cached, window), notes


def _named(part: Field, codes: Codes, converter: Converter, header: Header | None) -> NamedColumn:
    """The column with its names in the order they were met, or in the order our own file had them."""
    met = tuple(converter.names[part])
    if header is None:
        return NamedColumn(codes, met)
    names = header.names_of(part)
    table = np.array([names.index(name) if name in names else -1 for name in met], dtype=np.int32)
    if (table < 0).any():
        raise TraceError(f"the {part} column holds names that the file's own header does not list")
    return NamedColumn(table[codes], names)


def _order(arrival: Ints) -> tuple[Ints | None, str]:
    """How to sort the rows; None when they are sorted."""
    backwards: Bools = np.diff(arrival) < 0
    count = int(backwards.sum())
    if not count:
        return None, ""
    first = int(np.flatnonzero(backwards)[0]) + 2  # the second row of the pair, counted from 1
    note = f"the rows were not in order of time ({count:,} steps back, the first at request {first:,}): sorted"
    return np.argsort(arrival, kind="stable"), note


def _gap_notes(arrival: Ints) -> list[str]:
    if len(arrival) < 2:
        return []
    waits = np.diff(arrival)
    long = waits >= GAP
    if not long.any():
        return []
    at = int(waits.argmax())
    length, after = (show_duration(int(span) // MINUTE * MINUTE) for span in (waits[at], arrival[at]))
    count = f"{int(long.sum()):,} gaps of {show_duration(GAP)} or more without an arrival"
    return [f"{count}, the longest {length} after {after}: kept"]


def _window(arrival: Ints) -> Micros:
    """The whole minutes the arrivals span: bins of a minute are then full, and no rate is biased by a cut."""
    return (int(arrival[-1]) // MINUTE + 1) * MINUTE
