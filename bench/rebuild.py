"""How far requests made of counters are from the true ones, by what a fleet then costs and keeps.

A workload is played under `reactive`; what its engines would have shown to Prometheus is counted and made into requests again,
and both are played under `reactive` and `lt-ua`. One JSON line per history and seed.

    python -m bench.rebuild [--requests N] [--seeds 1,2,3] [--trace FILE] [--map FROM=TO]

Read next: docs/reference/reconstruction.md for the figures and what they mean.
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import figures  # isort: skip # before any kernel is imported

import numpy as np

from sageserve.base.config import Scenario
from sageserve.base.records import Trace
from sageserve.base.units import DAY, SECOND
from sageserve.data.history.collect import PoolCollector
from sageserve.data.history.fronts import FrontCollector
from sageserve.data.history.raw import RawSeries
from sageserve.data.history.records import Grid
from sageserve.data.rebuild.demand import DemandStream, PlacedFront, PlacedPool, demand_of
from sageserve.data.rebuild.recount import compare
from sageserve.data.rebuild.render import PlayedRequests, render, render_front
from sageserve.data.rebuild.requests import rebuild
from sageserve.data.scenarios.load import load_scenario
from sageserve.data.traces.options import TraceOptions
from sageserve.data.traces.read import read_trace
from sageserve.data.workload.generate import generate
from sageserve.sim.results.summary import summarise
from sageserve.sim.run import Run, Simulation

MONDAY = 19_674 * DAY  # 13 November 2023
STRATEGIES = ("reactive", "lt-ua")


@dataclass(frozen=True)
class Case:
    """One way to record the same traffic."""

    name: str
    interval: int
    tiers: bool


CASES = (
    Case("15 s, tiers labelled", 15, tiers=True),
    Case("15 s, tiers not", 15, tiers=False),
    Case("60 s, tiers not", 60, tiers=False),
)


def play(scenario: Scenario, trace: Trace, strategy: str) -> tuple[Run, float, float]:
    """The run, its GPU-hours, and the share of the first tier's requests that kept their promise."""
    settings = scenario.model_copy(update={"strategy": scenario.strategy.model_copy(update={"name": strategy})})
    run = Simulation(settings, trace).play()
    summary = summarise(run, 0.0)
    fast = summary.tiers[next(iter(scenario.tiers))]
    return run, summary.gpu_hours.total, fast.attainment or 0.0


def recorded(run: Run, scenario: Scenario, case: Case, begin: int) -> tuple[DemandStream, ...]:
    """What the engines of a run would have shown, as demand."""
    grid = Grid(begin, case.interval * SECOND, -(-run.window // (case.interval * SECOND)))
    layout, rows = run.layout, run.requests
    pool_of = np.append(np.array(run.fleet.pool_of, np.int64), -1)[rows["instance"]]
    region_of = np.array([scenario_region(pool.name) for pool in layout.pools] + [""])
    served = np.where(pool_of >= 0, region_of[pool_of], "")
    names = tuple(scenario.models), tuple(scenario.regions), tuple(scenario.tiers)
    pools, fronts = [], []
    for code, region in enumerate(names[1]):
        here = rows[served == region]
        door = rows[(rows["region"] == code) & (rows["instance"] >= 0)]
        when = begin, run.window + 600 * SECOND, case.interval * SECOND
        collectors = {model: PoolCollector(f"{region}/{model}", grid) for model in names[0]}
        by_model: dict[str, list[RawSeries]] = {model: [] for model in names[0]}
        for one in render(played(here, names[0]), *when):
            by_model[one.labels["model_name"]].append(one)
        for model, collector in collectors.items():
            collector.add(by_model[model])
            pools.append(PlacedPool(region, model, collector.finish()))
        if case.tiers:
            front = FrontCollector(grid)
            front.add(render_front(played(door, names[0]), door["tier"].astype(np.int64), when))
            fronts += [PlacedFront(region, one.model, names[2][int(one.tier)], one) for one in front.finish()]
    return demand_of(pools, fronts)


def scenario_region(pool: str) -> str:
    """The region in a pool's name."""
    return pool.split("/", 1)[0]


def played(rows: np.ndarray, models: tuple[str, ...]) -> PlayedRequests:
    """Requests of a run."""
    return PlayedRequests(
        arrival=rows["arrival"].copy(),
        first=rows["first"].copy(),
        finish=rows["finish"].copy(),
        prompt=rows["prompt"].copy(),
        output=rows["output"].copy(),
        instance=rows["instance"].copy(),
        model=rows["model"].copy(),
        models=models,
    )


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=400_000)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--trace", type=Path)
    parser.add_argument("--map", action="append", default=[])
    given = parser.parse_args()
    scenario = load_scenario("quickstart", overrides=[f"workload.generate.requests={given.requests}", "admission=off"])
    truth = read_trace(given.trace, scenario, TraceOptions(maps=tuple(given.map)))[0] if given.trace else generate(scenario)
    begin = MONDAY + scenario.workload.generate.begins
    true = {name: play(scenario, truth, name) for name in STRATEGIES}
    for case in CASES:
        streams = recorded(true["reactive"][0], scenario, case, begin)
        for seed in map(int, given.seeds.split(",")):
            made = rebuild(streams, scenario, seed)
            line: dict[str, object] = {"case": case.name, "seed": seed, "requests": len(made.trace), "of": len(truth)}
            line |= {key: round(float(value), 4) for key, value in asdict(compare(truth, made.trace, streams)).items()}
            for name in STRATEGIES:
                _, hours, kept = play(scenario, made.trace, name)
                line[f"{name}_gpu_hours"] = round(hours / true[name][1] - 1, 4)
                line[f"{name}_promise_points"] = round(100 * (kept - true[name][2]), 2)
            print(json.dumps(line), flush=True)
            if seed == 1:
                print(*made.notes, sep="\n", file=sys.stderr)
    figures.show("rebuild_rss_gb", figures.peak_gb(), "GB")


if __name__ == "__main__":
    main()
