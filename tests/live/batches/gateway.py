"""A gateway that answers jobs by itself: `{"model", "n": 7}` is answered with 49, and failures are asked for in the job.

    "fails": [500, 429]     the first answers have these statuses           "wait": 0.2     seconds before the answer
    "limit": 5              the owner's key has used up a limit as long as fewer than so many jobs of others were run
    "held": true            no answer before `let_go`
    "cut": true             the connection is closed without an answer
    "poison": "gzip"        an answer of an engine that is not what it should be: see POISON

Counts how often each job was run. Read next: `plane.py`.
"""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

Job = dict[str, Any]
_DEEP = b'{"a":' * 3000 + b"1" + b"}" * 3000
_COUNTS = b'{"answer": 1, "usage": {"prompt_tokens": 1%b, "completion_tokens": -5}}' % (b"0" * 30)
POISON: dict[str, tuple[int, str, bytes]] = {
    "unauthorised": (401, "", b'{"error": {"message": "the engine wants a key"}}'),
    "forbidden": (403, "", b"not you"),
    "gzip": (200, "content-encoding: gzip\r\n", b"\x1f\x8b\x08 not packed at all"),
    "deep": (200, "", _DEEP),
    "deep lines": (200, "", _DEEP + b"\n"),
    "counts": (200, "", _COUNTS),
    "bytes": (200, "", b'{"answer": "\xff\xfe"}'),
    "half": (200, "", b'{"usage": 5, "answer": [1,'),
    "nul": (200, "", b'{"answer": "\\u0000"}'),
}
"""Status, further header lines and body."""


class FakeGateway:
    """An HTTP server in a thread; quick, because thousands of jobs go through it."""

    def __init__(self) -> None:
        self.runs: Counter[int] = Counter()  # by n
        self.heads: list[dict[str, str]] = []
        self.inside = 0
        self.cancelled = 0
        self.port = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._let_go = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _serve(self, up: threading.Event, port: int) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._client, "127.0.0.1", port, backlog=1000)
        self.port = server.sockets[0].getsockname()[1]
        up.set()
        await self._stop.wait()
        server.close()

    @contextmanager
    def running(self, port: int = 0) -> Iterator["FakeGateway"]:
        up = threading.Event()
        thread = threading.Thread(target=lambda: asyncio.run(self._serve(up, port)))
        thread.start()
        assert up.wait(10)
        try:
            yield self
        finally:
            assert self._loop is not None
            assert self._stop is not None
            self._loop.call_soon_threadsafe(self._stop.set)
            thread.join()

    def let_go(self) -> None:
        """Answer the jobs that are held, and all that come."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._let_go.set)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client left
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        head = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)}
        job: Job = json.loads(await reader.readexactly(int(head["content-length"])))
        self.heads.append(head)
        number = int(job["n"])
        self.runs[number] += 1
        if "wait" in job and not await self._wait(reader, float(job["wait"])):
            return False
        if job.get("held"):
            self.inside += 1
            await self._let_go.wait()
            self.inside -= 1
        if job.get("cut"):
            return False
        if "poison" in job:
            writer.write(_poisoned(head["x-request-id"], *POISON[job["poison"]]))
            await writer.drain()
            return True
        if self.inside_limit(job, head["x-sageserve-key"]):
            writer.write(_answer(429, head["x-request-id"], number, "rate_limit_exceeded"))
            await writer.drain()
            return True
        fails = job.get("fails", [])
        status = fails[self.runs[number] - 1] if self.runs[number] <= len(fails) else 200
        writer.write(_answer(status, head["x-request-id"], number))
        await writer.drain()
        return True

    def inside_limit(self, job: Job, owner: str) -> bool:
        return "limit" in job and sum(head["x-sageserve-key"] != owner for head in self.heads) < int(job["limit"])

    async def _wait(self, reader: asyncio.StreamReader, seconds: float) -> bool:
        self.inside += 1
        try:
            left = await asyncio.wait_for(reader.read(1), seconds)
        except TimeoutError:
            return True
        finally:
            self.inside -= 1
        self.cancelled += not left
        return False


def _poisoned(request_id: str, status: int, more: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} X\r\nx-request-id: {request_id}\r\nx-sageserve-region: east\r\n{more}"
    return f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def _answer(status: int, request_id: str, number: int, code: str | None = None) -> bytes:
    if status == 200:
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        said = json.dumps({"object": "chat.completion", "answer": number * number, "usage": usage}, indent=1)
    else:
        said = json.dumps({"error": {"message": "no", "type": "x", "param": None, "code": code}})
    body = said.encode()
    again = "retry-after-ms: 20\r\n" if status in {429, 500, 503} else ""
    head = f"HTTP/1.1 {status} X\r\nx-request-id: {request_id}\r\n{again}content-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
