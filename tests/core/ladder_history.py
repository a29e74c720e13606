"""Random histories of one target under a ladder, and the laws that hold whatever happens in them, on accounts of their own.

A world of one object, its autoscaler and its owner: decisions, blindness, foreign and refused writes, lost leases, restarts,
freezes, overrides, guards, other writers. Read next: `test_ladder.py`; `src/sageserve/core/authority/ladder.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from sageserve.base.config.clusters import RUNGS
from sageserve.base.rng import stream
from sageserve.base.units import MINUTE, SECOND
from sageserve.core.authority.ladder import TargetLadder
from sageserve.core.authority.records import (
    BoundStep,
    BoundWish,
    Demotion,
    DemotionCause,
    GuardRange,
    LadderRules,
    TargetOrder,
    TargetSight,
)

STEPS = 60
GAPS = (SECOND, 2 * SECOND, 2 * SECOND, 7 * SECOND, 15 * SECOND, 30 * SECOND, 45 * SECOND, 59 * SECOND, 61 * SECOND, 301 * SECOND)
WALL = 1_800_000_000_000_000


@dataclass
class Account:
    """What was written, over all restarts."""

    raised: list[tuple[int, int]] = field(default_factory=list)
    lowered: list[tuple[int, int]] = field(default_factory=list)
    lowered_high: list[tuple[int, int]] = field(default_factory=list)
    desired: list[tuple[int, int]] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    writes: int = 0


def lately(steps: list[tuple[int, int]], now: int, over: int) -> int:
    return sum(amount for at, amount in steps if at > now - over)


class History:
    """One history.

    Args:
        seed: of everything in it.
        change: makes the sight that the ladder is told from the one that is true; for bugs made on purpose.
    """

    def __init__(self, seed: int, change: Callable[[TargetSight], TargetSight] = lambda sight: sight) -> None:
        self._change = change
        self._rng = stream(seed, "ladder")
        dice: list[float] = self._rng.random(STEPS * 40 + 200).tolist()
        self._dice = iter(dice)
        self.now, self.held = 0, True
        self.low = self.own_low = self._up_to(4)
        self.high = self.own_low + 1 + self._up_to(30)
        self.count = max(self.low, self._up_to(self.high))
        self.ready, self.desired, self.use, self.blind = self.count, self.count, 0.5, False
        low = self._up_to(4)
        self.rules = LadderRules(
            rung=RUNGS[self._up_to(3)],
            low=low,
            high=low + 1 + self._up_to(40),
            guard=GuardRange(0, 45, step=seed % 4 if seed >= 1200 else None),
            stands_at_zero=self._often(0.3),
        )
        self.budget = self._up_to(40) if self._often(0.3) else None
        self.ladder = TargetLadder(self.rules, 0)
        self.order, self.wish, self.window = TargetOrder(), BoundWish(None), False
        self.demoted, self.account, self.stuck, self.rival = False, Account(), 0, ""

    def _often(self, share: float) -> bool:
        return next(self._dice) < share

    def _up_to(self, most: int) -> int:
        return int(next(self._dice) * (most + 1))

    @property
    def wall(self) -> int:
        return WALL + self.now

    def play(self) -> None:
        """Everything, with the laws checked on the way."""
        for _ in range(STEPS):
            self.now += GAPS[self._up_to(len(GAPS) - 1)]
            self._happens()
            self._look()

    def _happens(self) -> None:
        """The world goes on."""
        if self._often(0.3):
            self.wish = BoundWish(
                self._up_to(40) if self._often(0.9) else None, self._up_to(40) if self._often(0.5) else None, self.now
            )
        if self._often(0.15):
            self.blind = not self.blind
        if self._often(0.1):
            self.held = not self.held
        if self._often(0.05):
            self._restart()
        if self._often(0.05):
            self._ordered()
        if self._often(0.1) and self.demoted:
            self.ladder.thaw()
            self.demoted, self.account.refused = False, []
        self.window = self._often(0.05)
        self.use = next(self._dice)
        self.desired = self._up_to(45)
        if self.rules.rung != "full" and self._often(0.5):
            self.count = min(max(self.desired, self.low), self.high)
        self.ready = self._up_to(self.count) if self._often(0.3) else self.count
        self.stuck = self._up_to(2) if self._often(0.1) else 0
        self.rival = "an HPA" if self._often(0.05) else ""
        self.account.desired.append((self.now, self.desired))

    def _restart(self) -> None:
        """Another process goes on with what is kept: rules, which may be new ones, and the demotion."""
        if self._often(0.3):
            high = self._up_to(40)
            self.rules = LadderRules(
                self.rules.rung,
                self.rules.low,
                self.rules.high,
                guard=GuardRange(self._up_to(3), max(high, 3), step=self.rules.guard.step),
                stands_at_zero=self.rules.stands_at_zero,
            )
        self.ladder = TargetLadder(self.rules, self.now, self.ladder.demoted)
        self.account.refused = []  # a process counts what it was refused itself

    def _ordered(self) -> None:
        until = self.wall + self._up_to(20) * MINUTE
        self.order = TargetOrder(until) if self._often(0.5) else TargetOrder(count=self._up_to(50), until=until, why="a test")

    def _look(self) -> None:
        foreign = self._often(0.02)
        if foreign:
            self.low = self.own_low = min(self.own_low, self.high)
            self.ladder.demote(Demotion(DemotionCause.FOREIGN_WRITE, "somebody", self.wall))
            self.demoted = True
        sight = TargetSight(
            low=self.low,
            high=self.high,
            count=self.count,
            ready=self.ready,
            desired=self.desired,
            use=self.use,
            blind=self.blind,
            wall=self.wall,
            own_low=self.own_low,
            ours=self.account.writes > 0,
            budget=self.budget,
            frozen=self.window,
            stuck=self.stuck,
            rival=self.rival,
        )
        step = self.ladder.decide(self.now, self._change(sight), self.wish, self.order, leased=self.held)
        self.demoted = self.demoted or self.ladder.demoted is not None
        if not step.changes:
            return
        if self._often(0.2):
            self.ladder.refused(self.now, "no", self.wall)
            self.account.refused.append(self.now)
            if sum(at > self.now - 10 * MINUTE for at in self.account.refused) >= 3:
                self.demoted = True
            return
        check(self, sight, step)
        self.ladder.wrote(self.now, sight, step)
        self.account.writes += 1
        self.low = self.low if step.low is None else step.low
        self.high = self.high if step.high is None else step.high
        self.count = self.count if step.count is None else step.count


def check(at: History, sight: TargetSight, step: BoundStep) -> None:
    """The laws of one write."""
    rules, now = at.rules, at.now
    assert at.held, "written without the lease"
    assert not at.demoted, "written after its authority was taken away"
    assert not at.rival, "written beside another writer"
    overridden = at.order.count is not None and at.wall < at.order.until
    assert overridden or not (at.window or at.wall < at.order.frozen_until), "written while frozen"
    written = {name for name, value in (("low", step.low), ("high", step.high), ("count", step.count)) if value is not None}
    allowed = {"observe": set(), "floor": {"low"}, "bounds": {"low", "high"}, "full": {"count"}}[rules.rung]
    assert written <= allowed, f"{rules.rung} writes {written}"
    low, high = sight.low if step.low is None else step.low, sight.high if step.high is None else step.high
    assert rules.rung == "full" or low <= high, "a minimum above the maximum"
    before, after = (sight.count, step.count) if rules.rung == "full" else (sight.low, step.low)
    assert after is not None
    _check_value(at, sight, before, after)
    if after < before:
        _check_lower(at, sight, before, after)
    elif (above := after - max(before, sight.count)) > 0:
        total = lately(at.account.raised, now, MINUTE) + above
        assert total <= max(2, int(rules.ramp_up * sight.count)), "faster than the ramp"
        assert total <= _step(rules), "faster than the guard's step"
        at.account.raised.append((now, above))
        assert not sight.stuck, "more asked for while some cannot come"
        assert not (rules.stands_at_zero and sight.count == 0), "a minimum that does nothing"
    if step.high is not None and step.high < sight.high:
        _check_lower_high(at, sight, step)


def _check_value(at: History, sight: TargetSight, before: int, after: int) -> None:
    """Within settings, guard and budget, or nearer to them than before; never below what was found."""
    rules = at.rules
    most = min(rules.high, rules.guard.high, 1 << 30 if at.budget is None else at.budget)
    least = max(rules.low, rules.guard.low)
    if rules.rung != "full":
        assert after >= min(at.own_low, before), "below the minimum that was found"
        most = max(most, at.own_low)
    assert after <= most or after <= before, "above the settings, the guard or the budget"
    assert after >= least or after >= before or after >= most, "below the settings or the guard"


def _step(rules: LadderRules) -> int:
    return 1 << 30 if rules.guard.step is None else rules.guard.step


def _check_lower(at: History, sight: TargetSight, before: int, after: int) -> None:
    earlier = lately(at.account.lowered, at.now, 5 * MINUTE)
    assert not at.blind, "lowered while blind"
    assert earlier + before - after <= max(1, (before + earlier) // 10), "faster than the pace"
    assert earlier + before - after <= _step(at.rules), "faster than the guard's step"
    at.account.lowered.append((at.now, before - after))
    if at.rules.rung == "full" or after < sight.ready:
        left = sight.ready - (before - after)
        assert sight.use * sight.ready <= at.rules.headroom * left + 1e-6, "the others would be too full"


def _check_lower_high(at: History, sight: TargetSight, step: BoundStep) -> None:
    assert step.high is not None
    earlier = lately(at.account.lowered_high, at.now, 5 * MINUTE)
    assert not at.blind, "maximum lowered while blind"
    assert step.high >= sight.ready, "a maximum below what is ready"
    assert step.high >= (step.low or 0), "a maximum below the minimum"
    assert step.high >= max(one for then, one in at.account.desired if then > at.now - 5 * MINUTE), (
        "a maximum below what was wanted"
    )
    assert earlier + sight.high - step.high <= max(1, (sight.high + earlier) // 10), "maximum lowered faster than the pace"
    assert earlier + sight.high - step.high <= _step(at.rules), "faster than the guard's step"
    at.account.lowered_high.append((at.now, sight.high - step.high))
