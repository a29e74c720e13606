"""Peers one VERSION apart understand each other: what either sends is to the other what it knows of it.

Read next: `wire_before.py`, the VERSION before; `src/sageserve/live/wire.py` for the rule.
"""

import asyncio
import logging
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct, structs

from sageserve.data.scenarios.load import load_scenario, resolved_yaml
from sageserve.live import wire
from sageserve.live.link import LinkClient, LinkServer
from sageserve.live.link_pipe import Frames, LinkPipe, frame
from tests.live import wire_before
from tests.live.test_link import Ends, until

NEW = {wire.Welcome, wire.TurnedAway}
"""Messages since the VERSION before."""
PLAIN = {
    int: st.integers(0, 2**40),
    float: st.floats(0, 1e12),
    str: st.text(max_size=5),
    bool: st.booleans(),
}


def values(kind: object) -> st.SearchStrategy[Any]:
    """Whatever a field of that type may hold."""
    if isinstance(kind, type) and issubclass(kind, Struct):
        return messages(kind)
    if isinstance(kind, type) and kind in PLAIN:
        return PLAIN[kind]
    (inner, _) = get_args(kind)
    return st.lists(values(inner), max_size=2).map(tuple)


def messages(kind: type[Struct]) -> st.SearchStrategy[Any]:
    return st.builds(kind, **{field.name: values(field.type) for field in structs.fields(kind)})


def named(kinds: object) -> dict[str, type[Struct]]:
    return {kind.__name__: kind for kind in get_args(kinds)}


def known(value: object) -> object:
    """A message as the older VERSION has it: fields that it does not know are left out."""
    if isinstance(value, Struct):
        older = getattr(wire_before, type(value).__name__)
        return older(*(known(getattr(value, one.name)) for one in structs.fields(older)))
    return tuple(map(known, value)) if isinstance(value, tuple) else value


ALL = [*((name, kind, "to_gateway") for name, kind in named(wire.ToGateway).items() if kind not in NEW)]
ALL += [(name, kind, "to_control") for name, kind in named(wire.ToControl).items()]


@pytest.mark.parametrize(("name", "kind", "way"), ALL, ids=[name for name, _, _ in ALL])
@settings(max_examples=25)  # of sixteen kinds of messages, both ways
@given(data=st.data())
def test_what_we_send_is_what_the_version_before_knows_of_it(
    name: str, kind: type[Struct], way: str, data: st.DataObject
) -> None:
    sent = data.draw(messages(kind))
    assert getattr(wire_before, f"decode_{way}")(wire.encode(sent)) == known(sent)


@pytest.mark.parametrize(("name", "kind", "way"), ALL, ids=[name for name, _, _ in ALL])
@settings(max_examples=25)  # of sixteen kinds of messages, both ways
@given(data=st.data())
def test_what_the_version_before_sends_is_whole_to_us(name: str, kind: type[Struct], way: str, data: st.DataObject) -> None:
    sent = data.draw(messages(getattr(wire_before, name)))
    got = getattr(wire, f"decode_{way}")(wire_before.encode(sent))
    assert type(got) is kind
    assert known(got) == sent


def test_every_message_of_the_version_before_is_there_and_none_is_new_but_those_that_say_so() -> None:
    for now, before in ((wire.ToGateway, wire_before.ToGateway), (wire.ToControl, wire_before.ToControl)):
        assert {name for name, kind in named(now).items() if kind not in NEW} == set(named(before))
    assert wire.OLDEST == wire_before.VERSION == wire.VERSION - 1


@pytest.mark.parametrize(
    ("protocol", "oldest", "common"), [(4, 0, 0), (5, 0, 5), (6, 0, 6), (6, 5, 6), (7, 6, 6), (7, 0, 0), (8, 7, 0)]
)
def test_the_newest_version_that_both_know_is_spoken(protocol: int, oldest: int, common: int) -> None:
    assert wire.common_version(wire.Hello(protocol, 0, "n", oldest=oldest)) == common


