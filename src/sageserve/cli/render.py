"""A summary as tables that fit the terminal, and what to try next.

Draws what it is given and computes only sums of it. Read next: `data/results/summary.py` for the numbers,
docs/reference/summary.md for what they mean.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Final

from msgspec import UNSET, UnsetType
from rich.markup import escape
from rich.table import Table

from sageserve.base.units import SECOND, show_duration, show_money
from sageserve.cli.columns import WIDTH, Column, tables, terminal
from sageserve.data.results.summary import Energy, Quantiles, Summary, TierSummary
from sageserve.show.bill import shared_tokens
from sageserve.show.limits import idle, rolled_out, starved

NONE = "–"
_STATES: Final[Mapping[str, str]] = {
    **{state: state for state in ("serving", "starting", "reclaiming", "draining", "total", "waste")},
    "spot": "donated",
    "floor": "floor",
}
_CAUSES: Final[Mapping[str, str]] = {
    "alone": "too long for an idle engine",
    "network": "too far away",
    "refused": "longer than the context",
    "shed": "turned away",
    "unfinished": "never finished",
    "pace": "too slow between tokens",
    "queue": "waited too long",
}
_UNDER: Final = 14 * " "  # below what stands beside a title
_TENANTS: Final = 12  # `sageserve report` and summary.json have more
_TOLD: Final = 0.001  # of utilisation: less beyond it than a digit shows is not told
RIVALS: Final = {"siloed": "reactive", "reactive": "lt-ua"}  # what a strategy is best compared with; the others with reactive


def draw(summary: Summary, following: Sequence[str], out: Path | None) -> None:
    """Print a summary on stdout.

    Args:
        summary: what to print.
        following: commands to go on with.
        out: where the files were written, if they were.
    """
    console = terminal()
    console.print(header(summary))
    for note in summary.notes:
        console.print(f"  {escape(note)}", style="dim")
    console.print()
    width = console.width
    parts = (tiers_tables, tenants_tables, hours_tables, gpus_tables)
    for table in (table for part in parts for table in part(summary, width)):
        console.print(table)
        console.print()
    console.print(totals(summary))
    console.print()
    for number, command in enumerate(following):
        console.print(f"{'      ' if number else 'next: '}{escape(command)}", soft_wrap=True)
    if out is not None:
        made = "summary.json, requests.parquet, timeline.parquet, journal.jsonl.zst"
        console.print(f"      files are in {escape(str(out))}: {made}", soft_wrap=True)


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
        text += f"\n[bold red]PARTIAL[/bold red]: interrupted after {played}; hours and costs are those until then"
    return text


def tiers_tables(summary: Summary, width: int) -> Iterator[Table]:
    """Promises, whether they were kept, and latencies, by tier; who was turned away only where somebody was."""
    found = summary.tiers.values()
    shed = [Column("shed", [f"{tier.shed:,}" for tier in found])] if summary.requests.shed else []
    columns = [
        Column("tier", list(summary.tiers), words=True),
        Column("promise", [_promise(tier) for tier in found], words=True),
        Column("requests", [f"{tier.requests:,}" for tier in found]),
        Column("finished", [f"{tier.finished:,}" for tier in found]),
        *shed,
        Column("kept", [_kept(tier) for tier in found]),
    ]
    times: dict[str, list[Quantiles | UnsetType]] = {
        "TTFT": [tier.ttft_s for tier in found],
        "token": [tier.tpot_s for tier in found],
        "E2E": [tier.e2e_s for tier in found],
    }
    for word, values in times.items():
        if all(one is UNSET for one in values):
            continue
        cells = [_row(one) for one in values]
        columns.append(Column(f"{word} p50", [row[0] for row in cells]))
        columns += [Column(f"{word} {part}", [row[k] for row in cells], beside=part) for k, part in ((1, "p95"), (2, "p99"))]
    return tables(columns, width)


def tenants_tables(summary: Summary, width: int) -> Iterator[Table]:
    """What tenants that share got, who asked most first; none where nobody shares by weight."""
    shared = {} if isinstance(summary.tenants, UnsetType) else shared_tokens(summary.tenants)
    if not shared or isinstance(summary.tenants, UnsetType):
        return
    shown = dict(list(summary.tenants.items())[:_TENANTS])
    columns = [
        Column("tenant", list(shown)),
        Column("weight", [NONE if isinstance(one.weight, UnsetType) else f"{one.weight:g}" for one in shown.values()]),
        Column("requests", [f"{one.requests:,}" for one in shown.values()]),
        Column("shed", [f"{one.shed:,}" for one in shown.values()]),
        Column("tokens", [share(shared[name], 1) for name in shown]),
        *(Column(f"{tier} kept", [share(one.attainment.get(tier)) for one in shown.values()]) for tier in summary.tiers),
    ]
    yield from tables(columns, width)


def _promise(tier: TierSummary) -> str:
    word = "TTFT" if tier.promise == "ttft" else "done"
    return f"{share(tier.percentile, 0)} {word} {tier.words}"


def _kept(tier: TierSummary) -> str:
    if tier.kept is None:
        return NONE
    return f"{share(tier.attainment)} {'✓' if tier.kept else '✗'}"


def _row(values: Quantiles | UnsetType) -> list[str]:
    if values is UNSET:
        return [NONE, NONE, NONE]
    return [seconds(values.p50), seconds(values.p95), seconds(values.p99)]


def hours_tables(summary: Summary, width: int) -> Iterator[Table]:
    """GPU-hours by state and model."""
    rows = {name: model.gpu_hours for name, model in summary.models.items()}
    if len(rows) > 1:
        rows["all models"] = summary.gpu_hours
    columns = [Column("GPU-hours", list(rows), words=True)]
    for field, title in _STATES.items():
        cells = [hours(getattr(held, field)) for held in rows.values()]
        columns.append(Column(title, cells, style="bold" if field == "total" else ""))
    return tables(columns, width)


def gpus_tables(summary: Summary, width: int) -> Iterator[Table]:
    """GPUs over time by pool, and those of the VMs in use by region and type; none where a result does not say."""
    rows = [*summary.gpus.items(), *((f"VMs of {name}", counts) for name, counts in summary.vm_gpus.items())]
    rows = [(name, counts) for name, counts in rows if counts.peak]
    if not rows:
        return
    columns = [
        Column("GPUs held", [name for name, _ in rows]),
        Column("peak", [f"{counts.peak:,}" for _, counts in rows]),
        Column("p99", [f"{counts.p99:,}" for _, counts in rows]),
        Column("mean", [f"{counts.mean:,.1f}" for _, counts in rows]),
        Column("least", [f"{counts.minimum:,}" for _, counts in rows]),
    ]
    yield from tables(columns, width)


def _limits(summary: Summary) -> Iterator[str]:
    """That the minima and not the load set the cost, or that nothing could grow, where that is so."""
    told = [f"idle          {text} (`sageserve size`)" for text in [idle(summary)] if text]
    for line in (*told, *(f"{'' if number else 'starved':<14}{text}" for number, text in enumerate(starved(summary)))):
        yield fill(line, WIDTH, subsequent_indent=_UNDER)


def _lost(tier: TierSummary) -> str:
    """Misses by cause, most first, and what is left to keep where idle engines miss some."""
    text = _causes(tier.missed)
    if tier.possible is None or tier.possible == 1.0 or tier.attainment is None:
        return text
    of_it = share(tier.attainment / tier.possible) if tier.possible else NONE
    return f"{text}; {of_it} kept of what an idle fleet could keep"


def _titled(title: str, texts: Sequence[str]) -> Iterator[str]:
    for number, text in enumerate(texts):
        yield fill(f"{'' if number else title:<14}{text}", WIDTH, subsequent_indent=_UNDER)


def _causes(missed: Mapping[str, int]) -> str:
    """Most first."""
    ordered = sorted(missed.items(), key=lambda one: -one[1])
    return ", ".join(f"{count:,} {_CAUSES.get(cause, cause)}" for cause, count in ordered)


def _short(summary: Summary) -> list[str]:
    """Of several models those that miss a promise, and why; what is kept over all models, and hides one, comes first."""
    if len(summary.models) < 2:
        return []
    found = [
        (tier.kept is not True, f"{model} keeps {share(one.attainment)} of {name}, {share(tier.percentile, 0)} promised: {why}")
        for name, tier in summary.tiers.items()
        for model, of_model in summary.models.items()
        if (one := of_model.tiers.get(name)) is not None and one.attainment is not None and one.attainment < tier.percentile
        for why in [_causes(one.missed)]
    ]
    return [text for _, text in sorted(found, key=lambda one: one[0])]


def _energy(summary: Summary) -> Iterator[str]:
    """Energy and CO2, where the scenario says enough."""
    if isinstance(summary.energy, Energy):
        carbon = "" if summary.energy.kg_co2 is None else f", {hours(summary.energy.kg_co2)} kg of CO2"
        worth = summary.energy.carbon_cost
        priced = "" if worth is None else f", worth {show_money(worth, summary.currency, 0)} and in no bill"
        yield f"energy        {hours(summary.energy.kwh)} kWh{carbon}{priced}"


def totals(summary: Summary) -> str:
    """Cost, waste, utilisation and scaling, a line each."""
    cost, used = summary.cost_usd, summary.utilisation

    def paid_for(amount: float) -> str:
        return show_money(amount, summary.currency, 0)

    paid = f"cost          [bold]{paid_for(cost.total)}[/bold]"
    if cost.reserved:
        paid += f" ({paid_for(cost.reserved)} reserved, {paid_for(cost.on_demand)} on demand)"
    if cost.unused:
        paid += f"; {paid_for(cost.unused)} of what is reserved was not used"
    if cost.spot_income:
        paid += f"; donated GPUs earn {paid_for(cost.spot_income)}"
    lost = [f"{name}: {_lost(tier)}" for name, tier in summary.tiers.items() if tier.missed]
    total = summary.gpu_hours.total
    wasted = share(summary.gpu_hours.waste / total) if total else NONE
    parts = f"{summary.signal}; KV {share(used.kv, 1)}, busy {share(used.busy, 1)}"
    pressed = f"; {share(used.pressure, 1)} more was asked for than there was" if (used.pressure or 0) >= _TOLD else ""
    scaling = f"scaling       {summary.starts:,} starts, {summary.reclaims:,} reclaims"
    if summary.start_failures:
        scaling += f", {summary.start_failures:,} failed"
    lines = [
        *_titled("by model", _short(summary)),
        *_titled("missed", lost),
        paid,
        *_energy(summary),
        f"waste         {wasted} of the GPU-hours held; nobody can go below the floor of {hours(summary.gpu_hours.floor)}",
        *_limits(summary),
        *_titled("rollouts", list(rolled_out(summary))),
        f"utilisation   {share(used.mean, 1)} on average ({parts}){pressed}",
        f"{scaling}, {summary.preemptions:,} preemptions",
    ]
    if summary.after_window.finished:
        late = summary.after_window
        lines.append(f"after the end {late.finished:,} requests finished, the last {seconds(late.latest_s)} later")
    if summary.requests_per_cpu_s:
        lines.append(f"speed         {summary.cpu_s:.2f} CPU s, {summary.requests_per_cpu_s:,.0f} requests per CPU second")
    return "\n".join(lines)
