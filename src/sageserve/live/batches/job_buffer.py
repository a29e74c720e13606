"""The jobs of one model that are in memory: the next ones in deadline order, and those in hand.

`ready` were read from the store and not taken; jobs in hand were taken and are not recorded: they run, rest after a refusal,
or wait in `again` for their next turn. Knows no HTTP and no store. Read next: `runner.py`, the owner.
"""

from collections import deque
from collections.abc import Iterable
from heapq import heapify, heappop, heappush

from sageserve.live.store.models import Job, Key


class JobBuffer:
    """Jobs of one model."""

    def __init__(self) -> None:
        self.unfinished = 0  # in the store, waiting or taken, as of the last time it was asked or told
        self.hand: dict[Key, Job] = {}
        self.reading = False
        self._ready: deque[Job] = deque()
        self._again: list[tuple[int, Key, Job]] = []

    @property
    def waiting(self) -> int:
        """Jobs that wait for their turn."""
        return max(0, self.unfinished - len(self.hand)) + len(self._again)

    @property
    def loaded(self) -> int:
        """Jobs in memory that wait."""
        return len(self._ready) + len(self._again)

    def first(self) -> Job | None:
        """The one that is due first."""
        ready = self._ready[0] if self._ready else None
        again = self._again[0][2] if self._again else None
        if ready is None or again is None:
            return ready or again
        return ready if (ready.deadline, ready.key) < (again.deadline, again.key) else again

    def take(self) -> Job:
        """Take the first one in hand."""
        job = self.first()
        assert job is not None, "the caller has seen a first one"
        if self._ready and self._ready[0] is job:
            self._ready.popleft()
        else:
            heappop(self._again)
        self.hand[job.key] = job
        return job

    def put_back(self, job: Job) -> None:
        """A job in hand waits for another turn; unless it was let go of meanwhile."""
        if job.key in self.hand:
            self.hand[job.key] = job
            heappush(self._again, (job.deadline, job.key, job))

    def fill(self, jobs: Iterable[Job]) -> None:
        """What the store says is due first, in order; those in hand are left out: their leases may not be written yet."""
        self._ready = deque(job for job in jobs if job.key not in self.hand)

    def recorded(self, key: Key, *, counted: bool) -> None:
        """A job in hand has ended."""
        if self.hand.pop(key, None) is not None and counted:
            self.unfinished -= 1

    def let_go(self, batch: int) -> list[Key]:
        """Forget the jobs of a batch; those that were in hand."""
        gone = [key for key in self.hand if key[0] == batch]
        for key in gone:
            del self.hand[key]
        self._ready = deque(job for job in self._ready if job.key[0] != batch)
        self._again = [entry for entry in self._again if entry[1][0] != batch]
        heapify(self._again)
        return gone
