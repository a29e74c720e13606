"""Streams that are open while every gateway is replaced, an engine is scaled in, and the API server is away: none is cut.

All that decides is real: control with its link, gateways of its machine and, under TLS, of others, and the engines of a Service
followed on the fake API server. Forty streams; as many as SAGESERVE_STREAMS names where that is set.
Read next: `tests/live/actuators/test_followed.py`, `tests/live/test_link_port.py`.
"""

import asyncio
import os
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from sageserve.base.config import EngineAccess, LinkSettings, LinkTlsSettings, Scenario
from sageserve.core.layout import Layout
from sageserve.live.actuators.base import EngineAddress, Hear
from sageserve.live.actuators.followed import FollowedActuator, FollowedService, pool_of_service
from sageserve.live.control.liveness import Probed
from sageserve.live.control.loop import WallClock
from sageserve.live.control.process import SOCKET, Control, Home, Parts
from sageserve.live.gateway.context import Options
from sageserve.live.gateway.server import GatewayBinding, GatewayProcess
from sageserve.live.kubernetes.endpoints import ServiceEngines
from sageserve.live.kubernetes.fake import FakeCluster
from sageserve.live.link import LinkServer
from sageserve.live.link_port import ControlAddress, LinkPort
from tests.live.actuators.test_followed import cut_off, fleet, piece, reader_of
from tests.live.control.test_process import NoJobs
from tests.live.gateway.stage import DONE, HELLO, STREAM_HEAD, Engine, Got, answer, ask, chunk, event, play
from tests.live.papers import Authority

STREAMS = int(os.environ.get("SAGESERVE_STREAMS", "40"))  # noqa: TID251 # of a test


class Field:
    """A control process, gateways that come and go, and engines behind a Service."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.cluster = FakeCluster()
        self.go = asyncio.Event()  # streams end
        self.engines = {name: Engine(self._stream) for name in "abc"}
        self.settings: Scenario = fleet()
        ours = Authority(state, "ours")
        control, gateway = ours.issue("control"), ours.issue("gateway")
        tls = LinkTlsSettings(certificate=control.certificate, key=control.key, client_ca=ours.file)
        self.port = LinkPort(LinkSettings(listen="127.0.0.1:0", tls=tls), ("127.0.0.1", 9), "s")
        self.files = EngineAccess(ca_file=ours.file, certificate=gateway.certificate, key=gateway.key)
        parts = Parts(
            self._actuator, self._seen, self._probed, NoJobs(), [], (), WallClock(), lambda: 1_800_000_000_000_000, lambda _: ()
        )
        parts = replace(parts, link=partial(LinkServer, port=self.port))
        self.control = Control(self.settings, Home(state, "127.0.0.1", 0, "", "e", "s"), parts)
        self.gateways: dict[str, GatewayProcess] = {}

    async def _stream(self, got: Got, writer: asyncio.StreamWriter) -> None:
        if not got.json.get("stream"):
            await answer(got, writer)
            return
        writer.write(STREAM_HEAD + chunk(event({"content": "one"})))
        await self.go.wait()
        writer.write(chunk(event({"content": " two"}, "stop")) + chunk(DONE) + b"0\r\n\r\n")

    def _actuator(self, hear: Hear, layout: Layout) -> FollowedActuator:
        (one,) = self.settings.live.services if self.settings.live else ()
        service = FollowedService(pool_of_service(layout, one), ServiceEngines(one, reader_of(self.cluster)), "big")
        return FollowedActuator(hear, [service], self.state)

    async def _seen(self, place: EngineAddress) -> tuple[float | None, int, int, float | None]:
        return 0.1, STREAMS, 0, None

    async def _probed(self, place: EngineAddress) -> Probed:
        return Probed.MADE

    def tell(self, name: str, state: str) -> None:
        """What the cluster says of an engine."""
        self.cluster.put(piece(f"slice-{name}", {"127.0.0.1": state}, self.engines[name].port))

    async def begin(self, name: str) -> None:
        """A gateway comes; those of even numbers from another machine."""
        far = name.endswith("2")
        control = ControlAddress(f"tls://localhost:{self.port.port}", self.files) if far else self.state / SOCKET
        options = Options(nonce=name, worker=0, host=name if far else "")
        place = GatewayBinding(host="127.0.0.1", port=0, control=control, drain_s=600, options=options)
        self.gateways[name] = gateway = GatewayProcess(self.settings, place)
        await gateway.start()

    def states(self) -> dict[str, int]:
        (pool,) = (pool for end in self.control.status().endpoints for pool in end.pools if pool.pool == "east/big/h100")
        return {"serving": pool.serving, "draining": pool.draining}

    async def until(self, serving: int, draining: int) -> None:
        """Control has so many, and every gateway knows."""
        async with asyncio.timeout(20):
            while True:
                gateway = self.control.status().gateway
                if self.states() == {"serving": serving, "draining": draining} and gateway.knowing == gateway.processes == len(
                    self.gateways
                ):
                    return
                await asyncio.sleep(0.01)  # messages come through sockets

    async def open(self, name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A stream through a gateway, whose first words are here."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.gateways[name].port)
        writer.write(ask({**HELLO, "stream": True}))
        await reader.readuntil(b"one")
        return reader, writer

    async def next_one(self, name: str) -> str:
        """The engine that a gateway sends the next request to, as it did the last one."""
        before = {one: len(engine.got) for one, engine in self.engines.items()}
        await self.ask(name)
        return next(one for one, engine in self.engines.items() if len(engine.got) > before[one])

    async def ask(self, name: str) -> bytes:
        """A request of its own, answered at once."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.gateways[name].port)
        writer.write(ask(HELLO, headers="connection: close\r\n"))
        said = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        return said


