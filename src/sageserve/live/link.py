"""Messages of `wire.py` over a Unix socket, or over TCP.

`LinkServer` is control's side and has many gateways; `LinkClient` is a gateway's and connects again for ever, because a gateway
outlives control. A peer that breaks the framing or sends what cannot be decoded is cut off, one that knows no VERSION of ours or
has another layout is told so first, and nobody else is harmed. Knows no meaning of other messages. Read next: `wire.py` for them,
`link_port.py` for other machines, `gateway/` for their reader.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from msgspec import structs

from sageserve.base.errors import in_words
from sageserve.live.link_pipe import LinkBroken, LinkPipe, frame
from sageserve.live.wire import (
    OLDEST,
    VERSION,
    Hello,
    RoutingTable,
    ToControl,
    ToGateway,
    TurnedAway,
    Welcome,
    common_version,
    decode_to_control,
    decode_to_gateway,
)

_LOG = logging.getLogger(__name__)
_SOON_S: Final = 0.05
_LATE_S: Final = 1.0  # control restarts within seconds; a gateway must not be the last to notice
_WELCOMES: Final = 6  # the VERSION that has Welcome and TurnedAway
_TOLD_S: Final = 60.0  # that one who was turned away is told of; it asks each second
_REMEMBERED: Final = 8  # reasons for which gateways were turned away


class GatewayLink(Protocol):
    """Control's side of the link to its gateways."""

    async def open(self, path: Path) -> None:
        """Listen."""
        ...

    def send(self, gateway: int, message: ToGateway) -> bool:
        """Tell one gateway; False when it is gone."""
        ...

    def turned_away(self) -> tuple[str, ...]:
        """Gateways that are not listened to, in sentences."""
        ...

    async def close(self) -> None:
        """Hang up on everyone."""
        ...


class OpenedPort(Protocol):
    """Where gateways on other machines connect; `link_port.py` has it."""

    @property
    def secret(self) -> str:
        """That they are told."""
        ...

    async def open(self, link: Callable[[], asyncio.Protocol]) -> None:
        """Listen."""
        ...

    async def close(self) -> None:
        """Listen no more."""
        ...


class FarControl(Protocol):
    """Control on another machine; `link_port.py` has it."""

    async def connect(self, made: Callable[[], asyncio.Protocol]) -> None:
        """Connect."""
        ...


class LinkKind(Protocol):
    """Makes the link: who is told of messages, and of gateways that are gone; the mark of the layout that gateways must have."""

    def __call__(self, heard: Callable[[int, ToControl], None], left: Callable[[int], None], layout: str) -> GatewayLink:
        """A link that is not open yet."""
        ...


