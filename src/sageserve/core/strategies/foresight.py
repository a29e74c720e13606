"""foresight: every 15 minutes one program over the coming hours decides instances, traffic between regions and batch work.

Beyond the paper: capacity is kept for a quantile of demand and not for a fudge factor; batch jobs are work with deadlines that
is placed into valleys, and endpoints are fed only as far as that placement says; lead times, stock, GPU types and spot income
are in the program; headroom is what the promises ask for. Between plans a guard adds instances when an endpoint is fuller than
it can be, and so are those that it shares its requests with. Read next: `foresight_inputs.py` here for how the outlook is drawn,
then `core/plan/horizon.py` for the program.
"""

from collections.abc import Callable, Iterator, Sequence
from math import log

from sageserve.base.config import ForesightSettings, Scenario
from sageserve.base.records import Demand
from sageserve.base.units import Micros
from sageserve.core.actions import Decision, Feed, Reason
from sageserve.core.events import DemandSeen, Observed
from sageserve.core.fleet import Fleet, Pool
from sageserve.core.forecast import forecaster
from sageserve.core.layout import Layout
from sageserve.core.plan.horizon import HorizonPlan
from sageserve.core.strategies.base import Unified
from sageserve.core.strategies.evidence import Evidence
from sageserve.core.strategies.foresight_inputs import ForesightInputs
from sageserve.core.strategies.steps import CoolDown, EndpointLook, look, to_target
from sageserve.core.work import AnyEvent, Fit, Fitted, SolveAhead, SolvedAhead


class Foresight(Unified):
    """Plans over a receding horizon and acts on the first step.

    Args:
        scenario: for its `strategy.foresight` settings.
        layout: numbers of pools and endpoints.
        earlier: what arrived before the first instant, None when nothing is known: then the first plan is made when one bin has
            been seen, and until then the guard alone acts.

    Raises:
        PlanError: no forecaster of that name, or `earlier` does not fit.
    """

    def __init__(self, scenario: Scenario, layout: Layout, earlier: Demand | None) -> None:
        self._rules: ForesightSettings = scenario.strategy.foresight
        forecaster(self._rules.forecaster)  # complain about its name now, not when the first plan is due
        self._horizon = ForesightInputs(scenario, layout, earlier)
        self._pools = [layout.endpoint_pools(e) for e in range(layout.endpoints)]
        self._cooldown = CoolDown(self._pools, self._rules.cooldown)
        self._evidence = Evidence(layout.endpoints, self._rules.guard)
        self._alone = scenario.strategy.reactive
        self._comes_back = scenario.spot.donate  # what is stopped is back within a minute
        self._next_fit: Micros = 0
        self._next_plan: Micros = 0
        self._asked = 0

    def handle(self, now: Micros, event: AnyEvent, fleet: Fleet) -> Iterator[Decision | Feed | Fit | SolveAhead]:
        """Ask for forecasts and plans when they are due, act on plans, guard in between."""
        match event:
            case DemandSeen():
                self._horizon.demand.history.add(event)
                self._horizon.worth.see(event)
            case Observed():
                self._horizon.demand.see(event)
                yield from self._ask(now, fleet)
                yield from self._guard(now, event, fleet)
            case Fitted() if event.number == self._asked:
                self._horizon.take(event.forecasts)
                yield SolveAhead(self._asked, self._horizon.outlook(now, fleet))
            case SolvedAhead(plan=HorizonPlan() as plan) if event.number == self._asked:
                yield from self._apply(plan, fleet)
            case _:
                pass

    def _ask(self, now: Micros, fleet: Fleet) -> Iterator[Fit | SolveAhead]:
        if now < self._next_plan or not self._horizon.demand.known:
            return
        self._next_plan = (now // self._rules.every + 1) * self._rules.every  # when a bin ends, however late this look is
        self._asked += 1
        if now >= self._next_fit:
            self._next_fit = (now // self._rules.refit + 1) * self._rules.refit
            yield Fit(
                self._asked, self._rules.forecaster, self._horizon.demand.series(), self._horizon.bins, self._horizon.levels
            )
        else:
            yield SolveAhead(self._asked, self._horizon.outlook(now, fleet))

    def _crowded(self, looks: Sequence[EndpointLook]) -> bool:
        """Whether endpoints of one model that share their requests are together fuller than they may be."""
        held = sum(one.held for one in looks)
        most = sum(self._horizon.full(one.pools[0], one.held) * one.held for one in looks)
        return held > 0 and sum(one.expected * one.held for one in looks) > most

    def _excess(self, here: EndpointLook) -> float:
        """The log of how many times as full as it may be an endpoint is seen, once what is coming serves; 0 where nothing is."""
        most = self._horizon.full(here.pools[0], here.held) if here.held else 0.0
        return log(here.expected / most) if here.expected > 0 and most > 0 else 0.0

    def _apply(self, plan: HorizonPlan, fleet: Fleet) -> Iterator[Decision | Feed]:
        for endpoint, pools in enumerate(self._pools):
            for pool in pools:
                if (decision := to_target(pool, plan.target[pool.number], fleet)) is not None:
                    yield decision
            if pools:
                level = self._horizon.feed_level(plan, pools[0])
                yield Feed(endpoint, level, level)

    def _guard(self, now: Micros, event: Observed, fleet: Fleet) -> Iterator[Decision]:
        def seen(pools: list[Pool]) -> EndpointLook:
            return look(now, event, pools, fleet)

        self._evidence.see(event, lambda endpoint: self._excess(seen(self._pools[endpoint])) if self._pools[endpoint] else 0.0)
        yield from self._cooldown.act(now, lambda pools: self._step(now, seen(pools), seen, fleet))

    def _step(self, now: Micros, here: EndpointLook, seen: Callable[[list[Pool]], EndpointLook], fleet: Fleet) -> Decision | None:
        if here.missing:
            return here.more(here.missing, Reason.BELOW_MINIMUM)
        near = self._horizon.near(here.pools[0].endpoint)
        believed = here.serving and self._crowded([here]) and self._evidence.is_enough(here.pools[0].endpoint)
        if believed and self._crowded([seen(self._pools[e]) for e in near if self._pools[e]]):
            self._evidence.used(here.pools[0].endpoint)
            return here.more(1, Reason.AHEAD_OF_PLAN if self._horizon.drawn else Reason.UTILISATION_HIGH)
        if here.coming or here.serving <= here.pools[0].minimum:
            return None
        if not self._horizon.drawn:  # nothing is known yet: the reactive marks, both ways
            return here.fewer(1, Reason.UTILISATION_LOW, fleet) if here.seen < self._alone.low else None
        calm = self._cooldown.calm(now, here.pools[0].endpoint) >= self._rules.calm
        if self._comes_back and calm and here.seen < self._horizon.few(here.pools[0], here.serving):
            return here.fewer(1, Reason.BEHIND_PLAN, fleet)
        return None
