"""What the gateway costs: CPU per request and per streamed event, added latency, memory; beside other gateways, in one run.

    python -m bench.gateway --tools FOLDER [--seconds 4] [--router PROGRAM] [--litellm PROGRAM]
    python -m bench.gateway --router PROGRAM --rounds 5      ours and the router in turns, and the medians: for a noisy machine

FOLDER holds `stub.c` (an engine that answers at once) and `lg.c` (a load generator), which gcc builds into a temporary folder.
CPU is user and system time of the gateway's processes over the requests answered, so that a busy machine changes it less than
it changes latency. One JSON line per gateway and load. Read next: docs/reference/gateway.md.
"""

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

WORKING = Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")
PACE_US = 5000  # between tokens of a stream: 200 tokens/s
TOKENS = 64
STREAMS = 2000
KEY = "sk-bench"
OUR_HEADERS = ["-H", f"Authorization: Bearer {KEY}"]
PLAIN = {
    "model": "m1",
    "messages": [{"role": "user", "content": "Hello there, please say something small."}],
    "max_tokens": TOKENS,
}
ENGINE = {
    "gpu": "h100",
    "tp": 1,
    "gpus": 1,
    "iteration_ms": [[1, 1], [1_001, 2]],
    "decode_us_per_sequence": 1,
    "kv_ns_per_token": 1,
    "attention_ns_per_token2": 0,
    "kv_tokens": 10_000_000,
    "max_sequences": 4096,
    "source": "made up: nothing is ever refused",
}


def free_port() -> int:
    """A port nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def family(pid: int) -> list[int]:
    """A process and all that it started."""
    found = [pid]
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text("utf-8").split():
                found += family(int(child))
    return found


def cpu_s(pid: int) -> float:
    """CPU seconds of a process and its children."""
    total = 0
    for one in family(pid):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{one}/stat").read_text("utf-8").rpartition(")")[2].split()
            total += int(words[11]) + int(words[12])
    return total / TICKS


def memory_mb(pid: int) -> float:
    """Resident memory of a process and its children."""
    total = 0
    for one in family(pid):
        with contextlib.suppress(OSError):
            line = next(line for line in Path(f"/proc/{one}/status").read_text("utf-8").splitlines() if line.startswith("VmRSS"))
            total += int(line.split()[1])
    return total / 1024


@contextlib.contextmanager
def running(command: Sequence[str], port: int, *, path: str, wait_s: float) -> Iterator[int]:
    """A program that listens; gives its process id."""
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(command, cwd=WORKING, stdout=log, stderr=log)
        try:
            until = time.monotonic() + wait_s  # noqa: TID251 # a benchmark measures real time
            while not answers(port, path):
                if child.poll() is not None or time.monotonic() > until:  # noqa: TID251 # as above
                    log.seek(0)
                    raise SystemExit(f"{command[0]} did not start: {log.read()[-2000:].decode('utf-8', 'replace')}")
                time.sleep(0.1)
            yield child.pid
        finally:
            child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(5)
            child.kill()
            child.wait()


def answers(port: int, path: str) -> bool:
    """Whether someone answers there."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=1):
            return True
    except OSError:
        return False


