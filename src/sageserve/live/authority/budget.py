"""How many instances a budget leaves a target, beside what the others hold or may be raised to. Pure. Read next: `hands.py`."""

from collections.abc import Mapping

from sageserve.base.config import Scenario
from sageserve.data.rebuild.places import pool_parts
from sageserve.data.scenarios.checking.clusters import gpus_of


def budget_room(scenario: Scenario, target: str, held: Mapping[str, int]) -> int | None:
    """Instances that a target may have.

    Args:
        scenario: with targets and budget.
        target: which.
        held: instances that targets have or are held to, by name; those that are missing hold none.

    Returns:
        The least that any budget leaves; None: there is no budget on it.
    """
    assert scenario.live is not None
    budget, targets = scenario.live.safety.budget, scenario.live.targets
    stock = _stock(targets[target].pool)
    others = {name: count for name, count in held.items() if name != target}
    rooms = []
    if (gpus := budget.gpus.get(stock)) is not None:
        taken = sum(
            count * gpus_of(scenario, targets[name]) for name, count in others.items() if _stock(targets[name].pool) == stock
        )
        rooms.append(max(0, gpus - taken) // gpus_of(scenario, targets[target]))
    if budget.per_hour is not None and (price := _price(scenario, target)) > 0:
        spent = sum(count * _price(scenario, name) for name, count in others.items())
        rooms.append(int(max(0.0, budget.per_hour - spent) / price + 1e-9))
    return min(rooms) if rooms else None


def _stock(pool: str) -> str:
    region, _, gpu = pool_parts(pool)
    return f"{region}/{gpu}"


def _price(scenario: Scenario, name: str) -> float:
    """An hour of one instance, on demand."""
    assert scenario.live is not None
    target = scenario.live.targets[name]
    region, _, gpu = pool_parts(target.pool)
    prices = scenario.regions[region].gpus[gpu].price
    return prices.of_gpu(prices.on_demand, scenario.gpus[gpu].per_vm) * gpus_of(scenario, target)
