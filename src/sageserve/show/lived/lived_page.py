"""A stretch of a live fleet as a page: what was kept and what it held, tables behind it, and what happened over time.

Words, tables and figures; sums nothing up. Read next: `read.py`; `show/report.py`, whose page it fills.
"""

import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

import numpy as np

from sageserve.base.records import Floats, Ints
from sageserve.base.units import MINUTE, show_duration
from sageserve.base.version import __version__
from sageserve.data.results.summary import Quantiles
from sageserve.data.watched.minutes import read_minutes
from sageserve.data.watched.request_lines import request_files
from sageserve.show.chronicle import REASONS
from sageserve.show.figures.parts import Fields, Figure, Json, View, panel, panels, series, stroke
from sageserve.show.format import NONE, count, gpu_hours, listed, money, percent, seconds
from sageserve.show.lived.read import LivedReading
from sageserve.show.lived.records import LivedCost, LivedHours, LivedReport, LivedTier
from sageserve.show.page import FirstScreen
from sageserve.show.report import Choosable, fill
from sageserve.show.shadow.reckon import counts_of
from sageserve.show.shadow.shadow_page import capacity_view
from sageserve.show.sheets import Sheet, TableCell, TableRow
from sageserve.show.verdict import Verdict

_BUCKETS: Final = 240  # of promises and requests over time: few requests in a bucket say little
_TENANTS: Final = 100
_FILES: Final = 8  # named in a command
_REASONS: Final = {reason.value: words for reason, words in REASONS.items()}
_STATES: Final = ("serving", "starting", "reclaiming", "draining", "spot")
_OF_LINES: Final = (
    "Kept is of all requests that gateways counted. What follows is of those of which a line was kept; first is until the first"
    " of an answer came, which of an answer that was not streamed is all of it."
)

_TIER_COLUMNS: Final = (
    "promise",
    "requests",
    "kept",
    "lines",
    "answered",
    "turned away",
    "left",
    "failed",
    *(f"{kind} {point}".strip() for kind in ("first", "E2E") for point in ("p50", "p95", "p99")),
)


def lived_page(reading: LivedReading) -> str:
    """The page as HTML."""
    report = reading.report
    screen = FirstScreen(
        title=f"{report.fleet} under {report.strategy}, as it ran",
        kind="Report of a live fleet",
        asked=span_words(report),
        heading="What it took",
        facts=(("Rule", report.strategy), ("Decisions", _decision_words(report)), ("State", str(reading.state))),
        verdict=Verdict(report.strategy, headline(report), _taken(report), _risks(report), "", {}),
        helps=tuple(f"{report.strategy} may be tried against others on these requests: {line}" for line in _next(reading)),
        partial="",
        warnings=(),
        sheets=tuple(_sheets(report)),
        notes=(*report.notes, *(f"Left out: {what}. Why: {why}." for what, why in report.left_out.items())),
        version=__version__,
    )
    shown = Choosable((), tuple(name for name in _endpoints(reading)), (report.ends_s - report.begins_s) / 60)
    return fill(screen, [_capacity(reading), _kept(reading), _requests(reading), _backlog(reading)], shown)


def span_words(report: LivedReport) -> str:
    """When, in a line."""
    begin, end = (f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M}" for at in (report.begins_s, report.ends_s))
    return f"{report.requests:,} requests in {show_duration(round(report.hours * 60) * MINUTE)} between {begin} and {end} UTC"


def headline(report: LivedReport) -> str:
    """The answer in a sentence."""
    judged = {name: one for name, one in report.tiers.items() if one.attainment is not None}
    broken = [f"{name} ({percent(one.attainment)})" for name, one in judged.items() if (one.attainment or 0) < one.percentile]
    if not judged:
        return f"{report.fleet} ran, and no promise of it can be judged."
    if broken:
        return f"{report.fleet} broke the {'promise' if len(broken) == 1 else 'promises'} of {listed(broken)}."
    return f"{report.fleet} kept the {'promise' if len(judged) == 1 else 'promises'} of {listed(list(judged))}."


def _taken(report: LivedReport) -> str:
    if report.gpu_hours is None or report.cost is None:
        held = sum(one.instance_hours for one in report.pools.values())
        return f"{_hours(held)} instance-hours served. GPU-hours and cost are not known."
    hours = report.gpu_hours
    share = percent(hours.waste / hours.total, 1) if hours.total else NONE
    return f"{_hours(hours.total)} GPU-hours for {money(report.cost.total, report.currency)}; {share} of them came or ended."


def _hours(value: float) -> str:
    """Hours with as many digits as say something, also of a fleet that ran for a minute."""
    return gpu_hours(value) if abs(value) >= 10 else f"{value:.2f}"


