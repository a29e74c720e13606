"""The frontier: each strategy's one knob turned, what that costs and keeps, and who is cheaper for as much kept.

A strategy is a curve and not a point: whoever compares one setting of each compares their authors' taste. Where the curves lie is
the answer, and the cost at *matched* attainment the number to quote. Plays nothing. Read next: `tuning.py` for the choice on
the past, `cell.py`, docs/reference/strategies.md.
"""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Final

from sageserve.base.config import Scenario
from sageserve.core.strategies.fixed import PREFIX
from sageserve.data.results.comparison import Bound, BoundPoint, FrontierPoint, Match, Spread, kept_of, needed, over, spread
from sageserve.data.results.summary import Summary
from sageserve.sim.sweep.tuning import NEAR, Candidate

CHEAPER: Final = 0.01
"""Of the GPU-hours: what is cheaper by less is not called cheaper."""

_MARKS: Final = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_TIMES: Final = (0.25, 0.5, 1.0, 2.0, 4.0)
_COUNTS: Final = (0.6, 0.8, 1.0, 1.25, 1.5)
_WORTHS: Final = (0.03, 0.1, 0.3, 0.6, 1.0, 3.0, 10.0)
_FIXED: Final = (0.003, 0.01, 0.03, 0.1, 0.6, 2.0, 10.0)
_THETAS: Final = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


def knob_of(scenario: Scenario) -> tuple[Candidate, ...]:
    """The settings of its strategy's one knob; one candidate without changes where a strategy has none.

    A rule of thresholds has its upper mark, the lower in proportion; an autoscaler its targets; a planner what a request in time
    is worth; a constant fleet its count.
    """
    rules, name = scenario.strategy, scenario.strategy.name
    match name:
        case "reactive" | "siloed":
            own = rules.reactive if name == "reactive" else rules.siloed
            return _marks(name, own.low / own.high)
        case "reactive-tuned":
            return _marks("tuned", rules.tuned.low / rules.tuned.high)
        case "hpa" | "keda":
            return tuple(_targets(name, rules.hpa.metrics if name == "hpa" else rules.keda.metrics, times) for times in _TIMES)
        case "lt-i" | "lt-u" | "lt-ua":
            return _numbers("worth", "strategy.planned.worth", _WORTHS)
        case "foresight":
            fixed = _numbers("worth", "strategy.foresight.worth", _FIXED)
            still = tuple(Candidate(one.name, (*one.changes, "strategy.foresight.driven=false")) for one in fixed)
            return (Candidate("driven by promises", ()), *still)
        case "chiron":
            return _numbers("theta", "strategy.chiron.theta", _THETAS)
        case _ if name.startswith(PREFIX):
            count = int(name.removeprefix(PREFIX))
            counts = dict.fromkeys(max(round(count * times), 1) for times in _COUNTS)
            return tuple(Candidate(f"{one} instances", (f"strategy.name={PREFIX}{one}",)) for one in counts)
        case _:
            return (Candidate("as it is", ()),)


def _numbers(word: str, key: str, values: Iterable[float]) -> tuple[Candidate, ...]:
    return tuple(Candidate(f"{word} {value:g}", (f"{key}={value:g}",)) for value in values)


def _marks(place: str, lower: float) -> tuple[Candidate, ...]:
    return tuple(
        Candidate(f"high {high:g}", (f"strategy.{place}.high={high:g}", f"strategy.{place}.low={high * lower:.4g}"))
        for high in _MARKS
    )


def _targets(place: str, metrics: Iterable[object], times: float) -> Candidate:
    texts, words = [], []
    for metric in metrics:
        signal, target, kind = (getattr(metric, name) for name in ("signal", "target", "kind"))
        texts.append(f"{{signal: {signal}, target: {target * times:.4g}, kind: {kind}}}")
        words.append(f"{signal} {target * times:.4g}")
    return Candidate(", ".join(words), (f"strategy.{place}.metrics=[{', '.join(texts)}]",))


