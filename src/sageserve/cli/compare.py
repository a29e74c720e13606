"""`sageserve compare`: strategies on the same requests, over seeds, on all cores or on a cluster; one table, or JSON.

Knows options and what goes into a sweep; computes nothing. stdout is the result, everything else is on stderr.
Read next: `render_compare.py` for the tables, `sim/sweep/run.py`, docs/reference/summary.md.
"""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sageserve.cli import compare_ablate, compare_frontier, complete, kernels
from sageserve.cli.progress import Interruption, bar, compile_once
from sageserve.cli.reach import warn_of_promises
from sageserve.cli.seeds import Seeds, parse_seeds
from sageserve.cli.trace_options import as_typed, takes_trace
from sageserve.data.traces.options import TraceOptions

if TYPE_CHECKING:
    from sageserve.data.results.comparison import Bound, Comparison
    from sageserve.data.results.summary import Summary
    from sageserve.data.results.sweep_folder import SweepSource
    from sageserve.sim.sweep.cell import Cell, Outcome
    from sageserve.sim.sweep.run import CellRunner

ORACLE = "oracle"
ABLATED = "foresight"
UNKEPT = ", with --out DIR they would have been kept"
EXAMPLES = """[bold]Examples[/bold]

sageserve compare quickstart --strategies siloed,reactive,lt-ua,oracle

sageserve compare o365-peak --strategies reactive,lt-ua --seeds 1..5 --out sweeps/peak

sageserve compare quickstart --strategies reactive,foresight --frontier

sageserve compare quickstart --trace azure_conv.csv.gz --map '*=llama-3.3-70b' --json
"""

Where = Literal["local", "ray"]
_NAMED = 3  # cells that failed alike, by their names
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="any setting; may be repeated")]
Workers = Annotated[int | None, typer.Option(min=1, help="processes at once", show_default="as cores and memory allow")]


@takes_trace(plays=True)
def compare(  # noqa: PLR0913, PLR0917 # one argument per option
    scenario: Annotated[str, complete.SCENARIO],
    options: TraceOptions,
    strategies: Annotated[
        str | None,
        typer.Option(
            autocompletion=complete.strategies,
            metavar="A,B,C",
            help="strategies, module:Class for your own; oracle is the bound",
            show_default="all of them",
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|fixed:N|RUN", help="what others are set against; a folder of a run, too", show_default="reactive"
        ),
    ] = None,
    seeds: Seeds = None,
    overrides: Overrides = None,
    workers: Workers = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="keep results; what is there is not played again")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="also in a folder that holds other files")] = False,
    no_report: Annotated[bool, typer.Option("--no-report", help="with --out: only summaries, no report.html")] = False,
    place: Annotated[Where, typer.Option("--on", help="this machine, or a Ray cluster")] = "local",
    frontier: Annotated[bool, typer.Option("--frontier", help="turn one knob of each strategy; costs at equal promises")] = False,
    ablate: Annotated[bool, typer.Option("--ablate", help="foresight without each of its parts; what they are worth")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print summaries instead of tables")] = False,
) -> None:
    """Compare strategies on the same requests: GPU-hours, cost, waste, and which promises were kept."""
    from sageserve.cli.render_compare import comparison_json, draw
    from sageserve.data.results.sweep_folder import source_of

    _refuse(strategies, frontier=frontier, ablate=ablate, as_json=as_json)
    names, base, given = _against(_strategies(ABLATED if ablate and strategies is None else strategies), baseline)
    source = source_of(options)
    if frontier or ablate:
        make = compare_ablate.ablated_cells if ablate else compare_frontier.knob_cells
        points = make(scenario, _rivals(names, baseline), _seeds(seeds), tuple(overrides or ()), source)
        reported = None if no_report or place != "local" or ablate else out
        points = points if reported is None else compare_frontier.with_given_whole(points)
        played = [*(cell for point in points for cell in point.cells), *compare_frontier.bound_cells(points if frontier else [])]
        outcomes = run_cells(played, runner(place, workers), f"compare {scenario}", out=out, replace=replace)
        (compare_ablate if ablate else compare_frontier).show(scenario, points, outcomes, as_json=as_json, out=reported)
        finish(outcomes, out)
        return
    cells = _cells(scenario, names, seeds, tuple(overrides or ()), source)
    if out is not None and not no_report and place == "local":  # elsewhere the folder is another machine's
        cells = with_first_seeds_whole(cells)
    outcomes = run_cells(cells, runner(place, workers), f"compare {scenario}", out=out, replace=replace)
    comparison, bounds = gather(cells, outcomes, base)
    comparison = _joined(comparison, base, given)
    if as_json:
        typer.echo(comparison_json(comparison, bounds, _left(cells, outcomes)).decode(), nl=False)
    elif comparison.runs:
        more = {"--strategies": strategies, "--baseline": baseline, "--seeds": "1..5"}
        draw(comparison, bounds, scenario, following=_following(scenario, overrides or (), more, options, comparison))
    if out is not None and not no_report and comparison.runs:
        _report(out)
    finish(outcomes, out)


