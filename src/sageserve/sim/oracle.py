"""A bound, not a policy: the least capacity that could have served a trace, with perfect knowledge of its demand.

Per model, all regions together, in steps of 15 minutes and fractions of instances: no start takes time, nothing is stopped in
vain, batch work lies where it costs least between its arrival and its deadline (or the end of the window: what arrives in the
window is done in it). An instance is as busy as it may be within the tightest promise (`core/theta.py`), with the queue
that all of a model's instances share; every endpoint keeps its minimum. No strategy that keeps the promises can hold less.
"""

from typing import Any, Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from sageserve.base.config import Scenario
from sageserve.base.kernel import kernel
from sageserve.base.records import UNSET, Floats, Trace
from sageserve.base.units import HOUR, MINUTE, Micros
from sageserve.core.layout import Layout, lay_out, unified_roles
from sageserve.core.perf import decode_work, iteration_time, prefill_work
from sageserve.core.plan.milp import Program
from sageserve.core.theta import sustainable

STEP: Final[Micros] = 15 * MINUTE
_MISSES: Final = 0.01  # share that queueing may make late: that of the strategies that plan
_LEAST_SLACK: Final = 0.25  # of the target, as there


class Bound(Struct, frozen=True):
    """The oracle's answer.

    Args:
        gpu_hours: at least, over the window.
        models: the same by model.
        loads: the load an instance of each model was allowed.
    """

    gpu_hours: float
    models: dict[str, float]
    loads: dict[str, float]


def oracle_bound(scenario: Scenario, trace: Trace) -> Bound:
    """The least GPU-hours within the trace's window.

    Args:
        scenario: fleet, tiers and profiles.
        trace: codes are those of the scenario's names in order.
    """
    layout = lay_out(scenario, unified_roles(scenario), (scenario.fleet.minimum,))
    reference = [_reference(layout, m) for m in range(len(layout.names.models))]
    steps = int(-(-trace.window // STEP))
    work = _work(trace, layout, np.array(reference), steps)
    hours, loads = {}, {}
    for m, model in enumerate(layout.names.models):
        gpus = int(layout.profiles[reference[m]]["gpus"])
        load = _load(scenario, trace, layout, model=m, busy=float(work[m].sum()) / trace.window)
        floor = scenario.fleet.minimum * len({pool.endpoint for pool in layout.pools if pool.model == m})
        arrived, due = _batch(trace, layout, m, work=work, steps=steps)
        hours[model] = _least(work[m, 0] / STEP, arrived / STEP, due / STEP, load=load, floor=floor) * (STEP / HOUR) * gpus
        loads[model] = load
    return Bound(sum(hours.values()), hours, loads)


def _least(interactive: Floats, arrived: Floats, due: Floats, *, load: float, floor: int) -> float:
    """Least sum of instances over the steps.

    Args:
        interactive: float64[steps], busy instances.
        arrived: float64[steps], batch work that is there from this step on, busy instances x steps.
        due: float64[steps], batch work that must be done by the end of this step.
        load: share of its time an instance may be busy.
        floor: instances at least.
    """
    program = Program()
    there, owed = np.cumsum(arrived), np.cumsum(due)
    before = -1
    for step in range(len(interactive)):
        held = program.column(1.0, lower=max(float(floor), float(interactive[step]) / load))
        last = step == len(interactive) - 1
        done = program.column(lower=float(there[-1] if last else owed[step]), upper=float(there[step]))
        columns, factors = [held, done], [load, -1.0]
        if before >= 0:
            columns, factors = [*columns, before], [*factors, 1.0]
        program.row(columns, factors, lower=float(interactive[step]))
        if before >= 0:
            program.row([done, before], [1.0, -1.0], lower=0.0)
        before = done
    return program.solve().objective


def _work(trace: Trace, layout: Layout, reference: NDArray[Any], steps: int) -> Floats:
    """float64[models, 2, steps]: engine microseconds of interactive and batch requests by step of arrival."""
    work = np.zeros((len(layout.names.models), 2, steps))
    batch = layout.tiers["batch"][trace.tier].astype(np.uint8)
    _add_work(trace.arrival, trace.prompt, trace.output, trace.model, batch, (layout.profiles[reference], work))
    return work


@kernel
def _add_work(
    arrival: NDArray[Any],
    prompt: NDArray[Any],
    output: NDArray[Any],
    model: NDArray[Any],
    batch: NDArray[Any],
    profiles_and_work: tuple[NDArray[Any], Floats],
) -> None:
    profiles, work = profiles_and_work
    for q in range(len(arrival)):
        profile = profiles[model[q]]
        engine = prefill_work(profile, prompt[q]) + decode_work(profile, prompt[q], float(output[q]))
        work[model[q], batch[q], arrival[q] // STEP] += engine


def _batch(trace: Trace, layout: Layout, model: int, *, work: Floats, steps: int) -> tuple[Floats, Floats]:
    """Batch work by the step from which it is there, and by the step in which it must be done (the last at the latest)."""
    arrived = work[model, 1]
    due = np.zeros(steps)
    patience = [int(row["patience"]) for row in layout.tiers if row["batch"]]
    late = min(patience, default=0) // STEP
    for step in np.nonzero(arrived)[0]:
        due[min(max(int(step) + late - 1, int(step)), steps - 1)] += arrived[step]
    if trace.deadline is not None and bool((trace.deadline != UNSET).any()):
        own = _own_deadlines(trace, layout, model)
        due = due * (1 - own) + arrived * own  # requests with deadlines of their own: no later than they arrive in doubt
    return arrived, due


def _own_deadlines(trace: Trace, layout: Layout, model: int) -> float:
    """Share of a model's batch requests that carry their own deadline."""
    mine = (trace.model == model) & layout.tiers["batch"][trace.tier].astype(bool)
    if trace.deadline is None or not bool(mine.any()):
        return 0.0
    return float((trace.deadline[mine] != UNSET).mean())


def _load(scenario: Scenario, trace: Trace, layout: Layout, *, model: int, busy: float) -> float:
    """The load an instance may have when all instances of the model share one queue."""
    mine = trace.model == model
    if not bool(mine.any()):
        return 1.0
    profile = layout.profiles[_reference(layout, model)]
    prompt = int(trace.prompt[mine].mean())
    targets = [tier.patience for tier in scenario.tiers.values() if not tier.batch]
    if not targets:
        return 1.0
    target = min(targets)
    slack = max(target - iteration_time(profile, float(prompt), 0.5 * prompt * float(prompt), 0, 0), _LEAST_SLACK * target)
    service = prefill_work(profile, prompt) + decode_work(profile, prompt, float(trace.output[mine].mean()))
    return sustainable(max(1, round(busy)), service_us=service, slack_us=slack, misses=_MISSES).load


def _reference(layout: Layout, model: int) -> int:
    rows = {pool.profile for pool in layout.pools if pool.model == model}
    return min(rows, key=lambda row: (int(layout.profiles[row]["weight"]), row))
