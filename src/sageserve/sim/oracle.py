"""A bound, not a policy: the least capacity that could have served a trace, with perfect knowledge of its demand.

Per model, all regions together, in steps of 15 minutes and fractions of GPUs: no start takes time, nothing is stopped in vain,
each request is done by the engine that spends the fewest GPU-seconds on it, of those in regions that may serve its tier, batch
work lies where it costs least between its arrival and its deadline (or the end of the window: what arrives in the window is done
in it). An instance is as busy as it may be with no more late than promises allow (`core/response.py`), with the queue that all of
a model's instances share at the peak; every endpoint keeps its minimum. Where there is doubt within a step, the answer is the
lower one: turns that wait for answers are no work, for a fleet may be so slow that they come after the window.
"""

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from sageserve.base.config import Scenario
from sageserve.base.kernel import kernel
from sageserve.base.records import UNSET, Floats, Ints, Trace, cached_tokens
from sageserve.base.sessions import closed_loop
from sageserve.base.units import HOUR, MINUTE, Micros
from sageserve.core.engine.timing import EngineRow
from sageserve.core.layout import Layout, lay_out, refuse_apart, unified_roles
from sageserve.core.order import promised_us
from sageserve.core.perf import decoding_time, first_time, prefill_work, request_work
from sageserve.core.plan.milp import Program
from sageserve.core.response import MIX_WIDTH, fewest, mix_of, note_request, sustainable
from sageserve.sim.faults import true_layout

STEP: Final[Micros] = 15 * MINUTE


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


@dataclass(frozen=True, slots=True)
class Need:
    """What one model's requests need, by step, in GPU-hours of engine time.

    Args:
        hours: float64[steps], length of each step; the last may be cut by the end of the window.
        interactive: float64[steps], done in the step it arrives in.
        arrived: float64[steps], batch work that is there from this step on.
        due: float64[steps], batch work that must be done by the end of this step; all of it by the end of the last.
    """

    hours: Floats
    interactive: Floats
    arrived: Floats
    due: Floats


