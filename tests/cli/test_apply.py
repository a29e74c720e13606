"""`sageserve apply`: a reviewed plan is handed on whole, in time, and only where the fleet is as the plan found it.

Read next: `test_acting.py`; `tests/live/authority/stage.py`.
"""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec import structs
from typer.testing import CliRunner

from sageserve.base.units import HOUR, MINUTE, SECOND
from sageserve.cli import apply as command
from sageserve.cli.main import app
from sageserve.core.authority.records import Demotion, DemotionCause, TargetOrder
from sageserve.data.results.plans import PlanFile, read_plan, write_plan
from sageserve.data.scenarios.load import resolved_yaml
from sageserve.live.authority.orders import FleetOrders, HeldCount, PlannedCount, change_orders, without_ended
from sageserve.live.kubernetes.writer import ObjectPlace
from tests.cli.kube_server import served
from tests.cli.test_acting import Watched
from tests.live.authority.stage import SPACE, WALL, Field, acted_on, played, settled

LEASE = ("Lease", SPACE, "sageserve-small")
SETTINGS = acted_on(take_over=True, min=2)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> PlanFile:
    """Made from a busy hour, with four instances there."""
    folder = tmp_path_factory.mktemp("plan")
    (folder / "fleet.yaml").write_text(resolved_yaml(SETTINGS), "utf-8")
    rows = "".join(f"{k * 18},big,{900 + k % 7},200\n" for k in range(400))
    (folder / "trace.csv").write_text(f"arrival_s,model,prompt_tokens,output_tokens\n{rows}", "utf-8")
    words = ("plan", str(folder / "fleet.yaml"), "--trace", str(folder / "trace.csv"), "--at", "2h", "--now", "east/big=4")
    ran = CliRunner().invoke(app, [*words, "-o", str(folder / "plan.json")])
    assert ran.exit_code == 0, ran.output
    return read_plan(folder / "plan.json")


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    """A fleet whose lease somebody renews at every request."""
    monkeypatch.setattr(command, "POLL_S", 0.001)
    monkeypatch.setattr(command, "PATIENCE_S", 0.01)
    monkeypatch.setattr(command, "wall_now", lambda: WALL)
    field = asyncio.run(Field().made(low=2, count=4))
    field.cluster.put({"kind": "Lease", "metadata": {"name": LEASE[2], "namespace": SPACE}, "spec": {"holderIdentity": "one"}})

    def renewed(method: str, path: str) -> int:
        if method == "GET" and "leases" in path:
            field.cluster.change(*LEASE, lambda data: data["spec"].update({"renewTime": str(field.cluster.resource_version)}))  # type: ignore[union-attr] # a mapping
        return 0

    field.cluster.failing = renewed
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "scenario.yaml").write_text(resolved_yaml(SETTINGS), "utf-8")
    with served(field.cluster, tmp_path) as kubeconfig:
        yield Watched(tmp_path / "state", field, kubeconfig)


def applied(watched: Watched, file: PlanFile, *more: str, begin: float = 0.0) -> tuple[int, str]:
    """Exit code and output of an apply of a plan whose instant is `begin` seconds ago."""
    path = watched.state.parent / "plan.json"
    write_plan(path, file)
    at = datetime.fromtimestamp(WALL / SECOND - begin, UTC).isoformat()
    words = ["apply", str(path), "--begin", at, "--state", str(watched.state), "--kubeconfig", str(watched.kubeconfig), *more]
    ran = CliRunner().invoke(app, words)
    return ran.exit_code, ran.output + (str(ran.exception) if ran.exception else "")


def test_a_plan_is_ordered_until_it_expires_and_twice_changes_nothing(watched: Watched, plan: PlanFile) -> None:
    code, said = applied(watched, plan, "--dry-run")
    assert (code, "big: 4 -> 2, would be ordered" in said, watched.orders()) == (0, True, FleetOrders())
    code, said = applied(watched, plan)
    assert (code, "big: 4 -> 2, ordered" in said) == (0, True)
    made = watched.orders().plans["big"]
    assert (made.count, made.plan) == (2, plan.solved.plan.input_hash[:12])
    assert made.until - WALL == plan.expires_at - plan.made_at
    watched.field.cluster.change("Deployment", SPACE, "llama", lambda data: data["spec"].update({"replicas": 3}))  # type: ignore[union-attr] # a mapping
    assert applied(watched, plan)[0] == 0  # on its way by now
    kept = watched.field.cluster.resource_version
    assert json.loads(applied(watched, plan, "--json")[1])["targets"][0]["ordered"] is True
    assert watched.orders().plans["big"] == made
    assert watched.field.cluster.resource_version - kept == 2  # the lease, renewed twice: no order was written
    assert "no freeze and no plan is ordered" in watched.say("thaw", "big")  # by this machine's clock it ended long ago
    assert watched.orders().plans == {}


