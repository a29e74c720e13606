"""Which instances are left out and which never are: those that break off, those that cannot be reached, those that are mute.

Read next: `src/sageserve/live/gateway/attempts.py`.
"""

import asyncio
import socket
from collections.abc import Callable

import httpx
import pytest

from sageserve.base.units import SECOND
from sageserve.live.gateway import attempts
from sageserve.live.gateway import meter as m
from sageserve.live.gateway.attempts import is_overdue, is_stuck
from sageserve.live.wire import ToControl, Trouble
from tests.live.gateway.stage import HELLO, MODEL, STREAM_HEAD, Engine, Got, answer, chunk, event, play, staged
from tests.live.gateway.test_admission import state, weigh
from tests.live.gateway.test_faults import STREAM, die

JSON = b"content-type: application/json\r\n\r\n{"


@pytest.mark.parametrize("engines", [1, 2, 4])
def test_what_breaks_every_engine_takes_none_of_them_from_the_others(engines: int) -> None:
    async def touchy(got: Got, writer: asyncio.StreamWriter) -> None:
        await (die if b"poison" in got.body else answer)(got, writer)

    async def story() -> None:
        poison = {"model": MODEL, "messages": [{"role": "user", "content": "poison"}]}
        async with staged(*(Engine(script=touchy) for _ in range(engines))) as stage:
            async with httpx.AsyncClient(base_url=stage.url) as client:
                asks = [client.post("/v1/chat/completions", json=poison if k % 5 == 0 else HELLO) for k in range(100)]
                codes = [(await ask).status_code for ask in asks]
            assert codes == [502 if k % 5 == 0 else 200 for k in range(100)]
            charged = {labels: count for (name, labels), count in stage.worker.context.meter.counters.items() if name == m.BREAKS}
            assert charged == {("request" if engines > 1 else "nobody",): 20}

    play(story())


def test_an_engine_that_breaks_what_another_one_answers_is_left_out_and_control_is_told() -> None:
    async def story() -> None:
        told: list[ToControl] = []
        async with staged(Engine(script=die), Engine()) as stage, httpx.AsyncClient(base_url=stage.url) as client:
            stage.worker.context.tell = into(told)
            assert (await client.post("/v1/chat/completions", json=HELLO)).status_code == 200
            assert [one.row for one in told if isinstance(one, Trouble)] == [0]
            assert [target.row for target in stage.worker.context.routing.loads[0].targets] == [1]

    play(story())


def test_engines_that_are_all_gone_are_tried_all_the_same_and_found_when_they_are_back() -> None:
    async def story() -> None:
        engines = [Engine(), Engine()]
        async with staged(*engines) as stage, httpx.AsyncClient(base_url=stage.url) as client:
            for engine in engines:
                await engine.kill()
            for _ in range(2):
                gone = await client.post("/v1/chat/completions", json=HELLO)
                assert (gone.status_code, gone.json()["error"]["code"]) == (503, "no_capacity")
                assert int(gone.headers["retry-after"]) > 0
            await engines[1].start()
            assert (await client.post("/v1/chat/completions", json=HELLO)).status_code == 200

    play(story())


def into(told: list[ToControl]) -> Callable[[ToControl], bool]:
    """Control, which is there, as a list."""

    def hear(message: ToControl) -> bool:
        told.append(message)
        return True

    return hear


async def mute(_got: Got, _writer: asyncio.StreamWriter) -> None:
    """Take the request, and answer nothing."""
    await asyncio.sleep(60)


