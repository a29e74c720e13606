"""JSON files: one record per line, an array, or one document; keys are those of all records together.

Nested objects are laid flat under dotted names. Of keys that can mean nothing only an example is kept.
Read next: `records.py` for records that hold several requests, `data/traces/columns/layout.py`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Final, cast

import msgspec
import pyarrow as pa

from sageserve.base.errors import TraceError
from sageserve.data.traces.columns.fields import Field, may_mean_something, rank
from sageserve.data.traces.columns.layout import ColumnNames, is_known, known_names
from sageserve.data.traces.readers.batches import (
    BLOCK,
    WHAT_IS_READ,
    LineNumbers,
    RowBatch,
    TraceFile,
    layout_of_file,
    unreadable,
)
from sageserve.data.traces.readers.cells import Json, dig, flat, parse_json, text_of
from sageserve.data.traces.readers.records import PLAIN, records_in

_FLAT_ROWS: Final = 1 << 16  # per batch of records that the collector of cycles need not walk
_ROWS: Final = 1 << 13  # per batch: few enough for the collector of cycles, which walks all of them, to stay cheap
_DOCUMENT_MAX: Final = 1 << 30  # bytes of a file that is one value and must be held whole
_EXAMPLE: Final = 200  # characters of an example that are kept
_BROKEN: Final = "line is not a JSON object"


def open_json(path: Path, stream: pa.NativeFile, explicit: Mapping[str, str]) -> TraceFile:
    """Open a file of JSON; it is read whole, since any record may bring a key of its own.

    Args:
        path: for messages.
        stream: its text, from the beginning.
        explicit: our column names -> the file's.

    Raises:
        TraceError: it cannot be read, holds no object, or its keys are of no known format.
    """
    keys = _Keys(known_names(explicit))
    lines = LineNumbers(of_row=[])
    try:
        batches = list(_raw_batches(_values(stream, lines, keys), keys, lines))
    except (OSError, pa.ArrowInvalid) as error:
        raise unreadable(path, error) from None
    except TraceError as error:
        raise TraceError(f"{path} {error.message}", hint=error.hint) from None
    if not batches:
        raise TraceError(f"{path} looks like JSON and holds no object", hint=WHAT_IS_READ)
    header = ColumnNames(list(keys.examples), keys.examples, cells_may_nest=True)
    layout = layout_of_file(path, header, explicit)
    return TraceFile(layout, _by_field(batches, {part: (p.name, p.path) for part, p in layout.columns.items()}), lines)


class _Keys:
    """The keys met so far, an example of each, and which of them are worth keeping.

    `row` is a record of flat lines that have no other keys than those met, which is decoded twice as fast as a dictionary; a line
    that has others, or nested ones, does not fit it. None before the first batch and where records are nested.
    """

    def __init__(self, known: frozenset[str]) -> None:
        self.examples: dict[str, str] = {}
        self.kept: set[str] = set()
        self.texts: set[str] = set()
        self.row: type[msgspec.Struct] | None = None
        self._known = known
        self._nested = False

    def settle(self, *, nested: bool) -> None:
        """Make the record of flat lines after a batch of dictionaries."""
        self._nested = self._nested or nested or not PLAIN.isdisjoint(self.examples)
        if not self._nested:
            names = list(self.examples)
            self.row = msgspec.defstruct(
                "Row",
                [(f"k{place}", int | float | str | bool | list[object] | None, None) for place in range(len(names))],
                rename={f"k{place}": name for place, name in enumerate(names)},
                forbid_unknown_fields=True,
                gc=False,
            )

    def meet(self, rows: Sequence[Mapping[str, Json]]) -> None:
        """Take note of the keys of some records."""
        for key in dict.fromkeys(chain.from_iterable(rows)):
            if self.examples.get(key):
                continue
            if key not in self.examples and (is_known(key, self._known) or may_mean_something(key)):
                self.kept.add(key)
            if rank("text", key.rpartition(".")[2]) is not None:
                self.texts.add(key)
            example = next((text for row in rows if (text := _example(row.get(key)))), "")
            self.examples[key] = example


def _example(value: Json) -> str:
    return "" if value is None else text_of(value)[:_EXAMPLE]


def _values(stream: pa.NativeFile, lines: LineNumbers, keys: _Keys) -> Iterator[tuple[int, Json | msgspec.Struct]]:
    """The values of a file with the lines they stand on: one per line, or one for all where lines are no values."""
    every = _split_lines(stream)
    first = next((line for line in every if line.strip()), b"")
    try:
        value = parse_json(first.removeprefix(b"\xef\xbb\xbf"))
    except ValueError:
        yield from _document(first, every, lines, keys)
        return
    if isinstance(value, list):
        lines.word = "record"
        yield from enumerate(value, start=1)
        return
    yield 1, value
    yield from _lines(2, every, lines, keys)


def _lines(
    first: int, every: Iterable[bytes], lines: LineNumbers, keys: _Keys
) -> Iterator[tuple[int, dict[str, Json] | msgspec.Struct]]:
    """The objects of lines, as flat records where they fit; what is no object is counted."""
    row, decoder = None, None
    for number, line in enumerate(every, start=first):
        if keys.row is not row and keys.row is not None:
            row, decoder = keys.row, msgspec.json.Decoder(keys.row)
        if decoder is not None:
            try:
                yield number, decoder.decode(line)
                continue
            except (msgspec.DecodeError, UnicodeDecodeError):
                pass  # of other keys, nested or broken: seen below
        try:
            value = parse_json(line)
        except ValueError:
            if line.strip():
                lines.skip(number, _BROKEN)
            continue
        if type(value) is dict:
            yield number, value
        else:
            lines.skip(number, _BROKEN)


def _document(
    first: bytes, rest: Iterator[bytes], lines: LineNumbers, keys: _Keys
) -> Iterator[tuple[int, Json | msgspec.Struct]]:
    """A file that is one value over many lines; where it is none after all, lines of which the first is broken."""
    parts, size = [first], len(first)
    for part in rest:
        parts.append(part)
        size += len(part) + 1
        if size > _DOCUMENT_MAX:
            raise TraceError(f"is one JSON value of more than {_DOCUMENT_MAX >> 30} GiB", hint="write one record per line")
    try:
        value = parse_json(b"\n".join(parts).removeprefix(b"\xef\xbb\xbf"))
    except ValueError as error:
        if not any(part.lstrip()[:1] == b"{" and part.rstrip()[-1:] == b"}" for part in parts[1:]):
            raise TraceError(f"looks like JSON and is not: {error}", hint=WHAT_IS_READ) from None
        yield from _lines(1, parts, lines, keys)
        return
    lines.word = "record"
    yield from enumerate(value if isinstance(value, list) else [value], start=1)


def _raw_batches(
    values: Iterator[tuple[int, Json | msgspec.Struct]], keys: _Keys, lines: LineNumbers
) -> Iterator[dict[str, pa.Array]]:
    """Columns by key, of the keys that may mean something."""
    rows: list[Mapping[str, Json]] = []
    flats: list[msgspec.Struct] = []
    nested = False
    assert lines.of_row is not None
    of_row = lines.of_row
    for number, value in values:
        if type(value) is keys.row:
            if rows:
                yield _columns(rows, keys)
                rows = []
            flats.append(value)
            of_row.append(number)
            if len(flats) >= _FLAT_ROWS:
                yield _flat_columns(flats, keys)
                flats = []
            continue
        if flats:
            yield _flat_columns(flats, keys)
            flats = []
        if type(value) is dict and PLAIN.isdisjoint(value):  # one request, as nearly every line is
            deep = dict in map(type, value.values())
            nested = nested or deep
            rows.append(flat(value) if deep else value)
            of_row.append(number)
        else:
            nested = True
            records = [flat(record) for record in records_in(cast("Json", value))]
            rows += records
            of_row += [number] * len(records)
        if len(rows) >= _ROWS:
            yield _columns(rows, keys)
            keys.settle(nested=nested)
            rows = []
    if flats:
        yield _flat_columns(flats, keys)
    if rows:
        yield _columns(rows, keys)


def _columns(rows: Sequence[Mapping[str, Json]], keys: _Keys) -> dict[str, pa.Array]:
    keys.meet(rows)
    return {
        "": pa.nulls(len(rows)),  # the number of rows, where none of their keys is kept
        **{
            key: column_of([_characters(row.get(key)) for row in rows] if key in keys.texts else [row.get(key) for row in rows])
            for key in keys.kept
        },
    }


def _flat_columns(rows: Sequence[msgspec.Struct], keys: _Keys) -> dict[str, pa.Array]:
    found: dict[str, pa.Array] = {"": pa.nulls(len(rows))}
    for place, key in enumerate(type(rows[0]).__struct_encode_fields__):
        if key in keys.kept:
            values: list[Json] = list(map(attrgetter(f"k{place}"), rows))
            found[key] = column_of([_characters(value) for value in values] if key in keys.texts else values)
        elif not keys.examples[key]:
            keys.examples[key] = next((text for row in rows if (text := _example(getattr(row, f"k{place}")))), "")
    return found


def _characters(value: Json) -> Json:
    """How long a prompt is, in characters: a text, a list of texts, or chat messages; numbers stay what they are."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list):
        return sum(int(length) for each in value if isinstance(length := _characters(each), int))
    if isinstance(value, dict):
        return _characters(next((value[name] for name in ("content", "text") if name in value), ""))
    return value


