"""HiGHS, set up so that its answer depends on the program alone: one thread, a fixed seed, gap and node limits, no wall clock.

HiGHS is loaded by the first solve, so that a run without plans does not pay for it. Knows nothing of what is planned.
Read next: `milp.py`, the only user.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from sageserve.base.errors import PlanError

_Handle: TypeAlias = Any  # objects of highspy, which is annotated in part only
Status: TypeAlias = Literal["optimal", "limit", "infeasible"]
"""`optimal`: proven within the gap. `limit`: the best found before a limit. `infeasible`: there is no answer."""


class SolverLimits(Struct, frozen=True):
    """When to stop looking for a better answer.

    Args:
        gap: largest relative distance to the proven bound.
        gap_cost: largest absolute distance, in units of the objective.
        nodes: largest number of nodes of the search tree.
        effort: share of the work spent on smaller programs inside that may hold better answers; none when 0.
    """

    gap: float = 1e-6
    gap_cost: float = 1e-7
    nodes: int = 2_000
    effort: float = 0.05


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


@dataclass(frozen=True, slots=True)
class ProgramArrays:
    """A program as arrays: f8[columns] costs and bounds, bool[columns] whole, f8[rows] bounds, and the factors row by row."""

    cost: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    whole: NDArray[np.bool_]
    row_lower: NDArray[np.float64]
    row_upper: NDArray[np.float64]
    starts: NDArray[np.int32]
    index: NDArray[np.int32]
    value: NDArray[np.float64]


def minimise(block: ProgramArrays, limits: SolverLimits | None = None, start: Sequence[float] = ()) -> Solution:
    """The cheapest values of a block's columns.

    Raises:
        PlanError: HiGHS is not installed, refuses the program, or finds no answer before its limits.
    """
    if not len(block.cost):
        return Solution("optimal")
    if not (np.isfinite(block.cost).all() and np.isfinite(block.value).all()):
        raise PlanError("the solver was given costs or factors that are not finite", hint="look at prices, rates and uses")
    highspy = _highspy()
    highs = _solver(highspy, limits or SolverLimits())
    _pass(highspy, highs, block)
    if len(start):
        answer = highspy.HighsSolution()
        answer.col_value = list(start)
        highs.setSolution(answer)
    highs.run()
    return _answer(highspy, highs, block)


def _solver(highspy: _Handle, limits: SolverLimits) -> _Handle:
    class Silent(highspy.Highs):  # type: ignore[misc] # a class of highspy, which is annotated in part only
        def enableCallbacks(self) -> None:  # noqa: N802 # its name
            """Be silent first: `__init__` calls this, and HiGHS prints its banner before the first call that sets no option."""
            self.setOptionValue("output_flag", False)
            super().enableCallbacks()

    highs = Silent()
    for option, value in {
        "output_flag": False,
        "threads": 1,
        "parallel": "off",
        "presolve": "on",
        "random_seed": 0,
        "mip_rel_gap": limits.gap,
        "mip_abs_gap": limits.gap_cost,
        "mip_max_nodes": limits.nodes,
        "mip_heuristic_effort": limits.effort,
        "mip_heuristic_run_feasibility_jump": limits.effort > 0,
        "mip_heuristic_run_rins": limits.effort > 0,
        "mip_heuristic_run_rens": limits.effort > 0,
        "mip_heuristic_run_root_reduced_cost": limits.effort > 0,
    }.items():
        highs.setOptionValue(option, value)
    return highs


def _pass(highspy: _Handle, highs: _Handle, block: ProgramArrays) -> None:
    status = highs.passModel(
        len(block.cost),
        len(block.row_lower),
        len(block.value),
        int(highspy.MatrixFormat.kRowwise),
        int(highspy.ObjSense.kMinimize),
        0.0,
        block.cost,
        block.lower,
        block.upper,
        block.row_lower,
        block.row_upper,
        block.starts[:-1],
        block.index,
        block.value,
        block.whole.astype(np.int32),
    )
    if status == highspy.HighsStatus.kError:
        raise PlanError("the solver refuses the program", hint="look for numbers that are not finite")


def _answer(highspy: _Handle, highs: _Handle, block: ProgramArrays) -> Solution:
    statuses, status, info = highspy.HighsModelStatus, highs.getModelStatus(), highs.getInfo()
    if status in {statuses.kInfeasible, statuses.kUnboundedOrInfeasible}:
        return Solution("infeasible")
    if int(info.primal_solution_status) != int(highspy.SolutionStatus.kSolutionStatusFeasible):
        raise PlanError(
            f"the solver stopped without an answer: {highs.modelStatusToString(status)}",
            hint="keep the numbers of before, or raise the node limit",
        )
    values = np.array(highs.getSolution().col_value, np.float64)
    values[block.whole] = np.rint(values[block.whole])
    cost = float(block.cost @ values)
    whole = bool(block.whole.any())
    return Solution(
        "optimal" if status == statuses.kOptimal else "limit",
        tuple(values.tolist()),
        cost,
        min(cost, float(info.mip_dual_bound)) if whole else cost,
        max(0.0, float(info.mip_gap)) if whole else 0.0,
        max(0, int(info.mip_node_count)),
    )


def _highspy() -> _Handle:
    try:
        import highspy  # noqa: PLC0415  # loaded late: a run without plans does not need its 20 MB
    except ImportError as error:
        raise PlanError(
            "plans need the solver HiGHS, and the package highspy is not installed", hint="pip install highspy"
        ) from error
    return highspy
