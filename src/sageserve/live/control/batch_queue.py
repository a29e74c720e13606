"""Batch work into spare capacity, live: the queue manager over the durable jobs and the clients that wait.

Two kinds of work share one queue per model: jobs of the store, and requests of a batch tier whose client waits ("flex"). Of each
owner what is due first goes first; among owners their shares decide. Decides nothing itself: `core/fair_share.py` says who is
next, `core/feed.py` whether there is room, which the simulator calls at the same moments: when a job comes, when a place came
free, after each scrape. Must not run jobs. Read next: `core/feed.py`, `batches/`, `fleet_view.py`.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from sageserve.base.config import Scenario
from sageserve.base.units import NEVER, Micros
from sageserve.core.fair_share import FairShare
from sageserve.core.feed import DIRECT, first_open, is_over, is_urgent, note_fed, pick_feed, share, share_left
from sageserve.core.perf import request_work
from sageserve.core.signals import SIGNALS
from sageserve.live.control.fleet_view import FleetView
from sageserve.live.wire import ANYWHERE, Gone, Grant, Refusal, Wait

_TOGETHER = 1000  # us, as gateways have it: work of one endpoint that is over within it ended with one iteration


@dataclass(frozen=True, slots=True)
class QueueHead:
    """The job of a model and an owner that is due first.

    Args:
        deadline: by the loop's clock, microseconds; may be negative for work that is late.
        arrival: likewise.
        region: where it came in.
        tier: code.
        prompt_tokens: as far as it is known.
        owner: whose it is.
    """

    deadline: Micros
    arrival: Micros
    region: int
    tier: int
    prompt_tokens: int
    owner: str = ""


class JobQueue(Protocol):
    """The durable queue, as the batch queue sees it."""

    def waiting(self, model: int) -> int:
        """Jobs of a model that wait."""
        ...

    def heads(self, model: int) -> Sequence[QueueHead]:
        """Of each owner the one that is due first, as far as they are loaded and may begin, due first goes first."""
        ...

    def launch(self, model: int, endpoint: int, owner: str) -> None:
        """Take an owner's head and begin to run it at an endpoint, or ANYWHERE."""
        ...

    def tell(self, ended: Callable[[int], None], loaded: Callable[[], None]) -> None:
        """Call the first from now on with the endpoint of each job that is over there, the second when jobs may begin again."""
        ...


@dataclass(order=True, frozen=True, slots=True)
class _Waiting:
    deadline: Micros
    number: int
    gateway: int
    wait: Wait
    arrival: Micros


class _Turn(NamedTuple):
    """What an owner has due first."""

    head: QueueHead
    client: _Waiting | None  # who waits for it; None: it is a job of the store


