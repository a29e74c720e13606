"""Requests for an endpoint without instances, in a real gateway: held, let in, bounded, sent away with the reason, let go.

Control is played: its tables are handed over, and what the gateway reports is read. Read next:
`src/sageserve/live/gateway/door_queue.py`; `tests/parity/test_front_door.py` for who is held and who is not.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from sageserve.base.units import MINUTE, SECOND
from sageserve.live.gateway.server import GatewayBinding, GatewayProcess, clock
from sageserve.live.wire import AsleepRow, EndpointRow, InstanceRow, RoutingTable, WaitingCount
from tests.core.small import scenario
from tests.live.gateway.stage import HELLO, Engine, Stage, ask, play

NOTHING = EndpointRow(0.0, 0.0, 0.0, 0.0, 0.0, 0, 0)


class Control:
    """What control says to the gateway of a stage."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.context = stage.worker.context
        self.version = 0

    def says(self, *instances: InstanceRow, asleep: tuple[AsleepRow, ...] = (), gateways: int = 1, epoch: str = "one") -> None:
        self.version += 1
        rows = (NOTHING,) * self.context.layout.endpoints
        means = tuple(self.context.routing.output_mean)
        self.stage.worker._hear(RoutingTable(self.version, epoch, 0, 0, rows, instances, means, gateways, asleep=asleep))

    def opens(self, endpoint: int = 0) -> None:
        engine, row = self.stage.engines[0], endpoint * self.context.layout.slots
        self.says(InstanceRow(row, endpoint, f"http://127.0.0.1:{engine.port}", "", True, 0, 0))

    @property
    def held(self) -> tuple[WaitingCount, ...]:
        return self.context.demand.report(0, self.context.door.counts()).held

    async def waits(self, many: int = 1) -> None:
        """Until so many are held."""
        async with asyncio.timeout(5):
            while len(self.context.door) != many:  # noqa: ASYNC110 # it is counted in the gateway, which tells nobody
                await asyncio.sleep(0.002)


@contextlib.asynccontextmanager
async def sleeping(queued: int = 4, **limits: object) -> AsyncIterator[Control]:
    fleet = {"start": 0, "minimum": 0, "maximum": 2}
    engine = Engine()
    await engine.start()
    settings = scenario(fleet=fleet, admission={"queued": queued}, live={"limits": limits})
    worker = GatewayProcess(settings, GatewayBinding(host="127.0.0.1", port=0))
    await worker.start()
    worker.context.controlled = True
    try:
        control = Control(Stage(worker, [engine]))
        control.says()
        yield control
    finally:
        await worker.close()
        await engine.kill()


def test_they_are_reported_and_let_in_once_one_is_open() -> None:
    async def story() -> None:
        async with sleeping() as control:
            told: list[int] = []
            control.context.door.asked = lambda: told.append(sum(one.requests for one in control.held))
            asked = []
            for n in range(3):
                body = {**HELLO, "user": str(n)}
                asked.append(asyncio.create_task(control.stage.speak(ask(body), until=b"three")))
                await control.waits(n + 1)
            assert told == [1], "control hears of the first one at once, and of the others with the next report"
            assert control.held[0] == WaitingCount(1, 3)
            control.says(asleep=(AsleepRow(0, True, 0, False, 0, ""),))
            assert len(control.context.door) == 3
            control.opens()
            assert len(control.held) == 0
            assert all([b" 200 " in await one for one in asked])
            assert sorted(str(one.json["user"]) for one in control.stage.engines[0].got) == ["0", "1", "2"]
            later = await control.stage.speak(ask(HELLO), until=b"three")
            assert b" 200 " in later

    play(story())


