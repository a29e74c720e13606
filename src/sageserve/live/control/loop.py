"""The controller in wall time: hear what happened, look at the fleet, carry out what is decided, write it down.

At one instant, as in the simulator: events in the order they were heard, the minute's demand, the look at the fleet.
`Loop.step` is synchronous and does all of it; `Loop.run` only waits. Everything slow (processes, solvers, sockets) is behind
`View`, `Actuator` and `Worker` and comes back through `hear`. Must not decide anything.
Read next: `fleet_view.py`, `live/actuators/base.py`, `core/controller.py`.
"""

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from typing import Final, Protocol, TypeAlias, assert_never

from sageserve.base.records import Floats, Ints
from sageserve.base.units import MINUTE, Micros
from sageserve.core.actions import Donate, Drain, Feed, Reclaim, Release, Roll, Start
from sageserve.core.controller import Controller
from sageserve.core.events import (
    DemandSeen,
    DoorSeen,
    EnginesSeen,
    InstanceComing,
    InstanceDrained,
    InstanceLeaving,
    InstanceLost,
    InstanceReady,
    Observed,
    RevisionsSeen,
    SpotTaken,
    StartFailed,
)
from sageserve.core.fleet import State
from sageserve.core.invariants import check_fleet
from sageserve.core.work import AnyAction, AnyEvent, Entry, Fit, Solve, SolveAhead, Work, entry
from sageserve.live.actuators.base import Actuator, ending
from sageserve.live.waiting import within

SAMPLE: Final[Micros] = MINUTE
"""How often demand is told, and the fleet's laws are checked."""

Counters: TypeAlias = tuple[Ints, Ints, Ints, Ints, Ints, Floats, Floats, Floats]
"""Cumulative, by region x model x tier: prompt tokens, output tokens of what finished, requests, those that could be in time,
promises missed, engine microseconds; by model and column of `core/response.py` what waits depend on, and by model x tier and
column of `core/pace.py` answers (no rows where no tier promises a pace)."""


class Clock(Protocol):
    """The time, and waiting for it."""

    def now(self) -> Micros:
        """Microseconds since the loop's first instant; never goes back."""
        ...

    async def wait(self, until: Micros, news: asyncio.Event) -> None:
        """Return at `until`, or sooner when there is news."""
        ...


class ControllerView(Protocol):
    """What the controller sees and sets of gateways and engines."""

    def look(self) -> Observed:
        """The fleet as it was last scraped."""
        ...

    def engines(self) -> EnginesSeen:
        """What engines said of their queues at the last scrape."""
        ...

    def revisions(self, now: Micros) -> Iterable[RevisionsSeen]:
        """What requests got so far by revision, of models that are rolled out and judged."""
        return ()

    def doors(self, *, looked: bool) -> Iterable[DoorSeen]:
        """Who waits for an endpoint that sleeps: at every look, and when somebody begins to; nothing where none sleeps."""
        return ()

    def counters(self) -> Counters:
        """What has arrived and finished so far."""
        ...

    def counted_until(self, now: Micros) -> Micros:
        """The instant up to which the counters are complete: gateways report several times a second."""
        return now

    def open(self, instance: int) -> None:
        """From now on the instance may receive requests."""
        ...

    def close(self, instance: int) -> None:
        """From now on it receives none; `InstanceDrained` is heard once it has none."""
        ...

    def forget(self, instance: int) -> None:
        """It is gone: nothing of it counts any more."""
        ...

    def set_feed(self, endpoint: int, *, one_below: float, two_below: float) -> None:
        """Change when an endpoint is given batch jobs."""
        ...


class Worker(Protocol):
    """What fits forecasts and solves programs meanwhile."""

    def submit(self, work: Work) -> None:
        """Begin to do it; the answer is heard as an event."""
        ...


class Recorder(Protocol):
    """What is kept for people and for the next process."""

    def write(self, entry: Entry) -> None:
        """Keep a line of the journal."""
        ...

    def add(self, seen: DemandSeen) -> None:
        """Keep a minute's demand."""
        ...


class WallClock:
    """Monotonic time since it was made: steps of the machine's clock do not reach it."""

    def __init__(self) -> None:
        self._origin = time.monotonic_ns()  # noqa: TID251 # the one clock of the live loop

    def now(self) -> Micros:
        """Microseconds since it was made."""
        return (time.monotonic_ns() - self._origin) // 1000  # noqa: TID251 # as above

    async def wait(self, until: Micros, news: asyncio.Event) -> None:
        """Return at `until`, or sooner when there is news."""
        left = (until - self.now()) / 1e6
        if left > 0 and not news.is_set():
            await within(news, left)


