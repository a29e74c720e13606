"""The data parallel ranks of an emulated engine: which of them takes a request, and the steps they keep together.

Each rank is a `RunningBatch`. Where they keep in step, as those of a mixture of experts do, an iteration begins and ends for all
of them and takes as long as the slowest rank's; docs/reference/kernel.md, "Data parallel ranks", has the rules. Time comes in.
Knows no text, no socket and no clock. Read next: `batch.py`, `engine.py`.
"""

from sageserve.base.units import NEVER, Micros
from sageserve.core.engine.rules import rank_load
from sageserve.core.engine.timing import EngineRow, block_time, shared_time
from sageserve.live.emulator.batch import RunningBatch, Sequence, Sink


class EngineRanks:
    """All ranks of an engine; most have one.

    Args:
        row: of the engine.
        sink: told of tokens, rank by rank.
    """

    def __init__(self, row: EngineRow, sink: Sink) -> None:
        self.row = row
        self.slowness = 1.0  # iterations take so many times as long
        self.ranks = [RunningBatch(row, sink) for _ in range(row["ranks"])]
        self._together = row["lockstep"] != 0
        self._due: Micros = NEVER  # end of the iteration that all ranks are in

    @property
    def due(self) -> Micros:
        """When something happens next."""
        return self._due if self._together else min(rank.due for rank in self.ranks)

    @property
    def running(self) -> int:
        """Sequences in the batches."""
        return sum(rank.running for rank in self.ranks)

    @property
    def waiting(self) -> int:
        """Sequences in the queues."""
        return sum(rank.waiting for rank in self.ranks)

    @property
    def used(self) -> int:
        """KV tokens held."""
        return sum(rank.used for rank in self.ranks)

    @property
    def preemptions(self) -> int:
        """So far."""
        return sum(rank.preemptions for rank in self.ranks)

    @property
    def asked_cache(self) -> int:
        """Tokens of admitted contexts."""
        return sum(rank.asked_cache for rank in self.ranks)

    @property
    def found_cache(self) -> int:
        """Those that needed no computing."""
        return sum(rank.found_cache for rank in self.ranks)

    def submit(self, sequence: Sequence) -> None:
        """Give a sequence to the rank that has fewest; an idle engine wakes at its arrival."""
        loads = [rank_load(rank.waiting, rank.waiting + rank.running) for rank in self.ranks]
        sequence.rank = loads.index(min(loads))
        self.ranks[sequence.rank].submit(sequence)
        if self._together and not any(rank.busy for rank in self.ranks):
            self._due = min(self._due, sequence.arrival)

    def abort(self, sequence: Sequence) -> None:
        """Take a sequence out wherever it is; its memory is free at once."""
        self.ranks[sequence.rank].abort(sequence)

    def advance(self, now: Micros) -> None:
        """Let everything happen that is due until `now`, included."""
        while (end := self.due) <= now:
            if self._together:
                self._due = self._step(end)
                continue
            for rank in self.ranks:
                rank.slowness = self.slowness
                rank.advance(end)

    def _step(self, now: Micros) -> Micros:
        """One iteration of all ranks ends, the next begins; when it ends."""
        for rank in self.ranks:
            rank.end_iteration(now)
        for rank in self.ranks:
            rank.begin_iteration(now)
        busy = [rank.iteration() for rank in self.ranks if rank.busy]
        if not busy:
            return NEVER
        tokens = sum(computed for computed, _ in busy) + len(self.ranks) - len(busy)  # an idle rank computes one for nothing
        slowest = max(time - shared_time(self.row, computed) for computed, time in busy)
        return now + block_time(self.slowness * (slowest + shared_time(self.row, tokens * self.row["per_rank"])), 0.0, 1)
