"""When more jobs are read from the store: not for each job of an owner who has few.

Read next: `src/sageserve/live/batches/job_buffer.py`; `test_store_away.py` for a store that cannot be read.
"""

from collections.abc import Iterable

from sageserve.live.batches.job_buffer import JobBuffer
from sageserve.live.store.models import Job

EACH = 10  # jobs of an owner that the store gives at once


class Stored:
    """Jobs in a store, by owner, and the buffer in front of them."""

    def __init__(self, **jobs: int) -> None:
        self.jobs = [
            Job(1, (batch, line), "model", "/v1/chat/completions", 0, 0, 10, b"{}", owner)
            for batch, (owner, count) in enumerate(jobs.items())
            for line in range(count)
        ]
        self.buffer = JobBuffer()
        self.buffer.unfinished = len(self.jobs)
        self.reads = 0

    def read(self) -> None:
        self.reads += 1
        found: dict[str, list[Job]] = {}
        for job in self.jobs:
            if len(mine := found.setdefault(job.owner, [])) < EACH:
                mine.append(job)
        self.buffer.fill([job for mine in found.values() for job in mine])

    def run(self, owners: Iterable[str]) -> None:
        """Take a job of each owner in turn, and end it."""
        for owner in owners:
            if self.buffer.is_low:
                self.read()
            job = self.buffer.take(owner)
            self.jobs.remove(job)
            self.buffer.recorded(job.key, counted=True)


def test_who_has_few_jobs_does_not_make_the_store_be_read_for_every_job() -> None:
    stored = Stored(few=3, many=100)
    stored.run(["few", "many"] * 3 + ["many"] * 97)
    assert not stored.jobs
    assert stored.reads <= 100 // (EACH // 2), "half of a read is taken before the next"


def test_of_nobody_all_that_was_read_is_taken_while_there_is_more() -> None:
    stored = Stored(a=30, b=30)
    stored.run(["a", "b"] * 30)
    assert not stored.jobs


def test_jobs_in_hand_do_not_hide_that_there_is_more_of_their_owner() -> None:
    stored = Stored(a=30, b=30)
    stored.read()
    for _ in range(5):  # their leases are not written when the store is read next
        stored.buffer.take("a")
    stored.read()
    stored.run(["a"] * 25)
    assert len(stored.jobs) == 35, "those in hand, and what is another's"


def test_a_buffer_that_was_never_filled_is_low_while_jobs_wait() -> None:
    stored = Stored(a=1)
    assert stored.buffer.is_low
    stored.run(["a"])
    assert not stored.buffer.is_low
