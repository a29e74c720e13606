"""A client's connection: HTTP/1.1 as it is sent by anyone, taken apart within limits of size and time.

One request is answered at a time; what is pipelined waits in order, within bounds. Whatever two readers could take in two ways
is refused and the connection closed, so that nothing can be smuggled past. Decides nothing about a request but its kind.
Read next: `request.py` for header lines, `exchange.py` for requests to engines, `proxy.py` for those to control.
"""

import asyncio
from collections import deque
from typing import Final, cast

import httptools

from sageserve.base.units import SECOND, Micros
from sageserve.live.gateway.api_error import STATUS, ApiError, bad_request, header_too_large, last_answer, too_large, too_slow
from sageserve.live.gateway.context import GatewayContext
from sageserve.live.gateway.exchange import Exchange
from sageserve.live.gateway.pages import ASKED, LocalAnswer, is_proxied, show_page
from sageserve.live.gateway.proxy import Passage
from sageserve.live.gateway.request import BadFraming, HttpRequest, check_size, origin_form, read_fields
from sageserve.live.gateway.rights import identify

PIPELINED: Final = 32  # complete requests that may wait behind one
LINGER: Final = 2 * SECOND  # a client that is still sending must be able to read why it was refused
FLUSH: Final = 5 * SECOND  # for a client to take the end of an answer
_HIGH: Final = 64 << 10  # bytes a slow reader may leave untaken before its engine is held back
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_CLOSE: Final = b"connection: close\r\n"
_KEEP: Final = b"connection: keep-alive\r\n"
_JSON: Final = b"application/json"


