"""Acting on targets, on the fake API server: floors are raised and lowered, others' writes respected, and one process writes."""

import os
from pathlib import Path

import pytest
from msgspec import structs

from sageserve.base.errors import ConfigError
from sageserve.base.units import MINUTE, SECOND
from sageserve.core.authority.records import DemotionCause, TargetOrder
from sageserve.live.authority.guard_file import GuardFile
from sageserve.live.authority.orders import FleetOrders, change_orders, read_orders
from sageserve.live.authority.target_object import DECISION, EPOCH, TargetObject
from sageserve.live.kubernetes.writer import NotWritten, WriteMark
from tests.live.authority.stage import NAME, SPACE, USER, WALL, Field, Process, acted_on, played, settled
from tests.live.watch.stage import POOL, one_pool

HPA = "HorizontalPodAutoscaler"
OURS = "sageserve-small"
LOW = {"ScaledObject": "minReplicaCount", HPA: "minReplicas"}


@pytest.mark.parametrize("kind", [HPA, "ScaledObject"])
def test_a_floor_is_raised_by_the_ramp_and_its_autoscaler_follows(kind: str) -> None:
    async def story() -> None:
        field = await Field(kind).made(low=1, count=4)
        process = await settled(field, acted_on(kind, take_over=True))
        field.wants = 12
        await process.turn()
        assert field.bounds() == (6, 16)  # two above what runs, or half
        assert field.scaled() == 6
        await field.run(process, 3 * MINUTE)
        assert field.bounds() == (12, 16)
        assert field.scaled() == 12
        notes = field.found().annotations
        assert (notes[EPOCH], notes[DECISION].split("@")[0]) == ("1", "east/big/h100")
        seen = TargetObject(field.found())
        assert seen.owners(("spec", LOW[kind])) == ["sageserve-small"]
        assert all(
            "/scale " not in f"{one} " and "deployments" not in one for one in field.writes()
        )  # the minimum, and nothing else
        assert field.told[0][0] == "bounds"

    played(story)


def test_a_floor_falls_by_the_pace_to_what_was_found_and_no_further() -> None:
    async def story() -> None:
        field = await Field().made(low=3, count=10)
        process = await settled(field, acted_on(take_over=True))
        field.wants = 10
        await process.turn()
        assert field.bounds()[0] == 10
        field.wants, field.blind = 1, True
        await field.run(process, 10 * MINUTE, MINUTE)
        assert field.bounds()[0] == 10  # blind: nothing is lowered
        field.blind = False
        await field.run(process, 10 * MINUTE, MINUTE)
        assert field.bounds()[0] in (8, 9)
        await field.run(process, 90 * MINUTE, 2 * MINUTE)
        assert field.bounds()[0] == 3

    played(story)


def test_bounds_are_written_together_and_the_maximum_comes_down_with_care() -> None:
    async def story() -> None:
        field = await Field().made(low=1, high=12, count=4)
        process = await settled(field, acted_on(authority="bounds", take_over=True))
        field.wants = 5
        await process.turn()
        assert field.bounds() == (5, 20)  # up to the settings' maximum
        assert sorted(TargetObject(field.found()).original()) == ["spec.maxReplicaCount", "spec.minReplicaCount"]

    played(story)


def test_a_field_of_another_is_not_taken_and_its_owner_is_named() -> None:
    async def story() -> None:
        field = await Field().made(low=1)
        process = await settled(field, acted_on())
        field.wants = 5
        before = field.bare()
        await process.turn()
        assert field.bare() == before
        [note] = process.hands.notes()
        assert "spec.minReplicaCount belongs to kubectl-client-side-apply" in note
        assert "take_over: true" in note
        for _ in range(2):
            field.now += 5 * SECOND
            await process.turn()
        assert process.hands.hands[0].ladder.demoted is not None  # three refused writes in ten minutes
        count = len(field.writes())
        field.now += 5 * SECOND
        await process.turn()
        assert [one for one in field.writes()[count:] if "leases" not in one] == []
        assert "sageserve thaw big" in process.hands.notes()[0]

    played(story)


