"""What each part of foresight is worth: the same strategy without it, against its own frontier.

A variant keeps another share of the promises than the whole, so its cost alone says nothing. What the whole needs for as much
kept is read off the frontier of the whole, and the difference is what the part is worth. Plays nothing. Read next: `frontier.py`.
"""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from sageserve.data.results.comparison import FrontierPoint
from sageserve.sim.sweep.frontier import cost_at
from sageserve.sim.sweep.tuning import Candidate

WHOLE: Final = "foresight"
PROMISES: Final = "promises"
PARTS: Final = (
    Candidate("forecast", ("strategy.foresight.forecaster=last-value",)),
    Candidate("response curve", ("strategy.foresight.curve=flat",)),
    Candidate("learning", ("strategy.foresight.curve=guessed",)),
    Candidate("batch placement", ("strategy.foresight.ready=24h",)),
    Candidate("guard", ("strategy.foresight.guard=1",)),
    Candidate("router", ("routing.region=nearest",)),
)
"""Parts, and settings in which they are not there: demand stays as it is; any number of instances may be as full; the curve is
that of a guess and not of what is seen; batch work is done as soon as it comes; nothing is started between plans; requests stay
in the nearest region."""


class PartWorth(Struct, frozen=True):
    """One part.

    Args:
        part: its name.
        without: foresight without it.
        same: GPU-hours with owed work that the whole needs for as much kept; None: no setting of it keeps as much.
    """

    part: str
    without: FrontierPoint
    same: float | None

    @property
    def gpu_hours(self) -> float | None:
        """What the part saves, at equal promises; negative: it costs more than it saves."""
        return None if self.same is None else self.without.gpu_hours_with_owed - self.same


def worth_of_parts(
    whole: FrontierPoint, fixed: Sequence[FrontierPoint], without: Sequence[FrontierPoint], tier: str
) -> tuple[PartWorth, ...]:
    """What each part is worth, at the share of this tier that foresight keeps without it.

    Promises that drive worth are held against worths that stay: what as much kept as by the whole costs with the best of those.

    Args:
        whole: foresight as it was given.
        fixed: foresight with worths that stay, its frontier.
        without: a variant for each part, by the name of its knob.
        tier: whose share kept is made equal: the tightest.
    """

    def kept(point: FrontierPoint) -> float:
        return point.kept.get(tier, 1.0)

    still = cost_at(fixed, kept, kept(whole))
    promises = () if still is None else (PartWorth(PROMISES, _at(whole, still), whole.gpu_hours_with_owed),)
    curve = [whole, *fixed]
    return (*promises, *(PartWorth(one.knob, one, cost_at(curve, kept, kept(one))) for one in without))


def _at(whole: FrontierPoint, gpu_hours: float) -> FrontierPoint:
    """A point between fixed worths that keeps as much as the whole; only the cost of it is known."""
    return FrontierPoint(PROMISES, gpu_hours, whole.kept, None, {})
