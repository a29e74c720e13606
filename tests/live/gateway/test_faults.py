"""What fails around a gateway, and that clients are told the truth about it: nothing lost, nothing ended cleanly that was cut.

Read next: `stage.py`; `test_hostile.py` for clients that mean harm.
"""

import asyncio
import socket
from itertools import pairwise

import httpx
import openai
import pytest

from sageserve.live.gateway import exchange
from sageserve.live.gateway import meter as m
from sageserve.live.gateway.server import GatewayBinding
from sageserve.live.gateway.upstream import EngineConnection
from tests.live.gateway.stage import (
    DONE,
    HELLO,
    MODEL,
    STREAM_HEAD,
    Engine,
    Got,
    Script,
    answer,
    ask,
    chunk,
    event,
    play,
    staged,
    whole,
)
from tests.live.gateway.test_conformance import MESSAGES, sdk

STREAM = {**HELLO, "stream": True}


async def die(_got: Got, writer: asyncio.StreamWriter) -> None:
    """Break the connection without a byte."""
    writer.transport.abort()


async def die_later(_got: Got, writer: asyncio.StreamWriter) -> None:
    """Break the connection after the first events."""
    writer.write(STREAM_HEAD + chunk(event({"role": "assistant", "content": "one"})))
    await writer.drain()
    await asyncio.sleep(0.02)
    writer.transport.abort()


async def end_early(_got: Got, writer: asyncio.StreamWriter) -> None:
    """End the body properly, but without [DONE]."""
    writer.write(STREAM_HEAD + chunk(event({"content": "one"})) + b"0\r\n\r\n")


async def hang(_got: Got, writer: asyncio.StreamWriter) -> None:
    """Say nothing."""
    await asyncio.sleep(30)


async def hang_later(_got: Got, writer: asyncio.StreamWriter) -> None:
    """Begin, and say nothing more."""
    writer.write(STREAM_HEAD + chunk(event({"content": "one"})))
    await asyncio.sleep(30)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("first", [die, None])
def test_an_engine_that_fails_before_its_first_byte_is_replaced(stream: bool, first: Script | None) -> None:
    async def story() -> None:
        bad, good = Engine(script=first or answer), Engine()
        async with staged(bad, good) as stage, httpx.AsyncClient(base_url=stage.url) as client:
            if first is None:
                await bad.kill()  # refuses connections
            got = await client.post("/v1/chat/completions", json={**HELLO, "stream": stream})
            assert got.status_code == 200
            assert len(good.got) == 1
            again = await client.post("/v1/chat/completions", json={**HELLO, "stream": stream})
            assert again.status_code == 200
            assert len(good.got) == 2, "the failed one is left out at once"
            assert stage.worker.context.meter.counters[m.RETRIES, ("unreachable" if first is None else "broken",)] == 1
            assert sum(load.in_flight for load in stage.worker.context.routing.loads) == 0

    play(story())


def test_when_a_region_is_gone_the_next_one_serves() -> None:
    async def story() -> None:
        here, here_too, there = Engine(script=die), Engine(), Engine()
        async with staged(here, here_too, there, regions=("east", "east", "west")) as stage:
            await here_too.kill()
            async with httpx.AsyncClient(base_url=stage.url) as client:
                got = await client.post("/v1/chat/completions", json=HELLO)
                assert (got.status_code, got.headers["x-sageserve-region"]) == (200, "west")

    play(story())


def test_a_request_that_kills_engines_kills_two_at_most() -> None:
    async def story() -> None:
        engines = [Engine(script=die) for _ in range(4)]
        async with staged(*engines) as stage, httpx.AsyncClient(base_url=stage.url) as client:
            got = await client.post("/v1/chat/completions", json=HELLO)
            assert (got.status_code, got.json()["error"]["code"]) == (502, "request_breaks_engines")
            assert sum(len(engine.got) for engine in engines) == 2

    play(story())


