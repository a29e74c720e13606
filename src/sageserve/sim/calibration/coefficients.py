"""The numbers a fit looks for, between a vector and a profile.

The curve of a profile is fitted by its terms (`data/profiles/curve.py`): what every iteration takes, what streaming the weights
takes, and what a token takes once arithmetic rules. How streaming grows with the tokens follows from the model where it is known;
else it does not. Read next: `logs.py` and `counters.py`, which fill the vector, `core/engine/timing.py` for the formula.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from sageserve.base.config import ProfileSettings
from sageserve.base.records import Floats
from sageserve.data.measured.runs import MeasuredRun
from sageserve.data.measured.validation import Coefficients
from sageserve.data.profiles.curve import GRID, IterationCurve

NAMES: Final = (
    "fixed_ms",
    "streamed_ms",
    "token_us",
    "eager_ms",
    "decode_us_per_sequence",
    "kv_ns_per_token",
    "attention_ns_per_token2",
    "first_token_ms",
)
"""fixed: of every iteration; streamed: weights, in one of one token; token: arithmetic of one; the others are settings."""

LEAST: Final = np.array([1e-2, 1e-2, 1e-2, 1e-2, 1e-2, 1e-3, 1e-4, 1e-2])
"""Where logarithms of coefficients end: nothing an engine does is faster."""

SHARPNESS: Final = 3.0
FLAT: Final[Floats] = np.ones(len(GRID))
"""Streaming that does not grow with the tokens: that of a dense model."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """The roofline of an engine: its profile, and the curve in terms."""

    profile: ProfileSettings
    curve: IterationCurve

    @property
    def values(self) -> Floats:
        """float64[8]: its coefficients, as a fit looks for them."""
        terms = (self.curve.fixed / 1e3, float(self.curve.streamed[0]) / 1e3, self.curve.multiplied + self.curve.each)
        return np.array([*terms, *(float(getattr(self.profile, name)) for name in NAMES[3:])])

    @property
    def growth(self) -> Floats:
        """float64[GRID]: how streaming the weights grows with the tokens of an iteration."""
        return self.curve.streamed / self.curve.streamed[0]


def blank(run: MeasuredRun, kv_tokens: int) -> ProfileSettings:
    """A profile with a run's limits and no times yet."""
    return ProfileSettings(
        gpu=run.gpu.lower() or "unknown",
        tp=run.tp,
        gpus=run.tp,
        iteration_ms=((1, 0.0), (2, 0.0)),
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


def with_values(profile: ProfileSettings, values: Floats, growth: Floats = FLAT) -> ProfileSettings:
    """The profile with these coefficients.

    Args:
        profile: with the limits.
        values: float64[8] in the order of NAMES.
        growth: float64[GRID], streaming by an iteration of so many tokens over that of one.
    """
    fixed, streamed, token = values[0] * 1e3, values[1] * 1e3, values[2]
    curve = IterationCurve(fixed=fixed, each=0.0, streamed=streamed * growth, multiplied=token, sharpness=SHARPNESS)
    numbers = {name: float(f"{value:.6g}") for name, value in zip(NAMES[3:], values[3:], strict=True)}
    return profile.model_copy(update={**numbers, "iteration_ms": curve.knots()})


def coefficients_of(profile: ProfileSettings) -> Coefficients:
    """The curve, the coefficients and the KV capacity of a profile."""
    numbers = {name: float(getattr(profile, name)) for name in NAMES[3:]}
    return Coefficients(iteration_ms=profile.iteration_ms, kv_tokens=profile.kv_tokens, **numbers)