def column_of(values: Sequence[Json]) -> pa.Array:
    """An arrow column of JSON values: numbers, texts and lists of either; a mixture is texts."""
    kinds = set(map(type, values)) - {type(None)}
    if kinds <= {int, float}:
        try:
            return pa.array(values, pa.int64() if float not in kinds else pa.float64())
        except (pa.ArrowInvalid, OverflowError):
            pass  # numbers beyond 64 bits, or beyond what a float holds exactly: kept as texts
    elif kinds == {list}:
        return _lists(cast("Sequence[list[Json] | None]", values))
    elif kinds == {bool}:
        return pa.array(values, pa.bool_())
    return pa.array([None if value is None else text_of(value) for value in values], pa.string())


def _lists(values: Sequence[list[Json] | None]) -> pa.Array:
    for kind in (pa.uint64(), pa.int64()):
        try:
            return pa.array(values, pa.list_(kind))
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            continue
    return pa.array([None if value is None else [text_of(each) for each in value] for value in values], pa.list_(pa.string()))


def _by_field(batches: Sequence[Mapping[str, pa.Array]], places: Mapping[Field, tuple[str, Sequence[str]]]) -> Iterator[RowBatch]:
    """Batches by field; a key that came later is missing in the batches before."""
    for batch in batches:
        count = len(batch[""])
        yield RowBatch({part: dig(batch.get(name, pa.nulls(count)), path) for part, (name, path) in places.items()})


def _split_lines(stream: pa.NativeFile) -> Iterator[bytes]:
    rest = b""
    while data := stream.read(BLOCK):
        pieces = (rest + bytes(data)).split(b"\n")
        rest = pieces.pop()
        yield from pieces
    if rest:
        yield rest
