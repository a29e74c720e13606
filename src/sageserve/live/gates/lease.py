"""The lease that llm-d-async's gate redis-leased-rate reads: a hash with a rate and an end, by Redis' clock.

    HSET control_key api_version llm-d.ai/v1alpha1 pool_id P max_admission_rps 1.5 valid_until_unix_ms 1790000045000 decision_id D

A gate is closed while the key is missing, malformed or past its end. Written from what that project publishes (its main branch
of September 2026), and tried on no real processor. Pure. Read next: `writer.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import floor
from typing import Final

from sageserve.base.units import SECOND, Micros

API_VERSION: Final = "llm-d.ai/v1alpha1"
LEASE_INTERVALS: Final = 3
"""A lease holds for so many intervals: two writes may fail, the third closes the gate."""
_ENDED: Final = "/end"


@dataclass(frozen=True, slots=True)
class RateLease:
    """One lease.

    Args:
        pool_id: as the processor names it.
        rate: requests a second; 0: nothing is let through.
        valid_until_ms: since 1970, by Redis' clock.
        decision_id: WRITER/NUMBER, or WRITER/end for the last one.
    """

    pool_id: str
    rate: float
    valid_until_ms: int
    decision_id: str

    def fields(self) -> dict[str, str]:
        """As the gate reads it."""
        return {
            "api_version": API_VERSION,
            "pool_id": self.pool_id,
            "max_admission_rps": shown_rate(self.rate),
            "valid_until_unix_ms": str(self.valid_until_ms),
            "decision_id": self.decision_id,
        }


def shown_rate(rate: float) -> str:
    """A rate in thousandths, rounded down: 0.0004 is a pause."""
    whole, part = divmod(floor(rate * 1000), 1000)
    return f"{whole}.{part:03d}".rstrip("0").rstrip(".")


def lease_of(pool_id: str, rate: float, now_ms: int, every: Micros, decision_id: str) -> RateLease:
    """The lease of a decision.

    Args:
        pool_id: as the processor names it.
        rate: requests a second.
        now_ms: by Redis' clock.
        every: microseconds between two leases.
        decision_id: as in the lease.
    """
    return RateLease(pool_id, rate, now_ms + LEASE_INTERVALS * every * 1000 // SECOND, decision_id)


def decision_name(writer: str, number: int | None) -> str:
    """What a writer's decision is called; None: its last one."""
    return f"{writer}{_ENDED}" if number is None else f"{writer}/{number}"


def foreign_holder(found: Mapping[str, str], me: str, now_ms: int) -> str:
    """Who else holds a key now, so that it is not ours to write; empty: nobody does.

    Args:
        found: the hash at the key.
        me: this writer's name.
        now_ms: by Redis' clock.
    """
    if not found:
        return ""
    decision, until = found.get("decision_id", ""), found.get("valid_until_unix_ms", "")
    if decision.rpartition("/")[0] == me or decision.endswith(_ENDED):
        return ""
    if not decision or not (until.isascii() and until.isdigit()):
        return "something that is no lease"
    return decision.rpartition("/")[0] or decision if int(until) > now_ms else ""
