"""Shapes of models and peak rates of GPUs: what is published, and the counts that follow from it.

    shape("llama-2-70b").kv_bytes          # 327,680: 2 x 80 layers x 8 heads x 128 x 2 bytes
    shape("mixtral-8x7b").parameters       # 46.7e9
    shape("qwen3-32b-nvfp4").weight_bytes  # any model may be asked for in another format, by a suffix

The facts are in `facts/models.yaml` and `facts/gpus.yaml`, each with its source. Knows nothing of time: read `roofline.py`
for what an engine makes of them.
"""

from functools import cache
from pathlib import Path
from typing import Final, Literal

import msgspec
from pydantic import Field

from sageserve.base.config.settings import Settings
from sageserve.base.errors import ConfigError
from sageserve.base.units import Size
from sageserve.data.documents import read_file, suggest
from sageserve.data.yaml_positions import Value

_FACTS: Final = Path(__file__).parent / "facts"
WINDOW_AT: Final = 4096
"""Tokens of context at which layers with a sliding window are counted: they hold at most their window of it."""

_HINT: Final = "`sageserve profile list` shows the models and GPUs that are known"

Precision = Literal["bf16", "fp8", "int4", "mxfp4", "nvfp4"]
_SCALED: Final = 4.25 / 8  # bytes: 4 bits and 8 more per 32
_BYTES: Final[dict[Precision, float]] = {"bf16": 2.0, "fp8": 1.0, "int4": 4.5 / 8, "mxfp4": _SCALED, "nvfp4": 4.5 / 8}
_FOUR_BITS: Final[tuple[Precision, ...]] = ("int4", "mxfp4", "nvfp4")  # scales: 16 bits per 32, 8 per 32, 8 per 16
FORMATS: Final[tuple[Precision, ...]] = ("fp8", "int4", "nvfp4")
"""Formats that a model's name may end in, beside the one it is published in: `llama-3.1-70b-fp8`."""
KV_FP8: Final = "-kvfp8"
"""What a model's name ends in when its KV cache takes eight bits a number: `llama-3.1-70b-fp8-kvfp8`."""
_STATE_BYTES: Final = 4
_ACTIVATION_BYTES: Final = 2  # embeddings and what GPUs exchange: bf16


class Experts(Settings):
    """The mixture of experts that stands in place of the MLP."""

    count: int = Field(ge=2, description="routed experts of a layer")
    active: int = Field(ge=1, description="routed experts a token passes through")
    intermediate: int = Field(ge=1, description="width of one expert")
    shared: int = Field(default=0, ge=0, description="experts every token passes through; 0: none")
    dense_layers: int = Field(default=0, ge=0, description="first layers with an ordinary MLP; 0: none")


class Latent(Settings):
    """Multi-head latent attention: one compressed vector per token instead of keys and values per head."""

    query: int = Field(ge=1, description="rank queries are compressed to")
    kv: int = Field(ge=1, description="rank keys and values are compressed to; this is cached")
    rope: int = Field(ge=1, description="size of the rotary key; cached too")
    key: int = Field(ge=1, description="size of a head's key without its rotary part")
    value: int = Field(ge=1, description="size of a head's value")


class Recurrent(Settings):
    """Layers that keep a state of fixed size per sequence in place of keys and values (gated delta rule, as in Qwen3-Next)."""

    layers: int = Field(ge=1, description="of them; the others attend to the whole context")
    key_heads: int = Field(ge=1, description="heads of queries and keys")
    value_heads: int = Field(ge=1, description="heads of values; each has a state of head x head numbers")
    head: int = Field(ge=1, description="size of a head")


