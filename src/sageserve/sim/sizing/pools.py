"""What is sized: one pool for each model in each region, on the GPU type that needs the least money there; and a first guess.

The guess is that of the response curve (`core/response.py`) for the busiest quarter of an hour of what enters the region. It only
says where a search begins and which of several GPU types is taken. Plays nothing. Read next: `search.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Final

import numpy as np

from sageserve.base.config import Scenario
from sageserve.base.records import Trace, cached_tokens
from sageserve.base.units import MINUTE
from sageserve.core.fleet import Pool
from sageserve.core.layout import Layout, lay_out, unified_roles
from sageserve.core.perf import OUTPUT_GUESS, curve_time
from sageserve.core.response import MIX_WIDTH, fewest, mix_of, note_requests
from sageserve.core.strategies.fixed import STARTED

_STEP: Final = 15 * MINUTE


@dataclass(frozen=True, slots=True)
class SizedPool:
    """A pool whose count is looked for.

    Args:
        name: region/model/gpu.
        region: its name.
        model: its name.
        gpu: type.
        gpus: of one instance.
        per_vm: GPUs of one VM.
        floor: instances at least.
        guess: instances at first.
    """

    name: str
    region: str
    model: str
    gpu: str
    gpus: int
    per_vm: int
    floor: int
    guess: int


def pools_to_size(scenario: Scenario, trace: Trace) -> dict[str, tuple[SizedPool, ...]]:
    """By model, one pool in every region that can run it."""
    layout = lay_out(scenario, unified_roles(scenario), (scenario.fleet.minimum,))
    found: dict[str, list[SizedPool]] = {}
    for e in range(layout.endpoints):
        choices = layout.endpoint_pools(e)
        if choices:
            guesses = [(_guess(scenario, layout, trace, pool), pool) for pool in choices]
            guess, pool = min(guesses, key=lambda one: one[0] * _price(layout, one[1]))
            stock = layout.stocks[pool.stock]
            names = layout.names.regions[pool.region], layout.names.models[pool.model]
            made = SizedPool(pool.name, *names, stock.gpu, pool.gpus, stock.per_vm, scenario.fleet.minimum, guess)
            found.setdefault(made.model, []).append(made)
    return {model: tuple(pools) for model, pools in found.items()}


def with_counts(scenario: Scenario, counts: Mapping[str, int], pools: Mapping[str, SizedPool]) -> Scenario:
    """The scenario with a fleet of constant size; stocks hold what it takes, and what they held if that is more.

    Args:
        scenario: of any strategy.
        counts: instances by pool; every other pool has none.
        pools: by name.
    """
    per_vm: dict[tuple[str, str], list[int]] = {}
    for name, count in counts.items():
        pool = pools[name]
        per_vm.setdefault((pool.region, pool.gpu), []).extend([pool.gpus] * count)
    regions = dict(scenario.regions)
    for (region, gpu), sizes in per_vm.items():
        stock = regions[region].gpus[gpu]
        needed = vms_of(sizes, scenario.gpus[gpu].per_vm) * scenario.gpus[gpu].per_vm
        if needed > stock.gpus:
            kinds = {**regions[region].gpus, gpu: stock.model_copy(update={"gpus": needed})}
            regions[region] = regions[region].model_copy(update={"gpus": kinds})
    most = max([*counts.values(), 1])
    fleet = scenario.fleet.model_copy(update={"starts": dict(counts), "start": 0, "minimum": 0, "maximum": most})
    rules = scenario.strategy.model_copy(update={"name": STARTED})
    return scenario.model_copy(update={"fleet": fleet, "strategy": rules, "regions": regions})


def vms_of(sizes: list[int], per_vm: int) -> int:
    """VMs that instances of so many GPUs fill, each on the first that has room, as a fleet places them."""
    free: list[int] = []
    for size in sizes:
        place = next((k for k, room in enumerate(free) if room >= size), None)
        if place is None:
            free.append(per_vm - size)
        else:
            free[place] -= size
    return len(free)


def _price(layout: Layout, pool: Pool) -> float:
    purchase = layout.stocks[pool.stock].purchase
    return min(purchase.price_reserved, purchase.price_on_demand) * pool.gpus + 1e-9 * pool.number  # free ones: the first


def _guess(scenario: Scenario, layout: Layout, trace: Trace, pool: Pool) -> int:
    """Instances for what enters the region of a pool, if it alone served it."""
    profile = layout.profiles[pool.profile]
    here = (trace.region == pool.region) & (trace.model == pool.model) & (trace.prompt < layout.context[pool.model])
    cached = cached_tokens(trace, layout.prefix_hits)
    steps = int(trace.window // _STEP) + 1
    busy, later = np.zeros(steps), 0.0
    counted = np.zeros((int(trace.window // MINUTE) + 1, MIX_WIDTH))
    for k, tier in enumerate(scenario.tiers.values()):
        rows = np.flatnonzero(here & (trace.tier == k))
        if not len(rows):
            continue
        answer = float(trace.output[rows].mean()) if len(rows) else OUTPUT_GUESS
        none = np.zeros_like(counted) if tier.batch else counted
        requests = trace.arrival[rows], trace.prompt[rows], cached[rows], np.zeros(len(rows), np.int64)
        work = note_requests(requests, profile, answer, tier.patience, none)
        if tier.batch:
            later += float(work.sum()) / trace.window
        else:
            busy += np.bincount(trace.arrival[rows] // _STEP, work, steps) / min(_STEP, trace.window)
    mix = mix_of(counted.sum(axis=0), float(curve_time(profile, 1.0)))
    needed = max(float(busy.max()), float(busy.mean()) + later)
    if mix is None or not mix.weights:
        return ceil(needed)
    misses = 1.0 - min(tier.percentile for tier in scenario.tiers.values() if not tier.batch)
    return max(fewest(float(busy.max()), mix, misses), ceil(needed))
