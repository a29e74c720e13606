"""Who may ask for what, and every way to be refused: keys, tiers, limits, overload, and errors of engines in one shape.

Read next: `test_conformance.py` for what is answered.
"""

import httpx
import openai
import pytest

from sageserve.live.gateway.context import Options
from sageserve.live.gateway.keys import hash_of
from tests.live.gateway.stage import (
    HELLO,
    MODEL,
    Engine,
    ask,
    play,
    staged,
    whole,
)
from tests.live.gateway.test_conformance import MESSAGES, says, sdk

KEY, LIMITED = "sk-sageserve-a", "sk-sageserve-b"
KEYS = [
    {"name": "all", "sha256": hash_of(KEY.encode())},
    {
        "name": "few",
        "sha256": hash_of(LIMITED.encode()),
        "tiers": ["iw-n", "niw"],
        "requests_per_minute": 3,
        "tokens_per_minute": 100_000,
    },
]


def test_keys_open_the_door_and_tiers_are_rights() -> None:
    async def story() -> None:
        engine = Engine()
        async with staged(engine, keys=KEYS) as stage:
            async with sdk(stage, "sk-wrong") as client:
                with pytest.raises(openai.AuthenticationError) as caught:
                    await client.chat.completions.create(model=MODEL, messages=MESSAGES)
                assert caught.value.code == "invalid_api_key"
                with pytest.raises(openai.AuthenticationError):
                    await client.models.list()
            async with sdk(stage, KEY) as client:
                await client.chat.completions.create(model=MODEL, messages=MESSAGES)
                assert engine.got[0].header("authorization") is None
            async with sdk(stage, LIMITED) as client:
                with pytest.raises(openai.PermissionDeniedError) as refused:
                    await client.chat.completions.create(model=MODEL, messages=MESSAGES, service_tier="priority")
                assert refused.value.code == "permission_denied"

    play(story())