def _refuse(strategies: str | None, *, frontier: bool, ablate: bool, as_json: bool) -> None:
    """Refuse what has no answer, before anything is played."""
    from sageserve.base.errors import ConfigError

    if frontier and ablate:
        raise ConfigError(
            "--frontier and --ablate are two questions, and a comparison answers one",
            hint="leave one out: --ablate plays the frontier of foresight by itself",
        )
    if strategies is not None and strategies.strip() == "oracle" and not (as_json or frontier or ablate):
        raise ConfigError(
            "oracle is a bound that strategies are held against, and there is none here",
            hint="name one beside it, as --strategies foresight,oracle; --json prints the bound alone",
        )


def _seeds(text: str | None) -> list[int] | None:
    return None if text is None else parse_seeds(text)


def _left(cells: "Sequence[Cell]", outcomes: "Sequence[Outcome | None]") -> list[str]:
    """Names of the cells that were not played to the end."""
    return [cell.name for cell, outcome in zip(cells, outcomes, strict=True) if outcome is None]


def _report(out: Path) -> None:
    """Write the report of what is kept."""
    from sageserve.cli.report import write
    from sageserve.data.results.run_folder import REPORT

    write([out], out / REPORT)


def _against(names: list[str], baseline: str | None) -> "tuple[list[str], str, Mapping[int, Summary]]":
    """The strategies to play, what they are set against, and its summaries where it was played before.

    Raises:
        ConfigError: the baseline is no strategy.
        ResultError: it is a folder without a run in it.
    """
    from sageserve.data.results.sweep_read import read_kept, siblings

    if baseline is None:
        return names, "", {}
    if Path(baseline).is_dir():
        kept = siblings(read_kept(Path(baseline)))
        return names, baseline, {seed: run.summary for seed, run in kept.items()}
    return list(dict.fromkeys([*_strategies(baseline, "--baseline"), *names])), baseline, {}


def _joined(comparison: "Comparison", base: str, given: "Mapping[int, Summary]") -> "Comparison":
    """The comparison, with the runs of a baseline that was played before.

    Raises:
        ResultError: they were played with other requests.
    """
    from sageserve.base.errors import ResultError
    from sageserve.base.units import SECOND, show_duration

    for seed, run in given.items():
        for runs in comparison.runs.values():
            now = runs.get(seed, run)
            if (now.window_s, now.requests.arrived) != (run.window_s, run.requests.arrived):
                long = show_duration(round(run.window_s * SECOND))
                raise ResultError(
                    f"{base} was played with {run.requests.arrived:,} requests over {long}, not with those of this comparison",
                    hint="give the options and settings it was played with, or name a strategy as --baseline",
                )
    return replace(comparison, runs={base: given, **comparison.runs}) if given and comparison.runs else comparison


def _named(comparison: "Comparison", winner: str) -> str:
    """The strategy that was played under this name; of a folder, that of its run."""
    return next(iter(comparison.runs[winner].values())).strategy


def _following(
    scenario: str, overrides: Sequence[str], more: "Mapping[str, str | None]", options: TraceOptions, comparison: "Comparison"
) -> str:
    """A command to go on with: the same over seeds, or a run of the strategy to use."""
    from sageserve.show.verdict import verdict

    settings = [word for each in overrides for word in ("--set", each)]
    if max((len(runs) for runs in comparison.runs.values()), default=0) > 1:
        words = ["sageserve", "simulate", scenario, *settings, "--strategy", _named(comparison, verdict(comparison).strategy)]
    else:
        words = [
            "sageserve",
            "compare",
            scenario,
            *settings,
            *(word for flag, one in more.items() if one for word in (flag, one)),
        ]
    return " ".join([shlex.join(words), *as_typed(options)])


def runner(place: Where, workers: int | None) -> "CellRunner":
    """Where cells are played.

    Raises:
        ConfigError: Ray is asked for and not installed, or the number of its workers.
    """
    if place == "local":
        from sageserve.sim.sweep.processes import Processes

        return Processes(workers)
    from sageserve.base.errors import ConfigError
    from sageserve.sim.sweep.cluster import Ray

    if workers is not None:
        raise ConfigError("--workers is for --on local: a Ray cluster knows how many it has", hint="leave --workers out")
    return Ray({kernels.VARIABLE: os.environ[kernels.VARIABLE]})


def run_cells(
    cells: "Sequence[Cell]", where: "CellRunner", what: str, *, out: Path | None, replace: bool
) -> "list[Outcome | None]":
    """Play cells with a progress bar, Ctrl-C heard, and results kept in `out`; what went wrong is told on stderr."""
    from sageserve.data.results.sweep_folder import Kept
    from sageserve.data.results.sweep_read import FRONTIER
    from sageserve.sim.sweep.cell import Failed, Finished
    from sageserve.sim.sweep.run import Watch, sweep

    kept = None if out is None else Kept(out, replace=replace)
    compile_once()
    with Interruption().heard() as interruption, bar(what) as tell:
        outcomes = sweep(cells, where, kept=kept, watch=Watch(tell, lambda: interruption.asked))
    if kept is not None:
        kept.put(FRONTIER, None)  # of an older command: what is in the folder is of this one
    remarks = [line for outcome in outcomes if isinstance(outcome, Finished) for line in outcome.remarks]
    for line in dict.fromkeys(remarks):
        typer.echo(line, err=True)
    failed: dict[Failed, list[str]] = {}
    for cell, outcome in zip(cells, outcomes, strict=True):
        if isinstance(outcome, Failed):
            failed.setdefault(outcome, []).append(cell.name)
    for why, names in failed.items():
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        typer.echo(
            f"error: {', '.join(names[:_NAMED])}{more}: {why.message}" + (f"\ntry: {why.hint}" if why.hint else ""), err=True
        )
    return outcomes


