"""Where plans come from: whatever a folder or a server does, the answer is bytes or a sentence."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from msgspec import structs
from prometheus_client import CollectorRegistry, generate_latest

from sageserve.base.errors import ConfigError
from sageserve.live.agent.page import AgentCollector
from sageserve.live.agent.plan_record import decoded
from sageserve.live.agent.report import AgentReport, TargetReport, read_reports
from sageserve.live.agent.sealed import MOST
from sageserve.live.agent.sink import NotReported, ServerSink
from sageserve.live.agent.source import FolderSource, NotFetched, ServerSource, server_client

Answer = Callable[[httpx.Request], httpx.Response]


def fetched(answer: Answer, bearer: Path | None = None, times: int = 1) -> tuple[list[bytes | str], list[httpx.Request]]:
    """What comes of so many fetches, and what was asked."""
    asked: list[httpx.Request] = []

    def heard(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return answer(request)

    async def story() -> list[bytes | str]:
        found: list[bytes | str] = []
        async with server_client(None, httpx.MockTransport(heard)) as client:
            source = ServerSource("https://plans.example/hub/", "we st", client, bearer)
            for _ in range(times):
                try:
                    found.append(await source.fetch())
                except NotFetched as error:
                    found.append(str(error))
        return found

    return asyncio.run(story()), asked


def test_a_pipe_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "west.plan")
    with pytest.raises(NotFetched, match="is no file"):
        asyncio.run(asyncio.wait_for(FolderSource(tmp_path, "west").fetch(), 5))  # a test of one fetch
    os.mkfifo(tmp_path / "x.status.json")
    (tmp_path / "y.status.json").write_bytes(b"[" * 100_000)
    assert [isinstance(one, str) for _, one in read_reports(tmp_path)] == [True, True]


@pytest.mark.parametrize("cluster", ["a/b", "..", "x\ny", ".hidden"])
def test_a_cluster_that_no_file_can_be_called_by_is_refused(cluster: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no file can be called so"):
        FolderSource(tmp_path, cluster)


def test_a_server_is_asked_for_what_has_changed() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        same = request.headers.get("if-none-match") == '"7"'
        return httpx.Response(304) if same else httpx.Response(200, content=b"plan", headers={"etag": '"7"'})

    found, asked = fetched(answer, times=3)
    assert found == [b"plan"] * 3
    assert [request.headers.get("if-none-match") for request in asked] == [None, '"7"', '"7"']
    assert str(asked[0].url) == "https://plans.example/hub/we%20st.plan"


def refused(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused", request=request)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda _: httpx.Response(404), "HTTP 404: no plan of this cluster is there"),
        (lambda _: httpx.Response(401), "wants a token"),
        (lambda _: httpx.Response(500), "HTTP 500"),
        (lambda _: httpx.Response(304), "HTTP 304"),
        (lambda _: httpx.Response(302, headers={"location": "https://elsewhere/"}), "redirects are not followed"),
        (lambda _: httpx.Response(200, content=bytes(MOST + 1)), "more than 1,048,576 bytes"),
        (refused, "cannot be fetched: refused"),
    ],
)
def test_a_server_that_has_none_is_told_in_a_sentence(answer: Answer, words: str) -> None:
    found, _ = fetched(answer)
    assert words in str(found[0])


def test_a_token_is_read_for_each_request(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("one\n", "utf-8")

    def answer(_: httpx.Request) -> httpx.Response:
        path.write_text("two\nlines", "utf-8")
        return httpx.Response(200, content=b"plan")

    found, asked = fetched(answer, path, times=2)
    assert (found[0], "is none" in str(found[1]), len(asked)) == (b"plan", True, 1)
    assert asked[0].headers["authorization"] == "Bearer one"
    path.unlink()
    assert "cannot be read" in str(fetched(answer, path)[0][0])


def test_a_folder_is_read_each_time(tmp_path: Path) -> None:
    source = FolderSource(tmp_path, "west")
    with pytest.raises(NotFetched, match="No such file"):
        asyncio.run(source.fetch())
    for content in (b"one", b"two"):
        (tmp_path / "west.plan").write_bytes(content)
        assert asyncio.run(source.fetch()) == content


def test_certificates_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--ca-file"):
        server_client(tmp_path / "none.pem")


REPORT = AgentReport(
    fleet="f", cluster="we st", agent="one", at=1, follows="none", sequence=0, plan="", age=0, until=0, heard=0, refused="",
    detail="", holder="", targets={}, notes=(),
)  # fmt: skip


def reported(answer: Answer, bearer: Path | None = None) -> tuple[str, list[httpx.Request]]:
    """Why a report was not taken, and what was asked."""
    asked: list[httpx.Request] = []

    def heard(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return answer(request)

    async def story() -> str:
        async with server_client(None, httpx.MockTransport(heard)) as client:
            try:
                await ServerSink("https://plans.example/hub/", client, bearer).put(REPORT)
            except NotReported as error:
                return str(error)
        return ""

    return asyncio.run(story()), asked


def test_a_report_is_put_beside_the_plans(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("one\n", "utf-8")
    said, asked = reported(lambda _: httpx.Response(201), tmp_path / "token")
    assert (said, asked[0].method, str(asked[0].url)) == ("", "PUT", "https://plans.example/hub/we%20st.status.json")
    assert asked[0].headers["authorization"] == "Bearer one"
    assert decoded(asked[0].content, AgentReport, "the report") == REPORT


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda _: httpx.Response(405), "answers HTTP 405: does it take files by PUT?"),
        (lambda _: httpx.Response(403), "answers HTTP 403: it wants a token"),
        (lambda _: httpx.Response(307, headers={"location": "https://elsewhere/"}), "answers HTTP 307"),
        (refused, "is not sent: https://plans.example/hub/we%20st.status.json: refused"),
    ],
)
def test_a_report_that_is_not_taken_is_told_in_a_sentence(answer: Answer, words: str, tmp_path: Path) -> None:
    assert words in reported(answer)[0]
    assert "the token" in reported(answer, tmp_path / "none")[0]


def test_metrics_say_what_the_report_says() -> None:
    target = TargetReport(pool="p", object="o", planned=4, followed=3, ready=2, blind=False)
    said = structs.replace(REPORT, sequence=7, until=60_000_000, refused="expired", targets={"big": target})
    registry = CollectorRegistry()
    registry.register(AgentCollector(lambda: said, lambda: True))
    page = generate_latest(registry).decode()
    for line in (
        "sageserve_agent_leads 1.0",
        "sageserve_agent_sequence 7.0",
        "sageserve_agent_until_seconds 60.0",
        'sageserve_agent_refused{why="expired"} 1.0',
        'sageserve_agent_target{figure="planned",target="big"} 4.0',
        'sageserve_agent_target{figure="ready",target="big"} 2.0',
        'sageserve_agent_blind{target="big"} 0.0',
    ):
        assert line in page.splitlines()
    assert 'figure="low"' not in page, "what is not known is left out"