def test_a_gateway_of_the_version_before_is_heard_and_told_nothing_that_it_does_not_know(tmp_path: Path) -> None:
    async def play() -> None:
        ends = Ends()
        await ends.server.open(tmp_path / "link")
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "link"))
        body = wire_before.encode(wire_before.Hello(5, 3, "old"))
        writer.write(len(body).to_bytes(4, "big") + body)
        await until(lambda: ends.server.gateways == (0,))
        assert ends.server.send(0, wire.Grant(7, 1))
        frames = Frames().feed(await reader.read(100))
        assert [wire_before.decode_to_gateway(one) for one in frames] == [wire_before.Grant(7, 1)]
        writer.close()
        await ends.server.close()

    asyncio.run(play())


def test_a_control_of_the_version_before_is_found_by_trying(tmp_path: Path) -> None:
    """It hangs up on every Hello but its own."""
    heard = []

    def take(pipe: LinkPipe, body: bytes) -> None:
        message = wire_before.decode_to_control(body)
        if isinstance(message, wire_before.Hello) and message.protocol != 5:
            pipe.abort()
            return
        heard.append(message)
        table = wire_before.RoutingTable(1, "e", 0, 0, (), (), (), 1)
        data = wire_before.encode(table)
        pipe.send(len(data).to_bytes(4, "big") + data, replaceable=False)

    async def play() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(lambda: LinkPipe(take, lambda _: None), str(tmp_path / "link"))
        got, changes = list[wire.ToGateway](), list[bool]()
        client = LinkClient(tmp_path / "link", wire.Hello(wire.VERSION, 3, "new"), got.append, changes.append)
        client.start()
        await until(lambda: bool(got))
        assert (heard, changes) == ([wire_before.Hello(5, 3, "new")], [True])
        assert got == [wire.RoutingTable(1, "e", 0, 0, (), (), (), 1)]
        await client.close()
        server.close()

    asyncio.run(play())


def test_settings_are_told_apart_but_for_those_of_a_machine(tmp_path: Path) -> None:
    ours = load_scenario("local", overrides=["live.port=1", "live.log_level=debug"])
    (tmp_path / "scenario.yaml").write_text(resolved_yaml(ours), "utf-8")
    assert wire.settings_mark(load_scenario(tmp_path / "scenario.yaml")) == wire.settings_mark(load_scenario("local"))
    assert wire.settings_mark(load_scenario("local", overrides=["live.limits.lines=7"])) != wire.settings_mark(ours)


@pytest.mark.parametrize(("protocol", "said"), [(4, "is too old"), (9, "is too new")])
def test_one_that_is_too_far_apart_is_told_so_once_and_so_are_we(
    tmp_path: Path, protocol: int, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def play() -> None:
        server = LinkServer(lambda *_: None, lambda _: None)
        await server.open(tmp_path / "link")
        for _ in range(3):
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "link"))
            writer.write(frame(wire.Hello(protocol, 2, "x", host="pod-2", release="0.9")))
            told = [wire.decode_to_gateway(one) for one in Frames().feed(await reader.read())]
            assert [said in one.why for one in told if isinstance(one, wire.TurnedAway)] == [True] * (protocol > 5)
            writer.close()
        assert len(server.turned_away()) == 1
        assert server.turned_away()[0].startswith(f"Gateway 2 on pod-2, 0.9 {said}")
        assert server.turned_away()[0].endswith("(3 x so far).")
        await server.close()

    with caplog.at_level(logging.ERROR):
        asyncio.run(play())
    assert [said in record.getMessage() for record in caplog.records] == [True]


def test_a_gateway_says_once_why_it_is_not_listened_to(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def play() -> None:
        server = LinkServer(lambda *_: None, lambda _: None, "ours")
        await server.open(tmp_path / "link")
        changes = list[bool]()
        client = LinkClient(tmp_path / "link", wire.Hello(wire.VERSION, 0, "x", "theirs"), lambda _: None, changes.append)
        client.start()
        await until(lambda: "(3 x" in "".join(server.turned_away()))
        assert (changes, "other settings" in client.why) == ([], True)
        await client.close()
        await server.close()

    with caplog.at_level(logging.ERROR, "sageserve.live.link"):
        asyncio.run(play())
    assert sorted("control does not listen" in record.getMessage() for record in caplog.records) == [False, True]
