"""HTTP/1.1 of the emulated engine: one protocol object per connection, requests answered one after the other.

A client that goes away is told to whoever answers it, at once. Knows no path and no model. Read next: `engine.py`.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, Protocol, cast

import httptools

BODY_MAX: Final = 64 << 20
HEADERS_MAX: Final = 64 << 10
PIPELINED_MAX: Final = 16  # requests sent ahead on one connection; hardly any client sends one
_JSON: Final = "application/json"
_PHRASES: Final = {one.value: one.phrase for one in HTTPStatus}


@dataclass(slots=True)
class Request:
    """A whole request."""

    method: str = ""
    path: str = ""
    headers: dict[str, str] = field(default_factory=dict)  # names in lower case
    body: bytes = b""
    keep: bool = True


class Responder(Protocol):
    """Answers requests."""

    def answer(self, request: Request, reply: "EngineReply") -> None:
        """Begin to answer; `reply` is used now or later."""


class EngineReply:
    """The way back to one request's client. After the client has gone, what is sent goes nowhere."""

    __slots__ = ("_connection", "_keep", "_open", "on_gone")

    def __init__(self, connection: "ServedConnection", *, keep: bool) -> None:
        self._connection = connection
        self._keep = keep
        self._open = True
        self.on_gone: Callable[[], None] | None = None  # called once when the client goes before the end

    def send(self, status: int, body: bytes, *, kind: str = _JSON, headers: tuple[tuple[str, str], ...] = ()) -> None:
        """Answer with a whole body."""
        self._write(self._head(status, kind, headers) + b"content-length: %d\r\n\r\n%b" % (len(body), body))
        self._done()

    def begin_stream(self) -> None:
        """Answer with a stream of events; `chunk` and `end` follow."""
        headers = (("cache-control", "no-cache"), ("x-accel-buffering", "no"), ("transfer-encoding", "chunked"))
        self._write(self._head(200, "text/event-stream; charset=utf-8", headers) + b"\r\n")

    def chunk(self, data: bytes) -> None:
        """Send a part of a stream."""
        self._write(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        """Close a stream as it should be."""
        self._write(b"0\r\n\r\n")
        self._done()

    def cut(self) -> None:
        """Break the connection, in mid-answer or before it."""
        self._open = False
        self._connection.cut()

    def gone(self) -> None:
        """The client has gone away."""
        if self._open:
            self._open = False
            if self.on_gone is not None:
                self.on_gone()

    def _head(self, status: int, kind: str, headers: tuple[tuple[str, str], ...]) -> bytes:
        lines = [f"HTTP/1.1 {status} {_PHRASES.get(status, '')}", "server: sageserve", f"content-type: {kind}"]
        lines += [f"{name}: {value}" for name, value in headers]
        if not self._keep:
            lines.append("connection: close")
        return "\r\n".join(lines).encode("latin-1") + b"\r\n"

    def _write(self, data: bytes) -> None:
        if self._open:
            self._connection.write(data)

    def _done(self) -> None:
        if self._open:
            self._open = False
            self._connection.answered(keep=self._keep)


class ServedConnection(asyncio.Protocol):
    """Bytes to requests and back.

    Args:
        responder: who answers.
        everyone: all connections that are open, for shutting down.
    """

    def __init__(self, responder: Responder, everyone: "set[ServedConnection]") -> None:
        self._responder = responder
        self._everyone = everyone
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._reading = Request()
        self._body: list[bytes] = []
        self._size = 0
        self._header_size = 0
        self._waiting: list[Request] = []
        self._reply: EngineReply | None = None
        self._out: list[bytes] = []

    # --- asyncio's side ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        self._everyone.add(self)

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(400)
        except httptools.HttpParserError:
            if self._transport is not None and not self._transport.is_closing():
                self._refuse(400)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, for whatever reason."""
        self._everyone.discard(self)
        self._transport = None
        self._waiting.clear()
        if self._reply is not None:
            self._reply.gone()

    # --- the parser's side ---

    def on_message_begin(self) -> None:
        """A request begins."""
        self._reading = Request()
        self._body = []
        self._size = self._header_size = 0

    def on_url(self, url: bytes) -> None:
        """A part of its path."""
        self._reading.path += url.decode("latin-1")
        self._limit_headers(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """One of its headers."""
        self._limit_headers(len(name) + len(value))
        self._reading.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """All of its headers."""
        if self._reading.headers.get("expect", "").lower() == "100-continue":
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """A part of its body."""
        self._size += len(body)
        if self._size > BODY_MAX:
            self._refuse(413)
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """All of it: answer it, or keep it until the one before is answered."""
        request = self._reading
        request.body = b"".join(self._body)
        request.method = self._parser.get_method().decode("latin-1")
        request.keep = self._parser.should_keep_alive()
        if self._transport is None or self._transport.is_closing():
            return
        if self._reply is None:
            self._answer(request)
        elif len(self._waiting) < PIPELINED_MAX:
            self._waiting.append(request)
        else:
            self.close()

    # --- the reply's side ---

    @property
    def idle(self) -> bool:
        """Whether no request is being answered."""
        return self._reply is None

    def write(self, data: bytes) -> None:
        """Send, together with what else is sent at this instant."""
        if self._transport is not None:
            if not self._out:
                asyncio.get_running_loop().call_soon(self._flush)
            self._out.append(data)

    def cut(self) -> None:
        """Drop the connection without an end."""
        if self._transport is not None:
            self._flush()
            self._transport.abort()

    def close(self) -> None:
        """Close after what was written is sent."""
        if self._transport is not None:
            self._flush()
            self._transport.close()

    def answered(self, *, keep: bool) -> None:
        """The present request is done with."""
        self._reply = None
        if not keep:
            self.close()
        elif self._waiting:
            self._answer(self._waiting.pop(0))

    def _answer(self, request: Request) -> None:
        self._reply = EngineReply(self, keep=request.keep)
        self._responder.answer(request, self._reply)

    def _flush(self) -> None:
        if self._transport is not None and self._out:
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def _limit_headers(self, size: int) -> None:
        self._header_size += size
        if self._header_size > HEADERS_MAX:
            self._refuse(431)

    def _refuse(self, status: int) -> None:
        if self._transport is not None and not self._transport.is_closing():
            if self._reply is None:
                phrase = _PHRASES[status].encode()
                self.write(b"HTTP/1.1 %d %b\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % (status, phrase))
            self.close()
