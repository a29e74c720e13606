"""Threshold scaling: one instance more above the high mark, one less below the low mark, then a pause.

Paper, section 6. Instances that are coming count as capacity: an endpoint whose starts would bring it below the high mark
asks for no more. Scale-out uses the first pool of the endpoint that can grow, scale-in the last that can shrink.
"""

from collections.abc import Iterator

from sageserve.base.config import ReactiveSettings, Scenario
from sageserve.base.units import NEVER, Micros
from sageserve.core.actions import Decision, Reason
from sageserve.core.events import Event, Observed
from sageserve.core.fleet import Fleet, Role
from sageserve.core.layout import Layout, unified_roles


class Reactive:
    """The paper's reactive baseline on a unified pool.

    Args:
        scenario: for its `strategy.reactive` settings.
        layout: numbers of pools and endpoints.
    """

    def __init__(self, scenario: Scenario, layout: Layout) -> None:
        self._rules = self.rules(scenario)
        self._pools = [layout.endpoint_pools(e) for e in range(layout.endpoints)]
        self._acted = [-NEVER] * layout.endpoints

    @staticmethod
    def roles(scenario: Scenario) -> tuple[Role, ...]:
        """One role for all tiers."""
        return unified_roles(scenario)

    @staticmethod
    def minimum(scenario: Scenario) -> tuple[int, ...]:
        """The fleet's minimum."""
        return (scenario.fleet.minimum,)

    @staticmethod
    def initial(scenario: Scenario) -> tuple[int, ...]:
        """The fleet's start."""
        return (scenario.fleet.start,)

    @staticmethod
    def rules(scenario: Scenario) -> ReactiveSettings:
        """The thresholds to use."""
        return scenario.strategy.reactive

    def handle(self, now: Micros, event: Event, fleet: Fleet) -> Iterator[Decision]:
        """On every look at the fleet, one step per endpoint at most."""
        if not isinstance(event, Observed):
            return
        for endpoint, pools in enumerate(self._pools):
            if pools and now - self._acted[endpoint] >= self._rules.cooldown:
                decision = self._step(now, event, endpoint, fleet)
                if decision is not None:
                    self._acted[endpoint] = now
                    yield decision

    def _step(self, now: Micros, event: Observed, endpoint: int, fleet: Fleet) -> Decision | None:
        pools = self._pools[endpoint]
        serving = sum(fleet.serving(pool.number) for pool in pools)
        coming = sum(fleet.coming(pool.number) for pool in pools)
        seen = event.endpoints[endpoint].seen
        age = now - event.scraped
        if serving + coming < pools[0].minimum:
            missing = pools[0].minimum - serving - coming
            return Decision(pools[0].number, missing, Reason.BELOW_MINIMUM, seen, age, serving, coming)
        if serving and seen * serving / (serving + coming) > self._rules.high:
            return Decision(pools[0].number, 1, Reason.UTILISATION_HIGH, seen, age, serving, coming)
        if seen < self._rules.low and not coming and serving > pools[0].minimum:
            last = next(pool for pool in reversed(pools) if fleet.serving(pool.number))
            return Decision(last.number, -1, Reason.UTILISATION_LOW, seen, age, serving, coming)
        return None
