"""The ladder of authority: laws over random histories, bugs made on purpose that they must see, and each rule alone.

Read next: `ladder_history.py`.
"""

from collections.abc import Callable

import pytest
from msgspec import structs

from sageserve.base.units import HOUR, MINUTE, NEVER, SECOND
from sageserve.core.authority import ladder as ladder_module
from sageserve.core.authority import standing
from sageserve.core.authority.ladder import TargetLadder
from sageserve.core.authority.records import (
    BoundWish,
    Demotion,
    DemotionCause,
    GuardRange,
    LadderRules,
    TargetOrder,
    TargetSight,
    Withheld,
)
from sageserve.core.authority.steps import RecentSteps
from tests.core.ladder_history import WALL, History

HISTORIES = 2_000


def test_every_law_holds_in_random_histories() -> None:
    written = 0
    for seed in range(HISTORIES):
        history = History(seed)
        history.play()
        written += history.account.writes
    assert written > HISTORIES  # they are no histories of nothing


def without(**changes: object) -> Callable[[TargetSight], TargetSight]:
    return lambda sight: structs.replace(sight, **changes)


def found(change: Callable[[TargetSight], TargetSight] = lambda sight: sight, law: str = "") -> str:
    """The first law that is broken; with a law, the first time that this one is, of histories that each tell their first."""
    for seed in range(1500):
        try:
            History(seed, change).play()
        except AssertionError as broken:
            if law in (said := str(broken).splitlines()[0]):
                return said
    return ""


@pytest.mark.parametrize(
    ("bug", "law"),
    [
        (without(blind=False), "lowered while blind"),
        (without(ready=0), "the others would be too full"),
        (without(desired=0), "a maximum below what was wanted"),
        (without(use=0.0), "the others would be too full"),
        (without(own_low=0), "below the minimum that was found"),
        (without(budget=None), "above the settings, the guard or the budget"),
        (without(frozen=False), "written while frozen"),
        (without(stuck=0), "more asked for while some cannot come"),
        (without(count=100), "above the settings, the guard or the budget"),
        (without(wall=0), "written while frozen"),  # what ended goes on
        (without(rival=""), "written beside another writer"),
    ],
)
def test_a_bug_in_what_is_looked_at_is_seen(bug: Callable[[TargetSight], TargetSight], law: str) -> None:
    assert law in found(bug)


@pytest.mark.parametrize(
    ("name", "value", "law"),
    [
        ("ramp_room", lambda *_: 1000, "faster than the ramp"),
        ("pace_room", lambda *_: 1000, "faster than the pace"),
        ("headroom_room", lambda *_: 1000, "the others would be too full"),
        ("REFUSED_MOST", 4, "written after its authority"),
        ("REFUSED_OVER", MINUTE, "written after its authority"),
        ("PACE_OVER", MINUTE, "faster than the pace"),
        ("RAMP_OVER", 30 * SECOND, "faster than the ramp"),
    ],
)
def test_a_bug_in_a_rule_is_seen(name: str, value: object, law: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing if name.startswith("REFUSED") else ladder_module, name, value)
    assert law in found(law=law if name == "PACE_OVER" else "")  # it is also how long what was wanted is remembered


@pytest.mark.parametrize("name", ["ramp_room", "pace_room"])
def test_a_forgotten_step_of_the_guard_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    room = getattr(ladder_module, name)
    monkeypatch.setattr(ladder_module, name, lambda *told: room(*told[:-1]))
    assert found(law="step") == "faster than the guard's step"


def test_a_bug_in_demotions_rungs_or_restarts_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as planted:
        planted.setattr(TargetLadder, "demote", lambda *_: None)
        assert "authority was taken away" in found()
    with monkeypatch.context() as planted:
        planted.setattr(TargetLadder, "rung", "bounds")
        assert "writes {" in found(law="writes {")  # of another rung
        assert "authority was taken away" in found(law="authority was taken away")  # and after a demotion
    with monkeypatch.context() as planted:
        planted.setattr(RecentSteps, "known", lambda *_: True)
        assert "faster than" in found()
    with monkeypatch.context() as planted:
        decide = TargetLadder.decide
        planted.setattr(TargetLadder, "decide", lambda *told, **_: decide(*told, leased=True))
        assert "without the lease" in found()


# --- each rule alone ---

RULES = LadderRules("floor", low=2, high=24)


