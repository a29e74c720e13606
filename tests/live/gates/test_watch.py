"""`sageserve watch` with gates, from its settings to Redis: what --act and authority allow, and the last lease on SIGTERM.

Read next: `src/sageserve/cli/gates.py`.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from redis import Redis
from typer.testing import CliRunner

from sageserve.base.errors import ConfigError
from sageserve.cli.acting import refuse_unwritten
from sageserve.cli.main import app
from sageserve.data.scenarios.load import load_scenario
from sageserve.data.watched.leases import read_leases
from tests.live.watch.command import FLEET

KEY = "gate:small"


class _Empty(BaseHTTPRequestHandler):
    """A Prometheus that has recorded nothing."""

    def do_GET(self) -> None:
        body = json.dumps({"status": "success", "data": {"resultType": "matrix", "result": []}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 # as http.server wants it

    def log_message(self, *_: object) -> None:
        """Nothing is said."""


@pytest.fixture
def prometheus() -> Iterator[str]:
    """Its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Empty) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def fleet(folder: Path, server: Path, authority: str) -> Path:
    """Settings with one gate."""
    gate = f"redis: 'unix://{server}', control_key: '{KEY}', pool_id: small, region: here, model: small, authority: {authority}"
    path = folder / "fleet.yaml"
    path.write_text(f"{FLEET}  gates:\n    small: {{{gate}}}\n", "utf-8")
    return path


def test_sigterm_leases_nothing_and_only_act_with_authority_writes(
    tmp_path: Path, redis_server: Path, redis: "Redis", prometheus: str
) -> None:
    state = tmp_path / "state"
    options = ["--prometheus", prometheus, "--state", str(state), "--past", "0", "--listen", "127.0.0.1:0"]
    first: list[str] = []

    def end(seen: bool) -> None:
        until = time.perf_counter() + 20
        while time.perf_counter() < until and not (redis.exists(KEY) if seen else list(read_leases(state))):
            time.sleep(0.01)
        first.append(str(redis.hget(KEY, "decision_id")))
        os.kill(os.getpid(), signal.SIGTERM)

    for authority, act in (("full", []), ("full", ["--act"])):
        ending = threading.Thread(target=end, args=(bool(act),))
        ending.start()
        result = CliRunner().invoke(app, ["watch", str(fleet(tmp_path, redis_server, authority)), *options, *act])
        ending.join()
        assert result.exit_code == 0, result.output
        assert redis.exists(KEY) == bool(act)
        assert ("nothing is written to gate small without --act" in result.output) is not bool(act)
    assert first[1].endswith("/1")
    found = redis.hgetall(KEY)
    assert found["decision_id"] == first[1].removesuffix("1") + "end"
    assert found["max_admission_rps"] == "0"
    assert [(one.written, one.why) for one in read_leases(state)] == [
        (False, "here/small is not seen"),
        (True, "here/small is not seen"),
        (True, "SageServe ended"),
    ]


def test_gates_may_be_all_that_is_acted_on(tmp_path: Path) -> None:
    live = refuse_unwritten(load_scenario(str(fleet(tmp_path, Path("/r.sock"), "full"))))
    assert list(live.gates) == ["small"]
    with pytest.raises(ConfigError, match="no target may be acted on"):
        refuse_unwritten(load_scenario(str(fleet(tmp_path, Path("/r.sock"), "observe"))))
