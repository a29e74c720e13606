"""What reading weeks of a fleet's history costs the client, from a server that streams: `python -m bench.prometheus`.

200 instances at 15 s, for 30 days (or `--days N`): six plain series each, histograms by window. The server runs in a process of
its own, and its CPU time is not counted. `--real` reads the same plain series from a real Prometheus instead, which promtool
fills first: for three days that takes some minutes. One JSON line per figure. Read next: docs/reference/prometheus.md.
"""

import argparse
import multiprocessing
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from bench import figures  # isort: skip # before any kernel is imported
import numpy as np

from bench.stored import put, serving
from sageserve.base.config.clusters import prometheus_at
from sageserve.base.units import DAY, SECOND
from sageserve.data.history.raw import RawSeries
from sageserve.data.rebuild.render import TOKENS
from sageserve.live.prometheus.read import HistorySpan, PoolQuery, read_history
from sageserve.live.prometheus.server import PrometheusServer

BEGIN_S = 1_699_920_000
STEP_S = 15
NAMES = (
    ("vllm:num_requests_running", 0.0),
    ("vllm:num_requests_waiting", 0.0),
    ("vllm:request_success_total", 1.0),
    ("vllm:prompt_tokens_total", 1500.0),
    ("vllm:generation_tokens_total", 250.0),
    ("vllm:e2e_request_latency_seconds_count", 1.0),
)


def _samples(begin: int, count: int, rate: float, seed: int) -> bytes:
    """Text of one series: a counter that grows at its rate, or a gauge."""
    times = begin + np.arange(count) * STEP_S
    rows = (times - BEGIN_S) // STEP_S
    values = (rows * rate).astype(np.int64) if rate else (rows * 7 + seed) % 40
    return ",".join(f'[{t}.{seed % 1000:03d},"{v}"]' for t, v in zip(times.tolist(), values.tolist(), strict=True)).encode()


class _Handler(BaseHTTPRequestHandler):
    """Answers raw ranges, windows and names."""

    pods = 0

    def do_GET(self) -> None:
        self._answer(parse_qs(urlsplit(self.path).query))

    def do_POST(self) -> None:
        self._answer(parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode()))

    def _answer(self, form: dict[str, list[str]]) -> None:
        self.send_response(200)
        self.end_headers()
        path = urlsplit(self.path).path
        if path.endswith("/values"):
            names = '"vllm:request_prompt_tokens_bucket","vllm:request_generation_tokens_bucket"'
            self.wfile.write(f'{{"status":"success","data":[{names}]}}'.encode())
        elif path.endswith("query_range"):
            self._windows(form)
        elif form["query"][0].startswith("count"):
            self._result("vector", f'{{"metric":{{}},"value":[1,"{6 * self.pods}"]}}')
        elif "epp_request_total" in form["query"][0]:
            self._result("matrix", "")
        else:
            self._raw(form)

    def _result(self, kind: str, text: str) -> None:
        self.wfile.write(f'{{"status":"success","data":{{"resultType":"{kind}","result":[{text}]}}}}'.encode())

    def _raw(self, form: dict[str, list[str]]) -> None:
        seconds = int(form["query"][0].rsplit("[", 1)[1].removesuffix("ms]")) // 1000
        begin = -(-int(float(form["time"][0]) + 0.001 - seconds) // STEP_S) * STEP_S
        self.wfile.write(b'{"status":"success","data":{"resultType":"matrix","result":[')
        texts = {name: _samples(begin, seconds // STEP_S, rate, 1) for name, rate in NAMES}
        for pod in range(self.pods):
            for number, (name, _) in enumerate(NAMES):
                labels = f'"__name__":"{name}","pod":"p-{pod}","instance":"10.0.0.{pod}:8000","model_name":"m","job":"vllm"'
                comma = "," if pod or number else ""
                self.wfile.write(f'{comma}{{"metric":{{{labels}}},"values":['.encode() + texts[name] + b"]}")
        self.wfile.write(b"]}}")

    def _windows(self, form: dict[str, list[str]]) -> None:
        begin, end, step = (int(float(form[key][0])) for key in ("start", "end", "step"))
        bounds = [f"{bound:g}" for bound in TOKENS] + ["+Inf"] if "_bucket" in form["query"][0] else [""]
        rows = []
        for row, bound in enumerate(bounds):
            samples = ",".join(f'[{t},"{1000 * (row + 1)}"]' for t in range(begin, end + 1, step))
            rows.append(f'{{"metric":{{"le":"{bound}"}},"values":[{samples}]}}')
        self._result("matrix", ",".join(rows))

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _serve(sock: socket.socket, pods: int) -> None:
    """Answer for ever."""

    class Handler(_Handler):
        pass

    Handler.pods = pods
    server = ThreadingHTTPServer(sock.getsockname(), Handler, bind_and_activate=False)
    server.socket = sock
    server.serve_forever()


@contextmanager
def streaming(pods: int) -> Iterator[str]:
    """A server of ours that makes up its answers; its address."""
    sock = socket.create_server(("127.0.0.1", 0))
    process = multiprocessing.get_context("fork").Process(target=_serve, args=(sock, pods), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        process.kill()


def _day(day: int, pods: int, *, last: bool) -> Iterator[RawSeries]:
    """What the streaming server would say of a day's plain series; behind the last there are some more samples."""
    rows = np.arange(day * DAY // SECOND // STEP_S, (day + 1) * DAY // SECOND // STEP_S + (4 if last else 0))
    times = (BEGIN_S + rows * STEP_S) * SECOND + 1000
    for name, rate in NAMES:
        values = np.floor(rows * rate if rate else (rows * 7 + 1.0) % 40).astype(np.float64)
        for pod in range(pods):
            labels = {"__name__": name, "pod": f"p-{pod}", "instance": f"10.0.0.{pod}:8000", "model_name": "m", "job": "vllm"}
            yield RawSeries(labels, times, values)


@contextmanager
def real(days: int, pods: int) -> Iterator[str]:
    """A Prometheus that holds them; its address."""
    with tempfile.TemporaryDirectory(prefix="prometheus-") as name:
        for day in range(days):
            put(Path(name) / "data", _day(day, pods, last=day == days - 1))
        with serving(Path(name) / "data") as url:
            yield url


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--pods", type=int, default=200)
    parser.add_argument("--real", action="store_true", help="through a real Prometheus, plain series alone")
    given = parser.parse_args()
    with real(given.days, given.pods) if given.real else streaming(given.pods) as url:
        before, wall = time.process_time(), time.perf_counter()
        span = HistorySpan(BEGIN_S * SECOND, BEGIN_S * SECOND + given.days * DAY, STEP_S * SECOND)
        with PrometheusServer(prometheus_at(url)) as server:
            found = read_history(server, [PoolQuery("pool", 'model_name="m"')], span)
        spent = time.process_time() - before
    figures.show("prometheus_samples", found.samples, "samples")
    figures.show("prometheus_cpu_s", spent, "s")
    figures.show("prometheus_cpu_us_per_sample", 1e6 * spent / found.samples, "us")
    figures.show("prometheus_wall_s", time.perf_counter() - wall, "s")
    figures.show("prometheus_rss_gb", figures.peak_gb(), "GB")
    pool = found.pools[0]
    assert not found.unread, found.unread
    assert abs(float(np.nansum(pool.completed)) / (given.pods * given.days * DAY / SECOND / STEP_S) - 1) < 1e-3
    assert pool.instances.min() == given.pods
    assert given.real or len(pool.histograms) == 2


if __name__ == "__main__":
    main()