class LinkServer:
    """Control's side.

    Args:
        heard: called with the number of a gateway and its message; the first message of each is its Hello.
        left: called when a gateway that had said Hello is gone.
        layout: mark of the layout; a gateway with another one, as after a change of settings, is not listened to. Empty: any.
        port: for gateways on other machines; None: there are none.
    """

    def __init__(
        self,
        heard: Callable[[int, ToControl], None],
        left: Callable[[int], None],
        layout: str = "",
        port: OpenedPort | None = None,
    ) -> None:
        self._port = port
        self._turned: dict[str, tuple[int, float]] = {}  # away, by why: how often, and when last
        self._heard = heard
        self._left = left
        self._layout = layout
        self._known: dict[LinkPipe, int] = {}
        self._pipes: dict[int, LinkPipe] = {}
        self._strangers: set[LinkPipe] = set()
        self._next = 0
        self._server: asyncio.Server | None = None
        self._path: Path | None = None

    @property
    def gateways(self) -> tuple[int, ...]:
        """Numbers of the gateways that are connected; a gateway that connects again has a new one."""
        return tuple(self._pipes)

    async def open(self, path: Path) -> None:
        """Listen on a socket that only this user may connect to; a socket that a dead process left behind is replaced.

        Raises:
            LinkBroken: another process listens there, or the path cannot be used.
        """
        _take_path(path)
        try:
            self._server = await asyncio.get_running_loop().create_unix_server(self._stranger, str(path))
            path.chmod(0o600)  # noqa: ASYNC240 # one system call on a local socket, at the start
        except OSError as error:
            raise LinkBroken(
                f"cannot listen on {path}: {in_words(error)}", hint="choose a shorter path in a folder of your own"
            ) from error
        self._path = path
        if self._port is not None:
            try:
                await self._port.open(lambda: self._stranger(self._port))
            except OSError as error:
                raise LinkBroken(
                    f"live.link.listen cannot be listened on: {in_words(error)}", hint="choose another address or port"
                ) from error

    def send(self, gateway: int, message: ToGateway) -> bool:
        """Tell one gateway; False when it is gone."""
        pipe = self._pipes.get(gateway)
        return pipe is not None and pipe.send(frame(message), replaceable=isinstance(message, RoutingTable))

    def turned_away(self) -> tuple[str, ...]:
        """Gateways that are not listened to, in sentences; those that do not come back are gone."""
        late = asyncio.get_running_loop().time() - _TOLD_S
        return tuple(f"{why} ({n:,} x so far)." for why, (n, at) in self._turned.items() if at > late)

    async def close(self) -> None:
        """Hang up on everyone and remove the socket."""
        if self._server is not None:
            self._server.close()
        if self._port is not None:
            await self._port.close()
        for pipe in [*self._known, *self._strangers]:
            pipe.abort()
        if self._server is not None:
            await self._server.wait_closed()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _stranger(self, port: OpenedPort | None = None) -> LinkPipe:
        pipe = LinkPipe(self._take, self._lose)
        pipe.secret = port.secret if port is not None else ""
        self._strangers.add(pipe)
        return pipe

    def _take(self, pipe: LinkPipe, body: bytes) -> None:
        message = decode_to_control(body)
        number = self._known.get(pipe)
        if number is None:
            if not isinstance(message, Hello):
                raise LinkBroken(f"a gateway began with {message}, expected a Hello")
            version = common_version(message)
            if why := self._why_not(message, version):
                self._turn_away(pipe, message, why)
                return
            self._turned.pop(next((one for one in self._turned if one.startswith(_name_of(message))), ""), None)
            number = self._next
            self._next += 1
            self._strangers.discard(pipe)
            self._known[pipe] = number
            self._pipes[number] = pipe
            if version >= _WELCOMES:
                pipe.send(frame(Welcome(version, pipe.secret)), replaceable=False)
        self._heard(number, message)

    def _why_not(self, hello: Hello, version: int) -> str:
        """Why a gateway is not listened to; empty: it is."""
        if not version:
            age, who = ("old", "gateway") if hello.protocol < VERSION else ("new", "control")
            spoken = f"it speaks version {hello.protocol} of the link, control speaks {OLDEST} and {VERSION}"
            return f"is too {age}: {spoken}; replace the {who} with one of a later release"
        if self._layout not in {"", hello.layout}:
            return f"works with other settings (layout {hello.layout}, control has {self._layout}); give both the same scenario"
        return ""

    def _turn_away(self, pipe: LinkPipe, hello: Hello, why: str) -> None:
        said = f"{_name_of(hello)} {why}"
        if said not in self._turned:
            _LOG.error("%s", said)
            while len(self._turned) >= _REMEMBERED:
                del self._turned[next(iter(self._turned))]
        self._turned[said] = self._turned.get(said, (0, 0.0))[0] + 1, asyncio.get_running_loop().time()
        if hello.protocol >= _WELCOMES:
            pipe.send(frame(TurnedAway(f"this gateway {why}")), replaceable=False)
        if pipe.transport is not None:
            pipe.transport.close()

    def _lose(self, pipe: LinkPipe) -> None:
        self._strangers.discard(pipe)
        number = self._known.pop(pipe, None)
        if number is not None:
            del self._pipes[number]
            self._left(number)


