"""The numbers of an engine profile in a few lines of text.

Read next: `core/engine/timing.py` for the formula, docs/reference/engine-model.md.
"""

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from sageserve.base.config import ProfileSettings
    from sageserve.data.measured.validation import Coefficients

TOKENS: Final = (1, 64, 256, 1024, 8192)
"""Iterations that stand for the curve."""


def curve_points(one: "ProfileSettings | Coefficients") -> list[tuple[int, float]]:
    """Milliseconds of an iteration by its tokens, where the curve has knots around."""
    knots = np.array(one.iteration_ms)
    times = np.interp(TOKENS, knots[:, 0], knots[:, 1]).tolist()
    return [(tokens, time) for tokens, time in zip(TOKENS, times, strict=True) if tokens <= knots[-1, 0]]


def coefficient_lines(one: "ProfileSettings | Coefficients") -> list[str]:
    """What an iteration takes, what comes on top, and what comes once per request."""
    curve = ", ".join(f"{tokens:,} {time:.4g}" for tokens, time in curve_points(one))
    beside = f"decoding {one.decode_us_per_sequence:.4g} µs/sequence, KV {one.kv_ns_per_token:.4g} ns/token"
    return [
        f"iteration of so many tokens, ms: {curve}; with prefill {one.eager_ms:.3g} more",
        f"{beside}, attention {one.attention_ns_per_token2:.3g} ns/token²",
        f"first token {one.first_token_ms:.3g} ms, once per request",
    ]