class BatchQueue:
    """The batch queue of a live fleet.

    Args:
        scenario: for the feed rule.
        fleet view: for utilisation.
        jobs: the durable part of the queue.
        send: tells a gateway.
        now: the loop's clock.

    An owner's weight is that of its keys in the scenario, or of the tenant of that name.
    """

    def __init__(
        self,
        scenario: Scenario,
        view: FleetView,
        jobs: JobQueue,
        send: Callable[[int, Grant | Refusal], bool],
        now: Callable[[], Micros],
    ) -> None:
        self._rules = scenario.batch
        self._retry_after = scenario.signals.half_life  # nothing is known to free sooner
        self._feed = view.layout.feed
        self._kind = SIGNALS.index(scenario.signals.kind)
        self._half_life = float(scenario.signals.half_life)
        self._view = view
        self._jobs = jobs
        self._send = send
        self._now = now
        self._models = len(view.layout.names.models)
        self._waits: list[dict[str, list[_Waiting]]] = [{} for _ in range(self._models)]  # heaps, by owner
        self._shares = [FairShare() for _ in range(self._models)]
        self._weights = scenario.weights()
        self._alive: set[tuple[int, int]] = set()  # gateway and ticket of every client that waits
        self._made = 0
        self._offered = [0] * self._models  # of the jobs that wait, how many were offered to an endpoint when they came
        self._seen_freed = view.freed.copy()
        self.news = asyncio.Event()  # set when `run` has something to do before its next turn
        self._free = np.zeros(view.layout.endpoints, np.int64)  # places that came free since, as `ended` was told
        self._ahead = np.zeros(view.layout.endpoints, np.int64)  # those of them that were asked for before they were reported
        self._ended_at = np.full(view.layout.endpoints, -NEVER, np.int64)
        self._granted: dict[tuple[int, int], int] = {}  # endpoint of clients that were let go
        self._owed = np.zeros(
            view.layout.endpoints, np.int64
        )  # places that nothing could be taken for: jobs wait, none is loaded
        jobs.tell(self.ended, self.news.set)

    def waiting(self) -> tuple[int, ...]:
        """Work that waits, by model."""
        clients = [
            sum((one.gateway, one.wait.ticket) in self._alive for heap in heaps.values() for one in heap) for heaps in self._waits
        ]
        return tuple(self._jobs.waiting(model) + clients[model] for model in range(self._models))

    def slack(self) -> tuple[Micros | None, ...]:
        """Microseconds to the deadline that comes first of what waits and may begin now, by model; below 0: it has passed."""
        now = self._now()
        firsts = [[turn.head.deadline for turn in self._turns(model).values()] for model in range(self._models)]
        return tuple(min(deadlines) - now if deadlines else None for deadlines in firsts)

    # --- when the feed rule is asked ---

    def hear(self, gateway: int, message: Wait | Gone) -> None:
        """A client of a batch tier waits, or does not any more."""
        if isinstance(message, Gone):
            self._alive.discard((gateway, message.ticket))
            self.ended(self._granted.pop((gateway, message.ticket), ANYWHERE))
            return
        now = self._now()
        self._made += 1
        heap = self._waits[message.model].setdefault(message.owner, [])
        heappush(heap, _Waiting(now + message.patience, self._made, gateway, message, now))
        self._alive.add((gateway, message.ticket))
        self._offer(message.region, message.model, message.tier)

    def left(self, gateway: int) -> None:
        """A gateway is gone, and the clients that waited there."""
        self._alive = {(at, ticket) for at, ticket in self._alive if at != gateway}
        self._granted = {key: e for key, e in self._granted.items() if key[0] != gateway}

    def ended(self, endpoint: int) -> None:
        """Work that was fed to an endpoint is over: a place came free, which gateways would report a moment later.

        What ends within a millisecond ended with one iteration, and is asked for once, as gateways count it. Where an instance
        drains only gateways know whether it ran there, which frees no place.
        """
        now = self._now()
        if endpoint != ANYWHERE and not self._view.drains(endpoint) and now - int(self._ended_at[endpoint]) > _TOGETHER:
            self._ended_at[endpoint] = now
            self._free[endpoint] += 1
            self.news.set()

    def run(self) -> None:
        """What is due between two scrapes: refuse who waited too long, offer jobs that came, feed where a place came free."""
        for model in range(self._models):
            self._expire(model)
            self._take_in(model)
        for e in np.flatnonzero((self._view.freed > self._seen_freed) | (self._free > 0) | (self._owed > 0)).tolist():
            self._feed_places(e, self._places(e) + int(self._owed[e]))
        self._seen_freed = self._view.freed.copy()

    def _feed_places(self, e: int, places: int) -> None:
        """Feed an endpoint once for each place; those that no job is loaded for are kept until one is."""
        model, self._owed[e] = int(self._view.endpoints[e]["model"]), 0
        for left in range(places, 0, -1):
            if not self._feed_endpoint(e):  # the next place would find what this one found
                if self._jobs.waiting(model) > 0 and not self._turns(model):
                    self._owed[e] = left
                return

    def scraped(self) -> None:
        """There are new signals: promote what is urgent, feed every endpoint."""
        self._ahead[:] = 0
        for model in range(self._models):
            self._promote(model)
        for e in range(self._view.layout.endpoints):
            self._feed_endpoint(e)

    def _places(self, e: int) -> int:
        """Places that came free at an endpoint: as gateways report them, less those that were asked for before."""
        reported = int(self._view.freed[e] - self._seen_freed[e])
        known = min(reported, int(self._ahead[e]))
        places = max(reported - known, int(self._free[e]))
        self._ahead[e] += places - reported
        self._free[e] = 0
        return places

    # --- the queue ---

    def _turns(self, model: int) -> dict[str, _Turn]:
        """What each owner has due first, in order of deadlines, after refusing who waited too long."""
        self._expire(model)
        turns = {job.owner: _Turn(job, None) for job in self._jobs.heads(model)}
        self._offered[model] = min(self._offered[model], self._jobs.waiting(model))  # jobs of a batch that is over are gone
        for owner in self._waits[model]:
            client = self._first_wait(model, owner)
            if client is not None and (owner not in turns or client.deadline < turns[owner].head.deadline):
                wait = client.wait
                head = QueueHead(client.deadline, client.arrival, wait.region, wait.tier, wait.prompt_tokens, owner)
                turns[owner] = _Turn(head, client)
        if len(turns) < 2:
            return turns
        return dict(sorted(turns.items(), key=lambda one: (one[1].head.deadline, one[1].client.number if one[1].client else 0)))

    def _next(self, model: int) -> _Turn | None:
        """Whose turn it is."""
        turns = self._turns(model)
        if not turns:
            return None
        return turns[self._shares[model].first(turns)]

    def _expire(self, model: int) -> None:
        for owner in list(self._waits[model]):
            while (first := self._first_wait(model, owner)) is not None and is_over(first.deadline, self._now()):
                self._pop(model, first, Refusal(first.wait.ticket, self._retry_after))
            if first is None:
                del self._waits[model][owner]

    def _launch(self, model: int, e: int, turn: _Turn) -> None:
        """Let work go to an endpoint, or ANYWHERE."""
        head, client = turn
        tokens = head.prompt_tokens + self._mean(model, head.tier)
        self._shares[model].charge(head.owner, self._weights.get(head.owner, 1.0), tokens)
        if client is None:
            self._jobs.launch(model, e, head.owner)
            self._offered[model] = max(0, self._offered[model] - 1)
        else:
            self._granted[client.gateway, client.wait.ticket] = e
            self._pop(model, client, Grant(client.wait.ticket, e))

    def _pop(self, model: int, client: _Waiting, decision: Grant | Refusal) -> None:
        heappop(self._waits[model][client.wait.owner])
        self._alive.discard((client.gateway, client.wait.ticket))
        self._send(client.gateway, decision)

    def _first_wait(self, model: int, owner: str) -> _Waiting | None:
        heap = self._waits[model][owner]
        while heap and (heap[0].gateway, heap[0].wait.ticket) not in self._alive:
            heappop(heap)
        return heap[0] if heap else None

    # --- the feed rule ---

    def _take_in(self, model: int) -> None:
        """Offer each job that came since the last time; what comes back from a failed call comes anew."""
        new = self._jobs.waiting(model) - self._offered[model]
        while new > 0 and (jobs := self._jobs.heads(model)):
            new = (
                new - 1 if self._offer(jobs[0].region, model, jobs[0].tier) else 0
            )  # what one was refused the others would be, too
        self._offered[model] = self._jobs.waiting(model) - max(0, new)  # those that are not loaded yet are still to be offered

    def _offer(self, region: int, model: int, tier: int) -> bool:
        """Work came: one job for the least utilised endpoint of its walk, if that has room; whether it took one."""
        if self._feed == DIRECT:
            return self._route_head(model)
        walk = self._walk(region, model, tier)
        e = pick_feed(self._kind, self._half_life, self._view.endpoints, walk, 0, len(walk))
        return e >= 0 and self._feed_some(e, 1) > 0

    def _route_head(self, model: int) -> bool:
        turn = self._next(model)
        if turn is None:
            return False
        self._launch(model, ANYWHERE, turn)
        return True

    def _promote(self, model: int) -> None:
        """Let go what is urgent, whoever's it is."""
        while (turn := self._urgent(model)) is not None:
            self._launch(model, ANYWHERE, turn)

    def _urgent(self, model: int) -> _Turn | None:
        turns = self._turns(model)
        if turns:
            self._shares[model].first(turns)  # whose turn it is does not matter, but who waits does: nobody else is owed anything
        return next((turn for turn in turns.values() if self._is_urgent(model, turn.head)), None)

    def _is_urgent(self, model: int, head: QueueHead) -> bool:
        walk = self._walk(head.region, model, head.tier)
        e = first_open(self._view.endpoints, walk, 0, len(walk))
        if e < 0:
            return False
        age, slack = self._now() - head.arrival, head.deadline - self._now()
        return bool(is_urgent(age, slack, self._work(e, head), self._rules.promote_after, self._rules.safety))

    def _feed_endpoint(self, e: int) -> int:
        """Feed an endpoint that takes batch work; how many jobs it was given."""
        row = self._view.endpoints[e]
        return self._feed_some(e, NEVER) if row["feeds"] != 0 and self._view.takes(e) else 0

    def _feed_some(self, e: int, limit: int) -> int:
        row = self._view.endpoints[e]
        model, given = int(row["model"]), 0
        left = min(share(self._feed, self._kind, row, self._half_life), limit)
        while left > 0 and (turn := self._next(model)) is not None:
            head = turn.head
            work = self._work(e, head)
            self._launch(model, e, turn)
            note_fed(row, work, head.prompt_tokens + self._mean(model, head.tier))
            given += 1
            left = min(share_left(self._feed, self._kind, row, self._half_life, left - 1), limit - given)
        return given

    def _walk(self, region: int, model: int, tier: int) -> NDArray[np.int32]:
        """The endpoints that work of a cell may go to and that can be sent work now, nearest first."""
        walk: NDArray[Any] = self._view.layout.walk[region, model, tier]
        return np.array([e for e in walk.tolist() if e >= 0 and self._view.takes(e)], np.int32)

    def _work(self, e: int, head: QueueHead) -> float:
        """Engine microseconds that the head is expected to need there."""
        mean = self._mean(int(self._view.endpoints[e]["model"]), head.tier)
        return float(request_work(self._view.first_engine(e), head.prompt_tokens, 0, mean))

    def _mean(self, model: int, tier: int) -> float:
        return float(self._view.output_mean[model * len(self._view.layout.names.tiers) + tier])
