"""The alias table: what each engine calls each signal, since and until which version, and how it is read.

Engines rename their metrics. Of several names of one signal the first that is there is taken, newest first, and never
two together. Facts about programs only; knows no page and no server. Read next: `collect.py` for recorded series,
`live/telemetry/seen.py` for pages; docs/reference/engine-metrics.md shows the table.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal


class EngineKind(StrEnum):
    """Which program serves."""

    VLLM = "vllm"
    SGLANG = "sglang"
    TRT_LLM = "trt-llm"
    LLAMA_CPP = "llama.cpp"
    TGI = "tgi"


PREFIXES: Final = {
    EngineKind.VLLM: "vllm:",
    EngineKind.SGLANG: "sglang:",
    EngineKind.TRT_LLM: "trtllm_",
    EngineKind.LLAMA_CPP: "llamacpp:",
    EngineKind.TGI: "tgi_",
}
"""How the names of an engine's metrics begin. The emulated engine speaks vLLM's."""

WRAPPERS: Final = ("kserve_", "ray_")
"""What pipelines put before a name: KServe's and OpenShift's, Ray Serve's."""

_SPELLINGS: Final = {"vllm_": "vllm:", "sglang_": "sglang:", "llamacpp_": "llamacpp:", "trtllm:": "trtllm_"}
"""Beginnings that stand for others: Ray and OpenTelemetry allow no colon, Dynamo writes one for TensorRT-LLM."""

RANKS: Final = ("engine", "dp_rank")
"""Labels that number the data-parallel parts of one instance."""


class EngineSignal(StrEnum):
    """What is read of an engine."""

    RUNNING = "running"
    WAITING = "waiting"
    KV_USE = "kv_use"
    KV_TOKENS = "kv_tokens"
    PROMPT_TOKENS = "prompt_tokens"
    OUTPUT_TOKENS = "output_tokens"
    PREEMPTIONS = "preemptions"
    SUCCESS = "success"
    CACHE_HITS = "cache_hits"
    CACHE_QUERIES = "cache_queries"
    PROMPT_SIZE = "prompt_size"
    OUTPUT_SIZE = "output_size"
    TTFT = "ttft"
    ITL = "itl"
    TPOT = "tpot"
    E2E = "e2e"
    QUEUE = "queue"
    PREFILL = "prefill"
    DECODE = "decode"


Read = Literal["sum", "mean", "blocks", "ratio", "histogram"]
"""How samples become one value: added over ranks and labels; averaged over ranks; product of the labels `num_gpu_blocks` and
`block_size`, added over ranks; this metric by another one; buckets, sum and count added."""


@dataclass(frozen=True, slots=True)
class Alias:
    """One name of one signal.

    Args:
        signal: what it is.
        engine: whose name it is.
        metric: the name as it stands on the page, without `_sum`, `_count` and `_bucket` for histograms.
        since: first version that has it; empty: as far back as is known.
        until: first version that has it no more; empty: it is current.
        read: how it is read.
        over: for `ratio`, the metric it is divided by.
        lazy: the engine shows it only after its first request: until then it is 0.
    """

    signal: EngineSignal
    engine: EngineKind
    metric: str
    since: str = ""
    until: str = ""
    read: Read = "sum"
    over: str = ""
    lazy: bool = False

    @property
    def kind(self) -> Literal["gauge", "counter", "histogram"]:
        """What kind of metric it is for Prometheus."""
        if self.read == "histogram":
            return "histogram"
        return "gauge" if self.signal in GAUGES else "counter"


GAUGES: Final = frozenset({EngineSignal.RUNNING, EngineSignal.WAITING, EngineSignal.KV_USE, EngineSignal.KV_TOKENS})
NEEDED: Final = (EngineSignal.RUNNING, EngineSignal.WAITING)
"""Without these an engine is not seen."""


def _vllm(signal: EngineSignal, name: str, read: Read = "sum", *, since: str = "", until: str = "") -> Alias:
    return Alias(signal, EngineKind.VLLM, f"vllm:{name}", since, until, read)


