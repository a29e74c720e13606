"""Conversations: which requests belong to one, how long their prompts are, when turns arrive that have a pause and no time.

In an open loop a turn can be placed only as early as it can be: at the arrival of the turn before, plus its pause. The pause
stays in the table, for a loop that knows when answers end. Read next: `rows.py`.
"""

from dataclasses import replace

import numpy as np

from sageserve.base.errors import TraceError
from sageserve.base.records import UNSET, Ints
from sageserve.data.traces.assembly.rows import NamedColumn, Rows
from sageserve.data.traces.columns.convert import NO_TIME
from sageserve.data.traces.options import Prompts


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
            "that can be, at the arrival before plus the pause; a simulation in a closed loop waits for that answer"
        )
    return replace(rows, time=time, numbers={**rows.numbers, "delay": delay}), notes


def with_whole_prompts(rows: Rows, prompts: Prompts) -> tuple[Rows, list[str]]:
    """The rows with prompts as long as what engines are sent: with `added`, the conversation comes before what a turn adds.

    Raises:
        TraceError: there are no sessions.
    """
    if "session" not in rows.named:
        if prompts == "added":
            raise TraceError(
                "--prompts added is for the turns of sessions, and no column says which session a request is of",
                hint="name it, for example --column session=conversation_id",
            )
        return rows, []
    whole, shorter, later = rows.prompt.astype(np.int64), 0, 0
    for turns in _turns(rows):
        output = rows.output[turns].astype(np.int64)
        if prompts == "added":
            whole[turns] = np.cumsum(whole[turns] + output) - output
        shorter += int((np.diff(whole[turns]) < output[:-1]).sum())
        later += len(turns) - 1
    if prompts == "added":
        return replace(rows, prompt=whole), [
            f"the conversation so far is part of the prompts of {later:,} later turns (--prompts)"
        ]
    if 2 * shorter <= later:
        return rows, []
    said = f"the prompts of {shorter:,} of {later:,} later turns are shorter than the conversation before them"
    return rows, [f"{said}; where they count only what a turn adds: --prompts added"]


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
