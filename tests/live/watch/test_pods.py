"""Rows of a watched fleet follow pods: those that come start, those that serve are open, those that go are closed."""

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from sageserve.base.units import MINUTE, SECOND
from sageserve.core.events import InstanceComing, InstanceDrained, InstanceLeaving, InstanceLost, InstanceReady, StartFailed
from sageserve.core.fleet import State
from sageserve.core.invariants import check_fleet
from sageserve.data.watched.pods import read_pods
from sageserve.live.authority.pods import ColdStarts, PodSeen
from sageserve.live.control.admin import FleetCollector
from sageserve.live.kubernetes.fake import FakeCluster, Stored
from sageserve.live.kubernetes.fake_api import FakeTransport, fake_config
from sageserve.live.kubernetes.objects import Json
from sageserve.live.kubernetes.reader import ClusterReader
from sageserve.live.watch.pod_rows import PodRows, names_of
from sageserve.live.watch.target_pods import TargetPods
from tests.live.watch.stage import BEGIN, POOL, Pod, WatchStage, one_pool

FULL = "0/5 nodes are available: 5 Insufficient nvidia.com/gpu. preemption: 0/5 nodes are available."
TARGETS = one_pool(
    live={
        "clusters": {"east": {"pods": True}},
        "targets": {"big": {"cluster": "east", "pool": POOL, "kind": "Deployment", "name": "serving/big", "max": 8}},
    }
)