def test_rate_limits_are_told_and_kept() -> None:
    async def story() -> None:
        async with staged(Engine(), keys=KEYS) as stage, sdk(stage, LIMITED) as client:
            create = client.chat.completions.with_raw_response.create
            first = await create(model=MODEL, messages=MESSAGES)
            assert first.headers["x-ratelimit-limit-requests"] == "3"
            assert first.headers["x-ratelimit-remaining-requests"] == "2"
            assert first.headers["x-ratelimit-reset-requests"] == "20s"
            assert int(first.headers["x-ratelimit-remaining-tokens"]) < 100_000
            for _ in range(2):
                await create(model=MODEL, messages=MESSAGES)
            with pytest.raises(openai.RateLimitError) as caught:
                await create(model=MODEL, messages=MESSAGES)
            assert caught.value.code == "rate_limit_exceeded"
            headers = caught.value.response.headers
            assert 0 < int(headers["retry-after-ms"]) <= 20_000
            assert int(headers["retry-after"]) == -(-int(headers["retry-after-ms"]) // 1000)

    play(story())


@pytest.mark.parametrize(
    ("asked", "tier", "said"),
    [
        ("auto", "iw-n", "default"),
        ("default", "iw-n", "default"),
        ("scale", "iw-n", "scale"),
        ("priority", "iw-f", "priority"),
        ("fast", "iw-f", "fast"),
        ("flex", "niw", "flex"),
    ],
)
def test_service_tiers(asked: str, tier: str, said: str) -> None:
    async def story() -> None:
        async with staged(Engine()) as stage, httpx.AsyncClient(base_url=stage.url) as client:
            got = await client.post("/v1/chat/completions", json={**HELLO, "service_tier": asked})
            assert (got.headers["x-sageserve-tier"], got.json()["service_tier"]) == (tier, said)

    play(story())


def test_unknown_tier_and_region_are_refused_and_headers_choose() -> None:
    async def story() -> None:
        engines = Engine(), Engine()
        async with staged(*engines, regions=("east", "west")) as stage, httpx.AsyncClient(base_url=stage.url) as client:
            bad = await client.post("/v1/chat/completions", json={**HELLO, "service_tier": "gold"})
            assert (bad.status_code, bad.json()["error"]["param"]) == (400, "service_tier")
            assert (await client.post("/v1/completions", json=HELLO, headers={"x-sageserve-tier": "no"})).status_code == 400
            headers = {"x-sageserve-region": "west", "x-sageserve-tier": "iw-f"}
            got = await client.post("/v1/chat/completions", json=HELLO, headers=headers)
            assert (got.headers["x-sageserve-region"], got.headers["x-sageserve-tier"]) == ("west", "iw-f")
            assert len(engines[1].got) == 1
            assert (await client.post("/v1/completions", json=HELLO, headers={"x-sageserve-region": "no"})).status_code == 400

    play(story())


def test_only_an_internal_key_may_force_an_endpoint() -> None:
    async def story() -> None:
        engines = Engine(), Engine()
        options = Options(internal="secret", nonce="t")
        async with (
            staged(*engines, regions=("east", "west"), options=options) as stage,
            httpx.AsyncClient(base_url=stage.url, headers={"x-sageserve-endpoint": "2"}) as client,
        ):
            assert (await client.post("/v1/chat/completions", json=HELLO)).status_code == 403
            headers = {"authorization": "Bearer secret", "x-sageserve-tier": "niw"}
            got = await client.post("/v1/chat/completions", json=HELLO, headers=headers)
            assert (got.status_code, len(engines[1].got)) == (200, 1)
            assert engines[1].got[0].header("x-sageserve-endpoint") is None

    play(story())


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{", None),
        (b"", None),
        (b"[]", None),
        (b'{"messages":[]}', "model"),
        (b'{"model":7}', "model"),
        (b'{"model":"big","stream":"yes"}', "stream"),
        (b'{"model":null}', "model"),
        (b"\xff\xfe", None),
        (b"[" * 100_000, None),
    ],
)
def test_bodies_that_are_no_requests_are_refused(body: bytes, param: str | None) -> None:
    async def story() -> None:
        engine = Engine()
        async with staged(engine) as stage, httpx.AsyncClient(base_url=stage.url) as client:
            got = await client.post("/v1/chat/completions", content=body)
            assert got.status_code == 400
            error = got.json()["error"]
            assert (error["type"], error["param"]) == ("invalid_request_error", param)
            assert set(error) == {"message", "type", "param", "code"}
            assert not engine.got

    play(story())


CHUNKED = b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"


