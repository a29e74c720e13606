"""lt-i, lt-u, lt-ua: every hour a forecast and an integer program say how many instances each pool should have.

Paper, section 6: lt-i applies the plan at once; lt-u takes it as a destination and moves one step towards it when utilisation
passes a mark; lt-ua is lt-u that may pass the destination in the last 20 minutes of the hour, when what arrives is far from what
was forecast. Fitting and solving are asked for as work; until a plan comes back the last one stands. Read next: `demand.py`.
"""

from collections.abc import Iterator
from typing import Final

from sageserve.base.config import PlannedSettings, Scenario
from sageserve.base.records import Demand
from sageserve.base.units import MINUTE, NEVER, Micros
from sageserve.core.actions import Decision, Reason
from sageserve.core.events import DemandSeen, Observed
from sageserve.core.fleet import Fleet, Role
from sageserve.core.layout import Layout, unified_roles
from sageserve.core.plan.paper import Plan
from sageserve.core.strategies.demand import Prospects
from sageserve.core.strategies.steps import Look, look
from sageserve.core.work import AnyEvent, Fit, Fitted, Solve, Solved

_RECENT: Final[Micros] = 5 * MINUTE  # what arrives now is the mean of this span


class LtU:
    """The plan is a destination: one step towards it when utilisation passes a mark.

    Args:
        scenario: for its `strategy.planned` settings.
        layout: numbers of pools and endpoints.
        earlier: what arrived before the first instant, None when nothing is known.
    """

    def __init__(self, scenario: Scenario, layout: Layout, earlier: Demand | None) -> None:
        self.rules: PlannedSettings = scenario.strategy.planned
        self.prospects = Prospects(scenario, layout, earlier)
        self.plan: Plan | None = None
        self._pools = [layout.endpoint_pools(e) for e in range(layout.endpoints)]
        self._acted = [-NEVER] * layout.endpoints
        self._next: Micros = 0
        self._planned_at: Micros = 0
        self._asked = 0

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

    def handle(self, now: Micros, event: AnyEvent, fleet: Fleet) -> Iterator[Decision | Fit | Solve]:
        """Ask for a forecast when a plan is due, for a plan when the forecast is there, and correct in between."""
        match event:
            case DemandSeen():
                self.prospects.history.add(event)
            case Observed():
                self.prospects.see(event)
                if now >= self._next:
                    self._next = now + self.rules.every
                    self._asked += 1
                    yield Fit(
                        self._asked, self.rules.forecaster, self.prospects.series(), self.prospects.bins, (self.rules.quantile,)
                    )
                yield from self._correct(now, event, fleet)
            case Fitted() if event.number == self._asked:
                self.prospects.take(event.forecasts)
                yield Solve(self._asked, self.prospects.problem(fleet))
            case Solved(plan=Plan() as plan) if event.number == self._asked:
                self.plan = plan
                self._planned_at = now
                yield from self.apply(fleet)
            case _:
                pass

    def apply(self, fleet: Fleet) -> Iterator[Decision]:
        """What a new plan changes at once: nothing here."""
        yield from ()

    def may_pass(self, now: Micros, endpoint: int, *, out: bool) -> bool:
        """Whether an endpoint may go past its destination: never here."""
        return False

    def _correct(self, now: Micros, event: Observed, fleet: Fleet) -> Iterator[Decision]:
        for endpoint, pools in enumerate(self._pools):
            if pools and now - self._acted[endpoint] >= self.rules.cooldown:
                decision = self._step(now, look(now, event, pools, fleet), fleet)
                if decision is not None:
                    self._acted[endpoint] = now
                    yield decision

    def _step(self, now: Micros, here: Look, fleet: Fleet) -> Decision | None:
        if here.missing:
            return here.more(here.missing, Reason.BELOW_MINIMUM)
        endpoint = here.pools[0].endpoint
        target = here.held if self.plan is None else sum(self.plan.target[pool.number] for pool in here.pools)
        if here.serving and here.expected > self.rules.high:
            if here.held < target:
                return here.more(1, Reason.UTILISATION_HIGH, target=target)
            if self.plan is None or self.may_pass(now, endpoint, out=True):
                return here.more(1, Reason.AHEAD_OF_PLAN, target=target)
        if here.seen < self.rules.low and not here.coming and here.serving > here.pools[0].minimum:
            if here.held > target:
                return here.fewer(1, Reason.UTILISATION_LOW, fleet, target=target)
            if self.plan is None or self.may_pass(now, endpoint, out=False):
                return here.fewer(1, Reason.BEHIND_PLAN, fleet, target=target)
        return None


class LtUA(LtU):
    """LtU that may go past its destination near the end of the hour, when demand is far from the forecast."""

    def may_pass(self, now: Micros, endpoint: int, *, out: bool) -> bool:
        """Whether it is late in the hour and what arrives is far above (or below) what was forecast."""
        if now < self._next - self.rules.patrol:
            return False
        ratio = self.prospects.observed_to_forecast(endpoint, _RECENT)
        return ratio >= self.rules.above if out else ratio <= self.rules.below


class LtI(LtU):
    """The whole plan at once, every hour."""

    def apply(self, fleet: Fleet) -> Iterator[Decision]:
        """Every pool to its target."""
        if self.plan is None:
            return
        for pools in self._pools:
            for pool in pools:
                serving, coming = fleet.serving(pool.number), fleet.coming(pool.number)
                target = self.plan.target[pool.number]
                if target != serving + coming:
                    yield Decision(
                        pool.number,
                        target - serving - coming,
                        Reason.PLANNED,
                        seen=0.0,
                        age=0,
                        serving=serving,
                        coming=coming,
                        target=target,
                    )

    def _step(self, now: Micros, here: Look, fleet: Fleet) -> Decision | None:
        if here.missing:
            return here.more(here.missing, Reason.BELOW_MINIMUM)
        if self.plan is None:
            return super()._step(now, here, fleet)
        return None
