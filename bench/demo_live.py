"""A fleet to try things on: emulated engines under `sageserve up`, traffic, and a real Prometheus that scrapes all of it.

    python -m bench.demo_live [FOLDER] [--for SECONDS]      make demo-live

Goes on until Ctrl-C, or for so long, and leaves nothing running. FOLDER (build/demo-live) gets fleet.yaml, for doctor and
backtest. Prometheus is Debian's: apt-get install prometheus. Read next: docs/how-to/try-it-live.md.
"""

import argparse
import asyncio
import shutil
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import httpx

from sageserve.base.rng import stream

MODEL: Final = "llama-3.1-8b"
POOL: Final = f"east/{MODEL}/h100-80gb"
RATE: Final = 10.0  # requests per second, on average
FLEET: Final = """# A fleet of this machine and the Prometheus that scrapes it: made by bench/demo_live.py.
name: demo
extends: local
regions: {{west: null, east: {{rtt: null}}}} # one, so that the gateway's counts by class are used
models: {{llama-3.1-70b: null}}
batch: {{feed: direct}}
strategy: {{reactive: {{high: 0.3, low: 0.01}}}} # traffic that a laptop can make brings instances up
live:
  port: {port}
  clusters:
    demo: {{prometheus: {{url: "{prometheus}"}}}}
  targets:
    chat: {{cluster: demo, pool: {pool}, kind: Deployment, name: demo/chat, max: 4, series: {{pool: {pool}}}}}
"""
SCRAPES: Final = """
global: {{scrape_interval: 5s, scrape_timeout: 4s}}
scrape_configs:
  - job_name: engines
    http_sd_configs: [{{url: "http://{gateway}/admin/targets", refresh_interval: 5s}}]
  - job_name: gateway
    static_configs: [{{targets: ["{gateway}"]}}]
  - job_name: control
    metrics_path: /admin/metrics
    static_configs: [{{targets: ["{gateway}"]}}]
"""


def main() -> int:
    """Run it; exit code 2 where Prometheus is missing."""
    given = argparse.ArgumentParser(
        prog="python -m bench.demo_live", description="A fleet, traffic and a Prometheus to try things on."
    )
    given.add_argument("folder", nargs="?", default="build/demo-live", type=Path)
    given.add_argument("--for", dest="seconds", type=float, default=float("inf"), help="end by itself after so many seconds")
    options = given.parse_args()
    program = shutil.which("prometheus")
    if program is None:
        print(
            "prometheus is not on this machine: apt-get install prometheus, or from https://prometheus.io/download",
            file=sys.stderr,
        )
        return 2
    folder: Path = options.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            gateway, prometheus = started(folder, program, stack)
            tell(folder, gateway, prometheus)
            asyncio.run(traffic(f"http://{gateway}", options.seconds))
        except KeyboardInterrupt:
            print("ending", file=sys.stderr)
    return 0


def started(folder: Path, program: str, stack: ExitStack) -> tuple[str, str]:
    """Write settings, start the fleet, then the server; where both listen."""
    ports = free_ports(2)
    gateway, prometheus = (f"127.0.0.1:{port}" for port in ports)
    fleet, state = folder / "fleet.yaml", folder / "state"
    fleet.write_text(FLEET.format(port=ports[0], prometheus=f"http://{prometheus}", pool=POOL), "utf-8")
    (folder / "prometheus.yaml").write_text(SCRAPES.format(gateway=gateway), "utf-8")
    sageserve = (sys.executable, "-m", "sageserve")
    stack.callback(lambda: subprocess.run([*sageserve, "down", "--state", str(state)], check=False, capture_output=True))
    subprocess.run([*sageserve, "up", str(fleet), "--state", str(state), "--detach"], check=True)
    words = (
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={prometheus}",
    )
    server = subprocess.Popen([program, *words], stderr=stack.enter_context((folder / "prometheus.log").open("w")))

    def end() -> None:
        server.terminate()
        server.wait()

    stack.callback(end)
    return gateway, prometheus


def tell(folder: Path, gateway: str, prometheus: str) -> None:
    """What to try, in another terminal."""
    fleet = folder / "fleet.yaml"
    print(
        f"""
live page   http://{gateway}/ui
Prometheus  http://{prometheus}

After some minutes of traffic, in another terminal:

  sageserve doctor {fleet}
  sageserve backtest {fleet} --last 10m --interval 15s --out {folder / "backtest"}

Ctrl-C ends all of it.""",
        flush=True,
    )


async def traffic(url: str, seconds: float) -> None:
    """Requests that come and go in a wave of five minutes, four in five of them interactive."""
    draw = stream(0, "demo")
    until = time.monotonic() + seconds  # noqa: TID251 # how long it goes on is wall time
    async with httpx.AsyncClient(timeout=120) as client, asyncio.TaskGroup() as group:
        while (now := time.monotonic()) < until:  # noqa: TID251 # likewise
            wave = 1.0 + 0.6 * float(-1.0 if now % 300 < 150 else 1.0)
            await asyncio.sleep(float(draw.exponential(1 / (RATE * wave))))
            tier = ("iw-f", "iw-n", "niw")[int(draw.choice(3, p=(0.5, 0.3, 0.2)))]
            prompt, answer = (int(size) for size in draw.lognormal((6.7, 4.0), (0.8, 0.6)))
            group.create_task(ask(client, url, tier, (prompt, answer)))


async def ask(client: httpx.AsyncClient, url: str, tier: str, sizes: tuple[int, int]) -> None:
    """One streamed request; what fails is the fleet's to tell."""
    prompt, answer = sizes
    body = {"model": MODEL, "prompt": "word " * max(1, prompt), "max_tokens": max(1, answer), "stream": True}
    try:
        async with client.stream("POST", f"{url}/v1/completions", json=body, headers={"x-sageserve-tier": tier}) as got:
            async for _ in got.aiter_bytes():
                pass
    except httpx.HTTPError as error:
        print(f"a request failed: {error}", file=sys.stderr)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at, all different."""
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    found = [int(one.getsockname()[1]) for one in held]
    for one in held:
        one.close()
    return found


if __name__ == "__main__":
    sys.exit(main())
