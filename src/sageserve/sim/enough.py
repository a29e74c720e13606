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
from sageserve.base.kernel import kernel
from sageserve.base.records import Floats, Ints
from sageserve.base.units import MINUTE, Micros
from sageserve.core.engine.timing import EngineRow
from sageserve.core.perf import decode_work, decoding_time, prefill_work
from sageserve.core.response import MIX_WIDTH, RequestMix, fewest, mix_of, note_requests
from sageserve.core.strategies.parts import decode_mix, prefill_mix


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


@dataclass(frozen=True, slots=True)
class ServedSide:
    """What instances do of a request where prefill and decode are apart.

    Args:
        decodes: the answers; else the prompts.
        prompts: profile of an engine that prefills.
        token_us: microseconds that the KV cache of a token takes on the link.
        latency: microseconds from the end of that to the other side.
    """

    decodes: bool
    prompts: EngineRow
    token_us: float
    latency: Micros

    def way(self, prompt: NDArray[Any]) -> Ints:
        """Microseconds that KV caches are on their way, over links that are free."""
        return (prompt * self.token_us).astype(np.int64) + self.latency

    def link(self, profile: EngineRow) -> float:
        """Microseconds that a token takes on the links of an instance, one of each of its ranks."""
        return self.token_us * profile["per_rank"]

    def mix(self, mix: RequestMix, profile: EngineRow, prompt: float, work: float) -> RequestMix:
        """What one of them is asked for, of a mix, a mean prompt and mean work."""
        if self.decodes:
            return decode_mix(mix, work, float(decoding_time(profile, 1.0)))
        return prefill_mix(mix, self.link(profile) * prompt)


@kernel
def _side_work(prompt: NDArray[Any], cached: NDArray[Any], profile: EngineRow, answer: float, link: float) -> Floats:
    """Engine microseconds of requests: of their answers, or, where they have a link, of their prompts."""
    work = np.zeros(len(prompt))
    for q in range(len(prompt)):
        if link < 0.0:
            work[q] = decode_work(profile, prompt[q], answer)
        else:
            work[q] = max(prefill_work(profile, prompt[q], cached[q]), prompt[q] * link)
    return work


def enough(asked: Asked, profile: EngineRow, tiers: Sequence[TierSettings], step: Micros, side: ServedSide | None = None) -> int:
    """The fewest instances that keep what is promised in the busiest step, with batch work spread over the window.

    Args:
        asked: requests of one model, which share a queue.
        profile: of its engine.
        tiers: the scenario's.
        step: microseconds.
        side: what the instances do of a request; None: all of it.
    """
    busy, later, interactive, first = np.zeros(int(asked.window // step) + 1), 0.0, 0.0, profile if side is None else side.prompts
    counted = np.zeros((int(asked.window // MINUTE) + 1, MIX_WIDTH))
    for k, tier in enumerate(tiers):
        rows = np.flatnonzero(asked.tier == k)
        if not len(rows):
            continue
        answer = float(asked.output[rows].mean())
        none = np.zeros_like(counted) if tier.batch else counted
        way = np.zeros(len(rows), np.int64) if side is None else side.way(asked.prompt[rows])
        requests = asked.arrival[rows], asked.prompt[rows], asked.cached[rows], way
        work = note_requests(requests, first, answer, (tier.patience, tier.growth), none)
        if side is not None:
            link = -1.0 if side.decodes else side.link(profile)
            work = _side_work(asked.prompt[rows], asked.cached[rows], profile, answer, link)
        if tier.batch:
            later += float(work.sum()) / asked.window
        else:
            busy += np.bincount(asked.arrival[rows] // step, work, len(busy)) / min(step, asked.window)
            interactive += float(work.sum())
    mix = mix_of(counted.sum(axis=0), float(decoding_time(first, 1.0)))
    needed = max(float(busy.max()), float(busy.mean()) + later)
    if mix is None or not mix.weights:
        return ceil(needed)
    if side is not None:
        mix = side.mix(mix, profile, float(asked.prompt.mean()), interactive / max(float(counted[:, 0].sum()), 1.0))
    counts = np.bincount(asked.tier, minlength=len(tiers)).tolist()
    some = [(tier, count) for tier, count in zip(tiers, counts, strict=True) if count and not tier.batch]
    # of all that may be late the strictest tier's part: the late ones are those with the least patience
    misses = min((1.0 - tier.percentile) * count for tier, count in some) / sum(count for _, count in some)
    return max(fewest(float(busy.max()), mix, misses), ceil(needed))
