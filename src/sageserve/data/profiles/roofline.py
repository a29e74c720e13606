"""Engine profiles by arithmetic: a model's shape, a GPU's peak rates and a few measured efficiencies.

    roofline(shape("llama-3.1-70b"), gpu_named("h100-80gb"), Parallelism(4))    # coefficients, KV capacity, error band

How an iteration of T tokens comes about, per GPU of an instance (`curve.py` joins the terms):

    fixed       host + layers x launch + all-reduces x their latency
    each        T x bytes exchanged / link speed reached
    streamed    weights that T tokens need / bandwidth reached; the more tokens, the more experts
    multiplied  2 x T x active parameters / FLOP/s reached

With data parallelism (`dp`) each rank streams and multiplies what every token passes through for its own tokens. The experts of a
mixture are spread over the GPUs of all ranks and take the tokens of all, so their part goes by the mean tokens T of the ranks
(`shared_ms`); the GPU with the most popular experts makes the others wait (`imbalance`):

    streamed    experts that T x dp tokens need / GPUs / bandwidth reached x imbalance
    multiplied  2 x T x dp x active parameters of experts / GPUs / FLOP/s reached x imbalance
    exchanged   2 x layers with experts x (one step + T / tp x copies x hidden x 2 bytes / link speed reached x imbalance)

where a token is sent once to every GPU group that holds one of its experts: copies = min(experts of a token, ep) x (1 - 1/ep).

and the coefficients beside the curve:

    eager       layers x launches that no CUDA graph holds, in iterations that prefill
    decode      host work per sequence, and the output layer, which only the last token of a sequence needs
    kv          KV bytes of a token / bandwidth reached
    attention   FLOPs per query token and token of context / FLOP/s reached

Efficiencies are fitted by `bench/fit_roofline.py`, those of experts and of weights of few bits by `bench/fit_points.py`; both
print what they miss by. Knows no files except the facts of `hardware.py`. Read next: docs/reference/profiles.md.
"""

from dataclasses import dataclass
from math import log2
from typing import Final

import numpy as np

from sageserve.base.config import ProfileSettings
from sageserve.base.errors import Infeasible
from sageserve.base.records import Floats
from sageserve.base.units import Parsed, show_size
from sageserve.data.profiles.bands import band_of
from sageserve.data.profiles.curve import GRID, IterationCurve, knots
from sageserve.data.profiles.hardware import Gpu, ModelShape, Precision

BLOCK: Final = 16  # tokens: vLLM's block size
USABLE: Final = 0.9  # of a GPU's memory: vLLM's gpu_memory_utilization
ACTIVATIONS: Final = 2 * 2**30  # per GPU: with it capacities of seven vLLM runs on H100 come out within 2 %
KV_LEAST: Final = 2048  # tokens: with less an instance serves nobody
TENSOR_PARALLEL: Final = (1, 2, 4, 8)


_LATENCY: Final = {"nvlink": 1.0, "xgmi": 1.5, "pcie": 3.0}  # of an all-reduce, next to NVLink: assumed, not measured


