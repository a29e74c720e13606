"""The fleet view, the actuator and the settings of a fleet that others run.

Read next: `process.py`; `live/control/fleet_view.py`.
"""

from collections.abc import Callable, Mapping
from typing import Final

from sageserve.base.config import LiveSettings, Scenario
from sageserve.base.units import SECOND, Micros
from sageserve.core.actions import Donate, Reclaim, Release, Start
from sageserve.core.layout import Layout
from sageserve.live.actuators.base import EngineAddress
from sageserve.live.control.fleet_view import FleetView
from sageserve.live.control.opened import Callbacks
from sageserve.live.watch.demand import CountedDemand
from sageserve.live.wire import VERSION, CellCount, EndpointCount, Hello, InstanceCount, Report

SERVERS: Final = 0
"""Number of the one gateway that this view hears of: all Prometheus servers together."""


def only_watched(scenario: Scenario, limit: Micros) -> Scenario:
    """The settings of a fleet in which nothing is done, and whose signals are believed for `limit` microseconds."""
    live = scenario.live or LiveSettings()
    safety = live.safety.model_copy(update={"act": False, "blind_after": limit})
    return scenario.model_copy(update={"live": live.model_copy(update={"safety": safety})})


def tightest_promise_s(scenario: Scenario) -> float | None:
    """Seconds to a first token that the tightest tier promises to prompts of any length; None: no tier does.

    Histograms of engines do not say how long a prompt was, so a promise that grows with it cannot be held against them.
    """
    promised = [tier.ttft for tier in scenario.tiers.values() if tier.ttft is not None and not tier.growth]
    return min(promised) / SECOND if promised else None


class NobodysEngines:
    """The actuator of a fleet that others run: it is never asked for anything, and knows engines by their names there."""

    def __init__(self) -> None:
        self.names: dict[int, str] = {}

    def perform(self, now: Micros, action: Start | Reclaim | Donate | Release) -> None:
        """Never asked, as the guard lets nothing through; that others' instance is empty is only said."""
        if isinstance(action, Release):
            return
        raise AssertionError(f"{type(action).__name__} of a fleet that is only watched")

    def place(self, instance: int) -> EngineAddress:
        """Its name where it is recorded."""
        return EngineAddress(self.names.get(instance, ""), "")


class WatchedView(FleetView):
    """A fleet view whose gateway is Prometheus: counts come late, and some endpoints are not recorded as they should be.

    Args:
        scenario: for signals and safety.
        layout: numbers of endpoints and instances.
        now: the loop's clock.
        told: the other sides.
        counted: the instant up to which demand is counted.
    """

    def __init__(
        self,
        scenario: Scenario,
        layout: Layout,
        now: Callable[[], Micros],
        told: Callbacks,
        counted: Callable[[Micros], Micros],
    ) -> None:
        super().__init__(scenario, layout, "watch", now, told)
        self.unseen: Mapping[int, str] = {}  # why, by endpoint
        self._counted = counted
        self.heard(SERVERS, Hello(VERSION, 0, "prometheus"))

    def blind(self) -> tuple[int, ...]:
        """Endpoints whose signals are too old, and those that are not seen now."""
        return tuple(sorted({*super().blind(), *self.unseen}))

    def seen_since(self, endpoint: int) -> Micros:
        """When the instance of an endpoint that was seen the longest ago was; now, where none is open."""
        here = (one for row, one in self.opened.items() if one.open and self._endpoint(row) == endpoint)
        return min((max(one.seen_at, one.opened_at) for one in here), default=self._now())

    def counted_until(self, now: Micros) -> Micros:
        """Samples are there a scrape or two later."""
        return self._counted(now)

    def count(self, demand: CountedDemand, in_flight: Mapping[int, int], waiting: Mapping[int, float]) -> None:
        """Take in what servers say, as a gateway would report it.

        Args:
            demand: everything that was asked.
            in_flight: requests by instance, of those that were seen.
            waiting: microseconds of prompts that wait, by endpoint.
        """
        prompt, output, requests = (column.astype(int).tolist() for column in (demand.prompt, demand.output, demand.requests))
        cells = tuple(
            CellCount(cell, prompt[cell], output[cell], requests[cell], float(work), 0, 0, 0)
            for cell, work in enumerate(demand.work)
        )
        endpoints = tuple(EndpointCount(e, float(work), waiting.get(e, 0.0), 0, 0) for e, work in enumerate(demand.offered))
        instances = tuple(InstanceCount(row, count, 0, 0) for row, count in in_flight.items())
        self.heard(SERVERS, Report(0, endpoints, instances, cells, (), tuple(self.output_mean.tolist()), 0))
