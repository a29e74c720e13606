"""Look for scenarios in which another strategy is cheaper than foresight and keeps as much, over paired seeds.

    python -m bench.dominated [SCENARIO ...] [--seeds 1..5] [--others A,B] [--set KEY=VALUE ...] [--out DIR]

A cell is a scenario and another strategy, on the same requests seed by seed. Cost is GPU-hours with owed work. foresight is
*dominated* where the other is more than 1 % cheaper in every part of the 95 % interval of the paired change, and keeps in no
tier 0.1 point less in the mean; *perhaps* where only the mean of the cost says so. The last line names the dominated cells.
Settings are as given: choose targets of autoscalers with `sageserve tune` first. With --out, what was played is not played again.

Knows no strategy from inside. Read next: `src/sageserve/data/results/significance.py`, docs/why/results.md.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import bench.figures  # noqa: F401 # before anything with a kernel: it sets their cache
from sageserve.base.errors import ConfigError
from sageserve.cli.seeds import parse_seeds
from sageserve.data.results.comparison import needed
from sageserve.data.results.significance import Interval, paired
from sageserve.data.results.summary import Summary
from sageserve.data.results.sweep_folder import Kept
from sageserve.data.scenarios.load import load_scenario
from sageserve.sim.sweep.cell import Cell, Failed, Finished
from sageserve.sim.sweep.frontier import CHEAPER
from sageserve.sim.sweep.processes import Processes
from sageserve.sim.sweep.run import Watch, sweep
from sageserve.sim.sweep.tuning import NEAR

SCENARIOS: Final = ("quickstart", "kubernetes-day", "o365-peak", "o365-week")
OURS: Final = "foresight"
OTHERS: Final = "reactive,reactive-tuned,hpa,lt-ua"
Runs = Mapping[str, Mapping[int, Summary]]
"""By strategy and seed."""


@dataclass(frozen=True, slots=True)
class Rival:
    """Another strategy beside foresight: change of its cost, relative, and of what it keeps of each tier."""

    strategy: str
    cost: Interval
    kept: Mapping[str, Interval]

    @property
    def keeps_as_much(self) -> bool:
        """Whether it keeps in no tier 0.1 point less."""
        return all(tier.change >= -NEAR for tier in self.kept.values())

    @property
    def word(self) -> str:
        """What that makes of foresight."""
        if not self.keeps_as_much or self.cost.change >= -CHEAPER:
            return ""
        return "dominated" if self.cost.high < -CHEAPER else "perhaps"


def rival(name: str, runs: Runs) -> Rival:
    """Another strategy over the seeds, two or more."""
    pairs = [(runs[OURS][seed], runs[name][seed]) for seed in runs[OURS]]
    ratios = [needed(theirs) / needed(ours) for ours, theirs in pairs]
    shares = {
        tier: [(ours.tiers[tier].attainment or 0.0, theirs.tiers[tier].attainment or 0.0) for ours, theirs in pairs]
        for tier, told in pairs[0][0].tiers.items()
        if told.attainment is not None
    }
    kept = {tier: paired([ours for ours, _ in both], [theirs for _, theirs in both]) for tier, both in shares.items()}
    return Rival(name, paired([1.0] * len(ratios), ratios), kept)


def play(scenario: str, strategies: Sequence[str], seeds: Sequence[int], overrides: Sequence[str], kept: Kept | None) -> Runs:
    """Every strategy with every seed."""
    cells = [
        Cell(
            f"{scenario}-{name}-{seed}",
            load_scenario(scenario, overrides=[*overrides, f"seed={seed}", f"strategy.name={name}"]),
        )
        for seed in seeds
        for name in strategies
    ]
    runs: dict[str, dict[int, Summary]] = {name: {} for name in strategies}
    watch = Watch(progress=partial(tell, scenario))
    for cell, outcome in zip(cells, sweep(cells, Processes(workers=1), kept=kept, watch=watch), strict=True):
        if not isinstance(outcome, Finished):
            raise SystemExit(f"{cell.name}: {outcome.message if isinstance(outcome, Failed) else outcome}")
        runs[cell.scenario.strategy.name][cell.scenario.seed] = outcome.summary
    return runs


def tell(scenario: str, done: int, total: int) -> None:
    """Say on stderr how far it is."""
    print(f"{scenario}: {done} of {total}", file=sys.stderr)


def lines(scenario: str, rivals: Sequence[Rival]) -> Iterator[str]:
    """The rows of a scenario."""
    for one in rivals:
        cost = f"{100 * one.cost.change:+.1f} % ({100 * one.cost.low:+.1f} to {100 * one.cost.high:+.1f})"
        kept = ", ".join(f"{tier} {100 * change.change:+.2f} ± {100 * change.half:.2f}" for tier, change in one.kept.items())
        yield f"| {scenario} | {one.strategy} | {cost} | {kept} | {one.word} |"


def main() -> None:
    """Print a row per scenario and strategy, and the dominated ones at the end."""
    parser = argparse.ArgumentParser(description="Look for scenarios in which another strategy dominates foresight.")
    parser.add_argument("scenarios", nargs="*", default=SCENARIOS)
    parser.add_argument("--seeds", default="1..5", help="two or more")
    parser.add_argument("--others", default=OTHERS)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any setting; may be repeated")
    parser.add_argument("--out", type=Path, help="folder of a sweep: what is there is not played again")
    given = parser.parse_args()
    try:
        seeds = parse_seeds(given.seeds)
    except ConfigError as error:
        parser.error(error.message)
    if len(seeds) < 2:
        parser.error("an interval takes two seeds or more: --seeds 1..5")
    others, found = given.others.split(","), []
    print("| scenario | other | its cost against foresight's | what it keeps, points | foresight is |\n|---|---|---|---|---|")
    for scenario in given.scenarios:
        runs = play(scenario, [OURS, *others], seeds, given.set, None if given.out is None else Kept(given.out))
        rivals = [rival(name, runs) for name in others]
        print(*lines(scenario, rivals), sep="\n", flush=True)
        found += [f"{scenario} by {one.strategy}" for one in rivals if one.word == "dominated"]
    print(f"dominated: {', '.join(found) or 'nowhere'}")


if __name__ == "__main__":
    main()
