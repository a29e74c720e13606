"""One request's way: choose, send, try elsewhere while nothing was passed on, and let go of everything at the end.

Until the first byte for the client an engine's failure is answered by another instance, then by another region; after it by an
error event and an aborted body, never by a clean end; `attempts.py` says who is charged with it. A client that leaves closes the
engine's connection at once. Knows no socket of its own. Read next: `routing_state.py` for the choice, `relay.py` for the answer.
"""

from typing import Final

from sageserve.base.units import MINUTE, SECOND, Micros
from sageserve.live.gateway.api_error import ApiError, broken, no_capacity, overloaded
from sageserve.live.gateway.attempts import Attempts, ask_control, note_pace, waits_in_vain
from sageserve.live.gateway.context import GatewayContext
from sageserve.live.gateway.door_queue import Knock
from sageserve.live.gateway.downstream import Downstream
from sageserve.live.gateway.framing import ResponseHead
from sageserve.live.gateway.record import LEFT, RequestRecord
from sageserve.live.gateway.relay import AnswerDone, ClientReply, EventRelay, RawRelay, Relay, WholeRelay, fit_relay
from sageserve.live.gateway.renaming import with_model
from sageserve.live.gateway.request import HttpRequest, read_call
from sageserve.live.gateway.targets import Placement, Target
from sageserve.live.gateway.upstream import EngineConnection
from sageserve.live.wire import ANYWHERE, Wait

FIRST_BYTE: Final = 10 * MINUTE  # as long as OpenAI's clients wait; an engine may take minutes over a long unstreamed answer
PING: Final = 10 * SECOND  # of silence in a stream: proxies on the way may cut connections that were idle for 15 s
_ELSEWHERE: Final = frozenset([429, 500, 502, 503, 504])  # answers of engines that another one may not give


