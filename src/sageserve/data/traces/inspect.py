"""What is in a trace, in numbers: rate over time, lengths by model, shares of tiers and regions.

Computes; draws nothing (`cli/trace.py` does) and reads no file. The keys of `Overview` are those of
`sageserve trace inspect --json`. Read next: `read.py`.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from sageserve.base.records import UNSET, Ints, Trace
from sageserve.base.sessions import follows, turns_before
from sageserve.base.units import DAY, HOUR, MINUTE, SECOND, Micros
from sageserve.data.traces.report import ReadReport

QUANTILES: Final = (0.1, 0.5, 0.9, 0.99)
_MARKS_MAX: Final = 84  # bins over a window: a week in marks of two hours
_BINS: Final = (
    SECOND,
    *(k * SECOND for k in (5, 10, 30)),
    *(k * MINUTE for k in (1, 2, 5, 10, 15, 30)),
    *(k * HOUR for k in (1, 2, 4, 8)),
    *(k * DAY for k in (1, 2, 7, 14, 28, 91, 365)),
)


class LengthSummary(msgspec.Struct, frozen=True):
    """Tokens or turns: the mean, the quantiles 0.1, 0.5, 0.9 and 0.99, and the longest."""

    mean: float
    p10: int
    p50: int
    p90: int
    p99: int
    longest: int


class TracePart(msgspec.Struct, frozen=True):
    """The requests of one model, tier or region; `rate` is requests per second by bin."""

    requests: int
    share: float
    prompt_tokens: LengthSummary
    output_tokens: LengthSummary
    rate: tuple[float, ...]


class BadKind(msgspec.Struct, frozen=True):
    """Rows left out for one reason, and the first lines of them."""

    reason: str
    rows: int
    lines: tuple[int, ...]


class UnusedColumn(msgspec.Struct, frozen=True):
    """A column or key of the file that means nothing here, and what it looks like."""

    name: str
    example: str


class PauseSummary(msgspec.Struct, frozen=True):
    """Seconds from an answer to the next turn: the mean, the quantiles 0.5, 0.9 and 0.99, and the longest."""

    mean: float
    p50: float
    p90: float
    p99: float
    longest: float


class ConversationSummary(msgspec.Struct, frozen=True):
    """Sessions of several requests.

    `turns`: how many each has; `follow`: turns that wait for the answer before them, in a closed loop; `pause_s`: for how long
    then, null when none does; `shorter`: turns whose prompt is shorter than the conversation before them.
    """

    conversations: int
    turns: LengthSummary
    follow: int
    pause_s: PauseSummary | None
    shorter: int


class Overview(msgspec.Struct, frozen=True):
    """What is in a trace. `rows`, `bad` and `unused` are of the file it was read from; empty for generated ones.

    `cached_share`: of the prompt tokens of requests that say what was in the prefix cache; null when none says it. `start`: the
    date of time 0; null where the source has none. `labels`: different sessions, adapters, tenants, users and keys; `counts`:
    images, audio clips and turns of all requests together; `conversations`: null where no session has several requests.
    """

    source: str
    format: str
    rows: int
    bad: tuple[BadKind, ...]
    unused: tuple[UnusedColumn, ...]
    start: str | None
    requests: int
    deadlines: int
    cached_share: float | None
    labels: dict[str, int]
    counts: dict[str, int]
    conversations: ConversationSummary | None
    window_s: float
    bin_s: float
    rate: tuple[float, ...]
    models: dict[str, TracePart]
    tiers: dict[str, TracePart]
    regions: dict[str, TracePart]
    notes: tuple[str, ...]


def overview(trace: Trace, source: str, report: ReadReport | None = None) -> Overview:
    """Sum up a trace.

    Args:
        trace: what to look at.
        source: what to call it.
        report: of the file it was read from, if it was.
    """
    width = next((each for each in _BINS if -(-trace.window // each) <= _MARKS_MAX), _BINS[-1])
    bad = () if report is None else report.bad
    return Overview(
        source=source,
        format="generated" if report is None else report.format,
        rows=0 if report is None else report.rows,
        bad=tuple(BadKind(each.reason, each.count, each.lines[:10]) for each in bad),
        unused=() if report is None else tuple(UnusedColumn(each.name, each.example) for each in report.unused),
        start=None if trace.start is None else f"{np.datetime64(trace.start, 'us')}Z",
        requests=len(trace),
        deadlines=0 if trace.deadline is None else int((trace.deadline != UNSET).sum()),
        cached_share=_cached_share(trace),
        labels={label: len(np.unique(each.codes[each.codes != UNSET])) for label, each in trace.labels.items()},
        counts={count: int(each[each != UNSET].sum()) for count, each in trace.counts.items()},
        conversations=_conversations(trace),
        window_s=trace.window / SECOND,
        bin_s=width / SECOND,
        rate=_rate(trace.arrival, trace.window, width),
        models=_parts(trace, trace.model, trace.names.models, width),
        tiers=_parts(trace, trace.tier, trace.names.tiers, width),
        regions=_parts(trace, trace.region, trace.names.regions, width),
        notes=trace.notes,
    )


def _cached_share(trace: Trace) -> float | None:
    if trace.cached is None:
        return None
    said = trace.cached != UNSET
    return float(trace.cached[said].sum() / max(trace.prompt[said].sum(), 1)) if bool(said.any()) else None


def _conversations(trace: Trace) -> ConversationSummary | None:
    before = turns_before(trace)
    later = np.flatnonzero(before != UNSET)
    if not len(later):
        return None
    codes = trace.labels["session"].codes
    sizes = np.bincount(codes[codes != UNSET])
    earlier = trace.prompt[before[later]].astype(np.int64) + trace.output[before[later]]
    waits = follows(trace, before)
    return ConversationSummary(
        conversations=int((sizes > 1).sum()),
        turns=_lengths(sizes[sizes > 1]),
        follow=int(waits.sum()),
        pause_s=None if trace.delay is None or not waits.any() else _pauses(trace.delay[waits]),
        shorter=int((trace.prompt[later] < earlier).sum()),
    )


def _pauses(delay: Ints) -> PauseSummary:
    middle, high, top = np.quantile(delay, (0.5, 0.9, 0.99), method="nearest").tolist()
    return PauseSummary(*(value / SECOND for value in (float(delay.mean()), middle, high, top, int(delay.max()))))


def _parts(trace: Trace, codes: NDArray[np.uint8], names: Sequence[str], width: Micros) -> dict[str, TracePart]:
    found = {}
    for code, name in enumerate(names):
        rows = np.flatnonzero(codes == code)
        if len(rows):
            found[name] = TracePart(
                requests=len(rows),
                share=len(rows) / len(trace),
                prompt_tokens=_lengths(trace.prompt[rows]),
                output_tokens=_lengths(trace.output[rows]),
                rate=_rate(trace.arrival[rows], trace.window, width),
            )
    return found


def _lengths(tokens: NDArray[np.int32] | Ints) -> LengthSummary:
    low, middle, high, top = np.quantile(tokens, QUANTILES, method="nearest").tolist()
    return LengthSummary(float(tokens.mean()), low, middle, high, top, int(tokens.max()))


def _rate(arrival: Ints, window: Micros, width: Micros) -> tuple[float, ...]:
    """Requests per second by bin; the last bin may be cut by the window and counts by what is left of it."""
    bins = -(-window // width)
    counts = np.bincount(arrival // width, minlength=bins)
    spans = np.full(bins, width, dtype=np.float64)
    spans[-1] = window - (bins - 1) * width
    return tuple((counts / spans * SECOND).tolist())
