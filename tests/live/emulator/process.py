"""An emulated engine in a process of its own, for tests that need a real one."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

COMMAND = (sys.executable, "-m", "sageserve.cli.main", "engine")
SMALL = """
profiles:
  small:
    gpu: none
    tp: 1
    gpus: 1
    iteration_ms: [[1, 20], [1001, 70]]
    first_token_ms: 4
    decode_us_per_sequence: 50
    kv_ns_per_token: 100
    attention_ns_per_token2: 1
    kv_tokens: 4000
    max_sequences: 8
    max_batched_tokens: 256
    source: made up, so that a test is quick
"""


@dataclass(frozen=True, slots=True)
class Running:
    """The process, and where it answers."""

    process: "subprocess.Popen[str]"
    url: str


@contextmanager
def engine(folder: Path, *options: str) -> Iterator[Running]:
    """Run an engine with the small profile under the name `small`, until the block ends."""
    profile = folder / "small.yaml"
    profile.write_text(SMALL, "utf-8")
    command = [*COMMAND, "--profile", f"{profile}#small", "--model", "small", "--context", "3000", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://"), process.stderr.read()
        try:
            yield Running(process, url)
        finally:
            process.kill()
