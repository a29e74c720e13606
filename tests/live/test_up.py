"""A whole fleet from one command: requests, batches, deaths of every process under load, and nothing left behind.

Real processes, real sockets, the official client. Read next: `src/sageserve/cli/up.py`, docs/how-to/serve.md.
"""

import functools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Literal

import httpx
import msgspec
import openai
import pytest

from sageserve.cli.ports import held_port
from sageserve.live.audit import verify
from sageserve.live.control.status import Status

JOBS = 150
MODEL = "llama-3.1-8b"

pytestmark = pytest.mark.slow


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "sageserve.cli.main", *arguments], capture_output=True, text=True, check=False)


class Fleet:
    """A fleet that was started detached."""

    def __init__(self, state: Path) -> None:
        self.state = state
        done = command(
            "up",
            "--detach",
            "--state",
            str(state),
            "--port",
            "0",
            "--speed",
            "4",
            "--set",
            "fleet.maximum=2",
            "--set",
            "live.safety.hung_after=3s",
        )
        assert done.returncode == 0, done.stderr
        self.connect()

    def connect(self) -> None:
        """A client of it."""
        self.url = json.loads((self.state / "fleet.json").read_text("utf-8"))["url"]
        self.client = openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=8)

    def status(self) -> Status:
        done = command("status", "--json", "--state", str(self.state))
        assert done.returncode == 0, done.stderr
        return msgspec.json.decode(done.stdout.encode(), type=Status)

    def processes(self) -> dict[str, int]:
        """The newest process of each name, by what its command line says."""
        found = {}
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
                if any(str(self.state).encode() in word for word in words):
                    name = next((w.decode() for w in words if w in {b"control", b"gateway", b"engine", b"up"}), "other")
                    found[f"{name}-{entry.name}"] = int(entry.name)
        return found

    def kill(self, name: str) -> int:
        pid = next(pid for known, pid in self.processes().items() if known.startswith(name))
        os.kill(pid, signal.SIGKILL)
        return pid

    def ask(self, text: str, tier: Literal["auto", "flex", "priority"] = "auto") -> str:
        answer = self.client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": text}], max_tokens=8, service_tier=tier
        )
        return str(answer.choices[0].message.content)


def until(true: Callable[[], bool], seconds: float = 90.0) -> None:
    for _ in range(int(5 * seconds)):
        if true():
            return
        time.sleep(0.2)
    raise AssertionError(f"it did not come true in {seconds} s")


@pytest.fixture(scope="module")
def fleet(short_folder: Callable[[], Path]) -> Iterator[Fleet]:
    made = Fleet(short_folder())
    yield made
    done = command("down", "--state", str(made.state))
    assert done.returncode == 0, done.stderr
    until(lambda: made.processes() == {}, 10)


def test_it_answers_and_counts(fleet: Fleet) -> None:
    assert fleet.ask("hello", "priority")
    stream = fleet.client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "again"}], max_tokens=8, stream=True
    )
    assert sum(len(chunk.choices[0].delta.content or "") for chunk in stream if chunk.choices) > 0
    until(lambda: [tier.finished for tier in fleet.status().tiers][:2] == [1, 1], 20)


def test_a_waiting_client_of_a_batch_tier_is_let_in(fleet: Fleet) -> None:
    assert fleet.ask("no hurry", "flex")


def test_new_settings_are_taken_on_and_nobody_is_refused_meanwhile(fleet: Fleet) -> None:
    """Clients that connect anew for every request, and clients that keep their connection: all are answered all the time."""
    asked = {"model": MODEL, "max_tokens": 4, "messages": [{"role": "user", "content": "meanwhile"}]}
    over = threading.Event()

    def ask(kept: httpx.Client | None) -> int:
        answers = 0
        while not over.is_set():
            post = kept.post if kept else functools.partial(httpx.post, trust_env=False)
            assert post(f"{fleet.url}/v1/chat/completions", json=asked, timeout=30).status_code == 200
            answers += 1
            time.sleep(0.05)
        return answers

    with ThreadPoolExecutor(2) as threads, httpx.Client(trust_env=False) as kept:
        asking = [threads.submit(ask, None), threads.submit(ask, kept)]
        try:
            done = command("reload", "--state", str(fleet.state), "--set", "live.limits.body=2MB", "--json")
        finally:
            over.set()
        assert all(answers.result() > 5 for answers in asking)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["applied"]
    assert httpx.post(f"{fleet.url}/v1/completions", content=b"x" * (3 << 20), trust_env=False).status_code == 413
    refused = command("reload", "--state", str(fleet.state), "--set", "live.speed=5", "--set", "live.limits.body=3MB")
    assert refused.returncode == 2
    assert "live.speed" in refused.stderr
    assert command("reload", "--state", str(fleet.state)).stdout == "nothing has changed\n"
    assert "reload" in acts(fleet)


def acts(fleet: Fleet) -> list[str]:
    """What was written down, in order."""
    text = (fleet.state / "audit" / "audit-000001.jsonl").read_text("utf-8")
    return [json.loads(line)["act"] for line in text.splitlines()]


def test_a_second_fleet_in_the_same_place_is_refused(fleet: Fleet) -> None:
    done = command("up", "--state", str(fleet.state), "--port", "0")
    assert done.returncode == 2
    assert "runs already" in done.stderr
    assert fleet.ask("still here")


