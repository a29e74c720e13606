"""Chiron (arXiv 2501.08090): interactive instances, batch instances, and mixed ones that lend their headroom to batch work.

Interactive and mixed instances grow and shrink on interactive back-pressure, the busy share of them; batch instances on the
time the queue needs against its deadlines, and go when it is empty. Each tier is sent to its own role first and to the mixed one
when that is full: the order of the roles. Not here: Chiron's local half, which sets batch sizes inside an instance, and
eviction of batch requests; engines do neither when told from outside. Read next: `backlog.py`, `steps.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, floor
from typing import Final

from sageserve.base.config import ChironSettings, Scenario
from sageserve.base.records import Demand
from sageserve.base.units import MINUTE, NEVER, Micros
from sageserve.core.actions import Blocked, Decision, Reason, Source
from sageserve.core.events import DemandSeen, Observed
from sageserve.core.fleet import Fleet, Pool, Role
from sageserve.core.layout import Layout
from sageserve.core.spot import find_capacity
from sageserve.core.strategies.backlog import Backlog
from sageserve.core.strategies.base import first_instances
from sageserve.core.strategies.steps import EndpointLook, look
from sageserve.core.work import AnyEvent

_SMOOTH: Final[Micros] = 10 * MINUTE  # half-life of what mixed instances do for batch work: a start's time, under any deadline
_QUICKEST: Final = (Source.SPOT, Source.GPUS, Source.VM)


@dataclass(slots=True)
class _Mean:
    """An exponential mean over time."""

    value: float = 0.0
    at: Micros = -1

    def take(self, now: Micros, value: float) -> None:
        """Take in a value that holds until `now`; the first one counts in full."""
        keep = 0.0 if self.at < 0 else 0.5 ** ((now - self.at) / _SMOOTH)
        self.value, self.at = self.value * keep + value * (1.0 - keep), now


@dataclass(slots=True)
class _Queue:
    """The batch queue of one model and who works on it."""

    lead: Micros  # until a new instance serves, at worst
    backlog: Backlog
    left: float = 0.0  # work that left the queue in the minute not heard of yet, us
    rate: float = 0.0  # work that left it in the last minute, engines
    spare: float = 0.0  # engines that mixed instances give it, smoothed
    lent: float = 0.0  # share of the mixed instances' load that is batch work
    acted: Micros = -NEVER


@dataclass(slots=True)
class _Place:
    """One model in one region: pools by role; empty where there is no such role."""

    model: int
    interactive: list[Pool]
    batch: list[Pool]
    mixed: list[Pool]
    maximum: int  # instances of all roles together
    acted: Micros = -NEVER


class Chiron:
    """Three roles: the back-pressure of interactive work scales two of them, the waiting time of the batch queue the third.

    Args:
        scenario: for tiers, `batch` and `strategy.chiron`.
        layout: numbers of pools and endpoints.
        earlier: not looked at; only what is there now counts.
    """

    def __init__(self, scenario: Scenario, layout: Layout, earlier: Demand | None = None) -> None:  # see above
        self._rules: ChironSettings = scenario.strategy.chiron
        self._layout = layout
        self._places = _places(layout)
        self._strength = [layout.strength(pool) for pool in layout.pools]
        # `steps` keeps an endpoint between its two marks: the lower one can be counted on
        steps = scenario.batch.feed == "steps" and scenario.batch.two_below > 0
        self._band = scenario.batch.two_below if steps else scenario.batch.one_below
        # a job that reaches the age of promotion leaves the queue for interactive instances: too late for this purpose
        tiers = list(scenario.tiers.values())
        self._patience = {k: min(tier.patience, scenario.batch.promote_after) for k, tier in enumerate(tiers) if tier.batch}
        self._queues = [_Queue(_lead(scenario, layout, m), Backlog()) for m in range(len(layout.names.models))]
        self._means = [_Mean() for _ in self._queues]

    @staticmethod
    def roles(scenario: Scenario) -> tuple[Role, ...]:
        """Interactive, batch, mixed: each tier finds its own role before the mixed one; a role without tiers is left out."""
        tiers = list(scenario.tiers.values())
        interactive = tuple(k for k, tier in enumerate(tiers) if not tier.batch)
        batch = tuple(k for k, tier in enumerate(tiers) if tier.batch)
        queued = scenario.batch.feed != "direct"
        roles = (
            Role("interactive", interactive, queued=False),
            Role("batch", batch, queued=queued),
            Role("mixed", tuple(range(len(tiers))), queued=queued),
        )
        return tuple(role for role in roles if role.tiers)

    @staticmethod
    def minimum(scenario: Scenario) -> tuple[int, ...]:
        """The fleet's minimum, at least one: half of it interactive, the larger half mixed, as that serves all; none batch."""
        least = max(scenario.fleet.minimum, 1)
        return _by_role(scenario, least // 2, least - least // 2)

    @staticmethod
    def initial(scenario: Scenario, layout: Layout) -> tuple[int, ...]:
        """The fleet's start: the share `theta` interactive, the rest mixed, as back-pressure at `theta` would divide it."""

        def split(start: int, here: Scenario) -> tuple[int, ...]:
            least = max(here.fleet.minimum, 1)
            own = max(round(start * scenario.strategy.chiron.theta), least // 2)
            own = max(min(own, start - (least - least // 2)), 0)
            return _by_role(scenario, own, start - own)

        return first_instances(scenario, layout, split)

    def handle(self, now: Micros, event: AnyEvent, fleet: Fleet) -> Iterator[Decision]:
        """Keep account of the queues; on every look at the fleet, correct what was not corrected a moment ago."""
        match event:
            case DemandSeen():
                self._hear(event)
            case Observed():
                for model, queue in enumerate(self._queues):
                    queue.left += queue.backlog.leave(event.batch_waiting[model])
                    self._see_mixed(now, event, fleet, model)
                for place in self._places:
                    if now - place.acted >= self._rules.cooldown:
                        for decision in self._interactive(now, event, fleet, place):
                            place.acted = now
                            yield decision
                for model, queue in enumerate(self._queues):
                    if now - queue.acted >= self._rules.cooldown:
                        for decision in self._batch(now, event, fleet, model):
                            queue.acted = now
                            yield decision
            case _:
                pass

    # --- what is known ---

    def _hear(self, event: DemandSeen) -> None:
        names = self._layout.names
        tiers = len(names.tiers)
        for model, queue in enumerate(self._queues):
            for k, patience in self._patience.items():
                cells = [(g * len(names.models) + model) * tiers + k for g in range(len(names.regions))]
                jobs, work = sum(event.requests[at] for at in cells), sum(event.work[at] for at in cells)
                queue.backlog.arrive(event.start + patience, jobs, work)
            queue.rate = queue.left / event.length
            queue.left = 0.0

    def _see_mixed(self, now: Micros, event: Observed, fleet: Fleet, model: int) -> None:
        """What mixed instances do for the queue, and what they could do besides.

        Utilisation does not say whose work it is. What left the queue and did not go to batch instances went to mixed ones.
        """
        load, free, own = 0.0, 0.0, 0.0
        for place in self._places:
            if place.model != model:
                continue
            if place.mixed:
                here, engines = event.endpoints[place.mixed[0].endpoint], self._engines(place.mixed, fleet)
                load += here.busy * engines
                free += max(self._band - here.seen, 0.0) * engines
            if place.batch:
                own += event.endpoints[place.batch[0].endpoint].busy * self._engines(place.batch, fleet)
        queue = self._queues[model]
        lent = min(max(queue.rate - own, 0.0), load)
        mean = self._means[model]
        mean.take(now, free + lent)
        queue.spare = mean.value
        queue.lent = lent / load if load > 0 else 0.0

    def _engines(self, pools: list[Pool], fleet: Fleet, *, coming: bool = False) -> float:
        """Serving (and coming) instances of these pools, in instances of the model's fastest kind."""
        total = 0.0
        for pool in pools:
            count = fleet.serving(pool.number) + (fleet.coming(pool.number) if coming else 0)
            total += count * self._strength[pool.number]
        return total

    # --- interactive back-pressure ---

    def _interactive(self, now: Micros, event: Observed, fleet: Fleet, place: _Place) -> Iterator[Decision]:
        """Busy over all interactive and mixed instances against theta: grow to theta at once, shrink one at a time."""
        looks = [look(now, event, pools, fleet) for pools in (place.interactive, place.mixed) if pools]
        missing = [here for here in looks if here.missing]
        if missing:
            for here in missing:
                yield here.more(here.missing, Reason.BELOW_MINIMUM)
            return
        theta = self._rules.theta
        lent = self._queues[place.model].lent
        busy = sum(self._busy(here, lent if here.pools is place.mixed else 0.0) for here in looks)
        held = sum(here.held for here in looks)
        if busy > theta * held:
            room = place.maximum - sum(_held(pools, fleet) for pools in (place.interactive, place.batch, place.mixed))
            yield from _grow(looks, min(ceil(busy / theta) - held, room), ceil(busy))
        elif not any(here.coming for here in looks) and busy < theta * self._rules.relax * (held - 1):
            yield from _shrink(looks, ceil(busy), fleet)

    def _busy(self, here: EndpointLook, lent: float) -> float:
        """Instances of an endpoint that interactive work fills: no more than there are."""
        return min(here.seen * (1.0 - lent) / self._rules.full, 1.0) * here.serving

    # --- waiting time of the batch queue ---

    def _batch(self, now: Micros, event: Observed, fleet: Fleet, model: int) -> Iterator[Decision]:
        """More batch instances when the queue would be late by the work of whole ones; none when nothing waits."""
        places = [place for place in self._places if place.model == model and place.batch]
        if not event.batch_waiting[model]:
            for place in places:
                here = look(now, event, place.batch, fleet)
                for pool in place.batch:
                    if count := fleet.serving(pool.number):
                        yield _change(here, pool, -count, Reason.QUEUE_EMPTY)
            return
        if self._band == 0:
            return  # endpoints are fed below a utilisation of 0: never, however many there are
        queue = self._queues[model]
        have = queue.spare + self._band * sum(self._engines(place.batch, fleet, coming=True) for place in places)
        short = (queue.backlog.pace(now, queue.lead, self._rules.spend) - have) / self._band
        yield from self._add(now, event, fleet, places, floor(short + 1e-9))

    def _add(self, now: Micros, event: Observed, fleet: Fleet, places: list[_Place], count: int) -> Iterator[Decision]:
        """Start `count` batch instances, each where it comes soonest, then where there are fewest."""
        for _ in range(count):
            open_ = [
                place
                for place in places
                if sum(_held(pools, fleet) for pools in (place.interactive, place.batch, place.mixed)) < place.maximum
            ]
            if not open_:
                return
            looks = [look(now, event, place.batch, fleet) for place in open_]
            offers = [find_capacity(fleet, here.grows.number) for here in looks]
            ranks = [len(_QUICKEST) if isinstance(offer, Blocked) else _QUICKEST.index(offer.source) for offer in offers]
            best = min(range(len(looks)), key=lambda k: (ranks[k], looks[k].held, k))
            yield looks[best].more(1, Reason.QUEUE_LATE)
            if isinstance(offers[best], Blocked):
                return


def _by_role(scenario: Scenario, interactive: int, mixed: int) -> tuple[int, ...]:
    """Numbers in the order of the roles; without interactive tiers all are mixed."""
    names = [role.name for role in Chiron.roles(scenario)]
    if "interactive" not in names:
        interactive, mixed = 0, interactive + mixed
    numbers = {"interactive": interactive, "batch": 0, "mixed": mixed}
    return tuple(numbers[name] for name in names)


def _places(layout: Layout) -> list[_Place]:
    places = []
    names = [role.name for role in layout.roles]
    for at in range(layout.endpoints // len(names)):
        pools = {name: layout.endpoint_pools(at * len(names) + o) for o, name in enumerate(names)}
        if pools["mixed"]:
            maximum = sum(pool.end - pool.begin for pool in pools["mixed"])
            model = at % len(layout.names.models)
            places.append(_Place(model, pools.get("interactive", []), pools.get("batch", []), pools["mixed"], maximum))
    return places


def _lead(scenario: Scenario, layout: Layout, model: int) -> Micros:
    """The longest time a fresh instance of a model takes to serve."""
    load = scenario.models[layout.names.models[model]].load
    starts = [scenario.gpus[layout.stocks[pool.stock].gpu].start for pool in layout.pools if pool.model == model]
    return max(starts, default=0) + load.fresh


def _held(pools: list[Pool], fleet: Fleet) -> int:
    return sum(fleet.serving(pool.number) + fleet.coming(pool.number) for pool in pools)


def _grow(looks: list[EndpointLook], count: int, full: int) -> Iterator[Decision]:
    """Interactive instances first, as many as are busy; what is beyond is headroom, and mixed."""
    own = min(count, max(full - looks[0].held, 0)) if len(looks) > 1 else 0
    if own > 0:
        yield looks[0].more(own, Reason.UTILISATION_HIGH, target=looks[0].held + own)
    if count > own:
        yield looks[-1].more(count - own, Reason.UTILISATION_HIGH, target=looks[-1].held + count - own)


def _shrink(looks: list[EndpointLook], full: int, fleet: Fleet) -> Iterator[Decision]:
    """One fewer: interactive while more of them than busy, else mixed, else whatever is above its minimum."""
    spare = [here for here in looks if here.serving > here.pools[0].minimum]
    if not spare:
        return
    first, last = spare[0], spare[-1]
    here = first if first is looks[0] and first.serving > full else last
    yield here.fewer(1, Reason.UTILISATION_LOW, fleet, target=here.held - 1)


def _change(here: EndpointLook, pool: Pool, change: int, reason: Reason) -> Decision:
    return Decision(pool.number, change, reason, here.seen, here.age, serving=here.serving, coming=here.coming)
