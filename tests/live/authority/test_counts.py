"""Rung `full`, on the fake API server: replicas follow decisions with care, beside nobody else, and pods with the least to do go.

Read next: `count_stage.py`; `test_hands.py` for the rungs below.
"""

from pathlib import Path

import httpx2
import pytest
from msgspec import structs

from sageserve.base.rng import stream
from sageserve.base.units import MINUTE, SECOND
from sageserve.core.authority.records import TargetOrder
from sageserve.live.authority.drains import COST, FIRST, addresses, drain_order
from sageserve.live.authority.give_back import give_back_count
from sageserve.live.authority.orders import FleetOrders, HeldCount, change_orders, read_orders
from sageserve.live.authority.pods import PodCondition, PodMeta, PodSeen, PodStatus
from sageserve.live.authority.target_object import TargetObject
from sageserve.live.kubernetes.kinds import COUNTED
from sageserve.live.kubernetes.writer import NotWritten, WriteMark
from tests.live.authority.count_stage import CountField
from tests.live.authority.stage import NAME, SPACE, USER, WALL, Process, acted_on, played, settled

OURS = "sageserve-small"
REPLICAS = ("spec", "replicas")


def full(kind: str = "Deployment", *, take_over: bool = True, **more: object) -> object:
    return acted_on(kind, authority="full", take_over=take_over, **more)  # type: ignore[arg-type] # of the settings there are


async def begun(field: CountField, **more: object) -> Process:
    return await settled(field, full(field.kind, **more))  # type: ignore[arg-type] # a scenario


@pytest.mark.parametrize("kind", COUNTED)
def test_replicas_are_raised_by_the_ramp_and_lowered_by_the_pace(kind: str) -> None:
    async def story() -> None:
        field = await CountField(kind).made(count=4)
        process = await begun(field)
        field.wants = 12
        await process.turn()
        assert field.count == 6  # two above what runs, or half
        await field.run(process, 2 * MINUTE)
        assert field.count == 12
        assert TargetObject(field.found()).owners(REPLICAS) == [OURS]
        field.wants, field.blind = 3, True
        await field.run(process, 6 * MINUTE, MINUTE)
        assert field.count == 12  # blind: nobody is sent away
        field.blind, field.use = False, 0.84
        await field.run(process, 6 * MINUTE, MINUTE)
        assert field.count == 12  # the others would be too full
        field.use = 0.1
        await field.run(process, 5 * MINUTE, MINUTE)
        assert field.count == 11  # a tenth
        await field.run(process, 60 * MINUTE, 2 * MINUTE)
        assert field.count == 3
        assert all("/scale" in one or "pods" in one for one in field.writes() if NAME in one and "PATCH" in one)

    played(story)


def test_who_has_the_least_to_do_goes_first_and_nobody_else_is_marked() -> None:
    async def story() -> None:
        field = await CountField().made(count=8)
        process = await begun(field)
        field.wants = 7
        field.busy = {f"{NAME}-{k}": 5 + k for k in range(8)} | {f"{NAME}-5": 0}
        await process.turn()
        assert (field.count, field.marked()) == (7, [f"{NAME}-5"])
        field.scaled()
        assert field.gone == [f"{NAME}-5"]
        assert [facts["going"] for act, facts in field.told if act == "count"] == [f"{NAME}-5"]
        field.wants = 6
        field.busy = {f"10.0.0.{k + 1}:8000": 9 - k for k in range(8)}  # by address, as Prometheus has it
        await field.run(process, 5 * MINUTE, MINUTE)
        assert field.gone == [f"{NAME}-5", f"{NAME}-7"]
        assert field.marked() == []

    played(story)


