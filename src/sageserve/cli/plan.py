"""`sageserve plan`: what a strategy would decide at an instant, as a table and as a file to review; nothing is acted on.

Knows options and where demand comes from; the plan is made by the strategies' own code (`core/plan_once.py`).
stdout is the result. Read next: `render_plan.py`, `data/results/plans.py`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from sageserve.cli import complete
from sageserve.cli.durations import time_of
from sageserve.cli.progress import bar
from sageserve.cli.streams import answer_json
from sageserve.cli.trace_options import takes_trace
from sageserve.data.traces.options import TraceOptions

if TYPE_CHECKING:
    from sageserve.base.config import Scenario
    from sageserve.core.layout import Layout
    from sageserve.core.plan_once import Proposal
    from sageserve.data.results.plans import PlanFile, WhatIf

EXAMPLES = """[bold]Examples[/bold]

sageserve plan quickstart --at 10h

sageserve plan quickstart --at 14h --strategy foresight -o plan.json

sageserve plan quickstart --at 10h --what-if demand=1.3,us-east/h200=0

sageserve plan quickstart --at 10h --now us-east/llama-3.3-70b=5

sageserve plan show plan.json

sageserve plan diff yesterday.json plan.json

sageserve plan render plan.json fleet.yaml -o deploy/sageserve [dim]— Kustomize patches, for a repository[/dim]

sageserve plan render plan.json fleet.yaml --format keda-cron --begin 2026-11-30T14:00 --timezone Europe/Berlin
"""
DEFAULT = "lt-ua"


class _MakeUnlessNamed(TyperGroup):
    """`sageserve plan SCENARIO` is `sageserve plan make SCENARIO`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401  # typer's own type is click's, vendored or not
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["make", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_MakeUnlessNamed,
    no_args_is_help=True,
    help="Make the plan a strategy would make at an instant, and review it: `sageserve plan SCENARIO --at TIME`.",
    epilog=EXAMPLES,
    rich_markup_mode="rich",
)

AsJson = Annotated[bool, typer.Option("--json", help="print plan.json instead of the tables")]


