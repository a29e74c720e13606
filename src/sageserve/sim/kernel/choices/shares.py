"""Accounts of those who share, in rows: what each was given, how far one is ahead, whose turn it is.

What `FairShare` of `core/fair_share.py` has by name: numbers are reckoned by the same functions; generated worlds hold the two
equal. An account for each model and tier at the front door, then one for each model's batch queue. Asked only where somebody
shares. Read next: `jobs.py`; docs/reference/kernel.md, "Tenants that share".
"""

from sageserve.base.kernel import Rec, kernel
from sageserve.base.records import UNSET
from sageserve.core import fair_share
from sageserve.sim.kernel.state import view_f8, view_i4, view_i8, view_requests, view_tiers

standing = kernel(fair_share.standing)
charged = kernel(fair_share.charged)
is_silent = kernel(fair_share.is_silent)
ahead = kernel(fair_share.ahead)
raised = kernel(fair_share.raised)
room = kernel(fair_share.room)

LOWEST = float("-inf")  # of who has been given nothing: stands where all begin


@kernel
def accounts(w: Rec) -> int:
    """How many there are."""
    return int(w["models"] * (w["tiers"] + 1))


@kernel
def queue_account(w: Rec, model: int) -> int:
    """The account of a model's batch queue."""
    return int(w["models"] * w["tiers"] + model)


@kernel
def door_account(w: Rec, q: int) -> int:
    """The account that request `q` is let in by."""
    r = view_requests(w["at_requests"], w["rows"])[q]
    return int(r["model"] * w["tiers"] + r["tier"])


@kernel
def owner_of(w: Rec, q: int) -> int:
    """Whose request `q` is."""
    return int(view_i4(w["at_owner"], w["rows"])[q])


@kernel
def stands(w: Rec, account: int, owner: int) -> float:
    """Where an owner stands in an account, in tokens over its weight."""
    many = w["sharers"]
    level = view_f8(w["at_level"], accounts(w) * many)[account * many + owner]
    return standing(level, view_f8(w["at_share_floor"], accounts(w))[account])


@kernel
def charge(w: Rec, account: int, owner: int, tokens: float) -> None:
    """Take down what an owner is given."""
    many = w["sharers"]
    levels = view_f8(w["at_level"], accounts(w) * many)
    floor = view_f8(w["at_share_floor"], accounts(w))[account]
    k = account * many + owner
    levels[k] = charged(levels[k], floor, tokens, view_f8(w["at_share_weight"], many)[owner])


@kernel
def lead(w: Rec, account: int, owner: int, now: int) -> float:
    """Count that an owner asks; by how many tokens over its weight it is ahead of whoever else asks, if nobody had more."""
    many = w["sharers"]
    base = account * many
    levels = view_f8(w["at_level"], accounts(w) * many)
    asked = view_i8(w["at_asked_at"], accounts(w) * many)
    asking = view_i4(w["at_asking"], accounts(w) * many)
    counts = view_i8(w["at_asking_count"], accounts(w))
    floors = view_f8(w["at_share_floor"], accounts(w))
    if asked[base + owner] == UNSET:
        asking[base + counts[account]] = owner
        counts[account] += 1
    asked[base + owner] = now
    level = stands(w, account, owner)
    levels[base + owner] = level
    lowest, highest = level, level
    for k in range(counts[account] - 1, -1, -1):  # from the last on, whose place is free when one is silent
        other = asking[base + k]
        if is_silent(asked[base + other], now):
            asked[base + other] = UNSET
            levels[base + other] = LOWEST
            counts[account] -= 1
            asking[base + k] = asking[base + counts[account]]
        else:
            at = stands(w, account, other)
            lowest, highest = min(lowest, at), max(highest, at)
    floors[account] = raised(floors[account], lowest, highest)
    return ahead(level, lowest, highest)


@kernel
def room_for(w: Rec, q: int, now: int) -> float:
    """The part of an endpoint's queue that is there for request `q`."""
    return room(lead(w, door_account(w, q), owner_of(w, q), now))


@kernel
def note_given(w: Rec, q: int) -> None:
    """Charge what job `q`, which leaves the batch queue for an engine, is expected to take."""
    r = view_requests(w["at_requests"], w["rows"])[q]
    mean = view_f8(w["at_output_mean"], w["models"] * w["tiers"])[r["model"] * w["tiers"] + r["tier"]]
    charge(w, queue_account(w, r["model"]), owner_of(w, q), r["prompt"] + mean)


@kernel
def note_let_in(w: Rec, q: int) -> None:
    """Charge what request `q`, which is let in, is expected to take; batch work has its turns from the queue's account, too."""
    r = view_requests(w["at_requests"], w["rows"])[q]
    guess = view_i8(w["at_guess"], w["models"])[r["model"]]
    charge(w, door_account(w, q), owner_of(w, q), r["prompt"] + guess)
    if view_tiers(w["at_tier_rows"], w["tiers"])[r["tier"]]["batch"] != 0:
        note_given(w, q)
