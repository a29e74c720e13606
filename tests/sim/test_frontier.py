"""The frontier: knobs that can be turned, points from summaries, who is beaten, and the cost of as much kept, by hand.

Read next: `src/sageserve/sim/sweep/frontier.py`.
"""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sageserve.core.strategies import STRATEGIES
from sageserve.data.results.comparison import Bound, BoundLine, FrontierPoint
from sageserve.data.results.summary import AfterWindow
from sageserve.data.scenarios.load import load_scenario
from sageserve.sim.sweep.frontier import beaten_by, bound_curve, cost_at, knob_of, matched, point_of
from sageserve.sim.sweep.tuning import Candidate
from tests.show.made import summary_of


def point(hours: float, *shares: float, knob: str = "") -> FrontierPoint:
    """A point of one seed for each share of chat in time; batch work is always in time."""
    by_seed = {seed: (hours, {"chat": share, "batch": 1.0}) for seed, share in enumerate(shares)}
    return FrontierPoint(knob, hours, {"chat": sum(shares) / len(shares), "batch": 1.0}, None, by_seed)


def bound(gpu_hours: float, requests: float) -> Bound:
    """Of one tier, of which each missed request saves an hour."""
    lines = (BoundLine(gpu_hours, {"iw-f": 1.0}),)
    return Bound(gpu_hours, {"iw-f": int(requests)}, {"iw-f": 0}, {"iw-f": 0.9}, lines)


@pytest.mark.parametrize("name", [*STRATEGIES, "fixed:4"])
def test_every_strategy_has_one_knob_whose_settings_differ(name: str) -> None:
    found = knob_of(load_scenario("quickstart", overrides=[f"strategy.name={name}"]))
    made = [load_scenario("quickstart", overrides=[f"strategy.name={name}", *one.changes]) for one in found]
    assert len({one.strategy.model_dump_json() for one in made}) == len({one.name for one in found}) == len(found) > 3


def test_the_setting_that_ships_is_among_them() -> None:
    for name in ("reactive", "hpa", "keda", "lt-ua", "foresight", "chiron", "fixed:4"):
        plain = load_scenario("quickstart", overrides=[f"strategy.name={name}"])
        made = [load_scenario("quickstart", overrides=[f"strategy.name={name}", *one.changes]) for one in knob_of(plain)]
        assert plain.strategy in [one.strategy for one in made], name


def test_a_point_counts_owed_work_and_says_how_far_seeds_lie_apart() -> None:
    first = summary_of("reactive", 1, 10.0, {"iw-f": 0.9})
    owing = msgspec.structs.replace(first, after_window=AfterWindow(0, None, 6.0))
    found = point_of(Candidate("high 0.7", ()), {1: owing, 2: summary_of("reactive", 2, 20.0, {"iw-f": 0.8})})
    assert found.knob == "high 0.7"
    assert found.gpu_hours_with_owed == pytest.approx(18.0)
    assert found.kept == pytest.approx({"iw-f": 0.85})
    assert found.spread == pytest.approx({"gpu_hours_with_owed": 8**0.5, "iw-f": 0.005**0.5})
    assert point_of(Candidate("", ()), {1: owing}).spread is None
    bounds = {1: bound(8.0, 10.0), 2: bound(5.0, 10.0)}
    assert point_of(Candidate("", ()), {1: owing}, bounds).over_bound == pytest.approx(16.0 / (8.0 - 10 * 0.1))
    both = point_of(Candidate("", ()), {1: owing, 2: summary_of("reactive", 2, 20.0, {"iw-f": 0.8})}, bounds)
    assert both.over_bound == pytest.approx((16.0 / 7.0 + 20.0 / 3.0) / 2), "seed by seed"


def test_the_curve_is_the_mean_over_seeds_of_what_each_share_takes_at_least() -> None:
    (curve,) = bound_curve([bound(8.0, 10.0), bound(6.0, 20.0)]).values()
    costs = {one.kept: one.gpu_hours for one in curve}
    assert costs[0.9] == pytest.approx((7.0 + 4.0) / 2)
    assert costs[1.0] == pytest.approx(7.0)
    assert list(costs) == sorted(costs)
    assert bound_curve([]) == {}


