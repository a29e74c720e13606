"""Rows that sum up the requests of a minute, an hour or a day: requests only by an assumption that the user states.

Read next: `rows.py`; docs/reference/traces.md says what is assumed.
"""

import numpy as np

from sageserve.base.errors import TraceError
from sageserve.base.records import UNSET, Ints
from sageserve.base.rng import stream
from sageserve.base.units import Micros, show_duration
from sageserve.data.traces.assembly.rows import NamedColumn, Rows
from sageserve.data.traces.columns.convert import Lengths
from sageserve.data.traces.options import Expansion

_REQUESTS_MAX = 200_000_000  # of one file: more would not fit into memory


def expand(rows: Rows, how: Expansion | None, seed: int) -> tuple[Rows, list[str]]:
    """Requests out of summed rows, and how; the rows themselves where none sums up several.

    Each request of a row gets an equal share of its tokens, remainders one by one to the first, so that sums stay.

    Args:
        rows: with `count`, and `end` where it is known.
        how: where in a row's time its requests arrive; None: refuse.
        seed: of the stream `expand/times`.

    Raises:
        TraceError: rows sum up several requests and nothing says how to spread them, or they have no time.
    """
    counts = rows.numbers["count"]
    if not (counts > 1).any():
        return rows.without("count", "end"), []
    total, width = int(counts.sum()), _widths(rows)
    said = f"sums up {total:,} requests in {len(rows):,} rows of {show_duration(int(np.median(width)))}"
    if how is None:
        raise TraceError(
            f"{said}: they are no requests",
            hint="--expand poisson makes requests of them, spread at random over each row's time and all of its mean length; "
            "--expand even spreads them at equal distances",
        )
    if total > _REQUESTS_MAX:
        raise TraceError(f"{said}, more than {_REQUESTS_MAX:,}", hint="give a part of it")
    assert rows.time is not None
    of = np.repeat(np.arange(len(rows)), counts)
    place = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
    share = (place + 0.5) / counts[of] if how == "even" else stream(seed, "expand/times").random(total)
    numbers = {part: column[of] for part, column in rows.numbers.items() if part not in {"count", "end", "cached"}}
    prompt = np.maximum(_shares(rows.prompt, counts, of, place), 1)
    if "cached" in rows.numbers:
        cached = _shares(np.maximum(rows.numbers["cached"], 0), counts, of, place)
        numbers["cached"] = np.where(rows.numbers["cached"][of] == UNSET, UNSET, np.minimum(cached, prompt - 1))
    expanded = Rows(
        rows.time[of] + (share * width[of]).astype(np.int64),
        prompt,
        np.maximum(_shares(rows.output, counts, of, place), 1),
        {part: NamedColumn(column.codes[of], column.names) for part, column in rows.named.items()},
        numbers,
        span=(int(rows.time.min()), int((rows.time + width).max())),
    )
    spread = "at random" if how == "poisson" else "at equal distances"
    return expanded, [f"the file {said}: spread {spread} over each row's time, all of a row's mean length (--expand {how})"]


def _widths(rows: Rows) -> Ints:
    """int64[n], microseconds that each row covers: to its end, else to the next row's time.

    Raises:
        TraceError: there are no times, or only one.
    """
    if rows.time is None:
        raise TraceError("sums up many requests per row and has no time", hint="name the column: --column timestamp=NAME")
    starts = np.unique(rows.time)
    step: Micros = int(np.diff(starts).min()) if len(starts) > 1 else 0
    widths = np.full(len(rows), step, dtype=np.int64)
    if "end" in rows.numbers:
        known = rows.numbers["end"] > rows.time
        widths = np.where(known, rows.numbers["end"] - rows.time, widths)
    if (widths <= 0).any():
        raise TraceError(
            "sums up many requests in one row, and nothing says how much time that covers", hint="add a column end_time"
        )
    return widths


def _shares(sums: Lengths, counts: Ints, of: Ints, place: Ints) -> Ints:
    """Each request's share of its row's sum."""
    base, rest = np.divmod(sums, counts)
    return base[of] + (place < rest[of])
