"""Time the planner: the published sizes of the paper's program, and the receding horizon, one JSON line per figure.

CPU seconds of the process, the lowest of the repetitions; HiGHS is loaded before the clock starts. The published program took
1.4 s for 4 models, 3 regions and 1 GPU type, and 33 s for 20 models, 20 regions and 5 types.

    python -m bench.plan [--repeat 3] [--only horizon_4x3x1] [--against CHECKOUT]

With `--against`, the planner of another checkout is timed by turns with this one, on one machine in one run, and each line has
their ratio: the median of the rounds, below 1 where this one is cheaper. With `--journal FILE`, `journal.jsonl.zst` of a run of
foresight, its plans are made again instead: the mean of one, and how many differ in any number from the run's.

Knows no files. Read next: `src/sageserve/core/plan/`.
"""

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import fmean, median

from sageserve.base.rng import stream
from sageserve.core.plan import horizon
from sageserve.core.plan import hourly as paper
from sageserve.core.plan.horizon import HorizonPlan
from sageserve.core.plan.hourly import Plan
from sageserve.core.plan.hourly_rows import HourlyProblem, PoolFacts, StockFacts
from sageserve.core.plan.outlook import (
    BatchDemand,
    Endpoint,
    HorizonPool,
    HorizonStock,
    Lot,
    Outlook,
    Stream,
    Way,
    begins,
    coarsening,
)
from sageserve.core.work import SolveAhead, SolvedAhead
from sageserve.data.results.journal import read_journal

PRICES = (98.32, 60.0, 45.0, 33.0, 20.0)  # dollars per hour of an instance, the dearest type first
SPEEDS = (1.0, 0.6, 0.5, 0.35, 0.2)  # of those types, relative


