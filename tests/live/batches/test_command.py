"""`sageserve batch` against the API: what goes to stdout, what to stderr, and what a mistake is told.

Read next: `src/sageserve/cli/batch.py`.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sageserve.base.errors import SageServeError
from sageserve.cli.batch import app
from sageserve.live.store.sql import open_store
from tests.live.batches.gateway import FakeGateway
from tests.live.batches.plane import Plane, Served, served
from tests.live.batches.test_api import LIVE, line


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with FakeGateway().running() as gateway:
        plane = Plane(open_store("memory", tmp_path_factory.mktemp("state")), gateway.url, LIVE)
        with served(plane) as one:
            yield one


def run(service: Served, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--url", f"{service.url}/v1"])


def written(folder: Path, *lines: dict[str, object]) -> str:
    file = folder / "in.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in lines), "utf-8")
    return str(file)


def test_a_file_is_handed_in_watched_and_fetched(service: Served, tmp_path: Path) -> None:
    good, wrong = line(), line(fails=[400])
    handed = run(service, "submit", written(tmp_path, good, wrong), "--wait")
    assert handed.exit_code == 0, handed.output
    batch = handed.stdout.strip()
    assert batch.startswith("batch_")
    assert "completed: 1 of 2 done, 1 failed" in handed.stderr
    out, errors = tmp_path / "out.jsonl", tmp_path / "errors.jsonl"
    fetched = run(service, "fetch", batch, "-o", str(out), "--errors", str(errors))
    assert fetched.exit_code == 0, fetched.output
    assert fetched.stdout == ""
    assert [json.loads(text)["custom_id"] for text in out.read_text("utf-8").splitlines()] == [good["custom_id"]]
    assert [json.loads(text)["custom_id"] for text in errors.read_text("utf-8").splitlines()] == [wrong["custom_id"]]
    assert run(service, "fetch", batch).stdout == out.read_text("utf-8")
    assert not list(tmp_path.glob("*.part"))


def test_status_is_a_table_for_people_and_json_for_machines(service: Served, tmp_path: Path) -> None:
    batch = run(service, "submit", written(tmp_path, line())).stdout.strip()
    one = json.loads(run(service, "status", batch, "--json", "--wait").stdout)
    assert (one["id"], one["status"], one["request_counts"]["completed"]) == (batch, "completed", 1)
    assert batch in run(service, "status").stdout
    assert "completed: 1 of 1 done" in run(service, "status", batch).stdout
    assert json.loads(run(service, "status", "--json").stdout)["data"][0]["id"] == batch


def test_a_batch_is_cancelled(service: Served, tmp_path: Path) -> None:
    batch = run(service, "submit", written(tmp_path, line(wait=60))).stdout.strip()
    early = run(service, "fetch", batch)
    assert isinstance(early.exception, SageServeError)
    assert "--wait" in early.exception.hint
    assert run(service, "cancel", batch).exit_code == 0
    assert json.loads(run(service, "status", batch, "--json", "--wait").stdout)["status"] == "cancelled"


def test_mistakes_are_told_with_a_way_out(service: Served, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n", "utf-8")
    (tmp_path / "text").write_text("hello\n", "utf-8")
    mistakes = {
        ("submit", str(tmp_path / "none.jsonl")): "there is no file",
        ("submit", str(tmp_path / "empty")): "is empty",
        ("submit", str(tmp_path / "text")): "not a request",
        ("status", "batch_nothing"): "No batch found",
        ("submit", written(tmp_path, line(1), line(1)), "--wait"): "line 2",
    }
    for arguments, told in mistakes.items():
        failed = run(service, *arguments)
        assert isinstance(failed.exception, SageServeError), arguments
        assert told in failed.exception.message
    away = CliRunner().invoke(app, ["status", "--url", "http://127.0.0.1:9"])
    assert isinstance(away.exception, SageServeError)
    assert "does not answer (Connection refused)" in away.exception.message
