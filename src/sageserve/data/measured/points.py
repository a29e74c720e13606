"""Measured points: what a client saw in the mean at a concurrency, one row each, of any engine; and what is predicted for them.

    id, gpu, tp, model, dtype, isl, osl, concurrency; mode, gpus, dp, ep, kv_dtype, engine, ttft_ms, tpot_ms, e2e_ms, note

Columns after the semicolon may be missing, and every cell may be empty. A concurrency is a number of requests that are always
in flight, or `poisson 2/s`; what it says else is a point that nobody predicts. Knows no simulator.
Read next: `sim/points/predict.py`, which predicts them; docs/how-to/validate-and-calibrate.md.
"""

import csv
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from sageserve.base.errors import MeasurementError

NEEDED: Final = ("id", "gpu", "tp", "model", "dtype", "isl", "osl", "concurrency")
_KV: Final = ("", "bf16", "fp8")
_RATE: Final = re.compile(r"^poisson ([\d.]+)/s$")
BYTES_MAX: Final = 64 << 20  # some hundred thousand points
_HINT: Final = "docs/how-to/validate-and-calibrate.md lists the columns of a table of points"


@dataclass(frozen=True, slots=True)
class MeasuredPoint:
    """One row. Latencies are means in milliseconds, None where they are not known; lengths are tokens.

    Args:
        id: of the point.
        gpu, model, dtype: as whoever measured writes them.
        kv_dtype: format of the KV cache, bf16 or fp8; empty: not said.
        engine: with its version; empty: not said.
        mode: agg, or disagg where prefill and decode run in different pools.
        tp: tensor parallelism, as it is written; here and below 0 is not known.
        gpus: of the engine.
        dp: data parallelism: ranks with requests of their own.
        ep: expert parallelism.
        prompt: tokens of each prompt.
        output: tokens of each answer.
        clients: requests that are always in flight; 0: there is no such number.
        rate: requests per second that arrive by chance, where concurrency is `poisson 2/s`; 0: none.
        e2e_ms, ttft_ms, tpot_ms: what was measured.
        note: of whoever measured.
    """

    id: str
    gpu: str
    model: str
    dtype: str
    kv_dtype: str
    engine: str
    mode: str
    tp: int
    gpus: int
    dp: int
    ep: int
    prompt: int
    output: int
    clients: int
    rate: float
    e2e_ms: float | None
    ttft_ms: float | None
    tpot_ms: float | None
    note: str


class PredictedPoint(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a point is predicted to measure, or why it is not.

    `low_ms` to `high_ms` is where its E2E is expected by the band of the profile.
    """

    id: str
    e2e_ms: float | None = None
    ttft_ms: float | None = None
    tpot_ms: float | None = None
    low_ms: float | None = None
    high_ms: float | None = None
    reason: str | None = None


class PointGroup(msgspec.Struct, frozen=True):
    """How far predicted E2E is from measured E2E over points of one engine, dense models or mixtures; fractions.

    Args:
        n: points that are predicted and have a measured E2E.
        e2e_mape: mean of |predicted - measured| / measured.
        within_15: share of points within 15 %.
        median: of predicted / measured - 1.
        covered: share of points whose measured E2E is between low_ms and high_ms.
        width: median width of their bands, 0.2 for ±20 %.
    """

    n: int
    e2e_mape: float
    within_15: float
    median: float
    covered: float
    width: float


class PointVerdict(msgspec.Struct, frozen=True):
    """Every point in the order of the table, and the groups by name."""

    points: list[PredictedPoint]
    groups: dict[str, PointGroup]


def verdict_json(verdict: PointVerdict) -> bytes:
    """The verdict for machines."""
    return msgspec.json.format(msgspec.json.encode(verdict), indent=2) + b"\n"


def read_points(path: Path) -> list[MeasuredPoint]:
    """The points of a table.

    Args:
        path: a CSV file.

    Raises:
        MeasurementError: no such file, a missing column, no row, or a cell that makes no sense.
    """
    if not path.is_file():
        what = "is a folder; give the table in it" if path.is_dir() else "does not exist"
        raise MeasurementError(f"{path} {what}", hint=_HINT)
    try:
        if path.stat().st_size > BYTES_MAX:
            raise MeasurementError(f"{path} is larger than {BYTES_MAX >> 20} MiB", hint="cut it")
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="")
            columns, rows = tuple(reader.fieldnames or ()), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MeasurementError(f"{path} cannot be read: {error}", hint="it must be a CSV file in UTF-8") from None
    missing = [name for name in NEEDED if name not in columns]
    if missing:
        raise MeasurementError(f"{path} has no column {', '.join(missing)}", hint=_HINT)
    if not rows:
        raise MeasurementError(f"{path} has a header and no points below it", hint=_HINT)
    return [_point(row, f"{path}: row {number}") for number, row in enumerate(rows, start=1)]


def _point(row: dict[str, str], where: str) -> MeasuredPoint:
    def cell(name: str) -> str:
        return (row.get(name) or "").strip()

    def latency(name: str) -> float | None:
        return _number(cell(name), f"{where}: {name}") if cell(name) else None

    def whole(name: str, otherwise: int = 0) -> int:
        return round(_number(cell(name), f"{where}: {name}")) if cell(name) else otherwise

    clients = cell("concurrency").lower()
    rate = _RATE.match(clients)
    return MeasuredPoint(
        id=cell("id"),
        gpu=cell("gpu"),
        model=cell("model"),
        dtype=cell("dtype"),
        kv_dtype=_format(cell("kv_dtype"), f"{where}: kv_dtype"),
        engine=cell("engine"),
        mode=cell("mode") or "agg",
        tp=whole("tp"),
        gpus=whole("gpus"),
        dp=whole("dp", 1),
        ep=whole("ep", 1),
        prompt=whole("isl"),
        output=whole("osl"),
        clients=int(clients) if clients.isdecimal() else 0,
        rate=_number(rate[1], f"{where}: concurrency") if rate else 0.0,
        e2e_ms=latency("e2e_ms"),
        ttft_ms=latency("ttft_ms"),
        tpot_ms=latency("tpot_ms"),
        note=cell("note"),
    )


def _format(text: str, where: str) -> str:
    found = text.lower()
    if found not in _KV:
        raise MeasurementError(f"{where}: {text[:40]!r} is not a format of a KV cache", hint=f"write one of {', '.join(_KV[1:])}")
    return found


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e12:
        raise MeasurementError(
            f"{where}: {text[:40]!r} is not a number above 0", hint="write numbers without units, with a point"
        )
    return value
