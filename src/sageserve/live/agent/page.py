"""What an agent serves where it is asked to: its metrics, which also tell whether it is alive, and its report; read-only.

    GET /metrics    Prometheus text         GET /report    `report.AgentReport` as JSON

Read next: `report.py`; `live/watch/serve.py`, whose metrics of what runs may stand beside these.
"""

import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import uvicorn
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sageserve.base.units import SECOND
from sageserve.live.agent.plan_record import encoded
from sageserve.live.agent.process import ClusterAgent
from sageserve.live.agent.report import AgentReport
from sageserve.live.control.pages import PageServer

_FIGURES: Final = ("planned", "followed", "low", "high", "count", "ready", "coming", "stuck")


class AgentCollector(Collector):
    """A report as metrics.

    Args:
        said: what there is to say now.
        leads: it holds the lease.
    """

    def __init__(self, said: Callable[[], AgentReport], leads: Callable[[], bool]) -> None:
        self._said, self._leads = said, leads

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The families, anew for each scrape; what is not known is left out."""
        found = self._said()
        whole = (
            ("sageserve_agent_leads", "1: it holds the lease, and acts", float(self._leads())),
            ("sageserve_agent_sequence", "of the plan that was followed last; 0: none was", found.sequence),
            ("sageserve_agent_until_seconds", "when that plan ends, since 1970", found.until / SECOND),
            ("sageserve_agent_heard_seconds", "when something was last fetched, since 1970; 0: never", found.heard / SECOND),
        )
        for name, about, value in whole:
            yield GaugeMetricFamily(name, about, value=value)
        refused = GaugeMetricFamily("sageserve_agent_refused", "1: the newest file is not followed, and why", labels=["why"])
        if found.refused:
            refused.add_metric([found.refused], 1)
        figures = GaugeMetricFamily("sageserve_agent_target", "instances of a target", labels=["target", "figure"])
        blind = GaugeMetricFamily("sageserve_agent_blind", "1: nothing of it is lowered, as it is not seen", labels=["target"])
        for target, one in found.targets.items():
            for figure in _FIGURES:
                if (count := getattr(one, figure)) is not None:
                    figures.add_metric([target, figure], count)
            blind.add_metric([target], float(one.blind))
        yield from (refused, figures, blind)


async def serve(agent: ClusterAgent, listening: socket.socket, more: Iterable[Collector]) -> None:
    """Serve until cancelled.

    Args:
        agent: whose pages these are.
        listening: the open port.
        more: metrics of what runs, where that is seen.
    """
    registry = CollectorRegistry()
    for one in (AgentCollector(agent.said, agent.leads), *more):
        registry.register(one)

    async def as_metrics(_request: Request) -> Response:
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def as_report(_request: Request) -> Response:
        return Response(encoded(agent.said()), media_type="application/json")

    pages = Starlette(routes=[Route("/metrics", as_metrics), Route("/report", as_report)])
    await PageServer(uvicorn.Config(pages, log_level="warning", lifespan="off")).serve([listening])