class Loop:
    """One controller, one fleet.

    Args:
        controller: decides.
        fleet view: gateways and engines.
        actuator: processes, pods.
        worker: solvers.
        memory: told every line, and every minute's demand.
        check: microseconds between looks.
    """

    def __init__(
        self,
        *,
        controller: Controller,
        view: ControllerView,
        actuator: Actuator,
        worker: Worker,
        memory: Recorder,
        check: Micros,
    ) -> None:
        self.fleet = controller.fleet
        self.heard = asyncio.Event()
        self._controller = controller
        self._view = view
        self._actuator = actuator
        self._worker = worker
        self._memory = memory
        self._check = check
        self._inbox: deque[AnyEvent] = deque()
        self._next_look: Micros = check
        self._next_sample: Micros = SAMPLE
        self._stepped_at: Micros = 0
        self._counted: Counters = view.counters()
        self._stopping = False

    def hear(self, event: AnyEvent) -> None:
        """Something happened; it is taken in at the next step. Call it from the loop's own thread."""
        self._inbox.append(event)
        self.heard.set()

    def wake(self) -> None:
        """Somebody waits: step soon."""
        self.heard.set()

    def begin(self, initial: tuple[int, ...]) -> None:
        """Bring up the instances a strategy starts with, by pool: those that are missing, where an endpoint adopted some."""
        held: dict[int, int] = {}
        for pool in self.fleet.pools:
            here = self.fleet.serving(pool.number) + self.fleet.coming(pool.number)
            held[pool.endpoint] = held.get(pool.endpoint, 0) + here
        for pool, count in zip(self.fleet.pools, initial, strict=True):
            missing = max(0, count - held[pool.endpoint])
            held[pool.endpoint] = max(0, held[pool.endpoint] - count)
            self._perform(0, self._controller.begin(0, pool.number, missing))

    @property
    def next(self) -> Micros:
        """When there is something to do without news; a minute that is over and not counted yet is no reason to hurry."""
        return self._next_look if self._next_sample <= self._stepped_at else min(self._next_look, self._next_sample)

    def step(self, now: Micros) -> None:
        """Everything that is to be done at `now`."""
        self.heard.clear()
        self._stepped_at = now
        while self._inbox:
            self._tell(now, self._inbox.popleft())
        for door in self._view.doors(looked=now >= self._next_look):
            self._tell(now, door)
        if (counted := min(now, self._view.counted_until(now))) >= self._next_sample:
            check_fleet(self.fleet, now)
            self._sample(now, counted)
        if now >= self._next_look:
            self._next_look = now + self._check
            for seen in self._view.revisions(now):
                self._tell(now, seen)
            self._tell(now, self._view.engines())
            self._tell(now, self._view.look())

    async def run(self, clock: Clock) -> None:
        """Step until `stop`."""
        while not self._stopping:
            await clock.wait(self.next, self.heard)
            self.step(clock.now())

    def stop(self) -> None:
        """Return from `run` soon."""
        self._stopping = True
        self.heard.set()

    def _tell(self, now: Micros, event: AnyEvent) -> None:
        if self._is_old_news(event):
            if isinstance(event, InstanceReady) and self.fleet.state[event.instance] is State.OFF:
                self._perform(now, (Release(event.instance),))  # nobody waits for it any more, and its GPUs may be another's
            return
        actions = self._controller.handle(now, event)
        if isinstance(event, InstanceReady):
            self._view.open(event.instance)
        elif isinstance(event, InstanceLeaving):
            self._view.close(event.instance)
        elif isinstance(event, InstanceLost | StartFailed):
            self._view.forget(event.instance)
        self._perform(now, actions)
        if (line := entry(now, event, self._controller.decisions, actions)) is not None:
            self._memory.write(line)

    def _is_old_news(self, event: AnyEvent) -> bool:
        """News that crossed a decision on its way: an instance drained, lost or taken after it was given up already."""
        state = self.fleet.state
        match event:
            case InstanceDrained(instance=i):
                return state[i] is not State.DRAINING
            case InstanceLost(instance=i):
                return state[i] not in {State.SERVING, State.DRAINING}
            case InstanceComing(instance=i):
                return state[i] is not State.OFF
            case InstanceLeaving(instance=i):
                return state[i] is not State.SERVING
            case InstanceReady(instance=i) | StartFailed(instance=i):
                return state[i] not in {State.STARTING, State.RECLAIMING}
            case SpotTaken(instance=i):
                return state[i] not in {State.SPOT, State.RECLAIMING}
            case _:
                return False

    def _perform(self, now: Micros, actions: tuple[AnyAction, ...]) -> None:
        for action in actions:
            with ending(action, self.hear):
                self._begin(now, action)

    def _begin(self, now: Micros, action: AnyAction) -> None:
        match action:
            case Feed(endpoint=e):
                self._view.set_feed(e, one_below=action.one_below, two_below=action.two_below)
            case Drain(instance=i):
                self._view.close(i)
            case Start() | Reclaim() | Donate() | Release():
                if isinstance(action, Release):
                    self._view.forget(action.instance)
                self._actuator.perform(now, action)
            case Fit() | Solve() | SolveAhead():
                self._worker.submit(action)
            case Roll():
                pass  # it is written down; instances are started and drained one by one
            case _:
                assert_never(action)

    def _sample(self, now: Micros, counted: Micros) -> None:
        """Tell the demand of every minute that is counted; if several are (the machine slept), in equal parts."""
        counters = self._view.counters()
        minutes = (counted - self._next_sample) // SAMPLE + 1
        arrived = [new - old for new, old in zip(counters, self._counted, strict=True)]
        self._counted = counters
        for k in range(minutes):
            parts = [part * (k + 1) // minutes - part * k // minutes for part in arrived[:5]]
            share = tuple((arrived[5] / minutes).tolist())
            mixes, answers = (tuple(map(tuple, (part / minutes).tolist())) for part in arrived[6:])
            prompts, outputs, requests, could, missed = (tuple(int(value) for value in part) for part in parts)
            seen = DemandSeen(
                self._next_sample - SAMPLE, SAMPLE, prompts, outputs, requests, share, mixes, could, missed, answers
            )
            self._tell(now, seen)
            self._memory.add(seen)
            self._next_sample += SAMPLE