@asynccontextmanager
async def field(state: Path) -> AsyncIterator[Field]:
    found, stop = Field(state), asyncio.Event()
    for name, engine in found.engines.items():
        await engine.start()
        found.tell(name, "ready")
    running = asyncio.create_task(found.control.run(stop))
    try:
        yield found
    finally:
        stop.set()
        await running
        for gateway in found.gateways.values():
            await gateway.close()
        for engine in found.engines.values():
            await engine.kill()


def test_no_stream_is_cut_by_new_gateways_a_scale_in_and_an_api_server_that_is_away(tmp_path: Path) -> None:
    enough = 8 * STREAMS + 200  # both ends of a stream, and both of the one behind it
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, enough), hard), hard))

    async def story() -> None:
        async with field(tmp_path) as here:
            await here.begin("old-1")
            await here.until(serving=3, draining=0)
            await here.begin("old-2")
            await here.until(serving=3, draining=0)
            streams = [await here.open(f"old-{1 + n % 2}") for n in range(STREAMS)]
            assert all(engine.got for engine in here.engines.values())

            leaving = []
            for number in (1, 2):  # one after another
                await here.begin(f"new-{number}")
                await here.until(serving=3, draining=0)
                leaving.append(asyncio.create_task(here.gateways[f"old-{number}"].drain()))
                assert b" 200 " in await here.ask(f"new-{number}")

            going = await here.next_one("new-1")
            here.tell(going, "ending")
            await here.until(serving=2, draining=1)
            before = len(here.engines[going].got)
            answers = [await here.ask(f"new-{1 + n % 2}") for n in range(12)]
            assert all(b" 200 " in one for one in answers)
            assert len(here.engines[going].got) == before, "who is about to end gets nothing new"

            here.cluster.failing = lambda *_: 503
            cut_off(here.cluster)
            here.tell(min(here.engines.keys() - {going}), "unready")  # which nobody hears
            await asyncio.sleep(0.1)
            assert here.states() == {"serving": 2, "draining": 1}
            assert b" 200 " in await here.ask("new-1")
            assert not any(engine.closed for engine in here.engines.values()), "no stream was broken off at an engine"

            here.go.set()
            whole = [await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 60) for reader, _ in streams]
            assert sum(b"two" in one and b"[DONE]" in one for one in whole) == STREAMS
            for _, writer in streams:
                writer.close()
            await asyncio.wait_for(asyncio.gather(*leaving), 30)

    try:
        play(story())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
