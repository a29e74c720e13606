"""Coefficients from per-request logs, with the simulator in the loop.

A request's times depend on everything that ran beside it, so each guess is played through the simulator and compared:

    error = mean |E2E error| + mean |TPOT error| + a tenth of the mean |TTFT error|, each at most 100 %
    cost  = error * (1 + PULL * sum of ln(coefficient / anchor)^2)

The anchor is what is known of the engine without timing it (a roofline). It decides what the data cannot tell, less the
better they fit, and nothing where they fit exactly. Every start goes down on ever more of the requests, because over a
long busy time a small error comes to change who waits for whom. Read next: `fit/descent.py`, `coefficients.py`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from sageserve.base.config import ProfileSettings
from sageserve.base.errors import MeasurementError
from sageserve.base.records import Bools, Floats, Ints
from sageserve.base.rng import stream
from sageserve.data.measured.runs import MeasuredRequests
from sageserve.sim.calibration.coefficients import FLAT, LEAST, NAMES, ONCE, STREAMED, TYPICAL, Anchor, Form, otherwise, shown
from sageserve.sim.calibration.fit.descent import Ground, Look, descend, farness
from sageserve.sim.calibration.fit.equations import Equations, Weights, Work, equations
from sageserve.sim.calibration.fit.first_values import first_costs
from sageserve.sim.calibration.fit.told import ALIKE, TOLD, spread
from sageserve.sim.calibration.search import smallest
from sageserve.sim.replay import Arrivals, Replayed, replay, replay_blocks

REQUESTS_LEAST: Final = 40  # in the fitted half, for eight unknowns
WEIGHTS: Final = Weights(e2e=1.0, tpot=1.0, ttft=0.1)  # first tokens are noisy at low load: a scheduler's step is as long
PULL: Final = 0.2  # a coefficient twice or half the anchor's costs as much as a tenth of the error
SHARES: Final = (0.2, 0.4, 0.7, 1.0)  # of the fitted requests, one descent after the other
LOOKS: Final = 31  # replays of one descent: the first, and three for each step
RESTARTS: Final = (0.1, 0.3, 0.03)  # logarithmic steps away from the best answer, in turn
LOOKS_ALL: Final = 800  # replays after which no start is begun; each is about two milliseconds for 300 requests
LOOKS_CLEAN: Final = 1500  # the same where the error is below
CLEAN: Final = 3e-3  # what no measured engine shows: the log is exact, and an error that is left is a wrong valley
CHECKS: Final = (0.1, 0.1, 0.03)  # steps away from an exact answer: it is known as well as others meet it again
POLISH: Final = 300  # replays of the last search, which sees the cost and no equations
POLISHES: Final = 4  # of them, with a descent after each,
POLISHED: Final = 0.9  # as long as the cost falls below this share
POLISH_SIZES: Final = (1e-6, 0.1)  # logarithmic: it looks around within what the data tell, but no closer and no farther
EXACT: Final = 2e-5  # an error that rounding makes: the answer is found, and other starts find the same
DIGITS: Final = (3, 4, 5, 6, 7, 8)  # significant ones that are tried for the answer; ever more, as long as the cost is higher
DIGITS_MOST: Final = 9
TOKEN_LEAST: Final = 100  # microseconds: no engine makes a request's tokens faster in the median,
TOKEN_MOST: Final = 5_000_000  # nor so slowly: times were written in another unit
VARIED_LEAST: Final = 0.1  # (p90 - p10) / median of TPOT, prompts or company: with less, nothing tells coefficients apart


@dataclass(frozen=True, slots=True)
class LogsFit:
    """Coefficients from requests.

    Args:
        profile: with the coefficients.
        values: float64[8], the coefficients in the order of NAMES.
        cost: of the fitted requests.
        evaluations: simulations that were played.
        range: what was covered, for people.
        spread: by coefficient, how far it may be off as a share of itself (three standard errors, or other answers as good).
    """

    profile: ProfileSettings
    values: Floats
    cost: float
    evaluations: int
    range: str
    spread: dict[str, float]

    @property
    def untold(self) -> tuple[str, ...]:
        """The coefficients that the requests do not tell."""
        return tuple(name for name, share in self.spread.items() if share > TOLD)

    @property
    def fitted(self) -> str:
        """What was fitted, and what it does not tell: what a profile says of itself."""
        return self.range + (f"; these do not tell {', '.join(self.untold)}" if self.untold else "")


def arrivals_of(requests: MeasuredRequests) -> Arrivals:
    """What arrived, without what became of it; an engine computes one token of a prompt at least."""
    cached = None if requests.cached is None else np.minimum(requests.cached, requests.prompt - 1)
    return Arrivals(requests.arrival, requests.prompt, requests.output, cached)


def fit_logs(
    requests: MeasuredRequests,
    blank: ProfileSettings,
    seen: Bools,
    *,
    starts: Sequence[Floats] = (),
    anchor: Anchor | None = None,
    progress: Callable[[int], None] | None = None,
) -> LogsFit:
    """Fit the requests of which `seen` is true; all of them are played, because the later ones stand in each other's way.

    Args:
        requests: the run.
        blank: a profile with the engine's limits.
        seen: bool[n], whose times the fit may look at.
        starts: coefficients to begin from, beside those read off the log; typical ones where there are none.
        anchor: what is known without timing; None: nothing.
        progress: told how many simulations were played.

    Raises:
        MeasurementError: too few requests, or all alike.
    """
    refuse(requests, seen)
    form = Form(blank, FLAT if anchor is None else anchor.growth)
    task = _Task(requests, form, seen, None if anchor is None else anchor.values, progress)
    first = first_costs(requests, seen)
    found = _search(task, [*(first.values(streamed) for streamed in STREAMED), *(starts or (TYPICAL,))])
    best = min(found, key=lambda look: look.cost)
    alike = [look.values for look in found if look.error < EXACT or look.cost < ALIKE * best.cost]
    for _ in range(POLISHES):
        before, best = best.cost, _polished(task, best)
        if best.error < EXACT or best.cost > POLISHED * before:
            break
    told = spread(task.equations(best.values), best.values, alike)
    return LogsFit(
        profile=_shortened(task, best),
        values=best.values,
        cost=best.cost,
        evaluations=task.played,
        range=covered(requests, seen),
        spread=dict(zip(NAMES, told.tolist(), strict=True)),
    )


def notes_on(fit: LogsFit, *, anchored: bool) -> tuple[str, ...]:
    """How well the requests tell the coefficients, in sentences.

    Args:
        fit: of requests.
        anchored: a roofline stood in for what they do not tell.
    """
    told = [f"{name} ±{max(share, 0.001):.1%}" for name, share in fit.spread.items() if name not in fit.untold]
    unsure = {name: fit.spread[name] for name in fit.untold}
    not_told = [f"{name} (±{share:.0%})" for name, share in unsure.items() if share < 1]
    not_told += [name for name, share in unsure.items() if share >= 1]
    instead = "the roofline of model and GPU stands in" if anchored else "name the model and the GPU, and a roofline stands in"
    found = [f"these requests tell {', '.join(told)}"] if told else []
    if not_told:
        would = "prompts of many lengths under little and much load would"
        found.append(f"these requests do not tell {', '.join(not_told)}: {instead}; {would}")
    return tuple(found)


class _Task:
    """One log and the engine's limits: what a search may ask. Counts what is played."""

    def __init__(
        self,
        requests: MeasuredRequests,
        form: Form,
        seen: Bools,
        anchor: Floats | None,
        progress: Callable[[int], None] | None,
    ) -> None:
        self.requests, self.form, self.seen, self.anchor, self.progress = requests, form, seen, anchor, progress
        self.played = 0
        self.whole = self._earliest(1.0)

    def ground(self, share: float) -> Ground:
        """The landscape of the earliest seen requests, REQUESTS_LEAST of them at least."""
        requests, seen = self._earliest(share)
        return Ground(lambda values: self._look(requests, seen, values), LEAST, TYPICAL, self.anchor, PULL)

    def _earliest(self, share: float) -> tuple[MeasuredRequests, Bools]:
        """Requests to play and which of them are seen; who arrives after the last of these has finished, changes nothing."""
        rows = np.flatnonzero(self.seen)
        last = rows[max(REQUESTS_LEAST, round(share * len(rows))) - 1]
        seen = self.seen & (np.arange(len(self.seen)) <= last)
        ended = int((self.requests.arrival + self.requests.e2e)[seen].max())
        kept = self.requests.arrival <= ended
        return self.requests.rows(kept), seen[kept]

    def _look(self, requests: MeasuredRequests, seen: Bools, values: Floats) -> Look:
        self._count()
        played, blocks = replay_blocks(self.form.profile(values), arrivals_of(requests))
        work = Work(values, blocks, self.form.slopes(blocks, values), ONCE)
        error = distance(requests, played, seen)
        return Look(values, self._cost(error, values), error, equations(requests, seen, played, work, WEIGHTS))

    def equations(self, values: Floats) -> Equations:
        """Of all that is seen, with slopes of what is hidden as if it showed."""
        self._count()
        requests, seen = self.whole
        played, blocks = replay_blocks(self.form.profile(values), arrivals_of(requests))
        work = Work(values, blocks, self.form.slopes(blocks, shown(values)), ONCE)
        return equations(requests, seen, played, work, WEIGHTS)[0]

    def cost(self, values: Floats, digits: int | None = None) -> float:
        """What coefficients cost on all that is seen."""
        self._count()
        requests, seen = self.whole
        error = distance(requests, replay(self.form.profile(values, digits), arrivals_of(requests)), seen)
        return self._cost(error, values)

    def _cost(self, error: float, values: Floats) -> float:
        return error * (1.0 + PULL * farness(values, self.anchor))

    def _count(self) -> None:
        self.played += 1
        if self.progress is not None:
            self.progress(self.played)


