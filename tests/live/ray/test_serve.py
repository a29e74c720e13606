"""Acting on Ray Serve, on the fake dashboard: the rules are those of every target, and a config is given back as it was found."""

import copy
from pathlib import Path

import httpx
import pytest
from msgspec import structs

from sageserve.base.config.clusters import RaySettings
from sageserve.base.errors import ConfigError
from sageserve.base.units import MINUTE, SECOND
from sageserve.core.authority.records import DemotionCause
from sageserve.live.authority.give_back import give_back, give_back_count
from sageserve.live.authority.orders import FleetOrders, PlannedCount, change_orders, read_orders
from sageserve.live.authority.pods import PodList
from sageserve.live.kubernetes.objects import KubeObject
from sageserve.live.kubernetes.writer import NotWritten, WriteMark
from sageserve.live.ray.dashboard import ServeDashboard
from tests.live.authority.stage import WALL, played
from tests.live.ray.stage import APP, DEPLOYMENT, OTHER, PLACE, RayStage, config, on_ray

SCALED = "autoscaling_config: {min_replicas: 2, max_replicas: 16, target_ongoing_requests: 4}"
PUT, POST = ("PUT", "/api/serve/applications/"), "POST"


def stage(folder: Path, text: str = SCALED, **app: bool) -> RayStage:
    """Four run."""
    found = RayStage(folder)
    found.serve.deploy(config(text, **app), OTHER)
    found.serve.counts[APP, DEPLOYMENT] = 4
    found.serve.run()
    return found


def writes(one: RayStage) -> list[tuple[str, str]]:
    return [asked for asked in one.serve.requests if asked[0] != "GET"]


def test_a_floor_is_raised_by_the_ramp_and_nothing_else_of_the_config_changes(tmp_path: Path) -> None:
    async def story() -> None:
        one = stage(tmp_path)
        before = copy.deepcopy(one.serve.configs)
        hands = await one.process(on_ray())
        one.wants = 12
        await hands.round()
        assert one.entry()["autoscaling_config"] == {"min_replicas": 6, "max_replicas": 16, "target_ongoing_requests": 4}
        await one.run(hands, 3 * MINUTE)
        assert (one.entry()["autoscaling_config"]["min_replicas"], one.count()) == (12, 12)  # type: ignore[index,call-overload] # a mapping
        KubeObject(one.serve.configs[APP]).parts("deployments")[0].data["autoscaling_config"]["min_replicas"] = 2  # type: ignore[index] # a mapping
        assert one.serve.configs == before
        assert set(writes(one)) == {PUT}

    played(story)


def test_what_was_found_comes_back_byte_for_byte(tmp_path: Path) -> None:
    async def story(text: str, rung: str) -> None:
        one = stage(tmp_path / rung / str(len(text)), text)
        before = copy.deepcopy(one.serve.configs)
        hands = await one.process(on_ray(rung))
        one.wants = 9
        await one.run(hands, 3 * MINUTE)
        assert one.serve.configs != before
        assert not isinstance(said := await give_back(one.writer(), PLACE, "sageserve-small"), NotWritten)
        assert "spec.minReplicas: 9 -> " in said[0]
        assert one.serve.configs == before
        assert await give_back(one.writer(), PLACE, "sageserve-small") == ()

    for text in (SCALED, "num_replicas: auto", "autoscaling_config: {max_replicas: 16}"):
        for rung in ("floor", "bounds"):
            if rung == "floor" or text == SCALED:
                (tmp_path / rung / str(len(text))).mkdir(parents=True)
                played(lambda text=text, rung=rung: story(text, rung))  # type: ignore[misc] # mypy loses the defaults


def test_a_field_that_the_config_said_is_never_away_while_it_is_given_back(tmp_path: Path) -> None:
    async def story() -> None:
        one = stage(tmp_path)
        writer, mark = one.writer(), WriteMark("sageserve-small")
        taken = await writer.apply(PLACE, {"spec": {"minReplicas": 2}}, mark, force=True)
        assert isinstance(taken, KubeObject)
        assert [each.text("manager") for each in taken.parts("metadata", "managedFields")] == ["sageserve-small", "serve-config"]
        left = await writer.apply(PLACE, {}, mark)
        assert isinstance(left, KubeObject)
        assert [each.text("manager") for each in left.parts("metadata", "managedFields")] == ["serve-config"]
        assert writes(one) == []

    played(story)


