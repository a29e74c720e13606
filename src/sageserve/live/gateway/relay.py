"""Passing an engine's answer on: as events, as one JSON body, or as bytes nobody here can read.

Each relay takes parts of the body and says when the answer is complete (Done) or can never be (Cut). What the client sees is
written by `ClientReply`. Chooses no instance and counts nothing but bytes. Read next: `exchange.py`, which decides what follows.
"""

from typing import Final, NamedTuple

from sageserve.core.admit import SHORTEST
from sageserve.live.gateway.api_error import ApiError, engine_body, retry_fields
from sageserve.live.gateway.downstream import Downstream
from sageserve.live.gateway.framing import ResponseHead
from sageserve.live.gateway.record import RequestRecord
from sageserve.live.gateway.sse import Names, SseTagger, tag_body, usage_of

WHOLE_MAX: Final = 8 << 20  # bytes of a JSON answer that is held back to be completed; a longer one is passed on as it comes

_STREAMED: Final = frozenset([b"cache-control", b"x-accel-buffering"])  # what every stream says of these is ours to say


class AnswerDone(NamedTuple):
    """The answer is complete. Tokens as the engine said: None where it did not."""

    prompt: int | None
    output: int


class Cut(NamedTuple):
    """The engine ended, but its answer did not."""

    reason: str


class ClientReply:
    """What is written to the client.

    `opened` says that something of the answer was: from then on an error can only be an event.
    """

    __slots__ = ("_chunked", "_client", "_record", "_transport", "opened")

    def __init__(self, client: Downstream, record: RequestRecord) -> None:
        self._client = client
        self._transport = client.transport
        self._chunked = client.modern
        self._record = record
        self.opened = False

    def open(self, head: ResponseHead | None, length: int = -1, body: bytes = b"") -> None:
        """Send the head: the engine's with our lines added; without one, that of a stream.

        Args:
            head: of the engine's answer.
            length: of the body, when it is known; else it is chunked.
            body: all of it, to go out in the same write.
        """
        self.opened = True
        if head is None:
            line, fields, events = b" 200 OK", b"content-type: text/event-stream; charset=utf-8\r\n", True
        else:
            line, events = head.line[8:], head.events
            kept = [one for one in head.fields if one.partition(b":")[0].lower() not in _STREAMED] if events else head.fields
            fields = b"".join(kept)
        extra = b"cache-control: no-cache\r\nx-accel-buffering: no\r\n" if events else b""
        if length >= 0:
            self._chunked = False
            framing = b"content-length: %d\r\n" % length
        else:
            framing = b"transfer-encoding: chunked\r\n" if self._chunked else b""
        ours = self._record.fields()
        if self._transport.is_closing():
            return
        self._transport.write(
            b"HTTP/1.1%b\r\n%b%b%b%b%b\r\n%b" % (line, fields, extra, ours, self._client.ending(), framing, body)
        )

    def part(self, data: bytes, *, last: bool = False) -> None:
        """Send a part of the body; the last one ends it."""
        if self._transport.is_closing():
            return
        if self._chunked:
            if data:
                self._transport.write(b"%x\r\n%b\r\n%b" % (len(data), data, b"0\r\n\r\n" if last else b""))
            elif last:
                self._transport.write(b"0\r\n\r\n")
        elif data:
            self._transport.write(data)
        self._record.bytes += len(data)

    def ping(self) -> None:
        """Send a comment, which clients pass over; the first thing that is sent, if it has to be."""
        if not self.opened:
            self.open(None)
        self.part(b": ping\n\n")

    def error(self, problem: ApiError) -> None:
        """Send an error as an event; nothing may follow, and the body is not ended."""
        self.part(b"data: %b\n\n" % problem.body())


