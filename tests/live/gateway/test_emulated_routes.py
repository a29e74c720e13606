"""The gateway before an emulated engine: responses and function calls arrive whole, under the client's model name, counted.

Both run in this process, on one event loop. Read next: `tests/live/emulator/test_engine_api.py`, `test_more_routes.py`.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import openai
import pytest

from sageserve.core.engine.timing import row_of
from sageserve.live.emulator.connection import ServedConnection
from sageserve.live.emulator.engine import Engine, Served
from sageserve.live.emulator.faults import EngineFaults
from sageserve.live.emulator.requests import ServedLimits
from sageserve.live.emulator.run import SystemClock
from sageserve.live.emulator.text import AnswerLengths
from sageserve.live.gateway.context import Options
from sageserve.live.gateway.server import GatewayBinding, GatewayProcess
from tests.core.small import scenario
from tests.live.gateway.stage import play

SAY: Any = {"name": "say", "parameters": {"type": "object", "properties": {"text": {"type": "string"}}}}
TOOLS: Any = [{"type": "function", "function": SAY}]
HELLO: Any = [{"role": "user", "content": "hello there"}]
Story = Callable[[openai.AsyncOpenAI], Awaitable[tuple[int, int]]]


async def whole_response(client: openai.AsyncOpenAI) -> tuple[int, int]:
    found = await client.responses.create(model="big", input="hello there", service_tier="priority")
    assert (found.model, found.status, found.service_tier) == ("big", "completed", "priority")
    assert found.usage is not None
    return found.usage.input_tokens, found.usage.output_tokens


async def streamed_response(client: openai.AsyncOpenAI) -> tuple[int, int]:
    stream = await client.responses.create(model="big", input="hello there", service_tier="priority", stream=True)
    steps = [step async for step in stream]
    assert [step.sequence_number for step in steps] == list(range(len(steps)))
    last = steps[-1]
    assert last.type == "response.completed"
    assert (last.response.model, steps[0].type) == ("big", "response.created")
    assert "".join(step.delta for step in steps if step.type == "response.output_text.delta") == last.response.output_text
    assert last.response.usage is not None
    return last.response.usage.input_tokens, last.response.usage.output_tokens


async def streamed_function_call(client: openai.AsyncOpenAI) -> tuple[int, int]:
    stream = await client.chat.completions.create(
        model="big", messages=HELLO, tools=TOOLS, tool_choice="required", stream=True, service_tier="priority",
        stream_options={"include_usage": True},
    )  # fmt: skip
    chunks = [chunk async for chunk in stream]
    assert {chunk.model for chunk in chunks} == {"big"}
    parts = [call.function for chunk in chunks if chunk.choices for call in chunk.choices[0].delta.tool_calls or []]
    text = json.loads("".join(part.arguments or "" for part in parts if part))["text"]
    used = chunks[-1].usage
    assert used is not None
    assert len(text.split()) == used.completion_tokens
    return used.prompt_tokens, used.completion_tokens


async def whole_function_call(client: openai.AsyncOpenAI) -> tuple[int, int]:
    found = await client.chat.completions.create(
        model="big", messages=HELLO, tools=TOOLS, tool_choice="required", service_tier="priority"
    )
    (call,) = found.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert json.loads(call.function.arguments)["text"]
    assert found.usage is not None
    return found.usage.prompt_tokens, found.usage.completion_tokens


@pytest.mark.parametrize("ask", [whole_response, streamed_response, streamed_function_call, whole_function_call])
def test_what_an_engine_answers_arrives_and_is_counted(ask: Story) -> None:
    async def story() -> None:
        settings = scenario()
        limits = ServedLimits("engines-own", 8_000, AnswerLengths(12.0, 0))
        served = Served(limits, row_of(settings.models["big"].engines["h100"]), speed=100.0)
        engine = Engine(served, SystemClock(), EngineFaults(), lambda: None)
        connections: set[ServedConnection] = set()
        listening = await asyncio.get_running_loop().create_server(lambda: ServedConnection(engine, connections), "127.0.0.1", 0)
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        place = {"region": "east", "model": "big", "url": url, "served_model": "engines-own"}
        worker = GatewayProcess(
            scenario(live={"instances": [place]}), GatewayBinding(host="127.0.0.1", port=0, options=Options(nonce="t"))
        )
        await worker.start()
        async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{worker.port}/v1", api_key="none", max_retries=0) as client:
            prompt, output = await ask(client)
        (cell,) = worker.context.demand.report(0).cells
        assert (cell.requests, cell.finished, cell.on_time, cell.output_tokens) == (1, 1, 1, output)
        line = worker.context.meter.lines[0][0]
        assert (line.prompt, line.output) == (prompt, output)
        await worker.close()
        listening.close()
        for connection in list(connections):
            connection.close()

    play(story())
