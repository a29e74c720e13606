"""Who pays what of a run: cents by region, GPU type, model, tier and tenant, and the tables that they sum up to.

Every table is a sum of the same lines, so all of them come to the same total. Knows no simulator: `sim/results/allocation.py`
makes the lines, by the rule in docs/reference/money.md. Read next: `data/results/summary.py`, which holds the tables.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

UNALLOCATED: Final = "(unallocated)"
"""In place of a model, tier or tenant: nobody asked for what this paid for."""
NO_TENANT: Final = "(no tenant)"
"""Requests of a trace with tenants that name none."""
OTHERS: Final = "(others)"
TENANTS: Final = 100
"""So many tenants have a line of their own in summary.json; costs.parquet has all of them."""


class Allocation(Struct, frozen=True):
    """What one tenant's requests of one tier and model pay for GPUs of one type in one region; amounts are whole cents.

    Args:
        region: where the GPUs are.
        gpu: their type.
        model: that ran on them.
        tier: of the requests.
        tenant: of the requests; empty where the trace names none.
        requests: that finished there.
        prompt_tokens: of these.
        output_tokens: of these.
        on_demand_busy: paid on demand for time in which instances worked.
        on_demand_idle: likewise, in which they had nothing to do, and for GPUs of their VMs that no instance held.
        on_demand_start: likewise, in which they were coming.
        reserved_busy: the same of what is reserved.
        reserved_idle: likewise.
        reserved_start: likewise.
        unused: reserved, and needed by no VM in use.
        prompts: of the sum of these, for prompt tokens.
        outputs: of the sum of these, for output tokens.
        role: of those that ran it: prefill or decode, where these are apart.
    """

    region: str
    gpu: str
    model: str
    tier: str
    tenant: str
    requests: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    on_demand_busy: int = 0
    on_demand_idle: int = 0
    on_demand_start: int = 0
    reserved_busy: int = 0
    reserved_idle: int = 0
    reserved_start: int = 0
    unused: int = 0
    prompts: int = 0
    outputs: int = 0
    role: str = ""

    @property
    def total(self) -> int:
        """Cents."""
        return sum(getattr(self, name) for name in AMOUNTS)


AMOUNTS: Final = (
    "on_demand_busy",
    "on_demand_idle",
    "on_demand_start",
    "reserved_busy",
    "reserved_idle",
    "reserved_start",
    "unused",
)
"""Parts of an allocation that add up to its total."""


class CostShare(Struct, frozen=True):
    """A line of a table: amounts are whole cents, in the scenario's currency."""

    requests: int
    prompt_tokens: int
    output_tokens: int
    total: float  # busy + idle + start + unused
    busy: float
    idle: float
    start: float
    unused: float
    prompts: float  # of the total, for prompt tokens
    outputs: float  # of the total, for output tokens; what is left of it, nobody asked for
    per_million_prompt_tokens: float | None
    per_million_output_tokens: float | None


class CostTables(Struct, frozen=True):
    """The cost of a run by who caused it; each table comes to the same total. Empty in results written before it was told."""

    tenant: dict[str, CostShare] = {}  # empty too where the trace names none
    tier: dict[str, CostShare] = {}
    model: dict[str, CostShare] = {}
    region: dict[str, CostShare] = {}


def tables_of(lines: Sequence[Allocation], most: int | None = TENANTS) -> CostTables:
    """The tables that lines sum up to.

    Args:
        lines: of a run.
        most: tenants that have a line of their own, the dearest first; the rest is one line. None: all of them.
    """
    tenants = _grouped(lines, lambda line: line.tenant) if any(line.tenant not in {"", UNALLOCATED} for line in lines) else {}
    return CostTables(
        tenant=_shares(_dearest(tenants, most)),
        tier=_shares(_grouped(lines, lambda line: line.tier)),
        model=_shares(_grouped(lines, lambda line: line.model)),
        region=_shares(_grouped(lines, lambda line: line.region)),
    )


def _grouped(lines: Iterable[Allocation], key: Callable[[Allocation], str]) -> dict[str, list[Allocation]]:
    found: dict[str, list[Allocation]] = {}
    for line in lines:
        found.setdefault(key(line), []).append(line)
    return found


def _dearest(groups: dict[str, list[Allocation]], most: int | None) -> dict[str, list[Allocation]]:
    """Tenants from the dearest on; those beyond `most` together."""
    ranked = sorted(groups, key=lambda name: (-sum(line.total for line in groups[name]), name))
    if most is None or len(ranked) <= most:
        return {name: groups[name] for name in ranked}
    return {name: groups[name] for name in ranked[:most]} | {OTHERS: [line for name in ranked[most:] for line in groups[name]]}


def _shares(groups: dict[str, list[Allocation]]) -> dict[str, CostShare]:
    return {name: _share(lines) for name, lines in groups.items()}


def _share(lines: list[Allocation]) -> CostShare:
    def cents(*names: str) -> int:
        return sum(getattr(line, name) for line in lines for name in names)

    prompt_tokens, output_tokens = cents("prompt_tokens"), cents("output_tokens")
    prompts, outputs = cents("prompts"), cents("outputs")
    return CostShare(
        requests=cents("requests"),
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        total=cents(*AMOUNTS) / 100,
        busy=cents("on_demand_busy", "reserved_busy") / 100,
        idle=cents("on_demand_idle", "reserved_idle") / 100,
        start=cents("on_demand_start", "reserved_start") / 100,
        unused=cents("unused") / 100,
        prompts=prompts / 100,
        outputs=outputs / 100,
        per_million_prompt_tokens=round(prompts * 10_000 / prompt_tokens, 6) if prompt_tokens else None,
        per_million_output_tokens=round(outputs * 10_000 / output_tokens, 6) if output_tokens else None,
    )


def write_allocations(path: Path, lines: Sequence[Allocation]) -> None:
    """Write lines as Parquet."""
    import pyarrow as pa  # noqa: PLC0415 # 50 ms: a summary has these lines too, and writes none
    import pyarrow.parquet as pq  # noqa: PLC0415 # likewise

    columns: dict[str, pa.Array] = {}
    for field in msgspec.structs.fields(Allocation):
        values = [getattr(line, field.name) for line in lines]
        if field.name == "role" and not any(values):
            continue  # nothing is apart
        columns[field.name] = pa.array(values, pa.string() if field.type is str else pa.int64())
    pq.write_table(pa.table(columns), path, compression="zstd", version="2.6")


def read_allocations(path: Path) -> tuple[Allocation, ...]:
    """The lines that were written.

    Raises:
        OSError: the file cannot be read.
        pa.ArrowInvalid: it is no Parquet.
        msgspec.ValidationError: it holds something else.
    """
    import pyarrow.parquet as pq  # noqa: PLC0415 # as above

    return tuple(msgspec.convert(pq.read_table(path).to_pylist(), list[Allocation]))
