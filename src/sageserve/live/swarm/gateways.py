"""Gateways on paper: the decisions of the real ones, and clients and engines that are called instead of connected to.

Routing, admission, retries, waiting for spare capacity and what is reported are the live code; here is only what an exchange
does between them, without HTTP. Every request has one fate, of which `laws.py` is told. Read next: `engines.py`, `wires.py`;
`live/gateway/exchange.py`, the real one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sageserve.base.units import SECOND, Micros
from sageserve.live.gateway.attempts import Attempts, ask_control, waits_in_vain
from sageserve.live.gateway.context import GatewayContext, Options
from sageserve.live.gateway.keys import Holder
from sageserve.live.gateway.request import ApiCall
from sageserve.live.gateway.targets import Placement, Target
from sageserve.live.swarm.cloud import SwarmCloud
from sageserve.live.swarm.engines import Attempt
from sageserve.live.swarm.ground import StoryGround
from sageserve.live.swarm.laws import Laws
from sageserve.live.swarm.virtual_time import VirtualClock, VirtualProcess
from sageserve.live.swarm.wires import Wires
from sageserve.live.wire import ANYWHERE, VERSION, Grant, Hello, Refusal, RoutingTable, ToControl, ToGateway, Wait

LOOK_S: Final = 2.0  # real ones look eight times as often, at eight times the price
_WAY: Final[Micros] = 1000
_FIRST_BYTE: Final[Micros] = 600 * SECOND
_ELSEWHERE: Final = frozenset([500, 502, 503])
_ANYBODY: Final = Holder("anybody")


@dataclass(slots=True, eq=False)
class SwarmRequest:
    """What a client asks for.

    Args:
        region: code.
        model: code.
        tier: code.
        prompt: tokens.
        output: tokens.
        poison: what engines do with it instead; empty: nothing.
        told: who is told the status of its answer; 0: the gateway is gone.
        job: it is control's own.
    """

    region: int
    model: int
    tier: int
    prompt: int
    output: int
    poison: str
    told: Callable[[int, bool], None]
    job: bool = False


@dataclass(frozen=True, slots=True)
class Sides:
    """What a gateway has around it."""

    laws: Laws
    wires: Wires
    cloud: SwarmCloud


class SwarmGateway:
    """One gateway process.

    Args:
        ground: it stands on.
        sides: around it.
        number: of the process, like that of no other.
        worker: which of the fleet's gateways it is.
    """

    def __init__(self, ground: StoryGround, sides: Sides, number: int, worker: int) -> None:
        self.number = number
        self.worker = worker
        self.process = VirtualProcess(f"gateway {number}")
        self.cut_until: Micros = 0
        self.table: RoutingTable | None = None
        self.exchanges: dict[SwarmExchange, None] = {}
        self.connected = False
        self.ground = ground
        self.sides = sides
        clock = VirtualClock(ground.loop)
        region = worker % len(ground.layout.names.regions)
        options = Options(region=region, worker=worker, nonce=f"g{number}")
        self.context = GatewayContext(ground.scenario, ground.layout, options=options, clock=clock.now)
        self.context.tell = self._tell
        self.context.controlled = True
        self._asked: dict[SwarmRequest, None] = {}  # connected, and not read yet
        self._next_look: Micros = 0
        ground.loop.tell(self.process, 0, self._look)

    # --- control ---

    def _tell(self, message: ToControl) -> bool:
        return self.connected and self.sides.wires.send(self, message)

    def hear(self, message: ToGateway) -> None:
        """Control said something."""
        if isinstance(message, RoutingTable):
            self.table = message
            self.context.routing.replace(message, self.context.clock())
        elif isinstance(message, Grant | Refusal):
            self.context.waiting.take(message)

    def control_changed(self, there: bool) -> None:
        """The connection to control was made, or is lost."""
        self.connected = there
        if there:
            self.context.waiting.again()
            self._report()

    def _connect(self) -> None:
        if self.ground.loop.now >= self.cut_until and self.sides.wires.connect(self):
            self.connected = True
            self.sides.wires.send(self, Hello(VERSION, self.worker, f"g{self.number}"))
            self.control_changed(True)

    def _report(self) -> None:
        self._tell(self.context.demand.report(len(self.exchanges)))

    def _look(self) -> None:
        """What is due now and then, as in `GatewayProcess`."""
        self.ground.loop.tell(self.process, int(LOOK_S * SECOND), self._look)
        context, now = self.context, self.context.clock()
        if not self.connected:
            self._connect()
        for one in list(self.exchanges):
            one.check(now)
        context.waiting.tidy(now)
        self._report()
        routing = context.routing
        routing.heal(now)
        if routing.known and now >= self._next_look and routing.is_blind(now, context.live.safety.blind_after):
            self._next_look = now + self.ground.scenario.signals.scrape
            routing.look(now)

    # --- requests ---

    def connect(self, request: SwarmRequest, endpoint: int = ANYWHERE) -> None:
        """A client asks; control for an endpoint, if it is its job."""
        self._asked[request] = None
        self.ground.loop.tell(self.process, _WAY, self._begin, request, endpoint)

    def _begin(self, request: SwarmRequest, endpoint: int) -> None:
        del self._asked[request]
        SwarmExchange(self, request).begin(endpoint)

    def end(self) -> None:
        """Its process is gone: its clients see their connections break."""
        self.process.killed = True
        self.sides.wires.cut(self)
        for one in list(self.exchanges):
            self.ground.loop.tell(None, _WAY, one.request.told, 0, False)
            one.leave_engine()
        for request in self._asked:
            self.ground.loop.tell(None, _WAY, request.told, 0, False)


class SwarmExchange:
    """One request on its way, as `Exchange` takes it."""

    def __init__(self, gateway: SwarmGateway, request: SwarmRequest) -> None:
        self.request = request
        self._gateway = gateway
        self._context = gateway.context
        call = ApiCall(_ANYBODY, b"/v1/completions", b"")
        call.model, call.region, call.tier = request.model, request.region, request.tier
        call.prompt, call.stream, call.endpoint = request.prompt, not request.job, ANYWHERE
        self._call = call
        self._placed: Placement | None = None
        self._attempt: Attempt | None = None
        self._attempts: Attempts | None = None
        self._sent: Micros = 0
        self._began = False
        self._ticket = 0

    def begin(self, endpoint: int) -> None:
        """Send it on its way."""
        context, call, request = self._context, self._call, self.request
        self._gateway.exchanges[self] = None
        call.endpoint = endpoint
        call.cell = context.demand.arrived(request.region, request.model, request.tier, request.prompt)
        self._gateway.sides.laws.came(self._gateway.number)
        if context.held[call.tier] and not request.job:
            patience = context.patience[call.tier]
            self._ticket = context.waiting.add(
                lambda ticket: Wait(ticket, call.region, call.model, call.tier, call.prompt, patience, ""), self, context.clock()
            )
        else:
            self._route(endpoint)

    def _route(self, endpoint: int) -> None:
        context = self._context
        target = self._choose_at(endpoint) if endpoint >= 0 else self._choose()
        if target is None:
            if endpoint < 0:
                gateway = self._gateway
                gateway.sides.laws.found_nobody(gateway.number, gateway.table, self._walk())
            self._refuse(counted=True)
            return
        placed = self._weigh(target)
        if not (self.request.job or context.routing.admits(placed)):
            self._refuse(counted=True)
            return
        self._send(placed)

    def granted(self, endpoint: int) -> None:
        """There is room at this endpoint; or it is urgent, and goes ANYWHERE."""
        there = self._choose_at(endpoint) if endpoint != ANYWHERE else None
        target = there or self._choose()
        if target is None:
            self._refuse(counted=False)
        else:
            self._send(self._weigh(target))

    def waited_in_vain(self, retry_after: Micros) -> None:
        """It is to come again later."""
        self._refuse(counted=False)

    def _walk(self) -> list[int]:
        return self._context.routing.walk[self._call.region][self._call.model][self._call.tier]

    def _choose(self) -> Target | None:
        call = self._call
        walk, now = self._walk(), self._context.clock()
        return self._context.routing.choose(walk, now, prompt=call.prompt, region=call.region, tier=call.tier)

    def _choose_at(self, endpoint: int) -> Target | None:
        return self._context.routing.choose_at(endpoint, prompt=self._call.prompt, tier=self._call.tier)

    def _weigh(self, target: Target) -> Placement:
        call = self._call
        return self._context.routing.weigh(target, call.prompt, call.model, call.tier)

    def _send(self, placed: Placement) -> None:
        gateway, request = self._gateway, self.request
        gateway.sides.laws.sent(gateway.number, gateway.table, placed.target.row)
        self._context.routing.place(placed)
        self._placed, self._sent, self._began = placed, self._context.clock(), False
        attempt = Attempt(
            self._gateway.process, request.prompt, request.output, request.poison, lambda: None, lambda _: None, lambda _: None
        )
        attempt.began = lambda: self._first(attempt)
        attempt.done = lambda status: self._done(attempt, status)
        attempt.broke = lambda why: self._broke(attempt, why)
        self._attempt = attempt
        gateway.sides.cloud.send(placed.target.row, attempt)

    # --- what engines say ---

    def _first(self, attempt: Attempt) -> None:
        if attempt is self._attempt and self._placed is not None:
            self._began = True
            self._placed.target.heard = self._context.clock()
            self._context.routing.begin(self._placed)

    def _done(self, attempt: Attempt, status: int) -> None:
        if attempt is not self._attempt:
            return
        if status in _ELSEWHERE:
            if status == 500:
                self._failed().broke += 1
            if self._again():
                return
        if self._attempts is not None:
            self._attempts.answered(status)
        self._finish(status)

    def _broke(self, attempt: Attempt, why: str) -> None:
        if attempt is not self._attempt or self._placed is None:
            return
        if self._began and self._call.stream:
            self._end(502)
        elif why == "connection refused":
            self._context.trouble(self._placed.target, why)
            if not self._again():
                self._end(503)
        else:
            attempts = self._failed()
            if attempts.break_off(self._placed.target, b"swarm") or not self._again():
                self._end(502)

    def check(self, now: Micros) -> None:
        """Go elsewhere where waiting is in vain."""
        placed, context = self._placed, self._context
        if placed is None or self._began:
            return
        if waits_in_vain(context, placed, self._call, self._sent, now):
            target = placed.target
            if not self._again():
                ask_control(context, target, now)
            elif target.well and target.trouble == 0:
                context.trouble(target, "nothing came from it", mute=True)
        elif now - self._sent > _FIRST_BYTE:
            self._end(504)

    def _failed(self) -> Attempts:
        if self._attempts is None:
            self._attempts = Attempts(self._context)
        return self._attempts

    def _again(self) -> bool:
        placed, context = self._placed, self._context
        assert placed is not None
        walk = [self._call.endpoint] if self._call.endpoint >= 0 else self._walk()
        target = self._failed().next(placed.target, walk, context.clock())
        if target is None:
            return False
        self.leave_engine()
        context.routing.end(placed, None, context.clock())
        self._send(self._weigh(target))
        return True

    def leave_engine(self) -> None:
        """Hang up on the engine."""
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            self._gateway.sides.cloud.leave(attempt)

    # --- its fate ---

    def _finish(self, status: int) -> None:
        self._free(self.request.output if status < 400 else None)
        took = self._context.clock() - self._sent
        self._context.demand.finished(self._call.cell, self.request.prompt, self.request.output, took)
        self._tell(status, from_engine=True)

    def _refuse(self, *, counted: bool) -> None:
        if counted:
            self._context.demand.refused(self._call.cell)
            self._gateway.sides.laws.refused(self._gateway.number)
        self._end(503)

    def _end(self, status: int) -> None:
        self.leave_engine()
        self._free(None)
        self._tell(status, from_engine=False)

    def _free(self, output: int | None) -> None:
        self._gateway.exchanges.pop(self, None)
        placed, self._placed = self._placed, None
        self._attempt = None
        if placed is not None:
            self._context.routing.end(placed, output, self._context.clock())
        if self._ticket:
            self._context.waiting.leave(self._ticket)

    def _tell(self, status: int, *, from_engine: bool) -> None:
        self._gateway.ground.loop.tell(None, _WAY, self.request.told, status, from_engine)
