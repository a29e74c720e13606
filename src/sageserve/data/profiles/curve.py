"""The curve of a profile: how long an iteration takes by the tokens it computes, as straight lines between few knots.

An iteration streams its weights or multiplies its tokens, whichever takes longer; where both take about as long neither hides
the other whole, so the two are joined by a power mean. Host work, launches and exchanges come on top:

    F(T) = fixed + each*T + (streamed(T)^q + (multiplied*T)^q)^(1/q)

Knows no model and no GPU. Read next: `roofline.py`, which fills it in; `core/engine/timing.py`, which reads the knots.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from sageserve.base.config.models import KNOTS
from sageserve.base.records import Floats

END: Final = 16_384  # tokens: beyond, arithmetic rules and the last line goes on
DEVIATION: Final = 0.006  # of the time, between knots: less than anything here is known to
_SPACED: Final = np.round(np.geomspace(1, END, 160))
GRID: Final = _SPACED[np.diff(_SPACED, prepend=0) > 0]
"""float64: tokens at which a curve is computed before its knots are chosen, each once (np.unique loads 2 MB of masked arrays)."""


@dataclass(frozen=True, slots=True)
class IterationCurve:
    """The terms of F, microseconds.

    Args:
        fixed: every iteration.
        each: per token, whatever else it takes.
        streamed: float64[GRID], weights read from memory by an iteration of so many tokens.
        multiplied: arithmetic of a token.
        sharpness: q; the larger, the more the longer of the two hides the shorter.
    """

    fixed: float
    each: float
    streamed: Floats
    multiplied: float
    sharpness: float

    def times(self) -> Floats:
        """float64[GRID]: F."""
        q = self.sharpness
        both: Floats = (self.streamed**q + (self.multiplied * GRID) ** q) ** (1 / q)
        return self.fixed + self.each * GRID + both


def knots(times: Floats) -> tuple[tuple[int, float], ...]:
    """Tokens and milliseconds, as few as lines need to stay within DEVIATION of a curve, at most KNOTS.

    Args:
        times: float64[GRID], microseconds, > 0.
    """
    times = np.maximum.accumulate(times)
    chosen = [0, len(GRID) - 1]
    while len(chosen) < KNOTS:
        lines = np.interp(GRID, GRID[chosen], times[chosen])
        away = np.abs(lines / times - 1)
        worst = int(away.argmax())
        if away[worst] <= DEVIATION:
            break
        chosen = sorted({*chosen, worst})
    return tuple((int(GRID[k]), float(f"{times[k] / 1e3:.5g}")) for k in chosen)
