"""The LoRA adapters of one rank, naively: which are loaded, when each was last in the batch, and who is passed over for them.

Follows docs/reference/kernel.md, "Adapters", and nothing of the kernel: who is in the batch is looked up each time, and nothing
is remembered of a queue. Read next: `reference_engine.py`, which asks it.
"""

from collections import Counter
from typing import TYPE_CHECKING

from sageserve.base.records import UNSET
from sageserve.sim.kernel.rows.adapters import Adapters

if TYPE_CHECKING:
    from tests.sim.reference_engine import Job
    from tests.sim.reference_profile import Profile
    from tests.sim.reference_ranks import Instance


def ask(jobs: "list[Job]", adapters: Adapters | None, profiles: "list[Profile]") -> bool:
    """Say which adapter each job asks for; whether that makes a difference to any engine."""
    for job, code in zip(jobs, [] if adapters is None else adapters.codes.tolist(), strict=False):
        job.adapter = None if code == UNSET else code
    return adapters is not None and any(profile.slots for profile in profiles)


def has_loaded(instance: "Instance", job: "Job") -> bool:
    """Whether the rank that a job would go to has its adapter."""
    rank = instance._emptiest()
    return rank.slots.asked(job) in rank.slots.loaded


class ReferenceSlots:
    """Adapters in the memory of an engine.

    Args:
        profile: has the number of slots, and what adapters take.
        counts: how often what happened.
    """

    def __init__(self, profile: "Profile", counts: Counter[str] | None = None) -> None:
        self.profile = profile
        self.counts: Counter[str] = Counter() if counts is None else counts
        self.loaded: dict[int, int] = {}  # adapter: when it was in the batch last
        self.loads = 0  # for the iteration that is composed
        self.ever = 0
        self._clock = 0

    def asked(self, job: "Job") -> int | None:
        """The adapter that a job needs a slot for."""
        return job.adapter if self.profile.slots else None

    def computing(self, jobs: "list[Job]") -> set[int]:
        """Adapters of these jobs."""
        return {adapter for job in jobs if (adapter := self.asked(job)) is not None}

    def has_none_for(self, job: "Job", batch: "list[Job]") -> bool:
        """Whether a job must wait for a slot."""
        adapter, used = self.asked(job), self.computing(batch)
        return adapter is not None and adapter not in used and len(used) >= self.profile.slots

    def admit(self, job: "Job", batch: "list[Job]", now: int) -> None:
        """A job joins a batch."""
        if job.passed is not None:
            self.counts["passed over for a slot"] += now > job.passed
            job.slot_wait, job.passed = job.slot_wait + now - job.passed, None
        if (adapter := self.asked(job)) is None:
            return
        self.counts["found its adapter"] += adapter in self.loaded
        if adapter not in self.loaded:
            if len(self.loaded) == self.profile.slots:
                idle = [one for one in self.loaded if one not in self.computing(batch)]
                del self.loaded[min(idle, key=lambda one: self.loaded[one])]
                self.counts["adapters that made way"] += 1
            self.loads += 1
            self.ever += 1
            self.loaded[adapter] = 0
        assert len(self.loaded) <= self.profile.slots

    def leave(self, jobs: "list[Job]", batch: "list[Job]") -> None:
        """These jobs, one after the other, are no longer in the batch, in which the others still are."""
        for number, job in enumerate(jobs):
            adapter = self.asked(job)
            if adapter is not None and adapter not in self.computing([*jobs[number + 1 :], *batch]):
                self._clock += 1
                self.loaded[adapter] = self._clock

    def time(self, jobs: "list[Job]") -> float:
        """Microseconds that an iteration of these jobs takes more; what was loaded for it is counted once."""
        loads, self.loads = self.loads, 0
        computing = len(self.computing(jobs))
        profile = self.profile
        return profile.adapter_load * loads + (profile.adapters + profile.adapter * computing if computing else 0.0)
