"""What rules of the user's are told in the naive reference, derived again from docs/how-to/own-routers.md.

Read next: `reference.py` and `reference_fleet.py`, which ask them.
"""

from typing import TYPE_CHECKING

from tests.sim.reference_engine import Job

if TYPE_CHECKING:
    from tests.sim.reference import Reference
    from tests.sim.reference_fleet import ReferenceFleet


def asked_of(fleet: "ReferenceFleet", job: Job) -> dict[str, float]:
    """Of a request."""
    tier = fleet.setup.tiers[job.tier]
    return {"prompt": job.prompt, "priority": int(tier["rank"]), "batch": int(tier["batch"])}


def numbers_of(fleet: "ReferenceFleet", i: int, job: Job) -> dict[str, float]:
    """Of a request and an instance."""
    engine = fleet._engines[i]
    return asked_of(fleet, job) | {
        "outstanding": fleet._outstanding(i) / 1000,
        "in_flight": engine.inside,
        "queued": engine.unprefilled,
        "found": fleet._would_find(job, i),
        "pace": engine.profile.weight / 1000,
        "sequences": engine.places,
        "kv_tokens": engine.kv_tokens,
        "number": i % fleet.setup.slots,
    }


def numbers_at(fleet: "Reference", e: int, job: Job) -> dict[str, float]:
    """Of a request and an endpoint."""
    one, regions = fleet._endpoints[e], fleet.setup.regions
    region = e // (len(fleet._endpoints) // regions)
    return asked_of(fleet, job) | {
        "utilisation": fleet._expected(e),
        "busy": fleet._expected_busy(e),
        "kv": one.kv,
        "backlog": sum(one.unfinished.values()),
        "instances": len(fleet._opened(one)),
        "away": int(fleet.setup.rtt[fleet._region[job.row], region]) if fleet.setup.rtt.size else 0,
    }
