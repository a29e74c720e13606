"""The decision journal: one JSON object per line, what was heard, decided and done at an instant; zstd-compressed.

    {"now": 45000000, "event": {"type": "observed", ...}, "decisions": [{"pool": "eastus/llama-2-70b/h100-80gb", ...}], ...}

Numbers of instances are those of requests.parquet. Knows no simulator and no live loop: both write it, replay reads it.
Read next: `core/events.py`, `core/actions.py` for the records; `run_folder.py` for the folder it lies in.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import pyarrow as pa
from msgspec import Struct

from sageserve.base.errors import ResultError
from sageserve.base.units import Micros
from sageserve.core.actions import Decision
from sageserve.core.work import RecordedAction, RecordedEvent


class Decided(Struct, frozen=True):
    """A decision, with the name of the pool it is about."""

    pool: str
    decision: Decision


class JournalLine(Struct, frozen=True):
    """One line of the journal.

    Args:
        now: microseconds from the start of the window.
        event: what was heard.
        decisions: what was decided, and on what grounds.
        actions: what was asked of the world.
    """

    now: Micros
    event: RecordedEvent
    decisions: tuple[Decided, ...]
    actions: tuple[RecordedAction, ...]


def write_journal(path: Path, lines: Iterable[JournalLine]) -> None:
    """Write lines, compressed; an existing file is replaced."""
    encoder = msgspec.json.Encoder()
    with pa.CompressedOutputStream(str(path), "zstd") as out:
        for line in lines:
            out.write(encoder.encode(line) + b"\n")


def read_journal(path: Path) -> Iterator[JournalLine]:
    """The lines of a journal, in order.

    Raises:
        ResultError: missing or damaged; the message names the line.
    """
    decoder = msgspec.json.Decoder(JournalLine)
    read = 0
    try:
        with pa.CompressedInputStream(str(path), "zstd") as source:
            for text in _lines(source):
                yield decoder.decode(text)
                read += 1
    except (OSError, msgspec.DecodeError) as error:
        raise ResultError(
            f"{path}: the journal cannot be read after line {read:,} ({error})", hint="simulate again with --out"
        ) from None


def _lines(source: pa.NativeFile) -> Iterator[bytes]:
    rest = b""
    while chunk := source.read(1 << 20):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    if rest:
        yield rest