@pytest.mark.parametrize(
    ("limits", "queued", "gateways", "why"),
    [
        ({"held": 2}, 4, 1, "2 requests, as many as may, wait already"),
        ({"held_bodies": "140B"}, 4, 1, "as many bytes of requests as may wait already"),
        ({}, 1, 16, "as many as one instance would be let have, wait for it already"),
    ],
)
def test_beyond_what_may_wait_they_are_turned_away_with_the_reason(
    limits: dict[str, object], queued: int, gateways: int, why: str
) -> None:
    async def story() -> None:
        async with sleeping(queued, **limits) as control:
            places = int(control.context.routing.profiles[0]["max_sequences"])
            most = 2 if limits else -(-places // gateways)
            control.says(asleep=(AsleepRow(0, True, 0, False, 42 * SECOND, "one is being started"),), gateways=gateways)
            asked = []
            for n in range(most):
                asked.append(asyncio.create_task(control.stage.speak(ask(HELLO), until=b"three")))
                await control.waits(n + 1)
            one_more = (await control.stage.speak(ask(HELLO), until=b"}}")).decode()
            assert " 503 " in one_more
            assert '"no_capacity"' in one_more
            assert why in one_more
            assert "retry-after: 42\r\n" in one_more
            control.opens()
            assert all([b" 200 " in await one for one in asked])

    play(story())


def test_a_start_that_fails_is_told_to_those_who_waited_for_it() -> None:
    async def story() -> None:
        async with sleeping() as control:
            whole = asyncio.create_task(control.stage.speak(ask(HELLO), until=b"}}"))
            await control.waits()
            stream = asyncio.create_task(control.stage.speak(ask({**HELLO, "stream": True})))
            await control.waits(2)
            (_, second) = control.context.exchanges
            second.check(clock() + 11 * SECOND)  # a sign of life opens the answer
            control.says(asleep=(AsleepRow(0, True, 3, False, 0, ""),), epoch="an earlier control's count says nothing")
            control.says(asleep=(AsleepRow(0, True, 4, False, 0, "two of two"),), epoch="an earlier control's count says nothing")
            assert len(control.context.door) == 2, "another one is coming"
            control.says(
                asleep=(AsleepRow(0, False, 5, False, 4 * SECOND, "its start failed"),),
                epoch="an earlier control's count says nothing",
            )
            said, streamed = (await whole).decode(), (await stream).decode()
            assert " 503 " in said
            assert "retry-after: 4\r\n" in said, "the pause before the next start"
            assert '"east/big has no instance: its start failed."' in said
            assert '"code":"start_failed"' in said
            assert ": ping" in streamed
            assert '"code":"start_failed"' in streamed
            assert not streamed.endswith("0\r\n\r\n"), "a stream that fails is never ended cleanly"
            assert sum(one.refused for one in control.context.demand.report(0).cells) == 2

    play(story())


def test_patience_ends_and_is_short_where_starts_go_on_failing() -> None:
    async def story() -> None:
        async with sleeping(held_for="3m") as control:
            first = asyncio.create_task(control.stage.speak(ask(HELLO), until=b"}}"))
            await control.waits()
            control.context.door.tidy(clock() + 3 * MINUTE - SECOND)
            assert len(control.context.door) == 1
            control.context.door.tidy(clock() + 3 * MINUTE)
            said = (await first).decode()
            assert " 503 " in said
            assert "It waited 3m: east/big has no instance." in said
            control.says(asleep=(AsleepRow(0, True, 3, True, 0, "3 starts failed in a row"),))
            second = asyncio.create_task(control.stage.speak(ask(HELLO), until=b"}}"))
            await control.waits()
            control.context.door.tidy(clock() + 15 * SECOND)
            assert b"3 starts failed in a row" in await second

    play(story())


def test_the_wait_is_in_the_time_to_the_first_token_and_breaks_the_promise() -> None:
    async def story() -> None:
        async with sleeping() as control:
            stream = asyncio.create_task(control.stage.speak(ask({**HELLO, "stream": True}), until=b"[DONE]"))
            await control.waits()
            control.context.clock = lambda: clock() + 61 * SECOND  # a minute is promised
            control.opens()
            assert b"[DONE]" in await stream
            found = control.context.meter.samples()
            labels = '{gen_ai_request_model="big",tier="iw-n"}'
            assert found["sageserve_gateway_first_tokens_late_total" + labels] == 1
            assert found["gen_ai_server_time_to_first_token_seconds_sum" + labels] > 61

    play(story())


def test_who_hangs_up_waits_no_more_and_who_drains_goes_on_holding() -> None:
    async def story() -> None:
        async with sleeping() as control:
            _, writer = await asyncio.open_connection("127.0.0.1", control.stage.worker.port)
            writer.write(ask(HELLO))
            await control.waits()
            writer.close()
            await control.waits(0)
            assert len(control.held) == 0
            other = asyncio.create_task(control.stage.speak(ask(HELLO), until=b"three"))
            await control.waits()
            draining = asyncio.create_task(control.stage.worker.drain())
            await asyncio.sleep(0)
            control.opens()
            assert b" 200 " in await other
            await draining

    play(story())


def test_where_nobody_controls_or_none_may_sleep_nothing_is_held() -> None:
    async def story() -> None:
        async with sleeping() as control:
            control.context.controlled = False
            assert b'"no_capacity"' in await control.stage.speak(ask(HELLO), until=b"}}")

    play(story())