class Client(asyncio.Protocol):
    """One connection.

    Args:
        context: what all requests share.
    """

    __slots__ = (
        "_busy",
        "_context",
        "_current",
        "_doom",
        "_ended",
        "_fresh",
        "_head_size",
        "_in_head",
        "_line",
        "_offered",
        "_one",
        "_parser",
        "_raw",
        "_since",
        "loopback",
        "modern",
        "paused",
        "transport",
    )

    def __init__(self, context: GatewayContext) -> None:
        self._context = context
        self._parser = httptools.HttpRequestParser(self)
        self._busy: Exchange | Passage | None = None
        self._current: HttpRequest | None = None  # being answered
        self._line: deque[HttpRequest] = deque()  # complete, and waiting for their turn
        self._one: HttpRequest | None = None  # coming in
        self._raw: list[tuple[bytes, bytes]] = []
        self._in_head = False
        self._head_size = 0
        self._offered = b""  # head of a request that offered another protocol
        self._doom: ApiError | None = None  # the connection ends with this answer
        self._ended = False  # nothing more is read or answered
        self._fresh = True  # something came since the last look
        self._since: Micros = 0  # of the last change: request begun, answered, or a byte seen; 0: at the next look
        self.loopback = False
        self.modern = True
        self.paused = False
        self.transport: asyncio.Transport = _NOWHERE

    # ------------------------------------------------------------------------------------------ from the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Someone connected."""
        stream = cast("asyncio.Transport", transport)  # uvloop's are no subclasses
        stream.set_write_buffer_limits(high=_HIGH)
        peer = stream.get_extra_info("peername")
        host = peer[0] if peer else ""
        self.loopback = not host or host.startswith("127.") or host in {"::1", "::ffff:127.0.0.1"}
        self.transport = stream
        self._since = self._context.clock()
        self._context.clients[self] = None

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        self._fresh = True
        if self._ended or self._doom is not None:
            return
        if self._one is None or self._in_head:
            self._head_size += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            self._doom = bad_request(f"This is not HTTP/1.1: {error}.", code="bad_http")
        if self._in_head and self._head_size > self._context.limits.headers:
            self._doom = header_too_large(self._context.limits.headers)
        if self._doom is not None and self._busy is None:
            self._die(self._doom)

    def _feed(self, data: bytes) -> None:
        while True:
            try:
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:  # an offer that is not taken up: the request stands
                # The parser takes what follows for the other protocol: give it the request again, without the offer.
                data = self._offered + data[int(upgrade.args[0]) :]
                self._offered = b""
                self._parser = httptools.HttpRequestParser(self)
                if self._doom is not None:
                    return

    def connection_lost(self, exc: Exception | None) -> None:
        """The client left, or was sent away."""
        self._ended = True
        self._context.clients.pop(self, None)
        busy, self._busy = self._busy, None
        if busy is not None:
            busy.gone()
        for one in (self._current, self._one, *self._line):
            if one is not None:
                one.release(self._context)
        self._line.clear()

    def pause_writing(self) -> None:
        """The client does not keep up."""
        self.paused = True
        self._since = self._context.clock()
        if self._busy is not None:
            self._busy.pause()

    def resume_writing(self) -> None:
        """The client keeps up again."""
        self.paused = False
        if self._busy is not None:
            self._busy.resume()

    # ------------------------------------------------------------------------------------------ from the parser

    def on_message_begin(self) -> None:
        """A request begins."""
        if self._doom is not None:
            return
        self._one = HttpRequest()
        self._raw = []
        self._in_head = True
        if self._busy is None:
            self._since = 0

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        if self._one is not None and self._in_head:
            self._one.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header line; those after the body are not passed on."""
        if self._in_head:
            self._raw.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is complete."""
        one, self._in_head = self._one, False
        size, self._head_size = self._head_size, 0
        if one is None or self._doom is not None:
            return
        try:
            self._examine(one, size)
        except ApiError as problem:
            self._doom = problem
        except BadFraming as error:
            self._doom = bad_request(f"The request is not well formed: {error.message}.", code="bad_http")

    def _examine(self, one: HttpRequest, size: int) -> None:
        context = self._context
        limit = context.limits.headers
        if size > limit and sum(len(name) + len(value) + 4 for name, value in self._raw) + len(one.url) > limit:
            raise header_too_large(limit)
        parser = self._parser
        one.method = parser.get_method()
        if parser.should_upgrade():
            self._offered = one.without_offer(self._raw, parser.get_http_version())
            return
        one.keep = parser.should_keep_alive()
        version = parser.get_http_version()
        one.modern = version == "1.1"
        read_fields(one, self._raw, version, keep_key=context.keys.open)
        if one.url[:1] != b"/":
            one.url = origin_form(one.url)
        one.path = one.url.partition(b"?")[0]
        one.id = one.noted.get(b"x-request-id") or context.request_id()
        one.ours = b"x-request-id: %b\r\n" % one.id
        one.proxied = is_proxied(one.path)
        identify(context, one, loopback=self.loopback)
        check_size(one, self._limit(one))
        expect = one.noted.get(b"expect")
        if expect is not None:
            if expect.lower() != b"100-continue":
                raise bad_request("The only expectation met is 100-continue.", status=417)
            if self._busy is None and not self._line and one.modern and one.length != 0:
                self.write(_CONTINUE)
        if one.proxied and self._busy is None and not self._line:
            self._serve(one)

    def _limit(self, one: HttpRequest) -> int:
        """Bytes of its body: an upload has a frame beside the file, and what waits for its turn waits in memory."""
        limits = self._context.limits
        waits = not one.proxied or (one.size and one is not self._current)
        return limits.body if waits else limits.file + (1 << 20)

    def on_body(self, data: bytes) -> None:
        """A part of the body."""
        if (one := self._one) is None or self._doom is not None:
            return
        one.size += len(data)
        if one.size > self._limit(one):
            self._too_large(one)
        elif one is self._current and isinstance(self._busy, Passage):
            self._busy.body(data)
        elif one.problem is None:
            self._doom = one.hold(self._context, data)

    def _too_large(self, one: HttpRequest) -> None:
        """The connection ends: the rest of the body is not wanted, and what was begun with its beginning neither."""
        self._doom = too_large(self._limit(one))
        if one is self._current and isinstance(busy := self._busy, Passage):
            self._busy = None
            busy.gone()
            if busy.answering:
                self._end(linger=False)

    def on_message_complete(self) -> None:
        """The request is complete. A doomed one stays: its refusal is to bear its name, and what it holds is to be given back."""
        if (one := self._one) is None or self._doom is not None:
            return
        self._one, one.complete = None, not self._offered
        if self._offered:  # it comes again, without the offer
            one.release(self._context)
        elif one is self._current:
            if isinstance(self._busy, Passage):
                self._busy.complete()
        elif self._busy is None and not self._line:
            self._serve(one)
        else:
            self._line.append(one)
            if len(self._line) > PIPELINED or sum(other.size for other in self._line) > self._context.limits.body:
                self._doom = bad_request("Too much was pipelined: wait for answers.", code="pipelining")

    # ------------------------------------------------------------------------------------------ answering

    def _serve(self, one: HttpRequest) -> None:
        """Answer a request: it is its turn."""
        context = self._context
        self._current = one
        self.modern = one.modern
        one.arrived = self._since = context.clock()
        try:
            if one.proxied:
                passage = self._busy = Passage(context, self, one)
                passage.begin()
            elif one.problem is not None:
                raise one.problem
            elif one.method == b"POST" and one.path in ASKED:
                exchange = self._busy = Exchange(context, self, one)
                exchange.begin()
            else:
                self._show(show_page(context, one))
        except ApiError as problem:
            self._busy = None
            if not one.complete:
                self._doom = problem  # the rest of its body is not wanted
            else:
                self.refuse(problem, b"")

    def refuse(self, problem: ApiError, own: bytes) -> None:
        """Answer the current request with an error; the connection is kept."""
        if self._current is not None:
            self._current.count_refusal(self._context, problem.status)
        self._show(LocalAnswer(problem.status, _JSON, problem.body(), problem.fields()), own)

    def _show(self, page: LocalAnswer, own: bytes = b"") -> None:
        one = self._current
        assert one is not None
        length = b"" if page.status == 204 else b"content-type: %b\r\ncontent-length: %d\r\n" % (page.kind, len(page.body))
        body = b"" if one.method == b"HEAD" else page.body
        line = b"%d %b" % (page.status, STATUS[page.status].encode())
        self.write(b"HTTP/1.1 %b\r\n%b%b%b%b\r\n%b" % (line, length, page.fields, own or one.ours, self.ending(), body))
        self.finished()

    def ending(self) -> bytes:
        """The header line that says whether the connection is kept."""
        one = self._current
        if one is None or not one.keep or not one.complete or self._context.draining:
            return _CLOSE
        return b"" if one.modern else _KEEP

    def finished(self) -> None:
        """The current answer is complete: the next, or the end of the connection."""
        one, self._current = self._current, None
        if one is not None:
            one.release(self._context)
        self._busy = None
        self._since = 0
        if one is None or not one.keep or self._context.draining or not one.complete:
            self._end(linger=one is not None and not one.complete)
        elif self._line:
            self._serve(self._line.popleft())
        elif self._doom is not None:
            self._die(self._doom)

    def cut(self) -> None:
        """The current answer cannot be completed."""
        self._busy = None
        self._end(linger=False)

    def write(self, data: bytes) -> None:
        """Send bytes."""
        if not self.transport.is_closing():
            self.transport.write(data)

    def hold(self, wait: bool) -> None:
        """Take no more of the body for now, or take on."""
        if not self.transport.is_closing():
            if wait:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    def _die(self, problem: ApiError) -> None:
        """Answer a request that could not be read to its end, and close."""
        if self._ended:
            return
        one = self._one or self._current or HttpRequest()
        one.count_refusal(self._context, problem.status)
        self.write(last_answer(problem, one.ours or b"x-request-id: %b\r\n" % self._context.request_id()))
        self._end(linger=True)

    def _end(self, *, linger: bool) -> None:
        """Nothing more is answered here."""
        self._ended = True
        self._since = self._context.clock()
        if linger and self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()
        else:
            self.transport.close()

    # ------------------------------------------------------------------------------------------ from the clock

    def check(self, now: Micros) -> None:
        """Send away who is too slow; called a few times a second."""
        self._since = self._since or now
        limits, passed = self._context.limits, now - self._since
        if self._ended:
            if passed > (FLUSH if self.transport.is_closing() else LINGER):
                self.transport.abort()
            return
        if self.paused and passed > limits.idle:
            self.transport.abort()
        elif self._in_head and self._busy is None:
            if passed > limits.header_wait:
                self._die(too_slow(f"the header did not come within {limits.header_wait / SECOND:g} s"))
        elif self._one is not None and not self._one.complete and self._doom is None:
            if self._fresh:
                self._fresh = False
                self._since = now
            elif passed > limits.body_wait and not (isinstance(self._busy, Passage) and self._busy.full):
                self._late_body()
        elif self._busy is None and passed > limits.idle:
            self._end(linger=False)

    def _late_body(self) -> None:
        problem = too_slow(f"nothing of the body came for {self._context.limits.body_wait / SECOND:g} s")
        busy, self._busy = self._busy, None
        if busy is None:
            self._die(problem)
        else:
            busy.gone()
            self.transport.abort()

    def leave(self) -> None:
        """The gateway closes: at once."""
        self.transport.abort()

    def retire(self) -> None:
        """The gateway drains: close if nothing is being answered."""
        if self._busy is None and self._one is None and not self._ended:
            self._end(linger=False)


_NOWHERE: Final = asyncio.Transport()