class Bench:
    """The tools, built.

    Args:
        tools: folder of their sources.
        folder: to build in.
        seconds: of each load.
    """

    def __init__(self, tools: Path, folder: Path, seconds: float) -> None:
        self.folder = folder
        self.seconds = seconds
        for name in ("stub", "lg"):
            subprocess.run(["gcc", "-O2", "-w", "-o", str(folder / name), str(tools / f"{name}.c")], check=True)  # noqa: S607 # the user's own
        (folder / "plain.json").write_text(json.dumps(PLAIN), "utf-8")
        (folder / "stream.json").write_text(json.dumps({**PLAIN, "stream": True}, separators=(",", ":")), "utf-8")
        self.engine = free_port()
        self.headers: list[str] = []  # of every request

    def load(self, name: str, port: int, pid: int, *, clients: int, body: str) -> float:
        """Put a gateway under load and print what it took; CPU microseconds per request, or per event of a stream."""
        before = cpu_s(pid)
        command = [
            str(self.folder / "lg"),
            "-p",
            str(port),
            "-c",
            str(clients),
            "-d",
            str(self.seconds),
            "-w",
            "1",
            *self.headers,
        ]
        said = subprocess.run([*command, "-b", str(self.folder / body)], capture_output=True, check=True, text=True)
        spent = cpu_s(pid) - before
        got = json.loads(said.stdout)
        requests = int(sum(got["codes"].values()))
        line: dict[str, object] = {"gateway": name, "load": body.partition(".")[0], "clients": clients, "errors": got["err"]}
        line |= {"requests_per_s": got["rps"], "p50_ms": got["p50_ms"], "p99_ms": got["p99_ms"]}
        if body == "plain.json":
            each = round(spent / max(1, requests) * 1e6, 1)
            line["cpu_us_per_request"] = each
        else:
            events = float(got["events_s"]) * (self.seconds + 1)
            each = round(spent / max(1.0, events) * 1e6, 1)
            line |= {"cpu_us_per_event": each, "events_per_s": got["events_s"]}
        print(json.dumps(line), flush=True)
        return each

    def idle(self, name: str, pid: int) -> None:
        """Print what a gateway holds that nobody asked for anything yet."""
        time.sleep(1.0)
        print(json.dumps({"gateway": name, "streams": 0, "memory_mb": round(memory_mb(pid), 1)}), flush=True)

    def memory(self, name: str, port: int, pid: int) -> None:
        """Hold many streams open at once and print what a gateway holds."""
        command = [str(self.folder / "lg"), "-p", str(port), "-c", str(STREAMS), "-d", "3", "-w", "0"]
        child = subprocess.Popen([*command, "-b", str(self.folder / "stream.json"), *self.headers], stdout=subprocess.DEVNULL)
        time.sleep(2.5)
        print(json.dumps({"gateway": name, "streams": STREAMS, "memory_mb": round(memory_mb(pid), 1)}), flush=True)
        child.wait()

    def measure(self, name: str, port: int, pid: int) -> None:
        """All loads."""
        self.idle(name, pid)
        for clients in (1, 32, 256):
            self.load(name, port, pid, clients=clients, body="plain.json")
        self.load(name, port, pid, clients=256, body="stream.json")
        self.memory(name, port, pid)


def scenario(engine: int) -> str:
    """A scenario with tiers, keys with limits, budgets and shares, and one engine; JSON is YAML too."""
    key: dict[str, object] = {"name": "bench", "sha256": hashlib.sha256(KEY.encode()).hexdigest(), "weight": 2}
    key |= {"requests_per_minute": 10**9, "tokens_per_minute": 10**12, "tokens_per_day": 10**14, "dollars_per_day": 1e9}
    other = {"name": "other", "sha256": hashlib.sha256(b"nobody has it").hexdigest()}  # with one key alone nothing is shared
    prices = {"m1": {"input": 0.2, "output": 0.6}}
    stock = {"h100": {"gpus": 64, "price": {"on_demand": "80/h"}}}
    tree = {
        "name": "bench",
        "gpus": {"h100": {"memory": "80GiB"}},
        "regions": {"east": {"gpus": stock, "rtt": {"west": "60ms"}}, "west": {"gpus": stock}},
        "models": {"m1": {"context": 32768, "engines": {"h100": ENGINE}}},
        "tiers": {"fast": {"ttft": "1s"}, "normal": {"ttft": "60s", "priority": 1}, "batch": {"deadline": "24h", "priority": 2}},
        "fleet": {"start": 2, "minimum": 1, "maximum": 4},
        "live": {
            "instances": [{"region": "east", "model": "m1", "url": f"http://127.0.0.1:{engine}"}],
            "keys": [key, other],
            "prices": prices,
        },
    }
    return json.dumps(tree)


@contextlib.contextmanager
def our_gateway(bench: Bench) -> Iterator[tuple[int, int]]:
    """Our gateway: its port and process."""
    file, port = bench.folder / "bench.yaml", free_port()
    file.write_text(scenario(bench.engine), "utf-8")
    command = [sys.executable, "-m", "sageserve.cli.main", "gateway", str(file), "--port", str(port)]
    with running(command, port, path="/health", wait_s=30) as pid:
        yield port, pid