@pytest.mark.parametrize("outside", [False, True])
def test_a_count_is_written_by_a_config_or_by_the_api(outside: bool, tmp_path: Path) -> None:
    async def story() -> None:
        one = stage(tmp_path, "num_replicas: 4" if not outside else "", external_scaler_enabled=outside)
        one.serve.counts[APP, DEPLOYMENT] = 4
        one.serve.run()
        before = copy.deepcopy(one.serve.configs)
        hands = await one.process(on_ray("full"))
        one.wants = 7
        await one.run(hands, 2 * MINUTE)
        assert one.count() == 7
        way = (POST, f"/api/v1/applications/{APP}/deployments/LLM%3Aqwen-0_5b/scale") if outside else PUT
        assert set(writes(one)) == {way}
        assert (one.serve.configs == before) is outside
        one.wants = 1
        await one.run(hands, 5 * MINUTE)
        assert one.count() in (5, 6)  # by the pace
        held = hands.orders.held["big"]
        assert (held.found, held.manager) == (4, "" if outside else "serve-config")
        said = await give_back_count(one.writer(), PLACE, "sageserve-small", held)
        assert not isinstance(said, NotWritten)
        assert f"spec.replicas stays {one.count()}" in said[0]
        assert await give_back_count(one.writer(), PLACE, "sageserve-small", None) == ()

    played(story)


@pytest.mark.parametrize("rung", ["floor", "full"])
def test_a_redeployed_config_is_a_foreign_write(rung: str, tmp_path: Path) -> None:
    async def story() -> None:
        text = SCALED if rung == "floor" else "num_replicas: 4"
        one = stage(tmp_path, text)
        hands = await one.process(on_ray(rung))
        one.wants = 6
        await one.run(hands, MINUTE)
        one.serve.deploy(config(text), OTHER)
        count = len(writes(one))
        await one.run(hands, MINUTE)
        demoted = hands.hands[0].ladder.demoted
        assert demoted is not None
        assert demoted.cause is DemotionCause.FOREIGN_WRITE
        assert "serve-config wrote spec." in demoted.detail
        assert len(writes(one)) == count
        after = await one.process(on_ray(rung), "two")
        await after.round()
        assert after.hands[0].ladder.demoted == demoted  # a new process knows it, too

    played(story)


def test_a_field_of_the_config_is_not_taken_without_leave(tmp_path: Path) -> None:
    async def story() -> None:
        one = stage(tmp_path)
        hands = await one.process(on_ray(take_over=False))
        one.wants = 6
        await hands.round()
        assert writes(one) == []
        assert "spec.minReplicas belongs to serve-config" in hands.notes()[0]

    played(story)


def refused(folder: Path, rung: str, text: str = SCALED, **serve: object) -> str:
    """What stands in the way of a write, which is none."""
    said: list[str] = []

    async def story() -> None:
        app = serve.pop("app", {})
        one = stage(folder, text, **app)  # type: ignore[arg-type] # of the config
        for name, value in serve.items():
            setattr(one.serve, name, value)
        hands = await one.process(on_ray(rung))
        one.wants = 9
        await hands.round()
        assert writes(one) == []
        said.extend(hands.notes())

    played(story)
    return " ".join(said)


@pytest.mark.parametrize(
    ("rung", "text", "words"),
    [
        ("full", SCALED, "Ray's own autoscaler decides the replicas of"),
        ("full", "num_replicas: auto", "Ray's own autoscaler"),
        ("floor", "num_replicas: 4", "says no autoscaling_config"),
        ("bounds", "autoscaling_config: {min_replicas: 2}", "says no max_replicas"),
    ],
)
def test_beside_another_who_decides_nothing_is_written(rung: str, text: str, words: str, tmp_path: Path) -> None:
    assert words in refused(tmp_path, rung, text)


def test_where_a_config_cannot_be_given_back_whole_nothing_is_written(tmp_path: Path) -> None:
    assert "an upgrade is under way" in refused(tmp_path, "floor", capacity=50.0)
    assert "HTTP 500 Internal Server Error" in refused(tmp_path, "floor", failing=lambda _: 500)
    assert "was deployed from code" in refused(tmp_path, "floor", configs={}, imperative={APP}, counts={(APP, DEPLOYMENT): 4})

    async def story() -> None:
        one = stage(tmp_path / "half")
        hands = await one.process(on_ray())
        one.wants = 6
        one.serve.hidden = {"other"}
        await hands.round()
        assert writes(one) == []
        assert "the config of application other is not known now" in hands.notes()[0]

    (tmp_path / "half").mkdir()
    played(story)


