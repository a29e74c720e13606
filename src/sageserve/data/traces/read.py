"""Reading request traces: any known file becomes a `Trace` that fits a scenario, and a report on the way there.

Joins `readers` (bytes to columns), `columns` (columns to numbers), `assembly` (numbers to requests) and `naming` (names to
codes). Loses nothing silently: rows read = rows kept + rows counted as bad, and every column is used or listed.
Read next: `columns/formats.py` for what can be read, `requests.py` for what commands do with it.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sageserve.base.config import Scenario
from sageserve.base.errors import TraceError
from sageserve.base.records import COUNTS, LABELS, UNSET, Bools, Count, Ints, Label, Labels, Names, Trace
from sageserve.base.units import HOUR, MINUTE, Micros, show_duration
from sageserve.data.traces.archive import Header, parse_header
from sageserve.data.traces.assembly.arrivals import with_times
from sageserve.data.traces.assembly.buckets import expand
from sageserve.data.traces.assembly.prefixes import with_cached
from sageserve.data.traces.assembly.rows import NamedColumn, Rows, rows_of
from sageserve.data.traces.assembly.sessions import follow_on, with_sessions, with_whole_prompts
from sageserve.data.traces.columns.convert import LENGTH_MAX, Converter
from sageserve.data.traces.columns.fields import NAMED, Field, parse_columns
from sageserve.data.traces.context import context_notes
from sageserve.data.traces.naming import UNNAMED, fit_names, parse_maps, rename
from sageserve.data.traces.options import TraceOptions
from sageserve.data.traces.readers.batches import Progress, TraceFile
from sageserve.data.traces.readers.sources import open_source
from sageserve.data.traces.report import STARTS, BadCounter, ReadReport, carried_note

IMAGE_TOKENS_MAX: Final = 65_536  # more than any encoder makes of one image
GAP: Final[Micros] = 6 * HOUR  # a silence this long is worth a note; it never ends a trace
_BUSY: Final = 200.0  # requests per second of a file of milliseconds that are worth a question
_IDLE: Final = 300.0  # seconds between requests of a file whose unit nobody named that are worth one


def read_trace(
    source: Path, scenario: Scenario, options: TraceOptions | None = None, progress: Progress | None = None
) -> tuple[Trace, ReadReport]:
    """Read a trace so that it fits a scenario: its names become the scenario's, what it lacks is filled.

    Args:
        source: a file of any known format, plain or compressed.
        scenario: whose models, regions and tiers count, and whose `workload.assign` fills missing columns.
        options: what the user says of it; `begin`, `until`, `load` and `time_scale` are for `requests.py`.
        progress: told about bytes read.

    Raises:
        TraceError: the file cannot be read, or too little of it is requests.
        UnknownName: it names models, tiers or regions the scenario does not define.
    """
    options = options or TraceOptions()
    maps = parse_maps(options.maps)
    table, report = _read(source, options, scenario.seed if options.seed is None else options.seed, progress)
    codes, names, notes = fit_names(table.rows.named, len(table.rows), scenario, maps)
    notes += context_notes(table.rows.prompt, table.rows.output, codes["model"], scenario)
    return _finish(table, codes, names, replace(report, notes=(*report.notes, *notes)))


def read_as_is(source: Path, options: TraceOptions | None = None, progress: Progress | None = None) -> tuple[Trace, ReadReport]:
    """Read a trace with the names it has; columns it lacks hold the single name `UNNAMED`.

    Raises:
        TraceError: as `read_trace`; also more than 256 names in one column.
    """
    options = options or TraceOptions()
    maps = parse_maps(options.maps)
    table, report = _read(source, options, 1 if options.seed is None else options.seed, progress)
    codes: dict[Field, NDArray[np.uint8]] = {}
    found: dict[Field, tuple[str, ...]] = {}
    for part in NAMED:
        empty = NamedColumn(np.zeros(len(table.rows), dtype=np.int32), (UNNAMED,))
        named = rename(part, table.rows.named.get(part, empty), maps)
        if len(named.names) > 256:  # codes are uint8
            raise TraceError(
                f"{source} names {len(named.names):,} different {part}s; 256 can be told apart",
                hint=f"join them with --map '{part}:*=NAME', or name another column: --column {part}=NAME",
            )
        codes[part], found[part] = named.codes.astype(np.uint8), named.names
    return _finish(table, codes, Names(found["model"], found["region"], found["tier"]), report)


class _Table:
    """A file's requests, sorted, and what is known of them together."""

    def __init__(self, rows: Rows, window: Micros, start: Micros | None) -> None:
        self.rows = rows
        self.window = window
        self.start = start


