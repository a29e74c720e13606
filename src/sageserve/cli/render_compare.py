"""A comparison as tables that fit 100 columns, and as JSON.

Draws what it is given; means and ratios come from `data/results/comparison.py`. Read next: docs/reference/summary.md.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

import msgspec
from rich.markup import escape

from sageserve.base.units import SECOND, show_duration, show_money
from sageserve.cli.columns import Column, prose, tables, terminal
from sageserve.cli.render import NONE, hours, seconds, share
from sageserve.data.results.comparison import Bound, Comparison, Spread, energy_of, gpu_counts, held, needed, owed, spread
from sageserve.data.results.summary import GpuCounts, Summary, TierSummary
from sageserve.show.verdict import verdict

_Json: TypeAlias = dict[str, object]


def comparison_json(comparison: Comparison, bounds: Mapping[int, Bound], left: Sequence[str]) -> bytes:
    """`{"strategies": {name: summary}}`; docs/reference/summary.md says what more there can be."""
    value: _Json = {"strategies": {name: _seeds(runs) for name, runs in comparison.runs.items()}}
    if bounds:
        value["oracle"] = _seeds(bounds)
    if left:
        value["unfinished"] = list(left)
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def _seeds(found: Mapping[int, Summary] | Mapping[int, Bound]) -> _Json:
    """What the first seed gave; with several, every seed's under `seeds`."""
    each = {str(seed): msgspec.to_builtins(one) for seed, one in found.items()}
    first: _Json = dict(next(iter(each.values())))
    if len(each) > 1:
        first["seeds"] = each
    return first


def draw(comparison: Comparison, bounds: Mapping[int, Bound], scenario: str, *, following: str = "") -> None:
    """Print a comparison on stdout.

    Args:
        comparison: what was played.
        bounds: the oracle's, by seed.
        scenario: as the user named it.
        following: a command to go on with, after the verdict; empty: neither is printed.
    """
    console = terminal()
    some = next(iter(next(iter(comparison.runs.values())).values()))
    seeds = sorted({seed for runs in comparison.runs.values() for seed in runs})
    played = f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds; mean and ± standard deviation"
    span = show_duration(round(some.window_s * SECOND))
    asked = f"{some.requests.arrived:,} requests over {span}, {some.order}, signal {some.signal}"
    prose(console, f"[bold]{escape(scenario)}[/bold]: {asked}, {played}", under=2)
    names = list(comparison.runs)
    if following and len(names) > 1:
        found = verdict(comparison)
        console.print(f"\n[bold]{escape(found.headline)}[/bold]\n{escape(found.saves)}")
    for columns in filter(None, (_strategies(comparison, names), _models(comparison, names), _gpus(comparison, names))):
        console.print()
        for table in tables(columns, console.width):
            console.print(table)
    console.print()
    for line in _notes(comparison, bounds):
        console.print(f"[dim]{line}[/dim]")
    if following:
        console.print(f"\nnext: {escape(following)}", soft_wrap=True)


def _strategies(comparison: Comparison, names: Sequence[str]) -> list[Column]:
    def column(title: str, show: Callable[[float], str], found: Callable[[str], Spread | None]) -> Column:
        return Column(title, [_cell(found(name), show) for name in names])

    columns = [
        Column("strategy", names, words=True),
        column("GPU\nhours", hours, lambda name: comparison.of(name, held)),
        column("owed", hours, lambda name: comparison.of(name, owed)),
    ]
    if comparison.base in names and len(names) > 1:
        columns += [
            column(f"vs\n{comparison.base}", change, lambda name: comparison.against(name, comparison.base, held)),
            column("with\nowed", change, lambda name: comparison.against(name, comparison.base, needed)),
        ]
    if comparison.bounds:
        columns.append(column("×\nbound", "{:.2f}".format, comparison.over_bound))
    columns += [
        column(
            "cost",
            lambda value: show_money(value, comparison.currency, 0),
            lambda name: comparison.of(name, lambda run: run.cost_usd.total),
        ),
        column("waste", hours, lambda name: comparison.of(name, lambda run: run.gpu_hours.waste)),
    ]
    columns += [
        Column(title.replace(" ", "\n"), [_cell(comparison.of(name, value), hours) for name in names])
        for title, _, value in energy_of(comparison)
    ]
    if any(run.requests.shed for runs in comparison.runs.values() for run in runs.values()):
        columns.append(column("shed", "{:,.0f}".format, lambda name: comparison.of(name, lambda run: run.requests.shed)))
    if any(run.prefix_cache is not msgspec.UNSET for runs in comparison.runs.values() for run in runs.values()):
        columns.append(column("in\ncache", kept, lambda name: comparison.of(name, _found)))
    for tier, run in next(iter(next(iter(comparison.runs.values())).values())).tiers.items():
        word = "on time" if run.promise == "deadline" else "kept"
        columns.append(column(f"{tier}\n{word}", kept, _in_tier(comparison, tier, lambda one: one.attainment)))
        if run.promise == "ttft":
            columns.append(column("TTFT\np95", seconds, _in_tier(comparison, tier, lambda one: one.ttft_s.p95)))
        if run.itl_s is not None:
            columns.append(column("token\np95", seconds, _in_tier(comparison, tier, _token_p95)))
    return columns