def instant(at: int) -> str:
    return datetime.fromtimestamp((BEGIN + at) / SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def pod(
    name: str, made: int = 0, ready: int | None = None, *, stuck: str = "", gate: str = "", leaving: bool = False, uid: str = ""
) -> Stored:
    """A pod made at an instant of the stage, and ready since another."""
    conditions: list[Json] = []
    if ready is not None:
        conditions.append({"type": "Ready", "status": "True", "lastTransitionTime": instant(ready)})
    if stuck:
        conditions.append({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": stuck})
    metadata: dict[str, Json] = {"name": name, "namespace": "serving", "uid": uid or name, "labels": {"app": "big"}}
    metadata["creationTimestamp"] = instant(made)
    if leaving:
        metadata["deletionTimestamp"] = instant(made)
    spec: Json = {"schedulingGates": [{"name": gate}]} if gate else {}
    status: Json = {"phase": "Running" if ready is not None else "Pending", "conditions": conditions}
    return {"kind": "Pod", "metadata": metadata, "spec": spec, "status": status}


class Ground:
    """The API server, and a process that watches beside it."""

    def __init__(self, state: Path) -> None:
        self.cluster = FakeCluster()
        self.cluster.put(
            {
                "kind": "Deployment",
                "metadata": {"name": "big", "namespace": "serving"},
                "spec": {"selector": {"matchLabels": {"app": "big"}}},
            }
        )
        assert TARGETS.live is not None
        reader = ClusterReader(fake_config(), FakeTransport(self.cluster))
        self.pods = TargetPods("east", TARGETS.live.targets, reader, lambda: BEGIN + self.stage.at)
        self.stage = WatchStage(state, [], TARGETS, pods={"east": self.pods})

    def put(self, *found: Stored) -> None:
        for one in found:
            self.cluster.put(one)

    def end(self, name: str) -> None:
        self.cluster.delete("Pod", "serving", name)

    async def look(self, length: int = 15 * SECOND) -> None:
        """What has changed is heard, then a look."""
        for _ in range(400):
            await asyncio.sleep(0)
        self.stage.clock.at += length
        self.stage.look()

    def states(self) -> dict[str, State]:
        rows = self.stage.watch._instances.rows(POOL)  # what a test looks at
        return {name: self.stage.watch.fleet.state[row] for name, row in rows.items()}

    def events(self) -> list[type]:
        return [type(one.line.event) for one in self.stage.journal() if not one.line.decisions]


def played(state: Path, story: Callable[[Ground], Coroutine[None, None, None]]) -> Ground:
    async def inside() -> Ground:
        ground = Ground(state)
        task = asyncio.create_task(ground.pods.run())
        try:
            await story(ground)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return ground

    return asyncio.run(inside())


def test_a_pod_that_comes_is_a_row_that_starts_and_one_that_goes_is_closed(tmp_path: Path) -> None:
    async def story(ground: Ground) -> None:
        ground.put(pod("a", ready=60 * SECOND), pod("b", ready=60 * SECOND))
        ground.stage.pods = [Pod("a"), Pod("b"), Pod("c", first=13 * MINUTE)]
        await ground.look()
        assert ground.states() == {"a": State.SERVING, "b": State.SERVING}
        assert ground.stage.watch.notes() == ()
        ground.put(pod("c", made=11 * MINUTE))
        await ground.look()
        assert ground.states()["c"] is State.STARTING
        ground.put(pod("c", made=11 * MINUTE, ready=13 * MINUTE))
        await ground.look(3 * MINUTE)
        assert ground.states()["c"] is State.SERVING
        ground.put(pod("a", ready=60 * SECOND, leaving=True))
        await ground.look()
        assert ground.states()["a"] is State.DRAINING
        assert ground.stage.watch.status().endpoints[0].pools[0].draining == 1
        ground.end("a")
        ground.end("b")
        await ground.look()
        assert ground.states() == {"c": State.SERVING}
        assert ground.stage.watch.view.blind() == (), "what is gone is not unseen"

    ground = played(tmp_path, story)
    there = [InstanceComing, InstanceReady]
    mine = [one for one in ground.events() if one in {*there, InstanceLeaving, InstanceDrained, InstanceLost}]
    assert sorted(map(str, mine[:4])) == sorted(map(str, 2 * there))
    assert mine[4:] == [*there, InstanceLeaving, InstanceDrained, InstanceLost]


def test_pods_that_cannot_come_are_no_instances_and_are_said_with_the_schedulers_reason(tmp_path: Path) -> None:
    async def story(ground: Ground) -> None:
        ground.put(*(pod(f"old-{n}") for n in range(3)))
        await ground.look()
        ground.put(*(pod(f"old-{n}", ready=60 * SECOND) for n in range(3)))
        ground.stage.pods = [Pod(f"old-{n}") for n in range(3)]
        ground.put(pod("x", made=9 * MINUTE, stuck=FULL), pod("y", made=9 * MINUTE, gate="kueue.x-k8s.io/admission"))
        ground.put(pod("z", made=9 * MINUTE + 30 * SECOND))
        await ground.look()
        assert set(ground.states()) == {"old-0", "old-1", "old-2", "z"}
        await ground.look(3 * MINUTE)  # z takes more than twice the minute that the others took
        assert "z" not in ground.states()
        watch = ground.stage.watch
        pods = watch.status().endpoints[0].pools[0].pods
        assert pods is not None
        assert (pods.ready, pods.coming, pods.late, pods.unschedulable, pods.gated) == (3, 1, 1, 1, 1)
        assert (pods.start_s_p50, watch.fleet.took) == (60.0, {0: 60 * SECOND})
        said = "unschedulable: 0/5 nodes are available: 5 Insufficient nvidia.com/gpu"
        assert watch.notes() == (
            f"{POOL} has 2 pods that cannot come, 1 of them held back by a quota ({said}): they are no instances.",
            f"{POOL} has 1 pods that have been starting for more than twice what it takes (1m): nobody counts on them.",
        )
        registry = CollectorRegistry()
        registry.register(FleetCollector(watch.status, dict))
        text = generate_latest(registry).decode()
        assert f'sageserve_pods{{pool="{POOL}",state="unschedulable"}} 1.0' in text
        assert f'sageserve_cold_start_seconds{{pool="{POOL}",quantile="0.5"}} 60.0' in text
        assert sorted(one.metadata.name for one in watch.pods_in("east", "serving") or ()) == [
            "old-0",
            "old-1",
            "old-2",
            "x",
            "y",
            "z",
        ]
        assert watch.pods_in("east", "elsewhere") is None
        assert watch.pods_in("west", "serving") is None
        counts = read_pods(tmp_path)
        assert counts is not None
        assert counts.pools[POOL].sentence() == (
            f"its pods: 3 ready, 1 coming, 1 late, 1 unschedulable, 1 held back by a quota ({said})"
        )
        ground.put(pod("x", made=9 * MINUTE, ready=14 * MINUTE))  # a node came
        await ground.look()
        assert ground.states()["x"] is State.SERVING

    ground = played(tmp_path, story)
    assert StartFailed in ground.events(), "z was counted on, and is not any more"


def test_while_the_api_server_is_away_or_forbids_everything_stays(tmp_path: Path) -> None:
    async def story(ground: Ground) -> None:
        ground.cluster.failing = lambda _, path: 503 if "pods" in path else 0
        ground.stage.pods = [Pod("a")]
        await ground.look()
        assert ground.states() == {}
        assert ground.stage.watch.view.blind() == (0,), "not known is not empty"
        assert "pods of serving in east are not followed, no instance is known by its pod yet: HTTP 503." in (
            ground.stage.watch.notes()
        )
        assert ground.stage.watch.pods_in("east", "serving") is None, "who acts lists them"

    played(tmp_path, story)


def test_names_in_series_are_found_by_name_or_address() -> None:
    one = msgspec.convert(pod("a") | {"status": {"podIP": "10.0.0.7"}}, PodSeen)
    other = msgspec.convert(pod("b") | {"status": {"podIP": "fd00::1"}}, PodSeen)
    recorded = ["serving/a/10.9.9.9:8000", "10.0.0.7:8000", "[fd00::1]:8000", "c", "10.0.0.70:8000"]
    assert names_of([one, other], recorded) == {recorded[0]: "a", recorded[1]: "a", recorded[2]: "b"}


def test_engines_that_are_no_pods_make_a_pool_unseen_and_it_is_said(tmp_path: Path) -> None:
    async def story(ground: Ground) -> None:
        ground.put(pod("a", ready=60 * SECOND))
        ground.stage.pods = [Pod("gpu-node-7")]
        await ground.look()
        assert ground.stage.watch.view.blind() == (0,)
        assert "engines are recorded as gpu-node-7, which are no pods of it" in ground.stage.watch.notes()[0]

    played(tmp_path, story)


KINDS = ("gone", "pending", "ready", "stuck", "gated", "leaving", "other")
ROUNDS = st.lists(st.lists(st.sampled_from(KINDS), min_size=4, max_size=4), min_size=1, max_size=8)


def test_whatever_pods_do_rows_are_those_that_serve_come_or_leave(tmp_path: Path) -> None:
    """Against the obvious: a row for each pod that is Ready, on its way, or about to go after it had served."""
    stage = WatchStage(tmp_path, [], one_pool())
    watch, pool = stage.watch, stage.watch.layout.pools[0]
    fleet, instances = watch.fleet, watch._instances  # what a test looks at
    rows = PodRows(fleet, instances)
    lives = itertools.count()

    def seen(name: str, kind: str, uid: str) -> PodSeen:
        ready = SECOND if kind in {"ready", "other", "leaving"} else None
        stuck, gate = "full" * (kind == "stuck"), "kueue" * (kind == "gated")
        return msgspec.convert(pod(name, ready=ready, stuck=stuck, gate=gate, leaving=kind == "leaving", uid=uid), PodSeen)

    def turn(pods: list[PodSeen]) -> dict[str, State]:
        for _ in range(2):  # what one event frees, the next round gives away
            for event in rows.update(pool, pods, ColdStarts(), BEGIN):
                watch.loop.hear(event)
            stage.clock.at += SECOND
            watch.loop.step(stage.clock.at)
            check_fleet(fleet, stage.clock.at)
        return {name: fleet.state[row] for name, row in instances.rows(POOL).items()}

    @settings(max_examples=30)
    @given(ROUNDS)
    def law(rounds: list[list[str]]) -> None:
        assert turn([]) == {}
        uids: dict[str, str] = {}
        ending: set[str] = set()  # nothing takes back that a pod was told to end: whoever has its name later is another one
        served: set[str] = set()
        for given_ in rounds:
            kinds = {f"p{n}": kind for n, kind in enumerate(given_) if kind != "gone"}
            another = {name for name in ending if kinds.get(name) != "leaving"}
            uids = {name: uid for name, uid in uids.items() if kinds.get(name, "other") != "other" and name not in another}
            for name in kinds:
                if name not in uids:
                    uids[name] = str(next(lives))
                    served.discard(name)
            pods = [seen(name, kind, uids[name]) for name, kind in kinds.items()]
            ending = {name for name, kind in kinds.items() if kind == "leaving"}
            found = turn(pods)
            expected = {name: State.SERVING for name, kind in kinds.items() if kind in {"ready", "other"}}
            expected |= {name: State.STARTING for name, kind in kinds.items() if kind == "pending"}
            expected |= {name: State.DRAINING for name, kind in kinds.items() if kind == "leaving" and name in served}
            assert found == expected
            served = {name for name, state in found.items() if state in {State.SERVING, State.DRAINING}}

    law()