def oracle_bound(scenario: Scenario, trace: Trace) -> Bound:
    """The least GPU-hours within the trace's window.

    Args:
        scenario: fleet, tiers and profiles.
        trace: codes are those of the scenario's names in order.
    """
    refuse_apart(scenario, "there is no bound of what could be done")
    layout = true_layout(scenario, lay_out(scenario, unified_roles(scenario), lambda here: (here.fleet.minimum,)))
    turns = closed_loop(trace) if scenario.workload.loop == "closed" else None
    alone = trace if turns is None else trace.take(turns.order[: turns.first])
    trace, alone = (_judged(one, scenario.workload.warm_up) for one in (trace, alone))
    steps = int(-(-trace.window // STEP))
    lengths = np.minimum(STEP, trace.window - np.arange(steps) * STEP) / HOUR
    work = _work(alone, layout, steps) / HOUR
    hours, loads = {}, {}
    for m, model in enumerate(layout.names.models):
        need = Need(lengths, work[m, 0], work[m, 1], work[m, 2])
        loads[model] = _load(scenario, trace, layout, model=m, need=need)
        hours[model] = least(need, load=loads[model], floor=_floor(layout, m))
    return Bound(sum(hours.values()), hours, loads)


def _judged(trace: Trace, warm_up: Micros) -> Trace:
    """What arrives after the warm-up, at times from its end on."""
    if not warm_up:
        return trace
    some = trace.take(np.flatnonzero(trace.arrival >= warm_up))
    deadline = None if some.deadline is None else np.where(some.deadline == UNSET, UNSET, some.deadline - warm_up)
    return replace(some, arrival=some.arrival - warm_up, deadline=deadline, window=trace.window - warm_up)


def least(need: Need, *, load: float, floor: float) -> float:
    """The fewest GPU-hours that do the work.

    Args:
        need: the work.
        load: share of its time a GPU may be busy.
        floor: GPUs at least, at any time.
    """
    program = Program()
    there, owed = np.cumsum(need.arrived), np.cumsum(need.due)
    before = -1
    for step, hours in enumerate(need.hours.tolist()):
        arrives = float(need.interactive[step])
        held = program.column(hours, lower=max(floor, arrives / (load * hours)))
        upper = float(there[step])
        last = step == len(need.hours) - 1
        done = program.column(lower=upper if last else min(float(owed[step]), upper), upper=upper)
        columns, factors = [held, done], [load * hours, -1.0]
        if before >= 0:
            columns, factors = [*columns, before], [*factors, 1.0]
            program.row([done, before], [1.0, -1.0], lower=0.0)
        program.row(columns, factors, lower=arrives)
        before = done
    return program.solve().objective


def _work(trace: Trace, layout: Layout, steps: int) -> Floats:
    """float64[models, 3, steps]: GPU-microseconds of interactive work by arrival, of batch work by arrival and by due time."""
    work = np.zeros((len(layout.names.models), 3, steps))
    due = trace.arrival + promised_us(layout.tiers, trace.tier, trace.prompt)
    if trace.deadline is not None:
        due = np.where(trace.deadline == UNSET, due, trace.deadline)
    batch = layout.tiers["batch"][trace.tier].astype(np.uint8)
    cached = cached_tokens(trace, layout.prefix_hits)
    requests = (trace.arrival, due, trace.prompt, cached, trace.output, (trace.region, trace.model, trace.tier), batch)
    _add_work(requests, layout.profiles, _usable(layout), layout.context, work)
    return work


def _usable(layout: Layout) -> NDArray[np.bool_]:
    """bool[regions, models, tiers, profiles]: the engines that may do a request, by where it enters."""
    regions, models, tiers = layout.walk.shape[:3]
    usable = np.zeros((regions, models, tiers, len(layout.profiles)), np.bool_)
    for g, m, k in np.ndindex(regions, models, tiers):
        there = set(layout.walk[g, m, k].tolist())
        usable[g, m, k, [pool.profile for pool in layout.pools if pool.endpoint in there]] = True
    return usable


@kernel
def _add_work(
    requests: tuple[Ints, Ints, NDArray[Any], NDArray[Any], NDArray[Any], tuple[NDArray[Any], ...], NDArray[Any]],
    profiles: NDArray[Any],
    usable: NDArray[np.bool_],
    context: Ints,
    work: Floats,
) -> None:
    arrival, due, prompt, cached, output, (region, model, tier), batch = requests
    last = work.shape[2] - 1
    for q in range(len(arrival)):
        m, step = model[q], arrival[q] // STEP
        if prompt[q] + 1 > context[m]:
            continue  # refused
        answer = float(min(output[q], context[m] - prompt[q]))
        cheapest = np.inf
        for p in range(len(profiles)):
            if usable[region[q], m, tier[q], p]:
                engine = request_work(profiles[p], prompt[q], cached[q], answer)
                cheapest = min(cheapest, engine * profiles[p]["gpus"])
        if cheapest == np.inf:
            continue  # no region that it may go to can run the model
        work[m, batch[q], step] += cheapest
        if batch[q] != 0:
            work[m, 2, min(max(due[q] // STEP, step), last)] += cheapest


def _floor(layout: Layout, model: int) -> float:
    """GPUs that the endpoints of a model keep, of the kind that has fewest per instance."""
    endpoints = {pool.endpoint for pool in layout.pools if pool.model == model}
    kept = [[pool.minimum * pool.gpus for pool in layout.endpoint_pools(endpoint)] for endpoint in endpoints]
    return float(sum(min(gpus) for gpus in kept))


def _load(scenario: Scenario, trace: Trace, layout: Layout, *, model: int, need: Need) -> float:
    """The load an instance may have when all instances that the model has at its peak share one queue; of its best engine."""
    interactive = [not tier.batch for tier in scenario.tiers.values()]
    mine = (
        (trace.model == model) & (trace.prompt < layout.context[model]) & np.array(interactive)[trace.tier]
    )  # others are refused
    if not bool(mine.any()):
        return 1.0
    answer = np.minimum(trace.output[mine], layout.context[model] - trace.prompt[mine])
    requests = (
        trace.prompt[mine],
        cached_tokens(trace, layout.prefix_hits)[mine],
        answer,
        promised_us(layout.tiers, trace.tier[mine], trace.prompt[mine]),
    )
    misses = 1.0 - min(tier.percentile for tier in scenario.tiers.values() if not tier.batch)
    peak = float(((need.interactive + need.arrived) / need.hours).max())
    found = []
    for row in sorted({pool.profile for pool in layout.pools if pool.model == model}):
        profile = layout.profiles[row]
        counted = np.zeros(MIX_WIDTH)
        _count_mix(requests, profile, counted)
        mix = mix_of(counted, float(decoding_time(profile, 1.0)))
        if mix is not None:
            kept = int(_floor(layout, model) / int(profile["gpus"]))
            together = max(fewest(peak / int(profile["gpus"]), mix, misses), kept)
            found.append(sustainable(together, mix, misses))
    return max(found, default=1.0)


@kernel
def _count_mix(requests: tuple[NDArray[Any], NDArray[Any], NDArray[Any], Ints], profile: EngineRow, counted: Floats) -> None:
    prompt, cached, output, patience = requests
    for q in range(len(prompt)):
        work = request_work(profile, prompt[q], cached[q], float(output[q]))
        idle = first_time(profile, prompt[q], cached[q]) + profile["entry"]
        note_request(counted, prefill_work(profile, prompt[q], cached[q]), work, patience[q] - idle)
