"""Which strategy to use, what it saves and what it risks, in sentences; the same in the terminal and in the HTML report.

The rule. A strategy is fit if, for every tier, it keeps the promise or comes as close to the best of the others as chance or
half a point of attainment. Of those that are fit, the one with the fewest GPU-hours wins, work owed at the end included; where
that is a tie, reactive, because it needs no forecast. If none is fit, the one that falls short least.

Pure: from summaries to sentences. Read next: `data/results/comparison.py`, `data/results/significance.py`,
docs/reference/summary.md.
"""

import statistics
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from msgspec import Struct

from sageserve.base.units import SECOND, show_duration
from sageserve.core.strategies.recorded import NAME as RECORDED
from sageserve.data.results.comparison import Comparison, held, needed, owed
from sageserve.data.results.significance import Interval, paired, proportions
from sageserve.data.results.summary import Summary, TierSummary
from sageserve.show.format import change, count, gpu_hours, listed, money, percent, points
from sageserve.show.limits import idle, starved

TOLERANCE: Final = 0.005  # of attainment: half a point is less than what differs between two days of the same service
_TIE: Final = 0.005  # of GPU-hours: half a percent is within what rounding to whole instances does
_NEAR: Final = 0.01  # a promise kept with less to spare is told as a risk
_OWED: Final = 0.01  # of the GPU-hours: less work at the end than this is not worth a word

Value: TypeAlias = Callable[[Summary], float | None]


class Verdict(Struct, frozen=True):
    """The answer to: which should I use, what does it save, what does it risk?

    Args:
        strategy: the one to use; of a single run its own.
        headline: one sentence.
        saves: one sentence or two; differences with their interval where there are several seeds.
        risks: sentences, at least one.
        recommendation: what to do next, a sentence.
        others: why each of the others is not the one.
    """

    strategy: str
    headline: str
    saves: str
    risks: tuple[str, ...]
    recommendation: str
    others: dict[str, str]


def verdict(comparison: Comparison) -> Verdict:
    """Judge strategies, or a single run.

    Args:
        comparison: one strategy with one seed, or more of either. Each strategy has at least one summary.
    """
    if len(comparison.runs) == 1:
        return _alone(comparison, next(iter(comparison.runs)))
    losses = {name: _losses(comparison, name) for name in comparison.runs}
    fit = [name for name, found in losses.items() if not found]
    name = _cheapest(comparison, fit) if fit else _least_short(comparison)
    return Verdict(
        strategy=name,
        headline=f"{_advice(name)}: {_needs(comparison, name)}, and {_promises(comparison, name)}.",
        saves=_saves(comparison, name),
        risks=tuple(_risks(comparison, name)),
        recommendation=_next_step(comparison, name),
        others={one: _why_not(comparison, one, name, found) for one, found in losses.items() if one != name},
    )


def _advice(name: str) -> str:
    return "Keep what you have" if name == RECORDED else f"Use {name}"


def verdict_of(summary: Summary) -> Verdict:
    """Judge a single run."""
    return verdict(Comparison({summary.strategy: {summary.seed: summary}}, {}))


def difference(comparison: Comparison, first: str, second: str, value: Value) -> Interval | None:
    """How much more the second strategy has, over the seeds both have; None with fewer than two of them."""
    ours, theirs = comparison.runs[first], comparison.runs[second]
    pairs = [(value(ours[seed]), value(theirs[seed])) for seed in ours if seed in theirs]
    known = [(one, other) for one, other in pairs if one is not None and other is not None]
    return paired([one for one, _ in known], [other for _, other in known]) if len(known) > 1 else None


def _attainment(tier: str) -> Value:
    return lambda run: run.tiers[tier].attainment if tier in run.tiers else None


def _mean(comparison: Comparison, name: str, value: Value) -> float | None:
    found = comparison.of(name, value)
    return None if found is None else found.mean


def _some(comparison: Comparison, name: str) -> Summary:
    return next(iter(comparison.runs[name].values()))


def _best(comparison: Comparison, tier: str) -> tuple[str, float] | None:
    """The strategy with the highest attainment of a tier; the earlier one of equals."""
    found = [(name, _mean(comparison, name, _attainment(tier))) for name in comparison.runs]
    known = [(name, value) for name, value in found if value is not None]
    return max(known, key=lambda each: each[1], default=None)


