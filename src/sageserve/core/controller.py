"""The controller: events in, actions out. The same code runs a simulated fleet and a live one.

It takes each event into the fleet, asks the strategy what to change, finds the capacity, keeps the floors, and remembers
what it decided. No clock, no I/O, no randomness. Read next: `strategies/base.py`, `spot.py`, `fleet.py`.
"""

from typing import assert_never

from msgspec.structs import replace

from sageserve.base.config import SpotSettings
from sageserve.base.units import Micros
from sageserve.core.actions import Action, Blocked, Decision, Donate, Drain, Reclaim, Release, Source, Start
from sageserve.core.events import (
    DemandSeen,
    EnginesSeen,
    InstanceDrained,
    InstanceLost,
    InstanceReady,
    Observed,
    SpotTaken,
    StartFailed,
)
from sageserve.core.fleet import Fleet, State
from sageserve.core.safety import Guard
from sageserve.core.spot import find_capacity, pick_drain
from sageserve.core.strategies.base import Strategy
from sageserve.core.work import AnyAction, AnyEvent, Fitted, Solved, SolvedAhead


class Controller:
    """Decides for a whole fleet.

    Args:
        fleet: changed by this controller alone.
        strategy: says which pools should change.
        spot: what to do with instances that are not needed.
        guard: what is never done, whatever the strategy wants; None: a simulated fleet needs no guard.
    """

    def __init__(self, fleet: Fleet, strategy: Strategy, spot: SpotSettings, guard: Guard | None = None) -> None:
        self.fleet = fleet
        self.decisions: tuple[Decision, ...] = ()
        self._strategy = strategy
        self._spot = spot
        self._guard = guard

    def handle(self, now: Micros, event: AnyEvent) -> tuple[AnyAction, ...]:
        """Take in one event and say what should be done about it; `decisions` then holds why."""
        actions: list[AnyAction] = list(self._take_in(now, event))
        decisions = []
        for wanted in self._strategy.handle(now, event, self.fleet):
            if not isinstance(wanted, Decision):
                actions.append(wanted)
                continue
            done, blocked, more = self._carry_out(now, wanted)
            decisions.append(replace(wanted, done=done, blocked=blocked))
            actions += more
        self.decisions = tuple(decisions)
        return tuple(actions)

    def begin(self, now: Micros, pool: int, count: int) -> tuple[Action, ...]:
        """Put the first `count` instances of a pool into service, as many as fit: the state every strategy starts from."""
        actions = []
        for i in list(self.fleet.rows(pool, State.OFF))[:count]:
            gpus = self.fleet.room(pool)
            if not gpus:
                break
            self.fleet.start(i, now, gpus, initial=True)
            actions.append(Start(i, Source.INITIAL, gpus))
        return tuple(actions)

    def _take_in(self, now: Micros, event: AnyEvent) -> tuple[Action, ...]:
        match event:
            case InstanceReady(instance=i):
                self.fleet.ready(i, now)
            case StartFailed(instance=i):
                self.fleet.fail(i, now)
            case SpotTaken(instance=i):
                self.fleet.take(i, now)
            case InstanceDrained(instance=i):
                return self._empty(now, i)
            case InstanceLost(instance=i):
                self.fleet.lose(i, now)
            case Observed():
                if self._guard is not None:
                    self._guard.see(event)
            case DemandSeen() | EnginesSeen() | Fitted() | Solved() | SolvedAhead():
                pass
            case _:
                assert_never(event)
        return ()

    def _empty(self, now: Micros, i: int) -> tuple[Action, ...]:
        if self._spot.donate:
            self.fleet.donate(i, now)
            return (Donate(i),)
        self.fleet.release(i, now)
        return (Release(i),)

    def _carry_out(self, now: Micros, wanted: Decision) -> tuple[int, Blocked, list[Action]]:
        actions: list[Action] = []
        blocked = Blocked.NOT
        done = 0
        while done < abs(wanted.change) and blocked is Blocked.NOT:
            more = self._grow(now, wanted.pool) if wanted.change > 0 else self._shrink(now, wanted.pool)
            if isinstance(more, Blocked):
                blocked = more
            else:
                done += 1
                actions += more
        return (done if wanted.change > 0 else -done), blocked, actions

    def _grow(self, now: Micros, pool: int) -> list[Action] | Blocked:
        offer = find_capacity(self.fleet, pool)
        if isinstance(offer, Blocked):
            return offer
        endpoint = self.fleet.pools[pool].endpoint
        if self._guard is not None and (why := self._guard.forbids_growth(endpoint)) is not Blocked.NOT:
            return why
        if offer.source is Source.SPOT and offer.victim < 0:
            self.fleet.reclaim(offer.instance, now)
            return [Reclaim(offer.instance)]
        actions: list[Action] = []
        if offer.victim >= 0:
            self.fleet.take(offer.victim, now)
            actions.append(Release(offer.victim))
        self.fleet.start(offer.instance, now, offer.gpus)
        return [*actions, Start(offer.instance, offer.source, offer.gpus)]

    def _shrink(self, now: Micros, pool: int) -> list[Action] | Blocked:
        here = self.fleet.pools[pool]
        serving = sum(self.fleet.serving(other.number) for other in self.fleet.pools if other.endpoint == here.endpoint)
        i = pick_drain(self.fleet, pool)
        if i < 0 or serving <= here.minimum:
            return Blocked.AT_MINIMUM
        if self._guard is not None:
            if (why := self._guard.forbids_drain(now, here.endpoint, serving)) is not Blocked.NOT:
                return why
            self._guard.drained(now, here.endpoint)
        self.fleet.drain(i, now)
        return [Drain(i)]