def point_of(candidate: Candidate, summaries: Mapping[int, Summary], bounds: Mapping[int, Bound] | None = None) -> FrontierPoint:
    """A point from what was played with a candidate, by seed; at least one.

    Args:
        candidate: the setting.
        summaries: what was played with it, by seed.
        bounds: what nobody can go below, by seed.
    """
    by_seed = {seed: (needed(run), kept_of(run)) for seed, run in summaries.items()}
    times = spread(over(cost, bounds[seed].at(shares)) for seed, (cost, shares) in by_seed.items() if bounds and seed in bounds)
    names = dict.fromkeys(name for _, shares in by_seed.values() for name in shares)
    hours = _spread(hours for hours, _ in by_seed.values())
    shares = {name: _spread(found[name] for _, found in by_seed.values() if name in found) for name in names}
    deviations = {"gpu_hours_with_owed": hours.deviation, **{name: share.deviation for name, share in shares.items()}}
    known = {name: deviation for name, deviation in deviations.items() if deviation is not None}
    means = {name: share.mean for name, share in shares.items()}
    return FrontierPoint(candidate.name, hours.mean, means, known or None, by_seed, None if times is None else times.mean)


def bound_curve(bounds: Iterable[Bound]) -> dict[str, tuple[BoundPoint, ...]]:
    """The least for shares kept of each tier that has requests, mean over seeds, up to what every seed can have."""
    seeds, found = list(bounds), {}
    for tier in seeds[0].requests if seeds else ():
        if all(one.requests[tier] for one in seeds):
            most = min(one.most(tier) for one in seeds)
            shares = sorted({share for one in seeds for share, _ in one.curve(tier) if share <= most})
            found[tier] = tuple(
                BoundPoint(share, statistics.fmean(one.at({**one.promised, tier: share}) for one in seeds)) for share in shares
            )
    return found


def _spread(values: Iterable[float]) -> Spread:
    found = spread(values)
    assert found is not None
    return found


def beaten_by(strategy: str, point: FrontierPoint, frontier: Mapping[str, Sequence[FrontierPoint]]) -> str | None:
    """Another strategy that is more than 1 % cheaper and in no tier keeps 0.1 point less, with every seed; None: nobody's."""
    for other, points in frontier.items():
        if other != strategy and any(_beats(one, point) for one in points):
            return other
    return None


def _beats(one: FrontierPoint, other: FrontierPoint) -> bool:
    def in_seed(seed: int) -> bool:
        (hours, kept), (dear, asked) = one.by_seed[seed], other.by_seed[seed]
        return hours < (1 - CHEAPER) * dear and all(kept.get(tier, 0.0) >= share - NEAR for tier, share in asked.items())

    seeds = one.by_seed.keys() & other.by_seed.keys()
    return bool(seeds) and all(map(in_seed, seeds))


def matched(
    frontier: Mapping[str, Sequence[FrontierPoint]], promises: Mapping[str, float], bounds: Iterable[Bound] = ()
) -> Match | None:
    """The cost of each strategy for as much kept of the tightest tier: what is promised, or the most that half of them can keep.

    Args:
        frontier: points by strategy.
        promises: percentiles by tier, the tightest first. Points that break the promise of another tier, which some point of
            some strategy keeps, are left out.
        bounds: what nobody can go below, of each seed.

    Returns:
        None where there is nothing to compare.
    """
    tier = next(iter(promises), None)
    reachable = [
        name
        for name, share in promises.items()
        if any(point.kept.get(name, 0.0) >= share for points in frontier.values() for point in points)
    ]

    def honest(point: FrontierPoint) -> bool:
        return all(name == tier or point.kept.get(name, 1.0) >= promises[name] - NEAR for name in reachable)

    def shown(point: FrontierPoint) -> float:
        return point.kept.get(tier or "", 0.0)

    curves = {name: [one for one in points if honest(one)] for name, points in frontier.items()}
    most = [max(map(shown, points)) for points in curves.values() if points]
    if tier is None or len(most) < 2:
        return None
    share = min(promises[tier], statistics.median_low(most))
    others = {name: promises[name] - NEAR for name in reachable}
    least = spread(one.at({**others, tier: share}) for one in bounds)
    costs = {name: cost_at(points, shown, share) for name, points in curves.items()}
    return Match(tier, share, costs, None if least is None else least.mean)


def cost_at(points: Sequence[FrontierPoint], kept: Callable[[FrontierPoint], float], share: float) -> float | None:
    """Least GPU-hours with owed work for a share kept, on straight lines between neighbours that cost more for more."""
    best: list[FrontierPoint] = []
    for point in sorted(points, key=lambda one: (one.gpu_hours_with_owed, -kept(one))):
        if not best or kept(point) > kept(best[-1]):
            best.append(point)
    if not best or kept(best[-1]) < share:
        return None
    for one, other in pairwise(best):
        if kept(one) < share <= kept(other):
            part = (share - kept(one)) / (kept(other) - kept(one))
            return statistics.fmean((one.gpu_hours_with_owed, other.gpu_hours_with_owed), (1 - part, part))
    return best[0].gpu_hours_with_owed
