"""What a strategy is, the rule of an autoscaler: it hears every event, looks at the fleet, and says which pools change and why.

A strategy never changes the fleet, reads no clock and keeps only what it needs to remember. Users write their own, named as
`module:Class` (docs/how-to/own-strategies.md, `own.py`). Read next: `reactive.py`, the simplest one.
"""

from collections.abc import Callable, Iterable
from typing import Protocol

from sageserve.base.config import Scenario
from sageserve.base.records import Demand
from sageserve.base.units import Micros
from sageserve.core.actions import Decision, Feed
from sageserve.core.fleet import Fleet, Pool, Role
from sageserve.core.layout import Layout, has_roles, unified_roles
from sageserve.core.work import AnyEvent, Work


class Strategy(Protocol):
    """Decides how many instances each pool has."""

    def handle(self, now: Micros, event: AnyEvent, fleet: Fleet) -> Iterable[Decision | Feed | Work]:
        """Take in one event; answer with the changes wanted now, and with work whose result should come back as an event.

        Called after the fleet has taken the event in.
        """
        ...


class StrategyKind(Protocol):
    """How a strategy divides a model's instances, and how it is made; usually a class with static methods."""

    def roles(self, scenario: Scenario) -> tuple[Role, ...]:
        """The roles instances are divided into; one role is a unified pool."""
        ...

    def minimum(self, scenario: Scenario) -> tuple[int, ...]:
        """Instances every endpoint keeps, by role."""
        ...

    def initial(self, scenario: Scenario, layout: Layout) -> tuple[int, ...]:
        """Instances every pool starts with, by its number."""
        ...

    def __call__(self, scenario: Scenario, layout: Layout, earlier: Demand | None) -> Strategy:
        """Make the strategy; `earlier` is what arrived before the first instant, None when nothing is known."""
        ...


class Unified:
    """The part of StrategyKind that every strategy on one shared pool has in common."""

    @staticmethod
    def roles(scenario: Scenario) -> tuple[Role, ...]:
        """One role for all tiers."""
        return unified_roles(scenario)

    @staticmethod
    def minimum(scenario: Scenario) -> tuple[int, ...]:
        """The fleet's minimum, and at least one: without an instance there is no utilisation that could ask for one."""
        return (max(scenario.fleet.minimum, 1),) * len(unified_roles(scenario))

    @staticmethod
    def initial(scenario: Scenario, layout: Layout) -> tuple[int, ...]:
        """The fleet's start."""
        return first_instances(scenario, layout, lambda start, _: (start,) * len(layout.roles))


def first_instances(scenario: Scenario, layout: Layout, split: Callable[[int, Scenario], tuple[int, ...]]) -> tuple[int, ...]:
    """Instances by pool at the start: `fleet.start` in the first pool of an endpoint, or what `fleet.starts` says of it.

    Args:
        scenario: for its fleet.
        layout: its pools.
        split: divides a number of instances among the roles, in their order; given the fleet's numbers for the endpoint.
    """
    starts = scenario.fleet.starts
    named = {_whose(pool, layout) for pool in layout.pools if _plain(pool, layout) in starts}
    begun: set[int] = set()
    found = []
    for pool in layout.pools:
        here = scenario.at(layout.names.regions[pool.region], layout.names.models[pool.model])
        if _whose(pool, layout) in named:
            count: int | None = starts.get(_plain(pool, layout))
        else:
            count = None if pool.endpoint in begun else here.fleet.start
        begun.add(pool.endpoint)
        found.append(0 if count is None else split(count, here)[pool.role])
    return tuple(found)


def _whose(pool: Pool, layout: Layout) -> tuple[int, int, int]:
    """What `fleet.starts` says something of as a whole: a model in a region; where prefill and decode are apart, each of them."""
    return pool.region, pool.model, pool.role if layout.apart[pool.model] else 0


def _plain(pool: Pool, layout: Layout) -> str:
    """`region/model/gpu`, without a role; with it where prefill and decode are apart."""
    alike = layout.apart[pool.model] or not has_roles(layout.roles, apart=False)
    return pool.name if alike else pool.name.rsplit("/", 1)[0]