def _search(task: _Task, starts: Sequence[Floats]) -> list[Look]:
    """The answers of all starts, and of starts around the best of them while there are replays left."""
    found: list[Look] = []
    for start in _starts(starts, found):
        look = _descended(task, start)
        found.append(look)
        if look.error < EXACT:
            return [*found, *_met_again(task, look)]
        clean = min(one.error for one in found) < CLEAN
        if len(found) >= len(starts) and task.played >= (LOOKS_CLEAN if clean else LOOKS_ALL):
            return found
    return found


def _met_again(task: _Task, exact: Look) -> list[Look]:
    """Where descents end that begin some steps away from an exact answer: what nothing tells, stays where it began."""
    random, whole = stream(0, "calibration/checks"), task.ground(1.0)
    return [descend(whole, exact.values * np.exp(step * random.standard_normal(len(exact.values))), LOOKS) for step in CHECKS]


def _descended(task: _Task, start: Floats) -> Look:
    """Down from a start on ever more of the requests."""
    *earlier, whole = SHARES
    for share in earlier:
        start = descend(task.ground(share), start, LOOKS).values
    return descend(task.ground(whole), start, LOOKS)


def _starts(given: Sequence[Floats], found: Sequence[Look]) -> Iterator[Floats]:
    """Those given, then without end the best found by then, read otherwise and some steps away."""
    yield from given
    random = stream(0, "calibration/starts")
    while True:
        yield from otherwise(min(found, key=lambda look: look.cost).values)
        for step in RESTARTS:
            best = min(found, key=lambda look: look.cost)
            yield best.values * np.exp(step * random.standard_normal(len(best.values)))


