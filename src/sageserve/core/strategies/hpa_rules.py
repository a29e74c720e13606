"""The arithmetic of Kubernetes' HorizontalPodAutoscaler: from a metric to a count, and what behaviours make of it.

After the documented algorithm (kubernetes.io, "Horizontal Pod Autoscaling", and the `behavior` field of autoscaling/v2).
Counts are replicas, which are our instances. Knows no fleet and no strategy. Read next: `hpa.py`.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Literal

from sageserve.base.config import HpaPolicySettings, HpaScalingSettings
from sageserve.base.units import Micros

Kind = Literal["pods", "external"]
"""`pods`: the average over pods that show the metric. `external`: one number, divided by all pods there are (AverageValue)."""


@dataclass(frozen=True, slots=True)
class MetricSeen:
    """One metric at one sync.

    Args:
        total: summed over the pods that show it; None: nobody could be asked.
        ready: pods that show it.
        unready: pods that do not yet: pending, or loading.
        missing: pods that should and do not.
    """

    total: float | None
    ready: int
    unready: int = 0
    missing: int = 0

    @property
    def pods(self) -> int:
        """Pods there are, whatever their state."""
        return self.ready + self.unready + self.missing


def wanted_by(kind: Kind, seen: MetricSeen, target: float, tolerance: tuple[float, float]) -> int | None:
    """Replicas one metric asks for; None when it cannot be read.

    Args:
        kind: how the metric is averaged.
        seen: the metric.
        target: per pod.
        tolerance: share by which the ratio may be below, and above, without consequence.
    """
    if seen.total is None:
        return None
    if kind == "external":
        ratio = seen.total / (target * seen.pods) if seen.pods else None
        return seen.pods if ratio is not None and is_close(ratio, tolerance) else ceil(seen.total / target)
    if not seen.ready:
        return None
    ratio = seen.total / (target * seen.ready)
    unready = seen.unready if ratio > 1.0 else 0
    if not seen.missing and not unready:
        return seen.pods if is_close(ratio, tolerance) else ceil(ratio * seen.ready)
    # Pods that are not seen are taken for what slows the change down: idle when growing, exactly at the target when shrinking.
    counted = seen.ready + seen.missing + unready
    careful = (seen.total + (target * seen.missing if ratio < 1.0 else 0.0)) / (target * counted)
    if is_close(careful, tolerance) or (ratio - 1.0) * (careful - 1.0) < 0:
        return seen.pods
    wanted = ceil(careful * counted)
    turned = wanted > seen.pods if careful < 1.0 else wanted < seen.pods
    return seen.pods if turned else wanted


def is_close(ratio: float, tolerance: tuple[float, float]) -> bool:
    """Whether a ratio of metric to target is left alone; `tolerance` is (below 1, above 1)."""
    return 1.0 - tolerance[0] <= ratio <= 1.0 + tolerance[1]


def largest(current: int, wanted: Sequence[int | None]) -> int | None:
    """What several metrics ask for together: the largest. One that cannot be read forbids to shrink, all of them any change."""
    known = [one for one in wanted if one is not None]
    if not known:
        return None
    most = max(known)
    return None if len(known) < len(wanted) and most < current else most


@dataclass(slots=True)
class Behaviour:
    """What a HorizontalPodAutoscaler remembers: recommendations of the past, and what was changed when.

    Args:
        up: rules for growing.
        down: rules for shrinking.
    """

    up: HpaScalingSettings
    down: HpaScalingSettings
    _recommended: deque[tuple[Micros, int]] = field(default_factory=deque)
    _changed: deque[tuple[Micros, int]] = field(default_factory=deque)
    _begun: bool = False

    def limit(self, now: Micros, current: int, wanted: int, bounds: tuple[int, int]) -> int:
        """The count after stabilisation, policies and bounds; remembers the recommendation, not the change.

        Args:
            now: this sync.
            current: replicas wanted so far.
            wanted: by the metrics.
            bounds: least and most replicas.
        """
        stable = self._stabilise(now, current, wanted)
        low, high = bounds
        if stable > current:
            most = self._bound(now, current, self.up, _grown, max)
            return max(min(stable, high, max(most, current)), low)
        if stable < current:
            least = self._bound(now, current, self.down, _shrunk, min)
            return min(max(stable, low, min(least, current)), high)
        return min(max(stable, low), high)

    def note(self, now: Micros, change: int) -> None:
        """Remember that replicas were added, or taken away (negative)."""
        if change:
            self._changed.append((now, change))
            longest = max((policy.period for rules in (self.up, self.down) for policy in rules.policies), default=0)
            while self._changed[0][0] <= now - longest:
                self._changed.popleft()

    def _stabilise(self, now: Micros, current: int, wanted: int) -> int:
        """The least recommended lately when growing, the most recommended lately when shrinking."""
        if not self._begun:  # the controller takes the count it finds as its first recommendation
            self._begun = True
            self._recommended.append((now, current))
        longest = max(self.up.stabilisation, self.down.stabilisation)
        while self._recommended and self._recommended[0][0] <= now - longest:
            self._recommended.popleft()
        least = min([wanted, *(n for at, n in self._recommended if at > now - self.up.stabilisation)])
        most = max([wanted, *(n for at, n in self._recommended if at > now - self.down.stabilisation)])
        self._recommended.append((now, wanted))
        return min(max(current, least), most)

    def _bound(
        self,
        now: Micros,
        current: int,
        rules: HpaScalingSettings,
        reach: Callable[[int, HpaPolicySettings], int],
        most: Callable[[Iterable[int]], int],
    ) -> int:
        """How far the policies let the count go at once; `most` picks the policy that changes most."""
        if rules.select == "disabled":
            return current
        reached = [
            reach(current - sum(change for at, change in self._changed if at > now - policy.period), policy)
            for policy in rules.policies
        ]
        gentle = min if most is max else max
        return most(reached) if rules.select == "max" else gentle(reached)


def _grown(begin: int, policy: HpaPolicySettings) -> int:
    """The count that a policy allows, from what there was when its period began."""
    return begin + policy.pods if policy.pods is not None else ceil(begin * (1 + (policy.percent or 0) / 100))


def _shrunk(begin: int, policy: HpaPolicySettings) -> int:
    return begin - policy.pods if policy.pods is not None else int(begin * (1 - (policy.percent or 0) / 100))
