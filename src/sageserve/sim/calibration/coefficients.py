"""The numbers a fit looks for, between a vector and a profile.

The curve of a profile is fitted by its terms (as in `data/profiles/curve.py`): what every iteration takes, what streaming the
weights takes, and what a token takes once arithmetic rules. How streaming grows with the tokens follows from the model where it
is known; else it does not. The knots of a fit stay where they are, so that times are smooth in the terms. All that a calibration
knows of the engine model's form is here. Read next: `logs.py`, `fit/`, `core/engine/timing.py` for the formula.
"""

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from sageserve.base.config import ProfileSettings
from sageserve.base.config.models import KNOTS
from sageserve.base.errors import MeasurementError
from sageserve.base.records import Floats
from sageserve.data.measured.runs import MeasuredRun
from sageserve.data.measured.validation import Coefficients
from sageserve.data.profiles.curve import GRID, IterationCurve
from sageserve.data.profiles.naming import known_gpu
from sageserve.sim.replay import ReplayedBlocks

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

LEAST: Final = np.array([1e-2, 1e-4, 1e-2, 1e-4, 1e-2, 1e-3, 1e-4, 1e-2])
"""Where logarithms of coefficients end: nothing an engine does is faster."""

TYPICAL: Final = np.array([3.0, 8.0, 50.0, 1.0, 30.0, 50.0, 0.5, 10.0])
"""Of an 8B model on one GPU: only a place to begin."""

ONCE: Final = np.array([0.0] * 7 + [1e3])
"""Microseconds per unit that every request takes once, around its first token, beside what iterations take."""

SHARPNESS: Final = 3.0
NONE: Final = 1.5  # times LEAST: a coefficient that is less was at the end of the search, and is written as 0
STRAIGHT: Final = 1e-6  # of a time: a knot that is so close to the line between its neighbours says nothing
STREAMED: Final = (0.75, 0.05)  # of an iteration, where only the whole is known: both are tried
HIDDEN: Final = 0.02
_EAGER_MS: Final = 0.3  # a prefill beside CUDA graphs, where nothing is known
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


class PlainCosts(NamedTuple):
    """An engine whose times are plain sums, in microseconds: what first guesses and counters can tell."""

    iteration: float
    prompt_token: float
    decoding_sequence: float
    kv_token: float = 0.0
    attention: float = 0.0
    once: float = 0.0

    def values(self, streamed: float) -> Floats:
        """float64[8]: coefficients of such an engine, of whose iterations a share is streaming and hides single tokens."""
        decoding = max(self.decoding_sequence - (1.0 - streamed) * self.prompt_token, 0.0)
        iteration = (1.0 - streamed) * self.iteration / 1e3, streamed * self.iteration / 1e3
        beside = self.kv_token * 1e3, self.attention * 1e3, self.once / 1e3
        return np.array([*iteration, self.prompt_token, _EAGER_MS, decoding, *beside])


def otherwise(values: Floats) -> tuple[Floats, ...]:
    """Coefficients whose lone iterations take as long, of which nothing is streamed, or nearly all, with and without `eager`.

    A fit that took the one for the other does not come back by itself: a term that is hidden has no slope.
    """
    base, token, eager, decode = values[0] + values[1], values[2], values[3], values[4]
    plain, hidden = np.maximum([base, 0.0, token, eager, decode - token], LEAST[:5]), np.array([0.1, 0.9]) * base
    rows = [np.append(plain, values[5:]), np.append([*hidden, token, eager, decode + token], values[5:])]
    small = np.arange(len(values)) == NAMES.index("eager_ms")
    return tuple(np.where(small, LEAST if less else one, one) for one in rows for less in (True, False))


def shown(values: Floats) -> Floats:
    """Coefficients with at least HIDDEN of a lone iteration streamed: less has no slope, and would seem to be unknowable."""
    least = HIDDEN * (values[0] + values[1]) * (np.arange(len(values)) == NAMES.index("streamed_ms"))
    return np.maximum(values, least)


def blank(run: MeasuredRun, kv_tokens: int) -> ProfileSettings:
    """A profile with a run's limits and no times yet.

    Raises:
        MeasurementError: it ran on data parallel ranks: neither logs nor counters say which rank did what.
    """
    if run.dp > 1:
        raise MeasurementError(
            f"{run.name} ran on {run.dp} data parallel ranks, and it is not known which rank served what",
            hint="calibrate an engine of one rank, or name a derived profile, as model/gpu/tp1dp8, and hold it against means",
        )
    return ProfileSettings(
        gpu=known_gpu(run.gpu) or _named(run.gpu),
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
        mixed=run.limits.mixed,
        evicts=run.limits.evicts,
        prefix_caching=run.limits.prefix_caching,
        source="",
    )


