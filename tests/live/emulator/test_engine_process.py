"""The emulated engine as a process: how it starts and ends, what it costs, what can go wrong with it, how true its times are."""

import concurrent.futures
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest

from sageserve.base.records import Floats
from sageserve.data.profiles.library import profile_named
from sageserve.sim.replay import Arrivals, replay
from tests.live.emulator.process import COMMAND, Running, engine

PATIENCE_S = 60
LONG = {"prompt": "a", "max_tokens": 400, "ignore_eos": True, "stream": True}


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal: before that, the signal ends it."""
    lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    mask = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt:"))
    return bool(mask >> (number - 1) & 1)


def until(true: Callable[[], bool]) -> None:
    """Wait for it; how long says how busy the machine is, not how good the engine."""
    for _ in range(PATIENCE_S * 20):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError(f"it did not come true in {PATIENCE_S} s")


def test_no_compiler_is_loaded() -> None:
    code = (
        "import sys, sageserve.cli.main, sageserve.live.emulator.run, sageserve.data.profiles.library;"
        "print([one for one in ('numba', 'pandas', 'pyarrow', 'plotly', 'sageserve.sim') if one in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_starting_is_cheap_and_idling_costs_nothing(tmp_path: Path) -> None:
    with engine(tmp_path) as running:
        started = cpu_seconds(running.process.pid)
        time.sleep(1)
        assert started < 1.5
        assert cpu_seconds(running.process.pid) - started <= 0.01


def test_sigterm_lets_answers_finish_and_refuses_new_ones(tmp_path: Path) -> None:
    with engine(tmp_path, "--speed", "20") as running, httpx.Client(base_url=running.url) as client:
        client.get("/health").raise_for_status()
        with httpx.stream("POST", f"{running.url}/v1/completions", json=LONG) as answer:
            parts = answer.iter_text()
            next(parts)
            running.process.send_signal(signal.SIGTERM)
            until(lambda: client.get("/health").status_code == 503)
            refused = client.post("/v1/completions", json={"prompt": "a"})
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == 503
            assert "".join(parts).endswith("data: [DONE]\n\n")
        assert running.process.wait(PATIENCE_S) == 0


def test_a_second_sigterm_ends_it_at_once(tmp_path: Path) -> None:
    with engine(tmp_path) as running, httpx.stream("POST", f"{running.url}/v1/completions", json=LONG) as answer:
        parts = answer.iter_raw()
        next(parts)
        running.process.send_signal(signal.SIGTERM)
        until(lambda: httpx.get(f"{running.url}/health").status_code == 503)
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(PATIENCE_S) == -signal.SIGKILL


def test_loading_takes_its_time_and_can_be_given_up(tmp_path: Path) -> None:
    began = time.perf_counter()
    with engine(tmp_path, "--start-delay", "800ms") as running:
        assert time.perf_counter() - began > 0.8
        httpx.get(f"{running.url}/health").raise_for_status()
    with subprocess.Popen([*COMMAND, "--start-delay", "60s"], stdout=subprocess.PIPE) as loading:
        until(lambda: catches(loading.pid, signal.SIGTERM))
        loading.terminate()
        assert loading.wait(PATIENCE_S) == 0


def test_a_start_can_fail(tmp_path: Path) -> None:
    done = subprocess.run([*COMMAND, "--fail-start"], capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert done.returncode != 0
    assert "told to fail" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fault", "explode"], "hang, crash-after"),
        (["--fault", "errors=many"], "errors"),
        (["--start-delay", "5"], "--start-delay"),
        (["--profile", "nothing"], "nothing"),
        (["--host", "203.0.113.1"], "cannot listen"),
    ],
)
def test_a_wrong_option_is_explained(options: list[str], message: str) -> None:
    done = subprocess.run([*COMMAND, *options], capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def fault(running: Running, **changes: object) -> None:
    httpx.post(
        f"{running.url}/_fault", json={name.replace("_", "-"): value for name, value in changes.items()}
    ).raise_for_status()


def complete(running: Running, wait: float = PATIENCE_S) -> httpx.Response:
    return httpx.post(f"{running.url}/v1/completions", json={"prompt": "a", "max_tokens": 3}, timeout=wait)


def test_faults_come_and_go(tmp_path: Path) -> None:
    with engine(tmp_path, "--speed", "20", "--faults", "--fault", "errors=1") as running:
        assert complete(running).json()["error"]["code"] == 500
        assert complete(running).status_code == 200
        fault(running, plain_errors=1)
        plain = complete(running)
        assert (plain.status_code, plain.headers["content-type"]) == (500, "text/plain; charset=utf-8")
        fault(running, health="bad", metrics="gone")
        assert httpx.get(f"{running.url}/health").status_code == 503
        assert httpx.get(f"{running.url}/metrics").status_code == 404
        fault(running, health="silent", metrics="silent")
        for path in ("health", "metrics"):
            with pytest.raises(httpx.ReadTimeout):
                httpx.get(f"{running.url}/{path}", timeout=0.2)
        fault(running, health="ok", metrics="empty", hang=True)
        assert httpx.get(f"{running.url}/metrics").text == ""
        with pytest.raises(httpx.ReadTimeout):
            complete(running, wait=0.2)
        fault(running, hang=False)
        assert complete(running).status_code == 200
        assert httpx.post(f"{running.url}/_fault", json={"hang": 3}).status_code == 400


def test_a_stream_can_be_cut(tmp_path: Path) -> None:
    with engine(tmp_path, "--speed", "20", "--fault", "reset-after=5") as running:
        got: list[str] = []
        with httpx.stream("POST", f"{running.url}/v1/completions", json=LONG) as answer, pytest.raises(httpx.TransportError):
            got.extend(answer.iter_text())
        assert 1 <= "".join(got).count("data: ") <= 5
        assert "[DONE]" not in "".join(got)


def test_a_crash_says_nothing(tmp_path: Path) -> None:
    with engine(tmp_path, "--speed", "20", "--fault", "crash-after=2") as running:
        assert complete(running).status_code == 200
        with pytest.raises(httpx.TransportError):
            complete(running)
        assert running.process.wait(PATIENCE_S) == -signal.SIGKILL


def times(folder: Path) -> tuple[Floats, Floats]:
    """float64[40] seconds of E2E, by arrival: as a client saw them at twice the speed, several at once, and as replayed."""
    speed, count = 2, 40
    sizes = np.random.default_rng(1).integers((20, 10), (300, 50), (count, 2))  # noqa: TID251 # a fixed list of numbers

    def ask(row: int) -> tuple[float, float]:
        time.sleep(max(0.0, start + row * 0.05 - time.perf_counter()))
        began = time.perf_counter()
        body = {"prompt": [1] * int(sizes[row][0]), "max_tokens": int(sizes[row][1]), "ignore_eos": True}
        client.post(f"{running.url}/v1/completions", json=body).raise_for_status()
        return began, time.perf_counter() - began

    with (
        engine(folder, "--speed", str(speed)) as running,
        httpx.Client(timeout=30) as client,
        concurrent.futures.ThreadPoolExecutor(count) as pool,
    ):
        start = time.perf_counter()
        seen = np.array(list(pool.map(ask, range(count))))
        profile = profile_named(str(folder / "small.yaml#small")).profile
    order = np.argsort(seen[:, 0])
    arrival = ((seen[order, 0] - seen[:, 0].min()) * 1e6 * speed).astype(np.int64)
    expected = replay(profile, Arrivals(arrival, sizes[order, 0], sizes[order, 1])).e2e / 1e6 / speed
    return seen[order, 1], expected


def test_times_under_load_are_never_less_than_the_simulators(tmp_path: Path) -> None:
    seen, expected = times(tmp_path)
    assert seen.mean() > 0.95 * expected.mean()
    assert np.median(seen / expected) > 0.95


@pytest.mark.extended
def test_times_under_load_are_those_of_the_simulator(tmp_path: Path) -> None:
    if not os.environ.get("SAGESERVE_QUIET"):  # noqa: TID251 # whoever runs the tests knows what else the machine does
        pytest.skip("set SAGESERVE_QUIET=1 where nothing else runs: a busy machine is slower than the engine it emulates")
    seen, expected = times(tmp_path)
    assert seen.mean() == pytest.approx(expected.mean(), rel=0.05)
    assert np.median(np.abs(seen / expected - 1)) < 0.05
