"""Continuous batching, one iteration at a time: chunked prefill or prefill-first, limits, preemption by recompute.

The rules are those of docs/reference/kernel.md, "Inside an instance", with one queue ordered by (priority, arrival). Iterations
are rounded to whole microseconds one by one, where the simulator rounds a block of them once: less than a microsecond each. How
long one takes and who is admitted are the functions of `core/engine`, which the simulator compiles. Time is passed in. A batch
is that of one rank. Knows no text, no socket and no clock. Read next: `ranks.py`, which puts ranks together; `engine.py`, which
gives them a clock.
"""

from heapq import heappop, heappush
from typing import Protocol

from sageserve.base.units import NEVER, Micros
from sageserve.core.engine.rules import fits_memory, fits_whole, found_again, tokens_made
from sageserve.core.engine.timing import EngineRow, block_time, iteration_time
from sageserve.live.emulator.adapters import AdapterSlots


class Sequence:
    """One answer in the making.

    Args:
        number: unique and rising.
        prompt: tokens before the answer.
        output: tokens of the answer; at least 1.
        arrival: when it came.
        priority: lower goes first; those of equal priority go by arrival.
        cached: tokens of the prompt that the prefix cache holds, fewer than the prompt's.
        adapter: number of the LoRA adapter that it asks for; -1: none.
    """

    __slots__ = (
        "adapter", "admitted", "arrival", "cached", "filled", "first", "last", "made", "number", "output", "piece", "place",
        "priority", "prompt", "rank",
    )  # fmt: skip

    WAITING, PREFILLING, DECODING, OUT = range(4)

    def __init__(  # noqa: PLR0913 # what a request is
        self, number: int, *, prompt: int, output: int, arrival: Micros, priority: int = 0, cached: int = 0, adapter: int = -1
    ) -> None:
        self.number = number
        self.adapter = adapter
        self.prompt = prompt
        self.output = output
        self.arrival = arrival
        self.priority = priority
        self.cached = cached
        self.made = 0
        self.filled = 0  # tokens of the context prefilled so far
        self.piece = 0  # tokens prefilled by the iteration in progress
        self.place = Sequence.OUT
        self.rank = 0  # that it was given to
        self.admitted: Micros = -1  # for the first time
        self.first: Micros = -1  # when its first token came
        self.last: Micros = -1  # when its latest token came

    @property
    def context(self) -> int:
        """Tokens that must be in the KV cache for the next one."""
        return self.prompt + self.made


class Sink(Protocol):
    """Is told what an iteration brought; must not submit or abort while it is told."""

    def made(self, now: Micros, decoded: list[Sequence], prompts: list[Sequence]) -> None:
        """Each of these has one token more (`sequence.made`); done are those with `made == output`.

        An iteration that gives several tokens to those that decode is told of as often, at the same instant.
        """