def paper_problem(models: int, regions: int, types: int, seed: int) -> HourlyProblem:
    """A problem of the paper's shape; stock is ample for some types and scarce for others."""
    draw = stream(seed, "bench-plan")
    base = draw.uniform(2_000, 20_000, models)
    wobble = 1 + 0.1 * draw.random((models, types))
    now = draw.integers(0, 6, (models, regions, types))
    pools = tuple(
        PoolFacts(
            name=f"r{j}/m{i}/g{k}",
            region=j,
            model=i,
            stock=j * types + k,
            gpus=8,
            price_per_hour=PRICES[k],
            start_cost=0.2 * PRICES[k],
            theta=float(base[i] * SPEEDS[k] * wobble[i, k]),
            now=int(now[i, j, k]),
            maximum=40,
        )
        for j in range(regions)
        for i in range(models)
        for k in range(types)
    )
    rates = draw.uniform(1_000, 100_000, (regions, models))
    return HourlyProblem(
        regions=tuple(f"r{j}" for j in range(regions)),
        models=tuple(f"m{i}" for i in range(models)),
        stocks=tuple(StockFacts(f"r{j}/g{k}", free=80 * models // types) for j in range(regions) for k in range(types)),
        pools=pools,
        demand=(tuple(tuple(float(rate) for rate in row) for row in rates),),
        buffer=(1_000.0,) * models,
        minimum=((2,) * models,) * regions,
    )


def outlook(models: int, regions: int, types: int, hours: float) -> Outlook:
    """A day's wave of demand in each region, shifted by region, and batch work that comes at its peak."""
    steps = coarsening(hours)
    middle = [begin + length / 2 for begin, length in zip(begins(steps), steps, strict=False)]
    pools = tuple(
        HorizonPool(
            name=f"r{j}/m{i}/g{k}",
            stock=j * types + k,
            gpus=8,
            price_per_hour=PRICES[k],
            start_cost=PRICES[k] / 6,
            lead_hours=1 / 6,
            serving=6,
            maximum=40,
            spot=2,
            spot_income_per_hour=0.3 * PRICES[k],
            reclaim_cost=PRICES[k] / 60,
        )
        for j in range(regions)
        for i in range(models)
        for k in range(types)
    )

    def ways(model: int, origin: int) -> tuple[Way, ...]:
        return tuple(
            Way((j * models + model) * types + k, 1 / SPEEDS[k], 0.0 if j == origin else 0.2)
            for j in range(regions)
            for k in range(types)
        )

    def wave(model: int, region: int) -> tuple[float, ...]:
        return tuple(6 + model - 4 * math.cos(2 * math.pi * (at - 3 * region) / 24) for at in middle)

    streams = tuple(
        Stream(
            f"r{j}/m{i}/{tier}",
            ways(i, j),
            rate=tuple(share * 1.2 * x for x in wave(i, j)),
            expected=tuple(share * x for x in wave(i, j)),
        )
        for i in range(models)
        for j in range(regions)
        for tier, share in (("fast", 0.6), ("normal", 0.4))
    )
    batches = tuple(
        BatchDemand(f"m{i}", ways(i, 0), tuple(Lot(hour, hour + 24.0, 3.0) for hour in range(-20, int(hours))), carry_cost=40.0)
        for i in range(models)
    )
    endpoints = tuple(
        Endpoint(f"r{j}/m{i}", tuple((j * models + i) * types + k for k in range(types)), 2)
        for j in range(regions)
        for i in range(models)
    )
    stocks = tuple(HorizonStock(f"r{j}/g{k}", 8 * 15 * models) for j in range(regions) for k in range(types))
    return Outlook(steps, pools, stocks, streams, batches, endpoints)


def figure(name: str, plan: Callable[[], Plan | HorizonPlan], repeat: int) -> None:
    """Print the lowest CPU seconds of some runs, with the gap to the proven bound."""
    seconds, gap = [], 0.0
    for _ in range(repeat):
        begin = time.process_time()
        gap = plan().gap
        seconds.append(time.process_time() - begin)
    print(json.dumps({"name": name, "value": round(min(seconds), 4), "unit": "s", "gap": round(gap, 8)}))


def again(journal: Path) -> None:
    """Print the mean CPU seconds of a run's plans, and how many come out other than they were."""
    asked: dict[int, Outlook] = {}
    seconds, other = [], 0
    for line in read_journal(journal):
        asked |= {action.number: action.outlook for action in line.actions if isinstance(action, SolveAhead)}
        if isinstance(line.event, SolvedAhead) and line.event.plan and (problem := asked.pop(line.event.number, None)):
            begin = time.process_time()
            plan = horizon.solve(problem)
            seconds.append(time.process_time() - begin)
            other += plan != line.event.plan
    found = {"name": "journal_plan_cpu_s", "value": round(fmean(seconds), 4), "unit": "s", "plans": len(seconds), "other": other}
    print(json.dumps(found))


def against(other: Path, words: list[str], rounds: int = 3) -> None:
    """Time both checkouts by turns, each in processes of its own."""
    found: dict[str, list[tuple[float, float]]] = {}
    for _ in range(rounds):
        one, base = (timed(source, words) for source in (Path(__file__).parents[1], other))
        for name, value in one.items():
            found.setdefault(name, []).append((value, base[name]))
    for name, pairs in found.items():
        mine, theirs = (median(part) for part in zip(*pairs, strict=True))
        ratio = round(median(a / b for a, b in pairs), 3)
        print(json.dumps({"name": name, "value": mine, "against": theirs, "ratio": ratio, "unit": "s"}))


def timed(source: Path, words: list[str]) -> dict[str, float]:
    """Figures of a checkout, by this file's cases."""
    paths, words = [str(source / "src"), str(source)], [__file__, *words]
    code = f"import runpy, sys; sys.path[:0] = {paths}; sys.argv = {words}; runpy.run_path(sys.argv[0], run_name='__main__')"
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return {one["name"]: one["value"] for one in map(json.loads, ran.stdout.splitlines())}


def main() -> None:
    """Print one JSON line per figure."""
    parser = argparse.ArgumentParser(description="Time the planner.")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", default="", metavar="TEXT", help="figures with this in their names")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT")
    parser.add_argument("--journal", type=Path, metavar="FILE", help="of a run whose plans are made again")
    asked = parser.parse_args()
    repeat, only = asked.repeat, asked.only
    if asked.against:
        journal = ["--journal", str(asked.journal.resolve())] if asked.journal else []
        against(asked.against, ["--repeat", str(repeat), "--only", only, *journal])
        return
    paper.solve(paper_problem(1, 1, 1, seed=1))
    if asked.journal:
        again(asked.journal)
        return
    for models, regions, types in ((4, 3, 1), (4, 3, 2), (20, 20, 5)):
        if only in (name := f"plan_{models}x{regions}x{types}_cpu_s"):
            figure(name, partial(paper.solve, paper_problem(models, regions, types, seed=1)), repeat)
    for types, hours in ((1, 8.0), (1, 24.0), (2, 8.0), (2, 24.0)):
        if only in (name := f"horizon_4x3x{types}_{hours:.0f}h_cpu_s"):
            figure(name, partial(horizon.solve, outlook(4, 3, types, hours)), repeat)


if __name__ == "__main__":
    main()