def _risks(report: LivedReport) -> tuple[str, ...]:
    found = [
        f"{name}: {percent(one.attainment)} of {one.requests:,} kept, {percent(one.percentile, 0)} promised."
        for name, one in report.tiers.items()
        if one.attainment is not None and one.attainment < one.percentile
    ]
    if report.start_failures:
        found.append(f"{count(report.start_failures, 'instance')} did not start, or died.")
    found += [f"{one.decisions:,} decisions were not wholly done: {one.words}." for one in report.choices.blocked[:3]]
    return tuple(found) or ("No promise that is known was broken.",)


def _next(reading: LivedReading) -> Iterator[str]:
    if reading.report.tenants:
        words = [word for file in request_files(reading.state)[:_FILES] for word in ("--trace", str(file))]
        yield shlex.join(["sageserve", "simulate", str(reading.state / "scenario.yaml"), *words])
    else:
        yield "set live.records, and give the lines that are kept then to simulate --trace"


def _decision_words(report: LivedReport) -> str:
    found = report.choices
    plans = f", {count(found.plans, 'plan')}" + (f" ({found.plans_failed} failed)" if found.plans_failed else "")
    return f"{found.decisions:,}{plans if found.plans else ''}"


def _sheets(report: LivedReport) -> Iterator[Sheet]:
    rows = tuple(TableRow(name, tuple(_tier_cells(one))) for name, one in report.tiers.items())
    yield Sheet("Promises", _TIER_COLUMNS, rows, (_OF_LINES,), "tier")
    if report.gpu_hours is not None and report.cost is not None:
        yield _held(report, report.gpu_hours, report.cost)
    yield _pools(report)
    if report.tenants:
        yield _tenants(report)
    if report.choices.reasons:
        yield _decisions(report)


def _held(report: LivedReport, hours: LivedHours, cost: LivedCost) -> Sheet:
    columns = ("GPU-hours", *_STATES, "cost", "reserved", "on demand", "spot income", "starts", "failed or died")
    cells = [TableCell(_hours(value), exact=value) for value in (getattr(hours, name) for name in ("total", *_STATES))]
    amounts = (cost.total, cost.reserved, cost.on_demand, cost.spot_income)
    cells += [TableCell(money(value, report.currency), exact=value) for value in amounts]
    cells += [TableCell(f"{value:,}", exact=value) for value in (report.starts or 0, report.start_failures or 0)]
    return Sheet("What it held", columns, (TableRow(report.fleet, tuple(cells)),), (), "fleet")


def _pools(report: LivedReport) -> Sheet:
    rows = []
    for name, one in report.pools.items():
        cells = TableCell(_hours(one.instance_hours), exact=one.instance_hours), TableCell(f"{one.peak:,}")
        rows.append(TableRow(name, (*cells, TableCell(f"{one.mean:,.1f}", exact=one.mean))))
    return Sheet("Instances that served", ("instance-hours", "peak", "mean"), tuple(rows), (), "pool")


def _tenants(report: LivedReport) -> Sheet:
    columns = ("requests", "answered", "turned away", "prompt tokens", "output tokens")
    shown, rest = list(report.tenants.items())[:_TENANTS], len(report.tenants) - _TENANTS
    rows = [
        TableRow(name, tuple(TableCell(f"{getattr(one, field):,}") for field in one.__struct_fields__)) for name, one in shown
    ]
    return Sheet("Who asked", columns, tuple(rows), (f"And {count(rest, 'key')} more.",) if rest > 0 else (), "key")


def _decisions(report: LivedReport) -> Sheet:
    rows = []
    for one in report.choices.reasons:
        cells = (f"{one.decisions:,}", f"{one.wanted:+,}", f"{one.done:+,}")
        rows.append(TableRow(_REASONS[one.reason], tuple(map(TableCell, cells))))
    return Sheet("Decisions", ("decisions", "wanted", "done"), tuple(rows), (), "because of")


def _tier_cells(one: LivedTier) -> Iterator[TableCell]:
    yield TableCell(f"{percent(one.percentile, 0)} {one.promise}")
    yield TableCell(f"{one.requests:,}", exact=one.requests)
    mark = "" if one.attainment is None else "good" if one.attainment >= one.percentile else "bad"
    yield TableCell(percent(one.attainment), exact=one.attainment, mark=mark)
    yield TableCell(f"{one.lines:,}" if one.answered is not None else NONE)
    for number in (one.answered, one.turned_away, one.left, one.failed):
        yield TableCell(NONE if number is None else f"{number:,}", exact=number)
    for times in (one.first_s, one.e2e_s):
        for point in Quantiles.__struct_fields__:
            value = None if times is None else getattr(times, point)
            yield TableCell(seconds(value), exact=value)