def test_a_mute_engine_beside_an_idle_one_costs_a_request_a_moment_and_no_other_one_anything() -> None:
    async def story() -> None:
        told: list[ToControl] = []
        dumb, well = Engine(script=mute), Engine()
        headers = {"x-sageserve-tier": "iw-f"}
        async with staged(dumb, well) as stage, httpx.AsyncClient(base_url=stage.url, timeout=20) as client:
            context = stage.worker.context
            context.tell = into(told)
            context.routing.targets[0].heard = 1  # it was well once
            first = [client.post("/v1/chat/completions", json=STREAM, headers=headers) for _ in range(4)]
            assert [got.status_code for got in await asyncio.gather(*first)] == [200] * 4
            assert [(one.row, one.mute) for one in told if isinstance(one, Trouble)] == [(0, True)], "told once"
            assert context.meter.counters[m.RETRIES, ("mute",)] >= 1
            before, begun = len(dumb.got), asyncio.get_running_loop().time()
            for _ in range(50):
                assert (await client.post("/v1/chat/completions", json=STREAM, headers=headers)).status_code == 200
            assert asyncio.get_running_loop().time() - begun < 5
            assert len(dumb.got) == before
            assert not context.exchanges
            assert sum(load.in_flight for load in context.routing.loads) == 0

    play(story())


