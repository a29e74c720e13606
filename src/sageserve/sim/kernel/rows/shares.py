"""What a world keeps of those who share it: whose each request is, what each was given, and a batch queue for each.

Where nobody shares there is one of everything, and nothing else is looked at. Read next: `sim/kernel/choices/shares.py`, which
shares out; `core/fair_share.py` for the rule.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sageserve.base.records import UNSET, Labels

SHARE_SIZES: Final = ("sharers",)
SHARE_ARRAYS: Final = (
    "owner",  # by request
    "share_weight",  # by owner
    "level",  # tokens over weight, by account and owner
    "share_floor",  # by account
    "asked_at",  # by account and owner, when anything was asked for last
    "asking",  # by account, the owners who have asked lately, in no order
    "asking_count",  # by account
    "batch_heap",
    "batch_begin",  # by model and owner, where its jobs are in the heap
    "job_count",  # likewise, jobs that wait; where nobody shares it is `batch_count`
    "batch_count",  # by model
    "waits",  # by model, the owners whose jobs wait, in no order
    "waits_count",  # by model
    "door_head",  # by model, of doors; by model, of rooms where some are held; by model and owner, of batch work that shares
    "door_tail",  # likewise
    "turned_away",  # by owner, in this round of the door
)
_SOME: Final = 5


@dataclass(frozen=True, slots=True)
class Sharers:
    """Those who share a world, by weight.

    Args:
        owner: int32[n], whose each request is, in the order of the world's rows: a row of `weights`.
        weights: float64[m].
    """

    owner: NDArray[np.int32]
    weights: NDArray[np.float64]


def sharers_of(tenants: Labels | None, weights: Mapping[str, float]) -> Sharers | None:
    """Those who share by these weights; None where the trace names nobody.

    Args:
        tenants: of the requests, in the order of the world's rows; None: the trace names none.
        weights: by name; who has none weighs 1, and so do all requests without a name together.
    """
    if tenants is None:
        return None
    return Sharers(tenants.codes - np.int32(UNSET), np.array([1.0, *(weights.get(name, 1.0) for name in tenants.names)]))


def told_of_tenants(tenants: Labels | None, named: Collection[str]) -> tuple[str, ...]:
    """What settings say of tenants that a trace does not have."""
    if not named:
        return ()
    if tenants is None:
        return ("the trace names no tenants: nobody shares by the weights of `tenants`",)
    missing = [name for name in named if name not in tenants.names]
    there = ", ".join(tenants.names[:_SOME]) + (", ..." if len(tenants.names) > _SOME else "")
    return (f"of `tenants`, {', '.join(missing)} asked for nothing; the trace has {there}",) if missing else ()


class ShareMemory:
    """Columns of a world, as `PrefixMemory` has them. There is an account for each model and tier, then one for each model.

    Args:
        sharers: who shares; None: nobody.
        requests: REQUEST rows.
        jobs: bool[tiers], whose requests wait in the batch queue when they come.
        models: number of them.
    """

    def __init__(self, sharers: Sharers | None, requests: NDArray[Any], jobs: NDArray[np.bool_], models: int) -> None:
        many = 1 if sharers is None else len(sharers.weights)
        some = many if many > 1 else 0
        self.sizes = {"sharers": many}
        self.arrays: dict[str, NDArray[Any]] = {
            "owner": np.zeros(1, np.int32) if sharers is None else np.ascontiguousarray(sharers.owner),
            "share_weight": np.ones(1) if sharers is None else sharers.weights,
            **_accounts(models * (len(jobs) + 1), some),
            **_queues(sharers, requests, jobs, models),
            "waits": np.zeros(models * some, np.int32),
            "waits_count": np.zeros(models, np.int64),
            **{name: np.full(models * (2 + many), UNSET, np.int32) for name in ("door_head", "door_tail")},
            "turned_away": np.zeros(many, np.int32),
        }


def _accounts(accounts: int, owners: int) -> dict[str, NDArray[Any]]:
    return {
        "level": np.full(accounts * owners, -np.inf),
        "share_floor": np.zeros(accounts),
        "asked_at": np.full(accounts * owners, UNSET, np.int64),
        "asking": np.zeros(accounts * owners, np.int32),
        "asking_count": np.zeros(accounts, np.int64),
    }


def _queues(
    sharers: Sharers | None, requests: NDArray[Any], jobs: NDArray[np.bool_], models: int
) -> dict[str, NDArray[np.int32] | NDArray[np.int64]]:
    waits = jobs[requests["tier"]] if jobs.any() else np.zeros(len(requests), np.bool_)
    queue, many, count = requests["model"][waits], 1, np.zeros(models, np.int64)
    if sharers is not None:
        many = len(sharers.weights)
        queue = queue.astype(np.int64) * many + sharers.owner[waits]
    waiting = np.bincount(queue, minlength=models * many)
    return {
        "batch_heap": np.zeros(max(1, int(waiting.sum())), np.int32),
        "batch_begin": np.concatenate(([0], np.cumsum(waiting)[:-1])).astype(np.int64),
        "batch_count": count,
        "job_count": count if many == 1 else np.zeros(models * many, np.int64),
    }
