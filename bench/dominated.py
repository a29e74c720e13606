"""Look for windows in which another strategy is cheaper than foresight and keeps as much, over paired seeds.

    python -m bench.dominated [WINDOW ...] [--seeds 1..5] [--others A,B] [--tune] [--set KEY=VALUE ...] [--out DIR]

A window is a scenario, or azure-code and azure-conv: an hour of Azure's traces at ten times their rate on kubernetes-day's fleet,
judged from the 20th minute on; or servegen-week: ServeGen's on o365-week's fleet, judged from its second day on. What came before
is history, and a seed draws another hour or week (`Window`). A cell is a window and
another strategy, on the same requests seed by seed. Cost is GPU-hours with owed work. foresight is *dominated* where the other is
more than 1 % cheaper in every part of the 95 % interval of the paired change, and keeps in no tier 0.1 point less in the mean,
and *perhaps* where only the mean of the cost says so. The last line names the dominated cells. With --tune marks and targets are
first chosen on the past, as `sageserve tune` does: on the window before, or on what is history of a trace. With --out, what
was played is not played again.

Knows no strategy from inside. Read next: `src/sageserve/data/results/significance.py`, docs/why/results.md.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

import bench.figures  # noqa: F401 # before anything with a kernel: it sets their cache
from sageserve.base.config import Scenario
from sageserve.base.errors import ConfigError
from sageserve.cli.seeds import parse_seeds
from sageserve.data.results.comparison import needed
from sageserve.data.results.significance import Interval, paired
from sageserve.data.results.summary import Summary
from sageserve.data.results.sweep_folder import GENERATED, Kept, SweepSource
from sageserve.data.scenarios.load import load_scenario
from sageserve.data.traces.options import TraceOptions
from sageserve.data.workload.generate import window_before
from sageserve.sim.sweep.cell import Cell, Failed, Finished
from sageserve.sim.sweep.frontier import CHEAPER
from sageserve.sim.sweep.processes import Processes
from sageserve.sim.sweep.run import Watch, sweep
from sageserve.sim.sweep.tuning import CANDIDATES, NEAR, choose, judge

DATA: Final = Path(__file__).resolve().parents[2] / "shared" / "data"
SCENARIOS: Final = ("quickstart", "kubernetes-day", "o365-peak", "o365-week")
OURS: Final = "foresight"
OTHERS: Final = "reactive,reactive-tuned,hpa,lt-ua"
TUNED: Final = ("reactive-tuned", "hpa", "keda")
Runs = Mapping[str, Mapping[int, Summary]]
"""By strategy and seed."""


@dataclass(frozen=True, slots=True)
class Window:
    """Requests on a fleet.

    Args:
        scenario: the fleet, and its own traffic where there is no trace.
        trace: a file below --data; empty: none.
        options: what of it.
    """

    scenario: str
    trace: str = ""
    options: TraceOptions = field(default_factory=TraceOptions)

    def source(self, data: Path, seed: int) -> SweepSource:
        """Where requests come from; of a trace another draw with every seed."""
        if not self.trace:
            return GENERATED
        return SweepSource(replace(self.options, files=(data / self.trace,), resampled=seed))

    def past(self, data: Path, settings: Scenario) -> tuple[Scenario, SweepSource]:
        """The window that marks are chosen on."""
        if not self.trace:
            return window_before(settings), GENERATED
        return settings, SweepSource(replace(self.options, files=(data / self.trace,), begin=None, until=self.options.begin))


AZURE: Final = "azure2023/AzureLLMInferenceTrace_{}.csv.gz"
O365_MODELS: Final = {"m-large": "llama-2-70b", "m-mid": "llama-3.1-8b", "m-small": "llama-3.2-3b", "deepseek-r1": "bloom-176b"}
O365_MAPS: Final = (*(f"{theirs}={ours}" for theirs, ours in O365_MODELS.items()), "IW=iw-f", "NIW=niw")
WINDOWS: Final[Mapping[str, Window]] = {
    **{
        name: Window("kubernetes-day", AZURE.format(kind), TraceOptions(maps=(f"*={model}",), load=10.0, begin="20m"))
        for name, kind, model in (("azure-code", "code", "gpt-oss-120b"), ("azure-conv", "conv", "llama-3.3-70b"))
    },
    "servegen-week": Window("o365-week", "servegen_week/tiered_7d.parquet", TraceOptions(maps=O365_MAPS, begin="1d")),
}
"""By name; every other name is a scenario's."""


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