def _losses(comparison: Comparison, name: str) -> dict[str, float]:
    """By tier whose promise is missed: how far attainment is below the best, where that is more than chance and `TOLERANCE`."""
    found = {}
    for tier, one in _some(comparison, name).tiers.items():
        mine, best = _mean(comparison, name, _attainment(tier)), _best(comparison, tier)
        if mine is None or best is None or mine >= one.percentile:
            continue
        if best[1] - mine > TOLERANCE and _beyond_chance(comparison, name, best[0], tier):
            found[tier] = best[1] - mine
    return found


def _beyond_chance(comparison: Comparison, name: str, best: str, tier: str) -> bool:
    interval = difference(comparison, name, best, _attainment(tier))
    if interval is None:  # a single seed: what the number of requests can tell
        mine, theirs = (_some(comparison, one).tiers[tier] for one in (name, best))
        if mine.attainment is None or theirs.attainment is None:
            return False
        interval = proportions(mine.attainment, mine.requests, theirs.attainment, theirs.requests)
    return interval.low > 0


def _cheapest(comparison: Comparison, names: list[str]) -> str:
    """Fewest GPU-hours with the owed ones; the baseline when it is as good."""
    least = min(names, key=lambda name: _needed(comparison, name))
    base = comparison.base
    if base in names and _needed(comparison, base) <= _needed(comparison, least) * (1 + _TIE):
        return base
    return least


def _least_short(comparison: Comparison) -> str:
    """The smallest of the largest gaps to a promise; GPU-hours decide between gaps that differ by less than `TOLERANCE`."""
    gaps = {name: max((gap for _, gap in _gaps(comparison, name)), default=0.0) for name in comparison.runs}
    least = min(gaps.values())
    return min((name for name in gaps if gaps[name] <= least + TOLERANCE), key=lambda name: _needed(comparison, name))


def _gaps(comparison: Comparison, name: str) -> Iterator[tuple[str, float]]:
    """Tiers whose promise is missed on the mean, and by how much."""
    for tier, one in _some(comparison, name).tiers.items():
        mine = _mean(comparison, name, _attainment(tier))
        if mine is not None and mine < one.percentile:
            yield tier, one.percentile - mine


def _needed(comparison: Comparison, name: str) -> float:
    return statistics.fmean(needed(run) for run in comparison.runs[name].values())


def _needs(comparison: Comparison, name: str) -> str:
    hours, left = _mean(comparison, name, held), _mean(comparison, name, owed) or 0.0
    cost = _mean(comparison, name, lambda run: run.cost_usd.total)
    assert hours is not None
    assert cost is not None
    more = f" and {gpu_hours(left)} owed" if left > _OWED * hours else ""
    return f"{gpu_hours(hours)} GPU-hours{more} ({money(cost, comparison.currency)})"


def _promises(comparison: Comparison, name: str) -> str:
    tiers, missed = _some(comparison, name).tiers, dict(_gaps(comparison, name))
    judged = [tier for tier in tiers if _mean(comparison, name, _attainment(tier)) is not None]
    if not judged:
        return "no request to judge it by"
    if not missed:
        words = "every promise is kept" if len(judged) > 1 else "the promise is kept"
        hidden = [f"{tier} is missed by {_models(found)}" for tier in judged if (found := _failing(comparison, name, tier))]
        return f"{words} over all models, but {listed(hidden)}" if hidden else words
    words = listed([f"{tier} reaches {_reached(comparison, name, tier)}" for tier in missed])
    return f"{len(judged) - len(missed)} of {count(len(judged), 'promise')} {'is' if len(judged) == 1 else 'are'} kept ({words})"


def _reached(comparison: Comparison, name: str, tier: str) -> str:
    wanted = _some(comparison, name).tiers[tier].percentile
    return f"{percent(_mean(comparison, name, _attainment(tier)))}, promised {percent(wanted, 0)}"


