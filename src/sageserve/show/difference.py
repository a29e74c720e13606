"""What changed between two sides, in settings and in results, and which of it is more than chance.

Several seeds decide: over equal seeds the mean of the differences, else the difference of means (Welch), with Student's interval;
so many numbers are looked at that the share of false alarms is held (Benjamini and Hochberg). One seed decides nothing, except
that a difference in attainment may be less than the sampling of the requests explains.

Pure: from summaries to a record. Read next: `sides.py`, `data/results/significance.py`, docs/how-to/look-at-results.md.
"""

import statistics
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Final, Literal, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from sageserve.base.units import money_sign
from sageserve.data.results.significance import Interval, beyond_chance, paired, proportions, welch
from sageserve.data.results.summary import Summary
from sageserve.data.results.sweep_read import flat
from sageserve.show.format import count
from sageserve.show.sides import Side, changed_settings

How: TypeAlias = Literal["paired", "welch", "single", "stretches"]
_QUANTILES: Final = ("p50", "p95", "p99")
_HOURS: Final = ("total", "serving", "starting", "reclaiming", "draining", "waste", "spot")
ATTAINMENT: Final = "attainment"


class Word(StrEnum):
    """What is to be thought of a difference."""

    CHANGED = "changed"
    NOISE = "no difference beyond the seeds' spread"
    SAMPLING = "no difference beyond the sampling of requests"
    UNKNOWN = "one seed only: cannot tell noise from change"
    TRAFFIC = "other requests came: cannot tell what they did from change"
    EQUAL = "equal"


class Setting(Struct, frozen=True):
    """A setting that differs; values with their units, a dash where a side has none."""

    key: str
    before: str
    after: str


class Number(Struct, frozen=True):
    """One number of summary.json on both sides.

    Args:
        key: as in summary.json.
        unit: "GPU h", "$" (or another currency), "share", "s", or nothing for counts.
        before: mean over seeds; None where there was nothing to measure.
        after: likewise.
        change: after less before, over the seeds compared.
        low: lower end of its 95 % interval; None where there is none.
        high: upper end.
        word: what is to be thought of it.
    """

    key: str
    unit: str
    before: float | None
    after: float | None
    change: float | None
    low: float | None
    high: float | None
    word: Word


class Difference(Struct, frozen=True):
    """Two sides against each other.

    Args:
        before: name of the first side.
        after: name of the second.
        strategies: of both.
        how: equal seeds in pairs, two sets of seeds, a single seed on a side, or stretches of live fleets.
        seeds: that were compared, of both sides.
        settings: those that differ, the seed apart.
        numbers: in the order of docs/reference/summary.md.
        sentence: all of it in one.
        cautions: why the sides are not alike, if they were compared anyway.
    """

    before: str
    after: str
    strategies: tuple[str, str]
    how: How
    seeds: tuple[tuple[int, ...], tuple[int, ...]]
    settings: tuple[Setting, ...]
    numbers: tuple[Number, ...]
    sentence: str
    cautions: tuple[str, ...]


def difference(before: Side, after: Side, cautions: Sequence[str] = ()) -> Difference:
    """Set two sides against each other.

    Args:
        before: the first side.
        after: the second.
        cautions: what `sides.unlike` said, when they are compared all the same.
    """
    how, seeds = _method(before, after)
    sides = tuple([side.runs[seed].summary for seed in chosen] for side, chosen in zip((before, after), seeds, strict=True))
    settings = tuple(
        Setting(*each) for each in changed_settings(flat(before.some.scenario), flat(after.some.scenario)) if each[0] != "seed"
    )
    alike = not settings and seeds[0] != seeds[1] and before.some.summary.version == after.some.summary.version
    rows = [_number(key, unit, (sides[0], sides[1]), how) for key, unit in _keys(before.some.summary, after.some.summary)]
    numbers = _judged([row for row in rows if row is not None], how, only_the_seed=alike and not cautions)
    return Difference(
        before=before.name,
        after=after.name,
        strategies=(before.strategy, after.strategy),
        how=how,
        seeds=seeds,
        settings=settings,
        numbers=tuple(numbers),
        sentence=_sentence(numbers, how, seeds),
        cautions=tuple(cautions),
    )


def number_at(summary: Summary, key: str) -> float | None:
    """A number by its key in summary.json, parts separated by `/` where names may hold dots."""
    node: object = summary
    for part in key.split("/"):
        node = node.get(part) if isinstance(node, dict) else getattr(node, part, None)
    return float(node) if isinstance(node, int | float) else None


def _method(before: Side, after: Side) -> tuple[How, tuple[tuple[int, ...], tuple[int, ...]]]:
    shared = tuple(seed for seed in before.runs if seed in after.runs)
    if len(shared) > 1:
        return "paired", (shared, shared)
    if len(before.runs) > 1 and len(after.runs) > 1:
        return "welch", (tuple(before.runs), tuple(after.runs))
    if shared:
        return "single", (shared, shared)
    return "single", (tuple(before.runs)[:1], tuple(after.runs)[:1])


