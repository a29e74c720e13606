"""A strategy that plans, driven by hand: demand is heard, the fleet is looked at, and plans come back with chosen targets.

Performs no work and knows no engine: what a look at the fleet shows is said by the test. Read next: `test_planned.py`,
`test_foresight.py`.
"""

from collections.abc import Sequence

import numpy as np
from msgspec.structs import replace

from sageserve.base.config import Scenario
from sageserve.base.records import Demand
from sageserve.base.units import Micros
from sageserve.core.actions import Decision, Drain, Reclaim, Start
from sageserve.core.controller import Controller
from sageserve.core.events import DemandSeen, EndpointSeen, InstanceDrained, InstanceReady, Observed
from sageserve.core.history import BIN
from sageserve.core.strategies import strategy_kind
from sageserve.core.work import AnyAction, AnyEvent, Fit, Solve, SolveAhead, Solved, SolvedAhead, Work, perform
from tests.core.small import fleet_of, layout_of


class Driven:
    """A controller whose engines are empty and whose cloud is instant, unless told otherwise.

    Args:
        settings: names the strategy.
        serving: instances of every first pool.
        earlier: demand from before the first instant.
    """

    def __init__(self, settings: Scenario, serving: int = 2, earlier: Demand | None = None) -> None:
        self.layout = layout_of(settings)
        self.fleet = fleet_of(self.layout)
        self.strategy = strategy_kind(settings.strategy.name)(settings, self.layout, earlier)
        self.controller = Controller(self.fleet, self.strategy, settings.spot)
        self.heard: Micros = 0
        self.decisions: tuple[Decision, ...] = ()  # of the last look or answer
        for endpoint in range(self.layout.endpoints):
            if pools := self.layout.endpoint_pools(endpoint):
                self.settle(0, self.controller.begin(0, pools[0].number, serving))

    def serving(self) -> list[int]:
        """By pool."""
        return [self.fleet.serving(pool.number) for pool in self.layout.pools]

    def settle(self, now: Micros, actions: Sequence[AnyAction]) -> None:
        """What was started serves, and what was drained is empty."""
        for action in actions:
            if isinstance(action, Start | Reclaim):
                self.controller.handle(now, InstanceReady(action.instance))
            elif isinstance(action, Drain):
                self.controller.handle(now, InstanceDrained(action.instance))

    def hear(self, rates: float | Sequence[float], *, until: Micros, batch: float = 0.0) -> None:
        """Demand until then, in bins of 15 minutes, at tokens/s by endpoint in the first tier and the last; 100 us per token."""
        names = self.layout.names
        tokens = np.zeros((len(names.regions), len(names.models), len(names.tiers)))
        tokens[..., 0] = np.reshape(np.broadcast_to(rates, self.layout.endpoints), tokens.shape[:2])
        tokens[..., -1] += batch
        flat = tuple(round(one * BIN / 1e6) for one in tokens.ravel().tolist())
        while self.heard < until:
            requests = tuple(-(-one // 500) for one in flat)
            self.controller.handle(
                self.heard + BIN,
                DemandSeen(self.heard, BIN, flat, (0,) * len(flat), requests, tuple(100.0 * one for one in flat)),
            )
            self.heard += BIN

    def look(self, now: Micros, *seen: float, waiting: Sequence[int] = ()) -> tuple[AnyAction, ...]:
        """Look at the fleet: utilisation by endpoint, 0.5 where none is given."""
        values = (*seen, *[0.5] * (self.layout.endpoints - len(seen)))
        jobs = tuple(waiting) or (0,) * len(self.layout.names.models)
        return self._tell(now, Observed(now, tuple(EndpointSeen(one, 0.0, one) for one in values), jobs))

    def answer(self, now: Micros, work: Work, target: Sequence[int] = ()) -> tuple[AnyAction, ...]:
        """The result of work comes back; of a program with these targets, where any are given."""
        done = perform(work)
        if target and isinstance(done, Solved | SolvedAhead):
            assert done.plan is not None
            plan = replace(done.plan, target=tuple(target))
            done = replace(done, plan=plan)
        return self._tell(now, done)

    def _tell(self, now: Micros, event: AnyEvent) -> tuple[AnyAction, ...]:
        actions = self.controller.handle(now, event)
        self.decisions = self.controller.decisions
        return actions

    def plan(self, now: Micros, target: Sequence[int] = (), *, seen: Sequence[float] = ()) -> tuple[AnyAction, ...]:
        """A look at which a plan is due, and the plan at once; what it changes."""
        program = asked(self.look(now, *seen))
        if isinstance(program, Fit):
            program = asked(self.answer(now, program))
        return self.answer(now, program, target)


def asked(actions: Sequence[AnyAction]) -> Work:
    """The work among actions, of which there must be one."""
    (work,) = (action for action in actions if isinstance(action, Fit | Solve | SolveAhead))
    return work
