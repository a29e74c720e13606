"""The control process for people and monitors: its state as JSON, as Prometheus metrics, and as a page that refreshes itself.

    GET /admin/status     `status.Status`         GET /admin/metrics    Prometheus text
    GET /admin/day        `day.DayView`           GET /admin/targets    engines, for Prometheus' http_sd_configs
    GET /ui               the page                GET /admin/ready      whether files and batches are taken, and who runs them

Read-only: nothing here changes the fleet. Who may ask is the gateway's business (`gateway/rights.py`), which is the only one
that reaches this server (`door.py`). Read next: `status.py`, `process.py`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.resources import files
from typing import Final, Protocol

import msgspec
from msgspec import Struct
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from sageserve.base.units import Micros
from sageserve.data.watched.minutes import PoolMinute
from sageserve.live.control.day import DayView
from sageserve.live.control.minute_book import EndpointCapacity
from sageserve.live.control.sleeping import Sleep
from sageserve.live.control.status import QueueRole, Status

_STATES: Final = ("serving", "coming", "draining", "spot")
_PODS: Final = ("ready", "coming", "late", "unschedulable", "gated", "leaving")
_SCRIPT: Final = "/* day.js */"
"""Where the page takes in the script of its figures, so that it is one answer."""
_Family = GaugeMetricFamily | CounterMetricFamily


class FleetCollector(Collector):
    """A status as metrics.

    Args:
        status: the present state.
        decided: decisions by (reason, what blocked them), since the process began.
    """

    def __init__(self, status: Callable[[], Status], decided: Callable[[], dict[tuple[str, str], int]]) -> None:
        self._status = status
        self._decided = decided

    def collect(self) -> Iterator[_Family]:
        """The families, anew for each scrape."""
        state = self._status()
        instances = GaugeMetricFamily("sageserve_instances", "instances of a pool by state", labels=["pool", "state"])
        seen = GaugeMetricFamily("sageserve_utilisation", "utilisation as last seen", labels=["region", "model", "signal"])
        pressure = GaugeMetricFamily("sageserve_pressure", "asked for beyond all there is", labels=["region", "model"])
        blind = GaugeMetricFamily("sageserve_blind", "1: signals too old to act on", labels=["region", "model"])
        waiting = GaugeMetricFamily("sageserve_batch_waiting", "batch work that waits", labels=["model"])
        slack = GaugeMetricFamily(
            "sageserve_batch_slack_seconds",
            "to the first deadline of batch work that waits; below 0: it has passed",
            labels=["model"],
        )
        for endpoint in state.endpoints:
            where = [endpoint.region, endpoint.model]
            for pool in endpoint.pools:
                for name in _STATES:
                    instances.add_metric([pool.pool, name], getattr(pool, name))
            for name, value in (("load", endpoint.utilisation), ("kv", endpoint.kv), ("busy", endpoint.busy)):
                seen.add_metric([*where, name], value)
            pressure.add_metric(where, endpoint.pressure)
            blind.add_metric(where, float(endpoint.blind))
        for model, jobs in {endpoint.model: endpoint.waiting_batch for endpoint in state.endpoints}.items():
            waiting.add_metric([model], jobs)
        for model, left in {endpoint.model: endpoint.slack_batch_s for endpoint in state.endpoints}.items():
            if left is not None:
                slack.add_metric([model], round(left, 1))
        yield from (instances, seen, pressure, blind, waiting, slack, *_sleepers(state), *_pods(state), *_queue(state))
        yield GaugeMetricFamily("sageserve_gpus_held", "GPUs that instances hold", value=state.gpus_held)
        yield CounterMetricFamily("sageserve_instances_hung", "instances that hung and were ended", value=state.ended)
        yield GaugeMetricFamily("sageserve_gateways", "gateway processes connected", value=state.gateway.processes)
        decisions = CounterMetricFamily("sageserve_decisions", "decisions by reason and obstacle", labels=["reason", "blocked"])
        for (reason, blocked), count in sorted(self._decided().items()):
            decisions.add_metric([reason, blocked], count)
        yield decisions


def _queue(state: Status) -> Iterator[GaugeMetricFamily]:
    """Who runs a batch queue that several control processes share; nothing where none could."""
    if state.queue is not None:
        leads = (
            state.queue.role == "leader" and not state.queue.trouble
        )  # who is cut off begins no job, and may be followed by another
        said = "1: this process runs the batch queue; 0: it stands by, or cannot ask the database"
        yield GaugeMetricFamily("sageserve_batch_leader", said, value=leads)
        yield GaugeMetricFamily("sageserve_batch_epoch", "how often another process came to run it", value=state.queue.epoch)


def _sleepers(state: Status) -> Iterator[GaugeMetricFamily]:
    """Endpoints that may have no instance; nothing where none may."""
    found: dict[tuple[str, str], tuple[Counter[str], int]] = {}
    for end in state.endpoints:
        if end.sleep:
            states, waiting = found.get((end.region, end.model), (Counter(), 0))
            found[end.region, end.model] = states + Counter([end.sleep]), waiting + end.held
    if not found:
        return
    sleep = GaugeMetricFamily(
        "sageserve_sleep", "1: so is an endpoint that may have no instance", labels=["region", "model", "state"]
    )
    held = GaugeMetricFamily("sageserve_requests_held", "requests that wait for an instance", labels=["region", "model"])
    for (region, model), (states, waiting) in found.items():
        for name in Sleep:
            sleep.add_metric([region, model, name], states[name])
        held.add_metric([region, model], waiting)
    yield from (sleep, held)


def _pods(state: Status) -> Iterator[GaugeMetricFamily]:
    """Pods of pools whose instances follow them; nothing where none do."""
    found = [(pool.pool, pool.pods) for endpoint in state.endpoints for pool in endpoint.pools if pool.pods is not None]
    if not found:
        return
    pods = GaugeMetricFamily("sageserve_pods", "pods of a pool by what they are; late ones come, too", labels=["pool", "state"])
    starts = GaugeMetricFamily(
        "sageserve_cold_start_seconds", "from a pod's creation to its being Ready", labels=["pool", "quantile"]
    )
    for pool, one in found:
        for name in _PODS:
            pods.add_metric([pool, name], getattr(one, name))
        for quantile, took in (("0.5", one.start_s_p50), ("0.95", one.start_s_p95)):
            if took is not None:
                starts.add_metric([pool, quantile], took)
    yield from (pods, starts)


class CapacitySource(Protocol):
    """What `CapacityCollector` reads; a `MinuteBook`."""

    def pools(self, now: Micros) -> Iterable[PoolMinute]:
        """What runs and what decisions ask for, at an instant."""
        ...

    def ends(self) -> Iterable[EndpointCapacity]:
        """Demand of the newest minute that is counted, and what serves now."""
        ...


class CapacityCollector(Collector):
    """What decisions ask for, what demand needs, and what serves of that, as metrics.

    Args:
        book: of this process's minutes.
        now: the loop's clock.
    """

    def __init__(self, book: CapacitySource, now: Callable[[], Micros]) -> None:
        self._book = book
        self._now = now

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The families, anew for each scrape."""
        wanted = GaugeMetricFamily("sageserve_wanted_instances", "instances that decisions ask for", labels=["pool"])
        for pool in self._book.pools(self._now()):
            wanted.add_metric([pool.pool], pool.would)
        busy, needed, serving = (
            GaugeMetricFamily(name, f"{text}, in instances of the model's fastest type", labels=["region", "model"])
            for name, text in (
                ("sageserve_busy_instances", "what the demand of the last five minutes keeps busy"),
                ("sageserve_needed_instances", "the fewest that keep promises at the demand of the last five minutes"),
                ("sageserve_serving_instances", "capacity that serves"),
            )
        )
        for end in self._book.ends():
            place = [end.region, end.model]
            busy.add_metric(place, round(end.busy, 4))
            needed.add_metric(place, end.needed)
            serving.add_metric(place, round(end.serving, 3))
        yield from (wanted, busy, needed, serving)


