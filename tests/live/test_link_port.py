"""Control hears gateways on other machines under TLS, and believes only those that show a certificate of its authority.

Read next: `src/sageserve/live/link_port.py`; `tests/live/gateway/test_streams.py` for whole gateways.
"""

import asyncio
import contextlib
import logging
import shutil
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from sageserve.base.config import EngineAccess, LinkSettings, LinkTlsSettings
from sageserve.base.errors import ConfigError
from sageserve.live.certificates import holds, out_of_date
from sageserve.live.engine_access import OpenedAccess
from sageserve.live.link import LinkClient, LinkServer
from sageserve.live.link_port import ControlAddress, LinkPort
from sageserve.live.wire import OLDEST, VERSION, Hello, ToControl, ToGateway, Welcome
from tests.live.papers import Authority, Paper
from tests.live.test_link import until

HELLO = Hello(VERSION, 0, "42", oldest=OLDEST)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("papers"), "ours")


def settings(authority: Authority, paper: Paper) -> LinkSettings:
    tls = LinkTlsSettings(certificate=paper.certificate, key=paper.key, client_ca=authority.file)
    return LinkSettings(listen="127.0.0.1:0", tls=tls)


def access(authority: Authority, paper: Paper) -> EngineAccess:
    return EngineAccess(ca_file=authority.file, certificate=paper.certificate, key=paper.key)


class Heard:
    """Control's side with a port, and what it heard."""

    def __init__(self, port: LinkPort) -> None:
        self.port = port
        self.heard: list[ToControl] = []
        self.left: list[int] = []
        self.server = LinkServer(lambda _, message: self.heard.append(message), self.left.append, port=port)


@contextlib.asynccontextmanager
async def listening(folder: Path, how: LinkSettings, control: int = 9) -> AsyncIterator[Heard]:
    here = Heard(LinkPort(how, ("127.0.0.1", control), "s"))
    await here.server.open(folder / "link")
    try:
        yield here
    finally:
        await here.server.close()


@contextlib.asynccontextmanager
async def connecting(address: ControlAddress) -> AsyncIterator[tuple[LinkClient, list[ToGateway], list[bool]]]:
    got, changes = list[ToGateway](), list[bool]()
    client = LinkClient(address, HELLO, got.append, changes.append)
    client.start()
    try:
        yield client, got, changes
    finally:
        await client.close()


def test_gateways_with_a_certificate_are_heard_and_told_the_secret(ours: Authority, tmp_path: Path) -> None:
    async def play() -> None:
        control, gateway = ours.issue("control"), ours.issue("gateway")
        async with listening(tmp_path, settings(ours, control)) as here:
            address = ControlAddress(f"tls://localhost:{here.port.port}", access(ours, gateway))
            async with connecting(address) as (client, got, changes):
                await until(lambda: bool(got))
                assert (here.heard, got, changes) == ([HELLO], [Welcome(VERSION, "s")], [True])
                for pipe in (client._pipe, *here.server._known):
                    assert pipe is not None
                    assert pipe.transport is not None
                    there = pipe.transport.get_extra_info("socket")
                    assert there.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                    if hasattr(socket, "TCP_USER_TIMEOUT"):
                        assert there.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 20_000
            await until(lambda: here.left == [0])

    asyncio.run(play())


def test_in_the_clear_nobody_is_told_the_secret(tmp_path: Path) -> None:
    async def play() -> None:
        async with listening(tmp_path, LinkSettings(listen="127.0.0.1:0")) as here:
            address = ControlAddress(f"tcp://127.0.0.1:{here.port.port}", EngineAccess())
            async with connecting(address) as (_, got, _changes):
                await until(lambda: bool(got))
                assert got == [Welcome(VERSION)]

    asyncio.run(play())


@pytest.mark.parametrize("who", ["nobody", "stranger", "expired", "disbelieving"])
def test_whoever_cannot_show_who_they_are_is_not_heard_and_knows_why(
    ours: Authority, tmp_path: Path, who: str, caplog: pytest.LogCaptureFixture
) -> None:
    said = "verify failed" if who == "disbelieving" else "does not believe our certificate"

    async def play() -> None:
        theirs = Authority(tmp_path, "theirs")
        control, gateway = ours.issue("control"), ours.issue("gateway")
        how = {
            "stranger": access(ours, theirs.issue("gateway")),
            "expired": access(ours, ours.issue("late", days=0)),
            "disbelieving": access(theirs, gateway),
        }.get(who, access(ours, gateway))
        async with listening(tmp_path, settings(ours, control)) as here:
            address = ControlAddress(f"tls://localhost:{here.port.port}", how)
            if who == "nobody":  # which the command line does not let through
                address.access = OpenedAccess("x", EngineAccess(ca_file=ours.file), {})
            async with connecting(address) as (client, got, changes):
                await until(lambda: said in client.why)
                assert (got, changes, here.heard) == ([], [], [])

    with caplog.at_level(logging.WARNING):
        asyncio.run(play())
    assert any("is not heard" in record.getMessage() and said in record.getMessage() for record in caplog.records)
    assert not any(record.exc_info for record in caplog.records), "it is no fault of ours"


