"""Routes that some engines have and bodies that came packed: passed on, ended where they end, refused with a reason."""

import gzip
import json
import sys
from collections.abc import Callable, Mapping
from typing import Final

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from sageserve.live.control.door import IN_JSON
from sageserve.live.gateway.api_error import ApiError
from sageserve.live.gateway.packed import unpack
from sageserve.live.gateway.sse import SseTagger
from tests.live.gateway.stage import HELLO, MODEL, STREAM_HEAD, Engine, chunk, play, staged, whole
from tests.live.gateway.test_conformance import says

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PACK: Final[Mapping[bytes, Callable[[bytes], bytes]]] = {b"gzip": gzip.compress, b"zstd": zstd.compress}
MESSAGES = b"".join(
    f"event: {name}\ndata: {json.dumps({'type': name, **more})}\n\n".encode()
    for name, more in (
        ("message_start", {"message": {"model": MODEL, "usage": {"input_tokens": 9, "output_tokens": 1}}}),
        ("content_block_delta", {"delta": {"type": "text_delta", "text": "hi"}}),
        ("message_delta", {"usage": {"output_tokens": 4}}),
        ("message_stop", {}),
    )
)


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank", "/v1/score", "/score", "/tokenize", "/detokenize", "/v1/messages"])
def test_a_route_of_an_engine_is_passed_on_with_its_answer(path: str) -> None:
    async def story() -> None:
        engine = Engine(says(whole({"model": MODEL, "results": [1, 2]})))
        async with staged(engine) as stage, httpx.AsyncClient(trust_env=False) as client:
            asked = {"model": MODEL, "query": "q", "documents": ["a"]}
            got = await client.post(stage.url + path, json=asked)
            assert (got.status_code, got.json()["results"]) == (200, [1, 2])
            assert engine.got[0].head.startswith(f"POST {path} HTTP/1.1\r\n".encode())
            assert engine.got[0].json == asked

    play(story())


def test_a_stream_of_messages_ends_with_its_last_event() -> None:
    async def story() -> None:
        engine = Engine(says(STREAM_HEAD + chunk(MESSAGES)))  # and the connection stays open
        async with staged(engine) as stage, httpx.AsyncClient(trust_env=False) as client:
            got = await client.post(f"{stage.url}/v1/messages", json=HELLO | {"stream": True, "max_tokens": 5})
            assert got.content == MESSAGES

    play(story())


@pytest.mark.parametrize("at", [len(MESSAGES), 100])
def test_tokens_of_a_stream_of_messages_are_those_of_its_first_and_its_last_event(at: int) -> None:
    tagger = SseTagger(b'"service_tier":"default",', insert=False)
    tagger.feed(MESSAGES[:at])
    tagger.feed(MESSAGES[at:])
    assert tagger.usage() == (9, 4)


@pytest.mark.parametrize("coding", PACK)
def test_a_packed_body_is_unpacked_and_told_as_it_is_now(coding: bytes) -> None:
    async def story() -> None:
        async with staged(Engine()) as stage, httpx.AsyncClient(trust_env=False) as client:
            body = json.dumps(HELLO).encode()
            packed = PACK[coding](body[:10]) + PACK[coding](body[10:])
            kind = {"content-type": "application/json", "content-encoding": coding.decode()}
            got = await client.post(f"{stage.url}/v1/chat/completions", content=packed, headers=kind)
            assert got.status_code == 200
            (seen,) = stage.engines[0].got
            assert (seen.body, seen.header("content-length"), seen.header("content-encoding")) == (body, str(len(body)), None)
            assert stage.worker.context.body_bytes == 0
            brotli = await client.post(
                f"{stage.url}/v1/chat/completions", content=packed, headers=kind | {"content-encoding": "br"}
            )
            assert (brotli.status_code, "use gzip, zstd" in brotli.json()["error"]["message"]) == (415, True)

    play(story())


@pytest.mark.parametrize("coding", PACK)
def test_what_cannot_be_unpacked_is_refused(coding: bytes) -> None:
    pack = PACK[coding]
    assert unpack(pack(b"x" * 999), coding, 999) == b"x" * 999
    for body, status in (
        (b"no such thing", 400),
        (pack(b"x" * 100)[:-5], 400),
        (pack(b"x" * 1000), 413),
        (pack(b"x") + b"y", 400),
    ):
        with pytest.raises(ApiError) as refused:
            unpack(body, coding, 999)
        assert refused.value.status == status


@pytest.mark.parametrize("coding", PACK)
def test_a_body_of_many_packed_files_is_refused_before_they_are_all_read(coding: bytes) -> None:
    pack = PACK[coding]
    assert unpack(pack(b"x") * 16, coding, 999) == b"x" * 16
    for part in (b"", b"x"):
        with pytest.raises(ApiError) as refused:
            unpack(pack(part) * 17 + b"nothing", coding, 999)
        assert (refused.value.status, refused.value.code) == (400, "invalid_encoding")
        assert refused.value.message == f"The body has too many {coding.decode()} parts."


def test_a_window_of_more_memory_than_a_sender_may_count_on_is_refused() -> None:
    wide: dict[int, int] = {zstd.CompressionParameter.window_log: 24, zstd.CompressionParameter.checksum_flag: 1}
    packing = zstd.ZstdCompressor(options=wide)
    body = packing.compress(b"x" * 1000) + packing.flush()  # of a stream, whose length is not known at its beginning
    with pytest.raises(ApiError, match="The body is not zstd"):
        unpack(body, b"zstd", 9999)


def test_every_error_of_control_is_json() -> None:
    async def broken(_request: Request) -> Response:
        raise RuntimeError("a fault")

    app = Starlette(routes=[Route("/broken", broken)], exception_handlers=IN_JSON)
    client = TestClient(app, raise_server_exceptions=False)
    found = [
        (got.status_code, got.json()["error"]["code"])
        for got in (client.get("/no"), client.post("/broken"), client.get("/broken"))
    ]
    assert found == [(404, "unknown_url"), (405, "method_not_allowed"), (500, "internal_error")]
