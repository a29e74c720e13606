"""The steps a threshold rule takes at an endpoint, shared by every strategy that corrects a plan by what is seen.

Instances that are coming count as capacity. Scale-out uses the first pool of the endpoint that can grow, scale-in the last
that serves.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sageserve.base.units import NEVER, Micros
from sageserve.core.actions import Blocked, Decision, Reason
from sageserve.core.events import Observed
from sageserve.core.fleet import Fleet, Pool
from sageserve.core.spot import find_capacity


@dataclass(frozen=True, slots=True)
class EndpointLook:
    """One endpoint as it is seen now.

    Args:
        pools: of the endpoint, in order of preference.
        grows: the first of them that can grow, the first of all when none can.
        seen: utilisation by the scenario's signal.
        age: microseconds since it was scraped.
        serving: instances that serve.
        coming: instances that will.
    """

    pools: list[Pool]
    grows: Pool
    seen: float
    age: Micros
    serving: int
    coming: int

    @property
    def held(self) -> int:
        """Instances that serve or will."""
        return self.serving + self.coming

    @property
    def expected(self) -> float:
        """Utilisation once what is coming serves."""
        return self.seen * self.serving / self.held if self.held else 0.0

    @property
    def missing(self) -> int:
        """Instances below the endpoint's minimum; none where it may have none and has none."""
        return 0 if self.pools[0].sleeps and not self.held else max(0, self.pools[0].minimum - self.held)

    def more(self, count: int, reason: Reason, *, target: int = -1) -> Decision:
        """Start `count` instances."""
        return Decision(
            self.grows.number, count, reason, self.seen, self.age, serving=self.serving, coming=self.coming, target=target
        )

    def fewer(self, count: int, reason: Reason, fleet: Fleet, *, target: int = -1) -> Decision:
        """Drain `count` instances of the last pool that serves."""
        last = next((pool for pool in reversed(self.pools) if fleet.serving(pool.number)), self.pools[-1])
        return Decision(last.number, -count, reason, self.seen, self.age, serving=self.serving, coming=self.coming, target=target)


def look(now: Micros, event: Observed, pools: list[Pool], fleet: Fleet) -> EndpointLook:
    """What is seen of the endpoint of these pools."""
    serving = coming = 0
    for pool in pools:  # asked of every endpoint at every look
        serving += fleet.serving(pool.number)
        coming += fleet.coming(pool.number)
    return EndpointLook(
        pools, growing(pools, fleet), event.endpoints[pools[0].endpoint].seen, now - event.scraped, serving, coming
    )


def growing(pools: list[Pool], fleet: Fleet) -> Pool:
    """The first of these pools that can grow, the first of all when none can."""
    if len(pools) == 1:
        return pools[0]
    return next((pool for pool in pools if not isinstance(find_capacity(fleet, pool.number), Blocked)), pools[0])


def to_target(pool: Pool, target: int, fleet: Fleet) -> Decision | None:
    """What a new plan changes at once: the pool to its target; None when it is there."""
    serving, coming = fleet.serving(pool.number), fleet.coming(pool.number)
    change = target - serving - coming
    if not change:
        return None
    return Decision(pool.number, change, Reason.PLANNED, seen=0.0, age=0, serving=serving, coming=coming, target=target)


class CoolDown:
    """Endpoints that act one at a time: one that has acted pauses.

    Args:
        pools: of every endpoint, in order; an endpoint may have none.
        pause: microseconds until it may act again.
    """

    def __init__(self, pools: list[list[Pool]], pause: Micros) -> None:
        self._pools = pools
        self._pause = pause
        self._acted = [-NEVER] * len(pools)

    def calm(self, now: Micros, endpoint: int) -> Micros:
        """How long ago it acted."""
        return now - self._acted[endpoint]

    def act(self, now: Micros, step: Callable[[list[Pool]], Decision | None]) -> Iterator[Decision]:
        """The steps of those that may act; where none is taken no pause begins."""
        for endpoint, pools in enumerate(self._pools):
            if pools and now - self._acted[endpoint] >= self._pause:
                decision = step(pools)
                if decision is not None:
                    self._acted[endpoint] = now
                    yield decision