class ScrapeTarget(Struct, frozen=True):
    """An engine, as Prometheus' HTTP service discovery wants it."""

    targets: tuple[str, ...]
    labels: dict[str, str]


def scrape_targets(status: Status) -> Iterator[ScrapeTarget]:
    """Engines that can be scraped now, each with the name of its pool; none of a fleet that others run."""
    for one in status.instances:
        scheme, found, place = one.url.partition("://")
        if found and one.state in {"serving", "draining"}:
            host, _, path = place.partition("/")
            below = f"/{path}".rstrip("/") + one.metrics
            elsewhere = {} if below == "/metrics" else {"__metrics_path__": below}
            yield ScrapeTarget((host,), {"pool": one.pool, "__scheme__": scheme, **elsewhere})


class Readiness(Struct, frozen=True):
    """Whether files and batches are taken: leader, standby and alone take them, and unknown (503) cannot."""

    status: str
    queue: QueueRole | None


def routes(
    status: Callable[[], Status],
    decided: Callable[[], dict[tuple[str, str], int]],
    day: Callable[[], DayView],
    more: Sequence[Collector] = (),
) -> list[BaseRoute]:
    """What the control process serves besides files and batches.

    Args:
        status: the present state.
        decided: decisions by (reason, what blocked them), since the process began.
        day: the last 24 hours.
        more: what else is among its metrics.
    """
    registry = CollectorRegistry()
    registry.register(FleetCollector(status, decided))
    for one in more:
        registry.register(one)
    folder = files("sageserve.live.control").joinpath("page")
    page = folder.joinpath("index.html").read_text("utf-8").replace(_SCRIPT, folder.joinpath("day.js").read_text("utf-8"))

    async def as_json(_request: Request) -> Response:
        return Response(msgspec.json.encode(status()), media_type="application/json", headers={"cache-control": "no-store"})

    async def as_day(_request: Request) -> Response:
        return Response(msgspec.json.encode(day()), media_type="application/json", headers={"cache-control": "no-store"})

    async def as_targets(_request: Request) -> Response:
        return Response(msgspec.json.encode(list(scrape_targets(status()))), media_type="application/json")

    async def as_metrics(_request: Request) -> Response:
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def as_ready(_request: Request) -> Response:
        queue = status().queue
        lost = queue is not None and bool(queue.trouble)
        said = Readiness("unknown" if lost else "alone" if queue is None else queue.role, queue)
        return Response(msgspec.json.encode(said), 503 if lost else 200, media_type="application/json")

    async def as_page(_request: Request) -> Response:
        return HTMLResponse(page, headers={"content-security-policy": _POLICY, "cache-control": "no-cache"})

    async def to_page(_request: Request) -> Response:
        return RedirectResponse("/ui")

    return [
        Route("/admin/status", as_json),
        Route("/admin/day", as_day),
        Route("/admin/targets", as_targets),
        Route("/admin/metrics", as_metrics),
        Route("/admin/ready", as_ready),
        Route("/ui", as_page),
        Route("/ui/", to_page),
    ]


_POLICY: Final = (
    "default-src 'none'; connect-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page loads nothing from anywhere and talks to this server alone."""
