"""What is noted about one request: times, counts, header lines, its span and its line in the log.

Never its prompt, its answer or its key. Decides nothing. Read next: `meter.py`, `demand_counters.py` and `spans.py`, where it
goes.
"""

import logging
from typing import TYPE_CHECKING, Final

from sageserve.base.units import SECOND, Micros
from sageserve.data.watched.request_lines import RequestLine
from sageserve.live.gateway import meter as m
from sageserve.live.gateway.context import LOG, GatewayContext
from sageserve.live.gateway.header_lines import without
from sageserve.live.gateway.request import ApiCall, HttpRequest
from sageserve.live.gateway.targets import Placement, Target

if TYPE_CHECKING:  # loaded only when traces are asked for
    from opentelemetry.trace import Span

    from sageserve.live.gateway.spans import Tracer

_ENGINES_FAULT: Final = frozenset([401, 403, 404, 429])  # of what an engine answers, beside what begins with a 5: not the asker's
LEFT: Final = 499  # status of a request whose client left, as nginx has it; nobody is sent it


class RequestRecord:
    """Notes about one request.

    `first` is when the first of its answer came (0: not yet), `bytes` how many of the body were passed on.
    """

    __slots__ = ("_at", "_call", "_context", "_line", "_one", "_region", "_retries", "_sent", "_span", "bytes", "first")

    def __init__(self, context: GatewayContext, call: ApiCall, one: HttpRequest) -> None:
        self._context = context
        self._call = call
        self._one = one
        self._region = call.region
        self._retries = 0
        self._sent: Micros = 0
        self._at: Target | None = None  # who has it, if what its revision keeps is counted
        self._span: Span | None = None
        self.first: Micros = 0
        self.bytes = 0

    def sent(self, placed: Placement, now: Micros) -> None:
        """It went to a target."""
        self._sent = now
        self._at = placed.target if placed.target.revision >= 0 else None
        self._region = self._context.routing.region_of(placed.target.endpoint)

    def head(self, target: Target, size: int) -> bytes:
        """The head of the request as an engine gets it, with a body of so many bytes."""
        one = self._one
        return b"POST %b%b HTTP/1.1\r\nhost: %b\r\n%bx-request-id: %b\r\ncontent-length: %d\r\n\r\n" % (
            target.prefix,
            one.url,
            target.authority,
            self._lines(target),
            one.id,
            size,
        )

    def _lines(self, target: Target) -> bytes:
        """Header lines for an engine: the client's, our key in the place of its, and with traces on ours as the parent."""
        fields = self._one.fields
        if key := self._context.engine_key(target):
            fields = b"%bauthorization: Bearer %b\r\n" % (without(fields, b"authorization"), key.encode())
        tracer = self._context.tracer
        return self._traced(fields, tracer) if tracer is not None else fields

    def _traced(self, fields: bytes, tracer: "Tracer") -> bytes:
        context, call = self._context, self._call
        noted = self._one.noted.get(b"traceparent")
        model, tier = context.names.models[call.model], context.names.tiers[call.tier]
        if self._span is None:
            parent = noted.decode("latin-1") if noted else None
            self._span, self._line = tracer.begin(call.path.decode("latin-1"), model, tier, parent)
        return without(fields, b"traceparent") + self._line

    def fields(self) -> bytes:
        """Header lines that tell the client what happened; `queue-ms` is the time until it was sent to an engine."""
        context, call = self._context, self._call
        arrived = self._one.arrived
        told = b"%bopenai-processing-ms: %d\r\n%bx-sageserve-queue-ms: %d\r\n" % (
            self._one.ours,
            ((self.first or context.clock()) - arrived) // 1000,
            context.told[self._region][call.tier],
            max(0, self._sent - arrived) // 1000,
        )
        return told + call.payer.fields() if call.payer.limited else told

    def retried(self, reason: str) -> None:
        """It was sent to another instance."""
        self._judge(missed=True)
        self._retries += 1
        self._context.meter.count(m.RETRIES, (reason,))

    def broke(self, reason: str) -> None:
        """An engine broke off its stream."""
        self._context.meter.count(m.BROKEN)
        LOG.warning("request %s: stream broken off: %s", self._one.id.decode("latin-1"), reason)

    def refused(self, status: int) -> None:
        """It was turned away before it was sent."""
        self._end(status, self._context.clock(), None, 0)

    def failed(self, status: int, made: int) -> None:
        """It ended with an error of ours, or its client left; what was made until then is charged."""
        context, call = self._context, self._call
        if status == LEFT:
            context.meter.count(m.ABORTED)
        if self._at is not None and not context.draining and (status != LEFT or self._waited_in_vain(context.clock())):
            self._judge(missed=True)
        if made:
            line = context.meter.lines[call.model][call.tier]
            line.prompt += call.prompt
            line.output += made
            self._charge(call.prompt, made, context.clock())
        self._end(status, context.clock(), None, made)

    def finished(self, status: int, prompt: int | None, output: int, *, streamed: bool) -> None:
        """It was answered; tokens as the engine said."""
        context, call = self._context, self._call
        now = context.clock() if streamed else self.first
        if self._at is not None and (status < 400 or status >= 500 or status in _ENGINES_FAULT):
            self._judge(missed=status >= 400 or self._is_late(now, output if streamed else 0))
        if status < 400:
            arrived, line = self._one.arrived, context.meter.lines[call.model][call.tier]
            line.duration.add(now - arrived)
            known = call.prompt if prompt is None else prompt
            if streamed:
                line.ttft.add(self.first - arrived)
                line.late += self.first - arrived > context.routing.promised(call.tier, known)
                if output > 1:
                    line.per_token.add((now - self.first) / (output - 1))
            if prompt is not None:
                context.demand.learn(call.model, len(call.body), prompt)
            line.prompt += known
            line.output += output
            batch = context.ttft[call.tier] is None
            slow = streamed and self._is_slow(now, output)
            context.demand.finished(call.cell, known, output, (now if batch else self.first) - arrived, slow=slow)
            self._charge(known, output, now)
        self._end(status, now, prompt, output)

    def _is_late(self, now: Micros, streamed: int) -> bool:
        """Whether an answer broke its promise; of one that was tried elsewhere first, only the time since then counts."""
        return self._is_slow(now, streamed) or self._is_over(self.first)

    def _is_slow(self, now: Micros, streamed: int) -> bool:
        """Whether tokens that were streamed came slower than its tier promises."""
        gap = self._context.gap[self._call.tier]
        return gap is not None and streamed > 1 and now - self.first > gap * (streamed - 1)

    def _waited_in_vain(self, now: Micros) -> bool:
        """Whether a client left because nothing had come in time."""
        return self.first == 0 and self._is_over(now)

    def _is_over(self, time: Micros) -> bool:
        since = self._sent if self._retries else self._one.arrived
        return time - since > self._context.routing.promised(self._call.tier, self._call.prompt)

    def _judge(self, *, missed: bool) -> None:
        """Count for the revision of the instance that had it, once; batch tiers promise no first token."""
        call, context, target = self._call, self._context, self._at
        if target is not None and context.ttft[call.tier] is not None:
            context.demand.judged(call.model, target.revision, call.tier, missed=missed)
        self._at = None

    def _charge(self, prompt: int, output: int, now: Micros) -> None:
        """Let whoever pays pay what was used."""
        call = self._call
        if call.expected:
            call.payer.settle(call.expected, prompt + output, now)
            self._context.budgets.note(call.payer.name, call.model, prompt, output)

    def _end(self, status: int, now: Micros, prompt: int | None, output: int) -> None:
        context, call = self._context, self._call
        codes, key = context.meter.lines[call.model][call.tier].codes, (self._region, status)
        codes[key] = codes.get(key, 0) + 1
        context.meter.answer_bytes += self.bytes
        if context.lines is not None:
            context.lines.add(self._as_line(status, now, prompt, output))
        if self._span is not None or status >= 500 or context.loud:
            self._tell(status, now, prompt, output)

    def _as_line(self, status: int, now: Micros, prompt: int | None, output: int) -> RequestLine:
        context, call, arrived = self._context, self._call, self._one.arrived
        names = context.names
        return RequestLine(
            arrival_us=context.wall() - (context.clock() - arrived),
            request_id=self._one.id.decode("latin-1"),
            tenant=call.payer.name,
            model=names.models[call.model],
            tier=names.tiers[call.tier],
            region=names.regions[self._region],
            status=status,
            prompt_tokens=prompt,
            output_tokens=output,
            first_us=self.first - arrived if self.first else None,
            duration_us=now - arrived,
            retries=self._retries,
        )

    def _tell(self, status: int, now: Micros, prompt: int | None, output: int) -> None:
        """Finish the span, and write a line to the log."""
        context, call = self._context, self._call
        names = context.names
        model, tier, region = names.models[call.model], names.tiers[call.tier], names.regions[self._region]
        if self._span is not None and context.tracer is not None:
            first = (self.first - self._one.arrived) / SECOND if self.first else None
            numbers = {
                "gen_ai.usage.input_tokens": prompt,
                "gen_ai.usage.output_tokens": output or None,
                "gen_ai.server.time_to_first_token": first,
                "sageserve.region": region,
                "sageserve.retries": self._retries,
                "http.request.id": self._one.id.decode("latin-1"),
            }
            context.tracer.end(self._span, status, numbers)
        level = logging.WARNING if status >= 500 else logging.DEBUG
        if context.loud or level >= logging.WARNING:
            facts = {
                "request": self._one.id.decode("latin-1"),
                "key": call.holder.name,
                "model": model,
                "tier": tier,
                "region": region,
                "status": status,
                "ms": (now - self._one.arrived) // 1000,
                "output_tokens": output,
                "retries": self._retries,
            }
            LOG.log(level, "answered", extra={"facts": facts})
