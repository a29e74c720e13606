"""The whole way on a real engine: benchmark vLLM, fit a profile, and predict a minute that neither has seen.

Takes about eight minutes and a quiet machine, so it runs on demand only:

    SAGESERVE_VLLM=/path/to/venv/bin/vllm pytest tests/extended -m extended   # starts one with a tiny random model
    SAGESERVE_VLLM_URL=http://127.0.0.1:8000 pytest tests/extended -m extended  # one that runs

docs/how-to/benchmark-an-engine.md says how to install vLLM's CPU build.
"""

import asyncio
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from sageserve.base.config import ProfileSettings
from sageserve.base.records import Ints
from sageserve.base.rng import stream
from sageserve.cli.main import app
from sageserve.data.measured.files import choose, read_measured
from sageserve.live.benchmark.client import Body, RequestSample, connect
from sageserve.live.benchmark.load import open_loop
from sageserve.live.benchmark.plan import Mix, poisson_arrivals
from sageserve.live.benchmark.shape import RequestStyle
from sageserve.sim.replay import Arrivals, replay
from tests.extended.vllm_server import BATCHED, MODEL, SEQUENCES, vllm

pytestmark = pytest.mark.extended

MINUTES = os.environ.get("SAGESERVE_VLLM_MINUTES", "5")  # noqa: TID251  # how long to measure is said where tests are run
LOAD = 0.7  # of what the closed loop at the engine's limit finished
MOST = 0.10  # E2E


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real vLLM that serves the tiny model."""
    program = os.environ.get("SAGESERVE_VLLM")  # noqa: TID251  # a test run is told what to test against
    running = os.environ.get("SAGESERVE_VLLM_URL")  # noqa: TID251  # likewise
    if running:
        yield running
        return
    if not program:
        pytest.skip("set SAGESERVE_VLLM to a vllm program, or SAGESERVE_VLLM_URL to one that serves")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with vllm(program, tmp_path_factory.mktemp("vllm"), port) as url:
        yield url


def test_a_profile_of_a_real_engine_predicts_a_fresh_minute(engine: str, tmp_path: Path) -> None:
    command = ["calibrate", "benchmark", engine, "--model", MODEL, "--minutes", MINUTES, "--output-high", "128", "--json"]
    limits = ["--max-sequences", str(SEQUENCES), "--max-batched-tokens", str(BATCHED)]
    places = ["--out", str(tmp_path / "tiny.yaml"), "--keep", str(tmp_path / "kept")]
    result = CliRunner().invoke(app, [*command, *limits, *places], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    profile = ProfileSettings.model_validate_json(json.dumps(found["profile"]))

    samples = asyncio.run(_minute(engine, rate=LOAD * SEQUENCES / _seconds_at_the_limit(tmp_path / "kept")))
    played = replay(profile, Arrivals(*(_column(samples, name) for name in ("sent", "prompt", "output"))))
    measured = _column(samples, "e2e")
    mape = float(np.mean(np.abs(played.e2e - measured) / measured))
    bias = float(played.e2e.mean() / measured.mean() - 1)
    load = os.getloadavg()[0]
    print(f"\nfresh minute: {len(samples)} requests, E2E {mape:.1%}, bias {bias:+.1%}, load average {load:.1f}")  # noqa: T201  # -s shows it
    print(f"kept-out minute: {found['profile']['error']}")  # noqa: T201  # likewise
    assert mape < MOST


def _seconds_at_the_limit(folder: Path) -> float:
    """Mean E2E in the last, fullest level of the closed loop."""
    requests = choose(read_measured(folder), "closed-loop").requests
    assert requests is not None
    late = requests.arrival > requests.arrival[-1] - 20_000_000
    return float(requests.e2e[late].mean()) / 1e6


async def _minute(engine: str, rate: float) -> list[RequestSample]:
    """Other lengths, other arrivals, another session than the benchmark's."""
    shape, mix, rng = RequestStyle(MODEL), Mix(32, 1024, 8, 128), stream(1001, "fresh")

    def source() -> Body:
        prompt, output = mix.draw(rng)
        return shape.body(shape.prompts.make(prompt, rng), output)

    async with connect(engine, None) as client:
        due = poisson_arrivals(rate, 60.0, stream(1001, "fresh/arrivals"))
        stretch = await open_loop(client, "fresh", due, source, lambda: None)
    assert not stretch.failures
    return sorted(stretch.samples, key=lambda sample: sample.sent)


def _column(samples: list[RequestSample], name: str) -> Ints:
    values = np.array([getattr(sample, name) for sample in samples], np.int64)
    return values - values[0] if name == "sent" else values
