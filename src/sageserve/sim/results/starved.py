"""When a model held all that it may and missed promises all the same, and how many instances more would have been enough.

An estimate from the load of its busiest five minutes and the response curve; nothing is played. Read next: `sim/enough.py`,
`show/limits.py` for the words, docs/reference/summary.md.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

import numpy as np

from sageserve.base.records import Bools, Ints
from sageserve.base.units import MINUTE, SECOND, Micros
from sageserve.core.fleet import Pool
from sageserve.data.results.summary import Starved
from sageserve.sim.enough import Asked, enough
from sageserve.sim.faults import true_layout
from sageserve.sim.results.meter import arrived
from sageserve.sim.run import Run
from sageserve.sim.timeline import COUNTS, SAMPLE

_GAP: Final = 5  # minutes in which a little was free between two times, which are then told as one
_TOLD: Final = 0.1  # of what a model missed: a time with less of it is not told
_EDGE: Final = 0.01  # of what was missed in a time: its first and last minutes are those with almost all of it
_STEP: Final[Micros] = 5 * MINUTE


def starved_of(run: Run, late: Ints, failing: set[int]) -> tuple[Starved, ...]:
    """Times in which models that miss a promise could not grow, in order.

    Args:
        run: that was summed up.
        late: int64[models, minutes], requests by minute of arrival that more instances might have served in time.
        failing: models that miss a promise.
    """
    found = [one for m in sorted(failing) for one in _of_model(run, m, late[m])]
    return tuple(sorted(found, key=lambda one: (one.begins_s, one.model)))


def _of_model(run: Run, m: int, late: Ints) -> Iterator[Starved]:
    pools = [pool for pool in run.layout.pools if pool.model == m]
    by_role = [sorted({pool.endpoint for pool in pools if pool.role == o}) for o in range(len(run.layout.roles))]
    full = np.any([run.timeline.full[:, rows].all(axis=1) for rows in by_role if rows], axis=0) if pools else np.zeros(0, bool)
    for first, last in _spans(full):
        missed = np.cumsum(late[first : last + 1])
        if missed[-1] > _TOLD * int(late.sum()):
            begins, ends = np.searchsorted(missed, missed[-1] * np.array([_EDGE, 1.0 - _EDGE])).tolist()
            yield _told(run, m, pools, (first + begins, first + ends), int(missed[-1]))


def _spans(full: Bools) -> Iterator[tuple[int, int]]:
    """First and last sample of each time without room; short gaps are part of it."""
    there = np.flatnonzero(full)
    if not len(there):
        return
    cuts = np.flatnonzero(np.diff(there) > _GAP + 1) + 1
    for first, end in pairwise([0, *cuts.tolist(), len(there)]):
        yield int(there[first]), int(there[end - 1])


def _told(run: Run, m: int, pools: list[Pool], span: tuple[int, int], missed: int) -> Starved:
    first, last = span
    rows = sorted({pool.endpoint for pool in pools})
    of = {name: run.timeline.column(name)[first : last + 1][:, rows] for name in COUNTS}
    held = int((of["serving"] + of["starting"] + of["reclaiming"]).sum(axis=1).max())
    taken = np.sum(list(of.values()), axis=0).max(axis=0)
    room = np.array([sum(pool.end - pool.begin for pool in pools if pool.endpoint == e) for e in rows])
    begins, ends = first * SAMPLE, min((last + 1) * SAMPLE, run.window)
    return Starved(
        model=run.layout.names.models[m],
        regions=tuple(run.layout.names.regions[g] for g in sorted({pool.region for pool in pools})),
        begins_s=begins / SECOND,
        ends_s=ends / SECOND,
        limit="maximum" if (taken >= room).all() else "stock",
        missed=missed,
        held=held,
        more=max(_enough(run, m, pools[0], (begins, ends)) - held, 1),
    )


def _enough(run: Run, m: int, pool: Pool, span: tuple[Micros, Micros]) -> int:
    """Instances like those of a pool that are enough for what arrives of a model in a time, if every region served its own."""
    begins, ends = span
    rows = run.requests[: arrived(run)]
    inside = rows["prompt"] < run.layout.context[m]
    rows = rows[(rows["model"] == m) & (rows["arrival"] >= begins) & (rows["arrival"] < ends) & inside]
    profile, tiers = true_layout(run.scenario, run.layout).profiles[pool.profile], list(run.scenario.tiers.values())
    found = 0
    for region in np.unique(rows["region"]):
        here = rows[rows["region"] == region]
        asked = Asked(here["arrival"] - begins, here["prompt"], here["cached"], here["output"], here["tier"], ends - begins)
        found += enough(asked, profile, tiers, _STEP)
    return found
