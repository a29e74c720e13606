"""Conversations: which requests belong to one, and when the turns arrive that have a pause instead of a time.

In an open loop a turn can be placed only as early as it can be: at the arrival of the turn before, plus its pause. The pause
stays in the table, for a loop that knows when answers end. Read next: `rows.py`.
"""

from dataclasses import replace

import numpy as np

from sageserve.base.records import UNSET, Ints
from sageserve.data.traces.assembly.rows import NamedColumn, Rows
from sageserve.data.traces.columns.convert import NO_TIME


def with_sessions(rows: Rows) -> Rows:
    """The rows with a session each where they name the request before them: that of the first in the chain."""
    if "request" not in rows.named or "parent" not in rows.named:
        return rows
    bare = rows.without("request", "parent")
    if "session" in bare.named:
        return bare
    own, parent = rows.named["request"], rows.named["parent"]
    row_of = {own.names[code]: row for row, code in enumerate(own.codes.tolist()) if code != UNSET}
    before = np.array([row_of.get(parent.names[code], UNSET) if code != UNSET else UNSET for code in parent.codes.tolist()])
    roots = np.arange(len(rows))
    for row in np.flatnonzero(before != UNSET).tolist():
        roots[row] = _root(before, row)
    firsts, codes = np.unique(roots, return_inverse=True)
    names = tuple(own.names[own.codes[first]] if own.codes[first] != UNSET else f"row {first + 1}" for first in firsts.tolist())
    return replace(bare, named={**bare.named, "session": NamedColumn(codes.astype(np.int32), names)})


def _root(before: Ints, row: int) -> int:
    """The first of a chain; a circle ends where it was entered."""
    seen = {row}
    while before[row] != UNSET and int(before[row]) not in seen:
        row = int(before[row])
        seen.add(row)
    return row


def follow_on(rows: Rows) -> tuple[Rows, list[str]]:
    """The rows with a time for every turn that has a pause and comes after another, and pauses on the turn that waits.

    Where a session's first turn has a pause and its last has none, the pause stands behind its turn (genai-perf) and moves on.
    A session without any time keeps none.
    """
    if "session" not in rows.named or "delay" not in rows.numbers:
        return rows, []
    delay, time = rows.numbers["delay"].copy(), None if rows.time is None else rows.time.copy()
    if time is None:
        time = np.full(len(rows), NO_TIME, dtype=np.int64)
    placed = 0
    for turns in _turns(rows):
        if _behind(delay, time, turns):
            delay[turns] = [UNSET, *delay[turns[:-1]].tolist()]
        for earlier, later in zip(turns[:-1].tolist(), turns[1:].tolist(), strict=True):
            if time[later] == NO_TIME and time[earlier] != NO_TIME:
                time[later] = time[earlier] + max(int(delay[later]), 0)
                placed += 1
    notes = []
    if placed:
        notes.append(
            f"{placed:,} of {len(rows):,} requests have a pause after the answer before instead of a time: placed as early as "
            "that can be, at the arrival before plus the pause"
        )
    return replace(rows, time=time, numbers={**rows.numbers, "delay": delay}), notes


def _turns(rows: Rows) -> list[Ints]:
    """Rows of each session with several, in the order of their turns, else of the file."""
    codes = rows.named["session"].codes
    turn = rows.numbers.get("turn", np.zeros(len(rows), dtype=np.int64))
    order = np.lexsort((np.arange(len(rows)), turn, codes))
    order = order[codes[order] != UNSET]
    cuts = np.flatnonzero(np.diff(codes[order])) + 1
    return [turns for turns in np.split(order, cuts) if len(turns) > 1]


def _behind(delay: Ints, time: Ints, turns: Ints) -> bool:
    return bool(delay[turns[0]] != UNSET and delay[turns[-1]] == UNSET and (time[turns[1:]] == NO_TIME).all())
