"""Several traces as one: placed by their dates and merged where they overlap, or laid one after the other.

Knows whole traces, no files. Read next: `data/traces/requests.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sageserve.base.errors import TraceError
from sageserve.base.records import COUNTS, LABELS, UNSET, Count, Ints, Label, Labels, Names, Trace
from sageserve.base.units import Micros, show_duration
from sageserve.data.traces.assembly.prefixes import joined
from sageserve.data.traces.report import STARTS

_Column = TypeVar("_Column", NDArray[np.int32], Ints)


def join(traces: Sequence[Trace], *, end_to_end: bool = False) -> Trace:
    """One trace of several.

    Traces that know their dates are placed by them, and merged where they overlap. Those that do not are laid end to end in the
    order given, each beginning where the window of the one before ends; their conversations are different ones, whatever they
    are called.

    Args:
        traces: at least one.
        end_to_end: lay dated ones so, too.

    Raises:
        TraceError: nothing to join, dated and undated ones together, or more names than codes.
    """
    if not traces:
        raise TraceError("there is no trace to join", hint="give at least one")
    if len(traces) == 1:
        return traces[0]
    dates = [trace.start for trace in traces if trace.start is not None]
    if dates and len(dates) < len(traces) and not end_to_end:
        raise TraceError(
            f"{len(dates)} of {len(traces)} trace files have dates, the others count from their start",
            hint="play them in one order with --end-to-end, or give them separately",
        )
    if dates and not end_to_end:
        first = min(dates)
        starts = [trace.start - first for trace in traces if trace.start is not None]
        end = max(start + trace.window for start, trace in zip(starts, traces, strict=True))
        return _merged(traces, starts, end, first)
    ends = np.cumsum([trace.window for trace in traces]).tolist()
    at = ", ".join(show_duration(start) for start in ends[:-1])
    note = f"{len(traces)} traces one after the other, joined at {at}"
    one = _merged([_apart(trace, number) for number, trace in enumerate(traces)], [0, *ends[:-1]], ends[-1], None)
    return replace(one, notes=(*one.notes, note))


def _apart(trace: Trace, number: int) -> Trace:
    """The trace with sessions of its own, whatever others call theirs."""
    sessions = trace.labels.get("session")
    if sessions is None or number == 0:
        return trace
    own = Labels(sessions.codes, tuple(f"{name} (file {number + 1})" for name in sessions.names))
    return replace(trace, labels={**trace.labels, "session": own})


def _merged(traces: Sequence[Trace], starts: Sequence[Micros], window: Micros, first: Micros | None) -> Trace:
    """All requests of all traces, each trace moved to its start, in order of arrival."""
    names = Names(
        _union([trace.names.models for trace in traces]),
        _union([trace.names.regions for trace in traces]),
        _union([trace.names.tiers for trace in traces]),
    )
    parts = [
        replace(
            trace,
            arrival=trace.arrival + start,
            deadline=None if trace.deadline is None else np.where(trace.deadline == UNSET, UNSET, trace.deadline + start),
            model=_recoded(trace.names.models, names.models)[trace.model],
            region=_recoded(trace.names.regions, names.regions)[trace.region],
            tier=_recoded(trace.names.tiers, names.tiers)[trace.tier],
        )
        for trace, start in zip(traces, starts, strict=True)
    ]
    arrival = np.concatenate([part.arrival for part in parts])
    overlap = bool((np.diff(arrival) < 0).any())
    notes = [note for trace in traces for note in trace.notes if first is None or not note.startswith(STARTS)]
    if first is not None:
        how = "merged where they overlap" if overlap else "which do not overlap"
        notes.append(f"{len(traces)} traces placed by their dates, {how}; time starts at {np.datetime64(first, 'us')} UTC")
    one = Trace(
        arrival=arrival,
        prompt=np.concatenate([part.prompt for part in parts]),
        output=np.concatenate([part.output for part in parts]),
        model=np.concatenate([part.model for part in parts]),
        region=np.concatenate([part.region for part in parts]),
        tier=np.concatenate([part.tier for part in parts]),
        names=names,
        window=window,
        deadline=_column([part.deadline for part in parts], parts),
        cached=_column([part.cached for part in parts], parts),
        notes=tuple(dict.fromkeys(notes)),
        start=first,
        labels=_labels(parts),
        counts=_counts(parts),
        delay=_column([part.delay for part in parts], parts),
        blocks=joined([part.blocks for part in parts], [len(part) for part in parts]),
    )
    return (one.take(np.argsort(arrival, kind="stable")) if overlap else one).check()


def _labels(parts: Sequence[Trace]) -> Mapping[Label, Labels]:
    found: dict[Label, Labels] = {}
    for label in LABELS:
        if any(label in part.labels for part in parts):
            names = tuple(dict.fromkeys(name for part in parts if label in part.labels for name in part.labels[label].names))
            place = {name: code for code, name in enumerate(names)}
            codes = []
            for part in parts:
                own = part.labels.get(label, Labels(np.full(len(part), UNSET, np.int32), ()))
                table = np.array([*(place[name] for name in own.names), UNSET], dtype=np.int32)
                codes.append(table[own.codes])
            found[label] = Labels(np.concatenate(codes), names)
    return found


def _counts(parts: Sequence[Trace]) -> Mapping[Count, NDArray[np.int32]]:
    found: dict[Count, NDArray[np.int32]] = {}
    for count in COUNTS:
        whole = _column([part.counts.get(count) for part in parts], parts)
        if whole is not None:
            found[count] = whole
    return found


def _column(columns: Sequence[_Column | None], parts: Sequence[Trace]) -> _Column | None:
    """One column of several; where a trace has none, its rows say nothing."""
    known = [column for column in columns if column is not None]
    if not known:
        return None
    kind = known[0].dtype
    return np.concatenate(
        [np.full(len(part), UNSET, kind) if column is None else column for column, part in zip(columns, parts, strict=True)]
    )


def _union(lists: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name for each in lists for name in each))
    if len(names) > 256:  # codes are uint8
        raise TraceError(f"together the traces have {len(names)} names of one kind, more than 256", hint="join fewer of them")
    return names


def _recoded(old: tuple[str, ...], new: tuple[str, ...]) -> NDArray[np.uint8]:
    return np.array([new.index(name) for name in old], dtype=np.uint8)
