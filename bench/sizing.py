"""Size fleets for real traces, and play what was sized on seeds that had no part in it.

    python -m bench.sizing [CASE ...] [--seeds 1001..1010] [--workers N]

Cases: azure-code and azure-conv, an hour each at ten times its rate; servegen-hours, servegen-hours-held (an instance of each
model in each region, at least), -day and -week, of four models. A seed that sizing never saw draws another window: which minute's
requests come when (the bootstrap of docs/how-to/how-many-gpus.md), in which region each request enters, how copies are shifted,
the network. Printed are the fleet, what one instance less in each pool comes to, the seeds that break a promise, and the CPU
seconds of sizing, reading included, also as minutes for a million requests on two cores. Traces are in --data.

Knows nothing of how a fleet is found. Read next: `src/sageserve/sim/sizing/run.py`, docs/why/results.md.
"""

import argparse
import resource
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import bench.figures  # noqa: F401 # before anything with a kernel: it sets their cache
from sageserve.base.config import Scenario
from sageserve.cli.render_size import share
from sageserve.cli.seeds import parse_seeds
from sageserve.data.results.sweep_folder import SweepSource
from sageserve.data.scenarios.load import load_scenario
from sageserve.data.traces.options import TraceOptions
from sageserve.sim.sizing.plays import Wish, measured_of
from sageserve.sim.sizing.pools import pools_to_size, with_counts
from sageserve.sim.sizing.records import OneLess, Sizing
from sageserve.sim.sizing.run import size
from sageserve.sim.sizing.search import Promises
from sageserve.sim.sweep.cell import Cell, Finished, Player
from sageserve.sim.sweep.processes import Processes
from sageserve.sim.sweep.run import Watch

DATA: Final = Path(__file__).resolve().parents[2] / "shared" / "data"
MODELS: Final = (
    "models.gpt-oss-120b={context: 131072, engines: {h200: gpt-oss-120b/h200/tp1}, load: {local: 210s}}",
    "models.deepseek-r1={context: 131072, engines: {h200: deepseek-r1/h200/tp8}, load: {local: 210s}}",
    "workload.assign.model={llama-3.3-70b: 1, qwen3-32b: 1, gpt-oss-120b: 1, deepseek-r1: 1}",
    "fleet.minimum=0",  # an instance of each model in each region is more than its rate needs
)
MAPS: Final = ("m-large=llama-3.3-70b", "m-mid=gpt-oss-120b", "m-small=qwen3-32b", "IW=chat", "NIW=batch")


@dataclass(frozen=True, slots=True)
class Case:
    """A trace and the fleet that is to serve it: `quickstart` with other settings."""

    trace: str
    options: TraceOptions
    overrides: tuple[str, ...] = ()


CASES: Final = {
    "azure-code": Case("azure2023/AzureLLMInferenceTrace_code.csv.gz", TraceOptions(maps=("*=qwen3-32b",), load=10.0)),
    "azure-conv": Case("azure2023/AzureLLMInferenceTrace_conv.csv.gz", TraceOptions(maps=("*=llama-3.3-70b",), load=10.0)),
    "servegen-hours": Case("servegen_week/tiered_7d.parquet", TraceOptions(maps=MAPS, begin="2d9h", until="2d15h"), MODELS),
    "servegen-hours-held": Case(
        "servegen_week/tiered_7d.parquet", TraceOptions(maps=MAPS, begin="2d9h", until="2d15h"), (*MODELS, "fleet.minimum=1")
    ),
    "servegen-day": Case("servegen_week/tiered_7d.parquet", TraceOptions(maps=MAPS, begin="2d", until="3d"), MODELS),
    "servegen-week": Case("servegen_week/tiered_7d.parquet", TraceOptions(maps=MAPS), MODELS),
}


