"""What is rolled out and how, in numbers; and how far a rollout is, for the next process of a live fleet.

Plain values. Read next: `rollout.py`, which acts by them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msgspec import Struct, structs

from sageserve.base.config import RolloutSettings, TierSettings
from sageserve.base.units import NEVER, Micros
from sageserve.core.actions import Roll, RolloutStep
from sageserve.core.events import RevisionsSeen


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """What is rolled out, and how.

    Args:
        model: number of it.
        revision: number of the new one, above that of every earlier one.
        at: when it begins; one of the same model that is not over by then is waited for.
        surge: instances of an endpoint that may be there beyond what is wanted; 0: one fewer instead.
        canary: share of an endpoint's instances that is new until it is judged; one at least.
        judge_after: microseconds that all canaries serve before the others follow, and over which is judged from then on.
        judge_requests: that the new revision must have been asked before the others follow.
        back: a revision that breaks promises is replaced by the old one; false: nothing more becomes new.
        percentiles: by tier, share of requests that is promised; 0: not judged.
    """

    model: int
    revision: int
    at: Micros
    surge: int
    canary: float
    judge_after: Micros
    judge_requests: int
    back: bool
    percentiles: tuple[float, ...]


def plan_of(
    one: RolloutSettings, revision: int, at: Micros, models: Sequence[str], tiers: Mapping[str, TierSettings]
) -> RolloutPlan:
    """Settings in numbers; tiers that promise a first token are judged.

    Args:
        one: what is rolled out.
        revision: its number.
        at: when it begins.
        models: names in order of their numbers.
        tiers: likewise.
    """
    percentiles = tuple(0.0 if tier.batch else tier.percentile for tier in tiers.values())
    return RolloutPlan(
        model=models.index(one.model),
        revision=revision,
        at=at,
        surge=one.surge,
        canary=one.canary,
        judge_after=one.judge_after,
        judge_requests=one.judge_requests,
        back=one.back,
        percentiles=percentiles,
    )


class RolloutMemory(Struct, frozen=True):
    """How far a rollout is, for a process that goes on with it; times as they were, `held` what its endpoints had then."""

    step: RolloutStep
    begun: Micros
    ended: Micros
    steps: tuple[tuple[Micros, Roll], ...]
    surplus: int
    old: int
    extra: dict[int, int]
    held: dict[int, int]
    surging: dict[int, int]
    owed: dict[int, int]
    failed: int
    full: Micros
    seen: tuple[tuple[Micros, RevisionsSeen], ...]
    base: RevisionsSeen | None

    def shifted(self, by: Micros) -> "RolloutMemory":
        """The same by another clock."""

        def at(time: Micros) -> Micros:
            return time if time == NEVER else time + by

        return structs.replace(
            self,
            begun=at(self.begun),
            ended=at(self.ended),
            full=at(self.full),
            steps=tuple((at(time), roll) for time, roll in self.steps),
            seen=tuple((at(time), seen) for time, seen in self.seen),
        )
