"""Records every layer shares: a trace of requests as columns, demand as binned series, and the row a request has in memory.

Two dialects, never mixed: arrays per request (here), frozen records per tick (`core/events.py`, `core/actions.py`).
Knows no files and no policies. Read next: `data/traces/read.py` for how traces are read, `sim/kernel/state.py` for how rows
are used.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from sageserve.base.errors import TraceError
from sageserve.base.units import Micros

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]

UNSET: Final = -1
"""A time or row number that is not known yet."""

_FIELDS: Final = (
    ("arrival", "i8", 0),  # at the front door
    ("first", "i8", 8),  # first token left the engine; UNSET before
    ("finish", "i8", 16),  # last token left the engine; UNSET before
    ("deadline", "i8", 24),  # when the tier (or the request itself) wants it done
    ("prompt", "i4", 32),
    ("output", "i4", 36),  # the true output length: only the engine may read it
    ("cached", "i4", 40),  # tokens of the prompt that the engine finds in its prefix cache
    ("next", "i4", 44),  # links: waiting queue, prefill batch, running list
    ("made", "i4", 48),  # while not running: tokens made before it last left the batch (preemption); `output` once done
    ("prev", "i4", 48),  # while running: the request admitted after it
    ("finish_step", "i4", 52),  # engine step at which it finishes while running; UNSET otherwise
    ("instance", "i4", 56),  # where it was placed; UNSET before
    ("model", "u1", 60),
    ("region", "u1", 61),  # origin
    ("tier", "u1", 62),
    ("state", "u1", 63),
)
REQUEST: Final = np.dtype(
    {
        "names": [name for name, _, _ in _FIELDS],
        "formats": [kind for _, kind, _ in _FIELDS],
        "offsets": [offset for _, _, offset in _FIELDS],
        "itemsize": 64,
    },
    align=True,
)
"""One request in memory, 64 bytes: one cache line. Times are microseconds, lengths are tokens.

`made` and `prev` are the same four bytes, for they are never needed at once.
"""

CACHE_BLOCK: Final = 16
"""Tokens that a prefix cache keeps together: vLLM's default block size."""


@dataclass(frozen=True, slots=True)
class Names:
    """What the codes in a trace mean: code i stands for the i-th name."""

    models: tuple[str, ...]
    regions: tuple[str, ...]
    tiers: tuple[str, ...]


Label: TypeAlias = Literal["session", "adapter", "tenant", "user", "key"]
"""Names that a request may carry beside its model, tier and region; any number of different ones."""

Count: TypeAlias = Literal["turn", "images", "audio"]
"""Whole numbers that a request may carry beside its lengths."""

LABELS: Final[tuple[Label, ...]] = get_args(Label)
COUNTS: Final[tuple[Count, ...]] = get_args(Count)


@dataclass(frozen=True, slots=True)
class Labels:
    """A column of names.

    Args:
        codes: int32[n], rows of `names`; UNSET where the source does not say.
        names: each once.
    """

    codes: NDArray[np.int32]
    names: tuple[str, ...]

    def take(self, order: Ints | None) -> "Labels":
        """The names of these rows, in this order; None: of all as they are."""
        return self if order is None else Labels(self.codes[order], self.names)


