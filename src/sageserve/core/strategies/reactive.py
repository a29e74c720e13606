"""Threshold scaling: one instance more above the high mark, one less below the low mark, then a pause.

Paper, section 6. Instances that are coming count as capacity: an endpoint whose starts would bring it below the high mark
asks for no more. Scale-out uses the first pool of the endpoint that can grow, scale-in the last that can shrink.
"""

from collections.abc import Iterator

from sageserve.base.config import ReactiveSettings, Scenario
from sageserve.base.records import Demand
from sageserve.base.units import Micros
from sageserve.core.actions import Decision, Reason
from sageserve.core.events import Observed
from sageserve.core.fleet import Fleet
from sageserve.core.layout import Layout
from sageserve.core.strategies.base import Unified
from sageserve.core.strategies.steps import CoolDown, EndpointLook, look
from sageserve.core.work import AnyEvent


class Reactive(Unified):
    """The paper's reactive baseline on a unified pool.

    Args:
        scenario: for its `strategy.reactive` settings.
        layout: numbers of pools and endpoints.
        earlier: not looked at; what was does not matter to a threshold.
    """

    def __init__(self, scenario: Scenario, layout: Layout, earlier: Demand | None = None) -> None:  # see above
        self._rules = self.rules(scenario)
        self._cooldown = CoolDown([layout.endpoint_pools(e) for e in range(layout.endpoints)], self._rules.cooldown)

    @staticmethod
    def rules(scenario: Scenario) -> ReactiveSettings:
        """The thresholds to use."""
        return scenario.strategy.reactive

    def handle(self, now: Micros, event: AnyEvent, fleet: Fleet) -> Iterator[Decision]:
        """On every look at the fleet, one step per endpoint at most."""
        if not isinstance(event, Observed):
            return
        yield from self._cooldown.act(now, lambda pools: self._step(look(now, event, pools, fleet), fleet))

    def _step(self, here: EndpointLook, fleet: Fleet) -> Decision | None:
        if here.missing:
            return here.more(here.missing, Reason.BELOW_MINIMUM)
        if here.serving and here.expected > self._rules.high:
            return here.more(1, Reason.UTILISATION_HIGH)
        if here.seen < self._rules.low and not here.coming and here.serving > here.pools[0].minimum:
            return here.fewer(1, Reason.UTILISATION_LOW, fleet)
        return None


class ReactiveTuned(Reactive):
    """The same rule with marks chosen on history (`sageserve tune`): what a threshold can do at its best."""

    @staticmethod
    def rules(scenario: Scenario) -> ReactiveSettings:
        """The thresholds of `strategy.tuned`."""
        return scenario.strategy.tuned
