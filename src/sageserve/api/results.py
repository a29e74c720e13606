"""What the functions give back: a run and a comparison, as records and Arrow tables. Computes nothing new.

Read next: `sageserve.api` for the functions, docs/reference/summary.md for every key and column.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa
from msgspec import UNSET

from sageserve.base.config import Scenario
from sageserve.data.results.comparison import Bound, kept_of, needed
from sageserve.data.results.run_folder import check_folder, write_run
from sageserve.data.results.summary import Summary
from sageserve.data.results.tables import request_table, timeline_tables
from sageserve.sim.results.export import record_of
from sageserve.sim.run import Run


@dataclass(frozen=True, slots=True)
class SimulationResult:
    """A simulated run.

    Args:
        summary: what summary.json holds: cost, waste, and which promises were kept.
        run: everything else; its attributes are no part of the stable API.
    """

    summary: Summary
    run: Run

    @property
    def scenario(self) -> Scenario:
        """As it was played, every default filled in."""
        return self.run.scenario

    def requests(self) -> pa.Table:
        """One row per request that arrived: the columns of requests.parquet."""
        record = record_of(self.run, self.summary)
        return pa.concat_tables(request_table(frame, record.names) for frame in record.requests)

    def timeline(self) -> pa.Table:
        """One row per minute and endpoint: the columns of timeline.parquet."""
        return pa.concat_tables(timeline_tables(record_of(self.run, self.summary).timeline))

    def decisions(self) -> pa.Table:
        """One row per decision: instant, pool, what was wanted and done, and why."""
        pools = self.run.layout.pools
        rows = [
            {"time_us": entry.now, **msgspec.to_builtins(one), "pool": pools[one.pool].name}
            for entry in self.run.journal
            for one in entry.decisions
            if entry.now >= 0
        ]
        return pa.Table.from_pylist(rows, schema=_DECISIONS)

    def save(self, folder: str | Path, *, replace: bool = False) -> Path:
        """Write what `sageserve simulate --out` writes but the report; `report` makes that from the folder.

        Args:
            folder: made if it is not there.
            replace: over what is in it.

        Raises:
            ResultError: it holds something and `replace` is not given, or cannot be written.
        """
        check_folder(Path(folder), replace=replace)
        write_run(Path(folder), record_of(self.run, self.summary), replace=replace)
        return Path(folder)


@dataclass(frozen=True, slots=True)
class ComparisonResult:
    """Strategies on the same requests.

    Args:
        summaries: by strategy and seed, in the order they were asked for.
        bounds: the oracle's by seed; empty when it was not asked for.
    """

    summaries: Mapping[str, Mapping[int, Summary]]
    bounds: Mapping[int, Bound]

    def table(self) -> pa.Table:
        """One row per strategy and seed: GPU-hours, cost, waste, requests, and the least that as much kept takes anyone."""
        rows = [
            {
                "strategy": name,
                "seed": seed,
                "gpu_hours": one.gpu_hours.total,
                "gpu_hours_with_owed": needed(one),
                "waste_gpu_hours": one.gpu_hours.waste,
                "cost_usd": one.cost_usd.total,
                "requests": one.requests.arrived,
                "finished": one.requests.finished,
                "shed": one.requests.shed,
                "promises_kept": all(tier.kept is not False for tier in one.tiers.values()),
                "bound_gpu_hours": self.bounds[seed].at(kept_of(one)) if seed in self.bounds else None,
            }
            for name, seeds in self.summaries.items()
            for seed, one in seeds.items()
        ]
        return pa.Table.from_pylist(rows)

    def tiers(self) -> pa.Table:
        """One row per strategy, seed and tier: what was promised, and how it was kept."""
        rows = [
            {
                "strategy": name,
                "seed": seed,
                "tier": tier,
                "requests": found.requests,
                "shed": found.shed,
                "attainment": found.attainment,
                "percentile": found.percentile,
                "kept": found.kept,
                "ttft_s_p50": found.ttft_s.p50,
                "ttft_s_p95": found.ttft_s.p95,
                "e2e_s_p95": found.e2e_s.p95,
                "tpot_s_p95": None if found.tpot_s is UNSET else found.tpot_s.p95,
            }
            for name, seeds in self.summaries.items()
            for seed, one in seeds.items()
            for tier, found in one.tiers.items()
        ]
        return pa.Table.from_pylist(rows)


_DECISIONS: Final = pa.schema(
    {
        "time_us": pa.int64(),
        "pool": pa.string(),
        "change": pa.int64(),
        "done": pa.int64(),
        "reason": pa.string(),
        "blocked": pa.string(),
        "seen": pa.float64(),
        "age": pa.int64(),
        "serving": pa.int64(),
        "coming": pa.int64(),
        "target": pa.int64(),
    }
)
