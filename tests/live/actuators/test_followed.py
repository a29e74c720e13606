"""Engines of a Service, followed on the fake API server: opened when ready, left alone when they end, kept while nobody tells."""

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sageserve.base.config import Scenario, ServiceSettings
from sageserve.base.errors import ConfigError, LawBroken
from sageserve.core.actions import Release, Source, Start
from sageserve.core.events import InstanceComing, InstanceLeaving, InstanceLost, InstanceReady
from sageserve.core.strategies import layout_of
from sageserve.live.actuators.base import Adopted, Heard
from sageserve.live.actuators.followed import FILE, FollowedActuator, FollowedService, pool_of_service
from sageserve.live.kubernetes.endpoints import ServiceEngines
from sageserve.live.kubernetes.fake import FakeCluster, Stored
from sageserve.live.kubernetes.fake_api import FakeTransport, fake_config
from sageserve.live.kubernetes.follower import FollowTimes
from sageserve.live.kubernetes.objects import Json
from sageserve.live.kubernetes.reader import ClusterReader
from tests.core.small import scenario

SERVICE: Mapping[str, object] = {"cluster": "here", "region": "east", "model": "big", "service": "serving/llama", "port": "http"}
NOW = FollowTimes(first=0.0, most=0.0)


def fleet(*services: Mapping[str, object], **live: object) -> Scenario:
    """The small scenario in front of services."""
    listed = [dict(one) for one in services or (SERVICE,)]
    given_ = {"clusters": {"here": {}}, "actuator": "kubernetes", "services": listed, **live}
    return scenario(gpus=80, live=given_)


def piece(name: str, states: Mapping[str, str], port: int = 8000, service: str = "llama") -> Stored:
    """An EndpointSlice; states by address: ready, unready or ending."""
    conditions: Mapping[str, Json] = {
        "ready": {"ready": True, "serving": True, "terminating": False},
        "unready": {"ready": False, "serving": False, "terminating": False},
        "ending": {"ready": False, "serving": True, "terminating": True},
        "untold": {},
    }
    metadata: Json = {"name": name, "namespace": "serving", "labels": {"kubernetes.io/service-name": service}}
    listed: Json = [{"addresses": [address], "conditions": conditions[state]} for address, state in states.items()]
    ports: Json = [{"name": "metrics", "port": 9400}, {"name": "http", "port": port}]
    return {"kind": "EndpointSlice", "addressType": "IPv4", "metadata": metadata, "endpoints": listed, "ports": ports}


def reader_of(cluster: FakeCluster) -> ClusterReader:
    return ClusterReader(fake_config(), FakeTransport(cluster))


def cut_off(cluster: FakeCluster) -> None:
    """Watches that are open end with the next change: their versions are too old."""
    cluster.put({"kind": "ConfigMap", "metadata": {"name": "noise", "namespace": "serving"}})
    cluster.forget()


class Following:
    """An actuator beside a cluster, and what it was heard to say."""

    def __init__(self, cluster: FakeCluster, state: Path, settings_: Scenario | None = None, wait: float = 5.0) -> None:
        self.heard: list[Heard] = []
        self.cluster = cluster
        found = settings_ or fleet()
        assert found.live is not None
        layout = layout_of(found)
        services = [
            FollowedService(
                pool_of_service(layout, one),
                ServiceEngines(one, ClusterReader(fake_config(), FakeTransport(cluster)), NOW),
                "llm",
            )
            for one in found.live.services
        ]
        self.actuator = FollowedActuator(self.heard.append, services, state, wait)

    async def settle(self) -> list[Heard]:
        """What is heard of what has changed."""
        for _ in range(150):
            await asyncio.sleep(0)
        self.heard.clear()
        self.actuator.reconcile()
        return list(self.heard)


def played(
    state: Path,
    story: Callable[[Following, tuple[Adopted, ...]], Coroutine[None, None, None]],
    cluster: FakeCluster,
    wait: float = 5.0,
) -> None:
    async def inside() -> None:
        here = Following(cluster, state, wait=wait)
        try:
            await story(here, await here.actuator.connect())
        finally:
            await here.actuator.close()

    asyncio.run(inside())


