"""What every actuator owes the loop: one suite over the fake one in virtual time and the local one with real processes."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import httpx
import pytest

from sageserve.base.config import EngineCommand, LiveSettings
from sageserve.base.errors import ConfigError
from sageserve.base.units import NEVER, SECOND, Micros
from sageserve.core.actions import Donate, Reclaim, Release, Source, Start
from sageserve.core.events import InstanceLost, InstanceReady, SpotTaken, StartFailed
from sageserve.live.actuators.base import Actuator, Heard, Post, posts_of
from sageserve.live.actuators.commands import check_commands
from sageserve.live.actuators.fake import FakeActuator, ScriptedOutcome
from sageserve.live.actuators.local import LocalActuator
from sageserve.live.supervisor.client import SupervisorClient
from sageserve.live.supervisor.messages import Life, Process
from sageserve.live.supervisor.service import SOCKET
from tests.core.small import layout_of, scenario
from tests.live.supervisor.supervising import soon, supervisor

GPUS = tuple(range(8))
STUB = """
import http.server, os, signal, sys, time
if "fail" in sys.argv: sys.exit(3)
if "never" in sys.argv: time.sleep(60)
if "deaf" in sys.argv: signal.signal(signal.SIGTERM, signal.SIG_IGN)
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/ready" else 404)
        self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""


def stub(*how: str, start_within: str = "20s", stop_within: str = "5s") -> EngineCommand:
    return EngineCommand.model_validate(
        {
            "command": (sys.executable, "-c", STUB, "{port}", *how),
            "ready": "/ready",
            "served_model": "their-name",
            "start_within": start_within,
            "stop_within": stop_within,
        }
    )


def posts(command: EngineCommand | None) -> dict[int, Post]:
    settings = scenario(live=LiveSettings(engines={} if command is None else {"big": command}).model_dump(mode="json"))
    return posts_of(settings, layout_of(settings))


class Rig(Protocol):
    """An actuator and the means to let time pass and things die."""

    heard: list[Heard]

    @property
    def actuator(self) -> Actuator: ...

    def perform(self, action: Start | Reclaim | Donate | Release) -> None: ...

    async def hears(self, count: int) -> list[Heard]:
        """All that was heard, once it is so much; fails when it does not come."""
        ...

    async def settle(self) -> None:
        """Let what is under way happen."""
        ...

    async def kill(self, row: int) -> None: ...


class FakeRig:
    def __init__(self, *, fails: str = "") -> None:
        self.now: Micros = 0
        self.heard: list[Heard] = []
        self.actuator = FakeActuator(self.heard.append, lambda _, __: ScriptedOutcome(10 * SECOND, fails))

    def perform(self, action: Start | Reclaim | Donate | Release) -> None:
        self.actuator.perform(self.now, action)

    async def hears(self, count: int) -> list[Heard]:
        await self.settle()
        assert len(self.heard) == count
        return self.heard

    async def settle(self) -> None:
        while self.actuator.next_event < NEVER:
            self.now = self.actuator.next_event
            self.actuator.play(self.now)

    async def kill(self, row: int) -> None:
        self.actuator.lose(self.now, row, "killed")


class LocalRig:
    def __init__(self, folder: Path, posts: dict[int, Post]) -> None:
        self.heard: list[Heard] = []
        self.folder = folder
        self.actuator = LocalActuator(self.heard.append, posts, folder, speed=1000)

    def perform(self, action: Start | Reclaim | Donate | Release) -> None:
        self.actuator.perform(0, action)

    async def hears(self, count: int) -> list[Heard]:
        await soon(lambda: len(self.heard) >= count)
        assert len(self.heard) == count
        return self.heard

    async def settle(self) -> None:
        await asyncio.sleep(0.5)

    async def processes(self) -> list[Process]:
        one = await SupervisorClient(self.folder / SOCKET, lambda _: None).connect()
        try:
            return list(await one.look())
        finally:
            await one.close()

    async def kill(self, row: int) -> None:
        (pid,) = [p.pid for p in await self.processes() if p.name.startswith(f"engine-{row}-") and p.life is Life.RUNNING]
        os.kill(pid, signal.SIGKILL)


Play = Callable[[Rig], Coroutine[None, None, None]]


