"""Web pages of other sites: those that the settings name may ask and read every answer, refusals included; no other one may.

Read next: `src/sageserve/live/gateway/cross_origin.py`; `test_rights.py` for who may ask at all.
"""

import asyncio

import httpx
import pytest
from pydantic import ValidationError

from sageserve.base.config import LiveSettings
from sageserve.live.engine_access import EngineDoors
from sageserve.live.gateway.cross_origin import CrossOrigin
from sageserve.live.gateway.keys import hash_of
from sageserve.live.gateway.record import RequestRecord
from tests.live.gateway.stage import HELLO, MODEL, Engine, Got, play, staged, whole
from tests.live.gateway.test_rights import CHAT, fleet

SITE, OTHER = "https://chat.example", "https://evil.example"
KEYS = [{"name": "a", "sha256": hash_of(b"k")}, {"name": "o", "sha256": hash_of(b"o"), "role": "operator"}]
FIRST = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
READS = "access-control-allow-origin"


async def open_to_all(_got: Got, writer: asyncio.StreamWriter) -> None:
    """As vLLM answers when nobody told it otherwise."""
    body = whole({"model": MODEL, "choices": []})
    writer.write(
        body.replace(b"x-engine:", b"Access-Control-Allow-Origin: *\r\naccess-control-allow-credentials: true\r\nx-engine:")
    )


def test_a_page_that_is_named_may_ask_and_read_every_answer_and_another_one_none() -> None:
    async def story() -> None:
        async with staged(Engine(open_to_all), keys=KEYS, cors=[SITE]) as stage, httpx.AsyncClient(base_url=stage.url) as client:
            first = await client.options(CHAT, headers={"origin": SITE, **FIRST})
            assert (first.status_code, first.headers[READS], first.headers["vary"]) == (204, SITE, "origin")
            assert "POST" in first.headers["access-control-allow-methods"]
            assert "authorization" in first.headers["access-control-allow-headers"]
            seen = []
            for key, body in (("k", HELLO), ("k", HELLO | {"stream": True}), ("wrong", HELLO), ("k", {"model": "none"})):
                for site in (SITE, OTHER):
                    headers = {"origin": site, "authorization": f"Bearer {key}"}
                    got = await client.post(CHAT, json=body, headers=headers)
                    assert "access-control-allow-credentials" not in got.headers
                    assert got.headers["vary"] == "origin"
                    seen.append((got.status_code, got.headers.get_list(READS)))
            assert seen == [(status, shown) for status in (200, 200, 401, 404) for shown in ([SITE], [])]
            assert (await client.options(CHAT, headers={"origin": OTHER, **FIRST})).status_code == 401
            plain = await client.post(CHAT, json=HELLO, headers={"authorization": "Bearer k"})
            assert (plain.status_code, plain.headers.get(READS)) == (200, None)

    play(story())


def test_what_nobody_asked_for_is_not_looked_at_for_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """No origin, no key of an engine, no line and no trace: a request is not asked about any of them."""
    looked: list[str] = []
    for owner, name in ((CrossOrigin, "lines"), (CrossOrigin, "asks_first"), (EngineDoors, "at"), (RequestRecord, "_as_line")):
        monkeypatch.setattr(owner, name, lambda *_, name=name, **__: looked.append(name))

    async def story() -> None:
        async with staged(Engine()) as stage, httpx.AsyncClient(base_url=stage.url) as client:
            got = await client.post(CHAT, json=HELLO, headers={"x-request-id": "mine", "authorization": "Bearer its"})
            assert (got.status_code, got.headers["x-request-id"]) == (200, "mine")
            assert (await client.options(CHAT, headers={"origin": "http://localhost", **FIRST})).status_code == 204

    play(story())
    assert looked == []


def test_files_may_be_asked_for_and_pages_of_the_fleet_may_not() -> None:
    async def story() -> None:
        async with fleet(keys=KEYS, cors=["*"]) as (stage, _), httpx.AsyncClient(base_url=stage.url) as client:
            first = await client.options("/v1/files", headers={"origin": OTHER, **FIRST})
            assert (first.status_code, first.headers[READS]) == (204, "*")
            assert first.headers["access-control-allow-methods"] == "GET, POST, DELETE"
            headers = {"origin": OTHER, "authorization": "Bearer o"}
            files, page = await client.get("/v1/files", headers=headers), await client.get("/admin/status", headers=headers)
            assert [(got.status_code, got.headers.get(READS)) for got in (files, page)] == [(200, "*"), (200, None)]
            assert READS not in (await client.options("/admin/status", headers={"origin": OTHER, **FIRST})).headers

    play(story())


@pytest.mark.parametrize("cors", [[], [SITE]])
def test_without_keys_a_page_of_another_site_may_ask_where_it_is_named(cors: list[str]) -> None:
    async def story() -> None:
        async with staged(Engine(open_to_all), cors=cors) as stage, httpx.AsyncClient(base_url=stage.url) as client:
            got = [await client.post(CHAT, json=HELLO, headers={"origin": site}) for site in (SITE, OTHER)]
            assert [one.status_code for one in got] == [200 if cors else 403, 403]
            assert [one.headers.get(READS) for one in got] == [SITE if cors else None, None]

    play(story())


@pytest.mark.parametrize("cors", [["*"], ["chat.example"], ["https://chat.example/"], ["null"], ["https://*.example"]])
def test_origins_that_mean_nothing_and_every_page_without_keys_are_refused(cors: list[str]) -> None:
    with pytest.raises(ValidationError):
        LiveSettings.model_validate({"cors": cors})
