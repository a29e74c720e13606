"""What a process that watches serves: its metrics, its state as JSON for `status` and `top`, and the live page; read-only.

    GET /metrics          Prometheus text         GET /admin/status     `control/status.Status`
    GET /ui         the page                GET /admin/day        `control/day.DayView`
    GET /scaler     `scaler/table.ScalerTable`, where KEDA is answered: what followers tell it

Read next: `process.py`; `live/control/admin.py`, whose pages these are.
"""

import socket
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Protocol

import msgspec
import uvicorn
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sageserve.base.units import SECOND
from sageserve.live.control.admin import CapacityCollector, FleetCollector, routes
from sageserve.live.control.pages import PageServer
from sageserve.live.scaler.table import ScalerTable, ToldTarget
from sageserve.live.watch.process import FleetWatch


class DemandAge(Collector):
    """How far demand is counted, as a metric."""

    def __init__(self, watch: FleetWatch) -> None:
        self._watch = watch

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The family, anew for each scrape."""
        yield GaugeMetricFamily(
            "sageserve_demand_age_seconds", "since the instant up to which demand is counted", value=self._watch.behind_s()
        )


class Answering(Protocol):
    """Who answers KEDA."""

    answered: Counter[tuple[str, str]]
    """Answers, by call and gRPC's code."""

    def table(self, age_s_of: Callable[[str], float]) -> dict[str, ToldTarget]:
        """What would be told of each target."""
        ...


class ScalerAnswers(Collector):
    """What KEDA was told, as a metric."""

    def __init__(self, scaler: Answering) -> None:
        self._scaler = scaler

    def collect(self) -> Iterator[CounterMetricFamily]:
        """The family, anew for each scrape."""
        found = CounterMetricFamily("sageserve_scaler_answers", "to KEDA, by call and gRPC's code", labels=["call", "code"])
        for labels, count in sorted(self._scaler.answered.items()):
            found.add_metric(labels, count)
        yield found


async def serve(watch: FleetWatch, listening: socket.socket, scaler: Answering | None) -> None:
    """Serve until cancelled.

    Args:
        watch: whose pages these are.
        listening: the open port.
        scaler: who answers KEDA; None: nobody.
    """
    registry = CollectorRegistry()
    scaled = () if scaler is None else (ScalerAnswers(scaler),)
    more = (CapacityCollector(watch.book, watch.now), DemandAge(watch), *scaled)
    for one in (FleetCollector(watch.status, lambda: dict(watch.decided)), *more):
        registry.register(one)

    async def as_metrics(_request: Request) -> Response:
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def as_table(_request: Request) -> Response:
        told = {} if scaler is None else scaler.table(watch.sight_age_s)
        table = ScalerTable(watch.name, watch.limit / SECOND, told)
        return Response(msgspec.json.encode(table), media_type="application/json")

    followed = [] if scaler is None else [Route("/scaler", as_table)]
    pages = Starlette(
        routes=[
            Route("/metrics", as_metrics),
            *followed,
            *routes(watch.status, lambda: dict(watch.decided), watch.day.view, more),
        ]
    )
    config = uvicorn.Config(pages, log_level="warning", lifespan="off")
    await PageServer(config).serve([listening])
