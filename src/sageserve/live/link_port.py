"""The link between machines: the port at which control hears gateways, and the address at which a gateway finds it.

Under TLS both ends show a certificate, or in the clear on the loopback address alone. One port, two kinds of peers, told apart by
the first byte: a link's frames, and the HTTP of gateways that hand on requests for files, batches and pages, which goes to
control's own HTTP server as it is. Files that are renewed are used from the next connection on. A peer whose machine is gone is
noticed by the kernel. Knows no message. Read next: `link.py`, docs/how-to/gateways-elsewhere.md.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Final, cast
from urllib.parse import urlsplit

from sageserve.base.config import EngineAccess, LinkSettings
from sageserve.base.config.link import LOOPBACK
from sageserve.base.errors import ConfigError, in_words
from sageserve.base.urls import shown_url
from sageserve.live.certificates import ServedCertificate
from sageserve.live.engine_access import OpenedAccess
from sageserve.live.wire import FRAME_MAX

_LOG: Final = logging.getLogger(__name__)
_SHAKE_S: Final = 10.0  # for a connection and its handshake
_LOST_S: Final = 20  # after which a peer that acknowledges nothing is gone; reports go several times a second
_FIRST_MOST: Final = FRAME_MAX >> 24  # the first byte of a frame's length; HTTP begins with a letter
_BESIDE: Final = (  # names of the system's options, where it has them, and seconds or counts
    ("TCP_KEEPIDLE", 10),
    ("TCP_KEEPINTVL", 5),
    ("TCP_KEEPCNT", 2),
    ("TCP_USER_TIMEOUT", 1000 * _LOST_S),
)


class LinkPort:
    """Control's port.

    Args:
        settings: where, and with which certificate.
        control: host and port of control's HTTP server, which requests go to that are no link's.
        secret: of the fleet's own processes, for gateways that have shown a certificate.

    Raises:
        ConfigError: the certificate cannot be used.
    """

    def __init__(self, settings: LinkSettings, control: tuple[str, int], secret: str) -> None:
        self.secret: Final = secret if settings.tls is not None else ""
        self.port = 0
        self._settings = settings
        self._control = control
        self._certificate = ServedCertificate(settings.tls, "live.link.tls") if settings.tls is not None else None
        self._server: asyncio.Server | None = None
        self._doors: set[_Door] = set()
        self._looking: asyncio.Task[None] | None = None

    async def open(self, link: Callable[[], asyncio.Protocol]) -> None:
        """Listen; `link` makes what takes frames in.

        Raises:
            OSError: the port cannot be had.
        """
        host, _, port = self._settings.listen.rpartition(":")
        tls = self._certificate.context if self._certificate is not None else None
        shake_s = _SHAKE_S if tls is not None else None
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Door(link, self._control, self._doors),
            host.strip("[]"),
            int(port),
            ssl=tls,
            ssl_handshake_timeout=shake_s,
        )
        self.port = int(self._server.sockets[0].getsockname()[1])
        _LOG.info("gateways on other machines are heard at %s:%d", host, self.port)
        if self._certificate is not None:
            self._looking = loop.create_task(self._look(self._certificate))

    @staticmethod
    async def _look(certificate: ServedCertificate) -> None:
        while True:
            await asyncio.sleep(1.0)
            certificate.look()

    async def close(self) -> None:
        """Listen no more, and hang up on requests; links are whoever's made them."""
        if self._looking is not None:
            self._looking.cancel()
        if self._server is not None:
            self._server.close()
        for door in list(self._doors):
            door.leave()


