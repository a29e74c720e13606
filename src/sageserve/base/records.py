"""Records every layer shares: a trace of requests as columns, demand as binned series, and the row a request has in memory.

Two dialects, never mixed: arrays per request (here), frozen records per tick (`core/events.py`, `core/actions.py`).
Knows no files and no policies. Read next: `data/traces.py` for how traces are read, `sim/state.py` for how rows are used.
"""

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sageserve.base.errors import TraceError
from sageserve.base.units import Micros

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]

UNSET: Final = -1
"""A time or row number that is not known yet."""

REQUEST: Final = np.dtype(
    [
        ("arrival", "i8"),  # at the front door
        ("first", "i8"),  # first token left the engine; UNSET before
        ("finish", "i8"),  # last token left the engine; UNSET before
        ("deadline", "i8"),  # when the tier (or the request itself) wants it done
        ("prompt", "i4"),
        ("output", "i4"),  # the true output length: only the engine may read it
        ("next", "i4"),  # links: waiting queue, prefill batch, running list
        ("prev", "i4"),
        ("finish_step", "i4"),  # engine step at which it finishes while running; UNSET otherwise
        ("made", "i4"),  # tokens made before it last left the batch (preemption)
        ("instance", "i4"),  # where it was placed; UNSET before
        ("model", "u1"),
        ("region", "u1"),  # origin
        ("tier", "u1"),
        ("state", "u1"),
    ],
    align=True,
)
"""One request in memory, 64 bytes: one cache line. Times are microseconds, lengths are tokens."""


@dataclass(frozen=True, slots=True)
class Names:
    """What the codes in a trace mean: code i stands for the i-th name."""

    models: tuple[str, ...]
    regions: tuple[str, ...]
    tiers: tuple[str, ...]


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
        notes: what a reader or generator did that the user should know, in sentences.
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

    def __len__(self) -> int:
        return len(self.arrival)

    def check(self) -> "Trace":
        """Return the trace itself if its columns keep their promises.

        Raises:
            TraceError: columns of different lengths, unsorted or negative arrivals, lengths below 1, unknown codes.
        """
        n = len(self.arrival)
        columns = (self.prompt, self.output, self.model, self.region, self.tier)
        if any(len(column) != n for column in columns) or (self.deadline is not None and len(self.deadline) != n):
            raise TraceError("the columns of a trace must all have the same number of rows")
        if n == 0:
            return self
        if int(self.arrival[0]) < 0 or bool((np.diff(self.arrival) < 0).any()):
            raise TraceError("the arrivals of a trace must be sorted and not negative")
        if int(self.prompt.min()) < 1 or int(self.output.min()) < 1:
            raise TraceError("prompts and outputs of a trace must be at least one token long")
        if int(self.arrival[-1]) >= self.window:
            raise TraceError("a trace's window must end after its last arrival")
        for column, names in (
            (self.model, self.names.models),
            (self.region, self.names.regions),
            (self.tier, self.names.tiers),
        ):
            if int(column.max()) >= len(names):
                raise TraceError("a trace holds a code that stands for no name")
        return self


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