@dataclass(frozen=True, slots=True)
class PromptBlocks:
    """Hashes of the blocks that prompts begin with; equal hashes stand for equal prompts up to the end of that block.

    Args:
        ends: int64[n], where each request's hashes end in `hashes`; they begin where those of the row before end.
        hashes: uint64[ends[-1]], in the order of the prompt.
        size: tokens per block; the last block of a prompt may be cut.
    """

    ends: Ints
    hashes: NDArray[np.uint64]
    size: int

    def __len__(self) -> int:
        return len(self.ends)

    def counts(self) -> Ints:
        """int64[n]: hashes of each request."""
        return np.diff(self.ends, prepend=0)

    def take(self, rows: Ints) -> "PromptBlocks":
        """The hashes of these rows, in that order."""
        counts = self.counts()[rows]
        ends = np.cumsum(counts)
        starts = self.ends[rows] - counts
        places = np.repeat(starts - (ends - counts), counts) + np.arange(int(counts.sum()))
        return PromptBlocks(ends, self.hashes[places], self.size)


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests as columns, sorted by arrival; all columns have n rows.

    Args:
        arrival: int64[n], microseconds from the start of the window, never decreasing, >= 0.
        prompt: int32[n], prompt tokens, >= 1.
        output: int32[n], output tokens, >= 1.
        model: uint8[n], codes into `names.models`.
        region: uint8[n], codes into `names.regions`: where the request enters.
        tier: uint8[n], codes into `names.tiers`.
        names: what the codes mean.
        window: the length of time the trace covers; GPU-hours are counted over it. At least the last arrival + 1.
        deadline: int64[n] absolute microseconds for requests that carry their own deadline, UNSET for those that do
            not; None when no request does.
        cached: int32[n], tokens of the prompt that the engine finds in its prefix cache, 0 <= cached < prompt; UNSET where
            the source does not say; None when it says so of no request.
        notes: what a reader or generator did that the user should know, in sentences.
        start: microseconds since 1970 (UTC) of time 0; None where the source has no dates.
        labels: names of sessions, adapters, tenants, users and keys; only those that the source knows.
        counts: int32[n] each; turns of a session as the source counts them, images and audio clips of a prompt; UNSET where it
            does not say.
        delay: int64[n], microseconds that a session waits after the answer of its turn before; UNSET where the source does not
            say. A turn without a time of its own arrives that long after the arrival of the turn before, as early as it can.
        blocks: hashes of the prompts' blocks; `cached` already holds what a cache without bounds would find of them.
    """

    arrival: Ints
    prompt: NDArray[np.int32]
    output: NDArray[np.int32]
    model: NDArray[np.uint8]
    region: NDArray[np.uint8]
    tier: NDArray[np.uint8]
    names: Names
    window: Micros
    deadline: Ints | None = None
    notes: tuple[str, ...] = ()
    cached: NDArray[np.int32] | None = None
    start: Micros | None = None
    labels: Mapping[Label, Labels] = field(default_factory=dict)
    counts: Mapping[Count, NDArray[np.int32]] = field(default_factory=dict)
    delay: Ints | None = None
    blocks: PromptBlocks | None = None

    def __len__(self) -> int:
        return len(self.arrival)

    def take(self, rows: Ints) -> "Trace":
        """The requests of these rows, in that order; names, window and notes stay."""
        return replace(
            self,
            arrival=self.arrival[rows],
            prompt=self.prompt[rows],
            output=self.output[rows],
            model=self.model[rows],
            region=self.region[rows],
            tier=self.tier[rows],
            deadline=None if self.deadline is None else self.deadline[rows],
            cached=None if self.cached is None else self.cached[rows],
            labels={label: Labels(column.codes[rows], column.names) for label, column in self.labels.items()},
            counts={count: column[rows] for count, column in self.counts.items()},
            delay=None if self.delay is None else self.delay[rows],
            blocks=None if self.blocks is None else self.blocks.take(rows),
        )

    def check(self) -> "Trace":
        """Return the trace itself if its columns keep their promises.

        Raises:
            TraceError: columns of different lengths, unsorted or negative arrivals, lengths below 1, unknown codes, a prompt
                of which nothing is left to compute.
        """
        n = len(self.arrival)
        columns = (self.prompt, self.output, self.model, self.region, self.tier, self.deadline, self.cached, self.delay)
        more = (self.blocks, *(each.codes for each in self.labels.values()), *self.counts.values())
        if any(column is not None and len(column) != n for column in (*columns, *more)):
            raise TraceError("the columns of a trace must all have the same number of rows")
        if n == 0:
            return self
        if int(self.arrival[0]) < 0 or bool((np.diff(self.arrival) < 0).any()):
            raise TraceError("the arrivals of a trace must be sorted and not negative")
        if int(self.prompt.min()) < 1 or int(self.output.min()) < 1:
            raise TraceError("prompts and outputs of a trace must be at least one token long")
        if int(self.arrival[-1]) >= self.window:
            raise TraceError("a trace's window must end after its last arrival")
        if self.cached is not None and bool(((self.cached < UNSET) | (self.cached >= self.prompt)).any()):
            raise TraceError("cached tokens of a trace must be fewer than the prompt's, and not negative")
        for column, names in (
            (self.model, self.names.models),
            (self.region, self.names.regions),
            (self.tier, self.names.tiers),
        ):
            if int(column.max()) >= len(names):
                raise TraceError("a trace holds a code that stands for no name")
        for label, each in self.labels.items():
            if int(each.codes.min()) < UNSET or int(each.codes.max()) >= len(each.names):
                raise TraceError(f"a trace holds a {label} code that stands for no name")
        return self


def cached_tokens(trace: Trace, prefix_hits: Sequence[float]) -> NDArray[np.int32]:
    """int32[n]: tokens of each prompt that the engine finds in its prefix cache.

    What the trace says; else the share `prefix_hits` of the prompt in whole blocks, and at least one token is left to compute
    (vLLM computes the last token of a prompt that is cached whole).

    Args:
        trace: the requests.
        prefix_hits: share of a prompt that is found, by model; empty: nothing.
    """
    cached = np.zeros(len(trace), np.int32)
    if any(prefix_hits):
        share = np.array(prefix_hits)[trace.model]
        cached = np.minimum(trace.prompt - 1, np.floor(trace.prompt * share / CACHE_BLOCK) * CACHE_BLOCK).astype(np.int32)
    return cached if trace.cached is None else np.where(trace.cached == UNSET, cached, trace.cached)


@dataclass(frozen=True, slots=True)
class Demand:
    """Arriving tokens per time bin, as a forecaster sees them.

    Args:
        start: the instant the first bin begins, microseconds; negative before the simulated window.
        bin: length of a bin, microseconds.
        prompt_tokens: float64[bins, regions, models, tiers].
        output_tokens: float64[bins, regions, models, tiers].
        requests: float64[bins, regions, models, tiers].
    """

    start: Micros
    bin: Micros
    prompt_tokens: Floats
    output_tokens: Floats
    requests: Floats
