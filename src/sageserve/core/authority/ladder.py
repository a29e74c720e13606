"""One target on the ladder of authority: what may be written there now, and when its authority is taken away.

    rung      writes                    never
    observe   nothing                   anything
    floor     minimum                   above the object's maximum, or below the minimum that was found there
    bounds    minimum and maximum       a maximum below what is ready, the minimum, or what its autoscaler wanted of late
    full      replicas                  below what the others can carry

On every rung: within the settings and the cluster owner's guard; up by the ramp, down by the pace and with headroom; nothing is
lowered while blind; nothing without the lease, or beside another writer. A foreign write, three refused ones in ten minutes, or a
bound of ours outside the guard take the authority away at once: values stay as they are, until a person thaws the target. What
people say of a target wins over decisions, not over any of this.

A process that begins knows nothing of the minutes before, and takes them for used up. Pure. Read next: `standing.py`, `steps.py`,
`lease.py`.
"""

from collections import deque
from typing import Final

from msgspec import structs

from sageserve.base.config.clusters import RUNGS, Rung
from sageserve.base.units import Micros
from sageserve.core.authority.records import (
    PACE_OVER,
    RAMP_OVER,
    BoundStep,
    BoundWish,
    Demotion,
    DemotionCause,
    LadderRules,
    TargetOrder,
    TargetSight,
    Withheld,
)
from sageserve.core.authority.standing import Standing
from sageserve.core.authority.steps import RecentSteps, headroom_room, pace_room, ramp_room

NOTHING: Final = TargetOrder()
LOOK_LEAST: Final = RAMP_OVER
"""Between two looks at a target, beyond which what its autoscaler wanted meanwhile is not known."""


