"""What decisions ask for: by pool, the count that stands, minute by minute; what would run if all of them were carried out.

Every decision starts from the fleet as it is. The plan of a strategy that carries plans out at once says a count for every pool
and stands until the next plan; a decision on a pool stands until the next one on it, or until it would have been made again and
was not. Where nothing stands, a strategy that looked and wanted nothing agrees with what runs. Decisions that would not have been
carried out anyway count for nothing.
Read next: `data/watched/minutes.py`, where it is kept.
"""

from typing import Final

from sageserve.base.config import Scenario
from sageserve.base.units import MINUTE, Micros
from sageserve.core.actions import Blocked, Decision
from sageserve.core.fleet import Fleet
from sageserve.core.strategies import kind_of
from sageserve.core.strategies.foresight import Foresight
from sageserve.core.strategies.planned import LtI
from sageserve.core.work import Entry, Solved, SolvedAhead

STANDS: Final[Micros] = 5 * MINUTE
"""How long a decision without a plan stands unless it is made again: cool-downs are shorter."""


def follows_plans(scenario: Scenario) -> bool:
    """Whether its strategy takes every pool to its plan's count at once; for others a plan is a direction."""
    kind = kind_of(scenario)
    return isinstance(kind, type) and issubclass(kind, Foresight | LtI)


def plan_holds(scenario: Scenario) -> Micros:
    """How long a plan of such a strategy stands: until the next one is overdue by as much as there is between two."""
    kind, settings = kind_of(scenario), scenario.strategy
    ahead = isinstance(kind, type) and issubclass(kind, Foresight)
    return 2 * (settings.foresight.every if ahead else settings.planned.every)


class Wishes:
    """Counts that stand.

    Args:
        fleet: what runs.
        follows: the strategy takes every pool to its plan's count at once; for others a plan is a direction.
    """

    def __init__(self, fleet: Fleet, *, follows: bool) -> None:
        self._fleet = fleet
        self._follows = follows
        self._planned: dict[int, int] = {}
        self.planned_at: Micros | None = None  # when the plan that stands was made; None: there is none
        self._decided: dict[int, tuple[Micros, int]] = {}

    def hear(self, entry: Entry) -> None:
        """A line of the journal."""
        if isinstance(entry.event, Solved | SolvedAhead) and entry.event.plan is not None and self._follows:
            self._planned = dict(enumerate(entry.event.plan.target))
            self.planned_at = entry.now
            self._decided.clear()
        for one in entry.decisions:
            if one.blocked in {Blocked.SHADOW, Blocked.NOT}:
                self._decided[one.pool] = entry.now, self._wanted(one)

    def _wanted(self, one: Decision) -> int:
        """The count of the decision's own pool: what it counted as present may be that of all pools of its endpoint.

        What was done of it at once is among what runs already.
        """
        return max(0, self._held(one.pool) + one.change - one.done)

    def would(self, now: Micros, pool: int) -> int:
        """Instances that would run in a pool."""
        stands = self.stands(now, pool)
        return self._held(pool) if stands is None else stands

    def stands(self, now: Micros, pool: int) -> int | None:
        """The count that stands for a pool; None: nothing does, and what runs is agreed with."""
        if pool in self._decided:
            at, count = self._decided[pool]
            if now - at <= STANDS:
                return count
            del self._decided[pool]
        return self._planned.get(pool)

    def _held(self, pool: int) -> int:
        return self._fleet.serving(pool) + self._fleet.coming(pool)
