"""What clients see of the emulated engine: the official SDK and plain HTTP against a real process."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam
from openai.types.responses import Response
from prometheus_client.parser import text_string_to_metric_families

from tests.live.emulator.process import Running, engine

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello there, engine"}]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with engine(tmp_path_factory.mktemp("engine"), "--speed", "20", "--prefix-hits", "0.5") as one:
        yield one


@pytest.fixture(scope="module")
def client(running: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as one:
        yield one


@pytest.fixture(scope="module")
def http(running: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=running.url) as one:
        yield one


def samples(http: httpx.Client) -> dict[str, float]:
    """Metrics without labels other than the engine's own: name to value."""
    families = text_string_to_metric_families(http.get("/metrics").raise_for_status().text)
    return {s.name: s.value for family in families for s in family.samples if "finished_reason" not in s.labels}


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    assert [one.id for one in client.models.list()] == ["small"]
    assert client.models.retrieve("small").id == "small"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("large")


def test_a_chat_answer_has_as_many_tokens_as_asked_for(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="small", messages=HELLO, max_completion_tokens=7, extra_body={"ignore_eos": True}
    )
    assert answer.choices[0].finish_reason == "length"
    assert len((answer.choices[0].message.content or "").split()) == 7
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (9, 7, 16)


def test_equal_prompts_get_equal_answers_and_others_do_not(client: openai.OpenAI) -> None:
    texts = [
        client.chat.completions.create(model="small", messages=[{"role": "user", "content": said}]).choices[0].message.content
        for said in ("one", "one", "two")
    ]
    assert texts[0] == texts[1] != texts[2]


def test_a_stream_begins_with_the_role_and_ends_with_the_usage(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="small", messages=HELLO, max_tokens=5, stream=True, stream_options={"include_usage": True}, n=2,
            extra_body={"ignore_eos": True},
        )
    )  # fmt: skip
    for index in range(2):
        mine = [chunk.choices[0] for chunk in chunks if chunk.choices and chunk.choices[0].index == index]
        assert mine[0].delta.role == "assistant"
        assert len("".join(one.delta.content or "" for one in mine).split()) == 5
        assert [one.finish_reason for one in mine] == [None] * 5 + ["length"]
    assert not chunks[-1].choices
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 10


def test_a_stream_and_a_whole_answer_say_the_same(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="small", prompt="tell me", max_tokens=30, logprobs=1)
    parts = client.completions.create(model="small", prompt="tell me", max_tokens=30, stream=True)
    assert "".join(one.choices[0].text for one in parts) == whole.choices[0].text
    assert whole.choices[0].logprobs is not None
    assert "".join(whole.choices[0].logprobs.tokens or []) == whole.choices[0].text


def test_a_stop_word_ends_the_answer_before_it(client: openai.OpenAI) -> None:
    free = client.completions.create(model="small", prompt="tell me", max_tokens=30, extra_body={"ignore_eos": True})
    words = free.choices[0].text.split()
    stopped = client.completions.create(model="small", prompt="tell me", max_tokens=30, stop=[words[6], "\n"])
    assert stopped.choices[0].finish_reason == "stop"
    assert stopped.choices[0].text == free.choices[0].text.partition(words[6])[0]
    later = client.completions.create(
        model="small", prompt="tell me", max_tokens=30, stop=words[2], extra_body={"min_tokens": 9, "ignore_eos": True}
    )
    assert len(later.choices[0].text.split()) >= 9


def test_prompts_may_be_numbers_of_tokens_and_several(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="small", prompt=[[1, 2, 3], [4, 5]], max_tokens=2, n=2)
    assert [one.index for one in answer.choices] == [0, 1, 2, 3]
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 5


