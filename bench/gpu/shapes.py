"""What is built and measured: shapes of models, and the limits of the engine around them.

Weights are drawn at random: how long a step takes depends on shapes, not on what a model knows. Read next: `model.py`.
"""

from dataclasses import dataclass
from typing import Final

PAGE: Final = 16  # tokens of a page of the KV cache, vLLM's


@dataclass(frozen=True, slots=True)
class Shape:
    """A transformer as its configuration file states it.

    Args:
        name: as the library names the model, or what it is.
        layers: of attention and feed-forward each.
        hidden: width of the residual stream.
        heads: of queries; a multiple of `kv_heads`.
        kv_heads: of keys and values.
        head: width of a head, a power of two.
        inner: width of the feed-forward layer, or of one expert.
        vocabulary: rows of the embedding and of the output layer.
        experts: in each layer; 0: a dense model.
        chosen: experts that a token goes to.
        dtype: of weights and cache, by torch's name.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head: int
    inner: int
    vocabulary: int
    experts: int = 0
    chosen: int = 0
    dtype: str = "bfloat16"


@dataclass(frozen=True, slots=True)
class Limits:
    """Of the engine: sequences at once, tokens per iteration, longest context, and KV tokens (0: what memory is left)."""

    sequences: int
    batched: int
    context: int
    kv_tokens: int = 0


SHAPES: Final = {
    "dense": Shape("llama3.1-8b", 32, 4096, 32, 8, 128, 14336, 128256),
    "moe": Shape("qwen3-30b-a3b", 48, 2048, 32, 4, 128, 768, 151936, experts=128, chosen=8),
    "tiny-dense": Shape("tiny-dense", 2, 64, 4, 2, 16, 96, 128, dtype="float32"),
    "tiny-moe": Shape("tiny-moe", 2, 64, 4, 1, 16, 32, 128, experts=4, chosen=2, dtype="float32"),
}

LIMITS: Final = {
    "dense": Limits(128, 2048, 5120),
    "moe": Limits(64, 2048, 5120),
    "tiny-dense": Limits(4, 64, 640, 2048),
    "tiny-moe": Limits(4, 64, 640, 2048),
}