@dataclass(frozen=True, slots=True)
class Efficiency:
    """What engines reach of peak rates, and what they add; bench/fit_roofline.py and bench/fit_points.py fit and explain them.

    Args:
        bandwidth: share of memory bandwidth at which bf16 weights are streamed.
        bandwidth_fp8, bandwidth_fp4: share at which those of eight and of four bits are.
        unpacked_int4: TB/s at most at which integers of four bits are, which no unit multiplies: each is unpacked first.
        kv_bandwidth: share at which the KV cache is read.
        compute: share of dense FLOP/s in large products of bf16.
        compute_fp8, compute_fp4: share in those of eight and of four bits.
        expert_width: of an expert that reaches half of that share: small products leave units idle.
        link: share of link speed.
        host_us: scheduler and sampler, every iteration.
        layer_us: launches and gaps of one layer, every iteration.
        expert_us: of one layer with experts more, for each that a token passes through: sorting tokens by expert, and back.
        expert_us_fp4: the same where a GPU's units for four bits multiply: their kernels do more at once.
        eager_us: of one layer more, in iterations that prefill.
        imbalance: of the GPU whose experts are asked for most, next to the mean; where ranks share out experts.
        exchange_us: one all-reduce over NVLink between two GPUs; twice that between four, three times between eight.
        sequence_us: scheduler, sampler and detokenizer, every decoding sequence.
        first_token_ms: API server, tokenizer and the way between processes, once per request.
        sharpness: how far the longer of streaming and multiplying hides the other; see `curve.py`.
    """

    bandwidth: float = 0.886
    bandwidth_fp8: float = 0.645
    bandwidth_fp4: float = 0.811
    unpacked_int4: float = 2.9  # of 72 points of vLLM, on H200 and B200 alike
    kv_bandwidth: float = 0.95
    compute: float = 0.465
    compute_fp8: float = 0.488
    compute_fp4: float = 0.678
    expert_width: float = 6950.0
    link: float = 0.60
    host_us: float = 833.0
    layer_us: float = 13.9
    expert_us: float = 5.15
    expert_us_fp4: float = 4.0
    eager_us: float = 25.8
    imbalance: float = 1.0  # of vLLM's 49 points with ranks: 7.4 % off, with 1.2 11.8 % (bench/points.py)
    exchange_us: float = 7.44
    sequence_us: float = 15.1
    first_token_ms: float = 25.2
    sharpness: float = 4.78

    def streaming(self, weights: Precision, gpu: Gpu) -> float:
        """TB/s at which such weights are streamed."""
        known = {"bf16": self.bandwidth, "fp8": self.bandwidth_fp8}
        found = gpu.bandwidth * known.get(weights, self.bandwidth_fp4)
        return min(found, self.unpacked_int4) if weights == "int4" else found

    def sorting_us(self, weights: Precision, gpu: Gpu) -> float:
        """Microseconds of one layer with experts more, for each that a token passes through."""
        return self.expert_us_fp4 if gpu.peak(weights) > gpu.peak("fp8") else self.expert_us

    def multiplying(self, weights: Precision, gpu: Gpu) -> float:
        """FLOP/s reached with such weights; those that a GPU has no units for are multiplied as bf16."""
        peak = gpu.peak(weights)
        narrow = peak > gpu.peak("bf16")
        return peak * (self.compute if not narrow else self.compute_fp8 if weights == "fp8" else self.compute_fp4)


@dataclass(frozen=True, slots=True)
class Parallelism:
    """Over how many GPUs an instance is spread, and how.

    Args:
        tp: GPUs of a rank, over which its weights are split.
        dp: ranks; each has all weights but those of routed experts, which all ranks share out.
        ep: groups of GPUs that hold different experts; 1 with dp > 1 is the same as all GPUs, as far as this model goes.
    """

    tp: int = 1
    dp: int = 1
    ep: int = 1

    @property
    def gpus(self) -> int:
        """GPUs of an instance."""
        return self.tp * self.dp

    def __str__(self) -> str:
        """As names of profiles end: `tp8`, `tp1dp8ep8`."""
        more = (f"{name}{count}" for name, count in (("dp", self.dp), ("ep", self.ep)) if count > 1)
        return f"tp{self.tp}{''.join(more)}"


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """The engine's own settings, as a profile holds them; vLLM's of 2025 where no engine is named (`engines.py` knows others).

    Args:
        max_sequences, max_batched_tokens, chunked, mixed, evicts, prefix_caching, graph_sequences: settings of those names.
        engine: whose they are, with its version.
    """

    max_sequences: int = 256
    max_batched_tokens: int = 8192
    chunked: bool = True
    mixed: bool | None = None
    evicts: bool = True
    prefix_caching: bool = False
    graph_sequences: int | None = None
    engine: str = "vllm"


