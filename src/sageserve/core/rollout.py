"""A rollout of a new revision of a model: a few canaries, judged by promises, then the others; or back.

    waiting -> canary -> rolling -> done      each step is an action (`Roll`), an instance more or fewer a decision
               canary, rolling -> back -> undone, or -> stopped

An instance more is started before one is drained, as many at once as `surge` says; with a surge of 0 one is drained first. What a
strategy wants stays its own: it does not see instances that start beside those they replace. Safety rules hold as for any drain.
No clock, no I/O. Read next: `rollouts.py`, which has all of them; `controller.py`, which carries decisions out;
docs/how-to/roll-out.md.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from math import floor
from typing import Final

from sageserve.base.units import MINUTE, NEVER, Micros
from sageserve.core.actions import Decision, Reason, Roll, RolloutStep, RolloutWhy
from sageserve.core.events import Event, InstanceLost, InstanceReady, Observed, RevisionsSeen, StartFailed
from sageserve.core.fleet import Fleet, State
from sageserve.core.judging import DOUBT, RevisionKept, interval, is_broken
from sageserve.core.rollout_plan import RolloutMemory, RolloutPlan

STARTS_MOST: Final = 3  # starts that fail in a row before a revision is given up: one may have met bad luck
_AGAIN: Final[Micros] = MINUTE  # after something stood in the way
_REASONS: Final = {
    RolloutStep.CANARY: Reason.CANARY,
    RolloutStep.ROLLING: Reason.ROLLING,
    RolloutStep.BACK: Reason.ROLLING_BACK,
    RolloutStep.STOPPED: Reason.ROLLING_BACK,
    RolloutStep.DONE: Reason.ROLLING,  # of one that is over, what is beyond what is wanted
    RolloutStep.UNDONE: Reason.ROLLING_BACK,
}
_HELD: Final = (State.SERVING, State.STARTING, State.RECLAIMING)


class Rollout:
    """One rollout of one model, in all its endpoints.

    Args:
        plan: what, and how.
        fleet: looked at; what is wanted of pools is set.
    """

    def __init__(self, plan: RolloutPlan, fleet: Fleet) -> None:
        self.plan = plan
        self.step = RolloutStep.WAITING
        self.begun: Micros = NEVER
        self.ended: Micros = NEVER
        self.steps: list[tuple[Micros, Roll]] = []
        self.surplus_gpu_us = 0  # GPU time of instances beyond what was wanted
        self._fleet = fleet
        self._pools = [pool for pool in fleet.pools if pool.model == plan.model]
        self._endpoints = sorted({pool.endpoint for pool in self._pools})
        self._old = 0
        self._extra = dict.fromkeys(self._endpoints, 0)  # instances beyond what is wanted; below 0: fewer
        self._surging: dict[int, int] = {}  # rows that start as such, and their endpoints
        self._owed: dict[int, int] = {}  # pool of the one that was drained before another was started
        self._again = dict.fromkeys(self._endpoints, 0)
        self._failed = 0
        self._full: Micros = NEVER  # since when every canary serves
        self._seen: deque[tuple[Micros, RevisionsSeen]] = deque()
        none = (0,) * (2 * len(plan.percentiles))
        self._nothing = RevisionsSeen(plan.model, none, none)
        self._base: RevisionsSeen | None = None  # when the first canary began to serve: both are judged over the same time
        self._accounted: Micros = 0

    @property
    def active(self) -> bool:
        """Whether it has begun and may still change something."""
        return self.step in (RolloutStep.CANARY, RolloutStep.ROLLING, RolloutStep.BACK)

    def begin(self, now: Micros, before: RolloutMemory | None = None) -> Iterator[Roll]:
        """It is due, and no other one of its model goes on; what the one before it began is this one's to end."""
        self.begun = self._accounted = now
        if before is not None:
            self._extra, self._surging, self._owed = dict(before.extra), dict(before.surging), dict(before.owed)
        self._old = self._fleet.wanted[self._pools[0].number] if self._pools else 0
        yield self._take(now, RolloutStep.CANARY, RolloutWhy.DUE)

    def hear(self, now: Micros, event: Event) -> None:
        """Take in what happened to instances, and what they kept."""
        self._account(now)
        match event:
            case InstanceReady(instance=i):
                self._surging.pop(i, None)
                if self._is_new(i):
                    self._failed = 0
                    self._base = self._base or (self._seen[-1][1] if self._seen else self._nothing)
            case StartFailed(instance=i):
                if (endpoint := self._surging.pop(i, -1)) >= 0:
                    self._extra[endpoint] -= 1
                self._failed += self._is_new(i)
            case InstanceLost(instance=i):
                endpoint = self._fleet.pools[self._fleet.pool_of[i]].endpoint
                if endpoint in self._extra and self._ready(endpoint) > 0:
                    self._extra[endpoint] -= 1  # the one beyond stands in for it
            case RevisionsSeen(model=model) if model == self.plan.model:
                self._seen.append((now, event))
                while len(self._seen) > 1 and self._seen[1][0] <= now - self.plan.judge_after:
                    self._seen.popleft()
            case _:
                pass

    def decide(self, now: Micros, look: Observed) -> Iterator[Decision | Roll]:
        """What to do at a look at the fleet; each decision is carried out, and `note` told, before the next is asked for."""
        if self.step in (RolloutStep.CANARY, RolloutStep.ROLLING):
            yield from self._judge(now)
        for endpoint in self._endpoints:
            if endpoint not in look.blind and now >= self._again[endpoint]:
                yield from self._replace(now, endpoint, look)
        if self.step in (RolloutStep.ROLLING, RolloutStep.BACK) and not self._is_left():
            over = RolloutStep.DONE if self.step is RolloutStep.ROLLING else RolloutStep.UNDONE
            yield self._take(now, over, RolloutWhy.REPLACED)

    def ask(self, now: Micros, step: RolloutStep) -> Iterator[Roll]:
        """Somebody wants it stopped, or taken back (which one that is over may be, too); what it is not in the way of is done."""
        if self.takes(step):
            self._account(now)
            yield self._take(now, step, RolloutWhy.ASKED)

    def takes(self, step: RolloutStep) -> bool:
        """Whether there is something to stop (STOPPED), or to take back (BACK)."""
        if step is RolloutStep.STOPPED:
            return self.active
        return self.step in (RolloutStep.CANARY, RolloutStep.ROLLING, RolloutStep.STOPPED, RolloutStep.DONE)

    @property
    def full(self) -> Micros:
        """Since when every canary serves; NEVER: they do not yet."""
        return self._full

    def remember(self, now: Micros) -> RolloutMemory:
        """How far it is."""
        self._account(now)
        held = {endpoint: len(self._at(endpoint, _HELD)) for endpoint in self._endpoints}
        return RolloutMemory(
            self.step,
            self.begun,
            self.ended,
            tuple(self.steps),
            self.surplus_gpu_us,
            self._old,
            dict(self._extra),
            held,
            dict(self._surging),
            dict(self._owed),
            self._failed,
            self._full,
            tuple(self._seen),
            self._base,
        )

    def recall(self, now: Micros, kept: RolloutMemory) -> None:
        """Go on where another process was, with the instances that are there now.

        One that it drained and that serves again is one beyond what is wanted; of those beyond, some may be gone.
        """
        self.step, self.begun, self.ended, self.steps = kept.step, kept.begun, kept.ended, list(kept.steps)
        self.surplus_gpu_us, self._old, self._accounted = kept.surplus, kept.old, now
        self._failed, self._full, self._base = kept.failed, kept.full, kept.base
        self._seen = deque(kept.seen)
        self._surging = {i: e for i, e in kept.surging.items() if self._fleet.state[i] is State.STARTING and e in self._extra}
        self._owed = dict(kept.owed)
        for endpoint in self._endpoints:
            held = len(self._at(endpoint, _HELD))
            extra, more = kept.extra.get(endpoint, 0), held - kept.held.get(endpoint, held)
            self._extra[endpoint] = extra + more if more > 0 else max(min(extra, 0), extra + more)
        self._fleet.surge.update(i for i, endpoint in self._surging.items() if self._extra[endpoint] > 0)
        self._want()

    def spares(self, pool: int) -> int:
        """The revision of which a strategy's drain takes an instance only where there is no other."""
        endpoint = self._fleet.pools[pool].endpoint
        if self.step is RolloutStep.CANARY and self._new(endpoint) > self._share(endpoint, less=1):
            return self._old
        return self.goal

    def beyond(self, endpoint: int) -> int:
        """Serving instances that a strategy's minimum is not made of: those that are there to replace others."""
        return max(0, self._ready(endpoint))

    def note(self, now: Micros, instance: int, change: int, *, own: bool) -> None:
        """An instance was started (1) or drained (-1), for this rollout or by the strategy."""
        self._account(now)
        endpoint = self._fleet.pools[self._fleet.pool_of[instance]].endpoint
        if not own and (change > 0 or self._ready(endpoint) <= 0):
            return  # what the strategy wants is more or less by it
        if own and change > 0:
            if self._extra[endpoint] >= 0:
                self._fleet.surge.add(instance)
            self._surging[instance] = endpoint
        self._extra[endpoint] += change
        if self._extra[endpoint] < 0:
            self._owed[endpoint] = self._fleet.pool_of[instance]

    # --- judging ---

    def _judge(self, now: Micros) -> Iterator[Roll]:
        if self._failed >= STARTS_MOST:
            yield self._take(now, self._way_out, RolloutWhy.NOT_STARTING)
            return
        if self._full == NEVER and all(self._new(e, (State.SERVING,)) >= self._share(e) for e in self._endpoints):
            self._full = now
        judged = {tier: self.kept(tier) for tier, promised in enumerate(self.plan.percentiles) if promised > 0}
        for tier, (old, new) in judged.items():
            if is_broken(self.plan.percentiles[tier], old, new):
                yield self._take(now, self._way_out, RolloutWhy.BROKEN, tier)
                return
        if self.step is not RolloutStep.CANARY or now - self._full < self.plan.judge_after:
            return
        asked = sum(new.asked for _, new in judged.values())
        doubted = any(is_broken(self.plan.percentiles[tier], *both, DOUBT) for tier, both in judged.items())
        if asked >= self.plan.judge_requests and not doubted:
            news = {tier: new for tier, (_, new) in judged.items() if new.asked}
            worst = min(news, key=lambda tier: interval(news[tier].asked, news[tier].kept)[1])
            yield self._take(now, RolloutStep.ROLLING, RolloutWhy.KEPT, worst)

    def _want(self) -> None:
        """Say in which revision instances start that the strategy asks for."""
        wanted = self.plan.revision if self.step in (RolloutStep.ROLLING, RolloutStep.DONE) else self._old
        for pool in self._pools:
            self._fleet.wanted[pool.number] = wanted

    @property
    def _way_out(self) -> RolloutStep:
        return RolloutStep.BACK if self.plan.back else RolloutStep.STOPPED

    def kept(self, tier: int) -> tuple[RevisionKept, RevisionKept]:
        """Of the old and the new revision: since the first canary served while they are judged, then over the judging time."""
        before = self._base if self.step is RolloutStep.CANARY or not self._seen else self._seen[0][1]
        if not self._seen or before is None:
            return RevisionKept(0, 0), RevisionKept(0, 0)
        newest, new = self._seen[-1][1], tier + len(self.plan.percentiles)
        return _kept_of(newest, tier) - _kept_of(before, tier), _kept_of(newest, new) - _kept_of(before, new)

    def _take(self, now: Micros, step: RolloutStep, why: RolloutWhy, tier: int = -1) -> Roll:
        old, new = self.kept(tier) if tier >= 0 else (RevisionKept(-1, -1), RevisionKept(-1, -1))
        self.step = step
        if step in (RolloutStep.DONE, RolloutStep.UNDONE, RolloutStep.STOPPED):
            self.ended = now
        else:
            self.ended = NEVER  # one that was over may be taken back
        self._want()
        self._again = dict.fromkeys(self._endpoints, 0)
        roll = Roll(self.plan.model, self.plan.revision, step, why, tier, old.asked, old.kept, new.asked, new.kept)
        self.steps.append((now, roll))
        return roll

    # --- replacing ---

    def _replace(self, now: Micros, endpoint: int, look: Observed) -> Iterator[Decision]:
        for change, may in ((-1, self._may_drain), (1, self._may_start), (-1, self._may_drain)):
            while may(endpoint):
                before = self._extra[endpoint]
                pool = self._pool_to_change(endpoint, change)
                seen, age = look.endpoints[endpoint].seen, now - look.scraped
                serving, coming = self._fleet.serving(pool), self._fleet.coming(pool)
                yield Decision(pool, change, _REASONS[self.step], seen, age, serving, coming)
                if self._extra[endpoint] == before:  # something stood in the way
                    self._again[endpoint] = now + _AGAIN
                    return

    @property
    def goal(self) -> int:
        """The revision that this rollout starts instances in, and drains those of others for."""
        forth = self.step in (RolloutStep.CANARY, RolloutStep.ROLLING, RolloutStep.DONE)
        return self.plan.revision if forth else self._old

    def _may_start(self, endpoint: int) -> bool:
        extra = self._extra[endpoint]
        if not self.active or extra >= self._surge(endpoint):
            return extra < 0  # one was drained for it, whatever came meanwhile
        if extra < 0:
            return True
        if self.step is RolloutStep.CANARY:
            return self._new(endpoint) < self._share(endpoint)
        return self._others(endpoint) > extra

    def _surge(self, endpoint: int) -> int:
        """Instances beyond what is wanted; the only one of an endpoint is not drained first, so one starts beside it."""
        return self.plan.surge or int(len(self._at(endpoint, _HELD)) - self._extra[endpoint] == 1)

    def _may_drain(self, endpoint: int) -> bool:
        least = -1 if self.plan.surge == 0 and self.active else 0
        others = self._others(endpoint, (State.SERVING,))
        if self._ready(endpoint) <= least:
            return False
        if others == 0:  # what is beyond goes though all is replaced: the strategy drained an old one, or one came back
            return self.step is not RolloutStep.CANARY and self._ready(endpoint) > 0 and self._others(endpoint) == 0
        if self.step is not RolloutStep.CANARY:
            return self._ready(endpoint) > 0 or len(self._at(endpoint, (State.SERVING,))) > 1
        short = self._new(endpoint) < self._share(endpoint)
        return others > 1 and (self._ready(endpoint) > 0 or short)

    def _pool_to_change(self, endpoint: int, change: int) -> int:
        """The pool with most instances that are to be replaced; to start one for one that was drained, the pool of that."""
        if change > 0 and self._extra[endpoint] < 0:
            return self._owed[endpoint]
        states = (State.SERVING,) if change < 0 else _HELD
        if change < 0 and self._others(endpoint, states) == 0:
            return max((pool.number for pool in self._pools if pool.endpoint == endpoint), key=self._fleet.serving)
        here = [pool.number for pool in self._pools if pool.endpoint == endpoint]
        return max(here, key=lambda pool: (len([r for r in self._revisions(pool, states) if r != self.goal]), -pool))

    # --- counting ---

    def _is_new(self, i: int) -> bool:
        pool = self._fleet.pools[self._fleet.pool_of[i]]
        return pool.model == self.plan.model and self._fleet.revision[i] == self.plan.revision

    def _revisions(self, pool: int, states: Sequence[State]) -> list[int]:
        """Of a pool's instances in some states."""
        rows, fleet = self._fleet.pools[pool], self._fleet
        return [fleet.revision[i] for i in range(rows.begin, rows.end) if fleet.state[i] in states]

    def _at(self, endpoint: int, states: Sequence[State]) -> list[int]:
        pools = [pool.number for pool in self._pools if pool.endpoint == endpoint]
        return [revision for pool in pools for revision in self._revisions(pool, states)]

    def _new(self, endpoint: int, states: Sequence[State] = _HELD) -> int:
        return self._at(endpoint, states).count(self.plan.revision)

    def _others(self, endpoint: int, states: Sequence[State] = _HELD) -> int:
        """Instances that are to be replaced in the end."""
        found = self._at(endpoint, states)
        return len(found) - found.count(self.goal)

    def _ready(self, endpoint: int) -> int:
        """Instances beyond what is wanted that serve already."""
        return self._extra[endpoint] - sum(at == endpoint for at in self._surging.values())

    def _share(self, endpoint: int, less: int = 0) -> int:
        """Canaries of an endpoint, if it had so many fewer instances."""
        held = len(self._at(endpoint, _HELD)) - self._extra[endpoint] - less
        return max(1, floor(self.plan.canary * held)) if held > 0 else 0

    def _is_left(self) -> bool:
        """Whether an instance is to be replaced still, or one that replaces it is on its way."""
        return bool(self._surging) or any(self._others(e) or self._extra[e] < 0 for e in self._endpoints)

    def _account(self, now: Micros) -> None:
        if self.active:
            passed = now - self._accounted
            for endpoint, extra in self._extra.items():
                gpus = next(pool.gpus for pool in self._pools if pool.endpoint == endpoint)
                self.surplus_gpu_us += max(extra, 0) * gpus * passed
        self._accounted = now


def _kept_of(seen: RevisionsSeen, at: int) -> RevisionKept:
    return RevisionKept(seen.asked[at], seen.asked[at] - seen.missed[at])