def _sglang(signal: EngineSignal, name: str, read: Read = "sum") -> Alias:
    return Alias(signal, EngineKind.SGLANG, f"sglang:{name}", read=read)


def _trt_llm(signal: EngineSignal, name: str, read: Read = "sum") -> Alias:
    return Alias(signal, EngineKind.TRT_LLM, f"trtllm_{name}", read=read)


def _llama_cpp(signal: EngineSignal, name: str, read: Read = "sum", *, until: str = "") -> Alias:
    return Alias(signal, EngineKind.LLAMA_CPP, f"llamacpp:{name}", until=until, read=read)


def _tgi(signal: EngineSignal, name: str, read: Read = "sum", *, over: str = "") -> Alias:
    return Alias(signal, EngineKind.TGI, f"tgi_{name}", read=read, over=over, lazy=True)


ALIASES: Final[tuple[Alias, ...]] = (
    _vllm(EngineSignal.RUNNING, "num_requests_running"),
    _vllm(EngineSignal.WAITING, "num_requests_waiting"),
    _vllm(EngineSignal.KV_USE, "kv_cache_usage_perc", "mean", since="0.10"),
    _vllm(EngineSignal.KV_USE, "gpu_cache_usage_perc", "mean", until="0.12"),
    _vllm(EngineSignal.KV_TOKENS, "cache_config_info", "blocks"),
    _vllm(EngineSignal.PROMPT_TOKENS, "prompt_tokens_total"),
    _vllm(EngineSignal.OUTPUT_TOKENS, "generation_tokens_total"),
    _vllm(EngineSignal.PREEMPTIONS, "num_preemptions_total"),
    _vllm(EngineSignal.SUCCESS, "request_success_total"),
    _vllm(EngineSignal.CACHE_HITS, "prefix_cache_hits_total", since="0.10"),
    _vllm(EngineSignal.CACHE_HITS, "gpu_prefix_cache_hits_total", until="0.12"),
    _vllm(EngineSignal.CACHE_QUERIES, "prefix_cache_queries_total", since="0.10"),
    _vllm(EngineSignal.CACHE_QUERIES, "gpu_prefix_cache_queries_total", until="0.12"),
    _vllm(EngineSignal.PROMPT_SIZE, "request_prompt_tokens", "histogram"),
    _vllm(EngineSignal.OUTPUT_SIZE, "request_generation_tokens", "histogram"),
    _vllm(EngineSignal.TTFT, "time_to_first_token_seconds", "histogram"),
    _vllm(EngineSignal.ITL, "inter_token_latency_seconds", "histogram", since="0.11"),
    _vllm(EngineSignal.ITL, "time_per_output_token_seconds", "histogram", until="0.13"),
    _vllm(EngineSignal.TPOT, "request_time_per_output_token_seconds", "histogram"),
    _vllm(EngineSignal.E2E, "e2e_request_latency_seconds", "histogram"),
    _vllm(EngineSignal.QUEUE, "request_queue_time_seconds", "histogram"),
    _vllm(EngineSignal.PREFILL, "request_prefill_time_seconds", "histogram"),
    _vllm(EngineSignal.DECODE, "request_decode_time_seconds", "histogram"),
    _sglang(EngineSignal.RUNNING, "num_running_reqs"),
    _sglang(EngineSignal.WAITING, "num_queue_reqs"),
    _sglang(EngineSignal.KV_USE, "token_usage", "mean"),
    _sglang(EngineSignal.KV_TOKENS, "max_total_num_tokens"),
    _sglang(EngineSignal.PROMPT_TOKENS, "prompt_tokens_total"),
    _sglang(EngineSignal.OUTPUT_TOKENS, "generation_tokens_total"),
    _sglang(EngineSignal.SUCCESS, "num_requests_total"),
    _sglang(EngineSignal.CACHE_HITS, "cached_tokens_total"),
    _sglang(EngineSignal.PROMPT_SIZE, "prompt_tokens_histogram", "histogram"),
    _sglang(EngineSignal.OUTPUT_SIZE, "generation_tokens_histogram", "histogram"),
    _sglang(EngineSignal.TTFT, "time_to_first_token_seconds", "histogram"),
    _sglang(EngineSignal.ITL, "inter_token_latency_seconds", "histogram"),
    _sglang(EngineSignal.E2E, "e2e_request_latency_seconds", "histogram"),
    _trt_llm(EngineSignal.RUNNING, "num_requests_running"),
    _trt_llm(EngineSignal.WAITING, "num_requests_waiting"),
    _trt_llm(EngineSignal.KV_USE, "kv_cache_utilization", "mean"),
    _trt_llm(EngineSignal.SUCCESS, "request_success_total"),
    _trt_llm(EngineSignal.TTFT, "time_to_first_token_seconds", "histogram"),
    _trt_llm(EngineSignal.TPOT, "time_per_output_token_seconds", "histogram"),
    _trt_llm(EngineSignal.E2E, "e2e_request_latency_seconds", "histogram"),
    _trt_llm(EngineSignal.QUEUE, "request_queue_time_seconds", "histogram"),
    _llama_cpp(EngineSignal.RUNNING, "requests_processing"),
    _llama_cpp(EngineSignal.WAITING, "requests_deferred"),
    _llama_cpp(EngineSignal.KV_USE, "kv_cache_usage_ratio", "mean", until="May 2025"),
    _llama_cpp(EngineSignal.PROMPT_TOKENS, "prompt_tokens_total"),
    _llama_cpp(EngineSignal.OUTPUT_TOKENS, "tokens_predicted_total"),
    _llama_cpp(EngineSignal.CACHE_HITS, "prompt_tokens_cached_total"),
    _tgi(EngineSignal.RUNNING, "batch_current_size"),
    _tgi(EngineSignal.WAITING, "queue_size"),
    _tgi(EngineSignal.KV_USE, "batch_current_max_tokens", "ratio", over="tgi_batch_max_total_tokens"),
    _tgi(EngineSignal.PROMPT_TOKENS, "request_input_length_sum"),
    _tgi(EngineSignal.OUTPUT_TOKENS, "request_generated_tokens_sum"),
    _tgi(EngineSignal.SUCCESS, "request_success"),
    _tgi(EngineSignal.PROMPT_SIZE, "request_input_length", "histogram"),
    _tgi(EngineSignal.OUTPUT_SIZE, "request_generated_tokens", "histogram"),
    _tgi(EngineSignal.QUEUE, "request_queue_duration", "histogram"),
    _tgi(EngineSignal.ITL, "request_mean_time_per_token_duration", "histogram"),
    _tgi(EngineSignal.E2E, "request_duration", "histogram"),
)


