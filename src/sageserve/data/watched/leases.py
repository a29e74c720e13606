"""Leases of gates of batch work, written or not; one JSON object a line, where one differs from the last.

    {"wall": 1790000040000000, "gate": "llama", "rate": "1.5", "why": "", "trouble": "", "written": true}

A file a day in the state folder, `leases/leases-20261127.jsonl`; those older than KEEP days are dropped. Read next:
`live/gates/keeper.py`, which makes them.
"""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from sageserve.base.units import SECOND, Micros
from sageserve.data.growing import append_lines, whole_lines

_LOG: Final = logging.getLogger(__name__)
LEASES: Final = "leases"
"""Folder of these files in the state folder."""
KEEP: Final = 35


class LeaseLine(Struct, frozen=True):
    """A lease that differs from the one before.

    Args:
        wall: when, microseconds since 1970.
        gate: its name in the settings.
        rate: requests a second, as they are written.
        why: nothing is let through; empty: engines have room, or they have none.
        trouble: why it is not written although it should be; empty: it is, or is only observed.
        written: whether it is in Redis.
    """

    wall: Micros
    gate: str
    rate: str
    why: str = ""
    trouble: str = ""
    written: bool = False


class LeaseFiles:
    """Appends leases.

    Args:
        state: folder of the state; a folder in it is made.
    """

    def __init__(self, state: Path) -> None:
        self._folder = state / LEASES
        self._folder.mkdir(parents=True, exist_ok=True)

    def add(self, line: LeaseLine) -> None:
        """Append one."""
        path = self._folder / f"leases-{datetime.fromtimestamp(line.wall // SECOND, UTC):%Y%m%d}.jsonl"
        new = not path.exists()
        try:
            append_lines(path, msgspec.json.encode(line) + b"\n")
            if new:
                for old in sorted(self._folder.glob("leases-*.jsonl"))[:-KEEP]:
                    old.unlink()
        except OSError as error:  # the disk is full, and gates are still told
            _LOG.error("the lease cannot be written down: %s", error)


def read_leases(state: Path) -> Iterator[LeaseLine]:
    """All leases that are kept, oldest first."""
    decoder = msgspec.json.Decoder(LeaseLine)
    for path in sorted((state / LEASES).glob("leases-*.jsonl")):
        yield from whole_lines(path, decoder)