def test_a_foreign_write_ends_it_at_once_until_a_person_thaws_it() -> None:
    async def story() -> None:
        field = await Field().made(low=1)
        process = await settled(field, acted_on(take_over=True))
        field.wants = 6
        await process.turn()
        await field.user_writes({"spec": {"minReplicaCount": 3}})
        field.wants = 9
        field.now += 5 * SECOND
        await process.turn()
        assert field.bounds()[0] == 3
        [note] = process.hands.notes()
        assert "foreign-write, kubectl-client-side-apply wrote spec.minReplicaCount: 3" in note
        after = field.process(acted_on(take_over=True), "two")  # a new process knows it, too
        field.now += 30 * SECOND
        await process.hands.keeper.let_go()
        for _ in range(3):
            field.now += MINUTE
            await after.turn()
        assert field.bounds()[0] == 3
        await said(field, after, FleetOrders())
        field.now += 5 * SECOND
        await after.turn()
        assert field.bounds()[0] == 6
        assert TargetObject(field.found()).original()["spec.minReplicaCount"].value == 3  # what the user wants by now
        assert [act for act, _ in field.told].count("demoted") == 1

    played(story)


async def said(field: Field, process: Process, orders: FleetOrders) -> None:
    place = process.hands._orders
    done = await change_orders(field.outside(), place, lambda _: orders)
    assert not isinstance(done, NotWritten), done


def test_people_freeze_and_override_and_both_survive_a_new_leader() -> None:
    async def story() -> None:
        field = await Field().made(low=1, count=8)
        scenario = acted_on(take_over=True)
        first = await settled(field, scenario)
        now = WALL + field.now
        await said(field, first, FleetOrders({"big": TargetOrder(frozen_until=now + 10 * MINUTE)}))
        field.wants = 8
        await field.run(first, MINUTE)
        assert field.bounds()[0] == 1
        await said(field, first, FleetOrders({"big": TargetOrder(now + 10 * MINUTE, 5, now + 5 * MINUTE, "launch")}))
        await field.run(first, 30 * SECOND)
        assert field.bounds()[0] == 5
        second = field.process(scenario, "two")
        await field.run(second, 3 * MINUTE)  # the first one is gone
        assert (field.bounds()[0], second.hands.keeper.elector.epoch) == (5, 2)
        await field.run(second, 4 * MINUTE)
        assert field.bounds()[0] == 5  # the override is over, the freeze is not
        await field.run(second, 5 * MINUTE)
        assert field.bounds()[0] == 8
        read = await read_orders(field.outside(), second.hands._orders)
        assert not isinstance(read, NotWritten)

    played(story)


def test_a_window_of_the_settings_freezes() -> None:
    async def story() -> None:
        field = await Field().made(low=1, count=8)
        scenario = acted_on(take_over=True, safety={"freeze": ["Mon 00:00-Sun 00:00 UTC", "Sun 00:00-Mon 00:00 UTC"]})
        process = await settled(field, scenario)
        field.wants = 8
        await process.turn()
        assert field.bounds()[0] == 1
        assert process.hands.hands[0].step.withheld == "frozen"

    played(story)


def test_the_owner_of_a_cluster_has_the_last_word(tmp_path: Path) -> None:
    guard = tmp_path / "guard.yaml"
    guard.write_text("targets:\n  serving/llama: {max: 6, rung: floor}\n", "utf-8")

    async def story() -> None:
        field = await Field().made(low=1, count=8)
        process = await settled(field, acted_on(take_over=True, authority="bounds", guard=str(guard)))
        field.wants = 9
        await process.turn()
        assert field.bounds() == (6, 16)  # clipped, and no more than a floor
        assert OURS not in TargetObject(field.found()).owners(("spec", "maxReplicaCount"))
        assert process.hands.hands[0].step.withheld == "guard"
        guard.write_text("targets:\n  serving/llama: {max: 4}\n", "utf-8")
        await process.turn()
        assert field.bounds() == (6, 16)  # values stay as they are
        assert "out-of-guard, 6 is outside 0..4 of the cluster's guard" in process.hands.notes()[0]
        guard.write_text("targets:\n  serving/llama: {mox: 4}\n", "utf-8")
        await process.turn()
        assert "mox is no key; did you mean 'max'?" in process.hands.notes()[0]
        guard.write_text("{}", "utf-8")
        assert GuardFile(guard).range_of("serving/llama").rung == "observe"  # what is not named is only observed
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(ConfigError, match="is no file"):
            GuardFile(tmp_path / "pipe").range_of("serving/llama")
        guard.unlink()
        with pytest.raises(ConfigError, match="cannot be read"):
            field.process(acted_on(guard=str(guard)))

    played(story)


