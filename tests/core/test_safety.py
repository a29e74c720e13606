"""The guard: what is never done to a live fleet, alone and between a strategy that wants everything and the fleet.

Read next: `src/sageserve/core/safety.py`, `test_controller.py`.
"""

from hypothesis import given
from hypothesis import strategies as st

from sageserve.base.config import SafetySettings, SpotSettings
from sageserve.base.units import HOUR, MINUTE, NEVER, SECOND
from sageserve.core.actions import Blocked, Decision, Drain, Start
from sageserve.core.controller import Controller
from sageserve.core.events import EndpointSeen, InstanceReady, Observed
from sageserve.core.fleet import Fleet, State
from sageserve.core.safety import Guard, Onlooker
from tests.core.small import fleet_of, layout_of, scenario
from tests.core.test_controller import Told, change


def seen(*utilisations: float, blind: tuple[int, ...] = ()) -> Observed:
    return Observed(0, tuple(EndpointSeen(one, one, one) for one in utilisations), (0, 0), blind)


def guarded(rules: SafetySettings, serving: int) -> tuple[Controller, Told, Fleet]:
    """A controller whose first pool serves with so many instances."""
    fleet, told = fleet_of(layout_of(scenario(gpus=200, fleet={"start": 2, "minimum": 1, "maximum": 20}))), Told()
    controller = Controller(fleet, told, SpotSettings(), Guard(rules, 4, every=NEVER))
    for i in range(serving):
        fleet.start(i, 0, fleet.room(0), initial=True)
        fleet.ready(i, 0)
    return controller, told, fleet


def want(controller: Controller, told: Told, now: int, event: Observed, count: int) -> Decision:
    told.wants = [change(0, count)]
    controller.handle(now, event)
    return controller.decisions[0]


def test_an_endpoint_that_is_not_seen_loses_nothing() -> None:
    controller, told, fleet = guarded(SafetySettings(), 10)
    decision = want(controller, told, 1, seen(0.0, 0.0, 0.0, 0.0, blind=(0,)), -3)
    assert (decision.done, decision.blocked) == (0, Blocked.BLIND)
    assert fleet.serving(0) == 10


def test_before_anything_was_seen_everything_is_blind() -> None:
    assert Guard(SafetySettings(), 4, every=NEVER).forbids_drain(0, 2, 10) is Blocked.BLIND


def test_what_was_seen_before_a_process_stood_still_is_believed_no_more() -> None:
    rules = SafetySettings.model_validate({"act": True, "blind_after": "30s", "headroom": 0.9})
    guard = Guard(rules, 4, every=15 * SECOND)
    guard.see(seen(0.1, 0.1, 0.1, 0.1))
    assert guard.forbids_drain(45 * SECOND, 0, 10) is Blocked.NOT
    assert guard.forbids_drain(45 * SECOND + 1, 0, 10) is Blocked.BLIND


def test_a_blind_endpoint_may_grow_and_others_may_shrink() -> None:
    controller, told, _ = guarded(SafetySettings(), 10)
    told.wants = [change(0, 1)]
    actions = controller.handle(1, seen(0.1, 0.1, 0.1, 0.1, blind=(0, 1)))
    assert [type(action) for action in actions] == [Start]
    controller.handle(2, InstanceReady(10))
    assert want(controller, told, 3, seen(0.1, 0.1, 0.1, 0.1, blind=(1,)), -1).done == -1


def test_the_others_must_have_room_for_what_the_drained_one_did() -> None:
    controller, told, _ = guarded(SafetySettings(headroom=0.8), 4)
    assert want(controller, told, 1, seen(0.61, 0, 0, 0), -1).blocked is Blocked.NO_HEADROOM  # 0.61 x 4 / 3 = 0.813
    assert want(controller, told, 2, seen(0.59, 0, 0, 0), -1).done == -1  # 0.787