@contextlib.contextmanager
def vllm_router(bench: Bench, program: str) -> Iterator[tuple[int, int]]:
    """vllm-router, which sends requests round robin: its port and process."""
    port = free_port()
    command = [program, "--worker-urls", f"http://127.0.0.1:{bench.engine}", "--policy", "round_robin"]
    with running([*command, "--host", "127.0.0.1", "--port", str(port)], port, path="/health", wait_s=60) as pid:
        yield port, pid


def ours(bench: Bench) -> None:
    """All loads on our gateway."""
    bench.headers = OUR_HEADERS
    with our_gateway(bench) as (port, pid):
        bench.measure("sageserve", port, pid)
    bench.headers = []


def router(bench: Bench, program: str) -> None:
    """All loads on vllm-router."""
    with vllm_router(bench, program) as (port, pid):
        bench.measure("vllm-router", port, pid)


def in_turns(bench: Bench, program: str, rounds: int) -> None:
    """Both at once, under load by turns, so that whatever else the machine does meets both; medians at the end."""
    found: dict[tuple[str, str, int], list[float]] = {}
    with our_gateway(bench) as mine, vllm_router(bench, program) as other:
        for _ in range(rounds):
            for name, (port, pid), headers in (("sageserve", mine, OUR_HEADERS), ("vllm-router", other, [])):
                bench.headers = headers
                for clients, body in ((32, "plain.json"), (256, "plain.json"), (256, "stream.json")):
                    took = bench.load(name, port, pid, clients=clients, body=body)
                    found.setdefault((name, body.partition(".")[0], clients), []).append(took)
    for (name, load, clients), values in found.items():
        line = {"gateway": name, "load": load, "clients": clients, "rounds": rounds, "cpu_us_median": statistics.median(values)}
        print(json.dumps(line | {"least": min(values), "most": max(values)}))


def litellm(bench: Bench, program: str) -> None:
    """LiteLLM's proxy; it takes a minute to start, and is spared the streams it cannot finish."""
    port, file = free_port(), bench.folder / "litellm.yaml"
    model = {"model": "openai/m1", "api_base": f"http://127.0.0.1:{bench.engine}/v1", "api_key": "none"}
    settings = {"model_list": [{"model_name": "m1", "litellm_params": model}], "general_settings": {"master_key": KEY}}
    file.write_text(json.dumps(settings), "utf-8")
    bench.headers = ["-H", f"Authorization: Bearer {KEY}"]
    command = [program, "--config", str(file), "--host", "127.0.0.1", "--port", str(port)]
    with running(command, port, path="/health/liveliness", wait_s=180) as pid:
        for clients in (1, 32):
            bench.load("litellm", port, pid, clients=clients, body="plain.json")


def main() -> None:
    """Measure directly, through our gateway, and through others that are there."""
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument("--tools", type=Path, default=WORKING.parent / "shared" / "tools" / "gateway-bench")
    told.add_argument("--seconds", type=float, default=4.0)
    told.add_argument("--router", default=shutil.which("vllm-router"), help="the program vllm-router")
    told.add_argument("--rounds", type=int, default=0, help="ours and the router in so many turns, and nothing else")
    told.add_argument("--litellm", default=shutil.which("litellm"), help="the program litellm")
    given = told.parse_args()
    if shutil.which("gcc") is None or not (given.tools / "stub.c").exists():
        raise SystemExit("gcc, stub.c and lg.c are needed: give their folder as --tools")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(given.tools, Path(folder), given.seconds)
        stub = [str(bench.folder / "stub"), "-p", str(bench.engine), "-n", "s", "-i", str(PACE_US), "-t", str(TOKENS)]
        with running(stub, bench.engine, path="/health", wait_s=5) as pid:
            if given.rounds:
                in_turns(bench, given.router or "vllm-router", given.rounds)
                return
            for clients in (1, 32, 256):
                bench.load("none", bench.engine, pid, clients=clients, body="plain.json")
            bench.load("none", bench.engine, pid, clients=256, body="stream.json")
            ours(bench)
            if given.router:
                router(bench, given.router)
            if given.litellm:
                litellm(bench, given.litellm)


if __name__ == "__main__":
    main()