def test_embeddings_follow_from_the_input_and_have_length_one(client: openai.OpenAI) -> None:
    first, second, third = client.embeddings.create(model="small", input=["a", "a", "b"], dimensions=64).data
    assert first.embedding == second.embedding != third.embedding
    assert sum(x * x for x in first.embedding) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("chat/completions", {"model": "large", "messages": HELLO}, 404, "model"),
        ("chat/completions", {"model": "small", "messages": []}, 400, "messages"),
        ("chat/completions", {"model": "small", "messages": HELLO, "max_tokens": 0}, 400, "max_tokens"),
        ("chat/completions", {"model": "small", "messages": HELLO, "n": 1000}, 400, "n"),
        ("chat/completions", {"model": "small", "messages": HELLO, "max_tokens": 2, "min_tokens": 3}, 400, "min_tokens"),
        ("chat/completions", {"model": "small", "messages": "hello"}, 400, None),
        ("completions", {"model": "small", "prompt": "x" * 12_001, "max_tokens": 1}, 400, None),
        ("completions", {"model": "small", "prompt": [1] * 2_990, "max_tokens": 11}, 400, None),
        ("completions", {"model": "small", "prompt": []}, 400, "prompt"),
        ("completions", {"model": "small", "prompt": [1, "a"]}, 400, "prompt"),
        ("embeddings", {"model": "small", "input": "a", "dimensions": 0}, 400, "dimensions"),
        ("nothing", {}, 404, None),
    ],
)
def test_a_wrong_request_gets_an_error_body(
    http: httpx.Client, path: str, body: dict[str, object], status: int, param: str | None
) -> None:
    answer = http.post(f"/v1/{path}", json=body)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["param"], error["code"]) == (param, status)
    assert error["message"]


def test_bodies_that_are_not_json_or_not_http_are_refused(http: httpx.Client) -> None:
    assert http.post("/v1/chat/completions", content=b"{").status_code == 400
    assert http.post("/v1/chat/completions", content=b"", headers={"x-long": "y" * 70_000}).status_code == 431


def test_ten_megabytes_of_body_are_read(http: httpx.Client) -> None:
    answer = http.post("/v1/completions", json={"model": "small", "prompt": "x" * 10_000_000})
    assert "maximum context length" in answer.json()["error"]["message"]


def test_the_request_id_names_the_answer(http: httpx.Client) -> None:
    answer = http.post("/v1/completions", json={"prompt": "a", "max_tokens": 1}, headers={"X-Request-Id": "mine"})
    assert answer.json()["id"] == "cmpl-mine"


def test_usage_can_come_with_every_chunk(http: httpx.Client) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    body = {"prompt": "a", "max_tokens": 3, "stream": True, "stream_options": options, "ignore_eos": True}
    lines = http.post("/v1/completions", json=body).text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    counts = [json.loads(line.removeprefix("data: "))["usage"]["completion_tokens"] for line in lines[:-2]]
    assert counts == [1, 2, 3, 3]


def test_metrics_add_up(http: httpx.Client) -> None:
    before = samples(http)
    http.post("/v1/completions", json={"prompt": [1] * 300, "max_tokens": 6, "ignore_eos": True, "n": 2}).raise_for_status()
    after = samples(http)
    gained = {name: after[name] - before[name] for name in after}
    assert gained["vllm:prompt_tokens_total"] == 600
    assert gained["vllm:generation_tokens_total"] == 12
    assert gained["vllm:time_to_first_token_seconds_count"] == 2
    assert gained["vllm:inter_token_latency_seconds_count"] == 10
    assert gained["vllm:e2e_request_latency_seconds_count"] == 2
    # half of each prompt is cached: a chunk of 256 tokens and one of 56, and five decodes each, at twenty times the speed
    assert gained["vllm:e2e_request_latency_seconds_sum"] > (2 * 0.004 + (1 + 5) * 0.020 + (2 + 5) * 0.020) / 20
    assert gained["vllm:prefix_cache_queries_total"] == 600
    assert gained["vllm:prefix_cache_hits_total"] == 2 * 144  # half of 300, in whole blocks of 16
    assert after["vllm:num_requests_running"] == after["vllm:kv_cache_usage_perc"] == 0


def test_a_client_that_leaves_is_forgotten_at_once(http: httpx.Client, running: Running) -> None:
    body = {"prompt": "a", "max_tokens": 2500, "ignore_eos": True, "stream": True, "n": 3}
    with httpx.Client(base_url=running.url) as other, other.stream("POST", "/v1/completions", json=body) as answer:
        parts = answer.iter_raw()
        assert next(parts)
        assert samples(http)["vllm:num_requests_running"] == 3
    deadline = time.perf_counter() + 0.5
    while samples(http)["vllm:num_requests_running"] and time.perf_counter() < deadline:
        time.sleep(0.01)
    assert samples(http)["vllm:num_requests_running"] == 0


