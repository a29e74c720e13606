"""What tiers promise, and which promises were missed, worked out from the rows of requests: the slow way to the kernel's counts.

Read next: `reference_fleet.py`; `DemandSeen` in `src/sageserve/core/events.py`.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sageserve.core.pace import ANSWER_WIDTH
from sageserve.core.response import SLACK_BINS
from sageserve.sim.kernel.state import DONE, SHED, Setup

_PLACE = 63  # of a request's state; beside it there are flags


@dataclass(frozen=True, slots=True)
class Tier:
    """One TIER row."""

    urgent: int
    expired: int
    rank: int
    patience: int
    growth: int
    batch: bool

    def promised(self, prompt: int) -> int:
        """Microseconds until the promise of a prompt of so many tokens."""
        return int(Fraction(self.patience) + Fraction(self.growth * prompt, 1000))


def mix_of(asked: list[tuple[float, float, float]]) -> list[float]:
    """Requests, prefill, its squares, decoding, and requests by slack, of (prefill, decoding, slack) of each."""
    prefill, decode, slack = np.array(asked).reshape(-1, 3).T
    could = np.histogram(slack[slack > 0], [0.0, *2.0 ** (10 + np.arange(1, SLACK_BINS) / 3), np.inf])[0]
    return [len(asked), prefill.sum(), (prefill**2).sum(), decode.sum(), *could]


def answers_of(requests: NDArray[Any], setup: Setup) -> NDArray[np.float64]:
    """float64[models x tiers, lengths]: finished answers of interactive tiers; no rows where no tier promises a pace."""
    if not setup.tiers["gap"].any():
        return np.zeros((0, ANSWER_WIDTH))
    found = np.zeros((setup.models, len(setup.tiers), ANSWER_WIDTH))
    for row in requests[(requests["state"] & _PLACE) == DONE]:
        if not setup.tiers[row["tier"]]["batch"]:
            after = int(row["output"]) - 1
            column = sum(after**3 >= 2**k for k in range(ANSWER_WIDTH - 1)) if after else 0  # a third of a doubling each
            found[row["model"], row["tier"], column] += 1
    return found.reshape(-1, ANSWER_WIDTH)


def missed_of(requests: NDArray[Any], setup: Setup) -> NDArray[np.int64]:
    """int64[regions x models x tiers]: requests that were answered too late, network and front end included, or turned away."""
    found = np.zeros((setup.regions, setup.models, len(setup.tiers)), np.int64)
    ended = requests[np.isin(requests["state"] & _PLACE, (DONE, SHED))]
    names = ("state", "region", "model", "tier", "instance", "output", "first", "finish", "deadline")
    columns = (ended[name].tolist() for name in names)
    for state, region, model, tier, instance, output, first, finish, deadline in zip(*columns, strict=True):
        late = True
        if state & _PLACE == DONE:
            served = instance // (setup.slots * setup.roles * setup.models)
            way = setup.rtt[region, served] if setup.rtt.size else 0
            late = (finish if setup.tiers[tier]["batch"] else first) + way > deadline
            gap = int(setup.tiers[tier]["gap"])
            late |= gap > 0 and finish - first > gap * (output - 1)
        found[region, model, tier] += late
    return found.ravel()
