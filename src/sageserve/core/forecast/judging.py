"""What of a series can be judged, what the scores come to in a sentence, and which quantiles nobody should believe.

A backtest is only as good as its origins: the newest one always counts, and a history too short for an hourly origin every
hour is judged by what fits and says so. Knows no method and no file. Read next: `backtest.py`, `cli/forecast.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from sageserve.base.units import DAY, HOUR, MINUTE, Micros, show_duration
from sageserve.core.forecast.backtest import ROUNDING, Score, Span, origins
from sageserve.core.forecast.series import QuantileForecast, Series

JUDGED_SHARE: Final = 3  # the newest third of the series is judged, at most
JUDGED_DAYS: Final = 2
ORIGINS_LEAST: Final = 4  # fewer hourly origins than this, and every bin of the newest half is one
ORIGINS_FIRM: Final = 12  # fewer say little, and the reader is told
ORIGINS_SLOW: Final = 16  # where a forecaster takes seconds per origin: some 20 refits for its bands
PLANNED_AFTER: Final = 20 * MINUTE  # what a planner reads begins where an instance that starts now would serve
INCREDIBLE: Final = 10.0  # times the largest value seen, above which a quantile carries a note
ALIKE: Final = 0.02  # relative difference of two WAPEs that is none
NARROW: Final = 0.65  # coverage of an 80 % interval below which it is called too narrow,
JUDGED_LEAST: Final = 20  # if so many bins were judged


@dataclass(frozen=True, slots=True)
class JudgingPlan:
    """From where a series is forecast again, and what is judged of it.

    Args:
        at: bins known at each origin, ascending; none where the series is a single bin.
        spans: what is judged after each.
        notes: what a short history or a slow forecaster made of it, in sentences.
    """

    at: tuple[int, ...]
    spans: tuple[Span, ...]
    notes: tuple[str, ...]


def judging_plan(series: Series, ahead: Micros, *, slow: bool = False) -> JudgingPlan:
    """An origin an hour over the newest third of a series, two days at most, the last of them as late as can be judged.

    A horizon longer than half of the series is cut to that half. With fewer than ORIGINS_LEAST origins every bin of the
    newest half is one.

    Args:
        series: the whole series.
        ahead: how far is forecast, microseconds.
        slow: spread at most ORIGINS_SLOW origins over the same time.
    """
    n, long = len(series), show_duration(len(series) * series.bin)
    if n < 2:
        return JudgingPlan((), (), (f"one bin of {long} is all that is known: nothing can be judged",))
    asked, notes = -(-ahead // series.bin), []
    bins = min(asked, n // 2)
    last = n - bins
    judged = min(JUDGED_DAYS * DAY // series.bin, n // JUDGED_SHARE)
    at = origins(series, first=(n - judged) * series.bin, last=last * series.bin)
    if len(at) < ORIGINS_LEAST:
        at = origins(series, first=n // 2 * series.bin, last=last * series.bin, every=series.bin)
    if bins < asked:
        shown = show_duration(bins * series.bin)
        notes.append(f"{long} of history: judged {shown} ahead, because {show_duration(ahead)} is more than half of it")
    if len(at) < ORIGINS_FIRM:
        begins = "one origin" if len(at) == 1 else f"{len(at)} origins"
        notes.append(f"{long} of history: judged from {begins} only; a longer trace would say more")
    if n * series.bin < DAY:
        notes.append("less than a day of history: seasonal-naive has no day before and stands for the last value")
    if slow and len(at) > ORIGINS_SLOW:
        notes.append(f"judged from {ORIGINS_SLOW} of {len(at)} origins, because a forecaster needs seconds for each")
        at = [at[round(k)] for k in np.linspace(0, len(at) - 1, ORIGINS_SLOW)]
    return JudgingPlan(tuple(at), _spans(series.bin, bins * series.bin), tuple(notes))


def _spans(bin_us: Micros, ahead: Micros) -> tuple[Span, ...]:
    """What a planner reads, from PLANNED_AFTER to the horizon (a short one: all of it), and the next hour as one sum."""
    after = PLANNED_AFTER if ahead >= max(2 * PLANNED_AFTER, PLANNED_AFTER + bin_us) else 0
    spans = [Span(f"{show_duration(after)} to {show_duration(ahead)}" if after else f"next {show_duration(ahead)}", after, ahead)]
    if bin_us < HOUR <= ahead:
        spans.append(Span("next hour, summed", 0, HOUR, summed=True))
    return tuple(spans)


def verdict(scores: Mapping[str, Score], name: str, baselines: Sequence[str]) -> str:
    """Whether a forecaster is worth it, in a sentence.

    Args:
        scores: of one span by forecaster; empty where nothing could be judged.
        name: the forecaster.
        baselines: those it must beat, the name of one may be its own.
    """
    ours = scores.get(name)
    if ours is None or not ours.judged:
        return "nothing could be judged"
    rivals = {each: found for each in baselines if each != name and (found := scores[each].wape) is not None}
    if ours.wape is None or not rivals:
        expected = ", ".join(f"{each} {scores[each].missed:.3g}" for each in dict.fromkeys((name, *baselines)))
        return f"no demand in the judged bins, so no error is relative to it; expected in all were: {expected}"
    best = min(rivals, key=lambda each: rivals[each])
    return _compared(name, ours.wape, best, rivals[best]) + _covered(ours)


def _compared(name: str, ours: float, best: str, theirs: float) -> str:
    figures = f"({ours:.1%} against {theirs:.1%})"
    if min(ours, theirs) >= 1.0:
        return f"nothing forecasts this series: {name} and {best} miss by more than its demand {figures}"
    if max(ours, theirs) < ROUNDING:
        return f"{name} and {best} miss nothing"
    if abs(ours - theirs) <= ALIKE * max(ours, theirs):
        return f"{name} is no better than {best} {figures}"
    if ours < theirs:
        return f"{name} misses by {1 - ours / theirs:.0%} less than {best} {figures}"
    return f"{best} is better than {name} {figures}: use it"


def _covered(score: Score) -> str:
    if score.coverage is None:
        return "; it has no interval: too few errors are known"
    narrow = score.coverage < NARROW and score.judged >= JUDGED_LEAST
    return f"; its 80 % interval held {score.coverage:.0%}" + (", so it is too narrow here" if narrow else "")


def incredible(series: Series, coming: QuantileForecast) -> str | None:
    """A note on a highest quantile beyond INCREDIBLE times the largest value ever seen; None where there is none."""
    seen, top = float(np.nanmax(series.values)), float(coming.values.max(initial=0.0))
    if top <= INCREDIBLE * seen:
        return None
    times = f"{top / seen:,.0f} times" if seen > 0 else "far above"
    return (
        f"the {coming.levels[-1]:.0%} quantile reaches {top:,.4g}, {times} the largest value seen ({seen:,.4g}): "
        "do not plan by it; few errors are known, or a trend ends"
    )
