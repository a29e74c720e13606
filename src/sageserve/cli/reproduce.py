"""`sageserve reproduce paper`: the paper's studies in our simulator, our numbers beside the published ones.

Knows options and how findings are drawn; the studies are in `data/results/studies.py`. stdout is the result, everything
else is on stderr. Read next: docs/how-to/reproduce-the-paper.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sageserve.cli.compare import Where, Workers, finish, run_cells, runner
from sageserve.cli.streams import answer_json

if TYPE_CHECKING:
    from sageserve.data.results.studies import Finding, Measure, Study, StudyProfile
    from sageserve.data.results.summary import Summary
    from sageserve.sim.sweep.cell import Cell

FAR = 0.05  # a change that is this far from the published one is called different: 5 points
EXAMPLES = """[bold]Examples[/bold]

sageserve reproduce paper --quick

sageserve reproduce paper --out sweeps/paper --only unified,strategies

sageserve reproduce paper --profile paper-signal --only unified,strategies
"""


def reproduce(  # noqa: PLR0913, PLR0917 # one argument per option
    what: Annotated[Literal["paper"], typer.Argument(help="SageServe, arXiv 2502.14617")],
    quick: Annotated[bool, typer.Option("--quick", help="four busy hours instead of a day: a fifth of the requests")] = False,
    only: Annotated[str | None, typer.Option(metavar="A,B", help="some of the studies", show_default="all")] = None,
    profile: Annotated[
        Literal["plain", "paper-signal"],
        typer.Option(help="paper-signal: with the signal, marks, forecast and silos of the released code as well"),
    ] = "plain",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="any setting, for all cases; may be repeated")
    ] = None,
    workers: Workers = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="keep results; what is there is not played again")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="also in a folder that holds other files")] = False,
    place: Annotated[Where, typer.Option("--on", help="this machine, or a Ray cluster")] = "local",
    as_json: Annotated[bool, typer.Option("--json", help="print findings and summaries instead of tables")] = False,
) -> None:
    """Play the studies behind the paper's figures, and print ours beside the published numbers."""
    from sageserve.data.results.studies import QUICK, studies
    from sageserve.sim.sweep.cell import Finished

    chosen = _chosen(studies(quick=quick, profile=profile), only)
    cells = _cells(chosen, QUICK if quick else (), overrides or (), profile)
    outcomes = run_cells(cells, runner(place, workers), f"reproduce {what}", out=out, replace=replace)
    found: dict[str, dict[str, Summary]] = {name: {} for name in chosen}
    for cell, outcome in zip(cells, outcomes, strict=True):
        name, _, case = cell.name.partition(": ")
        if isinstance(outcome, Finished):
            found[name][case] = outcome.summary
    if as_json:
        typer.echo(_json(chosen, found, quick=quick, profile=profile), nl=False)
    else:
        for name, study in chosen.items():
            _draw(name, study, found[name])
    finish(outcomes, out)


def _chosen(every: "dict[str, Study]", only: str | None) -> "dict[str, Study]":
    from sageserve.base.errors import ConfigError

    if only is None:
        return every
    names = [part.strip() for part in only.split(",") if part.strip()]
    unknown = [name for name in names if name not in every]
    if unknown or not names:
        raise ConfigError(f"--only {only}: there is no such study", hint=f"choose from {', '.join(every)}")
    return {name: every[name] for name in every if name in names}


def _cells(
    chosen: "Mapping[str, Study]", window: Sequence[str], overrides: Sequence[str], profile: "StudyProfile"
) -> "list[Cell]":
    from sageserve.data.results.studies import SCENARIO, released_memory
    from sageserve.data.scenarios.load import load_scenario
    from sageserve.sim.sweep.cell import Cell

    played = {
        f"{name}: {case}": load_scenario(SCENARIO, overrides=[*window, *changes, *overrides])
        for name, study in chosen.items()
        for case, changes in study.cases.items()
    }
    return [Cell(name, one if profile == "plain" else released_memory(one)) for name, one in played.items()]


def _json(
    chosen: "Mapping[str, Study]", found: "Mapping[str, Mapping[str, Summary]]", *, quick: bool, profile: "StudyProfile"
) -> str:
    value = {
        "profile": profile,
        "quick": quick,
        "studies": {
            name: {
                "question": study.question,
                "caveat": study.caveat,
                "findings": [
                    asdict(one) | {"ours": one.ours(found[name]), "ours_with_owed": one.ours(found[name], with_owed=True)}
                    for one in study.findings
                ],
                "cases": found[name],
            }
            for name, study in chosen.items()
        },
    }
    return answer_json(value) + "\n"


# ------------------------------------------------------------------------------------------------ drawing


def _draw(name: str, study: "Study", cases: "Mapping[str, Summary]") -> None:
    from rich.markup import escape

    from sageserve.cli.columns import StackedTable, terminal

    console = terminal()
    console.print(f"[bold]{escape(name)}[/bold]: {escape(study.question)}")
    table = StackedTable("", "published", "ours", "with owed")
    table.add_column("", no_wrap=True)
    table.add_column("source")
    for one in study.findings:
        table.add_row(*(escape(cell) for cell in _row(one, cases)))
    console.print(table)
    if any(one.published for one in study.findings):
        console.print(
            f"[dim]agrees: within {FAR * 100:.0f} points; owed: with the work that was left at the end of the window[/dim]"
        )
    if study.caveat:
        console.print(f"[dim]{escape(study.caveat)}[/dim]")
    console.print()


def _row(one: "Finding", cases: "Mapping[str, Summary]") -> tuple[str, ...]:
    from sageserve.cli.render import NONE

    ours = one.ours(cases)
    owed = one.ours(cases, with_owed=True) if one.measure == "hours" else None
    published = " … ".join(_show(one, value) for value in one.published) if one.published else NONE
    return (
        one.what,
        published,
        _show(one, ours),
        _show(one, owed) if owed is not None else "",
        verdict(one, ours, owed),
        one.source,
    )


def _show(one: "Finding", value: float | None) -> str:
    from sageserve.cli.render import hours, seconds
    from sageserve.cli.render_compare import change, kept

    if value is None:
        return seconds(None)
    if one.base:
        return change(value)
    shown: dict[Measure, str] = {"ttft": seconds(value), "hours": hours(value), "waste": hours(value)}
    return shown.get(one.measure) or kept(value)


def verdict(one: "Finding", ours: float | None, owed: float | None = None) -> str:
    """Whether ours agrees with the published number, and if not, by how much; `owed` is ours with the work left at the end."""
    if not one.published or ours is None:
        return ""
    if not one.base:
        return f"{ours / max(one.published):.2g}×"
    off = _off(one, ours)
    said = "agrees" if abs(off) <= FAR else f"DIFFERS {off * 100:+.0f}"
    apart = 0.0 if owed is None else _off(one, owed)
    return f"{said}, owed {apart * 100:+.0f}" if abs(apart) > FAR else said


def _off(one: "Finding", value: float) -> float:
    """How far a change is outside of what was published."""
    low, high = min(one.published), max(one.published)
    return value - high if value > high else min(value - low, 0.0)
