"""The link carries messages whole and in order, however bytes are cut, and survives either end.

Read next: `src/sageserve/live/link.py`.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sageserve.live.link import LinkClient, LinkServer
from sageserve.live.link_pipe import Frames, LinkBroken, frame
from sageserve.live.wire import (
    FRAME_MAX,
    OLDEST,
    VERSION,
    Gone,
    Grant,
    Hello,
    RoutingTable,
    ToControl,
    ToGateway,
    TurnedAway,
    Wait,
    Welcome,
    decode_to_control,
    decode_to_gateway,
)

HELLO = Hello(VERSION, 0, "42", oldest=OLDEST)


def tell_all(server: LinkServer, message: ToGateway) -> None:
    """Tell every gateway that is there."""
    for gateway in server.gateways:
        assert server.send(gateway, message)


def table(version: int, note: str = "") -> RoutingTable:
    return RoutingTable(version, "e", 0, 0, (), (), (), 1, note)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 # what is waited for is inside objects that know no events
            await asyncio.sleep(0.005)


@given(tickets=st.lists(st.integers(0, 2**40), max_size=20), cuts=st.lists(st.integers(1, 9), min_size=1))
def test_frames_come_out_whole_however_they_are_cut(tickets: list[int], cuts: list[int]) -> None:
    data = b"".join(frame(Gone(ticket)) for ticket in tickets)
    frames, bodies, at, k = Frames(), [], 0, 0
    while at < len(data):
        step = cuts[k % len(cuts)]
        bodies += frames.feed(data[at : at + step])
        at += step
        k += 1
    assert [decode_to_control(body) for body in bodies] == [Gone(ticket) for ticket in tickets]


def test_a_length_beyond_the_limit_is_refused_before_it_is_stored() -> None:
    with pytest.raises(LinkBroken, match="at most"):
        Frames().feed((FRAME_MAX + 1).to_bytes(4, "big"))


class Ends:
    """A server and what it heard."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, ToControl]] = []
        self.left: list[int] = []
        self.server = LinkServer(lambda number, message: self.heard.append((number, message)), self.left.append)


def test_messages_go_both_ways_and_a_lost_server_is_found_again(tmp_path: Path) -> None:
    async def play() -> None:
        path, got, changes = tmp_path / "link", list[ToGateway](), list[bool]()
        client = LinkClient(path, HELLO, got.append, changes.append)
        client.start()
        await asyncio.sleep(0.02)  # nobody is there yet
        assert not client.send(Gone(1))
        first = Ends()
        await first.server.open(path)
        await until(lambda: bool(first.heard))
        assert first.heard == [(0, HELLO)]
        assert client.send(Wait(7, 0, 1, 2, 100, 10))
        tell_all(first.server, table(1))
        assert first.server.send(0, Grant(7, 3))
        await until(lambda: len(got) == 3 and len(first.heard) == 2)
        assert got == [Welcome(VERSION), table(1), Grant(7, 3)]
        assert first.heard[1] == (0, Wait(7, 0, 1, 2, 100, 10))
        await first.server.close()
        await until(lambda: changes == [True, False])
        second = Ends()
        await second.server.open(path)
        await until(lambda: changes == [True, False, True])
        await until(lambda: second.heard == [(0, HELLO)])
        await client.close()
        await until(lambda: second.left == [0])
        assert second.server.gateways == ()
        await second.server.close()

    asyncio.run(play())


@pytest.mark.parametrize(
    "words",
    [
        frame(Gone(1)),
        frame(Hello(VERSION + 1, 0, "1")),
        b"\0\0\0\1x",
        b"GET / HTTP/1.1\r\n",
        frame(Hello(VERSION, 0, "~")).replace(b"~", b"\xff"),
    ],
)
def test_a_stranger_is_cut_off_and_others_stay(tmp_path: Path, words: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def play() -> None:
        ends, changes = Ends(), list[bool]()
        await ends.server.open(tmp_path / "link")
        client = LinkClient(tmp_path / "link", HELLO, lambda _: None, changes.append)
        client.start()
        await until(lambda: ends.server.gateways == (0,))
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "link"))
        writer.write(words)
        with contextlib.suppress(ConnectionError):
            said = await asyncio.wait_for(reader.read(), 5)
            assert all(isinstance(decode_to_gateway(body), TurnedAway) for body in Frames().feed(said))
        writer.close()
        assert ends.server.gateways == (0,)
        assert changes == [True]
        await client.close()
        await ends.server.close()

    asyncio.run(play())
    assert not any(record.exc_info for record in caplog.records), "it is no fault of ours"


def test_a_gateway_that_does_not_read_gets_the_last_table_only(tmp_path: Path) -> None:
    async def play() -> None:
        ends, got = Ends(), list[RoutingTable]()
        await ends.server.open(tmp_path / "link")
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "link"), limit=1024)
        writer.write(frame(HELLO))
        await until(lambda: ends.server.gateways == (0,))
        for version in range(100):
            tell_all(ends.server, table(version, "x" * 100_000))
        frames = Frames()
        async with asyncio.timeout(10):
            while not got or got[-1].version < 99:
                for body in frames.feed(await reader.read(1 << 16)):
                    message = decode_to_gateway(body)
                    if not isinstance(message, Welcome):
                        assert isinstance(message, RoutingTable)
                        got.append(message)
        assert len(got) < 100
        writer.close()
        await ends.server.close()

    asyncio.run(play())


def test_two_controls_cannot_share_a_socket_and_a_dead_one_leaves_it_free(tmp_path: Path) -> None:
    async def play() -> None:
        path = tmp_path / "link"
        ends = Ends()
        await ends.server.open(path)
        assert path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(LinkBroken, match="another process"):
            await Ends().server.open(path)
        await ends.server.close()
        with socket.socket(socket.AF_UNIX) as left_behind:
            left_behind.bind(str(path))
        again = Ends()
        await again.server.open(path)
        await again.server.close()

    asyncio.run(play())