class LinkClient:
    """A gateway's side; connects, and connects again whenever the connection is lost.

    To a control on this machine that hangs up without a word the VERSION before is spoken the next time: it may know no other.
    On another machine it does so where it does not believe us, and knows the VERSION that has Welcome: its port came with that.

    Args:
        control: its socket, which need not exist yet; or its address on another machine.
        hello: said first on each connection.
        heard: called with each message but TurnedAway.
        changed: called with True when control began to speak on a new connection, with False when that is lost.
    """

    def __init__(
        self, control: Path | FarControl, hello: Hello, heard: Callable[[ToGateway], None], changed: Callable[[bool], None]
    ) -> None:
        self._control = control
        self._hello = structs.replace(hello, oldest=OLDEST)
        self._heard = heard
        self._changed = changed
        self._pipe: LinkPipe | None = None
        self._lost = asyncio.Event()
        self._older = False  # the VERSION before is spoken
        self._task: asyncio.Task[None] | None = None
        self.why = ""  # control is not there, as far as is known

    @property
    def connected(self) -> bool:
        """Whether control can be told anything now."""
        return self._pipe is not None

    def start(self) -> None:
        """Begin to connect, in the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._keep())

    def send(self, message: ToControl) -> bool:
        """Tell control; False when nobody listens."""
        return self._pipe is not None and self._pipe.send(frame(message), replaceable=False)

    async def close(self) -> None:
        """Hang up and stop trying."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._pipe is not None and self._pipe.transport is not None:
            self._pipe.transport.close()

    async def _keep(self) -> None:
        pause = _SOON_S
        while True:
            self._lost.clear()
            pipe = LinkPipe(self._take, self._lose)
            try:
                await self._connect(pipe)
            except OSError as error:  # control is not there: the gateway goes on with what it knows, and asks again
                self._miss(in_words(error))
            else:
                self._pipe = pipe
                hello = structs.replace(self._hello, protocol=OLDEST) if self._older else self._hello
                if pipe.send(frame(hello), replaceable=False):
                    await self._lost.wait()
                self._pipe = None
                if pipe.listens:
                    pause = _SOON_S
                elif not pipe.spoke:
                    self._older = not self._older and isinstance(self._control, Path)
                    self._miss(f"{pipe.why} without a word, as it does where it does not believe our certificate")
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LATE_S)

    async def _connect(self, pipe: LinkPipe) -> None:
        if isinstance(self._control, Path):
            await asyncio.get_running_loop().create_unix_connection(lambda: pipe, str(self._control))
        else:
            await self._control.connect(lambda: pipe)

    def _miss(self, why: str) -> None:
        """Say why control is not there; on this machine it comes and goes by itself, and nobody need be told."""
        if why != self.why and not isinstance(self._control, Path):
            _LOG.warning("control at %s is not heard: %s", self._control, why)
        self.why = why

    def _take(self, pipe: LinkPipe, body: bytes) -> None:
        message = decode_to_gateway(body)
        if isinstance(message, TurnedAway):
            if message.why != self.why:
                _LOG.error("control does not listen to us: %s", message.why)
            self.why = pipe.why = message.why
            return
        if not pipe.listens:
            pipe.listens, self.why = True, ""
            self._changed(True)
        self._heard(message)

    def _lose(self, pipe: LinkPipe) -> None:
        if self._pipe is pipe:
            self._pipe = None
            if pipe.listens:
                self._changed(False)
        self._lost.set()


def _name_of(hello: Hello) -> str:
    release = f", {hello.release}" if hello.release else ""
    return f"Gateway {hello.worker}{f' on {hello.host}' if hello.host else ''}{release}"


def _take_path(path: Path) -> None:
    """Remove a socket nobody listens on; refuse one that somebody does."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:  # left behind by a process that is gone
            path.unlink(missing_ok=True)
            return
    raise LinkBroken(f"another process listens on {path}", hint="stop it first, or name another state folder")