def test_beaten_is_who_is_dearer_for_no_more_with_every_seed() -> None:
    mine = point(100.0, 0.90, 0.90)
    assert beaten_by("a", mine, {"a": [point(1.0, 1.0, 1.0)]}) is None, "by itself nobody is"
    assert beaten_by("a", mine, {"b": [point(98.0, 0.90, 0.90)]}) == "b"
    assert beaten_by("a", mine, {"b": [point(98.0, 0.8995, 0.95)]}) == "b", "a twentieth of a point is nothing"
    assert beaten_by("a", mine, {"b": [point(99.5, 0.95, 0.95)]}) is None, "half a per cent neither"
    assert beaten_by("a", mine, {"b": [point(50.0, 0.99, 0.89)]}) is None, "with every seed"
    late = FrontierPoint("", 50.0, {"chat": 0.99, "batch": 0.5}, None, {0: (50.0, {"chat": 0.99, "batch": 0.5})})
    assert beaten_by("a", mine, {"b": [late]}) is None, "in every tier"


def test_the_cost_of_a_share_lies_between_its_neighbours() -> None:
    points = [point(200.0, 0.95), point(100.0, 0.85), point(150.0, 0.80)]
    at = [cost_at(points, lambda one: one.kept["chat"], share) for share in (0.5, 0.85, 0.90, 0.95, 0.96)]
    assert at == [100.0, 100.0, pytest.approx(150.0), pytest.approx(200.0), None]
    assert cost_at([], lambda one: one.kept["chat"], 0.5) is None


def test_costs_are_matched_at_the_promise_or_at_what_half_of_them_keep() -> None:
    frontier = {
        "a": [point(100.0, 0.80), point(200.0, 0.99)],
        "b": [point(110.0, 0.80), point(150.0, 0.96)],
        "c": [point(10.0, 0.40)],
    }
    found = matched(frontier, {"chat": 0.95, "batch": 0.95})
    assert found is not None
    assert (found.tier, found.kept) == ("chat", 0.95)
    assert found.gpu_hours == {"a": pytest.approx(100 + 100 * 15 / 19), "b": pytest.approx(110 + 40 * 15 / 16), "c": None}
    high = matched(frontier, {"chat": 0.999, "batch": 0.95})
    assert high is not None
    assert (high.kept, high.gpu_hours["b"]) == (0.96, 150.0)


def test_the_bound_of_a_match_has_the_other_promises_kept_or_nearly() -> None:
    lines = (BoundLine(50.0, {"chat": 1.0, "batch": 1.0}),)
    least = Bound(0.0, {"chat": 100, "batch": 100}, {"chat": 0, "batch": 0}, {"chat": 0.95, "batch": 0.95}, lines)
    found = matched({"a": [point(100.0, 0.96)], "b": [point(120.0, 0.97)]}, {"chat": 0.95, "batch": 0.95}, [least])
    assert found is not None
    assert found.bound == pytest.approx(50.0 - 5.0 - 5.1)


def test_who_breaks_a_promise_that_others_keep_is_not_cheap() -> None:
    cheat = FrontierPoint("", 1.0, {"chat": 1.0, "batch": 0.2}, None, {0: (1.0, {"chat": 1.0, "batch": 0.2})})
    frontier = {"a": [point(100.0, 0.96)], "b": [cheat, point(120.0, 0.97)]}
    found = matched(frontier, {"chat": 0.95, "batch": 0.95})
    assert found is not None
    assert found.gpu_hours == {"a": 100.0, "b": 120.0}
    assert matched({"a": [point(100.0, 0.96)]}, {"chat": 0.95}) is None, "one alone is compared with nobody"
    assert matched({}, {}) is None


@given(st.lists(st.tuples(st.floats(1, 1e4), st.floats(0, 1)), min_size=1, max_size=8), st.floats(0, 1), st.floats(0, 1))
def test_more_kept_never_costs_less(drawn: list[tuple[float, float]], one: float, other: float) -> None:
    points = [point(hours, share) for hours, share in drawn]
    less, more = (cost_at(points, lambda p: p.kept["chat"], share) for share in sorted((one, other)))
    assert more is None or (less is not None and less <= more * (1 + 1e-12))
