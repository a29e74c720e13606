"""A shadow report as a page: what following the decisions would have done, and what ran, would have run and was needed over time.

Words and figures; sums nothing up. Read next: `read.py`; `show/report.py`, whose page it fills.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

import numpy as np

from sageserve.base.records import Floats, Ints
from sageserve.base.units import MINUTE
from sageserve.base.version import __version__
from sageserve.show.figures.parts import Figure, View, panels, series, stroke
from sageserve.show.format import NONE, gpu_hours, money, percent
from sageserve.show.page import FirstScreen
from sageserve.show.report import Choosable, fill
from sageserve.show.shadow.read import ShadowReading, ShadowReport
from sageserve.show.shadow.reckon import EndpointCounts, ShadowEndpoint, ShadowSide
from sageserve.show.sheets import Sheet, TableCell, TableRow
from sageserve.show.verdict import Verdict

_POINTS: Final = 1440  # buckets of a line: a minute each of a day
_MEANS: Final = (
    "Harm: instance-minutes that decisions would have taken away of what ran and was needed. Help: those they would have added.",
    "Needed is the fewest instances of the fastest GPU type that keep the promises at the mean demand of five minutes.",
    "Broken minutes are expected ones, by the engine model: those with fewer instances than needed.",
    "Each decision starts from the fleet as it was: what would have followed from carrying it out is not played.",
)


def shadow_page(reading: ShadowReading) -> str:
    """The page as HTML."""
    report = reading.report
    names = tuple(one.endpoint for one in report.endpoints)
    start = min((int(one.wall[0]) for one in reading.counts.values() if len(one.wall)), default=0)
    views = [capacity_view(name, reading.counts[name], start) for name in names]
    figure = Figure(
        "shadow",
        "What ran, what would have run, what was needed?",
        "Where the line of what would have run lies below what was needed and what ran, following the decisions would have done"
        " harm; where it lies above what ran and up to what was needed, it would have helped. Gaps were not seen.",
        views,
        timed=True,
    )
    screen = FirstScreen(
        title=f"{report.fleet}: {report.strategy} beside what ran",
        kind="Shadow report",
        asked=span_words(report),
        heading="What it saves",
        facts=(("Decisions", decision_words(report)), ("Rule", report.strategy)),
        verdict=Verdict(report.strategy, headline(report), saving_words(report), risk_words(report), "", {}),
        helps=next_words(report),
        partial="",
        warnings=(),
        sheets=(_judged(report), _sides(report), _forecasts(report)),
        notes=_MEANS,
        version=__version__,
    )
    minutes = (report.ends_s - report.begins_s) / 60
    return fill(screen, [figure], Choosable((), names if len(names) > 1 else (), minutes))


def span_words(report: ShadowReport) -> str:
    """When it was watched, in a line."""
    begin, end = (f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M}" for at in (report.begins_s, report.ends_s))
    return f"watched for {report.watched_hours:,.1f} h between {begin} and {end} UTC"


def headline(report: ShadowReport) -> str:
    """The answer in a sentence."""
    harm = f"harm: {report.harm:,.0f} instance-minutes taken from what was needed" if report.harm > 0 else "no harm"
    help_ = f"added {report.help:,.0f} instance-minutes where too few ran" if report.help > 0 else "had nothing to help"
    return f"Following {report.strategy} would have done {harm}, and {help_}."


def saving_words(report: ShadowReport) -> str:
    """Money and broken minutes."""
    saved, minutes = report.saves_usd, report.broken_minutes_saved
    words = f"{money(abs(saved), report.currency)} {'less than' if saved > 0 else 'more than'}"
    much = words if abs(saved) >= 0.005 else "as much as"
    many = f"{abs(minutes):,} {'fewer' if minutes > 0 else 'more'}" if minutes else "as many"
    return f"It would have cost {much} what ran, on demand, with {many} minutes in which promises are expected to break."


def risk_words(report: ShadowReport) -> tuple[str, ...]:
    """What was harmful or is not known."""
    found = [
        f"{one.endpoint}: harm in {one.harm_minutes:,} minutes, {one.harm:,.0f} instance-minutes."
        for one in report.endpoints
        if one.harm_minutes
    ]
    found += [
        f"{one.endpoint} was not seen for {one.blind_minutes:,} minutes, which are not judged."
        for one in report.endpoints
        if one.blind_minutes
    ]
    return tuple(found) or ("No harm in any minute that was seen.",)


def next_words(report: ShadowReport) -> tuple[str, ...]:
    """Whether targets may be given more rights, endpoint by endpoint."""
    may = "may be given more rights if `sageserve doctor` agrees"
    return tuple(f"{name}: {_refusal(why) if why else may}." for name, why in report.refused.items())


def _refusal(why: tuple[str, ...]) -> str:
    return f"no more rights yet: {', '.join(why)}"


def decision_words(report: ShadowReport) -> str:
    """How many, and what kept them from being done."""
    parts = ", ".join(f"{why} {count:,}" for why, count in report.blocked.items())
    return f"{report.decisions:,}" + (f" ({parts})" if parts else "")


def _judged(report: ShadowReport) -> Sheet:
    columns = ("seen", "agreed", "harm", "help", "changes", "asked for before", "lead", "followed", "broken as measured")
    return Sheet(
        "Harm, help, lead", columns, tuple(TableRow(one.endpoint, tuple(_cells(one))) for one in report.endpoints), (), "endpoint"
    )


def _cells(one: ShadowEndpoint) -> Iterator[TableCell]:
    yield TableCell(f"{one.seen_minutes:,} min", small=f"{one.blind_minutes:,} unseen" if one.blind_minutes else "")
    yield TableCell(percent(one.agreement))
    yield TableCell(f"{one.harm:,.0f} inst-min", exact=one.harm)
    yield TableCell(f"{one.help:,.0f} inst-min", exact=one.help)
    yield TableCell(f"{one.changes:,}")
    yield TableCell(f"{one.foreseen:,}")
    yield TableCell(NONE if one.lead_minutes is None else f"{one.lead_minutes:g} min")
    yield TableCell(f"{one.followed:,} of {one.wishes:,}")
    yield TableCell(NONE if one.measured_minutes is None else f"{one.measured_minutes:,} min", exact=one.measured_minutes)


def _sides(report: ShadowReport) -> Sheet:
    columns = ("instance-hours", "waste", "cost", "of it waste", "broken minutes", "changes a day")
    rows = [
        TableRow(f"{one.endpoint}, {name}", tuple(_side_cells(side, report.currency)))
        for one in report.endpoints
        for name, side in (("what ran", one.did), ("would", one.would))
    ]
    return Sheet("What ran and what would have run", columns, tuple(rows), (), "endpoint")


def _side_cells(side: ShadowSide, currency: str) -> Iterator[TableCell]:
    yield TableCell(gpu_hours(side.instance_hours), exact=side.instance_hours)
    yield TableCell(gpu_hours(side.waste_hours), exact=side.waste_hours)
    yield TableCell(money(side.cost_usd, currency), exact=side.cost_usd)
    yield TableCell(money(side.waste_usd, currency), exact=side.waste_usd)
    yield TableCell(f"{side.short_minutes:,}", exact=side.short_minutes)
    yield TableCell(f"{side.changes_per_day:.1f}", exact=side.changes_per_day)


def _forecasts(report: ShadowReport) -> Sheet:
    rows = []
    for one in report.endpoints:
        if (score := one.forecast) is not None:
            band = NONE if score.band is None else f"p{score.band[0] * 100:g} to p{score.band[1] * 100:g}"
            cells = (f"{score.bins:,}", f"{score.wape:.1%}", f"{score.bias:+.1%}", band, percent(score.inside))
            rows.append(TableRow(one.endpoint, tuple(TableCell(text) for text in cells)))
    notes = () if rows else ("No forecast could be judged: the strategy makes none, or no hour after one was seen wholly.",)
    return Sheet("Forecasts of the hour ahead", ("bins", "error", "bias", "band", "inside"), tuple(rows), notes, "endpoint")


def capacity_view(name: str, counts: EndpointCounts, start: int) -> View:
    """Instances of an endpoint over time: what ran, what decisions asked for, what was needed; minutes from `start`."""
    rows = ((counts.wall - start) // MINUTE).astype(np.int64)
    step = max(1, -(-(int(rows[-1]) + 1) // _POINTS))
    looks = {
        "needed": (counts.needed, stroke("@c1", "dash", 1.5)),
        "what ran": (counts.did, stroke("@c0", width=2, shape="hv")),
        "would have run": (counts.would, stroke("@c3", "dot", 2, shape="hv")),
    }
    lines = [
        series(title, _thin(values[counts.seen], rows[counts.seen] // step), start=step / 2, step=float(step), line=look)
        for title, (values, look) in looks.items()
    ]
    alt = f"Instances of {name} over time: what ran, what would have run, and what was needed, one line each."
    return View({"model": name}, alt, lines, panels([""], "instances", height=300))


def _thin(values: Floats, buckets: Ints) -> Floats:
    """float64[buckets]: means of values by bucket; NaN where there is none."""
    count = np.bincount(buckets)
    return np.where(count > 0, np.bincount(buckets, weights=values) / np.maximum(count, 1), np.nan)
