"""Parts of the gateway by themselves: limits, keys, traces, and several processes on one port.

Read next: `test_conformance.py` for the whole.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import httpx
import orjson
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from typer.testing import CliRunner

from sageserve.base.units import MINUTE, SECOND
from sageserve.cli.gateway import key_app
from sageserve.data.scenarios.load import load_scenario, resolved_yaml
from sageserve.live.gateway.api_error import engine_body
from sageserve.live.gateway.keys import Bucket, hash_of, show_reset
from sageserve.live.gateway.meter import BYTES, Meter, Snapshots
from sageserve.live.gateway.spans import Tracer
from tests.core.small import scenario
from tests.live.gateway.stage import HELLO, Engine, free_port, play, staged


@given(
    limit=st.integers(1, 1000),
    shares=st.integers(1, 4),
    steps=st.lists(st.tuples(st.integers(0, MINUTE), st.integers(1, 50)), max_size=60),
)
def test_a_bucket_never_gives_more_than_its_limit_allows(limit: int, shares: int, steps: list[tuple[int, int]]) -> None:
    bucket, now, taken = Bucket(limit), 0, 0.0
    bucket.shares = shares
    for passed, amount in steps:
        now += passed
        wait = bucket.wait(amount, now)
        if wait == 0:
            bucket.take(amount)
            taken += amount
        else:
            assert bucket.wait(amount, now + wait + 1) == 0, "it says the truth about when to come again"
    most = limit / shares
    assert taken <= most * (1 + now / MINUTE) + 50, "a minute's worth at once, and the rate"


@pytest.mark.parametrize(
    ("after", "text"), [(0, b"0ms"), (20_000, b"20ms"), (1_500_000, b"1.5s"), (2 * SECOND, b"2s"), (360 * SECOND, b"6m0s")]
)
def test_reset_times_are_written_as_openai_writes_them(after: int, text: bytes) -> None:
    assert show_reset(after) == text


@pytest.mark.parametrize("depth", [300, 900, 3000])
@pytest.mark.parametrize("shape", [b'{"error": {"x": %b}}', b'{"detail": %b}', b'{"message": "m", "param": %b}', b"%b"])
def test_an_error_of_an_engine_is_told_however_deeply_it_is_nested(depth: int, shape: bytes) -> None:
    told = orjson.loads(engine_body(500, shape % (b"[" * depth + b"]" * depth)))
    assert told["error"]["type"] == "server_error"


def test_a_new_key_is_shown_once_and_its_hash_fits_the_scenario() -> None:
    said = CliRunner().invoke(key_app, ["alice"])
    key = said.output.partition("this once: ")[2].split()[0]
    live = yaml.safe_load(said.output)["live"]
    assert live["keys"] == [{"name": "alice", "sha256": hash_of(key.encode())}]
    assert scenario(live=live).live is not None
    other = CliRunner().invoke(key_app, ["alice", "--json"])
    assert json.loads(other.output)["key"] != key


def test_a_span_tells_what_happened_and_is_the_parent_of_the_engines() -> None:
    async def story() -> None:
        engine, spans = Engine(), InMemorySpanExporter()
        async with staged(engine) as stage, httpx.AsyncClient(base_url=stage.url) as client:
            stage.worker.context.tracer = Tracer(spans)
            trace = "0af7651916cd43dd8448eb211c80319c"
            headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
            await client.post("/v1/chat/completions", json={**HELLO, "stream": True}, headers=headers)
            await asyncio.to_thread(stage.worker.context.tracer.close)
            (span,) = spans.get_finished_spans()
            assert span.name == "chat big"
            assert span.context is not None
            assert f"{span.context.trace_id:032x}" == trace
            assert engine.got[0].header("traceparent") == f"00-{trace}-{span.context.span_id:016x}-01"
            assert span.attributes is not None
            assert span.attributes["gen_ai.request.model"] == "big"
            assert span.attributes["http.response.status_code"] == 200
            assert "gen_ai.server.time_to_first_token" in span.attributes
            assert "hello" not in span.to_json()
            stage.worker.context.tracer = None

    play(story())


def test_processes_share_a_port_answer_for_all_and_stop_together(tmp_path: Path) -> None:
    async def story() -> None:
        engine = Engine()
        await engine.start()
        port = free_port()
        placed = [{"region": "east", "model": "big", "url": f"http://127.0.0.1:{engine.port}"}]
        file = tmp_path / "small.yaml"
        file.write_text(json.dumps(scenario(live={"instances": placed}).model_dump(mode="json", exclude_defaults=True)), "utf-8")
        command = [sys.executable, "-m", "sageserve.cli.main", "gateway", str(file), "--port", str(port), "--workers", "2"]
        child = subprocess.Popen(command, stderr=subprocess.DEVNULL)  # noqa: ASYNC220 # a millisecond
        try:
            url = f"http://127.0.0.1:{port}"
            async with asyncio.timeout(50):
                while not await asyncio.to_thread(_ready, url):  # noqa: ASYNC110 # another process knows no events of ours
                    await asyncio.sleep(0.1)
                for _ in range(20):
                    async with httpx.AsyncClient(base_url=url) as client:
                        assert (await client.post("/v1/chat/completions", json=HELLO)).status_code == 200
                count = 'sageserve_gateway_requests_total{gen_ai_request_model="big",tier="iw-n",region="east",code="200"} 20\n'
                async with httpx.AsyncClient(base_url=url) as client:
                    while count not in (await client.get("/metrics")).text:  # noqa: ASYNC110 # as above
                        await asyncio.sleep(0.1)
            children = _children(child.pid)
            assert len(children) == 2
            os.kill(child.pid, signal.SIGTERM)
            assert await asyncio.to_thread(child.wait, 20) == 0
            assert not any(_alive(pid) for pid in children)
        finally:
            child.kill()
            child.wait()
            await engine.kill()

    play(story())


def test_a_look_that_fails_is_not_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with staged(Engine()) as stage:
            looks = stage.worker._looks
            monkeypatch.setattr(stage.worker.context.waiting, "tidy", lambda _: 1 // 0)  # a fault of ours
            async with asyncio.timeout(50):
                while stage.worker._looks < looks + 3:  # noqa: ASYNC110 # a timer has no event
                    await asyncio.sleep(0.05)
            monkeypatch.undo()

    play(story())


def test_counts_of_processes_add_up_without_those_that_cannot_be_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    meters = [Meter(["big"], ["iw-n"], ["east"]) for _ in range(3)]
    for number, meter in enumerate(meters):
        meter.answer_bytes = 10**number
        Snapshots(tmp_path, number).leave(meter)
    assert Snapshots(tmp_path, 0).total(meters[0])[BYTES] == 111
    (tmp_path / "worker-1.json").write_bytes(b"{")
    (tmp_path / "worker-2.json").unlink()
    (tmp_path / "worker-2.json").mkdir()
    assert Snapshots(tmp_path, 0).total(meters[0])[BYTES] == 1
    assert "truncated" in caplog.text
    assert "worker-2.json" in caplog.text
    Snapshots(tmp_path / "gone", 0).leave(meters[0])  # the disk is full, or worse: the gateway goes on


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health/ready", timeout=1):  # noqa: S310 # a URL of our own
            return True
    except OSError:
        time.sleep(0.1)
        return False


def _alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8").split()]


def test_a_gateway_loads_no_compiler_and_nothing_that_only_others_need(tmp_path: Path) -> None:
    """With a scenario as `up` hands it over: every profile is written out, the strategy plans."""
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text(resolved_yaml(load_scenario("local", overrides=["strategy.name=foresight"])), "utf-8")
    code = f"""
import sys
import sageserve.cli.gateway
from sageserve.base.kernel import run_plain
run_plain()
from sageserve.data.scenarios.load import load_scenario
import sageserve.live.gateway.server as server
from sageserve.base.kernel import kernel, viewer
assert kernel(len) is len
found = load_scenario({str(scenario)!r})
loaded = {{name.partition(".")[0] for name in sys.modules}}
print(sorted(loaded & {{"numba", "llvmlite", "scipy", "sqlalchemy", "starlette", "httpx", "highspy", "pyarrow", "rich"}}))
ours = ("data.profiles", "core.forecast", "core.strategies.chiron", "core.strategies.planned")
print([name for name in ours if name in sys.modules or "sageserve." + name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "[]", "70 MB"
    assert done.stdout.split("\n")[1] == "[]", "three megabytes: `python -m bench.gateway` prints how many it holds"
