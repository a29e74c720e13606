"""What a strategy needs: the maxima, stock and reservation with which nothing but demand decides how many instances there are.

Its maxima and stocks are opened, windows are played, and what it held is read off. Nothing is searched: the strategy decides, and
which promises that keeps is told and not repaired. Read next: `run.py` for fleets of constant size, `purchase.py`.
"""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Final

from msgspec import UNSET

from sageserve.base.config import Scenario
from sageserve.core.handover import DECODE
from sageserve.core.strategies import kind_of
from sageserve.data.results.comparison import highest
from sageserve.data.results.summary import GpuCounts, Summary
from sageserve.data.results.sweep_folder import SweepSource
from sageserve.sim.sizing.answer import Found, proofs_of, purchase_of, quota_line
from sageserve.sim.sizing.plays import Plays, Wish, measured_of
from sageserve.sim.sizing.pools import pools_to_size
from sageserve.sim.sizing.records import FleetLine, Sizing
from sageserve.sim.sizing.search import Promises
from sageserve.sim.sweep.cell import Player
from sageserve.sim.sweep.run import CellRunner, Watch

_OPEN: Final = 3  # times the guess of a constant fleet, and as many more: no strategy that works holds so much


def size_for(scenario: Scenario, source: SweepSource, wish: Wish, runner: CellRunner, watch: Watch | None = None) -> Sizing:
    """What the scenario's strategy needs, and which promises it keeps.

    Args:
        scenario: with the strategy in place.
        source: where its requests come from.
        wish: how many windows, and how sure one wants to be.
        runner: where windows are played.
        watch: who looks on.

    Raises:
        ConfigError: there is no such strategy, or the wish cannot be answered.
        TraceError: the trace cannot be read.
        Interrupted: the watch said so.
    """
    wish.check()
    kind_of(scenario)  # before anything is drawn
    plain = Plays(scenario, source, wish, runner, watch or Watch())
    trace = Player().requests(plain.cell(0)).trace
    guess = max((pool.guess for pools in pools_to_size(scenario, trace).values() for pool in pools), default=1)
    plays = Plays(_opened(scenario, _OPEN * guess + _OPEN), source, wish, runner, watch or Watch())
    summaries = plays.play([plays.cell(window) for window in range(wish.windows)])
    served = [model for model, one in summaries[0].models.items() if any(s.models[model].requests for s in summaries)]
    measured = {model: [measured_of(one, model) for one in summaries] for model in served}
    parts = sum(len({tier for one in windows for tier in one.kept}) for windows in measured.values())
    promises = Promises({name: tier.percentile for name, tier in scenario.tiers.items()}, wish.windows, wish.safety, parts)
    found = Found({}, {}, measured, {}, [], plays.count, {}, dict.fromkeys(served, promises.percentiles))
    counts = {name: highest([one.gpus[name] for one in summaries]) for name in summaries[0].gpus}
    quota = {name: quota_line(scenario, name, max(one.vm_gpus[name].peak for one in summaries)) for name in summaries[0].vm_gpus}
    cost, reserve = purchase_of(scenario, {name: _curve(summaries, name) for name in quota})
    return Sizing(
        fleet=[_line(scenario, name, each) for name, each in counts.items()],
        quota=quota,
        cost_per_month_usd=round(sum(line.reserved + line.on_demand for line in cost.values()), 2),
        proof=proofs_of(found, promises),
        cost=cost,
        less=[],
        safety=wish.safety,
        windows=wish.windows,
        requests=summaries[0].requests.arrived,
        plays=plays.count,
        scenario=scenario.name,
        currency=scenario.currency,
        notes=summaries[0].notes,
        strategy=scenario.strategy.name,
        counts=counts,
        reserve=reserve,
    )


def _opened(scenario: Scenario, most: int) -> Scenario:
    """The scenario with maxima and stocks that bind nobody."""
    maximum = max(scenario.fleet.maximum, most)
    room = sum(max(engine.gpus for engine in model.engines.values()) for model in scenario.models.values()) * maximum
    regions = {}
    for region, settings in scenario.regions.items():
        stocks = {}
        for gpu, stock in settings.gpus.items():
            per_vm = scenario.gpus[gpu].per_vm
            stocks[gpu] = stock.model_copy(update={"gpus": max(stock.gpus, ceil(room / per_vm) * per_vm)})
        regions[region] = settings.model_copy(update={"gpus": stocks})
    return scenario.model_copy(update={"fleet": scenario.fleet.roomy(maximum), "regions": regions})


def _line(scenario: Scenario, pool: str, counts: GpuCounts) -> FleetLine:
    region, model, gpu = next(  # models may have slashes in their names, and a pool's may go on with its role
        (region, model, gpu)
        for region in scenario.regions
        for model, served in scenario.models.items()
        for gpu in {**served.engines, **served.decode_engines}
        if f"{pool}/".startswith(f"{region}/{model}/{gpu}/")
    )
    served = scenario.models[model]
    role = pool.removeprefix(f"{region}/{model}/{gpu}").removeprefix("/") if served.disaggregated else ""
    engine = (served.decode_engines if role == DECODE else served.engines)[gpu]
    return FleetLine(region, model, gpu, counts.peak // engine.gpus, counts.peak, role or UNSET)


def _curve(summaries: Sequence[Summary], name: str) -> Mapping[int, float]:
    """Hours by GPUs of VMs in use, over all windows."""
    curve: dict[int, float] = {}
    for one in summaries:
        for gpus, hours in one.vm_hours[name].items():
            curve[gpus] = curve.get(gpus, 0.0) + hours
    return curve
