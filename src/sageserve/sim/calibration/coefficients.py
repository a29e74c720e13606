"""The numbers a fit looks for, between a vector and a profile.

Read next: `logs.py` and `counters.py`, which fill the vector, `core/perf.py` for the formula.
"""

from typing import Final

import numpy as np

from sageserve.base.config import ProfileSettings
from sageserve.base.records import Floats
from sageserve.data.measured.runs import MeasuredRun
from sageserve.data.measured.validation import Coefficients

NAMES: Final = (
    "base_ms",
    "prefill_us_per_token",
    "decode_us_per_sequence",
    "kv_ns_per_token",
    "attention_ns_per_token2",
    "first_token_ms",
)
LEAST: Final = np.array([1e-2, 1e-2, 1e-2, 1e-3, 1e-4, 1e-2])
"""Where logarithms of coefficients end: nothing an engine does is faster."""


def blank(run: MeasuredRun, kv_tokens: int) -> ProfileSettings:
    """A profile with a run's limits and no times yet."""
    return ProfileSettings(
        gpu=run.gpu.lower() or "unknown",
        tp=run.tp,
        gpus=run.tp,
        base_ms=0.0,
        prefill_us_per_token=0.0,
        decode_us_per_sequence=0.0,
        kv_ns_per_token=0.0,
        attention_ns_per_token2=0.0,
        kv_tokens=kv_tokens,
        max_sequences=run.limits.max_sequences,
        max_batched_tokens=max(run.limits.max_batched_tokens, run.limits.max_sequences + 1),
        chunked=run.limits.chunked,
        prefix_caching=run.limits.prefix_caching,
        source="",
    )


def with_values(profile: ProfileSettings, values: Floats) -> ProfileSettings:
    """The profile with these coefficients, float64[6] in the order of NAMES, and no floor: the base holds it."""
    numbers = {name: float(f"{value:.6g}") for name, value in zip(NAMES, values, strict=True)}
    return profile.model_copy(update={**numbers, "prefill_floor_ms": 0.0})


def values_of(profile: ProfileSettings) -> Floats:
    """float64[6]: the coefficients of a profile in the order of NAMES."""
    return np.array([float(getattr(profile, name)) for name in NAMES])


def coefficients_of(profile: ProfileSettings) -> Coefficients:
    """The coefficients and the KV capacity of a profile."""
    return Coefficients(**{name: float(getattr(profile, name)) for name in NAMES}, kv_tokens=profile.kv_tokens)