def _named(gpu: str) -> str:
    """What tools print as a GPU's name, as one of a profile: "NVIDIA L20 (48 GB)" is nvidia-l20-48-gb."""
    return "-".join(re.findall(r"[a-z0-9]+", gpu.lower()))[:100] or "unknown"


@dataclass(frozen=True, slots=True)
class Form:
    """The shape of one engine's times.

    Args:
        limits: a profile with the engine's limits.
        growth: float64[GRID], streaming by an iteration of so many tokens over that of one.
    """

    limits: ProfileSettings
    growth: Floats

    @property
    def knots(self) -> Floats:
        """float64[16 or fewer]: tokens of the knots, from one to the most that an iteration has."""
        return np.unique(np.round(np.geomspace(1, self.limits.max_batched_tokens, KNOTS)))

    def profile(self, values: Floats, digits: int | None = None) -> ProfileSettings:
        """The engine with these coefficients.

        Args:
            values: float64[8] in the order of NAMES.
            digits: significant ones to keep, with the knots that matter; None: all.
        """
        tokens = self.knots
        times = self._curve(values) @ values[:3] / 1e3
        if digits is not None:
            kept = _bends(tokens, times)
            tokens, times = tokens[kept], times[kept]
            values = np.where(values > NONE * LEAST, values, 0.0)
        numbers = {name: _rounded(value, digits) for name, value in zip(NAMES[3:], values[3:], strict=True)}
        curve = tuple((int(one), _rounded(ms, digits)) for one, ms in zip(tokens, times, strict=True))
        return self.limits.model_copy(update={**numbers, "iteration_ms": curve})

    def slopes(self, blocks: ReplayedBlocks, values: Floats) -> Floats:
        """float64[b, 8]: microseconds that each block takes longer per unit of each coefficient.

        Times grow in proportion when all coefficients do, so slopes @ values are the blocks' times.

        Args:
            blocks: as played.
            values: float64[8], at which the slopes are asked for.
        """
        count, pairs = blocks.iterations.astype(np.float64), 0.5 * blocks.iterations * (blocks.iterations - 1)
        knots, batch = self.knots, (blocks.tokens + blocks.decoding).astype(np.float64)
        before = np.clip(np.searchsorted(knots, batch, side="right") - 1, 0, len(knots) - 2)
        share = ((batch - knots[before]) / (knots[before + 1] - knots[before]))[:, None]
        curve = self._curve(values)
        found = np.zeros((len(count), len(values)))
        found[:, :3] = (curve[before] * (1.0 - share) + curve[before + 1] * share) * count[:, None]
        found[:, 3] = 1e3 * count * (blocks.tokens > 0)
        found[:, 4] = blocks.decoding * count
        found[:, 5] = 1e-3 * (blocks.kv * count + blocks.decoding * pairs)
        found[:, 6] = 1e-3 * (blocks.attention * count + blocks.tokens.astype(np.float64) ** 2 * pairs)
        return found

    def _curve(self, values: Floats) -> Floats:
        """float64[knots, 3]: microseconds of F at the knots per unit of its three terms."""
        knots = self.knots
        grown = np.interp(knots, GRID, self.growth)
        streamed, multiplied = values[1] * 1e3 * grown, values[2] * knots
        both = (streamed**SHARPNESS + multiplied**SHARPNESS) ** (1 / SHARPNESS)
        parts = (streamed / both) ** (SHARPNESS - 1), (multiplied / both) ** (SHARPNESS - 1)
        return np.column_stack([np.full(len(knots), 1e3), 1e3 * grown * parts[0], knots * parts[1]])


def _rounded(value: float, digits: int | None) -> float:
    return float(value) if digits is None else float(f"{value:.{digits}g}")


def _bends(tokens: Floats, times: Floats) -> list[int]:
    """Knots without those that lie on the line between the ones that are kept around them; first and last stay."""
    kept = [0]
    for k in range(1, len(tokens) - 1):
        between = slice(kept[-1], k + 2)
        ends = [kept[-1], k + 1]
        line = np.interp(tokens[between], tokens[ends], times[ends])
        if np.abs(line / times[between] - 1.0).max() > STRAIGHT:
            kept.append(k)
    return [*kept, len(tokens) - 1]


def coefficients_of(profile: ProfileSettings) -> Coefficients:
    """The curve, the coefficients and the KV capacity of a profile."""
    numbers = {name: float(getattr(profile, name)) for name in NAMES[3:]}
    return Coefficients(iteration_ms=profile.iteration_ms, kv_tokens=profile.kv_tokens, **numbers)
