"""Counters of an engine from a Prometheus server: range queries over vLLM's metric names, as a measured series.

    vllm:prompt_tokens_total, vllm:generation_tokens_total, vllm:num_preemptions_total    counters, as rates
    vllm:num_requests_running, vllm:num_requests_waiting, vllm:kv_cache_usage_perc        gauges
    vllm:cache_config_info                                                                labels num_gpu_blocks, block_size

Reads only, with bounded answers, and names the server in every error. Knows no fit. Read next: `sim/calibration/counters.py`.
"""

from dataclasses import dataclass
from typing import Final

import httpx
import msgspec
import numpy as np

from sageserve.base.errors import MeasurementError
from sageserve.base.records import Floats
from sageserve.base.units import SECOND
from sageserve.data.measured.runs import EngineLimits, MeasuredRun, MeasuredSeries

BYTES_MAX: Final = 64 << 20  # of one answer: Prometheus gives at most 11,000 points a series
POINTS_MAX: Final = 10_000
TIMEOUT: Final = 30.0  # seconds
COUNTERS: Final = {
    "prompt": ("vllm:prompt_tokens_total",),
    "output": ("vllm:generation_tokens_total",),
    "preemptions": ("vllm:num_preemptions_total",),
}
GAUGES: Final = {
    "running": ("vllm:num_requests_running",),
    "waiting": ("vllm:num_requests_waiting",),
    "share": ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),  # the second until vLLM 0.10
}
CONFIG: Final = "vllm:cache_config_info"
NEEDED: Final = ("prompt", "output", "running")


class _Sample(msgspec.Struct):
    metric: dict[str, str]
    values: list[tuple[float, str]] = []
    value: tuple[float, str] | None = None


class _Data(msgspec.Struct):
    result: list[_Sample]


class _Answer(msgspec.Struct):
    status: str
    data: _Data | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Window:
    """What to read: until `end` (seconds since 1970), `length` seconds back, a point every `step` seconds, of one engine.

    `matchers` is what stands between braces in PromQL, for example `model_name="llama",instance="10.0.0.1:8000"`.
    """

    end: float
    length: float
    step: float
    matchers: str = ""


def read_prometheus(url: str, window: Window, client: httpx.Client | None = None) -> MeasuredRun:
    """The counters of one engine as a run without requests.

    Args:
        url: of the server, without /api.
        window: what to read.
        client: for tests and for servers that need headers; None: a plain one.

    Raises:
        MeasurementError: the server cannot be reached or refuses, has no such series, or has several engines.
    """
    if not 0 < window.length / window.step <= POINTS_MAX:
        raise MeasurementError(
            f"{window.length:g} s in steps of {window.step:g} s are more than {POINTS_MAX} points", hint="raise --step"
        )
    with client or httpx.Client(timeout=TIMEOUT) as opened:
        query = _Query(opened, url.rstrip("/"), window)
        grid = np.arange(window.end - window.length, window.end + window.step / 2, window.step)
        found = {name: query.over(metrics, grid) for name, metrics in (COUNTERS | GAUGES).items()}
        config = query.labels(CONFIG)
    missing = [(COUNTERS | GAUGES)[name][0] for name in NEEDED if found[name] is None]
    if missing:
        raise MeasurementError(
            f"{url} has no {' or '.join(missing)}{{{window.matchers}}} in these {window.length:g} s",
            hint="check the matchers and the window; these are vLLM's metric names",
        )
    return _run(url, grid, found, config)