def sight(low: int = 2, count: int = 4, **more: object) -> TargetSight:
    base = TargetSight(
        low=low, high=30, count=count, ready=count, desired=count, use=0.4, blind=False, wall=WALL, own_low=1, ours=True
    )
    return structs.replace(base, **more)


def old(rules: LadderRules = RULES) -> TargetLadder:
    """A ladder that knows all of the minutes before."""
    return TargetLadder(rules, -HOUR)


def decide(
    ladder: TargetLadder, now: int, seen: TargetSight, count: int | None, order: TargetOrder | None = None
) -> tuple[int | None, str]:
    step = ladder.decide(now, seen, BoundWish(count, heard=now), order or TargetOrder(), leased=True)
    if step.changes:
        ladder.wrote(now, seen, step)
    return step.low, step.withheld.value


def causes(ladder: TargetLadder) -> DemotionCause | None:
    return None if ladder.demoted is None else ladder.demoted.cause


def test_a_floor_follows_what_runs_at_once_and_goes_beyond_it_by_the_ramp() -> None:
    ladder = old()
    assert decide(ladder, 0, sight(2, 12), 12) == (12, "not")
    assert decide(ladder, 0, sight(12, 12), 24) == (18, "too-fast")  # half of what runs
    assert decide(ladder, 30 * SECOND, sight(18, 12), 24) == (18, "too-fast")
    assert decide(ladder, MINUTE, sight(18, 18), 24) == (24, "not")
    assert decide(old(), 0, sight(1, 1), 9) == (3, "too-fast")  # two always may


def test_the_worked_example_of_the_page() -> None:
    ladder, low = old(), 24
    fallen = []
    for window in range(100):
        value, _ = decide(ladder, 5 * MINUTE * window, sight(low, low, use=0.2), 4)
        assert value is not None
        fallen.append(low - value)
        low = value
        if low == 4:
            break
    assert fallen[:5] == [2, 2, 2, 1, 1]
    assert 5 * (len(fallen) - 1) == 80, "minutes"


def test_a_process_that_begins_takes_the_minutes_before_for_used_up() -> None:
    ladder = TargetLadder(RULES, 0)
    assert decide(ladder, SECOND, sight(2, 4), 12) == (4, "too-fast")
    assert decide(ladder, SECOND, sight(4, 4), 2) == (4, "too-fast")
    assert decide(ladder, MINUTE, sight(4, 4), 12) == (6, "too-fast")
    assert decide(ladder, 5 * MINUTE, sight(6, 6), 2)[0] == 5


def test_a_floor_falls_by_the_pace_and_not_while_blind_or_without_headroom() -> None:
    ladder = old()
    assert decide(ladder, 0, sight(20, 20, blind=True), 2) == (20, "blind")
    assert decide(ladder, 0, sight(20, 20, use=0.85), 2) == (20, "no-headroom")
    assert decide(ladder, 0, sight(20, 20), 2) == (18, "too-fast")
    assert decide(ladder, 4 * MINUTE, sight(18, 20), 2) == (18, "too-fast")
    assert decide(ladder, 5 * MINUTE, sight(18, 20), 2) == (17, "too-fast")


@pytest.mark.parametrize(
    ("seen", "count", "told"),
    [
        (sight(2, 30), 40, (24, "at-bound")),
        (structs.replace(sight(2, 30), high=10), 40, (10, "at-bound")),  # the object's own maximum
        (structs.replace(sight(2, 30), budget=7), 9, (7, "over-budget")),
        (sight(2, 30), None, (2, "not")),
        (sight(1, 30), None, (2, "not")),  # the settings' minimum holds without any decision
        (sight(3, 30, own_low=3), 2, (3, "at-bound")),  # never below what was found
    ],
)
def test_what_is_wished_is_clipped_and_says_by_what(seen: TargetSight, count: int | None, told: tuple[int, str]) -> None:
    assert decide(old(), 0, seen, count) == told


def test_the_guard_clips_wishes_and_takes_authority_where_it_is_overstepped() -> None:
    ladder = old(LadderRules("floor", low=2, high=24, guard=GuardRange(0, 8)))
    assert decide(ladder, 0, sight(2, 30), 12) == (8, "guard")
    assert decide(ladder, 0, sight(12, 30), 12) == (None, "demoted")
    assert causes(ladder) == DemotionCause.OUT_OF_GUARD
    assert decide(old(LadderRules("bounds", 2, 24, guard=GuardRange(rung="observe"))), 0, sight(), 9) == (None, "observed")