@pytest.mark.parametrize(
    ("begin", "code", "said"),
    [(2.5 * 3600, 3, "the plan expired at"), (-600.0, 3, "which is not yet"), (-30.0, 0, "ordered")],
)
def test_a_plan_holds_in_its_time_alone(watched: Watched, plan: PlanFile, begin: float, code: int, said: str) -> None:
    told = applied(watched, plan, begin=begin)
    assert (told[0], said in told[1]) == (code, True)
    assert bool(watched.orders().plans) is (code == 0)


def test_a_fleet_that_is_not_as_the_plan_found_it_is_left_alone(watched: Watched, plan: PlanFile) -> None:
    watched.field.cluster.change("Deployment", SPACE, "llama", lambda data: data["spec"].update({"replicas": 5}))  # type: ignore[union-attr] # a mapping
    code, said = applied(watched, plan)
    assert (code, "5 are asked for, the plan found 4" in said, watched.orders().plans) == (2, True, {})
    demoted = {"big": Demotion(DemotionCause.FOREIGN_WRITE, "kubectl wrote it", WALL)}
    place = ObjectPlace("ConfigMap", SPACE, "sageserve-small-orders")
    orders = lambda _: FleetOrders(demoted=demoted)  # noqa: E731 # one line, once
    asyncio.run(change_orders(Field(cluster=watched.field.cluster).writer(), place, orders))
    assert "only observed, foreign-write: kubectl wrote it" in applied(watched, plan)[1]


def test_a_plan_of_other_settings_or_with_other_counts_is_refused(watched: Watched, plan: PlanFile) -> None:
    assert "made under other settings" in applied(watched, structs.replace(plan, scenario_hash="0" * 64))[1]
    more = structs.replace(plan.pools[0], target=9)
    assert "its counts are not those that were solved" in applied(watched, structs.replace(plan, pools=(more,)))[1]
    assert watched.orders() == FleetOrders()


def test_where_nobody_acts_nothing_is_ordered(watched: Watched, plan: PlanFile) -> None:
    watched.field.cluster.failing = lambda *_: 0
    assert "nobody acts on east" in applied(watched, plan)[1]
    watched.field.cluster.delete(*LEASE)
    code, said = applied(watched, plan)
    assert (code, "nobody acts on east" in said, watched.orders()) == (1, True, FleetOrders())


def test_a_cluster_that_does_not_take_it_ends_it_with_what_was_raised(watched: Watched, plan: PlanFile) -> None:
    before = watched.field.cluster.failing
    watched.field.cluster.failing = lambda method, path: (
        500 if method == "POST" and "configmaps" in path else before(method, path)
    )
    code, said = applied(watched, plan)
    assert (code, "cluster east does not take it" in said, "big: 4 -> 2, not ordered" in said) == (5, True, True)


def test_raises_come_first_in_all_clusters_and_lowers_only_after_all_of_them() -> None:
    async def story() -> None:
        east, west = Field(), Field()
        writers = {"east": east.writer(), "west": west.writer()}
        places = {name: ObjectPlace("ConfigMap", SPACE, f"{name}-orders") for name in writers}
        up = command.PlannedTarget("up", "east", 2, 2, 4, 4)
        found = [up, replace(up, target="down", count=1), replace(up, target="far", cluster="west")]
        order = command._Order("abc", WALL * 2, None, Path(), dry_run=False)
        west.cluster.failing = lambda *_: 500
        left, code, said = await command._ordered(writers, places, found, order)
        assert (code, [one.ordered for one in left]) == (5, [True, False, False])
        assert "cluster west" in said
        west.cluster.failing = lambda *_: 0
        left, code, _ = await command._ordered(writers, places, found, order)
        assert (code, [one.ordered for one in left]) == (0, [True, True, True])

    played(story)


def test_a_plan_stands_in_the_place_of_decisions_under_overrides_and_freezes() -> None:
    async def story() -> None:
        field = await Field().made(low=1, count=8)
        process = await settled(field, acted_on(take_over=True))
        end = WALL + field.now + 10 * MINUTE

        async def said(**more: object) -> None:
            orders = structs.replace(FleetOrders(plans={"big": PlannedCount(6, end, "abc")}), **more)
            await change_orders(field.outside(), process.hands._orders, lambda _: orders)

        field.wants = 3
        await said(targets={"big": TargetOrder(frozen_until=end)})
        await process.turn()
        assert field.bounds()[0] == 1
        await said()
        await process.turn()
        assert field.bounds()[0] == 6
        assert field.found().annotations["sageserve.io/decision"].endswith("#abc")
        await said(targets={"big": TargetOrder(count=8, until=end)})
        await process.turn()
        assert field.bounds()[0] == 8
        await said()
        await field.run(process, 40 * MINUTE, 5 * MINUTE)  # it has expired, and decisions go on
        assert (field.bounds()[0] or 9) < 6

    played(story)


def test_what_has_ended_is_forgotten_and_what_is_held_is_not() -> None:
    orders = FleetOrders(
        held={"a": HeldCount(3)}, plans={"a": PlannedCount(2, WALL, "x"), "b": PlannedCount(2, WALL + HOUR, "x")}
    )
    assert without_ended(orders, WALL) == structs.replace(orders, plans={"b": orders.plans["b"]})
