"""Minutes of a fleet that was watched: instances that ran, that decisions asked for, that demand needed; one JSON object a line.

    {"wall": 1700000040000000, "pools": [{"pool": "east/llama/h100", "did": 3, "would": 4}],
     "endpoints": [{"endpoint": "east/llama", "busy": 1.8, "needed": 3, "tokens": 51200}]}

A file a day in the state folder, `minutes/minutes-20261127.jsonl`, flushed line by line; those older than KEEP days are dropped.
Knows no strategy. Read next: `live/watch/minute_book.py`, which makes them.
"""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from sageserve.base.errors import ResultError
from sageserve.base.units import SECOND, Micros

_LOG: Final = logging.getLogger(__name__)
MINUTES: Final = "minutes"
"""Folder of these files in the state folder."""
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
            histograms; None: they do not say.
    """

    endpoint: str
    busy: float
    needed: int
    blind: str = ""
    tokens: int = 0
    late: float | None = None


class WatchedMinute(Struct, frozen=True):
    """A minute of a fleet.

    Args:
        wall: where it begins, microseconds since 1970.
        pools: in order of their numbers.
        endpoints: those with pools, in order of their numbers.
    """

    wall: Micros
    pools: tuple[PoolMinute, ...]
    endpoints: tuple[EndpointMinute, ...]


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
        for path in self._folder.glob("minutes-*.jsonl"):
            _end_line(path)

    def add(self, minute: WatchedMinute) -> None:
        """Append one."""
        path = self._folder / _name(minute.wall)
        new = not path.exists()
        try:
            with path.open("ab") as out:
                out.write(self._encode(minute) + b"\n")
            if new:
                for old in sorted(self._folder.glob("minutes-*.jsonl"))[:-KEEP]:
                    old.unlink()
        except OSError as error:
            self.lost += 1
            _LOG.error("the minute cannot be written: %s", error)


def read_minutes(state: Path, begin: Micros = 0) -> Iterator[WatchedMinute]:
    """Minutes from an instant on, oldest first; torn lines are left out.

    Args:
        state: folder of the state.
        begin: microseconds since 1970.

    Raises:
        ResultError: nothing was watched there.
    """
    paths = sorted((state / MINUTES).glob("minutes-*.jsonl"))
    if not paths:
        raise ResultError(
            f"{state} holds no minute that was watched", hint="watch a while: sageserve watch SCENARIO --prometheus URL"
        )
    decoder = msgspec.json.Decoder(WatchedMinute)
    first = _name(begin)
    for path in paths:
        if path.name < first:
            continue
        for text in path.read_bytes().splitlines():
            try:
                minute = decoder.decode(text)
            except msgspec.DecodeError:
                _LOG.warning("%s holds a line that was cut off", path.name)
                continue
            if minute.wall >= begin:
                yield minute


def _name(wall: Micros) -> str:
    return f"minutes-{datetime.fromtimestamp(wall // SECOND, UTC):%Y%m%d}.jsonl"


def _end_line(path: Path) -> None:
    """End a line that was cut off, so that only that one is lost."""
    with path.open("rb+") as file:
        if file.seek(0, 2) and file.seek(-1, 2) >= 0 and file.read(1) != b"\n":
            file.write(b"\n")
