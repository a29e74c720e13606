"""`sageserve explain`: why a pool has its number of instances, at an instant of a run or in a plan, and what would change it.

Knows options and how answers are drawn; the answers are made by `show/story.py` and `show/answer.py`, which solve again.
stdout is the result. Read next: `plan.py`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from sageserve.cli.columns import prose
from sageserve.cli.streams import answer_json

if TYPE_CHECKING:
    from rich.console import Console

    from sageserve.data.results.plans import PlanFile
    from sageserve.show.answer import PlanAnswer
    from sageserve.show.story import PlanInForce, Story

EXAMPLES = """[bold]Examples[/bold]

sageserve simulate quickstart --strategy lt-ua --out runs/day

sageserve explain runs/day us-east/llama-3.3-70b --at 15h10m

sageserve explain ~/.local/state/sageserve east/llama-3.1-8b [dim]— of the fleet that runs[/dim]

sageserve plan quickstart --at 10h -o plan.json && sageserve explain plan.json us-east/llama-3.3-70b
"""


def explain(
    source: Annotated[
        Path,
        typer.Argument(metavar="RUN_OR_PLAN", help="a folder of `simulate --out`, a plan.json, or a live fleet's state folder"),
    ],
    pool: Annotated[str, typer.Argument(metavar="POOL", help="such as us-east/llama-3.3-70b/h200; its beginning is enough")],
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="of a run, from its start", show_default="the end of its window")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the answer as JSON")] = False,
) -> None:
    """Say why a pool has its number, why not one less or one more, and what would change it: solved again, not guessed."""
    from sageserve.cli.columns import terminal
    from sageserve.cli.durations import time_of
    from sageserve.data.results.journal import is_state_folder, read_live
    from sageserve.data.results.plans import read_plan
    from sageserve.data.results.run_folder import read_run
    from sageserve.show.answer import answer, find_pool
    from sageserve.show.story import live_story, story
    from sageserve.show.why import pool_names

    if source.is_file():
        file = read_plan(source)
        question = file.solved.question
        found = answer(question, file.solved.plan, find_pool(pool_names(question), pool), file.currency)
        _refuse_time(at, file)
        if as_json:
            typer.echo(answer_json(found))
        else:
            _draw_file(terminal(), file, found)
        return
    instant = None if at is None else time_of("--at", at)
    live = read_live(source) if is_state_folder(source) else None
    told = story(read_run(source), pool, instant) if live is None else live_story(live, pool, instant)
    if as_json:
        typer.echo(answer_json(told))
        return
    if told.begins is not None:
        typer.echo(f"times are from {_date(told.begins)}, where the journal begins")
    _draw_story(terminal(), told)


def _date(wall: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(wall // 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _refuse_time(at: str | None, file: "PlanFile") -> None:
    from sageserve.base.errors import ConfigError
    from sageserve.base.units import show_duration

    if at is not None:
        raise ConfigError(
            "--at is for runs: a plan is of one instant", hint=f"leave it out; this plan is of {show_duration(file.made_at)}"
        )


def _draw_file(out: "Console", file: "PlanFile", found: "PlanAnswer") -> None:
    from sageserve.base.units import show_duration

    out.print(
        f"[bold]{escape(found.pool)}[/bold]: {found.before} -> [bold]{found.target}[/bold] in the plan of {escape(file.strategy)}"
        f" at {show_duration(file.made_at)}, expires at {show_duration(file.expires_at)}"
    )
    _draw_answer(out, found)


def _draw_story(out: "Console", told: "Story") -> None:
    from sageserve.base.units import show_duration

    held = told.serving + told.coming
    parts = [f"{told.serving} serving"]
    counts = (("coming", told.coming), ("draining", told.draining), ("donated", told.donated))
    parts += [f"{count} {word}" for word, count in counts if count]
    out.print(
        f"[bold]{escape(told.pool)}[/bold] at {show_duration(told.at)} under {escape(told.strategy)}: [bold]{held}[/bold]"
        f" ({', '.join(parts)})"
    )
    if told.plan is not None:
        _draw_plan(out, told, told.plan)
    for note in told.notes:
        prose(out, escape(note), under=2, style="dim")
    out.print()
    since = "decisions since that plan" if told.plan is not None else "decisions that led here"
    out.print(f"[bold]{since}[/bold]" + ("" if told.decisions else ": none"))
    for one in told.decisions:
        prose(out, f"  {show_duration(one.at):>9}  {one.done:+d}  {one.reason.value}: {escape(one.words)}", under=15)
    if told.earlier:
        out.print(f"  and {told.earlier} before those", style="dim")


def _draw_plan(out: "Console", told: "Story", plan: "PlanInForce") -> None:
    from sageserve.base.units import show_duration

    data = "" if plan.data_until is None else f", from demand until {_signed(plan.data_until)}"
    out.print(
        f"the plan in force says [bold]{plan.answer.target}[/bold]: asked at {_signed(plan.asked_at)}{data}, back at"
        f" {_signed(plan.made_at)}, {show_duration(told.at - plan.made_at)} old"
    )
    _draw_answer(out, plan.answer)


def _draw_answer(out: "Console", found: "PlanAnswer") -> None:
    prose(out, f"[bold]why {found.target}[/bold]: {escape(found.reason)}", under=2)
    _lines(out, found.demand)
    _lines(out, found.standings)
    for sentence in found.short:
        prose(out, f"  [red]short[/red] {escape(sentence)}", under=8)
    for one in (found.less, found.more):
        prose(out, f"[bold]why not {one.other.asked}[/bold]: {escape(one.sentence)}", under=2)
    out.print("[bold]what would change it[/bold]")
    _lines(out, [one.sentence for one in found.changes])
    out.print(f"inputs {found.input_hash[:12]}   solver {found.status}, gap {found.gap:.2%}", style="dim")


def _lines(out: "Console", lines: "list[str] | tuple[str, ...]") -> None:
    for line in lines:
        prose(out, f"  {escape(line)}", under=4)


def _signed(instant: int) -> str:
    from sageserve.base.units import show_duration

    return show_duration(instant) if instant >= 0 else f"{show_duration(-instant)} before the start"
