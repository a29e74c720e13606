"""Who may ask for what: keyless use on this machine, roles of keys, the fleet's own credentials, and what is kept of nobody.

Read next: `src/sageserve/live/gateway/rights.py`.
"""

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from sageserve.base.config import KeySettings
from sageserve.cli.gateway import key_app
from sageserve.live.gateway import meter as m
from sageserve.live.gateway.context import Options
from sageserve.live.gateway.keys import hash_of
from sageserve.live.gateway.renaming import with_model
from tests.live.gateway.stage import HELLO, Engine, Got, Stage, answer, ask, chunk, play, staged, whole

CHAT = "/v1/chat/completions"
SECRET = "the-fleets-own"  # noqa: S105 # of a test
KEYS = [
    {"name": role[:4], "sha256": hash_of(role.encode()), **({} if role == "tenant" else {"role": role})}
    for role in ("tenant", "operator", "read-only")
]


@contextlib.asynccontextmanager
async def fleet(**live: Any) -> AsyncIterator[tuple[Stage, Engine]]:  # noqa: ANN401 # settings
    """A gateway with a control process that repeats whom it was told of; and an engine."""
    control, engine = Engine(), Engine()

    async def repeat(got: Got, writer: asyncio.StreamWriter) -> None:
        writer.write(whole({"who": got.header("x-sageserve-key"), "secret": got.header("x-sageserve-secret")}))

    control.script = repeat
    await control.start()
    options = Options(admin=f"http://127.0.0.1:{control.port}", internal=SECRET, nonce="t")
    async with staged(engine, options=options, **live) as stage:
        yield stage, engine
    await control.kill()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "LocalHost:1"}, 200),
        ({"host": "[::1]:8100"}, 200),
        ({"origin": "http://127.0.0.1:8100"}, 200),
        ({"host": "evil.example"}, 403),
        ({"host": "evil.example:8100"}, 403),
        ({"host": "127.0.0.1.evil.example"}, 403),
        ({"origin": "https://evil.example", "content-type": "text/plain"}, 403),
        ({"origin": "null", "content-type": "text/plain"}, 403),
    ],
)
def test_keyless_use_is_for_this_machine_under_its_own_names(headers: dict[str, str], status: int) -> None:
    async def story() -> None:
        async with fleet() as (stage, engine), httpx.AsyncClient(base_url=stage.url, headers=headers) as client:
            codes = [(await client.get(path)).status_code for path in ("/v1/models", "/v1/files", "/ui", "/admin/status")]
            codes += [(await client.post(path, json=HELLO)).status_code for path in (CHAT, "/v1/batches")]
            assert codes == [status] * 6
            assert len(engine.got) == (status == 200)
            assert (await client.get("/health")).status_code == 200

    play(story())


def test_roles_decide_what_a_key_may() -> None:
    async def story() -> None:
        async with fleet(keys=KEYS) as (stage, _), httpx.AsyncClient(base_url=stage.url) as client:
            found = {}
            for key in ("", "wrong", "tenant", "operator", "read-only", SECRET):
                auth = {"authorization": f"Bearer {key}"} if key else {}
                pages = [(await client.get(path, headers=auth)).status_code for path in ("/ui", "/admin/status", "/v1/models")]
                asked = [(await client.post(path, json=HELLO, headers=auth)).status_code for path in (CHAT, "/v1/batches", "/ui")]
                found[key] = [*pages, *asked]
            assert found == {
                "": [401] * 6,
                "wrong": [401] * 6,
                "tenant": [403, 403, 200, 200, 200, 403],
                "operator": [200] * 6,
                "read-only": [200, 200, 200, 403, 403, 403],
                SECRET: [200] * 6,
            }
            form = {"authorization": "Basic " + base64.b64encode(b"me:read-only").decode()}
            assert (await client.get("/ui", headers=form)).status_code == 200, "a browser's form"
            assert (await client.post(CHAT, json=HELLO, headers=form)).status_code == 401
            proxied = {"host": "127.0.0.1"}
            assert (await client.get("/ui", headers=proxied)).status_code == 401, "a proxy on this machine is not this machine"
            assert "Basic" in (await client.get("/ui")).headers["www-authenticate"]

    play(story())