@pytest.mark.parametrize(("code", "tries"), [(500, 1), (409, 2)])
@pytest.mark.parametrize("wants", [9, 8, None])  # None: what it is frozen at
def test_a_mark_of_one_that_stays_after_all_is_taken_away(code: int, tries: int, wants: int | None) -> None:
    async def story() -> None:
        field = await CountField().made(count=8)
        process = await begun(field)
        field.wants = 7
        field.cluster.failing = lambda method, path: code if method == "PATCH" and "/scale" in path else 0
        for _ in range(tries):
            await process.turn()
            field.now += 5 * SECOND
        assert (field.count, len(field.marked())) == (8, 1)
        field.cluster.failing = lambda *_: 0
        if wants is None:
            frozen = FleetOrders({"big": TargetOrder(frozen_until=WALL + field.now + MINUTE)})
            await change_orders(field.outside(), process.hands._orders, lambda orders: structs.replace(frozen, held=orders.held))
        field.wants = wants or 7
        await process.turn()
        assert (field.count, field.marked()) == (wants or 8, [])
        count = len(field.writes())
        await process.hands.round()
        assert len(field.writes()) == count  # once is enough

    played(story)


@pytest.mark.parametrize(("kind", "said"), [("StatefulSet", "llama-7"), ("LeaderWorkerSet", "llama-7")])
def test_of_numbered_pods_the_highest_goes_and_none_is_marked(kind: str, said: str) -> None:
    async def story() -> None:
        field = await CountField(kind).made(count=8)
        process = await begun(field)
        field.wants = 7
        await process.turn()
        field.scaled()
        assert field.gone == [said] == [facts["going"] for act, facts in field.told if act == "count"]
        assert not [one for one in field.writes() if "pods" in one]

    played(story)


def test_a_pod_that_does_not_serve_goes_before_any_that_does() -> None:
    def pod(name: str, *, ready: bool = True, cost: str = "") -> PodSeen:
        status = PodStatus("Running", "10.0.0.1", [PodCondition("Ready", "True")] if ready else [])
        return PodSeen(PodMeta(name, annotations={COST: cost} if cost else {}), status=status)

    pods = [pod("a"), pod("b", ready=False), pod("c", cost=FIRST), pod("d", cost="5")]
    order = drain_order(("Deployment", "x"), pods, (4, 3), {})
    assert (order.going, order.mark, order.clear) == (("b",), (), ("c",))
    order = drain_order(("Deployment", "x"), pods, (4, 2), {"a": 3, "c": 4, "d": 2})
    assert (order.going, order.mark, order.clear) == (("b", "d"), ("d",), ("c",))
    assert addresses({"10.0.0.7:8000": 3, "[::1]:80": 2, "llama-0": 1}) == {
        "10.0.0.7:8000": 3,
        "10.0.0.7": 3,
        "[::1]:80": 2,
        "::1": 2,
        "llama-0": 1,
    }


@pytest.mark.parametrize("kind", ["HorizontalPodAutoscaler", "ScaledObject"])
def test_beside_an_autoscaler_nothing_is_written_and_it_is_named(kind: str) -> None:
    async def story() -> None:
        field = await CountField().made(count=4)
        process = await begun(field)
        field.scaler(kind)
        field.wants = 6
        await process.turn()
        assert field.count == 4
        assert f"{kind} auto also decides the count of Deployment {NAME}; delete it, or make it the target" in field.note(process)
        field.cluster.delete(kind, SPACE, "auto")
        field.now += 5 * SECOND
        await process.turn()
        assert field.count == 6

    played(story)


@pytest.mark.parametrize(
    ("kind", "instead"),
    [
        ("LLMInferenceService", "spec.scaling.minReplicas"),
        ("VLLMRuntime", "spec.deploymentConfig.replicas"),
        ("StormService", "the bounds of its PodAutoscaler"),
        ("DynamoGraphDeployment", "DynamoGraphDeploymentScalingAdapter"),
        ("ModelDeployment", "its spec.replicas"),
    ],
)
def test_what_its_owner_would_put_back_is_not_written(kind: str, instead: str) -> None:
    async def story() -> None:
        field = await CountField().made(count=4)
        process = await begun(field)
        field.owned_by(kind, "mine")
        field.wants = 6
        await process.turn()
        assert field.count == 4
        note = field.note(process)
        assert (f"{kind} mine made Deployment {NAME}" in note, instead in note) == (True, True)

    played(story)


