"""Counters of an engine from a Prometheus server: range queries over vLLM's metric names, as a measured series.

    vllm:prompt_tokens_total, vllm:generation_tokens_total, vllm:num_preemptions_total    counters, as rates
    vllm:num_requests_running, vllm:num_requests_waiting, vllm:kv_cache_usage_perc        gauges
    vllm:cache_config_info                                                                labels num_gpu_blocks, block_size

Reads only, and names the server in every error. Knows no fit. Read next: `sim/calibration/counters.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from sageserve.base.config.clusters import PrometheusSettings
from sageserve.base.errors import MeasurementError
from sageserve.base.records import Floats
from sageserve.base.units import SECOND
from sageserve.data.history.raw import RawSeries
from sageserve.data.measured.runs import EngineLimits, MeasuredRun, MeasuredSeries
from sageserve.live.prometheus.server import NotSeen, PrometheusServer

POINTS_MAX: Final = 10_000  # of a series: Prometheus gives at most 11,000
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


@dataclass(frozen=True, slots=True)
class Window:
    """What to read: until `end` (seconds since 1970), `length` seconds back, a point every `step` seconds, of one engine.

    `matchers` is what stands between braces in PromQL, for example `model_name="llama",instance="10.0.0.1:8000"`.
    """

    end: float
    length: float
    step: float
    matchers: str = ""


def read_prometheus(settings: PrometheusSettings, window: Window) -> MeasuredRun:
    """The counters of one engine as a run without requests.

    Args:
        settings: the server, and how to be let in.
        window: what to read.

    Raises:
        MeasurementError: the server cannot be reached or refuses, has no such series, or has several engines.
    """
    if not 0 < window.length / window.step <= POINTS_MAX:
        raise MeasurementError(
            f"{window.length:g} s in steps of {window.step:g} s are more than {POINTS_MAX} points", hint="raise --step"
        )
    with PrometheusServer(settings) as server:
        url = server.url
        query = _Query(server, window)
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

    def __init__(self, server: PrometheusServer, window: Window) -> None:
        self._server = server
        self._url = server.url
        self._window = window

    def over(self, metrics: tuple[str, ...], grid: Floats) -> Floats | None:
        """float64[points] of the first of these metrics that is there, NaN where it was not scraped; None: none is."""
        for metric in metrics:
            query = f"{metric}{{{self._window.matchers}}}"
            answer = self._server.over(query, float(grid[0]), float(grid[-1]), self._window.step)
            if isinstance(answer, NotSeen):
                raise MeasurementError(answer.detail, hint="give the URL of a Prometheus server, and check --match")
            if answer.series:
                return self._on_grid(self._single(metric, answer.series), grid)
        return None

    def labels(self, metric: str) -> Mapping[str, str]:
        """Labels of an info metric at the end of the window; empty when it is not there or not of one engine."""
        found = self._server.vector(f"{metric}{{{self._window.matchers}}}", self._window.end)
        return found[0].labels if not isinstance(found, NotSeen) and len(found) == 1 else {}

    def _single(self, metric: str, samples: Sequence[RawSeries]) -> RawSeries:
        if len(samples) > 1:
            keys = sorted({key for sample in samples for key in sample.labels if key != "__name__"})
            differ = [key for key in keys if len({sample.labels.get(key) for sample in samples}) > 1]
            raise MeasurementError(
                f"{self._url} has {len(samples)} series of {metric}: engines differ, so one is calibrated at a time",
                hint=f"say which with --match, for example --match '{differ[0] if differ else 'instance'}=\"…\"'",
            )
        return samples[0]

    @staticmethod
    def _on_grid(sample: RawSeries, grid: Floats) -> Floats:
        values = np.full(len(grid), np.nan)
        step = grid[1] - grid[0] if len(grid) > 1 else 1.0
        rows = np.rint((sample.time / SECOND - grid[0]) / step).astype(np.int64)
        inside = (rows >= 0) & (rows < len(grid))
        values[rows[inside]] = sample.value[inside]
        return values


def _run(url: str, grid: Floats, found: dict[str, Floats | None], config: Mapping[str, str]) -> MeasuredRun:
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
