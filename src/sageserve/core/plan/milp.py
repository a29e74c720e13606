"""A linear program with integer columns, solved by HiGHS the same way on every machine.

One thread, a fixed seed, gap and node limits instead of wall-clock limits: the answer depends on the program alone. Knows
nothing of pools or demand. HiGHS is loaded by the first solve, so that a run without plans does not pay for it.
Read next: `paper.py`, the smaller user.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from msgspec import Struct

from sageserve.base.errors import PlanError

INFINITY: Final = float("inf")
_Handle: TypeAlias = Any  # objects of highspy, which is annotated in part only
Status: TypeAlias = Literal["optimal", "limit", "infeasible"]
"""`optimal`: proven within the gap. `limit`: the best found before a limit. `infeasible`: there is no answer."""


class Limits(Struct, frozen=True):
    """When to stop looking for a better answer.

    Args:
        gap: largest relative distance to the proven bound.
        gap_cost: largest absolute distance, in units of the objective.
        nodes: largest number of nodes of the search tree.
    """

    gap: float = 1e-6  # a plan of $10,000 an hour is proven to a cent
    gap_cost: float = 1e-7
    nodes: int = 2_000  # the root already finds good plans; this bounds the proof


class Solution(Struct, frozen=True):
    """What the solver found.

    Args:
        status: see `Status`.
        values: one per column; empty when infeasible.
        objective: cost of the values.
        bound: no answer costs less.
        gap: relative distance of the two.
        nodes: nodes of the search tree looked at.
    """

    status: Status
    values: tuple[float, ...] = ()
    objective: float = 0.0
    bound: float = 0.0
    gap: float = 0.0
    nodes: int = 0


@dataclass(slots=True)
class _Column:
    cost: float
    lower: float
    upper: float
    whole: bool


class Program:
    """Minimise cost over columns between bounds, subject to rows between bounds. Columns and rows are numbered as added."""

    def __init__(self) -> None:
        self._columns: list[_Column] = []
        self._lower: list[float] = []
        self._upper: list[float] = []
        self._starts: list[int] = [0]
        self._index: list[int] = []
        self._value: list[float] = []

    def column(self, cost: float = 0.0, *, lower: float = 0.0, upper: float = INFINITY, whole: bool = False) -> int:
        """Add a column and give its number."""
        self._columns.append(_Column(cost, lower, upper, whole))
        return len(self._columns) - 1

    def row(self, columns: Sequence[int], factors: Sequence[float], *, lower: float = -INFINITY, upper: float = INFINITY) -> int:
        """Add `lower <= sum(factors x columns) <= upper` and give its number."""
        self._index.extend(columns)
        self._value.extend(factors)
        self._starts.append(len(self._index))
        self._lower.append(lower)
        self._upper.append(upper)
        return len(self._lower) - 1

    def costs(self) -> list[float]:
        """The cost of every column."""
        return [column.cost for column in self._columns]

    def set_cost(self, column: int, cost: float) -> None:
        """Replace the cost of one column."""
        self._columns[column].cost = cost

    def set_costs(self, costs: Sequence[float]) -> None:
        """Replace the cost of every column."""
        for column, cost in zip(self._columns, costs, strict=True):
            column.cost = cost

    def relax(self) -> None:
        """Let whole columns take fractions: what is left is a linear program, whose optimum no whole answer beats."""
        for column in self._columns:
            column.whole = False

    @property
    def size(self) -> tuple[int, int, int]:
        """Numbers of rows, columns and factors."""
        return len(self._lower), len(self._columns), len(self._value)

    def cost(self, values: Sequence[float]) -> float:
        """Cost of an answer."""
        return sum(column.cost * value for column, value in zip(self._columns, values, strict=True))

    def solve(self, limits: Limits | None = None, start: Sequence[float] = ()) -> Solution:
        """Find the cheapest answer.

        Args:
            limits: when to stop; the defaults of `Limits` when not given.
            start: an answer to begin from, one value per column; nothing when empty.

        Raises:
            PlanError: HiGHS is not installed, refuses the program, or finds no answer before its limits.
        """
        if not self._columns:
            return Solution("optimal")
        highs = _solver(limits or Limits())
        self._pass(highs)
        if start:
            answer = _highspy().HighsSolution()
            answer.col_value = list(start)
            highs.setSolution(answer)
        highs.run()
        return self._answer(highs)

    def _pass(self, highs: _Handle) -> None:
        rows, columns, factors = self.size
        error = _highspy().HighsStatus.kError
        whole = np.array([column.whole for column in self._columns], np.int32)
        status = highs.passModel(
            columns,
            rows,
            factors,
            2,  # the matrix comes row by row
            1,  # minimise
            0.0,
            np.array([column.cost for column in self._columns], np.float64),
            np.array([column.lower for column in self._columns], np.float64),
            np.array([column.upper for column in self._columns], np.float64),
            np.array(self._lower, np.float64),
            np.array(self._upper, np.float64),
            np.array(self._starts[:-1], np.int32),
            np.array(self._index, np.int32),
            np.array(self._value, np.float64),
            whole,
        )
        if status == error:
            raise PlanError("the solver refuses the program", hint="look for numbers that are not finite")

    def _answer(self, highs: _Handle) -> Solution:
        statuses = _highspy().HighsModelStatus
        status, info = highs.getModelStatus(), highs.getInfo()
        if status in {statuses.kInfeasible, statuses.kUnboundedOrInfeasible}:
            return Solution("infeasible")
        found = info.primal_solution_status == int(_highspy().SolutionStatus.kSolutionStatusFeasible)
        if not found:
            raise PlanError(
                f"the solver stopped without an answer: {highs.modelStatusToString(status)}",
                hint="keep the numbers of before, or raise the node limit",
            )
        values = np.array(highs.getSolution().col_value)
        whole = np.array([column.whole for column in self._columns])
        values[whole] = np.rint(values[whole])
        integer = bool(whole.any())
        cost = self.cost(values.tolist())
        return Solution(
            "optimal" if status == statuses.kOptimal else "limit",
            tuple(values.tolist()),
            cost,
            float(info.mip_dual_bound) if integer else cost,
            max(0.0, float(info.mip_gap)) if integer else 0.0,
            max(0, int(info.mip_node_count)),
        )


def _solver(limits: Limits) -> _Handle:
    highs = _highspy().Highs()
    for option, value in {
        "output_flag": False,
        "threads": 1,
        "parallel": "off",
        "presolve": "on",
        "random_seed": 0,
        "mip_rel_gap": limits.gap,
        "mip_abs_gap": limits.gap_cost,
        "mip_max_nodes": limits.nodes,
    }.items():
        highs.setOptionValue(option, value)
    return highs


def _highspy() -> _Handle:
    try:
        import highspy  # noqa: PLC0415  (loaded late: 0.1 s and 20 MB that a run without plans does not need)
    except ImportError as error:
        raise PlanError(
            "plans need the solver HiGHS, and the package highspy is not installed", hint="pip install highspy"
        ) from error
    return highspy
