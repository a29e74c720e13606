"""Our own trace files: Parquet that keeps everything a `Trace` knows, and that any Parquet tool can read.

One row per request: arrival_us, model, tier, region, prompt_tokens, output_tokens, and of the others (deadline_us,
cached_tokens, session, turn, delay_us, adapter, tenant, user, key, images, audio, block_hashes) those that any request has.
Names, window, start, tokens per block and notes are in the metadata, with a version. Files appear whole or not at all.
Read next: `read.py` for reading them back.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sageserve.base.errors import TraceError
from sageserve.base.records import UNSET, Names, Trace
from sageserve.base.units import Micros
from sageserve.data.traces.columns.fields import Field
from sageserve.data.traces.naming import UNNAMED
from sageserve.data.traces.readers.arrow_file import MARK

VERSION: Final = 2
_ROWS: Final = 1 << 20  # per row group: a few MB each, so that reading stays flat in memory


class _Metadata(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    window_us: int
    models: tuple[str, ...]
    regions: tuple[str, ...]
    tiers: tuple[str, ...]
    notes: tuple[str, ...]
    start_us: int | None = None
    block_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Header:
    """What a file of ours says about itself; `block` is tokens per block of its hashes."""

    names: Names
    window: Micros
    notes: tuple[str, ...]
    start: Micros | None = None
    block: int | None = None

    def names_of(self, part: Field) -> tuple[str, ...]:
        """The names one named column may hold, in the order of codes."""
        return {"model": self.names.models, "region": self.names.regions, "tier": self.names.tiers}[part]


def parse_header(path: Path, metadata: bytes) -> Header:
    """The header of a file of ours.

    Raises:
        TraceError: written by a version that this one cannot read, or damaged.
    """
    try:
        version = msgspec.json.decode(metadata, type=dict)["version"]
        if version != VERSION:
            raise TraceError(
                f"{path} is of trace version {version}; this sageserve reads version {VERSION}",
                hint="convert it again with the sageserve that wrote it, to CSV or by a newer one",
            )
        found = msgspec.json.decode(metadata, type=_Metadata)
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError) as error:
        raise TraceError(f"{path}: its sageserve metadata is damaged ({error})", hint="convert it again") from None
    names = Names(found.models, found.regions, found.tiers)
    return Header(names, found.window_us, found.notes, found.start_us, found.block_tokens)


def write_trace(path: Path, trace: Trace, progress: Callable[[int, int], None] | None = None) -> None:
    """Write a trace as our Parquet. The file appears under its name only when it is complete.

    Args:
        path: where; an existing file is replaced.
        trace: what.
        progress: told how many requests of how many are written.

    Raises:
        TraceError: the file cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        _write(part, trace, progress)
        os.replace(part, path)  # noqa: PTH105 # one name for the one call that is atomic on every system
    except OSError as error:
        raise TraceError(f"{path} cannot be written: {error.strerror or error}", hint="choose another place") from None
    finally:
        part.unlink(missing_ok=True)


def trace_table(trace: Trace) -> pa.Table:
    """A trace as one table, as its file would hold it."""
    return pa.table(_columns(trace, slice(0, len(trace))), schema=_marked(trace))


def _marked(trace: Trace) -> pa.Schema:
    """The columns of a trace, and what it says about itself."""
    names = trace.names
    block = None if trace.blocks is None else trace.blocks.size
    metadata = _Metadata(VERSION, trace.window, names.models, names.regions, names.tiers, trace.notes, trace.start, block)
    return _schema(trace).with_metadata({MARK: msgspec.json.encode(metadata)})


def _write(path: Path, trace: Trace, progress: Callable[[int, int], None] | None) -> None:
    schema = _marked(trace)
    with pq.ParquetWriter(path, schema, compression="zstd", version="2.6") as writer:
        for first in range(0, max(len(trace), 1), _ROWS):
            rows = slice(first, first + _ROWS)
            writer.write_table(pa.table(_columns(trace, rows), schema=schema))
            if progress is not None:
                progress(min(first + _ROWS, len(trace)), len(trace))


def _schema(trace: Trace) -> pa.Schema:
    text = pa.dictionary(pa.int32(), pa.string())
    fields = [pa.field("arrival_us", pa.int64())]
    fields += [pa.field(name, text) for name, names, _ in _named(trace) if names != (UNNAMED,)]
    fields += [pa.field("prompt_tokens", pa.int32()), pa.field("output_tokens", pa.int32())]
    if trace.deadline is not None:
        fields.append(pa.field("deadline_us", pa.int64()))
    if trace.cached is not None:
        fields.append(pa.field("cached_tokens", pa.int32()))
    fields += [pa.field(label, text) for label in trace.labels]
    fields += [pa.field(count, pa.int32()) for count in trace.counts]
    if trace.delay is not None:
        fields.append(pa.field("delay_us", pa.int64()))
    if trace.blocks is not None:
        fields.append(pa.field("block_hashes", pa.list_(pa.uint64())))
    return pa.schema(fields)


def _named(trace: Trace) -> Sequence[tuple[str, tuple[str, ...], NDArray[np.uint8]]]:
    return (
        ("model", trace.names.models, trace.model),
        ("tier", trace.names.tiers, trace.tier),
        ("region", trace.names.regions, trace.region),
    )


def _columns(trace: Trace, rows: slice) -> dict[str, pa.Array]:
    columns = {"arrival_us": pa.array(trace.arrival[rows])}
    for name, names, codes in _named(trace):
        if names != (UNNAMED,):
            indices = pa.array(codes[rows].astype(np.int32))
            columns[name] = pa.DictionaryArray.from_arrays(indices, pa.array(names, pa.string()))
    columns["prompt_tokens"] = pa.array(trace.prompt[rows])
    columns["output_tokens"] = pa.array(trace.output[rows])
    for label, each in trace.labels.items():
        places = pa.array(each.codes[rows], mask=each.codes[rows] == UNSET)
        columns[label] = pa.DictionaryArray.from_arrays(places, pa.array(each.names, pa.string()))
    wide = (("deadline_us", trace.deadline), ("cached_tokens", trace.cached), ("delay_us", trace.delay))
    for name, column in (*wide, *trace.counts.items()):
        if column is not None:
            columns[name] = pa.array(column[rows], mask=column[rows] == UNSET)
    if trace.blocks is not None:
        blocks = trace.blocks.take(np.arange(len(trace))[rows])
        offsets = pa.array(np.concatenate([[0], blocks.ends]), pa.int32())
        columns["block_hashes"] = pa.ListArray.from_arrays(offsets, pa.array(blocks.hashes))
    return columns