def _saves(comparison: Comparison, name: str) -> str:
    base = comparison.base
    other = base if name != base and base in comparison.runs else _dearest(comparison, name)
    words = f"Against {other}: {_against(comparison, name, other)}."
    bound = comparison.over_bound(name)
    if bound is not None:
        words += f" It takes {bound.mean:.2f} times the least that anyone needs to keep as much (the oracle's bound)."
    return words


def _dearest(comparison: Comparison, name: str) -> str:
    return max((one for one in comparison.runs if one != name), key=lambda one: _needed(comparison, one))


def _against(comparison: Comparison, name: str, other: str) -> str:
    relative = comparison.against(name, other, needed)
    if relative is None:
        return "no seed in common, so no difference can be told"
    costs = comparison.of(name, lambda run: run.cost_usd.total), comparison.of(other, lambda run: run.cost_usd.total)
    assert costs[0] is not None
    assert costs[1] is not None
    interval = difference(comparison, other, name, needed)
    less = costs[1].mean - costs[0].mean
    amount = money(abs(less), comparison.currency)
    words = f"{change(relative.mean)} GPU-hours, owed work included, {amount} {'less' if less >= 0 else 'more'}"
    if interval is None:
        return f"{words}; one seed, so chance is not known"
    if interval.low <= 0 <= interval.high:
        return f"no difference in GPU-hours beyond the spread over {len(comparison.runs[name])} seeds"
    base = _needed(comparison, other)
    return f"{words} (95% interval over seeds {change(interval.low / base)} to {change(interval.high / base)})"


def _risks(comparison: Comparison, name: str) -> Iterator[str]:
    runs = list(comparison.runs[name].values())
    told = False
    for risk in (
        *_missed(comparison, name),
        *_hidden(comparison, name),
        *_near(comparison, name),
        *_left_over(comparison, name),
        *_thin(comparison, name),
    ):
        told = True
        yield risk
    if not told:
        yield f"None found: every promise is kept with a point or more to spare{' in every seed' if len(runs) > 1 else ''}."


def _missed(comparison: Comparison, name: str) -> Iterator[str]:
    for tier, _ in _gaps(comparison, name):
        best = _best(comparison, tier)
        one = _some(comparison, name).tiers[tier]
        wanted, reached = one.percentile, percent(_mean(comparison, name, _attainment(tier)))
        words = f"{tier}: {reached} of requests within {_promise(one)}, {percent(wanted, 0)} promised"
        if len(comparison.runs) > 1 and best is not None:
            none = "; no strategy keeps it" if best[1] < wanted else ""
            here = "that is the best here" if best[0] == name else f"the best here, {best[0]}, has {percent(best[1])}"
            words += f"; {here}{none}"
        failing = _failing(comparison, name, tier)
        if 0 < len(failing) < len(_some(comparison, name).models):
            words += f"; it fails with {_models(failing)}"
        yield f"{words}."


def _promise(tier: TierSummary) -> str:
    what = "to the first token" if tier.promise == "ttft" else "to the last token"
    pace = "" if tier.itl_s is None else f" and {show_duration(round(tier.itl_s * SECOND))} a token"
    return f"{tier.within} {what}{pace}"


def _near(comparison: Comparison, name: str) -> Iterator[str]:
    missed = dict(_gaps(comparison, name))
    for tier, one in _some(comparison, name).tiers.items():
        found = [run.tiers[tier].attainment for run in comparison.runs[name].values() if tier in run.tiers]
        lowest = min((value for value in found if value is not None), default=None)
        if lowest is None or tier in missed or one.percentile >= 1 - _NEAR or lowest >= one.percentile + _NEAR:
            continue
        where = " in the worst seed" if len(found) > 1 else ""
        yield f"{tier}: kept with little to spare, {percent(lowest)}{where}, promised {percent(one.percentile, 0)}."


def _hidden(comparison: Comparison, name: str) -> Iterator[str]:
    """Promises that are kept over all models and missed by one."""
    missed = dict(_gaps(comparison, name))
    for tier, one in _some(comparison, name).tiers.items():
        failing = _failing(comparison, name, tier)
        if tier not in missed and failing:
            yield f"{tier}: kept over all models, but not by {_models(failing)}, promised {percent(one.percentile, 0)}."


