"""What keys have used of their budgets a day: added up over gateway processes, told to all of them, kept over restarts.

Each gateway process says what was used through it today, cumulative, and is known by its nonce: said twice it counts once, and a
process that is gone has used what it said last. In a file of the state folder, written at most once a second. Decides nothing:
gateways refuse. Read next: `live/gateway/budgets.py`.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from sageserve.live.private import write_private
from sageserve.live.wire import KeySpent, Spent, SpentElsewhere

EVERY_S: Final = 0.25  # as often as gateways report
_SAVE: Final = 4  # rounds
_DAYS: Final = 3  # kept: gateways on other machines may be in another day
_Used = dict[str, tuple[int, int]]  # tokens and millionths of a dollar, by name
_LOG: Final = logging.getLogger(__name__)
_decode: Final = msgspec.json.Decoder(dict[int, dict[str, _Used]]).decode


class SpendingFile:
    """Everything used lately.

    Args:
        path: where it is kept.
        send: tells a gateway.
    """

    def __init__(self, path: Path, send: Callable[[int, SpentElsewhere], bool]) -> None:
        self._path = path
        self._send = send
        self._days = self._load()  # by day and nonce
        self._nonces: dict[int, str] = {}  # of gateways that are connected
        self._fresh = False  # something came since the gateways were told
        self._unsaved = False

    def meet(self, gateway: int, nonce: str) -> None:
        """A gateway connected: it begins with what is known."""
        self._nonces[gateway] = nonce
        self._tell(gateway)

    def left(self, gateway: int) -> None:
        """A gateway is gone."""
        self._nonces.pop(gateway, None)

    def take(self, gateway: int, message: Spent) -> None:
        """A gateway said what was used through it."""
        day = self._days.setdefault(message.day, {})
        day[self._nonces[gateway]] = {one.name: (one.tokens, one.micro_dollars) for one in message.keys}
        for old in sorted(self._days)[:-_DAYS]:
            del self._days[old]
        self._fresh = self._unsaved = True

    async def run(self) -> None:
        """Tell and save until cancelled."""
        rounds = 0
        try:
            while True:
                await asyncio.sleep(EVERY_S)
                rounds += 1
                if self._fresh:
                    self._fresh = False
                    for gateway in list(self._nonces):
                        self._tell(gateway)
                if rounds % _SAVE == 0:
                    self.save()
        finally:
            self.save()

    def save(self) -> None:
        """Write what is new; a full disk has it tried again."""
        if not self._unsaved:
            return
        try:
            write_private(self._path, msgspec.json.encode(self._days))
            self._unsaved = False
        except OSError as error:
            _LOG.error("what keys have used today cannot be written: %s", error)

    def _tell(self, gateway: int) -> None:
        """What was used through others, by days; the gateway takes its own."""
        own = self._nonces[gateway]
        for day, processes in self._days.items():
            total: _Used = {}
            for nonce, used in processes.items():
                for name, (tokens, dollars) in used.items() if nonce != own else ():
                    before = total.get(name, (0, 0))
                    total[name] = (before[0] + tokens, before[1] + dollars)
            self._send(gateway, SpentElsewhere(day, tuple(KeySpent(name, *used) for name, used in total.items())))

    def _load(self) -> dict[int, dict[str, _Used]]:
        try:
            return _decode(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            _LOG.error("what keys have used today is forgotten, because %s cannot be read: %s", self._path, error)
            return {}
