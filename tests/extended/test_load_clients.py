"""A public load client against a whole fleet, unchanged: it must not notice that it does not talk to one engine.

    SAGESERVE_AIPERF=/path/to/venv/bin/aiperf pytest tests/extended/test_load_clients.py

Takes about a minute. Read next: docs/reference/gateway.md.
"""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.extended.vllm_server import write_model
from tests.live.test_up import MODEL, Fleet, command, until

pytestmark = pytest.mark.extended

REQUESTS = 100


@pytest.fixture(scope="module")
def fleet(short_folder: Callable[[], Path]) -> Iterator[Fleet]:
    made = Fleet(short_folder())
    yield made
    assert command("down", "--now", "--state", str(made.state)).returncode == 0


def profile(program: str, fleet: Fleet, folder: Path, *options: str) -> dict[str, dict[str, float]]:
    """What aiperf writes of a run."""
    write_model(folder / "model")  # a tokenizer that need not be fetched
    load = ["--request-count", str(REQUESTS), "--concurrency", "8", "--osl", "32", "--extra-inputs", "ignore_eos:true"]
    where = ["--model", MODEL, "--url", fleet.url, "--tokenizer", str(folder / "model"), "--artifact-dir", str(folder / "out")]
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}  # noqa: TID251  # a program of others'; offline it looks in its cache only
    words = [program, "profile", *where, *load, "--isl", "200", "--use-server-token-count", "--ui", "none", *options]
    done = subprocess.run(words, env=environment, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found: dict[str, dict[str, float]] = json.loads((folder / "out" / "profile_export_aiperf.json").read_text("utf-8"))
    return found


@pytest.mark.parametrize("options", [("--endpoint-type", "chat", "--streaming"), ("--endpoint-type", "completions")])
def test_aiperf_measures_a_fleet_as_it_would_an_engine(
    aiperf: str, fleet: Fleet, tmp_path: Path, options: tuple[str, ...]
) -> None:
    before = sum(tier.finished for tier in fleet.status().tiers)
    found = profile(aiperf, fleet, tmp_path, *options)
    assert found["request_count"]["avg"] == REQUESTS
    assert not found.get("error_summary"), found["error_summary"]
    assert found["output_sequence_length"]["avg"] == 32
    if "--streaming" in options:
        assert 0 < found["time_to_first_token"]["p50"] < found["request_latency"]["p50"]
        assert found["inter_token_latency"]["p50"] > 0
    until(lambda: sum(tier.finished for tier in fleet.status().tiers) >= before + REQUESTS, 20)
