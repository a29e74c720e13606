"""`sageserve simulate`: play a trace through a fleet, print what it cost and which promises were kept.

Knows options; computes nothing. stdout is the result, everything else is on stderr.
Read next: `render.py` for the table, `sim/run.py` for the simulation, `data/results/run_folder.py` for `--out`.
"""

import dataclasses
import shlex
import time
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sageserve.cli import complete
from sageserve.cli.progress import Interruption, bar, compile_once
from sageserve.cli.reach import warn_of_promises
from sageserve.cli.trace_options import as_typed, takes_trace
from sageserve.data.traces.options import TraceOptions

if TYPE_CHECKING:
    from sageserve.base.config import Scenario
    from sageserve.data.results.summary import Summary
    from sageserve.sim.run import Run, Simulation

EXAMPLES = """[bold]Examples[/bold]

sageserve simulate quickstart --strategy siloed --json | jq .cost_usd.total

sageserve simulate o365-week --out runs/week --set fleet.start=16

sageserve simulate quickstart --trace azure_conv.csv.gz --map '*=llama-3.3-70b' --load 4
"""


@takes_trace(plays=True)
def simulate(  # noqa: PLR0913, PLR0917 # one argument per option
    scenario: Annotated[str, complete.SCENARIO],
    options: TraceOptions,
    strategy: Annotated[
        str | None,
        typer.Option(
            autocompletion=complete.strategies,
            metavar="NAME",
            help="the rule that scales, such as siloed; or module:Class, your own",
            show_default="the scenario's",
        ),
    ] = None,
    order: Annotated[
        Literal["fcfs", "edf", "pf", "dpa"] | None,
        typer.Option(help="which waiting request is next", show_default="the scenario's"),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="of everything random", show_default="the scenario's")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="any setting, such as fleet.start=4; may be repeated"),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="write requests, timeline, summary, journal and report")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="over what is in that folder")] = False,
    no_report: Annotated[bool, typer.Option("--no-report", help="with --out: no report.html")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print summary.json instead of the table")] = False,
    debug_laws: Annotated[bool, typer.Option("--debug-laws", help="check every law after every event (slow)")] = False,
) -> None:
    """Play a request trace through a fleet under a strategy: cost, waste, and which promises were kept."""
    from sageserve.data.scenarios.load import load
    from sageserve.data.workload.requests import requests_for
    from sageserve.sim.results.summary import summarise
    from sageserve.sim.run import Simulation

    asked = {"strategy.name": strategy, "order.kind": order, "seed": seed}
    given = {key: str(value) for key, value in asked.items() if value is not None}
    loaded = load(scenario, overrides=[*(overrides or ()), *map("=".join, given.items())])
    settings = loaded.scenario
    _check(settings, out, replace=replace)
    requests = requests_for(settings, options, bar)
    for line in chain(loaded.remarks(), requests.remarks()):
        typer.echo(line, err=True)
    compile_once()
    warn_of_promises(settings, requests.trace)
    simulation = Simulation(settings, requests.trace, earlier=requests.earlier, debug=debug_laws)
    del requests  # a fifth of the memory of a long run, which has its own rows now
    run, cpu_s = _play(simulation)
    summary = summarise(run, cpu_s)
    if out is not None:
        _write(out, run, summary, replace=replace)
    del run  # a long run's requests need not be in memory twice
    if out is not None and not no_report:
        _report(out)
    if as_json:
        _print_json(summary)
    else:
        _draw(summary, [scenario, *_sets(overrides)], given, options, out, rival=_rival(settings))
    if summary.partial:
        raise typer.Exit(130)


def _check(settings: "Scenario", out: Path | None, *, replace: bool) -> None:
    """Refuse, before a trace is read and anything compiled, what cannot be played or put where it is to go."""
    from sageserve.core.own_rules import own_rules
    from sageserve.core.strategies import kind_of

    kind_of(settings)
    own_rules(settings)
    if out is not None:
        from sageserve.data.results.run_folder import check_folder  # loads Arrow

        check_folder(out, replace=replace)


def _sets(overrides: list[str] | None) -> list[str]:
    """Settings as they were typed."""
    return [word for each in overrides or () for word in ("--set", each)]


def _play(simulation: "Simulation") -> "tuple[Run, float]":
    """Play it, and the CPU seconds that took."""
    began = time.process_time()
    name, window = simulation.run.scenario.name, simulation.run.window
    with Interruption().heard() as interruption, bar(f"simulate {name}") as tell:
        run = simulation.play(progress=lambda now: tell(min(now, window), window), interrupted=lambda: interruption.asked)
    return run, time.process_time() - began


def _write(out: Path, run: "Run", summary: "Summary", *, replace: bool) -> None:
    from sageserve.data.results.run_folder import write_run
    from sageserve.sim.results.export import record_of

    with bar(f"write {out}") as tell:
        total = summary.requests.arrived
        write_run(out, record_of(run, summary), replace=replace, progress=lambda done: tell(done, total))


def _report(out: Path) -> None:
    from sageserve.cli.report import write
    from sageserve.data.results.run_folder import REPORT

    write([out], out / REPORT)


def _print_json(summary: "Summary") -> None:
    from sageserve.data.results.summary import summary_json

    typer.echo(summary_json(summary).decode(), nl=False)


def _rival(settings: "Scenario") -> str:
    """The strategy that a run is best compared with."""
    from sageserve.cli.render import RIVALS

    return RIVALS.get(settings.strategy.name, "reactive")


def _draw(
    summary: "Summary", words: list[str], given: dict[str, str], options: TraceOptions, out: Path | None, *, rival: str
) -> None:
    """Print the table, and commands that play the same with one thing changed.

    Args:
        summary: of the run.
        words: the scenario and its settings as they were typed.
        given: other options, by what they set.
        options: of the trace.
        out: where files were written.
        rival: another strategy.
    """
    from sageserve.cli.render import draw

    typed = {f"--{key.partition('.')[0]}": value for key, value in given.items()}

    def command(changes: dict[str, str], requests: TraceOptions = options) -> str:
        flags = [word for flag, value in (typed | changes).items() for word in (flag, value)]
        return " ".join([shlex.join(["sageserve", "simulate", *words, *flags]), *as_typed(requests)])

    following = [command({"--strategy": rival})]
    if summary.order != "dpa" and any(tier.kept is False for tier in summary.tiers.values()):
        following.append(command({"--order": "dpa"}))
    else:
        following.append(command({}, dataclasses.replace(options, load=options.load * 1.5)))
    if out is None:
        following.append(command({"--out": str(_free_place(Path("runs")))}))
    draw(summary, following, out)


def _free_place(folder: Path) -> Path:
    """A folder in this one that is not there yet: `first`, else a number."""
    return next(place for name in chain(("first",), map(str, count(2))) if not (place := folder / name).exists())