def _failing(comparison: Comparison, name: str, tier: str) -> dict[str, float]:
    """Attainment of the models, mean over the seeds, that is below what was promised; the lowest first."""
    wanted = _some(comparison, name).tiers[tier].percentile
    found = {}
    for model in _some(comparison, name).models:
        mean = _mean(comparison, name, _of_model(model, tier))
        if mean is not None and mean < wanted:
            found[model] = mean
    return dict(sorted(found.items(), key=lambda each: each[1]))


def _of_model(model: str, tier: str) -> Value:
    return lambda run: run.models[model].tiers[tier].attainment if tier in run.models[model].tiers else None


def _models(found: dict[str, float]) -> str:
    return listed([f"{model} ({percent(reached)})" for model, reached in found.items()])


def _left_over(comparison: Comparison, name: str) -> Iterator[str]:
    left, total = _mean(comparison, name, owed) or 0.0, _needed(comparison, name)
    if left > _OWED * total:
        yield f"{gpu_hours(left)} GPU-hours of work were still to do when the window ended."
    for key, word in (("unfinished", "unfinished"), ("refused", "refused"), ("shed", "turned away and count as late")):
        number = sum(getattr(run.requests, key) for run in comparison.runs[name].values())
        if number:
            yield f"{count(number, 'request')} {'was' if number == 1 else 'were'} {word}."


def _thin(comparison: Comparison, name: str) -> Iterator[str]:
    """What the numbers stand on."""
    runs = comparison.runs[name]
    if any(run.partial for run in runs.values()):
        yield "Interrupted: the numbers are those until then."
    if len(comparison.runs) > 1 and len(runs) == 1:
        yield "One seed only: small differences may be chance."
    if len({tuple(sorted(seeds)) for seeds in comparison.runs.values()}) > 1:
        yield "The strategies were not played with the same seeds."


def _next_step(comparison: Comparison, name: str) -> str:
    if found := _limits(comparison, name):
        return f"{found}."
    if len(comparison.runs[name]) == 1:
        return "Give the same command with --seeds 1..5 to see what is chance."
    stuck = [tier for tier, _ in _gaps(comparison, name)]
    if stuck:
        return (
            f"{listed(stuck)}: try another order (--set order.kind=dpa), more room (--set fleet.minimum=N), or a later promise."
        )
    return f"Look at a day of it: add --strategy {name} --out DIR to simulate, then sageserve show DIR."


def _limits(comparison: Comparison, name: str) -> str:
    """What stood in the way in the run that missed most, or that its minimums set the cost; empty: neither."""
    runs = comparison.runs[name].values()
    worst = max(runs, key=lambda run: sum(one.missed for one in run.starved))
    return "; ".join(starved(worst)) or idle(worst)


def _why_not(comparison: Comparison, name: str, chosen: str, losses: dict[str, float]) -> str:
    if losses:
        tier, gap = max(losses.items(), key=lambda each: each[1])
        return f"{tier} is {points(gap)} below the best"
    ratio = _needed(comparison, name) / _needed(comparison, chosen) - 1 if _needed(comparison, chosen) else 0.0
    if abs(ratio) <= _TIE:
        return f"as many GPU-hours as {chosen}, and no better"
    return f"{change(ratio)} GPU-hours against {chosen}, for no more promises kept"


def _alone(comparison: Comparison, name: str) -> Verdict:
    runs = comparison.runs[name]
    waste = statistics.fmean(run.gpu_hours.waste / run.gpu_hours.total if run.gpu_hours.total else 0.0 for run in runs.values())
    floor = _mean(comparison, name, lambda run: run.gpu_hours.floor) or 0.0
    rival = "lt-ua" if name == comparison.base else comparison.base
    limits = f"{found}. " if (found := _limits(comparison, name)) else ""
    return Verdict(
        strategy=name,
        headline=f"{name} takes {_needs(comparison, name)}, and {_promises(comparison, name)}.",
        saves=f"{percent(waste, 1)} of the GPU-hours held is waste; minimum instances alone take {gpu_hours(floor)}."
        " To know what it saves, play another strategy beside it.",
        risks=tuple(_risks(comparison, name)),
        recommendation=f"{limits}Compare it on the same requests: the same command, with compare for simulate and"
        f" --strategies {name},{rival},oracle.",
        others={},
    )
