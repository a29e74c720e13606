"""The parts of a control process end together: after a fault of any of them, every other one is waited for.

Read next: `src/sageserve/live/control/process.py`.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path

import pytest

from sageserve.base.errors import SageServeError
from sageserve.base.units import HOUR, MINUTE
from sageserve.core.events import DemandSeen
from sageserve.core.layout import Layout
from sageserve.live.actuators.base import Adopted, EngineAddress, Hear, Order
from sageserve.live.control.batch_queue import QueueHead
from sageserve.live.control.liveness import Probed
from sageserve.live.control.loop import WallClock
from sageserve.live.control.opened import Missed, MissedScrape, Opened
from sageserve.live.control.process import SOCKET, Control, Home, Parts
from sageserve.live.waiting import run_until
from tests.core.small import scenario

Part = Callable[[], Coroutine[None, None, None]]


class Story:
    """Parts of a process, and which of them were seen to their end."""

    def __init__(self) -> None:
        self.ended: list[str] = []
        self.running = asyncio.Event()

    def lasting(self, name: str, *, fails: str = "") -> Part:
        """Goes on until cancelled, and takes a while to end."""

        async def run() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.01)
                self.ended.append(name)
                if fails:
                    raise OSError(fails)

        return run

    def ending(self, *, fails: str = "") -> Part:
        """Ends soon, by itself."""

        async def run() -> None:
            await asyncio.sleep(0)
            if fails:
                raise SageServeError(fails)

        return run


def test_after_a_fault_every_part_is_waited_for() -> None:
    story = Story()
    with pytest.raises(SageServeError, match="the first fault"):
        asyncio.run(run_until(asyncio.Event(), [story.lasting("a"), story.ending(fails="the first fault"), story.lasting("b")]))
    assert sorted(story.ended) == ["a", "b"]


def test_a_fault_while_ending_hides_neither_the_first_one_nor_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    story = Story()
    parts = [story.lasting("a", fails="while ending"), story.ending(fails="the first fault"), story.lasting("b")]
    with caplog.at_level(logging.ERROR), pytest.raises(SageServeError, match="the first fault"):
        asyncio.run(run_until(asyncio.Event(), parts))
    assert sorted(story.ended) == ["a", "b"]
    assert [record.getMessage() for record in caplog.records] == ["while ending, besides"]


def test_a_fault_within_a_group_of_tasks_is_raised_as_it_was() -> None:
    async def grouped() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(Story().ending(fails="deep within")())

    with pytest.raises(SageServeError, match="deep within"):
        asyncio.run(run_until(asyncio.Event(), [grouped]))


def test_a_part_that_ends_quietly_ends_all() -> None:
    story = Story()
    asyncio.run(run_until(asyncio.Event(), [story.lasting("a"), story.ending()]))
    assert story.ended == ["a"]


def test_stopping_ends_all() -> None:
    async def run() -> None:
        story, stop = Story(), asyncio.Event()
        asyncio.get_running_loop().call_later(0.01, stop.set)
        await run_until(stop, [story.lasting("a"), story.lasting("b")])
        assert sorted(story.ended) == ["a", "b"]

    asyncio.run(run())


class Hopeless:
    """An actuator that can neither begin nor end."""

    async def connect(self) -> tuple[Adopted, ...]:
        raise SageServeError("no supervisor answers")

    async def watch(self) -> None:
        await asyncio.Event().wait()

    def hung(self) -> dict[str, int]:
        return {"gateway": 2}

    def failing(self, least: int = 1) -> tuple[str, ...]:
        return ()

    async def close(self) -> None:
        raise OSError("it cannot be let go of")

    def perform(self, now: int, action: Order) -> None:
        raise AssertionError

    def place(self, instance: int) -> EngineAddress:
        raise AssertionError

    def end(self, instance: int, why: str) -> bool:
        raise AssertionError


class NoJobs:
    """An empty queue."""

    def waiting(self, model: int) -> int:
        return 0

    def heads(self, model: int) -> list[QueueHead]:
        return []

    def launch(self, model: int, endpoint: int, owner: str) -> None:
        raise AssertionError

    def tell(self, ended: Callable[[int], None], loaded: Callable[[], None]) -> None:
        pass


def test_what_was_opened_is_closed_whatever_fails(tmp_path: Path) -> None:
    async def silent(_: EngineAddress) -> Missed:
        return Missed.SILENT

    async def mute(_: EngineAddress) -> Probed:
        return Probed.NOTHING

    async def run() -> None:
        def actuator(hear: Hear, layout: Layout) -> Hopeless:
            return Hopeless()

        home = Home(tmp_path, "127.0.0.1", 0, "http://gateway", "epoch", "secret")
        parts = Parts(actuator, silent, mute, NoJobs(), [], (), WallClock(), lambda: 1_800_000_000_000_000, lambda _: ())
        await Control(scenario(), home, parts).run(asyncio.Event())

    with pytest.raises(OSError, match="let go") as raised:
        asyncio.run(run())
    assert "no supervisor answers" in str(raised.value.__context__)
    assert not (tmp_path / SOCKET).exists(), "the link was closed too"


class Empty(Hopeless):
    """An actuator that has nothing, and ends."""

    async def connect(self) -> tuple[Adopted, ...]:
        return ()

    async def close(self) -> None:
        pass


def test_control_says_that_it_goes_on_and_which_processes_did_not(tmp_path: Path) -> None:
    stop, said = asyncio.Event(), list[str]()

    async def silent(_: EngineAddress) -> Missed:
        return Missed.SILENT

    async def mute(_: EngineAddress) -> Probed:
        return Probed.NOTHING

    async def run() -> tuple[str, ...]:
        home = Home(tmp_path, "127.0.0.1", 0, "http://gateway", "epoch", "secret")
        now = 1_800_000_000_000_000

        def alive() -> None:
            said.append("alive")
            stop.set()

        def actuator(hear: Hear, layout: Layout) -> Empty:
            return Empty()

        parts = Parts(actuator, silent, mute, NoJobs(), [], (), WallClock(), lambda: now, lambda _: (), alive=alive)
        control = Control(scenario(live={"safety": {"act": False}, "actuator": "fixed"}), home, parts)
        notes = control.status().notes
        await control.run(stop)
        return notes

    assert "gateway: hung and was started again, 2 x so far." in asyncio.run(run())
    assert said == ["alive"]


def test_demand_is_not_kept_under_a_time_that_is_doubted(tmp_path: Path) -> None:
    """A minute of next month would be the newest, and two weeks of true ones too old."""

    async def silent(_: EngineAddress) -> Missed:
        return Missed.SILENT

    async def mute(_: EngineAddress) -> Probed:
        return Probed.NOTHING

    def actuator(hear: Hear, layout: Layout) -> Empty:
        return Empty()

    async def run() -> list[int]:
        believed = [False]
        home = Home(tmp_path, "127.0.0.1", 0, "http://gateway", "epoch", "secret")
        parts = Parts(actuator, silent, mute, NoJobs(), [], (), WallClock(), lambda: 2_000_000_000_000_000, lambda _: ())
        control = Control(scenario(), home, replace(parts, sure=lambda: believed[-1]))
        names, kept = control.layout.names, list[int]()
        cells = len(names.regions) * len(names.models) * len(names.tiers)
        none = (0,) * cells
        for sure in (False, True):
            believed.append(sure)
            control.add(DemandSeen(0, MINUTE, none, none, none, (0.0,) * cells))
            kept.append((tmp_path / "demand.jsonl").read_bytes().count(b"\n") if (tmp_path / "demand.jsonl").exists() else 0)
        return kept

    assert asyncio.run(run()) == [0, 2], "a header and one minute"


def test_why_instances_are_not_seen_is_told_once_it_has_lasted_and_until_they_are(tmp_path: Path) -> None:
    """As a scrape says it: metrics of another model, of two instances."""
    why = "it serves meta/Llama, not llama-2-70b"

    async def silent(_: EngineAddress) -> MissedScrape:
        return MissedScrape(Missed.SILENT, why)

    async def mute(_: EngineAddress) -> Probed:
        return Probed.NOTHING

    async def run() -> list[list[str]]:
        def actuator(hear: Hear, layout: Layout) -> Empty:
            return Empty()

        home = Home(tmp_path, "127.0.0.1", 0, "http://gateway", "epoch", "secret")
        parts = Parts(actuator, silent, mute, NoJobs(), [], (), WallClock(), lambda: 1_800_000_000_000_000, lambda _: ())
        control, told = Control(scenario(), home, parts), list[list[str]]()

        def look() -> None:
            told.append([note for note in control.status().notes if "not seen" in note])

        for row in (0, 1):
            control.view.opened[row] = Opened(EngineAddress("http://engine", "x"), -HOUR)
            control.view.missed(row, Missed.BLIND, why)
        look()
        for row in (0, 1):
            control.view.saw(row, kv=0.1, in_flight=0)
        look()
        return told

    (said,), later = asyncio.run(run())
    assert said.endswith(f" and 1 more is not seen: {why}.")
    assert later == []