def test_whether_another_writes_must_be_known() -> None:
    async def story() -> None:
        field = await CountField().made(count=4)
        process = await begun(field)
        field.cluster.missing = {"PodAutoscaler", "VariantAutoscaling"}  # not installed: nobody
        field.cluster.forbidden = {"ScaledObject"}
        field.wants = 6
        await process.turn()
        assert field.count == 4
        assert "whether a ScaledObject scales it is not known" in field.note(process)

    played(story)


@pytest.mark.parametrize("owner", [USER.manager, "sageserve-other"])  # a fleet beside ours is another, too
def test_a_count_of_another_is_taken_only_where_the_settings_say_so(owner: str) -> None:
    async def story() -> None:
        field = await CountField().made(count=5)
        await field.outside().scale(field.place, 4, "", WriteMark(owner))
        process = await begun(field, take_over=False)
        field.wants = 6
        for _ in range(3):
            await process.turn()
            field.now += 5 * SECOND
        assert field.count == 4
        demoted = process.hands.hands[0].ladder.demoted
        assert demoted is not None
        assert f"spec.replicas belongs to {owner}: take that line out" in demoted.detail
        assert process.hands.orders.held == {}

    played(story)


def test_a_person_who_scales_is_respected_until_the_thaw() -> None:
    async def story() -> None:
        field = await CountField().made(count=4)
        process = await begun(field)
        field.wants = 6
        await process.turn()
        await field.outside().scale(field.place, 4, "", WriteMark("kubectl"))  # just what was found
        field.now += 5 * SECOND
        await process.turn()
        assert field.count == 4
        assert "foreign-write, kubectl wrote spec.replicas: 4" in field.note(process)
        thawed = lambda orders: structs.replace(orders, demoted={}, held={})  # noqa: E731 # as the command does
        await change_orders(field.outside(), process.hands._orders, thawed)
        field.now += MINUTE
        await process.turn()
        assert field.count == 6
        assert process.hands.hands[0].held == HeldCount(4, "kubectl", 2, written=True)

    played(story)


def test_a_first_write_that_came_to_nothing_is_no_foreign_write() -> None:
    async def story() -> None:
        field = await CountField().made(count=4)
        process = await begun(field)
        field.wants = 6
        field.cluster.failing = lambda method, _: 500 if method == "PATCH" else 0
        await process.turn()
        field.cluster.failing = lambda *_: 0
        again = field.process(full(), "two")  # type: ignore[arg-type] # a scenario
        field.now += 30 * SECOND
        for _ in range(3):
            field.now += MINUTE
            await again.turn()
        assert field.count == 6
        assert again.hands.hands[0].held == HeldCount(4, USER.manager, 2, written=True)

    played(story)


def test_pods_that_a_quota_holds_back_are_not_asked_for_again() -> None:
    async def story() -> None:
        field = await CountField().made(count=4)
        process = await begun(field)
        field.gated, field.wants = True, 12
        await process.turn()
        field.scaled()
        await field.run(process, 5 * MINUTE, MINUTE)
        assert field.count == 6
        assert "2 pods that cannot come (gated by kueue.x-k8s.io/admission)" in field.note(process)

    played(story)


def test_guard_and_budget_hold_for_replicas(tmp_path: Path) -> None:
    guard = tmp_path / "guard.yaml"
    guard.write_text("targets:\n  serving/llama: {max: 5, rung: full}\n", "utf-8")

    async def story() -> None:
        field = await CountField().made(count=4)
        process = await begun(field, guard=str(guard))
        field.wants = 9
        await process.turn()
        assert (field.count, process.hands.hands[0].step.withheld) == (5, "guard")
        guard.write_text("targets:\n  serving/llama: {max: 9, rung: bounds}\n", "utf-8")
        await process.turn()
        assert (field.count, process.hands.hands[0].step.withheld) == (5, "observed")
        guard.write_text("targets:\n  serving/llama: {max: 4, rung: full}\n", "utf-8")
        await process.turn()
        assert "out-of-guard, 5 is outside 0..4" in field.note(process)
        other = await CountField().made(count=4)
        process = await begun(other, gpus=4, safety={"budget": {"gpus": {"east/h100": 20}}})
        other.wants = 9
        await process.turn()
        assert (other.count, process.hands.hands[0].step.withheld) == (5, "over-budget")

    played(story)


