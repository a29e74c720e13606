"""The batch queue: which job of a model goes next, which is given up, and, where tenants share, whose turn it is.

Of each owner the job that is due first goes first; where nobody shares that is all there is to it. Decides nothing itself:
`core/fair_share.py` says whose turn it is, and `core/feed.py` what is over or urgent. `live/control/batch_queue.py` asks them the
same. Read next: `shares.py`; `sim/kernel/arrive.py`, which asks.
"""

from sageserve.base.kernel import Rec, kernel
from sageserve.base.records import UNSET
from sageserve.core.feed import first_open, is_over, is_urgent
from sageserve.sim.kernel.bookkeeping import shed, whole_work
from sageserve.sim.kernel.choices.shares import accounts, note_given, owner_of, queue_account, stands
from sageserve.sim.kernel.queues import pop_row, push_row, sooner
from sageserve.sim.kernel.state import SHUT, view_endpoints, view_engines, view_f8, view_i4, view_i8, view_requests


@kernel
def queue_of_jobs(w: Rec, q: int) -> int:
    """The batch queue in which job `q` waits: that of its model, or of its model and owner."""
    many = w["sharers"]
    queue = view_requests(w["at_requests"], w["rows"])[q]["model"] * many
    return int(queue if many == 1 else queue + owner_of(w, q))


@kernel
def push_job(w: Rec, q: int) -> None:
    """Add job `q` to its batch queue."""
    many = w["sharers"]
    k = queue_of_jobs(w, q)
    counts = view_i8(w["at_job_count"], w["models"] * w["sharers"])
    if many > 1:
        model = view_requests(w["at_requests"], w["rows"])[q]["model"]
        view_i8(w["at_batch_count"], w["models"])[model] += 1
        if counts[k] == 0:
            waits = view_i8(w["at_waits_count"], w["models"])
            view_i4(w["at_waits"], w["models"] * w["sharers"])[model * many + waits[model]] = owner_of(w, q)
            waits[model] += 1
    push_row(
        w,
        view_i4(w["at_batch_heap"], w["rows"]),
        view_i8(w["at_batch_begin"], w["models"] * w["sharers"])[k],
        counts[k],
        q,
        False,
    )
    counts[k] += 1


@kernel
def take_job(w: Rec, q: int) -> None:
    """Take job `q`, which is due first in its batch queue, out of it."""
    many = w["sharers"]
    k = queue_of_jobs(w, q)
    counts = view_i8(w["at_job_count"], w["models"] * w["sharers"])
    pop_row(
        w, view_i4(w["at_batch_heap"], w["rows"]), view_i8(w["at_batch_begin"], w["models"] * w["sharers"])[k], counts[k], False
    )
    counts[k] -= 1
    if many > 1:
        model = view_requests(w["at_requests"], w["rows"])[q]["model"]
        view_i8(w["at_batch_count"], w["models"])[model] -= 1
        if counts[k] == 0:
            waits = view_i8(w["at_waits_count"], w["models"])
            owners = view_i4(w["at_waits"], w["models"] * w["sharers"])
            place = model * many
            while owners[place] != owner_of(w, q):
                place += 1
            waits[model] -= 1
            owners[place] = owners[model * many + waits[model]]


@kernel
def first_job(w: Rec, k: int) -> int:
    """The job that is due first in batch queue `k`; -1 when none waits."""
    if view_i8(w["at_job_count"], w["models"] * w["sharers"])[k] == 0:
        return UNSET
    return int(view_i4(w["at_batch_heap"], w["rows"])[view_i8(w["at_batch_begin"], w["models"] * w["sharers"])[k]])


@kernel
def jobs_wait(w: Rec, model: int) -> bool:
    """Whether any job of a model waits."""
    return bool(view_i8(w["at_batch_count"], w["models"])[model] > 0)


@kernel
def give_up(w: Rec, k: int, now: int) -> None:
    """With admission: what is over goes out of batch queue `k`, from its first on."""
    q = first_job(w, k)
    while q >= 0 and is_over(view_requests(w["at_requests"], w["rows"])[q]["deadline"], now):
        take_job(w, q)
        shed(w, q)
        q = first_job(w, k)