@asynccontextmanager
async def connected(folder: Path, command: EngineCommand | None) -> AsyncIterator[LocalRig]:
    rig = LocalRig(folder, posts(command))
    await rig.actuator.connect()
    try:
        yield rig
    finally:
        await rig.actuator.close()


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A state folder with a supervisor that runs."""
    with supervisor(tmp_path):
        yield tmp_path


def play_local(folder: Path, command: EngineCommand | None, play: Callable[[LocalRig], Coroutine[None, None, None]]) -> None:
    async def run() -> None:
        async with connected(folder, command) as rig:
            await play(rig)

    asyncio.run(run())


@pytest.fixture(params=["fake", "local"])
def good(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[Play], None]]:
    """Plays a story with an actuator whose starts succeed."""
    if request.param == "fake":
        yield lambda play: asyncio.run(play(FakeRig()))
        return
    with supervisor(tmp_path):
        yield lambda play: play_local(tmp_path, stub(), play)


@pytest.fixture(params=["fake", "exits", "no program", "too slow"])
def bad(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[Play], None]]:
    """Plays a story with an actuator whose starts fail."""
    if request.param == "fake":
        yield lambda play: asyncio.run(play(FakeRig(fails="out of stock")))
        return
    commands = {
        "exits": stub("fail"),
        "no program": EngineCommand(command=("no-such-engine", "{port}")),
        "too slow": stub("never", start_within="500ms"),
    }
    with supervisor(tmp_path):
        yield lambda play: play_local(tmp_path, commands[request.param], play)


def test_a_start_ends_in_ready_once_and_a_release_in_silence(good: Callable[[Play], None]) -> None:
    async def play(rig: Rig) -> None:
        rig.perform(Start(0, Source.VM, GPUS))
        assert await rig.hears(1) == [InstanceReady(0)]
        assert rig.actuator.place(0).url.startswith("http://")
        rig.perform(Release(0))
        await rig.settle()
        rig.perform(Start(0, Source.GPUS, GPUS))
        assert await rig.hears(2) == [InstanceReady(0)] * 2
        await rig.settle()
        assert len(rig.heard) == 2

    good(play)


def test_a_failed_start_says_why_and_may_be_tried_again(bad: Callable[[Play], None]) -> None:
    async def play(rig: Rig) -> None:
        for count in (1, 2):
            rig.perform(Start(0, Source.VM, GPUS))
            heard = (await rig.hears(count))[-1]
            assert isinstance(heard, StartFailed)
            assert heard.instance == 0
            assert heard.why
        await rig.settle()
        assert len(rig.heard) == 2

    bad(play)


def test_a_death_is_heard_and_the_row_may_start_again(good: Callable[[Play], None]) -> None:
    async def play(rig: Rig) -> None:
        rig.perform(Start(0, Source.VM, GPUS))
        await rig.hears(1)
        await rig.kill(0)
        lost = (await rig.hears(2))[-1]
        assert isinstance(lost, InstanceLost)
        assert "killed" in lost.why
        rig.perform(Start(0, Source.VM, GPUS))
        assert (await rig.hears(3))[-1] == InstanceReady(0)

    good(play)


def test_a_donated_instance_comes_back_or_is_taken(good: Callable[[Play], None]) -> None:
    async def play(rig: Rig) -> None:
        rig.perform(Start(0, Source.VM, GPUS))
        await rig.hears(1)
        rig.perform(Donate(0))
        rig.perform(Reclaim(0))
        assert (await rig.hears(2))[-1] == InstanceReady(0)
        rig.perform(Donate(0))
        await rig.kill(0)
        assert (await rig.hears(3))[-1] == SpotTaken(0)
        rig.perform(Reclaim(0))  # decided before the news came
        assert isinstance((await rig.hears(4))[-1], StartFailed)
        rig.perform(Donate(0))  # likewise
        assert (await rig.hears(5))[-1] == SpotTaken(0)

    good(play)


def test_a_reclaim_that_comes_to_nothing_ends_the_fake_engine() -> None:
    heard: list[Heard] = []
    fake = FakeActuator(heard.append, lambda _, action: ScriptedOutcome(1, "no" if isinstance(action, Reclaim) else ""))
    fake.perform(0, Start(0, Source.VM, GPUS))
    fake.play(1)
    fake.perform(1, Donate(0))
    fake.perform(1, Reclaim(0))
    fake.play(2)
    fake.perform(2, Reclaim(0))
    fake.play(3)
    assert heard == [InstanceReady(0), StartFailed(0, "no"), StartFailed(0, "it was taken away before it was reclaimed")]


# --- what only processes have ---


def test_the_next_engine_waits_until_the_last_one_has_left_its_gpus(state: Path) -> None:
    async def play(rig: LocalRig) -> None:
        rig.perform(Start(0, Source.VM, GPUS))
        await rig.hears(1)
        rig.perform(Release(0))
        rig.perform(Start(1, Source.GPUS, GPUS))
        rig.perform(Start(2, Source.GPUS, tuple(range(8, 16))))
        assert await rig.hears(2) == [InstanceReady(0), InstanceReady(2)]
        await rig.hears(3)
        names = {p.name for p in await rig.processes() if p.life is Life.RUNNING}
        assert len(names) == 2

    play_local(state, stub("deaf", stop_within="2s"), play)


def test_whoever_comes_back_adopts_what_still_runs(state: Path) -> None:
    async def first(rig: LocalRig) -> None:
        for row in (0, 1):
            rig.perform(Start(row, Source.VM, tuple(range(8 * row, 8 * row + 8))))
        await rig.hears(2)
        await rig.kill(1)
        await rig.hears(3)

    async def second() -> None:
        rig = LocalRig(state, posts(stub()))
        (adopted,) = await rig.actuator.connect()
        assert (adopted.instance, adopted.gpus, adopted.serves) == (0, GPUS, True)
        async with httpx.AsyncClient() as client:
            assert (await client.get(adopted.place.url + "/ready")).status_code == 200
        assert adopted.place.served_model == "their-name"
        await rig.kill(0)
        assert isinstance((await rig.hears(1))[0], InstanceLost)
        rig.perform(Start(0, Source.VM, GPUS))
        assert (await rig.hears(2))[-1] == InstanceReady(0)
        await rig.actuator.close()

    play_local(state, stub(), first)
    asyncio.run(second())


def test_without_a_command_the_emulated_engine_runs_with_the_rows_profile(state: Path) -> None:
    async def play(rig: LocalRig) -> None:
        rig.perform(Start(0, Source.INITIAL, GPUS))
        assert await rig.hears(1) == [InstanceReady(0)]
        place = rig.actuator.place(0)
        assert place.served_model == "big"
        async with httpx.AsyncClient(base_url=place.url) as client:
            (model,) = (await client.get("/v1/models")).json()["data"]
            assert (model["id"], model["max_model_len"]) == ("big", 8_000)
            assert "east" in (await client.get("/version")).text
            assert 'num_gpu_blocks="6250"' in (await client.get(place.metrics)).text  # 100,000 tokens in blocks of 16

    play_local(state, None, play)


@pytest.mark.parametrize(
    ("command", "environment", "message"),
    [
        (("serve", "{prot}"), {}, "did you mean 'port'"),
        (("serve", "{port"), {}, "expected '}'"),
        (("serve", "8000"), {}, "does not say {port}"),
        (("serve", "{port.__class__}"), {}, "unknown word"),
        (("serve", "{port!r}"), {}, "unknown word"),
        (("serve", "{port}"), {"CUDA_VISIBLE_DEVICES": "{gpu_numbers}"}, "unknown word"),
    ],
)
def test_a_template_that_cannot_be_filled_is_refused_when_loaded(
    command: tuple[str, ...], environment: dict[str, str], message: str
) -> None:
    engine = EngineCommand(command=command, environment=environment)
    settings = scenario(live=LiveSettings(engines={"big": engine}).model_dump(mode="json"))
    with pytest.raises(ConfigError, match=message):
        check_commands(settings)


def test_a_template_for_an_unknown_model_is_refused() -> None:
    settings = scenario(live=LiveSettings(engines={"bigg": stub()}).model_dump(mode="json"))
    with pytest.raises(ConfigError, match="did you mean 'big'"):
        check_commands(settings)
