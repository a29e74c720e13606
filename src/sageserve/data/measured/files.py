"""The folder measured runs are kept in: three CSV files, several runs side by side, told apart by `experiment`.

    requests.csv      experiment, request_id, arrival_s, input_tokens, output_tokens, ttft_ms, e2e_ms; cached_tokens (or any
                      other name that a trace may have for them)
    timeseries.csv    experiment, t_s, prompt_tok_s, gen_tok_s, running, waiting; kv_cache_pct, preemptions
    experiments.csv   experiment, model, gpu, tp, dp, engine, the engine's limits, means; see `_limits` and `_means`

A file may be missing, and so may every column after the semicolons, every column of experiments.csv, and `experiment`
where there is one run. Knows no simulator. Read next: `runs.py`; `write.py` for writing such a folder.
"""

import csv
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np

from sageserve.base.errors import MeasurementError
from sageserve.base.records import UNSET, Floats, Ints
from sageserve.base.units import SECOND
from sageserve.data.measured.runs import (
    BATCHED_DEFAULT,
    SEQUENCES_DEFAULT,
    EngineLimits,
    MeasuredMeans,
    MeasuredRequests,
    MeasuredRun,
    MeasuredSeries,
    Phase,
    means_of,
    requests_of,
)
from sageserve.data.traces.columns.fields import key_of, names_of

REQUESTS: Final = "requests.csv"
SERIES: Final = "timeseries.csv"
EXPERIMENTS: Final = "experiments.csv"
BYTES_MAX: Final = 512 << 20  # a run of an hour has some megabytes
MILLI: Final = 1000.0  # microseconds

_PHASE: Final = re.compile(r"([\d.]+)\s*rps\s*x\s*([\d.]+)\s*s")
_NOTHING: Final = {"", "na", "n/a", "nan", "none", "null", "default"}

