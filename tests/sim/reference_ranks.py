"""An instance of the naive world: ranks, each an engine of its own, in step or not.

The rules are those of docs/reference/kernel.md, "Data parallel ranks". Where ranks keep in step, every iteration is looked at
anew: what each rank would take, who takes longest, whether that is still the one who did. Knows no fleet. Read next:
`reference_engine.py` for a rank.
"""

from sageserve.core.perf import block_time
from tests.sim.reference_engine import NO_TIME, Engine, Job, Key, Outcome
from tests.sim.reference_profile import Profile, straight

APART = 2**-10  # microseconds: who is not slower by more is not slower


class Instance:
    """Ranks that requests are spread over.

    Args:
        profile: of each rank.
        queues: number of queues of a rank.
        key: sort key of a job at an instant, smaller first.
        prefills: prompts alone.
    """

    def __init__(self, profile: Profile, queues: int, key: Key, *, prefills: bool = False) -> None:
        self.profile = profile
        self.ranks = [Engine(profile, queues, key, prefills=prefills) for _ in range(profile.ranks)]
        self.together = profile.lockstep and profile.ranks > 1
        self.kv_tokens = profile.ranks * profile.kv_tokens
        self.places = profile.ranks * profile.max_sequences
        self.overtaken = False  # the latest block ended because another rank became the slowest
        self._start = self._done = 0
        self._end = NO_TIME
        self._first = self._step = 0.0  # of the slowest
        self._cut = self._last = self._overtaken = False

    @property
    def inside(self) -> int:
        return sum(rank.inside for rank in self.ranks)

    @property
    def unprefilled(self) -> int:
        return sum(rank.unprefilled for rank in self.ranks)

    @property
    def used_at_start(self) -> int:
        return sum(rank.used_at_start + sum(job.context + 1 for job in rank.kept) for rank in self.ranks)

    def was_cut(self, k: int) -> bool:
        """Whether the block in progress was cut."""
        return self._cut if self.together else self.ranks[k].cut

    def ends(self) -> list[tuple[int, bool]]:
        """When the iteration in progress of each rank ends, and whether its block ends with it."""
        if self.together:
            return [(self._end, self._last)]
        return [(rank.end, rank.last) for rank in self.ranks]

    def place(self, job: Job, now: int) -> bool:
        """Give the job to the rank with the least 4 x waiting + running; True when this cut a block."""
        rank = self._emptiest()
        if not self.together:
            return rank.place(job, now)
        rank.queues[job.queue].append(job)
        if not any(one.busy for one in self.ranks):
            self._end, self._last = now, True
            return False
        if self._cut or not rank.could_join(job, now):
            return False
        self._cut = True
        was_last, self._last = self._last, True
        return not was_last

    def stir(self, rank: Engine, now: int, *, over: bool) -> None:
        """A rank has more room, or the instance is over: an idle one looks at its queue again, or closes."""
        if not over and not any(rank.queues):
            return
        if self.together:
            if not any(one.busy for one in self.ranks):
                self._end, self._last = min(self._end, now), True
        elif not rank.busy:
            rank.end, rank.last = min(rank.end, now), True

    def cached(self, job: Job) -> int:
        """Tokens of its prompt that the rank it would go to has, or that are stated."""
        return self._emptiest().cached(job)

    def _emptiest(self) -> Engine:
        return min(self.ranks, key=_load)

    def end_iteration(self, k: int, now: int) -> Outcome | None:
        """The iteration of rank k, or of all, ends; None when the block goes on."""
        if not self.together:
            return self.ranks[k].end_iteration(now)
        self.overtaken = self._overtaken
        whole = Outcome()
        busy = [rank for rank in self.ranks if rank.busy]
        for rank in busy:
            rank.count_tokens()
        self._done += 1
        if busy and not self._last:
            self._look_ahead()
            return None
        for rank in busy:
            _add(whole, rank.end_block())
        for rank in self.ranks:
            whole.preempted += rank.compose(now)
            whole.joined += rank.joined
            rank.joined = []
        self._begin(now)
        return whole

    def _begin(self, now: int) -> None:
        self._start, self._done, self._cut, self._end = now, 0, False, NO_TIME
        busy = [rank for rank in self.ranks if rank.busy]
        if busy:
            self._slowest = self._slowest_at(0)
            tokens = [max(rank.computes, 1) if rank.busy else 1 for rank in self.ranks]  # an idle one computes for nothing
            self._first = self._own(self._slowest, 0) + straight(self.profile.shared, sum(tokens) * (1.0 / len(tokens)))
            self._step = self._slowest.step
            self._look_ahead()

    def _look_ahead(self) -> None:
        self._end = self._start + block_time(self._first, self._step, self._done + 1)
        busy = [rank for rank in self.ranks if rank.busy]
        for rank in busy:
            rank.look_ahead()
        self._last = self._cut or any(rank.last for rank in busy)
        most = self._own(self._slowest, self._done + 1)
        self._overtaken = not self._last and any(self._own(rank, self._done + 1) > most + APART for rank in busy)
        self._last = self._last or self._overtaken

    def _own(self, rank: Engine, iteration: int) -> float:
        """What a rank takes for an iteration of the block by itself."""
        return rank.first - straight(self.profile.shared, rank.computes) + iteration * rank.step

    def _slowest_at(self, iteration: int) -> Engine:
        """The rank that takes longest; of those that take as long, the one that will."""
        busy = [rank for rank in self.ranks if rank.busy]
        most = max(self._own(rank, iteration) for rank in busy)
        return max((rank for rank in busy if self._own(rank, iteration) >= most - APART), key=lambda rank: rank.step)


def _load(rank: Engine) -> int:
    waiting = sum(len(queue) for queue in rank.queues)
    return 4 * waiting + rank.inside - waiting


def _add(whole: Outcome, part: Outcome) -> None:
    whole.prompts += part.prompts
    whole.finished += part.finished
    whole.sent += part.sent
