"""The engine model: tokens to time by a profile, five coefficients per (model, GPU type, tensor parallelism, engine version).

One iteration that prefills pieces of p tokens after x tokens of the same prompt, and decodes n sequences with K KV tokens, takes
    base + prefill*sum(p) + decode*n + kv*K + attention*sum(p*(x + p/2))
and, without decoding sequences, at least `floor`. The same model serves the simulator, routing, planning and the emulated
engine. Knows no fleet and no clock. Read next: docs/reference/kernel.md for how iterations are composed.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sageserve.base.config import ProfileSettings
from sageserve.base.kernel import Rec, kernel
from sageserve.base.records import Floats, Ints

PROFILE = np.dtype(
    [
        ("base", "f8"),  # us per iteration
        ("prefill", "f8"),  # us per prompt token
        ("decode", "f8"),  # us per decoding sequence
        ("kv", "f8"),  # us per KV token read by decoding
        ("attention", "f8"),  # us per prompt token and token of context before it
        ("floor", "f8"),  # us, least time of an iteration that only prefills
        ("entry", "i8"),  # us once per request, around its first token
        ("kv_tokens", "i8"),
        ("weight", "i8"),  # relative cost of a token when instances of several profiles share an endpoint
        ("max_sequences", "i4"),
        ("max_batched", "i4"),
        ("chunked", "i4"),
        ("caching", "i4"),  # what a preempted request computed is found again until others need the memory
        ("gpus", "i4"),
    ],
    align=True,
)

WEIGHT_ONE = 1000
"""Weight of the fastest profile of a model; a profile that is 1.5 times slower weighs 1500."""


def profile_rows(profiles: list[ProfileSettings]) -> NDArray[Any]:
    """PROFILE rows, one per profile, in microseconds; weights are all WEIGHT_ONE."""
    rows = np.zeros(len(profiles), PROFILE)
    for row, one in zip(rows, profiles, strict=True):
        row["base"] = one.base_ms * 1e3
        row["prefill"] = one.prefill_us_per_token
        row["decode"] = one.decode_us_per_sequence
        row["kv"] = one.kv_ns_per_token * 1e-3
        row["attention"] = one.attention_ns_per_token2 * 1e-3
        row["floor"] = one.prefill_floor_ms * 1e3
        row["kv_tokens"] = one.kv_tokens
        row["weight"] = WEIGHT_ONE
        row["max_sequences"] = one.max_sequences
        row["max_batched"] = one.max_batched_tokens
        row["chunked"] = one.chunked
        row["caching"] = one.prefix_caching
        row["entry"] = round(one.first_token_ms * 1e3)
        row["gpus"] = one.gpus
    return rows


@kernel
def prefill_work(profile: Rec, context: int, cached: int = 0) -> float:
    """Microseconds of engine time for prefilling `context` tokens, of which the first `cached` are there, in full batches."""
    x = float(context - cached)
    attention = 0.5 * profile["attention"] * x * (context + cached)
    return x * (profile["prefill"] + profile["base"] / profile["max_batched"]) + attention


@kernel
def decode_work(profile: Rec, context: int, output: float) -> float:
    """Microseconds of engine time for `output` tokens after `context`, at the largest batch memory allows."""
    x = float(context)
    together = max(1.0, min(float(profile["max_sequences"]), profile["kv_tokens"] / (x + output)))
    per_token = profile["decode"] + profile["kv"] * (x + 0.5 * output) + profile["base"] / together
    return output * per_token


@kernel
def iteration_time(profile: Rec, prefill: float, attention: float, sequences: int, kv: int) -> float:
    """Microseconds of one iteration: `prefill` tokens with attention sum `attention`, `sequences` decoding over `kv` tokens."""
    time = (
        profile["base"]
        + profile["prefill"] * prefill
        + profile["decode"] * sequences
        + profile["kv"] * kv
        + profile["attention"] * attention
    )
    if sequences == 0 and time < profile["floor"]:
        return float(profile["floor"])
    return float(time)


@kernel
def block_time(first: float, step: float, iterations: int) -> int:
    """Whole microseconds of a block: its first iteration takes `first`, each further one `step` more than the one before."""
    total = iterations * first + 0.5 * step * iterations * (iterations - 1)
    return max(1, int(total + 0.5))


@kernel
def engine_times(profile: Rec, prompt: Ints, output: Ints, into: Floats) -> None:
    """Microseconds per request: into[0] of engine time at full batches, into[1] until an idle engine's first token.

    Args:
        profile: a PROFILE row.
        prompt: int[n], tokens.
        output: int[n], tokens.
        into: float64[2, n], filled in.
    """
    for i in range(len(prompt)):
        n = float(prompt[i])
        into[0, i] = prefill_work(profile, prompt[i]) + decode_work(profile, prompt[i], float(output[i]))
        pieces = np.ceil(n / profile["max_batched"]) if profile["chunked"] else 1.0
        alone = pieces * profile["base"] + profile["prefill"] * n + 0.5 * profile["attention"] * n * n
        into[1, i] = max(alone, profile["floor"])
