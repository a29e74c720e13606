"""The reactive rule: marks, pause, floor, what is coming, and which pool grows or shrinks.

Read next: `src/sageserve/core/strategies/reactive.py`.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sageserve.base.config import Scenario, SpotSettings
from sageserve.base.units import HOUR, SECOND
from sageserve.core.actions import Blocked, Drain, Reason, Start
from sageserve.core.controller import Controller
from sageserve.core.events import EndpointSeen, InstanceReady, Observed
from sageserve.core.fleet import Fleet, State
from sageserve.core.strategies.reactive import Reactive
from sageserve.data.scenarios.load import check
from tests.core.small import ENGINE, PRICE, TIERS, fleet_of, layout_of, scenario


def seen(*values: float, at: int = 0) -> Observed:
    padded = (*values, *[0.5] * (4 - len(values)))
    return Observed(at, tuple(EndpointSeen(value, 0.0, value) for value in padded), (0, 0))


def begin(settings: Scenario, serving: int = 2) -> tuple[Controller, Fleet]:
    """`serving` instances in every first pool."""
    layout = layout_of(settings)
    fleet = fleet_of(layout)
    controller = Controller(fleet, Reactive(settings, layout), SpotSettings())
    for endpoint in range(layout.endpoints):
        if pools := layout.endpoint_pools(endpoint):
            for action in controller.begin(0, pools[0].number, serving):
                assert isinstance(action, Start)
                controller.handle(0, InstanceReady(action.instance))
    return controller, fleet


@pytest.mark.parametrize(
    ("value", "change"), [(0.0, -1), (0.29, -1), (0.30, 0), (0.5, 0), (0.70, 0), (0.7000001, 1), (1.0, 1), (50.0, 1)]
)
def test_one_step_beyond_the_marks_and_none_between(value: float, change: int) -> None:
    controller, fleet = begin(scenario())
    controller.handle(SECOND, seen(value, at=SECOND // 2))
    assert [one.change for one in controller.decisions] == [change] * (change != 0)
    assert fleet.serving(0) == 2 + min(change, 0)
    assert fleet.coming(0) == max(change, 0)
    for one in controller.decisions:
        assert (one.pool, one.seen, one.age, one.serving, one.coming) == (0, value, SECOND // 2, 2, 0)
        assert one.reason is (Reason.UTILISATION_HIGH if change > 0 else Reason.UTILISATION_LOW)


def test_a_pause_follows_each_action_and_belongs_to_one_endpoint() -> None:
    controller, _ = begin(scenario())
    for time, endpoints in ((0, (0.9, 0.5)), (5, (9.9, 0.9)), (14.999999, (9.9, 9.9)), (15, (9.9, 9.9)), (20, (9.9, 9.9))):
        controller.handle(round(time * SECOND), seen(*endpoints))
        expected = {0: [0], 5: [1], 14.999999: [], 15: [0], 20: [1]}[time]
        assert [one.pool for one in controller.decisions] == expected


def test_starts_under_way_count_as_capacity() -> None:
    controller, fleet = begin(scenario(gpus=160, fleet={"start": 2, "minimum": 1, "maximum": 9}))
    utilisation = 1.3  # of two instances; 0.87 of three, 0.65 of four
    for step in range(10):
        controller.handle(step * 15 * SECOND, seen(utilisation))
    assert (fleet.serving(0), fleet.coming(0)) == (2, 2)


def test_nothing_is_drained_while_something_is_coming() -> None:
    controller, fleet = begin(scenario())
    (start,) = controller.handle(0, seen(0.9))
    assert isinstance(start, Start)
    controller.handle(60 * SECOND, seen(0.1))
    assert controller.decisions == ()
    controller.handle(61 * SECOND, InstanceReady(start.instance))
    assert controller.handle(75 * SECOND, seen(0.1)) == (Drain(2),)
    assert fleet.count(0, State.DRAINING) == 1


def test_the_floor_stays_and_is_restored() -> None:
    controller, fleet = begin(scenario(fleet={"start": 2, "minimum": 2, "maximum": 4}), serving=2)
    for step in range(5):
        assert controller.handle(step * 15 * SECOND, seen(0.0)) == ()
    controller, fleet = begin(scenario(fleet={"start": 3, "minimum": 3, "maximum": 4}), serving=1)
    controller.handle(0, seen(0.0))
    assert controller.decisions[0].reason is Reason.BELOW_MINIMUM
    assert (controller.decisions[0].change, fleet.coming(0)) == (2, 2)
    controller.handle(HOUR, seen(0.5))
    assert controller.decisions == (), "what is coming counts"


def test_the_last_instance_is_left_to_whoever_lets_endpoints_sleep() -> None:
    settings = scenario(fleet={"start": 1, "minimum": 0, "maximum": 4})
    controller, fleet = begin(settings, serving=1)
    controller.handle(0, seen(0.0))
    assert fleet.serving(0) == 1, "it has not been idle for long"
    controller, fleet = begin(settings, serving=0)
    controller.handle(0, seen(0.0))
    assert fleet.coming(0) == 0, "nobody waits"


def kinds(stock: int) -> Scenario:
    """One region, one model, `stock` H100s first and plenty of A100s second."""
    tree: dict[str, object] = {
        "name": "kinds",
        "gpus": {"h100": {"memory": "80GiB"}, "a100": {"memory": "80GiB"}},
        "regions": {"east": {"gpus": {"h100": {"gpus": stock, "price": PRICE}, "a100": {"gpus": 80, "price": PRICE}}}},
        "models": {"m": {"context": 8_000, "engines": {"h100": ENGINE, "a100": ENGINE | {"gpu": "a100"}}}},
        "tiers": TIERS,
        "fleet": {"start": 2, "minimum": 1, "maximum": 4},
    }
    return check(Scenario.model_validate(tree))


def test_a_full_first_pool_gives_way_to_the_next_and_the_last_shrinks_first() -> None:
    controller, fleet = begin(kinds(stock=24))
    for step in range(4):
        for action in controller.handle(step * 15 * SECOND, seen(0.9)):
            assert isinstance(action, Start)
            controller.handle(step * 15 * SECOND, InstanceReady(action.instance))
    assert (fleet.serving(0), fleet.serving(1)) == (3, 3)
    for step in range(100, 120):
        controller.handle(step * 15 * SECOND, seen(0.1))
    assert (fleet.serving(0), fleet.serving(1)) == (1, 0)


def test_what_cannot_be_had_is_said() -> None:
    controller, _ = begin(scenario(gpus=32))
    controller.handle(0, seen(0.9))
    assert [(one.done, one.blocked) for one in controller.decisions] == [(0, Blocked.NO_STOCK)]
    controller, _ = begin(scenario(gpus=160, fleet={"start": 4, "minimum": 1, "maximum": 4}), serving=4)
    controller.handle(0, seen(0.9))
    assert [(one.done, one.blocked) for one in controller.decisions] == [(0, Blocked.NO_SLOT)]


@given(st.lists(st.tuples(st.floats(0, 3), st.floats(0, 3), st.integers(0, 40), st.booleans()), max_size=60))
def test_any_course_of_utilisation_keeps_floor_maximum_and_pause(course: list[tuple[float, float, int, bool]]) -> None:
    controller, fleet = begin(scenario(fleet={"start": 2, "minimum": 2, "maximum": 4}))
    now, acted = 0, dict.fromkeys(range(4), -HOUR)
    for one, other, wait, ready in course:
        now += wait * SECOND
        controller.handle(now, seen(one, other))
        for decision in controller.decisions:
            assert abs(decision.change) == 1
            assert now - acted[decision.pool] >= 15 * SECOND
            acted[decision.pool] = now
        for i in range(16):
            if ready and fleet.state[i] in (State.STARTING, State.RECLAIMING):
                controller.handle(now, InstanceReady(i))
        for pool in range(4):
            assert 2 <= fleet.serving(pool) + fleet.coming(pool) <= 4