def test_a_standby_that_heard_of_a_thaw_gives_back_what_was_found_before_all_of_us() -> None:
    async def story() -> None:
        field = await Field().made(low=3, count=9)
        scenario = acted_on(take_over=True)
        first, second = await settled(field, scenario), field.process(scenario, "two")
        field.wants = 9
        await first.turn()
        await field.user_writes({"spec": {"minReplicaCount": 4}})
        for _ in range(2):
            field.now += 5 * SECOND
            await first.turn()
            await second.turn()
        assert first.hands.hands[0].ladder.demoted is not None
        await change_orders(field.outside(), first.hands._orders, lambda orders: structs.replace(orders, demoted={}))
        for _ in range(3):  # the first one writes again, and the second one sees it
            field.now += 5 * SECOND
            await first.turn()
            await second.turn()
        while second.hands.keeper.elector.epoch == 0:
            field.now += 2 * SECOND
            await second.turn()
        field.wants = 12
        for _ in range(3):
            field.now += MINUTE
            await second.turn()
        assert field.bounds()[0] == 12
        found = TargetObject(field.found()).original()["spec.minReplicaCount"]
        assert (found.value, found.manager) == (4, USER.manager), "not what one of us wrote"

    played(story)


def test_a_budget_is_kept() -> None:
    async def story() -> None:
        field = await Field().made(low=1, count=8)
        scenario = acted_on(take_over=True, gpus=4, safety={"budget": {"gpus": {"east/h100": 24}}})
        process = await settled(field, scenario)
        field.wants = 8
        await process.turn()
        assert field.bounds()[0] == 6
        assert process.hands.hands[0].step.withheld == "over-budget"

    played(story)


def test_what_runs_of_targets_of_other_clusters_uses_a_budget_too() -> None:
    """A budget is of a region's GPUs, and one region's can be in two clusters, or be changed by nobody here."""

    async def story() -> None:
        field = await Field().made(low=1, count=8)
        here = {"cluster": "east", "pool": POOL, "kind": "ScaledObject", "name": f"{SPACE}/{NAME}", "gpus": 4, "max": 20}
        there = here | {"cluster": "other", "name": f"{SPACE}/elsewhere"}
        targets = {"here": here | {"authority": "floor", "take_over": True}, "there": there}
        budget = {"budget": {"gpus": {"east/h100": 24}}}
        both = one_pool(live={"clusters": {"east": {}, "other": {}}, "targets": targets, "safety": budget})
        process = await settled(field, both)
        field.wants, field.runs = 8, 3
        await process.turn()
        assert field.bounds()[0] == 3, "six fit, and three of them run elsewhere"

    played(story)


def test_one_of_two_processes_writes_and_the_other_takes_over_within_seventeen_seconds() -> None:
    async def story() -> None:
        field = await Field().made(low=1, count=8)
        scenario = acted_on(take_over=True)
        first, second = await settled(field, scenario), field.process(scenario, "two")
        field.wants = 4
        for _ in range(30):
            field.now += 2 * SECOND
            await first.turn()
            await second.turn()
        assert field.bounds()[0] == 4
        assert "one holds the lease" in second.hands.notes()[0]
        field.wants, gone = 8, field.now
        while second.hands.keeper.elector.epoch == 0:
            field.now += 2 * SECOND
            await second.turn()
        assert field.now - gone <= 17 * SECOND
        assert (field.bounds()[0], field.found().annotations[EPOCH]) == (8, "2")
        await first.hands.round()  # it stood still, and goes on with what it knew
        assert field.found().annotations[EPOCH] == "2"
        assert first.hands.hands[0].step.withheld == "no-lease"

    played(story)


