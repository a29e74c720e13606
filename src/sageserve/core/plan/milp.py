"""A linear program with whole columns, taken apart where it falls apart, and solved the same way on every machine.

Rows marked `lazy` (stocks, that mostly do not bind) are left out until an answer breaks them; what is left falls into blocks
that share no column, and each is solved alone. The answer is that of the whole program, because rows left out could only make
it dearer. Knows nothing of pools or demand. Read next: `highs.py` for one block; `hourly.py`, the smaller user.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite
from operator import mul
from typing import Final

import numpy as np

from sageserve.base.errors import PlanError
from sageserve.base.records import Ints
from sageserve.core.plan.highs import ProgramArrays, Solution, SolverLimits, minimise

INFINITY: Final = float("inf")
_TOLERANCE: Final = 1e-6  # the solver's own; rows are scaled to factors of about one
_TIGHT: Final = 1e-3  # a lazy row this close to its bound in the relaxation is taken in at once


class Program:
    """Minimise cost over columns between bounds, subject to rows between bounds. Columns and rows are numbered as added."""

    def __init__(self) -> None:
        self._costs: list[float] = []  # and bounds of columns
        self._least: list[float] = []
        self._most: list[float] = []
        self._whole: list[bool] = []
        self._lower: list[float] = []  # of rows
        self._upper: list[float] = []
        self._lazy: list[int] = []
        self._starts: list[int] = [0]  # where a row's columns and factors begin, and where those of the last one end
        self._index: list[int] = []
        self._factors: list[float] = []
        self.offset = 0.0

    def column(self, cost: float = 0.0, *, lower: float = 0.0, upper: float = INFINITY, whole: bool = False) -> int:
        """Add a column and give its number."""
        self._costs.append(cost)
        self._least.append(lower)
        self._most.append(upper)
        self._whole.append(whole)
        return len(self._costs) - 1

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
        self._index += columns
        self._factors += factors
        self._starts.append(len(self._index))
        self._lower.append(lower)
        self._upper.append(upper)
        if lazy:
            self._lazy.append(len(self._lower) - 1)
        return len(self._lower) - 1

    def costs(self) -> list[float]:
        """The cost of every column."""
        return list(self._costs)

    def set_costs(self, costs: Sequence[float]) -> None:
        """Replace the cost of every column."""
        self._costs = [cost for _, cost in zip(self._costs, costs, strict=True)]

    @property
    def size(self) -> tuple[int, int, int]:
        """Numbers of rows, columns and factors."""
        return len(self._lower), len(self._costs), len(self._index)

    def cost(self, values: Sequence[float]) -> float:
        """Cost of an answer."""
        return self.offset + sum(map(mul, self._costs, values))

    def _slack(self, row: int, values: Sequence[float]) -> float:
        """How far a row is from its nearer bound."""
        here = slice(self._starts[row], self._starts[row + 1])
        has = sum(map(mul, self._factors[here], [values[column] for column in self._index[here]]))
        return min(has - self._lower[row], self._upper[row] - has)

    def _roomy(self, row: int, values: Sequence[float]) -> bool:
        """Whether a row has room for one more of all its columns: then rounding them cannot have brought it there."""
        return self._slack(row, values) >= sum(map(abs, self._factors[self._starts[row] : self._starts[row + 1]]))

    def relaxed(self) -> Solution:
        """The optimum when whole columns may take fractions: no whole answer costs less.

        Raises:
            PlanError: HiGHS is not installed or refuses the program.
        """
        program = self._arrays()
        return self._joined({0: minimise(replace(program, whole=np.zeros_like(program.whole)))}, {0: np.arange(len(self._costs))})

    def solve(self, limits: SolverLimits | None = None, start: Sequence[float] = (), *, ample: bool = False) -> Solution:
        """Find the cheapest answer.

        Args:
            limits: when to stop, for each block; the defaults of `SolverLimits` when not given.
            start: an answer to begin from, one value per column; nothing when empty.
            ample: lazy rows will probably have room to spare. Where an answer without them leaves it, no relaxation is solved
                to find those that bind; where it does not, that answer was made in vain.

        Raises:
            PlanError: HiGHS is not installed, refuses the program, or finds no answer before its limits.
        """
        limits = limits or SolverLimits()
        ends = zip(self._starts, self._starts[1:], self._lower, self._upper, strict=False)
        if any(begin == end and min(-lower, upper) < -_TOLERANCE for begin, end, lower, upper in ends):
            return Solution("infeasible")
        known: dict[tuple[int, ...], Solution] = {}
        lazy, taken = self._lazy, set(range(len(self._lower))).difference(self._lazy)
        if lazy and ample:
            found = self._solve_blocks(taken, limits, start, known)
            if found.status == "infeasible" or all(self._roomy(r, found.values) for r in lazy):
                return found
        if lazy:
            relaxed = self.relaxed()
            if relaxed.status == "infeasible":
                return relaxed
            taken.update(r for r in lazy if self._slack(r, relaxed.values) < _TIGHT)
        while True:
            found = self._solve_blocks(taken, limits, start, known)
            broken = [r for r in lazy if r not in taken and found.values and self._slack(r, found.values) < -_TOLERANCE]
            if not broken:
                return found
            taken.update(broken)

    def _solve_blocks(
        self, taken: set[int], limits: SolverLimits, start: Sequence[float], known: dict[tuple[int, ...], Solution]
    ) -> Solution:
        """Solve every block of the taken rows; blocks whose rows are as in an earlier round are not solved again."""
        program, rows = self._arrays(), np.array(sorted(taken), np.int64)
        home = _homes(program, rows)
        order = np.argsort(home, kind="stable")
        parts = np.split(order, np.flatnonzero(np.diff(home[order])) + 1)
        members = {int(home[columns[0]]): columns for columns in parts if len(columns)}
        inside: dict[int, list[int]] = {block: [] for block in members}
        filled = rows[program.starts[rows] < program.starts[rows + 1]]
        for r, block in zip(filled.tolist(), home[program.index[program.starts[filled]]].tolist(), strict=True):
            inside[block].append(r)
        solved: dict[int, Solution] = {}
        for block, columns in members.items():
            key = (block, -1, *inside[block])
            if not inside[block]:
                known[key] = self._alone(block)
            elif key not in known:
                begin = [start[column] for column in columns.tolist()] if len(start) else []
                known[key] = minimise(_part(program, columns, np.array(inside[block], np.int64)), limits, begin)
            solved[block] = known[key]
            if solved[block].status == "infeasible":
                return Solution("infeasible")
        return self._joined(solved, members)

    def _arrays(self) -> ProgramArrays:
        return ProgramArrays(
            cost=np.array(self._costs, np.float64),
            lower=np.array(self._least, np.float64),
            upper=np.array(self._most, np.float64),
            whole=np.array(self._whole, np.bool_),
            row_lower=np.array(self._lower, np.float64),
            row_upper=np.array(self._upper, np.float64),
            starts=np.array(self._starts, np.int32),
            index=np.array(self._index, np.int32),
            value=np.array(self._factors, np.float64),
        )

    def _alone(self, number: int) -> Solution:
        """A column that no row holds: at the bound that costs least, or as near to zero as its bounds allow."""
        cost, lower, upper = self._costs[number], self._least[number], self._most[number]
        nearest = min(max(0.0, lower), upper)
        value = nearest if cost == 0 else lower if cost > 0 else upper
        if not isfinite(value):
            raise PlanError(f"column {number} makes the cost endlessly small", hint="give it a bound on the side that costs less")
        return Solution("optimal", (value,), cost * value, cost * value)

    def _joined(self, solved: dict[int, Solution], members: dict[int, Ints]) -> Solution:
        if any(one.status == "infeasible" for one in solved.values()):
            return Solution("infeasible")
        joined = np.zeros(len(self._costs))
        for block, columns in members.items():
            joined[columns] = solved[block].values
        values = tuple(joined.tolist())
        cost = self.cost(values)
        bound = min(cost, self.offset + sum(one.bound for one in solved.values()))
        limited = any(one.status == "limit" for one in solved.values())
        gap = (cost - bound) / abs(cost) if cost != 0 else 0.0
        return Solution("limit" if limited else "optimal", values, cost, bound, gap, sum(one.nodes for one in solved.values()))


def _places(program: ProgramArrays, rows: Ints) -> tuple[Ints, Ints]:
    """Where the columns and factors of some rows are, row by row, and how many each row has."""
    lengths = (program.starts[rows + 1] - program.starts[rows]).astype(np.int64)
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(program.starts[rows] - (ends - lengths), lengths), lengths


def _part(program: ProgramArrays, columns: Ints, rows: Ints) -> ProgramArrays:
    """Some columns of a program, and rows that hold no others."""
    renamed = np.zeros(len(program.cost), np.int32)
    renamed[columns] = np.arange(len(columns))
    places, lengths = _places(program, rows)
    return ProgramArrays(
        cost=program.cost[columns],
        lower=program.lower[columns],
        upper=program.upper[columns],
        whole=program.whole[columns],
        row_lower=program.row_lower[rows],
        row_upper=program.row_upper[rows],
        starts=np.cumsum([0, *lengths.tolist()]).astype(np.int32),
        index=renamed[program.index[places]],
        value=program.value[places],
    )


def _homes(program: ProgramArrays, rows: Ints) -> Ints:
    """For every column the least column that it is connected with by some rows."""
    places, lengths = _places(program, rows)
    index, lengths = program.index[places], lengths[lengths > 0]
    home, begins = np.arange(len(program.cost)), np.cumsum(lengths) - lengths
    while len(begins):
        before = home.copy()
        np.minimum.at(home, index, np.repeat(np.minimum.reduceat(home[index], begins), lengths))
        home = home[home]
        if np.array_equal(home, before):
            break
    return home
