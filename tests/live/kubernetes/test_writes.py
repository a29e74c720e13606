"""Writes to an API server: the contract that the fake keeps, tried on a real one where `KUBE_API` names it (`kubectl proxy`).

    KUBE_API=http://127.0.0.1:8001 KUBE_NAMESPACE=scratch pytest tests/live/kubernetes/test_writes.py

Everything is made in that namespace and taken away again. Where the fake differs from a real server, the fake is wrong.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping

import pytest

from sageserve.live.kubernetes.fake import FakeCluster
from sageserve.live.kubernetes.fake_api import FakeTransport, fake_config
from sageserve.live.kubernetes.objects import Json, KubeObject
from sageserve.live.kubernetes.reader import NotRead, Right
from sageserve.live.kubernetes.writer import ClusterWriter, NotWritten, ObjectPlace, WriteMark

KUBE_API = os.environ.get("KUBE_API", "")  # noqa: TID251 # a real server is named by whoever has one
SPACE = os.environ.get("KUBE_NAMESPACE", "default")  # noqa: TID251 # as above
OURS, USER = WriteMark("sageserve-contract"), WriteMark("kubectl-create")
HPA = ObjectPlace("HorizontalPodAutoscaler", SPACE, "sageserve-contract")
SCALED = ObjectPlace("ScaledObject", SPACE, "sageserve-contract")
WORKLOAD = ObjectPlace("Deployment", SPACE, "sageserve-contract")
LEASE = ObjectPlace("Lease", SPACE, "sageserve-contract")
NOTES = ObjectPlace("ConfigMap", SPACE, "sageserve-contract")
on_the_fake = pytest.mark.skipif(bool(KUBE_API), reason="only a server of ours can be told to")


def tried(work: Callable[[ClusterWriter], Awaitable[None]], cluster: FakeCluster | None = None) -> None:
    async def inside() -> None:
        transport = None if KUBE_API else FakeTransport(cluster or FakeCluster())
        async with ClusterWriter(fake_config(KUBE_API or "http://fake"), transport) as writer:
            try:
                await work(writer)
            finally:
                for place in (HPA, SCALED, WORKLOAD, LEASE, NOTES):
                    await writer.delete(place, OURS)

    asyncio.run(inside())


def written(found: KubeObject | NotWritten) -> KubeObject:
    assert isinstance(found, KubeObject), found
    return found


def refused(found: KubeObject | NotWritten, status: int) -> NotWritten:
    assert isinstance(found, NotWritten), found.data
    assert found.status == status, found
    return found


def hpa(low: int = 2, high: int = 10) -> Mapping[str, Json]:
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": WORKLOAD.name}
    return {"spec": {"scaleTargetRef": reference, "minReplicas": low, "maxReplicas": high}}


def minimum(count: int | None, version: str = "") -> Mapping[str, Json]:
    metadata: Json = {"resourceVersion": version} if version else {}
    return {"metadata": metadata, "spec": {} if count is None else {"minReplicas": count}}


async def present(writer: ClusterWriter, place: ObjectPlace) -> KubeObject:
    found = await writer.get(place.kind, place.name, place.namespace)
    assert isinstance(found, KubeObject), found
    return found


def managers(found: KubeObject, *path: str) -> list[str]:
    keys = [f"f:{part}" for part in path]
    return [one.text("manager") for one in found.parts("metadata", "managedFields") if one.at("fieldsV1", *keys) is not None]


def test_a_field_of_another_manager_is_refused_by_name_and_taken_by_force() -> None:
    async def work(writer: ClusterWriter) -> None:
        written(await writer.create(HPA, hpa(), USER))
        found = refused(await writer.apply(HPA, minimum(5), OURS), 409)
        [conflict] = found.conflicts
        assert (conflict.field, conflict.manager, found.reason, found.stale) == (
            ".spec.minReplicas",
            "kubectl-create",
            "Conflict",
            False,
        )
        assert (await present(writer, HPA)).number("spec", "minReplicas") == 2
        taken = written(await writer.apply(HPA, minimum(5), OURS, force=True))
        assert managers(taken, "spec", "minReplicas") == [OURS.manager]
        assert managers(taken, "spec", "maxReplicas") == [USER.manager]
        written(await writer.apply(HPA, minimum(6), OURS))  # from then on without

    tried(work)


def test_the_same_value_is_shared_and_no_conflict() -> None:
    async def work(writer: ClusterWriter) -> None:
        written(await writer.create(HPA, hpa(), USER))
        shared = written(await writer.apply(HPA, minimum(2), OURS))
        assert sorted(managers(shared, "spec", "minReplicas")) == sorted([USER.manager, OURS.manager])

    tried(work)


def test_a_user_takes_a_field_back_without_a_conflict_and_the_next_apply_hears_of_it() -> None:
    async def work(writer: ClusterWriter) -> None:
        written(await writer.create(HPA, hpa(), USER))
        written(await writer.apply(HPA, minimum(5), OURS, force=True))
        back = written(await writer.merge(HPA, minimum(3), WriteMark("kubectl-client-side-apply")))
        assert managers(back, "spec", "minReplicas") == ["kubectl-client-side-apply"]
        found = refused(await writer.apply(HPA, minimum(6), OURS), 409)
        assert [one.manager for one in found.conflicts] == ["kubectl-client-side-apply"]

    tried(work)


def test_a_field_that_is_left_out_goes_unless_another_has_it_too() -> None:
    async def work(writer: ClusterWriter) -> None:
        written(await writer.create(HPA, hpa(), USER))
        written(await writer.apply(HPA, minimum(5), OURS, force=True))
        alone = written(await writer.apply(HPA, minimum(None), OURS))
        assert alone.number("spec", "minReplicas") == 1  # an HPA falls to its default
        written(await writer.apply(HPA, minimum(5), OURS))
        written(await writer.merge(HPA, minimum(2), USER))  # its manager writes what was there, then we leave it out
        given_back = written(await writer.apply(HPA, minimum(None), OURS))
        assert given_back.number("spec", "minReplicas") == 2
        assert managers(given_back, "spec", "minReplicas") == [USER.manager]

    tried(work)


def test_an_old_version_is_refused_and_is_no_conflict_of_fields() -> None:
    async def work(writer: ClusterWriter) -> None:
        old = written(await writer.create(HPA, hpa(), USER)).text("metadata", "resourceVersion")
        written(await writer.merge(HPA, {"metadata": {"annotations": {"a": "b"}}}, USER))
        for force in (False, True):
            found = refused(await writer.apply(HPA, minimum(5, old), OURS, force=force), 409)
            assert (found.stale, found.conflicts) == (True, ())
        new = (await present(writer, HPA)).text("metadata", "resourceVersion")
        written(await writer.apply(HPA, minimum(5, new), OURS, force=True))
        gone = ObjectPlace(HPA.kind, SPACE, "sageserve-gone")
        body = {"metadata": {"uid": "7e3b0b0e-0000-0000-0000-000000000000"}, "spec": hpa()["spec"]}
        refused(await writer.apply(gone, body, OURS), 409)  # nothing is made anew

    tried(work)


def test_a_dry_run_is_answered_and_leaves_nothing() -> None:
    async def work(writer: ClusterWriter) -> None:
        before = written(await writer.create(HPA, hpa(), USER))
        dry = WriteMark(OURS.manager, dry_run=True)
        answer = written(await writer.apply(HPA, minimum(5), dry, force=True))
        assert answer.number("spec", "minReplicas") == 5
        refused(await writer.apply(HPA, minimum(11), dry, force=True), 422)
        after = await present(writer, HPA)
        assert after.text("metadata", "resourceVersion") == before.text("metadata", "resourceVersion")
        assert managers(after, "spec", "minReplicas") == [USER.manager]

    tried(work)


def test_an_apply_of_what_is_there_changes_no_version() -> None:
    async def work(writer: ClusterWriter) -> None:
        written(await writer.create(HPA, hpa(), USER))
        first = written(await writer.apply(HPA, minimum(5), OURS, force=True))
        again = written(await writer.apply(HPA, minimum(5), OURS))
        assert again.text("metadata", "resourceVersion") == first.text("metadata", "resourceVersion")

    tried(work)


def test_a_minimum_above_the_maximum_is_refused() -> None:
    async def work(writer: ClusterWriter) -> None:
        written(await writer.create(HPA, hpa(), USER))
        assert "maxReplicas" in refused(await writer.apply(HPA, minimum(11), OURS, force=True), 422).detail
        if isinstance(await writer.list("ScaledObject", SPACE), NotRead):
            pytest.skip("KEDA is not installed there")
        window: Json = {"timezone": "UTC", "start": "0 1 * * *", "end": "0 2 * * *", "desiredReplicas": "1"}
        triggers: Json = [{"type": "cron", "metadata": window}]
        spec: Json = {"scaleTargetRef": {"name": WORKLOAD.name}, "minReplicaCount": 1, "maxReplicaCount": 4, "triggers": triggers}
        written(await writer.create(SCALED, {"spec": spec}, USER))
        refused(await writer.apply(SCALED, {"spec": {"minReplicaCount": 5}}, OURS, force=True), 422)
        kept = written(await writer.apply(SCALED, {"spec": {"minReplicaCount": 4}}, OURS, force=True))
        assert kept.number("spec", "minReplicaCount") == 4
        bare = written(await writer.apply(SCALED, {"spec": {}}, OURS))
        assert bare.at("spec", "minReplicaCount") is None  # and KEDA takes that for 0

    tried(work)


def workload(count: int) -> Mapping[str, Json]:
    labels: Json = {"app": WORKLOAD.name}
    container: Json = {"name": "pause", "image": "registry.k8s.io/pause:3.10"}
    template: Json = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    return {"spec": {"replicas": count, "selector": {"matchLabels": labels}, "template": template}}


def test_replicas_are_written_through_scale_and_not_with_an_old_version() -> None:
    async def work(writer: ClusterWriter) -> None:
        written(await writer.create(WORKLOAD, workload(0), USER))
        scale = written(await writer.read_scale(WORKLOAD))
        assert (scale.number("spec", "replicas"), scale.text("status", "selector")) == (0, f"app={WORKLOAD.name}")
        old = scale.text("metadata", "resourceVersion")
        done: KubeObject | NotWritten = scale
        for _ in range(5):  # a controller may write its status meanwhile
            version = written(await writer.read_scale(WORKLOAD)).text("metadata", "resourceVersion")
            done = await writer.scale(WORKLOAD, 1, version, OURS)
            if isinstance(done, KubeObject):
                break
        assert written(done).number("spec", "replicas") == 1
        assert refused(await writer.scale(WORKLOAD, 2, old, OURS), 409).stale
        found = await present(writer, WORKLOAD)
        assert found.number("spec", "replicas") == 1
        assert OURS.manager in managers(found, "spec", "replicas")
        refused(await writer.read_scale(HPA), 404)

    tried(work)


def test_a_status_is_written_alone_and_not_by_a_write_of_the_object() -> None:
    async def work(writer: ClusterWriter) -> None:
        written(await writer.create(HPA, hpa(), USER))
        status: Mapping[str, Json] = {"status": {"currentReplicas": 3, "desiredReplicas": 4}, "spec": {"minReplicas": 7}}
        found = written(await writer.merge(HPA, status, USER, "status"))
        assert (found.number("status", "desiredReplicas"), found.number("spec", "minReplicas")) == (4, 2)
        found = written(await writer.merge(HPA, {"status": {"desiredReplicas": 9}}, USER))
        assert found.number("status", "desiredReplicas") == 4

    tried(work)


def test_a_lease_belongs_to_whoever_writes_first() -> None:
    def lease(who: str, epoch: int) -> Mapping[str, Json]:
        times: Json = {"holderIdentity": who, "leaseDurationSeconds": 15, "leaseTransitions": epoch}
        return {"spec": times}

    async def work(writer: ClusterWriter) -> None:
        made = written(await writer.create(LEASE, lease("first", 1), OURS))
        assert refused(await writer.create(LEASE, lease("second", 1), OURS), 409).reason == "AlreadyExists"
        version = made.text("metadata", "resourceVersion")
        taken = written(await writer.replace(LEASE, lease("second", 2), version, OURS))
        assert taken.number("spec", "leaseTransitions") == 2
        assert refused(await writer.replace(LEASE, lease("first", 1), version, OURS), 409).stale
        refused(await writer.replace(LEASE, lease("first", 1), "", OURS), 422)

    tried(work)


def test_what_is_not_there_is_404_and_a_server_that_is_away_is_a_sentence() -> None:
    async def work(writer: ClusterWriter) -> None:
        refused(await writer.merge(NOTES, {"data": {"a": "b"}}, OURS), 404)
        refused(await writer.delete(NOTES, OURS), 404)

    async def away() -> None:
        async with ClusterWriter(fake_config("http://127.0.0.1:1")) as writer:
            assert refused(await writer.merge(NOTES, {}, OURS), 0).detail

    tried(work)
    asyncio.run(away())


@on_the_fake
def test_rights_and_faults_of_the_server() -> None:
    cluster = FakeCluster(allowed=lambda right: right != Right("patch", "apps", "deployments/scale", SPACE))

    async def work(writer: ClusterWriter) -> None:
        written(await writer.create(WORKLOAD, workload(1), USER))
        refused(await writer.scale(WORKLOAD, 1, "", OURS), 403)
        written(await writer.merge(WORKLOAD, {"metadata": {"labels": {"a": "b"}}}, OURS))
        cluster.failing = lambda method, path: 500 if method == "PATCH" and path.endswith(WORKLOAD.name) else 0
        refused(await writer.merge(WORKLOAD, {}, OURS), 500)
        cluster.failing = lambda *_: 0

    tried(work, cluster)
