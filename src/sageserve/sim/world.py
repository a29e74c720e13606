"""The simulated world: it performs the controller's actions in virtual time and says what came of them.

Starting takes as long as it takes, drained instances report when their last request is done, donated ones may be taken by
the cloud. Events wait in a heap by (time, order of creation). Knows no policy. Read next: `run.py`, `sim/kernel/engine.py`.
"""

from collections.abc import Iterator
from heapq import heappop, heappush
from typing import TypeAlias, assert_never

from sageserve.base.config import LoadSettings, Scenario
from sageserve.base.units import NEVER, Micros
from sageserve.core.actions import Donate, Drain, Feed, Reclaim, Release, Roll, Source, Start
from sageserve.core.events import InstanceDrained, InstanceLost, InstanceReady, SpotTaken, StartFailed
from sageserve.core.fleet import Fleet, State
from sageserve.core.layout import Layout
from sageserve.core.work import AnyAction, Done, Fit, Solve, SolveAhead
from sageserve.core.work import perform as do_work
from sageserve.sim.faults import LOST, Outages, SimulatedFaults
from sageserve.sim.kernel.engine import Kernel
from sageserve.sim.revisions import SimulatedRevisions

_Life: TypeAlias = InstanceReady | StartFailed | InstanceDrained | SpotTaken | InstanceLost


class SimulatedWorld:
    """Engines, clouds and delays.

    Args:
        scenario: for delays and faults.
        layout: numbers of pools and stocks.
        fleet: looked at, never changed.
        kernel: the engines.
        revisions: what they run.
    """

    def __init__(self, scenario: Scenario, layout: Layout, fleet: Fleet, kernel: Kernel, revisions: SimulatedRevisions) -> None:
        self._fleet = fleet
        self._kernel = kernel
        self._revisions = revisions
        self._faults = SimulatedFaults(scenario)
        self._load = [scenario.models[layout.names.models[pool.model]].load for pool in layout.pools]
        self._vm_start = [scenario.gpus[layout.stocks[pool.stock].gpu].start for pool in layout.pools]
        self._pending: list[tuple[Micros, int, int, _Life | Done | None]] = []  # None: a region is lost
        self._made = 0
        self._latency = scenario.strategy.planned.latency // 2  # of each of the two steps to a plan
        self._spell = [0] * layout.instances  # counts an instance's changes, so that old news is not heard
        self._outages = Outages(scenario, layout)
        self._gone: set[int] = set()  # instances that are lost, and of which the controller is still to be told
        for begin in self._outages.begins:
            self._push(begin, 0, None)

    @property
    def next_event(self) -> Micros:
        """When the next event is due; NEVER when none is."""
        return self._pending[0][0] if self._pending else NEVER

    def due(self, now: Micros) -> Iterator[_Life | Done]:
        """Events whose time has come, in order; an instance that starts to serve is opened first."""
        while self._pending and self._pending[0][0] <= now:
            _, _, spell, event = heappop(self._pending)
            if event is None:
                yield from self._lose(now)
                continue
            if isinstance(event, _Life) and self._spell[event.instance] != spell:
                continue  # it was reclaimed or released before the cloud came for it, or is lost
            if isinstance(event, InstanceReady):
                self._kernel.open(event.instance)
            yield event

    def perform(self, now: Micros, action: AnyAction) -> None:
        """Begin to do what the controller asks for."""
        if isinstance(action, Fit | Solve | SolveAhead):
            self._push(now + self._latency, 0, do_work(action))
            return
        if isinstance(action, Feed):
            self._kernel.set_feed(action.endpoint, one_below=action.one_below, two_below=action.two_below)
            return
        if isinstance(action, Roll):
            return
        self._spell[action.instance] += 1
        match action:
            case Start(instance=i, source=source, revision=revision):
                self._revisions.start(now, i, revision)
                self._begin(now, i, self._start_time(i, source), may_fail=source is not Source.INITIAL)
            case Reclaim(instance=i):
                self._begin(now, i, self._load_of(i).reclaim, may_fail=True)
            case Drain(instance=i):
                if i not in self._gone and self._kernel.drain(i):
                    self._later(now, InstanceDrained(i))
            case Donate(instance=i):
                time = self._faults.time_to_eviction(i, now, wave=self._outages.takes(i, now))
                if time < NEVER:
                    self._later(now + time, SpotTaken(i))
            case Release():
                pass
            case _:
                assert_never(action)

    def _lose(self, now: Micros) -> Iterator[_Life]:
        """Regions are lost at this instant: what there is of every instance is over, whatever it was."""
        events: list[_Life] = []
        for i in self._outages.instances(now):
            match self._fleet.state[i]:
                case State.SERVING | State.DRAINING:
                    self._gone.add(i)
                    events.append(InstanceLost(i, LOST))
                case State.STARTING | State.RECLAIMING:
                    events.append(StartFailed(i, LOST))
                case State.SPOT:
                    events.append(SpotTaken(i))
                case State.OFF:
                    continue
            self._spell[i] += 1
        self._kernel.lose(sorted(self._gone))
        for event in events:
            self._gone.discard(event.instance)
            yield event
        for i in self._outages.taken(now):
            if self._fleet.state[i] is State.SPOT:
                self._spell[i] += 1
                yield SpotTaken(i)

    def drained(self) -> Iterator[InstanceDrained]:
        """The instances that the kernel found empty in its last run."""
        return (InstanceDrained(i) for i in self._kernel.drained)

    def _begin(self, now: Micros, i: int, delay: Micros, *, may_fail: bool) -> None:
        if (end := self._outages.end(i, now)) > now:
            self._later(min(now + delay, end), StartFailed(i, LOST))
        elif may_fail and self._faults.start_fails(i, now, self._revisions.start_failure(self._fleet.revision[i])):
            self._later(now + delay, StartFailed(i, "the cloud had no capacity, or the model did not load"))
        else:
            self._later(now + (self._faults.stretch(i, now, delay) if may_fail else delay), InstanceReady(i))

    def _load_of(self, i: int) -> LoadSettings:
        return self._load[self._fleet.pool_of[i]]

    def _start_time(self, i: int, source: Source) -> Micros:
        load = self._load_of(i)
        match source:
            case Source.INITIAL:
                return 0
            case Source.SPOT:
                return load.reclaim
            case Source.GPUS:
                return load.local
            case Source.VM:
                return self._vm_start[self._fleet.pool_of[i]] + load.fresh
            case _:
                assert_never(source)

    def _later(self, time: Micros, event: _Life) -> None:
        self._push(time, self._spell[event.instance], event)

    def _push(self, time: Micros, spell: int, event: _Life | Done | None) -> None:
        self._made += 1
        heappush(self._pending, (time, self._made, spell, event))
