"""How far a backtest is from the simulation of what really came, through a real Prometheus: `python -m bench.accuracy`.

A workload is played under `reactive`. What its engines and gateways would have shown goes into real Prometheus servers, one
for each region, and `sageserve backtest` reads it there by URL, as a user's. The same policies play the requests that came,
and both answers are laid side by side: GPU-hours, promises, and which policy costs less. Three workloads (one with answers
that go with prompts, one that Azure recorded), each scraped every 15 s with service classes labelled by the gateway, and
every 60 s without.

    python -m bench.accuracy [--hours 6] [--seeds 1,2,3] [--only NAME]      some minutes of CPU; needs prometheus and promtool

Prints a table in Markdown, and exits 1 where a bound is missed. Read next: docs/reference/reconstruction.md for what it
found; `rebuild.py` for the same without a server.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from statistics import fmean

from bench import figures  # isort: skip # before any kernel is imported
import msgspec

from bench.stored import put, serving
from sageserve.base.config import Scenario
from sageserve.base.records import Trace
from sageserve.base.units import DAY, HOUR, MINUTE, SECOND, Micros
from sageserve.data.results.comparison import needed
from sageserve.data.results.summary import Summary
from sageserve.data.scenarios.load import load_scenario
from sageserve.data.traces.changes.transform import load
from sageserve.data.traces.options import TraceOptions
from sageserve.data.traces.read import read_trace
from sageserve.data.workload.generate import generate
from sageserve.sim.backtest.exported import Recording, engine_series, front_series, lives_of
from sageserve.sim.backtest.own_error import RHO, correlated
from sageserve.sim.results.summary import summarise
from sageserve.sim.run import Run, Simulation

MONDAY: Micros = 19_674 * DAY  # 13 November 2023, 00:00 UTC
DID = "reactive"  # what the fleet whose history it is was scaled by
POLICIES = (DID, "lt-ua", "foresight")  # beside `recorded`, which is what was
FAR = 0.05  # relative difference of costs from which their order must be right
COPIES = 8.0
AZURE = Path("azure2023/AzureLLMInferenceTrace_conv.csv.gz")
FLEET = """
extends: quickstart
name: {name}
admission: "off" # as engines that users run have none
batch: {{feed: direct}}
fleet: {{starts: {starts}}}
{alone}workload: {{{only}generate: {{length: {hours}h, begins: 34h, requests: {requests}{shapes}}}}}
live:
  clusters:
{clusters}
  tiers: {{chat: {{priority: 0}}, agents: {{priority: 1}}, batch: {{priority: 2}}}}
  targets:
{targets}
"""
ALONE = "models: {qwen3-32b: null}\n"
ONLY = "assign: {model: {qwen3-32b: null}}, "
SHAPES = ", shapes: null"  # the trace says when, so the settings' shares are those of workload.assign


@dataclass(frozen=True)
class Recorded:
    """One way to scrape, and how far the answer may be off: relative, and in points."""

    name: str
    interval: Micros
    tiers: bool
    hours: float
    points: float


WAYS = (
    Recorded("15 s, labelled", 15 * SECOND, tiers=True, hours=0.05, points=3.0),
    Recorded("60 s, not labelled", 60 * SECOND, tiers=False, hours=0.10, points=4.0),
)


@dataclass(frozen=True)
class Workload:
    """Requests that came.

    Args:
        name: for people.
        models: that are served.
        make: the requests, of a scenario.
        settings: what differs in its fleet.
    """

    name: str
    models: tuple[str, ...]
    make: Callable[[Scenario], Trace]
    settings: Mapping[str, str]


@dataclass(frozen=True)
class Played:
    """What one policy came to: of the true requests, and of those that were made, by seed."""

    policy: str
    true: Summary
    made: tuple[Summary, ...]

    def hours(self) -> float:
        """Relative, of the seeds' mean."""
        return fmean(map(needed, self.made)) / needed(self.true) - 1.0

    def points(self) -> dict[str, float]:
        """Of each tier's promise, of the seeds' mean."""
        found = {}
        for tier, one in self.true.tiers.items():
            kept = [each.tiers[tier].attainment for each in self.made]
            if one.attainment is not None and None not in kept:
                found[tier] = 100 * (fmean(value for value in kept if value is not None) - one.attainment)
        return found

    def cost(self) -> tuple[float, float]:
        """Dollars: true, and made."""
        return self.true.cost_usd.total, fmean(one.cost_usd.total for one in self.made)