def test_a_dry_run_marks_nobody_and_keeps_nothing() -> None:
    async def story() -> None:
        field = await CountField().made(count=8)
        process = await settled(field, full(), dry_run=True)  # type: ignore[arg-type] # a scenario
        field.wants = 6
        await process.turn()
        assert (field.count, field.marked()) == (8, [])
        assert [act for act, _ in field.told] == ["dry-run"]
        assert field.cluster.get("ConfigMap", SPACE, "sageserve-small-orders") is None

    played(story)


@pytest.mark.parametrize("user", [USER.manager, ""])
def test_replicas_are_given_back_as_many_as_they_are_with_their_owner(user: str) -> None:
    async def story() -> None:
        field = await CountField().made(count=4)
        before = TargetObject(field.found()).owners(REPLICAS)
        process = await begun(field)
        field.wants = 6
        await process.turn()
        held = process.hands.hands[0].held
        assert held is not None
        field.cluster.change("Pod", SPACE, f"{NAME}-0", lambda pod: pod["metadata"].update({"annotations": {COST: FIRST}}))  # type: ignore[union-attr] # a mapping
        said = await give_back_count(field.outside(), field.place, OURS, structs.replace(held, manager=user))
        assert not isinstance(said, NotWritten)
        assert "spec.replicas stays 6" in said[0]
        assert f"kubectl -n {SPACE} scale deployments.apps {NAME} --replicas=4" in said[0]
        assert TargetObject(field.found()).owners(REPLICAS) == (before if user else [])
        assert (field.count, field.marked()) == (6, [])
        assert await give_back_count(field.outside(), field.place, OURS, None) == ()

    played(story)


def test_whatever_pauses_there_are_no_older_epoch_writes_after_a_newer_one() -> None:
    """Two processes, each of which may stand still before any request it makes, while the other one goes on."""

    async def history(seed: int) -> list[int]:
        dice = iter(stream(seed, "pauses").random(2_000).tolist())
        field = await CountField().made(count=4)
        processes = [field.process(full(), "one"), field.process(full(), "two")]  # type: ignore[arg-type] # a scenario
        paused: set[int] = set()
        epochs: list[int] = []

        def pausing(number: int) -> None:
            transport = processes[number].transport
            send = transport.handle_async_request

            async def sent(request: httpx2.Request) -> httpx2.Response:
                if number not in paused and next(dice) < 0.05:
                    paused.add(number)
                    for _ in range(int(next(dice) * 6)):
                        await goes_on(1 - number)
                    paused.discard(number)
                answer = await send(request)
                if request.url.path.endswith("/scale") and answer.status_code == 200:
                    held = processes[number].hands.hands[0].held
                    epochs.append(0 if held is None else held.epoch)
                return answer

            transport.handle_async_request = sent  # type: ignore[method-assign] # a pause before it

        async def goes_on(number: int) -> None:
            field.now += int(next(dice) * 12 * SECOND)
            field.wants = int(next(dice) * 12)
            if number not in paused:
                await processes[number].turn()
                field.scaled()

        pausing(0)
        pausing(1)
        field.now += 10 * MINUTE
        for _ in range(16):
            await goes_on(int(next(dice) * 2))
        return epochs

    async def story() -> None:
        changes = 0
        for seed in range(4):
            epochs = await history(seed)
            assert epochs == sorted(epochs), f"seed {seed}: {epochs}"
            changes += len(set(epochs)) - 1
        assert changes > 2  # the lease did change hands

    played(story)


def test_what_was_found_outlives_orders_that_end() -> None:
    async def story() -> None:
        field = await CountField().made(count=4)
        process = await begun(field)
        field.wants = 6
        await process.turn()
        read = await read_orders(field.outside(), process.hands._orders)
        assert not isinstance(read, NotWritten)
        assert read[0] == FleetOrders(held={"big": HeldCount(4, USER.manager, 1, written=True)})

    played(story)
