"""The frontier of strategies as a table that fits the terminal, with its verdict, and as JSON.

Draws what it is given; points and matches come from `sim/sweep/frontier.py`. Read next: docs/reference/strategies.md.
"""

from collections.abc import Sequence

import msgspec
from rich.markup import escape

from sageserve.cli.columns import Column, prose, tables, terminal
from sageserve.cli.render import NONE, hours, share
from sageserve.cli.render_compare import change, kept
from sageserve.data.results.comparison import Frontier, FrontierPoint, Match


def frontier_json(swept: Frontier, left: Sequence[str]) -> bytes:
    """`{"frontier": {strategy: [point]}, "bound": {tier: [point]}, "matched": …}`; docs/reference/summary.md says more."""
    value: dict[str, object] = {"frontier": swept.points, "bound": swept.bound, "matched": swept.matched}
    if left:
        value["unfinished"] = list(left)
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def draw_frontier(swept: Frontier, scenario: str) -> None:
    """Print points, cheapest first within a strategy, and what as much kept costs."""
    console = terminal()
    seeds = max(len(point.by_seed) for points in swept.points.values() for point in points)
    means = f", means of {seeds} seeds" if seeds > 1 else ""
    prose(console, f"[bold]{escape(scenario)}[/bold]: one knob of each strategy{means}", under=2)
    rows = [
        (name, point, by)
        for name, points in swept.points.items()
        for point, by in sorted(zip(points, swept.beaten[name], strict=True), key=lambda one: one[0].gpu_hours_with_owed)
    ]
    tiers = list(dict.fromkeys(tier for _, point, _ in rows for tier in point.kept))
    columns = [
        Column("strategy", [f"{name}  {point.knob}" for name, point, _ in rows]),
        Column("GPU-hours\nwith owed", [_hours(point) for _, point, _ in rows]),
        *(
            Column(f"{tier}\nkept", [kept(point.kept[tier]) if tier in point.kept else "–" for _, point, _ in rows])
            for tier in tiers
        ),
        *([Column("×\nbound", [_times(point) for _, point, _ in rows])] if swept.bound else []),
        Column("beaten by", [by or "" for _, _, by in rows]),
    ]
    console.print()
    for table in tables(columns, console.width):
        console.print(table)
    console.print()
    for line in _verdict(swept.matched, alone=len(swept.points) == 1):
        prose(console, escape(line), under=2)
    console.print("[dim]beaten by: that strategy is more than 1% cheaper and keeps as much in every tier, with every seed.[/dim]")
    if swept.bound:
        prose(console, "× bound: how many times the least that as much kept, of every tier, takes anyone.", style="dim")


def _hours(point: FrontierPoint) -> str:
    deviation = (point.spread or {}).get("gpu_hours_with_owed")
    text = hours(point.gpu_hours_with_owed)
    return text if deviation is None else f"{text}\n±{hours(deviation)}"


def _times(point: FrontierPoint) -> str:
    return NONE if point.over_bound is None else f"{point.over_bound:.2f}"


def _verdict(match: Match | None, *, alone: bool) -> list[str]:
    if match is None and alone:
        return ["One strategy has nobody to be compared with; × bound says how far each of its runs is from what can be."]
    if match is None:
        return ["No two strategies keep the same: their costs are not to be compared."]
    found = {name: cost for name, cost in match.gpu_hours.items() if cost is not None}
    never = [name for name, cost in match.gpu_hours.items() if cost is None]
    least = min(found, key=lambda name: found[name])
    texts = [
        f"{name} {hours(cost)}" + ("" if name == least else f" ({change(cost / found[least] - 1)})")
        for name, cost in sorted(found.items(), key=lambda one: one[1])
    ]
    rest = f"; never: {', '.join(never)}" if never else ""
    lines = [f"For {share(match.kept)} of {match.tier} kept, GPU-hours with owed work: {', '.join(texts)}{rest}."]
    if match.bound:
        times = f"{least} takes {found[least] / match.bound:.2f} times that"
        lines.append(f"Nobody can do it with less than {hours(match.bound)} (the oracle's bound); {times}.")
    return lines