FITTED: Final = Efficiency()
DEFAULTS: Final = BatchLimits()


def roofline(
    shape: ModelShape,
    gpu: Gpu,
    ways: Parallelism,
    *,
    name: str = "",
    limits: BatchLimits = DEFAULTS,
    efficiency: Efficiency = FITTED,
) -> ProfileSettings:
    """The profile of an instance that nobody has measured.

    Args:
        shape: of the model.
        gpu: its rates.
        ways: how it is spread over its GPUs.
        name: of the GPU type, as scenarios name it.
        limits: of the engine, for each rank.
        efficiency: what it reaches of peak rates.

    Raises:
        Infeasible: heads or experts do not divide, or weights leave no room for a KV cache; shows the arithmetic.
    """
    sequences, tp = _sequences(shape, gpu, ways, limits.max_sequences), ways.tp
    kv_tokens = capacity(shape, gpu, ways, sequences)
    flops = gpu.peak("bf16") * efficiency.compute
    own, shared = curve(shape, gpu, ways, efficiency).times(), _shared(shape, gpu, ways, efficiency)
    settings: dict[str, object] = {
        "gpu": name,
        "tp": tp,
        "dp": ways.dp,
        "ep": ways.ep,
        "lockstep": None if shared is None else True,
        "gpus": ways.gpus,
        "iteration_ms": knots(own if shared is None else own + shared),
        "shared_ms": None if shared is None else knots(shared),
        "eager_ms": _digits(shape.layers * efficiency.eager_us / 1e3),
        "decode_us_per_sequence": _digits(
            efficiency.sequence_us + 2e6 * shape.output / tp / flops + _state_us(shape, gpu, tp, efficiency)
        ),
        "kv_ns_per_token": _digits(_kv_us(shape, gpu, tp, efficiency) * 1e3),
        "attention_ns_per_token2": _digits(1e9 * shape.attention_flops / tp / flops),
        "first_token_ms": efficiency.first_token_ms,
        "kv_tokens": kv_tokens,
        "max_sequences": sequences,
        "max_batched_tokens": limits.max_batched_tokens,
        "chunked": limits.chunked,
        "mixed": limits.mixed,
        "evicts": limits.evicts,
        "graph_sequences": limits.graph_sequences,
        "prefix_caching": limits.prefix_caching,
        "engine": limits.engine,
        "weights": Parsed(ways.dp * shape.weight_bytes - (ways.dp - 1) * round(shape.routed_bytes)),
        "kv_per_token": Parsed(shape.kv_bytes_on(tp) * tp),
        "source": _source(limits),
        "fitted": _range(shape),
        "error": str(band_of(shape, gpu, limits.engine)),
    }
    return ProfileSettings.model_validate(settings)


def curve(shape: ModelShape, gpu: Gpu, ways: Parallelism, efficiency: Efficiency = FITTED) -> IterationCurve:
    """How long an iteration takes by its tokens; with ranks that share out experts, without these."""
    tp, alone = ways.tp, ways.dp == 1 or shape.experts is None
    always = shape.always / efficiency.multiplying(shape.always_weights, gpu)
    layers = (shape.always_bytes - shape.output_bytes) / efficiency.streaming(shape.always_weights, gpu)
    experts, routed = _experts(shape, gpu, 1, efficiency) if alone else (np.zeros(len(GRID)), 0.0)
    launches = shape.layers * efficiency.layer_us + shape.expert_passes * efficiency.sorting_us(shape.weights, gpu)
    return IterationCurve(
        fixed=efficiency.host_us + launches + _latency_us(shape, gpu, tp, efficiency),
        each=_exchange_us(shape, gpu, tp, efficiency),
        streamed=(layers + shape.output_bytes / efficiency.streaming("bf16", gpu) + experts) / tp / 1e6,
        multiplied=2e6 * (always + routed) / tp,
        sharpness=efficiency.sharpness,
    )


