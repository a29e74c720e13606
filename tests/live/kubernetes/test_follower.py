"""Objects that are followed: changes are heard, lists are taken anew after 410, and nothing is lost while the server is away."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import cast

import msgspec
import pytest

from sageserve.live.authority.pods import PodSeen
from sageserve.live.kubernetes.fake import FakeCluster
from sageserve.live.kubernetes.fake_api import FakeTransport, fake_config
from sageserve.live.kubernetes.follower import FollowTimes, ObjectFollower
from sageserve.live.kubernetes.reader import ClusterReader, NotRead
from tests.live.kubernetes.test_fake_api import pod

PATH = "/api/v1/namespaces/serving/pods"
NOW = FollowTimes(first=0.0, most=0.0)


class Following:
    """A follower, its server, and how often it was told of changes."""

    def __init__(self, labels: str = "") -> None:
        self.cluster = FakeCluster()
        self.transport = FakeTransport(self.cluster)
        self.told = 0
        reader = ClusterReader(fake_config(), self.transport)
        self.follower = ObjectFollower(reader, PATH, PodSeen, self._tell, labels=labels, times=NOW)

    def _tell(self) -> None:
        self.told += 1

    async def settle(self) -> list[str]:
        """Names, once everything under way has been heard."""
        for _ in range(300):
            await asyncio.sleep(0)
        return sorted(self.follower.objects)

    def lists(self) -> int:
        return len(self.transport.api.requests)


def played(story: Callable[[Following], Coroutine[None, None, None]], labels: str = "") -> None:
    async def inside() -> None:
        here = Following(labels)
        task = asyncio.create_task(here.follower.run())
        try:
            await story(here)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(inside())


def test_what_comes_changes_and_goes_is_heard() -> None:
    async def story(here: Following) -> None:
        here.cluster.put(pod("a", app="x"))
        here.cluster.put(pod("other", app="y"))
        assert await here.settle() == ["a"]
        assert here.follower.listed
        asked = here.lists()
        here.cluster.put(pod("b", app="x"))
        here.cluster.put(pod("a", phase="Failed", app="x"))
        here.cluster.put(pod("c", namespace="elsewhere", app="x"))
        assert await here.settle() == ["a", "b"]
        assert here.follower.objects["a"].status.phase == "Failed"
        here.cluster.delete("Pod", "serving", "b")
        assert await here.settle() == ["a"]
        assert (here.lists(), here.follower.trouble) == (asked, ""), "one list and one watch told all of it"

    played(story, "app=x")


def test_a_version_that_is_too_old_is_listed_anew_and_nothing_is_missed() -> None:
    async def story(here: Following) -> None:
        here.cluster.put(pod("a"))
        here.cluster.put(pod("b"))
        await here.settle()
        here.cluster.delete("Pod", "serving", "a")
        here.cluster.put(pod("c"))
        here.cluster.forget()
        here.cluster.put(pod("d"))
        assert await here.settle() == ["b", "c", "d"]
        assert here.follower.trouble == ""

    played(story)


def test_while_the_server_is_away_or_forbids_what_was_known_stays() -> None:
    async def story(here: Following) -> None:
        here.cluster.put(pod("a"))
        await here.settle()
        for code in (500, 403):
            here.cluster.failing = lambda *_, code=code: code
            here.cluster.delete("Pod", "serving", "a") if code == 500 else here.cluster.put(pod("b"))
            here.cluster.forget()  # so that the watch ends
            here.cluster.put(pod("e", namespace="elsewhere"))
            assert await here.settle() == ["a"]
            assert here.follower.trouble == f"HTTP {code}"
        here.cluster.failing = lambda *_: 0
        assert await here.settle() == ["b"], "once it is back, what is gone is gone"
        assert here.follower.trouble == ""

    played(story)


def test_lists_of_many_come_in_pages_and_lines_that_cannot_be_read_end_a_watch() -> None:
    async def story(here: Following) -> None:
        for number in range(1200):
            here.cluster.put(pod(f"p{number}"))
        assert len(await here.settle()) == 1200
        assert here.follower._hear(b'{"type":"ADDED","object":{"metadata":[]}}').startswith("a line of the watch cannot be read")
        for line in (b"{", b'{"x":' + b"[" * 100_000, b'{"type":"ADDED","object":{"metadata":{"name":"\xff"}}}'):
            assert here.follower._hear(line).startswith("a line of the watch cannot be read")
        gone = {"type": "ERROR", "object": {"code": 410, "message": "too old"}}
        assert here.follower._hear(msgspec.json.encode(gone)) == "too old"
        assert len(here.follower.objects) == 1200

    played(story)


class Proxied:
    """A reader whose watches end as a script says: lines they deliver before they are cut; after it, none is answered."""

    def __init__(self, *watches: int) -> None:
        self.script = list(watches)
        self.lists, self.version = 0, 7

    async def page(self, _path: str, _query: Mapping[str, str], kind: type[object]) -> object:
        self.lists += 1
        return msgspec.convert({"metadata": {"resourceVersion": str(self.version)}, "items": []}, kind)

    async def follow(self, _path: str, query: Mapping[str, str], heard: Callable[[bytes], str]) -> NotRead | None:
        assert query["resourceVersion"] == str(self.version), "from where it was"
        if not self.script:
            await asyncio.Event().wait()
        for _ in range(self.script.pop(0)):
            self.version += 1
            one = {"metadata": {"name": f"p{self.version}", "resourceVersion": str(self.version)}}
            assert heard(msgspec.json.encode({"type": "ADDED", "object": one})) == ""
        return NotRead(0, "peer closed connection")


def behind(proxied: Proxied, times: FollowTimes, monkeypatch: pytest.MonkeyPatch) -> tuple[ObjectFollower[PodSeen], list[float]]:
    """A follower once the script is over, and its pauses."""
    pauses: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await real(0)

    async def inside() -> ObjectFollower[PodSeen]:
        follower = ObjectFollower(cast("ClusterReader", proxied), PATH, PodSeen, lambda: None, times=times)
        task = asyncio.create_task(follower.run())
        for _ in range(200):
            await real(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return follower

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return asyncio.run(inside()), pauses


def test_a_watch_that_worked_and_is_cut_goes_on_at_once_and_is_no_trouble(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    proxied = Proxied(*[1] * 9)
    follower, pauses = behind(proxied, FollowTimes(), monkeypatch)
    assert (len(follower.objects), follower.trouble, proxied.lists) == (9, "", 1)
    assert pauses == [1.0] * 9
    assert caplog.messages == []


def test_watches_that_never_work_are_asked_for_less_and_less_until_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    proxied = Proxied(0, 0, 0, 0, 2, 0, 0)
    follower, pauses = behind(proxied, FollowTimes(), monkeypatch)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 1.0, 1.0, 2.0]
    assert (len(follower.objects), proxied.lists) == (0, 7), "the last list has none of them"


def test_a_quiet_watch_that_lasted_longer_than_the_pause_has_worked(monkeypatch: pytest.MonkeyPatch) -> None:
    proxied = Proxied(0, 0, 0)
    follower, pauses = behind(proxied, NOW, monkeypatch)
    assert (follower.trouble, proxied.lists, pauses) == ("", 1, [0.0] * 3)
