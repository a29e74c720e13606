"""The same with a real Envoy, which SAGESERVE_ENVOY names: traffic follows files, answers under way end, and what was told stays.

Extended: seconds. Control is a socket of this test, engines are small servers. Read next: `test_counts.py`; docs/how-to/envoy.md.
"""

import asyncio
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest
from msgspec.structs import replace

from sageserve.live.envoy.bootstrap import bootstrap
from sageserve.live.envoy.process import EnvoyBinding, EnvoyPublisher
from sageserve.live.gateway.server import clock
from sageserve.live.link import LinkServer
from sageserve.live.wire import EndpointRow, InstanceRow, Report, RoutingTable, ToControl, layout_mark
from tests.live.gateway.test_routing_state import CALM, FAR, LAYOUT, NEAR, SETTINGS, table
from tests.live.prometheus.real import free_port

ENVOY = os.environ.get("SAGESERVE_ENVOY", "")  # noqa: TID251 # which systems there are to try against
pytestmark = [pytest.mark.extended, pytest.mark.skipif(not ENVOY, reason="SAGESERVE_ENVOY names no Envoy")]
MODEL = LAYOUT.names.models[0]
FULL = EndpointRow(0.9, 0.1, 0.9, 0.9, 0.0, 100_000, 1)


class Engine:
    """Answers with its name; asked to stream, it goes on until it is let go."""

    def __init__(self, name: str, row: int) -> None:
        self.name, self.row, self.port = name, row, 0
        self.streams = 0
        self.go = asyncio.Event()
        self.server: asyncio.Server | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
                )
                asked = json.loads(await reader.readexactly(length))
                if asked.get("stream"):
                    await self.stream(writer)
                else:
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(self.name), self.name.encode()))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def stream(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\nfirst \r\n")
        self.streams += 1
        await self.go.wait()
        writer.write(b"4\r\nlast\r\n0\r\n\r\n")
        self.streams -= 1

    def at(self, *, opens: bool = True) -> InstanceRow:
        return InstanceRow(self.row, self.row // LAYOUT.slots, f"http://localhost:{self.port}", MODEL, opens, 0, 0)


class Stage:
    """Control, a publisher, an Envoy, and three engines: two near, one far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reports: list[Report] = []
        self.engines = [Engine("a", NEAR * LAYOUT.slots), Engine("b", NEAR * LAYOUT.slots + 1), Engine("c", FAR * LAYOUT.slots)]
        self.control = LinkServer(self._heard, lambda _: None, layout_mark(LAYOUT))
        self.ports = free_port(), free_port()
        self.admin = f"http://127.0.0.1:{self.ports[1]}"
        place = EnvoyBinding(folder / "control.sock", folder / "files", self.admin)
        self.publisher = EnvoyPublisher(SETTINGS, place, clock)
        self.client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.ports[0]}", timeout=10, trust_env=False)
        self.version = 0

    def _heard(self, _: int, message: ToControl) -> None:
        if isinstance(message, Report):
            self.reports.append(message)

    async def say(self, *instances: InstanceRow, near: EndpointRow = CALM) -> None:
        """A table, until it is known to be carried out."""
        self.version += 1
        said: RoutingTable = replace(
            table(rows=(near, CALM, CALM, CALM), scraped=self.version), version=self.version, instances=instances
        )
        await until(lambda: bool(self.control.gateways))
        for number in self.control.gateways:
            self.control.send(number, said)
        await until(lambda: bool(self.reports) and self.reports[-1].version == self.version)

    async def ask(self, times: int = 60, model: str = MODEL) -> Counter[str]:
        asked = [self.client.post("/v1/chat/completions", json={"model": model}) for _ in range(times)]
        found = await asyncio.gather(*asked)
        return Counter(one.text if one.status_code == httpx.codes.OK else str(one.status_code) for one in found)

    @asynccontextmanager
    async def envoy(self) -> AsyncIterator[None]:
        """It runs until the block ends."""
        file = self.folder / "envoy.json"
        places = ("127.0.0.1", self.ports[0]), ("127.0.0.1", self.ports[1])
        file.write_text(json.dumps(bootstrap(LAYOUT, str(self.folder / "files"), *places), allow_nan=False), "utf-8")
        words = ("-c", str(file), "--concurrency", "1", "-l", "warn", "--use-dynamic-base-id")
        with (self.folder / "envoy.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(ENVOY, *words, stderr=log)
        try:
            for _ in range(200):
                try:
                    if (await self.client.get(f"{self.admin}/ready")).status_code == httpx.codes.OK:
                        break
                except httpx.HTTPError:
                    pass
                await asyncio.sleep(0.05)
            else:
                pytest.fail((self.folder / "envoy.log").read_text("utf-8"))
            yield
        finally:
            process.kill()
            await process.wait()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 # other processes set no event
            await asyncio.sleep(0.02)


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[Stage, "asyncio.Task[None]"]]:
    """All of it but Envoy, which needs files."""
    stage = Stage(folder)
    async with AsyncExitStack() as held:
        for engine in stage.engines:
            engine.server = await asyncio.start_server(engine.serve, "127.0.0.1", 0)
            engine.port = engine.server.sockets[0].getsockname()[1]
            held.callback(engine.server.close)
        held.push_async_callback(stage.client.aclose)
        await stage.control.open(folder / "control.sock")
        held.push_async_callback(stage.control.close)
        work = asyncio.create_task(stage.publisher.run())
        held.callback(work.cancel)
        await until(lambda: bool(stage.control.gateways))
        for number in stage.control.gateways:
            stage.control.send(number, replace(table(), instances=(), version=0))
        await until((folder / "files" / "routes.json").exists)
        yield stage, work


async def story(folder: Path) -> None:
    async with running(folder) as (stage, work):
        a, b, c = stage.engines
        async with stage.envoy():
            assert await stage.ask(1) == {"503": 1}, "nothing is open"
            await stage.say(a.at(), b.at(), c.at())
            found = await stage.ask()
            assert set(found) == {"a", "b"}
            assert min(found.values()) > 10
            assert await stage.ask(2, "another") == {"404": 2}
            await stage.say(a.at(), b.at(), c.at(), near=FULL)
            assert await stage.ask() == {"c": 60}, "the nearest is full"
            await drained(stage)
            counted = sum(cell.requests for cell in stage.reports[-1].cells)
            await stage.control.close()  # control is gone, and with it whoever publishes
            work.cancel()
            for engine in stage.engines:
                assert await stage.ask(20) == {"b": 20}, "it goes on with what it was told last"
                engine.go.set()
            assert counted == 60 + 60 + 1 + 40
        async with stage.envoy():
            assert await stage.ask(20) == {"b": 20}, "started anew, it reads what is there"


async def drained(stage: Stage) -> None:
    """An answer under way ends where it is, while nothing new comes there."""
    a, b, c = stage.engines
    await stage.say(a.at(), c.at(opens=False))
    async with stage.client.stream("POST", "/v1/chat/completions", json={"model": MODEL, "stream": True}) as answer:
        parts = answer.aiter_text()
        first = await anext(parts)
        await stage.say(a.at(opens=False), b.at())
        assert await stage.ask(40) == {"b": 40}
        await until(lambda: [(one.row, one.in_flight) for one in stage.reports[-1].instances] == [(a.row, 1)])
        a.go.set()
        assert first + "".join([part async for part in parts]) == "first last"
    await until(lambda: stage.reports[-1].instances == ())
    await stage.say(b.at())


def test_traffic_follows_answers_end_and_what_was_told_stays(tmp_path: Path) -> None:
    asyncio.run(story(tmp_path))
    log = (tmp_path / "envoy.log").read_text("utf-8")
    assert "rejected" not in log, log
    assert "error" not in log.lower().replace("ext_error", ""), log