def real(scenario: Scenario) -> Trace:
    """An hour of Azure's conversations, with copies within half a minute: else it takes an instance or two."""
    beside = Path(__file__).resolve().parents[2] / "shared/data"
    data = Path(os.environ.get("SAGESERVE_DATA", beside))  # noqa: TID251 # the shell of a benchmark is told where data is
    trace = read_trace(data / AZURE, scenario, TraceOptions(maps=("*=llama-3.3-70b",)))[0]
    return load(replace(trace, window=HOUR), COPIES, 1)


def workloads(hours: int) -> tuple[Workload, ...]:
    """The three."""
    both = ("llama-3.3-70b", "qwen3-32b")
    made = {"alone": "", "only": "", "hours": str(hours), "requests": str(60_000 * hours), "shapes": ""}
    azure = made | {"alone": ALONE, "only": ONLY, "hours": "1", "shapes": SHAPES}
    return (
        Workload("quickstart", both, generate, made),
        Workload(f"quickstart, rank correlation {RHO:g}", both, lambda scenario: correlated(generate(scenario), RHO, 1), made),
        Workload("Azure conversations", both[:1], real, azure),
    )


def fleet(work: Workload, urls: Mapping[str, str], starts: Mapping[str, int]) -> str:
    """The scenario of a user who runs this fleet, with what it begins with by pool."""
    clusters = [f'    {region}: {{prometheus: {{url: "{url}"}}}}' for region, url in urls.items()]
    targets = [
        f"    {model}-{region}: {{cluster: {region}, pool: {region}/{model}/h200, kind: Deployment, "
        f"name: serving/{model}, max: 24, series: {{model_name: {model}}}}}"
        for region in urls
        for model in work.models
    ]
    return FLEET.format(
        name="accuracy", clusters="\n".join(clusters), targets="\n".join(targets), starts=json.dumps(starts), **work.settings
    )


def play(scenario: Scenario, trace: Trace, policy: str) -> tuple[Run, Summary]:
    """The requests under one policy."""
    settings = scenario.model_copy(update={"strategy": scenario.strategy.model_copy(update={"name": policy})})
    run = Simulation(settings, trace).play()
    return run, summarise(run, 0.0)


def written(folder: Path, text: str) -> Scenario:
    """A scenario, in a file of its own."""
    path = folder / "fleet.yaml"
    path.write_text(text, "utf-8")
    return load_scenario(str(path))


def held(run: Run) -> dict[str, int]:
    """Instances of each pool on average: what a fleet begins with whose history is cut out of a longer one."""
    total: dict[str, float] = {}
    for one in lives_of(run):
        pool = run.layout.pools[run.fleet.pool_of[one.instance]].name
        total[pool] = total.get(pool, 0.0) + (min(one.end, run.window) - min(one.begin, run.window)) / run.window
    return {pool: max(1, round(mean)) for pool, mean in total.items()}


def stored(folder: Path, run: Run, way: Recorded) -> Iterator[tuple[str, Path]]:
    """Data of a Prometheus for each region, as its engines and its gateway would have filled it."""
    recording = Recording(MONDAY, way.interval, way.tiers)
    for code, region in enumerate(run.layout.names.regions):
        series = list(engine_series(run, recording, region=code, lives=True))
        series += front_series(run, recording, region=code) if way.tiers else ()
        samples = put(folder / region, iter(series))
        print(f"{region}: {samples:,} samples of {len(series):,} series", file=sys.stderr, flush=True)
        yield region, folder / region


