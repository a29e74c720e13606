"""A line for each request, where it was asked for: what a trace needs, for its user alone, and nothing of prompt, answer or key.

Read next: `src/sageserve/live/gateway/request_lines.py`.
"""

import asyncio
import json
import logging
from pathlib import Path

import httpx
import msgspec
import pytest
from typer.testing import CliRunner

from sageserve.base.errors import ConfigError
from sageserve.cli.main import app
from sageserve.data.watched.request_lines import FOLDER, RequestLine
from sageserve.live.gateway import request_lines
from sageserve.live.gateway.context import Options
from sageserve.live.gateway.keys import hash_of
from sageserve.live.gateway.request_lines import RequestLines
from sageserve.live.gateway.server import GatewayBinding, GatewayProcess
from tests.live.gateway.stage import HELLO, MODEL, Engine, play, settings, staged

KEYS = [{"name": "alice", "sha256": hash_of(b"the-key")}]
LINE = RequestLine(1_750_000_000_000_000, "r", "alice", MODEL, "t", "east", 200, 9, 4, 5, 6, 0)


def written(state: Path) -> list[dict[str, object]]:
    return [json.loads(line) for path in sorted((state / FOLDER).glob("*")) for line in path.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("records", [True, False])
def test_requests_leave_a_line_each_where_it_was_asked_for(tmp_path: Path, records: bool) -> None:
    async def story() -> None:
        place = GatewayBinding("127.0.0.1", 0, audit=tmp_path, options=Options(nonce="t"))
        async with (
            staged(Engine(), place=place, keys=KEYS, records=records) as stage,
            httpx.AsyncClient(base_url=stage.url, headers={"authorization": "Bearer the-key"}) as client,
        ):
            for more in ({}, {"stream": True, "stream_options": {"include_usage": True}}):
                assert (await client.post("/v1/chat/completions", json=HELLO | more)).status_code == 200
            assert (await client.post("/v1/chat/completions", json={"model": "none"})).status_code == 404

    play(story())
    found = written(tmp_path)
    assert len(found) == (2 if records else 0), "of those that were for an engine"
    if not records:
        return
    for line in found:
        assert line["tenant"] == "alice"
        assert (line["model"], line["region"], line["status"]) == (MODEL, "east", 200)
        assert (line["prompt_tokens"], line["output_tokens"], line["retries"]) == (9, 4, 0)
        assert isinstance(line["first_us"], int)
        assert isinstance(line["duration_us"], int)
        assert 0 < line["first_us"] <= line["duration_us"]
    (path,) = (tmp_path / FOLDER).iterdir()
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    text = path.read_text("utf-8")
    assert not [word for word in ("hello", "one two", "the-key", hash_of(b"the-key")) if word in text]
    shown = CliRunner().invoke(app, ["trace", "inspect", str(path), "--json"])
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout)["requests"] == 2


def test_a_gateway_without_a_folder_refuses_to_keep_lines() -> None:
    with pytest.raises(ConfigError, match=r"live\.records: there is no folder"):
        GatewayProcess(settings([], records=True), GatewayBinding("127.0.0.1", 0))


def test_old_files_go_and_what_cannot_be_written_is_counted_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(request_lines, "_FILE_MAX", 1)
    monkeypatch.setattr(request_lines, "_AHEAD", 3)
    lines, other = RequestLines(tmp_path, 0), RequestLines(tmp_path, 1)

    async def run() -> None:
        for one in (other, *[lines] * 12):
            one.add(LINE)
            await one.close()
        assert sorted(path.name for path in (tmp_path / FOLDER).glob("w0-*")) == [f"w0-{k:06d}.jsonl" for k in range(5, 13)]
        assert (tmp_path / FOLDER / "w1-000001.jsonl").exists()
        for _ in range(5):
            lines.add(LINE)
        assert lines.lost == 2, "a disk that is behind takes no more memory"
        (tmp_path / FOLDER / "w0-000013.jsonl").symlink_to(tmp_path / "elsewhere")
        with caplog.at_level(logging.ERROR):
            await lines.close()
        assert lines.lost == 5

    asyncio.run(run())
    assert not (tmp_path / "elsewhere").exists()
    assert "5 are lost so far" in caplog.text


def test_a_foreign_file_is_left_alone_and_a_line_cut_off_costs_no_other(tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    folder.mkdir()
    (folder / "w0-x.jsonl").write_bytes(b"mine")
    lines = RequestLines(tmp_path, 0)

    async def run() -> None:
        for _ in range(3):
            lines.add(LINE)
            await lines.close()
            with (folder / "w0-000001.jsonl").open("rb+") as file:
                file.truncate(file.seek(-1, 2))  # its end is not there yet

    asyncio.run(run())
    assert (folder / "w0-x.jsonl").read_bytes() == b"mine"
    assert (folder / "w0-000001.jsonl").read_bytes().split() == [msgspec.json.encode(LINE)] * 3
