"""One engine, one iteration at a time: the slow half of the reference that follows docs/reference/kernel.md word for word.

Every sequence counts its own tokens and every sum is a sum. Knows queues and batches of one instance; no fleet, no
signals, nothing compiled but the rounding rule of a block's end. Read next: `reference.py` for the fleet around it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from sageserve.base.kernel import Rec
from sageserve.base.records import CACHE_BLOCK
from sageserve.core.perf import block_time
from tests.sim.reference_adapters import ReferenceSlots
from tests.sim.reference_cache import Path, ReferenceCache
from tests.sim.reference_profile import Profile

NO_TIME = 2**62


@dataclass(slots=True)
class Job:
    """A request as the engine sees it."""

    row: int
    arrival: int
    deadline: int
    prompt: int
    output: int
    tier: int
    queue: int  # index of the queue it waits in: its tier, or the number of tiers once promoted
    cached: int  # tokens of the prompt that are found in the prefix cache
    made: int = 0
    filled: int = 0  # tokens of the context found or prefilled so far
    piece: int = 0  # tokens prefilled by the iteration in progress
    path: Path | None = None  # hashes of the whole blocks of its prompt; None: what it finds is stated
    answer: Path = ()  # those and, as far as the next turn has them, of its answer
    blocks_found: int = 0  # when it was admitted
    source: "Engine | None" = None  # the rank that prefilled it and keeps its KV cache
    adapter: int | None = None  # None: the model itself
    passed: int | None = None  # when it was passed over first for want of a slot, until it is admitted
    slot_wait: int = 0

    @property
    def context(self) -> int:
        return self.prompt + self.made

    @property
    def to_compute(self) -> int:
        return self.context - self.cached


def job_of(row: int, r: Rec) -> Job:
    """A REQUEST row as an engine sees it."""
    arrival, deadline, prompt, output = (int(r[name]) for name in ("arrival", "deadline", "prompt", "output"))
    tier, cached = int(r["tier"]), int(r["cached"])
    return Job(row, arrival, deadline, prompt, output, tier, queue=tier, cached=cached)


@dataclass(slots=True)
class Outcome:
    """What the end of a block did."""

    prompts: list[Job] = field(default_factory=list)  # prompts completed, in the order they were admitted
    finished: list[Job] = field(default_factory=list)
    sent: list[Job] = field(default_factory=list)  # of the prompts, those that are decoded elsewhere
    joined: list[Job] = field(default_factory=list)  # prefilled elsewhere, and decoded here from now on
    preempted: list[Job] = field(default_factory=list)


Key = Callable[[Job, int], tuple[int, ...]]


class Engine:
    """An instance's queues, batch and current block.

    Args:
        profile: its speed and limits.
        queues: number of queues (tiers and one for promoted jobs).
        key: sort key of a job at an instant, smaller first.
        prefills: prompts alone; whoever has more than one token to make is decoded elsewhere.
    """

    def __init__(self, profile: Profile, queues: int, key: Key, *, prefills: bool = False) -> None:
        self.profile, self.prefills = profile, prefills
        self.kept: list[Job] = []  # prefilled here and not let in yet where they are decoded
        self.queues: list[list[Job]] = [[] for _ in range(queues)]
        self.key = key
        self.decoding: list[Job] = []  # in the order they were admitted
        self.prefilling: list[Job] = []  # admitted prompts, in the order they were admitted
        self.busy = False
        self.start = 0
        self.first = 0.0
        self.step = 0.0
        self.computes = 0  # tokens in each iteration of this block
        self.done = 0  # iterations of this block that have ended
        self.short = False  # the block is one iteration long
        self.cut = False
        self.decodes = False  # decoding sequences take part
        self.decoded = 0  # iterations in which any did, ever
        self.beyond = 0  # tokens that were accepted after the last one of an answer
        self.used_at_start = 0
        self.end = NO_TIME  # of the iteration in progress
        self.last = False  # the iteration in progress is the last of its block
        self.given = 0  # KV tokens ever given to requests here
        self.lost: Job | None = None  # the latest preempted one
        self.lost_tokens = 0  # KV tokens it had computed
        self.lost_given = 0  # `given` at that time
        self.recovered = 0  # how often the preempted found some of it again
        self.joined: list[Job] = []  # let in by the latest composition
        self.cache: ReferenceCache | None = None  # None: nobody's blocks are hashed
        self.slots = ReferenceSlots(profile)

    # ---- what can be seen from outside

    @property
    def inside(self) -> int:
        return len(self.decoding) + len(self.prefilling) + sum(len(queue) for queue in self.queues) + len(self.kept)

    @property
    def batch(self) -> list[Job]:
        return self.decoding + self.prefilling

    @property
    def unprefilled(self) -> int:
        """Tokens to compute for prompts placed here that are not finished, prefilled pieces included."""
        waiting = sum(job.to_compute for queue in self.queues for job in queue if job.source is None)
        return waiting + sum(job.to_compute for job in self.prefilling)

    @property
    def used(self) -> int:
        decoding = sum(job.prompt + job.made for job in self.decoding)
        alone = decoding + sum(job.context + 1 for job in self.prefilling + self.kept)
        if self.cache is None:
            return alone
        twice = sum(len(job.path) for job in self.decoding + self.prefilling if job.path is not None)
        return alone - twice * self.cache.size + self.cache.used

    def cached(self, job: Job) -> int:
        """Tokens of its context that are in the cache, or stated to be."""
        if self.cache is None or job.path is None:
            return job.cached
        return min(self.cache.there(job.path) * self.cache.size, (job.context - 1) // CACHE_BLOCK * CACHE_BLOCK)

    def needs(self, job: Job) -> int:
        """Tokens of memory that it needs beyond those that others use."""
        shared = 0 if self.cache is None or job.path is None else self.cache.held(job.path) * self.cache.size
        return job.context + 1 - shared

    def _leave(self, job: Job, answer: Path, computed: int) -> None:
        if self.cache is not None and job.path is not None:
            self.cache.let_go(job.row, job.path, answer, max(job.blocks_found, computed // self.cache.size))

    def _shrink(self) -> None:
        """What is cached has the memory that is left."""
        if self.cache is not None:
            self.cache.shrink(self.profile.kv_tokens - (self.used - self.cache.used))

    def head(self, now: int) -> Job | None:
        heads: list[Job] = []
        for queue in self.queues:
            for job in queue:
                if not self.slots.has_none_for(job, self.batch):
                    heads.append(job)
                    break
                job.passed = now if job.passed is None else job.passed
        return min(heads, key=lambda job: (self.key(job, now), job.queue), default=None)

    # ---- a request is placed

    def place(self, job: Job, now: int) -> bool:
        """Append the job to its queue; an idle engine wakes now. True when this cut the block."""
        self.queues[job.queue].append(job)
        if not self.busy:
            self.end, self.last = now, True
            return False
        if self.cut or not self.decodes or not self.could_join(job, now):
            return False
        self.cut = True
        was_last, self.last = self.last, True
        return not was_last

    def could_join(self, job: Job, now: int) -> bool:
        """Whether a job that waits here would be admitted at the end of an iteration in which nothing is prefilled."""
        n = len(self.decoding)
        if self.prefilling or n >= self.profile.max_sequences or self.head(now) is not job:
            return False
        return self._has_memory(job, self.used + n * self.profile.made_in(self.decoded), n)

    # ---- iterations

    def end_iteration(self, now: int) -> Outcome | None:
        """The iteration in progress ends, or an idle engine wakes; None when the block goes on."""
        if not self.busy:
            assert not self.compose(now)
            joined, self.joined = self.joined, []
            return Outcome(joined=joined)
        self.count_tokens()
        if not self.last:
            self.look_ahead()
            return None
        outcome = self.end_block()
        outcome.preempted = self.compose(now)
        outcome.joined, self.joined = self.joined, []
        return outcome

    def count_tokens(self) -> None:
        """Every sequence and every prompt has what the iteration in progress computed."""
        if self.decodes:
            made = self.profile.made_in(self.decoded)
            for job in self.decoding:
                job.made += made
                self.given += made
            self.decoded += bool(self.decoding)
        for job in self.prefilling:
            job.filled += job.piece
        self.done += 1

    def end_block(self) -> Outcome:
        """Those who have all their tokens leave, and those whose prompt is filled decode from now on."""
        self._shrink()
        outcome = Outcome()
        finished = [job for job in self.decoding if job.made >= job.output]
        outcome.finished = sorted(finished, key=lambda job: (job.output - job.made, job.row))
        self.decoding = [job for job in self.decoding if job.made < job.output]
        filled = outcome.prompts = [job for job in self.prefilling if job.filled == job.context]
        self.prefilling = [job for job in self.prefilling if job.filled < job.context]
        if self.prefills:
            outcome.sent = [job for job in outcome.prompts if job.output > 1]
            outcome.prompts = [job for job in outcome.prompts if job.output == 1]
            self.kept += outcome.sent
        for job in outcome.prompts:
            job.made += 1
            (self.decoding if job.made < job.output else outcome.finished).append(job)
        gone = [job for job in filled if job.made >= job.output or (self.prefills and job.output > 1)]
        self.slots.leave([*sorted(finished, key=lambda job: (job.output - job.made, job.row)), *gone], self.batch)
        for job in finished:
            self.beyond += job.made - job.output
            job.made = job.output
        for job in outcome.finished:
            self._leave(job, job.answer, job.context + 10**9)
        self.busy = False
        return outcome

    def look_ahead(self) -> None:
        """Find when the iteration in progress ends, and whether the block ends with it."""
        profile, n = self.profile, len(self.decoding)
        self.end = self.start + block_time(self.first, self.step, self.done + 1)
        self.last = self.short or self.cut
        if self.decodes and n:
            made = profile.made_in(self.decoded)
            finishes = any(job.made + made >= job.output for job in self.decoding)
            self.last = self.last or finishes or self.used + n * (made + 1 + profile.drafted) > profile.kv_tokens
        for job in self.prefilling:
            rest = job.context - job.filled - job.piece
            self.last = self.last or rest <= job.piece

    def compose(self, now: int) -> list[Job]:
        """Begin the next block, or fall idle; the preempted, first to last."""
        for job in self.prefilling:
            job.piece = 0
        preempted: list[Job] = []
        if self.profile.mixed:
            preempted = self._preempt()
            if not preempted:
                self._admit_prompts(now, self.profile.max_batched - len(self.decoding) * (1 + self.profile.drafted))
            self.decodes = bool(self.decoding)
        else:
            self._admit_prompts(now, self.profile.max_batched)
            if not self.prefilling:
                preempted = self._preempt()
            self.decodes = bool(self.decoding) and not self.prefilling
        self._begin(now, bool(preempted))
        return preempted

    def _preempt(self) -> list[Job]:
        out: list[Job] = []
        while (
            self.decoding
            and self.used + len(self.decoding) * (1 + self.profile.drafted) > self.profile.kv_tokens
            and len(self.decoding) + len(self.prefilling) > 1
        ):
            self.lost_tokens = self.prefilling[-1].filled if self.prefilling else self.decoding[-1].context
            job = self.prefilling.pop() if self.prefilling else self.decoding.pop()
            self.lost, self.lost_given = job, self.given
            self._leave(job, job.path or (), self.lost_tokens)
            self.slots.leave([job], self.batch)
            job.filled = job.piece = 0
            self.queues[job.queue].insert(0, job)
            out.append(job)
        return out

    def _fits(self, job: Job) -> bool:
        return self._has_memory(job, self.used, len(self.batch))

    def _next(self, now: int) -> Job | None:
        """Who is to be admitted next, if another sequence may be."""
        return self.head(now) if len(self.batch) < self.profile.max_sequences else None

    def _take(self, job: Job, now: int) -> None:
        """A job is admitted: it leaves its queue, where those before it are passed over."""
        queue = self.queues[job.queue]
        assert all(self.slots.has_none_for(one, self.batch) for one in queue[: queue.index(job)])
        queue.remove(job)
        self.slots.admit(job, self.batch, now)

    def _has_memory(self, job: Job, used: int, running: int) -> bool:
        """Whether there is memory for a job beside `running` others; for its whole answer and theirs if nobody is evicted."""
        needs, capacity = self.needs(job), self.profile.kv_tokens
        if self.profile.evicts or (running == 0 and used + needs <= capacity):
            room = (running + 1) * (1 + self.profile.drafted) if running else 0
            return used + needs + room <= capacity
        drafts = (running + 1) * self.profile.drafted
        if self.prefills:
            return self.used + needs + drafts <= capacity
        inside = [one.output - one.made for one in self.decoding] + [one.output - one.made - 1 for one in self.prefilling]
        return self.used + sum(inside) + needs - 1 + job.output - job.made + drafts <= capacity

    def _found(self, job: Job) -> int:
        """Tokens of its context that need not be computed."""
        if self.lost is not job or not self.profile.caching:
            return self.cached(job)
        left = min(self.lost_tokens - (self.given - self.lost_given), job.context - 1)
        return max(self.cached(job), left // CACHE_BLOCK * CACHE_BLOCK)

    def _admit(self, job: Job, budget: int, now: int) -> None:
        self._take(job, now)
        in_cache = self.cached(job)
        job.filled = self._found(job)
        job.piece = min(job.context - job.filled, budget)
        self.given += job.context - job.filled + 1
        self.recovered += job.filled > in_cache
        if self.lost is job:
            self.lost = None
        if job.made == 0:
            job.cached = in_cache
        self.prefilling.append(job)
        if self.cache is not None and job.path is not None:
            job.blocks_found = self.cache.there(job.path)
            self.cache.hold(job.row, job.path)
        self._shrink()

    def _join(self, job: Job, now: int) -> int:
        """Let a job in that was prefilled elsewhere, with its first token; tokens of the budget it takes from now on."""
        self._take(job, now)
        self.given += 1
        job.made = 1
        self.decoding.append(job)
        self.joined.append(job)
        return 1 + self.profile.drafted if self.profile.mixed else 0

    def _admit_prompts(self, now: int, budget: int) -> None:
        if self.profile.chunked:
            self._admit_chunks(now, budget)
        else:
            self._admit_whole(now, budget)

    def _admit_chunks(self, now: int, budget: int) -> None:
        for job in self.prefilling:  # at most one: the partly prefilled prompt
            job.piece = min(job.context - job.filled, budget)
            budget -= job.piece
        while budget > 0 and (head := self._next(now)) is not None and self._fits(head):
            if head.source is not None:
                budget -= self._join(head, now)
                continue
            self._admit(head, budget, now)
            budget -= head.piece

    def _admit_whole(self, now: int, budget: int) -> None:
        while budget > 0 and (head := self._next(now)) is not None and self._fits(head):
            if head.source is not None:
                budget -= self._join(head, now)
                continue
            if head.context - self._found(head) > budget and self.prefilling:
                break
            self._admit(head, head.context, now)
            budget -= head.piece

    def _begin(self, now: int, preempted: bool) -> None:
        self.used_at_start = self.used - sum(job.context + 1 for job in self.kept)  # what is kept may go meanwhile
        self.busy = bool(self.decoding or self.prefilling)
        self.end, self.cut, self.done, self.start = NO_TIME, False, 0, now
        if not self.busy:
            return
        profile = self.profile
        n = len(self.decoding) if self.decodes else 0
        kv = sum(job.prompt + job.made for job in self.decoding) if self.decodes else 0
        pieces = [(job.piece, job.filled) for job in self.prefilling]
        loads = self.slots.loads
        self.first = profile.iteration(pieces, n, kv) + self.slots.time(self.prefilling + (self.decoding if self.decodes else []))
        self.step = profile.d * n * profile.gain
        completes = any(job.filled + job.piece == job.context for job in self.prefilling)
        self.short = preempted or completes or len(pieces) > 1 or loads > 0
        if len(pieces) == 1:
            self.step += profile.e * pieces[0][0] ** 2
        self.computes = n * (1 + profile.drafted) + sum(p for p, _ in pieces)
        self.look_ahead()