def test_an_engine_that_is_full_is_passed_over() -> None:
    async def full(_got: Got, writer: asyncio.StreamWriter) -> None:
        writer.write(whole({"detail": "queue is full"}, 503))

    async def story() -> None:
        bad, good = Engine(script=full), Engine()
        async with staged(bad, good) as stage, httpx.AsyncClient(base_url=stage.url) as client:
            assert (await client.post("/v1/chat/completions", json=HELLO)).status_code == 200
            assert stage.worker.context.routing.choose_at(0) is not None
            assert len(stage.worker.context.routing.loads[0].targets) == 2, "full is not broken"

    play(story())


@pytest.mark.parametrize("script", [die_later, end_early])
def test_a_stream_that_breaks_ends_in_an_error_and_an_aborted_body(script: Script) -> None:
    async def story() -> None:
        bad, other = Engine(script=script), Engine()
        async with staged(bad, other) as stage:
            async with sdk(stage) as client:
                stream = await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
                assert (await anext(stream)).choices[0].delta.content == "one"
                with pytest.raises(openai.APIError) as caught:
                    await anext(stream)
                assert caught.value.code == "upstream_broken"
            assert not other.got, "nothing is retried after the first byte"
            stage.worker.context.routing.heal(10**18)
            said = await stage.speak(ask(STREAM))
            assert b'data: {"error":' in said
            assert DONE not in said
            assert not said.endswith(b"0\r\n\r\n")

    play(story())


def test_an_engine_that_falls_silent_is_given_up() -> None:
    async def story() -> None:
        async with staged(Engine(script=hang_later), limits={"stream_idle": "300ms"}) as stage:
            said = await stage.speak(ask(STREAM), limit_s=3)
            assert b"went silent" in said
            assert not said.endswith(b"0\r\n\r\n")

    play(story())


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("script", [hang, hang_later])
def test_a_client_that_leaves_frees_the_engine_within_100_ms(stream: bool, script: Script) -> None:
    async def story() -> None:
        engine = Engine(script=script)
        async with staged(engine) as stage:
            loop = asyncio.get_running_loop()
            _, writer = await asyncio.open_connection("127.0.0.1", stage.worker.port)
            writer.write(ask({**HELLO, "stream": stream}))
            while not engine.got:  # noqa: ASYNC110 # a list knows no events
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.05)
            left = loop.time()
            writer.transport.abort()
            while not engine.closed:  # noqa: ASYNC110 # as above
                await asyncio.sleep(0.001)
            assert engine.closed[0] - left < 0.1
            await asyncio.sleep(0.01)
            context = stage.worker.context
            assert not context.exchanges
            assert context.routing.loads[0].in_flight == 0
            assert context.meter.counters[m.ABORTED, ()] == 1

    play(story())


