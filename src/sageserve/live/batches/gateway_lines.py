"""Kept connections to the gateway, over which jobs go: one request at a time on each, each answer as a whole.

The gateway's own connections to engines, turned round: a general client took nine tenths of what a job of one token costs. An
answer that is packed although nobody asked for that is unpacked here. Must not know what an answer means. Read next:
`job_client.py`, the caller; `live/gateway/upstream.py`.
"""

import asyncio
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from sageserve.base.errors import SageServeError
from sageserve.base.units import Micros
from sageserve.live.gateway.framing import ResponseHead
from sageserve.live.gateway.upstream import ConnectionPool, EngineConnection

ANSWER_MAX: Final = 64 << 20  # bytes of an answer that are kept, as they are once unpacked
_PACKED: Final = frozenset(["gzip", "x-gzip", "deflate"])


class GatewayAway(SageServeError):
    """Nobody could be asked."""


class AnswerBroken(SageServeError):
    """No whole answer came."""


@dataclass(frozen=True, slots=True)
class GatewayAnswer:
    """What came back.

    Args:
        status: HTTP's.
        fields: header lines that are not about the framing, names in lower case.
        body: None when it is longer than ANSWER_MAX.
    """

    status: int
    fields: Mapping[str, str]
    body: bytes | None


class GatewayLines:
    """Connections to one gateway.

    Args:
        url: its base.
        answer_s: seconds to wait for an answer.
        clock: microseconds.
    """

    def __init__(self, url: str, answer_s: float, clock: Callable[[], Micros]) -> None:
        parts = urlsplit(url)
        self._authority = parts.netloc
        self._answer_s = answer_s
        self._pool = ConnectionPool(parts.hostname or "", parts.port or 80, clock)

    async def post(self, path: str, body: bytes, fields: str) -> GatewayAnswer:
        """Send a request and wait for its answer.

        Args:
            path: of the request.
            body: JSON.
            fields: header lines, each with its end.

        Raises:
            GatewayAway: the gateway cannot be reached.
            AnswerBroken: no answer came, or not the whole of it, or not in time.
        """
        head = f"POST {path} HTTP/1.1\r\nhost: {self._authority}\r\n{fields}content-length: {len(body)}\r\n\r\n".encode()
        try:
            async with asyncio.timeout(self._answer_s):
                return await _ask(self._pool.take() or await self._open(), head, body)
        except TimeoutError:
            raise AnswerBroken(f"nothing came within {self._answer_s:g} s") from None

    async def _open(self) -> EngineConnection:
        opened: asyncio.Future[EngineConnection] = asyncio.get_running_loop().create_future()

        def done(one: EngineConnection | None, reason: str) -> None:
            if one is None:
                if not opened.done():
                    opened.set_exception(GatewayAway(reason))
            elif opened.done():
                one.let_go()
            else:
                opened.set_result(one)

        self._pool.open(done)
        return await opened

    def close(self) -> None:
        """Close those that wait for a request."""
        self._pool.close()


async def _ask(one: EngineConnection, head: bytes, body: bytes) -> GatewayAnswer:
    whole = _Whole(one)
    one.begin(whole, head, body)
    try:
        return await whole.future
    except BaseException:
        if not whole.over:
            one.let_go()  # nobody waits any more: the gateway learns it from the closed connection
        raise


class _Whole:
    """Collects one answer."""

    __slots__ = ("_connection", "_head", "_parts", "_size", "future", "over")

    def __init__(self, connection: EngineConnection) -> None:
        self._connection = connection
        self._head: ResponseHead | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self.over = False
        self.future: asyncio.Future[GatewayAnswer] = asyncio.get_running_loop().create_future()

    def answered(self, head: ResponseHead) -> None:
        """The head came."""
        self._head = head

    def took(self, data: bytes, done: bool) -> None:
        """A part of the body came."""
        if self.over:
            return
        self._parts.append(data)
        self._size += len(data)
        if self._size > ANSWER_MAX:
            if not done:
                self._connection.let_go()
            self._end(None)
        elif done:
            self._end(b"".join(self._parts))

    def lost(self, reason: str, *, stale: bool) -> None:
        """The connection broke."""
        self.over = True
        if not self.future.done():
            self.future.set_exception(AnswerBroken(reason))

    def drained(self, ready: bool) -> None:
        """A job was handed over at once."""

    def _end(self, body: bytes | None) -> None:
        self.over = True
        head = self._head
        assert head is not None, "a body follows its head"
        if self.future.done():
            return
        lines = (line.decode("latin-1").partition(":") for line in head.fields if line)
        fields = {name.lower(): value.strip() for name, _, value in lines}
        try:
            if head.encoded and body is not None:
                body = _unpacked(body, fields.get("content-encoding", "").lower())
            self.future.set_result(GatewayAnswer(head.status, fields, body))
        except AnswerBroken as error:
            self.future.set_exception(error)


def _unpacked(packed: bytes, coding: str) -> bytes | None:
    """What is inside; None when that is longer than ANSWER_MAX.

    Raises:
        AnswerBroken: it is not packed as it says, or in a way that is not known here.
    """
    if coding not in _PACKED:
        raise AnswerBroken(f"the answer is packed as {coding[:40]}, which nobody asked for")
    unpack = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        found = unpack.decompress(packed, ANSWER_MAX + 1)
    except zlib.error as error:
        raise AnswerBroken(f"the answer cannot be unpacked: {error}") from None
    if len(found) > ANSWER_MAX:
        return None
    if not unpack.eof:
        raise AnswerBroken("the packed answer ends too early")
    return found