class EventRelay:
    """A stream of events; nothing is sent before the first of them came, so that until then another engine may take over."""

    streams: Final = True
    __slots__ = ("_events", "_head", "_reply")

    def __init__(self, reply: ClientReply, head: ResponseHead, events: SseTagger) -> None:
        self._reply = reply
        self._head = head
        self._events = events

    @property
    def made(self) -> int:
        """Tokens that were passed on so far."""
        return self._events.made

    def took(self, data: bytes, done: bool) -> AnswerDone | Cut | None:
        """Pass on the events that are whole."""
        events, reply = self._events, self._reply
        if not reply.opened:
            reply.open(self._head)
        out = events.feed(data)
        if done and not events.done:
            out += events.end()
        if events.done:
            reply.part(out, last=True)
            return AnswerDone(*events.usage())
        if out:
            reply.part(out)
        return Cut("the engine ended it without [DONE]") if done else None


class WholeRelay:
    """One JSON body, or an error; held back until it is whole, unless it is too long for that."""

    made: Final = 0  # tokens that were passed on, as far as anyone can tell
    __slots__ = ("_head", "_names", "_parts", "_reply", "_size", "_tag", "streams")

    def __init__(self, reply: ClientReply, head: ResponseHead, tag: bytes, names: Names | None) -> None:
        self._reply = reply
        self._head = head
        self._tag = tag
        self._names = names
        self._parts: list[bytes] = []
        self._size = 0
        self.streams = False

    def took(self, data: bytes, done: bool) -> AnswerDone | Cut | None:
        """Keep a part; with the last one, pass on the whole."""
        if self.streams:
            self._reply.part(data, last=done)
            return AnswerDone(None, 0) if done else None
        self._parts.append(data)
        self._size += len(data)
        if done:
            return self._pass(data if len(self._parts) == 1 else b"".join(self._parts))
        if self._size > WHOLE_MAX:
            self.streams = True
            self._reply.open(self._head)
            self._reply.part(b"".join(self._parts))
            self._parts.clear()
        return None

    def _pass(self, body: bytes) -> AnswerDone | Cut:
        head = self._head
        if self._reply.opened:  # a stream was announced, and its first event is an error
            line = b" ".join(engine_body(head.status, body).splitlines())
            self._reply.part(b"data: %b\n\n" % line)
            return Cut(f"the engine answered with status {head.status}")
        prompt = output = None
        if head.status >= 400:
            body = engine_body(head.status, body)
            head.fields = [line for line in head.fields if line[:13].lower() != b"content-type:"]
            head.fields.append(b"content-type: application/json\r\n")
            if head.status in {429, 503} and not head.retry_after:
                head.fields.append(retry_fields(10 * SHORTEST))
        elif head.json:
            body = tag_body(body, self._tag, self._names)
            prompt, output = usage_of(body)
        self._reply.open(head, len(body), body)
        return AnswerDone(prompt, output or 0)


class RawRelay:
    """Bytes passed on as they come."""

    made: Final = 0  # as above
    streams: Final = True
    __slots__ = ("_head", "_reply")

    def __init__(self, reply: ClientReply, head: ResponseHead) -> None:
        self._reply = reply
        self._head = head

    def took(self, data: bytes, done: bool) -> AnswerDone | None:
        """Pass on a part."""
        if not self._reply.opened:
            self._reply.open(self._head, self._head.length)
        self._reply.part(data, last=done)
        return AnswerDone(None, 0) if done else None


Relay = EventRelay | WholeRelay | RawRelay


def fit_relay(reply: ClientReply, head: ResponseHead, path: bytes, tag: bytes, names: Names | None) -> Relay | None:
    """The relay that an answer needs; None when the client was told of a stream, and this is none.

    Args:
        reply: to the client.
        head: of the engine's answer.
        path: that was asked.
        tag: the tier that was used, as answers state it.
        names: how to bring back the client's name of the model; None when it is the engine's.
    """
    if head.status == 200 and head.events and not head.encoded:
        whole = not path.endswith((b"/responses", b"/messages"))  # whose events are not answers, but steps of one
        return EventRelay(reply, head, SseTagger(tag, insert=whole, names=names))
    if not head.encoded and head.length <= WHOLE_MAX and (head.json or head.status >= 400):
        return WholeRelay(reply, head, tag, names)
    return None if reply.opened else RawRelay(reply, head)
