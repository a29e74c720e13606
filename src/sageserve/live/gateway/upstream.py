"""Connections to engines: kept open, one request at a time on each, and closed at once when nobody wants the answer.

A connection finds the end of each answer and hands what comes to its `Taker`. One that was kept open may have been closed by
the engine at the same moment as it is used again; then nothing was begun, and the request may be sent on a fresh one.
Chooses nothing and retries nothing. Read next: `exchange.py`, the taker.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol, cast

from sageserve.base.units import SECOND, Micros
from sageserve.live.engine_access import OpenedAccess
from sageserve.live.gateway.framing import HEAD_MAX, BadAnswer, Body, OpenBody, ResponseHead, body_of, check_lines, read_head
from sageserve.live.gateway.sse import Overlong

CONNECT_S: Final = 2.0  # an engine that does not accept within it is not there: round trips between regions are below 0.3 s
IDLE: Final = 4 * SECOND  # uvicorn, and vLLM with it, closes after 5 s: be first, and lose no request to the race
_HIGH: Final = 256 << 10


class Taker(Protocol):
    """Who waits for an answer."""

    def answered(self, head: ResponseHead) -> None:
        """The head of the answer came."""

    def took(self, data: bytes, done: bool) -> None:
        """A part of the body came; `done` says it was the last."""

    def lost(self, reason: str, *, stale: bool) -> None:
        """The connection broke before the end; `stale`: it had been kept open and not a byte came back."""

    def drained(self, ready: bool) -> None:
        """The engine takes no more of the request for now (False), or takes it again (True)."""


class EngineConnection(asyncio.Protocol):
    """One connection to one engine."""

    __slots__ = ("_body", "_pool", "_rest", "fresh", "idle_since", "taker", "transport", "used")

    def __init__(self, pool: "ConnectionPool") -> None:
        self._pool = pool
        self._body: Body | None = None
        self._rest = b""
        self.taker: Taker | None = None
        self.transport: asyncio.Transport | None = None
        self.used = 0  # requests sent on it
        self.fresh = True  # something came since somebody last looked
        self.idle_since: Micros = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The engine accepted."""
        stream = cast("asyncio.Transport", transport)  # uvloop's are no subclasses
        stream.set_write_buffer_limits(high=_HIGH)
        stream.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.transport = stream

    def begin(self, taker: Taker, head: bytes, body: bytes) -> None:
        """Send a request; its answer goes to `taker`."""
        self.taker = taker
        if self.transport is None or self.transport.is_closing():
            self.taker = None
            lost = partial(taker.lost, "the engine closed the connection", stale=True)
            asyncio.get_running_loop().call_soon(lost)
            return
        self.used += 1
        self.fresh = True
        self._body = None
        self._rest = b""
        if len(body) < 1 << 16:
            self.transport.write(head + body)
        else:
            self.transport.writelines((head, body))

    def send(self, data: bytes) -> None:
        """Send a further part of a request."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        """A part of an answer came."""
        taker = self.taker
        if taker is None:
            self.abort()  # an engine that speaks unasked
            return
        self.fresh = True
        try:
            body = self._body
            if body is None:
                rest = self._head(taker, data)
                if rest is None or self.taker is not taker:
                    return
                body, data = self._body, rest
                if body is None:  # the whole answer came in one piece, as most that are not streamed
                    self._finish(taker, data, b"")
                    return
            payload = body.feed(data)
            if body.done:
                self._finish(taker, payload, body.extra)
            elif payload:
                taker.took(payload, False)
        except (BadAnswer, Overlong) as error:
            self._break(error.message)

    def _head(self, taker: Taker, data: bytes) -> bytes | None:
        """Read the head; what follows it, None while it is not complete. Interim answers are passed over."""
        data = self._rest + data
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                if len(data) > HEAD_MAX:
                    raise BadAnswer(f"an engine sent a head of more than {HEAD_MAX} bytes")
                check_lines(data)
                self._rest = data
                return None
            head = read_head(data[:end])
            data = data[end + 4 :]
            if head.status >= 200:
                break
            if head.status == 101:
                raise BadAnswer("an engine switched protocols")
        self._rest = b""
        if head.length != len(data):
            self._body = body_of(head)
        if not head.keep or isinstance(self._body, OpenBody):
            self.used = -1  # not to be used again
        taker.answered(head)
        return data

    def _finish(self, taker: Taker, payload: bytes, extra: bytes) -> None:
        self.taker = None
        if self.used > 0 and not extra and self.transport is not None and not self.transport.is_closing():
            self._pool.put(self)
        else:
            self.abort()
        taker.took(payload, True)

    def _break(self, reason: str) -> None:
        taker, self.taker = self.taker, None
        self.abort()
        if taker is not None:
            taker.lost(reason, stale=False)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed, by whichever side."""
        self.transport = None
        self._pool.forget(self)
        taker, self.taker = self.taker, None
        if taker is None:
            return
        if isinstance(self._body, OpenBody) and exc is None:
            taker.took(b"", True)
            return
        stale = self.used > 1 and self._body is None and not self._rest
        taker.lost(f"the connection broke ({exc})" if exc else "the engine closed the connection", stale=stale)

    def leave(self) -> None:
        """All that mattered of the answer came; keep the connection if the engine ends it properly and soon."""
        self.taker = _Rest(self._pool, self)
        self._pool.ending[self] = self._pool.clock()

    def let_go(self) -> None:
        """Nobody wants the rest of the answer: the engine learns it from the closed connection."""
        self.taker = None
        self.abort()

    def abort(self) -> None:
        """Close at once."""
        if self.transport is not None:
            self.transport.abort()

    def pause(self) -> None:
        """Take no more from the engine for now: the client does not keep up."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    def resume(self) -> None:
        """Take on."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def pause_writing(self) -> None:
        """The engine takes no more for now."""
        if self.taker is not None:
            self.taker.drained(False)

    def resume_writing(self) -> None:
        """The engine takes on."""
        if self.taker is not None:
            self.taker.drained(True)


