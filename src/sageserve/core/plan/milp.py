"""A linear program with whole columns, taken apart where it falls apart, and solved the same way on every machine.

Rows marked `lazy` (stocks, that mostly do not bind) are left out until an answer breaks them; what is left falls into blocks
that share no column, and each is solved alone. The answer is that of the whole program, because rows left out could only make
it dearer. Knows nothing of pools or demand. Read next: `highs.py` for one block; `hourly.py`, the smaller user.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Final

import numpy as np

from sageserve.base.errors import PlanError
from sageserve.core.plan.highs import ProgramArrays, Solution, SolverLimits, minimise

INFINITY: Final = float("inf")
_TOLERANCE: Final = 1e-6  # the solver's own; rows are scaled to factors of about one
_TIGHT: Final = 1e-3  # a lazy row this close to its bound in the relaxation is taken in at once


@dataclass(frozen=True, slots=True)
class _Row:
    columns: tuple[int, ...]
    factors: tuple[float, ...]
    lower: float
    upper: float
    lazy: bool

    def slack(self, values: Sequence[float]) -> float:
        has = sum(factor * values[column] for column, factor in zip(self.columns, self.factors, strict=True))
        return min(has - self.lower, self.upper - has)


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
        self._rows: list[_Row] = []
        self.offset = 0.0

    def column(self, cost: float = 0.0, *, lower: float = 0.0, upper: float = INFINITY, whole: bool = False) -> int:
        """Add a column and give its number."""
        self._columns.append(_Column(cost, lower, upper, whole))
        return len(self._columns) - 1

    def row(
        self,
        columns: Sequence[int],
        factors: Sequence[float],
        *,
        lower: float = -INFINITY,
        upper: float = INFINITY,
        lazy: bool = False,
    ) -> int:
        """Add `lower <= sum(factors x columns) <= upper` and give its number; `lazy` when it will seldom bind."""
        self._rows.append(_Row(tuple(columns), tuple(factors), lower, upper, lazy))
        return len(self._rows) - 1

    def costs(self) -> list[float]:
        """The cost of every column."""
        return [column.cost for column in self._columns]

    def set_costs(self, costs: Sequence[float]) -> None:
        """Replace the cost of every column."""
        for column, cost in zip(self._columns, costs, strict=True):
            column.cost = cost

    @property
    def size(self) -> tuple[int, int, int]:
        """Numbers of rows, columns and factors."""
        return len(self._rows), len(self._columns), sum(len(row.columns) for row in self._rows)

    def cost(self, values: Sequence[float]) -> float:
        """Cost of an answer."""
        return self.offset + sum(column.cost * value for column, value in zip(self._columns, values, strict=True))

    def relaxed(self) -> Solution:
        """The optimum when whole columns may take fractions: no whole answer costs less.

        Raises:
            PlanError: HiGHS is not installed or refuses the program.
        """
        everything = range(len(self._columns))
        return self._joined({0: minimise(self._block(everything, range(len(self._rows)), whole=False))}, {0: list(everything)})

    def solve(self, limits: SolverLimits | None = None, start: Sequence[float] = ()) -> Solution:
        """Find the cheapest answer.

        Args:
            limits: when to stop, for each block; the defaults of `SolverLimits` when not given.
            start: an answer to begin from, one value per column; nothing when empty.

        Raises:
            PlanError: HiGHS is not installed, refuses the program, or finds no answer before its limits.
        """
        limits = limits or SolverLimits()
        if any(not row.columns and row.slack(()) < -_TOLERANCE for row in self._rows):
            return Solution("infeasible")
        taken = {r for r, row in enumerate(self._rows) if not row.lazy}
        lazy = [r for r, row in enumerate(self._rows) if row.lazy]
        if lazy:
            relaxed = self.relaxed()
            if relaxed.status == "infeasible":
                return relaxed
            taken.update(r for r in lazy if self._rows[r].slack(relaxed.values) < _TIGHT)
        known: dict[tuple[int, ...], Solution] = {}
        while True:
            found = self._solve_blocks(taken, limits, start, known)
            broken = [r for r in lazy if r not in taken and found.values and self._rows[r].slack(found.values) < -_TOLERANCE]
            if not broken:
                return found
            taken.update(broken)

    def _solve_blocks(
        self, taken: set[int], limits: SolverLimits, start: Sequence[float], known: dict[tuple[int, ...], Solution]
    ) -> Solution:
        """Solve every block of the taken rows; blocks whose rows are as in an earlier round are not solved again."""
        rows = sorted(taken)
        home = _blocks(len(self._columns), [self._rows[r].columns for r in rows])
        members: dict[int, list[int]] = {}
        for column, block in enumerate(home):
            members.setdefault(block, []).append(column)
        inside: dict[int, list[int]] = {block: [] for block in members}
        for r in rows:
            if self._rows[r].columns:
                inside[home[self._rows[r].columns[0]]].append(r)
        solved: dict[int, Solution] = {}
        for block, columns in members.items():
            key = (columns[0], -1, *inside[block])
            if not inside[block]:
                known[key] = self._alone(columns[0])
            elif key not in known:
                begin = [start[column] for column in columns] if start else []
                known[key] = minimise(self._block(columns, inside[block]), limits, begin)
            solved[block] = known[key]
            if solved[block].status == "infeasible":
                return Solution("infeasible")
        return self._joined(solved, members)

    def _alone(self, number: int) -> Solution:
        """A column that no row holds: at the bound that costs least, or as near to zero as its bounds allow."""
        column = self._columns[number]
        nearest = min(max(0.0, column.lower), column.upper)
        value = nearest if column.cost == 0 else column.lower if column.cost > 0 else column.upper
        if not isfinite(value):
            raise PlanError(f"column {number} makes the cost endlessly small", hint="give it a bound on the side that costs less")
        return Solution("optimal", (value,), column.cost * value, column.cost * value)

    def _block(self, columns: Iterable[int], rows: Iterable[int], *, whole: bool = True) -> ProgramArrays:
        chosen = list(columns)
        place = {column: at for at, column in enumerate(chosen)}
        mine = [self._columns[column] for column in chosen]
        lines = [self._rows[r] for r in rows]
        return ProgramArrays(
            cost=np.array([column.cost for column in mine], np.float64),
            lower=np.array([column.lower for column in mine], np.float64),
            upper=np.array([column.upper for column in mine], np.float64),
            whole=np.array([column.whole and whole for column in mine], np.bool_),
            row_lower=np.array([line.lower for line in lines], np.float64),
            row_upper=np.array([line.upper for line in lines], np.float64),
            starts=np.cumsum([0, *(len(line.columns) for line in lines)]).astype(np.int32),
            index=np.array([place[column] for line in lines for column in line.columns], np.int32),
            value=np.array([factor for line in lines for factor in line.factors], np.float64),
        )

    def _joined(self, solved: dict[int, Solution], members: dict[int, list[int]]) -> Solution:
        if any(one.status == "infeasible" for one in solved.values()):
            return Solution("infeasible")
        values = [0.0] * len(self._columns)
        for block, columns in members.items():
            for column, value in zip(columns, solved[block].values, strict=True):
                values[column] = value
        cost = self.cost(values)
        bound = min(cost, self.offset + sum(one.bound for one in solved.values()))
        limited = any(one.status == "limit" for one in solved.values())
        gap = (cost - bound) / abs(cost) if cost != 0 else 0.0
        return Solution(
            "limit" if limited else "optimal", tuple(values), cost, bound, gap, sum(one.nodes for one in solved.values())
        )


def _blocks(columns: int, rows: Iterable[Sequence[int]]) -> list[int]:
    """For every column the least column it is connected with by rows."""
    parent = list(range(columns))

    def root(column: int) -> int:
        while parent[column] != column:
            parent[column] = parent[parent[column]]
            column = parent[column]
        return column

    for row in rows:
        one = root(row[0]) if row else 0
        for column in row[1:]:
            other = root(column)
            one, away = min(one, other), max(one, other)
            parent[away] = one
    return [root(column) for column in range(columns)]
