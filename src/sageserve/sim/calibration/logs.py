"""Coefficients from per-request logs, with the simulator in the loop.

A request's times depend on everything that ran beside it, so each guess is played through the simulator and compared:

    cost = mean |E2E error| + mean |TPOT error| + half the mean |TTFT error|, each at most 100 %
         + a little for every coefficient's distance from the anchor

The anchor is what is known of the engine without timing it (a roofline). A run at one load cannot tell base from KV
cost; there the anchor decides, elsewhere the data do. Read next: `search.py`, `validation.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from sageserve.base.config import ProfileSettings
from sageserve.base.errors import MeasurementError
from sageserve.base.records import Bools, Floats, Ints
from sageserve.data.measured.runs import MeasuredRequests
from sageserve.sim.calibration.coefficients import FLAT, LEAST, Anchor, with_values
from sageserve.sim.calibration.search import smallest
from sageserve.sim.replay import Arrivals, Replayed, replay

EVALUATIONS: Final = 1500  # of about a millisecond: where engines preempt, the cost is rough and 300 end in a poor valley
REQUESTS_LEAST: Final = 40  # in the fitted half, for eight unknowns
TTFT_WEIGHT: Final = 0.5  # first tokens are noisy at low load: a scheduler's step is as long as they are
ANCHOR_WEIGHT: Final = 0.02  # a coefficient twice or half the anchor's costs as much as 1 % of E2E
ENTRY_MS: Final = 10.0  # where the search for first_token_ms begins: half an iteration of a small model
VARIED_LEAST: Final = 0.1  # (p90 - p10) / median of TPOT, prompts or company: with less, nothing tells coefficients apart


@dataclass(frozen=True, slots=True)
class LogsFit:
    """Coefficients from requests.

    Args:
        profile: with the coefficients.
        cost: of the fitted requests.
        evaluations: simulations that were played.
        range: what was covered, for people.
    """

    profile: ProfileSettings
    cost: float
    evaluations: int
    range: str


def arrivals_of(requests: MeasuredRequests) -> Arrivals:
    """What arrived, without what became of it."""
    cached = None if requests.cached is None else np.minimum(requests.cached, requests.prompt - 1)  # the last token is computed
    return Arrivals(requests.arrival, requests.prompt, requests.output, cached)


def fit_logs(
    requests: MeasuredRequests,
    blank: ProfileSettings,
    seen: Bools,
    *,
    starts: tuple[Floats, ...],
    anchor: Anchor | None = None,
    progress: Callable[[int], None] | None = None,
) -> LogsFit:
    """Fit the requests of which `seen` is true; all of them are played, because the later ones stand in each other's way.

    Args:
        requests: the run.
        blank: a profile with the engine's limits.
        seen: bool[n], whose times the fit may look at.
        starts: coefficients to begin from, float64[8] each, one or more; the best of them is refined.
        anchor: what is known without timing; None: nothing.
        progress: told how many simulations were played.

    Raises:
        MeasurementError: too few requests, or all alike.
    """
    refuse(requests, seen)
    arrivals, asked = arrivals_of(requests), 0
    centre = None if anchor is None else _logs(anchor.values)
    growth = FLAT if anchor is None else anchor.growth

    def cost(point: Floats) -> float:
        nonlocal asked
        asked += 1
        if progress is not None:
            progress(asked)
        played = replay(with_values(blank, np.exp(point), growth), arrivals)
        far = 0.0 if centre is None else ANCHOR_WEIGHT * float(((point - centre) ** 2).sum())
        return distance(requests, played, seen) + far

    points = [_logs(start) for start in starts]
    best = min(points, key=cost)
    found, least, _ = smallest(cost, best, evaluations=EVALUATIONS)
    return LogsFit(with_values(blank, np.exp(found), growth), least, asked, covered(requests, seen))


def refuse(requests: MeasuredRequests, seen: Bools) -> None:
    """Refuse requests that cannot support a fit.

    Raises:
        MeasurementError: too few, only single tokens, or all alike; says which.
    """
    count = int(seen.sum())
    advice = "log some hundred requests while the load goes up and down"
    if count < REQUESTS_LEAST:
        raise MeasurementError(f"{count} requests are to be fitted; {REQUESTS_LEAST} are the least", hint=advice)
    several = seen & (requests.output > 1)
    if int(several.sum()) < REQUESTS_LEAST:
        raise MeasurementError("nearly all answers have one token: nothing is known of decoding", hint=advice)
    if max(_spread(requests.tpot[several]), _spread(requests.prompt[seen])) < VARIED_LEAST:
        raise MeasurementError(
            "prompts are equally long and TPOT is the same throughout: nothing tells the coefficients apart",
            hint=advice,
        )


def distance(requests: MeasuredRequests, played: Replayed, seen: Bools) -> float:
    """The cost of a replay, without the anchor's part."""
    several = seen & (requests.output > 1)
    return (
        _error(played.e2e, requests.e2e, seen)
        + _error(played.tpot, requests.tpot, several)
        + TTFT_WEIGHT * _error(played.ttft, requests.ttft, seen)
    )


def covered(requests: MeasuredRequests, seen: Bools) -> str:
    """The range of what was fitted, for people."""
    some = requests.rows(seen)
    span = max(float(some.arrival[-1] - some.arrival[0]), 1.0) / 1e6
    return (
        f"{len(some)} requests at {len(some) / span:.3g}/s, prompts {some.prompt.min()}-{some.prompt.max()} tokens, "
        f"outputs {some.output.min()}-{some.output.max()}"
    )


def _error(ours: Ints, theirs: Ints, chosen: Bools) -> float:
    relative = np.abs(ours[chosen] - theirs[chosen]) / np.maximum(theirs[chosen], 1)
    return float(np.minimum(relative, 1.0).mean())


def _spread(values: Ints) -> float:
    low, middle, high = np.percentile(values, (10, 50, 90))
    return float((high - low) / max(middle, 1.0))


def _logs(values: Floats) -> Floats:
    """Logarithms of coefficients; first_token_ms of 0 begins at ENTRY_MS, others at their least."""
    begun = values.copy()
    begun[-1] = begun[-1] or ENTRY_MS
    return np.log(np.maximum(begun, LEAST))
