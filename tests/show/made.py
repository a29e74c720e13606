"""Summaries with chosen numbers, for laws about reports. Nothing here is measured."""

from collections.abc import Mapping
from typing import Final

from sageserve.data.results.summary import (
    AfterWindow,
    Cost,
    Hours,
    Quantiles,
    RequestCounts,
    Summary,
    TierSummary,
    Utilisation,
)

TIERS: Final = ("iw-f", "iw-n", "niw")
PERCENTILE: Final = 0.95
REQUESTS: Final = 10_000


def summary_of(strategy: str, seed: int, hours: float, kept: Mapping[str, float]) -> Summary:
    """A summary with these GPU-hours and attainments; a tier that is left out had no requests."""
    held = Hours(hours, hours, 0.0, 0.0, 0.0, 0.0, 0.0, hours / 2)
    count = len(kept) * REQUESTS
    return Summary(
        version="0",
        scenario="made",
        strategy=strategy,
        order="fcfs",
        signal="load",
        seed=seed,
        partial=False,
        window_s=3600.0,
        played_s=3600.0,
        requests=RequestCounts(count, count, 0, 0),
        tiers={tier: _tier(tier, kept.get(tier)) for tier in TIERS},
        models={},
        gpu_hours=held,
        instance_hours=held,
        cost_usd=Cost(hours * 10, 0.0, hours * 10, 0.0),
        utilisation=Utilisation(0.5, 0.5, 0.5),
        after_window=AfterWindow(0, None, 0.0),
        starts=0,
        start_failures=0,
        reclaims=0,
        spot_taken=0,
        preemptions=0,
        notes=(f"{count:,} requests generated over 1h with seed {seed}",),
        cpu_s=1.0,
        requests_per_cpu_s=None,
    )


def _tier(name: str, attainment: float | None) -> TierSummary:
    requests = 0 if attainment is None else REQUESTS
    promise = "deadline" if name == "niw" else "ttft"
    none = Quantiles(None, None, None)
    some = none if attainment is None else Quantiles(0.1, 0.2, 0.3)
    reached = None if attainment is None else attainment >= PERCENTILE
    return TierSummary(requests, requests, 0, attainment, PERCENTILE, reached, promise, 1.0, some, some)
