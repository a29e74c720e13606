"""A gateway and its control process: tables in, counts out, flex requests that wait, and what happens when control is gone.

Read next: `live/wire.py` for the messages, `stage.py` for the engines.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
import pytest
from msgspec.structs import replace
from numpy.typing import NDArray

from sageserve.core import route
from sageserve.core.admit import LONGEST, SHORTEST, come_again, is_admitted, predicted_wait
from sageserve.core.columns import ENDPOINT
from sageserve.live.gateway.context import Options
from sageserve.live.gateway.python_kernels import Row, pick_endpoint, pick_instance
from sageserve.live.gateway.server import GatewayBinding
from sageserve.live.link import LinkServer
from sageserve.live.wire import (
    ANYWHERE,
    EndpointRow,
    Gone,
    Grant,
    Hello,
    InstanceRow,
    Refusal,
    Report,
    RoutingTable,
    ToControl,
    Trouble,
    Wait,
)
from tests.live.gateway.stage import HELLO, Engine, Got, Script, Stage, answer, ask, play, staged, whole
from tests.live.gateway.test_faults import die
from tests.live.test_link import tell_all

M = TypeVar("M")
FLEX = {**HELLO, "service_tier": "flex"}
CALM = EndpointRow(0.1, 0.1, 0.1, 0.1, 0.0, 100_000, 1)


class Control:
    """A control process that says what it is told to, and remembers what it heard."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.heard: list[ToControl] = []
        self.version = 0
        self.server = LinkServer(lambda _, message: self.heard.append(message), lambda _: None)

    def of(self, kind: type[M]) -> list[M]:
        return [message for message in self.heard if isinstance(message, kind)]

    async def wait(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110 # messages come through a callback
                await asyncio.sleep(0.01)

    def table(self, *rows: InstanceRow, endpoints: tuple[EndpointRow, ...] = (CALM,) * 4, gateways: int = 1) -> None:
        self.version += 1
        tell_all(self.server, RoutingTable(self.version, "e", self.version, 0, endpoints, rows, (50.0,) * 6, gateways))


@contextlib.asynccontextmanager
async def controlled(folder: Path, *engines: Engine, options: Options | None = None) -> AsyncIterator[tuple[Stage, Control]]:
    """A gateway that listens to a control process, which has not said anything yet."""
    for engine in engines:
        await engine.start()
    control = Control(folder / "link")
    await control.server.open(control.path)
    place = GatewayBinding(host="127.0.0.1", port=0, control=control.path, options=options or Options(nonce="t"))
    async with staged(place=place) as stage:
        await control.wait(lambda: control.of(Hello))
        yield stage, control
    for engine in engines:
        await engine.kill()
    await control.server.close()


def at(engine: Engine, row: int = 0, endpoint: int = 0) -> InstanceRow:
    return InstanceRow(row, endpoint, f"http://127.0.0.1:{engine.port}", "", True, 0, 0)


def test_a_table_opens_the_door_and_reports_come_back(tmp_path: Path) -> None:
    async def story() -> None:
        engine = Engine()
        async with controlled(tmp_path, engine) as (stage, control), httpx.AsyncClient(base_url=stage.url) as client:
            assert (await client.get("/health/ready")).status_code == 503
            assert [hello.nonce for hello in control.of(Hello)] == ["t"], "the name of this process and of no other"
            control.table(at(engine))
            await control.wait(lambda: stage.worker.context.routing.known)
            assert (await client.post("/v1/chat/completions", json=HELLO)).status_code == 200
            await control.wait(lambda: any(report.cells for report in control.of(Report)))
            report = control.of(Report)[-1]
            assert report.version == 1
            cell = report.cells[0]
            assert (cell.cell, cell.requests, cell.finished, cell.on_time, cell.output_tokens) == (1, 1, 1, 1, 4)
            assert cell.work > 0
            load = report.endpoints[0]
            assert (load.endpoint, load.placed, load.freed, load.backlog) == (0, 1, 1, 0.0)
            assert report.output_mean[1] == 50.0 + (4 - 50.0) / 256

    play(story())


def test_traffic_follows_the_tables_signals(tmp_path: Path) -> None:
    async def story() -> None:
        east, west = Engine(), Engine()
        async with controlled(tmp_path, east, west) as (stage, control), httpx.AsyncClient(base_url=stage.url) as client:
            full = EndpointRow(0.9, 0.9, 0.9, 0.9, 0.0, 100_000, 1)
            control.table(at(east), at(west, row=8, endpoint=2), endpoints=(full, CALM, CALM, CALM))
            await control.wait(lambda: stage.worker.context.routing.known)
            got = await client.post("/v1/chat/completions", json=HELLO)
            assert got.headers["x-sageserve-region"] == "west"
            control.table(at(east), at(west, row=8, endpoint=2))
            await control.wait(lambda: stage.worker.context.routing.version == 2)
            got = await client.post("/v1/chat/completions", json=HELLO)
            assert got.headers["x-sageserve-region"] == "east"

    play(story())


def test_trouble_is_told_and_ends_with_the_next_table(tmp_path: Path) -> None:
    async def story() -> None:
        bad, good = Engine(script=die), Engine()
        async with controlled(tmp_path, bad, good) as (stage, control), httpx.AsyncClient(base_url=stage.url) as client:
            control.table(at(bad), at(good, row=1))
            await control.wait(lambda: stage.worker.context.routing.known)
            assert (await client.post("/v1/chat/completions", json=HELLO)).status_code == 200
            await control.wait(lambda: control.of(Trouble))
            assert control.of(Trouble)[0].row == 0
            load = stage.worker.context.routing.loads[0]
            assert [target.row for target in load.targets] == [1]
            control.table(at(bad), at(good, row=1))
            await control.wait(lambda: len(load.targets) == 2)

    play(story())


def test_flex_waits_for_its_grant_and_says_when_it_is_done(tmp_path: Path) -> None:
    async def story() -> None:
        engine = Engine()
        async with controlled(tmp_path, engine) as (stage, control), httpx.AsyncClient(base_url=stage.url) as client:
            control.table(at(engine))
            asked = asyncio.create_task(client.post("/v1/chat/completions", json=FLEX))
            await control.wait(lambda: control.of(Wait))
            wait = control.of(Wait)[0]
            assert (wait.region, wait.model, wait.tier) == (0, 0, 2)
            assert not engine.got
            tell_all(control.server, Grant(wait.ticket, 0))
            got = await asked
            assert (got.status_code, got.headers["x-sageserve-tier"], got.json()["service_tier"]) == (200, "niw", "flex")
            await control.wait(lambda: control.of(Gone))
            assert control.of(Gone) == [Gone(wait.ticket)]

    play(story())


def test_flex_that_may_go_anywhere_is_routed(tmp_path: Path) -> None:
    async def story() -> None:
        east, west = Engine(), Engine()
        async with controlled(tmp_path, east, west) as (stage, control), httpx.AsyncClient(base_url=stage.url) as client:
            full = EndpointRow(0.9, 0.9, 0.9, 0.9, 0.0, 100_000, 1)
            control.table(at(east), at(west, row=8, endpoint=2), endpoints=(full, CALM, CALM, CALM))
            await control.wait(lambda: stage.worker.context.routing.known)
            asked = asyncio.create_task(client.post("/v1/chat/completions", json=FLEX))
            await control.wait(lambda: control.of(Wait))
            tell_all(control.server, Grant(control.of(Wait)[0].ticket, ANYWHERE))
            got = await asked
            assert (got.status_code, got.headers["x-sageserve-region"]) == (200, "west")

    play(story())


def test_a_promoted_job_is_not_turned_away_because_it_was_let_in_when_it_was_queued(tmp_path: Path) -> None:
    async def story() -> None:
        engine = Engine()
        async with controlled(tmp_path, engine, options=Options(internal="secret", nonce="t")) as (stage, control):
            control.table(at(engine), endpoints=(EndpointRow(2.0, 0.9, 2.0, 2.0, 1e15, 100_000, 1),) * 4)
            await control.wait(lambda: stage.worker.context.routing.known)
            async with httpx.AsyncClient(base_url=stage.url) as client:
                assert (await client.post("/v1/chat/completions", json=HELLO)).status_code == 429
                headers = {"authorization": "Bearer secret", "x-sageserve-tier": "niw"}
                assert (await client.post("/v1/chat/completions", json=HELLO, headers=headers)).status_code == 200

    play(story())


def test_flex_that_waited_in_vain_is_told_to_come_again(tmp_path: Path) -> None:
    async def story() -> None:
        async with controlled(tmp_path) as (stage, control), httpx.AsyncClient(base_url=stage.url) as client:
            asked = asyncio.create_task(client.post("/v1/chat/completions", json=FLEX))
            await control.wait(lambda: control.of(Wait))
            tell_all(control.server, Refusal(control.of(Wait)[0].ticket, 7_500_000))
            got = await asked
            assert (got.status_code, got.headers["retry-after"], got.headers["retry-after-ms"]) == (429, "8", "7500")

    play(story())


def test_flex_whose_client_leaves_gives_its_ticket_back(tmp_path: Path) -> None:
    async def story() -> None:
        async with controlled(tmp_path) as (stage, control):
            _, writer = await asyncio.open_connection("127.0.0.1", stage.worker.port)
            writer.write(ask(FLEX))
            await control.wait(lambda: control.of(Wait))
            writer.transport.abort()
            await control.wait(lambda: control.of(Gone))
            assert len(stage.worker.context.waiting) == 0

    play(story())


def test_a_gateway_outlives_control_and_hands_in_its_tickets_again(tmp_path: Path) -> None:
    async def story() -> None:
        engine = Engine()
        async with controlled(tmp_path, engine) as (stage, control), httpx.AsyncClient(base_url=stage.url) as client:
            control.table(at(engine))
            asked = asyncio.create_task(client.post("/v1/chat/completions", json=FLEX))
            await control.wait(lambda: control.of(Wait))
            await control.server.close()
            assert (await client.post("/v1/chat/completions", json=HELLO)).status_code == 200
            assert (await client.get("/health/ready")).status_code == 200
            again = Control(control.path)
            await again.server.open(again.path)
            await again.wait(lambda: again.of(Wait))
            tell_all(again.server, Grant(again.of(Wait)[0].ticket, 0))
            assert (await asked).status_code == 200
            await again.server.close()

    play(story())


@pytest.mark.parametrize(
    ("backlog", "in_flight", "sequences", "instances", "wait"),
    [(0.0, 0, 8, 1, 0.0), (-5.0, 0, 8, 1, 0.0), (900.0, 0, 8, 3, 300.0), (0.0, 10, 8, 2, 100.0), (900.0, 10, 8, 1, 900.0)],
)
def test_the_predicted_wait_is_the_longer_queue(
    backlog: float, in_flight: int, sequences: int, instances: int, wait: float
) -> None:
    assert predicted_wait(backlog=backlog, in_flight=in_flight, sequences=sequences, work=100.0, instances=instances) == wait


def test_admission_and_when_to_come_again() -> None:
    assert is_admitted(wait=1.0, limit=1.0, in_flight=3, most=4)
    assert not is_admitted(wait=1.1, limit=1.0, in_flight=3, most=4)
    assert not is_admitted(wait=0.0, limit=1.0, in_flight=4, most=4)
    assert come_again(3_000_000.0, 1_000_000.0) == 2_000_000
    assert come_again(1.0, 2.0) == SHORTEST
    assert come_again(1e12, 0.0) == LONGEST


def rows_of(rows: NDArray[Any]) -> list[Row]:
    return [dict(zip(rows.dtype.names or (), row.item(), strict=True)) for row in rows]


def test_plain_decisions_are_those_of_the_simulator() -> None:
    draw = np.random.Generator(np.random.PCG64(7))  # numbers to compare on, drawn the same in every run
    rules_type = np.dtype([("route", "i8"), ("threshold", "f8"), ("signal", "i8"), ("half_life", "f8")])
    for _ in range(300):
        endpoints = np.zeros(5, ENDPOINT)
        for name in ("kv", "busy", "rate"):
            endpoints[name] = draw.random(5)
        endpoints["offered"] = draw.random(5) * 1e6
        endpoints["open"] = draw.integers(0, 3, 5)
        rules = np.zeros(1, rules_type)
        rules["route"], rules["signal"] = draw.integers(0, 3), draw.integers(0, 3)
        rules["threshold"], rules["half_life"] = draw.random(), 3e7
        walk = draw.permutation(5).astype(np.int32)
        elapsed = int(draw.integers(0, 5_000_000))
        compiled = route.pick_endpoint(rules[0], endpoints, walk, 0, 5, elapsed)
        assert pick_endpoint(rows_of(rules)[0], rows_of(endpoints), walk.tolist(), 0, 5, elapsed) == compiled
        loads = draw.integers(0, 5, 6)
        assert pick_instance(loads.tolist(), 0, 6) == route.pick_instance(loads, 0, 6)


def test_a_gateway_says_that_it_goes_on_once_it_is_ready() -> None:
    async def story() -> None:
        said: list[str] = []
        place = GatewayBinding("127.0.0.1", 0, ready=lambda: said.append("ready"), alive=lambda: said.append("alive"))
        async with staged(Engine(), place=place):
            while len(said) < 2:  # noqa: ASYNC110 # a callback of the gateway's own clock
                await asyncio.sleep(0.02)
        assert said == ["ready", "alive"]

    play(story())


async def fails(got: Got, writer: asyncio.StreamWriter) -> None:
    writer.write(whole({"error": {"message": "no weights"}}, 500))


async def knows_nothing(got: Got, writer: asyncio.StreamWriter) -> None:
    writer.write(whole({"error": {"message": "no such model"}}, 404))


async def refuses(got: Got, writer: asyncio.StreamWriter) -> None:
    writer.write(whole({"error": {"message": "too long"}}, 400))


@pytest.mark.parametrize(("script", "new"), [(fails, (5, 5)), (knows_nothing, (5, 5)), (refuses, (0, 0)), (answer, (5, 0))])
def test_what_versions_keep_is_counted_by_who_had_the_request(tmp_path: Path, script: Script, new: tuple[int, int]) -> None:
    async def story() -> None:
        engines = Engine(), Engine(script=script)
        async with controlled(tmp_path, *engines) as (stage, control), httpx.AsyncClient(base_url=stage.url) as client:
            rows = [replace(at(engine, row), revision=row, trial=row == 1) for row, engine in enumerate(engines)]
            control.table(*rows)
            await control.wait(lambda: stage.worker.context.routing.known)
            for k in range(10):
                control.table(*rows)  # it leaves one out that answered 500, until the next table
                await control.wait(lambda: stage.worker.context.routing.version == control.version)
                asked = await client.post("/v1/chat/completions", json={**HELLO, "stream": k % 2 == 1})
                assert script is not fails or asked.status_code == 200, "another version answers in its place"
            old = 10 if script is fails else 5  # what it answers in the other's place is its own, too
            await control.wait(
                lambda: any(sum(sum(row.asked) for row in r.revisions) >= old + new[0] for r in control.of(Report))
            )
            counted = {row.revision: (sum(row.asked), sum(row.missed)) for row in control.of(Report)[-1].revisions}
            assert counted.get(1, (0, 0)) == new
            assert counted[0] == (old, 0)

    play(story())
