"""The answer of a backtest: checks first, then its error, then what each policy came to and whether that is more than noise.

    answer.checks.profile.state    # "ok", or nothing below it may be believed
    answer.json()                  # {"checks": …, "error": …, "policies": {name: summary}}

Judges; plays nothing. Read next: `replayed.py`, `own_error.py`; docs/how-to/backtest.md.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
from msgspec import Struct

from sageserve.base.records import Trace
from sageserve.data.rebuild.demand import DemandStream
from sageserve.data.rebuild.recount import recount
from sageserve.data.results.comparison import Bound, Comparison, needed
from sageserve.sim.backtest.own_error import RHO, SIGMAS, PolicyError
from sageserve.sim.backtest.replayed import MEASURES, ProfileCheck, as_numbers


class AnswerCheck(Struct, frozen=True):
    """One check: what it came to, and what to do."""

    state: Literal["ok", "wrong", "unknown"]
    said: str
    next: str = ""


class AnswerChecks(Struct, frozen=True):
    """All of them, in the order in which they are to be read.

    Args:
        profile: `recorded`, replayed, looks as the history did.
        counters: made requests, counted again, give the counters of the history.
        lengths: how long requests are was recorded by histograms, not as means alone.
        hours: of the profile's check.
    """

    profile: AnswerCheck
    counters: AnswerCheck
    lengths: AnswerCheck
    hours: ProfileCheck


class Saving(Struct, frozen=True):
    """A policy against the base, in GPU-hours with what is owed.

    Args:
        gpu_hours: relative: -0.1 is a tenth less; mean over the seeds.
        spread: standard deviation over the seeds; None for a single one.
        error: of the reconstruction; None: it was not measured.
        noise: the difference is within the error or the spread; None: it is not within the spread, and the error is not known.
    """

    gpu_hours: float
    spread: float | None
    error: float | None
    noise: bool | None


@dataclass(frozen=True, slots=True)
class BacktestAnswer:
    """Everything.

    Args:
        checks: whether it may be believed.
        errors: by policy; empty: it was not measured.
        comparison: summaries by policy and seed.
        bounds: the oracle's by seed.
        base: the policy that savings are counted from.
        notes: what the reader should know, in sentences.
    """

    checks: AnswerChecks
    errors: Mapping[str, PolicyError]
    comparison: Comparison
    bounds: Mapping[int, Bound]
    base: str
    notes: tuple[str, ...] = ()

    def savings(self) -> dict[str, Saving]:
        """Every policy but the base, against it."""
        runs = self.comparison.runs
        if self.base not in runs:
            return {}
        found = {}
        for name, seeds in runs.items():
            if name == self.base:
                continue
            each = [needed(run) / needed(runs[self.base][seed]) - 1.0 for seed, run in seeds.items() if seed in runs[self.base]]
            if not each:
                continue
            spread = statistics.stdev(each) if len(each) > 1 else None
            error = self.errors[name].saving if name in self.errors else None
            mean = statistics.fmean(each)
            found[name] = Saving(mean, spread, error, _is_noise(mean, spread, error))
        return found

    def error_sentence(self) -> str:
        """The error, and what it covers."""
        if not self.errors:
            return "The error of making requests of counters was not measured."
        hours = max(abs(one.gpu_hours) for one in self.errors.values())
        points = max((abs(value) for one in self.errors.values() for value in one.promise_points.values()), default=0.0)
        return (
            f"Making requests of counters puts GPU-hours off by up to {hours:.1%} and promises by up to {points:.1f} points: "
            "measured by playing made requests, recording that as this history was, making requests of it again and playing "
            "these. "
            "Counters cannot show which prompt has which answer, only whether both are longer in the same windows, nor where in "
            "a bucket lengths lie; the error is the largest of those for lengths as they were made, for rank correlations of "
            f"{RHO:g} and {-RHO:g}, and for lengths nearer to the ends and to the middle of their buckets, and twice the spread "
            "over the seeds on top."
        )

    def warnings(self) -> Iterator[str]:
        """What must be read before any figure."""
        for check in (self.checks.profile, self.checks.lengths, self.checks.counters):
            if check.state == "wrong":
                yield f"{check.said} {check.next}".strip()

    def json(self, left: Sequence[str] = ()) -> bytes:
        """For machines; with several seeds, `seeds` in a policy has each one's summary."""
        checks = msgspec.to_builtins(self.checks)
        hours = checks.pop("hours")
        checks["profile"] |= {"within": hours["within"], "apart": hours["apart"], "hours": hours["hours"]}
        policies = {}
        for name, seeds in self.comparison.runs.items():
            each = {str(seed): msgspec.to_builtins(run) for seed, run in seeds.items()}
            policies[name] = dict(next(iter(each.values()))) | ({"seeds": each} if len(each) > 1 else {})
        value: dict[str, object] = {
            "checks": checks,
            "error": {
                "said": self.error_sentence(),
                "rho": RHO,
                "policies": {name: msgspec.to_builtins(one) for name, one in self.errors.items()},
                "against": self.base,
                "savings": {name: msgspec.to_builtins(one) for name, one in self.savings().items()},
            },
            "policies": policies,
            "notes": list(self.notes),
        }
        if self.bounds:
            value["oracle"] = msgspec.to_builtins(next(iter(self.bounds.values())))
        if left:
            value["unfinished"] = list(left)
        return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def _is_noise(mean: float, spread: float | None, error: float | None) -> bool | None:
    if abs(mean) <= max(error or 0.0, SIGMAS * (spread or 0.0)):
        return True
    return None if error is None else False


