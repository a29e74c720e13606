"""A gateway in front of engines that do as they are told, all in one event loop.

`Engine` speaks HTTP and OpenAI's API, keeps every request it got byte by byte, and fails on command; `Stage` puts some of them
behind a gateway that listens on a free port. Read next: `test_conformance.py`, `test_faults.py`.
"""

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import uvloop

from sageserve.base.config import Scenario
from sageserve.live.gateway.context import Options
from sageserve.live.gateway.server import GatewayBinding, GatewayProcess
from tests.core.small import scenario

T = TypeVar("T")
Script = Callable[["Got", asyncio.StreamWriter], Awaitable[None]]
MODEL = "big"
USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}


@dataclass
class Got:
    """A request as an engine received it."""

    head: bytes
    body: bytes

    @property
    def json(self) -> dict[str, object]:
        decoded: dict[str, object] = json.loads(self.body)
        return decoded

    def header(self, name: str) -> str | None:
        for line in self.head.decode("latin-1").split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.lower() == name:
                return value.strip()
        return None


def event(delta: dict[str, object], finish: str | None = None, **more: object) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    body = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": [choice], **more}
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
    b"cache-control: no-cache\r\nX-Accel-Buffering: yes\r\nx-engine: fake\r\n\r\n"
)
DONE = b"data: [DONE]\n\n"


def whole(body: object, status: int = 200, kind: str = "application/json") -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status} Whatever\r\ncontent-type: {kind}\r\ncontent-length: {len(data)}\r\nx-engine: fake\r\n\r\n"
    return head.encode() + data


async def answer(got: Got, writer: asyncio.StreamWriter) -> None:
    """What a well engine answers."""
    if got.json.get("stream"):
        writer.write(STREAM_HEAD)
        writer.write(chunk(event({"role": "assistant", "content": ""})))
        for word in ("one", " two", " three"):
            writer.write(chunk(event({"content": word})))
            await asyncio.sleep(0)
        writer.write(chunk(event({}, "stop")))
        options = got.json.get("stream_options")
        if isinstance(options, dict) and options.get("include_usage"):
            last = {
                "id": "chatcmpl-1",
                "object": "chat.completion.chunk",
                "created": 1,
                "model": MODEL,
                "choices": [],
                "usage": USAGE,
            }
            writer.write(chunk(b"data: " + json.dumps(last).encode() + b"\n\n"))
        writer.write(chunk(DONE) + b"0\r\n\r\n")
        return
    if b"/embeddings" in got.head:
        data = [{"object": "embedding", "index": 0, "embedding": [0.5, 0.0]}]
        writer.write(whole({"object": "list", "data": data, "model": MODEL, "usage": {"prompt_tokens": 2, "total_tokens": 2}}))
    elif b"/chat/" in got.head:
        message = {"role": "assistant", "content": "one two three", "refusal": None}
        choices = [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}]
        kind = "chat.completion"
        writer.write(whole({"id": "c1", "object": kind, "created": 1, "model": MODEL, "choices": choices, "usage": USAGE}))
    elif b"/responses" in got.head:
        content = [{"type": "output_text", "text": "one two three", "annotations": []}]
        output = [{"type": "message", "id": "m1", "role": "assistant", "status": "completed", "content": content}]
        body = {"id": "r1", "object": "response", "created_at": 1, "model": MODEL, "output": output, "status": "completed"}
        writer.write(whole({**body, "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "service_tier": None}))
    else:
        choices2 = [{"index": 0, "text": "one", "finish_reason": "stop", "logprobs": None}]
        writer.write(
            whole({"id": "t1", "object": "text_completion", "created": 1, "model": MODEL, "choices": choices2, "usage": USAGE})
        )


@dataclass
class Engine:
    """An engine; `script` is what it does with the next requests."""

    script: Script = answer
    got: list[Got] = field(default_factory=list)
    port: int = 0
    closed: list[float] = field(default_factory=list)  # when a connection was closed by the other side
    connections: int = 0
    tls: ssl.SSLContext | None = None  # none: plain HTTP
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        loop = asyncio.get_running_loop()
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
                got = Got(head, await reader.readexactly(length))
                self.got.append(got)
                serving = asyncio.ensure_future(self.script(got, writer))
                leaving = asyncio.ensure_future(reader.read(1)) if self.script is not answer else None
                if leaving is not None:
                    await asyncio.wait({serving, leaving}, return_when=asyncio.FIRST_COMPLETED)
                    if leaving.done() and not serving.done():
                        self.closed.append(loop.time())
                        serving.cancel()
                    leaving.cancel()
                    await asyncio.wait({leaving})  # else it still reads when the next request is waited for
                with contextlib.suppress(asyncio.CancelledError):
                    await serving
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def kill(self) -> None:
        """Stop listening and break every connection, as a process that dies."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)


@dataclass
class Stage:
    """A gateway and what is behind it."""

    worker: GatewayProcess
    engines: Sequence[Engine]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.worker.port}"

    async def speak(self, data: bytes, *, until: bytes = b"", limit_s: float = 5.0) -> bytes:
        """Send bytes as they are, and return what comes until the connection closes (or `until` is seen)."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.worker.port)
        writer.write(data)
        said = b""
        try:
            async with asyncio.timeout(limit_s):
                while not (until and until in said):
                    part = await reader.read(1 << 16)
                    if not part:
                        break
                    said += part
        except ConnectionError:
            pass
        writer.close()
        return said


def settings(engines: Sequence[Engine], regions: Sequence[str] = (), **live: object) -> Scenario:
    """The small scenario with these engines behind it, in `east` unless said."""
    placed = [
        {"region": regions[k] if k < len(regions) else "east", "model": MODEL, "url": f"http://127.0.0.1:{engine.port}"}
        for k, engine in enumerate(engines)
    ]
    return scenario(gpus=80, admission="on", live={"instances": placed, **live})


@contextlib.asynccontextmanager
async def staged(
    *engines: Engine,
    regions: Sequence[str] = (),
    place: GatewayBinding | None = None,
    options: Options | None = None,
    **live: object,
) -> AsyncIterator[Stage]:
    """A running gateway in front of these engines."""
    for engine in engines:
        await engine.start()
    where = place or GatewayBinding(host="127.0.0.1", port=0, options=options or Options(born=1, nonce="t"))
    worker = GatewayProcess(settings(engines, regions, **live), where)
    await worker.start()
    try:
        yield Stage(worker, engines)
    finally:
        await worker.close()
        for engine in engines:
            await engine.kill()


def free_port() -> int:
    """A port nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def play(coroutine: Coroutine[None, None, T]) -> T:
    """Run on the event loop the gateway runs on."""
    return uvloop.run(asyncio.wait_for(coroutine, 60))


def ask(body: object, *, path: str = "/v1/chat/completions", headers: str = "", version: str = "1.1") -> bytes:
    """A request as bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    kind = "host: localhost\r\ncontent-type: application/json\r\n"
    return f"POST {path} HTTP/{version}\r\n{kind}{headers}content-length: {len(data)}\r\n\r\n".encode() + data


HELLO = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
