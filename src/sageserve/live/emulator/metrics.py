"""vLLM's metrics of an engine: gauges, counters and histograms under the names a scraper of vLLM knows.

Durations are those of the wall, as every client sees them, also when the engine runs faster than real. Observing is a few
hundred nanoseconds; text is made only when asked for. Knows no socket. Read next: docs/reference/engine-metrics.md.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from sageserve.base.units import SECOND, Micros
from sageserve.live.emulator.batch import Sequence
from sageserve.live.emulator.ranks import EngineRanks

# Bounds of vLLM's buckets, in seconds and in tokens.
_TTFT: Final = (
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
    20.0,
    40.0,
    80.0,
    160.0,
)
_TOKEN: Final = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)
_LATENCY: Final = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0)
_SIZES: Final = tuple(float(m * 10**e) for e in range(6) for m in (1, 2, 5))
_BLOCK: Final = 16  # tokens of vLLM's KV blocks


class Histogram:
    """Counts by upper bound."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count a value, `times` times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def buckets(self) -> list[tuple[str, float]]:
        """(upper bound, cumulative count)."""
        found, sum_ = [], 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            sum_ += count
            found.append((bound, float(sum_)))
        return found


_HISTOGRAMS: Final = {
    "time_to_first_token_seconds": (_TTFT, "Time to first token."),
    "inter_token_latency_seconds": (_TOKEN, "Time between two tokens of an answer."),
    "request_time_per_output_token_seconds": (_TOKEN, "Mean time per token after the first, by request."),
    "e2e_request_latency_seconds": (_LATENCY, "Time from arrival to the last token."),
    "request_queue_time_seconds": (_LATENCY, "Time from arrival to the first place in the batch."),
    "request_prefill_time_seconds": (_LATENCY, "Time from the first place in the batch to the first token."),
    "request_decode_time_seconds": (_LATENCY, "Time from the first token to the last."),
    "request_inference_time_seconds": (_LATENCY, "Time from the first place in the batch to the last token."),
    "request_prompt_tokens": (_SIZES, "Tokens of prompts."),
    "request_generation_tokens": (_SIZES, "Tokens of answers."),
}


class EngineMetrics:
    """What an engine counted since it began.

    Args:
        model: name under which it serves.
        batch: for gauges.
        speed: engine time per wall time.
    """

    def __init__(self, model: str, batch: EngineRanks, speed: float) -> None:
        self._batch = batch
        self._labels = {"model_name": model, "engine": "0"}
        self._second = SECOND * speed  # engine microseconds per second of the wall
        self._entry = batch.row["entry"]  # before a request's arrival in the batch
        self.prompt_tokens = 0
        self.output_tokens = 0
        self.success = {"stop": 0, "length": 0, "abort": 0}
        self.histograms = {name: Histogram(bounds) for name, (bounds, _) in _HISTOGRAMS.items()}
        self._between = self.histograms["inter_token_latency_seconds"]
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def first(self, one: Sequence, now: Micros) -> None:
        """A sequence has its first token."""
        self.prompt_tokens += one.prompt
        self.histograms["time_to_first_token_seconds"].observe((now - one.arrival + self._entry) / self._second)

    def between(self, gap: Micros, times: int = 1) -> None:
        """So many sequences had to wait so long for their next token."""
        self._between.observe(gap / self._second, times)

    def finished(self, one: Sequence, now: Micros, reason: str) -> None:
        """A sequence is complete."""
        self.success[reason] += 1
        second = self._second
        spans = {
            "e2e_request_latency_seconds": now - one.arrival + self._entry,
            "request_queue_time_seconds": one.admitted - one.arrival,
            "request_prefill_time_seconds": one.first - one.admitted,
            "request_decode_time_seconds": now - one.first,
            "request_inference_time_seconds": now - one.admitted,
        }
        for name, span in spans.items():
            self.histograms[name].observe(span / second)
        if one.output > 1:
            self.histograms["request_time_per_output_token_seconds"].observe((now - one.first) / second / (one.output - 1))
        self.histograms["request_prompt_tokens"].observe(one.prompt)
        self.histograms["request_generation_tokens"].observe(one.output)

    def text(self) -> bytes:
        """The exposition in Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """The metric families; prometheus_client calls this."""
        batch = self._batch
        yield self._gauge("num_requests_running", "Requests in the batch.", batch.running)
        yield self._gauge("num_requests_waiting", "Requests in the queue.", batch.waiting)
        yield self._gauge("kv_cache_usage_perc", "Share of the KV cache in use, 1 is all.", self._kv_use())
        yield self._cache_config()
        yield self._counter("num_preemptions", "Preemptions.", [({}, batch.preemptions)])
        yield self._counter("prompt_tokens", "Prompt tokens processed.", [({}, self.prompt_tokens)])
        yield self._counter("generation_tokens", "Tokens generated.", [({}, self.output_tokens)])
        yield self._counter("prefix_cache_queries", "Tokens looked up in the prefix cache.", [({}, batch.asked_cache)])
        yield self._counter("prefix_cache_hits", "Tokens found there.", [({}, batch.found_cache)])
        ends = [({"finished_reason": reason}, count) for reason, count in self.success.items()]
        yield self._counter("request_success", "Requests that ended, by reason.", ends)
        for name, histogram in self.histograms.items():
            family = HistogramMetricFamily(f"vllm:{name}", _HISTOGRAMS[name][1], labels=list(self._labels))
            family.add_metric(list(self._labels.values()), histogram.buckets(), sum_value=histogram.total)
            yield family

    def _kv_use(self) -> float:
        return self._batch.used / (self._batch.row["ranks"] * self._batch.row["kv_tokens"])

    def _gauge(self, name: str, about: str, value: float) -> Metric:
        family = GaugeMetricFamily(f"vllm:{name}", about, labels=list(self._labels))
        family.add_metric(list(self._labels.values()), value)
        return family

    def _counter(self, name: str, about: str, values: Iterable[tuple[dict[str, str], int]]) -> Metric:
        rows = [(self._labels | more, value) for more, value in values]
        family = CounterMetricFamily(f"vllm:{name}", about, labels=list(rows[0][0]))
        for labels, value in rows:
            family.add_metric(list(labels.values()), value)
        return family

    def _cache_config(self) -> Metric:
        """Capacity, as vLLM tells it: blocks and tokens per block, as labels, and no name of a model."""
        tokens = self._batch.row["kv_tokens"]
        block = _BLOCK if tokens % _BLOCK == 0 else 1
        labels = {"block_size": str(block), "num_gpu_blocks": str(tokens // block), "engine": "0"}
        family = GaugeMetricFamily("vllm:cache_config_info", "Information of the engine's cache.", labels=list(labels))
        family.add_metric(list(labels.values()), 1.0)
        return family
