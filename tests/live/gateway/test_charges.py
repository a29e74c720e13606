"""What a key is charged, and what it is refused: answers that are broken off, usage wherever it stands, refusals counted.

Read next: `src/sageserve/live/gateway/record.py`.
"""

import asyncio
import json

import httpx
import pytest

from sageserve.live.gateway import meter as m
from sageserve.live.gateway.context import Options
from sageserve.live.gateway.keys import hash_of
from sageserve.live.gateway.sse import SseTagger, usage_of
from tests.live.gateway.stage import HELLO, STREAM_HEAD, Engine, Got, ask, chunk, event, play, staged

KEYS = [{"name": "alice", "sha256": hash_of(b"k"), "tokens_per_minute": 1000}]
AUTH = {"authorization": "Bearer k"}


def test_a_client_that_leaves_pays_for_what_was_made() -> None:
    async def drip(_got: Got, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + b"".join(chunk(event({"content": "x"})) for _ in range(101)))
        await writer.drain()
        await asyncio.sleep(30)

    async def story() -> None:
        async with staged(Engine(script=drip), keys=KEYS) as stage:
            said, answers = b"", 0
            while answers < 20:
                said = await stage.speak(ask({**HELLO, "stream": True}, headers="authorization: Bearer k\r\n"), until=b"x")
                if b" 429 " in said:
                    break
                answers += 1
                while stage.worker.context.exchanges:  # noqa: ASYNC110 # it ends when the gateway sees the client gone
                    await asyncio.sleep(0.005)
            assert b"rate_limit_exceeded" in said
            assert 8 <= answers <= 11, "1,000 tokens are ten answers of a hundred"

    play(story())


@pytest.mark.parametrize("spaced", [False, True])
def test_usage_is_found_wherever_it_stands(spaced: bool) -> None:
    usage = {"prompt_tokens": 70, "completion_tokens": 30, "total_tokens": 100}
    separators = None if spaced else (",", ":")
    long = [{"text": "usage: {" + "x" * 9000}]
    whole = json.dumps({"id": "1", "usage": usage, "choices": long}, separators=separators).encode()
    assert usage_of(whole) == (70, 30)
    token = json.dumps({"usage": usage, "logprobs": [{"token": "usage"}] * 400}, separators=separators).encode()
    assert usage_of(token) == (70, 30)
    assert usage_of(b'{"usage": null, "x": 1}') == (None, None)
    for feed in (whole, whole[:1] + b" " + whole[1:]):
        tagger = SseTagger(b'"service_tier":"default",')
        tagger.feed(b"data: " + feed + b"\n\n")
        for _ in range(5):
            tagger.feed(event({"content": "y"}, usage=None))
        tagger.feed(b"data: [DONE]\n\n")
        assert tagger.usage() == (70, 30)


def test_an_engine_that_would_pack_its_answer_is_not_asked_to_for_a_key_with_a_limit() -> None:
    async def story() -> None:
        engine = Engine()
        keys = [*KEYS, {"name": "free", "sha256": hash_of(b"free")}]
        async with staged(engine, keys=keys) as stage, httpx.AsyncClient(base_url=stage.url) as client:
            for key in ("k", "free"):
                headers = {"authorization": f"Bearer {key}", "accept-encoding": "gzip"}
                assert (await client.post("/v1/chat/completions", json=HELLO, headers=headers)).status_code == 200
            assert [got.header("accept-encoding") for got in engine.got] == [None, "gzip"]

    play(story())


def test_every_refusal_is_counted_by_key_and_tier() -> None:
    async def story() -> None:
        keys = [{"name": "alice", "sha256": hash_of(b"k"), "requests_per_minute": 1}]
        async with staged(Engine(), keys=keys) as stage, httpx.AsyncClient(base_url=stage.url) as client:
            path = "/v1/chat/completions"
            await client.post(path, json=HELLO)
            await client.post(path, json=HELLO, headers={"authorization": "Bearer wrong"})
            await client.post(path, json={**HELLO, "model": "none"}, headers=AUTH)
            await client.post(path, json={**HELLO, "service_tier": "none"}, headers=AUTH)
            for _ in range(2):
                await client.post(path, json={**HELLO, "service_tier": "priority"}, headers=AUTH)
            await client.get("/nowhere", headers=AUTH)
            await stage.speak(b"NOT HTTP\r\n\r\n")
            text = (await client.get("/metrics")).text
        lines = [line for line in text.splitlines() if line.startswith(m.REFUSALS + "{")]
        found = {line.partition("{")[2].partition("}")[0]: int(float(line.rpartition(" ")[2])) for line in lines}
        assert found == {
            'key="nobody",tier="",code="401"': 2,
            'key="alice",tier="",code="404"': 2,
            'key="alice",tier="",code="400"': 1,
            'key="alice",tier="iw-f",code="429"': 1,
            'key="nobody",tier="",code="400"': 1,
        }

    play(story())


def test_a_job_counts_against_the_key_that_made_its_batch_and_nobody_else_may_choose_who_pays() -> None:
    async def story() -> None:
        keys = [
            {"name": "alice", "sha256": hash_of(b"k"), "requests_per_minute": 2},
            {"name": "bob", "sha256": hash_of(b"b"), "requests_per_minute": 2},
        ]
        engine = Engine()
        async with (
            staged(engine, keys=keys, options=Options(internal="inside", nonce="t")) as stage,
            httpx.AsyncClient(base_url=stage.url) as client,
        ):

            async def send(key: str, payer: str) -> int:
                headers = {"authorization": f"Bearer {key}", "x-sageserve-key": payer}
                return (await client.post("/v1/chat/completions", json=HELLO, headers=headers)).status_code

            assert [await send("inside", "alice") for _ in range(3)] == [200, 200, 429]
            assert await send("k", "alice") == 429, "one account for requests and jobs"
            assert [await send("b", "alice") for _ in range(3)] == [200, 200, 429], "bob pays for himself"
            assert await send("inside", "gone") == 200, "its key was taken away since"
            assert all(got.header("x-sageserve-key") is None for got in engine.got)

    play(story())


def test_who_is_ahead_of_another_key_is_turned_away_first() -> None:
    async def story() -> None:
        keys = [{"name": name, "sha256": hash_of(name.encode())} for name in ("loud", "quiet")]
        async with staged(Engine(), keys=keys) as stage, httpx.AsyncClient(base_url=stage.url) as client:
            context = stage.worker.context

            async def send(name: str) -> httpx.Response:
                return await client.post("/v1/chat/completions", json=HELLO, headers={"authorization": f"Bearer {name}"})

            assert (await send("quiet")).status_code == 200
            for _ in range(20):
                assert (await send("loud")).status_code == 200
            tier = context.tiers.default
            waits = 0.75 * context.routing.promised(tier, 10)
            context.routing.columns[0]["backlog"] = waits
            said = await send("loud")
            assert (said.status_code, said.json()["error"]["code"]) == (429, "overloaded")
            assert "share" in said.json()["error"]["message"]
            assert (await send("quiet")).status_code == 200

    play(story())