def test_a_write_that_was_decided_on_an_older_object_comes_to_nothing() -> None:
    async def story() -> None:
        field = await Field().made(low=1, count=8)
        process = await settled(field, acted_on(take_over=True))
        field.wants = 6
        before = TargetObject(field.found())
        await field.user_writes({"metadata": {"labels": {"team": "a"}}})
        hand = process.hands.hands[0]
        await hand.act(before, process.hands._parts.asked(""), TargetOrder(), None, frozen=False)
        assert field.bounds()[0] == 1
        assert (hand.ladder.demoted, hand.trouble) == (None, "")  # nobody's fault: the next round looks again
        await process.turn()
        assert field.bounds()[0] == 6

    played(story)


def test_a_higher_epoch_on_an_object_stops_a_writer() -> None:
    async def story() -> None:
        field = await Field().made(low=1, count=8)
        process = await settled(field, acted_on(take_over=True))
        await field.user_writes({"metadata": {"annotations": {EPOCH: "7"}}}, WriteMark("sageserve-small"))
        field.wants = 6
        await process.hands.round()
        assert field.bounds()[0] == 1
        assert not process.hands.keeper.elector.leads(field.now)
        field.now += 2 * SECOND
        await process.turn()
        assert (field.bounds()[0], field.found().annotations[EPOCH]) == (6, "8")

    played(story)


def test_refusals_of_the_server_are_told_and_end_it() -> None:
    async def story() -> None:
        field = await Field().made(low=1, count=8)
        process = await settled(field, acted_on(take_over=True))
        field.cluster.allowed = lambda right: not (right.verb == "patch" and right.plural == "scaledobjects")
        field.wants = 6
        for _ in range(3):
            field.now += 5 * SECOND
            await process.turn()
        demoted = process.hands.hands[0].ladder.demoted
        assert demoted is not None
        assert (demoted.cause, "cannot patch scaledobjects" in demoted.detail) == (DemotionCause.REFUSED_WRITES, True)
        field.cluster.failing = lambda _, path: 500 if "configmaps" in path else 0
        field.now += 5 * SECOND
        await process.turn()
        assert "orders cannot be read" in process.hands.notes()[0]

    played(story)


def test_a_dry_run_asks_the_server_and_leaves_nothing() -> None:
    async def story() -> None:
        field = await Field().made(low=1, count=8)
        process = await settled(field, acted_on(take_over=True), dry_run=True)
        before = field.bare()
        field.wants = 6
        await process.turn()
        await process.turn()
        assert field.bare() == before
        assert [act for act, _ in field.told] == ["dry-run"]
        field.cluster.allowed = lambda right: right.plural != "scaledobjects"
        for _ in range(4):
            field.now += 5 * SECOND
            await process.turn()
        assert process.hands.hands[0].ladder.demoted is not None
        assert field.cluster.get("ConfigMap", SPACE, "sageserve-small-orders") is None  # nobody else is told

    played(story)


def test_a_target_that_is_gone_or_at_zero_is_said() -> None:
    async def story() -> None:
        field = await Field(HPA).made(low=1, count=0)
        process = await settled(field, acted_on(HPA, take_over=True))
        field.wants = 6
        await process.turn()
        assert "an HPA is off" in process.hands.notes()[0]
        field.cluster.delete(HPA, SPACE, NAME)
        await process.turn()
        assert f"there is no {HPA} {SPACE}/{NAME}" in process.hands.notes()[0]

    played(story)


def test_what_is_only_observed_is_never_written() -> None:
    field = Field()

    async def story() -> None:
        await field.made(low=1)
        scenario = acted_on(authority="observe")
        process = field.process(scenario)
        assert process.hands.hands == []
        hand = structs.replace(TargetOrder(), count=9, until=WALL * 2)
        assert hand.count == 9
        await process.hands.round()

    played(story)
    assert [one for one in field.writes() if USER.manager not in one] == [
        f"POST /apis/keda.sh/v1alpha1/namespaces/{SPACE}/scaledobjects"
    ]
