"""What stood in the way of a run, in sentences: minima that set its cost, maxima and stocks that made it miss promises.

Pure: from a summary to sentences; what is told was found in `sim/results/starved.py`. Read next: `verdict.py`.
"""

from typing import Final

from msgspec import UNSET

from sageserve.core.actions import RolloutStep, RolloutWhy
from sageserve.data.results.summary import RolloutSummary, Starved, Summary
from sageserve.show.format import count, gpu_hours
from sageserve.show.rolls import STEPS, WHY

AT_FLOOR: Final = 1.05  # times what minima hold: what is held beyond is no more than a guard
IDLE: Final = 0.5  # of engine time: a constant fleet that is sized is busier at its peak, and no fleet is idle above it
_MOST: Final = 3  # times that are told of a run


def idle(summary: Summary) -> str:
    """That the minima and not the load set the cost; empty where they do not."""
    held, unused = summary.gpu_hours, summary.gpu_hours.idle
    if unused is None or not held.serving or not held.floor or held.total > AT_FLOOR * held.floor:
        return ""
    share = unused / held.serving
    if share < 1.0 - IDLE:
        return ""
    return f"{int(share * 100)}% idle: your minimums set the cost; work took {gpu_hours(held.serving - unused)} GPU-hours"


def starved(summary: Summary) -> list[str]:
    """The times in which most was missed because nothing could grow, a sentence each, in order of time."""
    most = sorted(summary.starved, key=lambda one: -one.missed)[:_MOST]
    return [_starved(one, _keeps(summary, one.model)) for one in sorted(most, key=lambda one: (one.begins_s, one.model))]


def rolled_out(summary: Summary) -> list[str]:
    """What became of rollouts, a sentence each."""
    return [] if summary.rollouts is UNSET else [_rolled_out(one) for one in summary.rollouts]


def _rolled_out(one: RolloutSummary) -> str:
    if one.begun_s is None:
        return f"{one.model}: not begun"
    went = f"until {clock(one.ended_s)}" if one.ended_s is not None else "and not over"
    more = "" if one.missed_more is None else f", {count(one.missed_more, 'promise')} broken more than by the old one"
    return (
        f"{one.model} from {clock(one.begun_s)} {went}, {STEPS[RolloutStep(one.step)]}: {WHY[RolloutWhy(one.why)]};"
        f" the new version was asked {count(one.new.requests, 'request')}{more};"
        f" {gpu_hours(one.surplus_gpu_hours)} GPU-hours beyond what was wanted"
    )


def _keeps(summary: Summary, model: str) -> str:
    """What enough instances of a model would do: keep its promises, or as much of them as idle engines can."""
    tiers = summary.models[model].tiers.items() if model in summary.models else ()
    beyond = any(one.possible is not None and one.possible < summary.tiers[name].percentile for name, one in tiers)
    return "keep what idle engines can" if beyond else "keep it"


def _starved(one: Starved, keeps: str) -> str:
    where = f"in {one.regions[0]}" if len(one.regions) == 1 else "in all regions" if len(one.regions) > 2 else "in both regions"
    what = "is at its maximum" if one.limit == "maximum" else "finds no GPUs left"
    return (
        f"{one.model} {what} {where} {clock(one.begins_s)}–{clock(one.ends_s)} and misses {count(one.missed, 'request')};"
        f" about {one.more:,} more than its {one.held:,} would {keeps}"
    )


def clock(seconds: float) -> str:
    """Hours and minutes since the start of the window: 09:10, 3d 09:10."""
    days, rest = divmod(round(seconds) // 60, 24 * 60)
    return f"{f'{days}d ' if days else ''}{rest // 60:02d}:{rest % 60:02d}"