Row: TypeAlias = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Table:
    """A CSV file as text cells; `path` is for messages."""

    path: Path
    columns: tuple[str, ...]
    rows: list[Row]

    def by_experiment(self, only: str) -> dict[str, "_Table"]:
        """The rows of each experiment in order of first mention; all of them under `only` without such a column."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            found.setdefault(row.get("experiment") or only, []).append(row)
        return {name: _Table(self.path, self.columns, rows) for name, rows in found.items()}

    def numbers(self, column: str, default: float | None = None) -> Floats:
        """float64[rows] of a column; `default` stands for empty cells, None refuses them."""
        values = np.empty(len(self.rows))
        for number, row in enumerate(self.rows):
            values[number] = _number(row.get(column, ""), default, f"{self.path}: row {number + 1}: {column}")
        return values

    def needs(self, *columns: str) -> None:
        """Refuse a file without these columns."""
        missing = [column for column in columns if column not in self.columns]
        if missing:
            raise MeasurementError(
                f"{self.path} has no column {', '.join(missing)}; it has {', '.join(self.columns)}",
                hint="the columns are listed in docs/how-to/validate-and-calibrate.md",
            )


def read_measured(folder: Path) -> tuple[MeasuredRun, ...]:
    """Every run of a folder, in the order of experiments.csv and then of the other files.

    Args:
        folder: holds at least one of the three files.

    Raises:
        MeasurementError: no such folder, none of the files, a missing column, or a cell that makes no sense.
    """
    if not folder.is_dir():
        what = "is a file; give the folder it is in" if folder.exists() else "does not exist"
        raise MeasurementError(f"the folder {folder} {what}", hint=_hint())
    only = folder.resolve().name
    files = {name: _read_table(folder / name) for name in (EXPERIMENTS, REQUESTS, SERIES)}
    found = {name: {} if table is None else table.by_experiment(only) for name, table in files.items()}
    names = list(dict.fromkeys(name for tables in found.values() for name in tables))
    if not names:
        empty = [str(table.path) for table in files.values() if table is not None]
        what = f"{', '.join(empty)}: there is a header and no row" if empty else f"the folder {folder} holds no measured run"
        raise MeasurementError(what, hint=_hint())
    return tuple(_run(name, *(found[file].get(name) for file in (EXPERIMENTS, REQUESTS, SERIES))) for name in names)


def choose(runs: Iterable[MeasuredRun], name: str) -> MeasuredRun:
    """The run of that name, or whose name holds the text; the only one when the text is empty.

    Raises:
        MeasurementError: none or several fit.
    """
    everything = list(runs)
    fitting = [run for run in everything if run.name == name] or [run for run in everything if name in run.name]
    if len(fitting) == 1:
        return fitting[0]
    what = f"{len(fitting)} runs have {name!r} in their name" if name else f"there are {len(fitting)} runs"
    raise MeasurementError(what, hint=f"name one with --run: {', '.join(run.name for run in (fitting or everything)[:8])}")


def read_series(path: Path) -> tuple[MeasuredRun, ...]:
    """Runs of which only the counters are known: a file in the form of timeseries.csv.

    Raises:
        MeasurementError: no such file, a missing column, or a cell that makes no sense.
    """
    table = _read_table(path)
    if table is None:
        raise MeasurementError(f"{path} does not exist", hint="give a CSV in the form of timeseries.csv")
    return tuple(_run(name, None, None, rows) for name, rows in table.by_experiment(path.stem).items())


def _hint() -> str:
    return f"a folder of measured runs holds {REQUESTS}, {SERIES} and {EXPERIMENTS}; docs/how-to/validate-and-calibrate.md"


def _read_table(path: Path) -> _Table | None:
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > BYTES_MAX:
            raise MeasurementError(f"{path} is larger than {BYTES_MAX >> 20} MiB", hint="an hour is enough: cut it")
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise MeasurementError(f"{path} cannot be read: {error}", hint="it must be a CSV file in UTF-8") from None
    reader = csv.DictReader(io.StringIO(text), restkey="", restval="")
    try:
        rows: list[Row] = list(reader)
    except csv.Error as error:
        raise MeasurementError(f"{path}: line {reader.line_num}: {error}", hint="it must be a CSV file") from None
    return _Table(path, _once(path, tuple(reader.fieldnames or ())), rows)


def _once(path: Path, columns: tuple[str, ...]) -> tuple[str, ...]:
    """The columns, each of which has a name of its own: nobody can say which of two counts."""
    for name in columns:
        places = [str(place) for place, other in enumerate(columns, start=1) if other == name]
        if name and len(places) > 1:
            raise MeasurementError(
                f"{path} has {len(places)} columns called {name!r}, at positions {' and '.join(places)}",
                hint="rename or remove all but the one that counts",
            )
    return columns


def _number(text: str | None, default: float | None, where: str) -> float:
    cell = (text or "").strip()
    if cell.lower() in _NOTHING:
        if default is None:
            raise MeasurementError(f"{where} is empty", hint="leave the whole row out if it was not measured")
        return default
    try:
        value = float(cell)
    except ValueError:
        value = float("inf")
    if not np.isfinite(value):
        raise MeasurementError(f"{where}: {cell[:40]!r} is not a number", hint="write numbers without units, with a point")
    return value


def _run(name: str, experiment: _Table | None, requests: _Table | None, series: _Table | None) -> MeasuredRun:
    run = MeasuredRun(name) if experiment is None else _described(name, experiment)
    if experiment is None:
        run = replace(run, notes=(f"{EXPERIMENTS} says nothing of this run: the engine's limits are vLLM's defaults",))
    shift = 0.0
    if requests is not None:
        arrivals = requests.numbers("arrival_s") if "arrival_s" in requests.columns else np.zeros(0)
        shift = float(arrivals.min(initial=np.inf)) if len(arrivals) else 0.0
        read = _requests(requests, shift)
        run = replace(run, requests=read, means=run.means or means_of(read))
    if series is not None:
        run = replace(run, series=_series(series, shift))
    return run


def _requests(table: _Table, shift: float) -> MeasuredRequests:
    table.needs("arrival_s", "input_tokens", "output_tokens", "ttft_ms", "e2e_ms")
    columns: dict[str, Ints] = {
        "arrival": _whole((table.numbers("arrival_s") - shift) * SECOND),
        "prompt": _whole(table.numbers("input_tokens")),
        "output": _whole(table.numbers("output_tokens")),
        "ttft": _whole(table.numbers("ttft_ms") * MILLI),
        "e2e": _whole(table.numbers("e2e_ms") * MILLI),
    }
    cached = next((name for known in names_of("cached") for name in table.columns if key_of(name) == known), None)
    if cached is not None:
        columns["cached"] = _whole(table.numbers(cached, 0.0))
    return requests_of(columns, str(table.path))


def _series(table: _Table, shift: float) -> MeasuredSeries:
    table.needs("t_s", "prompt_tok_s", "gen_tok_s", "running", "waiting")
    time = _whole((table.numbers("t_s") - shift) * SECOND)
    if len(time) > 1 and int(np.diff(time).min()) <= 0:
        raise MeasurementError(f"{table.path}: t_s does not increase", hint="sort the rows, one row per second and experiment")
    share = table.numbers("kv_cache_pct", np.nan) / 100.0
    return MeasuredSeries(
        time=time,
        prompt_rate=table.numbers("prompt_tok_s"),
        output_rate=table.numbers("gen_tok_s"),
        running=table.numbers("running"),
        waiting=table.numbers("waiting"),
        kv_share=np.full(len(time), np.nan) if np.nan_to_num(share).max(initial=0.0) <= 0 else share,
        preemptions=table.numbers("preemptions", 0.0) if "preemptions" in table.columns else None,
    )


def _described(name: str, table: _Table) -> MeasuredRun:
    """A run as its row of experiments.csv describes it."""
    row = table.rows[0]
    where = f"{table.path}: {name}"
    limits, notes = _limits(row, where)
    return MeasuredRun(
        name=name,
        limits=limits,
        model=row.get("model", ""),
        gpu=row.get("gpu", ""),
        tp=int(_number(row.get("tp"), 1.0, f"{where}: tp")),
        dp=int(_number(row.get("dp"), 1.0, f"{where}: dp")),
        engine=row.get("engine", ""),
        source=row.get("source", ""),
        quality=row.get("quality", ""),
        workload=row.get("workload", ""),
        means=_means(row, where),
        notes=notes,
    )


def _limits(row: Row, where: str) -> tuple[EngineLimits, tuple[str, ...]]:
    def number(column: str, default: float) -> int:
        value = int(_number(row.get(column), default, f"{where}: {column}"))
        if value < 0:
            raise MeasurementError(f"{where}: {column} is negative", hint="leave the cell empty if it is not known")
        return value

    blocks, block = number("kv_blocks", 0), number("block_size", 16) or 16
    sequences, batched = number("max_num_seqs", 0), number("max_num_batched_tokens", 0)
    chunked = row.get("chunked_prefill", "")
    missing = {"max_sequences": not sequences, "max_batched_tokens": not batched, "chunked": chunked.strip().lower() in _NOTHING}
    notes = []
    if not sequences or not batched:
        notes.append(f"limits not recorded are taken as {SEQUENCES_DEFAULT} sequences and {BATCHED_DEFAULT} tokens a batch")
    return (
        EngineLimits(
            max_sequences=sequences or SEQUENCES_DEFAULT,
            max_batched_tokens=batched or BATCHED_DEFAULT,
            kv_tokens=blocks * block or None,
            block_size=block,
            chunked=_truth(chunked, otherwise=True),
            prefix_caching=_truth(row.get("prefix_caching", ""), otherwise=False),
            assumed=tuple(name for name, lacks in missing.items() if lacks),
        ),
        tuple(notes),
    )


def _truth(text: str, *, otherwise: bool) -> bool:
    word = text.strip().lower()
    if word in {"true", "yes", "1", "on", "default(on)"}:
        return True
    return otherwise if word in _NOTHING else False


def _means(row: Row, where: str) -> MeasuredMeans | None:
    def number(column: str) -> float | None:
        value = _number(row.get(column), UNSET, f"{where}: {column}")
        return None if value < 0 else value

    count, prompt, output = number("n"), number("in_mean"), number("out_mean")
    if count is None or prompt is None or output is None:
        return None
    ttft, tpot, e2e = (number(column) for column in ("ttft_mean_ms", "tpot_mean_ms", "e2e_mean_ms"))
    return MeasuredMeans(
        requests=int(count),
        prompt=prompt,
        output=output,
        phases=_phases(row.get("rate", ""), count),
        ttft=None if ttft is None else ttft * MILLI,
        tpot=None if tpot is None else tpot * MILLI,
        e2e=None if e2e is None else e2e * MILLI,
    )


def _phases(text: str, requests: float) -> tuple[Phase, ...]:
    """`8 rps x600s + 20 rps x600s`, or one number of requests per second; nothing where it is neither."""
    found = tuple(Phase(float(rate), float(seconds)) for rate, seconds in _PHASE.findall(text))
    if found:
        return found
    try:
        rate = float(text)
    except ValueError:
        return ()
    return (Phase(rate, requests / rate),) if rate > 0 else ()


def _whole(values: Floats) -> Ints:
    return np.rint(values).astype(np.int64)