def test_the_fleets_secret_goes_to_control_and_its_key_to_no_engine() -> None:
    async def story() -> None:
        async with fleet() as (stage, engine), httpx.AsyncClient(base_url=stage.url) as client:
            ours = {"authorization": f"Bearer {SECRET}", "x-sageserve-endpoint": "0"}
            assert (await client.post(CHAT, json=HELLO, headers=ours)).status_code == 200
            theirs = {"authorization": "Bearer of-the-engine"}
            assert (await client.post(CHAT, json=HELLO, headers=theirs)).status_code == 200
            assert [got.header("authorization") for got in engine.got] == [None, "Bearer of-the-engine"]
            assert all(SECRET.encode() not in got.head for got in engine.got)
            forged = {"x-sageserve-secret": "guess", "x-sageserve-key": "other"}
            assert (await client.get("/v1/files", headers=forged)).json() == {"who": "anyone", "secret": SECRET}

    play(story())


@pytest.mark.parametrize("name", ["internal", "anyone", "local"])
def test_names_of_our_own_are_no_names_for_keys(name: str) -> None:
    with pytest.raises(ValueError, match="name of SageServe"):
        KeySettings(name=name, sha256="0" * 64)
    assert CliRunner().invoke(key_app, [name]).exit_code != 0
    made = CliRunner().invoke(key_app, ["me", "--role", "operator"])
    assert "role: operator" in made.stdout
    assert CliRunner().invoke(key_app, ["me", "--role", "king"]).exit_code != 0


# --- what is kept, and how long it takes ---


@pytest.mark.parametrize("declared", [False, True])
def test_of_a_body_from_nobody_nothing_is_kept(declared: bool) -> None:
    """The answer comes at the header, and the rest is not waited for."""

    async def story() -> None:
        async with staged(Engine(), keys=KEYS) as stage:
            length = b"content-length: 60000000\r\n" if declared else b"transfer-encoding: chunked\r\n"
            head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer wrong\r\n" + length + b"\r\n"
            said = await stage.speak(head, until=b"invalid_api_key")
            assert said.startswith(b"HTTP/1.1 401 ")
            assert b"connection: close" in said
            small = ask(HELLO, headers="authorization: Bearer wrong\r\n")
            last = ask(HELLO, headers="authorization: Bearer wrong\r\nconnection: close\r\n")
            said = await stage.speak(small + last)
            assert said.count(b"HTTP/1.1 401 ") == 2, "a small one does not cost the connection"
            assert stage.worker.context.body_bytes == 0

    play(story())


def test_bodies_have_a_budget_together_and_give_it_back() -> None:
    async def story() -> None:
        async with staged(Engine(), limits={"bodies": "100kB", "body": "80kB"}) as stage:
            context = stage.worker.context
            head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 70000\r\n\r\n"
            slow = [await asyncio.open_connection("127.0.0.1", stage.worker.port) for _ in range(2)]
            for _, writer in slow:
                writer.write(head + b"x" * 60_000)
            first = asyncio.ensure_future(slow[0][0].read(1 << 16)), asyncio.ensure_future(slow[1][0].read(1 << 16))
            done, _ = await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED, timeout=5)
            assert len(done) == 1
            assert done.pop().result().startswith(b"HTTP/1.1 429 ")
            assert context.body_bytes >= 60_000
            for _, writer in slow:
                writer.close()
            while context.body_bytes:  # noqa: ASYNC110 # connections end in many places
                await asyncio.sleep(0.01)
            assert b" 200 " in await stage.speak(ask(HELLO), until=b"usage")
            assert context.body_bytes == 0

    play(story())


