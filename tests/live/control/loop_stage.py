"""A live loop on a stage: a strategy that wants what a test tells it to, and sides that note what they are told.

Read next: `test_loop_events.py`, `test_loop_moments.py`.
"""

from collections.abc import Callable, Iterable

import numpy as np

from sageserve.base.units import SECOND, Micros
from sageserve.core.actions import Decision, Feed
from sageserve.core.controller import Controller
from sageserve.core.events import (
    DemandSeen,
    DoorSeen,
    EndpointSeen,
    EnginesSeen,
    Observed,
    RevisionsSeen,
)
from sageserve.core.fleet import Fleet, State
from sageserve.core.pace import ANSWER_WIDTH
from sageserve.core.response import MIX_WIDTH
from sageserve.core.work import (
    AnyAction,
    AnyEvent,
    Entry,
    Work,
)
from sageserve.live.actuators.base import EngineAddress, Order
from sageserve.live.control.loop import Counters, Loop
from tests.core.small import fleet_of, layout_of, scenario

CHECK = 15 * SECOND


class Wants:
    """A strategy that wants, at the next event, what it was told to want."""

    def __init__(self) -> None:
        self.next: list[Decision | Feed | Work] = []
        self.heard: list[AnyEvent] = []

    def handle(self, now: Micros, event: AnyEvent, fleet: Fleet) -> Iterable[Decision | Feed | Work]:
        self.heard.append(event)
        wanted, self.next = self.next, []
        return wanted


class Stage:
    """A loop, and all its sides in one: they note what they are told, and refuse what `refuses` says.

    Args:
        donate: instances that are not needed go to the spot market.
    """

    def __init__(self, *, donate: bool = True) -> None:
        settings = scenario(spot={"donate": donate})
        self.layout = layout_of(settings)
        self.fleet = fleet_of(self.layout)
        self.wants = Wants()
        self.told: list[str] = []
        self.orders: list[AnyAction] = []
        self.lines: list[Entry] = []
        self.minutes: list[DemandSeen] = []
        self.refuses: Exception | None = None
        self.behind: Micros = 0  # of what is counted
        self.counted = [np.zeros(12, np.int64) for _ in range(3)]
        self.loop = Loop(
            controller=Controller(self.fleet, self.wants, settings.spot),
            view=self,
            actuator=self,
            worker=self,
            memory=self,
            check=CHECK,
        )

    def _take(self, words: str) -> None:
        if self.refuses is not None:
            error, self.refuses = self.refuses, None
            raise error
        self.told.append(words)

    # --- the view ---

    def engines(self) -> EnginesSeen:
        return EnginesSeen(0, (0,) * self.layout.endpoints, (0,) * self.layout.endpoints)

    def look(self) -> Observed:
        return Observed(0, (EndpointSeen(0.5, 0.5, 0.5),) * self.layout.endpoints, (0, 0))

    def revisions(self, now: Micros) -> tuple[RevisionsSeen, ...]:
        return ()

    def doors(self, *, looked: bool) -> tuple[DoorSeen, ...]:
        return ()

    def counters(self) -> Counters:
        prompt, output, requests = (one.copy() for one in self.counted)
        could, missed = requests.copy(), np.zeros_like(requests)
        mixes, answers = np.full((1, MIX_WIDTH), float(prompt[0])), np.zeros((0, ANSWER_WIDTH))
        return prompt, output, requests, could, missed, prompt.astype(np.float64), mixes, answers

    def counted_until(self, now: Micros) -> Micros:
        return now - self.behind

    def open(self, instance: int) -> None:
        self._take(f"open {instance}")

    def close(self, instance: int) -> None:
        self._take(f"close {instance}")

    def forget(self, instance: int) -> None:
        self._take(f"forget {instance}")

    def set_feed(self, endpoint: int, *, one_below: float, two_below: float) -> None:
        self._take(f"feed {endpoint}")

    # --- the actuator, the worker and the recorder ---

    def perform(self, now: Micros, action: Order) -> None:
        self._take(type(action).__name__.lower() + f" {action.instance}")
        self.orders.append(action)

    def place(self, instance: int) -> EngineAddress:
        return EngineAddress(f"http://engine-{instance}", "m")

    def submit(self, work: Work) -> None:
        self._take(f"{type(work).__name__.lower()} {work.number}")

    def write(self, entry: Entry) -> None:
        self.lines.append(entry)

    def add(self, seen: DemandSeen) -> None:
        self.minutes.append(seen)

    # --- what tests do ---

    def bring(self, i: int, state: State) -> None:
        """Instance `i` into a state, by the fleet's own verbs."""
        pool = self.fleet.pool_of[i]
        if state is State.OFF:
            return
        self.fleet.start(i, 0, self.fleet.room(pool))
        steps: dict[State, list[Callable[[int, Micros], None]]] = {
            State.STARTING: [],
            State.SERVING: [self.fleet.ready],
            State.DRAINING: [self.fleet.ready, self.fleet.drain],
            State.SPOT: [self.fleet.ready, self.fleet.drain, self.fleet.donate],
            State.RECLAIMING: [self.fleet.ready, self.fleet.drain, self.fleet.donate, self.fleet.reclaim],
        }
        for verb in steps[state]:
            verb(i, 0)

    def hear(self, *events: AnyEvent) -> None:
        for event in events:
            self.loop.hear(event)
        self.loop.step(self.fleet.now + 1)