def test_what_has_changed_between_looking_and_writing_is_left_alone(tmp_path: Path) -> None:
    async def story() -> None:
        one = stage(tmp_path)
        hands = await one.process(on_ray())
        one.wants = 6
        seen = [0]

        def quicker(method: str) -> None:
            seen[0] += method == "GET"
            if seen[0] == 3:  # the round has looked at objects and replicas; now it writes
                seen[0] += 100
                one.serve.deploy(config("autoscaling_config: {min_replicas: 3, max_replicas: 16}"), OTHER)

        one.serve.before = quicker
        await hands.round()
        assert writes(one) == []
        assert one.entry()["autoscaling_config"] == {"min_replicas": 3, "max_replicas": 16}
        one.serve.deploy(config(SCALED), OTHER, {**OTHER, "name": "new", "route_prefix": "/n"})
        await one.run(hands, MINUTE)
        assert set(one.serve.configs) == {APP, "other", "new"}  # what is new meanwhile stays

    played(story)


def test_orders_plans_and_dry_runs_are_those_of_every_target(tmp_path: Path) -> None:
    async def story() -> None:
        one = stage(tmp_path)
        dry = await one.process(on_ray(), dry_run=True)
        one.wants = 6
        await dry.round()
        assert (writes(one), one.told[-1][0]) == ([], "dry-run")
        await dry.keeper.let_go()
        hands = await one.process(on_ray(), "two")
        one.wants, until = None, WALL + one.now + 10 * MINUTE
        planned = lambda orders: structs.replace(orders, plans={"big": PlannedCount(5, until, "hash")})  # noqa: E731 # one line, once
        assert isinstance(await change_orders(one.writer(), hands._orders, planned), FleetOrders)
        await one.run(hands, MINUTE)
        assert one.entry()["autoscaling_config"]["min_replicas"] == 5  # type: ignore[index,call-overload] # a mapping
        read = await read_orders(one.writer(), hands._orders)
        assert not isinstance(read, NotWritten)
        stale = await one.writer().replace(hands._orders, {"data": {}}, "1", WriteMark("x"))
        assert isinstance(stale, NotWritten)
        assert stale.stale

    played(story)


def test_replicas_are_counted_as_pods_are(tmp_path: Path) -> None:
    async def story() -> None:
        one = stage(tmp_path)
        one.serve.counts[APP, DEPLOYMENT] = 6
        hands = await one.process(on_ray())
        await hands.round()
        assert (hands.hands[0].pods.ready, hands.hands[0].pods.coming) == (4, 2)
        assert hands.pod_trouble == ""
        found = await one.writer().read_as("/api/v1/nodes", PodList)
        assert isinstance(found, NotWritten)

    played(story)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (httpx.Response(200, text="<html>"), "is it Ray's dashboard"),
        (httpx.Response(200, json=[]), "is it Ray's dashboard"),
        (httpx.Response(200, content=b"[" * 100_000), "is it Ray's dashboard"),
        (httpx.Response(401, text=""), "HTTP 401"),
        (httpx.Response(302, headers={"location": "http://elsewhere"}), "HTTP 302"),
    ],
)
def test_another_server_is_told(answer: httpx.Response, words: str) -> None:
    async def story() -> None:
        async with ServeDashboard(RaySettings(url="http://head:8265"), httpx.MockTransport(lambda _: answer)) as dashboard:
            found = await dashboard.details()
        assert isinstance(found, NotWritten)
        assert words in found.detail

    played(story)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"name": "chat"}, "write APPLICATION/DEPLOYMENT"),
        ({"kind": "Deployment", "name": "a/B"}, "write NAMESPACE/NAME"),
        ({"kind": "Deployment", "name": "a/b"}, "is a Ray cluster, which has no Deployment"),
        ({"authority": "full", "min": 0}, "Ray Serve runs one replica at least"),
    ],
)
def test_settings_that_cannot_be_are_refused(more: dict[str, object], words: str) -> None:
    with pytest.raises((ConfigError, ValueError), match=words):
        on_ray(**more)  # type: ignore[arg-type] # by name


def test_a_damaged_file_is_told_and_time_and_locks_are_shared(tmp_path: Path) -> None:
    async def story() -> None:
        one = stage(tmp_path)
        hands = await one.process(on_ray())
        second = await one.process(on_ray(), "two")
        assert not second.keeper.elector.may_write(one.now)
        one.now += 20 * SECOND
        await second.keeper.keep()
        assert second.keeper.elector.may_write(one.now)
        (tmp_path / "ray-east.json").write_text("{")
        with pytest.raises(ConfigError, match="is damaged"):
            await hands.round()

    played(story)