def chunks(size: int, piece: int = 100_000) -> bytes:
    """A body of so many bytes in pieces, its end included."""
    whole_ones = b"%x\r\n%b\r\n" % (piece, b"x" * piece) * (size // piece)
    return whole_ones + b"0\r\n\r\n"


@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize(("path", "limit"), [("/v1/chat/completions", 1_000_000), ("/v1/files", 1_500_000 + (1 << 20))])
def test_a_body_that_is_too_large_is_refused_with_the_limit_it_passed(path: str, limit: int, declared: bool) -> None:
    """Also when control has got the beginning of an upload already, and waits for more."""

    async def story() -> None:
        control = Engine()
        await control.start()
        options = Options(admin=f"http://127.0.0.1:{control.port}", nonce="t")
        async with staged(Engine(), options=options, limits={"body": "1MB", "file": "1500kB"}) as stage:
            body = b"content-length: %d\r\n\r\n" % (limit + 100_000) if declared else b"\r\n" + chunks(limit + 100_000)
            head = CHUNKED[:-2] % path.encode()
            if declared:
                head = head.replace(b"transfer-encoding: chunked\r\n", b"")
            said = await stage.speak(head + body, limit_s=40)
        await control.kill()
        assert said.startswith(b"HTTP/1.1 413 ")
        assert b"the limit of %d bytes" % limit in said
        assert said.count(b"HTTP/1.1") == 1

    play(story())


def test_an_upload_that_waits_for_its_turn_may_be_as_large_as_a_body() -> None:
    async def story() -> None:
        engine, control = Engine(), Engine()
        await control.start()
        options = Options(admin=f"http://127.0.0.1:{control.port}", nonce="t")
        async with staged(engine, options=options, limits={"body": "1MB", "file": "5MB"}) as stage:
            behind = ask(HELLO) + CHUNKED % b"/v1/files" + chunks(1_200_000)
            said = await stage.speak(behind, limit_s=40)
        await control.kill()
        assert said.startswith(b"HTTP/1.1 200 ")
        assert b"HTTP/1.1 413 " in said
        assert b"the limit of 1000000 bytes" in said

    play(story())


def test_engines_errors_come_out_in_one_shape() -> None:
    async def story() -> None:
        engine = Engine()
        cases = [
            (400, b"plain text, no JSON", "text/plain", "plain text, no JSON"),
            (
                400,
                {"object": "error", "message": "too long", "type": "BadRequestError", "param": None, "code": 400},
                "",
                "too long",
            ),
            (422, {"detail": [{"msg": "field required", "loc": ["body"]}]}, "", "field required"),
            (404, {"detail": "Not Found"}, "", "Not Found"),
            (500, b"", "text/plain", "Internal Server Error"),
        ]
        async with staged(engine) as stage, httpx.AsyncClient(base_url=stage.url) as client:
            for status, body, kind, message in cases:
                engine.script = says(whole(body, status, kind or "application/json"))
                got = await client.post("/v1/chat/completions", json=HELLO)
                assert (got.status_code, got.headers["content-type"]) == (status, "application/json")
                assert got.json()["error"]["message"] == message
                assert {"message", "type", "param", "code"} <= set(got.json()["error"])
            original = b'{"error": {"message":"m", "type":"t","param":null,"code":17}}'
            engine.script = says(whole(original, 409))
            assert (await client.post("/v1/chat/completions", json=HELLO)).content == original

    play(story())


def test_an_overloaded_engine_means_503_with_retry_after() -> None:
    async def story() -> None:
        async with staged(Engine(script=says(whole({"error": "queue is full"}, 503)))) as stage, sdk(stage) as client:
            with pytest.raises(openai.InternalServerError) as caught:
                await client.chat.completions.create(model=MODEL, messages=MESSAGES)
            assert caught.value.status_code == 503
            assert "retry-after-ms" in caught.value.response.headers

    play(story())


def test_a_queue_that_breaks_the_promise_means_429_that_says_when() -> None:
    async def story() -> None:
        async with staged(Engine()) as stage, httpx.AsyncClient(base_url=stage.url) as client:
            stage.worker.context.routing.columns[0]["backlog"] = 5_000_000.0  # 5 s of prefill, one instance
            fast = await client.post("/v1/chat/completions", json={**HELLO, "service_tier": "priority"})
            assert (fast.status_code, fast.json()["error"]["code"]) == (429, "overloaded")
            assert (fast.headers["retry-after"], fast.headers["retry-after-ms"]) == ("4", "4000")
            assert (await client.post("/v1/chat/completions", json=HELLO)).status_code == 200  # its promise is 60 s
            stage.worker.context.routing.columns[0]["backlog"] = 1e9
            late = await client.post("/v1/chat/completions", json=HELLO)
            assert (late.status_code, late.headers["retry-after"]) == (429, "120")

    play(story())


def test_nothing_open_means_503_no_capacity() -> None:
    async def story() -> None:
        async with staged() as stage, httpx.AsyncClient(base_url=stage.url) as client:
            got = await client.post("/v1/chat/completions", json=HELLO)
            assert (got.status_code, got.json()["error"]["code"]) == (503, "no_capacity")
            assert "retry-after" in got.headers
            assert (await client.get("/health/ready")).status_code == 503

    play(story())
