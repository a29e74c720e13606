"""What is said and written beside bounds: fields with two owners, KEDA's brake, orders that KEDA is told, starts as measured.

Read next: `test_hands.py`.
"""

import asyncio

import pytest

from sageserve.base.units import HOUR, MINUTE, SECOND, Micros
from sageserve.core.authority.records import TargetOrder
from sageserve.live.authority.hands import Hands
from sageserve.live.authority.orders import FleetOrders, PlannedCount
from sageserve.live.authority.pods import PodMeta, PodSeen, PodSpec
from sageserve.live.authority.target_object import TargetObject
from sageserve.live.kubernetes.fake import Stored
from sageserve.live.scaler.answers import SaidOfTarget
from tests.live.authority.stage import SPACE, USER, WALL, Field, acted_on, played, settled
from tests.live.authority.test_hands import HPA, LOW, OURS, said
from tests.live.watch.stage import POOL

BRAKE = "autoscaling.keda.sh/paused-scale-in"


@pytest.mark.parametrize("kind", ["ScaledObject", HPA])
def test_a_field_that_was_taken_at_the_value_it_had_can_be_changed_later(kind: str) -> None:
    async def story() -> None:
        field = await Field(kind).made(low=1, count=8)
        process = await settled(field, acted_on(kind, authority="bounds", take_over=True))
        await process.turn()
        assert field.bounds() == (1, 20)  # the maximum is raised; the minimum is ours and still the user's
        assert len(TargetObject(field.found()).owners(("spec", LOW[kind]))) == 2
        field.wants = 6
        field.now += 5 * SECOND
        await process.turn()
        assert (field.bounds(), process.hands.notes()) == ((6, 20), [])
        await field.user_writes({"spec": {LOW[kind]: 2}})  # by now it is taken from us
        field.now += 5 * SECOND
        await process.turn()
        assert field.bounds()[0] == 2

    played(story)


@pytest.mark.parametrize("kind", ["ScaledObject", HPA])
def test_while_blind_keda_takes_nothing_away_either(kind: str) -> None:
    async def story() -> None:
        field = await Field(kind).made(low=1, count=4)
        process = await settled(field, acted_on(kind, authority="bounds", take_over=True))
        field.wants = 6
        await process.turn()
        assert BRAKE not in field.found().annotations
        field.blind, field.wants = True, None
        await process.turn()
        assert (field.found().annotations.get(BRAKE) == "true") is (kind == "ScaledObject")
        count = len(field.writes())
        field.now += 5 * SECOND
        await process.hands.round()
        assert len(field.writes()) == count  # once is enough
        field.blind = False
        await process.turn()
        assert BRAKE not in field.found().annotations
        await field.user_writes({"metadata": {"annotations": {BRAKE: "false"}}})
        field.blind = True
        field.now += 5 * SECOND
        await process.turn()
        assert field.found().annotations[BRAKE] == "false"  # the user's own
        assert process.hands.hands[0].trouble == ""

    played(story)