def test_a_client_that_leaves_without_a_stream_is_forgotten_too(http: httpx.Client, running: Running) -> None:
    body = {"prompt": "a", "max_tokens": 2500, "ignore_eos": True}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{running.url}/v1/completions", json=body, timeout=0.2)
    time.sleep(0.1)
    assert samples(http)["vllm:num_requests_running"] == 0


def test_faults_cannot_be_set_unless_allowed(http: httpx.Client) -> None:
    assert http.post("/_fault", json={"hang": True}).status_code == 404


# --- responses and tool calls ---

SPEAKS = {"name": "say", "description": "says it", "parameters": {"type": "object", "properties": {"text": {"type": "string"}}}}


def test_a_response_is_whole_or_a_stream_of_steps_with_the_same_text(client: openai.OpenAI) -> None:
    whole = client.responses.create(model="small", input="hello there, engine", instructions="be short")
    assert (whole.status, whole.output[0].type) == ("completed", "message")
    assert whole.usage is not None
    assert whole.usage.output_tokens == len(whole.output_text.split())
    steps = list(client.responses.create(model="small", input="hello there, engine", instructions="be short", stream=True))
    assert [step.sequence_number for step in steps] == list(range(len(steps)))
    assert [step.type for step in steps[:4]] == [
        "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
    ]  # fmt: skip
    assert "".join(step.delta for step in steps if step.type == "response.output_text.delta") == whole.output_text
    last = steps[-1]
    assert last.type == "response.completed"
    assert (last.response.output_text, last.response.usage) == (whole.output_text, whole.usage)


def test_a_response_that_may_be_no_longer_is_incomplete(client: openai.OpenAI) -> None:
    for stream in (False, True):
        cut = client.responses.create(
            model="small", input="hello", max_output_tokens=3, stream=stream, extra_body={"ignore_eos": True}
        )
        found = cut if isinstance(cut, Response) else next(s.response for s in cut if s.type == "response.incomplete")
        assert (found.status, found.usage and found.usage.output_tokens) == ("incomplete", 3)
        assert found.incomplete_details is not None


def test_functions_are_called_where_one_has_to_be(client: openai.OpenAI) -> None:
    tools: Any = [{"type": "function", "function": SPEAKS}]
    asked: Any = {"model": "small", "messages": HELLO, "tools": tools}
    choices: list[Any] = ["required", {"type": "function", "function": {"name": "say"}}]
    for choice in choices:
        answer = client.chat.completions.create(**asked, tool_choice=choice)
        (call,) = answer.choices[0].message.tool_calls or []
        assert (call.function.name, answer.choices[0].finish_reason) == ("say", "tool_calls")
        arguments = json.loads(call.function.arguments)
        assert answer.usage is not None
        assert len(arguments["text"].split()) == answer.usage.completion_tokens
        chunks = list(client.chat.completions.create(**asked, tool_choice=choice, stream=True))
        parts = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or [] if call.function]
        assert parts[0].function.name == "say"
        assert json.loads("".join(part.function.arguments or "" for part in parts)) == arguments
        assert chunks[-1].choices[0].finish_reason == "tool_calls"
    assert client.chat.completions.create(**asked).choices[0].message.content, "where none has to be, a text is the answer"
    with pytest.raises(openai.BadRequestError, match="not among the tools"):
        client.chat.completions.create(**asked, tool_choice={"type": "function", "function": {"name": "sing"}})
    nameless: Any = [{"type": "function", **SPEAKS}, {"type": "function", "parameters": {}}]
    words: list[Any] = ["auto", "required"]
    for word in words:
        with pytest.raises(openai.BadRequestError, match=r"tools\[1\] is a function without a name"):
            client.responses.create(model="small", input="hello", tools=nameless, tool_choice=word)
    again: Any = [{"type": "function", **SPEAKS}]
    response = client.responses.create(model="small", input="hello", tools=again, tool_choice="required")
    item = response.output[0]
    assert item.type == "function_call"
    steps = list(client.responses.create(model="small", input="hello", tools=again, tool_choice="required", stream=True))
    pieces = "".join(step.delta for step in steps if step.type == "response.function_call_arguments.delta")
    assert pieces == item.arguments
    assert json.loads(pieces)["text"]


def test_a_response_does_not_go_on_from_one_that_nobody_kept(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="no response is kept here"):
        client.responses.create(model="small", input="hello", previous_response_id="resp_1")
