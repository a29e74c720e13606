"""Engines at https addresses: spoken to under TLS with their certificate checked, or not at all; and those that ask for a key.

Read next: `src/sageserve/live/engine_access.py`; `test_tls.py` for the gateway's own certificate.
"""

import asyncio
import contextlib
import shutil
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from sageserve.base.config import LiveSettings
from sageserve.base.errors import ConfigError
from sageserve.live.control.engine_clients import EngineClients
from sageserve.live.engine_access import EngineDoors
from sageserve.live.gateway.context import Options
from sageserve.live.gateway.server import GatewayBinding, GatewayProcess
from sageserve.live.telemetry.scrape import scrape
from sageserve.live.telemetry.seen import EngineSeen
from tests.live.gateway.stage import HELLO, MODEL, Engine, Got, answer, play, settings, whole
from tests.live.gateway.test_tls import issue

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not on this machine")

PATH = "/v1/chat/completions"
PAGE = b"".join(
    b"# TYPE vllm:%b gauge\nvllm:%b 0.5\n" % (name, name) for name in (b"num_requests_running", b"num_requests_waiting")
)
Story = Callable[[httpx.AsyncClient, GatewayProcess], Awaitable[None]]


@pytest.fixture
def theirs(tmp_path: Path) -> tuple[Path, Path]:
    """An engine's certificate and its key."""
    return issue(tmp_path, "engine")


@pytest.fixture
def ours(tmp_path: Path) -> tuple[Path, Path]:
    """A client's."""
    return issue(tmp_path, "client")


