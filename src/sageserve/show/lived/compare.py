"""Two stretches of live fleets against each other: settings, and the numbers that both kept.

No seed can be played again, and other requests came: so one thing alone can be told from chance, a difference in attainment
that so many requests do not explain by their number, and even that may be what was asked and not what was changed. Hours and
dollars are told by the hour as well, for stretches are seldom of one length.
Read next: `read.py`, `show/difference.py` for the record.
"""

from collections.abc import Iterator, Mapping, Sequence

from sageserve.base.units import MINUTE, money_sign, show_duration
from sageserve.data.results.significance import proportions
from sageserve.data.results.sweep_read import flat
from sageserve.show.difference import ATTAINMENT, Difference, Number, Setting, Word
from sageserve.show.lived.lived_page import span_words
from sageserve.show.lived.read import COUNTED, LivedReading
from sageserve.show.lived.records import LivedReport, LivedTier
from sageserve.show.sides import changed_settings

_POINTS = ("p50", "p95", "p99")
_OTHERS = "other requests came"


def lived_difference(before: LivedReading, after: LivedReading) -> Difference:
    """Set two stretches against each other."""
    first, second = before.report, after.report
    same = before.state == after.state
    settings = () if same else tuple(Setting(*one) for one in changed_settings(flat(before.scenario), flat(after.scenario)))
    keys = list(dict.fromkeys(key for report in (first, second) for key, _, _ in numbers_of(report)))
    sides = [{key: (unit, value) for key, unit, value in numbers_of(report)} for report in (first, second)]
    found = tuple(_number(key, sides[0].get(key), sides[1].get(key), (first, second)) for key in keys)
    return Difference(
        before=f"{before.state}, {span_words(first)}",
        after=f"{after.state}, {span_words(second)}",
        strategies=(first.strategy, second.strategy),
        how="stretches",
        seeds=((), ()),
        settings=settings,
        numbers=found,
        sentence=_sentence(found),
        cautions=tuple(_cautions(first, second, same=same)),
    )


def numbers_of(report: LivedReport) -> Iterator[tuple[str, str, float]]:
    """Numbers of a stretch that are known: key, unit, value; keys are those of summary.json where the meaning is."""
    yield from _held(report)
    if COUNTED not in report.left_out:
        yield "requests.arrived", "", float(report.requests)
        yield "requests.per_hour", "", report.requests / report.hours
    for tier, one in report.tiers.items():
        if one.attainment is not None:
            yield f"tiers.{tier}.{ATTAINMENT}", "share", one.attainment
        yield from _of_lines(tier, one)
    yield from _counts(report, "", ("starts", "start_failures", "reclaims", "spot_taken"))
    yield "decisions", "", float(report.choices.decisions)


def _held(report: LivedReport) -> Iterator[tuple[str, str, float]]:
    sign, held, cost = money_sign(report.currency), report.gpu_hours, report.cost
    if held is not None and cost is not None:
        for name in held.__struct_fields__:
            yield f"gpu_hours.{name}", "GPU h", getattr(held, name)
        yield "gpus.mean", "", held.total / report.hours
        yield "cost_usd.total", sign, cost.total
        yield "cost_usd.spot_income", sign, cost.spot_income
        yield "cost_usd.per_hour", sign, cost.total / report.hours
        if report.requests:
            yield "cost_usd.per_thousand_requests", sign, 1000 * cost.total / report.requests
    for pool, served in report.pools.items():
        yield f"instance_hours.{pool}", "", served.instance_hours


def _of_lines(tier: str, one: LivedTier) -> Iterator[tuple[str, str, float]]:
    for name, times in (("first_s", one.first_s), ("e2e_s", one.e2e_s)):
        for point in _POINTS if times is not None else ():
            value = getattr(times, point)
            if value is not None:
                yield f"tiers.{tier}.{name}.{point}", "s", value
    yield from _counts(one, f"tiers.{tier}.", ("answered", "turned_away", "left", "failed"))


def _counts(record: LivedReport | LivedTier, prefix: str, names: Sequence[str]) -> Iterator[tuple[str, str, float]]:
    for name in names:
        counted = getattr(record, name)
        if counted is not None:
            yield f"{prefix}{name}", "", float(counted)


def _number(
    key: str, before: tuple[str, float] | None, after: tuple[str, float] | None, reports: tuple[LivedReport, LivedReport]
) -> Number:
    unit = (before or after or ("", 0.0))[0]
    first, second = (None if one is None else one[1] for one in (before, after))
    if first is None or second is None:
        return Number(key, unit, first, second, None, None, None, Word.TRAFFIC)
    if first == second:
        return Number(key, unit, first, second, 0.0, None, None, Word.EQUAL)
    tier = key.removeprefix("tiers.").removesuffix(f".{ATTAINMENT}") if key.endswith(f".{ATTAINMENT}") else ""
    if not tier:
        return Number(key, unit, first, second, second - first, None, None, Word.TRAFFIC)
    asked = [report.tiers[tier].requests for report in reports]
    found = proportions(first, asked[0], second, asked[1])
    word = Word.SAMPLING if found.low <= 0 <= found.high else Word.TRAFFIC
    return Number(key, unit, first, second, second - first, found.low, found.high, word)


def _sentence(numbers: tuple[Number, ...]) -> str:
    kept = {one.key.split(".")[1]: one for one in numbers if one.key.endswith(f".{ATTAINMENT}") and one.word is Word.TRAFFIC}
    moved = [f"{tier} {'better' if (one.change or 0) > 0 else 'worse'}" for tier, one in kept.items() if one.change is not None]
    if moved:
        return f"Promises were kept otherwise than the sampling of requests explains: {', '.join(moved)}."
    return "No promise that both know was kept otherwise than the sampling of requests explains."


def _cautions(first: LivedReport, second: LivedReport, *, same: bool) -> Iterator[str]:
    yield f"{_OTHERS}: what differs may be they, and not what was changed"
    if abs(first.hours - second.hours) > 0.01 * max(first.hours, second.hours):
        spans = [show_duration(round(one.hours * 60) * MINUTE) for one in (first, second)]
        yield f"{spans[0]} were taken down in one and {spans[1]} in the other: read what is told by the hour"
    if same:
        yield "settings of earlier times are not kept, so none are compared; the audit log names those that a reload changed"
    for side, report in (("before", first), ("after", second)):
        for what, why in _missing(report, second if report is first else first).items():
            yield f"{what} of {side} are not known: {why}"


def _missing(report: LivedReport, other: LivedReport) -> Mapping[str, str]:
    """What this side left out and the other did not."""
    return {what: why for what, why in report.left_out.items() if what not in other.left_out}
