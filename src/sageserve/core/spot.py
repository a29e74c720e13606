"""Where capacity comes from: own donated instances first, then the model's in another role, other models' spot, a fresh VM.

The order is that of the time it takes (paper, section 5: 60 s for a model that is loaded, 600 s, longer). Also says which
instance to drain. Pure choice: changes nothing itself.
Read next: `controller.py`, which carries the choice out.
"""

from dataclasses import dataclass

from sageserve.core.actions import Blocked, Source
from sageserve.core.fleet import Fleet, State


@dataclass(frozen=True, slots=True)
class Offer:
    """One more instance for a pool: row `instance` on `gpus`; `victim` is the spot instance that gives its GPUs up, or -1.

    From SPOT without a victim the instance is the donated one itself; with one, the model is loaded there already.
    """

    source: Source
    instance: int
    gpus: tuple[int, ...] = ()
    victim: int = -1


def find_capacity(fleet: Fleet, pool: int) -> Offer | Blocked:
    """The quickest way to one more instance of a pool, or what stands against it."""
    own = next(fleet.rows(pool, State.SPOT), None)
    if own is not None:
        return Offer(Source.SPOT, own)
    row = next(fleet.rows(pool, State.OFF), None)
    if row is None:
        return Blocked.NO_SLOT
    for source in (Source.SPOT, Source.GPUS):
        victim = _donor(fleet, pool, loaded=source is Source.SPOT)
        if victim >= 0:
            return Offer(source, row, fleet.gpus[victim], victim)
    gpus = fleet.room(pool)
    return Offer(Source.VM, row, gpus) if gpus else Blocked.NO_STOCK


def _donor(fleet: Fleet, pool: int, *, loaded: bool) -> int:
    """A spot instance of another pool on the same kind of GPUs, of the pool that has most of them; -1 when there is none.

    With `loaded`, only of pools that run the same model in the same way (another role of it).
    """
    here = fleet.pools[pool]
    best, most = -1, 0
    for other in fleet.pools:
        spare = fleet.counts[other.number][State.SPOT]
        suits = other.stock == here.stock and other.gpus == here.gpus and (not loaded or other.profile == here.profile)
        if other.number != pool and suits and spare > most:
            best, most = other.number, spare
    return next(fleet.rows(best, State.SPOT)) if best >= 0 else -1


def pick_drain(fleet: Fleet, pool: int) -> int:
    """The serving instance with the fewest requests in flight, highest row of equals; -1 when none serves."""
    return min(fleet.rows(pool, State.SERVING), key=lambda i: (int(fleet.in_flight[i]), -i), default=-1)