def test_what_is_ready_is_open_what_ends_is_left_alone_and_what_is_gone_is_lost(tmp_path: Path) -> None:
    cluster = FakeCluster()
    cluster.put(piece("s1", {"10.0.0.1": "ready", "10.0.0.2": "untold", "10.0.0.3": "unready", "10.0.0.4": "ending"}))
    cluster.put(piece("other", {"10.9.9.9": "ready"}, service="other"))

    async def story(here: Following, adopted: tuple[Adopted, ...]) -> None:
        assert [(one.place.url, one.place.served_model) for one in adopted] == [
            ("http://10.0.0.1:8000", "llm"),
            ("http://10.0.0.2:8000", "llm"),
        ]
        first, second = (one.instance for one in adopted)
        cluster.put(piece("s1", {"10.0.0.1": "ending", "10.0.0.2": "ready", "10.0.0.3": "ready"}))
        leaving, coming, ready = await here.settle()
        assert leaving == InstanceLeaving(first, "http://10.0.0.1:8000 of here/serving/llama is about to end")
        assert isinstance(coming, InstanceComing)
        assert ready == InstanceReady(coming.instance)
        third = coming.instance
        assert third not in {first, second}, "its row is not given away before it is empty"
        assert here.actuator.place(third).url == "http://10.0.0.3:8000"
        assert await here.settle() == [], "said once"
        cluster.put(piece("s1", {"10.0.0.2": "unready", "10.0.0.3": "ready"}))
        assert await here.settle() == [
            InstanceLost(first, "http://10.0.0.1:8000 of here/serving/llama is gone"),
            InstanceLost(second, "http://10.0.0.2:8000 of here/serving/llama is not ready"),
        ]
        cluster.delete("EndpointSlice", "serving", "s1")
        assert await here.settle() == [InstanceLost(third, "http://10.0.0.3:8000 of here/serving/llama is gone")]

    played(tmp_path, story, cluster)


def test_the_last_ones_stay_while_all_are_there_and_none_is_ready_over_a_restart_too(tmp_path: Path) -> None:
    cluster = FakeCluster()
    cluster.put(piece("s1", {"10.0.0.1": "ready", "10.0.0.2": "ready", "10.0.0.3": "unready"}))

    async def story(here: Following, adopted: tuple[Adopted, ...]) -> None:
        cluster.put(piece("s1", {f"10.0.0.{n}": "unready" for n in (1, 2, 3)}))
        assert await here.settle() == []
        (said,) = here.actuator.failing()
        assert said == "no engine of here/serving/llama is ready: 2 that were are used on, as none would be left."

    played(tmp_path, story, cluster)
    cluster = FakeCluster()  # as it is for another process
    cluster.put(piece("s1", {f"10.0.0.{n}": "unready" for n in (1, 2, 3)}))

    async def later(here: Following, adopted: tuple[Adopted, ...]) -> None:
        assert [one.place.url for one in adopted] == ["http://10.0.0.1:8000", "http://10.0.0.2:8000"]
        first, second = (one.instance for one in adopted)
        cluster.put(piece("s1", {"10.0.0.1": "unready", "10.0.0.2": "ready"}))
        assert await here.settle() == [InstanceLost(first, "http://10.0.0.1:8000 of here/serving/llama is not ready")]
        assert here.actuator.failing() == ()
        cluster.put(piece("s1", {}))
        assert await here.settle() == [InstanceLost(second, "http://10.0.0.2:8000 of here/serving/llama is gone")]

    played(tmp_path, later, cluster)


def test_an_engine_that_has_drained_gives_its_row_back(tmp_path: Path) -> None:
    cluster = FakeCluster()
    cluster.put(piece("s1", {"10.0.0.1": "ready"}))

    async def story(here: Following, adopted: tuple[Adopted, ...]) -> None:
        row = adopted[0].instance
        cluster.put(piece("s1", {"10.0.0.1": "ending"}))
        await here.settle()
        here.actuator.perform(0, Release(row))
        assert await here.settle() == []
        cluster.put(piece("s1", {"10.0.0.1": "ready"}))  # another pod has its address
        assert await here.settle() == [InstanceComing(row), InstanceReady(row)]
        with pytest.raises(LawBroken, match="someone else runs"):
            here.actuator.perform(0, Start(row, Source.VM, (0,)))

    played(tmp_path, story, cluster)