class _Query:
    """One server, one window."""

    def __init__(self, client: httpx.Client, url: str, window: Window) -> None:
        self._client = client
        self._url = url
        self._window = window

    def over(self, metrics: tuple[str, ...], grid: Floats) -> Floats | None:
        """float64[points] of the first of these metrics that is there, NaN where it was not scraped; None: none is."""
        window = self._window
        for metric in metrics:
            params = {
                "query": f"{metric}{{{window.matchers}}}",
                "start": f"{grid[0]:.3f}",
                "end": f"{grid[-1]:.3f}",
                "step": f"{window.step:g}",
            }
            samples = self._ask("query_range", params)
            if samples:
                return self._on_grid(self._single(metric, samples), grid)
        return None

    def labels(self, metric: str) -> dict[str, str]:
        """Labels of an info metric at the end of the window; empty when it is not there or not of one engine."""
        samples = self._ask("query", {"query": f"{metric}{{{self._window.matchers}}}", "time": f"{self._window.end:.3f}"})
        return samples[0].metric if len(samples) == 1 else {}

    def _single(self, metric: str, samples: list[_Sample]) -> _Sample:
        if len(samples) > 1:
            keys = sorted({key for sample in samples for key in sample.metric if key != "__name__"})
            differ = [key for key in keys if len({sample.metric.get(key) for sample in samples}) > 1]
            raise MeasurementError(
                f"{self._url} has {len(samples)} series of {metric}: engines differ, so one is calibrated at a time",
                hint=f"say which with --match, for example --match '{differ[0] if differ else 'instance'}=\"…\"'",
            )
        return samples[0]

    @staticmethod
    def _on_grid(sample: _Sample, grid: Floats) -> Floats:
        values = np.full(len(grid), np.nan)
        step = grid[1] - grid[0] if len(grid) > 1 else 1.0
        for time, text in sample.values:
            row = round((time - grid[0]) / step)
            if 0 <= row < len(grid):
                values[row] = float(text)
        return values

    def _ask(self, path: str, params: dict[str, str]) -> list[_Sample]:
        try:
            with self._client.stream("POST", f"{self._url}/api/v1/{path}", data=params) as response:
                body = b""
                for chunk in response.iter_bytes():
                    body += chunk
                    if len(body) > BYTES_MAX:
                        raise MeasurementError(f"{self._url} answers with more than {BYTES_MAX >> 20} MiB", hint="raise --step")
                status = response.status_code
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise MeasurementError(
                f"{self._url} cannot be asked: {str(error) or type(error).__name__}", hint="give the URL of a Prometheus server"
            ) from None
        try:
            answer = msgspec.json.decode(body, type=_Answer)
        except msgspec.DecodeError:
            raise MeasurementError(
                f"{self._url}/api/v1/{path} answers {status} and no JSON of Prometheus",
                hint="give the URL of a Prometheus server",
            ) from None
        if answer.status != "success" or answer.data is None:
            raise MeasurementError(f"{self._url} refuses the query: {answer.error or status}", hint="check --match")
        return answer.data.result


def _run(url: str, grid: Floats, found: dict[str, Floats | None], config: dict[str, str]) -> MeasuredRun:
    prompt, output, running = found["prompt"], found["output"], found["running"]
    assert prompt is not None
    assert output is not None
    assert running is not None
    nothing = np.full(len(grid), np.nan)
    waiting, share, lost = (found[name] for name in ("waiting", "share", "preemptions"))
    rows = np.flatnonzero(~np.isnan(prompt) & ~np.isnan(output) & ~np.isnan(running))
    if len(rows) < 2:
        raise MeasurementError(f"{url} has {len(rows)} points in this window", hint="choose a longer window, or another end")
    time = np.rint((grid[rows[1:]] - grid[rows[0]]) * SECOND).astype(np.int64)
    seconds = np.diff(grid[rows])
    series = MeasuredSeries(
        time=time,
        prompt_rate=_increase(prompt[rows]) / seconds,
        output_rate=_increase(output[rows]) / seconds,
        running=running[rows[1:]],
        waiting=np.nan_to_num((nothing if waiting is None else waiting)[rows[1:]]),
        kv_share=(nothing if share is None else share)[rows[1:]],
        preemptions=None if lost is None else np.nan_to_num(_increase(lost[rows])),
    )
    blocks, size = config.get("num_gpu_blocks", ""), config.get("block_size", "")
    kv_tokens = int(blocks) * int(size) if blocks.isdigit() and size.isdigit() and int(blocks) * int(size) > 0 else None
    limits = EngineLimits(kv_tokens=kv_tokens, block_size=int(size) if size.isdigit() and int(size) > 0 else 16)
    return MeasuredRun(name="prometheus", limits=limits, engine="vLLM", source=f"Prometheus {url}", series=series)


def _increase(values: Floats) -> Floats:
    """Growth of a counter between points; after a restart it counts from zero."""
    grown = np.diff(values)
    return np.where(grown < 0, values[1:], grown)
