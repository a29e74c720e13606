"""The engine model of the naive world: how long an iteration takes, and what a request costs.

Derived from docs/reference/kernel.md ("Signals", "Inside an instance"), not from `core/engine/timing.py`. Knows no queue. Read
next: `reference_engine.py`.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import inf

from sageserve.base.kernel import Rec


@dataclass(frozen=True, slots=True)
class Profile:
    """The curve and the coefficients of an engine, in microseconds, and its limits in tokens and sequences."""

    knots: tuple[tuple[float, float], ...]  # of F: tokens, microseconds
    eager: float
    s: float
    d: float
    e: float
    kv_tokens: int
    weight: int
    max_sequences: int
    max_batched: int
    chunked: bool
    mixed: bool
    evicts: bool
    graphs: int
    caching: bool
    entry: int
    drafted: int
    extra: int  # parts of 2^20 of a token
    drafting: float
    ranks: int
    lockstep: bool
    shared: tuple[tuple[float, float], ...]  # knots of what goes by the mean tokens of all ranks
    slots: int
    adapter: float
    adapters: float
    adapter_load: float

    @classmethod
    def of(cls, row: Rec) -> "Profile":
        """Read one PROFILE row."""
        lines = [
            tuple((float(at), float(us)) for at, us in zip(row[tokens], row[time], strict=True) if at < inf)
            for tokens, time in (("tokens", "time"), ("shared_tokens", "shared_time"))
        ]
        return cls(
            knots=lines[0],
            eager=float(row["eager"]),
            s=float(row["decode"]),
            d=float(row["kv"]),
            e=float(row["attention"]),
            kv_tokens=int(row["kv_tokens"]),
            weight=int(row["weight"]),
            max_sequences=int(row["max_sequences"]),
            max_batched=int(row["max_batched"]),
            chunked=bool(row["chunked"]),
            mixed=bool(row["mixed"]),
            evicts=bool(row["evicts"]),
            graphs=int(row["graphs"]),
            caching=bool(row["caching"]),
            entry=int(row["entry"]),
            drafted=int(row["drafted"]),
            extra=int(row["extra"]),
            drafting=float(row["drafting"]),
            ranks=int(row["ranks"]),
            lockstep=bool(row["lockstep"]),
            shared=lines[1],
            slots=int(row["slots"]),
            **{name: float(row[name]) for name in ("adapter", "adapters", "adapter_load")},
        )

    def curve(self, tokens: float) -> float:
        """F."""
        return straight(self.knots, tokens)

    def decode(self, n: float) -> float:
        """F of an iteration that only decodes."""
        return self.computing(0, n) + (self.eager if n > self.graphs else 0.0)

    def computing(self, tokens: float, n: float) -> float:
        """F with the tokens that n sequences verify, and the drafter's further passes over them."""
        drafting = self.drafting * self.curve(n) if self.drafting and n else 0.0
        return self.curve(tokens + n + n * self.drafted) + drafting

    def made_in(self, iteration: int) -> int:
        """Tokens that each decoding sequence makes in an iteration, numbered from 0, of those in which sequences decode."""
        return 1 + ((iteration + 1) * self.extra >> 20) - (iteration * self.extra >> 20)

    @property
    def gain(self) -> float:
        """Tokens that a sequence makes in an iteration, on average."""
        return 1.0 + self.extra / 2**20

    @property
    def per_token(self) -> float:
        """Microseconds of a prompt token in a full iteration, attention left out."""
        return (self.curve(self.max_batched) + self.eager) / self.max_batched

    def prefill_work(self, x: int, found: int) -> float:
        """Microseconds for a context of x tokens of which `found` are in the prefix cache.

        Here and in `work` products and sums are taken in the simulator's order: where two endpoints are equally busy, the last
        bit of a double decides which of them gets a request.
        """
        u = x - found
        return (u * self.per_token + 0.5 * self.e * u * (x + found)) * (1.0 / self.ranks)

    def work(self, x: int, found: int, o: float) -> float:
        """Microseconds for a context of x tokens and an answer of o tokens, among as many of its like as fit."""
        return self._work_of_rank(x, found, o) * (1.0 / self.ranks)

    def decode_work(self, x: int, o: float) -> float:
        """Microseconds for o tokens after a context of x that was prefilled elsewhere, the first token too."""
        steps = max(o - 1, 0.0) / self.gain
        kept = (x + 0.5 * o if self.evicts else x + o) + self.drafted
        alone = min(1.0, max(1.0 / self.max_sequences, kept * (1.0 / self.kv_tokens)))
        work = steps * (alone * self.decode(1.0 / alone) + self.s + self.d * (x + 0.5 * o))
        if self.evicts and alone > 1.0 / self.max_sequences:
            work += max(o - 1, 0.0) * self.per_token
        return work * (1.0 / self.ranks)

    def _work_of_rank(self, x: int, found: int, o: float) -> float:
        u, steps, budget, each = float(x - found), max(o - 1, 0.0), float(self.max_batched), self.drafted + 1
        if self.drafted:
            steps /= self.gain
        stays = 1 + steps if self.drafted else max(o, 1.0)
        kept = (x + 0.5 * o if self.evicts else x + o) + self.drafted
        alone = min(1.0, max(1.0 / self.max_sequences, kept * (1.0 / self.kv_tokens)))  # one over how many fit
        if self.evicts and alone > 1.0 / self.max_sequences:
            u += o  # what is made at the expense of others is computed again
        own = 0.5 * self.e * u * (x + found) + steps * (self.s + self.d * (x + 0.5 * o))
        if not self.mixed:
            joining = max(1.0, 1.0 / (alone * steps)) if steps else budget / u
            batch = min(budget, joining * u)
            if not self.chunked:
                batch = max(u, batch)
            decode = steps * alone * self.decode(1.0 / alone) if steps else 0.0
            return own + decode + u / batch * (self.curve(batch) + self.eager)
        every = max(stays * alone, (u + steps * each) * (1.0 / self.max_batched))  # iterations from one that joins to the next
        n = steps / every
        if self.chunked and u > budget - n * each:  # a prompt takes several iterations, all of them full
            full = u / (budget - n * each)
            own += full * budget * ((self.curve(budget) + self.eager) / budget)
            return own + max(every - full, 0.0) * self.decode(n)
        if every > 1.0:
            return own + self.computing(u, n) + self.eager + (every - 1.0) * self.decode(n)
        return own + every * (self.computing(u / every, n) + self.eager)

    def iteration(self, pieces: list[tuple[int, int]], n: int, kv: int) -> float:
        """Microseconds of an iteration; `pieces` holds (tokens, tokens of the prompt before)."""
        tokens = sum(p for p, _ in pieces)
        attention = sum(p * (x + p / 2) for p, x in pieces)
        eager = self.eager if pieces or n > self.graphs else 0.0
        return self.computing(tokens, n) + self.s * n + self.d * kv + self.e * attention + eager

    def alone(self, x: int, found: int) -> float:
        """Microseconds from the arrival of a context of x tokens at an idle engine to its first token."""
        total = float(self.entry)
        while found < x:
            piece = min(x - found, self.max_batched) if self.chunked else x - found
            total += self.iteration([(piece, found)], 0, 0)
            if self.lockstep:  # the other ranks compute a token each, for nothing
                total += straight(self.shared, (piece + self.ranks - 1) * (1.0 / self.ranks)) - straight(self.shared, piece)
            found += piece
        return total


def straight(knots: tuple[tuple[float, float], ...], tokens: float) -> float:
    """The straight line through the two knots around `tokens`, the first or the last two outside."""
    for (a, at_a), (b, at_b) in pairwise(knots):  # noqa: B007  # the last pair is kept
        if tokens < b:
            break
    return at_a + (at_b - at_a) * (tokens - a) / (b - a)