def test_an_address_that_another_engine_has_while_the_first_still_drains_is_open_at_once(tmp_path: Path) -> None:
    cluster = FakeCluster()
    cluster.put(piece("s1", {"10.0.0.1": "ready"}))

    async def story(here: Following, adopted: tuple[Adopted, ...]) -> None:
        row = adopted[0].instance
        cluster.put(piece("s1", {"10.0.0.1": "ending"}))
        assert [type(one) for one in await here.settle()] == [InstanceLeaving]
        cluster.put(piece("s1", {"10.0.0.1": "ready"}))
        lost, coming, ready = await here.settle()
        why = "http://10.0.0.1:8000 of here/serving/llama has ended, and another engine has its address"
        assert lost == InstanceLost(row, why)
        assert (coming, ready) == (InstanceComing(row), InstanceReady(row))
        cluster.put(piece("s1", {"10.0.0.1": "ending"}))
        assert [type(one) for one in await here.settle()] == [InstanceLeaving]

    played(tmp_path, story, cluster)


def both(kind: str, endpoints: Mapping[str, tuple[str, str]]) -> Stored:
    """A slice of addresses of a type: state and pod of each; no pod: a person wrote it."""
    made = piece(kind, {address: state for address, (state, _) in endpoints.items()})
    listed = made["endpoints"]
    assert isinstance(listed, list)
    refs: list[Json] = [{"kind": "Pod", "name": name, "uid": f"uid-{name}"} if name else None for _, name in endpoints.values()]
    told: Json = [{**one, "targetRef": ref} for one, ref in zip(listed, refs, strict=True) if isinstance(one, dict)]
    return made | {"addressType": kind, "endpoints": told}


@pytest.mark.parametrize("named", [True, False])
def test_a_pod_with_addresses_of_two_types_is_one_engine(tmp_path: Path, *, named: bool) -> None:
    cluster = FakeCluster()
    a, b, c = ("a", "b", "c") if named else ("", "", "")
    cluster.put(both("IPv6", {"fd00::1": ("ready", a), "fd00::2": ("ready", b)} | ({"fd00::3": ("ready", c)} if named else {})))
    cluster.put(both("IPv4", {"10.0.0.1": ("ready", a), "10.0.0.2": ("ready", b)}))

    async def story(here: Following, adopted: tuple[Adopted, ...]) -> None:
        only = {"http://[fd00::3]:8000"} if named else set()  # a pod of an older network
        assert {one.place.url for one in adopted} == {"http://10.0.0.1:8000", "http://10.0.0.2:8000"} | only
        cluster.delete("EndpointSlice", "serving", "IPv4")
        await here.settle()
        assert {here.actuator.place(row).url for row in here.actuator._rows["here/serving/llama"].values()} == {
            "http://[fd00::1]:8000",
            "http://[fd00::2]:8000",
        } | only, "what there is is used"

    played(tmp_path, story, cluster)


def test_while_the_api_server_is_away_engines_stay_over_a_restart_too_and_keep_their_rows(tmp_path: Path) -> None:
    cluster = FakeCluster()
    cluster.put(piece("s1", {"10.0.0.1": "ready", "10.0.0.2": "ready", "10.0.0.3": "ready"}))
    rows: dict[str, int] = {}

    async def before(here: Following, adopted: tuple[Adopted, ...]) -> None:
        cluster.put(piece("s1", {"10.0.0.2": "ready", "10.0.0.3": "ready"}))
        await here.settle()
        cluster.failing = lambda *_: 503
        cut_off(cluster)
        cluster.put(piece("s2", {}))
        assert await here.settle() == []
        assert here.actuator.failing() == ("here/serving/llama is not followed, engines known last stay: HTTP 503.",)
        rows.update({one.place.url: one.instance for one in adopted if one.place.url != "http://10.0.0.1:8000"})

    async def after(here: Following, adopted: tuple[Adopted, ...]) -> None:
        assert {one.place.url: one.instance for one in adopted} == rows
        assert await here.settle() == []
        cluster.put(piece("s1", {"10.0.0.3": "ready", "10.0.0.4": "ready"}))
        cluster.failing = lambda *_: 0
        lost, coming, ready = await here.settle()
        assert isinstance(lost, InstanceLost)
        assert lost.instance == rows["http://10.0.0.2:8000"]
        assert (type(coming), type(ready)) == (InstanceComing, InstanceReady)
        assert here.actuator.failing() == ()

    played(tmp_path, before, cluster)
    played(tmp_path, after, cluster, wait=0.05)
    (tmp_path / FILE).write_bytes(b"\x00")
    with_none = FakeCluster(forbidden={"EndpointSlice"})

    async def forbidden(here: Following, adopted: tuple[Adopted, ...]) -> None:
        assert adopted == (), "a file that cannot be read is no reason not to begin"
        assert "HTTP 403" in here.actuator.failing()[0]

    played(tmp_path, forbidden, with_none, wait=0.05)


