"""HTTP/1.1 answers of engines: where the head ends, what it says, and the body without its framing.

Written by hand because it runs once per streamed token: a chunk that arrives whole costs one search and one slice. Gives the
same result however the bytes are cut. Knows no JSON and no events. Read next: `sse.py`, which reads the body.
"""

import re
from typing import Final

from sageserve.base.errors import SageServeError

HEAD_MAX: Final = 64 << 10
_LINE_MAX: Final = 4096  # of a chunk's size with extensions, or of a trailer
_DROPPED: Final = frozenset(
    [
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"upgrade",
        b"x-request-id",  # ours is the same, or the client's own
    ]
)


class BadAnswer(SageServeError):
    """An engine sent something that is not HTTP/1.1."""


class ResponseHead:
    """Status line and header lines of an answer.

    `fields` are the lines to pass on, each with its end; `length` is -1 when the head does not say; `events` and `json` tell the
    content type; `encoded` says that the body is compressed and cannot be read.
    """

    __slots__ = ("chunked", "encoded", "events", "fields", "json", "keep", "length", "line", "retry_after", "status")

    def __init__(self) -> None:
        self.line = b""
        self.status = 0
        self.fields: list[bytes] = []
        self.length = -1
        self.chunked = False
        self.events = False
        self.json = False
        self.encoded = False
        self.keep = True
        self.retry_after = False


_CONTROLS: Final = re.compile(rb"[\0\r\n]")  # within a line: a second reader may end it there
_BARE: Final = re.compile(rb"(?<!\r)\n")


def check_lines(data: bytes) -> None:
    """Refuse a head that is not complete and never will be, because its lines end in a bare line feed.

    Raises:
        BadAnswer: they do.
    """
    if _BARE.search(data):
        raise BadAnswer("an engine ended a header line with a bare line feed")


def read_head(data: bytes) -> ResponseHead:
    """Read a head, given without the empty line that ends it.

    Raises:
        BadAnswer: no status line of HTTP/1.x, or framing that contradicts itself.
    """
    line, _, rest = data.partition(b"\r\n")
    if line[:7] != b"HTTP/1." or not line[9:12].isdigit() or _CONTROLS.search(line):
        raise BadAnswer(f"an engine answered {line[:80]!r}, which is no status line of HTTP/1.1")
    head = ResponseHead()
    head.line = line
    head.status = int(line[9:12])
    head.keep = line[7:8] == b"1"
    if rest:
        fields = head.fields
        for field in rest.split(b"\r\n"):
            known = _PASSED.get(field)
            if known is None:
                if field in _KINDS:
                    head.events, head.json = _KINDS[field]
                    known = field + b"\r\n"
                elif field[:16] == b"content-length: " and head.length < 0 and field[16:].isdigit() and len(field) < 32:
                    head.length = int(field[16:])
                    continue
                else:
                    known = _read_line(head, field)
            fields.append(known)
    if head.status < 200 or head.status in {204, 304}:
        head.length, head.chunked = 0, False
    if head.chunked and head.length >= 0:
        raise BadAnswer("an engine sent both Content-Length and Transfer-Encoding")
    return head


_NOTED: Final = frozenset(
    [b"content-length", b"transfer-encoding", b"content-type", b"content-encoding", b"connection", b"retry-after"]
)
_KINDS: Final[dict[bytes, tuple[bool, bool]]] = {}
"""Content-Type lines that were seen, and whether they mean events or JSON."""
_PASSED: Final[dict[bytes, bytes]] = {}
_REMEMBERED: Final = 1024  # header lines
_PAGES: Final = b"access-control-"  # which pages of other sites may read an answer, live.cors alone says
_FRAMING: Final = _DROPPED | {b"content-length", b"transfer-encoding"}


def _read_line(head: ResponseHead, field: bytes) -> bytes:
    """What to pass on of a header line; lines that only pass are remembered, because engines repeat them in every answer."""
    name, colon, value = field.partition(b":")
    name = name.lower()
    if not colon or not name or name[:1] in b" \t" or name[-1:] in b" \t" or _CONTROLS.search(field):
        raise BadAnswer(f"an engine sent the header line {field[:80]!r}")
    if name in _NOTED:
        _note(head, name, value.strip())
        if name == b"content-type" and len(_KINDS) < _REMEMBERED and len(field) < 256:
            _KINDS[field] = head.events, head.json
    line = b"" if name in _FRAMING or name.startswith(_PAGES) else field + b"\r\n"
    if name not in _NOTED and len(field) < 256:
        if len(_PASSED) >= _REMEMBERED:
            _PASSED.clear()
        _PASSED[field] = line
    return line


