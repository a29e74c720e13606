"""From counts and what was measured to the answer: lines of a fleet, quota in whole VMs, money of a month, proofs, why not less.

Plays nothing. Read next: `sim/sizing/records.py` for the words.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msgspec import UNSET

from sageserve.base.config import Scenario
from sageserve.data.results.summary import Summary
from sageserve.sim.sizing.pools import SizedPool, vms_of
from sageserve.sim.sizing.purchase import Tariff, best_reserve, cost_per_hour
from sageserve.sim.sizing.records import (
    HOURS_PER_MONTH,
    CostLine,
    FleetLine,
    OneLess,
    PromiseProof,
    QuotaLine,
    ReserveLine,
    Sizing,
)
from sageserve.sim.sizing.search import Broken, Measured, Promises

_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Found:
    """What a search came to.

    Args:
        counts: instances by pool.
        pools: by name.
        measured: by model, the whole fleet in every window.
        less: by pool, what one instance less breaks.
        seeds: of the windows.
        plays: how many there were.
        reach: by model and tier that is out of reach, the share that idle engines serve in time.
        targets: by model, the shares that were sized for.
    """

    counts: Mapping[str, int]
    pools: Mapping[str, SizedPool]
    measured: Mapping[str, Sequence[Measured]]
    less: Mapping[str, Broken]
    seeds: Sequence[int]
    plays: int
    reach: Mapping[tuple[str, str], float]
    targets: Mapping[str, Mapping[str, float]]


def answer(scenario: Scenario, found: Found, promises: Promises, first: Summary) -> Sizing:
    """The answer.

    Args:
        scenario: that was sized.
        found: what came out.
        promises: that are kept.
        first: summary of the first window.
    """
    quota = quota_of(scenario, found.counts, found.pools)
    cost, reserve = purchase_of(scenario, {name: {line.gpus: 1.0} for name, line in quota.items()})
    fleet = [
        FleetLine(pool.region, pool.model, pool.gpu, found.counts[name], found.counts[name] * pool.gpus, pool.role or UNSET)
        for name, pool in found.pools.items()
    ]
    return Sizing(
        fleet=fleet,
        quota=quota,
        cost_per_month_usd=round(sum(line.reserved + line.on_demand for line in cost.values()), 2),
        proof=proofs_of(found, promises),
        cost=cost,
        less=[_one_less(found, promises, name) for name in found.pools],
        safety=promises.confidence,
        windows=promises.windows,
        requests=first.requests.arrived,
        plays=found.plays,
        scenario=scenario.name,
        currency=scenario.currency,
        notes=(*first.notes, *_beyond(found, promises), *_too_few(found, promises)),
        reserve=reserve,
    )


def quota_of(scenario: Scenario, counts: Mapping[str, int], pools: Mapping[str, SizedPool]) -> dict[str, QuotaLine]:
    """GPUs of whole VMs by region/gpu, as a fleet fills them at its start; what is committed and not used too, it is paid."""
    vms = vms_of(scenario, counts, pools)
    return {
        name: quota_line(scenario, name, sum(vms.get((region, gpu), ())))
        for region, settings in scenario.regions.items()
        for gpu, stock in settings.gpus.items()
        for name in [f"{region}/{gpu}"]
        if (region, gpu) in vms or stock.reserved
    }


def quota_line(scenario: Scenario, name: str, gpus: int) -> QuotaLine:
    """So many GPUs of region/gpu against the stock."""
    region, gpu = name.split("/", 1)
    stock = scenario.regions[region].gpus[gpu].gpus
    return QuotaLine(gpus, -(-gpus // scenario.gpus[gpu].per_vm), stock, max(gpus - stock, 0))


def purchase_of(
    scenario: Scenario, curves: Mapping[str, Mapping[int, float]]
) -> tuple[dict[str, CostLine], dict[str, ReserveLine]]:
    """What GPUs in use by region/gpu cost in a month, and what would be cheapest to reserve where that has a price.

    Args:
        scenario: for prices and what is committed.
        curves: time by GPUs of VMs in use.
    """
    cost, reserve = {}, {}
    for name, curve in curves.items():
        region, gpu = name.split("/", 1)
        stock, per_vm = scenario.regions[region].gpus[gpu], scenario.gpus[gpu].per_vm
        price, total = stock.price, sum(curve.values())
        tariff = Tariff(
            price.of_gpu(price.on_demand, per_vm),
            None if price.reserved is None else price.of_gpu(price.reserved, per_vm),
            per_vm,
        )
        beyond = sum(max(gpus - stock.reserved, 0) * time for gpus, time in curve.items()) / total if total else 0.0
        cost[name] = CostLine(
            reserved_gpus=stock.reserved,
            reserved_per_gpu_hour=round(tariff.committed, _DIGITS),
            reserved=round(stock.reserved * tariff.committed * HOURS_PER_MONTH, 2),
            on_demand_gpus=round(beyond, _DIGITS),
            on_demand_per_gpu_hour=round(tariff.on_demand, _DIGITS),
            on_demand=round(beyond * tariff.on_demand * HOURS_PER_MONTH, 2),
        )
        if tariff.reserved is not None:
            best = best_reserve(curve, tariff)
            reserve[name] = ReserveLine(best, round(cost_per_hour(curve, best, tariff) * HOURS_PER_MONTH, 2))
    return cost, reserve


def proofs_of(found: Found, promises: Promises) -> dict[str, PromiseProof]:
    """By tier, of the model that is least sure of it."""
    proofs: dict[str, PromiseProof] = {}
    for model, windows in found.measured.items():
        for tier, proof in promises.proofs(windows).items():
            least = min(one.kept[tier].share for one in windows if tier in one.kept)
            made = PromiseProof(
                safety=_down(min(proof.safety, 1.0 - 10.0**-_DIGITS)),  # nothing is certain
                low=_down(proof.low),
                percentile=promises.percentiles[tier],
                kept_least=_down(least),
                model=model,
                target=_down(found.targets[model][tier]),
                reach=None if (share := found.reach.get((model, tier))) is None else _down(share),
                needed=_down(min(promises.each, 1.0 - 10.0**-_DIGITS)) if promises.asked(tier, windows) else None,
            )
            if tier not in proofs or (made.safety, made.low) < (proofs[tier].safety, proofs[tier].low):
                proofs[tier] = made
    return {tier: proofs[tier] for tier in promises.percentiles if tier in proofs}


def _beyond(found: Found, promises: Promises) -> list[str]:
    """What is out of reach, and what was sized for instead."""
    told = []
    for (model, tier), share in found.reach.items():
        promised = promises.percentiles[tier]
        words = f"is out of reach: idle engines keep {share:.1%} of it, promised are {promised:.1%}"
        if share >= promised:  # they keep it in every window that was played
            words = f"cannot be so sure: idle engines keep {share:.1%} of it in the worst window, too near to {promised:.1%}"
        told.append(f"{tier} of {model} {words}; sized for {promised:.1%} of those, {found.targets[model][tier]:.1%}")
    return told


def _too_few(found: Found, promises: Promises) -> list[str]:
    """Promises whose safety no number of instances shows."""
    told = []
    for model, windows in found.measured.items():
        for tier in promises.proofs(windows):
            if not promises.asked(tier, windows):
                counts = [one.kept[tier].requests for one in windows if tier in one.kept]
                told.append(
                    f"{tier} of {model} has {sum(counts) / len(counts):,.1f} requests in a window, too few to show by them how"
                    " safe its promise is: all windows keep it, and more instances would show no more"
                )
    return told


def _one_less(found: Found, promises: Promises, name: str) -> OneLess:
    pool, broken, held = found.pools[name], found.less.get(name), found.counts[name]
    if held == 0:
        return OneLess(name, "none" if pool.model in found.measured else "unused")
    if held <= pool.floor:
        return OneLess(name, "minimum")
    if broken is None:  # all others were tried
        return OneLess(name, "last")
    if not broken.tier:
        return OneLess(name, "backlog", window=found.seeds[broken.window])
    if broken.window < 0:
        return OneLess(name, "unsure", broken.tier, _down(broken.share), needed=_down(promises.each))
    return OneLess(name, "breaks", broken.tier, _down(broken.share), found.seeds[broken.window], without=broken.without)


def _down(value: float) -> float:
    """Rounded down: what is sure to 0.9999999 is not called certain."""
    return int(value * 10**_DIGITS + 10.0**-_DIGITS) / 10**_DIGITS  # 0.29 * 100 is 28.999999999999996
