"""`sageserve calibrate benchmark` against an emulated engine of known coefficients, at a fiftieth of the usual time."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from sageserve.base.errors import MeasurementError
from sageserve.cli.main import app
from sageserve.data.measured.files import read_measured
from sageserve.data.measured.runs import EngineLimits, MeasuredRequests, MeasuredRun, requests_of
from sageserve.data.profiles.library import profile_named
from sageserve.live.benchmark import run as running
from sageserve.live.benchmark.client import RequestSample
from sageserve.live.benchmark.load import Stretch
from sageserve.sim.calibration import benchmark as fitting
from tests.live.emulator.process import engine

KEY = "sk-never-to-be-seen"
SPEED = 2  # of the emulated engine: 10 ms base, 25 us per prompt token, 50 us per sequence


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with engine(tmp_path_factory.mktemp("engine"), "--speed", str(SPEED)) as started:
        yield started.url


def calibrate(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["calibrate", "benchmark", *arguments])


def quick(url: str, folder: Path, minutes: str = "0.1") -> list[str]:
    limits = ["--max-sequences", "8", "--max-batched-tokens", "256", "--prompts", "64,256", "--output-high", "16"]
    return [url, "--model", "small", "--minutes", minutes, *limits, "-o", str(folder / "p.yaml"), "--keep", str(folder / "kept")]


def patient(url: str, folder: Path, *more: str) -> Result:
    """Six seconds are enough on an idle machine; where many tests share few cores, longer."""
    result = calibrate(*quick(url, folder, "0.1"), *more)
    for minutes in ("0.2", "0.6"):
        if not isinstance(result.exception, MeasurementError) or "cannot judge" not in result.exception.message:
            break
        result = calibrate(*quick(url, folder, minutes), *more)
    return result


@pytest.mark.slow
def test_known_coefficients_come_back(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "NOISE_MOST", 5.0)  # six seconds beside other tests are no quiet five minutes
    monkeypatch.setattr(fitting, "ERROR_MOST", 50.0)
    monkeypatch.setenv("ENGINE_KEY", KEY)
    result = patient(url, tmp_path, "--key-env", "ENGINE_KEY", "--json")
    assert result.exit_code == 0, result.output
    assert KEY not in result.output
    found = json.loads(result.stdout)
    profile = profile_named(str(tmp_path / "p.yaml")).profile
    assert [list(knot) for knot in profile.iteration_ms] == found["profile"]["iteration_ms"]
    assert (
        0.6 < profile.iteration_ms[0][1] / (20 / SPEED) < 2.5
    )  # on an idle machine within 10 %; a busy one is slower, never faster
    assert (profile.kv_tokens, profile.max_sequences, profile.max_batched_tokens) == (4000, 8, 256)
    assert "kept out" in profile.error
    assert found["open_loop"]["requests"] >= running.OPEN_LEAST
    _check_kept(tmp_path / "kept")


def _check_kept(folder: Path) -> None:
    closed, opened = read_measured(folder)
    assert (closed.name, opened.name) == ("closed-loop", "open-loop")
    assert closed.model == "small"
    for run in (closed, opened):
        assert run.limits.kv_tokens == 4000
        assert run.requests is not None
        assert len(run.requests) > running.OPEN_LEAST
    assert closed.requests is not None
    assert (closed.requests.prompt == 64).sum() >= 3  # token numbers are exact; longer prompts may be left out for time
    assert closed.series is not None
    assert closed.series.running.max() > 1
    every = (folder / "requests.csv").read_text() + (folder / "experiments.csv").read_text()
    assert KEY not in every


def test_ctrl_c_leaves_nothing_behind_and_shows_no_key(url: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sageserve.cli.main", "calibrate", "benchmark", *quick(url, tmp_path, "5")]
    environment = {**os.environ, "ENGINE_KEY": KEY}  # noqa: TID251  # the command is told its key as users do
    with subprocess.Popen([*command, "--key-env", "ENGINE_KEY"], stderr=subprocess.PIPE, env=environment, text=True) as process:
        assert process.stderr is not None
        seen = ""
        while "one at a time" not in seen:
            line = process.stderr.readline()
            assert line, seen
            seen += line
        process.send_signal(signal.SIGINT)
        seen += process.stderr.read()
        assert process.wait(20) == 130, seen
    assert list(tmp_path.iterdir()) == []
    assert KEY not in seen
    assert "Traceback" not in seen


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (("--max-sequences", "1"), "never varies"),
        (("--key-env", "NOT_SET_ANYWHERE"), "empty or not set"),
        (("--levels", "1,x"), "whole numbers"),
        (("--model", "other"), "does not serve 'other'"),
    ],
)
def test_what_cannot_work_is_refused_at_once(url: str, tmp_path: Path, extra: tuple[str, ...], said: str) -> None:
    result = calibrate(*quick(url, tmp_path), *extra)
    assert isinstance(result.exception, MeasurementError)
    assert said in result.exception.message
    assert list(tmp_path.iterdir()) == []


def test_an_engine_that_is_not_there(tmp_path: Path) -> None:
    result = calibrate(*quick("http://127.0.0.1:9", tmp_path))
    assert isinstance(result.exception, MeasurementError)
    assert "cannot be asked" in result.exception.message


def test_files_that_are_there_stay(url: str, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("mine")
    result = calibrate(*quick(url, tmp_path))
    assert isinstance(result.exception, MeasurementError)
    assert "already" in result.exception.message
    assert (tmp_path / "p.yaml").read_text() == "mine"


def test_equal_requests_that_take_unequally_long_are_noise() -> None:
    def stretch(*e2e: int) -> Stretch:
        found = Stretch("equal", 1, 0)
        found.samples = [RequestSample(0, (1000, each), 10, 5, None) for each in e2e]
        return found

    running._check_noise(stretch(*[100_000 + 1000 * i for i in range(10)]))
    with pytest.raises(MeasurementError, match="too noisy"):
        running._check_noise(stretch(*[100_000, 200_000] * 5))


def requests(stretched: float, seed: int) -> MeasuredRequests:
    """Requests of an engine of 10 ms per iteration that are alone in it, as measured with an error."""
    rng = np.random.Generator(np.random.PCG64(seed))
    prompt, output = rng.integers(20, 900, 80), rng.integers(2, 60, 80)
    ttft = 10_000 + 100 * prompt
    e2e = ttft + 11_000 * (output - 1)
    columns = {"arrival": np.arange(80) * 2_000_000, "prompt": prompt, "output": output, "ttft": ttft, "e2e": e2e}
    return requests_of(
        {name: (values * stretched if name in {"ttft", "e2e"} else values).astype(np.int64) for name, values in columns.items()},
        "x",
    )


def test_a_profile_that_misses_the_kept_out_minute_is_refused() -> None:
    limits = EngineLimits(max_sequences=8, max_batched_tokens=1024, kv_tokens=100_000)
    closed = MeasuredRun("closed-loop", limits, model="m", requests=requests(1.0, 1))
    same = MeasuredRun("open-loop", limits, model="m", requests=requests(1.0, 2))
    fit = fitting.fit_benchmark(closed, same)
    assert fit.opened.e2e_mape is not None
    assert fit.opened.e2e_mape < 0.02
    slower = MeasuredRun("open-loop", limits, model="m", requests=requests(1.6, 2))
    with pytest.raises(MeasurementError, match=r"misses the open loop by 3\d%"):
        fitting.fit_benchmark(closed, slower)
