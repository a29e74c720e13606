"""The engine's own counters, read once a second beside the load: batch, queue, KV memory, tokens, preemptions.

Names differ by engine and drift between versions; `_NAMES` lists them, newest first. Lines of other metrics are dropped before
anything is parsed, because a page of vLLM takes 20 ms to parse in full and the clock of the clients runs in this process.
Read next: `outcome.py`, which makes a series of the readings.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from sageserve.base.units import SECOND, Micros
from sageserve.live.benchmark.client import EngineClient, RequestFailed, now_us

_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "running": ("vllm:num_requests_running", "sglang:num_running_reqs", "llamacpp:requests_processing"),
    "waiting": ("vllm:num_requests_waiting", "sglang:num_queue_reqs", "llamacpp:requests_deferred"),
    "kv_share": ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "sglang:token_usage"),
    "prompt_tokens": ("vllm:prompt_tokens_total", "sglang:prompt_tokens_total", "llamacpp:prompt_tokens_total"),
    "output_tokens": ("vllm:generation_tokens_total", "sglang:generation_tokens_total", "llamacpp:tokens_predicted_total"),
    "preemptions": ("vllm:num_preemptions_total",),
    "kv_tokens": ("sglang:max_total_num_tokens",),
}
_CACHE: Final = "vllm:cache_config_info"
_WANTED: Final = tuple(name for names in _NAMES.values() for name in names)
_FAMILIES: Final[Mapping[str, str]] = {"vllm:": "vLLM", "sglang:": "SGLang", "llamacpp:": "llama.cpp"}
_SHARES: Final = {"kv_share"}  # of several engines behind one page the fullest counts; other numbers add up


@dataclass(frozen=True, slots=True)
class CounterReading:
    """One look at the counters; None where the engine does not show a number."""

    time: Micros
    values: Mapping[str, float]

    def get(self, name: str) -> float | None:
        """A number by its name in `_NAMES`."""
        return self.values.get(name)


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """What vLLM says of its KV cache; 0 and False where it does not."""

    kv_tokens: int = 0
    block_size: int = 16
    prefix_caching: bool = False


@dataclass(slots=True)
class WatchedCounters:
    """Everything read so far.

    Args:
        cache: as the newest page says.
        readings: by time.
        engines: how many engines report on that page.
        family: whose names its numbers have; empty where there are none.
    """

    cache: CacheConfig = CacheConfig()
    readings: list[CounterReading] = field(default_factory=list)
    engines: int = 1
    family: str = ""


def parse(text: str, time: Micros) -> tuple[CounterReading, CacheConfig, int]:
    """A metrics page: the numbers, the cache's settings, and how many engines report on it.

    Raises:
        ValueError: it is not in Prometheus' text format.
    """
    kept = "\n".join(line for line in text.splitlines() if line.startswith((*_WANTED, _CACHE)))
    seen: dict[str, dict[str, float]] = {}
    cache, engines = CacheConfig(), set()
    for family in text_string_to_metric_families(kept + "\n"):
        for sample in family.samples:
            if sample.name == _CACHE:
                cache = _cache(sample.labels)
            by_engine = seen.setdefault(sample.name, {})
            label = sample.labels.get("engine", "")
            by_engine[label] = by_engine.get(label, 0.0) + sample.value
            engines.add(label)
    values: dict[str, float] = {}
    for ours, names in _NAMES.items():
        theirs = next((name for name in names if name in seen), None)
        if theirs is not None:
            numbers = seen[theirs].values()
            values[ours] = max(numbers) if ours in _SHARES else sum(numbers)
    return CounterReading(time, values), cache, max(len(engines), 1)


def _cache(labels: Mapping[str, str]) -> CacheConfig:
    def number(name: str) -> int:
        text = labels.get(name, "")
        return int(text) if text.isdigit() else 0

    block = number("block_size") or 16
    # newer versions state tokens outright, which is right for hybrid models too
    tokens = number("kv_cache_size_tokens") or number("num_gpu_blocks") * block
    return CacheConfig(tokens, block, labels.get("enable_prefix_caching") == "True")


async def look(client: EngineClient, url: str, into: WatchedCounters) -> bool:
    """Read once; False where there are no counters to read."""
    try:
        page = await client.get(url)
        reading, cache, engines = parse(page.decode(errors="replace"), now_us())
    except (RequestFailed, ValueError):
        return False  # a benchmark goes on without counters, and its notes say that there were none
    if not reading.values:
        return False
    into.readings.append(reading)
    into.cache = cache if cache.kv_tokens else into.cache
    into.engines = engines
    into.family = next((name for prefix, name in _FAMILIES.items() if prefix.encode() in page), "")
    return True


@asynccontextmanager
async def watching(client: EngineClient, url: str) -> AsyncIterator[WatchedCounters]:
    """Counters are read once a second while the context lasts, if the engine has any."""
    watched = WatchedCounters()
    if not await look(client, url, watched):
        yield watched
        return
    task = asyncio.create_task(_every_second(client, url, watched))
    try:
        yield watched
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _every_second(client: EngineClient, url: str, watched: WatchedCounters) -> None:
    due = now_us()
    while True:
        due = max(due + SECOND, now_us())
        await asyncio.sleep(max(due - now_us(), 0) / SECOND)
        await look(client, url, watched)


def metrics_page(root: str) -> str:
    """Where an engine shows its counters: /metrics beside /v1."""
    return root.removesuffix("/v1") + "/metrics"
