"""Two plans side by side: what each pool gets, what that costs, and whether both answer the same question.

Compares files, solves nothing. Read next: `data/results/plans.py`; `cli/plan.py`, which shows it.
"""

from msgspec import Struct

from sageserve.base.units import Micros
from sageserve.data.results.plans import PlanFile, PoolLine


class PlanSide(Struct, frozen=True):
    """One of the two: whose, of when, until when, what it was asked, and what its targets cost per hour."""

    strategy: str
    made_at: Micros
    expires_at: Micros
    input_hash: str
    scenario_hash: str
    cost_per_hour: float
    currency: str


class PoolDifference(Struct, frozen=True):
    """A pool in both plans; None: that plan has no such pool.

    Args:
        pool: its name.
        now: instances there were, before and after.
        target: instances that there should be.
        cost_per_hour: what the second's target costs more in an hour.
        why: the second's reason.
    """

    pool: str
    now: tuple[int | None, int | None]
    target: tuple[int | None, int | None]
    cost_per_hour: float
    why: str


class PlanDifference(Struct, frozen=True):
    """What changed from one plan to another.

    Args:
        before: the first.
        after: the second.
        same_inputs: both solved the same problem, number by number.
        same_scenario: both were made under the same settings and code.
        pools: in the order of the first, those of the second alone after them.
        changed: how many of them have another target.
        cost_per_hour: what the second's targets cost more in an hour.
    """

    before: PlanSide
    after: PlanSide
    same_inputs: bool
    same_scenario: bool
    pools: tuple[PoolDifference, ...]
    changed: int
    cost_per_hour: float


def plan_difference(before: PlanFile, after: PlanFile) -> PlanDifference:
    """What changed."""
    first, second = ({line.pool: line for line in file.pools} for file in (before, after))
    pools = tuple(_pool(name, first.get(name), second.get(name)) for name in dict.fromkeys((*first, *second)))
    sides = _side(before), _side(after)
    return PlanDifference(
        before=sides[0],
        after=sides[1],
        same_inputs=sides[0].input_hash == sides[1].input_hash,
        same_scenario=before.scenario_hash == after.scenario_hash,
        pools=pools,
        changed=sum(one.target[0] != one.target[1] for one in pools),
        cost_per_hour=sides[1].cost_per_hour - sides[0].cost_per_hour,
    )


def _side(file: PlanFile) -> PlanSide:
    cost = sum(line.price_per_hour * line.target for line in file.pools)
    inputs = file.solved.plan.input_hash
    return PlanSide(file.strategy, file.made_at, file.expires_at, inputs, file.scenario_hash, cost, file.currency)


def _pool(name: str, first: PoolLine | None, second: PoolLine | None) -> PoolDifference:
    cost = (second.price_per_hour * second.target if second else 0.0) - (first.price_per_hour * first.target if first else 0.0)
    return PoolDifference(
        name,
        (first.now if first else None, second.now if second else None),
        (first.target if first else None, second.target if second else None),
        cost,
        second.why if second else "",
    )