def cpu_s() -> float:
    """CPU seconds of this process and of workers that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def unseen(scenario: Scenario, source: SweepSource, sizing: Sizing, seeds: Sequence[int]) -> Iterator[tuple[int, list[str]]]:
    """By seed, the promises that the sized fleet breaks, in words."""
    player = Player()
    trace = player.requests(Cell("", scenario, source)).trace
    pools = {pool.name: pool for found in pools_to_size(scenario, trace).values() for pool in found}
    counts = {line.pool: line.instances for line in sizing.fleet}
    promises = Promises({tier: one.target for tier, one in sizing.proof.items()}, sizing.windows, sizing.safety, 1)
    for seed in seeds:
        drawn = replace(source, options=replace(source.options, resampled=seed))
        cell = Cell(f"unseen {seed}", with_counts(scenario.model_copy(update={"seed": seed}), counts, pools), drawn)
        outcome = player.play(cell)
        if not isinstance(outcome, Finished):
            raise SystemExit(f"{cell.name}: {outcome}")
        measured = {model: measured_of(outcome.summary, model) for model in outcome.summary.models}
        broken = {model: promises.broken_in(one, seed) for model, one in measured.items()}
        yield seed, [f"{one.tier or 'work'} of {model}: {share(one.share)}" for model, one in broken.items() if one is not None]


def reason(line: OneLess) -> str:
    """What one instance less comes to."""
    match line.why:
        case "breaks":
            return f"breaks {line.tier}: {share(line.share)} in window {line.window}"
        case "unsure":
            return f"{line.tier} is {share(line.share)} safe, {share(line.needed)} needed"
        case "minimum":
            return "held by the minimum"
        case "none":
            return "other pools carry it"
        case "last":
            return "the only one of its model"
        case "backlog":
            return "work is left over"
        case "unused":
            return "nothing asks for it"


def run(name: str, data: Path, seeds: Sequence[int], workers: int) -> None:
    """One case."""
    case = CASES[name]
    source = SweepSource(replace(case.options, files=(data / case.trace,)))
    scenario = load_scenario("quickstart", overrides=case.overrides)
    began = cpu_s()
    with Processes(workers) as runner:
        sizing = size(scenario, source, Wish(), runner, Watch(progress=lambda done, _: tell(name, done)))
    spent = cpu_s() - began
    less = {line.pool: reason(line) for line in sizing.less}
    print(f"\n{name}: {sizing.gpus} GPUs for {sizing.requests:,} requests, {sizing.plays} plays of {sizing.windows} windows")
    for line in sizing.fleet:
        print(f"| {line.pool} | {line.instances} | {less[line.pool]} |")
    for tier, one in sizing.proof.items():
        print(f"| {tier} | sized for {share(one.target)} | kept at least {share(one.kept_least)} | {share(one.safety)} safe |")
    for note in sizing.notes:
        print(f"  {note}")
    each = spent / sizing.requests * 1e6
    print(f"sized in {spent:.0f} CPU s; a million requests in {each:.0f}, {each / 120:.1f} min on two cores", flush=True)
    broken = 0
    for seed, words in unseen(scenario, source, sizing, seeds):
        broken += bool(words)
        print(f"unseen {seed}: {'; '.join(words) or 'kept'}", flush=True)
    print(f"{name}: {broken} of {len(seeds)} unseen seeds break a promise")


def tell(name: str, done: int) -> None:
    """Say on stderr how far it is."""
    if done % 10 == 0:
        print(f"{name}: {done} windows played", file=sys.stderr, flush=True)


def main() -> None:
    """Size and try each case."""
    parser = argparse.ArgumentParser(description="Size fleets for real traces, and play them on seeds that sizing did not see.")
    parser.add_argument("cases", nargs="*", metavar="CASE", default=["azure-code", "azure-conv"], help=", ".join(CASES))
    parser.add_argument("--seeds", type=parse_seeds, default=parse_seeds("1001..1010"))
    parser.add_argument("--data", type=Path, default=DATA, help="the folder that holds azure2023 and servegen_week")
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    for name in given.cases:
        if name not in CASES:
            parser.error(f"there is no case {name}: {', '.join(CASES)}")
        run(name, given.data, given.seeds, given.workers)


if __name__ == "__main__":
    main()
