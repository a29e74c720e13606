"""Counters from a Prometheus server: rates, gauges and capacity as recorded; what cannot be read is refused with a way out."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from sageserve.base.config.clusters import prometheus_at
from sageserve.base.errors import MeasurementError
from sageserve.data.measured.runs import MeasuredRun
from sageserve.live.prometheus.calibration import Window
from sageserve.live.prometheus.calibration import read_prometheus as read

END = 1_700_000_600.0
WINDOW = Window(END, 60.0, 5.0, 'model_name="m"')
RATE = {"vllm:prompt_tokens_total": 100.0, "vllm:generation_tokens_total": 40.0, "vllm:num_preemptions_total": 0.0}
GAUGE = {"vllm:num_requests_running": 7.0, "vllm:num_requests_waiting": 2.0, "vllm:kv_cache_usage_perc": 0.25}
CONFIG = {"__name__": "vllm:cache_config_info", "num_gpu_blocks": "2588", "block_size": "16"}

Answers = dict[str, list[dict[str, object]]]


def recorded() -> Answers:
    """Answers by metric, as one engine would have left them."""
    times = np.arange(END - 60, END + 1, 5)
    found: Answers = {"vllm:cache_config_info": [{"metric": CONFIG, "value": [END, "1"]}]}
    for name, rate in RATE.items():
        values = [[float(t), f"{rate * (t - times[0]) + 1e6}"] for t in times]
        found[name] = [{"metric": {"__name__": name, "instance": "a"}, "values": values}]
    for name, value in GAUGE.items():
        found[name] = [{"metric": {"__name__": name, "instance": "a"}, "values": [[float(t), str(value)] for t in times]}]
    return found


def read_prometheus(url: str, window: Window) -> MeasuredRun:
    return read(prometheus_at(url), window)


class Server:
    """Answers range and instant queries from a dictionary; remembers the queries."""

    def __init__(self, answers: Answers) -> None:
        server = self
        self.answers = answers
        self.queries: list[str] = []
        self.body: bytes | None = None

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query)["query"][0]
                server.queries.append(query)
                found = server.answers.get(query.split("{")[0], [])
                kind = "vector" if "/query?" in self.path else "matrix"
                data = {"resultType": kind, "result": found}
                body = server.body or json.dumps({"status": "success", "data": data}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(recorded())
    thread = threading.Thread(target=made.http.serve_forever, daemon=True)
    thread.start()
    yield made
    made.http.shutdown()
    made.http.server_close()
    thread.join()


def test_counters_become_rates_and_gauges_stay(server: Server) -> None:
    run = read_prometheus(server.url + "/", WINDOW)
    assert run.series is not None
    assert len(run.series) == 12
    assert run.series.time.tolist() == [5_000_000 * (i + 1) for i in range(12)]
    assert run.series.prompt_rate == pytest.approx(100)
    assert run.series.output_rate == pytest.approx(40)
    assert set(run.series.running) == {7.0}
    assert set(run.series.waiting) == {2.0}
    assert set(run.series.kv_share) == {0.25}
    assert run.limits.kv_tokens == 2588 * 16
    assert all('{model_name="m"}' in query for query in server.queries)


def test_a_restart_does_not_make_rates_negative(server: Server) -> None:
    values = server.answers["vllm:generation_tokens_total"][0]["values"]
    assert isinstance(values, list)
    for i, (time, _) in enumerate(values):
        values[i] = [time, str(40.0 * 5 * (i if i < 6 else i - 6))]
    run = read_prometheus(server.url, WINDOW)
    assert run.series is not None
    assert run.series.output_rate.min() >= 0
    assert run.series.output_rate.max() == pytest.approx(40)


def test_the_old_name_of_kv_use_is_known(server: Server) -> None:
    server.answers["vllm:gpu_cache_usage_perc"] = server.answers.pop("vllm:kv_cache_usage_perc")
    run = read_prometheus(server.url, WINDOW)
    assert run.series is not None
    assert set(run.series.kv_share) == {0.25}


def test_unscraped_points_are_left_out(server: Server) -> None:
    values = server.answers["vllm:num_requests_running"][0]["values"]
    assert isinstance(values, list)
    del values[4]
    run = read_prometheus(server.url, WINDOW)
    assert run.series is not None
    assert len(run.series) == 11
    assert run.series.prompt_rate == pytest.approx(100)


def test_missing_metrics_are_named(server: Server) -> None:
    del server.answers["vllm:num_requests_running"]
    with pytest.raises(MeasurementError, match="has no vllm:num_requests_running"):
        read_prometheus(server.url, WINDOW)


def test_several_engines_must_be_told_apart(server: Server) -> None:
    server.answers["vllm:num_requests_running"].append({"metric": {"instance": "b"}, "values": [[END, "1"]]})
    with pytest.raises(MeasurementError, match="2 series") as caught:
        read_prometheus(server.url, WINDOW)
    assert "instance" in caught.value.hint


@pytest.mark.parametrize(
    ("body", "said"),
    [(b"<html>", "the answer is no JSON"), (b'{"status":"error","error":"parse error"}', "parse error")],
)
def test_answers_that_are_none_are_refused(server: Server, body: bytes, said: str) -> None:
    server.body = body
    with pytest.raises(MeasurementError, match=said):
        read_prometheus(server.url, WINDOW)


def test_a_server_that_is_not_there_is_refused() -> None:
    with pytest.raises(MeasurementError, match=r"http://127\.0\.0\.1:1 cannot be asked: "):
        read_prometheus("http://127.0.0.1:1", WINDOW)
    with pytest.raises(MeasurementError, match="more than 10000 points"):
        read_prometheus("http://127.0.0.1:1", Window(END, 86_400, 1))