class _Rest:
    """Waits for the end of an answer that nobody reads any more."""

    __slots__ = ("_connection", "_pool")

    def __init__(self, pool: "ConnectionPool", connection: EngineConnection) -> None:
        self._pool = pool
        self._connection = connection

    def answered(self, head: ResponseHead) -> None:
        """Never: the head came long ago."""

    def took(self, data: bytes, done: bool) -> None:
        """The end of the framing."""
        if done:
            self._pool.ending.pop(self._connection, None)

    def lost(self, reason: str, *, stale: bool) -> None:
        """It ended with the connection."""
        self._pool.ending.pop(self._connection, None)

    def drained(self, ready: bool) -> None:
        """Nothing is sent."""


class ConnectionPool:
    """Connections to one address that nobody uses at the moment, the last used first.

    Args:
        host: of the engine.
        port: of the engine.
        clock: microseconds.
        secured: under TLS, and how; None: in plain HTTP.
    """

    __slots__ = ("_host", "_idle", "_port", "_secured", "_tasks", "clock", "ending", "opened")

    def __init__(self, host: str, port: int, clock: Callable[[], Micros], secured: OpenedAccess | None = None) -> None:
        self._host = host
        self._port = port
        self._secured = secured
        self.clock = clock
        self.ending: dict[EngineConnection, Micros] = {}
        self._idle: deque[EngineConnection] = deque()
        self._tasks: set[asyncio.Task[EngineConnection]] = set()
        self.opened = 0

    def take(self) -> EngineConnection | None:
        """A kept connection, if there is one."""
        while self._idle:
            one = self._idle.pop()
            if one.transport is not None and not one.transport.is_closing():
                return one
        return None

    def put(self, one: EngineConnection) -> None:
        """Keep a connection whose answer is complete."""
        one.idle_since = 0
        self._idle.append(one)

    def forget(self, one: EngineConnection) -> None:
        """A connection is gone."""
        if one.taker is None and one in self._idle:
            self._idle.remove(one)

    def open(self, done: Callable[[EngineConnection | None, str], None]) -> None:
        """Connect; `done` is called with the connection, or with None and the reason, whatever happens."""
        task = asyncio.get_running_loop().create_task(self._open())
        self._tasks.add(task)
        task.add_done_callback(partial(self._opened, done))

    async def _open(self) -> EngineConnection:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_S):
            tls = self._secured.tls if self._secured is not None else None
            _, one = await loop.create_connection(lambda: EngineConnection(self), self._host, self._port, ssl=tls)
        return one

    def _opened(self, done: Callable[[EngineConnection | None, str], None], task: "asyncio.Task[EngineConnection]") -> None:
        self._tasks.discard(task)
        if task.cancelled():
            done(None, "the address is not used any more")
        elif (error := task.exception()) is None:
            self.opened += 1
            done(task.result(), "")
        elif isinstance(error, TimeoutError):
            done(None, f"no connection within {CONNECT_S} s")
        else:
            done(None, f"no connection: {getattr(error, 'strerror', None) or error}")

    def tidy(self, now: Micros) -> None:
        """Close what was idle for too long."""
        for one in self._idle:
            one.idle_since = one.idle_since or now
        while self._idle and now - self._idle[0].idle_since > IDLE:
            self._idle.popleft().abort()
        for one in [one for one, since in self.ending.items() if now - since > IDLE]:
            one.let_go()
            self.ending.pop(one, None)

    def close(self) -> None:
        """Close all that are idle, and give up connecting: who waits for a connection is told."""
        for task in self._tasks:
            task.cancel()
        while self._idle:
            self._idle.popleft().abort()
