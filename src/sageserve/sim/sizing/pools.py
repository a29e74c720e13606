"""What is sized: one pool for each model in each region, on the GPU type that needs the least money there; and a first guess.

Where prefill and decode are apart there is one pool of either.

The guess is that of the response curve (`core/response.py`) for the busiest quarter of an hour of what enters the region. It only
says where a search begins and which of several GPU types is taken. Plays nothing. Read next: `search.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from sageserve.base.config import Scenario
from sageserve.base.records import Trace, cached_tokens
from sageserve.base.units import MINUTE
from sageserve.core.fleet import Pool, Stock
from sageserve.core.layout import Layout, lay_out, unified_roles
from sageserve.core.strategies.fixed import STARTED
from sageserve.sim.enough import Asked, ServedSide, enough

_STEP: Final = 15 * MINUTE


@dataclass(frozen=True, slots=True)
class SizedPool:
    """A pool whose count is looked for.

    Args:
        name: region/model/gpu, with its role where prefill and decode are apart.
        region: its name.
        model: its name.
        gpu: type.
        gpus: of one instance.
        per_vm: GPUs of one VM.
        floor: instances at least.
        guess: instances at first.
        role: prefill or decode, where these are apart.
    """

    name: str
    region: str
    model: str
    gpu: str
    gpus: int
    per_vm: int
    floor: int
    guess: int
    role: str = ""


def pools_to_size(scenario: Scenario, trace: Trace) -> dict[str, tuple[SizedPool, ...]]:
    """By model, one pool in every region that can run it, on the GPU type with which the region costs least by the guess."""
    roles = unified_roles(scenario)
    layout = lay_out(scenario, roles, lambda here: (here.fleet.minimum,) * len(roles))
    guesses = [_guess(scenario, layout, trace, pool) for pool in layout.pools]
    choices = [pools for e in range(layout.endpoints) if (pools := layout.endpoint_pools(e))]
    found: dict[str, list[SizedPool]] = {}
    for region in range(len(layout.names.regions)):
        for pool in _cheapest(layout, guesses, [pools for pools in choices if pools[0].region == region]):
            stock = layout.stocks[pool.stock]
            names = layout.names.regions[pool.region], layout.names.models[pool.model]
            role = layout.role_name(pool.endpoint) if layout.apart[pool.model] else ""
            made = SizedPool(pool.name, *names, stock.gpu, pool.gpus, stock.per_vm, pool.minimum, guesses[pool.number], role)
            found.setdefault(made.model, []).append(made)
    return {model: tuple(pools) for model, pools in found.items()}


def _cheapest(layout: Layout, guesses: Sequence[int], choices: Sequence[Sequence[Pool]]) -> list[Pool]:
    """One pool of each choice in a region: taken one after another, from all types or from all but one, where that can be."""

    def left(pools: Sequence[Pool], out: int) -> Sequence[Pool]:
        return [pool for pool in pools if pool.stock != out] or pools

    types = sorted({pool.stock for pools in choices for pool in pools})
    tried = [_chosen(layout, guesses, [left(pools, out) for pools in choices]) for out in (-1, *types)]
    return min(tried, key=lambda one: one[0])[1]


def _chosen(layout: Layout, guesses: Sequence[int], choices: Sequence[Sequence[Pool]]) -> tuple[float, list[Pool]]:
    """Of each choice the pool that adds least to what those before it take, the first of equals; and dollars an hour in all."""
    held: dict[int, list[int]] = {pool.stock: [] for pools in choices for pool in pools}  # GPUs of each instance
    dollars, found = 0.0, list[Pool]()

    def adds(pool: Pool) -> float:
        stock, before = layout.stocks[pool.stock], held[pool.stock]
        more = _beyond(stock, [*before, *sizes(pool)]) - _beyond(stock, before)
        return more * stock.purchase.price_on_demand

    def sizes(pool: Pool) -> list[int]:
        return [pool.gpus] * max(guesses[pool.number], pool.minimum)

    for pools in choices:
        pool = min(pools, key=lambda one: (adds(one), one.number))
        dollars += adds(pool)
        held[pool.stock] += sizes(pool)
        found.append(pool)
    return dollars, found


def _beyond(stock: Stock, sizes: Sequence[int]) -> int:
    """GPUs on demand of the VMs that instances fill: what is committed is paid anyway."""
    return max(sum(filled(sizes, stock.gpus, stock.per_vm)) - stock.purchase.reserved, 0)


def with_counts(scenario: Scenario, counts: Mapping[str, int], pools: Mapping[str, SizedPool]) -> Scenario:
    """The scenario with a fleet of constant size; stocks hold what it takes, and what they held if that is more.

    Args:
        scenario: of any strategy.
        counts: instances by pool; every other pool has none.
        pools: by name.
    """
    regions = dict(scenario.regions)
    for (region, gpu), vms in vms_of(scenario, counts, pools).items():
        stock, needed = regions[region].gpus[gpu], sum(vms)
        if needed > stock.gpus:
            kinds = {**regions[region].gpus, gpu: stock.model_copy(update={"gpus": needed})}
            regions[region] = regions[region].model_copy(update={"gpus": kinds})
    most = max([*counts.values(), 1])
    numbers = {"starts": dict(counts), "start": 0, "minimum": 0, "maximum": most, "endpoints": scenario.fleet.placed()}
    fleet = scenario.fleet.model_copy(update=numbers)
    rules = scenario.strategy.model_copy(update={"name": STARTED})
    return scenario.model_copy(update={"fleet": fleet, "strategy": rules, "regions": regions})


def vms_of(
    scenario: Scenario, counts: Mapping[str, int], pools: Mapping[str, SizedPool]
) -> dict[tuple[str, str], tuple[int, ...]]:
    """GPUs of each VM that a fleet fills at its start, by region and GPU type.

    Args:
        scenario: for stocks.
        counts: instances by pool.
        pools: by name.
    """
    sizes: dict[tuple[str, str], list[int]] = {}
    for name, count in counts.items():
        sizes.setdefault((pools[name].region, pools[name].gpu), []).extend([pools[name].gpus] * count)
    return {
        (region, gpu): filled(held, scenario.regions[region].gpus[gpu].gpus, scenario.gpus[gpu].per_vm)
        for (region, gpu), held in sizes.items()
    }


def filled(sizes: Sequence[int], stock: int, per_vm: int) -> tuple[int, ...]:
    """GPUs of each VM that instances fill, each on the first that has room, as a fleet places them.

    Args:
        sizes: GPUs of each instance, at most `per_vm`.
        stock: GPUs there are: whole VMs, and what is left over as a smaller one. Where they are too few, there are whole ones.
        per_vm: GPUs of a whole VM.
    """
    whole, rest = divmod(stock, per_vm)
    there = [per_vm] * whole + [rest] * (rest > 0)
    return _first_fit(sizes, there) or _first_fit(sizes, [per_vm] * len(sizes)) or ()


def _first_fit(sizes: Sequence[int], vms: Sequence[int]) -> tuple[int, ...] | None:
    """Those of some VMs that are used; None: they are too few."""
    free = list(vms)
    for size in sizes:
        place = next((k for k, room in enumerate(free) if room >= size), None)
        if place is None:
            return None
        free[place] -= size
    return tuple(vm for vm, room in zip(vms, free, strict=True) if room < vm)


def _guess(scenario: Scenario, layout: Layout, trace: Trace, pool: Pool) -> int:
    """Instances for what enters the region of a pool, if it alone served it."""
    rows = np.flatnonzero(
        (trace.region == pool.region) & (trace.model == pool.model) & (trace.prompt < layout.context[pool.model])
    )
    cached = cached_tokens(trace, layout.prefix_hits)
    asked = Asked(trace.arrival[rows], trace.prompt[rows], cached[rows], trace.output[rows], trace.tier[rows], trace.window)
    side = None
    if layout.handover is not None and layout.apart[pool.model]:
        prompts = layout.profiles[layout.fastest(pool.model) if pool.role else pool.profile]
        side = ServedSide(pool.role > 0, prompts, layout.handover.token_us[pool.model], layout.handover.latency[pool.model])
    return enough(asked, layout.profiles[pool.profile], list(scenario.tiers.values()), _STEP, side)
