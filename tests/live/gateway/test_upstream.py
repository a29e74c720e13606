"""Whoever asks for a connection to an engine hears of one, or why there is none, whatever happens meanwhile.

Read next: `src/sageserve/live/gateway/upstream.py`; `test_faults.py` for engines that break.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from sageserve.live.gateway.upstream import ConnectionPool, EngineConnection
from sageserve.live.wire import InstanceRow, Trouble
from tests.live.gateway.stage import HELLO, Engine, free_port, play
from tests.live.gateway.test_control import at, controlled


def heard_of(open_: Callable[[Any], Coroutine[None, None, object]], *, close_at_once: bool = False) -> list[str]:
    """What is heard of a connection when connecting does `open_` and the pool is closed meanwhile."""
    heard: list[tuple[EngineConnection | None, str]] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.create_connection = lambda make, *_, **_more: open_(make)  # type: ignore[assignment,method-assign] # of this loop alone
        pool = ConnectionPool("engine", 80, lambda: 0)
        pool.open(lambda one, why: heard.append((one, why)))
        if not close_at_once:
            await asyncio.sleep(0.01)
        pool.close()
        for _ in range(3):
            await asyncio.sleep(0)
        assert not pool._tasks

    asyncio.run(run())
    assert all(one is None for one, _ in heard)
    return [why for _, why in heard]


async def hangs(_: object) -> object:
    return await asyncio.Event().wait()


@pytest.mark.parametrize("at_once", [True, False])
def test_a_pool_that_is_closed_tells_whoever_waits_for_a_connection(at_once: bool) -> None:
    assert heard_of(hangs, close_at_once=at_once) == ["the address is not used any more"]


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "no connection: Connection refused"),
        (TimeoutError(), "no connection within 2.0 s"),
        (UnicodeError("label too long"), "no connection: label too long"),
    ],
    ids=repr,
)
def test_why_there_is_no_connection_is_told(error: Exception, why: str) -> None:
    async def fails(_: object) -> object:
        raise error

    assert heard_of(fails) == [why]


@contextlib.contextmanager
def unanswered_port() -> Iterator[int]:
    """A port whose queue of connections is full, so that who connects waits."""
    with contextlib.ExitStack() as held:
        listening = held.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            one = held.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]


def test_a_request_that_connects_to_an_instance_that_goes_moves_on(tmp_path: Path) -> None:
    async def story() -> None:
        engine = Engine()
        with unanswered_port() as port:
            async with (
                controlled(tmp_path, engine) as (stage, control),
                httpx.AsyncClient(base_url=stage.url, timeout=50) as client,
            ):
                control.table(InstanceRow(7, 0, f"http://127.0.0.1:{port}", "", True, 0, 0))
                await control.wait(lambda: stage.worker.context.routing.known)
                asked = asyncio.create_task(client.post("/v1/chat/completions", json=HELLO))
                await control.wait(lambda: stage.worker.context.exchanges)
                control.table(at(engine))
                assert (await asked).status_code == 200

    play(story())


def test_an_instance_whose_row_is_another_s_by_now_is_not_told_of(tmp_path: Path) -> None:
    async def story() -> None:
        engine = Engine()
        async with controlled(tmp_path, engine) as (stage, control):
            control.table(InstanceRow(0, 0, f"http://127.0.0.1:{free_port()}", "", True, 0, 0))
            context = stage.worker.context
            await control.wait(lambda: context.routing.known)
            old = context.routing.targets[0]
            control.table(at(engine))
            await control.wait(lambda: context.routing.version == 2)
            context.trouble(old, "it is gone")
            assert context.routing.targets[0].failures == 0
            context.trouble(context.routing.targets[0], "it broke")
            await control.wait(lambda: control.of(Trouble))
            assert [trouble.what for trouble in control.of(Trouble)] == ["it broke"]

    play(story())
