"""kill -9 at random moments: every job is recorded exactly once, and none is lost. A full disk stops nothing for good.

Read next: `bench/batch_soak.py`, the same with a hundred thousand jobs.
"""

import json
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from sageserve.base.config import LiveSettings
from sageserve.live.store.sql import open_store
from tests.live.batches.gateway import FakeGateway
from tests.live.batches.plane import Plane, served
from tests.live.batches.test_api import client_of, finished, line, lines_of, submit, until

JOBS = 1_000
KILLS = 4


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Process:
    """A plane in a process of its own, which is started again as often as it is killed."""

    def __init__(self, root: Path, store: str, folder: Path, gateway: str) -> None:
        self.port = free_port()
        self._command = [
            sys.executable,
            str(root / "tests/live/batches/plane.py"),
            store,
            str(folder),
            str(self.port),
            gateway,
            "100000",
        ]
        self._root = root
        self._client = httpx.Client(timeout=120, trust_env=False, headers={"connection": "close"})

    @contextmanager
    def running(self) -> Iterator["subprocess.Popen[str]"]:
        with subprocess.Popen(
            self._command, cwd=self._root, env={"PYTHONPATH": ".", "NUMBA_DISABLE_JIT": "1"}, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline(), "it did not come up"
            try:
                yield process
            finally:
                process.kill()

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:  # noqa: ANN401 # httpx's own
        answer = self._client.request(method, f"http://127.0.0.1:{self.port}{path}", **more)
        answer.raise_for_status()
        return answer

    def submit(self, jobs: int, first: int = 0) -> str:
        text = "\n".join(json.dumps(line(k)) for k in range(first, first + jobs))
        file = self.ask("POST", "/v1/files", files={"file": ("in.jsonl", text)}, data={"purpose": "batch"}).json()["id"]
        order = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        return str(self.ask("POST", "/v1/batches", json=order).json()["id"])

    def status(self, batch: str) -> dict[str, Any]:
        return dict(self.ask("GET", f"/v1/batches/{batch}").json())


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_killed_again_and_again_every_job_is_recorded_once(
    request: pytest.FixtureRequest, tmp_path: Path, repo_root: Path, kind: str
) -> None:
    store = "sqlite" if kind == "sqlite" else request.getfixturevalue("postgres")
    jobs, kills = (JOBS, KILLS) if kind == "sqlite" else (JOBS // 4, 1)
    marks = np.sort(np.random.Generator(np.random.PCG64(7)).integers(0, jobs * 8 // 10, kills)).tolist()
    with FakeGateway().running() as gateway:
        plane = Process(repo_root, store, tmp_path, gateway.url)
        with plane.running():
            batch = plane.submit(jobs)
            time.sleep(0.15)
        middle = 0
        for mark in marks:
            with plane.running():
                until(lambda mark=mark: plane.status(batch)["request_counts"]["completed"] >= mark)  # type: ignore[misc] # mypy: lambdas
                middle += plane.status(batch)["status"] == "in_progress"
        assert middle > 0, "no kill came in the middle"
        with plane.running():
            until(lambda: plane.status(batch)["status"] == "completed", 60)
            done = plane.status(batch)
            lines = [
                json.loads(text) for text in plane.ask("GET", f"/v1/files/{done['output_file_id']}/content").text.splitlines()
            ]
        assert done["request_counts"] == {"total": jobs, "completed": jobs, "failed": 0}
        assert done["error_file_id"] is None
        assert [one["custom_id"] for one in lines] == [f"c{k}" for k in range(jobs)], "each once, none lost, in order"
        assert [one["response"]["body"]["answer"] for one in lines] == [k * k for k in range(jobs)]
        assert set(gateway.runs) == set(range(jobs))


def test_results_wait_for_room_on_a_full_disk(tmp_path: Path) -> None:
    live = LiveSettings()
    with FakeGateway().running() as gateway, served(Plane(open_store("sqlite", tmp_path), gateway.url, live)) as service:
        client = client_of(service)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        batch = submit(client, *(line(held=True) for _ in range(50)))
        until(lambda: gateway.inside == 50)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
            gateway.let_go()
            until(lambda: bool(service.plane.runner.writer.trouble))
            refused = httpx.post(
                f"{service.url}/v1/files", files={"file": ("f", b"x" * 100)}, data={"purpose": "batch"}, trust_env=False
            )
            assert (refused.status_code, refused.json()["error"]["code"]) == (507, "insufficient_storage")
            assert client.batches.retrieve(batch.id).status == "in_progress", "what is there can be read"
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        done = finished(client, batch)
        assert done.status == "completed"
        assert len({one["custom_id"] for one in lines_of(client, done.output_file_id)}) == 50
        assert max(gateway.runs.values()) == 1, "no result was thrown away"
