"""Messages of `wire.py` over Unix sockets: four bytes of length, then msgpack.

`LinkServer` is control's side and has many gateways; `LinkClient` is a gateway's and connects again for ever, because a gateway
outlives control. A peer that breaks the framing, sends what cannot be decoded, or speaks another version is cut off, and
nobody else is harmed. Knows no meaning of any message. Read next: `wire.py` for the messages, `gateway/` for their reader.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol, cast

from msgspec import DecodeError

from sageserve.base.errors import SageServeError, in_words
from sageserve.live.wire import (
    FRAME_MAX,
    VERSION,
    Hello,
    RoutingTable,
    ToControl,
    ToGateway,
    decode_to_control,
    decode_to_gateway,
    encode,
)

_LOG = logging.getLogger(__name__)
_LENGTH: Final = 4  # bytes of the length in front
_HIGH: Final = 1 << 20  # bytes not taken by a peer before tables are skipped: about half a table of ten thousand instances
_SOON_S: Final = 0.05
_LATE_S: Final = 1.0  # control restarts within seconds; a gateway must not be the last to notice


class LinkBroken(SageServeError):
    """The bytes on a link are not messages, or the socket cannot be used."""


def frame(message: ToGateway | ToControl) -> bytes:
    """A message as it goes over the wire.

    Raises:
        LinkBroken: it is longer than FRAME_MAX.
    """
    body = encode(message)
    if len(body) > FRAME_MAX:
        raise LinkBroken(f"a {type(message).__name__} of {len(body)} bytes exceeds the {FRAME_MAX} of a frame")
    return len(body).to_bytes(_LENGTH, "big") + body


class Frames:
    """Cuts a stream of bytes, which may come in any pieces, into message bodies."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The bodies that are complete now, in order.

        Raises:
            LinkBroken: a length above FRAME_MAX: this is no peer of ours.
        """
        rest = self._rest
        rest += data
        bodies, at = [], 0
        while len(rest) - at >= _LENGTH:
            length = int.from_bytes(rest[at : at + _LENGTH], "big")
            if length > FRAME_MAX:
                raise LinkBroken(f"a frame says it has {length} bytes, at most {FRAME_MAX} are allowed")
            end = at + _LENGTH + length
            if len(rest) < end:
                break
            bodies.append(bytes(rest[at + _LENGTH : end]))
            at = end
        del rest[:at]
        return bodies


class _Pipe(asyncio.Protocol):
    """One end of a connection; tables that a slow peer has not taken yet are replaced, not piled up."""

    __slots__ = ("_frames", "_heard", "_later", "_lost", "_paused", "transport")

    def __init__(self, heard: Callable[["_Pipe", bytes], None], lost: Callable[["_Pipe"], None]) -> None:
        self._heard = heard
        self._lost = lost
        self._frames = Frames()
        self._paused = False
        self._later = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast("asyncio.Transport", transport)  # uvloop's are no subclasses
        stream.set_write_buffer_limits(high=_HIGH)
        self.transport = stream

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._frames.feed(data):
                self._heard(self, body)
        except (LinkBroken, DecodeError, UnicodeDecodeError) as error:
            _LOG.warning("a link was cut off: %s", error)
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._lost(self)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._later and self.transport is not None:
            data, self._later = self._later, b""
            self.transport.write(data)

    def send(self, data: bytes, *, replaceable: bool) -> bool:
        """Write a frame; False when the connection is gone."""
        if self.transport is None or self.transport.is_closing():
            return False
        if self._paused and replaceable:
            self._later = data
        else:
            self.transport.write(data)
        return True

    def abort(self) -> None:
        """Cut the connection."""
        if self.transport is not None:
            self.transport.abort()


class GatewayLink(Protocol):
    """Control's side of the link to its gateways."""

    async def open(self, path: Path) -> None:
        """Listen."""
        ...

    def send(self, gateway: int, message: ToGateway) -> bool:
        """Tell one gateway; False when it is gone."""
        ...

    async def close(self) -> None:
        """Hang up on everyone."""
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
    """

    def __init__(self, heard: Callable[[int, ToControl], None], left: Callable[[int], None], layout: str = "") -> None:
        self._heard = heard
        self._left = left
        self._layout = layout
        self._known: dict[_Pipe, int] = {}
        self._pipes: dict[int, _Pipe] = {}
        self._strangers: set[_Pipe] = set()
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

    def send(self, gateway: int, message: ToGateway) -> bool:
        """Tell one gateway; False when it is gone."""
        pipe = self._pipes.get(gateway)
        return pipe is not None and pipe.send(frame(message), replaceable=isinstance(message, RoutingTable))

    async def close(self) -> None:
        """Hang up on everyone and remove the socket."""
        if self._server is not None:
            self._server.close()
        for pipe in [*self._known, *self._strangers]:
            pipe.abort()
        if self._server is not None:
            await self._server.wait_closed()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _stranger(self) -> _Pipe:
        pipe = _Pipe(self._take, self._lose)
        self._strangers.add(pipe)
        return pipe

    def _take(self, pipe: _Pipe, body: bytes) -> None:
        message = decode_to_control(body)
        number = self._known.get(pipe)
        if number is None:
            if not isinstance(message, Hello) or message.protocol != VERSION:
                raise LinkBroken(f"a gateway began with {message}, expected a Hello of protocol {VERSION}")
            if self._layout not in {"", message.layout}:
                raise LinkBroken(f"gateway {message.worker} works with other settings, and is not listened to")
            number = self._next
            self._next += 1
            self._strangers.discard(pipe)
            self._known[pipe] = number
            self._pipes[number] = pipe
        self._heard(number, message)

    def _lose(self, pipe: _Pipe) -> None:
        self._strangers.discard(pipe)
        number = self._known.pop(pipe, None)
        if number is not None:
            del self._pipes[number]
            self._left(number)


class LinkClient:
    """A gateway's side; connects, and connects again whenever the connection is lost.

    Args:
        path: control's socket; it need not exist yet.
        hello: said first on each connection.
        heard: called with each message.
        changed: called with True after Hello was sent on a new connection, with False when it is lost.
    """

    def __init__(self, path: Path, hello: Hello, heard: Callable[[ToGateway], None], changed: Callable[[bool], None]) -> None:
        self._path = path
        self._hello = hello
        self._heard = heard
        self._changed = changed
        self._pipe: _Pipe | None = None
        self._lost = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

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
        loop = asyncio.get_running_loop()
        pause = _SOON_S
        while True:
            self._lost.clear()
            try:
                _, pipe = await loop.create_unix_connection(lambda: _Pipe(self._take, self._lose), str(self._path))
            except OSError:  # control is not there: the gateway goes on with what it knows, and asks again
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LATE_S)
                continue
            pause = _SOON_S
            self._pipe = pipe
            if pipe.send(frame(self._hello), replaceable=False):
                self._changed(True)
                await self._lost.wait()
            self._pipe = None
            await asyncio.sleep(_SOON_S)

    def _take(self, pipe: _Pipe, body: bytes) -> None:
        self._heard(decode_to_gateway(body))

    def _lose(self, pipe: _Pipe) -> None:
        if self._pipe is pipe:
            self._pipe = None
            self._changed(False)
        self._lost.set()


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
