"""Settings of a rule chosen on the past: what is tried, and which of it is taken.

A threshold, an HPA or a KEDA has no default that fits every fleet; whoever compares with one must tune it first, and on traffic
that the comparison does not judge. The choice is the cheapest of those that keep the promises, else of those that come nearest.
Plays nothing. Read next: `cell.py`, `run.py`, docs/reference/strategies.md.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sageserve.data.results.comparison import needed
from sageserve.data.results.summary import Summary

NEAR: Final = 0.001
"""Of the requests of a tier: promises that differ by less are kept as well, and the cheaper one is taken."""

_MARKS: Final = ((0.5, 0.2), (0.5, 0.35), (0.6, 0.3), (0.6, 0.45), (0.7, 0.3), (0.7, 0.5), (0.75, 0.6), (0.8, 0.4), (0.8, 0.65))
_FULLER: Final = ((0.9, 0.5), (0.9, 0.75))
_TARGETS: Final[Mapping[str, tuple[float, ...]]] = {  # what engines export, per instance
    "kv": (0.1, 0.3, 0.5, 0.7, 0.9),
    "requests": (2, 4, 8, 16, 32, 64),
    "waiting": (0.5, 1, 2, 5),
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """Settings that are tried.

    Args:
        name: for people: `high 0.75, low 0.6`.
        changes: `key=value` of the scenario, as `--set` takes them.
    """

    name: str
    changes: tuple[str, ...]


def _thresholds(place: str) -> tuple[Candidate, ...]:
    return tuple(
        Candidate(f"high {high:g}, low {low:g}", (f"strategy.{place}.high={high:g}", f"strategy.{place}.low={low:g}"))
        for high, low in (*_MARKS, *_FULLER)
    )


def _metrics(place: str, kind: str) -> tuple[Candidate, ...]:
    return tuple(
        Candidate(
            f"{signal} {target:g}",
            (f"strategy.{place}.metrics=[{{signal: {signal}, target: {target:g}, kind: {kind}}}]",),
        )
        for signal, targets in _TARGETS.items()
        for target in targets
    )


CANDIDATES: Final[Mapping[str, tuple[Candidate, ...]]] = {
    "reactive": _thresholds("reactive"),
    "reactive-tuned": _thresholds("tuned"),
    "hpa": _metrics("hpa", "pods"),
    "keda": _metrics("keda", "external"),
}
"""What is tried, by strategy."""


@dataclass(frozen=True, slots=True)
class Trial:
    """How a candidate did.

    Args:
        candidate: what was tried.
        gpu_hours: held, and those of the work left at the end; mean over seeds.
        attainment: share of requests in time by tier, mean over seeds; a tier without requests is not in it.
        shortfall: the most that any tier's share is below its percentile; 0 when all promises are kept.
    """

    candidate: Candidate
    gpu_hours: float
    attainment: Mapping[str, float]
    shortfall: float


def judge(candidate: Candidate, summaries: Sequence[Summary]) -> Trial:
    """A trial from what was played with a candidate, a summary for every seed; at least one."""
    tiers = summaries[0].tiers
    attainment = {
        tier: statistics.fmean(found)
        for tier in tiers
        if (found := [share for one in summaries if (share := one.tiers[tier].attainment) is not None])
    }
    short = max((tiers[tier].percentile - share for tier, share in attainment.items()), default=0.0)
    return Trial(candidate, statistics.fmean(map(needed, summaries)), attainment, max(short, 0.0))


def choose(trials: Sequence[Trial]) -> Trial:
    """The cheapest of those that fall short by no more than `NEAR` beyond the least shortfall; the first of equals."""
    least = min(trial.shortfall for trial in trials)
    return min((trial for trial in trials if trial.shortfall <= least + NEAR), key=lambda trial: trial.gpu_hours)
