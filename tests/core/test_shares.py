"""Shares of regions on their way: in all a hundred, no farther than they may, and there at last.

Read next: `tests/live/authority/share_stage.py`, where whole histories are played.
"""

from hypothesis import given
from hypothesis import strategies as st

from sageserve.base.units import MINUTE
from sageserve.core.authority.records import DemotionCause, Withheld
from sageserve.core.authority.shares import LEAST, MOST, ShareLadder, hundredths, moved

REGIONS = ("a", "b", "c")
WEIGHTS = st.fixed_dictionaries({name: st.integers(0, 1_000) for name in REGIONS})


@given(WEIGHTS)
def test_points_are_a_hundred_and_within_one_of_their_part(weights: dict[str, int]) -> None:
    found = hundredths(weights)
    assert sum(found.values()) == 100
    total = sum(weights.values())
    if total:
        assert all(abs(found[name] - 100 * weight / total) < 1 for name, weight in weights.items())
        assert all(found[name] == 0 for name, weight in weights.items() if not weight)


@given(WEIGHTS, WEIGHTS)
def test_a_step_is_no_farther_than_it_may_be_nearer_and_in_all_the_same(first: dict[str, int], last: dict[str, int]) -> None:
    shares, goal = hundredths(first), hundredths(last)
    for _ in range(12):
        step = moved(shares, goal, MOST)
        assert sum(step.values()) == 100
        for name in REGIONS:
            assert abs(step[name] - shares[name]) <= MOST
            assert abs(goal[name] - step[name]) <= abs(goal[name] - shares[name])
        shares = step
    assert shares == goal


@given(WEIGHTS, WEIGHTS, st.sets(st.sampled_from(REGIONS), max_size=2))
def test_a_ladder_comes_near_and_leaves_a_closed_region_at_once(
    first: dict[str, int], last: dict[str, int], closed: set[str]
) -> None:
    shares, ladder, now = hundredths(first), ShareLadder("full", 0), 0
    wanted = {name: share for name, share in last.items() if name not in closed}
    for turn in range(12):
        step = ladder.decide(now, shares, wanted, frozen=False, leased=True)
        if step.shares is not None:
            shares = step.shares
            ladder.wrote(now)
        assert sum(shares.values()) == 100
        assert all(shares[name] == 0 for name in closed), f"not at once: turn {turn}"
        now += MINUTE
    goal = hundredths({name: wanted.get(name, 0) for name in REGIONS})
    assert all(abs(shares[name] - goal[name]) < LEAST for name in REGIONS)


def test_of_no_region_that_is_known_nothing_is_written() -> None:
    found = ShareLadder("full", -MINUTE).decide(0, {"a": 50, "b": 50}, {"c": 100}, frozen=False, leased=True)
    assert (found.shares, found.withheld) == (None, Withheld.BLIND)


def test_a_write_that_comes_through_does_not_make_the_refused_ones_undone() -> None:
    ladder = ShareLadder("full", 0)
    for minute in (1, 4):
        ladder.refused(minute * MINUTE, "no", 0)
    ladder.wrote(5 * MINUTE)
    before = ladder.demoted
    ladder.refused(10 * MINUTE, "no", 0)
    causes = [None if one is None else one.cause for one in (before, ladder.demoted)]
    assert causes == [None, DemotionCause.REFUSED_WRITES]
