"""The emulated engine: takes requests, lets the batch make tokens when they are due, and sends them.

Engine time is wall time times `speed`, counted from the start. One timer waits for the end of the iteration in progress; an
iteration that is late is not lost: the next one starts when this one should have ended. Reads no clock of its own.
Read next: `batch.py`, `connection.py`, docs/reference/emulated-engine.md.
"""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import unquote

import msgspec

from sageserve.base.rng import stream
from sageserve.base.units import NEVER, SECOND, Micros
from sageserve.base.version import __version__
from sageserve.core.engine.timing import EngineRow
from sageserve.live.emulator import answers
from sageserve.live.emulator import requests as asks
from sageserve.live.emulator.batch import Sequence
from sageserve.live.emulator.connection import EngineReply, Request
from sageserve.live.emulator.faults import EngineFaults, with_changes
from sageserve.live.emulator.metrics import EngineMetrics
from sageserve.live.emulator.ranks import EngineRanks
from sageserve.live.emulator.requests import GenerationRequest, Refused
from sageserve.live.emulator.response_stream import ChoiceStream, RequestStream
from sageserve.live.emulator.responses_api import ResponsesAnswer, read_response
from sageserve.live.emulator.text import key_of
from sageserve.live.emulator.tool_calls import ToolAnswer

_DIMENSIONS: Final = 384  # of an embedding, unless the request says
_DIMENSIONS_MAX: Final = 4096