def _finish(
    table: _Table, codes: Mapping[Field, NDArray[np.uint8]], names: Names, report: ReadReport
) -> tuple[Trace, ReadReport]:
    rows = table.rows
    assert rows.time is not None
    trace = Trace(
        arrival=rows.time,
        prompt=rows.prompt.astype(np.int32, copy=False),
        output=rows.output.astype(np.int32, copy=False),
        model=codes["model"],
        region=codes["region"],
        tier=codes["tier"],
        names=names,
        window=table.window,
        deadline=rows.numbers.get("deadline"),
        cached=None if "cached" not in rows.numbers else rows.numbers["cached"].astype(np.int32),
        notes=report.notes,
        start=table.start,
        labels=_labels(rows),
        counts=_counts(rows),
        delay=rows.numbers.get("delay"),
        blocks=rows.blocks,
    )
    return trace.check(), report


def _labels(rows: Rows) -> dict[Label, Labels]:
    return {label: Labels(rows.named[label].codes, rows.named[label].names) for label in LABELS if label in rows.named}


def _counts(rows: Rows) -> dict[Count, NDArray[np.int32]]:
    return {count: rows.numbers[count].astype(np.int32) for count in COUNTS if count in rows.numbers}


def _read(source: Path, options: TraceOptions, seed: int, progress: Progress | None) -> tuple[_Table, ReadReport]:
    opened = open_source(source, parse_columns(options.columns), progress)
    own = opened.metadata is not None
    converter = Converter(opened.layout, early=options.begin == "first")
    counter = BadCounter()
    pieces = []
    try:
        for batch in opened.batches:
            piece = converter.convert(batch.columns)
            counter.add(piece.why)
            pieces.append(piece)
    except TraceError as error:
        raise _at(source, error) from None
    report = counter.report(source, opened)
    report.refuse_too_many(options.max_dropped)
    header = parse_header(source, opened.metadata) if opened.metadata is not None else None
    block = opened.layout.format.block if header is None else header.block
    rows = rows_of(pieces, converter, block)
    try:
        rows, seen = _with_images(rows, options.image_tokens, header.notes if header is not None else ())
        rows, notes = (rows, []) if own else _complete(rows, options, seed, characters=converter.characters)
        notes = [*seen, *notes]
        table, more = _placed(rows, converter, opened, header)
    except TraceError as error:
        raise _at(source, error) from None
    carried = carried_note(_carried(table.rows, as_tokens=options.image_tokens is not None), len(table.rows))
    every = (*report.notes, *converter.times.notes, *notes, *more)
    return table, replace(report, notes=(*every, *(note for note in carried if note not in every)))


def _at(source: Path, error: TraceError) -> TraceError:
    """The error with the file's name before it, where it has none."""
    said = (
        error.message
        if str(source) in error.message
        else f"{source}{': ' if _is_sentence(error.message) else ' '}{error.message}"
    )
    return TraceError(said, hint=error.hint)


def _is_sentence(message: str) -> bool:
    return message.startswith(("--", "its "))


def _complete(rows: Rows, options: TraceOptions, seed: int, *, characters: bool) -> tuple[Rows, list[str]]:
    """Requests with lengths in tokens, a time and a conversation each."""
    notes = []
    if characters:
        rows, note = _tokens_of_text(rows, options.chars_per_token)
        notes.append(note)
    if "count" in rows.numbers:
        rows, more = expand(rows, options.expand, seed)
        notes += more
    rows, more = with_whole_prompts(with_sessions(rows), options.prompts)
    notes += more
    if int(max(rows.prompt.max(), rows.output.max())) > LENGTH_MAX:
        raise TraceError("has a length above 2,147,483,647 tokens", hint="name the right columns with --column")
    rows, more = with_times(rows, options, seed)
    notes += more
    rows, more = follow_on(rows)
    return rows, notes + more


def _tokens_of_text(rows: Rows, per_token: float | None) -> tuple[Rows, str]:
    """Prompts in tokens, from their length in characters.

    Raises:
        TraceError: nobody says how many characters a token has.
    """
    if per_token is None:
        raise TraceError(
            "has the text of its prompts and no count of their tokens, which depends on the model's tokenizer",
            hint="count them and name the column: --column prompt_tokens=NAME; or say how long a token is: --chars-per-token 4",
        )
    if not 0 < per_token < 1000:
        raise TraceError(f"--chars-per-token {per_token:g} is no length of a token", hint="for English text about 4")
    tokens = np.maximum(np.ceil(rows.prompt / per_token), 1).astype(np.int64)
    return replace(rows, prompt=tokens), f"prompts are counted as one token per {per_token:g} characters (--chars-per-token)"


def _with_images(rows: Rows, each: int | None, told: tuple[str, ...]) -> tuple[Rows, list[str]]:
    """Prompts with the tokens of their images, if somebody says how many they are and that prompts do not count them.

    Args:
        rows: of a file.
        each: tokens of an image; None: prompts stay as they are.
        told: notes of a file of ours, which may hold them already.

    Raises:
        TraceError: there are no images, none has so many tokens, or they are counted already.
    """
    if each is None:
        return rows, []
    if any("(--image-tokens)" in note for note in told):
        raise TraceError("has prompts to which --image-tokens was added when it was written", hint="leave the option out")
    if not 0 < each <= IMAGE_TOKENS_MAX:
        raise TraceError(
            f"--image-tokens {each:,} is no number of tokens of an image", hint="LLaVA-1.5 has 576, others up to 16,384"
        )
    if "images" not in rows.numbers:
        raise TraceError(
            "says of no request how many images its prompt has, so --image-tokens has nothing to add",
            hint="name the column: --column images=NAME, or leave the option out",
        )
    images = np.maximum(rows.numbers["images"], 0)  # where it is not said there are none
    of = f"{int(images.sum()):,} images in {int((images > 0).sum()):,} requests"
    note = f"{each:,} tokens are added to prompts for each of {of} (--image-tokens)"
    return replace(rows, prompt=rows.prompt + images * each), [note]