@kernel
def next_job(w: Rec, model: int, now: int) -> int:
    """The job of this model whose turn it is, -1 when none waits; with admission, what is over is given up on the way."""
    many = w["sharers"]
    if many > 1:
        return next_in_turn(w, model, now)
    if w["admission"] != 0:
        give_up(w, model, now)
    return first_job(w, model)


@kernel
def next_in_turn(w: Rec, model: int, now: int) -> int:
    """As `next_job`, where tenants share: of those whose jobs wait the one with the lowest level, of equals who is due first."""
    many = w["sharers"]
    owners = view_i4(w["at_waits"], w["models"] * w["sharers"])
    waits = view_i8(w["at_waits_count"], w["models"])
    account = queue_account(w, model)
    best = UNSET
    lowest = 0.0
    for place in range(waits[model] - 1, -1, -1):  # from the last on, which takes the place of one that has nothing left
        owner = owners[model * many + place]
        if w["admission"] != 0:
            give_up(w, model * many + owner, now)
        q = first_job(w, model * many + owner)
        if q < 0:
            continue
        level = stands(w, account, owner)
        if best < 0 or level < lowest or (level == lowest and sooner(w, q, best, False)):
            best = q
            lowest = level
    if best >= 0:
        view_f8(w["at_share_floor"], accounts(w))[account] = lowest
    return best


@kernel
def next_at_door(w: Rec, model: int) -> int:
    """Whose turn it is at a model's door where tenants share, of those of whom nobody was turned away; -1: nobody is left."""
    many = w["sharers"]
    doors = 2 * w["models"] + model * many
    heads = view_i4(w["at_door_head"], w["models"] * (2 + many))
    turned_away = view_i4(w["at_turned_away"], many)
    account = queue_account(w, model)
    best = UNSET
    lowest = 0.0
    for owner in range(many):
        q = heads[doors + owner]
        if q < 0 or turned_away[owner] != 0:
            continue
        level = stands(w, account, owner)
        if best < 0 or level < lowest or (level == lowest and q < best):
            best = int(q)
            lowest = level
    if best >= 0:
        view_f8(w["at_share_floor"], accounts(w))[account] = lowest
    return best


@kernel
def first_opened(w: Rec, q: int) -> int:
    """The first open instance of the first open endpoint in the walk of request `q`; -1 when there is none."""
    r = view_requests(w["at_requests"], w["rows"])[q]
    width = w["walk_length"]
    walk = view_i4(w["at_walk"], w["regions"] * w["models"] * w["tiers"] * width)
    begin = ((r["region"] * w["models"] + r["model"]) * w["tiers"] + r["tier"]) * width
    e = first_open(view_endpoints(w["at_endpoints"], w["endpoint_count"]), walk, begin, begin + width)
    if e < 0:
        return UNSET
    engines = view_engines(w["at_engines"], w["units"])
    i = e * w["slots"]
    while engines[i]["phase"] == SHUT or engines[i]["draining"] != 0:
        i += 1
    return int(i)


@kernel
def is_pressing(w: Rec, q: int, now: int) -> bool:
    """Whether job `q`, which waits, is old or about to be late, and could go."""
    i = first_opened(w, q)
    if i < 0:
        return False
    r = view_requests(w["at_requests"], w["rows"])[q]
    return is_urgent(now - r["arrival"], r["deadline"] - now, whole_work(w, i, q), w["promote_after"], w["safety"])


@kernel
def pressing_job(w: Rec, model: int, now: int) -> int:
    """The job of this model that is to be promoted next, whoever's it is; -1 when there is none."""
    many = w["sharers"]
    q = next_job(w, model, now)  # where tenants share whose turn it is does not matter, but that they wait does
    if many == 1 or q < 0:
        return q if q >= 0 and is_pressing(w, q, now) else UNSET
    owners = view_i4(w["at_waits"], w["models"] * w["sharers"])
    best = UNSET
    for place in range(view_i8(w["at_waits_count"], w["models"])[model]):
        q = first_job(w, model * many + owners[model * many + place])
        if (best < 0 or sooner(w, q, best, False)) and is_pressing(w, q, now):
            best = q
    return best


@kernel
def hand_over(w: Rec, q: int) -> None:
    """Job `q`, the first of its batch queue, leaves it for an engine."""
    take_job(w, q)
    if w["sharers"] > 1:
        note_given(w, q)