def _experts(shape: ModelShape, gpu: Gpu, dp: int, efficiency: Efficiency) -> tuple[Floats, float]:
    """Bytes of routed experts that dp x GRID tokens read, over the TB/s reached; seconds of FLOP/s a token."""
    routed = shape.routed * shape.routed_share / efficiency.multiplying(shape.weights, gpu)
    if shape.experts is not None:
        routed *= 1.0 + efficiency.expert_width / shape.experts.intermediate
    touched = np.array([shape.touched(tokens * dp) for tokens in GRID])
    return shape.routed_bytes * touched / efficiency.streaming(shape.weights, gpu), routed


def _shared(shape: ModelShape, gpu: Gpu, ways: Parallelism, efficiency: Efficiency) -> Floats | None:
    """float64[GRID]: microseconds of experts that ranks share out, by the mean tokens of a rank; None: they share nothing."""
    if ways.dp == 1 or shape.experts is None:
        return None
    groups = ways.ep if ways.ep > 1 else ways.gpus
    layers = shape.layers - shape.experts.dense_layers
    copies = min(shape.experts.active, groups) * (1 - 1 / groups)
    sent = copies * shape.hidden * 2 / ways.tp / (gpu.link_speed * 1e3 * efficiency.link)
    experts, routed = _experts(shape, gpu, ways.dp, efficiency)
    return IterationCurve(
        fixed=2 * layers * efficiency.exchange_us * _LATENCY[gpu.link],  # everyone to everyone at once: one step, not log2
        each=2 * layers * sent * efficiency.imbalance,
        streamed=experts * efficiency.imbalance / ways.gpus / 1e6,
        multiplied=2e6 * routed * ways.dp * efficiency.imbalance / ways.gpus,
        sharpness=efficiency.sharpness,
    ).times()


def _check(shape: ModelShape, ways: Parallelism) -> None:
    """Raise Infeasible for what cannot be split so."""
    if shape.heads % ways.tp:
        raise Infeasible(f"{shape.heads} attention heads cannot be split over {ways.tp} GPUs", hint=_tps_hint(shape))
    if ways.ep > 1 and shape.experts is None:
        raise Infeasible("a dense model has no experts to spread", hint="leave ep out")
    if ways.gpus % ways.ep:
        raise Infeasible(f"{ways.gpus} GPUs cannot be {ways.ep} groups of experts", hint="ep must divide tp x dp")