def test_a_slow_reader_holds_its_engine_back_and_costs_no_memory() -> None:
    sent = 0

    async def pour(_got: Got, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(STREAM_HEAD)
        line = chunk(event({"content": "x" * 10_000}))
        for _ in range(2_000):
            writer.write(line)
            await writer.drain()
            sent += len(line)
        writer.write(chunk(DONE) + b"0\r\n\r\n")

    async def story() -> None:
        async with staged(Engine(script=pour)) as stage:
            small = socket.create_connection(("127.0.0.1", stage.worker.port))
            small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            reader, writer = await asyncio.open_connection(sock=small, limit=1 << 16)
            writer.write(ask(STREAM))
            before = -1
            while sent != before:
                before = sent
                await asyncio.sleep(0.2)
            assert 0 < sent < 18_000_000, "the kernel's buffers and no more"
            total = 0
            while data := await reader.read(1 << 20):
                total += len(data)
                if data.endswith(b"0\r\n\r\n"):
                    break
            assert total > 20_000_000
            writer.close()

    play(story())


def test_a_kept_connection_that_the_engine_closed_costs_no_request() -> None:
    async def once(got: Got, writer: asyncio.StreamWriter) -> None:
        await answer(got, writer)

    async def story() -> None:
        engine = Engine(script=once)
        async with staged(engine) as stage, httpx.AsyncClient(base_url=stage.url) as client:
            await client.post("/v1/chat/completions", json=HELLO)
            target = stage.worker.context.routing.choose_at(0)
            assert target is not None
            engine.script = die  # the next one on the kept connection finds it closed
            pool = stage.worker.context.pool(target)
            begin = EngineConnection.begin

            def late(self: EngineConnection, *given: object) -> None:
                engine.script = once if self.used == 0 else die
                begin(self, *given)  # type: ignore[arg-type]  # passed on as they came

            EngineConnection.begin = late  # type: ignore[method-assign,assignment]  # the race, made certain
            try:
                got = await client.post("/v1/chat/completions", json=HELLO)
            finally:
                EngineConnection.begin = begin  # type: ignore[method-assign]  # as it was
            assert got.status_code == 200
            assert pool.opened == 2
            assert (m.RETRIES, ("broken",)) not in stage.worker.context.meter.counters

    play(story())


def test_a_silent_stream_is_kept_alive_with_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow(_got: Got, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.8)
        writer.write(STREAM_HEAD + chunk(event({"content": "one"}, "stop")) + chunk(DONE) + b"0\r\n\r\n")

    async def story() -> None:
        monkeypatch.setattr(exchange, "PING", 200_000)
        engine = Engine(script=slow)
        async with staged(engine) as stage:
            said = await stage.speak(ask(STREAM), until=b"0\r\n\r\n")
            assert said.startswith(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream")
            assert said.count(b": ping\n\n") >= 2
            assert said.count(b"HTTP/1.1") == 1
            async with sdk(stage) as client:
                stream = await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
                assert [part.choices[0].delta.content async for part in stream] == ["one"]

            async def fail(_got: Got, writer: asyncio.StreamWriter) -> None:
                await asyncio.sleep(0.8)
                writer.write(whole(b"no", 400, "text/plain"))

            engine.script = fail
            said = await stage.speak(ask(STREAM))
            assert b'data: {"error":{"message":"no"' in said
            assert not said.endswith(b"0\r\n\r\n")

    play(story())


def test_draining_finishes_streams_and_takes_nothing_new() -> None:
    async def slow(_got: Got, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunk(event({"content": "one"})))
        await asyncio.sleep(0.5)
        writer.write(chunk(event({}, "stop")) + chunk(DONE) + b"0\r\n\r\n")

    async def story() -> None:
        async with staged(Engine(script=slow)) as stage:
            idle = asyncio.create_task(stage.speak(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"))
            busy = asyncio.create_task(stage.speak(ask(STREAM)))
            await asyncio.sleep(0.15)
            reader, writer = await asyncio.open_connection("127.0.0.1", stage.worker.port)
            writer.write(b"GET /health/ready HTTP/1.1\r\n")  # begun, so that it is not closed as idle
            await asyncio.sleep(0.05)
            draining = asyncio.create_task(stage.worker.drain())
            await asyncio.sleep(0.1)
            assert (await idle).startswith(b"HTTP/1.1 200")
            with pytest.raises(OSError, match=r"."):
                await asyncio.open_connection("127.0.0.1", stage.worker.port)
            writer.write(b"host: localhost\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 503")
            assert (await busy).endswith(DONE + b"\r\n0\r\n\r\n")
            await draining

    play(story())


def test_a_drain_that_takes_too_long_ends_streams_with_an_error() -> None:
    async def story() -> None:
        async with staged(Engine(script=hang_later), place=GatewayBinding(host="127.0.0.1", port=0, drain_s=0.1)) as stage:
            busy = asyncio.create_task(stage.speak(ask(STREAM)))
            await asyncio.sleep(0.15)
            await stage.worker.drain()
            said = await busy
            assert b"shutting down" in said
            assert not said.endswith(b"0\r\n\r\n")

    play(story())


def test_requests_are_spread_by_outstanding_tokens() -> None:
    async def story() -> None:
        engines = [Engine(script=hang) for _ in range(3)]
        async with staged(*engines) as stage:
            tasks = [asyncio.create_task(stage.speak(ask(HELLO), limit_s=0.5)) for _ in range(9)]
            await asyncio.sleep(0.3)
            assert [len(engine.got) for engine in engines] == [3, 3, 3]
            loads = stage.worker.context.routing.loads[0].outstanding
            assert all(a == b for a, b in pairwise(loads))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    play(story())
