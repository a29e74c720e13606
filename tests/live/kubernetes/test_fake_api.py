"""The fake API server through lightkube: get, lists with selectors and pages, watches, reviews, and how errors look."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import httpx2
import pytest
from lightkube import AsyncClient
from lightkube.core.exceptions import ApiError
from lightkube.resources.core_v1 import Pod

from sageserve.live.kubernetes.fake import FakeCluster, Stored
from sageserve.live.kubernetes.fake_api import FakeTransport, fake_config
from sageserve.live.kubernetes.objects import KubeObject, selects
from sageserve.live.kubernetes.reader import ClusterReader, NotRead, Right

CONFIG = fake_config()


def pod(name: str, namespace: str = "serving", phase: str = "Running", **labels: str) -> Stored:
    return {"kind": "Pod", "metadata": {"name": name, "namespace": namespace, "labels": dict(labels)}, "status": {"phase": phase}}


def cluster() -> FakeCluster:
    made = FakeCluster()
    for name, app in (("a", "llama"), ("b", "llama"), ("c", "other")):
        made.put(pod(name, app=app, tier=name))
    made.put(pod("d", "elsewhere", "Pending", app="llama"))
    return made


def run(work: Callable[[AsyncClient], Awaitable[object]], held: FakeCluster | None = None) -> object:
    async def inside() -> object:
        client = AsyncClient(config=CONFIG, transport=FakeTransport(held or cluster()), trust_env=False)
        try:
            return await work(client)
        finally:
            await client.close()

    return asyncio.run(inside())


def names(
    namespace: str = "serving", labels: Mapping[str, Any] | None = None, phase: str = "", pages: int | None = None
) -> object:
    async def work(client: AsyncClient) -> object:
        fields: dict[str, Any] | None = {"status.phase": phase} if phase else None
        found = client.list(Pod, namespace=namespace, labels=dict(labels) if labels else None, fields=fields, chunk_size=pages)
        return [one.metadata.name async for one in found if one.metadata is not None]

    return run(work)


def test_an_object_is_read_and_a_missing_one_is_404() -> None:
    async def work(client: AsyncClient) -> object:
        with pytest.raises(ApiError) as caught:
            await client.get(Pod, name="z", namespace="serving")
        assert caught.value.status.code == 404
        found = await client.get(Pod, name="a", namespace="serving")
        return found.metadata and found.metadata.name

    assert run(work) == "a"


def test_lists_select_by_labels_and_fields_and_come_in_pages() -> None:
    assert names() == ["a", "b", "c"]
    assert names(labels={"app": "llama"}) == ["a", "b"]
    assert names("*", {"app": "llama"}) == ["d", "a", "b"]
    assert names(labels={"tier": ("a", "c")}) == ["a", "c"]
    assert names("*", phase="Pending") == ["d"]
    assert names(pages=1) == ["a", "b", "c"]


def test_a_watch_tells_changes_in_order_and_ends_in_time() -> None:
    held = cluster()

    async def work(client: AsyncClient) -> object:
        seen: list[tuple[str, str]] = []

        async def watch() -> None:
            version = str(held.resource_version)
            found = client.watch(Pod, namespace="serving", labels={"app": "llama"}, server_timeout=1, resource_version=version)
            async for what, one in found:
                assert one.metadata is not None
                seen.append((what, str(one.metadata.name)))
                if len(seen) == 3:
                    return

        task = asyncio.create_task(watch())
        await asyncio.sleep(0.02)
        held.put(pod("e", app="llama"))
        held.put(pod("f", app="other"))
        held.change("Pod", "serving", "a", lambda data: data["metadata"].update({"annotations": {}}))  # type: ignore[union-attr] # JSON
        await asyncio.sleep(0.02)
        held.delete("Pod", "serving", "b")
        await asyncio.wait_for(task, 5)
        return seen

    assert run(work, held) == [("ADDED", "e"), ("MODIFIED", "a"), ("DELETED", "b")]


def test_bookmarks_move_the_version_and_forgotten_changes_are_410() -> None:
    held = cluster()

    async def work(client: AsyncClient) -> object:
        transport = FakeTransport(held)
        async with httpx2.AsyncClient(transport=transport, base_url="http://fake") as plain:
            answer = await plain.get("/api/v1/pods?watch=true&allowWatchBookmarks=true&timeoutSeconds=0.2&resourceVersion=5")
            held.forget()
            late = await plain.get("/api/v1/pods?watch=true&timeoutSeconds=1&resourceVersion=1")
        return answer.text, late.text

    told = run(work, held)
    assert isinstance(told, tuple)
    kept, late = told
    assert '"BOOKMARK"' in kept
    assert '"410"' not in kept
    assert '"code":410' in late


def test_rights_versions_and_what_is_not_installed() -> None:
    held = FakeCluster(allowed=lambda right: right.verb == "get", missing={"ScaledObject"}, forbidden={"Node"})

    async def work() -> None:
        async with ClusterReader(CONFIG, FakeTransport(held)) as reader:
            rights = [Right(verb, "apps", "deployments/scale", "serving") for verb in ("get", "patch")]
            assert list((await reader.all_allowed(rights)).values()) == [True, False]
            assert await reader.version() == "v1.36.2"
            missing, forbidden = await reader.list("ScaledObject"), await reader.list("Node")
            assert isinstance(missing, NotRead)
            assert isinstance(forbidden, NotRead)
            assert (missing.status, forbidden.status) == (404, 403)

    asyncio.run(work())


def test_a_server_that_is_not_there_is_a_sentence() -> None:
    async def work() -> None:
        async with ClusterReader(fake_config("http://127.0.0.1:1")) as reader:
            found = await reader.version()
            assert isinstance(found, NotRead)
            assert found.status == 0
            assert found.detail

    asyncio.run(work())


def test_selectors_of_objects() -> None:
    rules = KubeObject({"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "b", "operator": "In", "values": ["x", "y"]}]})
    assert selects(rules, {"a": "1", "b": "y"})
    assert not selects(rules, {"a": "1", "b": "z"})
    assert not selects(KubeObject({}), {"a": "1"})
