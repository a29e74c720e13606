"""A fleet's past, played as it was: instances serve when the history says so, whatever happens.

Each instance more is started as long before as it takes to start one, so that it serves when it did and its start is paid for as
every other strategy's is. What rises within that time from the beginning comes late, for nothing starts before time 0. What is
lost is replaced; what comes back from the spot market serves sooner. Looks at no signal. Read next: docs/reference/strategies.md.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from itertools import pairwise
from typing import Final, TypeAlias

from sageserve.base.config import RecordedSettings, Scenario
from sageserve.base.errors import ConfigError
from sageserve.base.records import Demand
from sageserve.base.units import Micros
from sageserve.core.actions import Decision, Reason
from sageserve.core.events import InstanceReady, Observed, StartFailed
from sageserve.core.fleet import Fleet, Pool, Role
from sageserve.core.layout import Layout, unified_roles
from sageserve.core.work import AnyEvent

NAME: Final = "recorded"

Steps: TypeAlias = tuple[tuple[Micros, int], ...]
"""(from when, instances that serve), the first from 0 on."""


class Recorded:
    """The counts of `strategy.recorded`.

    Args:
        scenario: for these counts, and how long a start takes.
        layout: numbers of pools.
        earlier: not looked at.

    Raises:
        ConfigError: no counts are given.
    """

    def __init__(self, scenario: Scenario, layout: Layout, earlier: Demand | None = None) -> None:
        counts = _counts(scenario).counts
        none: Steps = ((0, 0),)
        self._pools = [_PoolPast(pool, counts.get(pool.name, none), lead_of(scenario, layout, pool)) for pool in layout.pools]

    @staticmethod
    def roles(scenario: Scenario) -> tuple[Role, ...]:
        """One role for all tiers."""
        return unified_roles(scenario)

    @staticmethod
    def minimum(scenario: Scenario) -> tuple[int, ...]:
        """None: a past fleet may have had none."""
        return (0,) * len(Recorded.roles(scenario))

    @staticmethod
    def initial(scenario: Scenario, layout: Layout) -> tuple[int, ...]:
        """What served at the beginning."""
        counts = _counts(scenario).counts
        return tuple(counts[pool.name][0][1] if pool.name in counts else 0 for pool in layout.pools)

    def handle(self, now: Micros, event: AnyEvent, fleet: Fleet) -> Iterator[Decision]:
        """Make the changes whose time has come."""
        if isinstance(event, InstanceReady | StartFailed):
            self._pools[fleet.pool_of[event.instance]].arrived(now, ready=isinstance(event, InstanceReady))
        if not isinstance(event, Observed):
            return
        for past in self._pools:
            serving, coming = fleet.serving(past.pool.number), fleet.coming(past.pool.number)
            seen, age = event.endpoints[past.pool.endpoint].seen, now - event.scraped
            for change, target in past.changes(now, serving, coming):
                yield Decision(
                    past.pool.number, change, Reason.RECORDED, seen, age, serving=serving, coming=coming, target=target
                )


class _PoolPast:
    """One pool: the counts it had, and what was started so that it has them again.

    Args:
        pool: whose.
        steps: its counts.
        lead: microseconds that a start takes.
    """

    def __init__(self, pool: Pool, steps: Steps, lead: Micros) -> None:
        self.pool = pool
        self._steps = _Steps(steps)
        self._lead = lead
        self._due: deque[Micros] = deque()  # when those that start are to serve
        self._early: list[Micros] = []  # the same of those that serve before that: reclaimed ones start faster

    def arrived(self, now: Micros, *, ready: bool) -> None:
        """A start came to its end."""
        if self._due and (due := self._due.popleft()) > now and ready:
            self._early.append(due)

    def changes(self, now: Micros, serving: int, coming: int) -> Iterator[tuple[int, int]]:
        """(instances more or fewer, how many there are then to be)."""
        self._early = [due for due in self._early if due > now]
        early, target = len(self._early), self._steps.at(now)
        held = serving - early
        if held > target:
            yield target - held, target
        missing = self._steps.rises(now, now + self._lead) - early + max(target - held, 0) - coming
        if missing > 0:
            self._due.extend([now + self._lead] * missing)
            yield missing, self._steps.at(now + self._lead)


class _Steps:
    """Counts over time: when each begins, what it is, and by how much counts have risen until then."""

    def __init__(self, steps: Steps) -> None:
        self._begins = [at for at, _ in steps]
        self._counts = [count for _, count in steps]
        self._risen = [0]
        for before, after in pairwise(self._counts):
            self._risen.append(self._risen[-1] + max(after - before, 0))

    def at(self, now: Micros) -> int:
        return self._counts[bisect_right(self._begins, now) - 1]

    def rises(self, after: Micros, until: Micros) -> int:
        """All that counts rise by in a stretch, whatever they fall by in between."""
        first, last = (bisect_right(self._begins, time) - 1 for time in (after, until))
        return self._risen[last] - self._risen[first]


def lead_of(scenario: Scenario, layout: Layout, pool: Pool) -> Micros:
    """Microseconds from the decision to start a fresh instance of a pool until it serves."""
    load = scenario.models[layout.names.models[pool.model]].load
    return scenario.gpus[layout.stocks[pool.stock].gpu].start + load.fresh


def _counts(scenario: Scenario) -> RecordedSettings:
    rules = scenario.strategy.recorded
    if not rules.counts:
        raise ConfigError(
            "strategy.recorded.counts is empty: nothing says how many instances there were",
            hint="`sageserve backtest` reads them from a history",
        )
    return rules
