"""What would run: a plan's counts, the decisions after it, and what runs where neither stands.

Read next: `src/sageserve/live/control/wishes.py`.
"""

from sageserve.base.units import HOUR, MINUTE
from sageserve.core.actions import Blocked, Decision, Reason
from sageserve.core.fleet import Fleet
from sageserve.core.plan.hourly import Plan
from sageserve.core.strategies import layout_of
from sageserve.core.work import Entry, Solved
from sageserve.live.control.wishes import STANDS, Wishes
from tests.core.small import fleet_of
from tests.live.watch.stage import one_pool

PLAN = Solved(1, Plan((5,), (3,), 0.0, 0.0, 0.0, 0.0, (), (), "optimal", 0.0, ""))


def two_serve() -> Fleet:
    fleet = fleet_of(layout_of(one_pool()))
    for row in range(2):
        fleet.start(row, 0, fleet.room(0), initial=True)
        fleet.ready(row, 0)
    return fleet


def decided(change: int) -> Entry:
    decision = Decision(0, change, Reason.UTILISATION_HIGH, 0.8, 0, 2, 0, 0, Blocked.SHADOW)
    return Entry(HOUR, PLAN, (decision,), ())


def test_a_plan_that_is_carried_out_at_once_stands_until_the_next_one() -> None:
    wishes = Wishes(two_serve(), follows=True)
    assert wishes.would(0, 0) == 2
    wishes.hear(Entry(0, PLAN, (), ()))
    wishes.hear(Entry(MINUTE, Solved(2, None, "no answer before its limits"), (), ()))
    assert (wishes.would(HOUR, 0), wishes.planned_at) == (5, 0), "a plan that failed makes the one before no younger"


def test_a_plan_that_is_a_direction_alone_changes_nothing() -> None:
    wishes = Wishes(two_serve(), follows=False)
    wishes.hear(Entry(0, PLAN, (), ()))
    assert wishes.would(HOUR, 0) == 2


def test_a_decision_after_a_plan_stands_as_long_as_one_without() -> None:
    wishes = Wishes(two_serve(), follows=True)
    wishes.hear(decided(-1))
    assert [wishes.would(at, 0) for at in (HOUR, HOUR + STANDS, HOUR + STANDS + 1)] == [1, 1, 5]
    wishes.hear(decided(-1))
    wishes.hear(Entry(HOUR + MINUTE, PLAN, (), ()))
    assert wishes.would(HOUR + MINUTE, 0) == 5


def test_what_was_done_at_once_is_not_counted_twice() -> None:
    fleet = two_serve()
    wishes = Wishes(fleet, follows=False)
    fleet.start(2, HOUR, fleet.room(0))
    wishes.hear(Entry(HOUR, PLAN, (Decision(0, 3, Reason.UTILISATION_HIGH, 0.8, 0, 2, 0, 1, Blocked.NOT),), ()))
    assert wishes.would(HOUR, 0) == 5
