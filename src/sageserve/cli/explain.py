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
        str | None,
        typer.Option(
            "--at",
            metavar="TIME",
            help="of a run, from its start; of a live fleet, also 2026-01-31T15:10 (UTC)",
            show_default="the end of its window, or its newest line",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the answer as JSON")] = False,
) -> None:
    """Say why a pool has its number, why not one less or one more, and what would change it: solved again, not guessed."""
    from sageserve.cli.columns import terminal
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
    live = read_live(source) if is_state_folder(source) else None
    instant = None if at is None else _instant(at, None if live is None else live.begins)
    told = story(read_run(source), pool, instant) if live is None else live_story(live, pool, instant)
    if live is not None and instant is None:
        told = _with_pods(source, told)
    if as_json:
        typer.echo(answer_json(told))
        return
    _draw_story(terminal(), told)


def _with_pods(state: Path, told: "Story") -> "Story":
    """A story of now, with how its pods count where instances follow pods."""
    from msgspec import structs

    from sageserve.data.watched.pods import read_pods
    from sageserve.live.agent.heard import heard_of

    counts = read_pods(state)
    one = None if counts is None else counts.pools.get(told.pool)
    said = [heard] if (heard := heard_of(state, told.pool)) else []
    return structs.replace(told, notes=(*said, *(() if one is None else (one.sentence(),)), *told.notes))


def _instant(text: str, begins: int | None) -> int:
    """Microseconds from the start of a run or of a journal: a duration, or a date where it is known when the start was."""
    from datetime import UTC, datetime

    from sageserve.base.errors import ConfigError
    from sageserve.cli.durations import time_of

    if begins is None:
        return time_of("--at", text)
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        if "-" not in text and ":" not in text:
            return time_of("--at", text)
        hint = "write a date and time of UTC, --at 2026-01-31T15:10, or how long after the journal's beginning: --at 2h30m"
        raise ConfigError(f"--at {text} is no date", hint=hint) from None
    wall = round((date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() * 1_000_000)
    if wall < begins:
        first = datetime.fromtimestamp(begins // 1_000_000, UTC)
        raise ConfigError(f"the journal begins at {first:%Y-%m-%dT%H:%M:%S} UTC", hint=f"choose a time after it, not {text}")
    return wall - begins


def _clock(told: "Story", instant: int, *, date: bool = False) -> str:
    """An instant of a story: from the start of a run, or the time of day (UTC) of a live fleet."""
    from datetime import UTC, datetime

    if told.begins is None:
        return _signed(instant)
    shown, now = (datetime.fromtimestamp((told.begins + one) // 1_000_000, UTC) for one in (instant, told.at))
    return shown.strftime("%Y-%m-%d %H:%M:%S" if date or shown.date() != now.date() else "%H:%M:%S")


def _age(told: "Story", micros: int) -> str:
    """A span of a story; a live fleet's without the parts of a second, in which no event of it falls on purpose."""
    from sageserve.base.units import SECOND, show_duration

    return show_duration(micros if told.begins is None else micros // SECOND * SECOND)


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
    held = told.serving + told.coming
    parts = [f"{told.serving} serving"]
    counts = (("coming", told.coming), ("draining", told.draining), ("donated", told.donated))
    parts += [f"{count} {word}" for word, count in counts if count]
    when = _clock(told, told.at, date=True) + ("" if told.begins is None else " UTC")
    out.print(
        f"[bold]{escape(told.pool)}[/bold] at {when} under {escape(told.strategy)}: [bold]{held}[/bold] ({', '.join(parts)})"
    )
    if told.plan is not None:
        _draw_plan(out, told, told.plan)
    for note in told.notes:
        prose(out, escape(note), under=2, style="dim")
    out.print()
    since = "decisions since that plan" if told.plan is not None else "decisions that led here"
    out.print(f"[bold]{since}[/bold]" + ("" if told.decisions else ": none"))
    for one in told.decisions:
        prose(out, f"  {_clock(told, one.at):>9}  {one.done:+d}  {one.reason.value}: {escape(one.words)}", under=15)
    if told.earlier:
        out.print(f"  and {told.earlier} before those", style="dim")


def _draw_plan(out: "Console", told: "Story", plan: "PlanInForce") -> None:
    data = "" if plan.data_until is None else f", from demand until {_clock(told, plan.data_until)}"
    out.print(
        f"the plan in force says [bold]{plan.answer.target}[/bold]: asked at {_clock(told, plan.asked_at)}{data}, back at"
        f" {_clock(told, plan.made_at)}, {_age(told, told.at - plan.made_at)} old"
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
