"""The controller: events in, actions out. The same code runs a simulated fleet and a live one.

It takes each event into the fleet, asks the strategy what to change, finds the capacity, keeps the floors, and remembers
what it decided. No clock, no I/O, no randomness. Read next: `strategies/base.py`, `spot.py`, `fleet.py`.
"""

from collections.abc import Iterator, Sequence
from typing import Final, assert_never

from msgspec.structs import replace

from sageserve.base.config import SpotSettings
from sageserve.base.units import Micros
from sageserve.core.actions import Action, Blocked, Decision, Donate, Drain, Reason, Reclaim, Release, Source, Start
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
from sageserve.core.fleet import Fleet, State
from sageserve.core.rollout_plan import RolloutPlan
from sageserve.core.rollouts import Rollouts
from sageserve.core.safety import Guard
from sageserve.core.spot import find_capacity, pick_drain
from sageserve.core.strategies.base import Strategy
from sageserve.core.work import AnyAction, AnyEvent, Fitted, Solved, SolvedAhead
from sageserve.core.zero import Sleepers

_OF_ROLLOUTS: Final = frozenset({Reason.CANARY, Reason.ROLLING, Reason.ROLLING_BACK})


class Controller:
    """Decides for a whole fleet.

    Args:
        fleet: changed by this controller alone.
        strategy: says which pools should change.
        spot: what to do with instances that are not needed.
        guard: what is never done, whatever the strategy wants; None: a simulated fleet needs no guard.
        rollouts: new revisions of models.
        sleepers: endpoints that may have no instance; None: there are none, or the strategy sees to them.
    """

    def __init__(
        self,
        fleet: Fleet,
        strategy: Strategy,
        spot: SpotSettings,
        guard: Guard | None = None,
        rollouts: Sequence[RolloutPlan] = (),
        sleepers: Sleepers | None = None,
    ) -> None:
        self.fleet = fleet
        self.rollouts = Rollouts(rollouts, fleet)
        self.decisions: tuple[Decision, ...] = ()
        self._strategy = strategy
        self._spot = spot
        self._guard = guard
        self._sleepers = sleepers

    def handle(self, now: Micros, event: AnyEvent) -> tuple[AnyAction, ...]:
        """Take in one event and say what should be done about it; `decisions` then holds why."""
        actions: list[AnyAction] = list(self._take_in(now, event))
        decisions = []
        for wanted in self._wanted(now, event):
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

    def _wanted(self, now: Micros, event: AnyEvent) -> Iterator[Decision | AnyAction]:
        """What wakes and sleeps, what the strategy wants, then rollouts; each is carried out before the next is asked for."""
        if self._sleepers is None:
            yield from self._strategy.handle(now, event, self.fleet)
        else:
            yield from self._wanted_but_sleep(now, event, self._sleepers)
        if isinstance(event, Observed):
            yield from self.rollouts.decide(now, event)

    def _wanted_but_sleep(self, now: Micros, event: AnyEvent, sleepers: Sleepers) -> Iterator[Decision | AnyAction]:
        if not isinstance(event, Fitted | Solved | SolvedAhead):
            yield from sleepers.handle(now, event, self.fleet)
        for wanted in self._strategy.handle(now, event, self.fleet):
            if not (isinstance(wanted, Decision) and sleepers.leaves(wanted, self.fleet)):
                yield wanted

    def _take_in(self, now: Micros, event: AnyEvent) -> tuple[Action, ...]:
        drained = isinstance(event, InstanceLost) and self.fleet.state[event.instance] is State.DRAINING
        actions = self._change(now, event)
        if not (drained or isinstance(event, Fitted | Solved | SolvedAhead)):  # of what drains, none is expected back
            self.rollouts.hear(now, event)
        return actions

    def _change(self, now: Micros, event: AnyEvent) -> tuple[Action, ...]:
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
            case InstanceComing(instance=i):
                if gpus := self.fleet.room(self.fleet.pool_of[i]):  # there are more GPUs than the settings say: it has no row
                    self.fleet.start(i, now, gpus)
            case InstanceLeaving(instance=i):
                self.fleet.drain(i, now)
            case Observed():
                if self._guard is not None:
                    self._guard.see(event)
            case DemandSeen() | DoorSeen() | EnginesSeen() | RevisionsSeen() | Fitted() | Solved() | SolvedAhead():
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
            more = self._grow(now, wanted) if wanted.change > 0 else self._shrink(now, wanted)
            if isinstance(more, Blocked):
                blocked = more
            else:
                done += 1
                actions += more
        return (done if wanted.change > 0 else -done), blocked, actions

    def _grow(self, now: Micros, wanted: Decision) -> list[Action] | Blocked:
        rollout, own = self.rollouts.at(wanted.pool), wanted.reason in _OF_ROLLOUTS
        revision = rollout.goal if own and rollout is not None else self.fleet.wanted[wanted.pool]
        offer = find_capacity(self.fleet, wanted.pool, revision)
        if isinstance(offer, Blocked):
            return offer
        endpoint = self.fleet.pools[wanted.pool].endpoint
        if self._guard is not None and (why := self._guard.forbids_growth(endpoint)) is not Blocked.NOT:
            return why
        actions: list[Action] = []
        if offer.source is Source.SPOT and offer.victim < 0:
            self.fleet.reclaim(offer.instance, now)
            actions.append(Reclaim(offer.instance))
        else:
            if offer.victim >= 0:
                self.fleet.take(offer.victim, now)
                actions.append(Release(offer.victim))
            self.fleet.start(offer.instance, now, offer.gpus, revision=revision)
            actions.append(Start(offer.instance, offer.source, offer.gpus, revision))
        if rollout is not None:
            rollout.note(now, offer.instance, 1, own=own)
        return actions

    def _shrink(self, now: Micros, wanted: Decision) -> list[Action] | Blocked:
        here = self.fleet.pools[wanted.pool]
        rollout, own = self.rollouts.at(wanted.pool), wanted.reason in _OF_ROLLOUTS
        serving = sum(self.fleet.serving(other.number) for other in self.fleet.pools if other.endpoint == here.endpoint)
        spared = -1 if rollout is None else rollout.goal if own else rollout.spares(wanted.pool)
        i = pick_drain(self.fleet, wanted.pool, spared)
        if i < 0:
            i = pick_drain(self.fleet, wanted.pool)
        in_place = own and rollout is not None and rollout.plan.surge == 0
        beyond = 0 if own or rollout is None or wanted.reason is Reason.IDLE else rollout.beyond(here.endpoint)
        least = here.floor if wanted.reason is Reason.IDLE else 1 if in_place else here.minimum
        if i < 0 or serving - beyond <= least:
            return Blocked.AT_MINIMUM
        if self._guard is not None:
            asked = serving if wanted.reason is not Reason.IDLE else Guard.NOBODY
            if (why := self._guard.forbids_drain(now, here.endpoint, asked)) is not Blocked.NOT:
                return why
            self._guard.drained(now, here.endpoint)
        self.fleet.drain(i, now)
        if rollout is not None:
            rollout.note(now, i, -1, own=own)
        return [Drain(i)]