def _note(head: ResponseHead, name: bytes, value: bytes) -> None:
    if name == b"content-length":
        if not value.isdigit() or len(value) > 15 or head.length >= 0:
            raise BadAnswer(f"an engine sent the Content-Length {value[:40]!r}, or several")
        head.length = int(value)
    elif name == b"transfer-encoding":
        if value.lower() != b"chunked" or head.chunked:
            raise BadAnswer(f"an engine sent the Transfer-Encoding {value[:40]!r}")
        head.chunked = True
    elif name == b"content-type":
        head.events = value.startswith(b"text/event-stream")
        head.json = value.startswith(b"application/json")
    elif name == b"content-encoding":
        head.encoded = value.lower() != b"identity"
    elif name == b"retry-after":
        head.retry_after = True
    else:
        head.keep = value.lower() != b"close" and (head.keep or value.lower() == b"keep-alive")


_HEX: Final = b"0123456789abcdefABCDEF"


class ChunkedBody:
    """Takes off the chunked coding; `feed` gives what is inside, `done` says that the last chunk came.

    `extra` is what came after the end: an engine that sends it is not to be talked to again on this connection.
    """

    __slots__ = ("_left", "_rest", "done", "extra")

    def __init__(self) -> None:
        self.done = False
        self.extra = b""
        self._rest = b""
        self._left = 0  # bytes of the chunk; or what comes next: 0 a size, -1 the end of a chunk, -2 a trailer

    def feed(self, data: bytes) -> bytes:
        """What of the body these bytes hold.

        Raises:
            BadAnswer: not the chunked coding.
        """
        if self._left != 0 or self._rest:
            return self._feed(data)
        parts: list[bytes] = []
        at, whole = 0, len(data)
        while at < whole:  # chunks as engines send them: whole, and without extensions; whatever else comes is left to `_feed`
            end = data.find(b"\r\n", at, at + 10)
            line = data[at:end]
            if end <= at or line.strip(_HEX):
                break
            stop = end + 2 + int(line, 16)
            if stop == end + 2 or data[stop : stop + 2] != b"\r\n":
                break
            parts.append(data[end + 2 : stop])
            at = stop + 2
        if at == whole and len(parts) == 1:
            return parts[0]
        return b"".join(parts) + self._feed(data[at:])

    def _feed(self, data: bytes) -> bytes:
        data = self._rest + data
        self._rest = b""
        parts: list[bytes] = []
        at = 0
        while at < len(data) and not self.done:
            if self._left > 0:
                piece = data[at : at + self._left]
                parts.append(piece)
                at += len(piece)
                self._left = self._left - len(piece) or -1
                continue
            end = data.find(b"\r\n", at)
            if (end if end >= 0 else len(data)) - at > _LINE_MAX:
                raise BadAnswer(f"an engine sent a line of more than {_LINE_MAX} bytes within its chunks")
            if end < 0:
                self._rest = data[at:]
                break
            self._line(data[at:end])
            at = end + 2
        if self.done:
            self.extra = data[at:]
        return b"".join(parts)

    def _line(self, line: bytes) -> None:
        """A line of the framing itself."""
        if self._left == -1:
            if line:
                raise BadAnswer("an engine sent a chunk longer than it said")
            self._left = 0
        elif self._left == 0:
            self._left = _size(line.partition(b";")[0].rstrip(b" \t")) or -2
        elif not line:  # the end of the trailers, which are not passed on
            self.done = True


def _size(text: bytes) -> int:
    if not text or text.strip(_HEX) or len(text) > 8:  # int() would take 0x10 as well
        raise BadAnswer(f"an engine sent {text[:40]!r} as the size of a chunk")
    return int(text, 16)


class CountedBody:
    """A body of known length."""

    __slots__ = ("_left", "done", "extra")

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = length == 0
        self.extra = b""

    def feed(self, data: bytes) -> bytes:
        """What of the body these bytes hold."""
        if len(data) > self._left:
            self.extra = data[self._left :]
            data = data[: self._left]
        self._left -= len(data)
        self.done = self._left == 0
        return data


class OpenBody:
    """A body that ends with the connection."""

    __slots__ = ("done", "extra")

    def __init__(self) -> None:
        self.done = False
        self.extra = b""

    def feed(self, data: bytes) -> bytes:
        """All of it."""
        return data


Body = ChunkedBody | CountedBody | OpenBody


def body_of(head: ResponseHead) -> Body:
    """The reader of the body that a head announces."""
    if head.chunked:
        return ChunkedBody()
    return CountedBody(head.length) if head.length >= 0 else OpenBody()
