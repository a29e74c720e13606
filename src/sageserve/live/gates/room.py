"""What the feed rule leaves for batch work, as a rate: jobs that `core/feed.py` gives between two looks, one after the other.

The batch queue asks the rule after each look, and again where a place comes free. A gate elsewhere cannot be asked job by job, so
it gets as many as the rule gives until it gives none, spread over the time to the next look; what they did, that look shows.
Decides nothing itself. Read next: `core/feed.py`; `keeper.py`, which leases the rate.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from sageserve.base.config import GateSettings, Scenario
from sageserve.base.errors import ConfigError
from sageserve.base.units import SECOND, Micros
from sageserve.core.feed import DIRECT, note_fed, share
from sageserve.core.layout import Layout
from sageserve.core.perf import request_work
from sageserve.core.signals import SIGNALS

JOBS_MOST: Final = 1 << 20
"""Of one endpoint between two looks."""


@dataclass(frozen=True, slots=True)
class GateRate:
    """What may be let through.

    Args:
        rate: requests a second; 0: nothing.
        why: why it is nothing; empty: engines have room, or they have none.
        blind: they are not seen.
    """

    rate: float
    why: str = ""
    blind: bool = False


class FleetSight(Protocol):
    """What is seen of engines, as the fleet view has it."""

    endpoints: NDArray[Any]

    def blind(self) -> Collection[int]:
        """Endpoints whose signals are too old."""
        ...

    def takes(self, endpoint: int) -> bool:
        """Whether work can be sent to an endpoint."""
        ...

    def first_engine(self, endpoint: int) -> Any:  # noqa: ANN401 # a PROFILE row
        """Of the first open instance of an endpoint that has one."""
        ...


class GateRoom:
    """The room behind gates.

    Args:
        scenario: for the feed rule.
        layout: the numbers behind its names.
        sight: of the engines.
        request: tokens of a model's prompt and answer, as they were of late.
        every: microseconds between two looks.

    Raises:
        ConfigError: no endpoint is given work from a queue, so that there is no rule to ask.
    """

    def __init__(
        self,
        scenario: Scenario,
        layout: Layout,
        sight: FleetSight,
        request: Callable[[int], tuple[float, float]],
        every: Micros,
    ) -> None:
        if layout.feed == DIRECT:
            raise ConfigError(
                f"live.gates: with batch.feed {scenario.batch.feed} and strategy {scenario.strategy.name} nothing holds batch"
                " work back, so that there is no rate",
                hint="write batch.feed: fill, or steps, and a strategy that shares its engines with batch work",
            )
        self._feed, self._kind = layout.feed, SIGNALS.index(scenario.signals.kind)
        self._half_life = float(scenario.signals.half_life)
        self._layout, self._sight, self._request, self._every = layout, sight, request, every

    def of(self, gate: GateSettings) -> GateRate:
        """What a gate may let through now."""
        names, roles = self._layout.names, len(self._layout.roles)
        model = names.models.index(gate.model)
        first = (names.regions.index(gate.region) * len(names.models) + model) * roles
        fed = [e for e in range(first, first + roles) if self._layout.feeds[e]]
        if set(fed) & set(self._sight.blind()):
            return GateRate(0.0, f"{gate.region}/{gate.model} is not seen", blind=True)
        takers = [e for e in fed if self._sight.endpoints[e]["open"] > 0 and self._sight.takes(e)]
        if not takers:
            return GateRate(0.0, f"no engine of {gate.model} serves in {gate.region}")
        rate = sum(self._jobs(e, model) for e in takers) / (self._every / SECOND)
        return GateRate(rate if gate.most is None else min(rate, gate.most))

    def _jobs(self, e: int, model: int) -> int:
        prompt, output = self._request(model)
        work = float(request_work(self._sight.first_engine(e), max(1, int(prompt)), 0, output))
        rule = self._feed, self._kind, self._half_life
        return jobs_given(rule, self._sight.endpoints[e : e + 1], work, prompt + output)


def jobs_given(rule: tuple[int, int, float], endpoint: NDArray[Any], work: float, tokens: float) -> int:
    """How many jobs the feed rule gives an open endpoint, one after the other, until it gives none.

    The rule gives less the more was given, so the number is found by halving; tests/live/gates counts it one by one.

    Args:
        rule: feed, signal and half-life, as `share` has them.
        endpoint: an ENDPOINT row, alone in its array; left as it is.
        work: microseconds of engine time a job is expected to need.
        tokens: KV tokens it is expected to hold at its end.
    """
    feed, kind, half_life = rule

    def gives_after(jobs: int) -> bool:
        row = np.copy(endpoint)[0]
        note_fed(row, jobs * work, jobs * tokens)
        return bool(share(feed, kind, row, half_life) > 0)

    low, high = 0, JOBS_MOST
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if gives_after(middle) else (low, middle)
    return low
