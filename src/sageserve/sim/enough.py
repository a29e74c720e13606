"""How many instances would be enough for requests, by the response curve: an estimate, where a search would play.

Plays nothing. Read next: `core/response.py`; `sim/sizing/pools.py` and `sim/results/starved.py`, which ask.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sageserve.base.config import TierSettings
from sageserve.base.records import Ints
from sageserve.base.units import MINUTE, Micros
from sageserve.core.engine.timing import EngineRow
from sageserve.core.perf import decoding_time
from sageserve.core.response import MIX_WIDTH, fewest, mix_of, note_requests


@dataclass(frozen=True, slots=True)
class Asked:
    """Requests of one model.

    Args:
        arrival: int64[n] microseconds since the start of the window.
        prompt: int[n] tokens.
        cached: int[n], of these, found in a prefix cache.
        output: int[n] tokens.
        tier: int[n], of the scenario's.
        window: microseconds.
    """

    arrival: Ints
    prompt: NDArray[Any]
    cached: NDArray[Any]
    output: NDArray[Any]
    tier: NDArray[Any]
    window: Micros


def enough(asked: Asked, profile: EngineRow, tiers: Sequence[TierSettings], step: Micros) -> int:
    """The fewest instances that keep what is promised in the busiest step, with batch work spread over the window.

    Args:
        asked: requests of one model, which share a queue.
        profile: of its engine.
        tiers: the scenario's.
        step: microseconds.
    """
    busy, later = np.zeros(int(asked.window // step) + 1), 0.0
    counted = np.zeros((int(asked.window // MINUTE) + 1, MIX_WIDTH))
    for k, tier in enumerate(tiers):
        rows = np.flatnonzero(asked.tier == k)
        if not len(rows):
            continue
        answer = float(asked.output[rows].mean())
        none = np.zeros_like(counted) if tier.batch else counted
        requests = asked.arrival[rows], asked.prompt[rows], asked.cached[rows], np.zeros(len(rows), np.int64)
        work = note_requests(requests, profile, answer, (tier.patience, tier.growth), none)
        if tier.batch:
            later += float(work.sum()) / asked.window
        else:
            busy += np.bincount(asked.arrival[rows] // step, work, len(busy)) / min(step, asked.window)
    mix = mix_of(counted.sum(axis=0), float(decoding_time(profile, 1.0)))
    needed = max(float(busy.max()), float(busy.mean()) + later)
    if mix is None or not mix.weights:
        return ceil(needed)
    counts = np.bincount(asked.tier, minlength=len(tiers)).tolist()
    some = [(tier, count) for tier, count in zip(tiers, counts, strict=True) if count and not tier.batch]
    # of all that may be late the strictest tier's part: the late ones are those with the least patience
    misses = min((1.0 - tier.percentile) * count for tier, count in some) / sum(count for _, count in some)
    return max(fewest(float(busy.max()), mix, misses), ceil(needed))