def _token_p95(tier: TierSummary) -> float | None:
    """Seconds a token after the first; None where a result does not say."""
    return None if tier.tpot_s is msgspec.UNSET else tier.tpot_s.p95


def _found(run: Summary) -> float:
    """Share of prompt tokens that served requests found in prefix caches."""
    return 0.0 if run.prefix_cache is msgspec.UNSET else run.prefix_cache.share


def _in_tier(comparison: Comparison, tier: str, value: Callable[[TierSummary], float | None]) -> Callable[[str], Spread | None]:
    """A number of one tier by strategy."""
    return lambda name: comparison.of(name, lambda run: value(run.tiers[tier]))


def _models(comparison: Comparison, names: Sequence[str]) -> list[Column]:
    some = next(iter(next(iter(comparison.runs.values())).values()))
    models = list(some.models)

    def row(found: Callable[[str], Spread | None], total: Spread | None) -> list[str]:
        return [*(_cell(found(model), hours) for model in models), _cell(total, hours)]

    def floor(value: Callable[[Summary], float]) -> float:
        return min(value(run) for runs in comparison.runs.values() for run in runs.values())

    def of(name: str) -> list[str]:
        return row(
            lambda model: comparison.of(name, lambda run: run.models[model].gpu_hours.total),
            comparison.of(name, held),
        )

    least = spread([floor(lambda run: run.gpu_hours.floor)])
    columns = [
        Column("GPU-hours by model", [*models, "all models"]),
        Column("floor", row(lambda model: spread([floor(lambda run: run.models[model].gpu_hours.floor)]), least)),
    ]
    return [*columns, *(Column(name, of(name)) for name in names)]


def _gpus(comparison: Comparison, names: Sequence[str]) -> list[Column]:
    """GPUs held by pool and in VMs by stock: peak, p99 and mean of every strategy; nothing where results do not say."""
    found = {name: gpu_counts(comparison, name) for name in names}
    rows = list(dict.fromkeys(row for counts in found.values() for row in counts))
    if not rows:
        return []

    def cell(counts: GpuCounts | None) -> str:
        return NONE if counts is None else f"{counts.peak:,} {counts.p99:,} {counts.mean:,.1f}"

    columns = [Column(f"{name}\npeak p99 mean", [cell(found[name].get(row)) for row in rows]) for name in names]
    return [Column("GPUs held", rows), *columns]


def _cell(value: Spread | None, show: Callable[[float], str]) -> str:
    if value is None:
        return NONE
    return show(value.mean) if value.deviation is None else f"{show(value.mean)}\n±{show(value.deviation).lstrip('+')}"


def change(value: float) -> str:
    """A relative change: -11.3%, +0.2%."""
    return f"{value * 100:+.1f}%"


def kept(value: float) -> str:
    """An attainment, rounded down; 100% means all."""
    return "100%" if value >= 1 else share(value)


def _notes(comparison: Comparison, bounds: Mapping[int, Bound]) -> Iterator[str]:
    yield (
        "owed: GPU-hours of work that had arrived and was not done when the window ended. Add them before calling a strategy"
        " cheaper: what is pushed past the end is not in its GPU-hours."
    )
    if bounds:
        least = spread(bound.gpu_hours for bound in bounds.values())
        yield (
            "× bound: (GPU-hours + owed) over the least that as much kept takes anyone (the oracle's bound); all promises take"
            f" {NONE if least is None else hours(least.mean)}."
        )
    yield "p99: GPUs that were enough in 99 % of the time; over several seeds the highest peak and p99, and the mean of means."
    yield "floor: the least that minimum instances hold over the window; no strategy can go below it."
    windows = {(run.window_s, run.requests.arrived) for runs in comparison.runs.values() for run in runs.values()}
    if len(windows) > 1:
        yield "The seeds differ in requests or window: GPU-hours are means over unequal work."
