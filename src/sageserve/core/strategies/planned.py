"""lt-i, lt-u, lt-ua: every hour a forecast and an integer program say how many instances each pool should have.

Paper, section 6: lt-i applies the plan at once; lt-u takes it as a destination and moves one step towards it when utilisation
passes a mark; lt-ua is lt-u that may pass the destination in the last 20 minutes of the hour, when what arrives is far from what
was forecast. Fitting and solving are asked for as work; until a plan comes back the last one stands, and before the first, while
nothing is known of demand, the marks alone decide. Read next: `demand_estimates.py`.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from sageserve.base.config import PlannedSettings, Scenario
from sageserve.base.records import Demand
from sageserve.base.units import MINUTE, Micros
from sageserve.core.actions import Decision, Reason
from sageserve.core.events import DemandSeen, Observed
from sageserve.core.fleet import Fleet, Pool
from sageserve.core.forecast import forecaster
from sageserve.core.layout import Layout
from sageserve.core.plan.hourly import Plan
from sageserve.core.strategies.base import Unified
from sageserve.core.strategies.demand_estimates import DemandEstimates
from sageserve.core.strategies.steps import CoolDown, EndpointLook, growing, look, to_target
from sageserve.core.work import AnyEvent, Fit, Fitted, Solve, Solved

_RECENT: Final[Micros] = 5 * MINUTE  # what arrives now is the mean of this span


class LtU(Unified):
    """The plan is a destination: one step towards it when utilisation passes a mark.

    Args:
        scenario: for its `strategy.planned` settings, and the `reactive` ones until there is a plan.
        layout: numbers of pools and endpoints.
        earlier: what arrived before the first instant, None when nothing is known.

    Raises:
        PlanError: no forecaster of that name, or `earlier` does not fit.
    """

    def __init__(self, scenario: Scenario, layout: Layout, earlier: Demand | None) -> None:
        self.rules: PlannedSettings = scenario.strategy.planned
        self._alone = scenario.strategy.reactive
        forecaster(self.rules.forecaster)  # complain about its name now, not when the first plan is due
        self.prospects = DemandEstimates(scenario, layout, earlier)
        self.plan: Plan | None = None
        self._pools = [layout.endpoint_pools(e) for e in range(layout.endpoints)]
        self._cooldown = CoolDown(self._pools, self.rules.cooldown)
        self._next: Micros = 0
        self._late: Micros = 0
        self._asked = 0

    def handle(self, now: Micros, event: AnyEvent, fleet: Fleet) -> Iterator[Decision | Fit | Solve]:
        """Ask for a forecast when a plan is due, for a plan when the forecast is there, and correct in between."""
        match event:
            case DemandSeen():
                self.prospects.history.add(event)
            case Observed():
                self.prospects.see(event)
                if now >= self._next and self.prospects.known:
                    yield self._ask(now)
                yield from self._correct(now, event, fleet)
            case Fitted() if event.number == self._asked:
                self.prospects.take(event.forecasts, late=self._late)
                yield Solve(self._asked, self.prospects.problem(fleet))
            case Solved(plan=Plan() as plan) if event.number == self._asked:
                self.plan = plan
                yield from self.apply(fleet)
            case _:
                pass

    def _ask(self, now: Micros) -> Fit:
        self._next = (now // self.rules.every + 1) * self.rules.every  # on the hour, however late this look at the fleet is
        self._late = now - self.prospects.history.end
        self._asked += 1
        return Fit(self._asked, self.rules.forecaster, self.prospects.series(), self.prospects.bins, (self.rules.quantile,))

    def apply(self, fleet: Fleet) -> Iterator[Decision]:
        """What a new plan changes at once: nothing here."""
        yield from ()

    def may_pass(self, now: Micros, endpoint: int, *, out: bool) -> bool:
        """Whether an endpoint may go past its destination: never here."""
        return False

    def _correct(self, now: Micros, event: Observed, fleet: Fleet) -> Iterator[Decision]:
        yield from self._cooldown.act(now, lambda pools: self._step(now, look(now, event, pools, fleet), fleet))

    def _step(self, now: Micros, here: EndpointLook, fleet: Fleet) -> Decision | None:
        if here.missing:
            return here.more(here.missing, Reason.BELOW_MINIMUM)
        if self.plan is None:
            return self._by_marks(here, fleet)
        target = [self.plan.target[pool.number] for pool in here.pools]
        held = [fleet.serving(pool.number) + fleet.coming(pool.number) for pool in here.pools]
        endpoint, goal = here.pools[0].endpoint, sum(target)
        if here.serving and here.expected > self.rules.high:
            if here.held < goal:
                behind = [pool for pool, have, want in zip(here.pools, held, target, strict=True) if have < want]
                return replace(here, grows=growing(behind, fleet)).more(1, Reason.UTILISATION_HIGH, target=goal)
            if self.may_pass(now, endpoint, out=True):
                return here.more(1, Reason.AHEAD_OF_PLAN, target=goal)
        if _may_shrink(here, self.rules.low):
            if here.held > goal:
                ahead = [pool for pool, have, want in zip(here.pools, held, target, strict=True) if have > want]
                return _only(here, ahead, fleet).fewer(1, Reason.UTILISATION_LOW, fleet, target=goal)
            if self.may_pass(now, endpoint, out=False):
                return here.fewer(1, Reason.BEHIND_PLAN, fleet, target=goal)
        return None

    def _by_marks(self, here: EndpointLook, fleet: Fleet) -> Decision | None:
        """One step as the reactive marks say: what can be done without a plan, which those of a plan rely on."""
        if here.serving and here.expected > self._alone.high:
            return here.more(1, Reason.UTILISATION_HIGH)
        return here.fewer(1, Reason.UTILISATION_LOW, fleet) if _may_shrink(here, self._alone.low) else None


def _may_shrink(here: EndpointLook, low: float) -> bool:
    return here.seen < low and not here.coming and here.serving > here.pools[0].minimum


def _only(here: EndpointLook, pools: list[Pool], fleet: Fleet) -> EndpointLook:
    """The same endpoint as if it had no other pools that serve; unchanged when none of these does."""
    serving = [pool for pool in pools if fleet.serving(pool.number)]
    return replace(here, pools=serving) if serving else here


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
                if (decision := to_target(pool, self.plan.target[pool.number], fleet)) is not None:
                    yield decision

    def _step(self, now: Micros, here: EndpointLook, fleet: Fleet) -> Decision | None:
        if here.missing:
            return here.more(here.missing, Reason.BELOW_MINIMUM)
        if self.plan is None:
            return super()._step(now, here, fleet)
        return None