def finish(outcomes: "Sequence[Outcome | None]", out: Path | None, *, without: str = UNKEPT) -> None:
    """Leave with the exit code that says what happened: 130 interrupted, 2 a mistake, 1 a fault.

    Args:
        outcomes: of the cells; None where they were not played to the end.
        out: where results are kept.
        without: what is said of the interrupted where they are not.
    """
    from sageserve.sim.sweep.cell import Failed

    if None in outcomes:
        done = sum(outcome is not None for outcome in outcomes)
        kept = without
        if out is not None:  # a folder is made with the first result
            kept = (
                f", kept in {out}; the same command goes on from there" if out.is_dir() else f", so nothing is kept in {out} yet"
            )
        typer.echo(f"interrupted: {done} of {len(outcomes)} are finished{kept}", err=True)
        raise typer.Exit(130)
    failed = [outcome for outcome in outcomes if isinstance(outcome, Failed)]
    if failed:
        raise typer.Exit(2 if all(outcome.mistake for outcome in failed) else 1)


def _strategies(text: str | None, option: str = "--strategies") -> list[str]:
    from sageserve.base.errors import ConfigError
    from sageserve.core.strategies import STRATEGIES, strategy_kind

    if text is None:
        return [*STRATEGIES, ORACLE]
    names = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names:
        raise ConfigError(f"{option} names none", hint=f"choose from {', '.join([*STRATEGIES, ORACLE])}")
    for name in names:
        try:
            _ = name == ORACLE or strategy_kind(name)
        except ConfigError as error:
            hint = error.hint and error.hint.replace("choose one of ", f"choose one of {ORACLE}, ")
            raise ConfigError(error.message.replace("strategy.name", option), hint=hint) from None
    return names


def _cells(
    scenario: str, names: Sequence[str], seeds: str | None, overrides: Sequence[str], source: "SweepSource"
) -> "list[Cell]":
    """Every strategy with every seed; the settings are checked before anything is played."""
    from sageserve.data.results.sweep_folder import cell_name
    from sageserve.data.scenarios.load import load_scenario
    from sageserve.sim.sweep.cell import Cell

    own = load_scenario(scenario, overrides=overrides)
    if not source.options.files:
        warn_of_promises(own)
    cells = []
    for seed in [own.seed] if seeds is None else parse_seeds(seeds):
        for name in names:
            rule = [] if name == ORACLE else [f"strategy.name={name}"]
            settings = load_scenario(scenario, overrides=[*overrides, *rule, f"seed={seed}"])
            cells.append(Cell(cell_name(name, seed), settings, source, "bound" if name == ORACLE else "run"))
    return cells


def _rivals(names: Sequence[str], baseline: str | None) -> list[str]:
    """The strategies of a frontier: the bound is no competitor, and at equal promises nobody is the baseline."""
    from sageserve.base.errors import ConfigError

    if baseline is not None:
        raise ConfigError(
            f"--baseline {baseline}: a frontier has none, costs are told at equal promises", hint="leave --baseline out"
        )
    return [name for name in names if name != ORACLE]


def with_first_seeds_whole(cells: "Sequence[Cell]") -> "list[Cell]":
    """The same cells; the first of each strategy keeps its requests, timeline and journal, for the report."""
    seen: set[str] = set()
    found = []
    for cell in cells:
        name = cell.scenario.strategy.name
        found.append(replace(cell, whole=cell.what == "run" and name not in seen))
        if cell.what == "run":
            seen.add(name)
    return found


def gather(
    cells: "Sequence[Cell]", outcomes: "Sequence[Outcome | None]", base: str = ""
) -> "tuple[Comparison, dict[int, Bound]]":
    """Summaries by strategy and seed, set against `base`, and bounds by seed."""
    from sageserve.data.results.comparison import Comparison
    from sageserve.data.results.summary import Summary
    from sageserve.sim.sweep.cell import Bounded, Finished

    runs: dict[str, dict[int, Summary]] = {}
    bounds: dict[int, Bound] = {}
    for cell, outcome in zip(cells, outcomes, strict=True):
        if isinstance(outcome, Finished):
            runs.setdefault(cell.scenario.strategy.name, {})[cell.scenario.seed] = outcome.summary
        elif isinstance(outcome, Bounded):
            bounds[cell.scenario.seed] = outcome.bound
    return Comparison(runs, bounds, base), bounds