def aliases_of(engine: EngineKind, signal: EngineSignal) -> tuple[Alias, ...]:
    """The names of a signal, in the order in which they are looked for."""
    return tuple(alias for alias in ALIASES if alias.engine is engine and alias.signal is signal)


class FrontKind(StrEnum):
    """Which gateway stands in front of engines."""

    SAGESERVE = "sageserve"
    EPP = "epp"
    DYNAMO = "dynamo"


class FrontSignal(StrEnum):
    """What is read of a gateway."""

    ARRIVALS = "arrivals"
    PROMPT_SIZE = "prompt_size"
    OUTPUT_SIZE = "output_size"


@dataclass(frozen=True, slots=True)
class FrontAlias:
    """One name of one signal of a gateway.

    Args:
        signal: what it is; arrivals are counters, sizes histograms.
        front: whose name it is.
        metric: the name, without `_sum`, `_count` and `_bucket` for histograms.
        model: the label that names the model.
        tier: the label that tells service classes apart; empty: none does.
        until: what took its place; empty: it is current.
    """

    signal: FrontSignal
    front: FrontKind
    metric: str
    model: str
    tier: str = ""
    until: str = ""


def _epp(signal: FrontSignal, name: str, until: str = "") -> FrontAlias:
    return FrontAlias(signal, FrontKind.EPP, name, "model_name", "priority", until)


