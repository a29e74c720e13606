"""`sageserve tune`: settings of a threshold, an HPA or a KEDA, chosen on the past and not on what they are judged by.

Knows options and how trials are drawn; what is tried and taken is in `sim/sweep/tuning.py`. stdout is the result, everything
else is on stderr. Read next: docs/reference/strategies.md.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sageserve.cli import complete
from sageserve.cli.compare import Overrides, Workers, finish, run_cells, runner
from sageserve.cli.seeds import Seeds, parse_seeds
from sageserve.cli.trace_options import takes_trace
from sageserve.data.traces.options import TraceOptions

if TYPE_CHECKING:
    from sageserve.data.results.sweep_folder import SweepSource
    from sageserve.sim.sweep.cell import Cell, Outcome
    from sageserve.sim.sweep.tuning import Candidate, Trial

NOTHING = "; nothing is chosen"
EXAMPLES = """[bold]Examples[/bold]

sageserve tune quickstart

sageserve tune quickstart --strategy hpa --set fleet.start=4 -o tuned.yaml

sageserve tune quickstart --trace last-week.csv.gz --map '*=llama-3.3-70b'
"""


@takes_trace(plays=True)
def tune(  # noqa: PLR0913, PLR0917 # one argument per option
    scenario: Annotated[str, complete.SCENARIO],
    options: TraceOptions,
    strategy: Annotated[str, typer.Option(metavar="NAME", help="reactive, reactive-tuned, hpa or keda")] = "reactive-tuned",
    seeds: Seeds = None,
    overrides: Overrides = None,
    workers: Workers = None,
    to: Annotated[
        Path | None, typer.Option("--to", "-o", metavar="FILE", help="write a scenario that extends this one by the choice")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="also over a file that is there")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print trials and the choice instead of a table")] = False,
) -> None:
    """Choose a rule's marks or targets on the past.

    Generated traffic is played for the window before the scenario's own, without its bursts; a trace is played as it is, so
    give that of last week. Taken is the cheapest that keeps every promise, else the cheapest of those that come nearest.
    """
    from sageserve.data.results.sweep_folder import source_of
    from sageserve.data.scenarios.extension import check_place, write_extension
    from sageserve.sim.sweep.tuning import choose

    tried = _candidates(strategy)
    if to is not None:
        check_place(to, replace=replace)
    source = source_of(options)
    cells = [cell for candidate in tried for cell in _cells(scenario, strategy, candidate, seeds, overrides or (), source)]
    outcomes = run_cells(cells, runner("local", workers), f"tune {strategy}", out=None, replace=False)
    trials = _trials(tried, outcomes)
    if len(trials) < len(tried):
        finish(outcomes, None, without=NOTHING)
    chosen = choose(trials)
    if to is not None:
        settings = [*(overrides or ()), f"strategy.name={strategy}", *chosen.candidate.changes]
        about = f"{strategy} tuned on the past: {chosen.candidate.name}"
        write_extension(to, scenario, settings, about, replace=replace)
    if as_json:
        typer.echo(_json(strategy, trials, chosen), nl=False)
    else:
        _draw(scenario, strategy, trials, chosen, to)


def _candidates(strategy: str) -> "Sequence[Candidate]":
    from sageserve.base.errors import ConfigError
    from sageserve.sim.sweep.tuning import CANDIDATES

    if strategy not in CANDIDATES:
        raise ConfigError(f"--strategy {strategy}: there is nothing to tune", hint=f"choose one of {', '.join(CANDIDATES)}")
    return CANDIDATES[strategy]


def _cells(
    scenario: str, strategy: str, candidate: "Candidate", seeds: str | None, overrides: Sequence[str], source: "SweepSource"
) -> "list[Cell]":
    from sageserve.data.scenarios.load import load_scenario
    from sageserve.data.workload.generate import window_before
    from sageserve.sim.sweep.cell import Cell

    changes = [*overrides, f"strategy.name={strategy}", *candidate.changes]
    found = []
    for seed in [None] if seeds is None else parse_seeds(seeds):
        settings = load_scenario(scenario, overrides=[*changes, *([] if seed is None else [f"seed={seed}"])])
        if not source.options.files:
            settings = window_before(settings)
        found.append(Cell(f"{candidate.name}, seed {settings.seed}", settings, source))
    return found


def _trials(tried: "Sequence[Candidate]", outcomes: "Sequence[Outcome | None]") -> "list[Trial]":
    """A trial of each candidate that was played with every seed."""
    from sageserve.sim.sweep.cell import Finished
    from sageserve.sim.sweep.tuning import judge

    each = len(outcomes) // len(tried)
    found = []
    for number, candidate in enumerate(tried):
        mine = outcomes[number * each : (number + 1) * each]
        summaries = [one.summary for one in mine if isinstance(one, Finished)]
        if len(summaries) == each:
            found.append(judge(candidate, summaries))
    return found


def _json(strategy: str, trials: "Sequence[Trial]", chosen: "Trial") -> bytes:
    import msgspec

    value = {"strategy": strategy, "chosen": chosen, "trials": list(trials)}
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def _draw(scenario: str, strategy: str, trials: "Sequence[Trial]", chosen: "Trial", to: Path | None) -> None:
    from rich.markup import escape

    from sageserve.cli.columns import Column, prose, tables, terminal
    from sageserve.cli.render import hours, share

    console = terminal()
    prose(console, f"[bold]{escape(scenario)}[/bold]: {len(trials)} settings of {strategy}, cheapest first", under=2)
    rows = sorted(trials, key=lambda one: one.gpu_hours)
    columns = [
        Column(strategy, [one.candidate.name for one in rows]),
        Column("GPU-hours\nwith owed", [hours(one.gpu_hours) for one in rows]),
        *(Column(f"{tier}\nkept", [share(one.attainment.get(tier)) for one in rows]) for tier in chosen.attainment),
        Column("", ["← taken" if one is chosen else "" for one in rows]),
    ]
    for table in tables(columns, console.width):
        console.print(table)
    short = (
        "keeps every promise"
        if not chosen.shortfall
        else f"comes nearest to the promises: {100 * chosen.shortfall:.1f} points short"
    )
    console.print()
    prose(console, f"{chosen.candidate.name} {short}.", under=2)
    sets = " ".join(f"--set '{change}'" for change in chosen.candidate.changes)
    again = f"{to} --strategies {strategy}" if to else f"{scenario} --strategies {strategy} {sets}"
    console.print(f"next: sageserve compare {escape(again)}", soft_wrap=True, style="dim")
