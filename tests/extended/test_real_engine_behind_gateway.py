"""A real engine behind the gateway: real text, its own metrics, watched and never touched.

    SAGESERVE_VLLM=/path/to/venv/bin/vllm pytest tests/extended/test_real_engine_behind_gateway.py
    SAGESERVE_VLLM_URL=http://127.0.0.1:8000 pytest tests/extended/test_real_engine_behind_gateway.py  # one that runs

The engine knows the model as `tiny`, clients know it as `small`. Takes about two minutes, most of them the engine's start.
Read next: `src/sageserve/live/actuators/fixed.py`.
"""

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import openai
import pytest

from tests.live.test_up import Fleet, command, until

pytestmark = pytest.mark.extended

NAME = "small"
SCENARIO = """
extends: local
models:
  llama-3.1-8b: null
  llama-3.1-70b: null
  small: {{context: 2048, engines: {{h100-80gb: llama-3.1-8b/h100-80gb/tp1}}}}
live:
  actuator: fixed
  port: 0
  safety: {{blind_after: 3s}}
  instances:
    - {{region: east, model: small, url: "{url}", served_model: tiny}}
"""


class Watching(Fleet):
    """A fleet of one engine that someone else runs."""

    def __init__(self, folder: Path, url: str) -> None:
        self.state = folder / "state"
        file = folder / "real.yaml"
        file.write_text(SCENARIO.format(url=url), "utf-8")
        done = command("up", str(file), "--detach", "--state", str(self.state))
        assert done.returncode == 0, done.stderr
        self.connect()

    def write(self, text: str, tokens: int, *, region: str = "east") -> str:
        answer = self.client.chat.completions.create(
            model=NAME,
            messages=[{"role": "user", "content": text}],
            max_tokens=tokens,
            temperature=0,
            extra_headers={"x-sageserve-region": region},
            extra_body={"ignore_eos": True},
        )
        assert answer.model == NAME
        assert answer.usage is not None
        assert answer.usage.completion_tokens == tokens
        return str(answer.choices[0].message.content)

    def kv(self) -> float | None:
        return self.status().instances[0].kv


@pytest.fixture(scope="module")
def fleet(vllm_url: str, short_folder: Callable[[], Path]) -> Iterator[Watching]:
    made = Watching(short_folder(), vllm_url)
    yield made
    assert command("down", "--now", "--state", str(made.state)).returncode == 0


def test_clients_see_one_model_under_our_name(fleet: Watching) -> None:
    assert [model.id for model in fleet.client.models.list()] == [NAME]
    with pytest.raises(openai.NotFoundError):
        fleet.client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "hello"}])


def test_the_text_is_the_engines_and_the_same_in_one_piece_and_in_many(fleet: Watching) -> None:
    whole = fleet.write("tell me about the sea", 24)
    assert len(whole) > 10
    assert fleet.write("tell me about the sea", 24) == whole
    assert fleet.write("tell me about the hills", 24, region="west") != "", "the other region has no engine"
    stream = fleet.client.chat.completions.create(
        model=NAME,
        messages=[{"role": "user", "content": "tell me about the sea"}],
        max_tokens=24,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )
    chunks = list(stream)
    assert {chunk.model for chunk in chunks} == {NAME}
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == whole
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 24


def test_an_error_of_the_engine_is_the_clients(fleet: Watching) -> None:
    with pytest.raises(openai.BadRequestError, match=r"context length|max_tokens|too (long|large)"):
        fleet.client.chat.completions.create(model=NAME, messages=[{"role": "user", "content": "word " * 3000}], max_tokens=8)


def test_its_own_metrics_are_seen(fleet: Watching) -> None:
    until(lambda: fleet.kv() is not None, 20)
    assert not next(endpoint for endpoint in fleet.status().endpoints if endpoint.region == "east").blind
    with ThreadPoolExecutor(6) as threads:
        running = [threads.submit(fleet.write, f"a long story {k} " * 40, 400) for k in range(6)]
        until(lambda: (fleet.kv() or 0.0) > 0.0 or all(one.done() for one in running), 60)
        seen = fleet.kv()
        assert all(one.result(120) for one in running)
    assert seen is not None
    assert 0.0 < seen <= 1.0
    until(lambda: fleet.status().instances[0].in_flight == 0, 20)


def test_it_is_watched_and_never_started_or_stopped(fleet: Watching) -> None:
    status = fleet.status()
    assert status.acting is False
    assert [one.state for one in status.instances] == ["serving"]
    until(lambda: any(one.blocked == "shadow" for one in fleet.status().decisions), 30)
    assert all(one.done == 0 for one in fleet.status().decisions)


def test_an_engine_that_stands_still_is_blindness(fleet: Watching, vllm_url: str) -> None:
    port = str(urlsplit(vllm_url).port).encode()
    found = [int(one.name) for one in Path("/proc").iterdir() if one.name.isdigit() and _is_server(one, port)]
    if not found:
        pytest.skip("the engine runs elsewhere")

    def blind() -> bool:
        return next(endpoint for endpoint in fleet.status().endpoints if endpoint.region == "east").blind

    for pid in found:
        os.kill(pid, signal.SIGSTOP)
    try:
        until(blind, 30)
    finally:
        for pid in found:
            os.kill(pid, signal.SIGCONT)
    until(lambda: not blind(), 30)
    assert fleet.write("and again", 8)


def _is_server(process: Path, port: bytes) -> bool:
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False  # it ended just now
    return b"serve" in words and b"--port" in words and port in words
