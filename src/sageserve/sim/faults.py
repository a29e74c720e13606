"""What goes wrong in a simulated world: failed starts, slow starts, evictions from the spot market, outages of regions.

Every draw comes from a stream of its own, named after the instance and the instant, so that one fault never shifts another
and two strategies meet the same luck where they do the same thing. Knows no policy.
"""

import math
from collections.abc import Iterator
from typing import Final

from sageserve.base.config import Scenario
from sageserve.base.rng import stream
from sageserve.base.units import HOUR, NEVER, Micros
from sageserve.core.layout import Layout

LOST: Final = "the region is lost"
"""Why an instance is gone, or could not be started, during an outage."""


class SimulatedFaults:
    """Seeded misfortune.

    Args:
        scenario: for its seed, `faults` and `spot`.
    """

    def __init__(self, scenario: Scenario) -> None:
        self._seed = scenario.seed
        self._rules = scenario.faults
        self._evictions_per_us = scenario.spot.reclaimed_by_cloud_per_hour / HOUR
        self._notice = scenario.spot.notice

    def start_fails(self, instance: int, now: Micros) -> bool:
        """Whether a start that begins now comes to nothing."""
        chance = self._rules.start_failure
        return chance > 0 and stream(self._seed, f"start/{instance}/{now}").random() < chance

    def stretch(self, instance: int, now: Micros, delay: Micros) -> Micros:
        """A start time drawn around its stated median."""
        spread = self._rules.start_spread
        if spread == 0:
            return delay
        return round(delay * math.exp(spread * stream(self._seed, f"delay/{instance}/{now}").standard_normal()))

    def time_to_eviction(self, instance: int, now: Micros) -> Micros:
        """Microseconds until the cloud takes an instance that is donated now, its notice included; NEVER if it does not."""
        if self._evictions_per_us == 0:
            return NEVER
        wait = stream(self._seed, f"eviction/{instance}/{now}").exponential(1 / self._evictions_per_us)
        return min(round(wait), NEVER // 2) + self._notice


class Outages:
    """Regions that are lost for a while.

    Args:
        scenario: for `faults.outages`.
        layout: numbers of regions and instances.
    """

    def __init__(self, scenario: Scenario, layout: Layout) -> None:
        regions = layout.names.regions
        self._spans = [(regions.index(one.region), one.at, one.at + one.length) for one in scenario.faults.outages]
        self._per_region = layout.instances // len(regions)

    @property
    def begins(self) -> tuple[Micros, ...]:
        """Instants at which a region is lost, each once."""
        return tuple(sorted({begin for _, begin, _ in self._spans}))

    def instances(self, now: Micros) -> Iterator[int]:
        """Rows of the instances whose region is lost at this instant, each once."""
        for region in sorted({region for region, begin, _ in self._spans if begin == now}):
            yield from range(region * self._per_region, (region + 1) * self._per_region)

    def end(self, instance: int, now: Micros) -> Micros:
        """When the last outage of an instance's region that goes on now is over; `now` when none goes on."""
        region = instance // self._per_region
        return max((end for at, begin, end in self._spans if at == region and begin <= now < end), default=now)
