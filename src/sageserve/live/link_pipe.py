"""One end of a link: messages of `wire.py` in frames, four bytes of length and then msgpack, whatever carries the bytes.

Knows no meaning of any message and opens nothing. Read next: `link.py`, which does.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final, cast

from msgspec import DecodeError

from sageserve.base.errors import SageServeError, in_words
from sageserve.live.wire import FRAME_MAX, ToControl, ToGateway, encode

_LOG: Final = logging.getLogger(__name__)
_LENGTH: Final = 4  # bytes of the length in front
_HIGH: Final = 1 << 20  # bytes not taken by a peer before tables are skipped: about half a table of ten thousand instances


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


class LinkPipe(asyncio.Protocol):
    """One end of a connection; tables that a slow peer has not taken yet are replaced, not piled up."""

    __slots__ = ("_frames", "_heard", "_later", "_lost", "_paused", "listens", "secret", "spoke", "transport", "why")

    def __init__(self, heard: Callable[["LinkPipe", bytes], None], lost: Callable[["LinkPipe"], None]) -> None:
        self._heard = heard
        self._lost = lost
        self._frames = Frames()
        self._paused = False
        self._later = b""
        self.transport: asyncio.Transport | None = None
        self.secret = ""  # that the other end may be told
        self.spoke = False  # the other end did
        self.listens = False  # it takes what we say
        self.why = ""  # it is over

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        stream = cast("asyncio.Transport", transport)  # uvloop's are no subclasses
        stream.set_write_buffer_limits(high=_HIGH)
        self.transport = stream

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        try:
            for body in self._frames.feed(data):
                self._heard(self, body)
                self.spoke = True
        except (LinkBroken, DecodeError, UnicodeDecodeError) as error:
            _LOG.warning("a link was cut off: %s", error)
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self.transport = None
        self.why = self.why or (in_words(exc) if exc is not None else "control hung up")
        self._lost(self)

    def pause_writing(self) -> None:
        """The other end does not keep up."""
        self._paused = True

    def resume_writing(self) -> None:
        """It keeps up again."""
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
