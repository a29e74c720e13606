"""A bound, not a policy: the least GPU-hours for as much kept of every promise, with perfect knowledge of demand.

No start takes time, nothing is stopped in vain, and every request is computed in the best company that an engine can give it
(`prices.py`), at the cheapest engine that may serve it, when its promise has it (`needs.py`); every endpoint keeps its minimum.
Requests that miss their promise are those that save most; where the fleet turns requests away they need nothing. The answer is
lines, of which the highest counts (`data/results/comparison.py`): hours + price x misses at its least, for many prices of a miss
(`dual.py`). docs/reference/bound.md derives it, and says what is assumed.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Final

import msgspec
import numpy as np

from sageserve.base.config import Scenario
from sageserve.base.records import UNSET, Floats, Trace
from sageserve.base.sessions import closed_loop
from sageserve.base.units import HOUR, Micros
from sageserve.core.layout import Layout, lay_out, refuse_apart, unified_roles
from sageserve.core.perf import slowed
from sageserve.data.results.comparison import GRID, Bound, BoundLine
from sageserve.sim.faults import true_layout
from sageserve.sim.oracle.dual import ModelDual
from sageserve.sim.oracle.needs import BUCKETS, STEP, edges, needs_of

_ROUNDS: Final = 3  # over the tiers, each price in its turn


def oracle_bound(scenario: Scenario, trace: Trace) -> Bound:
    """The least GPU-hours within the trace's window, owed work included.

    Args:
        scenario: fleet, tiers and profiles.
        trace: codes are those of the scenario's names in order.

    Raises:
        ConfigError: prefill and decode are apart.
    """
    refuse_apart(scenario, "there is no bound of what could be done")
    layout = _fastest(scenario, lay_out(scenario, unified_roles(scenario), lambda here: (here.fleet.minimum,)))
    turns = closed_loop(trace) if scenario.workload.loop == "closed" else None
    alone = trace if turns is None else trace.take(turns.order[: turns.first])
    trace, alone = (_judged(one, scenario.workload.warm_up) for one in (trace, alone))
    nearest = layout.rtt.min(axis=1) if scenario.faults.rtt_spread == 0 else np.zeros(len(layout.rtt), np.int64)
    away = scenario.admission.act or bool(scenario.faults.outages)
    models = [
        ModelDual(needs_of(alone, layout, m, nearest), _floor(scenario, layout, m, trace.window), away)
        for m in range(len(layout.names.models))
    ]
    names = layout.names.tiers
    refused = np.bincount(alone.tier[alone.prompt >= layout.context[alone.model]], minlength=len(names))
    gone = sum((one.needs.hopeless for one in models), refused)
    requests = dict(zip(names, np.bincount(trace.tier, minlength=len(names)).tolist(), strict=True))
    hopeless = dict(zip(names, gone.tolist(), strict=True))
    promised = {name: tier.percentile for name, tier in scenario.tiers.items()}
    found = Bound(0.0, requests, hopeless, promised, ())
    found = msgspec.structs.replace(found, lines=_lines(models, found))
    return msgspec.structs.replace(found, gpu_hours=found.at(promised))


def _fastest(scenario: Scenario, layout: Layout) -> Layout:
    """The layout with engines as they are, or as the fastest version of them that is rolled out will be."""
    found = true_layout(scenario, layout)
    times = min([1.0, *(one.engine_time for one in scenario.rollouts)])
    return found if times == 1 else replace(found, profiles=slowed(found.profiles, times))


def _judged(trace: Trace, warm_up: Micros) -> Trace:
    """What arrives after the warm-up, at times from its end on."""
    if not warm_up:
        return trace
    some = trace.take(np.flatnonzero(trace.arrival >= warm_up))
    deadline = None if some.deadline is None else np.where(some.deadline == UNSET, UNSET, some.deadline - warm_up)
    return replace(some, arrival=some.arrival - warm_up, deadline=deadline, window=trace.window - warm_up)


def _floor(scenario: Scenario, layout: Layout, model: int, window: Micros) -> Floats:
    """float64[steps]: GPU-hours that the endpoints of a model keep, with the pool of each that has fewest GPUs per instance.

    A region that is lost keeps nothing from then on, for who knows when it is back; nor does a model that is being rolled out.
    """
    steps = int(-(-window // STEP))
    begins = np.arange(steps) * STEP
    held = np.zeros(steps)
    name = layout.names.models[model]
    if any(one.model == name for one in scenario.rollouts):
        return held
    lost: dict[str, Micros] = {}
    for one in scenario.faults.outages:
        if not one.donated_only:
            lost[one.region] = min(lost.get(one.region, window), one.at - scenario.workload.warm_up)
    for endpoint in sorted({pool.endpoint for pool in layout.pools if pool.model == model}):
        pools = layout.endpoint_pools(endpoint)
        end = lost.get(layout.names.regions[pools[0].region], window)
        spans = np.clip(end - begins, 0, np.minimum(STEP, window - begins)) / HOUR
        held += min(pool.floor * pool.gpus for pool in pools) * spans
    return held


def _lines(models: list[ModelDual], empty: Bound) -> tuple[BoundLine, ...]:
    """Those that are highest for some shares kept: of each tier over the grid, the others at what is promised, and all kept."""
    names = list(empty.requests)
    prices = edges() / HOUR

    @cache
    def least(cuts: tuple[int, ...]) -> float:
        return sum(one.least(np.array(cuts, np.int64)) for one in models)

    def line(cuts: tuple[int, ...]) -> BoundLine:
        return BoundLine(least(cuts), {name: float(prices[cut]) for name, cut in zip(names, cuts, strict=True)})

    nothing = (0,) * len(names)
    found = {nothing: line(nothing)}
    for kept in _targets(empty):
        missed = [max(0.0, empty.requests[k] * (1.0 - kept[k]) - empty.hopeless[k]) for k in names]
        cuts = _highest(least, prices, missed)
        found.setdefault(cuts, line(cuts))
    return tuple(found.values())


def _targets(empty: Bound) -> Iterator[Mapping[str, float]]:
    """Shares kept for which lines are looked for."""
    whole = dict.fromkeys(empty.requests, 1.0)
    yield empty.promised
    for tier, requests in empty.requests.items():
        if requests:
            for share in GRID:
                yield {**empty.promised, tier: share}
                yield {**whole, tier: share}


def _highest(least: Callable[[tuple[int, ...]], float], prices: Floats, missed: list[float]) -> tuple[int, ...]:
    """The prices whose line is highest at so many misses; concave in each, so thirds of what is left are cut off."""
    cuts = [BUCKETS] * len(missed)

    def height() -> float:
        return least(tuple(cuts)) - sum(float(prices[cut]) * some for cut, some in zip(cuts, missed, strict=True))

    def at(k: int, cut: int) -> float:
        cuts[k] = cut
        return height()

    for _ in range(_ROUNDS):
        before = tuple(cuts)
        for k in range(len(cuts)):
            low, high = 0, BUCKETS
            while high - low > 2:
                third = (high - low) // 3
                one, other = low + third, high - third
                if at(k, one) < at(k, other):
                    low = one
                else:
                    high = other
            cuts[k] = max(range(low, high + 1), key=lambda cut: at(k, cut))
        if tuple(cuts) == before:
            break
    return tuple(cuts)
