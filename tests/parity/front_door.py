"""The live plane in virtual time: its fleet view, batch queue and gateway decide, the engines of the naive reference serve.

Everything between an arrival and an engine's queue is the live code: `RoutingState` routes and admits, `FlexQueue` and
`BatchQueue` hold and feed, `FleetView` turns reports and scrapes into signals and tables. What is said between them goes through
the wire's encoding, and takes no time. Only what the outside does is played here: clients, the store of jobs, engines, metrics.
Read next: `test_front_door.py`, which sets it beside the simulator's kernel; `tests/sim/reference.py` for the engines' world.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sageserve.base.config import KeySettings, LimitSettings, Scenario
from sageserve.base.units import Micros
from sageserve.core.layout import Layout
from sageserve.live.actuators.base import EngineAddress
from sageserve.live.control.batch_queue import BatchQueue, QueueHead
from sageserve.live.control.fleet_view import FleetView
from sageserve.live.control.opened import Callbacks
from sageserve.live.gateway.api_error import ApiError
from sageserve.live.gateway.demand_counters import DemandCounters
from sageserve.live.gateway.door_queue import DoorQueue, Knock
from sageserve.live.gateway.flex_queue import FlexQueue
from sageserve.live.gateway.gateway_shares import GatewayShares
from sageserve.live.gateway.keys import KeyRing, hash_of
from sageserve.live.gateway.routing_state import RoutingState
from sageserve.live.gateway.targets import Placement, Target
from sageserve.live.wire import (
    ANYWHERE,
    VERSION,
    Gone,
    Grant,
    Hello,
    Refusal,
    RoutingTable,
    ToControl,
    ToGateway,
    Wait,
    decode_to_control,
    decode_to_gateway,
    encode,
)
from sageserve.sim.kernel.rows.shares import Sharers
from sageserve.sim.kernel.state import HELD, Setup
from tests.sim.reference import Reference
from tests.sim.reference_apart import Endpoint
from tests.sim.reference_engine import NO_TIME, Job, Outcome
from tests.sim.reference_ranks import Instance

GATEWAY = 0


@dataclass(slots=True)
class Client:
    """A client of a batch tier that waits for its turn."""

    plane: "LivePlane"
    job: Job
    ticket: int = 0

    def granted(self, endpoint: int) -> None:
        self.plane.go(self.job, endpoint)

    def waited_in_vain(self, retry_after: Micros) -> None:
        assert retry_after > 0
        self.plane._shed(self.job, "refused while it waited")


@dataclass(slots=True, eq=False)
class Held:
    """A client that waits for an endpoint without instances."""

    plane: "LivePlane"
    job: Job

    def let_in(self) -> bool:
        return self.plane._route(self.job)

    def refuse(self, problem: ApiError) -> None:
        raise AssertionError(f"no start fails here, and nobody waits ten minutes: {problem}")


class Store:
    """Jobs in deadline order; those of a batch that is over are given up, as `BatchLifecycle` does."""

    def __init__(self, plane: "LivePlane", models: int) -> None:
        self.plane = plane
        self.jobs: list[list[Job]] = [[] for _ in range(models)]

    def add(self, model: int, job: Job) -> None:
        self.jobs[model].append(job)
        self.jobs[model].sort(key=lambda one: (one.deadline, one.row))

    def waiting(self, model: int) -> int:
        return len(self.jobs[model])

    def heads(self, model: int) -> list[QueueHead]:
        heads: dict[str, Job] = {}
        for job in list(self.jobs[model]):
            if self.plane._is_over(job):
                self.jobs[model].remove(job)
            else:
                heads.setdefault(self.plane._shares.owner(job), job)
        return [
            QueueHead(job.deadline, job.arrival, self.plane._region[job.row], job.tier, job.prompt, owner)
            for owner, job in heads.items()
        ]

    def launch(self, model: int, endpoint: int, owner: str) -> None:
        job = next(one for one in self.jobs[model] if self.plane._shares.owner(one) == owner)
        self.plane.counts["taken before what is due sooner"] += job is not self.jobs[model][0]
        self.jobs[model].remove(job)
        self.plane.go(job, endpoint)

    def tell(self, ended: Callable[[int], None], loaded: Callable[[], None]) -> None:
        """Here the gateways' reports tell it, at once."""