class RunningBatch:
    """Queue, running sequences and the iteration in progress.

    Args:
        row: of the engine.
        sink: told of tokens.
    """

    def __init__(self, row: EngineRow, sink: Sink) -> None:
        self.row = row
        self.slowness = 1.0  # iterations take so many times as long
        self.used = 0  # KV tokens: of decoding sequences, and reserved by admitted prompts
        self.preemptions = 0
        self.asked_cache = 0  # tokens of admitted contexts
        self.found_cache = 0  # those that needed no computing
        self.waiting = 0
        self.due: Micros = NEVER  # when something happens next
        self._slots = AdapterSlots(row)
        self._sink = sink
        self._queue: list[tuple[int, Micros, int, Sequence]] = []  # a heap; those that left are skipped
        self._decoding: list[Sequence] = []  # in the order they were admitted
        self._prefilling: list[Sequence] = []
        self.busy = False  # an iteration is in progress
        self._decodes = False  # decoding sequences take part in the iteration in progress
        self._steps = 0  # iterations in which sequences decoded
        self._given = 0  # KV tokens ever given to sequences
        self._lost: Sequence | None = None  # the latest preempted one: what it computed may still be there
        self._lost_tokens = 0  # so much it had computed
        self._lost_given = 0  # `_given` at that time

    @property
    def running(self) -> int:
        """Sequences in the batch."""
        return len(self._decoding) + len(self._prefilling)

    def submit(self, sequence: Sequence) -> None:
        """Put a sequence into the queue; an idle engine wakes at its arrival."""
        self._enqueue(sequence)
        if not self.busy:
            self.due = min(self.due, sequence.arrival)

    def abort(self, sequence: Sequence) -> None:
        """Take a sequence out wherever it is; its memory is free at once."""
        match sequence.place:
            case Sequence.WAITING:
                self.waiting -= 1
            case Sequence.PREFILLING:
                self._prefilling.remove(sequence)
                self._slots.leave(sequence)
                self.used -= sequence.context + 1
            case Sequence.DECODING:
                self._decoding.remove(sequence)
                self._slots.leave(sequence)
                self.used -= sequence.context
            case _:
                return
        sequence.place = Sequence.OUT

    def advance(self, now: Micros) -> None:
        """Let everything happen that is due until `now`, included."""
        while self.due <= now:
            end = self.due
            self.end_iteration(end)
            self.begin_iteration(end)
            self.due = end + block_time(self.slowness * self.iteration()[1], 0.0, 1) if self.busy else NEVER

    # --- the end of an iteration ---

    def end_iteration(self, now: Micros) -> None:
        """The iteration in progress, if there is one, is over."""
        if self.busy:
            self._finish(now)

    def _finish(self, now: Micros) -> None:
        decoded: list[Sequence] = []
        if self._decodes:
            decoded = self._decode(now)
        prompts = self._prefilled() if self._prefilling else []
        if decoded or prompts:
            self._sink.made(now, decoded, prompts)
        over = sorted((one for one in self._decoding if one.made >= one.output), key=lambda one: one.number)
        if over:
            self._decoding = [one for one in self._decoding if one.made < one.output]
        for one in prompts:
            if one.made >= one.output:
                over.append(one)
            else:
                one.place = Sequence.DECODING
                self._decoding.append(one)
        for one in over:
            self._slots.leave(one)
            self.used -= one.context
            one.place = Sequence.OUT

    def _decode(self, now: Micros) -> list[Sequence]:
        """Those that decode have what the iteration made, of which all but the last token is told here; who has that one."""
        extra = self.row["extra"]
        made = tokens_made(self._steps + 1, extra) - tokens_made(self._steps, extra)
        self._steps += 1
        self._given += made * len(self._decoding)
        decoded = self._decoding
        for number in range(made):
            if number > 0:
                self._sink.made(now, decoded, [])
                decoded = [one for one in decoded if one.made < one.output]
            for one in decoded:
                one.made += 1
            self.used += len(decoded)
        return decoded

    def _prefilled(self) -> list[Sequence]:
        """The prompts that are complete with this iteration, each with one token more."""
        for one in self._prefilling:
            one.filled += one.piece
            one.piece = 0
        done = [one for one in self._prefilling if one.filled >= one.context]
        self._prefilling = [one for one in self._prefilling if one.filled < one.context]
        for one in done:
            one.made += 1  # its token was reserved: `used` stays
        return done

    # --- the next iteration ---

    def begin_iteration(self, now: Micros) -> None:
        """Choose what the next iteration computes; there is none if nothing is to be done."""
        self._slots.loads = 0
        admit = self._admit_chunks if self.row["chunked"] else self._admit_whole
        if self.row["mixed"]:
            if not self._preempt():
                admit(now, self.row["max_batched"] - len(self._decoding) * (1 + self.row["drafted"]))
            self._decodes = bool(self._decoding)
        else:
            admit(now, self.row["max_batched"])
            if not self._prefilling:
                self._preempt()
            self._decodes = bool(self._decoding) and not self._prefilling
        self.busy = bool(self._decoding or self._prefilling)

    def iteration(self) -> tuple[int, float]:
        """Tokens that the iteration in progress computes, and microseconds that it takes this rank."""
        tokens, attention = 0, 0.0
        for one in self._prefilling:
            tokens += one.piece
            attention += one.piece * (one.filled + one.piece / 2)
        count = len(self._decoding) if self._decodes else 0
        kv = self.used - sum(one.context + 1 for one in self._prefilling) if self._decodes else 0
        time = iteration_time(self.row, tokens, attention, count, kv)
        time += self._slots.time(self._prefilling + self._decoding if self._decodes else self._prefilling)
        return tokens + count * (1 + self.row["drafted"]), time

    def _preempt(self) -> bool:
        preempted = False
        each = 1 + self.row["drafted"]
        while self._decoding and self.used + len(self._decoding) * each > self.row["kv_tokens"] and self.running > 1:
            one = self._prefilling.pop() if self._prefilling else self._decoding.pop()
            self._lost, self._lost_given = one, self._given
            self._lost_tokens = one.filled if one.place == Sequence.PREFILLING else one.context
            self.used -= one.context + (one.place == Sequence.PREFILLING)
            self._slots.leave(one)
            one.filled = one.piece = 0
            self._enqueue(one)
            self.preemptions += 1
            preempted = True
        return preempted

    def _admit_chunks(self, now: Micros, budget: int) -> None:
        for one in self._prefilling:  # at most one: the partly prefilled prompt
            one.piece = min(one.context - one.filled, budget)
            budget -= one.piece
        passed: list[Sequence] = []
        while budget > 0 and (head := self._head(passed)) is not None and self._fits(head):
            self._admit(head, now, budget)
            budget -= head.piece
        self._put_back(passed)

    def _admit_whole(self, now: Micros, budget: int) -> None:
        passed: list[Sequence] = []
        while budget > 0 and (head := self._head(passed)) is not None and self._fits(head):
            to_compute = head.context - self._found(head)
            if to_compute > budget and self._prefilling:
                break
            self._admit(head, now, to_compute)
            budget -= to_compute
        self._put_back(passed)

    def _fits(self, one: Sequence) -> bool:
        running, capacity = self.running, self.row["kv_tokens"]
        if running >= self.row["max_sequences"]:
            return False
        if self.row["evicts"]:
            return fits_memory(self.used, one.context, running, capacity, self.row["drafted"])
        promised = sum(each.output - each.made for each in self._decoding)
        promised += sum(each.output - each.made - 1 for each in self._prefilling)
        left = one.output - one.made + (running + 1) * self.row["drafted"]
        return fits_whole(self.used, promised, one.context, left, running, capacity)

    def _found(self, one: Sequence) -> int:
        """Tokens of its context that need not be computed."""
        if self._lost is not one or not self.row["caching"]:
            return one.cached
        return found_again(one.cached, one.context, self._lost_tokens, self._given - self._lost_given)

    def _admit(self, one: Sequence, now: Micros, budget: int) -> None:
        heappop(self._queue)
        self._slots.admit(one)
        self.waiting -= 1
        found = self._found(one)
        self.asked_cache += one.context
        self.found_cache += found
        self._given += one.context - found + 1
        if self._lost is one:
            self._lost = None
        one.filled, one.piece, one.place = found, min(one.context - found, budget), Sequence.PREFILLING
        one.admitted = now if one.admitted < 0 else one.admitted
        self.used += one.context + 1
        self._prefilling.append(one)

    def _enqueue(self, one: Sequence) -> None:
        one.place = Sequence.WAITING
        self.waiting += 1
        self._put_back([one])

    def _put_back(self, sequences: list[Sequence]) -> None:
        for one in sequences:
            heappush(self._queue, (one.priority, one.arrival, one.number, one))

    def _head(self, passed: list[Sequence]) -> Sequence | None:
        """Who is next; those before it that no slot is free for are taken out of the queue, and noted."""
        while self._queue:
            head = self._queue[0][3]
            if head.place == Sequence.WAITING:
                if not self._slots.has_none_for(head):
                    return head
                passed.append(head)
            heappop(self._queue)
        return None
