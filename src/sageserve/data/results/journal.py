"""The decision journal: one JSON object per line, what was heard, decided and done at an instant; zstd-compressed.

    {"now": 45000000, "event": {"type": "observed", ...}, "decisions": [{"pool": "eastus/llama-2-70b/h100-80gb", ...}], ...}

Numbers of instances are those of requests.parquet. A live fleet's is plain lines, each with the time by the wall clock, in files
of its state folder: journal/journal-000001.jsonl. Knows no simulator and no live loop: both write it, replay reads it.
Read next: `core/events.py`, `core/actions.py` for the records; `run_folder.py` for the folder it lies in.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa
from msgspec import Struct, structs

from sageserve.base.config import Scenario
from sageserve.base.errors import ResultError
from sageserve.base.units import Micros
from sageserve.core.actions import Decision
from sageserve.core.work import Forecasted, RecordedAction, RecordedEvent
from sageserve.data.growing import whole_lines
from sageserve.data.scenarios.load import load_scenario

LIVE: Final = "journal"
"""Folder of a live fleet's journal in its state folder."""


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
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
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


class Stamped(Struct, frozen=True):
    """A line of a live journal and when it was, by the wall clock."""

    wall: Micros
    line: JournalLine


def read_stamped(folder: Path) -> Iterator[Stamped]:
    """Every line that a live fleet kept, oldest first; torn lines are left out.

    Args:
        folder: `journal` in the state folder.
    """
    decoder = msgspec.json.Decoder(Stamped)
    for path in live_files(folder):
        yield from whole_lines(path, decoder)


def newest_stamped(folder: Path, most: int) -> Iterator[Stamped]:
    """The newest lines that a live fleet kept, oldest first; torn ones, and the one that `most` cuts off, are left out.

    Args:
        folder: `journal` in the state folder.
        most: bytes that are read, of as many files as it takes.
    """
    decoder, texts = msgspec.json.Decoder(Stamped), list[bytes]()
    for path in reversed(live_files(folder)):
        if most <= 0:
            break
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - most))
            texts.append(file.read())
        most -= size
    for line in (line for text in reversed(texts) for line in text.split(b"\n")):
        with suppress(msgspec.DecodeError, UnicodeDecodeError):
            yield decoder.decode(line)


def live_files(folder: Path) -> list[Path]:
    """Files of a live journal, oldest first."""
    return sorted(folder.glob("journal-*.jsonl"))


@dataclass(frozen=True, slots=True)
class LiveJournal:
    """What a live fleet decided so far.

    Args:
        folder: of its state.
        scenario: the settings in force.
        begins: of the oldest line that was kept, microseconds since 1970.
        ends: of the newest one, microseconds from `begins`.
    """

    folder: Path
    scenario: Scenario
    begins: Micros
    ends: Micros

    def lines(self) -> Iterator[JournalLine]:
        """Its lines, with all instants from `begins`; the clock of a control process begins anew with each."""
        for one in read_stamped(self.folder / LIVE):
            now = one.wall - self.begins
            event = one.line.event
            if isinstance(event, Forecasted):
                event = structs.replace(event, start=event.start + now - one.line.now)
            yield structs.replace(one.line, now=now, event=event)


def is_state_folder(folder: Path) -> bool:
    """Whether a folder is one of a live fleet."""
    return (folder / LIVE).is_dir() and (folder / "scenario.yaml").is_file()


def read_live(folder: Path) -> LiveJournal:
    """What a live fleet decided, which may run meanwhile.

    Raises:
        ResultError: nothing was decided there yet.
    """
    first = last = None
    for one in read_stamped(folder / LIVE):
        first = one.wall if first is None else first
        last = one.wall
    if first is None or last is None:
        raise ResultError(f"{folder / LIVE} holds no decision yet", hint="wait until the fleet has started an instance")
    return LiveJournal(folder, load_scenario(folder / "scenario.yaml"), first, max(0, last - first))
