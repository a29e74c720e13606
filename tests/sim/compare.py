"""Where two runs of the same case differ, said in one line.

Knows what a script sees of a simulator (`Stop`), and which columns must agree exactly. Read next: `cases.py`.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sageserve.sim.kernel.engine import Kernel
from tests.sim.cases import Case, Stop, drive, fresh_rows, watch
from tests.sim.reference import Reference

TIMES = ("first", "finish", "instance", "state", "arrival", "deadline", "output", "cached")
COUNTS = ("open", "finished", "preempted", "made", "placed")
SIGNALS = ("seen", "kv", "busy")
TINY = 1e-12  # sums of microseconds taken apart in another order leave this much at most


def play(case: Case) -> tuple[list[Stop], Reference]:
    """What the reference sees, and the reference itself for its counts."""
    reference = Reference(case.setup, fresh_rows(case), case.turns, case.prefixes, case.sharers, case.adapters)
    return drive(reference, case), reference


def differs(case: Case) -> str:
    """How the kernel departs from the reference; empty when it does not."""
    expected, _ = play(case)
    return first_difference(expected, watched(case))


def watched(case: Case) -> Iterator[Stop]:
    """What the kernel shows, stop by stop."""
    return watch(Kernel(case.setup, fresh_rows(case), case.turns, case.prefixes, case.sharers, case.adapters), case)


def first_difference(expected: list[Stop], got: Iterator[Stop]) -> str:
    """The first difference between two runs, of which the second is played no further; empty when there is none."""
    number = 0
    for number, (one, two) in enumerate(zip(expected, got, strict=False), start=1):
        if (one.now, one.drained) != (two.now, two.drained):
            return f"stop {number}: at {one.now} drained {one.drained}, got {two.now} and {two.drained}"
        words = [
            *(_column(name, one.requests, two.requests, exact=True) for name in TIMES),
            *(_column(name, one.endpoints, two.endpoints, exact=True) for name in COUNTS),
            *(_column(name, one.endpoints, two.endpoints, exact=False) for name in SIGNALS),
            "" if np.allclose(one.demand, two.demand, rtol=1e-9) else f"demand {one.demand} is {two.demand}",
            "" if np.allclose(one.mixes, two.mixes, rtol=1e-9) else f"mixes {one.mixes} are {two.mixes}",
            "" if (one.held == two.held).all() else f"held {one.held} are {two.held}",
            "" if (one.slot_waits == two.slot_waits).all() else f"waits for slots {one.slot_waits} are {two.slot_waits}",
            "" if (one.batch_waiting == two.batch_waiting).all() else f"batch queues {one.batch_waiting} are {two.batch_waiting}",
        ]
        if any(words):
            return f"stop {number} at {one.now}: " + "; ".join(word for word in words if word)
    if number < len(expected) or next(got, None) is not None:
        return f"{len(expected)} stops expected, got {'fewer' if number < len(expected) else 'more'}"
    return ""


def _column(name: str, expected: NDArray[Any], got: NDArray[Any], *, exact: bool) -> str:
    a, b = expected[name], got[name]
    same = a == b if exact else np.isclose(a, b, rtol=1e-9, atol=TINY)
    rows = np.flatnonzero(~same)
    if not len(rows):
        return ""
    row = int(rows[0])
    return f"{name} of row {row} should be {a[row]}, is {b[row]} ({len(rows)} rows differ)"
