"""A summary as a table that fits 100 columns, and what to try next.

Draws what it is given and computes only sums of it. Read next: `data/results/summary.py` for the numbers,
docs/reference/summary.md for what they mean.
"""

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sageserve.base.units import SECOND, show_duration
from sageserve.data.results.summary import Hours, Quantiles, Summary, TierSummary

WIDTH = 100
NONE = "–"
_RIVALS = {"siloed": "reactive", "reactive": "lt-ua"}  # what a strategy is best compared with; the others with reactive


def draw(summary: Summary, scenario: str, out: Path | None) -> None:
    """Print a summary on stdout.

    Args:
        summary: what to print.
        scenario: as the user named it, for the suggestions.
        out: where the files were written, if they were.
    """
    console = Console(soft_wrap=False, highlight=False)
    console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    console.print(header(summary))
    for note in summary.notes:
        console.print(f"  {escape(note)}", style="dim")
    console.print()
    console.print(tiers_table(summary))
    console.print()
    console.print(hours_table(summary))
    console.print()
    console.print(totals(summary))
    console.print()
    for line in _next_steps(summary, scenario, out):
        console.print(line, soft_wrap=True)


def seconds(value: float | None) -> str:
    """Three digits and a unit: 85ms, 2.49s, 1.5m, 3.2h."""
    if value is None:
        return NONE
    if value < 0.9995:
        return f"{value * 1000:.0f}ms"
    for size, unit in ((60.0, "s"), (3600.0, "m"), (48 * 3600.0, "h"), (float("inf"), "d")):
        if value < size:
            amount = value / {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit]
            return f"{amount:.2f}{unit}" if amount < 9.995 else f"{amount:.1f}{unit}"
    raise AssertionError("every number is below infinity")


def share(value: float | None, digits: int = 2) -> str:
    """A percentage, rounded down so that 100 % means all."""
    if value is None:
        return NONE
    scale = 10**digits
    return f"{int(value * 100 * scale + 1e-6) / scale:.{digits}f}%"


def hours(value: float) -> str:
    """Hours with as many digits as say something."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:,.1f}"


def header(summary: Summary) -> str:
    """What was run, in a sentence; whatever was lost or interrupted in red."""
    arrived = summary.requests
    lost = [f"{getattr(arrived, word):,} {word}" for word in ("refused", "shed", "unfinished") if getattr(arrived, word)]
    text = (
        f"[bold]{escape(summary.scenario)}[/bold] under [bold]{summary.strategy}[/bold], {summary.order},"
        f" signal {summary.signal}, seed {summary.seed}: {arrived.arrived:,} requests"
        f" over {show_duration(round(summary.window_s * SECOND))}"
    )
    if lost:
        text += f" [red]({', '.join(lost)})[/red]"
    if summary.partial:
        played = show_duration(round(summary.played_s) * SECOND)
        text += f"\n[bold red]PARTIAL[/bold red]: interrupted after {played}; hours and dollars are those until then"
    return text


def _plain(*titles: str, left: int, gap: int = 2) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="dim")
    for number, title in enumerate(titles):
        table.add_column(title, justify="left" if number < left else "right", no_wrap=number >= left, overflow="fold")
    return table


def tiers_table(summary: Summary) -> Table:
    """Promises, whether they were kept, and latencies, by tier; who was turned away only where somebody was."""
    shed = bool(summary.requests.shed)
    table = _plain(
        *("tier", "promise", "requests", "finished", *(["shed"] if shed else []), "kept"),
        *("TTFT p50", "p95", "p99", "E2E p50", "p95", "p99"),
        left=2,
        gap=1 if shed else 2,
    )
    for name, tier in summary.tiers.items():
        table.add_row(
            escape(name),
            _promise(tier),
            f"{tier.requests:,}",
            f"{tier.finished:,}",
            *([f"{tier.shed:,}"] if shed else []),
            _kept(tier),
            *_row(tier.ttft_s),
            *_row(tier.e2e_s),
        )
    return table


def _promise(tier: TierSummary) -> str:
    word = "TTFT" if tier.promise == "ttft" else "done"
    return f"{share(tier.percentile, 0)} {word} {show_duration(round(tier.promise_s * SECOND))}"


def _kept(tier: TierSummary) -> str:
    if tier.kept is None:
        return NONE
    return f"{share(tier.attainment)} " + ("[green]✓[/green]" if tier.kept else "[red]✗[/red]")


def _row(values: Quantiles) -> list[str]:
    return [seconds(values.p50), seconds(values.p95), seconds(values.p99)]


def hours_table(summary: Summary) -> Table:
    """GPU-hours by state and model."""
    table = _plain("GPU-hours", "serving", "starting", "reclaiming", "draining", "total", "waste", "donated", "floor", left=1)
    for name, model in summary.models.items():
        table.add_row(escape(name), *_hours(model.gpu_hours))
    if len(summary.models) > 1:
        table.add_row("[bold]all models[/bold]", *_hours(summary.gpu_hours))
    return table


def _hours(held: Hours) -> list[str]:
    return [
        *(hours(held.serving), hours(held.starting), hours(held.reclaiming), hours(held.draining)),
        *(f"[bold]{hours(held.total)}[/bold]", hours(held.waste), hours(held.spot), hours(held.floor)),
    ]


def totals(summary: Summary) -> str:
    """Cost, waste, utilisation and scaling, a line each."""
    cost, used = summary.cost_usd, summary.utilisation
    paid = f"cost          [bold]${cost.total:,.0f}[/bold]"
    if cost.reserved:
        paid += f" (${cost.reserved:,.0f} reserved, ${cost.on_demand:,.0f} on demand)"
    if cost.spot_income:
        paid += f"; donated GPUs earn ${cost.spot_income:,.0f}"
    total = summary.gpu_hours.total
    wasted = share(summary.gpu_hours.waste / total) if total else NONE
    scaling = f"scaling       {summary.starts:,} starts, {summary.reclaims:,} reclaims"
    if summary.start_failures:
        scaling += f", {summary.start_failures:,} failed"
    lines = [
        paid,
        f"waste         {wasted} of the GPU-hours held; nobody can go below the floor of {hours(summary.gpu_hours.floor)}",
        f"utilisation   {share(used.mean, 1)} on average ({summary.signal}; KV {share(used.kv, 1)}, busy {share(used.busy, 1)})",
        f"{scaling}, {summary.preemptions:,} preemptions",
    ]
    if summary.after_window.finished:
        late = summary.after_window
        lines.append(f"after the end {late.finished:,} requests finished, the last {seconds(late.latest_s)} later")
    if summary.requests_per_cpu_s:
        lines.append(f"speed         {summary.cpu_s:.2f} CPU s, {summary.requests_per_cpu_s:,.0f} requests per CPU second")
    return "\n".join(lines)


def _next_steps(summary: Summary, scenario: str, out: Path | None) -> list[str]:
    command = f"sageserve simulate {escape(scenario)}"
    other = _RIVALS.get(summary.strategy, "reactive")
    missed = [tier for tier in summary.tiers.values() if tier.kept is False]
    lines = [f"next: {command} --strategy {other}"]
    if missed and summary.order != "dpa":
        lines.append(f"      {command} --order dpa          another order of waiting requests")
    lines.append(f"      {command} --load 1.5           half as many requests again")
    if out is None:
        lines.append(f"      {command} --out runs/first     keep every request, minute and decision")
    else:
        lines.append(
            f"      files are in {escape(str(out))}: summary.json, requests.parquet, timeline.parquet, journal.jsonl.zst"
        )
    return lines[:3] if out is None else [*lines[:2], lines[-1]]
