"""What is noted about one request: times, counts, header lines, its span and its line in the log.

Never its prompt, its answer or its key. Decides nothing. Read next: `meter.py`, `reckon.py` and `spans.py`, where it goes.
"""

import logging
from typing import TYPE_CHECKING, Final

from sageserve.base.units import SECOND, Micros
from sageserve.live.gateway import meter as m
from sageserve.live.gateway.board import Placement
from sageserve.live.gateway.desk import LOG, Desk
from sageserve.live.gateway.intake import Call, Incoming

if TYPE_CHECKING:  # loaded only when traces are asked for
    from opentelemetry.trace import Span

LEFT: Final = 499  # status of a request whose client left, as nginx has it; nobody is sent it


class Record:
    """Notes about one request.

    `first` is when the first of its answer came (0: not yet), `bytes` how many of the body were passed on.
    """

    __slots__ = ("_call", "_desk", "_line", "_one", "_region", "_retries", "_sent", "_span", "bytes", "first")

    def __init__(self, desk: Desk, call: Call, one: Incoming) -> None:
        self._desk = desk
        self._call = call
        self._one = one
        self._region = call.region
        self._retries = 0
        self._sent: Micros = 0
        self._span: Span | None = None
        self.first: Micros = 0
        self.bytes = 0

    def sent(self, placed: Placement, now: Micros) -> None:
        """It went to a seat."""
        self._sent = now
        self._region = self._desk.board.region_of(placed.seat.endpoint)

    def traced(self, fields: bytes) -> bytes:
        """Header lines for the engine; with traces on, ours is the parent of its spans."""
        desk, call = self._desk, self._call
        if desk.tracer is None:
            return fields
        noted = self._one.noted.get(b"traceparent")
        model, tier = desk.names.models[call.model], desk.names.tiers[call.tier]
        if self._span is None:
            parent = noted.decode("latin-1") if noted else None
            self._span, self._line = desk.tracer.begin(call.path.decode("latin-1"), model, tier, parent)
        lines = [line for line in fields.splitlines(keepends=True) if not line.lower().startswith(b"traceparent:")]
        return b"".join([*lines, self._line])

    def fields(self) -> bytes:
        """Header lines that tell the client what happened; `queue-ms` is the time until it was sent to an engine."""
        desk, call = self._desk, self._call
        arrived = self._one.arrived
        told = b"x-request-id: %b\r\nopenai-processing-ms: %d\r\n%bx-sageserve-queue-ms: %d\r\n" % (
            self._one.id,
            ((self.first or desk.clock()) - arrived) // 1000,
            desk.told[self._region][call.tier],
            max(0, self._sent - arrived) // 1000,
        )
        return told + call.holder.fields() if call.holder.limited else told

    def retried(self, reason: str) -> None:
        """It was sent to another instance."""
        self._retries += 1
        self._desk.meter.count(m.RETRIES, (reason,))

    def broke(self, reason: str) -> None:
        """An engine broke off its stream."""
        self._desk.meter.count(m.BROKEN)
        LOG.warning("request %s: stream broken off: %s", self._one.id.decode("latin-1"), reason)

    def refused(self, status: int) -> None:
        """It was turned away before it was sent."""
        self._end(status, self._desk.clock(), None, 0)

    def failed(self, status: int) -> None:
        """It ended with an error of ours."""
        if status == LEFT:
            self._desk.meter.count(m.ABORTED)
        self._end(status, self._desk.clock(), None, 0)

    def finished(self, status: int, prompt: int | None, output: int, *, streamed: bool) -> None:
        """It was answered; tokens as the engine said."""
        desk, call = self._desk, self._call
        now = desk.clock() if streamed else self.first
        if status < 400:
            arrived, line = self._one.arrived, desk.meter.lines[call.model][call.tier]
            line.duration.add(now - arrived)
            if streamed:
                line.ttft.add(self.first - arrived)
                if output > 1:
                    line.per_token.add((now - self.first) / (output - 1))
            known = call.prompt
            if prompt is not None:
                known = prompt
                desk.reckoning.learn(call.model, len(call.body), prompt)
            line.prompt += known
            line.output += output
            batch = desk.ttft[call.tier] is None
            desk.reckoning.finished(call.cell, output, (now if batch else self.first) - arrived)
            if call.expected:
                call.holder.settle(call.expected, known + output)
        self._end(status, now, prompt, output)

    def _end(self, status: int, now: Micros, prompt: int | None, output: int) -> None:
        desk, call = self._desk, self._call
        codes, key = desk.meter.lines[call.model][call.tier].codes, (self._region, status)
        codes[key] = codes.get(key, 0) + 1
        desk.meter.answer_bytes += self.bytes
        if self._span is not None or status >= 500 or desk.loud:
            self._tell(status, now, prompt, output)

    def _tell(self, status: int, now: Micros, prompt: int | None, output: int) -> None:
        """Finish the span, and write a line to the log."""
        desk, call = self._desk, self._call
        names = desk.names
        model, tier, region = names.models[call.model], names.tiers[call.tier], names.regions[self._region]
        if self._span is not None and desk.tracer is not None:
            first = (self.first - self._one.arrived) / SECOND if self.first else None
            numbers = {
                "gen_ai.usage.input_tokens": prompt,
                "gen_ai.usage.output_tokens": output or None,
                "gen_ai.server.time_to_first_token": first,
                "sageserve.region": region,
                "sageserve.retries": self._retries,
                "http.request.id": self._one.id.decode("latin-1"),
            }
            desk.tracer.end(self._span, status, numbers)
        level = logging.WARNING if status >= 500 else logging.DEBUG
        if desk.loud or level >= logging.WARNING:
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
