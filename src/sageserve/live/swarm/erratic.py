"""A strategy that wants anything: more or fewer instances at random. Whatever it wants, the guard and the floors must hold.

Read next: `core/safety.py`, `laws.py`.
"""

from collections.abc import Iterator
from typing import Final

from sageserve.base.config import Scenario
from sageserve.base.records import Demand
from sageserve.base.units import Micros
from sageserve.core.actions import Decision, Reason
from sageserve.core.events import Observed
from sageserve.core.fleet import Fleet
from sageserve.core.layout import Layout
from sageserve.core.strategies.base import Unified
from sageserve.core.strategies.steps import look
from sageserve.core.work import AnyEvent
from sageserve.live.swarm.dice import Dice

_ACTS: Final = 0.3  # of the looks at an endpoint
_MOST: Final = 3


class Erratic(Unified):
    """Wants anything.

    Args:
        scenario: for its seed.
        layout: endpoints and their pools.
        earlier: not looked at.
    """

    def __init__(self, scenario: Scenario, layout: Layout, earlier: Demand | None = None) -> None:
        self._pools = [layout.endpoint_pools(e) for e in range(layout.endpoints)]
        self._dice = Dice(scenario.seed, "erratic")

    def handle(self, now: Micros, event: AnyEvent, fleet: Fleet) -> Iterator[Decision]:
        """On every look something else; the minimum first."""
        if not isinstance(event, Observed):
            return
        for pools in self._pools:
            here = look(now, event, pools, fleet)
            if here.missing:
                yield here.more(here.missing, Reason.BELOW_MINIMUM)
            elif self._dice.chance(_ACTS):
                change = self._dice.between(-_MOST, _MOST)
                if change > 0:
                    yield here.more(change, Reason.OWN_RULE)
                elif change < 0:
                    yield here.fewer(-change, Reason.OWN_RULE, fleet)
