"""The paper's integer program against trying everything, and what a plan says about itself."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings

from sageserve.base.errors import PlanError
from sageserve.core.plan.highs import SolverLimits
from sageserve.core.plan.hourly import Plan, solve
from sageserve.core.plan.hourly_rows import HourlyProblem, windows
from sageserve.core.plan.milp import Program
from tests.core.plan_cases import candidates, cost, missing, pool, problem, problems

NEAR = 1e-2  # dollars per hour: ties are broken by a millionth of the prices


@given(problems())
@settings(max_examples=150)
def test_plan_is_as_good_as_the_best_of_all_numbers(case: HourlyProblem) -> None:
    plan = solve(case)
    best = min((missing(case, x), cost(case, x)) for x in candidates(case))
    assert plan.target in set(candidates(case))
    assert missing(case, plan.target) == pytest.approx(best[0], rel=1e-5, abs=1e-2)
    cheapest = min(cost(case, x) for x in candidates(case) if missing(case, x) <= best[0] * (1 + 1e-5) + 1e-2)
    assert cost(case, plan.target) == pytest.approx(cheapest, abs=NEAR)
    assert bool(plan.short) == (best[0] > 1e-2)


@given(problems())
def test_plan_reports_its_own_figures(case: HourlyProblem) -> None:
    plan = solve(case)
    assert plan.objective == pytest.approx(cost(case, plan.target), abs=1e-9)
    assert plan.objective == pytest.approx(plan.cost_per_hour_after - plan.cost_per_hour_before + plan.start_cost)
    assert plan.delta == tuple(x - one.now for x, one in zip(plan.target, case.pools, strict=True))
    assert all(one.slack >= -1e-2 for one in plan.constraints) != bool(plan.short)
    assert plan.status == "optimal"
    # a plan that costs nothing has only what breaks ties, of which the solver's absolute gap of 1e-8 is a larger share
    assert plan.gap <= (1e-6 if abs(plan.objective) > 1e-2 else 1e-4)


@given(problems())
def test_same_problem_gives_the_same_bytes(case: HourlyProblem) -> None:
    again = msgspec.json.decode(msgspec.json.encode(case), type=HourlyProblem)
    first, second = msgspec.json.encode(solve(case)), msgspec.json.encode(solve(again))
    assert first == second
    assert msgspec.json.decode(first, type=Plan) == solve(case)


@given(problems())
def test_more_demand_is_never_cheaper(case: HourlyProblem) -> None:
    more = tuple(tuple(tuple(1.3 * rate for rate in row) for row in window) for window in case.demand)
    one, other = solve(case), solve(msgspec.structs.replace(case, demand=more))
    if not one.short and not other.short:
        assert other.objective >= one.objective - NEAR
    if one.short:
        assert other.short


@given(problems())
def test_what_binds_breaks_with_one_instance_less(case: HourlyProblem) -> None:
    plan = solve(case)
    for one in plan.constraints:
        if one.kind in {"demand", "total demand"} and one.binds and not plan.short:
            model = one.name.rpartition("/")[2].rpartition(" ")[2]
            used = [p for p, x in zip(case.pools, plan.target, strict=True) if case.models[p.model] == model and x]
            assert one.slack < max((p.theta for p in used), default=0.0) + 1e-2


def test_hand_worked() -> None:
    # 4,500 tokens/s at 1,000 each: five instances; the east alone must hold 0.8 x 3,000, so three of them are there.
    case = problem(demand=((3000.0,), (1500.0,)), pools=(pool(0, 0, now=1, price=100.0), pool(1, 0, now=4, price=99.0)))
    plan = solve(case)
    assert plan.target == (3, 2)
    assert plan.delta == (2, -2)
    assert plan.cost_per_hour_before == 100 + 4 * 99
    assert plan.cost_per_hour_after == 300 + 2 * 99
    assert set(plan.binding) >= {"demand east/big", "total demand big"}
    assert plan.statement == ""


def test_start_cost_keeps_a_dearer_instance() -> None:
    pools = (pool(0, 0, now=2, price=100.0), pool(1, 0, now=0, price=90.0, start=30.0))
    assert solve(problem(demand=((0.0,), (0.0,)), pools=pools, minimum=0)).target == (0, 0)
    stays = problem(demand=((2000.0,), (0.0,)), pools=pools)
    assert solve(msgspec.structs.replace(stays, epsilon=0.0)).target == (2, 0)
    cheap = (pools[0], msgspec.structs.replace(pools[1], start_cost=5.0))
    assert solve(msgspec.structs.replace(stays, epsilon=0.0, pools=cheap)).target == (0, 2)


def test_shortage_is_stated_with_place_and_amount() -> None:
    case = problem(demand=((5000.0,), (1000.0,)), pools=(pool(0, 0, now=1), pool(1, 0, now=0)), free=(0, 8))
    plan = solve(case)
    assert plan.target == (1, 1)
    assert "total demand big: 4,000 of 6,000 tokens/s missing" in plan.statement
    assert "demand east/big: 3,000 of 4,000 tokens/s missing" in plan.statement
    assert "stock east/h100" in plan.binding
    assert {one.constraint for one in plan.short} == {"total demand big", "demand east/big"}


def test_equal_pools_are_chosen_in_order_and_what_runs_stays() -> None:
    even = problem(demand=((1000.0,), (1000.0,)), pools=(pool(0, 0), pool(1, 0)))
    assert solve(msgspec.structs.replace(even, epsilon=0.0)).target == (2, 0)
    runs = problem(demand=((1000.0,), (1000.0,)), pools=(pool(0, 0), pool(1, 0, now=2)))
    assert solve(msgspec.structs.replace(runs, epsilon=0.0)).target == (0, 2)


def test_weight_decides_who_goes_short() -> None:
    pools = (pool(0, 0), pool(0, 1))
    case = problem(demand=((1000.0, 1000.0),), pools=pools, free=(8,))
    for weight, target in (((3.0, 1.0), (1, 0)), ((1.0, 3.0), (0, 1))):
        assert solve(msgspec.structs.replace(case, weight=weight)).target == target


def test_windows_of_an_array() -> None:
    assert windows(np.array([[1.0, 2.0]])) == (((1.0, 2.0),),)
    assert windows(np.ones((2, 1, 1))) == (((1.0,),), ((1.0,),))


@pytest.mark.parametrize("change", [{"epsilon": 1.5}, {"buffer": ()}, {"demand": ()}, {"demand": (((float("nan"),),),)}])
def test_malformed_problems_are_refused(change: dict[str, object]) -> None:
    case = problem(demand=((1000.0,),), pools=(pool(0, 0),))
    with pytest.raises(PlanError, match="not well formed"):
        solve(msgspec.structs.replace(case, **change))


def test_pinned_beyond_stock_is_an_error_not_a_plan() -> None:
    pinned = msgspec.structs.replace(pool(0, 0), lowest=3)
    with pytest.raises(PlanError, match="no numbers of instances"):
        solve(problem(demand=((1000.0,),), pools=(pinned,), free=(8,)))


def test_node_limit_still_answers_and_says_so() -> None:
    program = Program()
    columns = [program.column(cost=100 + 7 * k % 13, upper=9, whole=True) for k in range(40)]
    for at in range(36):
        program.row(columns[at : at + 5], [3.0, 5.0, 7.0, 11.0, 13.0], lower=61.0 + at % 7)
    found = program.solve(SolverLimits(gap=0.0, gap_cost=0.0, nodes=1))
    assert found.status in {"limit", "optimal"}
    assert found.bound <= found.objective + 1e-6
    assert all(value == round(value) for value in found.values)
