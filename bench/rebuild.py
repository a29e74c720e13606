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

from sageserve.base.config import Scenario
from sageserve.base.records import Trace
from sageserve.base.units import DAY, SECOND
from sageserve.data.rebuild.recount import compare
from sageserve.data.rebuild.requests import rebuild
from sageserve.data.scenarios.load import load_scenario
from sageserve.data.traces.options import TraceOptions
from sageserve.data.traces.read import read_trace
from sageserve.data.workload.generate import generate
from sageserve.sim.backtest.exported import Recording, exported
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
        streams = exported(true["reactive"][0], Recording(begin, case.interval * SECOND, case.tiers))
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
