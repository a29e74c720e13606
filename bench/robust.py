"""Play strategies in a world that is worse than they believe, and set foresight against the best of the others.

    python -m bench.robust [--out DIR] [--hours 3] [--fault NAME ...] [--others reactive,lt-ua]

A Tuesday of kubernetes-day from noon on, without its own burst and outage, with one fault at a time. The best of the others is
the cheapest that keeps every promise, or where none does, the one that comes nearest. Cost is GPU-hours with owed work; what
counts of the shares kept is that of the promise with the least to spare. A line is marked where foresight is more than 3 %
dearer or a point worse. With --out, what was played is not played again.

Knows no strategy from inside. Read next: docs/why/results.md, "When the world is worse than believed".
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import bench.figures  # noqa: F401 # before anything with a kernel: it sets their cache
from sageserve.data.results.comparison import needed
from sageserve.data.results.summary import Summary
from sageserve.data.results.sweep_folder import Kept
from sageserve.data.scenarios.load import load_scenario
from sageserve.sim.sweep.cell import Cell, Failed, Finished
from sageserve.sim.sweep.processes import Processes
from sageserve.sim.sweep.run import Watch, sweep

SCENARIO: Final = "kubernetes-day"
NOON: Final = 36  # hours after Monday's midnight
HOURS: Final = 3.0
REQUESTS: Final = 920_000  # of these hours, as the rates of the day have them
OURS: Final = "foresight"
HPA: Final = "strategy.hpa.metrics=[{signal: requests, target: 32}]"  # the cheapest that keeps its promises there
DEARER, WORSE = 0.03, 0.01

FAULTS: Final[Mapping[str, tuple[str, ...]]] = {
    "none": (),
    "stale": ("faults.signals_late=60s",),
    "lost": ("faults.signals_lost=0.3",),
    "noisy": ("faults.signals_noise=0.3",),
    "spot-waves": (
        "spot.donate=true",
        "faults.outages=["
        + ", ".join(
            f"{{region: {region}, at: {at}, length: 20m, donated_only: true}}"
            for at in ("30m", "1h30m", "2h30m")
            for region in ("us-east", "us-west")
        )
        + "]",
    ),
    "twice": ("workload.generate.bursts=[{at: 1h, length: 90m, factor: 2, tiers: [chat, agents]}]",),
    "slow-engines": ("faults.engine_time=1.25",),
    "no-plans": ("strategy.planned.latency=30d",),  # neither forecasts nor plans come back
    "region-lost": ("faults.outages=[{region: us-west, at: 1h, length: 1h}]",),
    "no-history": ("workload.generate.history=0s",),
    "steep-ramp": (
        "fleet.start=1",
        "workload.generate.bursts=["
        + ", ".join(f"{{at: {15 * k}m, length: 15m, factor: {0.25 * (k + 1):g}}}" for k in range(3))
        + "]",
    ),
}


@dataclass(frozen=True, slots=True)
class Played:
    """What a strategy made of a fault: GPU-hours with owed work, and each tier's share kept beside what is promised of it."""

    strategy: str
    hours: float
    kept: float
    margin: float

    @property
    def keeps(self) -> bool:
        """Whether every promise was kept."""
        return self.margin >= 0


def cells(fault: str, strategies: Sequence[str], hours: float) -> list[Cell]:
    """What is played of a fault."""
    window = (
        f"workload.generate.begins={NOON}h",
        f"workload.generate.length={hours:g}h",
        f"workload.generate.requests={round(REQUESTS * hours / HOURS)}",
        "workload.generate.bursts=[]",
        "faults.outages=[]",
        "fleet.start=4",  # at noon; a midnight's two would be a fault in itself
        HPA,
    )
    return [
        Cell(f"{fault}-{name}", load_scenario(SCENARIO, overrides=(*window, *FAULTS[fault], f"strategy.name={name}")))
        for name in strategies
    ]


def played(cell: Cell, run: Summary) -> Played:
    """What a run was: its tightest promise is the one with the least to spare."""
    margins = {
        name: (tier.attainment - cell.scenario.tiers[name].percentile, tier.attainment)
        for name, tier in run.tiers.items()
        if tier.attainment is not None
    }
    margin, kept = min(margins.values())
    return Played(cell.scenario.strategy.name, needed(run), kept, margin)


def best(others: Sequence[Played]) -> Played:
    """The cheapest that keeps every promise, or the one that comes nearest."""
    keeping = [one for one in others if one.keeps]
    return min(keeping, key=lambda one: one.hours) if keeping else max(others, key=lambda one: one.margin)


def mark(ours: Played, other: Played) -> str:
    """Where foresight is not good enough beside another."""
    dearer, worse = ours.hours / other.hours - 1 > DEARER, other.kept - ours.kept > WORSE
    return " and ".join(word for word, said in (("dearer", dearer), ("worse", worse)) if said)


def told(one: Played) -> str:
    """Cost and what was kept."""
    return f"{one.hours:,.0f} @ {100 * one.kept:.2f} %"


def lines(fault: str, found: Sequence[Played]) -> Iterator[str]:
    """The line of a fault in the table."""
    ours = next(one for one in found if one.strategy == OURS)
    other = best([one for one in found if one is not ours])
    rest = ", ".join(f"{one.strategy} {told(one)}" for one in found if one not in (ours, other))
    cost, points = f"{100 * (ours.hours / other.hours - 1):+.1f} %", f"{100 * (ours.kept - other.kept):+.2f}"
    yield f"| {fault} | {told(ours)} | {other.strategy} {told(other)} | {cost} | {points} | {mark(ours, other)} | {rest} |"


def tell(fault: str, done: int, total: int) -> None:
    """Say on stderr how far it is."""
    print(f"{fault}: {done} of {total}", file=sys.stderr)


def main() -> None:
    """Print one line per fault."""
    parser = argparse.ArgumentParser(
        description="Set foresight against the best of the others in worlds that are worse than believed."
    )
    parser.add_argument("--out", type=Path, help="folder of a sweep: what is there is not played again")
    parser.add_argument("--hours", type=float, default=HOURS)
    parser.add_argument("--fault", action="append", choices=FAULTS, help="only this one; may be repeated")
    parser.add_argument("--others", default="reactive,lt-ua")
    given = parser.parse_args()
    strategies = [OURS, *given.others.split(",")]
    kept = None if given.out is None else Kept(given.out)
    print("| fault | foresight | best other | cost | points | | others |\n|---|---|---|---|---|---|---|", flush=True)
    for fault in given.fault or FAULTS:
        mine = cells(fault, strategies, given.hours)
        watch = Watch(progress=partial(tell, fault))
        found = []
        for cell, outcome in zip(mine, sweep(mine, Processes(workers=1), kept=kept, watch=watch), strict=True):
            if not isinstance(outcome, Finished):
                raise SystemExit(f"{cell.name}: {outcome.message if isinstance(outcome, Failed) else outcome}")
            found.append(played(cell, outcome.summary))
        print(*lines(fault, found), sep="\n", flush=True)


if __name__ == "__main__":
    main()
