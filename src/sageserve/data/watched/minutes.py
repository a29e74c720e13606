"""Minutes of a fleet: instances that ran, that decisions asked for, that demand needed; one JSON object a line.

    {"wall": 1700000040000000, "pools": [{"pool": "east/llama/h100", "did": 3, "would": 4}],
     "endpoints": [{"endpoint": "east/llama", "busy": 1.8, "needed": 3, "tokens": 51200}]}

A file a day in the state folder, `minutes/minutes-20261127.jsonl`, flushed line by line; those older than KEEP days are dropped.
Knows no strategy. Read next: `live/control/minute_book.py`, which makes them.
"""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from sageserve.base.errors import ResultError
from sageserve.base.units import MINUTE, SECOND, Micros
from sageserve.data.growing import append_lines, whole_lines

_LOG: Final = logging.getLogger(__name__)
MINUTES: Final = "minutes"
"""Folder of these files in the state folder."""
DOUBT_FILE: Final = "doubt.json"
"""In the state folder while minutes are written in doubt of the clock."""
KEEP: Final = 35
"""Days that are kept: five of every weekday."""


class PoolMinute(Struct, frozen=True):
    """A pool at the end of a minute.

    Args:
        pool: region/model/gpu.
        did: instances that served.
        would: instances that decisions asked for; as many as served where none stands.
    """

    pool: str
    did: int
    would: int


class EndpointMinute(Struct, frozen=True, omit_defaults=True):
    """An endpoint over a minute.

    Args:
        endpoint: region/model.
        busy: engines of the model's fastest type that its demand of the last five minutes kept busy.
        needed: the fewest of them that keep the promises at that demand.
        blind: why it was not seen; empty: it was.
        tokens: interactive prompt tokens that came in the minute: what forecasts are of.
        late: share of the requests of the last five minutes whose first token came after the tightest promise, by engines' own
            histograms; of a fleet of ours, of its interactive requests that were later than their own tier promises or
            turned away; None: nobody asked, or engines do not say.
    """

    endpoint: str
    busy: float
    needed: int
    blind: str = ""
    tokens: int = 0
    late: float | None = None


class TierMinute(Struct, frozen=True):
    """A service class over a minute, in all regions and of all models.

    Args:
        tier: its name.
        requests: that came.
        missed: answered later than promised, or turned away, in this minute.
    """

    tier: str
    requests: int
    missed: int


class BacklogMinute(Struct, frozen=True):
    """Batch work of a model at the end of a minute.

    Args:
        model: its name.
        waiting: jobs and requests that wait.
        slack_s: seconds to the deadline that comes first, below 0: it has passed; None: nothing waits that may begin now.
    """

    model: str
    waiting: int
    slack_s: float | None


class WatchedMinute(Struct, frozen=True, omit_defaults=True):
    """A minute of a fleet.

    Args:
        wall: where it begins, microseconds since 1970.
        pools: in order of their numbers.
        endpoints: those with pools, in order of their numbers; none where a model's instances are set apart for some tiers.
        tiers: in order of the settings; none of a fleet that others run: its engines do not say whose a request was.
        backlog: by model; likewise.
    """

    wall: Micros
    pools: tuple[PoolMinute, ...]
    endpoints: tuple[EndpointMinute, ...]
    tiers: tuple[TierMinute, ...] = ()
    backlog: tuple[BacklogMinute, ...] = ()


class _Doubt(Struct, frozen=True):
    """The clock is doubted; the last time that was believed, microseconds since 1970."""

    believed: Micros


_DECODER: Final = msgspec.json.Decoder(WatchedMinute)
_DOUBT: Final = msgspec.json.Decoder(_Doubt)


class MinuteFiles:
    """Appends minutes.

    Args:
        state: folder of the state; a folder in it is made.
    """

    def __init__(self, state: Path) -> None:
        self.lost = 0  # that could not be written: the disk is full, and watching goes on
        self._folder = state / MINUTES
        self._folder.mkdir(parents=True, exist_ok=True)
        self._encode = msgspec.json.Encoder().encode

    def add(self, minute: WatchedMinute) -> None:
        """Append one."""
        path = self._folder / _name(minute.wall)
        new = not path.exists()
        try:
            append_lines(path, self._encode(minute) + b"\n")
            if new:
                for old in sorted(self._folder.glob("minutes-*.jsonl"))[:-KEEP]:
                    old.unlink()
        except OSError as error:
            self.lost += 1
            _LOG.error("the minute cannot be written: %s", error)


def read_minutes(state: Path, begin: Micros = 0) -> Iterator[WatchedMinute]:
    """Minutes from an instant on, day by day; torn lines are left out.

    Args:
        state: folder of the state.
        begin: microseconds since 1970.

    Raises:
        ResultError: no minute was kept there.
    """
    first = _name(begin)
    for path in _files(state):
        if path.name >= first:
            yield from (one for one in whole_lines(path, _DECODER) if one.wall >= begin)


def newest_minute(state: Path) -> Micros:
    """Where the newest minute begins, microseconds since 1970; 0: none is whole.

    Raises:
        ResultError: no minute was kept there.
    """
    newest = (max((one.wall for one in whole_lines(path, _DECODER)), default=0) for path in reversed(_files(state)))
    return next(filter(None, newest), 0)


def last_minute(state: Path) -> Micros | None:
    """Where the newest minute ends that was not written in doubt of the clock, microseconds since 1970; None: none was kept."""
    try:
        return _DOUBT.decode((state / DOUBT_FILE).read_bytes()).believed
    except FileNotFoundError:
        pass
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        _LOG.warning("%s cannot be read: %s", DOUBT_FILE, error)
    try:
        newest = newest_minute(state)
    except ResultError:
        return None
    return newest + MINUTE if newest else None


def note_doubt(state: Path, believed: Micros, now: Micros | None) -> None:
    """Whether minutes are written in doubt of the clock, for processes that come later.

    Args:
        state: folder of the state.
        believed: the last time that was believed, microseconds since 1970.
        now: the time that is believed from now on; what was written in doubt and is later goes. None: the doubt begins.
    """
    note = state / DOUBT_FILE
    try:
        if now is None:
            part = note.with_suffix(".part")
            part.write_bytes(msgspec.json.encode(_Doubt(believed)) + b"\n")
            part.replace(note)
        elif note.exists():
            _drop_after(state, max(believed, now))
            note.unlink()
    except OSError as error:
        _LOG.error("that the clock is doubted cannot be noted: %s", error)


def _drop_after(state: Path, end: Micros) -> None:
    """Drop minutes that begin at `end` or later."""
    for path in sorted((state / MINUTES).glob("minutes-*.jsonl")):
        if path.name > _name(end):
            path.unlink()
        elif path.name == _name(end):
            kept = [one for one in whole_lines(path, _DECODER) if one.wall < end]
            part = path.with_suffix(".part")
            part.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in kept))
            part.replace(path)


def _files(state: Path) -> list[Path]:
    """In order of their days."""
    found = sorted((state / MINUTES).glob("minutes-*.jsonl"))
    if not found:
        raise ResultError(f"{state} holds no minute yet", hint="let `sageserve up` or `sageserve watch` go on for two minutes")
    return found


def _name(wall: Micros) -> str:
    return f"minutes-{datetime.fromtimestamp(wall // SECOND, UTC):%Y%m%d}.jsonl"
