"""Batch work on an idle fleet: one-token jobs through the Batch API and as flex requests, with real processes.

    python -m bench.batch [--jobs 50000] [--flex 50000] [--clients 256] [--speed 1]

Starts the built-in fleet `local` (two emulated engines of one model, one gateway, one control) and times from the order of a
batch until its files can be read, then flex requests on so many kept connections. Every answer is checked before its time
counts. CPU is user and system time by process over the jobs. One JSON line per figure. Read next: docs/reference/batch.md.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from bench.gateway import cpu_s

MODEL = "llama-3.1-8b"
CHAT = "/v1/chat/completions"
BODY = {"model": MODEL, "messages": [{"role": "user", "content": "Yes or no?"}], "max_tokens": 1}
ENGINES = 2  # one in each region
SETTINGS = ("fleet.start=1", "fleet.maximum=1")


def sageserve(*words: str) -> str:
    """Run a command; its output.

    Raises:
        SystemExit: it failed.
    """
    done = subprocess.run([sys.executable, "-m", "sageserve.cli.main", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


@contextmanager
def fleet(state: Path, speed: float) -> Iterator[str]:
    """The fleet, up; the gateway's URL."""
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    sageserve("up", "--detach", "--state", str(state), "--port", "0", "--speed", str(speed), *settings)
    try:
        url = str(json.loads((state / "fleet.json").read_text("utf-8"))["url"])
        _wait_for_engines(state)
        yield url
    finally:
        sageserve("down", "--state", str(state))


def _wait_for_engines(state: Path) -> None:
    while True:
        seen = json.loads(sageserve("status", "--json", "--state", str(state)))["instances"]
        if sum(one["state"] == "serving" and MODEL in one["pool"] for one in seen) >= ENGINES:
            return
        time.sleep(0.5)


def processes(state: Path) -> dict[str, float]:
    """CPU seconds so far of the fleet's processes, by kind."""
    found: dict[str, float] = {}
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
        except OSError:
            continue
        if any(str(state).encode() in word for word in words):
            kind = next((w.decode() for w in words if w in {b"control", b"gateway", b"engine"}), "")
            if kind:
                found[kind] = found.get(kind, 0.0) + cpu_s(int(entry.name))
    return found


def batch(url: str, jobs: int) -> float:
    """Order a batch of so many jobs and wait for its files; seconds.

    Raises:
        SystemExit: not every line was answered.
    """
    lines = (json.dumps({"custom_id": f"j{k}", "method": "POST", "url": CHAT, "body": BODY}) for k in range(jobs))
    with httpx.Client(base_url=url, timeout=120) as client:
        file = client.post("/v1/files", data={"purpose": "batch"}, files={"file": ("jobs.jsonl", "\n".join(lines).encode())})
        order = {"input_file_id": file.json()["id"], "endpoint": CHAT, "completion_window": "24h"}
        began = time.perf_counter()
        made = client.post("/v1/batches", json=order).json()
        while (seen := client.get(f"/v1/batches/{made['id']}").json())["status"] in {"validating", "in_progress", "finalizing"}:
            print(f"{seen['status']}: {seen['request_counts']['completed']:,} of {jobs:,}", file=sys.stderr, end="\r")
            time.sleep(0.25)
        took = time.perf_counter() - began
        answers = client.get(f"/v1/files/{seen['output_file_id']}/content").text.splitlines()
    good = {json.loads(line)["custom_id"] for line in answers if json.loads(line)["response"]["status_code"] == 200}
    if seen["status"] != "completed" or len(good) != jobs:
        raise SystemExit(f"the batch is {seen['status']}, {len(good):,} of {jobs:,} jobs were answered")
    return took


async def flex(url: str, requests: int, clients: int) -> float:
    """Send so many flex requests on so many connections; seconds.

    Raises:
        SystemExit: not every one was answered.
    """
    host, _, port = url.removeprefix("http://").partition(":")
    body = json.dumps({**BODY, "service_tier": "flex"}).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    left, statuses = [requests], dict[str, int]()

    async def one() -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        while left[0] > 0:
            left[0] -= 1
            writer.write(head.encode() + body)
            fields = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = next(line for line in fields.split("\r\n") if line.startswith("content-length:"))
            await reader.readexactly(int(length.partition(":")[2]))
            status = fields.split()[1]
            statuses[status] = statuses.get(status, 0) + 1
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(clients)))
    took = time.perf_counter() - began
    if statuses != {"200": requests}:
        raise SystemExit(f"flex requests were answered with {statuses}")
    return took


def show(name: str, jobs: int, took: float, cpu: Mapping[str, float], before: Mapping[str, float]) -> None:
    """Print what a kind of work took."""
    print(json.dumps({"name": f"{name}_jobs_per_s", "value": round(jobs / took, 1), "unit": "jobs/s", "jobs": jobs}))
    for kind, used in sorted(cpu.items()):
        spent = (used - before.get(kind, 0.0)) / jobs * 1e6
        print(json.dumps({"name": f"{name}_{kind}_cpu", "value": round(spent), "unit": "us/job"}), flush=True)


def main() -> None:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=50_000)
    parser.add_argument("--flex", type=int, default=50_000)
    parser.add_argument("--clients", type=int, default=256)
    parser.add_argument("--speed", type=float, default=1.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, fleet(Path(folder) / "s", given.speed) as url:
        state = Path(folder) / "s"
        for name, jobs in (("batch", given.jobs), ("flex", given.flex)):
            if jobs:
                before = processes(state)
                took = batch(url, jobs) if name == "batch" else asyncio.run(flex(url, jobs, given.clients))
                show(name, jobs, took, processes(state), before)


if __name__ == "__main__":
    main()