def _dynamo(signal: FrontSignal, name: str, until: str = "") -> FrontAlias:
    return FrontAlias(signal, FrontKind.DYNAMO, f"dynamo_frontend_{name}", "model", "", until)


FRONTS: Final[tuple[FrontAlias, ...]] = (
    FrontAlias(
        FrontSignal.ARRIVALS, FrontKind.SAGESERVE, "sageserve_gateway_requests_total", model="gen_ai_request_model", tier="tier"
    ),
    _epp(FrontSignal.ARRIVALS, "llm_d_epp_request_total"),
    _epp(FrontSignal.ARRIVALS, "llm_d_router_epp_request_total", "llm_d_epp_"),
    _epp(FrontSignal.ARRIVALS, "inference_objective_request_total", "llm_d_router_epp_"),
    _epp(FrontSignal.ARRIVALS, "inference_model_request_total", "inference_objective_"),
    _epp(FrontSignal.PROMPT_SIZE, "llm_d_epp_request_input_tokens"),
    _epp(FrontSignal.PROMPT_SIZE, "inference_objective_input_tokens", "llm_d_epp_"),
    _epp(FrontSignal.PROMPT_SIZE, "inference_model_input_tokens", "inference_objective_"),
    _epp(FrontSignal.OUTPUT_SIZE, "llm_d_epp_request_output_tokens"),
    _epp(FrontSignal.OUTPUT_SIZE, "inference_objective_output_tokens", "llm_d_epp_"),
    _epp(FrontSignal.OUTPUT_SIZE, "inference_model_output_tokens", "inference_objective_"),
    _dynamo(FrontSignal.ARRIVALS, "requests_started_total"),
    _dynamo(FrontSignal.ARRIVALS, "requests_total", "requests_started_total"),
    _dynamo(FrontSignal.PROMPT_SIZE, "input_sequence_tokens"),
    _dynamo(FrontSignal.OUTPUT_SIZE, "output_sequence_tokens"),
)
"""Best first: what is offered at a door is demand; what an engine completes is less while it is saturated. The endpoint picker
emits several of its names at once."""


def canonical(name: str) -> str:
    """A name without wrappers, as the engine itself spells it: `ray_vllm_x` is `vllm:x`."""
    for wrapper in WRAPPERS:
        name = name.removeprefix(wrapper)
    for other, own in _SPELLINGS.items():
        if name.startswith(other):
            return own + name.removeprefix(other)
    return name


def name_pattern() -> str:
    """A regular expression, as PromQL matches it, of every metric name that any alias may be recorded under."""
    begins = sorted({prefix.rstrip(":_") for prefix in PREFIXES.values()})
    fronts = sorted({alias.metric for alias in FRONTS})
    return f"(?:{'|'.join(WRAPPERS)})?(?:{'|'.join(begins)})[:_].+|(?:{'|'.join(fronts)})(?:_sum|_count|_bucket)?"


def front_table() -> str:
    """The gateways' names as Markdown, for the reference page."""
    rows = ["| signal | gateway | metric | model | service class | replaced by |", "|---|---|---|---|---|---|"]
    for one in FRONTS:
        tier = f"`{one.tier}`" if one.tier else "-"
        until = f"`{one.until}`" if one.until else "-"
        rows.append(f"| {one.signal} | {one.front} | `{one.metric}` | `{one.model}` | {tier} | {until} |")
    return "\n".join(rows) + "\n"


def table() -> str:
    """The alias table as Markdown, for the reference page."""
    rows = ["| signal | engine | metric | versions | kind | read |", "|---|---|---|---|---|---|"]
    for alias in sorted(ALIASES, key=lambda one: list(EngineSignal).index(one.signal)):
        versions = " ".join(part for part in (alias.since and f"≥ {alias.since}", alias.until and f"< {alias.until}") if part)
        read = f"by `{alias.over}`" if alias.over else alias.read
        rows.append(f"| {alias.signal} | {alias.engine} | `{alias.metric}` | {versions or 'all'} | {alias.kind} | {read} |")
    return "\n".join(rows) + "\n"