def test_pods_by_labels_are_engines_and_too_many_have_no_place(tmp_path: Path) -> None:
    cluster = FakeCluster()
    pods = {"cluster": "here", "region": "east", "model": "big", "pods": {"app": "llama"}, "namespace": "serving", "port": "8000"}

    def pod(name: str, address: str, *, ready: bool = True, ending: bool = False) -> Stored:
        metadata: dict[str, Json] = {"name": name, "namespace": "serving", "labels": {"app": "llama"}}
        metadata |= {"deletionTimestamp": "2026-11-18T00:00:00Z"} if ending else {}
        conditions: Json = [{"type": "Ready", "status": "True" if ready else "False"}]
        return {"kind": "Pod", "metadata": metadata, "spec": {}, "status": {"podIP": address, "conditions": conditions}}

    for number in range(12):
        cluster.put(pod(f"p{number}", f"10.0.0.{number}"))
    cluster.put(pod("young", "10.0.1.1", ready=False))
    cluster.put(pod("old", "fd00::1", ending=True))

    async def inside() -> None:
        here = Following(cluster, tmp_path, fleet(pods))
        adopted = await here.actuator.connect()
        rows = layout_of(fleet(pods)).pools[0]
        assert len(adopted) == rows.end - rows.begin < 12
        assert {one.place.url for one in adopted} <= {f"http://10.0.0.{number}:8000" for number in range(12)}
        await here.settle()
        assert f"{12 - len(adopted)} engines of here/serving/app=llama have no place" in here.actuator.failing()[0]
        await here.actuator.close()

    asyncio.run(inside())


STATES = st.sampled_from(["ready", "unready", "ending", "gone"])
FLEETS = st.lists(st.tuples(st.lists(STATES, min_size=3, max_size=3), st.booleans(), st.booleans()), min_size=1, max_size=8)


def test_whatever_endpoints_do_what_is_open_is_what_is_ready(tmp_path: Path) -> None:
    """Against the obvious, over versions that are too old and servers that are away: what was true last is open."""
    folders = itertools.count()

    @settings(max_examples=12)
    @given(FLEETS)
    def law(rounds: list[tuple[list[str], bool, bool]]) -> None:
        cluster = FakeCluster()

        async def inside() -> None:
            folder = tmp_path / str(next(folders))
            folder.mkdir()
            here = Following(cluster, folder)
            cluster.put(piece("s1", {}))
            opened = {one.instance for one in await here.actuator.connect()}
            expected: set[str] = set()
            for states, away, forgets in rounds:
                cluster.failing = lambda *_, away=away: 503 if away else 0
                if away or forgets:
                    cut_off(cluster)
                cluster.put(piece("s1", {f"10.0.0.{n}": state for n, state in enumerate(states) if state != "gone"}))
                for event in await here.settle():
                    match event:
                        case InstanceReady(instance=row):
                            assert row not in opened
                            opened.add(row)
                        case InstanceLeaving(instance=row) | InstanceLost(instance=row):
                            opened.discard(row)
                        case _:
                            pass
                if not away:
                    ready, unready = (
                        {f"http://10.0.0.{n}:8000" for n, state in enumerate(states) if state == wanted}
                        for wanted in ("ready", "unready")
                    )
                    expected = ready or expected & unready  # none at all is worse than one that says that it is not ready
                still = {here.actuator.place(row).url for row in opened}
                assert still == expected or away
            await here.actuator.close()

        asyncio.run(inside())

    law()


@pytest.mark.parametrize(
    ("service", "said"),
    [
        ({"model": "bog"}, "model 'bog' is not defined"),
        ({"cluster": "there"}, "cluster 'there' is not defined"),
        ({"service": ""}, "give one of service"),
        ({"service": "llama"}, "write NAMESPACE/NAME"),
        ({"pods": {"a": "b"}}, "give one of service"),
        ({"access": "x"}, "live.access has no 'x'"),
    ],
)
def test_services_that_cannot_be_followed_are_refused_when_settings_are_read(service: Mapping[str, object], said: str) -> None:
    with pytest.raises((ConfigError, ValueError), match=said):
        fleet({**SERVICE, **service})


def test_settings_name_services_by_what_they_are() -> None:
    one = ServiceSettings.model_validate({**SERVICE})
    assert (one.name, one.space, one.number) == ("here/serving/llama", "serving", None)
    with pytest.raises(ValueError, match="belong together"):
        fleet(actuator="fixed")
