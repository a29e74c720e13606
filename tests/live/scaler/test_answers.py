"""What an autoscaler is told: laws over all wishes, and a table of everything that may be wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sageserve.base.config import TargetSettings
from sageserve.base.config.autoscalers import HpaPolicySettings, HpaScalingSettings
from sageserve.base.config.clusters import RUNGS
from sageserve.base.units import MINUTE, SECOND
from sageserve.core.strategies.hpa_rules import Behaviour, MetricSeen, largest, wanted_by
from sageserve.live.scaler.answers import NoCount, PoolWish, RefusalCode, SaidOfTarget, TargetCount, answer
from sageserve.live.scaler.messages import KedaTrigger

POOL = "east/big/h100"
OTHER = "east/small/h100"

AT_ONCE = HpaScalingSettings(policies=(HpaPolicySettings(pods=100),))


def target(**changes: object) -> TargetSettings:
    """A ScaledObject that may be acted on."""
    settings = {"cluster": "east", "pool": POOL, "kind": "ScaledObject", "name": "serving/big", "keda": True, "max": 8}
    return TargetSettings.model_validate({**settings, **changes})


def asked(place: str = "serving/big", **metadata: str) -> KedaTrigger:
    namespace, name = place.split("/")
    return KedaTrigger(name, namespace, metadata)


TARGETS = {"big": target(min=1), "small": target(pool=OTHER, name="serving/small", min=2), "plain": target(kind="Deployment")}


@given(
    count=st.integers(0, 100),
    unknown=st.sampled_from(["", "blind"]),
    asks=st.booleans(),
    rung=st.sampled_from(RUNGS),
    bounds=st.tuples(*[st.integers(1, 50)] * 2),
)
def test_a_number_is_inside_the_bounds_and_never_said_for_what_is_not_known(
    count: int, unknown: str, asks: bool, rung: str, bounds: tuple[int, int]
) -> None:
    low, high = min(bounds), max(bounds)
    found = answer(
        {"big": target(keda=asks, authority=rung, min=low, max=high)}, lambda _: PoolWish(count, unknown), asked(target="big")
    )
    if not asks:
        assert found == TargetCount("big", low), "it is told what it has anyway"
    elif unknown:
        assert isinstance(found, NoCount)
        assert found.code is RefusalCode.UNAVAILABLE
    else:
        assert found == TargetCount("big", sorted((low, count, high))[1])


@pytest.mark.parametrize(
    ("who", "expected"),
    [
        (asked(target="big"), "big"),
        (asked("serving/small"), "small"),  # it names none, and is one itself
        (asked("serving/anything", target="plain"), "plain"),  # of a Deployment only the namespace can be compared
        (asked(target="bug"), "there is no target 'bug'; targets are big, small, plain"),
        (asked("serving/none"), "the trigger of serving/none has no `target`, and no target is this ScaledObject"),
        (asked("serving/small", target="big"), "target big is ScaledObject serving/big, and serving/small asks"),
        (asked("staging/big", target="big"), "target big is ScaledObject serving/big, and staging/big asks"),
        (asked("staging/any", target="plain"), "target plain is Deployment serving/big, and staging/any asks"),
    ],
)
def test_a_trigger_means_the_target_that_it_names_and_no_other_object_gets_its_count(who: KedaTrigger, expected: str) -> None:
    found = answer(TARGETS, lambda _: PoolWish(3), who)
    if isinstance(found, TargetCount):
        assert found == TargetCount(expected, 3)
    else:
        assert found.code is RefusalCode.NOT_FOUND
        assert found.why.startswith(expected)


def told_of(wish: PoolWish) -> TargetCount | NoCount:
    return answer({"big": target(max=30)}, lambda _: wish, asked(target="big"))


def hpa(
    current: int,
    ours: TargetCount | NoCount,
    theirs: float | None,
    behaviour: Behaviour,
    now: int,
    bounds: tuple[int, int] = (0, 50),
) -> int:
    """The next count of an HPA that KEDA made, of our trigger and one more that asks for `theirs` replicas, if there is one."""
    metrics = [None if isinstance(ours, NoCount) else float(ours.count), *([] if theirs is None else [theirs])]
    wanted = largest(current, [wanted_by("external", MetricSeen(one, current), 1.0, (0.1, 0.1)) for one in metrics])
    return current if wanted is None else behaviour.limit(now, current, wanted, (0, 50))


@given(
    theirs=st.lists(st.integers(0, 30), min_size=8, max_size=8),
    wishes=st.lists(st.integers(0, 30), min_size=8, max_size=8),
    seen=st.lists(st.booleans(), min_size=8, max_size=8),
)
def test_an_hpa_never_shrinks_while_we_are_blind_and_never_lacks_a_tenth_of_what_we_say(
    theirs: list[int], wishes: list[int], seen: list[bool]
) -> None:
    behaviour, current = Behaviour(AT_ONCE, AT_ONCE), 5
    for sync, (other, wish, sees) in enumerate(zip(theirs, wishes, seen, strict=True)):
        told = told_of(PoolWish(wish, "" if sees else "blind"))
        before, current = current, hpa(current, told, float(other), behaviour, sync * 15 * SECOND + MINUTE)
        if not sees:
            assert current >= before
        else:
            assert current * 1.1 >= wish, "an HPA leaves a ratio alone that is within a tenth"


@given(wish=st.integers(1, 30), current=st.integers(1, 30), floor=st.integers(1, 30))
def test_alone_and_blind_the_fallback_keeps_what_runs_or_the_floor(wish: int, current: int, floor: int) -> None:
    told = told_of(PoolWish(wish, "blind"))
    assert isinstance(told, NoCount), "KEDA's fallback begins when the call fails, and only then"
    fallback = TargetCount("big", max(current, floor))  # currentReplicasIfHigher
    found = hpa(current, fallback, None, Behaviour(AT_ONCE, AT_ONCE), MINUTE)
    assert found >= current
    assert found * 1.1 >= floor


@given(
    said=st.builds(SaidOfTarget, st.none() | st.integers(0, 99), st.none() | st.integers(0, 99), st.booleans()),
    wish=st.builds(PoolWish, st.integers(0, 99), st.sampled_from(["", "blind"])),
    last=st.none() | st.integers(1, 8),
)
def test_what_people_say_comes_before_decisions_and_blindness_before_all_but_an_override(
    said: SaidOfTarget, wish: PoolWish, last: int | None
) -> None:
    found = answer(
        {"big": target(min=1)}, lambda _: wish, asked(target="big"), lambda _: said, {} if last is None else {"big": last}
    )
    if said.override is not None:
        assert found == TargetCount("big", sorted((1, said.override, 8))[1])
    elif wish.unknown or (said.frozen and last is None):
        assert isinstance(found, NoCount)
    elif said.frozen:
        assert found == TargetCount("big", last or 0), "what it was told last"
    else:
        assert found == TargetCount("big", sorted((1, wish.count if said.planned is None else said.planned, 8))[1])