def backtested(folder: Path, text: str, window: Micros, seeds: str) -> dict[str, tuple[Summary, ...]]:
    """What `sageserve backtest` says, by policy and seed."""
    (folder / "fleet.yaml").write_text(text, "utf-8")
    until = datetime.fromtimestamp((MONDAY + window) / SECOND, UTC).isoformat()
    command = (
        *(sys.executable, "-m", "sageserve", "backtest", str(folder / "fleet.yaml"), "--out", str(folder / "out"), "--json"),
        *("--until", until, "--last", f"{window // MINUTE}m", "--policies", ",".join(("recorded", *POLICIES)), "--seeds", seeds),
        *("--no-error", "--workers", "1"),
    )
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    answer = json.loads(done.stdout)
    for name in ("profile", "counters", "lengths"):
        print(f"{name}: {answer['checks'][name]['state']}: {answer['checks'][name]['said']}", file=sys.stderr, flush=True)
    return {
        name: tuple(msgspec.convert(one, Summary, str_keys=True) for one in policy.get("seeds", {"": policy}).values())
        for name, policy in answer["policies"].items()
    }


def measured(work: Workload, seeds: str) -> Iterator[tuple[Recorded, list[Played]]]:
    """Every way to scrape it."""
    with tempfile.TemporaryDirectory(prefix="accuracy-") as name:
        folder = Path(name)
        urls = dict.fromkeys(("us-east", "us-west"), "http://localhost:9090")
        scenario = written(folder, fleet(work, urls, {}))
        truth = replace(work.make(scenario), start=None)
        starts = held(play(scenario, truth, DID)[0])
        scenario = written(folder, fleet(work, urls, starts))
        run, did = play(scenario, truth, DID)
        true = {"recorded": did, DID: did} | {name: play(scenario, truth, name)[1] for name in POLICIES if name != DID}
        for number, way in enumerate(WAYS):
            place = folder / str(number)
            place.mkdir()
            with ExitStack() as stack:
                urls = {region: stack.enter_context(serving(data)) for region, data in stored(place, run, way)}
                made = backtested(place, fleet(work, urls, starts), truth.window, seeds)
            yield way, [Played(policy, true[policy], made[policy]) for policy in true]


def disordered(found: Sequence[Played]) -> list[str]:
    """Policies whose order by cost is not the true one, though true costs are far apart."""
    wrong = []
    for one, other in combinations(found, 2):
        (a, b), (made_a, made_b) = (pair for pair in zip(one.cost(), other.cost(), strict=True))
        if abs(a / b - 1.0) > FAR and (a < b) != (made_a < made_b):
            wrong.append(f"{one.policy} and {other.policy}")
    return wrong


def main() -> int:
    """Measure; exit code 1 where a bound is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.accuracy", description="How far a backtest is from the truth.")
    parser.add_argument("--hours", type=int, default=6, help="of the generated workloads")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--only", default="", help="workloads whose name begins so")
    given = parser.parse_args()
    missed = 0
    print("| workload | scraped | policy | GPU-hours, true | GPU-hours off | promises kept, true | promises off, points | held |")
    print("|---|---|---|---|---|---|---|---|")
    for work in workloads(given.hours):
        for way, found in measured(work, given.seeds) if work.name.startswith(given.only) else ():
            for one in found:
                points = one.points()
                within = abs(one.hours()) <= way.hours and max(map(abs, points.values())) <= way.points
                missed += not within
                kept = ", ".join(f"{100 * (one.true.tiers[tier].attainment or 0.0):.1f}" for tier in points)
                off = ", ".join(f"{value:+.1f}" for value in points.values())
                print(
                    f"| {work.name} | {way.name} | {one.policy} | {needed(one.true):.1f} | {one.hours():+.1%} | {kept} | {off} | "
                    f"{'yes' if within else 'no'} |",
                    flush=True,
                )
            wrong = disordered(found)
            missed += len(wrong)
            print(f"{work.name}, {way.name}: order by cost {'wrong: ' + '; '.join(wrong) if wrong else 'right'}", file=sys.stderr)
    figures.show("accuracy_missed", missed, "bounds")
    return min(missed, 1)


if __name__ == "__main__":
    sys.exit(main())