def test_pace_is_kept_within_any_hour_and_one_may_always_go() -> None:
    controller, told, fleet = guarded(SafetySettings(change_per_hour=0.25), 12)
    first = want(controller, told, 1, seen(0.0, 0, 0, 0), -9)
    assert (first.done, first.blocked) == (-3, Blocked.TOO_FAST)
    assert want(controller, told, 59 * MINUTE, seen(0.0, 0, 0, 0), -1).blocked is Blocked.TOO_FAST
    assert want(controller, told, HOUR + 1, seen(0.0, 0, 0, 0), -1).done == -1
    assert fleet.serving(0) == 8
    controller, told, fleet = guarded(SafetySettings(change_per_hour=0.01), 3)
    assert want(controller, told, 1, seen(0.0, 0, 0, 0), -1).done == -1


def test_in_shadow_nothing_is_done_and_the_decision_says_so() -> None:
    controller, told, fleet = guarded(SafetySettings(act=False), 5)
    for count in (-1, 2):
        decision = want(controller, told, 1, seen(0.0, 0, 0, 0), count)
        assert (decision.change, decision.done, decision.blocked) == (count, 0, Blocked.SHADOW)
    assert fleet.serving(0) == 5


def test_in_shadow_what_would_not_have_been_done_anyway_says_why() -> None:
    controller, told, _ = guarded(SafetySettings(act=False, headroom=0.8), 4)
    assert want(controller, told, 1, seen(0.1, 0, 0, 0, blind=(0,)), -1).blocked is Blocked.BLIND
    assert want(controller, told, 2, seen(0.61, 0, 0, 0), -1).blocked is Blocked.NO_HEADROOM  # 0.61 x 4 / 3 = 0.813
    assert want(controller, told, 3, seen(0.59, 0, 0, 0), -1).blocked is Blocked.SHADOW
    controller, told, _ = guarded(SafetySettings(act=False), 20)
    assert want(controller, told, 1, seen(1.0, 0, 0, 0), 1).blocked is Blocked.NO_SLOT


def test_an_onlooker_wants_nothing_of_what_it_does_not_see() -> None:
    guard = Onlooker(SafetySettings(), 2, every=NEVER)
    assert guard.forbids_growth(0) is Blocked.BLIND  # nothing has been seen yet
    guard.see(seen(0.1, 0.1, blind=(1,)))
    assert (guard.forbids_growth(0), guard.forbids_growth(1)) == (Blocked.SHADOW, Blocked.BLIND)
    assert guard.forbids_drain(0, 0, 5) is Blocked.SHADOW  # whatever the settings say of acting
    ours = Guard(SafetySettings(act=False), 2, every=NEVER)
    assert ours.forbids_growth(0) is Blocked.SHADOW  # it knows what it has


@given(
    steps=st.lists(
        st.tuples(st.integers(1, 40 * MINUTE), st.floats(0, 1), st.booleans(), st.integers(-6, 3).filter(bool)),
        max_size=30,
    ),
    share=st.floats(0.05, 1),
)
def test_whatever_is_wanted_the_marks_hold(steps: list[tuple[int, float, bool, int]], share: float) -> None:
    rules = SafetySettings(change_per_hour=share, headroom=0.8)
    controller, told, fleet = guarded(rules, 10)
    now, drains = 0, []
    for wait, utilisation, blind, count in steps:
        now += wait
        told.wants = [change(0, count)]
        before = fleet.serving(0)
        actions = controller.handle(now, seen(utilisation, 0, 0, 0, blind=(0,) if blind else ()))
        gone = sum(isinstance(action, Drain) for action in actions)
        assert not (blind and gone)
        if gone:
            assert utilisation * (before - gone + 1) / (before - gone) <= 0.8
        drains += [now] * gone
        recent = [at for at in drains if at > now - HOUR]
        assert len(recent) <= max(1, share * (fleet.serving(0) + len(recent)) + 1)
        for i in list(fleet.rows(0, State.STARTING)):
            controller.handle(now, InstanceReady(i))
