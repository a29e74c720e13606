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


def find_capacity(fleet: Fleet, pool: int, revision: int = -1) -> Offer | Blocked:
    """The quickest way to one more instance of a pool (-1: in the revision that is wanted of it), or what stands against it."""
    revision = fleet.wanted[pool] if revision < 0 else revision
    donated = list(fleet.rows(pool, State.SPOT))
    own = next((i for i in donated if fleet.revision[i] == revision), None)
    if own is not None:
        return Offer(Source.SPOT, own)
    row = next(fleet.rows(pool, State.OFF), None)
    if row is None:  # a donated one of another revision makes room
        return Offer(Source.GPUS, donated[0], fleet.gpus[donated[0]], donated[0]) if donated else Blocked.NO_SLOT
    for source in (Source.SPOT, Source.GPUS):
        victim = _donor(fleet, pool, revision, loaded=source is Source.SPOT)
        if victim >= 0:
            return Offer(source, row, fleet.gpus[victim], victim)
    gpus = fleet.room(pool)
    return Offer(Source.VM, row, gpus) if gpus else Blocked.NO_STOCK


def _donor(fleet: Fleet, pool: int, revision: int, *, loaded: bool) -> int:
    """A spot instance that is not one of the pool itself, on the same kind of GPUs, of the pool that has most of them; or -1.

    With `loaded`, only one that runs the same model in the same way and revision (another role of it); without, also one of the
    pool in another revision.
    """
    here = fleet.pools[pool]
    best, most = -1, 0
    for other in fleet.pools:
        spare = fleet.counts[other.number][State.SPOT]
        suits = other.stock == here.stock and other.gpus == here.gpus and (not loaded or other.profile == here.profile)
        if not suits or spare <= most or (loaded and other.number == pool):
            continue
        found = next((i for i in fleet.rows(other.number, State.SPOT) if not loaded or fleet.revision[i] == revision), -1)
        if found >= 0:
            best, most = found, spare
    return best


def pick_drain(fleet: Fleet, pool: int, spared: int = -1) -> int:
    """The serving instance, not of the spared revision, with the fewest requests in flight, highest row of equals; or -1."""
    serving = (i for i in fleet.rows(pool, State.SERVING) if fleet.revision[i] != spared)
    return min(serving, key=lambda i: (int(fleet.in_flight[i]), -i), default=-1)
