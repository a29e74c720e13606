"""What a process that watches serves: its metrics, its state as JSON for `status` and `top`, and the live page; read-only.

    GET /metrics          Prometheus text         GET /admin/status     `control/status.Status`         GET /ui    the page

Read next: `process.py`; `live/control/admin.py`, whose pages these are.
"""

import socket
from collections.abc import Iterator

import uvicorn
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sageserve.live.control.admin import FleetCollector, routes
from sageserve.live.control.process import PageServer
from sageserve.live.watch.process import FleetWatch


class WatchCollector(Collector):
    """What would run, what is needed and what serves of that, and how far demand is counted, as metrics."""

    def __init__(self, watch: FleetWatch) -> None:
        self._watch = watch

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The families, anew for each scrape."""
        wanted = GaugeMetricFamily(
            "sageserve_wanted_instances", "instances that would run, were decisions carried out", labels=["pool"]
        )
        for pool in self._watch.pools():
            wanted.add_metric([pool.pool], pool.would)
        needed, serving = (
            GaugeMetricFamily(name, text, labels=["region", "model"])
            for name, text in (
                (
                    "sageserve_needed_instances",
                    "fewest instances of the model's fastest type that keep promises at the demand of the last five minutes",
                ),
                ("sageserve_serving_instances", "capacity that serves, in instances of the model's fastest type"),
            )
        )
        names, capacity = self._watch.layout.names, self._watch.capacity()
        for endpoint, count in self._watch.needed().items():
            first = self._watch.layout.endpoint_pools(endpoint)[0]
            place = [names.regions[first.region], names.models[first.model]]
            needed.add_metric(place, count)
            serving.add_metric(place, round(capacity[endpoint], 3))
        yield from (wanted, needed, serving)
        yield GaugeMetricFamily(
            "sageserve_demand_age_seconds", "since the instant up to which demand is counted", value=self._watch.behind_s()
        )


async def serve(watch: FleetWatch, listening: socket.socket) -> None:
    """Serve until cancelled.

    Args:
        watch: whose pages these are.
        listening: the open port.
    """
    registry = CollectorRegistry()
    registry.register(FleetCollector(watch.status, lambda: dict(watch.decided)))
    registry.register(WatchCollector(watch))

    async def as_metrics(_request: Request) -> Response:
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4; charset=utf-8")

    pages = Starlette(routes=[Route("/metrics", as_metrics), *routes(watch.status, lambda: dict(watch.decided))])
    config = uvicorn.Config(pages, log_level="warning", lifespan="off")
    await PageServer(config).serve([listening])
