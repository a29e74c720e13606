"""The hour before an instant at one pool: who asked, who was turned away, and whose promises were kept where tenants share.

Reads the requests of a result folder. Read next: `story.py`, which tells it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import UnsetType

from sageserve.base.units import HOUR, Micros
from sageserve.core.fleet import Pool
from sageserve.core.layout import Layout
from sageserve.data.billing.allocations import NO_TENANT
from sageserve.data.results.run_folder import RunFolder

_MOST: Final = 6  # tenants that are told of


@dataclass(slots=True)
class Hour:
    """Interactive requests of a pool's region and model.

    Args:
        weights: of those who share, by name; None: nobody does.
        asked: those that came.
        shed: those of them that were turned away.
        tenants: requests and promises kept, by name; empty where nobody shares.
    """

    weights: dict[str, float] | None
    asked: int = 0
    shed: int = 0
    tenants: dict[str, list[int]] = field(default_factory=dict)

    def add(self, part: pa.Table) -> None:
        """Count some of them."""
        self.asked += part.num_rows
        self.shed += pc.sum(pc.equal(part.column("state"), "shed")).as_py() or 0
        if "tenant" in part.column_names:
            for name, met in zip(part.column("tenant").to_pylist(), part.column("met").to_pylist(), strict=True):
                counts = self.tenants.setdefault(NO_TENANT if name is None else name, [0, 0])
                counts[0] += 1
                counts[1] += bool(met)

    def notes(self) -> Iterator[str]:
        """What is to be known of tenants, who asked most first."""
        if self.weights is None or not self.tenants:
            return
        ordered = sorted(self.tenants.items(), key=lambda one: (-one[1][0], one[0]))
        told = [
            f"{name} (weight {self.weights.get(name, 1.0):g}) {kept:,} of {asked:,}" for name, (asked, kept) in ordered[:_MOST]
        ]
        rest = f", {len(ordered) - _MOST:,} more" if len(ordered) > _MOST else ""
        yield f"tenants share by weight; promises kept of what came in the hour before: {', '.join(told)}{rest}"


def hour_before(run: RunFolder, layout: Layout, pool: Pool, at: Micros) -> Hour:
    """What came to a pool's region and model in the hour before an instant."""
    names = layout.names
    interactive = [name for name, tier in run.scenario.tiers.items() if not tier.batch]
    shared = run.scenario.shared and not isinstance(run.summary.tenants, UnsetType)
    found = Hour(run.scenario.weights() if shared else None)
    columns = ["arrival_us", "region", "model", "tier", "state", *(["tenant", "met"] if shared else [])]
    for part in run.request_parts(columns):
        arrival = part.column("arrival_us").to_numpy()
        if not len(arrival) or arrival[-1] < at - HOUR:
            continue
        if arrival[0] >= at:
            break
        first, last = np.searchsorted(arrival, (at - HOUR, at))
        found.add(
            part.slice(first, last - first).filter(
                (pc.field("region") == names.regions[pool.region])
                & (pc.field("model") == names.models[pool.model])
                & pc.field("tier").isin(interactive)
            )
        )
    return found