@pytest.mark.parametrize("why", ["frozen", "demoted"])
def test_the_brake_goes_with_sight_whatever_happened_while_blind(why: str) -> None:
    async def story() -> None:
        field = await Field().made(low=1, count=4)
        process = await settled(field, acted_on(authority="bounds", take_over=True))
        field.wants = 6
        await process.turn()
        field.blind, field.wants = True, None
        await process.turn()
        if why == "frozen":
            await said(field, process, FleetOrders({"big": TargetOrder(frozen_until=WALL + field.now + HOUR)}))
        else:
            await field.user_writes({"spec": {"minReplicaCount": 2}})
        field.now += 5 * SECOND
        await process.turn()
        before = field.bare()
        assert field.found().annotations[BRAKE] == "true"  # still blind
        field.blind = False
        field.cluster.allowed = lambda right: not (right.verb == "patch" and right.plural == "scaledobjects")
        for _ in range(4):
            field.now += 5 * SECOND
            await process.turn()
        [note] = process.hands.notes()
        assert f"{BRAKE} stays on big: " in note
        assert [facts["what"] for act, facts in field.told if act == "refused"] == [BRAKE]  # once is enough
        field.cluster.allowed = lambda _: True
        await process.hands.round()
        before["metadata"]["annotations"].pop(BRAKE)  # type: ignore[union-attr, call-overload, index] # mappings
        assert field.bare() == before  # and nothing else was touched
        owner = USER.manager if why == "demoted" else OURS
        assert TargetObject(field.found()).owners(("spec", "minReplicaCount")) == [owner]
        assert field.told[-1] == ("taken-away", {"target": "big", "what": BRAKE})
        count = len(field.writes())
        await process.hands.round()
        assert len(field.writes()) == count
        assert not any(BRAKE in each for each in process.hands.notes())

    played(story)


def test_what_people_say_is_known_to_whoever_answers_keda() -> None:
    async def story() -> None:
        field = await Field().made(low=1, count=8)
        process = await settled(field, acted_on(take_over=True))
        hands = Hands.__new__(Hands)
        hands.clusters = [process.hands]  # type: ignore[misc] # of one cluster
        end = WALL + field.now + 10 * MINUTE
        orders = FleetOrders({"big": TargetOrder(end, 5, end - MINUTE)}, plans={"big": PlannedCount(7, end, "abc")})
        await said(field, process, orders)
        await process.turn()
        assert hands.said("big") == SaidOfTarget(5, 7, frozen=True)
        field.now += 9 * MINUTE
        assert hands.said("big") == SaidOfTarget(None, 7, frozen=True)
        field.now += MINUTE
        assert hands.said("big") == hands.said("nobody") == SaidOfTarget()

    played(story)


def test_pods_that_somebody_follows_are_not_listed() -> None:
    async def story(followed: list[PodSeen] | None) -> tuple[str, bool]:
        field = await Field().made(low=1, count=3)
        process = field.process(acted_on(take_over=True), pods=lambda *_: followed)
        await process.turn()
        return " ".join(process.hands.notes()), any("/pods" in path for _, path in process.transport.api.requests)

    waits = PodSeen(PodMeta("a", labels={"app": "llama"}), PodSpec(scheduling_gates=[{"name": "kueue"}]))
    told, listed = asyncio.run(story([waits]))
    assert "1 pods that cannot come (gated by kueue)" in told
    assert not listed
    assert asyncio.run(story(None))[1], "whoever does not hear of them is no reason not to know them"


def test_starts_are_measured_on_pods_and_told_to_whoever_plans() -> None:
    told: list[tuple[str, Micros]] = []

    def pod(number: int, minutes: int) -> Stored:
        ready: Stored = {"type": "Ready", "status": "True", "lastTransitionTime": f"2026-11-27T10:{minutes:02}:00Z"}
        metadata: Stored = {"name": f"p{number}", "namespace": SPACE, "uid": f"u{number}", "labels": {"app": "llama"}}
        metadata["creationTimestamp"] = "2026-11-27T10:00:00Z"
        return {"kind": "Pod", "metadata": metadata, "status": {"phase": "Running", "conditions": [ready]}}

    async def story() -> None:
        field = await Field().made(low=1, count=3)
        process = field.process(acted_on(take_over=True), started=lambda pool, took: told.append((pool, took)))
        field.cluster.put(pod(0, 50))  # was there before: nobody knows how long it took
        for _ in range(2):
            await process.turn()
            field.now += MINUTE
        field.cluster.put(pod(1, 4))
        field.cluster.put(pod(2, 6))
        await process.turn()
        assert told == []  # two are none
        field.cluster.put(pod(3, 9))
        field.now += MINUTE
        await process.turn()
        assert told == [(POOL, 6 * MINUTE)]

    played(story)
