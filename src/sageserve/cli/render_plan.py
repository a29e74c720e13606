"""A plan on a terminal: now and target per pool, why, what it costs, what it was made from, and until when it holds.

Draws what it is given, in 100 columns. Read next: `data/results/plans.py` for the record, `show/why.py` for the words.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.markup import escape

from sageserve.base.units import money_sign, show_duration, show_money
from sageserve.cli.columns import StackedTable, prose, terminal
from sageserve.data.results.plans import AheadPlan, HourPlan, PlanFile, PoolLine, WhatIf
from sageserve.show.plan_difference import PlanDifference
from sageserve.show.why import amount, binding, dollars, theta_texts

if TYPE_CHECKING:
    from rich.console import Console


def draw_plan(file: PlanFile) -> None:
    """Print a plan."""
    out = terminal()
    plan = file.solved.plan
    out.print(
        f"[bold]Plan[/bold] of {escape(file.strategy)} for [bold]{escape(file.scenario)}[/bold] at"
        f" {show_duration(file.made_at)}, expires at {show_duration(file.expires_at)}"
    )
    out.print(f"inputs {plan.input_hash[:12]}   solver {plan.status}, gap {plan.gap:.2%}   demand from {escape(file.demand)}")
    for note in file.notes:
        prose(out, escape(note), under=2, style="dim")
    out.print()
    out.print(_pools(file.pools, money_sign(file.currency)))
    out.print(_cost(file.pools, file.solved, file.currency))
    for sentence in plan.short_sentences:
        prose(out, f"[red]short[/red]  {escape(sentence)}", under=7)
    out.print()
    out.print(_expected(file))
    out.print()
    _section(out, "one instance sustains", theta_texts(file.thetas))
    _section(out, "what binds", binding(file.solved.question, plan) or ("nothing",))
    if file.what_if is not None:
        draw_what_if(file, file.what_if)


def draw_plan_difference(found: PlanDifference) -> None:
    """Print what changed from one plan to another."""
    out = terminal()
    for name, side in (("before", found.before), ("after", found.after)):
        out.print(
            f"[bold]{name:>6}[/bold]  {escape(side.strategy)} at {show_duration(side.made_at)}, expires at"
            f" {show_duration(side.expires_at)}   inputs {side.input_hash[:12]}   {side.cost_per_hour:,.2f}"
            f" {money_sign(side.currency)}/h"
        )
    if found.same_inputs:
        out.print("both solved the same problem", style="dim")
    if not found.same_scenario:
        out.print("[yellow]made under different settings[/yellow]")
    out.print()
    sign = money_sign(found.after.currency)
    made = StackedTable("pool", "now", "then", "plan", "then", "change", f"Δ{sign}/h")
    made.add_column("why")
    for one in found.pools:
        before, after = one.target
        by = "=" if before == after else f"{(after or 0) - (before or 0):+d}"
        cells = ["–" if number is None else str(number) for number in (*one.now, *one.target)]
        made.add_row(escape(one.pool), *cells, by, dollars(one.cost_per_hour), escape(one.why) if before != after else "")
    out.print(made)
    out.print(f"{found.changed} of {len(found.pools)} targets change, {dollars(found.cost_per_hour)} {sign}/h")


def draw_what_if(file: PlanFile, other: WhatIf) -> None:
    """Print a plan beside the one under other circumstances."""
    out = terminal()
    out.print(f"\n[bold]what if[/bold] {escape(other.changes)}")
    made = StackedTable("pool", "now", "plan", "what if", "change", f"Δ{money_sign(file.currency)}/h")
    for line, there in zip(file.pools, other.pools, strict=True):
        by = there.target - line.target
        cost = there.cost_change_per_hour - line.cost_change_per_hour
        made.add_row(escape(line.pool), str(line.now), str(line.target), str(there.target), _by(by), dollars(cost))
    out.print(made)
    out.print(_cost(other.pools, other.solved, file.currency))
    for sentence in other.solved.plan.short_sentences:
        prose(out, f"[red]short[/red]  {escape(sentence)}", under=7)
    changed = [there for line, there in zip(file.pools, other.pools, strict=True) if there.target != line.target]
    for line in changed:
        prose(out, f"  {escape(line.pool)}: {line.target} because {escape(line.why)}", under=4, style="dim")


def _pools(lines: tuple[PoolLine, ...], sign: str) -> StackedTable:
    made = StackedTable("pool", "now", "plan", "change", f"Δ{sign}/h")
    made.add_column("why")
    for line in lines:
        made.add_row(
            escape(line.pool),
            str(line.now),
            f"[bold]{line.target}[/bold]",
            _by(line.target - line.now),
            dollars(line.cost_change_per_hour),
            escape(line.why),
        )
    return made


def _by(change: int) -> str:
    return f"{change:+d}" if change else "="


def _cost(lines: tuple[PoolLine, ...], solved: HourPlan | AheadPlan, currency: str) -> str:
    before = sum(line.price_per_hour * line.now for line in lines)
    after = sum(line.price_per_hour * line.target for line in lines)
    text = f"cost {before:,.2f} -> {after:,.2f} {money_sign(currency)}/h ({dollars(after - before)})"
    if isinstance(solved, HourPlan) and solved.plan.start_cost:
        return f"{text}, and {show_money(solved.plan.start_cost, currency)} for starting"
    if isinstance(solved, AheadPlan):
        costs = solved.plan.costs
        span = sum(step.hours for step in solved.plan.steps)
        serving, starts = (show_money(one, currency, 0) for one in (costs.serving, costs.starts))
        carbon = f", CO2 worth {show_money(costs.carbon, currency)}" if costs.carbon else ""
        return f"{text}; {serving} of serving and {starts} of starting over {span:g} h{carbon}"
    return text


def _expected(file: PlanFile) -> StackedTable:
    ahead = isinstance(file.solved, AheadPlan)
    planned = ("expected", "kept now", "kept at most") if ahead else ("planned",)
    made = StackedTable("prompt tokens/s", *planned, "last hour", "against it")
    for one in file.expected:
        against = f"{one.expected / one.seen:.2f}x" if one.seen else "–"
        numbers = (amount(one.expected), amount(one.now), amount(one.peak)) if ahead else (amount(one.now),)
        made.add_row(escape(one.name), *numbers, amount(one.seen), against)
    return made


def _section(out: "Console", title: str, lines: Sequence[str]) -> None:
    out.print(f"[dim]{title}[/dim]")
    for line in lines:
        prose(out, f"  {escape(line)}", under=4)