def _polished(task: _Task, best: Look) -> Look:
    """The least cost around an answer, looked at: a descent ends where its equations do, a little beside it."""
    size = np.clip(spread(best.ways[0], best.values), *POLISH_SIZES)

    def cost(logs: Floats) -> float:
        return task.cost(np.maximum(np.exp(logs), LEAST))

    found, least = smallest(cost, np.log(best.values), size, evaluations=POLISH)
    whole = task.ground(1.0)
    if least >= best.cost:
        return best
    again = descend(whole, np.maximum(np.exp(found), LEAST), LOOKS)
    return min(best, again, key=lambda look: look.cost)


def _shortened(task: _Task, best: Look) -> ProfileSettings:
    """The profile with as few digits as cost nothing."""
    least = task.cost(best.values)
    digits = next((digits for digits in DIGITS if task.cost(best.values, digits) <= least), DIGITS_MOST)
    return task.form.profile(best.values, digits)


def refuse(requests: MeasuredRequests, seen: Bools) -> None:
    """Refuse requests that cannot support a fit.

    Raises:
        MeasurementError: too few, only single tokens, in another unit, or all alike; says which.
    """
    count = int(seen.sum())
    advice = "log some hundred requests while the load goes up and down"
    if count < REQUESTS_LEAST:
        raise MeasurementError(f"{count} requests are to be fitted; {REQUESTS_LEAST} are the least", hint=advice)
    several = seen & (requests.output > 1)
    if int(several.sum()) < REQUESTS_LEAST:
        raise MeasurementError("nearly all answers have one token: nothing is known of decoding", hint=advice)
    token = float(np.median(requests.tpot[several]))
    if not TOKEN_LEAST <= token <= TOKEN_MOST:
        pace, unit = ("fast", "seconds") if token < TOKEN_LEAST else ("slow", "microseconds")
        raise MeasurementError(
            f"a token takes {token / 1e3:,.4g} ms in the median: no engine is so {pace}",
            hint=f"ttft_ms and e2e_ms are milliseconds; were {unit} written there?",
        )
    if max(_varied(requests.tpot[several]), _varied(requests.prompt[seen])) < VARIED_LEAST:
        raise MeasurementError(
            "prompts are equally long and TPOT is the same throughout: nothing tells the coefficients apart",
            hint=advice,
        )


def distance(requests: MeasuredRequests, played: Replayed, seen: Bools) -> float:
    """The error of a replay: what a fit makes small, without the anchor's part."""
    several = seen & (requests.output > 1)
    return (
        WEIGHTS.e2e * _error(played.e2e, requests.e2e, seen)
        + WEIGHTS.tpot * _error(played.tpot, requests.tpot, several)
        + WEIGHTS.ttft * _error(played.ttft, requests.ttft, seen)
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


def _varied(values: Ints) -> float:
    low, middle, high = np.percentile(values, (10, 50, 90))
    return float((high - low) / max(middle, 1.0))