class ProcessClocks(Protocol):
    """The two clocks of a process."""

    def monotonic(self) -> Micros:
        """Microseconds that never go back."""

    def unix(self) -> int:
        """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Served:
    """What the engine is.

    Args:
        limits: model, context, lengths of answers.
        row: how long its iterations take, and its limits.
        speed: engine time per wall time.
        name: starts the ids of its answers.
        faults_allowed: whether /_fault may be asked.
        region: where it says it is; empty: nowhere.
    """

    limits: asks.ServedLimits
    row: EngineRow
    speed: float = 1.0
    name: str = "engine"
    faults_allowed: bool = False
    region: str = ""


class Engine:
    """Requests in, tokens out.

    Args:
        served: what it is.
        clock: of the process.
        faults: what is wrong with it.
        die: ends the process as a crash does.
    """

    def __init__(self, served: Served, clock: ProcessClocks, faults: EngineFaults, die: Callable[[], None]) -> None:
        self.served = served
        self.faults = faults
        self.draining = False
        self.idle = asyncio.Event()  # set while nothing is being answered
        self.idle.set()
        self._clock = clock
        self._die = die
        self._born = clock.monotonic()
        self._created = clock.unix()
        self._batch = EngineRanks(served.row, self)
        self._batch.slowness = faults.slow
        self._metrics = EngineMetrics(served.limits.model, self._batch, served.speed)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due: Micros = NEVER
        self._sequences = 0
        self._asked = 0
        self._tellings: set[RequestStream] = set()
        self._previous: Micros = -1  # end of the last iteration

    # --- time ---

    def now(self) -> Micros:
        """Engine time."""
        return int((self._clock.monotonic() - self._born) * self.served.speed)

    def _arm(self) -> None:
        """Wait for what is due next."""
        due = NEVER if self.faults.hang else self._batch.due
        if due == self._timer_due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_due = None, due
        if due < NEVER:
            delay = (due - self.now()) / (SECOND * self.served.speed)
            self._timer = asyncio.get_running_loop().call_later(max(0.0, delay), self._wake)

    def _wake(self) -> None:
        self._timer, self._timer_due = None, NEVER
        self._batch.advance(self.now())
        self._arm()

    # --- tokens ---

    def made(self, now: Micros, decoded: list[Sequence], prompts: list[Sequence]) -> None:
        """Tokens were made: count them and send them."""
        metrics, previous, steady = self._metrics, self._previous, 0
        for one in decoded:
            if one.last == now:
                pass  # a further token of this iteration: vLLM counts the time between iterations
            elif one.last == previous:
                steady += 1
            else:
                metrics.between(now - one.last)
            self._tell(one, now)
        if steady:
            metrics.between(now - previous, steady)
        for one in prompts:
            if one.first < 0:
                one.first = now
                metrics.first(one, now)
            else:
                metrics.between(now - one.last)  # it had been preempted
            self._tell(one, now)
        metrics.output_tokens += len(decoded) + len(prompts)
        self._previous = now

    def _tell(self, one: Sequence, now: Micros) -> None:
        one.last = now
        assert isinstance(one, ChoiceStream)
        if one.made >= one.output:
            self._metrics.finished(one, now, one.reason)
        one.request_stream.token(one)

    # --- requests ---

    def answer(self, request: Request, reply: EngineReply) -> None:
        """Answer a request, now or when its tokens are made."""
        path = request.path.partition("?")[0]
        try:
            match request.method, path:
                case "POST", "/v1/chat/completions":
                    self._generate(asks.read_chat, request, reply)
                case "POST", "/v1/responses":
                    self._generate(read_response, request, reply)
                case "POST", "/v1/completions":
                    self._generate(asks.read_completion, request, reply)
                case "POST", "/v1/embeddings":
                    self._embed(request, reply)
                case "GET" | "HEAD", _:
                    self._look(path, reply)
                case "POST", "/_fault" if self.served.faults_allowed:
                    self._change_faults(request, reply)
                case _:
                    raise Refused(404, f"there is no {request.method} {path}", kind="NotFoundError")
        except Refused as refused:
            reply.send(refused.status, answers.error(refused))

    def _look(self, path: str, reply: EngineReply) -> None:
        limits = self.served.limits
        match path:
            case "/health" | "/ping":
                self._tell_health(reply)
            case "/metrics":
                self._tell_metrics(reply)
            case "/version":
                reply.send(200, answers.encode({"version": __version__, "engine": "sageserve", "region": self.served.region}))
            case "/v1/models":
                reply.send(200, answers.models(limits, self._created))
            case _ if path.startswith("/v1/models/"):
                name = unquote(path.removeprefix("/v1/models/"))
                if name not in (limits.model, *limits.adapters):
                    raise Refused(404, "The model does not exist.", kind="NotFoundError", param="model")
                reply.send(200, answers.one_model(name, limits, self._created))
            case _:
                raise Refused(404, f"there is nothing at {path}", kind="NotFoundError")

    def _tell_health(self, reply: EngineReply) -> None:
        if self.faults.health != "silent":
            reply.send(503 if self.faults.health == "bad" or self.draining else 200, b"", kind="text/plain")

    def _tell_metrics(self, reply: EngineReply) -> None:
        match self.faults.metrics:
            case "ok":
                reply.send(200, self._metrics.text(), kind="text/plain; version=0.0.4; charset=utf-8")
            case "empty":
                reply.send(200, b"", kind="text/plain; version=0.0.4; charset=utf-8")
            case "gone":
                reply.send(404, b"not found", kind="text/plain")
            case "silent":
                pass

    def _generate(
        self, read: Callable[[bytes, asks.ServedLimits], GenerationRequest], request: Request, reply: EngineReply
    ) -> None:
        if self._refused_by_fault(reply):
            return
        if self.draining:
            raise Refused(503, "the engine is shutting down", kind="ServiceUnavailableError")
        ask = read(request.body, self.served.limits)
        self._asked += 1
        name = request.headers.get("x-request-id") or f"{self.served.name}-{self._asked}"
        made, model = self._clock.unix(), (*self.served.limits.adapters, self.served.limits.model)[ask.adapter]
        head: answers.Answer | ResponsesAnswer
        if read is read_response:
            head = ResponsesAnswer(ask, name, made, model)
        else:
            kind = ToolAnswer if ask.tool else answers.Answer
            head = kind(ask, f"{'chatcmpl' if ask.chat else 'cmpl'}-{name}", made, model)
        request_stream = RequestStream(ask, head, reply, reset_after=self.faults.reset_after, over=self._over)
        reply.on_gone = lambda: self._abort(request_stream)
        self._tellings.add(request_stream)
        self.idle.clear()
        request_stream.begin(self._sequences, self.now() + self.served.row["entry"])
        self._sequences += len(ask.choices)
        if self.served.row["entry"]:
            delay = self.served.row["entry"] / (SECOND * self.served.speed)
            asyncio.get_running_loop().call_later(delay, self._submit, request_stream)
        else:
            self._submit(request_stream)

    def _submit(self, request_stream: RequestStream) -> None:
        """A request has come through the API server: its sequences enter the queue."""
        if request_stream not in self._tellings:  # its client has gone meanwhile
            return
        self._batch.advance(request_stream.everyone[0].arrival - 1)  # what was due before comes first
        for choice_stream in request_stream.everyone:
            self._batch.submit(choice_stream)
        self._arm()

    def _refused_by_fault(self, reply: EngineReply) -> bool:
        faults = self.faults
        if faults.crash_after is not None:
            faults.crash_after -= 1
            if faults.crash_after <= 0:
                self._die()
        if faults.errors > 0:
            faults.errors -= 1
            raise Refused(500, "EngineCore encountered an issue", kind="InternalServerError")
        if faults.plain_errors > 0:
            faults.plain_errors -= 1
            reply.send(500, b"Internal Server Error", kind="text/plain; charset=utf-8")
            return True
        return False

    def _abort(self, request_stream: RequestStream) -> None:
        """The client has gone: free what it held, at once."""
        for choice_stream in request_stream.everyone:
            if choice_stream.place != Sequence.OUT:
                self._metrics.success["abort"] += 1
                self._batch.abort(choice_stream)
        self._over(request_stream)

    def _over(self, request_stream: RequestStream) -> None:
        self._tellings.discard(request_stream)
        if not self._tellings:
            self.idle.set()

    def _embed(self, request: Request, reply: EngineReply) -> None:
        """Vectors that follow from the input; they take no time."""
        if self._refused_by_fault(reply):
            return
        body, prompts = asks.read_embedding(request.body, self.served.limits)
        size = _DIMENSIONS if body.dimensions is None else body.dimensions
        if not 1 <= size <= _DIMENSIONS_MAX:
            raise Refused(400, f"dimensions must be between 1 and {_DIMENSIONS_MAX}, got {size}", param="dimensions")
        vectors = [_vector(text, size, base64=body.encoding_format == "base64") for _, text in prompts]
        tokens = sum(count for count, _ in prompts)
        self._metrics.prompt_tokens += tokens
        reply.send(200, answers.embeddings(vectors, tokens, self.served.limits.model))

    def _change_faults(self, request: Request, reply: EngineReply) -> None:
        try:
            self.faults = with_changes(self.faults, request.body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Refused(400, str(error)) from None
        self._batch.slowness = self.faults.slow
        if self.faults.crash_after == 0:
            self._die()
        self._timer_due = NEVER - 1  # whatever it was: look again
        self._arm()
        reply.send(200, msgspec.json.encode(self.faults))


def _vector(text: bytes, size: int, *, base64: bool) -> answers.Json:
    numbers = stream(0, f"engine/embedding/{key_of(text).hex()}").standard_normal(size)
    unit = (numbers / math.sqrt(float(numbers @ numbers))).astype("<f4")
    if base64:
        import base64 as codec

        return codec.b64encode(unit.tobytes()).decode()
    return [float(value) for value in unit]
