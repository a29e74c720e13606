"""All rollouts of a fleet, one after the other where they are of one model.

No clock, no I/O. Read next: `rollout.py` for one; `controller.py`, which carries decisions out.
"""

from collections.abc import Iterator, Sequence

from sageserve.base.units import Micros
from sageserve.core.actions import Decision, Roll, RolloutStep
from sageserve.core.events import Event, Observed
from sageserve.core.fleet import Fleet
from sageserve.core.rollout import Rollout
from sageserve.core.rollout_plan import RolloutMemory, RolloutPlan


class Rollouts:
    """All that is rolled out, one after the other where they are of one model.

    Args:
        plans: any number.
        fleet: of the controller.
    """

    def __init__(self, plans: Sequence[RolloutPlan], fleet: Fleet) -> None:
        self._fleet = fleet
        self.all = tuple(Rollout(plan, fleet) for plan in sorted(plans, key=lambda plan: (plan.at, plan.revision)))
        self._latest: dict[int, Rollout] = {}  # by model, of those that have begun
        self._asked: dict[int, RolloutStep] = {}  # by model

    @property
    def judged(self) -> tuple[Rollout, ...]:
        """Those of which it counts what requests are kept."""
        return tuple(one for one in self._latest.values() if one.step in (RolloutStep.CANARY, RolloutStep.ROLLING))

    def at(self, pool: int) -> Rollout | None:
        """The one that the instances of a pool are in; None before the first."""
        return self._latest.get(self._fleet.pools[pool].model)

    def add(self, plan: RolloutPlan, kept: RolloutMemory | None = None, now: Micros = 0) -> Rollout:
        """One more, which is due as its plan says, or goes on where it was."""
        one = Rollout(plan, self._fleet)
        self.all += (one,)
        if kept is not None and kept.step is not RolloutStep.WAITING:
            self._latest[plan.model] = one
            one.recall(now, kept)
        return one

    def ask(self, model: int, step: RolloutStep) -> None:
        """At the next look, STOPPED: nothing more becomes new; BACK: what is new is replaced again."""
        self._asked[model] = step

    def hear(self, now: Micros, event: Event) -> None:
        """Take in one event, after the fleet has."""
        for one in self._latest.values():
            one.hear(now, event)

    def decide(self, now: Micros, look: Observed) -> Iterator[Decision | Roll]:
        """What to do at a look; see `Rollout.decide`."""
        for one in self.all:
            before = self._latest.get(one.plan.model)
            if one.step is RolloutStep.WAITING and one.plan.at <= now and (before is None or not before.active):
                self._latest[one.plan.model] = one
                yield from one.begin(now, None if before is None else before.remember(now))
        asked, self._asked = self._asked, {}
        for one in tuple(self._latest.values()):
            if (step := asked.get(one.plan.model)) is not None:
                yield from one.ask(now, step)
            yield from one.decide(now, look)
