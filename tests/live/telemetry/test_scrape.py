"""Fetching a page: whatever an engine does, the answer is what was seen or why nothing was."""

import asyncio
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from sageserve.live.telemetry.scrape import PAGE_MAX, llama_cpp_tokens, scrape
from sageserve.live.telemetry.seen import Blind, BlindReason, EngineSeen, Seen
from tests.live.telemetry.pages import LLAMA_CPP, VLLM

Handler = Callable[[httpx.Request], httpx.Response]


def look(handler: Handler, model: str = "") -> Seen:
    async def run() -> Seen:
        async with httpx.AsyncClient(transport=httpx.MockTransport(handler), timeout=0.2) as client:
            return await scrape(client, "http://engine/metrics", model)

    return asyncio.run(run())


async def drip() -> AsyncIterator[bytes]:
    """Never silent for long, and never done."""
    while True:
        yield b"# still writing\n"
        await asyncio.sleep(0.05)


def late(_: httpx.Request) -> httpx.Response:
    raise httpx.ReadTimeout("late")


def gone(_: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused")


def test_an_engine_is_seen() -> None:
    one = look(lambda _: httpx.Response(200, text=VLLM), "meta/llama")
    assert isinstance(one, EngineSeen)
    assert one.running == 3


@pytest.mark.parametrize(
    ("handler", "why"),
    [
        (late, BlindReason.TIMEOUT),
        (gone, BlindReason.UNREACHABLE),
        (lambda _: httpx.Response(404, text="not found"), BlindReason.STATUS),
        (lambda _: httpx.Response(200, text="<html>"), BlindReason.NO_SERIES),
        (lambda _: httpx.Response(200, content=b"x" * (PAGE_MAX + 1)), BlindReason.TOO_LARGE),
        (lambda _: httpx.Response(200, content=drip()), BlindReason.TIMEOUT),
        (lambda _: httpx.Response(200, text=VLLM.replace("vllm:num_requests_running", "x")), BlindReason.NO_SERIES),
    ],
)
def test_an_engine_is_not_seen_for_a_reason(handler: Handler, why: BlindReason) -> None:
    found = look(handler, "meta/Llama")
    assert isinstance(found, Blind)
    assert found.why is why
    assert found.detail


def test_the_memory_of_llama_cpp_is_asked_for_elsewhere() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/props":
            return httpx.Response(200, json={"total_slots": 4, "default_generation_settings": {"n_ctx": 2048}, "more": 1})
        return httpx.Response(200, text=LLAMA_CPP)

    async def run(handler: Handler) -> int | None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(handler)) as client:
            return await llama_cpp_tokens(client, "http://engine")

    assert asyncio.run(run(answer)) == 8192
    for text in ("no", '{"x":' + "[" * 100_000):
        assert asyncio.run(run(lambda _, text=text: httpx.Response(404, text=text))) is None  # type: ignore[misc] # bound now
    assert asyncio.run(run(gone)) is None
