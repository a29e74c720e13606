"""A metrics page turned into signals; or the reason why the engine is not seen.

Idle: the series are there, and nothing runs or waits; empty histograms and NaN (0 by 0) are part of it. Blind: the series are
not there. Completions are never taken for demand: a saturated engine completes less than is asked of it.
Read next: `data/history/names.py` for what is looked for, `scrape.py` for how pages are fetched.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias, assert_never

from sageserve.data.history.names import ALIASES, NEEDED, PREFIXES, RANKS, Alias, EngineKind, EngineSignal, aliases_of
from sageserve.live.telemetry.page import MetricSample, MetricsPage, NotAPage, engine_names, read_page


class BlindReason(StrEnum):
    """Why an engine is not seen: a closed list, so that blindness can be counted."""

    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    STATUS = "status"  # it answered, and not with 200
    TOO_LARGE = "too-large"
    NOT_A_PAGE = "not-a-page"
    NO_SERIES = "no-series"  # no engine's metrics, or not those that are needed
    OTHER_MODEL = "other-model"
    NOT_A_NUMBER = "not-a-number"


@dataclass(frozen=True, slots=True)
class Blind:
    """The engine was not seen."""

    why: BlindReason
    detail: str


@dataclass(frozen=True, slots=True)
class HistogramSeen:
    """A histogram, cumulative since the engine began: (upper bound, count) by rising bound."""

    count: float
    total: float
    buckets: tuple[tuple[float, float], ...]

    @property
    def mean(self) -> float | None:
        """Of what was observed; none when nothing was."""
        return self.total / self.count if self.count > 0 else None


@dataclass(frozen=True, slots=True)
class EngineSeen:
    """One instance as it describes itself.

    Args:
        engine: which program it is.
        running: requests in its batch, of all its ranks together.
        waiting: requests in its queues.
        kv_use: share of its KV cache in use; none: it does not say.
        kv_tokens: size of its KV cache; none: it does not say.
        counters: other values, cumulative.
        histograms: empty unless they were asked for.
        ranks: data-parallel parts that reported; an instance is one, however many they are.
        matched: which names were found.
    """

    engine: EngineKind
    running: float
    waiting: float
    kv_use: float | None
    kv_tokens: int | None
    ranks: int
    counters: dict[EngineSignal, float] = field(default_factory=dict)
    histograms: dict[EngineSignal, HistogramSeen] = field(default_factory=dict)
    matched: tuple[Alias, ...] = ()

    @property
    def in_flight(self) -> float:
        """Requests that are with it."""
        return self.running + self.waiting

    @property
    def idle(self) -> bool:
        """It is there, and has nothing to do."""
        return self.in_flight == 0


Seen: TypeAlias = EngineSeen | Blind

_PLAIN = frozenset(name for alias in ALIASES if alias.kind != "histogram" for name in (alias.metric, alias.over) if name)
_ALL = _PLAIN | {alias.metric for alias in ALIASES}


def read_seen(text: str, model: str = "", *, histograms: bool = False) -> Seen:
    """What a metrics page says of an engine.

    Args:
        text: the page.
        model: the name the engine serves it under, in any case; empty: whatever there is.
        histograms: read these too; they are most of a page.
    """
    engine = _engine(text)
    if engine is None:
        return Blind(BlindReason.NO_SERIES, "no metrics of vLLM, SGLang, TensorRT-LLM, llama.cpp or TGI; are they switched on?")
    try:
        page = _of_model(read_page(text, _ALL if histograms else _PLAIN), model)
    except NotAPage as error:
        return Blind(BlindReason.NOT_A_PAGE, str(error))
    if isinstance(page, Blind):
        return page
    return _seen(engine, page, histograms=histograms)


def _engine(text: str) -> EngineKind | None:
    """The first engine that has metrics on the page."""
    names = engine_names(text)
    return next((kind for kind, prefix in PREFIXES.items() if any(name.startswith(prefix) for name in names)), None)


def _of_model(page: MetricsPage, model: str) -> MetricsPage | Blind:
    """The samples of one model; those that name none belong to every one."""
    wanted = model.lower()
    named = {s.labels["model_name"] for samples in page.samples.values() for s in samples if "model_name" in s.labels}
    if not wanted or not named:
        return page
    if wanted not in {name.lower() for name in named}:
        return Blind(BlindReason.OTHER_MODEL, f"it serves {', '.join(sorted(named))}, not {model}")
    return MetricsPage(
        {
            name: [s for s in samples if s.labels.get("model_name", wanted).lower() == wanted]
            for name, samples in page.samples.items()
        }
    )


def _seen(engine: EngineKind, page: MetricsPage, *, histograms: bool) -> Seen:
    values: dict[EngineSignal, float] = {}
    shapes: dict[EngineSignal, HistogramSeen] = {}
    matched: list[Alias] = []
    for signal in EngineSignal:
        for alias in aliases_of(engine, signal):
            found = _histogram(alias, page) if alias.read == "histogram" and histograms else _value(alias, page)
            if found is None:
                continue
            if isinstance(found, HistogramSeen):
                shapes[signal] = found
            else:
                values[signal] = found
            matched.append(alias)
            break
    lazy = {signal: 0.0 for signal in NEEDED if any(alias.lazy for alias in aliases_of(engine, signal))}
    values = lazy | values
    missing = [signal for signal in NEEDED if signal not in values]
    if missing:
        names = ", ".join(aliases_of(engine, signal)[0].metric for signal in missing)
        return Blind(BlindReason.NO_SERIES, f"{engine} says nothing of {names}")
    if any(math.isnan(values[signal]) for signal in NEEDED):
        return Blind(BlindReason.NOT_A_NUMBER, f"{engine} counts its requests as NaN")
    return _whole(engine, values, shapes, tuple(matched), _ranks(page))


def _whole(
    engine: EngineKind,
    values: dict[EngineSignal, float],
    shapes: dict[EngineSignal, HistogramSeen],
    matched: tuple[Alias, ...],
    ranks: int,
) -> EngineSeen:
    running, waiting = values.pop(EngineSignal.RUNNING), values.pop(EngineSignal.WAITING)
    use, tokens = values.pop(EngineSignal.KV_USE, None), values.pop(EngineSignal.KV_TOKENS, None)
    if use is not None and math.isnan(use):  # 0 by 0 when nothing is there; else nobody knows
        use = 0.0 if running + waiting == 0 else None
    return EngineSeen(
        engine=engine,
        running=running,
        waiting=waiting,
        kv_use=use,
        kv_tokens=int(tokens) if tokens is not None and tokens > 0 else None,
        ranks=ranks,
        counters={signal: value for signal, value in values.items() if not math.isnan(value)},
        histograms=shapes,
        matched=matched,
    )


def _value(alias: Alias, page: MetricsPage) -> float | None:
    samples = page.of(alias.metric)
    if not samples or alias.read == "histogram":
        return None
    match alias.read:
        case "sum":
            return _total(samples)
        case "mean":
            return _total(samples) / len(samples)
        case "blocks":
            return sum(_blocks(sample.labels) for sample in samples)
        case "ratio":
            whole = _total(page.of(alias.over))
            return _total(samples) / whole if whole > 0 else None
        case _:
            assert_never(alias.read)


def _blocks(labels: dict[str, str]) -> float:
    """Tokens of vLLM's cache, which it tells as labels; 0 while it does not know."""
    blocks, size = labels.get("num_gpu_blocks", ""), labels.get("block_size", "")
    return float(int(blocks) * int(size)) if blocks.isdigit() and size.isdigit() else 0.0


def _histogram(alias: Alias, page: MetricsPage) -> HistogramSeen | None:
    counts = page.of(f"{alias.metric}_count")
    if not counts:
        return None
    buckets: dict[float, float] = {}
    for sample in page.of(f"{alias.metric}_bucket"):
        bound = float(sample.labels.get("le", "inf"))
        buckets[bound] = buckets.get(bound, 0.0) + sample.value
    return HistogramSeen(_total(counts), _total(page.of(f"{alias.metric}_sum")), tuple(sorted(buckets.items())))


def _total(samples: Sequence[MetricSample]) -> float:
    return sum(sample.value for sample in samples)


def _ranks(page: MetricsPage) -> int:
    found = {(key, s.labels[key]) for samples in page.samples.values() for s in samples for key in RANKS if key in s.labels}
    return max(1, len(found))
