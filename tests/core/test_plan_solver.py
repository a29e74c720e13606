"""Programs taken apart: blocks and lazy rows give the answer of the whole, and an absent solver is said plainly."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sageserve.base.errors import PlanError
from sageserve.base.rng import stream
from sageserve.core.plan.highs import SolverLimits
from sageserve.core.plan.hourly import solve
from sageserve.core.plan.milp import Program
from tests.core.plan_cases import pool, problem


def knapsacks(seed: int, *, groups: int, lazy: bool, room: float) -> Program:
    """Some covers that share nothing but one packing row."""
    draw = stream(seed, "test-plan-solver")
    program, everything = Program(), []
    for _ in range(groups):
        columns = [program.column(float(draw.integers(5, 40)), upper=6, whole=True) for _ in range(3)]
        program.row(columns, [float(x) for x in draw.integers(2, 12, 3)], lower=float(draw.integers(5, 60)))
        everything += columns
    program.column(-1.0, upper=2.5)  # held by no row
    program.row(everything, [1.0] * len(everything), upper=room, lazy=lazy)
    return program


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(3, 30))
def test_taken_apart_costs_the_same(seed: int, groups: int, room: int) -> None:
    exact = SolverLimits(gap=0.0, gap_cost=1e-9)
    apart = knapsacks(seed, groups=groups, lazy=True, room=room).solve(exact, ample=seed % 2 == 0)
    whole = knapsacks(seed, groups=groups, lazy=False, room=room).solve(exact)
    assert apart.status == whole.status
    assert apart.objective == pytest.approx(whole.objective, abs=1e-6)
    if apart.values:
        assert sum(apart.values[:-1]) <= room + 1e-6
        assert apart.values[-1] == 2.5
        assert apart.bound <= apart.objective


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_columns_that_rows_tie_together_are_one_block(seed: int) -> None:
    draw, exact, programs = stream(seed, "test-plan-blocks"), SolverLimits(gap=0.0, gap_cost=1e-9), (Program(), Program())
    count = int(draw.integers(2, 12))
    costs = draw.integers(1, 9, count).tolist()
    rows = [
        draw.choice(count, int(draw.integers(1, 4)), replace=len(costs) < 4).tolist() for _ in range(int(draw.integers(0, 8)))
    ]
    for program in programs:
        for cost in costs:
            program.column(cost, upper=3, whole=True)
        for number, row in enumerate(rows):
            program.row(sorted(set(row)), [1.0] * len(set(row)), lower=1.5 + number % 2)
    programs[1].row(range(count), [1.0] * count, upper=3.0 * count)  # binds nothing, and makes them all one
    apart, one = (program.solve(exact) for program in programs)
    assert apart.status == one.status
    assert apart.objective == pytest.approx(one.objective)


def test_room_to_spare_is_found_without_the_relaxation(monkeypatch: pytest.MonkeyPatch) -> None:
    program = knapsacks(1, groups=3, lazy=True, room=100)
    careful = program.solve()
    monkeypatch.setattr(Program, "relaxed", None)
    assert program.solve(ample=True) == careful


def test_offset_and_fixed_rows() -> None:
    program = Program()
    program.offset = 7.0
    x = program.column(2.0, upper=4, whole=True)
    program.row([x], [1.0], lower=2.5)
    assert program.solve().objective == 13.0
    assert program.relaxed().objective == 12.0
    program.row([], [], lower=1.0)
    assert program.solve().status == "infeasible"


def test_endless_savings_are_an_error() -> None:
    program = Program()
    program.column(-1.0)
    with pytest.raises(PlanError, match="endlessly"):
        program.solve()


def test_numbers_that_are_not_finite_are_refused() -> None:
    program = Program()
    x = program.column(float(np.nan), upper=1)
    program.row([x], [1.0], lower=0.5)
    with pytest.raises(PlanError, match="solver"):
        program.solve()


def test_absent_solver_is_said_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "highspy", None)
    with pytest.raises(PlanError, match="highspy is not installed") as error:
        solve(problem(demand=((1000.0,),), pools=(pool(0, 0),)))
    assert error.value.hint == "pip install highspy"


def test_the_solver_prints_nothing() -> None:
    """HiGHS writes its banner from C, past `sys.stdout`: only a process of its own shows what reaches the descriptor."""
    code = (
        "from sageserve.core.plan.milp import Program\n"
        "program = Program()\n"
        "program.row([program.column(2.0, upper=4, whole=True)], [1.0], lower=2.5)\n"
        "assert program.solve().objective == 6.0"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("", "")
