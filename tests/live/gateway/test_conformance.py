"""What OpenAI's clients expect of a server, one test per line of the promise, with the official SDK where it can be the judge.

Read next: `stage.py` for the engines behind it, docs/reference/gateway.md for the promises.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam
from prometheus_client.parser import text_string_to_metric_families

from sageserve.live.gateway.context import Options
from tests.live.gateway.stage import (
    DONE,
    HELLO,
    MODEL,
    STREAM_HEAD,
    Engine,
    Got,
    Stage,
    ask,
    chunk,
    event,
    play,
    staged,
    whole,
)

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]


def sdk(stage: Stage, key: str = "none") -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{stage.url}/v1", api_key=key, max_retries=0, timeout=10)


def says(data: bytes) -> Callable[[Got, asyncio.StreamWriter], "asyncio.Future[None]"]:
    async def script(_got: Got, writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return script  # type: ignore[return-value]  # a coroutine function is one of awaitables


def test_the_official_client_gets_an_answer_synchronously() -> None:
    async def story() -> None:
        async with staged(Engine()) as stage:
            client = OpenAI(base_url=f"{stage.url}/v1", api_key="none", max_retries=0)
            got = await asyncio.to_thread(client.chat.completions.create, model=MODEL, messages=MESSAGES)
            assert got.choices[0].message.content == "one two three"
            assert got.service_tier == "default"
            assert got.usage is not None
            assert got.usage.completion_tokens == 4

            def stream() -> str:
                parts = client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
                return "".join(part.choices[0].delta.content or "" for part in parts)

            assert await asyncio.to_thread(stream) == "one two three"
            client.close()

    play(story())


def test_a_stream_has_role_first_one_finish_reason_and_usage_last() -> None:
    async def story() -> None:
        async with staged(Engine()) as stage, sdk(stage) as client:
            stream = await client.chat.completions.create(
                model=MODEL, messages=MESSAGES, stream=True, stream_options={"include_usage": True}, service_tier="priority"
            )
            parts = [part async for part in stream]
            assert parts[0].choices[0].delta.role == "assistant"
            finishes = [choice.finish_reason for part in parts for choice in part.choices if choice.finish_reason]
            assert finishes == ["stop"]
            assert parts[-1].choices == []
            assert parts[-1].usage is not None
            assert {part.service_tier for part in parts} == {"priority"}

    play(story())


def test_stream_headers_and_its_end_right_after_done() -> None:
    async def story() -> None:
        async with staged(Engine()) as stage:
            said = await stage.speak(ask({**HELLO, "stream": True}), until=b"0\r\n\r\n")
            head, _, body = said.partition(b"\r\n\r\n")
            for line in (
                b"content-type: text/event-stream",
                b"cache-control: no-cache",
                b"x-accel-buffering: no",
                b"x-engine: fake",
            ):
                assert head.lower().count(line.partition(b":")[0]) == 1, "ours stands for the engine's"
                assert line in head
            assert body.endswith(DONE + b"\r\n0\r\n\r\n")

    play(story())


def test_completions_embeddings_and_responses_pass_and_zeros_are_kept() -> None:
    async def story() -> None:
        engine = Engine()
        async with staged(engine) as stage, sdk(stage) as client:
            text = await client.completions.create(model=MODEL, prompt="x", temperature=0, seed=0, max_tokens=0, n=1, logprobs=0)
            assert text.choices[0].text == "one"
            assert engine.got[-1].json["temperature"] == 0
            assert engine.got[-1].json["max_tokens"] == 0
            vectors = await client.embeddings.create(model=MODEL, input="x", encoding_format="float")
            assert vectors.data[0].embedding == [0.5, 0.0]
            response = await client.responses.create(model=MODEL, input="x", service_tier="flex")
            assert response.output_text == "one two three"
            assert response.service_tier == "flex"

    play(story())


def test_every_field_and_header_reaches_the_engine_byte_by_byte() -> None:
    async def story() -> None:
        engine = Engine()
        body = (
            b'{ "model":"big" , "messages":[], "x_unknown":null,"metadata":{"a":1.0e0},"priority":0,"cache_salt":"\\u00e9",'
            b'"stop":null,"ignore_eos":true,"tools":[{"type":"function"}],"response_format":{"type":"text"},"user":"u"}'
        )
        async with staged(engine) as stage:
            headers = "X-Correlation-ID: c-1\r\ntraceparent: 00-aa-bb-01\r\nX-Own:  two  words\r\nUser-Agent: t/1\r\n"
            said = await stage.speak(ask(body, path="/v1/chat/completions?api-version=1", headers=headers), until=b"}}")
            assert b"200" in said
            got = engine.got[0]
            assert got.body == body
            assert got.head.startswith(b"POST /v1/chat/completions?api-version=1 HTTP/1.1\r\n")
            assert (got.header("x-correlation-id"), got.header("traceparent")) == ("c-1", "00-aa-bb-01")
            assert (got.header("x-own"), got.header("user-agent")) == ("two  words", "t/1")
            assert got.header("x-request-id")

    play(story())


def test_a_model_with_another_name_at_the_engine_is_spliced_in_and_out() -> None:
    async def story() -> None:
        engine = Engine()
        await engine.start()
        placed = [{"region": "east", "model": MODEL, "url": f"http://127.0.0.1:{engine.port}", "served_model": "org/x"}]
        async with staged(instances=placed) as stage, sdk(stage) as client:
            engine.script = says(whole({"id": "1", "object": "chat.completion", "created": 1, "model": "org/x", "choices": []}))
            got = await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": '"model": "big"'}])
            assert engine.got[0].json["model"] == "org/x"
            assert engine.got[0].json["messages"] == [{"role": "user", "content": '"model": "big"'}]
            assert got.model == MODEL
        await engine.kill()

    play(story())


def test_models_are_listed_and_retrieved() -> None:
    async def story() -> None:
        async with staged(Engine()) as stage, sdk(stage) as client:
            assert [model.id async for model in client.models.list()] == ["big", "small"]
            assert (await client.models.retrieve("big")).id == "big"
            with pytest.raises(openai.NotFoundError) as caught:
                await client.models.retrieve("org/none")
            assert caught.value.code == "model_not_found"
            with pytest.raises(openai.NotFoundError):
                await client.chat.completions.create(model="none", messages=MESSAGES)

    play(story())


def test_request_id_is_echoed_or_made_and_times_are_told() -> None:
    async def story() -> None:
        engine = Engine()
        async with staged(engine) as stage, sdk(stage) as client:
            create = client.chat.completions.with_raw_response.create
            mine = await create(model=MODEL, messages=MESSAGES, extra_headers={"x-request-id": "mine-1"})
            assert mine.headers["x-request-id"] == "mine-1"
            assert engine.got[0].header("x-request-id") == "mine-1"
            made = await create(model=MODEL, messages=MESSAGES)
            assert re.fullmatch("req_[0-9a-z]+", made.headers["x-request-id"])
            assert made.headers["x-request-id"] == engine.got[1].header("x-request-id")
            assert int(made.headers["openai-processing-ms"]) >= 0
            assert (made.headers["x-sageserve-region"], made.headers["x-sageserve-tier"]) == ("east", "iw-n")
            assert int(made.headers["x-sageserve-queue-ms"]) >= 0

    play(story())


def test_ten_megabytes_pass_and_more_than_the_limit_does_not() -> None:
    async def story() -> None:
        engine = Engine()
        async with staged(engine, limits={"body": "12MB"}) as stage, httpx.AsyncClient(base_url=stage.url, timeout=20) as client:
            image = {**HELLO, "image": "x" * 10_000_000}
            assert (await client.post("/v1/chat/completions", json=image)).status_code == 200
            assert len(engine.got[0].body) > 10_000_000
            got = await client.post("/v1/chat/completions", json={**HELLO, "image": "x" * 13_000_000})
            assert (got.status_code, got.json()["error"]["code"]) == (413, "request_too_large")

            async def parts() -> AsyncIterator[bytes]:
                for _ in range(13):
                    yield b"x" * 1_000_000

            chunked = await client.post("/v1/chat/completions", content=parts())
            assert chunked.status_code == 413

    play(story())


def test_chunked_bodies_keep_alive_and_one_connection_for_many_requests() -> None:
    async def story() -> None:
        engine = Engine()
        async with staged(engine) as stage:
            data = json.dumps(HELLO).encode()
            pieces = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(data[k : k + 7]), data[k : k + 7]) for k in range(0, len(data), 7))
            head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
            one = head + pieces + b"0\r\nx-trailer: 1\r\n\r\n"
            last = ask(HELLO, headers="connection: close\r\n")
            said = await stage.speak(one + one + last)
            assert said.count(b"HTTP/1.1 200 ") == 3
            assert [got.body for got in engine.got] == [data, data, data]
            assert engine.connections == 1
            assert b"connection: close" in said.rpartition(b"HTTP/1.1")[2]

    play(story())


def test_health_ready_and_metrics() -> None:
    async def story() -> None:
        async with staged(Engine()) as stage, httpx.AsyncClient(base_url=stage.url) as client:
            assert (await client.get("/health")).status_code == 200
            assert (await client.get("/health/ready")).json() == {"status": "ready"}
            await client.post("/v1/chat/completions", json={**HELLO, "stream": True})
            text = (await client.get("/metrics")).text
            assert 'sageserve_gateway_requests_total{gen_ai_request_model="big",tier="iw-n",region="east",code="200"} 1' in text
            assert 'gen_ai_server_time_to_first_token_seconds_count{gen_ai_request_model="big",tier="iw-n"} 1' in text
            names = {family.name for family in text_string_to_metric_families(text)}
            assert "gen_ai_server_request_duration_seconds" in names

    play(story())


@pytest.mark.parametrize(
    ("request_line", "status", "allow"),
    [
        ("HEAD /v1/models", 200, b""),
        ("HEAD /health", 200, b""),
        ("OPTIONS /v1/chat/completions", 204, b"POST"),
        ("OPTIONS /v1/models", 204, b"GET"),
        ("GET /v1/chat/completions", 405, b"POST"),
        ("DELETE /health", 405, b"GET"),
        ("GET /nothing", 404, b""),
    ],
)
def test_methods_and_paths(request_line: str, status: int, allow: bytes) -> None:
    async def story() -> None:
        async with staged(Engine()) as stage:
            said = await stage.speak(f"{request_line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
            head, _, body = said.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 %d " % status)
            assert allow in head
            assert (body == b"") == (request_line.startswith("HEAD") or status == 204)

    play(story())


def test_expect_100_continue_is_answered_before_the_body() -> None:
    async def story() -> None:
        async with staged(Engine()) as stage:
            reader, writer = await asyncio.open_connection("127.0.0.1", stage.worker.port)
            head, _, body = ask(HELLO, headers="expect: 100-continue\r\n").partition(b"\r\n\r\n")
            writer.write(head + b"\r\n\r\n")
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(body)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            writer.close()

    play(story())


def test_http_1_0_gets_plain_bodies() -> None:
    async def story() -> None:
        async with staged(Engine()) as stage:
            said = await stage.speak(ask({**HELLO, "stream": True}, version="1.0"))
            head, _, body = said.partition(b"\r\n\r\n")
            assert b"transfer-encoding" not in head
            assert b"connection: close" in head
            assert body.startswith(b"data: {")
            assert body.endswith(DONE)

    play(story())


def test_an_engine_that_states_a_tier_or_sends_carriage_returns_is_understood() -> None:
    async def script(_got: Got, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD)
        text = event({"content": 'say "service_tier" {'}, service_tier=None) + event({"content": "data: {"}, "stop") + DONE
        for byte in text.replace(b"\n", b"\r\n"):
            writer.write(chunk(bytes([byte])))
        writer.write(b"0\r\n\r\n")

    async def story() -> None:
        async with staged(Engine(script=script)) as stage, sdk(stage) as client:
            stream = await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True, service_tier="priority")
            parts = [part async for part in stream]
            assert [part.choices[0].delta.content for part in parts] == ['say "service_tier" {', "data: {"]
            assert [part.service_tier for part in parts] == ["priority", "priority"]

    play(story())


def test_control_routes_are_503_when_control_is_away_and_relayed_when_not() -> None:
    async def story() -> None:
        async with (
            staged(Engine(), options=Options(admin=f"http://127.0.0.1:{9}", nonce="t")) as stage,
            httpx.AsyncClient(base_url=stage.url) as client,
        ):
            got = await client.get("/v1/files")
            assert (got.status_code, got.json()["error"]["code"]) == (503, "no_capacity")
        control = Engine()
        await control.start()

        async def upload(got: Got, writer: asyncio.StreamWriter) -> None:
            writer.write(whole({"id": "file-1", "size": len(got.body), "who": got.header("x-sageserve-key")}))

        control.script = upload
        options = Options(admin=f"http://127.0.0.1:{control.port}", nonce="t")
        async with staged(Engine(), options=options) as stage, httpx.AsyncClient(base_url=stage.url) as client:
            got = await client.post("/v1/files", content=b"x" * 3_000_000)
            assert (got.status_code, got.json()) == (200, {"id": "file-1", "size": 3_000_000, "who": "anyone"})
            assert (await client.get("/ui/page", headers={"host": "evil.example"})).status_code == 403
            assert (await client.get("/ui/page")).status_code == 200
        await control.kill()

    play(story())
