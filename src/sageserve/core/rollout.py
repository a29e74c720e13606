"""A rollout of a new revision of a model: a few canaries, judged by promises, then the others; or back.

    waiting -> canary -> rolling -> done      each step is an action (`Roll`), an instance more or fewer a decision
               canary, rolling -> back -> undone, or -> stopped

An instance more is started before one is drained, as many at once as `surge` says; with a surge of 0 one is drained first. What a
strategy wants stays its own: it does not see instances that start beside those they replace. Safety rules hold as for any drain.
No clock, no I/O. Read next: `controller.py`, which carries decisions out; docs/how-to/roll-out.md.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import floor
from typing import Final

from sageserve.base.units import MINUTE, NEVER, Micros
from sageserve.core.actions import Decision, Reason, Roll, RolloutStep, RolloutWhy
from sageserve.core.events import Event, InstanceLost, InstanceReady, Observed, RevisionsSeen, StartFailed
from sageserve.core.fleet import Fleet, State

SURE: Final = 0.999  # of intervals: a rollout looks many times, and none of the looks may see by chance what is not there
DOUBT: Final = (
    0.8  # of intervals that lie apart: so much says that a version may be broken, and more is asked before the others follow
)
STARTS_MOST: Final = 3  # starts that fail in a row before a revision is given up: one may have met bad luck
_AGAIN: Final[Micros] = MINUTE  # after something stood in the way
_REASONS: Final = {
    RolloutStep.CANARY: Reason.CANARY,
    RolloutStep.ROLLING: Reason.ROLLING,
    RolloutStep.BACK: Reason.ROLLING_BACK,
    RolloutStep.STOPPED: Reason.ROLLING_BACK,
}
_HELD: Final = (State.SERVING, State.STARTING, State.RECLAIMING)


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """What is rolled out, and how.

    Args:
        model: number of it.
        revision: number of the new one, above that of every earlier one.
        at: when it begins; one of the same model that is not over by then is waited for.
        surge: instances of an endpoint that may be there beyond what is wanted; 0: one fewer instead.
        canary: share of an endpoint's instances that is new until it is judged; one at least.
        judge_after: microseconds that all canaries serve before the others follow, and over which is judged from then on.
        judge_requests: that the new revision must have been asked before the others follow.
        back: a revision that breaks promises is replaced by the old one; false: nothing more becomes new.
        percentiles: by tier, share of requests that is promised; 0: not judged.
    """

    model: int
    revision: int
    at: Micros
    surge: int
    canary: float
    judge_after: Micros
    judge_requests: int
    back: bool
    percentiles: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class RevisionKept:
    """Requests asked of a revision, and those whose promise was kept."""

    asked: int
    kept: int

    def __sub__(self, other: "RevisionKept") -> "RevisionKept":
        return RevisionKept(self.asked - other.asked, self.kept - other.kept)


def interval(asked: int, kept: int, level: float = SURE) -> tuple[float, float]:
    """Wilson's interval of the share that is kept (SciPy's; Wilson 1927); nothing is known of nothing."""
    from scipy.stats import binomtest  # noqa: PLC0415  # half a second that only rollouts pay

    if asked == 0:
        return 0.0, 1.0
    found = binomtest(kept, asked).proportion_ci(level, method="wilson")
    return float(found.low), float(found.high)


def is_broken(promised: float, old: RevisionKept, new: RevisionKept, level: float = SURE) -> bool:
    """Whether a new revision breaks its promise and does worse than the old one beside it, both more than by chance."""
    if new.kept >= promised * new.asked:
        return False  # what was seen lies in its interval
    most = interval(new.asked, new.kept, level)[1]
    return most < promised and most < interval(old.asked, old.kept, level)[0]


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

    def begin(self, now: Micros) -> Iterator[Roll]:
        """It is due, and no other one of its model goes on."""
        self.begun = self._accounted = now
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
            self._extra = dict.fromkeys(self._endpoints, 0)  # where a strategy drained what one was to replace, it is capacity

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
        judged = {tier: self._kept(tier) for tier, promised in enumerate(self.plan.percentiles) if promised > 0}
        for tier, (old, new) in judged.items():
            if is_broken(self.plan.percentiles[tier], old, new):
                yield self._take(now, self._way_out, RolloutWhy.BROKEN, tier)
                return
        if self.step is not RolloutStep.CANARY or now - self._full < self.plan.judge_after:
            return
        asked = sum(new.asked for _, new in judged.values())
        doubted = any(is_broken(self.plan.percentiles[tier], *both, DOUBT) for tier, both in judged.items())
        if asked >= self.plan.judge_requests and not doubted:
            worst = min(judged, key=lambda tier: interval(judged[tier][1].asked, judged[tier][1].kept)[1])
            yield self._take(now, RolloutStep.ROLLING, RolloutWhy.KEPT, worst)

    @property
    def _way_out(self) -> RolloutStep:
        return RolloutStep.BACK if self.plan.back else RolloutStep.STOPPED

    def _kept(self, tier: int) -> tuple[RevisionKept, RevisionKept]:
        """Of the old and the new revision: since the first canary served while they are judged, then over the judging time."""
        before = self._base if self.step is RolloutStep.CANARY or not self._seen else self._seen[0][1]
        if not self._seen or before is None:
            return RevisionKept(0, 0), RevisionKept(0, 0)
        newest, new = self._seen[-1][1], tier + len(self.plan.percentiles)
        return _kept_of(newest, tier) - _kept_of(before, tier), _kept_of(newest, new) - _kept_of(before, new)

    def _take(self, now: Micros, step: RolloutStep, why: RolloutWhy, tier: int = -1) -> Roll:
        old, new = self._kept(tier) if tier >= 0 else (RevisionKept(-1, -1), RevisionKept(-1, -1))
        self.step = step
        if step in (RolloutStep.DONE, RolloutStep.UNDONE, RolloutStep.STOPPED):
            self.ended = now
        wanted = self.plan.revision if step in (RolloutStep.ROLLING, RolloutStep.DONE) else self._old
        for pool in self._pools:
            self._fleet.wanted[pool.number] = wanted
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
        if not self.active or extra >= max(self.plan.surge, 0):
            return extra < 0  # one was drained for it, whatever came meanwhile
        if extra < 0:
            return True
        if self.step is RolloutStep.CANARY:
            return self._new(endpoint) < self._share(endpoint)
        return self._others(endpoint) > extra

    def _may_drain(self, endpoint: int) -> bool:
        least = -1 if self.plan.surge == 0 and self.active else 0
        others = self._others(endpoint, (State.SERVING,))
        if self._ready(endpoint) <= least or others == 0:
            return False
        if self.step is not RolloutStep.CANARY:
            return self._ready(endpoint) > 0 or len(self._at(endpoint, (State.SERVING,))) > 1
        short = self._new(endpoint) < self._share(endpoint)
        return others > 1 and (self._ready(endpoint) > 0 or short)

    def _pool_to_change(self, endpoint: int, change: int) -> int:
        """The pool with most instances that are to be replaced; to start one for one that was drained, the pool of that."""
        if change > 0 and self._extra[endpoint] < 0:
            return self._owed[endpoint]
        states = (State.SERVING,) if change < 0 else _HELD
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


class Rollouts:
    """All that is rolled out, one after the other where they are of one model.

    Args:
        plans: any number.
        fleet: of the controller.
    """

    def __init__(self, plans: Sequence[RolloutPlan], fleet: Fleet) -> None:
        self._fleet = fleet
        self.all = tuple(Rollout(plan, fleet) for plan in sorted(plans, key=lambda plan: (plan.at, plan.revision)))
        self._latest: dict[int, Rollout] = {}  # by model, of those that have begun

    @property
    def judged(self) -> tuple[Rollout, ...]:
        """Those of which it counts what requests are kept."""
        return tuple(one for one in self._latest.values() if one.step in (RolloutStep.CANARY, RolloutStep.ROLLING))

    def at(self, pool: int) -> Rollout | None:
        """The one that the instances of a pool are in; None before the first."""
        return self._latest.get(self._fleet.pools[pool].model)

    def hear(self, now: Micros, event: Event) -> None:
        """Take in one event, after the fleet has."""
        for one in self._latest.values():
            one.hear(now, event)

    def decide(self, now: Micros, look: Observed) -> Iterator[Decision | Roll]:
        """What to do at a look; see `Rollout.decide`."""
        for one in self.all:
            before = self._latest.get(one.plan.model)
            if one.step is RolloutStep.WAITING and one.plan.at <= now and (before is None or not before.active):
                self._latest[one.plan.model] = one
                yield from one.begin(now)
        for one in tuple(self._latest.values()):
            yield from one.decide(now, look)