def test_both_ends_use_files_that_were_renewed(ours: Authority, tmp_path: Path) -> None:
    async def play() -> None:
        control, gateway = ours.issue("control"), ours.issue("gateway")
        believed = str(tmp_path / "authority.pem")
        shutil.copy(ours.file, believed)
        how = LinkTlsSettings(certificate=control.certificate, key=control.key, client_ca=believed)
        port = LinkPort(LinkSettings(listen="127.0.0.1:0", tls=how), ("127.0.0.1", 9), "s")
        here = Heard(port)
        await here.server.open(tmp_path / "link")
        files = EngineAccess(ca_file=believed, certificate=gateway.certificate, key=gateway.key)
        address = ControlAddress(f"tls://localhost:{port.port}", files)
        async with connecting(address) as (_, _got, changes):
            await until(lambda: changes == [True])
        newer = Authority(tmp_path, "newer")
        for old, new in ((control, newer.issue("control")), (gateway, newer.issue("gateway"))):
            shutil.copy(new.certificate, old.certificate)
            assert port._certificate is not None
            port._certificate.look()  # between the two files: they do not belong together
            shutil.copy(new.key, old.key)
        shutil.copy(newer.file, believed)
        assert port._certificate is not None
        port._certificate.look()
        async with connecting(address) as (_, _got, changes):
            await until(lambda: changes == [True])
        await here.server.close()

    asyncio.run(play())


def test_a_gateway_that_was_not_believed_is_told_the_secret_once_it_is(ours: Authority, tmp_path: Path) -> None:
    async def play() -> None:
        shown, good = Authority(tmp_path, "theirs").issue("gateway"), ours.issue("gateway")
        async with listening(tmp_path, settings(ours, ours.issue("control"))) as here:
            address = ControlAddress(f"tls://localhost:{here.port.port}", access(ours, shown))
            async with connecting(address) as (client, got, _changes):
                await until(lambda: "does not believe our certificate" in client.why)
                shutil.copy(good.key, shown.key)
                shutil.copy(good.certificate, shown.certificate)
                await until(lambda: bool(here.heard))
                await until(lambda: bool(got))
                assert got == [Welcome(VERSION, "s")]

    asyncio.run(play())


def test_requests_that_are_no_links_go_to_controls_own_server_whole(ours: Authority, tmp_path: Path) -> None:
    async def play() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + body[::-1])
            writer.close()

        pages = await asyncio.start_server(answer, "127.0.0.1", 0)
        control, gateway = ours.issue("control"), ours.issue("gateway")
        body = bytes(range(256)) * 12_000  # more than any buffer between holds
        async with listening(tmp_path, settings(ours, control), pages.sockets[0].getsockname()[1]) as here:
            address = ControlAddress(f"tls://localhost:{here.port.port}", access(ours, gateway))
            assert address.access is not None
            reader, writer = await asyncio.open_connection("localhost", here.port.port, ssl=address.access.tls)
            writer.write(b"POST /v1/files HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
            assert await reader.read() == b"HTTP/1.1 200 OK\r\n\r\n" + body[::-1]
            writer.close()
            assert here.heard == []
        pages.close()

    asyncio.run(play())


def test_a_port_that_others_reach_must_have_a_certificate() -> None:
    with pytest.raises(ValidationError, match="give tls"):
        LinkSettings(listen="0.0.0.0:7002")  # refused
    with pytest.raises(ValidationError, match="HOST:PORT"):
        LinkSettings(listen="7002")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("tcp://control:7002", "in the clear"),
        ("tls://control", "no address"),
        ("tls://control:70020", "no address"),
        ("http://control:7002", "no address"),
        ("tls://control:7002?x", "no address"),
        ("tls://control:7002#x", "no address"),
        ("tls://control:7002", "needs a certificate"),
    ],
)
def test_an_address_that_cannot_be_believed_is_refused(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ControlAddress(url, EngineAccess())


def test_a_certificate_says_until_when_it_is_good(ours: Authority, tmp_path: Path) -> None:
    now = datetime.now(UTC)  # noqa: TID251 # certificates are judged by the true day
    good, late = ours.issue("good"), ours.issue("late", days=0)
    first, last = holds(good.certificate)
    assert last - first == timedelta(days=2)
    assert out_of_date(good.certificate, now) == ""
    assert out_of_date(good.certificate, now + timedelta(days=3)).startswith("it expired on ")
    assert out_of_date(good.certificate, now - timedelta(days=3)).startswith("it is good from ")
    assert out_of_date(late.certificate, now)
    (tmp_path / "x.pem").write_text(Path(good.certificate).read_text("utf-8")[:200] + "-----END CERTIFICATE-----", "utf-8")
    for broken in (good.key, str(tmp_path / "x.pem")):
        with pytest.raises(ValueError, match="no certificate"):
            holds(broken)
