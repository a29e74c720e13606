"""What most teams run today: a HorizontalPodAutoscaler per endpoint, or KEDA with one.

The arithmetic is in `hpa_rules.py`; here are the signals it is fed with, and the steps. An endpoint's instances are the replicas
of one target: those that serve are ready pods, those that come are unready ones, those that drain are not counted.
Read next: `hpa_rules.py`, docs/reference/strategies.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from sageserve.base.config import HpaMetricSettings, HpaSettings, Scenario
from sageserve.base.records import Demand
from sageserve.base.units import NEVER, Micros
from sageserve.core.actions import Decision, Reason
from sageserve.core.events import EnginesSeen, Observed
from sageserve.core.fleet import Fleet, Pool
from sageserve.core.layout import Layout
from sageserve.core.strategies.base import Unified
from sageserve.core.strategies.hpa_rules import Behaviour, MetricSeen, largest, wanted_by
from sageserve.core.strategies.steps import EndpointLook, look
from sageserve.core.work import AnyEvent, Fitted, Solved, SolvedAhead
from sageserve.core.zero import Sleepers


@dataclass(slots=True)
class _Target:
    """One autoscaler and what it scales."""

    endpoint: int
    pools: list[Pool]
    behaviour: Behaviour
    synced: Micros = -NEVER


class Hpa(Unified):
    """Kubernetes' HorizontalPodAutoscaler.

    Args:
        scenario: for its `strategy.hpa` settings.
        layout: numbers of pools and endpoints.
        earlier: not looked at; an HPA knows no history.
    """

    def __init__(self, scenario: Scenario, layout: Layout, earlier: Demand | None = None) -> None:  # see above
        self._rules = self.rules(scenario)
        self._targets = [
            _Target(endpoint, pools, Behaviour(self._rules.scale_up, self._rules.scale_down))
            for endpoint in range(layout.endpoints)
            if (pools := layout.endpoint_pools(endpoint))
        ]
        up, down = self._rules.scale_up.tolerance, self._rules.scale_down.tolerance
        whole = self._rules.tolerance
        self._tolerance = (whole if down is None else down, whole if up is None else up)
        self._engines = EnginesSeen(-NEVER, (), ())

    @staticmethod
    def rules(scenario: Scenario) -> HpaSettings:
        """The settings to use."""
        return scenario.strategy.hpa

    def handle(self, now: Micros, event: AnyEvent, fleet: Fleet) -> Iterator[Decision]:
        """Sync every autoscaler whose period is over."""
        if isinstance(event, EnginesSeen):
            self._engines = event
        if not isinstance(event, Observed):
            return
        for target in self._targets:
            if now - target.synced >= self._rules.sync:
                target.synced = now
                yield from self._sync(now, target, event, fleet)

    def _sync(self, now: Micros, target: _Target, event: Observed, fleet: Fleet) -> Iterator[Decision]:
        here = look(now, event, target.pools, fleet)
        if here.missing:
            target.behaviour.note(now, here.missing)
            yield here.more(here.missing, Reason.BELOW_MINIMUM)
            return
        if not here.held:
            return  # an HPA of none is switched off
        seen = [self._seen(metric, target.endpoint, here, event) for metric in self._rules.metrics]
        answers = [
            wanted_by(metric.kind, one, metric.target, self._tolerance)
            for metric, one in zip(self._rules.metrics, seen, strict=True)
        ]
        wanted = largest(here.held, answers)
        if wanted is None:
            return
        most = sum(pool.end - pool.begin for pool in target.pools)
        least = max(target.pools[0].minimum, min(self._rules.minimum or 0, most))
        bounds = (least, most if self._rules.maximum is None else max(least, min(self._rules.maximum, most)))
        change = target.behaviour.limit(now, here.held, wanted, bounds) - here.held
        target.behaviour.note(now, change)
        if change > 0:
            yield here.more(change, Reason.METRIC_HIGH, target=wanted)
        elif change < 0:
            yield from _fewer(here, -change, wanted, fleet)

    def _seen(self, metric: HpaMetricSettings, endpoint: int, here: EndpointLook, event: Observed) -> MetricSeen:
        """A metric over the endpoint's pods; shares are averages, so that their sum is the average times the pods."""
        if endpoint in event.blind or not self._engines.running:
            return MetricSeen(None, here.serving, here.coming)
        waiting, running = self._engines.waiting[endpoint], self._engines.running[endpoint]
        shown = {
            "kv": event.endpoints[endpoint].kv * here.serving,
            "busy": event.endpoints[endpoint].busy * here.serving,
            "waiting": float(waiting),
            "requests": float(running + waiting),
        }
        return MetricSeen(shown[metric.signal], here.serving, here.coming)


class Keda(Hpa):
    """KEDA: the HPA it makes for a trigger, and its own step between none and one.

    Polled every `polling`: one is started when the metric is above `activation`, and none is left when it was not for `cooldown`.
    Of none, the metric is what waits at the front door; of requests in progress it knows what its metric says.

    Args:
        scenario: for its `strategy.keda` settings.
        layout: numbers of pools and endpoints.
        earlier: not looked at.
    """

    def __init__(self, scenario: Scenario, layout: Layout, earlier: Demand | None = None) -> None:  # see above
        super().__init__(scenario, layout, earlier)
        rules = scenario.strategy.keda
        self._activation = rules.activation
        self._none = Sleepers(layout, rules.cooldown, polling=rules.polling, activation=rules.activation, own_work=False)

    @staticmethod
    def rules(scenario: Scenario) -> HpaSettings:
        """The settings of `strategy.keda`."""
        return scenario.strategy.keda

    def handle(self, now: Micros, event: AnyEvent, fleet: Fleet) -> Iterator[Decision]:
        """Its own step, then the HPA's."""
        if self._none.any and not isinstance(event, Fitted | Solved | SolvedAhead):
            if isinstance(event, Observed):
                self._note_active(now, event, fleet)
            yield from self._none.handle(now, event, fleet)
        yield from super().handle(now, event, fleet)

    def _note_active(self, now: Micros, event: Observed, fleet: Fleet) -> None:
        for target in self._targets:
            here = look(now, event, target.pools, fleet)
            seen = [self._seen(metric, target.endpoint, here, event).total for metric in self._rules.metrics]
            seen.append(float(self._none.held[target.endpoint]))
            if any(total is None or total > self._activation for total in seen):  # what cannot be read takes nothing away
                self._none.saw(now, target.endpoint)

    def _seen(self, metric: HpaMetricSettings, endpoint: int, here: EndpointLook, event: Observed) -> MetricSeen:
        """Requests that wait at the front door are among those that wait."""
        seen, held = super()._seen(metric, endpoint, here, event), self._none.held[endpoint]
        if seen.total is None or metric.signal not in {"waiting", "requests"}:
            return seen
        return replace(seen, total=seen.total + held)


def _fewer(here: EndpointLook, count: int, wanted: int, fleet: Fleet) -> Iterator[Decision]:
    """Drain `count` instances, from the last pool of the endpoint on."""
    for pool in reversed(here.pools):
        take = min(count, fleet.serving(pool.number))
        if take > 0:
            count -= take
            yield Decision(
                pool.number,
                -take,
                Reason.METRIC_LOW,
                here.seen,
                here.age,
                serving=here.serving,
                coming=here.coming,
                target=wanted,
            )
