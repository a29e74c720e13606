"""What waits in the batch queue of one model: how much engine time, due when, and how fast it must be worked off.

A strategy is told how many jobs wait, not which. The queue is served in order of deadline, so what waits is what is due last of
all that arrived: arrivals are kept in groups by due time, and the earliest are crossed off when the count says that they left.
Groups of requests with like deadlines are Chiron's (arXiv 2501.08090). Read next: `chiron.py`.
"""

from bisect import bisect_left
from dataclasses import dataclass
from typing import Final

from sageserve.base.units import MINUTE, Micros

GROUP: Final[Micros] = 15 * MINUTE
"""Jobs due within one quarter of an hour are one group, due at its start: early by 15 min at most of deadlines of hours."""


@dataclass(slots=True)
class _Group:
    due: Micros
    jobs: int
    work: float  # microseconds of the model's fastest engine


class Backlog:
    """The batch queue of one model as arrivals and counts tell it, earliest due first."""

    def __init__(self) -> None:
        self.jobs = 0
        self._groups: list[_Group] = []

    @property
    def work(self) -> float:
        """Microseconds of the model's fastest engine that everything waiting needs."""
        return sum(group.work for group in self._groups)

    def arrive(self, due: Micros, jobs: int, work: float) -> None:
        """Take in `jobs` that should be done by `due` and need `work` microseconds together."""
        if jobs <= 0:
            return
        due = due // GROUP * GROUP
        at = bisect_left(self._groups, due, key=lambda group: group.due)
        if at == len(self._groups) or self._groups[at].due != due:
            self._groups.insert(at, _Group(due, 0, 0.0))
        self._groups[at].jobs += jobs
        self._groups[at].work += work
        self.jobs += jobs

    def leave(self, waiting: int) -> float:
        """Cross off, earliest due first, until no more than `waiting` jobs are left; returns the work that left.

        Jobs that wait and were not heard of yet (those of the last minute, at most) are left out of account.
        """
        left = 0.0
        while self.jobs > waiting:
            first = self._groups[0]
            gone = min(first.jobs, self.jobs - waiting)
            work = first.work * gone / first.jobs
            first.jobs -= gone
            first.work -= work
            self.jobs -= gone
            left += work
            if first.jobs == 0:
                del self._groups[0]
        return left

    def pace(self, now: Micros, lead: Micros, spend: float) -> float:
        """Engines that must work on the queue from `now` + `lead` on, so that every group is done when it is due.

        For each group, the work up to and including it over the time left, of which the share `spend` is counted on; the
        largest of these. A group due sooner than that is allowed `lead`: nothing that is started now could help it earlier.
        """
        ahead, needed = 0.0, 0.0
        for group in self._groups:
            ahead += group.work
            needed = max(needed, ahead / (spend * max(group.due - now - lead, lead, MINUTE)))
        return needed
