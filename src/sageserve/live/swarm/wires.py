"""The link between control and its gateways, on paper: messages in the wire's own encoding, late, doubled, cut off or held up.

A link keeps the order of its messages, as a socket does, and two links know nothing of each other's. Read next: `world.py`;
`live/link.py`, the real one.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from sageserve.base.units import Micros
from sageserve.live.swarm.dice import Dice
from sageserve.live.swarm.virtual_time import VirtualLoop, VirtualProcess
from sageserve.live.wire import Report, ToControl, ToGateway, decode_to_control, decode_to_gateway, encode

_WAY: Final[Micros] = 2000  # at most, where nothing holds messages up
_NOTICED: Final[Micros] = 10_000  # until the other side sees that a connection is gone


class LinkedGateway(Protocol):
    """A gateway, as its link sees it."""

    number: int
    process: VirtualProcess

    def hear(self, message: ToGateway) -> None:
        """Control said something."""

    def control_changed(self, there: bool) -> None:
        """The connection to control was made, or is lost."""


class _Pipe:
    """One connection, numbered as control numbers it."""

    def __init__(self, server: "VirtualLink", gateway: LinkedGateway, number: int) -> None:
        self.server = server
        self.gateway = gateway
        self.number = number
        self.gone = False
        self.heard = False
        self.arrives = [0, 0]  # the instant at which the last message arrives, by direction


class VirtualLink:
    """Control's side; `LinkServer` on paper.

    Args:
        wires: what it listens on.
        process: control's.
        heard: told of messages, and which gateway process they are of.
        left: told of gateways that are gone.
    """

    def __init__(
        self, wires: "Wires", process: VirtualProcess, heard: Callable[[int, ToControl, int], None], left: Callable[[int], None]
    ) -> None:
        self.process = process
        self.heard = heard
        self.left = left
        self.pipes: dict[int, _Pipe] = {}
        self.made = 0
        self._wires = wires

    async def open(self, path: Path) -> None:
        """Listen: gateways connect soon."""
        self._wires.server = self

    def send(self, gateway: int, message: ToGateway) -> bool:
        """Tell one gateway; False when it is gone."""
        pipe = self.pipes.get(gateway)
        if pipe is None or pipe.gone:
            return False
        self._wires.carry(pipe, 1, pipe.gateway.process, pipe.gateway.hear, decode_to_gateway(encode(message)))
        return True

    def turned_away(self) -> tuple[str, ...]:
        """Nobody is."""
        return ()

    async def close(self) -> None:
        """Hang up on everyone."""
        self._wires.control_ends(self)


class Wires:
    """All links of a fleet.

    Args:
        loop: whose time it is.
        dice: for what is late and what is doubled.
    """

    def __init__(self, loop: VirtualLoop, dice: Dice) -> None:
        self.server: VirtualLink | None = None
        self.doubling = 0.0  # share of messages that come twice
        self.held: dict[int, Micros] = {}  # gateways whose messages are held up, and until when
        self._loop = loop
        self._dice = dice
        self._pipes: dict[int, _Pipe] = {}  # by number of the gateway's process

    def connect(self, gateway: LinkedGateway) -> bool:
        """A gateway tries to reach control; whether somebody listens."""
        server = self.server
        if server is None:
            return False
        pipe = _Pipe(server, gateway, server.made)
        server.made += 1
        self._pipes[gateway.number] = pipe
        self._loop.tell(server.process, 0, self._meet, pipe)
        return True

    @staticmethod
    def _meet(pipe: _Pipe) -> None:
        pipe.server.pipes[pipe.number] = pipe

    def send(self, gateway: LinkedGateway, message: ToControl) -> bool:
        """A gateway tells control; False when nobody listens."""
        pipe = self._pipes.get(gateway.number)
        if pipe is None or pipe.gateway is not gateway or pipe.gone:
            return False
        heard = decode_to_control(encode(message))
        self.carry(pipe, 0, pipe.server.process, self._arrive, pipe, heard)
        if self._dice.chance(self.doubling):
            self.carry(pipe, 0, pipe.server.process, self._arrive, pipe, heard)
        return True

    @staticmethod
    def _arrive(pipe: _Pipe, message: ToControl) -> None:
        if pipe.number in pipe.server.pipes:
            pipe.heard = pipe.heard or isinstance(message, Report)
            pipe.server.heard(pipe.number, message, pipe.gateway.number)

    def carry(self, pipe: _Pipe, way: int, to: VirtualProcess, callback: Callable[..., None], *args: object) -> None:
        """Bring a message to the other side, after those before it."""
        now = self._loop.now
        at = max(pipe.arrives[way], self.held.get(pipe.gateway.number, 0), now + int(self._dice.share() * _WAY))
        pipe.arrives[way] = at
        self._loop.tell(to, at - now, callback, *args)

    def cut(self, gateway: LinkedGateway) -> None:
        """The connection of a gateway is gone, or the gateway is: both sides hear of it."""
        pipe = self._pipes.pop(gateway.number, None)
        if pipe is None or pipe.gone:
            return
        pipe.gone = True
        self._loop.tell(pipe.server.process, max(pipe.arrives[0] - self._loop.now, _NOTICED), self._lose, pipe)
        self._loop.tell(gateway.process, _NOTICED, gateway.control_changed, False)

    @staticmethod
    def _lose(pipe: _Pipe) -> None:
        if pipe.server.pipes.pop(pipe.number, None) is not None:
            pipe.server.left(pipe.number)

    def control_ends(self, server: VirtualLink) -> None:
        """A control process is gone: its gateways hear of it."""
        if self.server is server:
            self.server = None
        server.pipes.clear()
        for number, pipe in list(self._pipes.items()):
            if pipe.server is server:
                pipe.gone = True
                del self._pipes[number]
                self._loop.tell(pipe.gateway.process, _NOTICED, pipe.gateway.control_changed, False)

    def reaches(self, process: VirtualProcess) -> bool:
        """Whether control hears a gateway's process, and it control."""
        now = self._loop.now
        found = (pipe for pipe in self._pipes.values() if pipe.gateway.process is process)
        return any(pipe.heard and not process.frozen and self.held.get(pipe.gateway.number, 0) <= now for pipe in found)

    def hold(self, gateway: int, until: Micros) -> None:
        """Messages of a gateway, in both directions, arrive only then."""
        self.held[gateway] = until
