"""What bad neighbours cost others: one request in ten that breaks engines, and one engine of two that never answers.

    python -m bench.neighbours [--rate 50] [--seconds 60]

A gateway process in front of engines that answer after 0.2 s (in this process, as the clients are). First with harmless requests,
then one in ten makes its engine break the connection: the share of the others that took at most 1.5 times what the same one took
before (goal: 0.99). Then streams at two engines, one of them mute: the share of those asked after the first ten seconds whose
first token came within their tier's promise (goal: 0.95). One JSON line per figure. Read next: docs/reference/gateway.md.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import yaml

from bench.gateway import ENGINE, free_port, running

WORK_S = 0.2
POISON = 10  # one request in so many
TIER, PROMISE_S = "iw-f", 1.0
CALM_S = 10.0  # after which a mute engine is to be found out
MODEL = "m1"
ANSWER = json.dumps(
    {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6},
    }
).encode()
CHOICE = {"index": 0, "delta": {"content": "hi"}, "finish_reason": None}
EVENT = b"data: %b\n\n" % json.dumps({"object": "chat.completion.chunk", "choices": [CHOICE]}).encode()
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n"


class StubEngine:
    """Answers after a while; breaks what is poisonous off; or is mute."""

    def __init__(self, *, mute: bool = False) -> None:
        self.mute = mute
        self.port = 0

    async def serve(self) -> asyncio.Server:
        """Listen on a free port."""
        server = await asyncio.start_server(self._client, "127.0.0.1", 0, backlog=1000)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await self._one(reader, writer):
                pass
        writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = next((int(line.partition(":")[2]) for line in head.split("\r\n") if line.startswith("content-length:")), 0)
        asked = json.loads(await reader.readexactly(length))
        if self.mute:
            await reader.read()  # until the gateway hangs up
            return False
        await asyncio.sleep(WORK_S)
        if asked.get("poison"):
            return False
        if asked.get("stream"):
            body = EVENT + b"data: [DONE]\n\n"
            writer.write(HEAD % (b"text/event-stream", len(body)) + body)
        else:
            writer.write(HEAD % (b"application/json", len(ANSWER)) + ANSWER)
        await writer.drain()
        return True


@contextlib.asynccontextmanager
async def gateway(engines: Sequence[StubEngine], folder: Path) -> AsyncIterator[int]:
    """A gateway process in front of these engines; its port."""
    servers = [await engine.serve() for engine in engines]
    rows = [{"url": f"http://127.0.0.1:{one.port}", "region": "here", "model": MODEL} for one in engines]
    stock = {"h100": {"gpus": 8, "price": {"on_demand": "10/h"}}}
    scenario = {
        "gpus": {"h100": {"memory": "80GB", "per_vm": 8}},
        "regions": {"here": {"gpus": stock}},
        "models": {MODEL: {"context": 32_000, "engines": {"h100": ENGINE}}},
        "tiers": {TIER: {"ttft": f"{PROMISE_S:g}s"}},
        "fleet": {"start": 2, "maximum": 8},
        "live": {"actuator": "fixed", "instances": rows},
    }
    file, port = folder / "scenario.yaml", free_port()
    file.write_text(yaml.safe_dump(scenario), "utf-8")
    command = [sys.executable, "-m", "sageserve.cli.main", "gateway", str(file), "--port", str(port)]
    up = running(command, port, path="/health", wait_s=60)
    await asyncio.to_thread(up.__enter__)
    try:
        yield port
    finally:
        await asyncio.to_thread(up.__exit__, None, None, None)
        for server in servers:
            server.close()


async def ask(port: int, body: dict[str, object]) -> tuple[int, float]:
    """Send one request on a connection of its own; its status (0: none came) and seconds to its first token or whole answer."""
    data, began = json.dumps(body).encode(), time.perf_counter()
    kind = f"host: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\nconnection: close\r\n\r\n"
    head = f"POST /v1/chat/completions HTTP/1.1\r\n{kind}"
    try:
        async with asyncio.timeout(30):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head.encode() + data)
            got = await reader.readuntil(b"\r\n\r\n")
            said = b""
            while (part := await reader.read(1 << 16)) and b'"hi"' not in said:
                said += part
            writer.close()
    except (TimeoutError, OSError, asyncio.IncompleteReadError):
        return 0, time.perf_counter() - began
    return (int(got.split()[1]) if b'"hi"' in said else 0), time.perf_counter() - began


async def load(port: int, rate: float, seconds: float, bodies: Sequence[dict[str, object]]) -> list[tuple[int, float]]:
    """Requests at even times, whatever becomes of those before; by their order."""
    began, tasks = time.perf_counter(), []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        tasks.append(asyncio.create_task(ask(port, bodies[number % len(bodies)])))
    return list(await asyncio.gather(*tasks))


async def measure(rate: float, seconds: float) -> None:
    """Run all and print."""
    hello: dict[str, object] = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
    bad = {**hello, "poison": True}
    with tempfile.TemporaryDirectory() as folder:
        async with gateway([StubEngine() for _ in range(4)], Path(folder)) as port:
            before = await load(port, rate, seconds, [hello])
            after = await load(port, rate, seconds, [hello] * (POISON - 1) + [bad])
        others = [number for number in range(len(after)) if number % POISON != POISON - 1]
        kept = [after[k][0] == 200 and after[k][1] <= 1.5 * before[k][1] for k in others if before[k][0] == 200]
        show("poison_others_within_1.5x", sum(kept) / len(kept), len(kept))
        show("poison_others_answered", sum(after[k][0] == 200 for k in others) / len(others), len(others))
        async with gateway([StubEngine(mute=True), StubEngine()], Path(folder)) as port:
            seen = await load(port, rate, seconds, [{**hello, "stream": True}])
        late = seen[int(CALM_S * rate) :]
        kept = [status == 200 and took <= PROMISE_S for status, took in late]
        show("mute_within_promise_after_10_s", sum(kept) / len(kept), len(kept))


def show(name: str, value: float, requests: int) -> None:
    """Print a figure."""
    print(json.dumps({"name": name, "value": round(value, 4), "unit": "share", "requests": requests}), flush=True)


def main() -> None:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    given = parser.parse_args()
    asyncio.run(measure(given.rate, given.seconds))


if __name__ == "__main__":
    main()
