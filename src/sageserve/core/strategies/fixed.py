"""Fleets of constant size: `fixed:8` keeps eight instances of every model in every region, `fixed` what the fleet starts with.

The plainest baseline, and what a capacity plan without an autoscaler comes to. Read next: `base.py`, `sim/sizing` for such plans.
"""

from collections.abc import Iterator
from typing import Final

from sageserve.base.config import Scenario
from sageserve.base.records import Demand
from sageserve.base.units import Micros
from sageserve.core.actions import Decision, Reason
from sageserve.core.events import Observed
from sageserve.core.fleet import Fleet, Role
from sageserve.core.layout import Layout, unified_roles
from sageserve.core.strategies.base import StrategyKind, first_instances
from sageserve.core.strategies.steps import look
from sageserve.core.work import AnyEvent

STARTED: Final = "fixed"
PREFIX: Final = "fixed:"


class Fixed:
    """Restores a count, and changes nothing else.

    Args:
        layout: numbers of pools and endpoints.
        count: instances of every model in every region.
    """

    def __init__(self, layout: Layout, count: int) -> None:
        self._count = count
        self._pools = [pools for e in range(layout.endpoints) if (pools := layout.endpoint_pools(e))]

    def handle(self, now: Micros, event: AnyEvent, fleet: Fleet) -> Iterator[Decision]:
        """Replace what was lost."""
        if isinstance(event, Observed):
            for pools in self._pools:
                here = look(now, event, pools, fleet)
                if here.held < self._count:
                    yield here.more(self._count - here.held, Reason.BELOW_MINIMUM)


class AsStarted:
    """Keeps the instances that every pool starts with, and changes nothing else.

    Args:
        scenario: for its fleet.
        layout: numbers of pools.
        earlier: not looked at.
    """

    def __init__(self, scenario: Scenario, layout: Layout, earlier: Demand | None) -> None:
        self._counts = list(zip(layout.pools, self.initial(scenario, layout), strict=True))

    @staticmethod
    def roles(scenario: Scenario) -> tuple[Role, ...]:
        """One role for all tiers."""
        return unified_roles(scenario)

    @staticmethod
    def minimum(scenario: Scenario) -> tuple[int, ...]:
        """The fleet's minimum: what others could go down to."""
        return (scenario.fleet.minimum,) * len(unified_roles(scenario))

    @staticmethod
    def initial(scenario: Scenario, layout: Layout) -> tuple[int, ...]:
        """The fleet's start."""
        return first_instances(scenario, layout, lambda start, _: (start,) * len(layout.roles))

    def handle(self, now: Micros, event: AnyEvent, fleet: Fleet) -> Iterator[Decision]:
        """Replace what was lost."""
        if isinstance(event, Observed):
            for pool, count in self._counts:
                here = look(now, event, [pool], fleet)
                if here.held < count:
                    yield here.more(count - here.held, Reason.BELOW_MINIMUM)


class FixedCount:
    """The kind of strategy that keeps `count` instances per endpoint.

    Args:
        count: instances of every model in every region.
    """

    def __init__(self, count: int) -> None:
        self.count = count

    def roles(self, scenario: Scenario) -> tuple[Role, ...]:
        """One role for all tiers."""
        return unified_roles(scenario)

    def minimum(self, scenario: Scenario) -> tuple[int, ...]:
        """The fleet's minimum: what others could go down to."""
        return (scenario.fleet.minimum,) * len(unified_roles(scenario))

    def initial(self, scenario: Scenario, layout: Layout) -> tuple[int, ...]:
        """All of them, in the first pool of each endpoint."""
        first = {pools[0].number for e in range(layout.endpoints) if (pools := layout.endpoint_pools(e))}
        return tuple(self.count if pool.number in first else 0 for pool in layout.pools)

    def __call__(self, scenario: Scenario, layout: Layout, earlier: Demand | None) -> Fixed:
        """Make the strategy."""
        return Fixed(layout, self.count)


def fixed_kind(name: str) -> StrategyKind | None:
    """The kind behind `fixed` and `fixed:N`; None when the name is none of that form."""
    if name == STARTED:
        return AsStarted
    digits = name.removeprefix(PREFIX)
    return FixedCount(int(digits)) if digits != name and digits.isdecimal() and int(digits) > 0 else None