class ModelShape(Settings):
    """A transformer's sizes, as its config states them."""

    layers: int = Field(ge=1, description="transformer blocks")
    hidden: int = Field(ge=1, description="width of the residual stream")
    heads: int = Field(ge=1, description="query heads")
    kv_heads: int = Field(ge=1, description="key and value heads")
    head: int = Field(ge=1, description="size of a head")
    intermediate: int = Field(ge=1, description="width of the MLP")
    gated: bool = Field(default=True, description="three matrices in the MLP; most models since 2023")
    vocabulary: int = Field(ge=1, description="rows of the embedding")
    tied: bool = Field(default=False, description="the output layer is the embedding; most large models have both")
    context: int = Field(ge=1, description="longest context the config allows, tokens")
    sliding: int = Field(default=0, ge=0, description="layers that attend to a window only; 0: none")
    window: int = Field(default=0, ge=0, description="tokens of that window; 0: none")
    gate: bool = Field(default=False, description="attention's output is gated, by a matrix as large as that of queries")
    recurrent: Recurrent | None = Field(default=None, description="none: all layers attend to the context")
    experts: Experts | None = Field(default=None, description="none: a dense model")
    latent: Latent | None = Field(default=None, description="none: ordinary attention")
    weights: Precision = Field(default="bf16", description="of linear layers; bf16 is how most are published")
    cache: Literal["bf16", "fp8"] = Field(default="bf16", description="of the KV cache; mixtures in nvfp4 are served with fp8")
    published: float = Field(gt=0, description="billions of parameters, as the model card says")
    active: float | None = Field(default=None, description="billions of them a token uses; none: all")
    source: str = Field(description="where the numbers are from")

    # ---- parameters

    @property
    def _attending(self) -> int:
        """Layers that attend to the context."""
        return self.layers - (self.recurrent.layers if self.recurrent else 0)

    @property
    def attention_parameters(self) -> int:
        """Of all layers: projections of queries, keys, values and the output, and what recurrent ones have in their place."""
        return self._attending * self._attention_parameters + self._recurrent_parameters

    @property
    def _attention_parameters(self) -> int:
        """Of one layer that attends."""
        if self.latent is None:
            return self.hidden * self.head * ((3 if self.gate else 2) * self.heads + 2 * self.kv_heads)
        one = self.latent
        queries = self.hidden * one.query + one.query * self.heads * (one.key + one.rope)
        cached = self.hidden * (one.kv + one.rope) + one.kv * self.heads * (one.key + one.value)
        return queries + cached + self.heads * one.value * self.hidden

    @property
    def _recurrent_parameters(self) -> int:
        """Of all recurrent layers: queries, keys, values, their gate, the output, and two numbers a head of values."""
        if self.recurrent is None:
            return 0
        one = self.recurrent
        return one.layers * self.hidden * (one.head * (2 * one.key_heads + 3 * one.value_heads) + 2 * one.value_heads)

    @property
    def dense_layers(self) -> int:
        """Layers whose MLP every token passes through whole."""
        return self.layers if self.experts is None else self.experts.dense_layers

    @property
    def always(self) -> int:
        """Parameters of layers that every token passes through: attention, dense and shared MLPs, routers."""
        matrices = 3 if self.gated else 2
        total = self.attention_parameters + self.dense_layers * matrices * self.hidden * self.intermediate
        if self.experts is not None:
            every = matrices * self.experts.shared * self.experts.intermediate + self.experts.count
            total += (self.layers - self.dense_layers) * self.hidden * every
        return total

    @property
    def routed(self) -> int:
        """Parameters of routed experts, all layers."""
        if self.experts is None:
            return 0
        matrices = 3 if self.gated else 2
        layers = self.layers - self.experts.dense_layers
        return layers * self.experts.count * matrices * self.hidden * self.experts.intermediate

    @property
    def routed_share(self) -> float:
        """Share of the routed experts that one token passes through."""
        return self.experts.active / self.experts.count if self.experts else 0.0

    @property
    def expert_passes(self) -> int:
        """Routed experts that one token passes through, all layers together."""
        return (self.layers - self.dense_layers) * self.experts.active if self.experts else 0

    @property
    def output(self) -> int:
        """Parameters of the output layer; the embedding has as many."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """All of them; norms and biases, below 0.1 %, are left out."""
        return self.always + self.routed + self.output * (1 if self.tied else 2)

    @property
    def active_parameters(self) -> float:
        """Parameters that one token is multiplied with: layers, its experts, and the output layer."""
        return self.always + self.routed * self.routed_share + self.output

    # ---- bytes

    @property
    def always_weights(self) -> Precision:
        """Of what every token passes through: checkpoints of mixtures in four bits keep it in bf16."""
        return "bf16" if self.experts is not None and self.weights in _FOUR_BITS else self.weights

    @property
    def output_bytes(self) -> int:
        """Of the output layer, which stays in bf16."""
        return self.output * _ACTIVATION_BYTES

    @property
    def always_bytes(self) -> float:
        """Read in every iteration: layers without routed experts, and the output layer."""
        return self.always * _BYTES[self.always_weights] + self.output_bytes

    @property
    def routed_bytes(self) -> float:
        """All routed experts."""
        return self.routed * _BYTES[self.weights]

    @property
    def weight_bytes(self) -> int:
        """What the weights take in memory."""
        embedding = 0 if self.tied else self.output * _ACTIVATION_BYTES
        return round(self.always_bytes + self.routed_bytes + embedding)

    def touched(self, tokens: float) -> float:
        """Share of the routed experts that a batch of so many tokens reads, if the router spreads them evenly."""
        return 1.0 - float((1.0 - self.routed_share) ** tokens)

    @property
    def _full_layers(self) -> float:
        """Layers' worth of KV at WINDOW_AT tokens: a layer with a window counts as the part of it that is kept."""
        return self._attending - self.sliding * (1.0 - min(1.0, self.window / WINDOW_AT))

    @property
    def kv_bytes(self) -> int:
        """KV cache of one token of context, all layers, stored once: 2 x layers x KV heads x head size x bytes of a number."""
        return self.kv_bytes_on(1)

    def kv_bytes_on(self, tp: int) -> int:
        """KV cache of one token on one of `tp` GPUs; a head is never split, a latent vector is on every GPU."""
        if self.latent is not None:
            return round(self.layers * (self.latent.kv + self.latent.rope) * _BYTES[self.cache])
        heads = -(-self.kv_heads // tp)
        return round(2 * self._full_layers * heads * self.head * _BYTES[self.cache])

    @property
    def state_bytes(self) -> int:
        """What recurrent layers keep of one sequence, however long it is, in 32 bits, as engines do; 0: there are none."""
        one = self.recurrent
        return one.layers * one.value_heads * one.head**2 * _STATE_BYTES if one else 0

    def adapter_bytes_on(self, tp: int, rank: int) -> int:
        """A and B of a LoRA adapter on one of `tp` GPUs: of all attention and recurrent layers, and of MLPs that are no experts.

        Half of each pair is split over the GPUs, as vLLM does by default. The embedding and the output layer have none.
        """
        hidden, out = self.hidden, self.heads * self.head // tp
        attention = 4 * hidden + (3 if self.gate else 2) * out + 2 * -(-self.kv_heads // tp) * self.head
        if (one := self.latent) is not None:
            heads = self.heads // tp
            queries = hidden + 2 * one.query + heads * (one.key + one.rope)
            attention = queries + hidden + 2 * one.kv + one.rope + heads * (one.key + 2 * one.value) + hidden
        total = self._attending * attention
        if (state := self.recurrent) is not None:
            total += state.layers * (3 * hidden + state.head * (2 * state.key_heads + 3 * state.value_heads) // tp)
        total += self.dense_layers * (3 if self.gated else 2) * (hidden + self.intermediate // tp)
        return 2 * rank * total

    # ---- arithmetic

    @property
    def attention_flops(self) -> float:
        """Per query token and token of context before it, all layers: two for each number of key and value."""
        sizes = 2 * self.head if self.latent is None else self.latent.key + self.latent.rope + self.latent.value
        return 2.0 * self._full_layers * self.heads * sizes

    @property
    def exchanged_bytes(self) -> int:
        """What tensor parallelism adds up over GPUs per token: two sums of the residual stream a layer."""
        return 2 * self.layers * self.hidden * _ACTIVATION_BYTES


class Gpu(Settings):
    """A GPU's peak rates, as its data sheet states them."""

    name: str = Field(description="as the vendor calls it")
    memory: Size = Field(description="that the driver reports")
    bf16: float = Field(gt=0, description="TFLOP/s, dense")
    fp8: float | None = Field(default=None, description="TFLOP/s, dense; none: no fp8 units")
    fp4: float | None = Field(default=None, description="TFLOP/s, dense; none: no fp4 units")
    bandwidth: float = Field(gt=0, description="TB/s of its memory")
    link: Literal["nvlink", "xgmi", "pcie"] = Field(description="to its neighbours")
    link_speed: float = Field(gt=0, description="GB/s one way, all links together")
    source: str = Field(description="the data sheet")

    def peak(self, weights: Precision) -> float:
        """FLOP/s of matrix units for such weights: int4 is multiplied as bf16, and so are fp8 and fp4 without units for them."""
        own = {"fp8": self.fp8, "mxfp4": self.fp4, "nvfp4": self.fp4}.get(weights)
        return 1e12 * (own or self.bf16)


def facts(name: str) -> Value:
    """The entries of a file of the package's facts.

    Raises:
        ConfigError: it is damaged.
    """
    document = read_file(_FACTS / f"{name}.yaml")
    entries = document.values.get(name)
    if document.complaints or not isinstance(entries, dict | list):
        raise ConfigError(f"the facts about {name} are damaged", hint="install the package again")
    return entries


@cache
def _named(name: Literal["models", "gpus"]) -> dict[str, Value]:
    entries = facts(name)
    assert isinstance(entries, dict)
    return entries


def model_names() -> tuple[str, ...]:
    """Models whose shape is known, in the order of the file."""
    return tuple(_named("models"))


def gpu_names() -> tuple[str, ...]:
    """GPUs whose rates are known, in the order of the file."""
    return tuple(_named("gpus"))


@cache
def shape(model: str) -> ModelShape:
    """The shape of a model.

    Raises:
        ConfigError: no shape of that name is known.
    """
    entries = _named("models")
    entry = entries.get(model)
    if not isinstance(entry, dict):
        return _in_format(model)
    like = entry.get("like")
    if isinstance(like, str):
        base = entries[like]
        assert isinstance(base, dict)
        entry = {**base, **{key: value for key, value in entry.items() if key != "like"}}
    return ModelShape.model_validate_json(msgspec.json.encode(entry), strict=True)


def _in_format(model: str) -> ModelShape:
    """A model in the formats that the end of its name says."""
    if model.endswith(KV_FP8) and (plain := model.removesuffix(KV_FP8)) in _formatted() and shape(plain).cache == "bf16":
        return shape(plain).model_copy(update={"cache": "fp8"})
    plain, _, suffix = model.rpartition("-")
    weights = next((one for one in FORMATS if one == suffix), None)
    if weights is None or plain not in model_names() or plain.endswith(FORMATS) or shape(plain).weights == weights:
        raise ConfigError(f"no model shape is called {model!r}{suggest(model, list(model_names()))}", hint=_HINT)
    found = shape(plain)
    eight = weights == "nvfp4" and found.experts is not None  # of dense models bf16 meets the measured points better
    return found.model_copy(update={"weights": weights, "cache": "fp8" if eight else "bf16"})


@cache
def _formatted() -> frozenset[str]:
    """Models, each in every format of its weights."""
    return frozenset((*model_names(), *(f"{name}-{one}" for name in model_names() for one in FORMATS)))


def is_model(name: str) -> bool:
    """Whether a model's shape is known, in the format that its name says."""
    try:
        shape(name)
    except ConfigError:
        return False
    return True


@cache
def gpu_named(name: str) -> Gpu:
    """The rates of a GPU.

    Raises:
        ConfigError: no rates are known under that name.
    """
    entries = _named("gpus")
    entry = entries.get(name)
    if not isinstance(entry, dict):
        raise ConfigError(f"no GPU is called {name!r}{suggest(name, list(entries))}", hint=_HINT)
    return Gpu.model_validate_json(msgspec.json.encode(entry), strict=True)
