"""What control said last, in a file: a gateway that begins while control is away starts from it.

The file is this user's alone, and put in place whole. What is in it is believed for an hour, of the same layout alone: engines'
addresses become another's. Signals in it are old from the beginning, so that own counts stand in for them. Holds no secret.
Read next: `server.py`, which keeps it; `live/wire.py` for what a table is.
"""

import logging
import os
import stat
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct, structs

from sageserve.base.errors import in_words
from sageserve.base.units import HOUR, MINUTE, SECOND, Micros
from sageserve.live.private import write_private
from sageserve.live.wire import OLDEST, VERSION, RoutingTable

_LOG: Final = logging.getLogger(__name__)
KEPT_AT_MOST: Final = HOUR
EVERY_LOOKS: Final = 20
"""Looks of a gateway between two writings: five seconds."""


class KeptTable(Struct, frozen=True):
    """The file."""

    protocol: int
    layout: str
    at: Micros  # since 1970, when control was heard last
    table: RoutingTable


_decode: Final = msgspec.msgpack.Decoder(KeptTable).decode
_encode: Final = msgspec.msgpack.Encoder().encode


class TableFile:
    """Keeps a table.

    Args:
        path: of the file.
        layout: mark of what it must be of.
        keeps: it is ours to write; of several processes one does.
    """

    def __init__(self, path: Path, layout: str, *, keeps: bool) -> None:
        self._path = path
        self._layout = layout
        self._keeps = keeps
        self._news: KeptTable | None = None
        self._trouble = ""  # why it was not written, which is said once

    def load(self, wall: Micros) -> RoutingTable | None:
        """What is kept, with its age; None: nothing that may be believed, and the log says why."""
        try:
            found = self._path.lstat()
            if not stat.S_ISREG(found.st_mode) or found.st_mode & 0o022 or found.st_uid != os.geteuid():
                raise ValueError("others may write it, or it is no file of ours")
            kept = _decode(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, msgspec.DecodeError) as error:
            _LOG.error("%s, what control said last, cannot be used: %s", self._path, in_words(error))
            return None
        age = wall - kept.at
        why = self._why_not(kept, age)
        if why:
            _LOG.error("%s, what control said last, is not used: %s", self._path, why)
            return None
        _LOG.warning("control is away: beginning with what it said %d s ago, from %s", age // SECOND, self._path)
        return structs.replace(kept.table, version=0, epoch="kept", age=kept.table.age + max(0, age))

    def _why_not(self, kept: KeptTable, age: Micros) -> str:
        if not OLDEST <= kept.protocol <= VERSION:
            return f"it is of version {kept.protocol} of the link"
        if kept.layout != self._layout:
            return f"it is of other settings (layout {kept.layout}, ours is {self._layout})"
        if not -MINUTE <= age <= KEPT_AT_MOST:
            return f"it is {age / HOUR:.1f} h old, and engines may stand elsewhere by now; {KEPT_AT_MOST // HOUR} h at most"
        return ""

    def hear(self, table: RoutingTable, wall: Micros) -> None:
        """Control said this."""
        if self._keeps:
            self._news = KeptTable(VERSION, self._layout, wall, table)

    def save(self) -> None:
        """Write what is new; a full disk leaves what was there."""
        news, self._news = self._news, None
        if news is None:
            return
        try:
            write_private(self._path, _encode(news))
        except OSError as error:
            if in_words(error) != self._trouble:
                _LOG.error("what control said last cannot be kept in %s: %s", self._path, in_words(error))
            self._trouble = in_words(error)
        else:
            self._trouble = ""
