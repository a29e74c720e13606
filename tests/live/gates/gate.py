"""A gate as llm-d-async's redis-leased-rate is described: what it lets through, from what it finds in Redis.

Written from the contract alone, and not from `live/gates/lease.py`, which it is held against. Whatever is missing, malformed or
over by Redis' clock closes it.
"""

import math
from collections.abc import Mapping

FIELDS = ("api_version", "pool_id", "max_admission_rps", "valid_until_unix_ms", "decision_id")


def lets_through(found: Mapping[str, str], pool_id: str, now_ms: int) -> float:
    """Requests a second."""
    if any(not found.get(field) for field in FIELDS):
        return 0.0
    if found["api_version"] != "llm-d.ai/v1alpha1" or found["pool_id"] != pool_id:
        return 0.0
    try:
        rate, until = float(found["max_admission_rps"]), int(found["valid_until_unix_ms"])
    except ValueError:
        return 0.0
    return rate if math.isfinite(rate) and rate > 0 and now_ms < until else 0.0
