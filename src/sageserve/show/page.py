"""The first screen of a report: what was run, the verdict, and strategies side by side, every number with its exact value.

Turns summaries into words and cells; judges nothing (`verdict.py` does) and draws nothing. Read next: `templates/report.html.j2`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from msgspec import UNSET

from sageserve.base.config import Scenario
from sageserve.base.units import SECOND, show_duration
from sageserve.data.results.comparison import Comparison, Spread, energy_of, gpu_counts, held, needed, owed
from sageserve.data.results.summary import GpuCounts, Summary, TierSummary
from sageserve.show.bill import cost_sheets, tenant_sheets
from sageserve.show.format import NONE, change, count, gpu_hours, money, percent, seconds
from sageserve.show.reading import RunReading
from sageserve.show.sheets import Sheet, TableCell, TableRow
from sageserve.show.verdict import Verdict, verdict

Value: TypeAlias = Callable[[Summary], float | None]

_COUNTS: Final = (
    "By region/model/GPU type, and GPUs of the VMs in use, which is what a quota must allow. p99 was enough in 99 % of the time;"
    " over several seeds peak and p99 are the highest, and the mean is that of means."
)


@dataclass(frozen=True, slots=True)
class Preface:
    """What a report says before and beside its verdict, where results are not all there is to say.

    Args:
        kind: of report, above the title.
        warnings: what must be read before any figure: heading and text.
        sheets: more tables.
        notes: more of them.
    """

    kind: str
    warnings: tuple[tuple[str, str], ...] = ()
    sheets: tuple[Sheet, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FirstScreen:
    """What stands above the figures.

    Args:
        title: of the page.
        kind: what kind of report, above the title.
        asked: what was run, in a line.
        heading: of what the verdict says of hours and money.
        facts: what was run: heading and text.
        verdict: in sentences.
        helps: what would help, in sentences.
        partial: how far an interrupted run was played; empty when it was not.
        warnings: heading and text, above everything.
        sheets: tables.
        notes: what else to know.
        version: of sageserve.
    """

    title: str
    kind: str
    asked: str
    heading: str
    facts: tuple[tuple[str, str], ...]
    verdict: Verdict
    helps: tuple[str, ...]
    partial: str
    warnings: tuple[tuple[str, str], ...]
    sheets: tuple[Sheet, ...]
    notes: tuple[str, ...]
    version: str


def page_of(
    comparison: Comparison, readings: Mapping[str, RunReading], notes: Sequence[str], preface: Preface | None = None
) -> FirstScreen:
    """The first screen.

    Args:
        comparison: one strategy or more.
        readings: the runs that were kept whole, by the same names.
        notes: of the reader of the folders.
        preface: what else to say.
    """
    some = _first(comparison, next(iter(comparison.runs)))
    found = verdict(comparison)
    one = len(comparison.runs) == 1
    sheets = (
        _strategies(comparison, found),
        *_tiers(comparison),
        *cost_sheets(comparison),
        *tenant_sheets(comparison),
        *_gpus(comparison),
    )
    partial = [run for runs in comparison.runs.values() for run in runs.values() if run.partial]
    return FirstScreen(
        title=f"{some.scenario} under {some.strategy}" if one else f"{some.scenario}: {len(comparison.runs)} strategies compared",
        kind=preface.kind if preface is not None else "Simulation report" if one else "Comparison report",
        asked=_asked(comparison, some, next((run.scenario for run in readings.values()), None)),
        heading=_heading(comparison, found.strategy),
        facts=tuple(_facts(comparison, some, next((run.scenario for run in readings.values()), None))),
        verdict=found,
        helps=(*_hopeless(readings, found.strategy), found.recommendation),
        partial=show_duration(round(partial[0].played_s) * SECOND) if partial else "",
        warnings=() if preface is None else preface.warnings,
        sheets=(sheets[0], *(() if preface is None else preface.sheets), *sheets[1:]),
        notes=tuple(dict.fromkeys((*notes, *(() if preface is None else preface.notes), *_seeds_differ(comparison)))),
        version=some.version,
    )


def _asked(comparison: Comparison, some: Summary, scenario: Scenario | None) -> str:
    window = show_duration(round(some.window_s * SECOND))
    where = "" if scenario is None else f" on {count(len(scenario.models), 'model')} in {count(len(scenario.regions), 'region')}"
    seeds = {seed for runs in comparison.runs.values() for seed in runs}
    played = f"seed {some.seed}" if len(seeds) == 1 else f"mean of {len(seeds)} seeds"
    return f"{some.requests.arrived:,} requests over {window}{where}, {played}"


def _heading(comparison: Comparison, name: str) -> str:
    if len(comparison.runs) == 1:
        return "What it takes"
    base = comparison.base
    relative = comparison.against(name, base, needed)
    return "What it costs" if name != base and relative is not None and relative.mean > 0 else "What it saves"


def _first(comparison: Comparison, name: str) -> Summary:
    return next(iter(comparison.runs[name].values()))


def _facts(comparison: Comparison, some: Summary, scenario: Scenario | None) -> Iterator[tuple[str, str]]:
    about = f" – {scenario.about}" if scenario is not None and scenario.about else ""
    yield "Scenario", f"{some.scenario}{about}"
    window = show_duration(round(some.window_s * SECOND))
    yield "Requests", f"{some.requests.arrived:,} over {window}" + (f" ({'; '.join(some.notes)})" if some.notes else "")
    if scenario is not None:
        yield "Fleet", _fleet(scenario)
    seeds = sorted({seed for runs in comparison.runs.values() for seed in runs})
    listed = ", ".join(map(str, seeds)) if len(seeds) <= 8 else f"{seeds[0]} to {seeds[-1]}"
    yield ("Seed" if len(seeds) == 1 else f"{len(seeds)} seeds"), listed
    yield "Rules", f"{some.order} order, signal {some.signal}"


def _fleet(scenario: Scenario) -> str:
    gpus: dict[str, int] = {}
    for region in scenario.regions.values():
        for gpu, stock in region.gpus.items():
            gpus[gpu] = gpus.get(gpu, 0) + stock.gpus
    stock_text = " and ".join(f"{number:,} {gpu}" for gpu, number in gpus.items() if number)
    fleet = scenario.fleet
    start = count(fleet.start, "instance")
    endpoints = f"{count(len(scenario.models), 'model')} in {count(len(scenario.regions), 'region')}"
    text = f"{endpoints}, {stock_text}; {start} per endpoint at the start, {fleet.minimum} to {fleet.maximum}"
    return f"{text}; other numbers for {', '.join(fleet.endpoints)}" if fleet.endpoints else text


def _strategies(comparison: Comparison, found: Verdict) -> Sheet:
    tiers = list(_first(comparison, next(iter(comparison.runs))).tiers)
    several = len(comparison.runs) > 1
    base = comparison.base
    against = several and base in comparison.runs
    columns = ["GPU-hours", "owed", *([f"against {base}"] if against else []), *(["× bound"] if comparison.bounds else [])]
    shed = _any_shed(comparison)
    energy = energy_of(comparison)
    columns += [
        "cost",
        *(title for title, _, _ in energy),
        "waste",
        *(["shed"] if shed else []),
        *(f"{tier} kept" for tier in tiers),
    ]
    rows = []
    for name in comparison.runs:
        cells = [_hours(comparison, name, "gpu_hours.total", held), _hours(comparison, name, "after_window.work_gpu_hours", owed)]
        if against:
            cells.append(_against(comparison, name, base))
        if comparison.bounds:
            cells.append(_over(comparison, name))
        cells += [_cost(comparison, name), *(_hours(comparison, name, key, value) for _, key, value in energy)]
        cells += [_waste(comparison, name), *([_shed(comparison, name)] if shed else [])]
        cells += [_kept(comparison, name, tier) for tier in tiers]
        chosen = several and name == found.strategy
        rows.append(TableRow(name, tuple(cells), chosen, found.others.get(name, "")))
    notes = [
        "GPU-hours are what was held and is paid for in the window. Owed is work that had arrived and was not done"
        " when the window"
        " ended; add it before calling a strategy cheaper" + (f"; the column against {base} does." if against else "."),
    ]
    if comparison.bounds:
        least = sum(bound.gpu_hours for bound in comparison.bounds.values()) / len(comparison.bounds)
        notes.append(
            "× bound is GPU-hours and owed over the oracle's bound: the least with which anyone could keep as much. Keeping every"
            f" promise takes {gpu_hours(least)} GPU-hours at least."
        )
    caption = "Strategies side by side" if several else "What it cost and what was kept"
    return Sheet(caption, tuple(columns), tuple(rows), tuple(notes))


def _gpus(comparison: Comparison) -> Iterator[Sheet]:
    """GPUs held over time, by pool, and those of the VMs in use."""
    found = {name: gpu_counts(comparison, name) for name in comparison.runs}
    rows = list(dict.fromkeys(row for counts in found.values() for row in counts))
    if not rows:
        return
    words = ("peak", "p99", "mean")
    columns = tuple(f"{name}: {word}" if len(found) > 1 else word for name in found for word in words)
    cells = {row: tuple(cell for counts in found.values() for cell in _counted(counts.get(row))) for row in rows}
    yield Sheet(
        "GPUs held",
        columns,
        tuple(TableRow(row, cells[row]) for row in rows),
        (_COUNTS,),
    )


def _counted(counts: GpuCounts | None) -> tuple[TableCell, ...]:
    if counts is None:
        return (TableCell(NONE),) * 3
    return TableCell(f"{counts.peak:,}"), TableCell(f"{counts.p99:,}"), TableCell(f"{counts.mean:,.1f}")


def _spread(found: Spread | None, show: Callable[[float], str]) -> tuple[str, str]:
    """A mean, and its deviation over seeds as a second line."""
    if found is None:
        return NONE, ""
    return show(found.mean), "" if found.deviation is None else f"±{show(found.deviation).lstrip('+')}"


def _hours(comparison: Comparison, name: str, key: str, value: Value) -> TableCell:
    found = comparison.of(name, value)
    text, small = _spread(found, gpu_hours)
    return TableCell(text, key, None if found is None else found.mean, small=small)


def _against(comparison: Comparison, name: str, base: str) -> TableCell:
    if name == base:
        return TableCell("baseline")
    text, small = _spread(comparison.against(name, base, needed), change)
    return TableCell(text, small=small)


def _over(comparison: Comparison, name: str) -> TableCell:
    text, small = _spread(comparison.over_bound(name), lambda value: f"{value:.2f}")
    return TableCell(text, small=small)


def _cost(comparison: Comparison, name: str) -> TableCell:
    found = comparison.of(name, lambda run: run.cost_usd.total)
    text, small = _spread(found, lambda value: money(value, comparison.currency))
    return TableCell(text, "cost_usd.total", None if found is None else found.mean, small=small)


def _waste(comparison: Comparison, name: str) -> TableCell:
    found = comparison.of(name, lambda run: run.gpu_hours.waste)
    part = comparison.of(name, lambda run: run.gpu_hours.waste / run.gpu_hours.total if run.gpu_hours.total else None)
    text, _ = _spread(found, gpu_hours)
    return TableCell(
        text, "gpu_hours.waste", None if found is None else found.mean, small="" if part is None else f"{part.mean:.1%}"
    )


def _any_shed(comparison: Comparison) -> bool:
    return any(run.requests.shed for runs in comparison.runs.values() for run in runs.values())


def _shed(comparison: Comparison, name: str) -> TableCell:
    found = comparison.of(name, lambda run: run.requests.shed)
    part = comparison.of(name, lambda run: run.requests.shed / run.requests.arrived if run.requests.arrived else None)
    text, _ = _spread(found, "{:,.0f}".format)
    return TableCell(
        text, "requests.shed", None if found is None else found.mean, small="" if part is None else percent(part.mean)
    )


def _kept(comparison: Comparison, name: str, tier: str) -> TableCell:
    one = _first(comparison, name).tiers[tier]
    found = comparison.of(name, lambda run: run.tiers[tier].attainment)
    text, small = _spread(found, percent)
    if found is None:
        return TableCell(NONE, f"tiers.{tier}.attainment")
    mark = "good" if found.mean >= one.percentile else "bad"
    return TableCell(text, f"tiers.{tier}.attainment", found.mean, mark, small or f"of {percent(one.percentile, 0)} promised")


def _tiers(comparison: Comparison) -> Iterator[Sheet]:
    shed = _any_shed(comparison)
    counts = ("requests", "finished", "shed") if shed else ("requests", "finished")
    paced = any(one.tpot_s is not UNSET for name in comparison.runs for one in _first(comparison, name).tiers.values())
    kinds = {"ttft_s": "TTFT", **({"tpot_s": "token"} if paced else {}), "e2e_s": "E2E"}
    columns = ("promise", *counts, "kept", *(title for word in kinds.values() for title in (f"{word} p50", "p95", "p99")))
    rows = []
    for name in comparison.runs:
        run = _first(comparison, name)
        for tier, one in run.tiers.items():
            title = tier if len(comparison.runs) == 1 else f"{name}, {tier}"
            rows.append(TableRow(title, tuple(_tier_cells(tier, one, counts, list(kinds)))))
    seeded = any(len(runs) > 1 for runs in comparison.runs.values())
    notes = ("Of the first seed.",) if seeded else ()
    yield Sheet("Promises in detail", columns, tuple(rows), notes)


def _tier_cells(tier: str, one: TierSummary, counts: Sequence[str], kinds: Sequence[str]) -> Iterator[TableCell]:
    word = "first token" if one.promise == "ttft" else "done"
    yield TableCell(f"{percent(one.percentile, 0)} {word} in {one.words}")
    for counted in counts:
        number: int = getattr(one, counted)
        yield TableCell(f"{number:,}", f"tiers.{tier}.{counted}", number)
    mark = "" if one.kept is None else "good" if one.kept else "bad"
    yield TableCell(percent(one.attainment), f"tiers.{tier}.attainment", one.attainment, mark)
    for kind in kinds:
        values = getattr(one, kind)
        for point in ("p50", "p95", "p99"):
            value = None if values is UNSET else getattr(values, point)
            yield TableCell(seconds(value), f"tiers.{tier}.{kind}.{point}", value)


def _hopeless(readings: Mapping[str, RunReading], name: str) -> Iterator[str]:
    """Promises that no number of instances can keep."""
    one = readings.get(name)
    if one is None:
        return
    for k, tier in enumerate(one.digest.layout.names.tiers):
        found = one.summary.tiers.get(tier)
        if found is None or not found.requests or found.kept is not False:
            continue
        share = int(one.digest.hopeless[k]) / found.requests
        if share > 1 - found.percentile:
            yield (
                f"More instances cannot keep {tier}: for {share:.1%} of its prompts the first token takes longer than"
                f" {found.within} even on an idle engine, so no strategy can pass"
                f" {1 - share:.1%}."
                " Faster engines, shorter prompts or a later promise can."
            )


def _seeds_differ(comparison: Comparison) -> Iterator[str]:
    if any(len(runs) > 1 for runs in comparison.runs.values()):
        yield "Figures show the first seed of each strategy, the first table means over seeds and ± their standard deviation."