def play(name: str, strategies: Mapping[str, Sequence[str]], seeds: Sequence[int], given: argparse.Namespace) -> Runs:
    """Every strategy, with settings of its own, with every seed."""
    window = WINDOWS.get(name, Window(name))
    cells = [
        Cell(
            f"{name}-{strategy}-{seed}",
            load_scenario(window.scenario, overrides=[*given.set, *own, f"seed={seed}", f"strategy.name={strategy}"]),
            window.source(given.data, seed),
        )
        for seed in seeds
        for strategy, own in strategies.items()
    ]
    runs: dict[str, dict[int, Summary]] = {strategy: {} for strategy in strategies}
    for cell, summary in zip(cells, played(name, cells, given), strict=True):
        runs[cell.scenario.strategy.name][cell.scenario.seed] = summary
    return runs


def played(name: str, cells: Sequence[Cell], given: argparse.Namespace) -> list[Summary]:
    """Summaries of cells, one process at a time."""
    kept = None if given.out is None else Kept(given.out)
    outcomes = sweep(cells, Processes(workers=1), kept=kept, watch=Watch(progress=partial(tell, name)))
    found = []
    for cell, outcome in zip(cells, outcomes, strict=True):
        if not isinstance(outcome, Finished):
            raise SystemExit(f"{cell.name}: {outcome.message if isinstance(outcome, Failed) else outcome}")
        found.append(outcome.summary)
    return found


def chosen(name: str, strategy: str, given: argparse.Namespace) -> tuple[str, ...]:
    """Settings of a strategy that are chosen on the past; none of one that has none to choose."""
    window, tried = WINDOWS.get(name, Window(name)), CANDIDATES.get(strategy, ())
    if not given.tune or strategy not in TUNED or not tried:
        return ()
    cells = []
    for one in tried:
        settings = load_scenario(window.scenario, overrides=[*given.set, f"strategy.name={strategy}", *one.changes])
        cells.append(Cell(f"{name}-past-{strategy}-{one.name}".replace(" ", "-"), *window.past(given.data, settings)))
    trials = [judge(one, [run]) for one, run in zip(tried, played(f"{name}, {strategy} on the past", cells, given), strict=True)]
    best = choose(trials)
    print(
        f"{name}: {strategy} {best.candidate.name}, chosen on the past ({100 * best.shortfall:.1f} points short)", file=sys.stderr
    )
    return best.candidate.changes


def tell(window: str, done: int, total: int) -> None:
    """Say on stderr how far it is."""
    print(f"{window}: {done} of {total}", file=sys.stderr)


def lines(window: str, rivals: Sequence[Rival]) -> Iterator[str]:
    """The rows of a window."""
    for one in rivals:
        cost = f"{100 * one.cost.change:+.1f} % ({100 * one.cost.low:+.1f} to {100 * one.cost.high:+.1f})"
        kept = ", ".join(f"{tier} {100 * change.change:+.2f} ± {100 * change.half:.2f}" for tier, change in one.kept.items())
        yield f"| {window} | {one.strategy} | {cost} | {kept} | {one.word} |"


def main() -> None:
    """Print a row per window and strategy, and the dominated ones at the end."""
    parser = argparse.ArgumentParser(description="Look for windows in which another strategy dominates foresight.")
    parser.add_argument("windows", nargs="*", default=SCENARIOS, metavar="WINDOW", help=f"scenarios, or {', '.join(WINDOWS)}")
    parser.add_argument("--seeds", default="1..5", help="two or more")
    parser.add_argument("--others", default=OTHERS)
    parser.add_argument("--tune", action="store_true", help=f"choose settings of {', '.join(TUNED)} on the past first")
    parser.add_argument("--data", type=Path, default=DATA, help="the folder that holds azure2023 and servegen_week")
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
    print("| window | other | its cost against foresight's | what it keeps, points | foresight is |\n|---|---|---|---|---|")
    for window in given.windows:
        strategies = {name: chosen(window, name, given) for name in (OURS, *others)}
        runs = play(window, strategies, seeds, given)
        rivals = [rival(name, runs) for name in others]
        print(*lines(window, rivals), sep="\n", flush=True)
        found += [f"{window} by {one.strategy}" for one in rivals if one.word == "dominated"]
    print(f"dominated: {', '.join(found) or 'nowhere'}")


if __name__ == "__main__":
    main()
