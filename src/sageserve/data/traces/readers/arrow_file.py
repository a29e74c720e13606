"""Parquet and Arrow files: columns of any type, structs laid flat under dotted names; our own archives among them.

Read next: `data/traces/archive.py` for our own, `batches.py`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sageserve.data.traces.columns.fields import NAMED
from sageserve.data.traces.columns.formats import OWN
from sageserve.data.traces.columns.layout import ColumnNames, FileColumns, Place
from sageserve.data.traces.columns.numbers import values_of
from sageserve.data.traces.readers.batches import LineNumbers, Progress, RowBatch, TraceFile, layout_of_file, unreadable
from sageserve.data.traces.readers.cells import dig

MARK: Final = b"sageserve.trace"
"""Key in the metadata of our own Parquet files."""

_PARQUET: Final = b"PAR1"
_ARROW: Final = b"ARROW1"
_STREAM: Final = b"\xff\xff\xff\xff"
_ROWS: Final = 1 << 19  # per batch
_LOOKED_AT: Final = 20  # rows that show what columns look like


@dataclass(frozen=True, slots=True)
class _Table:
    """An open file: its schema, its number of rows where it is known, and its batches of some columns."""

    schema: pa.Schema
    rows: int
    batches: Callable[[Sequence[str], Sequence[str], int], Iterator[pa.RecordBatch]]  # columns, those of names, most rows


def is_arrow(magic: bytes) -> bool:
    """Whether bytes begin as Parquet, an Arrow file or an Arrow stream does."""
    return magic.startswith((_PARQUET, _ARROW, _STREAM))


def open_arrow(path: Path, magic: bytes, explicit: Mapping[str, str], progress: Progress | None) -> TraceFile:
    """Open a Parquet or Arrow file.

    Raises:
        TraceError: it cannot be read, or its columns are of no known format.
    """
    try:
        table = _parquet(path) if magic.startswith(_PARQUET) else _ipc(path, magic)
        metadata = (table.schema.metadata or {}).get(MARK)
        places = {".".join(steps): steps for steps in _leaves(table.schema)}
        if metadata is None:
            header = ColumnNames(list(places), _examples(table, places), cells_may_nest=True)
            layout = layout_of_file(path, header, explicit)
        else:
            layout = own_layout(table.schema.names)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise unreadable(path, error) from None
    return TraceFile(layout, _batches(path, table, (layout, places), progress), LineNumbers(word="row"), metadata)


def own_layout(names: list[str]) -> FileColumns:
    """What the columns of our own archives mean; those of another name are unused."""
    columns = {part: Place(options[0]) for part, options in OWN.columns.items() if options[0] in names}
    return FileColumns(OWN, columns, {part: "us" for part in ("time", "deadline", "delay") if part in columns})


def _parquet(path: Path) -> _Table:
    with pq.ParquetFile(path) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
    texts = {field.name for field in schema if pa.types.is_string(field.type)}

    def batches(columns: Sequence[str], named: Sequence[str], most: int) -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(path, read_dictionary=[name for name in named if name in texts]) as file:
            yield from file.iter_batches(batch_size=most, columns=list(columns))

    return _Table(schema, rows, batches)


def _ipc(path: Path, magic: bytes) -> _Table:
    source = pa.memory_map(str(path))
    if magic.startswith(_STREAM):
        stream = pa.ipc.open_stream(source)
        return _Table(
            stream.schema,
            0,
            lambda columns, _named, _most: (
                batch.select(list(columns)) for batch in pa.ipc.open_stream(pa.memory_map(str(path)))
            ),
        )
    file = pa.ipc.open_file(source)
    return _Table(
        file.schema,
        0,
        lambda columns, _named, _most: (file.get_batch(place).select(list(columns)) for place in range(file.num_record_batches)),
    )


def _leaves(schema: pa.Schema) -> Iterator[tuple[str, ...]]:
    """Paths to all columns, those inside structs too."""

    def inside(steps: tuple[str, ...], kind: pa.DataType) -> Iterator[tuple[str, ...]]:
        if pa.types.is_struct(kind):
            for field in kind:
                yield from inside((*steps, field.name), field.type)
        else:
            yield steps

    for field in schema:
        yield from inside((field.name,), field.type)


def _examples(table: _Table, places: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    tops = list(dict.fromkeys(steps[0] for steps in places.values()))
    unique = [name for name in tops if table.schema.names.count(name) == 1]
    batch = next(table.batches(unique, (), _LOOKED_AT), None)
    if batch is None:
        return {}
    batch = batch.slice(0, _LOOKED_AT)
    batch.validate(full=True)
    found = {}
    for name, steps in places.items():
        if steps[0] in unique:
            value = next((value for value in values_of(_reach(batch, steps)) if value is not None), None)
            found[name] = "" if value is None else str(value)
    return found


def _reach(batch: pa.RecordBatch, steps: tuple[str, ...]) -> pa.Array:
    column = batch.column(batch.schema.get_field_index(steps[0]))
    return pc.struct_field(column, list(steps[1:])) if len(steps) > 1 else column


def _batches(
    path: Path, table: _Table, meaning: tuple[FileColumns, Mapping[str, tuple[str, ...]]], progress: Progress | None
) -> Iterator[RowBatch]:
    layout, places = meaning
    tops = list(dict.fromkeys(places.get(place.name, (place.name,))[0] for place in layout.columns.values()))
    named = [place.name for part, place in layout.columns.items() if part in NAMED]
    done = 0
    try:
        for batch in table.batches(tops, named, _ROWS):
            done += len(batch)
            if progress is not None and table.rows:
                progress(done, table.rows)
            yield RowBatch(
                {
                    part: dig(_sound(plain(_reach(batch, places.get(place.name, (place.name,))))), place.path)
                    for part, place in layout.columns.items()
                }
            )
    except (OSError, pa.ArrowException) as error:
        raise unreadable(path, error) from None


def _sound(column: pa.Array) -> pa.Array:
    """The column, whose lengths and text are not believed of a damaged file."""
    texts = column.dictionary if pa.types.is_dictionary(column.type) else column
    if pa.types.is_string(texts.type) or pa.types.is_nested(texts.type):
        texts.validate(full=True)
    column.validate()
    return column


def plain(column: pa.Array) -> pa.Array:
    """A column in the few types that are converted: views and large types become plain, dictionaries stay if of texts."""
    kind = column.type
    if isinstance(kind, pa.ExtensionType):
        return plain(column.storage)
    if pa.types.is_dictionary(kind):
        if not _is_text(kind.value_type):
            return plain(column.dictionary_decode())
        return pa.DictionaryArray.from_arrays(column.indices, plain(column.dictionary))
    if pa.types.is_run_end_encoded(kind):
        return plain(pc.run_end_decode(column))
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.string())
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind) or pa.types.is_fixed_size_binary(kind):
        return column.cast(pa.binary())
    if pa.types.is_float16(kind):
        return column.cast(pa.float32())
    return column


def _is_text(kind: pa.DataType) -> bool:
    checks = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_binary, pa.types.is_large_binary)
    return any(check(kind) for check in checks)
