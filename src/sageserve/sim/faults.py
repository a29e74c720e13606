"""What goes wrong in a simulated world: failed and slow starts, evictions from the spot market, outages, and what is not seen.

Every draw comes from a stream of its own, named after the instance and the instant, so that one fault never shifts another
and two strategies meet the same luck where they do the same thing. Knows no policy.
"""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final, TypeAlias

from numpy.typing import NDArray

from sageserve.base.config import Scenario
from sageserve.base.records import UNSET
from sageserve.base.rng import stream
from sageserve.base.units import HOUR, MINUTE, NEVER, Micros
from sageserve.core.events import EndpointSeen, EnginesSeen, InstanceLost, Observed, StartFailed
from sageserve.core.layout import Layout
from sageserve.core.perf import slowed
from sageserve.core.work import Entry
from sageserve.sim.kernel.state import PLACE, SHED

LOST: Final = "the region is lost"
"""Why an instance is gone, or could not be started, during an outage."""

_Numbers: TypeAlias = tuple[EndpointSeen, int, int]  # of an endpoint: utilisations, running and waiting requests


def true_layout(scenario: Scenario, layout: Layout) -> Layout:
    """The layout with engines that take as long as they do, where strategies believe otherwise (`faults.engine_time`)."""
    times = scenario.faults.engine_time
    return layout if times == 1 else replace(layout, profiles=slowed(layout.profiles, times))


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

    def start_fails(self, instance: int, now: Micros, own: float = 0.0) -> bool:
        """Whether a start that begins now comes to nothing; `own` is the chance that its revision has besides."""
        chance = 1 - (1 - self._rules.start_failure) * (1 - own) if own else self._rules.start_failure
        return chance > 0 and stream(self._seed, f"start/{instance}/{now}").random() < chance

    def stretch(self, instance: int, now: Micros, delay: Micros) -> Micros:
        """A start time drawn around its stated median."""
        spread = self._rules.start_spread
        if spread == 0:
            return delay
        return round(delay * math.exp(spread * stream(self._seed, f"delay/{instance}/{now}").standard_normal()))

    def time_to_eviction(self, instance: int, now: Micros, *, wave: bool = False) -> Micros:
        """Microseconds until the cloud takes an instance that is donated now, its notice included; NEVER if it does not.

        Args:
            instance: row of it.
            now: when it is donated.
            wave: the cloud takes everything back now.
        """
        if wave:
            return self._notice
        if self._evictions_per_us == 0:
            return NEVER
        wait = stream(self._seed, f"eviction/{instance}/{now}").exponential(1 / self._evictions_per_us)
        return min(round(wait), NEVER // 2) + self._notice


class SimulatedSight:
    """What strategies see of engines: late, noisy, and now and then nothing, of which the numbers before stand.

    The router and the batch queue are not concerned: they look at engines themselves.

    Args:
        scenario: for its seed and `faults`.
    """

    def __init__(self, scenario: Scenario) -> None:
        self._seed, self._rules = scenario.seed, scenario.faults
        self._looks: deque[tuple[Micros, EnginesSeen, Observed]] = deque()  # the first is old enough, as far as there is one
        self._shown: dict[int, _Numbers] = {}  # what was last seen, by endpoint

    def of(self, now: Micros, engines: EnginesSeen, observed: Observed) -> tuple[EnginesSeen, Observed]:
        """What is seen of what is there."""
        rules = self._rules
        if not (rules.signals_late or rules.signals_lost or rules.signals_noise):
            return engines, observed
        self._looks.append((now, engines, observed))
        while len(self._looks) > 1 and self._looks[1][0] <= now - rules.signals_late:
            self._looks.popleft()
        _, before, then = self._looks[0]
        lost = [e for e in range(len(then.endpoints)) if self._is_lost(e, now)]
        for e, numbers in enumerate(zip(then.endpoints, before.running, before.waiting, strict=True)):
            if e not in lost or e not in self._shown:
                self._shown[e] = self._blurred(e, then.scraped, numbers)
        endpoints, running, waiting = zip(*(self._shown[e] for e in range(len(then.endpoints))), strict=True)
        return EnginesSeen(then.scraped, running, waiting), Observed(then.scraped, endpoints, observed.batch_waiting, tuple(lost))

    def _is_lost(self, endpoint: int, now: Micros) -> bool:
        chance = self._rules.signals_lost
        return chance > 0 and stream(self._seed, f"sight/{endpoint}/{now // MINUTE}").random() < chance

    def _blurred(self, endpoint: int, scraped: Micros, numbers: _Numbers) -> _Numbers:
        spread = self._rules.signals_noise
        if spread == 0:
            return numbers
        factor = math.exp(spread * stream(self._seed, f"noise/{endpoint}/{scraped}").standard_normal())
        there, running, waiting = numbers
        seen = EndpointSeen(there.seen * factor, there.kv * factor, there.busy * factor)
        return seen, round(running * factor), round(waiting * factor)


class Outages:
    """Regions that are lost for a while, or where the cloud takes back what is donated.

    Args:
        scenario: for `faults.outages`.
        layout: numbers of regions and instances.
    """

    def __init__(self, scenario: Scenario, layout: Layout) -> None:
        regions, outages = layout.names.regions, scenario.faults.outages
        self._spans = [(regions.index(one.region), one.at, one.at + one.length) for one in outages if not one.donated_only]
        self._waves = [(regions.index(one.region), one.at, one.at + one.length) for one in outages if one.donated_only]
        self._per_region = layout.instances // len(regions)

    @property
    def begins(self) -> tuple[Micros, ...]:
        """Instants at which a region is lost, or what is donated there, each once."""
        return tuple(sorted({begin for _, begin, _ in (*self._spans, *self._waves)}))

    def instances(self, now: Micros) -> Iterator[int]:
        """Rows of the instances whose region is lost at this instant, each once."""
        return self._rows(self._spans, now)

    def taken(self, now: Micros) -> Iterator[int]:
        """Rows of the instances that the cloud takes back at this instant if they are donated, each once."""
        return self._rows(self._waves, now)

    def takes(self, instance: int, now: Micros) -> bool:
        """Whether the cloud takes back what is donated in an instance's region now."""
        region = instance // self._per_region
        return any(at == region and begin <= now < end for at, begin, end in self._waves)

    def _rows(self, spans: list[tuple[int, Micros, Micros]], now: Micros) -> Iterator[int]:
        for region in sorted({region for region, begin, _ in spans if begin == now}):
            yield from range(region * self._per_region, (region + 1) * self._per_region)

    def end(self, instance: int, now: Micros) -> Micros:
        """When the last outage of an instance's region that goes on now is over; `now` when none goes on."""
        region = instance // self._per_region
        return max((end for at, begin, end in self._spans if at == region and begin <= now < end), default=now)


def told_of_outages(journal: Sequence[Entry], requests: NDArray[Any]) -> str:
    """What regions that were lost cost, in a sentence."""
    gone = [line.event for line in journal if isinstance(line.event, InstanceLost | StartFailed) and line.event.why == LOST]
    lost = sum(isinstance(event, InstanceLost) for event in gone)
    broken = int((((requests["state"] & PLACE) == SHED) & (requests["first"] != UNSET)).sum())
    return (
        f"outages: {lost:,} instances were lost with their region, {len(gone) - lost:,} starts there came to nothing, and"
        f" {broken:,} requests that had a first token were broken off (they count as shed)"
    )