@app.command(epilog=EXAMPLES)
@takes_trace()
def make(  # noqa: PLR0913, PLR0917 # one argument per option
    scenario: Annotated[str, complete.SCENARIO],
    at: Annotated[str, typer.Option("--at", metavar="TIME", help="from the start, such as 10h or 6h30m")],
    options: TraceOptions,
    strategy: Annotated[
        str | None, typer.Option(metavar="NAME", help="whose plan: lt-i, lt-u, lt-ua or foresight", show_default=DEFAULT)
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", metavar="FILE", help="write plan.json for review")] = None,
    what_if: Annotated[
        str | None, typer.Option("--what-if", metavar="NAME=X,...", help="solve again with changes, side by side")
    ] = None,
    now: Annotated[
        str | None,
        typer.Option("--now", metavar="REGION/MODEL=N,...", help="instances there are", show_default="the scenario's start"),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="any setting; may be repeated")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make the plan that the strategy would make at TIME from the demand until then."""
    from sageserve.cli.render_plan import draw_plan
    from sageserve.core.plan.what_if import parse
    from sageserve.core.plan_once import PLANNERS, planned_layout, propose, start_counts, within_demand
    from sageserve.data.results.plans import plan_json, write_plan
    from sageserve.data.scenarios.load import load_scenario
    from sageserve.data.traces.demand import heard
    from sageserve.data.workload.requests import requests_for
    from sageserve.show.plan_file import plan_file

    changes = [*(overrides or ()), *([f"strategy.name={strategy}"] if strategy else [])]
    settings = load_scenario(scenario, overrides=changes)
    if strategy is None and settings.strategy.name not in PLANNERS:
        settings = load_scenario(scenario, overrides=[*changes, f"strategy.name={DEFAULT}"])
    parse(what_if or "")  # a misspelt change is refused before anything is read, and so is a time
    when = time_of("--at", at)
    layout = planned_layout(settings)
    counts = start_counts(settings, layout) | _counts(layout, now or "")
    found = requests_for(settings, options, bar)
    for line in found.remarks():
        typer.echo(line, err=True)
    source = ", ".join(path.name for path in options.files) or f"the scenario, seed {settings.seed}"
    when = within_demand(when, found.trace.window)
    proposal = propose(settings, when, heard(found.trace, layout, when), earlier=found.earlier, counts=counts)
    file = plan_file(settings, proposal, when=when, source=source, what_if=_other(proposal, what_if))
    if out is not None:
        write_plan(out, file)
    if as_json:
        typer.echo(plan_json(file).decode(), nl=False)
        return
    draw_plan(file)
    typer.echo("\nnothing was changed; " + (f"review: sageserve plan show {out}" if out else "keep it with -o plan.json"))


@app.command()
def show(
    path: Annotated[Path, typer.Argument(metavar="PLAN", help="a plan.json")],
    as_json: AsJson = False,
) -> None:
    """Print a plan that was kept."""
    from sageserve.cli.render_plan import draw_plan
    from sageserve.data.results.plans import plan_json
    from sageserve.show.plan_file import solved_plan

    file = solved_plan(path)
    if as_json:
        typer.echo(plan_json(file).decode(), nl=False)
    else:
        draw_plan(file)


@app.command()
def diff(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="a plan.json")],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="another one")],
    as_json: Annotated[bool, typer.Option("--json", help="print the difference as JSON")] = False,
) -> None:
    """Say what changed from one plan to another: targets, cost, settings, inputs."""
    from sageserve.cli.render_plan import draw_plan_difference
    from sageserve.data.results.plans import read_plan
    from sageserve.show.plan_difference import plan_difference

    found = plan_difference(read_plan(before), read_plan(after))
    if as_json:
        typer.echo(answer_json(found))
    else:
        draw_plan_difference(found)


@app.command()
def render(  # noqa: PLR0913, PLR0917 # one argument per option
    path: Annotated[Path, typer.Argument(metavar="PLAN", help="a plan.json")],
    scenario: Annotated[str, complete.SCENARIO],
    form: Annotated[
        Literal["kustomize", "keda-cron", "aibrix-schedules"],
        typer.Option("--format", help="counts at once, or a schedule of each autoscaler's minimum"),
    ] = "kustomize",
    begin: Annotated[
        str | None,
        typer.Option("--begin", metavar="TIME", help="when the plan's instant is, such as 2026-11-30T14:00; for schedules"),
    ] = None,
    zone: Annotated[str, typer.Option("--timezone", metavar="ZONE", help="of --begin and of schedules")] = "UTC",
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="DIR", help="write files there", show_default="print them")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="any setting that the plan was made with")
    ] = None,
) -> None:
    """Write a plan as Kustomize patches of the objects in live.targets: for a repository, without any right in a cluster."""
    from sageserve.cli.render_plan_files import counts_files, schedule_files, wall_clock
    from sageserve.data.documents import write_texts
    from sageserve.data.scenarios.load import load_scenario
    from sageserve.show.plan_file import solved_plan

    begins = wall_clock(form, begin, zone)
    file = solved_plan(path)
    settings = load_scenario(scenario, overrides=[*(overrides or ()), f"strategy.name={file.strategy}"])
    _refuse_other(file, settings)
    targets = settings.live.targets if settings.live is not None else {}
    files = counts_files(file, targets) if begins is None else schedule_files(file, targets, form, begins)
    if out is None:
        typer.echo("---\n".join(f"# {name}\n{text}" for name, text in files.items()), nl=False)
        return
    write_texts(out, files)
    typer.echo(f"{len(files)} files in {out}; list it under `components:` of an overlay", err=True)


def _refuse_other(file: "PlanFile", settings: "Scenario") -> None:
    """A plan of other settings, or one without targets, is not rendered."""
    from sageserve.base.errors import ConfigError
    from sageserve.data.results.plans import scenario_hash

    if scenario_hash(settings) != file.scenario_hash:
        raise ConfigError(
            f"the plan was made under other settings than {settings.name} has now",
            hint="plan again, or give the --set options that the plan was made with",
        )
    if settings.live is None or not settings.live.targets:
        raise ConfigError(
            f"{settings.name} names no target: nothing says which object has a pool's count",
            hint="write live.clusters and live.targets: each with its pool, kind and NAMESPACE/NAME",
        )


def _counts(layout: "Layout", text: str) -> dict[str, int]:
    """`us-east/llama-3.3-70b=5,...` as instances by pool name."""
    from sageserve.base.errors import ConfigError
    from sageserve.show.answer import find_pool

    names = [pool.name for pool in layout.pools]
    first = {layout.endpoint_name(e): pools[0].name for e in range(layout.endpoints) if (pools := layout.endpoint_pools(e))}
    counts: dict[str, int] = {}
    for part in filter(None, (one.strip() for one in text.split(","))):
        name, equals, number = part.partition("=")
        if not equals or not number.isdecimal():
            raise ConfigError(f"--now: {part!r} is not REGION/MODEL=NUMBER", hint=f"for example --now {next(iter(first))}=5")
        counts[first[name] if name in first else find_pool(names, name)] = int(number)
    return counts


def _other(proposal: "Proposal", changes: str | None) -> "WhatIf | None":
    """The plan under the changed circumstances."""
    if not changes:
        return None
    from sageserve.core.plan.explain import solve
    from sageserve.core.plan.what_if import change, parse
    from sageserve.data.results.plans import WhatIf, solved_as
    from sageserve.show.why import pool_lines

    question = change(proposal.question, parse(changes))
    plan = solve(question)
    return WhatIf(changes, solved_as(question, plan), pool_lines(question, plan))