def engine(theirs: tuple[Path, Path], client: Path | None = None) -> Engine:
    """One behind TLS, which asks for a certificate where there is one to compare it with."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*theirs)
    if client is not None:
        tls.verify_mode = ssl.CERT_REQUIRED
        tls.load_verify_locations(client)
    return Engine(tls=tls)


@contextlib.asynccontextmanager
async def gateway(one: Engine, url: str, access: dict[str, str], keys: dict[str, str]) -> AsyncIterator[GatewayProcess]:
    """In front of one engine."""
    placed = [{"region": "east", "model": MODEL, "url": url.format(port=one.port), "access": "theirs"}]
    options = Options(born=1, nonce="t", engine_keys=keys)
    worker = GatewayProcess(
        settings([], instances=placed, access={"theirs": access}), GatewayBinding("127.0.0.1", 0, options=options)
    )
    await worker.start()
    try:
        yield worker
    finally:
        await worker.close()
        await one.kill()


def tell(one: Engine, access: dict[str, str], story: Story, *, url: str = "https://127.0.0.1:{port}", **keys: str) -> None:
    async def run() -> None:
        await one.start()
        async with gateway(one, url, access, keys) as worker, httpx.AsyncClient(trust_env=False) as client:
            client.base_url = httpx.URL(f"http://127.0.0.1:{worker.port}")
            await story(client, worker)

    play(run())


def test_an_engine_behind_tls_is_asked_with_our_certificate_and_its_own_key(
    theirs: tuple[Path, Path], ours: tuple[Path, Path], tmp_path: Path
) -> None:
    one, held = engine(theirs, ours[0]), tmp_path / "key"
    held.write_text("sk-first\n", "utf-8")
    access = {"ca_file": theirs[0], "certificate": ours[0], "key": ours[1], "bearer_file": held}

    async def story(client: httpx.AsyncClient, worker: GatewayProcess) -> None:
        for stream in (False, True):
            headers = {"authorization": "Bearer the client's own"}
            got = await client.post(PATH, json=HELLO | {"stream": stream}, headers=headers)
            assert got.status_code == 200, got.text
        held.write_text("sk-the-second", "utf-8")
        worker.context.tidy(0)
        assert (await client.post(PATH, json=HELLO)).status_code == 200
        held.write_text("no key\nbut two lines", "utf-8")
        worker.context.tidy(0)
        assert (await client.post(PATH, json=HELLO)).status_code == 200

    tell(one, {name: str(path) for name, path in access.items()}, story)
    asked = [[line for line in got.head.split(b"\r\n") if line.lower().startswith(b"authorization")] for got in one.got]
    first, second = [b"authorization: Bearer sk-first"], [b"authorization: Bearer sk-the-second"]
    assert asked == [first, first, second, second]


@pytest.mark.parametrize("how", ["another authority", "no certificate of ours", "another name", "no TLS there"])
def test_an_engine_that_cannot_be_trusted_is_sent_nothing(
    how: str, theirs: tuple[Path, Path], ours: tuple[Path, Path], tmp_path: Path
) -> None:
    one = engine(theirs, ours[0] if how == "no certificate of ours" else None)
    if how == "no TLS there":
        one.tls = None
    raw: list[bytes] = []

    async def keep(got: Got, writer: asyncio.StreamWriter) -> None:
        raw.append(got.head)
        await answer(got, writer)

    one.script = keep
    access = {"ca_file": str(ours[0] if how == "another authority" else theirs[0])}
    host = "localhost.localdomain" if how == "another name" else "127.0.0.1"

    async def story(client: httpx.AsyncClient, worker: GatewayProcess) -> None:
        got = await client.post(PATH, json=HELLO)
        told = (
            (502, "upstream_error") if how == "no certificate of ours" else (503, "no_capacity")
        )  # it says so after the handshake
        assert (got.status_code, got.json()["error"]["code"]) == told, got.text

    try:
        tell(one, access, story, url=f"https://{host}:{{port}}")
    finally:
        assert raw == []


def test_a_key_in_a_variable_reaches_a_plain_engine_and_is_needed_before_anything_starts() -> None:
    one = Engine()

    async def story(client: httpx.AsyncClient, worker: GatewayProcess) -> None:
        assert (await client.post(PATH, json=HELLO)).status_code == 200

    tell(one, {"bearer_env": "ENGINE_KEY"}, story, url="http://127.0.0.1:{port}", ENGINE_KEY="sk-9")
    assert [got.header("authorization") for got in one.got] == ["Bearer sk-9"]
    for held in ({}, {"ENGINE_KEY": "a\r\nb"}, {"ENGINE_KEY": "ä"}):
        with pytest.raises(ConfigError, match="there is no API key in the variable ENGINE_KEY") as refused:
            EngineDoors(LiveSettings.model_validate({"access": {"a": {"bearer_env": "ENGINE_KEY"}}}), held)
        assert not any(value in str(refused.value) for value in held.values())


def test_control_looks_at_engines_by_the_same_door(theirs: tuple[Path, Path], tmp_path: Path) -> None:
    async def page(_got: Got, writer: asyncio.StreamWriter) -> None:
        writer.write(whole(PAGE, kind="text/plain"))

    held = tmp_path / "key"
    held.write_text("sk-first", "utf-8")

    async def run() -> None:
        one, plain = engine(theirs), Engine(script=page)
        one.script = page
        for each in (one, plain):
            await each.start()
        url, other = f"https://127.0.0.1:{one.port}", f"http://127.0.0.1:{plain.port}"
        access = {"theirs": {"ca_file": str(theirs[0]), "bearer_file": str(held)}}
        instances = [{"region": "east", "model": MODEL, "url": url, "access": "theirs"}]
        doors = EngineDoors(LiveSettings.model_validate({"instances": instances, "access": access}), {})
        made: list[httpx.AsyncClient] = []
        async with EngineClients(doors, 5.0) as clients:
            for key in ("sk-first", "sk-the-second"):
                held.write_text(key, "utf-8")
                for where in (url, other):
                    async with clients.at(where) as asking:
                        made.append(asking)
                        assert isinstance(await scrape(asking, f"{where}/metrics"), EngineSeen)
            assert [asking.is_closed for asking in made] == [True, False, False, False], "the first key's, when it changed"
            async with clients.at(url) as used:
                held.write_text("sk-3", "utf-8")
                async with clients.at(url) as new:
                    assert (used is made[2], new is used, used.is_closed) == (True, False, False), "it is in use"
            assert (used.is_closed, new.is_closed) == (True, False)
        assert new.is_closed
        assert made[1].is_closed
        assert [got.header("authorization") for got in one.got] == ["Bearer sk-first", "Bearer sk-the-second"]
        assert [got.header("authorization") for got in plain.got] == [None, None]
        for each in (one, plain):
            await each.kill()

    play(run())


def test_files_that_cannot_be_used_are_refused_at_the_start(tmp_path: Path) -> None:
    for name in ("ca_file", "bearer_file"):
        live = LiveSettings.model_validate({"access": {"a": {name: str(tmp_path / "nothing")}}})
        with pytest.raises(ConfigError, match=r"live\.access\.a: .*nothing cannot be used"):
            EngineDoors(live, {})