class _Door(asyncio.Protocol):
    """A connection of which nothing is known until its first byte."""

    def __init__(self, link: Callable[[], asyncio.Protocol], control: tuple[str, int], doors: "set[_Door]") -> None:
        self._link = link
        self._control = control
        self._doors = doors
        self._here: asyncio.Transport | None = None
        self._there: asyncio.Transport | None = None
        self._early = b""
        self._reaching: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._here = cast("asyncio.Transport", transport)
        watch_peer(self._here)
        self._doors.add(self)

    def data_received(self, data: bytes) -> None:
        here = self._here
        assert here is not None
        if self._there is not None:
            self._there.write(data)
        elif self._reaching is not None:
            self._early += data
        elif data[0] <= _FIRST_MOST:
            self._doors.discard(self)
            pipe = self._link()
            here.set_protocol(pipe)
            pipe.connection_made(here)
            pipe.data_received(data)
        else:
            self._early = data
            here.pause_reading()
            self._reaching = asyncio.get_running_loop().create_task(self._reach(here))

    async def _reach(self, here: asyncio.Transport) -> None:
        try:
            async with asyncio.timeout(_SHAKE_S):
                made, _ = await asyncio.get_running_loop().create_connection(lambda: _Back(here), *self._control)
        except OSError as error:
            _LOG.warning("a gateway's request cannot be handed to control's HTTP server: %s", in_words(error))
            here.close()
            return
        self._there = made
        made.write(self._early)
        self._early = b""
        here.resume_reading()

    def pause_writing(self) -> None:
        if self._there is not None:
            self._there.pause_reading()

    def resume_writing(self) -> None:
        if self._there is not None and not self._there.is_closing():
            self._there.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._doors.discard(self)
        if self._reaching is not None:
            self._reaching.cancel()
        if self._there is not None:
            self._there.close()

    def leave(self) -> None:
        """Hang up."""
        if self._here is not None:
            self._here.abort()


class _Back(asyncio.Protocol):
    """The way back of a request that was handed on."""

    def __init__(self, here: asyncio.Transport) -> None:
        self._here = here

    def data_received(self, data: bytes) -> None:
        self._here.write(data)

    def pause_writing(self) -> None:
        self._here.pause_reading()

    def resume_writing(self) -> None:
        if not self._here.is_closing():
            self._here.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._here.close()


class ControlAddress:
    """Control on another machine.

    Args:
        url: `tls://HOST:PORT`, or `tcp://` on the loopback address.
        files: our certificate, and who may have signed control's; none: in the clear.

    Raises:
        ConfigError: they do not fit each other, or cannot be used.
    """

    def __init__(self, url: str, files: EngineAccess) -> None:
        check_address(url)
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "", parts.port or 0
        if parts.scheme == "tcp" and parts.netloc.rpartition(":")[0] not in LOOPBACK:
            raise ConfigError(
                f"--control: {url} would believe whoever answers on the way to another machine, and tell in the clear",
                hint="tls:// with --control-certificate, --control-key and --control-ca",
            )
        if parts.scheme == "tls" and files.certificate is None:
            raise ConfigError(
                "--control tls:// needs a certificate that control knows us by",
                hint="--control-certificate FILE --control-key FILE, and --control-ca FILE for control's own",
            )
        if parts.scheme == "tcp" and files.secured:
            raise ConfigError("--control tcp:// shows no certificate", hint="write tls://, or leave the files out")
        self.access = OpenedAccess("--control", files, {}) if parts.scheme == "tls" else None
        self._url = url

    def __str__(self) -> str:
        return self._url

    async def connect(self, made: Callable[[], asyncio.Protocol]) -> None:
        """Connect, with the files that are there now.

        Raises:
            OSError: nobody is there, or one of us does not believe the other.
        """
        if self.access is not None:
            self.access.look()
        tls = self.access.tls if self.access is not None else None
        async with asyncio.timeout(_SHAKE_S):
            transport, _ = await asyncio.get_running_loop().create_connection(made, self.host, self.port, ssl=tls)
        watch_peer(transport)


def check_address(url: str) -> None:
    """An address of control is one.

    Raises:
        ConfigError: it is not.
    """
    try:
        parts = urlsplit(url)
        known = parts.scheme in {"tls", "tcp"} and bool(parts.hostname) and bool(parts.port)  # no number is a ValueError
        known = known and not (parts.path.strip("/") + parts.query + parts.fragment) and parts.username is None
    except ValueError:
        known = False
    if not known:
        raise ConfigError(f"--control: {shown_url(url)} is no address of control", hint="such as tls://sageserve-control:7002")


def watch_peer(transport: asyncio.Transport) -> None:
    """Have the kernel end a connection whose other end is gone without a word, as a machine is that lost its power."""
    there: socket.socket = transport.get_extra_info("socket")
    there.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _BESIDE:
        if (option := getattr(socket, name, None)) is not None:
            there.setsockopt(socket.IPPROTO_TCP, option, value)
