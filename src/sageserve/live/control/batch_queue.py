"""Batch work into spare capacity, live: the queue manager over the durable jobs and the clients that wait.

Two kinds of work share one queue per model, due first goes first: jobs of the store, and requests of a batch tier whose client
waits ("flex"). Every endpoint is given what the feed rule allows, and what is old or about to be late goes with interactive
priority, both by the functions the simulator calls. Must not run jobs. Read next: `core/feed.py`, `batches/`, `fleet_view.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Protocol

from sageserve.base.config import Scenario
from sageserve.base.units import Micros
from sageserve.core.feed import FEEDS, FILL, allowance, is_urgent, predicted
from sageserve.core.perf import decode_work, prefill_work
from sageserve.core.signals import SIGNALS
from sageserve.live.control.fleet_view import FleetView
from sageserve.live.wire import Gone, Grant, Wait

ANYWHERE = -1
"""Endpoint of work that is routed like an interactive request."""


@dataclass(frozen=True, slots=True)
class QueueHead:
    """The job of a model that is due first.

    Args:
        deadline: by the loop's clock, microseconds; may be negative for work that is late.
        arrival: likewise.
        tier: code.
        prompt_tokens: as far as it is known.
    """

    deadline: Micros
    arrival: Micros
    tier: int
    prompt_tokens: int


class JobQueue(Protocol):
    """The durable queue, as the batch queue sees it."""

    def waiting(self, model: int) -> int:
        """Jobs of a model that wait."""
        ...

    def head(self, model: int) -> QueueHead | None:
        """The one that is due first; None when none waits, or none is loaded yet."""
        ...

    def launch(self, model: int, endpoint: int) -> None:
        """Take the head and begin to run it at an endpoint, or ANYWHERE."""
        ...


@dataclass(order=True, frozen=True, slots=True)
class _Waiting:
    deadline: Micros
    number: int
    gateway: int
    wait: Wait
    arrival: Micros


class BatchQueue:
    """The batch queue of a live fleet.

    Args:
        scenario: for the feed rule.
        fleet view: for utilisation, and to send grants.
        jobs: the durable part of the queue.
        send: tells a gateway.
        now: the loop's clock.
    """

    def __init__(
        self, scenario: Scenario, view: FleetView, jobs: JobQueue, send: Callable[[int, Grant], bool], now: Callable[[], Micros]
    ) -> None:
        self._rules = scenario.batch
        self._retry_after = scenario.signals.half_life  # nothing is known to free sooner
        self._feed = FEEDS.index(scenario.batch.feed)
        self._kind = SIGNALS.index(scenario.signals.kind)
        self._half_life = float(scenario.signals.half_life)
        self._view = view
        self._jobs = jobs
        self._send = send
        self._now = now
        self._models = len(view.layout.names.models)
        self._waits: list[list[_Waiting]] = [[] for _ in range(self._models)]
        self._alive: set[tuple[int, int]] = set()  # gateway and ticket of every client that waits
        self._made = 0

    def waiting(self) -> tuple[int, ...]:
        """Work that waits, by model."""
        clients = [sum((one.gateway, one.wait.ticket) in self._alive for one in heap) for heap in self._waits]
        return tuple(self._jobs.waiting(model) + clients[model] for model in range(self._models))

    def hear(self, gateway: int, message: Wait | Gone) -> None:
        """A client of a batch tier waits, or does not any more."""
        if isinstance(message, Gone):
            self._alive.discard((gateway, message.ticket))
            return
        now = self._now()
        self._made += 1
        heappush(self._waits[message.model], _Waiting(now + message.patience, self._made, gateway, message, now))
        self._alive.add((gateway, message.ticket))

    def left(self, gateway: int) -> None:
        """A gateway is gone, and the clients that waited there."""
        self._alive = {(at, ticket) for at, ticket in self._alive if at != gateway}

    def run(self) -> None:
        """Refuse who waited too long, promote what is urgent, feed every endpoint."""
        now = self._now()
        for model in range(self._models):
            self._expire(model, now)
            self._promote(model, now)
        for e, row in enumerate(self._view.endpoints):
            if row["feeds"] != 0 and self._view.takes(e):
                self._feed_endpoint(e)

    def _expire(self, model: int, now: Micros) -> None:
        while (first := self._first_wait(model)) is not None and first.deadline <= now:
            self._pop(model, first, Grant(first.wait.ticket, ANYWHERE, retry_after=self._retry_after))

    def _promote(self, model: int, now: Micros) -> None:
        while (head := self._head(model)) is not None:
            e = self._first_open(model)
            if e < 0:
                return
            prefill, decode = self._work(e, head)
            age, slack = now - head.arrival, head.deadline - now
            if not is_urgent(age, slack, prefill + decode, self._rules.promote_after, self._rules.safety):
                return
            self._launch(model, e, routed=True)

    def _feed_endpoint(self, e: int) -> None:
        row = self._view.endpoints[e]
        model = int(row["model"])
        left = self._allowed(e)
        while left > 0 and (head := self._head(model)) is not None:
            prefill, decode = self._work(e, head)
            row["fed_work"] += prefill + decode
            row["fed_tokens"] += head.prompt_tokens + self._view.output_mean[self._cell(model, head.tier)]
            self._launch(model, e, routed=False)
            left -= 1
            if self._feed == FILL:
                left = self._allowed(e)

    def _allowed(self, e: int) -> int:
        row = self._view.endpoints[e]
        seen = predicted(self._kind, row, self._half_life)
        return int(allowance(self._feed, seen, float(row["one_below"]), float(row["two_below"])))

    def _head(self, model: int) -> QueueHead | None:
        job, client = self._jobs.head(model), self._first_wait(model)
        if client is None or (job is not None and job.deadline <= client.deadline):
            return job
        return QueueHead(client.deadline, client.arrival, client.wait.tier, client.wait.prompt_tokens)

    def _launch(self, model: int, e: int, *, routed: bool) -> None:
        job, client = self._jobs.head(model), self._first_wait(model)
        if client is None or (job is not None and job.deadline <= client.deadline):
            self._jobs.launch(model, ANYWHERE if routed else e)
        else:
            self._pop(model, client, Grant(client.wait.ticket, e))

    def _pop(self, model: int, client: _Waiting, grant: Grant) -> None:
        heappop(self._waits[model])
        self._alive.discard((client.gateway, client.wait.ticket))
        self._send(client.gateway, grant)

    def _first_wait(self, model: int) -> _Waiting | None:
        heap = self._waits[model]
        while heap and (heap[0].gateway, heap[0].wait.ticket) not in self._alive:
            heappop(heap)
        return heap[0] if heap else None

    def _first_open(self, model: int) -> int:
        rows = self._view.endpoints
        return next((e for e, row in enumerate(rows) if row["model"] == model and self._view.takes(e)), -1)

    def _work(self, e: int, head: QueueHead) -> tuple[float, float]:
        layout = self._view.layout
        pool = layout.endpoint_pools(e)[0]
        profile = layout.profiles[pool.profile]
        mean = float(self._view.output_mean[self._cell(pool.model, head.tier)])
        return prefill_work(profile, head.prompt_tokens), decode_work(profile, head.prompt_tokens, mean)

    def _cell(self, model: int, tier: int) -> int:
        return model * len(self._view.layout.names.tiers) + tier
