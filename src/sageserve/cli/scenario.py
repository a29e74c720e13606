"""`sageserve scenario`: show a scenario with the origin of every value, list the built-in ones, check one, print the schema.

Knows how a scenario is drawn on a terminal; must not decide what is right. stdout is the result, errors are raised for
`main.py` to print. Read next: `data/scenarios/load.py`.
"""

import shlex
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from sageserve.base.urls import shown_value
from sageserve.cli import complete
from sageserve.cli.columns import StackedTable, terminal
from sageserve.cli.live_checks import refusals
from sageserve.cli.reach import warn_of_promises
from sageserve.cli.streams import answer_json

if TYPE_CHECKING:
    from sageserve.data.scenarios.load import Loaded
    from sageserve.data.yaml_positions import Keys, Value

app = typer.Typer(help="Look at scenarios: what they say, and where each value comes from.", no_args_is_help=True)

Reference = Annotated[str, complete.NAME_OR_FILE]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="lay a setting over the file; YAML value; may be repeated"),
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]


def _flat(keys: "Keys") -> str:
    return ".".join(f'"{key}"' if "." in str(key) else str(key) for key in keys)


def _text(value: "Value") -> str:
    match value:
        case None:
            return "none"
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case list():
            return f"[{', '.join(_text(item) for item in value)}]" if value else "none"
        case dict():
            return ", ".join(f"{key} {_text(item)}" for key, item in value.items()) or "none"
        case str():
            return shown_value(value)
        case _:
            return str(value)


def _shown(value: object) -> object:
    """The same without users and passwords of URLs."""
    match value:
        case str():
            return shown_value(value)
        case dict():
            return {key: _shown(item) for key, item in value.items()}
        case list() | tuple():
            return [_shown(item) for item in value]
        case _:
            return value


def tree(loaded: "Loaded") -> StackedTable:
    """The resolved tree: one line per value, indented under its mappings, with its origin beside it."""
    table = StackedTable("setting", "value", left=2)
    table.add_column("from", style="dim")
    root: tuple[Keys, Value] = ((), None)
    leaves = [root, *loaded.leaves()]
    for (before, _), (keys, value) in pairwise(leaves):
        same = next((i for i, key in enumerate(keys[:-1]) if i >= len(before) - 1 or before[i] != key), len(keys) - 1)
        for depth in range(same, len(keys) - 1):
            table.add_row("  " * depth + f"[bold]{escape(str(keys[depth]))}[/bold]", "", "")
        name = "  " * (len(keys) - 1) + escape(str(keys[-1]))
        table.add_row(name, escape(_text(value)), escape(loaded.origin(keys)))
    return table


@app.command()
def show(name: Reference, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Print every value of a scenario and where it comes from."""
    from sageserve.data.scenarios.load import dump, load

    loaded = load(name, overrides=overrides or ())
    if as_json:
        origins = {_flat(keys): loaded.origin(keys) for keys, _ in loaded.leaves()}
        typer.echo(answer_json({"scenario": _shown(dump(loaded.scenario, defaults=True)), "from": origins}))
    else:
        terminal().print(tree(loaded))


@app.command("list")
def list_scenarios(as_json: AsJson = False) -> None:
    """Print the built-in scenarios."""
    from sageserve.data.scenarios.load import catalogue

    entries = list(catalogue())
    if as_json:
        rows = [{"name": name, "about": about, "complete": whole} for name, about, whole in entries]
        typer.echo(answer_json(rows))
        return
    table = StackedTable("name", "what it is", left=2)
    for name, about, whole in sorted(entries, key=lambda entry: not entry[2]):
        table.add_row(name, escape(about if whole else f"(a part: extend it, or give it a trace) {about}"))
    terminal().print(table)


@app.command()
def schema(
    as_markdown: Annotated[bool, typer.Option("--markdown", help="print the page of the documentation")] = False,
) -> None:
    """Print the JSON Schema of a scenario file, for editors."""
    from sageserve.data.scenarios.schema import scenario_page, scenario_schema

    typer.echo(scenario_page().removesuffix("\n") if as_markdown else answer_json(scenario_schema()))


def _unsaid(loaded: "Loaded") -> list[str]:
    """Tiers whose requests may leave the region they enter though nobody said so."""
    if len(loaded.scenario.regions) < 2:
        return []
    tiers, places = loaded.scenario.tiers.items(), loaded.document.places
    return [name for name, tier in tiers if tier.regions == "any" and ("tiers", name, "regions") not in places]


@app.command()
def check(name: Reference, overrides: Overrides = None) -> None:
    """Say whether a scenario can work, and what in it is still a guess; an error names everything that is wrong."""
    from sageserve.base.units import NEVER
    from sageserve.core.own_rules import own_rules
    from sageserve.core.plan_once import start_counts
    from sageserve.core.strategies import kind_of, layout_of
    from sageserve.data.scenarios.draft import left_to_decide
    from sageserve.data.scenarios.load import load

    loaded = load(name, overrides=overrides or ())
    found = loaded.scenario
    kind_of(found)  # what a simulation would refuse cannot work
    own_rules(found)
    if found.workload.warm_up:
        from sageserve.sim.timeline import check_warm_up  # what it imports takes a second

        check_warm_up(found, NEVER)  # how long a trace is, only its file says
    parts = {name: 1 if model.disaggregated is None else 2 for name, model in found.models.items()}
    endpoints = sum(
        many * (found.start_gpu(model, region) is not None) for model, many in parts.items() for region in found.regions
    )
    typer.echo(
        f"{found.name} can work: {len(found.models)} models x {len(found.regions)} regions = {endpoints} endpoints,"
        f" {sum(start_counts(found, layout_of(found)).values())} instances to start with, tiers {', '.join(found.tiers)}"
    )
    warn_of_promises(found)
    if wander := _unsaid(loaded):
        typer.echo(
            f"note: {', '.join(wander)} may be served outside the region they enter, as nothing else is said;"
            " `regions: origin` keeps them there, and a list of regions within that",
            err=True,
        )
    for remark in loaded.remarks():
        typer.echo(f"note: {remark}")
    if found.workload.warm_up >= found.workload.generate.length:
        typer.echo("note: workload.warm_up leaves nothing to be judged of what is generated: only a longer trace can be played")
    if found.rollouts:
        from sageserve.sim.revisions import too_late  # as above

        for said in too_late(found, found.workload.generate.length):
            typer.echo(f"note: {said}")
    for said in refusals(found):
        typer.echo(f"note: {said}")
    path = Path(name)
    guesses = list(left_to_decide(path.read_text("utf-8"))) if path.is_file() else []
    if guesses:
        typer.echo(f"\nleft to decide ({len(guesses)}):")
        for line, said in guesses:
            typer.echo(f"  {name}:{line}: {said}")
        typer.echo(f"\nset one: sageserve scenario set {shlex.quote(name)} KEY=VALUE, which keeps the comments; or edit the file")


@app.command("set")
def set_value(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="a scenario file of yours")],
    settings: Annotated[list[str], typer.Argument(metavar="KEY.PATH=VALUE...", help="YAML values, as with --set")],
) -> None:
    """Change values in a scenario file; comments and everything else stay, and what was a guess is none any more."""
    from sageserve.data.scenarios.edit import set_values

    set_values(file, settings)
    typer.echo(f"{file}: set {', '.join(one.partition('=')[0] for one in settings)}")
