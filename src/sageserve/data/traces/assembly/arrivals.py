"""Times for requests that have none: all at one instant, or at a rate; by the user's word or the file's own.

Read next: `rows.py`; `sessions.py` goes on from the first turn.
"""

from dataclasses import replace
from typing import Final

import numpy as np

from sageserve.base.errors import TraceError
from sageserve.base.records import Ints
from sageserve.base.rng import stream
from sageserve.base.units import SECOND, duration_us
from sageserve.data.traces.assembly.rows import Rows
from sageserve.data.traces.columns.convert import NO_TIME
from sageserve.data.traces.options import TraceOptions

_CURE: Final = (
    "--all-at 0 lets them all arrive at once, --rate 2 two a second at random; or name the column: --column timestamp=NAME"
)


def with_times(rows: Rows, options: TraceOptions, seed: int) -> tuple[Rows, list[str]]:
    """The rows with a time for every request, and where it comes from.

    A conversation whose first turn has no time is given one there; its other turns follow by their pauses.

    Raises:
        TraceError: requests have no time and nothing says when they arrive.
    """
    firsts = _without(rows)
    if not len(firsts):
        given = [name for name, value in (("--all-at", options.all_at), ("--rate", options.rate)) if value is not None]
        return rows.without("rate"), [f"every request has a time: {name} changes nothing" for name in given]
    times, said = _given(len(firsts), rows, options, seed)
    time = np.full(len(rows), NO_TIME, dtype=np.int64) if rows.time is None else rows.time.copy()
    time[firsts] = times
    what = "the file has no times" if len(firsts) == len(rows) else f"{len(firsts):,} requests have no time"
    return replace(rows.without("rate"), time=time), [f"{what}: {said}"]


def _without(rows: Rows) -> Ints:
    """Rows without a time that no turn before them gives one; of a conversation the first."""
    missing = np.ones(len(rows), np.bool_) if rows.time is None else rows.time == NO_TIME
    session = rows.named.get("session")
    if session is None or "delay" not in rows.numbers:
        return np.flatnonzero(missing)
    turn = rows.numbers.get("turn", np.zeros(len(rows), dtype=np.int64))
    order = np.lexsort((np.arange(len(rows)), turn, session.codes))
    first = np.ones(len(rows), np.bool_)
    first[order[1:]] = np.diff(session.codes[order]) != 0
    return np.flatnonzero(missing & (first | (session.codes < 0)))


def _given(count: int, rows: Rows, options: TraceOptions, seed: int) -> tuple[Ints, str]:
    if options.all_at is not None:
        try:
            at = duration_us(0 if options.all_at.strip() == "0" else options.all_at)
        except ValueError as error:
            raise TraceError(f"--all-at: {error}", hint="for example --all-at 0") from None
        return np.full(count, at, dtype=np.int64), f"all arrive at {options.all_at} (--all-at)"
    if options.rate is not None:
        return _at_rate(count, options.rate, seed), f"{options.rate:g} a second arrive, at random with seed {seed} (--rate)"
    own = rows.numbers.get("rate")
    if own is not None and own[0] > 0:
        rate = int(own[0]) / SECOND
        return _at_rate(
            count, rate, seed
        ), f"it was sent at {rate:g} requests a second, at random: so they arrive, with seed {seed}"
    raise TraceError("has no time of its requests", hint=_CURE)


def _at_rate(count: int, rate: float, seed: int) -> Ints:
    """A Poisson process of that rate.

    Raises:
        TraceError: a rate that is not above 0 or so small that time ends first.
    """
    if not rate > 0 or not np.isfinite(rate) or count / rate > 1e11:
        raise TraceError(f"--rate {rate:g} is no rate", hint="give requests per second, such as --rate 2")
    waits = stream(seed, "rate/times").exponential(1.0 / rate, count)
    times = np.cumsum(waits) - waits[0]
    found: Ints = np.round(times * SECOND).astype(np.int64)
    return found