@pytest.mark.parametrize("kind", ["over the budget", "over the limit", "another behind it"])
def test_a_refused_body_that_came_in_one_piece_is_the_keys_and_gives_its_bytes_back(kind: str) -> None:
    async def story() -> None:
        async with staged(Engine(), keys=KEYS, limits={"bodies": "100kB", "body": "80kB"}) as stage:
            context = stage.worker.context
            before = context.body_bytes = 0 if kind == "over the limit" else 100_000  # as if others were being read
            auth = "authorization: Bearer tenant\r\nx-request-id: mine\r\n"
            sent = ask(HELLO, headers=auth)
            if kind == "over the limit":
                head = sent.partition(b"content-length")[0] + b"transfer-encoding: chunked\r\n\r\n"
                sent = head + chunk(b"x" * 50_000) + chunk(b"x" * 30_001) + b"0\r\n\r\n"
            if kind == "another behind it":
                sent += sent
            said = await stage.speak(sent)
            status = b"413" if kind == "over the limit" else b"429"
            assert said.startswith(b"HTTP/1.1 " + status)
            assert b"x-request-id: mine\r\n" in said
            assert [labels for name, labels in context.meter.counters if name == m.REFUSALS] == [("tena", "", status.decode())]
            while context.clients:  # noqa: ASYNC110 # connections end in many places
                await asyncio.sleep(0.01)
            assert context.body_bytes == before

    play(story())


def test_an_engine_that_ends_lines_with_a_bare_line_feed_is_a_502() -> None:
    async def story() -> None:
        tail = b"\r\ncontent-length: 2\r\n\r\n{}"
        for head in (b"HTTP/1.1 200 OK\ncontent-length: 2\n\n{}", b"HTTP/1.1 200 OK\r\nx: y\nz: w" + tail):

            async def bare(_got: Got, writer: asyncio.StreamWriter, head: bytes = head) -> None:
                writer.write(head)
                await asyncio.sleep(30)

            async with staged(Engine(script=bare)) as stage, httpx.AsyncClient(base_url=stage.url) as client:
                got = await client.post(CHAT, json=HELLO, timeout=3)
                assert (got.status_code, got.json()["error"]["code"]) == (502, "upstream_error")

    play(story())


def test_a_model_is_renamed_in_time_in_proportion_whatever_stands_beside_it() -> None:
    def least(size: int) -> float:
        filler = {"metadata": {"model": "inner"}, "input": ['[{"model": 1}]', {"a": [[]] * size}]}
        body = json.dumps({**filler, "model": "big"}).encode()
        assert json.loads(with_model(body, "served")) == {**filler, "model": "served"}
        took = []
        for _ in range(5):
            begun = time.thread_time()
            with_model(body, "served")
            took.append(time.thread_time() - begun)
        return min(took)

    assert least(400_000) < 10 * least(100_000)  # 16 times as long, were it in proportion to the square


@pytest.mark.parametrize(
    ("body", "renamed"),
    [
        (b'{ "model" : "big", "x": 1.50 }', b'{ "model" : "new", "x": 1.50 }'),
        (b'{"mod\\u0065l": "big", "x": 1.50}', b'{"model":"new","x":1.50}'),
        (b'{"mod\\u0065l": "big", "x": {"model": "in"}}', b'{"model":"new","x":{"model": "in"}}'),
        (b'{"x": {"model": "in"}, "model": "big"}', b'{"x":{"model": "in"},"model":"new"}'),
        (b'{"model": "one", "model": "big"}', b'{"model":"new"}'),
    ],
)
def test_the_models_name_is_found_however_it_is_written(body: bytes, renamed: bytes) -> None:
    assert with_model(body, "new") == renamed


def test_an_engine_is_sent_the_name_it_knows_however_clients_write_it() -> None:
    async def story() -> None:
        engine = Engine(script=answer)
        async with staged(engine) as stage:
            target = stage.worker.context.routing.targets[0]
            target.served = "inside"
            said = await stage.speak(ask(b'{"mod\\u0065l": "big", "messages": []}'), until=b"usage")
            assert said.startswith(b"HTTP/1.1 200 ")
            assert engine.got[0].json["model"] == "inside"

    play(story())