class Exchange:
    """A request and its answer.

    Args:
        context: what all requests share.
        client: who asked.
        one: the request, complete.
    """

    __slots__ = (
        "_attempts",
        "_call",
        "_client",
        "_connection",
        "_context",
        "_one",
        "_over",
        "_pinged",
        "_placed",
        "_quiet",
        "_record",
        "_relay",
        "_renewed",
        "_reply",
        "_sent",
        "_status",
        "_ticket",
    )

    def __init__(self, context: GatewayContext, client: Downstream, one: HttpRequest) -> None:
        self._context = context
        self._client = client
        self._one = one
        self._over = False
        self._connection: EngineConnection | None = None
        self._placed: Placement | None = None
        self._relay: Relay | None = None
        self._status = 0
        self._sent: Micros = 0
        self._quiet: Micros = one.arrived  # since when nothing came from the engine
        self._pinged: Micros = one.arrived
        self._ticket = 0
        self._attempts: Attempts | None = None  # those in vain
        self._renewed = False

    def begin(self) -> None:
        """Read the request and send it on its way.

        Raises:
            ApiError: it is refused.
        """
        context = self._context
        call = self._call = read_call(context, self._one)
        record = self._record = RequestRecord(context, call, self._one)
        self._reply = ClientReply(self._client, record)
        context.exchanges[self] = None
        try:
            if context.held[call.tier] and context.controlled and call.endpoint < 0 and not call.holder.internal:
                self._queue()  # control's own jobs have waited already
            else:
                self._route()
        except ApiError as problem:
            self._over = True
            del context.exchanges[self]
            record.refused(problem.status)
            raise

    def _queue(self) -> None:
        """Wait for spare capacity: control says when."""
        call, now = self._call, self._one.arrived
        patience = min(self._context.patience[call.tier], FIRST_BYTE)
        self._ticket = self._context.waiting.add(
            lambda ticket: Wait(ticket, call.region, call.model, call.tier, call.prompt, patience, call.payer.name), self, now
        )

    def granted(self, endpoint: int) -> None:
        """There is room for it at this endpoint; or it is urgent, and goes ANYWHERE."""
        now = self._context.clock()
        if (target := self._choose(now, endpoint) or self._choose(now)) is None:
            self.refuse(no_capacity("The instance that was to serve this request is gone."))
        else:
            self._send(self._weigh(target), now)

    def waited_in_vain(self, retry_after: Micros) -> None:
        """It is to come again later."""
        self.refuse(overloaded("No spare capacity came free in time; flex requests use what others leave.", retry_after))

    def _walk(self) -> list[int]:
        call = self._call
        return self._context.routing.walk[call.region][call.model][call.tier]

    def _choose(self, now: Micros, endpoint: int = ANYWHERE) -> Target | None:
        call, routing = self._call, self._context.routing
        if endpoint != ANYWHERE:
            return routing.choose_at(endpoint, call.beginning, prompt=call.prompt, tier=call.tier)
        return routing.choose(self._walk(), now, call.beginning, prompt=call.prompt, region=call.region, tier=call.tier)

    def _weigh(self, target: Target) -> Placement:
        call = self._call
        return self._context.routing.weigh(target, call.prompt, call.model, call.tier, call.beginning.found(target.prompts))

    def _route(self) -> None:
        context, call = self._context, self._call
        forced = call.endpoint >= 0
        target = self._choose(self._one.arrived, call.endpoint if forced else ANYWHERE)
        if target is None:
            knock = Knock(call.cell, call.tier, call.prompt, len(call.body))
            if not forced and context.controlled and context.door.hold(self, knock, self._walk(), self._one.arrived):
                return
            context.demand.refused(call.cell)
            raise no_capacity(context.routing.note or f"No instance of {context.names.models[call.model]} is open at the moment.")
        placed = self._weigh(target)
        has_waited = context.held[call.tier] and call.holder.internal  # a job was let in when it was queued
        if not (forced or has_waited or context.shares.admits(placed, call.payer, call.model, self._one.arrived)):
            context.demand.refused(call.cell)
            raise context.overload(placed)
        self._send(placed, self._one.arrived)

    def let_in(self) -> bool:
        """An endpoint of its walk has an instance; False when it stays."""
        now = self._context.clock()
        if target := self._choose(now):
            self._send(self._weigh(target), now)
        return target is not None

    def _send(self, placed: Placement, now: Micros) -> None:
        context = self._context
        context.routing.place(placed, self._call.beginning)
        self._placed = placed
        self._sent = self._quiet = now
        self._record.sent(placed, self._sent)
        pool = context.pool(placed.target)
        connection = pool.take()
        if connection is None:
            pool.open(self._connected)
        else:
            self._write(connection, placed.target)

    def _connected(self, connection: EngineConnection | None, reason: str) -> None:
        if self._over or self._placed is None:
            if connection is not None:
                connection.let_go()
        elif connection is None:
            self._context.trouble(self._placed.target, reason)
            if not self._again("unreachable"):
                self.refuse(no_capacity(f"No instance can be reached: {reason}."))
        else:
            self._write(connection, self._placed.target)

    def _write(self, connection: EngineConnection, target: Target) -> None:
        call, body = self._call, self._call.body
        if target.served and target.served != self._context.names.models[call.model]:
            body = with_model(body, target.served)
        self._connection = connection
        connection.begin(self, self._record.head(target, len(body)), body)

    def answered(self, head: ResponseHead) -> None:
        """The head of an engine's answer came."""
        placed, call, context = self._placed, self._call, self._context
        assert placed is not None
        if head.status in _ELSEWHERE and self._try_elsewhere(head.status):
            return
        self._status = head.status
        tag, names = context.tiers.tag(call.tier, call.asked), context.renamed(placed.target, call.model)
        relay = fit_relay(self._reply, head, call.path, tag, names)
        if relay is None:
            self.refuse(broken("The engine answered a stream with something else."))
        else:
            self._relay = relay

    def took(self, data: bytes, done: bool) -> None:
        """A part of the answer came."""
        relay = self._relay
        if relay is None or self._over:
            return
        record = self._record
        if record.first == 0 and (done or relay.streams):
            record.first = self._context.clock()
            if self._attempts is not None and (data or not relay.streams):
                self._attempts.answered(self._status)
            if self._placed is not None and self._status < 500:
                self._placed.target.heard = record.first
            if self._placed is not None and not done:
                self._context.routing.begin(self._placed)
                note_pace(self._placed, record.first - self._sent)
        outcome = relay.took(data, done)
        if outcome is None:
            return
        if isinstance(outcome, AnswerDone):
            self._finish(outcome, done)
        else:
            self._break(outcome.reason)

    def lost(self, reason: str, *, stale: bool) -> None:
        """The connection to the engine broke."""
        self._connection = None
        if self._over:
            return
        if stale and not self._renewed and self._placed is not None:
            self._renewed = True
            self._context.pool(self._placed.target).open(self._connected)
            return
        self._lose(reason)

    def _lose(self, reason: str) -> None:
        """The target broke off without an answer, or in the middle of one."""
        placed, relay = self._placed, self._relay
        assert placed is not None
        if relay is not None and relay.streams and self._record.first:
            self._break(reason)
            return
        attempts, whole = self._failed(), relay is not None and not relay.streams
        if attempts.break_off(placed.target, self._one.id):
            told = f"{attempts.broke} instances broke off when they were sent this request, which is charged with it: {reason}."
            self.refuse(broken(told, code="request_breaks_engines"))
        elif whole or not self._again("broken"):
            attempts.undecided()
            self.refuse(
                broken(f"{'The engine broke off its answer' if whole else 'No instance could serve the request'}: {reason}.")
            )

    def _failed(self) -> Attempts:
        if self._attempts is None:
            self._attempts = Attempts(self._context)
        return self._attempts

    def _try_elsewhere(self, status: int) -> bool:
        """Send the request to another instance because of what this one answered."""
        if status == 500:
            self._failed().broke += 1
        return self._leave(str(status))

    def _leave(self, reason: str) -> bool:
        """Go to another instance and hang up on this one; False when there is none, and it stays."""
        connection, self._connection = self._connection, None
        if not self._again(reason):
            self._connection = connection
            return False
        if connection is not None:
            connection.let_go()
        return True

    def _again(self, reason: str) -> bool:
        """Send it to another instance; False when there is none, or it was tried often enough."""
        placed, context = self._placed, self._context
        assert placed is not None
        walk = [self._call.endpoint] if self._call.endpoint >= 0 else self._walk()
        target = self._failed().next(placed.target, walk, context.clock())
        if target is None:
            return False
        context.routing.end(placed, None, context.clock())
        self._relay = None
        self._renewed = False
        self._record.retried(reason)
        self._send(self._weigh(target), context.clock())
        return True

    def _break(self, reason: str) -> None:
        """End an answer that cannot be completed: an error event, and no proper end."""
        if isinstance(self._relay, EventRelay):
            self._reply.error(broken(f"The answer is incomplete: {reason}.", code="upstream_broken"))
        self._record.broke(reason)
        self._close(502)
        self._client.cut()

    def refuse(self, problem: ApiError) -> None:
        """Answer with an error: as an event if the stream was opened already."""
        fields = self._record.fields()
        self._close(problem.status)
        if self._reply.opened:
            self._reply.error(problem)
            self._client.cut()
        else:
            self._client.refuse(problem, fields)

    def _finish(self, outcome: AnswerDone, ended: bool) -> None:
        """The answer is complete; `ended` says that its framing is, too."""
        connection, self._connection = self._connection, None
        if not ended and connection is not None:
            connection.leave()
        self._free(outcome.output if self._status < 400 else None)
        self._record.finished(self._status, outcome.prompt, outcome.output, streamed=isinstance(self._relay, EventRelay))
        self._client.finished()

    def _close(self, status: int) -> None:
        """Let go of everything; the answer was an error."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.let_go()
        self._free(None)
        self._record.failed(status, 0 if self._relay is None else self._relay.made)

    def _free(self, output: int | None) -> None:
        self._over = True
        self._context.exchanges.pop(self, None)
        placed, self._placed = self._placed, None
        if placed is not None:
            self._context.routing.end(placed, output, self._context.clock())
        self._context.door.leave(self)
        if self._ticket:
            self._context.waiting.leave(self._ticket)

    def gone(self) -> None:
        """The client left: the engine is told by closing its connection."""
        if not self._over:
            self._close(LEFT)

    def stop(self) -> None:
        """The gateway stops."""
        if not self._over:
            self.refuse(broken("The gateway is shutting down.", status=503, code="shutting_down"))

    def pause(self) -> None:
        """The client does not keep up: take no more from the engine."""
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        """The client keeps up again."""
        if self._connection is not None:
            self._connection.resume()

    def drained(self, ready: bool) -> None:
        """The whole body was handed over at once: nothing to hold back."""

    def check(self, now: Micros) -> None:
        """A sign of life for a silent stream; an end for a hung engine; a guess when an unseen first token came."""
        connection, placed = self._connection, self._placed
        if connection is not None and connection.fresh:
            self._quiet, connection.fresh = now, False
            if placed is not None and self._relay is not None:
                placed.target.heard = now
        elif self._client.paused:
            self._quiet = now
        started = self._record.first or (self._relay is not None and not self._relay.streams)
        quiet = now - self._quiet
        if started and quiet > self._context.limits.stream_idle:
            if self._record.first:
                self._break("the engine went silent")
            else:
                self.refuse(broken("The engine went silent in its answer.", status=504, code="timeout"))
        elif placed is not None and not started and self._move(placed, now):
            return
        elif placed is not None and not started and now - self._sent > FIRST_BYTE:
            self.refuse(broken("The engine did not answer in time.", status=504, code="timeout"))
        elif self._call.stream and quiet >= PING and now - self._pinged >= PING and not self._client.paused:
            self._ping(now)
        elif (
            placed is not None and not placed.begun and not self._call.stream and now - self._sent > placed.wait + placed.prefill
        ):
            self._context.routing.begin(placed)  # unstreamed: the first token is not seen, and its prompt must not count for ever

    def _move(self, placed: Placement, now: Micros) -> bool:
        """Send the request elsewhere if waiting here is in vain, as if it had just come; False when it stays.

        Connecting has its own limit, and who is left then would still be called back, about another instance.
        """
        target, context = placed.target, self._context
        if self._connection is None or not waits_in_vain(context, placed, self._call, self._sent, now):
            return False
        if not self._leave("mute" if target.well else "unwell"):
            ask_control(context, target, now)
            return False
        if target.well and target.trouble == 0:
            context.trouble(target, "nothing came from it in the time that several first tokens take", mute=True)
        return True

    def _ping(self, now: Micros) -> None:
        self._pinged = now
        if not isinstance(self._relay, RawRelay | WholeRelay):
            self._reply.ping()
