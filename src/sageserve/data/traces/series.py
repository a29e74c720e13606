"""Demand as named series for forecasters: from a trace, from a scenario with its history, or from a CSV of numbers.

A CSV of series has a time column first (`t_s`, `minute`, `hour`, counted from the start) and one numeric column per series;
missing rows and empty cells are missing bins, not zeros. Must not forecast. Read next: `core/forecast/series.py`.
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from pyarrow import csv

from sageserve.base.errors import PlanError, TraceError
from sageserve.base.records import Demand, Floats, Names, Trace
from sageserve.base.units import HOUR, MINUTE, SECOND, Micros, show_duration
from sageserve.core.forecast import Series
from sageserve.data.traces.changes.transform import demand_of

TIME_COLUMNS: Final[Mapping[str, Micros]] = {"t_ms": 1_000, "t_s": SECOND, "second": SECOND, "minute": MINUTE, "hour": HOUR}


class Counted(Enum):
    """What is counted per bin."""

    PROMPT = "prompt"
    OUTPUT = "output"
    REQUESTS = "requests"


def read_series(path: Path) -> dict[str, Series] | None:
    """The columns of a CSV of series, plain or compressed; None when the file is something else.

    Raises:
        TraceError: the file cannot be read, or its time column is not evenly spaced, or a cell is not a number.
    """
    if not {".csv"} & set(path.suffixes):
        return None
    try:
        with pa.input_stream(str(path), compression="detect") as stream:
            header = csv.open_csv(stream).schema.names
        if header[0] not in TIME_COLUMNS or len(header) < 2:
            return None
        _refuse_twins(path, header)
        with pa.input_stream(str(path), compression="detect") as stream:
            table = csv.read_csv(stream)
    except (OSError, pa.ArrowInvalid) as error:
        raise TraceError(f"{path} cannot be read as CSV: {error}", hint="check that the file is complete") from error
    columns = {name: _numbers(path, name, table.column(name)) for name in header}
    return _binned(path, columns, TIME_COLUMNS[header[0]])


def _refuse_twins(path: Path, header: Sequence[str]) -> None:
    for name in header:
        places = [str(place) for place, other in enumerate(header, start=1) if other == name]
        if len(places) > 1:
            raise TraceError(
                f"{path} has {len(places)} columns called {name!r}, at positions {' and '.join(places)}",
                hint="a series needs a name of its own: rename or remove all but one",
            )


def _numbers(path: Path, name: str, column: pa.ChunkedArray) -> Floats:
    try:
        numbers: Floats = column.cast(pa.float64()).to_numpy()
    except pa.ArrowInvalid as error:
        raise TraceError(
            f"{path}: column {name!r} holds something that is no number: {error}", hint="remove the column or repair the cell"
        ) from error
    return numbers


def _demand(path: Path, name: str, column: Floats) -> Floats:
    bad = np.flatnonzero(np.isinf(column) | (column < 0))
    if len(bad):
        raise TraceError(
            f"{path}: row {bad[0] + 1}: {name} is {column[bad[0]]:g} ({len(bad)} of {len(column)} rows)",
            hint="demand is finite and not negative; leave a cell empty where nothing was observed",
        )
    return column


def _binned(path: Path, columns: Mapping[str, Floats], unit: Micros) -> dict[str, Series]:
    """Rows placed at their bin; bins without a row are missing."""
    (_, times), *values = columns.items()
    if len(times) < 2:
        raise TraceError(
            f"{path} has fewer than two rows; the length of a bin is the time between two", hint="give two rows at least"
        )
    steps = np.diff(times)
    wrong = ~((steps > 0) & np.isfinite(steps))
    if wrong.any():
        row = int(np.argmax(wrong)) + 2
        raise TraceError(
            f"{path}: row {row}: its time is missing or not later than that of the row before",
            hint="sort the rows by time, one row per bin",
        )
    step = float(steps.min())
    places = (times - times[0]) / step
    if np.abs(places - np.round(places)).max() > 1e-6:
        raise TraceError(f"{path}: the rows are not evenly spaced", hint="write one row per bin of equal length")
    index = np.round(places).astype(np.int64)
    made = {}
    for name, column in values:
        filled = np.full(int(index[-1]) + 1, np.nan)
        filled[index] = _demand(path, name, column)
        made[name] = Series(filled, round(step * unit), round(float(times[0]) * unit))
    return made


def series_of(demand: Demand, names: Names, *, counted: Counted, end: Micros) -> dict[str, Series]:
    """One series per (region, model, tier) with any demand, named region/model/tier; bins cut by `end` are left out."""
    amounts = {
        Counted.PROMPT: demand.prompt_tokens,
        Counted.OUTPUT: demand.output_tokens,
        Counted.REQUESTS: demand.requests,
    }[counted]
    made = {}
    for r, region in enumerate(names.regions):
        for m, model in enumerate(names.models):
            for t, tier in enumerate(names.tiers):
                values = amounts[:, r, m, t]
                if values.any():
                    made[f"{region}/{model}/{tier}"] = Series(np.ascontiguousarray(values), demand.bin, demand.start).until(end)
    return made


def series_of_trace(trace: Trace, *, counted: Counted, past: Demand | None = None) -> dict[str, Series]:
    """The series of a trace per minute, after the demand of an earlier time where there is one.

    Args:
        trace: the requests.
        counted: what to count.
        past: demand per minute that ends where the trace begins, of the same names.
    """
    demand = demand_of(trace, MINUTE)
    if past is not None and len(past.requests):
        demand = Demand(
            past.start,
            MINUTE,
            np.concatenate([past.prompt_tokens, demand.prompt_tokens]),
            np.concatenate([past.output_tokens, demand.output_tokens]),
            np.concatenate([past.requests, demand.requests]),
        )
    return series_of(demand, trace.names, counted=counted, end=trace.window)


def rebinned(series: Series, length: Micros) -> Series:
    """The series in bins of `length`; its own when they are longer.

    Raises:
        PlanError: `length` is no multiple of its bins.
    """
    if length <= series.bin:
        return series
    if length % series.bin:
        raise PlanError(
            f"bins of {show_duration(series.bin)} cannot be summed to bins of {show_duration(length)}",
            hint="choose a multiple with --bin",
        )
    return series.coarser(length // series.bin)