def test_a_batch_survives_the_death_of_every_process(fleet: Fleet) -> None:
    """Every job is recorded once, whatever is killed meanwhile, and in the order of the input."""
    lines = [
        {
            "custom_id": f"job-{k}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": MODEL, "max_tokens": 8, "messages": [{"role": "user", "content": f"job {k}"}]},
        }
        for k in range(JOBS)
    ]
    content = "\n".join(json.dumps(line) for line in lines).encode()
    file = fleet.client.files.create(file=("jobs.jsonl", content), purpose="batch")
    batch = fleet.client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    for name in ("engine", "control", "gateway"):
        time.sleep(0.7)
        fleet.kill(name)

    def completed() -> bool:
        with suppress(openai.InternalServerError, openai.APIConnectionError):  # control is being started again
            return fleet.client.batches.retrieve(batch.id).status == "completed"
        return False

    until(completed, 180)
    done = fleet.client.batches.retrieve(batch.id)
    assert done.output_file_id is not None
    results = [json.loads(line) for line in fleet.client.files.content(done.output_file_id).text.splitlines()]
    assert sorted(result["custom_id"] for result in results) == sorted(f"job-{k}" for k in range(JOBS))
    assert all(result["response"]["status_code"] == 200 for result in results)
    assert done.request_counts is not None
    assert (done.request_counts.completed, done.request_counts.failed) == (JOBS, 0)


def test_a_dead_engine_is_replaced_and_the_loss_is_written_down(fleet: Fleet) -> None:
    def serving() -> int:
        return sum(pool.serving for endpoint in fleet.status().endpoints for pool in endpoint.pools)

    until(lambda: serving() >= 4)
    killed = fleet.kill("engine")
    until(lambda: killed not in fleet.processes().values())
    until(lambda: serving() >= 4)
    journal = "".join(path.read_text("utf-8") for path in (fleet.state / "journal").iterdir())
    assert '"type":"lost"' in journal


def test_an_engine_that_hangs_is_told_of_passed_by_and_replaced(fleet: Fleet) -> None:
    name, pid = next((name, pid) for name, pid in fleet.processes().items() if name.startswith("engine"))
    os.kill(pid, signal.SIGSTOP)
    try:
        assert all(fleet.ask(f"past a stopped engine {k}") for k in range(6))
        until(lambda: fleet.status().ended == 1)
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    until(lambda: pid not in fleet.processes().values())
    lost = [line for line in (fleet.state / "journal").rglob("*.jsonl") if "has answered nobody for" in line.read_text("utf-8")]
    assert lost, f"why {name} is gone is in the journal"
    until(lambda: all(any(pool.serving for pool in endpoint.pools) for endpoint in fleet.status().endpoints))


def test_requests_are_answered_while_control_is_away(fleet: Fleet) -> None:
    fleet.kill("control")
    assert all(fleet.ask(f"meanwhile {k}") for k in range(5))
    until(lambda: command("status", "--state", str(fleet.state)).returncode == 0)


def test_the_page_and_the_metrics_are_there(fleet: Fleet) -> None:
    assert "<title>SageServe</title>" in httpx.get(f"{fleet.url}/ui", trust_env=False).text
    text = httpx.get(f"{fleet.url}/admin/metrics", trust_env=False).text
    assert "sageserve_instances{" in text
    assert "sageserve_decisions_total" in text or "# TYPE sageserve_decisions" in text


def test_its_folder_is_its_users_alone_and_control_answers_nobody_else(fleet: Fleet) -> None:
    opened = [path for path in fleet.state.rglob("*") if not path.is_socket() and path.stat().st_mode & 0o077]
    assert opened == []
    assert (acts(fleet)[0], verify(fleet.state).problem) == ("up", "")
    found = json.loads((fleet.state / "fleet.json").read_text("utf-8"))
    for path in ("/v1/files", "/admin/status", "/ui"):
        got = httpx.get(found["control_url"] + path, headers={"x-sageserve-key": "anyone"}, trust_env=False)
        assert (got.status_code, got.json()["error"]["code"]) == (403, "not_ours")


def test_a_command_that_cannot_be_filled_in_starts_nothing(tmp_path: Path) -> None:
    setting = "live.engines." + f'"{MODEL}"' + ".command=[serve, '--port={prt}']"
    done = command("up", "--state", str(tmp_path), "--set", setting)
    assert done.returncode == 2
    assert f"live.engines.{MODEL}" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("detach", [(), ("--detach",)])
def test_a_folder_too_long_for_sockets_is_refused_before_anything_is_made(tmp_path: Path, detach: tuple[str, ...]) -> None:
    folder = tmp_path / ("long" * 30)
    done = command("up", *detach, "--state", str(folder))
    assert done.returncode == 2
    assert "too long" in done.stderr
    assert "--state" in done.stderr
    assert not folder.exists()


def test_a_control_process_that_dies_at_each_start_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("in the way of its folder", "utf-8")
    try:
        done = command("up", "--detach", "--state", str(tmp_path), "--port", "0")
        assert done.returncode == 2
        assert "control has died 2 times; it exited with code 2: " in done.stderr
        assert f"{tmp_path / 'journal'}: File exists" in done.stderr.replace("\n", "")
        assert "sageserve down" in done.stderr
    finally:
        command("down", "--state", str(tmp_path))


def test_nothing_survives_the_death_of_the_supervisor(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "state")
    assert len(fleet.processes()) >= 7
    fleet.kill("up")
    until(lambda: fleet.processes() == {}, 20)
    done = command("status", "--state", str(fleet.state))
    assert done.returncode == 2
    assert "not running any more" in done.stderr


def test_the_port_of_control_is_nobody_elses_while_control_is_away() -> None:
    port = held_port()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port))
    with socket.socket() as control:
        control.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        control.bind(("127.0.0.1", port))
        control.listen()
