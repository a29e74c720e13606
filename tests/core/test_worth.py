"""What a request in time is worth: it follows the promises, settles, and counts only what could be kept.

Read next: `src/sageserve/core/strategies/worth.py`.
"""

import pytest

from sageserve.base.units import MINUTE
from sageserve.core.events import DemandSeen
from sageserve.core.strategies.worth import PromisedWorth
from tests.core.small import layout_of, scenario

CELLS = 2 * 2 * 3  # regions, models, tiers: iw-f and iw-n promise 95 %, niw is batch work


def promised(**rules: object) -> PromisedWorth:
    settings = scenario(gpus=160, strategy={"name": "foresight", "foresight": rules})
    return PromisedWorth(settings, layout_of(settings))


def minute(missed: int, *, could: int = 1_000, asked: int = 1_000, tier: int = 0, others: int = 0) -> DemandSeen:
    """A minute in which that many requests of one tier came, and others of all tiers that were in time."""

    def cells(count: int, rest: int = 0) -> tuple[int, ...]:
        return tuple((count if k == tier else rest) if k < 3 else 0 for k in range(CELLS))

    none = (0,) * CELLS
    return DemandSeen(0, MINUTE, none, none, cells(asked, others), (0.0,) * CELLS, (), cells(could, others), cells(missed))


def after(hours: int, missed: int, worth: PromisedWorth, *, could: int = 1_000, tier: int = 0) -> float:
    """Its dollars after some hours of plans every quarter of an hour."""
    for _ in range(4 * hours):
        for _ in range(15):
            worth.see(minute(missed, could=could, tier=tier))
        worth.adjust()
    return worth.dollars


def test_it_falls_while_promises_are_more_than_kept_and_rises_while_they_are_broken() -> None:
    worth = promised()
    fallen = after(4, 0, worth)
    assert fallen < worth_of()
    assert fallen < (risen := after(2, 50, worth)) < after(2, 50, worth)
    other = promised()
    after(4, 0, other)
    assert after(2, 100, other) > risen, "sooner when more are late"


def test_it_stays_within_bounds_and_comes_back() -> None:
    worth = promised()
    lowest = after(48, 0, worth)
    assert lowest == pytest.approx(worth_of() / 64)
    assert after(12, 900, worth) == worth_of(), "no request may be worth more"
    assert after(48, 0, worth) == lowest


def worth_of() -> float:
    return promised().dollars


def test_it_stands_where_the_share_of_the_allowance_that_is_aimed_at_is_used() -> None:
    worth = promised(aim=0.5)
    after(2, 0, worth)
    after(10, 25, worth)  # a fortieth: half of what 95 % allow
    settled = worth.dollars
    assert after(3, 25, worth) == pytest.approx(settled, rel=1e-2)


@pytest.mark.parametrize("tier", [0, 1])
def test_the_tier_that_is_kept_worst_decides(tier: int) -> None:
    worth, other = promised(), promised()
    after(2, 0, worth)
    after(2, 0, other)
    for _ in range(60):
        worth.see(minute(100, tier=tier, others=1_000))
        other.see(minute(100, tier=tier))
    worth.adjust()
    other.adjust()
    assert worth.dollars == other.dollars
    worth.see(minute(0))
    assert worth.kept()[tier].kept < worth.kept()[1 - tier].kept


def test_what_no_engine_could_serve_in_time_is_nobodys_fault() -> None:
    hopeless, kept = promised(), promised()
    assert after(2, 300, hopeless, could=700) == pytest.approx(after(2, 0, kept, could=700))
    assert [round(one.kept, 6) for one in hopeless.kept()] == [1.0, 1.0]
    after(2, 370, hopeless, could=700)
    assert hopeless.kept()[0].kept == pytest.approx(0.9, abs=0.03)


def test_late_batch_jobs_do_not_count_and_a_fixed_worth_stays() -> None:
    batch, fixed = promised(), promised(driven=False)
    assert after(2, 900, batch, tier=2, could=0) == worth_of()
    assert after(2, 900, fixed) == worth_of()


def test_a_few_late_requests_of_a_few_are_no_evidence() -> None:
    few, many = promised(), promised()
    for _ in range(3):
        few.see(minute(1, could=2, asked=2))
        many.see(minute(500))
    assert few.kept()[0].kept > 0.9
    assert many.kept()[0].kept < 0.6


def test_histories_without_the_counts_leave_it_as_it_is() -> None:
    worth, none = promised(), (0,) * CELLS
    worth.see(DemandSeen(0, MINUTE, none, none, (9,) * CELLS, (0.0,) * CELLS))
    worth.adjust()
    assert worth.dollars == worth_of()
    assert [one.kept for one in worth.kept()] == [1.0, 1.0]