def _keys(before: Summary, after: Summary) -> Iterator[tuple[str, str]]:
    """Numbers to look at, with their units."""
    for state in _HOURS:
        yield f"gpu_hours/{state}", "GPU h"
    yield "after_window/work_gpu_hours", "GPU h"
    yield from ((f"cost_usd/{what}", money_sign(before.currency)) for what in ("total", "spot_income"))
    yield "utilisation/mean", "share"
    for tier in [*before.tiers, *(name for name in after.tiers if name not in before.tiers)]:
        yield f"tiers/{tier}/{ATTAINMENT}", "share"
        for what in ("ttft_s", "tpot_s", "e2e_s"):
            yield from ((f"tiers/{tier}/{what}/{quantile}", "s") for quantile in _QUANTILES)
    for counted in ("arrived", "finished", "unfinished", "refused", "shed"):
        yield f"requests/{counted}", ""
    yield from (("starts", ""), ("start_failures", ""), ("reclaims", ""), ("spot_taken", ""), ("preemptions", ""))


class _Row(Struct, frozen=True):
    """A number before it is judged; `p` is None where chance cannot be known."""

    number: Number
    p: float | None


def _number(key: str, unit: str, sides: tuple[list[Summary], list[Summary]], how: How) -> _Row | None:
    """A number on both sides; None when neither has it."""
    before, after = ([number_at(summary, key) for summary in side] for side in sides)
    if how == "paired":  # a seed counts when both sides have the number
        both = [(b, a) for b, a in zip(before, after, strict=True) if b is not None and a is not None]
        if both:
            before, after = [b for b, _ in both], [a for _, a in both]
    first, second = ([value for value in side if value is not None] for side in (before, after))
    if not first and not second:
        return None
    shown = key.replace("/", ".")
    means = [statistics.fmean(side) if side else None for side in (first, second)]
    if not first or not second:
        return _Row(Number(shown, unit, means[0], means[1], None, None, None, Word.UNKNOWN), None)
    interval = _interval(key, first, second, how, (sides[0][0], sides[1][0]))
    change = statistics.fmean(second) - statistics.fmean(first)
    equal = first == second if how != "welch" else len({*first, *second}) == 1
    word = Word.EQUAL if equal else Word.UNKNOWN
    low, high, p = (None, None, None) if interval is None else (interval.low, interval.high, interval.p)
    return _Row(Number(shown, unit, means[0], means[1], change, low, high, word), p)


def _interval(key: str, first: list[float], second: list[float], how: How, some: tuple[Summary, Summary]) -> Interval | None:
    if how == "single":
        _, _, rest = key.partition("tiers/")
        tier, _, what = rest.partition("/")
        judged = [one.tiers[tier].requests - one.tiers[tier].undecided for one in some] if what == ATTAINMENT else [0, 0]
        return proportions(first[0], judged[0], second[0], judged[1]) if min(judged) > 0 else None
    if min(len(first), len(second)) < 2:
        return None
    return paired(first, second) if how == "paired" else welch(first, second)


def _judged(rows: Sequence[_Row], how: How, *, only_the_seed: bool) -> list[Number]:
    """The numbers with their words. Equal ones are not counted among those that were looked at for a change."""
    open_rows = [row for row in rows if row.number.word is not Word.EQUAL and row.p is not None]
    real = dict(zip((row.number.key for row in open_rows), beyond_chance([row.p or 0.0 for row in open_rows]), strict=True))
    found = []
    for row in rows:
        word = row.number.word
        if word is not Word.EQUAL:
            word = _word(row, how, real=real.get(row.number.key, False), only_the_seed=only_the_seed)
        found.append(replace(row.number, word=word))
    return found


def _word(row: _Row, how: How, *, real: bool, only_the_seed: bool) -> Word:
    if how == "single":
        if only_the_seed:
            return Word.NOISE  # settings, requests and version are equal: it is what another seed does
        within = row.number.low is not None and row.number.high is not None and row.number.low <= 0 <= row.number.high
        return Word.SAMPLING if within else Word.UNKNOWN
    if row.p is None:
        return Word.UNKNOWN
    return Word.CHANGED if real else Word.NOISE


def _sentence(numbers: Sequence[Number], how: How, seeds: tuple[tuple[int, ...], tuple[int, ...]]) -> str:
    differing = [number for number in numbers if number.word is not Word.EQUAL]
    changed = [number for number in differing if number.word is Word.CHANGED]
    if not differing:
        return "Nothing changed: all numbers are equal."
    if changed:
        return f"{len(changed)} of {count(len(numbers), 'number')} changed by more than {_judge(how, seeds)} explains."
    if all(number.word is Word.NOISE for number in differing):
        if how == "single":
            return "Only the seed differs: what differs in the results is what a seed does."
        return f"No difference beyond the seeds' spread, by {_judge(how, seeds)}."
    if how == "single":
        return "One seed only: cannot tell noise from change."
    return f"No number that both sides have changed by more than {_judge(how, seeds)} explains."


def _judge(how: How, seeds: tuple[tuple[int, ...], tuple[int, ...]]) -> str:
    if how == "paired":
        return f"the spread over {count(len(seeds[0]), 'equal seed')}"
    return f"the spread over {len(seeds[0])} and {count(len(seeds[1]), 'seed')}"
