"""lt-i, lt-u, lt-ua: when a plan is asked for, what it changes, and what thresholds may still do.

Read next: `src/sageserve/core/strategies/planned.py`; `driven.py` for the strategy's surroundings.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sageserve.base.config import Scenario
from sageserve.base.errors import PlanError
from sageserve.base.records import Demand
from sageserve.base.units import HOUR, MINUTE, SECOND
from sageserve.core.actions import Drain, Reason, Start
from sageserve.core.history import BIN
from sageserve.core.strategies.planned import LtUA
from sageserve.core.work import Fit, Solve, Solved
from tests.core.driven import Driven, asked
from tests.core.small import ENGINE, PRICE, TIERS, scenario
from tests.core.test_reactive import kinds

KINDS = ("lt-i", "lt-u", "lt-ua")


def settings_of(name: str, **changes: object) -> Scenario:
    fleet = {"start": 2, "minimum": 1, "maximum": 8}
    strategy = {"name": name, "planned": {"high": 0.7, "low": 0.3, "above": 5.0, "below": 0.5, "patrol": "20m"}}
    return scenario(gpus=160, strategy=strategy, **({"fleet": fleet} | changes))


def begin(name: str, *, serving: int = 2, target: tuple[int, ...] = (), rate: float = 1_000.0) -> Driven:
    """An hour of steady demand was heard; with a target, it was planned at once."""
    driven = Driven(settings_of(name), serving)
    driven.hear(rate, until=HOUR)
    if target:
        driven.settle(HOUR, driven.plan(HOUR, target))
    return driven


# ------------------------------------------------------------------------------------------------ asking


@pytest.mark.parametrize("name", KINDS)
def test_without_history_the_marks_decide_until_a_bin_was_seen(name: str) -> None:
    driven = Driven(settings_of(name))
    assert driven.look(0, 0.8, 0.2) != ()
    assert [(one.change, one.reason, one.target) for one in driven.decisions] == [
        (1, Reason.UTILISATION_HIGH, -1),
        (-1, Reason.UTILISATION_LOW, -1),
    ]
    for quarter in range(60):
        assert not [one for one in driven.look(quarter * 15 * SECOND) if isinstance(one, Fit)]
    driven.hear(1_000.0, until=BIN)
    fit = asked(driven.look(BIN))
    assert isinstance(fit, Fit)
    assert [len(series) for series in fit.series] == [1] * 4
    solve = asked(driven.answer(BIN, fit))
    assert isinstance(solve, Solve)
    assert np.array(solve.problem.demand) == pytest.approx(np.full((1, 2, 2), 1_000.0))


def test_a_plan_is_asked_for_on_the_hour_however_late_the_fleet_is_looked_at() -> None:
    driven = begin("lt-u")
    times: list[int] = []
    for now in range(HOUR, 5 * HOUR, 7 * MINUTE):
        driven.hear(1_000.0, until=now // BIN * BIN)
        times += [now] * any(isinstance(action, Fit) for action in driven.look(now))
    assert [now // HOUR for now in times] == [1, 2, 3, 4]
    assert all(now % HOUR < 7 * MINUTE for now in times)


def test_history_from_before_is_planned_from_at_once() -> None:
    tokens = np.full((96, 2, 2, 3), 900_000.0)
    driven = Driven(settings_of("lt-i"), earlier=Demand(-24 * HOUR, BIN, tokens, tokens, tokens / 500))
    fit = asked(driven.look(0))
    assert isinstance(fit, Fit)
    assert {(series.start, series.end) for series in fit.series} == {(-24 * HOUR, 0)}
    (solve,) = driven.answer(0, fit)
    assert isinstance(solve, Solve)
    assert np.array(solve.problem.demand) == pytest.approx(np.full((1, 2, 2), 2_000.0), rel=0.05)


@pytest.mark.parametrize("name", KINDS)
def test_until_a_plan_comes_back_the_last_one_stands(name: str) -> None:
    driven = begin(name, target=(3, 3, 3, 3))
    driven.hear(1_000.0, until=2 * HOUR)
    before = driven.serving()
    fit = asked(driven.look(2 * HOUR))
    solve = asked(driven.answer(2 * HOUR, fit))
    assert driven.serving() == before
    assert driven.controller.handle(2 * HOUR, Solved(solve.number, None, "no answer before its limits")) == ()
    driven.look(2 * HOUR + MINUTE, 0.9)
    assert [(one.change, one.target) for one in driven.decisions] == ([] if name == "lt-i" else [(1, 3)])


@pytest.mark.parametrize("name", KINDS)
def test_an_answer_to_an_older_question_is_not_heard(name: str) -> None:
    driven = begin(name, target=(2, 2, 2, 2))
    driven.hear(1_000.0, until=2 * HOUR)
    old_fit = asked(driven.look(2 * HOUR))
    old_solve = asked(driven.answer(2 * HOUR, old_fit))
    driven.hear(1_000.0, until=3 * HOUR)
    fit = asked(driven.look(3 * HOUR))
    assert fit.number > old_fit.number
    assert driven.answer(3 * HOUR, old_fit) == ()
    assert driven.answer(3 * HOUR, old_solve, (8, 8, 8, 8)) == ()
    driven.look(3 * HOUR + MINUTE, 0.9)
    assert not driven.decisions, "the plan of an hour ago says two, and two there are"
    assert isinstance(asked(driven.answer(3 * HOUR, fit)), Solve)


def test_a_forecaster_that_is_none_is_refused_at_the_start() -> None:
    with pytest.raises(PlanError, match="no forecaster is called 'magic'"):
        Driven(scenario(strategy={"name": "lt-u", "planned": {"forecaster": "magic"}}))


def test_without_a_floor_the_last_instance_stays() -> None:
    driven = Driven(settings_of("lt-i", fleet={"start": 2, "minimum": 0, "maximum": 8}))
    driven.hear(0.0, until=HOUR)
    driven.settle(HOUR, driven.plan(HOUR))
    assert driven.serving() == [1] * 4, "without an instance nothing would ever pass a mark"


# ------------------------------------------------------------------------------------------------ lt-i


def test_lt_i_applies_the_whole_delta_at_once_and_nothing_between() -> None:
    driven = begin("lt-i")
    actions = driven.plan(HOUR, (5, 1, 2, 3))
    assert [type(one) for one in actions] == [Start] * 3 + [Drain, Start]
    assert [(one.pool, one.change, one.done, one.target) for one in driven.decisions] == [
        (0, 3, 3, 5),
        (1, -1, -1, 1),
        (3, 1, 1, 3),
    ]
    assert {one.reason for one in driven.decisions} == {Reason.PLANNED}
    driven.settle(HOUR, actions)
    assert driven.serving() == [5, 1, 2, 3]
    for quarter in range(1, 200):
        assert driven.look(HOUR + quarter * 15 * SECOND, 2.0, 0.0, 2.0, 0.0) == ()


def test_lt_i_counts_what_is_coming() -> None:
    driven = begin("lt-i")
    driven.plan(HOUR, (5, 2, 2, 2))  # three are starting, and will be for an hour
    driven.hear(1_000.0, until=2 * HOUR)
    driven.plan(2 * HOUR, (6, 2, 2, 2))
    assert [one.change for one in driven.decisions] == [1]
    assert (driven.fleet.serving(0), driven.fleet.coming(0)) == (2, 4)


# ------------------------------------------------------------------------------------------------ lt-u


def test_lt_u_moves_one_step_when_a_mark_is_passed_and_only_towards_its_destination() -> None:
    driven = begin("lt-u", target=(4, 1, 2, 2))
    assert driven.serving() == [2, 2, 2, 2], "a plan alone changes nothing"
    marks = [(0.69, 0), (0.71, 1), (0.95, 1), (5.0, 0)]
    for step, (value, change) in enumerate(marks):
        now = HOUR + (step + 1) * MINUTE
        driven.settle(now, driven.look(now, value, 0.5, value, 0.5))
        assert [(one.pool, one.change, one.target) for one in driven.decisions] == [(0, change, 4)] * change
    for step, (value, change) in enumerate([(0.31, 0), (0.29, -1), (0.0, 0)]):
        now = HOUR + (step + 10) * MINUTE
        driven.settle(now, driven.look(now, 0.5, value, value, 0.5))
        assert [(one.pool, one.change, one.target) for one in driven.decisions] == [(1, change, 1)] * (change != 0)
    assert driven.serving() == [4, 1, 2, 2]


looks = st.lists(st.tuples(st.lists(st.floats(0, 3), min_size=4, max_size=4), st.integers(0, 30), st.booleans()), max_size=40)


@given(st.lists(st.integers(1, 8), min_size=4, max_size=4), looks)
def test_lt_u_never_passes_its_destination(target: list[int], course: list[tuple[list[float], int, bool]]) -> None:
    driven = begin("lt-u", serving=3, target=tuple(target))
    now = HOUR
    for seen, wait, ready in course:
        now += wait * SECOND
        before = driven.serving()
        actions = driven.look(now, *seen)
        for one in driven.decisions:
            assert one.target == target[one.pool]
            assert abs(one.change) == 1
            assert min(before[one.pool], target[one.pool]) <= one.serving + one.coming + one.change
            assert one.serving + one.coming + one.change <= max(before[one.pool], target[one.pool])
        if ready:
            driven.settle(now, actions)


def test_lt_u_grows_the_pool_that_is_below_its_target_and_shrinks_the_one_above() -> None:
    settings = kinds(stock=80).model_copy(update={"strategy": settings_of("lt-u").strategy})
    driven = Driven(settings)
    driven.hear(1_000.0, until=HOUR)
    driven.plan(HOUR, (2, 2))
    for step in range(1, 5):
        driven.settle(HOUR + step * MINUTE, driven.look(HOUR + step * MINUTE, 0.9))
    assert driven.serving() == [2, 2], "the second GPU type is what the plan asks for"
    driven.hear(1_000.0, until=2 * HOUR)
    driven.plan(2 * HOUR, (1, 2))
    driven.settle(2 * HOUR + MINUTE, driven.look(2 * HOUR + MINUTE, 0.1))
    assert driven.serving() == [1, 2]


# ------------------------------------------------------------------------------------------------ lt-ua


@pytest.mark.parametrize(
    ("minute", "factor", "seen", "change"),
    [
        (39, 6.0, 0.9, 0),  # not yet the end of the hour
        (41, 6.0, 0.9, 1),
        (59, 6.0, 0.9, 1),
        (41, 4.9, 0.9, 0),  # not far enough from the forecast
        (41, 6.0, 0.6, 0),  # and no mark passed
        (41, 0.4, 0.1, -1),
        (39, 0.4, 0.1, 0),
        (41, 0.6, 0.1, 0),
        (41, 0.4, 0.4, 0),
        (41, 0.4, 0.9, 0),  # far below the forecast is no reason to grow
    ],
)
def test_lt_ua_passes_its_destination_late_in_the_hour_and_far_from_the_forecast(
    minute: int, factor: float, seen: float, change: int
) -> None:
    driven = begin("lt-ua", target=(2, 2, 2, 2))
    driven.hear([1_000.0 * factor, 1_000.0, 1_000.0, 1_000.0], until=HOUR + minute * MINUTE // BIN * BIN)
    driven.look(HOUR + minute * MINUTE, seen, seen, 0.5, 0.5)
    reason = Reason.AHEAD_OF_PLAN if change > 0 else Reason.BEHIND_PLAN
    assert [(one.pool, one.change, one.reason, one.target) for one in driven.decisions] == [(0, change, reason, 2)] * (
        change != 0
    )


def test_lt_ua_compares_with_its_own_hour_after_a_plan_that_came_late() -> None:
    driven = begin("lt-ua", target=(2, 2, 2, 2))
    driven.hear([6_000.0, 1_000.0, 1_000.0, 1_000.0], until=2 * HOUR)
    driven.plan(2 * HOUR, (2, 2, 2, 2))
    assert isinstance(driven.strategy, LtUA)
    assert not driven.strategy.may_pass(2 * HOUR + 30 * MINUTE, 0, out=True), "a new hour has begun"
    assert not driven.strategy.may_pass(2 * HOUR + 50 * MINUTE, 0, out=True), "and six times is what is forecast now"


def test_one_region_without_batch_work_is_planned_for() -> None:
    tree: dict[str, object] = {
        "name": "one",
        "gpus": {"h100": {"memory": "80GiB"}},
        "regions": {"east": {"gpus": {"h100": {"gpus": 160, "price": PRICE}}}},
        "models": {"m": {"context": 8_000, "engines": {"h100": ENGINE}}},
        "tiers": {"iw-f": TIERS["iw-f"]},
        "fleet": {"start": 2, "minimum": 1, "maximum": 20},
        "strategy": {"name": "lt-i"},
    }
    driven = Driven(Scenario.model_validate(tree))
    driven.hear(50_000.0, until=HOUR)  # five busy instances
    driven.settle(HOUR, driven.plan(HOUR))
    assert 5 < driven.serving()[0] < 12