def profile_check(found: ProfileCheck, calibrate: str) -> AnswerCheck:
    """The words of the check that comes first.

    Args:
        found: hour by hour.
        calibrate: the command that measures a profile on the same history.
    """
    if found.state == "unknown":
        return AnswerCheck(
            "unknown",
            "The profile could not be checked: no hour of the history but its first has enough requests in a TTFT histogram.",
            "Scrape the engines' histograms, or validate the profile on a measured run.",
        )
    apart = ", ".join(as_numbers(found.apart))
    shares = [found.within[measure] for measure in MEASURES]
    least = min(share for share in shares if share is not None)
    if found.state == "ok":
        return AnswerCheck(
            "ok", f"Replayed, the fleet looks as it was measured: {least:.0%} of the hours within 15 % (medians: {apart})."
        )
    return AnswerCheck(
        "wrong",
        f"The engine profile does not fit this fleet: what it did, replayed, is within 15 % of what was measured in only "
        f"{least:.0%} of the hours (medians: {apart}). Figures below are those of another fleet.",
        f"Measure a profile on this history: {calibrate}",
    )


def counters_check(made: Trace, streams: Sequence[DemandStream]) -> AnswerCheck:
    """Made requests, counted again, must give the arrivals of the history."""
    apart = 0.0
    for before, after in zip(streams, recount(made, streams), strict=True):
        apart = max(apart, float(np.abs(before.filled() - after.arrivals).max()))
    if apart <= 1.0:  # whole requests: what is left over is carried
        return AnswerCheck("ok", "Made requests, counted again, give the counters of the history in every interval.")
    return AnswerCheck(
        "wrong", f"Made requests, counted again, differ from the history by up to {apart:.0f} requests in an interval."
    )


def lengths_check(lengths: Literal["histograms", "means"]) -> AnswerCheck:
    """Mean lengths alone hide what breaks promises."""
    if lengths == "histograms":
        return AnswerCheck("ok", "How long requests are is known by histograms.")
    return AnswerCheck(
        "wrong",
        "Only mean lengths were recorded, so every request has the same: queues look shorter than they were, and promises safer.",
        "Scrape the histograms of prompt and answer lengths.",
    )
