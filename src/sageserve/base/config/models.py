"""Settings of what is served: models, how fast an engine runs each of them, and how long loading takes.

Knows nothing of regions. Read next: `core/engine/timing.py` for the formula,
`data/builtin/profiles.yaml` for measured ones.
"""

from itertools import pairwise
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from sageserve.base.config.settings import Name, Settings
from sageserve.base.units import HOUR, MINUTE, Duration, Micros, Rate, Share, Size

KNOTS: Final = 16
"""Knots that a curve may have at most."""

PCIE: Final = 25e9
"""Bytes per second from host memory: of the 31.5 GB/s of PCIe 4.0 x16 what large copies reach."""


def _rising(curve: tuple[tuple[int, float], ...]) -> tuple[tuple[int, float], ...]:
    tokens, times = [knot[0] for knot in curve], [knot[1] for knot in curve]
    if tokens[0] != 1:
        raise ValueError(f"the first knot is at {tokens[0]} tokens; it must be at 1")
    if any(later <= one for one, later in pairwise(tokens)):
        raise ValueError("tokens must rise from knot to knot")
    if any(later < one for one, later in pairwise(times)):
        raise ValueError("more tokens cannot take less time: milliseconds must not fall from knot to knot")
    return curve


_MOST: Final = 10_000_000.0  # of a coefficient, in its unit: far beyond any engine, and no sum of them overflows a clock
Curve = Annotated[
    tuple[tuple[Annotated[int, Field(ge=1)], Annotated[float, Field(ge=0, le=_MOST)]], ...],
    Field(min_length=2, max_length=KNOTS),
    AfterValidator(_rising),
]


class SpeculativeSettings(Settings):
    """Speculative decoding: tokens that a drafter proposes and the model verifies in one iteration."""

    tokens: int = Field(ge=1, le=32, description="proposed beyond the next one: vLLM's num_speculative_tokens")
    acceptance: float = Field(
        ge=0,
        le=1,
        description="probability that a proposed token is accepted if those before it were. It depends on model and traffic: "
        "measure it (vLLM: vllm:spec_decode_num_accepted_tokens by position), nothing stands in for it",
    )
    draft: float = Field(
        ge=0,
        le=1,
        description="time of one pass of the drafter, as a share of the model's: 0 for n-grams, about one over the layers for "
        "MTP and EAGLE heads, the ratio of the two for a smaller model",
    )

    @property
    def gain(self) -> float:
        """Tokens that a sequence makes in an iteration, on average (Leviathan et al. 2023, arXiv 2211.17192)."""
        return sum(self.acceptance**number for number in range(self.tokens + 1))


class AdapterSettings(Settings):
    """LoRA adapters that an engine serves beside its model: slots in GPU memory, and what loading and computing take."""

    slots: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="adapters in GPU memory, and in one batch: vLLM's --max-loras, SGLang's --max-loras-per-batch; none: the "
        "engine's default, 1 and 8",
    )
    rank: int = Field(default=16, ge=1, le=512, description="that slots are made for: vLLM's --max-lora-rank, its default")
    size: Size | None = Field(
        default=None,
        description="of a slot on each GPU; none: A and B of all attention and MLP layers by the rank, where the model is known",
    )
    load: Duration | None = Field(
        default=None,
        description="from host memory into a slot, which the iteration waits for; none: size at 25GB/s, what PCIe 4.0 x16 brings",
    )
    adapter_us: float | None = Field(
        default=None,
        ge=0,
        le=_MOST,
        description="u: more for each adapter that computes in an iteration; none: size at 60 % of the GPU's bandwidth, as "
        "was measured on an H200",
    )
    any_us: float | None = Field(
        default=None,
        ge=0,
        le=_MOST,
        description="more, if any adapter computes: kernels beside every matrix; none: 35 us a layer, as was measured "
        "with simple kernels on an H200, where the model is known",
    )
    counted: bool = Field(
        default=False,
        description="kv_tokens is what the engine had beside its slots; false: slots are taken off it, by kv_per_token",
    )

    def check(self) -> None:
        """Raise ValueError where something is open that nothing tells."""
        open_ones = [name for name in ("slots", "size", "adapter_us", "any_us") if getattr(self, name) is None]
        if open_ones:
            raise ValueError(f"adapters: nothing known tells {' and '.join(open_ones)} of this engine, model and GPU: say it")

    def agree(self, model: "AdapterSettings | None") -> None:
        """Raise ValueError where slots whose memory is taken already, as in the scenario of a run, are not those of the model."""
        names = () if model is None or not self.counted else ("slots", "rank", "size", "load", "adapter_us", "any_us")
        for name in names:
            value = getattr(model, name)
            if value is not None and value != getattr(self, name):
                wanted, own = (one.model_dump(mode="json")[name] for one in (model, self) if one is not None)
                raise ValueError(
                    f"adapters: {name} of the model is {wanted}, and of this engine, whose slots' memory is taken already, "
                    f"{own}: change it in the scenario that the run was made of"
                )

    @property
    def loading(self) -> Micros:
        """Microseconds to bring an adapter into a slot."""
        return self.load if self.load is not None else round((self.size or 0) * 1e6 / PCIE)


