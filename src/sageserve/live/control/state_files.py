"""What a control process leaves for the next one, and for people: the journal, and the demand of past minutes.

Both are lines of JSON in the state folder, appended and flushed one by one, so that a process killed at any moment loses a
line at most; a torn last line is left out when read. Instants are wall time here: the loop's own clock begins anew with each
process.
Read next: `loop.py`, which writes through these; `core/history.py`, which the past minutes are for.
"""

import logging
import shutil
import zlib
from collections import deque
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from msgspec import Struct

from sageserve.base.records import Demand, Floats, Names
from sageserve.base.units import DAY, MINUTE, Micros
from sageserve.core.events import DemandSeen
from sageserve.core.layout import Layout
from sageserve.core.work import Entry
from sageserve.data.growing import append_lines
from sageserve.data.results.journal import Decided, JournalLine, Stamped, live_files

_LOG = logging.getLogger(__name__)
_KEEP: Final = 14 * DAY  # two of the longest season that forecasters look for
_FILE_MAX: Final = 64 << 20  # bytes of a journal file before a new one is begun
_FILES: Final = 8
_RECENT: Final = 500  # decisions kept in memory for people who look


class JournalFile:
    """Appends journal lines; old files are dropped when there are too many.

    Args:
        folder: made if needed.
        layout: for names of pools.
        wall: the wall clock, microseconds since 1970.
        append: adds whole lines to a file.
    """

    def __init__(
        self, folder: Path, layout: Layout, wall: Callable[[], Micros], append: Callable[[Path, bytes], None] = append_lines
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.recent: deque[Stamped] = deque(maxlen=_RECENT)
        self.lost = 0  # lines that could not be written: the disk is full, and the fleet goes on
        self._folder = folder
        self._pools = tuple(pool.name for pool in layout.pools)
        self._wall = wall
        self._append = append
        self._encode = msgspec.json.Encoder().encode
        self._file = (live_files(folder) or [folder / _name(1)])[-1]

    def write(self, entry: Entry) -> None:
        """Append one line."""
        decided = tuple(Decided(self._pools[decision.pool], decision) for decision in entry.decisions)
        stamped = Stamped(self._wall(), JournalLine(entry.now, entry.event, decided, entry.actions))
        self.recent.append(stamped)
        try:
            self._turn_over()
            self._append(self._file, self._encode(stamped) + b"\n")
        except OSError as error:
            self.lost += 1
            _LOG.error("the journal cannot be written: %s", error)

    def _turn_over(self) -> None:
        if self._file.exists() and self._file.stat().st_size > _FILE_MAX:
            self._file = self._folder / _name(int(self._file.stem.rpartition("-")[2]) + 1)
            for old in live_files(self._folder)[:-_FILES]:
                old.unlink()


def _name(number: int) -> str:
    return f"journal-{number:06d}.jsonl"


class _Minute(Struct, frozen=True, array_like=True):
    wall: Micros  # the minute's begin
    prompt_tokens: tuple[int, ...]
    output_tokens: tuple[int, ...]
    requests: tuple[int, ...]


class DemandFile:
    """Past demand, minute by minute.

    Args:
        path: of the file.
        names: of models, regions and tiers. What was kept under others is used as far as the names are the same; the file as it
            was is kept beside it.
        append: adds whole lines to a file.
    """

    def __init__(self, path: Path, names: Names, append: Callable[[Path, bytes], None] = append_lines) -> None:
        self._path = path
        self._append = append
        self._names = names
        self._header = msgspec.json.encode(_Header(names.models, names.regions, names.tiers))
        self._encode = msgspec.json.Encoder().encode

    def add(self, wall: Micros, seen: DemandSeen) -> None:
        """Append a minute that began at `wall`."""
        minute = _Minute(wall, seen.prompt_tokens, seen.output_tokens, seen.requests)
        try:
            new = not self._path.exists() or not self._path.stat().st_size  # a full disk leaves an empty one
            self._append(self._path, (self._header + b"\n" if new else b"") + self._encode(minute) + b"\n")
        except OSError as error:
            _LOG.error("past demand cannot be written: %s", error)

    def newest(self) -> Micros | None:
        """Where the newest minute that was kept ends, microseconds since 1970; None when none was."""
        return max((one.wall + MINUTE for one in self._kept()), default=None)

    def load(self, wall: Micros) -> Demand | None:
        """What is known of the time before `wall`, in bins of a minute that end there; None when nothing is.

        Minutes in which nobody counted are filled in between the minutes around them: unknown is not zero.
        """
        minutes = {(wall - one.wall - 1) // MINUTE: one for one in self._kept() if wall - _KEEP <= one.wall < wall}
        if not minutes:
            return None
        ago = np.array(sorted(minutes, reverse=True))
        bins = int(ago[0]) + 1
        shape = (len(self._names.regions), len(self._names.models), len(self._names.tiers))

        def column(name: str) -> Floats:
            values = np.array([getattr(minutes[at], name) for at in ago.tolist()], float)
            places = bins - 1 - ago
            filled = np.stack([np.interp(np.arange(bins), places, values[:, k]) for k in range(values.shape[1])], axis=1)
            return filled.reshape(bins, *shape)

        return Demand(-bins * MINUTE, MINUTE, column("prompt_tokens"), column("output_tokens"), column("requests"))

    def _kept(self) -> list[_Minute]:
        """The minutes that the file holds, under the present names; it is written anew when it holds others, or too many.

        What is too old is told by its newest minute, not by the clock, which may be wrong for a moment.
        """
        try:
            header, *lines = self._path.read_bytes().splitlines() or [b""]
        except FileNotFoundError:
            return []
        names = self._names if header == self._header else _names_of(header)
        minutes = [] if names is None else self._minutes(lines, names)
        if names is not self._names:
            self._set_aside(header)
            minutes = [] if names is None else _renamed(minutes, names, self._names)
        newest = max((one.wall for one in minutes), default=0)
        kept = [one for one in minutes if one.wall > newest - _KEEP]
        if names is not self._names or len(kept) < len(minutes):
            self._write(kept)
        return kept

    def _minutes(self, lines: list[bytes], names: Names) -> list[_Minute]:
        cells = len(names.regions) * len(names.models) * len(names.tiers)
        decoder = msgspec.json.Decoder(_Minute)
        found = []
        for text in lines:
            try:
                one = decoder.decode(text)
            except (msgspec.DecodeError, UnicodeDecodeError):
                _LOG.warning("%s holds a line that was cut off", self._path.name)
                continue
            if all(len(column) == cells for column in (one.prompt_tokens, one.output_tokens, one.requests)):
                found.append(one)
            else:
                _LOG.warning("%s holds a line of another length", self._path.name)
        return found

    def _set_aside(self, header: bytes) -> None:
        aside = self._path.with_name(f"{self._path.stem}-{zlib.crc32(header):08x}{self._path.suffix}")
        _LOG.warning(
            "past demand was kept under other names: what has the same ones is used, and all of it kept as %s", aside.name
        )
        try:
            shutil.copyfile(self._path, aside)
        except OSError:  # no room for a second one: then it moves, and what has the same names is written if it can be
            self._path.replace(aside)

    def _write(self, minutes: list[_Minute]) -> None:
        part = self._path.with_suffix(".part")
        try:
            part.write_bytes(b"\n".join([self._header, *map(self._encode, minutes), b""]))
            part.replace(self._path)
        except OSError as error:
            _LOG.error("past demand cannot be written anew: %s", error)


class _Header(Struct, frozen=True):
    models: tuple[str, ...]
    regions: tuple[str, ...]
    tiers: tuple[str, ...]


def _names_of(header: bytes) -> Names | None:
    """The names a file was written under; None when its first line does not say."""
    try:
        found = msgspec.json.decode(header, type=_Header)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return Names(found.models, found.regions, found.tiers)


def _renamed(minutes: list[_Minute], old: Names, new: Names) -> list[_Minute]:
    """The same minutes under other names; of a name that is new nothing was asked then. None when nothing is the same."""
    known = {cell: at for at, cell in enumerate(product(old.regions, old.models, old.tiers))}
    cells = [known.get(cell, -1) for cell in product(new.regions, new.models, new.tiers)]

    def column(values: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(values[at] if at >= 0 else 0 for at in cells)

    if max(cells) < 0:
        return []
    return [_Minute(one.wall, column(one.prompt_tokens), column(one.output_tokens), column(one.requests)) for one in minutes]
