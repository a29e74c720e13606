"""A plug-in of a kubeconfig that fails is an answer that did not come: nothing ends of it, and what was known stays."""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import httpx2
import pytest
from lightkube import KubeConfig
from lightkube.config.kubeconfig import SingleConfig
from lightkube.config.models import Cluster, Context, User, UserExec
from lightkube.core.exceptions import ConfigError

from sageserve.live.authority.pods import PodList, PodSeen
from sageserve.live.kubernetes import credentials
from sageserve.live.kubernetes.fake import FakeCluster
from sageserve.live.kubernetes.fake_api import FakeTransport
from sageserve.live.kubernetes.follower import FollowTimes, ObjectFollower
from sageserve.live.kubernetes.reader import NotRead, Right
from sageserve.live.kubernetes.writer import ClusterWriter, NotWritten
from tests.live.kubernetes.test_fake_api import pod

PATH = "/api/v1/namespaces/serving/pods"
TOKEN = b'{"status": {"token": "t"}}'
Said = bytes | Exception


class Plugin:
    """What a kubeconfig names, and how often it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, said: Said) -> None:
        self.said, self.asked = said, 0
        self.versions: set[str] = set()
        monkeypatch.setattr(credentials, "printed_by", self._run)

    async def _run(self, command: Sequence[str], env: Mapping[str, str]) -> bytes:
        self.asked += 1
        assert command == ["cloud-token"]
        told = json.loads(env["KUBERNETES_EXEC_INFO"])
        assert (told["kind"], told["spec"]) == ("ExecCredential", {"interactive": False})
        self.versions.add(told["apiVersion"])
        if isinstance(self.said, Exception):
            raise self.said
        return self.said


def reader(transport: httpx2.AsyncBaseTransport, version: str = "v1beta1", command: str = "cloud-token") -> ClusterWriter:
    plugin = UserExec(apiVersion=f"client.authentication.k8s.io/{version}", command=command)
    config = KubeConfig.from_one(cluster=Cluster(server="http://fake"), user=User(exec=plugin)).get()
    assert config is not None
    return ClusterWriter(config, transport)


CALLS: list[Callable[[ClusterWriter], Awaitable[object]]] = [
    lambda one: one.version(),
    lambda one: one.get("Pod", "a", "serving"),
    lambda one: one.list("Pod", "serving"),
    lambda one: one.page(PATH, {}, PodList),
    lambda one: one.follow(PATH, {"watch": "true"}, lambda _: "heard"),
    lambda one: one.allowed(Right("get", "", "pods", "serving")),
    lambda one: one.read_as(PATH, PodList),
]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (ConfigError("Exec cloud-token returned 1: \nthe session\nhas expired"), "returned 1: the session has expired"),
        (FileNotFoundError(2, "No such file or directory", "cloud-token"), "No such file or directory: 'cloud-token'"),
        (b"log in first", "printed no token"),
        (b"{}", "printed no token"),
        (b'{"status": null}', "printed no token"),
        (b'{"status": {"clientCertificateData": "PEM"}}', "gives a certificate, and only tokens are used here"),
        (b"\xff", "printed no token"),
    ],
)
def test_whatever_a_plug_in_does_no_question_ends_in_an_exception(said: Said, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = Plugin(monkeypatch, said)

    async def inside() -> None:
        cluster = FakeCluster()
        cluster.put(pod("a"))
        async with reader(FakeTransport(cluster)) as one:
            for call in CALLS:
                answer = await call(one)
                assert isinstance(answer, NotRead | NotWritten)
                assert answer.status == 0
                assert answer.detail.startswith("no credentials: ")
                assert told in answer.detail
            plugin.said, plugin.asked = TOKEN, 0
            for call in CALLS:
                answer = await call(one)
                assert not isinstance(answer, NotRead | NotWritten) or answer.detail == "heard"
            assert plugin.asked == 1, "its token is kept, for all questions"

    asyncio.run(inside())


@pytest.mark.parametrize("body", [b"<html>", b'{"x":' + b"[" * 100_000, b'{"items":[{"metadata":{"name":"\xff"}}]}'])
def test_whatever_a_server_answers_no_question_ends_in_an_exception(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    Plugin(monkeypatch, TOKEN)
    about = {"content-type": "application/json"}

    async def inside() -> None:
        async with reader(httpx2.MockTransport(lambda _: httpx2.Response(200, content=body, headers=about))) as one:
            for call in CALLS:
                answer = await call(one)
                assert isinstance(answer, NotRead | NotWritten) or answer is None, "None: a watch that ended"

    asyncio.run(inside())


def test_a_token_that_expires_while_the_plug_in_fails_is_a_trouble_and_what_was_known_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plugin = Plugin(monkeypatch, TOKEN)

    async def inside() -> None:
        cluster = FakeCluster()
        cluster.put(pod("a"))
        transport = FakeTransport(cluster)
        times = FollowTimes(first=0.0, most=0.0)
        follower = ObjectFollower(reader(transport), PATH, PodSeen, lambda: None, times=times)
        task = asyncio.create_task(follower.run())

        async def settle() -> tuple[list[str], str]:
            for _ in range(300):
                await asyncio.sleep(0)
            assert not task.done()
            return sorted(follower.objects), follower.trouble

        assert await settle() == (["a"], "")
        cluster.failing = lambda *_: 401
        plugin.said = ConfigError("Exec cloud-token returned 1: throttled")
        cluster.put({"kind": "ConfigMap", "metadata": {"name": "noise", "namespace": "serving"}})
        cluster.forget()  # the watch is over at the next change
        cluster.put(pod("b"))
        assert await settle() == (["a"], "no credentials: Exec cloud-token returned 1: throttled")
        cluster.failing = lambda *_: 0
        plugin.said = TOKEN
        assert await settle() == (["a", "b"], "")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(inside())


@pytest.mark.parametrize("version", ["v1", "v1beta1", "v1alpha1", "v2"])
def test_plug_ins_of_every_version_that_there_is_are_asked_once_for_many_requests(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = Plugin(monkeypatch, TOKEN)

    async def inside() -> None:
        cluster = FakeCluster()
        cluster.put(pod("a"))
        async with reader(FakeTransport(cluster), version) as one:
            found = await asyncio.gather(*(one.list("Pod", "serving") for _ in range(5)))
        if version == "v2":
            assert all(isinstance(each, NotRead) and "v2 is not known here" in each.detail for each in found)
            return
        assert all(isinstance(each, list) and len(each) == 1 for each in found)
        assert (plugin.asked, plugin.versions) == (1, {f"client.authentication.k8s.io/{version}"})

    asyncio.run(inside())


def test_a_plug_in_is_a_program_that_may_fail_or_never_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def said(code: str) -> str:
        try:
            return (await credentials.printed_by([sys.executable, "-S", "-c", code], {"A": "b"})).decode().strip()
        except ConfigError as error:
            return str(error)

    fine, failed = (asyncio.run(said(code)) for code in ("import os; print(os.environ['A'])", "raise SystemExit('no session')"))
    assert (fine, "returned 1: no session" in failed) == ("b", True)
    monkeypatch.setattr(credentials, "PATIENCE_S", 0.05)
    assert "did not end within 0.05 s" in asyncio.run(said("import time; time.sleep(60)"))


def test_a_plug_in_that_does_not_end_is_ended_with_what_it_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "PATIENCE_S", 0.2)
    wrapper = ["/bin/sh", "-c", "sleep 20; true"]  # which the shell waits for, and which has its pipes
    with pytest.raises(ConfigError, match="did not end"):
        asyncio.run(asyncio.wait_for(credentials.printed_by(wrapper, {"PATH": os.defpath}), 10))


def test_a_plug_in_beside_its_kubeconfig_is_found_where_that_is_named_from_its_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plugin = UserExec(apiVersion="client.authentication.k8s.io/v1", command="./plug")
    for named in (Path("kubeconfig"), tmp_path / "kubeconfig"):
        one = SingleConfig("a", Context(cluster="a"), Cluster(server="http://fake"), User(exec=plugin), fname=named)
        signed = credentials.signed_by(one, httpx2.Auth())
        assert isinstance(signed, credentials.GuardedAuth)
        assert isinstance(signed._inner, credentials.PluginAuth)
        assert signed._inner._command == str(tmp_path / "plug")
