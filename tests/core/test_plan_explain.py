"""Explanations of plans: each answer is checked by solving or by trying everything, not by its words alone."""

import msgspec
import pytest
from hypothesis import given, settings

from sageserve.base.errors import PlanError
from sageserve.core.plan import horizon
from sageserve.core.plan import hourly as paper
from sageserve.core.plan.explain import what_if, what_would_change, why_not
from sageserve.core.plan.hourly_rows import HourlyProblem
from sageserve.core.plan.outlook import Endpoint, HorizonPool, HorizonStock, Outlook, Stream, Way
from sageserve.core.plan.what_if import change, names, parse
from tests.core.plan_cases import candidates, cost, missing, pool, problem, problems


def two_regions() -> HourlyProblem:
    return problem(
        demand=((3000.0,), (1200.0,)), pools=(pool(0, 0, now=1, price=100.0), pool(1, 0, now=4, price=99.0)), free=(24, 0)
    )


def day() -> Outlook:
    pools = (
        HorizonPool("east/big/h100", 0, 8, 100.0, start_cost=5.0, lead_hours=0.5, serving=2, maximum=6),
        HorizonPool("west/big/h100", 1, 8, 90.0, start_cost=5.0, lead_hours=0.5, serving=2, maximum=6),
    )
    streams = (
        Stream("east", (Way(0, 1.0),), (2.0, 3.0, 3.0), (1.5, 2.5, 2.5)),
        Stream("west", (Way(1, 1.0), Way(0, 1.0, 1.0)), (1.8, 1.8, 1.8), (1.5, 1.5, 1.5)),
    )
    stocks = (HorizonStock("east/h100", 24), HorizonStock("west/h100", 48))
    return Outlook((1.0,) * 3, pools, stocks, streams, (), (Endpoint("east/big", (0,), 1),))


@given(problems())
@settings(max_examples=40)
def test_one_more_or_less_is_the_best_plan_with_that_number(case: HourlyProblem) -> None:
    plan = paper.solve(case)
    for number in range(len(case.pools)):
        for by in (-1, 1):
            answer = why_not(case, plan, number, by)
            with_it = [x for x in candidates(case) if x[number] == plan.target[number] + by]
            assert answer.possible == bool(with_it)
            if with_it and not plan.short and not answer.breaks:
                best = min(cost(case, x) for x in with_it if missing(case, x) <= 1e-2)
                assert answer.dollars == pytest.approx(best - plan.objective, abs=1e-2)
                assert answer.dollars >= -1e-2
            if with_it and answer.breaks and not plan.short:
                assert all(missing(case, x) > 1e-3 for x in with_it)


def test_one_less_moves_an_instance_elsewhere_or_misses_a_target() -> None:
    case = two_regions()
    plan = paper.solve(case)
    assert plan.target == (3, 2)
    less_east = why_not(case, plan, 0, -1)
    assert less_east.alone == ("demand east/big", "total demand big")
    assert less_east.breaks == ("demand east/big: 400 of 2,400 tokens/s missing",)
    less_west = why_not(case, plan, 1, -1)
    assert less_west.breaks == ()
    assert less_west.alone == ("total demand big",)
    assert less_west.moves == (("east/big/h100", 1),)
    assert less_west.dollars == pytest.approx(1.0)
    assert less_west.sentence == "with 1 in west/big/h100 the plan costs $1.00 more, with east/big/h100 +1"


def test_one_more_says_what_it_costs_or_that_there_is_no_room() -> None:
    case = two_regions()
    plan = paper.solve(case)
    more = why_not(case, plan, 1, 1)
    assert more.dollars == pytest.approx(99.0)
    assert more.sentence == "with 3 in west/big/h100 the plan costs $99.00 more"
    assert why_not(case, plan, 1, 1, "EUR").sentence.endswith("the plan costs EUR 99.00 more")
    full = why_not(case, plan, 0, 2)
    assert not full.possible
    assert full.sentence == "east/big/h100 cannot have 5: stock east/h100"
    assert not why_not(case, plan, 0, -4).possible


def test_thresholds_are_where_the_number_changes() -> None:
    case = two_regions()
    plan = paper.solve(case)
    found = {(one.what, one.direction): one for one in what_would_change(case, plan, 1)}
    up = found["demand", "up"]
    assert 1.0 <= up.same < up.factor <= up.same + 0.011
    assert paper.solve(change(case, {"big": up.factor})).target[1] == up.target != plan.target[1]
    assert paper.solve(change(case, {"big": up.same})).target[1] == plan.target[1]
    dear = found["price", "up"]
    assert dear.factor == pytest.approx(100 / 99, abs=0.011)  # dearer than the east, the spare instance goes there
    assert dear.target == 1
    assert found["price", "down"].sentence == "no price between x 1 and x 0 changes it"


def test_what_if_changes_only_what_it_names() -> None:
    case = two_regions()
    assert what_if(case, {}) == paper.solve(case)
    assert what_if(case, "demand=2").target == paper.solve(change(case, {"big": 2.0})).target
    gone = what_if(case, "east/h100=0")
    assert gone.target[0] == 0
    assert "demand east/big" in gone.statement
    assert what_if(case, "theta=0.5").target == what_if(case, "demand=2").target
    assert change(case, {"east/big": 2.0}) != change(case, {"west/big": 2.0})
    assert what_if(case, "price=2").objective == pytest.approx(2 * what_if(case, "").objective, rel=1e-6)


@pytest.mark.parametrize(
    ("text", "match"), [("demand", "not a change"), ("demand=-1", "not a change"), ("demand=x", "not a change")]
)
def test_changes_that_are_not_understood(text: str, match: str) -> None:
    with pytest.raises(PlanError, match=match):
        parse(text)


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(PlanError, match=r"there is no 'eats/h100' to change") as error:
        change(two_regions(), {"eats/h100": 0.0})
    assert error.value.hint == "did you mean 'east/h100'?"
    assert parse("demand=1.3, east/h100=0") == {"demand": 1.3, "east/h100": 0.0}


def test_horizon_is_explained_with_the_same_questions() -> None:
    case = day()
    plan = horizon.solve(case)
    assert plan.target == (3, 2)
    less = why_not(case, plan, 0, -1)
    assert less.possible
    assert any(one.startswith("demand east") for one in less.breaks)
    assert "demand east/big/h100" in less.alone
    more = why_not(case, plan, 1, 1)
    assert more.dollars > 0
    assert why_not(case, plan, 0, 9).possible is False
    pinned = msgspec.structs.replace(case, pools=(case.pools[0], msgspec.structs.replace(case.pools[1], pinned=3)))
    assert horizon.solve(pinned).target == (3, 3)
    assert sum(what_if(case, "demand=0.2").target) == 1
    assert "demand east" in what_if(case, "east/h100=8").statement
    assert what_if(case, "theta=0.8").target != plan.target
    assert what_if(case, "price=3,batch=2,west=1").target == plan.target
    up = what_would_change(case, plan, 1)[0]
    assert horizon.solve(change(case, {"west": up.factor})).target[1] == up.target != plan.target[1]
    assert set(names(case)) >= {"demand", "east/h100", "east"}