class LivePlane(Reference):
    """One gateway and one control process over the reference's engines.

    Args:
        scenario: with one engine per model and region, and enough memory: a gateway does not see preemptions.
        layout: of its strategy.
        setup: the kernel's view of the same.
        requests: REQUEST rows; written to.
        clients: batch work comes from clients that wait, not from the store.
        sharers: owners of the requests, whose keys are named by their numbers and weigh what the scenario's tenants do.
    """

    def __init__(
        self,
        scenario: Scenario,
        layout: Layout,
        setup: Setup,
        requests: NDArray[Any],
        *,
        clients: bool,
        sharers: Sharers | None = None,
    ) -> None:
        super().__init__(setup, requests, sharers=sharers)
        self._clients = clients
        self._placed: dict[int, Placement] = {}
        self._tickets: dict[int, int] = {}
        self._store = Store(self, setup.models)
        self.routing = RoutingState(scenario, layout)
        keys = [KeySettings(name=name, sha256=hash_of(name.encode())) for name in scenario.tenants]
        self.keys = KeyRing(keys, layout.names.tiers, weights=scenario.weights())
        self.shares = GatewayShares(self.routing, self.keys)
        self.demand = DemandCounters(scenario, layout, self.routing)
        self.flex = FlexQueue(self._to_control)
        self.door = DoorQueue(layout, self.routing, LimitSettings())
        self.door.asked = self._report
        self._knocking: range | list[int] = []  # models whose first doors are emptied with the next table
        told = Callbacks(self._to_gateway, _address, lambda _: None, lambda: (0,) * setup.models, asked=self._note_asked)
        self.view = FleetView(scenario, layout, "epoch", lambda: self.now, told)
        self.queue = BatchQueue(scenario, self.view, self._store, self._to_gateway, lambda: self.now)
        self._to_control(Hello(VERSION, GATEWAY, "gateway"))
        self._report()

    # ---- what gateway and control tell each other

    def _to_control(self, message: ToControl) -> bool:
        heard = decode_to_control(encode(message))
        if isinstance(heard, Wait | Gone):
            self.queue.hear(GATEWAY, heard)
        else:
            self.view.heard(GATEWAY, heard)
        return True

    def _to_gateway(self, gateway: int, message: ToGateway) -> bool:
        assert gateway == GATEWAY
        heard: ToGateway = decode_to_gateway(encode(message))
        if isinstance(heard, RoutingTable):
            self.routing.replace(heard, self.now)
            knocking, self._knocking = self._knocking, []
            for model in knocking:
                self._doors[model] = self._knock(self._doors[model])
            self.door.replace(heard)
        elif isinstance(heard, Grant | Refusal):
            self.flex.take(heard)
        return True

    def _report(self) -> None:
        self._to_control(self.demand.report(0, self.door.counts()))
        totals = self.view.totals
        self.demand_requests[:], self.demand_tokens[:] = totals.requests, totals.prompt
        self.demand_work[:], self.made_tokens[:], self.could[:] = totals.work, totals.output, totals.could
        self._mixes = totals.mixes

    # ---- what the controller does

    def run_until(self, t: int) -> bool:
        early = super().run_until(t)
        self._report()
        return early

    def open(self, i: int) -> None:
        super().open(i)
        self.view.open(i)

    def _empty(self, model: int) -> None:
        self._knocking = [model]  # once the gateway hears of who opened

    def _note_asked(self) -> None:
        self.asked = True
        (seen,) = self.view.doors(looked=False)
        assert sum(seen.held) > 0

    @property
    def held(self) -> NDArray[np.int64]:
        """As the reference counts those at the first door, and control those that it heard of."""
        return super().held + self.view.held

    def drain(self, i: int) -> bool:
        empty = super().drain(i)
        self.view.close(i)
        return empty

    @property
    def mixes(self) -> NDArray[np.float64]:
        """As the gateway counted them."""
        return self._mixes

    # ---- a request's way

    def _count_demand(self, job: Job) -> None:
        self.demand.arrived(self._region[job.row], self._model[job.row], job.tier, job.prompt)

    def _hold(self, job: Job) -> None:
        region, model = self._region[job.row], self._model[job.row]
        if self._clients:
            waiting = Client(self, job)
            patience, owner = job.deadline - self.now, self._shares.owner(job)
            self._tickets[job.row] = self.flex.add(
                lambda ticket: Wait(ticket, region, model, job.tier, job.prompt, patience, owner),
                waiting,
                self.now,
            )
        else:
            self._store.add(model, job)
            self.queue.run()

    def _wait_or_shed(self, job: Job) -> None:
        if self._asleep(job) is None or (self.setup.admission and self._tiers[job.tier].batch):
            super()._wait_or_shed(job)
            return
        self._put(job, HELD)
        region, model = self._region[job.row], self._model[job.row]
        walk = self.routing.walk[region][model][job.tier]
        try:
            assert self.door.hold(Held(self, job), Knock(self._cell(job), job.tier, job.prompt, 0), walk, self.now)
            self.counts["held for one that sleeps"] += 1
        except ApiError:
            self._shed(job, "shed")
            self.counts["no room to be held"] += 1

    def _choose(self, job: Job) -> Target | None:
        region = self._region[job.row]
        walk = self.routing.walk[region][self._model[job.row]][job.tier]
        return self.routing.choose(walk, self.now, prompt=job.prompt, region=region, tier=job.tier)

    def _choose_at(self, endpoint: int, job: Job) -> Target | None:
        return self.routing.choose_at(endpoint, prompt=job.prompt, tier=job.tier)

    def _route(self, job: Job, *, judged: bool = False) -> bool:
        target = self._choose(job)
        if target is None:
            return False
        model = self._model[job.row]
        placed = self.routing.weigh(target, job.prompt, model, job.tier)
        if judged and not self.shares.admits(placed, self.keys.account(self._shares.owner(job)), model, self.now):
            self.counts["turned away for others"] += self.routing.admits(placed)
            return False
        if judged and self.setup.admission and self._tiers[job.tier].batch:
            self._charge_turn(job)
        self._send(job, placed)
        return True

    def go(self, job: Job, endpoint: int) -> None:
        """The batch queue lets a job go, to an endpoint or ANYWHERE: then it is promoted."""
        target = self._choose(job) if endpoint == ANYWHERE else self._choose_at(endpoint, job)
        assert target is not None, "nothing is let go while nothing is open"
        if endpoint == ANYWHERE:
            job.queue = len(self._tiers)
        self.counts["promoted" if endpoint == ANYWHERE else "fed"] += 1
        self._send(job, self.routing.weigh(target, job.prompt, self._model[job.row], job.tier))

    def _send(self, job: Job, placed: Placement) -> None:
        assert self._emptiest(placed.target.endpoint, job) == placed.target.row
        self._place(job, placed.target.endpoint)
        self.routing.place(placed)
        self._placed[job.row] = placed

    def _emptiest(self, e: int, job: Job) -> int:
        target = self._choose_at(e, job)
        assert target is not None
        return target.row

    # ---- what engines say

    def _settle(self, outcome: Outcome, engine: Instance, endpoint: Endpoint) -> None:
        super()._settle(outcome, engine, endpoint)
        assert not outcome.preempted, "a gateway does not see this: give the case more memory"
        for job in outcome.prompts:
            self.routing.begin(self._placed[job.row])
        for job in outcome.finished:
            self.demand.finished(self._demand_cell(job), job.prompt, job.output, 0.0)
            self.routing.end(self._placed.pop(job.row), job.output, self.now)
            if (ticket := self._tickets.pop(job.row, None)) is not None:
                self.flex.leave(ticket)
        if outcome.finished:
            self._report()

    def _demand_cell(self, job: Job) -> int:
        return (self._region[job.row] * self.setup.models + self._model[job.row]) * len(self._tiers) + job.tier

    def _feed(self, e: int, at_most: int = NO_TIME) -> None:
        """Something finished at endpoint e: control heard of it."""
        self.queue.run()

    def _scrape(self) -> None:
        self._report()
        for i, engine in enumerate(self._engines):
            if self._open[i] or self._draining[i]:
                self.view.saw(i, kv=engine.used_at_start / engine.profile.kv_tokens, in_flight=engine.inside)
        self._knocking = range(self.setup.models)
        self.view.refresh()
        self._last_scrape = self.now
        self.queue.scraped()
        self._next_scrape = self.now + int(self.setup.scrape)

    # ---- what can be seen

    @property
    def batch_waiting(self) -> NDArray[np.int64]:
        return np.array(self.queue.waiting(), np.int64)

    @property
    def endpoints(self) -> NDArray[Any]:
        rows = super().endpoints
        for name in ("seen", "kv", "busy"):
            rows[name] = self.view.endpoints[name]
        return rows


def _address(instance: int) -> EngineAddress:
    return EngineAddress(f"http://10.0.0.{instance}:8000", "")
