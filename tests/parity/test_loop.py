"""One trace, two shells: the simulator and the live loop under virtual time write equal journals.

The live loop waits on a clock that plays the compiled engines until something happens; actuators and solvers take as long as in
the simulator. What is compared is the shell: which events are told in which order at which instant, and what is done about them.
Read next: `src/sageserve/live/control/loop.py`, `src/sageserve/sim/run.py`.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest

from sageserve.base.config import RolloutSettings, Scenario
from sageserve.base.records import Trace
from sageserve.base.units import MINUTE, Micros
from sageserve.core.actions import Donate, Drain, Reason, Reclaim, Release, RolloutStep, Start
from sageserve.core.controller import Controller
from sageserve.core.events import DemandSeen, DoorSeen, EndpointSeen, EnginesSeen, InstanceReady, Observed, RevisionsSeen
from sageserve.core.fleet import Fleet
from sageserve.core.strategies import kind_of, layout_of, sleepers_of
from sageserve.core.work import Entry, Work
from sageserve.data.scenarios.load import load_scenario
from sageserve.data.workload.generate import generate
from sageserve.live.actuators.base import EngineAddress
from sageserve.live.control.loop import Counters, Loop
from sageserve.sim.doors import SimulatedDoor
from sageserve.sim.kernel.engine import Kernel
from sageserve.sim.kernel.state import request_rows
from sageserve.sim.revisions import SimulatedRevisions, plans_of
from sageserve.sim.run import Simulation, kernel_setup
from sageserve.sim.world import SimulatedWorld
from tests.worlds import SMALL_FLEET


class VirtualFleet:
    """Engines, clouds and solvers in virtual time: clock, fleet view, actuator and worker of one loop."""

    def __init__(self, scenario: Scenario, trace: Trace) -> None:
        kind, layout = kind_of(scenario), layout_of(scenario)
        setup = kernel_setup(scenario, layout)
        self.kernel = Kernel(setup, request_rows(trace, setup))
        fleet = Fleet(layout.pools, layout.stocks, layout.instances, self.kernel.engines["in_flight"])
        self.played = SimulatedRevisions(scenario, layout, self.kernel)
        self.world = SimulatedWorld(scenario, layout, fleet, self.kernel, self.played)
        self.journal: list[Entry] = []
        self.minutes: list[DemandSeen] = []
        self.end = trace.window
        self.door = SimulatedDoor(layout, self.kernel)
        sleepers = sleepers_of(scenario, layout)
        self.controller = Controller(fleet, kind(scenario, layout, None), scenario.spot, sleepers=sleepers)
        for plan in plans_of(scenario, layout):
            self.controller.rollouts.add(plan)  # as a fleet that runs is told of it
        self.loop = Loop(
            controller=self.controller,
            view=self,
            actuator=self,
            worker=self,
            memory=self,
            check=scenario.strategy.check,
        )
        self.loop.begin(kind.initial(scenario, layout))
        self.loop.step(0)
        self._hear_due(0)
        self.loop.step(0)

    def write(self, entry: Entry) -> None:
        self.journal.append(entry)

    def add(self, seen: DemandSeen) -> None:
        self.minutes.append(seen)

    def now(self) -> Micros:
        return self.kernel.now

    async def wait(self, until: Micros, news: asyncio.Event) -> None:
        await asyncio.sleep(0)
        while not news.is_set():
            if self.kernel.now >= self.end:
                self.loop.stop()
                return
            early = self.kernel.run_until(min(until, self.world.next_event, self.end))
            if early:
                for event in self.world.drained():
                    self.loop.hear(event)
                return
            self._hear_due(self.kernel.now)
            if self.kernel.now >= until:
                return

    def _hear_due(self, now: Micros) -> None:
        for event in self.world.due(now):
            self.loop.hear(event)

    def engines(self) -> EnginesSeen:
        rows = self.kernel.endpoints
        return EnginesSeen(self.kernel.scraped, tuple(rows["running"].tolist()), tuple(rows["waiting"].tolist()))

    def look(self) -> Observed:
        rows = self.kernel.endpoints
        columns = zip(rows["seen"].tolist(), rows["kv"].tolist(), rows["busy"].tolist(), strict=True)
        return Observed(
            self.kernel.scraped, tuple(EndpointSeen(*row) for row in columns), tuple(self.kernel.batch_waiting.tolist())
        )

    def revisions(self, now: Micros) -> Iterable[RevisionsSeen]:
        return self.played.seen(now, self.controller.rollouts.judged)

    def doors(self, *, looked: bool) -> Iterable[DoorSeen]:
        return self.door.seen(looked=looked)

    def counted_until(self, now: Micros) -> Micros:
        return now

    def counters(self) -> Counters:
        kernel = self.kernel
        return (
            kernel.demand_tokens.copy(),
            kernel.made_tokens.copy(),
            kernel.demand_requests.copy(),
            kernel.could.copy(),
            kernel.missed.copy(),
            kernel.demand_work.copy(),
            kernel.mixes.copy(),
            kernel.answers.copy(),
        )

    def open(self, instance: int) -> None:
        """The simulated world opened it before it told."""
        assert self.kernel.engines["phase"][instance] != 0

    def close(self, instance: int) -> None:
        self.world.perform(self.kernel.now, Drain(instance))

    def forget(self, instance: int) -> None:
        """Nothing is kept of instances here."""

    def set_feed(self, endpoint: int, *, one_below: float, two_below: float) -> None:
        self.kernel.set_feed(endpoint, one_below=one_below, two_below=two_below)

    def perform(self, now: Micros, action: Start | Reclaim | Donate | Release) -> None:
        self.world.perform(now, action)

    def place(self, instance: int) -> EngineAddress:
        return EngineAddress(f"http://engine-{instance}", "m")

    def submit(self, work: Work) -> None:
        self.world.perform(self.kernel.now, work)


def quick(strategy: str, *more: str) -> Scenario:
    return load_scenario(
        SMALL_FLEET,
        overrides=[
            f"strategy.name={strategy}",
            "workload.generate.requests=30000",
            "workload.generate.length=3h",
            "workload.generate.bursts=[]",
            "fleet.start=2",
            "fleet.minimum=1",
            "strategy.recorded.counts={eastus/llama-2-70b/h100-80gb: [[0, 2], [1h, 5], [2h, 1]]}",
            *more,
        ],
    )


@pytest.mark.parametrize("strategy", ["recorded", "reactive", "siloed", "hpa", "keda", "chiron", "lt-i", "lt-ua", "foresight"])
def test_simulator_and_live_loop_write_equal_journals(strategy: str) -> None:
    scenario = quick(strategy)
    trace = generate(scenario)
    live = VirtualFleet(scenario, trace)
    asyncio.run(live.loop.run(live))
    simulated = Simulation(scenario, trace).play()
    expected = [line for line in simulated.journal if line.now < trace.window]
    lines = [line for line in live.journal if line.now < trace.window]
    assert lines == expected
    assert len(lines) > 10
    assert [seen.start for seen in live.minutes] == list(range(0, trace.window, MINUTE))
    assert any(isinstance(line.event, InstanceReady) for line in lines)
    assert np.array_equal(live.kernel.requests["first"][:1000], simulated.requests["first"][:1000])


@pytest.mark.parametrize("strategy", ["reactive", "siloed", "chiron", "keda", "lt-ua"])
def test_endpoints_sleep_and_are_woken_alike_in_both_worlds(strategy: str) -> None:
    few = ["workload.generate.requests=60", "fleet.start=0", "fleet.minimum=0", "fleet.idle=5m"]
    scenario = quick(strategy, *few)
    trace = generate(scenario)
    live = VirtualFleet(scenario, trace)
    asyncio.run(live.loop.run(live))
    expected = [line for line in Simulation(scenario, trace).play().journal if line.now < trace.window]
    lines = [line for line in live.journal if line.now < trace.window]
    assert lines == expected
    decided = Counter(one.reason for line in lines for one in line.decisions)
    assert min(decided[Reason.WOKEN], decided[Reason.IDLE]) > 2


@pytest.mark.parametrize(("engine_time", "last"), [(0.9, RolloutStep.DONE), (4.0, RolloutStep.UNDONE)])
def test_a_rollout_is_decided_alike_in_both_worlds(engine_time: float, last: RolloutStep) -> None:
    one = {"model": "llama-2-70b", "at": "20m", "engine_time": engine_time, "canary": 0.5, "judge_after": "5m"}
    scenario = quick("fixed")
    scenario = scenario.model_copy(update={"rollouts": (RolloutSettings.model_validate(one | {"judge_requests": 60}),)})
    trace = generate(scenario)
    live = VirtualFleet(scenario, trace)
    asyncio.run(live.loop.run(live))
    expected = [line for line in Simulation(scenario, trace).play().journal if line.now < trace.window]
    lines = [line for line in live.journal if line.now < trace.window]
    assert lines == expected
    assert live.controller.rollouts.all[0].step is last
