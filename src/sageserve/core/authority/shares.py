"""The ladder of an object that shares requests among regions: on rung `full` shares are written, below nothing is.

    nothing while blind, frozen, demoted, beside the lease, or where the guard says less than `full`
    no share moves by more than 25 points within a minute; what a closed region had goes to the others at once, as they stand
    differences below 5 points are left alone

A foreign write or three refused ones in ten minutes take the authority away until a person gives it back. The share of a region
is in points of a hundred. Pure; knows no object. Read next: `ladder.py`, for what has a count; `live/authority/share_hand.py`.
"""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from sageserve.base.config.clusters import Rung
from sageserve.base.units import MINUTE, Micros
from sageserve.core.authority.records import Demotion, Withheld
from sageserve.core.authority.standing import Standing

WHOLE: Final = 100
MOST: Final = 25
"""Points that a share may move within `MOVE_OVER`."""
MOVE_OVER: Final[Micros] = MINUTE
LEAST: Final = 5
"""Points below which a difference is left alone: every write is a new configuration of a gateway."""


class ShareStep(Struct, frozen=True):
    """What is written, and why it is not, or not yet, what was wished.

    Args:
        shares: by region; None: nothing is written.
        withheld: why.
    """

    shares: dict[str, int] | None = None
    withheld: Withheld = Withheld.NOT


class ShareLadder(Standing):
    """One object.

    Args:
        rung: how far its settings let it be acted on.
        now: the monotonic clock; what was written before is not known, so that a minute passes first.
        demoted: as an earlier process left it.
    """

    def __init__(self, rung: Rung, now: Micros, demoted: Demotion | None = None) -> None:
        super().__init__(demoted)
        self.rung, self.guard = rung, "full"
        self._wrote_at = now

    def decide(
        self, now: Micros, shares: Mapping[str, int], wanted: Mapping[str, int] | None, *, frozen: bool, leased: bool
    ) -> ShareStep:
        """What to write.

        Args:
            now: the monotonic clock.
            shares: as they stand.
            wanted: of regions that are open; None: nothing is known.
            frozen: by a person, or a window.
            leased: this process may write.
        """
        if why := self._barred(wanted, frozen=frozen, leased=leased):
            return ShareStep(None, why)
        assert wanted is not None
        open_ = {region: share for region, share in wanted.items() if region in shares}
        if not open_:
            return ShareStep(None, Withheld.BLIND)
        goal = hundredths({region: open_.get(region, 0) for region in shares})
        closed = any(share and region not in open_ for region, share in shares.items())
        base = _without_closed(shares, open_, goal) if closed else dict(shares)
        near = max(abs(goal[region] - base[region]) for region in base) < LEAST
        late = now - self._wrote_at >= MOVE_OVER
        step = base if near or not late else moved(base, goal, MOST)
        withheld = Withheld.NOT if near or step == goal else Withheld.TOO_FAST
        return ShareStep(step if step != dict(shares) else None, withheld)

    def _barred(self, wanted: Mapping[str, int] | None, *, frozen: bool, leased: bool) -> Withheld | None:
        rules = (
            (self.rung != "full", Withheld.OBSERVED),
            (self.guard != "full", Withheld.GUARD),
            (self.demoted is not None, Withheld.DEMOTED),
            (not leased, Withheld.NO_LEASE),
            (frozen, Withheld.FROZEN),
            (wanted is None, Withheld.BLIND),
        )
        return next((why for holds, why in rules if holds), None)

    def wrote(self, now: Micros) -> None:
        """A step came through."""
        self._wrote_at = now


def hundredths(weights: Mapping[str, int]) -> dict[str, int]:
    """Weights as points of a hundred, by the largest remainders; equal ones where all are 0."""
    given = dict(weights) if any(weights.values()) else dict.fromkeys(weights, 1)
    total = sum(given.values())
    found = {name: WHOLE * weight // total for name, weight in given.items()}
    left = sorted(given, key=lambda name: -(WHOLE * given[name] % total))
    for name in left[: WHOLE - sum(found.values())]:
        found[name] += 1
    return found


def moved(shares: Mapping[str, int], goal: Mapping[str, int], most: int) -> dict[str, int]:
    """Shares on their way to a goal: no farther than so many points each, and in all a hundred as before."""
    far = {name: goal[name] - shares[name] for name in shares}
    largest = max(map(abs, far.values()))
    if largest <= most:
        return dict(goal)
    step = {name: (abs(way) * most // largest) * (1 if way > 0 else -1) for name, way in far.items()}
    over = sum(step.values())
    for name in sorted(step, key=lambda one: -abs(step[one])):  # what was rounded away is taken from those that go the other way
        if over and (step[name] > 0) is (over > 0):
            cut = min(abs(step[name]), abs(over)) * (1 if over > 0 else -1)
            step[name] -= cut
            over -= cut
    return {name: shares[name] + step[name] for name in shares}


def _without_closed(shares: Mapping[str, int], open_: Mapping[str, int], goal: Mapping[str, int]) -> dict[str, int]:
    """Shares where what closed regions had is the others', as these stand to each other; as is wished where none had any."""
    left = {region: share if region in open_ else 0 for region, share in shares.items()}
    return hundredths(left) if any(left.values()) else dict(goal)
