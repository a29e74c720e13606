"""The columns of requests.parquet and timeline.parquet, as arrays in and arrow tables out.

A missing time or place is null. Codes become names here. Knows no simulator. Read next: `run_folder.py`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sageserve.base.records import UNSET, Bools, Ints, Names

_ROWS: Final = 1 << 17  # about: per row group of a timeline


@dataclass(frozen=True, slots=True)
class RequestNames:
    """What the codes of a `RequestFrame` mean."""

    names: Names
    pools: tuple[str, ...]
    gpus: tuple[str, ...]  # of each pool
    states: tuple[str, ...]
    sessions: tuple[str, ...] = ()
    tenants: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RequestFrame:
    """Some requests; all columns have n rows, UNSET stands for what there is not.

    Args:
        arrival: int64[n], microseconds from the start of the window.
        model: uint8[n], codes into names.models.
        tier: uint8[n], codes into names.tiers.
        region: uint8[n], codes into names.regions: where it entered.
        prompt: int32[n], tokens.
        output: int32[n], tokens, as far as the model's context allows.
        deadline: int64[n], microseconds from the start of the window.
        served: int64[n], region that served it.
        instance: int32[n], where it was placed last.
        pool: int64[n], codes into pools.
        state: uint8[n], codes into states.
        ttft: int64[n], microseconds, network included.
        e2e: int64[n], microseconds, network included.
        met: bool[n], the tier's promise was kept.
        cached: int32[n], tokens of the prompt that were found in the prefix cache.
        session: int32[n], codes into sessions; None unless turns waited for answers.
        turn: int32[n], which turn of its session it is, from 1; None as above.
        tenant: int32[n], codes into tenants; None where the trace names none.
    """

    arrival: Ints
    model: NDArray[np.uint8]
    tier: NDArray[np.uint8]
    region: NDArray[np.uint8]
    prompt: NDArray[np.int32]
    output: NDArray[np.int32]
    deadline: Ints
    served: Ints
    instance: NDArray[np.int32]
    pool: Ints
    state: NDArray[np.uint8]
    ttft: Ints
    e2e: Ints
    met: Bools
    cached: NDArray[np.int32]
    session: NDArray[np.int32] | None = None
    turn: NDArray[np.int32] | None = None
    tenant: NDArray[np.int32] | None = None

    @staticmethod
    def nothing() -> "RequestFrame":
        """No requests: gives an empty table its columns."""
        there = (field.name for field in fields(RequestFrame) if field.default is MISSING)
        return RequestFrame(*(np.zeros(0, _EMPTY.get(name, np.int64)) for name in there))


_EMPTY: Final[Mapping[str, type[np.generic]]] = {
    **dict.fromkeys(("prompt", "output", "cached", "instance"), np.int32),
    "met": np.bool_,
}


@dataclass(frozen=True, slots=True)
class TimelineFrame:
    """Samples of every endpoint.

    Args:
        times: int64[samples], microseconds from the start of the window.
        endpoints: their names.
        regions: of each endpoint.
        models: of each endpoint.
        roles: of each endpoint.
        columns: [samples, endpoints] by name.
    """

    times: Ints
    endpoints: tuple[str, ...]
    regions: tuple[str, ...]
    models: tuple[str, ...]
    roles: tuple[str, ...]
    columns: Mapping[str, NDArray[Any]]


def request_table(frame: RequestFrame, names: RequestNames) -> pa.Table:
    """Requests as an arrow table; the first columns are those of a trace file of ours."""
    gpus = tuple(dict.fromkeys(names.gpus))
    gpu_of = np.array([gpus.index(gpu) for gpu in names.gpus], np.int64)
    gpu = np.where(frame.pool == UNSET, UNSET, gpu_of[frame.pool]) if len(gpu_of) else frame.pool
    more: dict[str, pa.Array] = {} if frame.tenant is None else {"tenant": _named(frame.tenant, names.tenants)}
    if frame.session is not None and frame.turn is not None:
        more |= {"session": _named(frame.session, names.sessions), "turn": _nullable(frame.turn)}
    return pa.table(
        {
            "arrival_us": pa.array(frame.arrival),
            "model": _named(frame.model, names.names.models),
            "tier": _named(frame.tier, names.names.tiers),
            "region": _named(frame.region, names.names.regions),
            "prompt_tokens": pa.array(frame.prompt),
            "output_tokens": pa.array(frame.output),
            "deadline_us": pa.array(frame.deadline),
            "cached_tokens": pa.array(frame.cached),
            "served_region": _named(frame.served, names.names.regions),
            "instance": _nullable(frame.instance),
            "pool": _named(frame.pool, names.pools),
            "gpu": _named(gpu, gpus),
            "state": _named(frame.state, names.states),
            "ttft_us": _nullable(frame.ttft),
            "e2e_us": _nullable(frame.e2e),
            "met": pa.array(frame.met),
            **more,
        }
    )


def timeline_tables(frame: TimelineFrame) -> Iterator[pa.Table]:
    """The timeline as tables of whole samples, by time and then endpoint; at least one."""
    endpoints = len(frame.endpoints)
    step = max(_ROWS // max(endpoints, 1), 1)
    for first in range(0, max(len(frame.times), 1), step):
        times = frame.times[first : first + step]
        codes = np.tile(np.arange(endpoints), len(times))
        columns: dict[str, pa.Array] = {
            "time_us": pa.array(np.repeat(times, endpoints)),
            "endpoint": _named(codes, frame.endpoints),
        }
        for name, words in (("region", frame.regions), ("model", frame.models), ("role", frame.roles)):
            distinct = tuple(dict.fromkeys(words))
            columns[name] = _named(np.array([distinct.index(word) for word in words], np.int64)[codes], distinct)
        for name, values in frame.columns.items():
            columns[name] = pa.array(values[first : first + step].ravel())
        yield pa.table(columns)


def _named(codes: NDArray[Any], names: tuple[str, ...]) -> pa.Array:
    wide = codes.astype(np.int32)
    return pa.DictionaryArray.from_arrays(pa.array(wide, mask=wide == UNSET), pa.array(names, pa.string()))


def _nullable(values: NDArray[Any]) -> pa.Array:
    return pa.array(values, mask=values == UNSET)