def _placed(rows: Rows, converter: Converter, opened: TraceFile, header: Header | None) -> tuple[_Table, list[str]]:
    """The requests in order of time, counted from the start of the trace."""
    assert rows.time is not None
    notes: list[str] = []
    times = converter.times
    if header is not None:
        notes += header.notes
    order, note = _order(rows.time)
    if times.of_day and order is not None and int(np.diff(rows.time).min()) < -12 * HOUR:
        raise TraceError(
            "its times of day go back past midnight and have no dates", hint="write dates, such as 2025-06-01 23:59:00"
        )
    if order is not None:
        rows = rows.take(order)
        notes.append(note)
    assert rows.time is not None
    arrival = rows.time
    dated = header is None and times.dated
    first = int(arrival[0]) if rows.span is None else rows.span[0]
    start = first if dated else (header.start if header is not None else None)
    base = first if dated or (opened.layout.format.first and header is None) or first < 0 else 0
    if base:
        arrival = arrival - base
        what = f"{STARTS} {'arrival' if rows.span is None else 'row'}"
        notes.append(f"{what}, {np.datetime64(base, 'us')} UTC" if dated else what)
    numbers = dict(rows.numbers)
    if "deadline" in numbers and header is None:
        numbers["deadline"] = np.where(numbers["deadline"] == UNSET, UNSET, numbers["deadline"] + arrival)
    rows = replace(rows, time=arrival, numbers=numbers, named=_named(rows, header))
    if header is None:
        rows, more = with_cached(rows)
        notes += more + _gap_notes(arrival) + _doubts(arrival, converter, opened)
    window = header.window if header is not None else _window(arrival) if rows.span is None else rows.span[1] - base
    return _Table(rows, window, start), notes


def _named(rows: Rows, header: Header | None) -> dict[Field, NamedColumn]:
    """Columns of names in the order they were met, or in the order our own file had them."""
    found = dict(rows.named)
    for part in NAMED if header is not None else ():
        if part in found:
            assert header is not None
            met, names = found[part].names, header.names_of(part)
            table = np.array([names.index(name) if name in names else -1 for name in met], dtype=np.int32)
            if (table < 0).any():
                raise TraceError(
                    f"the {part} column holds names that the file's own header does not list",
                    hint="write the file again: sageserve trace convert",
                )
            found[part] = NamedColumn(table[found[part].codes], names)
    return found


def _carried(rows: Rows, *, as_tokens: bool) -> dict[str, int]:
    """How many requests carry what no engine of the model takes notice of; turns that wait for answers, and adapters, are played.

    Args:
        rows: of the trace.
        as_tokens: prompts hold the tokens of images.
    """
    played = ("adapter", "session") if "delay" in rows.numbers else ("adapter",)
    found = {"images": None if as_tokens else rows.numbers.get("images"), "audio": rows.numbers.get("audio")}
    counted = {name: int((values > 0).sum()) for name, values in found.items() if values is not None}
    named = {
        label: int((rows.named[label].codes != UNSET).sum()) for label in LABELS if label in rows.named and label not in played
    }
    return {**counted, **{f"{label}s": count for label, count in named.items()}}


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
    count = int(long.sum())
    gaps = "1 gap" if count == 1 else f"{count:,} gaps"
    return [f"{gaps} of {show_duration(GAP)} or more, the longest {length} after {after}, without an arrival are kept"]


def _doubts(arrival: Ints, converter: Converter, opened: TraceFile) -> list[str]:
    """Questions about a unit that nobody named and that gives an odd rate."""
    if len(arrival) < 3 or converter.times.dated or "time" in opened.layout.named:
        return []
    seconds = max(int(arrival[-1] - arrival[0]), 1) / 1e6
    rate = len(arrival) / seconds
    if opened.layout.clocks.get("time") == "ms" and rate > _BUSY:
        return [f"read as milliseconds these are {rate:,.0f} requests a second; if they are seconds: --column arrival_s=NAME"]
    if converter.times.assumed and rate < 1 / _IDLE:
        return [
            f"read as seconds they come every {seconds / len(arrival):,.0f} s; if they are milliseconds: --column arrival_ms=NAME"
        ]
    return []


def _window(arrival: Ints) -> Micros:
    """The whole minutes the arrivals span: bins of a minute are then full, and no rate is biased by a cut."""
    return (int(arrival[-1]) // MINUTE + 1) * MINUTE