class TargetLadder(Standing):
    """One target.

    Args:
        rules: what holds for it.
        begins: the first instant.
        demoted: since before then.
    """

    def __init__(self, rules: LadderRules, begins: Micros, demoted: Demotion | None = None) -> None:
        super().__init__(demoted)
        self.rules = rules
        self._raised = RecentSteps(begins, RAMP_OVER)
        self._lowered = RecentSteps(begins, PACE_OVER)
        self._lowered_high = RecentSteps(begins, PACE_OVER)
        self._desired: deque[tuple[Micros, int]] = deque()

    @property
    def rung(self) -> Rung:
        """How far it may be acted on now, as far as nobody else's lease stands against it."""
        return "observe" if self.demoted is not None else self.allowed

    @property
    def allowed(self) -> Rung:
        """How far the settings and the cluster's owner let it be acted on, whatever has happened since."""
        return RUNGS[min(RUNGS.index(self.rules.rung), RUNGS.index(self.rules.guard.rung))]

    def decide(
        self, now: Micros, sight: TargetSight, wish: BoundWish, order: TargetOrder = NOTHING, *, leased: bool
    ) -> BoundStep:
        """The next write.

        Args:
            now: the ladder's clock.
            sight: what is seen.
            wish: what decisions want.
            order: what people want.
            leased: whether this process may write.
        """
        self._see(now, sight)
        if not leased:
            return BoundStep(withheld=Withheld.NO_LEASE)
        if self.demoted is None and sight.ours and (wrong := self._outside(sight)):
            self.demote(Demotion(DemotionCause.OUT_OF_GUARD, wrong, sight.wall))
        if self.rung == "observe":
            return BoundStep(withheld=Withheld.OBSERVED if self.demoted is None else Withheld.DEMOTED)
        if sight.rival:
            return self._keep(sight, Withheld.OTHER_WRITER, None)
        wish, frozen = self._wished(now, sight, wish, order)
        if frozen:
            return self._keep(sight, Withheld.FROZEN, None)
        return self._step(now, sight, wish)

    def wrote(self, now: Micros, sight: TargetSight, step: BoundStep) -> None:
        """A step was carried out; `sight` is what it was decided on."""
        present = sight.count if self.rung == "full" else sight.low
        if (value := step.count if self.rung == "full" else step.low) is not None:
            self._raised.add(now, value - max(present, sight.count))
            self._lowered.add(now, present - value)
        if step.high is not None:
            self._lowered_high.add(now, sight.high - step.high)

    # --- what is wished ---

    def _wished(self, now: Micros, sight: TargetSight, wish: BoundWish, order: TargetOrder) -> tuple[BoundWish, bool]:
        """What is wished after people have spoken, and whether nothing is to be done at all."""
        if order.count is not None and sight.wall < order.until:
            return BoundWish(order.count, order.count, now), False
        if sight.frozen or sight.wall < order.frozen_until:
            return wish, True
        if now - wish.heard > self.rules.hold_for:
            return BoundWish(self.rules.low, None, now), False
        return wish, False

    def _outside(self, sight: TargetSight) -> str:
        """A bound of ours that the cluster's owner does not allow; empty: there is none."""
        guard, rung = self.rules.guard, self.rung
        high = (sight.high,) if sight.high_ours else ()
        fields = {"floor": (sight.low,), "bounds": (sight.low, *high), "full": (sight.count,)}.get(rung, ())
        beyond = next((value for value in fields if not guard.low <= value <= guard.high), None)
        return "" if beyond is None else f"{beyond} is outside {guard.low}..{guard.high} of the cluster's guard"

    def _see(self, now: Micros, sight: TargetSight) -> None:
        if self._desired and now - self._desired[-1][0] > LOOK_LEAST:
            self._lowered_high = RecentSteps(now, PACE_OVER)  # what it wanted meanwhile is not known
        self._desired.append((now, sight.desired))
        while self._desired[0][0] <= now - PACE_OVER:
            self._desired.popleft()

    # --- what is written ---

    def _step(self, now: Micros, sight: TargetSight, wish: BoundWish) -> BoundStep:
        full = self.rung == "full"
        present = sight.count if full else sight.low
        least, most = self._span(sight)
        wished = present if wish.count is None else wish.count
        target = min(max(wished, least), most)
        withheld = Withheld.NOT if wish.count is None or target == wished else self._why_clipped(sight, wished)
        value, kept = self._towards(now, sight, present, target)
        withheld = kept if kept is not Withheld.NOT else withheld
        told = None if wish.count is None else target
        if full:
            return BoundStep(count=value, changes=value != present, withheld=withheld, wished=told)
        if self.rung == "floor":
            return BoundStep(low=value, changes=value != present, withheld=withheld, wished=told)
        high, kept = self._ceiling(now, sight, wish, value)
        withheld = kept if withheld is Withheld.NOT else withheld
        changes = value != present or high != sight.high
        return BoundStep(low=value, high=high, changes=changes, withheld=withheld, wished=told)

    def _span(self, sight: TargetSight) -> tuple[int, int]:
        """Least and most that may be aimed at; where they contradict each other, the most counts."""
        rules = self.rules
        most = min(rules.high, rules.guard.high)
        if self.rung == "floor":
            most = min(most, sight.high)
        if sight.budget is not None:
            most = min(most, sight.budget)
        least = max(rules.low, rules.guard.low, 0 if self.rung == "full" else sight.own_low)
        if self.rung != "full":
            most = max(most, sight.own_low)  # what nobody asked us for is not ours to take away
        return min(least, most), most

    def _why_clipped(self, sight: TargetSight, wished: int) -> Withheld:
        guard = self.rules.guard
        if not guard.low <= wished <= guard.high:
            return Withheld.GUARD
        if sight.budget is not None and wished > sight.budget:
            return Withheld.OVER_BUDGET
        return Withheld.AT_BOUND

    def _towards(self, now: Micros, sight: TargetSight, present: int, target: int) -> tuple[int, Withheld]:
        """The value next on the way to a target, and why it is not there yet."""
        if target > present:
            return self._upwards(now, sight, present, target)
        if target == present:
            return present, Withheld.NOT
        if sight.blind:
            return present, Withheld.BLIND
        pace = pace_room(self._lowered, now, present, self.rules.guard.step)
        spare = headroom_room(sight.ready, sight.use, self.rules.headroom)
        if target >= sight.ready and self.rung != "full":
            spare = present - target  # nobody who serves is in question
        value = max(target, present - min(pace, spare))
        if value == target:
            return value, Withheld.NOT
        return value, Withheld.TOO_FAST if pace <= spare else Withheld.NO_HEADROOM

    def _upwards(self, now: Micros, sight: TargetSight, present: int, target: int) -> tuple[int, Withheld]:
        if self.rules.stands_at_zero and sight.count == 0:
            return present, Withheld.AT_ZERO
        free = max(present, sight.count)
        if sight.stuck and target > free:
            return max(present, min(target, free)), Withheld.NO_STOCK
        room = ramp_room(self._raised, now, sight.count, self.rules.ramp_up, self.rules.guard.step)
        value = max(present, min(target, free + room))
        return value, Withheld.NOT if value == target else Withheld.TOO_FAST

    def _ceiling(self, now: Micros, sight: TargetSight, wish: BoundWish, low: int) -> tuple[int, Withheld]:
        """The maximum next."""
        most = min(self.rules.high, self.rules.guard.high)
        if sight.budget is not None:
            most = min(most, max(sight.budget, sight.high))  # nothing is given beyond a budget, and nothing taken away for it
        wished = min(most if wish.high is None else wish.high, most)
        if wished >= sight.high:
            return max(wished, low), Withheld.NOT
        least = max(low, sight.ready, *(desired for _, desired in self._desired), wished)
        if sight.blind:
            return max(sight.high, low), Withheld.BLIND
        value = max(least, sight.high - pace_room(self._lowered_high, now, sight.high, self.rules.guard.step))
        return max(min(value, sight.high), low), Withheld.NOT if value <= wished else Withheld.TOO_FAST

    def _keep(self, sight: TargetSight, withheld: Withheld, wished: int | None) -> BoundStep:
        """Everything as it is."""
        match self.rung:
            case "floor":
                step = BoundStep(low=sight.low)
            case "bounds":
                step = BoundStep(low=sight.low, high=sight.high)
            case "full":
                step = BoundStep(count=sight.count)
            case _:
                step = BoundStep()
        return structs.replace(step, withheld=withheld, wished=wished)