def test_a_minimum_of_an_hpa_at_zero_is_not_waited_for() -> None:
    assert decide(old(structs.replace(RULES, stands_at_zero=True)), 0, sight(1, 0), 4) == (1, "at-zero")
    assert decide(old(), 0, sight(1, 0), 4) == (3, "too-fast")  # KEDA lifts from zero


def test_nothing_more_is_asked_for_while_pods_cannot_come() -> None:
    assert decide(old(), 0, sight(2, 10, ready=7, stuck=3), 20) == (10, "no-stock")
    assert decide(old(), 0, sight(2, 10, ready=7, stuck=3), 8) == (8, "not")


def test_people_win_over_decisions_until_their_time_is_over() -> None:
    order = TargetOrder(count=9, until=WALL + MINUTE, why="launch")
    assert decide(old(), 0, sight(2, 20), 3, order) == (9, "not")
    assert decide(old(), 0, sight(2, 20, wall=WALL + MINUTE), 3, order) == (3, "not")
    frozen = TargetOrder(frozen_until=WALL + 1)
    assert decide(old(), 0, sight(2, 20), 9, frozen) == (2, "frozen")
    assert decide(old(), 0, sight(2, 20), 9, structs.replace(order, frozen_until=WALL + 1)) == (9, "not")
    assert decide(old(), 0, sight(2, 20, frozen=True), 9) == (2, "frozen")
    assert decide(old(), 0, sight(2, 30), 3, structs.replace(order, count=99)) == (24, "at-bound")  # not over the maximum


def test_three_refused_writes_in_ten_minutes_end_it_and_a_person_begins_it_again() -> None:
    ladder = old()
    for at in (0, 6 * MINUTE, 11 * MINUTE):
        ladder.refused(at, "403", WALL)
    assert causes(ladder) is None  # the first was too long ago
    ladder.refused(12 * MINUTE, "403", WALL)
    assert decide(ladder, 13 * MINUTE, sight(), 9) == (None, "demoted")
    ladder.demote(Demotion(DemotionCause.FOREIGN_WRITE, "later", WALL))
    assert ladder.demoted == Demotion(DemotionCause.REFUSED_WRITES, "403", WALL)  # the first cause counts
    ladder.thaw()
    assert decide(ladder, 13 * MINUTE, sight(2, 9), 9) == (9, "not")


def test_a_floor_that_nobody_renews_holds_for_hours_and_then_falls_by_the_pace() -> None:
    ladder = old()
    wish = BoundWish(20, heard=0)
    held = ladder.decide(6 * HOUR, sight(10, 10), wish, leased=True)
    falls = ladder.decide(6 * HOUR + 1, sight(10, 10), wish, leased=True)
    assert (held.wished, falls.low, falls.wished) == (20, 9, 2)


def test_a_maximum_is_raised_at_once_and_lowered_to_what_was_wanted_at_most() -> None:
    ladder = old(LadderRules("bounds", 2, 40))
    up = ladder.decide(0, sight(2, 20), BoundWish(4, 40), leased=True)
    assert (up.low, up.high, up.changes) == (4, 40, True)
    down = ladder.decide(0, sight(2, 20, desired=29), BoundWish(2, 6), leased=True)
    assert (down.high, down.withheld) == (29, Withheld.TOO_FAST)
    ready = old(LadderRules("bounds", 2, 40)).decide(0, sight(2, 20, ready=30), BoundWish(2, 6), leased=True)
    assert ready.high == 30  # nobody who serves is sent away
    blind = ladder.decide(0, sight(2, 20, blind=True), BoundWish(2, 6), leased=True)
    assert (blind.high, blind.withheld) == (30, Withheld.BLIND)
    over = old(LadderRules("bounds", 2, 40)).decide(0, structs.replace(sight(2, 30), high=5), BoundWish(9, 5), leased=True)
    assert (over.low, over.high) == (9, 9)


def test_replicas_are_counted_like_bounds() -> None:
    ladder = old(LadderRules("full", 1, 40))
    step = ladder.decide(0, sight(0, 10), BoundWish(20), leased=True)
    assert (step.count, step.low, step.high, step.withheld) == (15, None, None, Withheld.TOO_FAST)
    step = ladder.decide(0, sight(0, 10), BoundWish(3), leased=True)
    assert step.count == 9
    nothing = ladder.decide(0, sight(0, 10), BoundWish(3), leased=False)
    assert (nothing.count, nothing.withheld, NEVER > 0) == (None, Withheld.NO_LEASE, True)
