"""Intervals that were not seen become demand: nothing, what counters grew by, what is held, or nobody knows.

Read next: `src/sageserve/live/watch/cells.py`.
"""

import numpy as np

from sageserve.base.records import Floats
from sageserve.base.units import MINUTE
from sageserve.core.layout import names_of
from sageserve.data.history.records import NO_INSTANCE, NOT_SCRAPED, Gap, Grid, PoolHistory
from sageserve.data.rebuild.demand import PlacedPool, demand_of
from sageserve.live.watch.cells import CellShares, CellTable
from tests.live.watch.stage import BEGIN, POOL, one_pool

GAPS = (Gap(1, 2, NO_INSTANCE), Gap(3, 4, NOT_SCRAPED), Gap(5, 7, NOT_SCRAPED, grown=40.0))
COUNT = 8


def seen(each: float) -> Floats:
    """The same in all minutes that were seen."""
    found = np.full(COUNT, each)
    for gap in GAPS:
        found[gap.first : gap.last] = np.nan
    return found


def table(held: float | None = None) -> CellTable:
    requests, ones = seen(60.0), seen(1.0)
    history = PoolHistory(
        POOL, Grid(BEGIN, MINUTE, COUNT), requests, requests, seen(6000.0), seen(600.0), ones, seen(0.0), ones, GAPS
    )
    pools = [PlacedPool("east", "big", history)]
    settings = one_pool()
    rates = None if held is None else {("east", "big", ""): held}
    return CellShares(settings, names_of(settings)).table(demand_of(pools), pools, rates)


def test_of_the_past_nobody_there_is_nothing_and_nobody_scraped_is_not_known() -> None:
    found = table()
    assert found.requests[:, 0].tolist() == [60, 0, 60, 0, 60, 20, 20, 60]
    assert np.flatnonzero(found.dark).tolist() == [3], "what counters grew by over a gap is known"


def test_of_now_what_is_not_seen_goes_on_as_it_was() -> None:
    found = table(held=50.0)
    assert found.requests[:, 0].tolist() == [60, 50, 60, 50, 60, 20, 20, 60]
    assert not found.dark.any()


def test_requests_that_were_not_seen_are_as_long_as_those_that_were() -> None:
    found = table(held=50.0)
    assert found.prompt[:, 0].tolist() == [6000, 5000, 6000, 5000, 6000, 2000, 2000, 6000]
    assert found.output[:, 0].tolist() == [600, 500, 600, 500, 600, 200, 200, 600]
