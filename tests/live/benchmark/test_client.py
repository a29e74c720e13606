"""One request, measured: what counts as a token, who counts them, and what an engine may not do."""

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sageserve.base.errors import MeasurementError
from sageserve.base.rng import stream
from sageserve.live.benchmark.client import Body, RequestFailed, RequestSample, _Events, api_root, connect
from sageserve.live.benchmark.shape import RequestStyle, find_shape
from tests.live.benchmark.canned import canned, events

KEY = "sk-very-secret"


def text(word: str) -> str:
    return json.dumps({"choices": [{"index": 0, "text": word, "finish_reason": None}]})


def delta(**fields: str) -> str:
    return json.dumps({"choices": [{"index": 0, "delta": fields}]})


def usage(prompt: int, output: int) -> str:
    return json.dumps({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": output}})


def ask(*pieces: bytes, key: str | None = None, status: int = 200, kind: str = "text/event-stream") -> RequestSample:
    async def one() -> RequestSample:
        async with canned(*pieces, status=status, kind=kind) as url, connect(url, key) as client:
            return await client.ask(Body("/completions", {"model": "m"}))

    return asyncio.run(one())


def shape_of(*pieces: bytes, kind: str = "text/event-stream", pause_s: float = 0.02) -> RequestStyle:
    async def one() -> RequestStyle:
        async with canned(*pieces, kind=kind, pause_s=pause_s) as url, connect(url, None) as client:
            return await find_shape(client, "m", seed=1)

    return asyncio.run(one())


def test_tokens_are_those_of_usage_and_times_those_of_chunks() -> None:
    sample = ask(events(text("a")), events(text("b c d")), events(usage(7, 4), "[DONE]"))
    assert (sample.prompt, sample.output, len(sample.stamps)) == (7, 4, 2)
    assert 0 < sample.ttft < sample.e2e
    assert sample.tpot == pytest.approx((sample.e2e - sample.ttft) / 3)


def test_a_chunk_with_only_the_role_is_no_token_and_usage_ends_nothing() -> None:
    sample = ask(events(delta(role="assistant", content="")), events(delta(content="hi")), events(usage(3, 1), "[DONE]"))
    assert len(sample.stamps) == 1
    assert sample.ttft > 35_000  # the role came after 20 ms, the token after 40
    assert sample.ttft == sample.e2e
    assert sample.tpot is None


def test_reasoning_is_output() -> None:
    sample = ask(events(delta(role="assistant", reasoning_content="hm")), events(delta(content="x")), events(usage(3, 2)))
    assert len(sample.stamps) == 2


def test_the_worked_example_of_the_docs() -> None:
    one = RequestSample(0, (120_000, 140_000, 160_000, 220_000, 240_000), 10, 5, None)
    two = RequestSample(0, (100_000, 190_000), 10, 2, None)
    assert (one.ttft, one.e2e, one.tpot) == (120_000, 240_000, 30_000)
    assert one.tpot is not None
    assert two.tpot is not None
    assert (one.tpot + two.tpot) / 2 == 60_000


def test_a_stream_that_ends_with_done_is_over_though_the_socket_stays_open() -> None:
    sample = ask(events(text("a"), usage(1, 1), "[DONE]"), b": still here\n\n" * 3)
    assert sample.output == 1


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        ([events(text("a"), "[DONE]")], "without `usage`"),
        ([events(text("a"))], "before it was complete"),
        ([events(usage(3, 0), "[DONE]")], "no token at all"),
        ([events(text("a"), json.dumps({"error": None}), json.dumps({"error": {"message": "out of memory"}}))], "out of memory"),
        ([events("not json")], "no completion chunk"),
        ([b'data: {"choices": [{"index": 0, "text": "\xff"}]}\n\n'], "no completion chunk"),
    ],
)
def test_broken_answers_fail_with_the_reason(pieces: list[bytes], said: str) -> None:
    with pytest.raises(RequestFailed, match=said):
        ask(*pieces)


def test_a_refusal_carries_the_status_and_the_engines_words_but_not_the_key() -> None:
    with pytest.raises(RequestFailed, match="HTTP 401: wrong key") as caught:
        ask(b"wrong key ECHO", key=KEY, status=401, kind="text/plain")
    assert caught.value.status == 401
    assert "***" in str(caught.value)
    assert KEY not in str(caught.value)


def test_no_stream_and_no_usage_are_refused_before_anything_is_measured() -> None:
    whole = json.dumps({"choices": [{"text": "a"}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}).encode()
    with pytest.raises(MeasurementError, match="does not stream"):
        shape_of(whole, kind="application/json", pause_s=0)
    with pytest.raises(MeasurementError, match="include_usage"):
        shape_of(events(*[text("a")] * 16, "[DONE]"), pause_s=0)


def test_a_proxy_that_buffers_is_found_out() -> None:
    with pytest.raises(MeasurementError, match="came all at once"):
        shape_of(events(*[text("a")] * 16, usage(64, 16), "[DONE]"))


def test_an_engine_that_takes_no_token_numbers_gets_words() -> None:
    # whatever is sent, it says 70 prompt tokens: token numbers are exact, so these were none
    shape = shape_of(events(text("a")), events(*[text("b")] * 15, usage(70, 16), "[DONE]"), pause_s=0.005)
    assert isinstance(shape.body("x", 3).fields["prompt"], str)
    assert not isinstance(shape.prompts.make(50, stream(1, "test")), list)


@pytest.mark.parametrize("url", ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/", "h:1"])
def test_urls_are_taken_with_and_without_v1(url: str) -> None:
    assert api_root(url) == "http://h:1/v1"


@pytest.mark.parametrize("url", ["ftp://h", "http://", "http://user:word@h", "http://h/v1?key=1"])
def test_urls_with_passwords_and_odd_ones_are_refused_unseen(url: str) -> None:
    with pytest.raises(MeasurementError) as caught:
        api_root(url)
    assert "word" not in str(caught.value).replace("password", "")


def test_a_key_with_a_line_end_is_refused_without_showing_it() -> None:
    async def one() -> None:
        async with connect("http://h:1", KEY + "\nx"):
            pass

    with pytest.raises(MeasurementError, match="line end") as caught:
        asyncio.run(one())
    assert KEY not in str(caught.value)


@given(st.lists(st.text('abc {}:,"', max_size=9), max_size=6), st.data())
def test_events_may_be_cut_anywhere(texts: list[str], data: st.DataObject) -> None:
    whole = b": ping\r\n\r\n" + b"".join(b"data: " + each.encode() + b"\r\n\r\n" for each in texts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    reader, got = _Events(), []
    for begin, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        got += [event.decode() for event in reader.feed(whole[begin:end])]
    assert got == [each.strip() for each in texts]