class ProfileSettings(Settings):
    """The engine model's curve and coefficients, and the engine's limits; `core/engine/timing.py` has the formula."""

    gpu: Name = Field(description="GPU type it was measured on or derived for")
    tp: int = Field(ge=1, description="tensor parallelism of each rank")
    dp: int = Field(
        default=1,
        ge=1,
        le=64,
        description="data parallelism: ranks of an instance, each with a batch and a KV cache of its own; limits are of one",
    )
    ep: int = Field(
        default=1, ge=1, description="expert parallelism: GPUs that share out the experts; 1: experts are split as tp is"
    )
    lockstep: bool | None = Field(
        default=None,
        description="ranks wait for the slowest of them in every iteration, as those of a mixture of experts do; none: if ep > 1",
    )
    gpus: int = Field(ge=1, description="GPUs one instance holds, of all its ranks")
    iteration_ms: Curve = Field(
        description="F: an iteration by the tokens it computes, one per decoding sequence and those of prompts: "
        "[[1, 8.1], [256, 10.4], [8192, 240]] with straight lines between and beyond; 2 to 16 knots, the first at 1 token"
    )
    shared_ms: Curve | None = Field(
        default=None,
        description="with lockstep, the part of iteration_ms that goes by the mean tokens of all ranks, not the rank's own: "
        "experts; none: nothing of it",
    )
    eager_ms: float = Field(
        default=0.0,
        ge=0,
        le=_MOST,
        description="more, if the iteration prefills: it runs without CUDA graphs; 0: the curve holds it",
    )
    decode_us_per_sequence: float = Field(ge=0, le=_MOST, description="s: per decoding sequence, beside its token")
    kv_ns_per_token: float = Field(ge=0, le=_MOST, description="kv: per KV token read by decoding sequences")
    attention_ns_per_token2: float = Field(ge=0, le=_MOST, description="att: per prompt token and token of context before it")
    first_token_ms: float = Field(
        default=0.0,
        ge=0,
        le=_MOST,
        description="once per request, around its first token: API server, tokenizer; 0: not measured",
    )
    kv_tokens: int = Field(ge=1, description="KV capacity of a rank: num_gpu_blocks x block_size of the engine")
    max_sequences: int = Field(default=256, ge=1, le=4096, description="of a rank: vLLM's max_num_seqs, its server default")
    max_batched_tokens: int = Field(
        default=8192,
        ge=16,
        description="of a rank: vLLM's max_num_batched_tokens, its server default on GPUs of 70 GiB and more",
    )
    chunked: bool = Field(default=True, description="prompts are prefilled in pieces, vLLM's default since 0.8; false: whole")
    mixed: bool | None = Field(
        default=None,
        description="prompts are prefilled beside sequences that decode, which pause otherwise (prefill first, as SGLang does); "
        "none: if chunked. TensorRT-LLM mixes whole prompts",
    )
    evicts: bool = Field(
        default=True,
        description="memory is given as answers grow, and who came last loses it when it is short; false: a prompt waits until "
        "its whole answer has room (TensorRT-LLM's GUARANTEED_NO_EVICT)",
    )
    graph_sequences: int | None = Field(
        default=None,
        ge=1,
        description="sequences up to which decoding runs in CUDA graphs; more take `eager_ms` longer; none: any number",
    )
    prefix_caching: bool = Field(
        default=False,
        description="what a preempted request has computed is found again, as far as nobody needed the memory; vLLM does, "
        "engines that do not lose a little more",
    )
    speculative: SpeculativeSettings | None = Field(
        default=None, description="tokens that are drafted and verified; the coefficients are those without it; none: it is off"
    )
    adapters: AdapterSettings | None = Field(
        default=None, description="LoRA adapters; none: it has no slots, and who asks for an adapter is served as anybody"
    )
    weights: Size | None = Field(default=None, description="on all GPUs together; when given, memory is checked")
    kv_per_token: Size | None = Field(
        default=None, description="2 x layers x KV heads x head size x bytes; when given, memory is checked"
    )
    engine: str = Field(
        default="",
        max_length=80,
        description="engine and version they are of: `vllm 0.19`; empty: not said, and nothing is checked",
    )
    source: str = Field(description="where the coefficients come from")
    fitted: str = Field(default="", description="the range they were fitted on; empty: not stated")
    error: str = Field(default="", description="how wrong they are, and measured how; empty: not stated")

    @model_validator(mode="after")
    def _drafts_fit(self) -> Self:
        if text := self.crowded:
            raise ValueError(text)
        return self

    @property
    def crowded(self) -> str:
        """Why drafts leave no room for prompts in an iteration; empty if they do."""
        if self.speculative is None or not self.is_mixed:
            return ""
        tokens, most = 1 + self.speculative.tokens, self.max_sequences * (1 + self.speculative.tokens)
        if self.max_batched_tokens > most:
            return ""
        return (
            f"{self.max_sequences} sequences (max_sequences) of {tokens} tokens each, drafts included, are {most:,}; "
            f"max_batched_tokens is {self.max_batched_tokens:,} and leaves no room for prompts: raise it, or have fewer"
        )

    @model_validator(mode="after")
    def _adapters_are_known(self) -> Self:
        if self.adapters is not None:
            self.adapters.check()
        return self

    def with_adapters(self, told: AdapterSettings) -> Self:
        """The same engine with such slots, which take their memory from the KV cache unless they had it.

        Raises:
            ValueError: there is not so much, or nobody says how much a token takes.
        """
        told.check()
        tokens = self.kv_tokens
        if not told.counted:
            if self.kv_per_token is None:
                raise ValueError(
                    "adapters: slots take memory of the KV cache, and kv_per_token is not said; or say `counted: true`"
                )
            tokens -= -(-(told.slots or 0) * (told.size or 0) * self.tp // self.kv_per_token)
            if tokens < 1:
                raise ValueError(
                    f"adapters: {told.slots} slots of {told.size} bytes a GPU leave nothing of {self.kv_tokens} KV tokens"
                )
        return self.model_copy(update={"kv_tokens": tokens, "adapters": told.model_copy(update={"counted": True})})

    @property
    def is_mixed(self) -> bool:
        """Whether prompts are prefilled beside sequences that decode."""
        return self.chunked if self.mixed is None else self.mixed

    @property
    def in_step(self) -> bool:
        """Whether its ranks wait for each other."""
        return self.dp > 1 and (self.ep > 1 if self.lockstep is None else self.lockstep)


class LoadSettings(Settings):
    """How long it takes until an instance serves, by where it comes from."""

    reclaim: Duration = Field(default=MINUTE, description="own model, still loaded on a spot instance: 1 min (paper)")
    local: Duration = Field(default=10 * MINUTE, description="another model from local disk, GPUs already held: 10 min (paper)")
    remote: Duration = Field(default=2 * HOUR, description="weights from remote storage: 2 h (paper)")
    source: Literal["local", "remote"] = Field(
        default="local", description="where a fresh VM finds the weights; local: images carry them (paper)"
    )

    @property
    def fresh(self) -> Micros:
        """Microseconds that a fresh VM loads for, once it has started."""
        return self.local if self.source == "local" else self.remote


class DisaggregatedSettings(Settings):
    """Prefill and decode on instances of their own, in two pools: the KV cache of a prompt goes from one to the other."""

    link: Rate = Field(
        description="what a prefill instance sends per second, one KV cache after the other: 400 Gbit/s are 50GB/s"
    )
    latency: Duration = Field(
        default=0, description="more, from the last byte sent until the other side has it: handshakes; 0: not measured"
    )
    kv_per_token: Size | None = Field(
        default=None,
        description="of the KV cache, as it is sent; none: kv_per_token of the engines, which counts a latent cache (MLA) for "
        "every GPU of a rank",
    )
    decode: dict[Name, ProfileSettings] = Field(
        default={},
        description="engines of the instances that decode, by GPU type; a scenario file may name a profile of the library "
        "instead; none: as `engines`",
    )


class ModelSettings(Settings):
    """An LLM served under one name."""

    context: int = Field(ge=2, description="tokens: prompts must be shorter, prompt + output never exceeds it")
    engines: dict[Name, ProfileSettings] = Field(
        min_length=1, description="by GPU type; a scenario file may name a profile of the library instead"
    )
    engine: str = Field(
        default="",
        max_length=80,
        description="engine and version that serves it: `sglang 0.5.9`; profiles of another are pointed out; empty: not said",
    )
    speculative: SpeculativeSettings | None = Field(
        default=None, description="how all of its engines decode that do not say otherwise; none: one token an iteration"
    )
    adapters: AdapterSettings | None = Field(
        default=None,
        description="LoRA adapters of this model, for all of its engines that do not say otherwise; none: adapters that a trace "
        "names are ignored",
    )
    disaggregated: DisaggregatedSettings | None = Field(
        default=None, description="prefill and decode on instances of their own; none: every instance does both"
    )
    prefix_cache: bool = Field(
        default=True,
        description="an instance finds in its prefix cache what it served of a conversation, or of prompts whose blocks are "
        "hashed, until it closes or needs the memory; false: it has none",
    )
    prefix_hits: Share = Field(
        default=0.0,
        description="of a prompt's tokens found in the prefix cache, where a trace does not say; 0: it depends on the traffic, "
        "and a guess would make fleets too small",
    )
    load: LoadSettings = Field(default=LoadSettings(), description="how long it takes until an instance serves")

    @model_validator(mode="after")
    def _engines_speculate(self) -> Self:
        """Give the engines what is said of the model."""
        for name, engines in self._named_engines():
            for gpu, engine in engines.items():
                if self.speculative is not None and engine.speculative is None:
                    engines[gpu] = engine.model_copy(update={"speculative": self.speculative})
                    if text := engines[gpu].crowded:
                        raise ValueError(f"{name}.{gpu}: {text}")
        return self

    @model_validator(mode="after")
    def _engines_have_slots(self) -> Self:
        """Give the engines the adapters of the model, and take the memory of their slots."""
        for name, engines in self._named_engines():
            for gpu, engine in engines.items():
                if (told := engine.adapters or self.adapters) is None:
                    continue
                try:
                    told.agree(self.adapters)
                    engines[gpu] = engine.with_adapters(told)
                except ValueError as error:
                    raise ValueError(f"{name}.{gpu}: {error}") from None
        return self

    def _named_engines(self) -> tuple[tuple[str, dict[Name, ProfileSettings]], ...]:
        apart = () if self.disaggregated is None else (("disaggregated.decode", self.disaggregated.decode),)
        return (("engines", self.engines), *apart)

    @property
    def has_adapters(self) -> bool:
        """Whether its engines have slots for adapters."""
        return any(engine.adapters is not None for _, engines in self._named_engines() for engine in engines.values())

    @property
    def decode_engines(self) -> dict[Name, ProfileSettings]:
        """Engines of instances that only decode: none where all do both."""
        return {} if self.disaggregated is None else self.disaggregated.decode or self.engines

    @property
    def kv_sent(self) -> int | None:
        """Bytes of a token's KV cache as they are sent to where it is decoded; None where they are not known, or not the same."""
        if self.disaggregated is not None and self.disaggregated.kv_per_token is not None:
            return self.disaggregated.kv_per_token
        known = {engine.kv_per_token for engine in self.engines.values()}
        return known.pop() if len(known) == 1 else None