def test_what_breaks_engines_after_the_head_of_their_answer_takes_none_of_them_either() -> None:
    async def after_the_head(got: Got, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD if got.json.get("stream") else b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n" + JSON)
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.transport.abort()

    async def story() -> None:
        for asked in (STREAM, HELLO):
            async with staged(Engine(script=die), Engine(script=after_the_head)) as stage:
                routing, counters = stage.worker.context.routing, stage.worker.context.meter.counters
                async with httpx.AsyncClient(base_url=stage.url) as client:
                    got = await client.post("/v1/chat/completions", json=asked)
                assert [len(engine.got) for engine in stage.engines] == [1, 1]
                assert (got.status_code, got.json()["error"]["code"]) == (502, "request_breaks_engines")
                assert [target.row for target in routing.loads[0].targets] == [0, 1]
                assert {labels: count for (name, labels), count in counters.items() if name == m.BREAKS} == {("request",): 1}

    play(story())


def test_a_request_whose_connection_is_pending_is_not_sent_twice() -> None:
    async def slow(got: Got, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(1.2)
        await answer(got, writer)

    async def story() -> None:
        deaf, full = Engine(), socket.socket()  # what connects to a full queue of a listener waits, as if packets were dropped
        well = Engine(script=slow), Engine(script=slow)
        async with staged(deaf, *well) as stage, httpx.AsyncClient(base_url=stage.url, timeout=20) as client:
            context = stage.worker.context
            target = context.routing.targets[0]
            target.heard = 1  # it was well once: a second of silence is too long
            with full:
                full.bind(("127.0.0.1", 0))
                full.listen(0)
                filling = [socket.socket() for _ in range(3)]
                target.port = full.getsockname()[1]
                for one in filling:
                    one.setblocking(False)
                    one.connect_ex(("127.0.0.1", target.port))
                got = await client.post("/v1/chat/completions", json=STREAM, headers={"x-sageserve-tier": "iw-f"})
                for one in filling:
                    one.close()
            assert got.status_code == 200
            assert [len(engine.got) for engine in stage.engines] == [0, 1, 0]
            assert [target.row for target in context.routing.loads[0].targets] == [1, 2], "only the deaf one is left out"

    play(story())


def test_patience_is_that_of_the_whole_prompt_whatever_is_believed_to_be_cached() -> None:
    async def story() -> None:
        async with staged(Engine()) as stage:
            routing = stage.worker.context.routing
            target = routing.targets[0]
            target.heard = 1
            cold, warm = routing.weigh(target, 4_000, target.model, 0), routing.weigh(target, 4_000, target.model, 0, 3_900)
            assert (warm.wait, warm.prefill < cold.prefill / 4) == (cold.wait, True)
            enough = int(SECOND + 4 * (cold.wait + cold.prefill))
            for placed in (cold, warm):
                assert not is_stuck(placed, 4_000, 1, enough, None, streamed=True)
                assert is_stuck(placed, 4_000, 1, enough + 9, None, streamed=True)

    play(story())


def test_an_engine_is_not_heard_because_a_client_does_not_read() -> None:
    async def one_event(_got: Got, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunk(event({"role": "assistant", "content": "one"})))
        await asyncio.sleep(60)

    async def story() -> None:
        async with staged(Engine(script=one_event)) as stage, httpx.AsyncClient(base_url=stage.url) as client:
            context = stage.worker.context
            async with client.stream("POST", "/v1/chat/completions", json=STREAM) as got:
                await anext(got.aiter_bytes())
                (exchange,), (reader,) = context.exchanges, context.clients
                exchange.check(context.clock())
                reader.paused, context.routing.targets[0].heard = True, 7
                exchange.check(context.clock())
                assert context.routing.targets[0].heard == 7

    play(story())


@pytest.mark.parametrize("stream", [False, True])
def test_requests_without_a_first_byte_leave_an_instance_that_control_calls_unwell(stream: bool) -> None:
    async def story() -> None:
        async with staged(Engine(script=mute), Engine(script=mute)) as stage, httpx.AsyncClient(base_url=stage.url) as client:
            routing = stage.worker.context.routing
            asked = asyncio.ensure_future(client.post("/v1/chat/completions", json={**HELLO, "stream": stream}))
            while not any(engine.got for engine in stage.engines):  # noqa: ASYNC110 # engines know of no one who waits
                await asyncio.sleep(0.01)
            there = 0 if stage.engines[0].got else 1
            stage.engines[1 - there].script = answer
            routing.targets[there].well = False
            assert (await asked).status_code == 200
            assert stage.worker.context.meter.counters[m.RETRIES, ("unwell",)] == 1

    play(story())


def test_a_mute_engine_that_is_the_only_one_is_waited_for() -> None:
    async def late(got: Got, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(2.5)
        await answer(got, writer)

    async def story() -> None:
        async with staged(Engine(script=late)) as stage, httpx.AsyncClient(base_url=stage.url) as client:
            told: list[ToControl] = []
            stage.worker.context.tell = into(told)
            stage.worker.context.routing.targets[0].heard = 1
            got = await client.post("/v1/chat/completions", json=STREAM, headers={"x-sageserve-tier": "iw-f"})
            assert (got.status_code, len(stage.engines[0].got)) == (200, 1)
            assert [one.mute for one in told if isinstance(one, Trouble)] == [True], "control is to find out, and once"

    play(story())


def test_control_looks_at_an_instance_that_owes_a_whole_answer_for_longer_than_usual_ones_take() -> None:
    routing = state()
    placed = weigh(routing)
    placed.target.heard = 30 * SECOND
    late = next(now for now in range(30 * SECOND, 600 * SECOND, SECOND) if is_overdue(placed, 500, 100, SECOND, now))
    assert 50 * SECOND < late < 100 * SECOND, "counted from the last answer to anybody, and far sooner than ten minutes"
    assert not is_overdue(placed, 500, 10_000, SECOND, late), "answers are longer"
    placed.target.pace = 4.0
    assert not is_overdue(placed, 500, 100, SECOND, late), "it is slower than its profile"


def test_a_whole_answer_that_is_overdue_has_control_ask_and_goes_where_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "is_overdue", lambda *_: True)

    async def story() -> None:
        async with staged(Engine(script=mute), Engine(script=mute)) as stage, httpx.AsyncClient(base_url=stage.url) as client:
            told: list[ToControl] = []
            stage.worker.context.tell = into(told)
            asked = asyncio.ensure_future(client.post("/v1/chat/completions", json=HELLO))
            while not told:  # noqa: ASYNC110 # as above
                await asyncio.sleep(0.01)
            (trouble,) = told
            assert isinstance(trouble, Trouble)
            assert trouble.mute
            assert not asked.done(), "it may just be long"
            stage.engines[1 - trouble.row].script = answer
            stage.worker.context.routing.targets[trouble.row].well = False  # as control found
            assert (await asked).status_code == 200

    play(story())
