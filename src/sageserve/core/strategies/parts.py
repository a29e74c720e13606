"""What plans decide numbers of: the instances of a model, or, where prefill and decode are apart, those of either.

A part is a row of estimates, of curves and of plans, and has a pool of its own in each region. Demand is heard and forecast by
model; what a request asks of a part follows from the mix of the model's requests. Pure arithmetic. Read next:
`demand_estimates.py`, docs/reference/planning.md, "Prefill and decode apart".
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from msgspec.structs import replace

from sageserve.core.fleet import Pool
from sageserve.core.handover import DECODE, PREFILL
from sageserve.core.layout import Layout
from sageserve.core.response import RequestMix

LEAST_US: Final = 1.0  # of engine time that a request asks of a part: answers of one token ask nothing of decoding
_ANSWERS: Final = 1.0  # squared coefficient of variation between answers that leave a full batch: of many, each when it is done


class Does(Enum):
    """What instances of a part do of a request."""

    WHOLE = ""
    PREFILL = PREFILL
    DECODE = DECODE


@dataclass(frozen=True, slots=True)
class PlannedPart:
    """One row of a plan.

    Args:
        name: of its model, with what it does where prefill and decode are apart.
        model: number of it.
        does: all of a request, or what of it.
        pools: in all regions.
        reference: row of the fastest profile among them, in whose time its demand is measured; -1 when it has no pool.
    """

    name: str
    model: int
    does: Does
    pools: tuple[Pool, ...]
    reference: int


def parts_of(layout: Layout) -> tuple[PlannedPart, ...]:
    """Models in order of their numbers; of one whose prefill and decode are apart the one that prefills, then the other."""
    found = []
    for model, name in enumerate(layout.names.models):
        mine = [pool for pool in layout.pools if pool.model == model]
        if not layout.apart[model]:
            found.append(_part(layout, name, model, Does.WHOLE, mine))
            continue
        for role, does in enumerate((Does.PREFILL, Does.DECODE)):
            found.append(_part(layout, f"{name}/{does.value}", model, does, [pool for pool in mine if pool.role == role]))
    return tuple(found)


def _part(layout: Layout, name: str, model: int, does: Does, pools: list[Pool]) -> PlannedPart:
    rows = {pool.profile for pool in pools}
    fastest = min(rows, key=lambda row: (int(layout.profiles[row]["weight"]), row), default=-1)
    return PlannedPart(name, model, does, tuple(pools), fastest)


def parts_by_pool(layout: Layout, parts: tuple[PlannedPart, ...]) -> tuple[int, ...]:
    """The part of every pool, in order of their numbers."""
    of = {pool.number: number for number, part in enumerate(parts) for pool in part.pools}
    return tuple(of[pool.number] for pool in layout.pools)


def pairs_of(parts: tuple[PlannedPart, ...]) -> tuple[tuple[int, int], ...]:
    """Parts that prefill, each with the one that decodes what it made."""
    return tuple((number, number + 1) for number, part in enumerate(parts) if part.does is Does.PREFILL)


def prefill_mix(mix: RequestMix, link_us: float) -> RequestMix:
    """What an instance that only prefills is asked for, of requests of a mix: nothing decodes beside their prompts.

    Args:
        mix: of requests, with all they take.
        link_us: the KV cache of a mean prompt takes so long on the link. Engine and link work one behind the other, so that the
            slower of the two is what prompts wait for.
    """
    return replace(mix, prefill_us=max(mix.prefill_us, link_us, LEAST_US), decode_us=0.0, step_us=0.0)


def decode_mix(mix: RequestMix, work_us: float, step_us: float) -> RequestMix:
    """What an instance that only decodes is asked for, of requests of a mix: a first token waits for a place in its batch.

    Whoever waits does so because the batch is full, and then one answer leaves it every `work_us`: the wait is that behind an
    engine which makes one answer after the other. That anybody waits at all is rarer than there: the curve is on the safe side.

    Args:
        mix: of requests, with all they take.
        work_us: engine time of an answer.
        step_us: time of an iteration.
    """
    return replace(mix, prefill_us=max(work_us, LEAST_US), variation=_ANSWERS, decode_us=0.0, step_us=step_us)
