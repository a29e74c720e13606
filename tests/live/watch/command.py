"""`sageserve watch` in a process of its own, of a fleet of small engines.

Read next: `tests/live/prometheus/test_real_prometheus.py`.
"""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

FLEET = """
name: tiny
gpus: {l40s: {memory: 48GiB, start: 1m}}
regions: {here: {gpus: {l40s: {gpus: 8, price: {on_demand: 8/h, spot: 2/h}}}}}
models:
  small:
    context: 3000
    engines:
      l40s: {gpu: l40s, tp: 1, gpus: 1, iteration_ms: [[1, 20], [1001, 70]], first_token_ms: 4, decode_us_per_sequence: 50,
        kv_ns_per_token: 100, attention_ns_per_token2: 1, kv_tokens: 4000, max_sequences: 8, max_batched_tokens: 256,
        source: made up}
tiers: {chat: {ttft: 1s}}
fleet: {start: 2, minimum: 1, maximum: 6}
strategy: {name: reactive}
live:
  clusters: {here: {}}
  targets:
    small: {cluster: here, pool: here/small/l40s, kind: ScaledObject, name: serving/small, keda: true, min: 1, max: 6}
"""
POOL = "here/small/l40s"


@dataclass
class Watching:
    """The process, its folder, and once it has ended what it said."""

    process: "subprocess.Popen[str]"
    state: Path
    stdout: str = ""
    stderr: str = ""

    def end(self) -> int:
        """As Ctrl-C does; gives the exit code."""
        self.process.send_signal(signal.SIGINT)
        self.stdout, self.stderr = self.process.communicate(timeout=60)
        return self.process.returncode


@contextmanager
def watching(folder: Path, url: str, *options: str) -> Iterator[Watching]:
    """Watch through a server until the block ends."""
    fleet = folder / "fleet.yaml"
    fleet.write_text(FLEET, "utf-8")
    command = [
        sys.executable,
        "-m",
        "sageserve.cli.main",
        "watch",
        str(fleet),
        "--prometheus",
        url,
        "--state",
        str(folder / "state"),
    ]
    with subprocess.Popen(
        [*command, "--listen", "127.0.0.1:0", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Watching(process, folder / "state")
        finally:
            process.kill()