# ------------------------------------------------------------------------------------------------ over time


def _endpoints(reading: LivedReading) -> list[str]:
    names = [reading.layout.endpoint_name(at) for at in range(reading.layout.endpoints) if reading.layout.endpoint_pools(at)]
    return names if len(reading.layout.roles) == 1 else []


def _capacity(reading: LivedReading) -> Figure:
    wall = reading.table.wall
    begin, end = int(wall[0]), int(wall[-1])
    minutes = (one for one in read_minutes(reading.state, begin) if one.wall <= end)
    counts = {name: one for name, one in counts_of(minutes, reading.layout).items() if len(one.wall)}
    return Figure(
        "capacity",
        "What ran, what was asked for, what was needed?",
        "Instances of the model's fastest GPU type. Needed is the fewest that keep the promises at five minutes' mean demand.",
        [capacity_view(name, one, begin) for name, one in counts.items()],
        timed=True,
        nothing="No endpoint's minutes were kept: where a model's instances are set apart, nobody counts whose demand is whose.",
    )


def _buckets(reading: LivedReading) -> tuple[Ints, float]:
    """int64[minutes], the bucket of each minute, and minutes in one."""
    wall = reading.table.wall
    rows = ((wall - int(wall[0])) // MINUTE).astype(np.int64)
    step = max(1, -(-(int(rows[-1]) + 1) // _BUCKETS))
    return rows // step, float(step)


def _lines(reading: LivedReading, names: list[str], values: list[Floats], **look: Json) -> list[Fields]:
    _, step = _buckets(reading)
    return [
        series(name, one, start=step / 2, step=step, line=stroke(f"@c{k % 8}", width=1.6), **look)
        for k, (name, one) in enumerate(zip(names, values, strict=True))
    ]


def _kept(reading: LivedReading) -> Figure:
    judged = [name for name, one in reading.report.tiers.items() if one.attainment is not None]
    rows, step = _buckets(reading)
    traces: list[Fields] = []
    shapes: list[Json] = []
    for k, name in enumerate(judged):
        asked, missed = (np.bincount(rows, weights=column[name]) for column in (reading.table.requests, reading.table.missed))
        share = np.where(asked > 0, 1 - np.minimum(1.0, missed / np.maximum(asked, 1)), np.nan)
        look: Fields = {"line": stroke(f"@c{k % 8}", width=1.6), "connectgaps": False, "showlegend": False, **panel(k)}
        traces.append(series(name, share * 100, start=step / 2, step=step, **look))
        axis, level = "y" if k == 0 else f"y{k + 1}", reading.report.tiers[name].percentile * 100
        line = stroke("@ink", "dash", 1.2)
        shapes.append({"type": "line", "xref": "paper", "x0": 0, "x1": 1, "yref": axis, "y0": level, "y1": level, "line": line})
    says = "By the time of the answer. The dashed level is what was promised."
    views = []
    if judged:
        titles = [f"{name}: {reading.report.tiers[name].percentile:.0%} promised" for name in judged]
        layout = panels(titles, "% kept", height=140) | {"shapes": shapes}
        views = [View({}, f"Share of promises kept over time of {listed(judged)}, one panel each.", traces, layout)]
    return Figure("kept", "When were promises missed?", says, views, timed=True, nothing="No tier's promises can be judged.")


def _requests(reading: LivedReading) -> Figure:
    rows, step = _buckets(reading)
    names = list(reading.table.requests)
    values = [np.bincount(rows, weights=reading.table.requests[name]) / (60 * step) for name in names]
    views = (
        [
            View(
                {},
                "Requests a second over time, one line for each tier.",
                _lines(reading, names, values),
                panels([""], "a second"),
            )
        ]
        if names
        else []
    )
    says = f"Means of {show_duration(round(step) * MINUTE)}."
    nothing = "Whose requests came was not counted: others run this fleet."
    return Figure("requests", "What was asked?", says, views, timed=True, nothing=nothing)


def _backlog(reading: LivedReading) -> Figure:
    rows, _ = _buckets(reading)
    names = [name for name, waiting in reading.table.waiting.items() if waiting.any()]
    values = []
    for name in names:
        most = np.zeros(int(rows[-1]) + 1)
        np.maximum.at(most, rows, reading.table.waiting[name])
        values.append(most)
    views = (
        [
            View(
                {},
                "Batch work that waited over time, one line for each model.",
                _lines(reading, names, values),
                panels([""], "waiting"),
            )
        ]
        if names
        else []
    )
    return Figure(
        "backlog",
        "What waited?",
        "Jobs and flex requests, the most of each time.",
        views,
        timed=True,
        nothing="No batch work waited.",
    )