def capacity(shape: ModelShape, gpu: Gpu, ways: Parallelism, sequences: int = 0) -> int:
    """Tokens of KV cache a rank holds, whole blocks, beside the states of so many sequences.

    Raises:
        Infeasible: heads or experts do not divide, or the weights leave no room.
    """
    tp, per_token = ways.tp, shape.kv_bytes_on(ways.tp) * ways.tp
    each, weights, room = _room(shape, gpu, ways)
    tokens = int((room - sequences * shape.state_bytes) // per_token) // BLOCK * BLOCK
    if tokens < KV_LEAST:
        text = (
            f"{tp} GPUs x ({show_size(gpu.memory)} x {USABLE:g} - {show_size(ACTIVATIONS)} for activations) = {_gib(tp * each)},"
            f" less {_gib(weights)} of weights, is room for {max(0, tokens)} KV tokens of {per_token} B; {KV_LEAST} are the least"
        )
        raise Infeasible(text, hint="take more GPUs, larger ones, or a checkpoint of lower precision")
    return tokens


def _room(shape: ModelShape, gpu: Gpu, ways: Parallelism) -> tuple[float, int, float]:
    """Bytes of a GPU that may be used, of a rank's weights, and what these leave to the rank."""
    _check(shape, ways)
    weights = shape.weight_bytes - round(shape.routed_bytes * (1 - 1 / ways.dp))
    each = gpu.memory * USABLE - ACTIVATIONS
    return each, weights, ways.tp * each - weights


def _sequences(shape: ModelShape, gpu: Gpu, ways: Parallelism, most: int) -> int:
    """Sequences a rank runs at once: of those with states, as many as half of what weights leave has room for."""
    if not shape.state_bytes:
        return most
    return max(1, min(most, int(_room(shape, gpu, ways)[2] / 2 // shape.state_bytes)))


def scaled(profile: ProfileSettings, time: float, point: str) -> ProfileSettings:
    """A profile whose iterations take `time` times as long, so that it meets one measured point.

    The first token's overhead is the host's: it does not scale.

    Args:
        profile: to correct.
        time: measured over predicted time, > 0; find it with the simulator in the loop, because queueing is not linear.
        point: what was measured, for the profile's source.
    """
    fields = ("eager_ms", "decode_us_per_sequence", "kv_ns_per_token", "attention_ns_per_token2")
    times: dict[str, object] = {field: _digits(float(getattr(profile, field)) * time) for field in fields}
    for field in ("iteration_ms", "shared_ms"):
        knots = getattr(profile, field)
        times[field] = knots and tuple((tokens, float(f"{ms * time:.5g}")) for tokens, ms in knots)
    source = f"{profile.source}; times {time:.3f} to meet {point}"
    return profile.model_copy(update={**times, "source": source, "error": SCALED_ERROR})


SCALED_ERROR: Final = (
    "±8 % E2E at another load (six H100 runs, each judged after the other run of its model: mean 3.2 %, worst 7.2 %)"
)


# ---------------------------------------------------------------------------------------------------- terms


def _kv_us(shape: ModelShape, gpu: Gpu, tp: int, efficiency: Efficiency) -> float:
    """Reading one token of KV cache; of a latent vector, its arithmetic with all heads may take longer."""
    read = shape.kv_bytes_on(tp) / (gpu.bandwidth * 1e6 * efficiency.kv_bandwidth)
    if shape.latent is None:
        return read
    flops = 2.0 * shape.layers * shape.heads / tp * (2 * shape.latent.kv + shape.latent.rope)
    return max(read, 1e6 * flops / (gpu.peak("bf16") * efficiency.compute))


def _state_us(shape: ModelShape, gpu: Gpu, tp: int, efficiency: Efficiency) -> float:
    """Reading and writing the state of one sequence."""
    return 2 * shape.state_bytes / tp / (gpu.bandwidth * 1e6 * efficiency.kv_bandwidth)


def _latency_us(shape: ModelShape, gpu: Gpu, tp: int, efficiency: Efficiency) -> float:
    """Two all-reduces a layer."""
    return 2 * shape.layers * efficiency.exchange_us * log2(tp) * _LATENCY[gpu.link]


def _exchange_us(shape: ModelShape, gpu: Gpu, tp: int, efficiency: Efficiency) -> float:
    """Bytes of one token through the links: 2 (tp - 1) / tp of them, as in a ring."""
    return 2 * (tp - 1) / tp * shape.exchanged_bytes / (gpu.link_speed * 1e3 * efficiency.link)


def _digits(value: float) -> float:
    return float(f"{value:.4g}")


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"


def _tps_hint(shape: ModelShape) -> str:
    return "tensor parallelism may be " + ", ".join(str(tp) for tp in TENSOR_PARALLEL if shape.heads % tp == 0)


def _source(limits: BatchLimits) -> str:
    text = "roofline: the model's config, the GPU's data sheet, efficiencies fitted to measured runs of vLLM"
    return text if limits.engine == DEFAULTS.engine else f"{text}; limits and scheduling usual for {limits.engine}"


def _range(shape: ModelShape) -> str:
    text = "derived; an iteration's time is the arithmetic of its tokens"
    if shape.recurrent:
        text += f"; {shape.recurrent.layers} of {shape.layers} layers keep a state per sequence, beside the KV cache"
    if shape.sliding:
        text += "; layers with a window counted at 4,096 tokens of context"
    return text
