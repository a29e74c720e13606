"""The jobs of one model that are in memory: the next ones of each owner in deadline order, and those in hand.

`ready` were read from the store and not taken; jobs in hand were taken and are not recorded: they run, rest after a refusal,
or wait in `again` for their next turn. Knows no HTTP and no store. Read next: `runner.py`, which has one for each model.
"""

from collections import Counter, deque
from collections.abc import Iterable
from heapq import heapify, heappop, heappush

from sageserve.live.store.models import Job, Key


class JobBuffer:
    """Jobs of one model."""

    def __init__(self) -> None:
        self.unfinished = 0  # in the store, waiting or taken, as of the last time it was asked or told
        self.hand: dict[Key, Job] = {}
        self.reading = False
        self._ready: dict[str, deque[Job]] = {}  # by owner, none of them empty
        self._again: dict[str, list[tuple[int, Key, Job]]] = {}  # heaps, by owner, none of them empty
        self._full: dict[str, int] = {}  # owners of whom as many were read as of any, so there may be more: how many were left

    @property
    def waiting(self) -> int:
        """Jobs that wait for their turn."""
        return max(0, self.unfinished - len(self.hand)) + self._put_back

    @property
    def running(self) -> int:
        """Jobs in hand that do not wait for another turn."""
        return len(self.hand) - self._put_back

    @property
    def _put_back(self) -> int:
        return sum(map(len, self._again.values()))

    @property
    def is_low(self) -> bool:
        """Whether nothing is left of what was read, or more than half of some owner's, of whom there may be more, is taken."""
        ready = self._ready
        return self.waiting > sum(map(len, ready.values())) + self._put_back and (
            not ready or any(2 * len(ready.get(owner, ())) < count for owner, count in self._full.items())
        )

    def firsts(self) -> list[Job]:
        """The one of each owner that is due first, in order of deadlines."""
        found = {owner: jobs[0] for owner, jobs in self._ready.items()}
        for owner, heap in self._again.items():
            if owner not in found or heap[0][:2] < (found[owner].deadline, found[owner].key):
                found[owner] = heap[0][2]
        return sorted(found.values(), key=lambda job: (job.deadline, job.key)) if len(found) > 1 else list(found.values())

    def take(self, owner: str) -> Job:
        """Take an owner's first one in hand."""
        ready, again = self._ready.get(owner), self._again.get(owner)
        if again and (not ready or again[0][:2] < (ready[0].deadline, ready[0].key)):
            job = heappop(again)[2]
            if not again:
                del self._again[owner]
        else:
            assert ready, "the caller has seen a first one"
            job = ready.popleft()
            if not ready:
                del self._ready[owner]
        self.hand[job.key] = job
        return job

    def put_back(self, job: Job) -> None:
        """A job in hand waits for another turn; unless it was let go of meanwhile."""
        if job.key in self.hand:
            self.hand[job.key] = job
            heappush(self._again.setdefault(job.owner, []), (job.deadline, job.key, job))

    def fill(self, jobs: Iterable[Job]) -> None:
        """What the store says is due first, in order; those in hand are left out: their leases may not be written yet."""
        self._ready, read = {}, Counter[str]()
        for job in jobs:
            read[job.owner] += 1
            if job.key not in self.hand:
                self._ready.setdefault(job.owner, deque()).append(job)
        most = max(read.values(), default=0)
        self._full = {owner: max(1, len(self._ready.get(owner, ()))) for owner, count in read.items() if count == most}

    def recorded(self, key: Key, *, counted: bool) -> None:
        """A job in hand has ended."""
        if self.hand.pop(key, None) is not None and counted:
            self.unfinished -= 1

    def let_go(self, batch: int) -> list[Key]:
        """Forget the jobs of a batch; those that were in hand."""
        gone = [key for key in self.hand if key[0] == batch]
        for key in gone:
            del self.hand[key]
        ready = {owner: deque(job for job in jobs if job.key[0] != batch) for owner, jobs in self._ready.items()}
        again = {owner: [entry for entry in heap if entry[1][0] != batch] for owner, heap in self._again.items()}
        self._ready = {owner: jobs for owner, jobs in ready.items() if jobs}
        self._again = {owner: heap for owner, heap in again.items() if heap}
        for heap in self._again.values():
            heapify(heap)
        return gone
