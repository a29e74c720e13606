"""Clients that mean harm or cannot do better: slow ones, ambiguous ones, and bytes cut anywhere.

Read next: `src/sageserve/live/gateway/client.py`, `framing.py` and `sse.py`, which are under test.
"""

import asyncio
import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sageserve.core.strategies import layout_of
from sageserve.live.gateway.client import PIPELINED, Client
from sageserve.live.gateway.context import GatewayContext, Options
from sageserve.live.gateway.framing import BadAnswer, ChunkedBody, read_head
from sageserve.live.gateway.renaming import with_model
from sageserve.live.gateway.sse import SseTagger, tag_body, usage_of
from sageserve.live.gateway.static_table import static_table
from tests.core.small import scenario
from tests.live.gateway.stage import HELLO, Engine, ask, chunk, event, play, staged

POST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
AMBIGUOUS = {
    "both lengths": POST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "both lengths, other order": POST + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{} ",
    "two equal lengths": POST + b"content-length: 2\r\ncontent-length: 2\r\n\r\n{}",
    "a list of lengths": POST + b"content-length: 2, 2\r\n\r\n{}",
    "a signed length": POST + b"content-length: +2\r\n\r\n{}",
    "a folded header": POST + b"content-length: 2\r\nx-a: b\r\n c\r\n\r\n{}",
    "a space before the colon": POST + b"content-length : 2\r\n\r\n{}",
    "an unknown coding": POST + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": POST + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "a disguised coding": POST + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked in 1.0": POST.replace(b"1.1", b"1.0") + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "no host": b"GET /v1/models HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /v1/models HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
    "a null in a header": POST + b"x-a: b\0c\r\ncontent-length: 2\r\n\r\n{}",
    "a bare line feed": POST + b"x-a: b\nx-b: c\r\ncontent-length: 2\r\n\r\n{}",
    "a bad chunk size": POST + b"transfer-encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
    "no HTTP at all": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello",
    "a target that is no path": b"GET models HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "an expectation": POST + b"expect: wonders\r\ncontent-length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("data", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
def test_what_could_be_read_in_two_ways_is_refused_and_the_connection_closed(data: bytes) -> None:
    said = converse([data, ask(HELLO)])
    assert said.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 417 "))
    assert said.count(b"HTTP/1.1 ") == 1, "what follows is not read as a request"
    assert b"connection: close" in said
    assert json.loads(said.partition(b"\r\n\r\n")[2])["error"]["type"] == "invalid_request_error"


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.said = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.said += data

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.closed = True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


SCENARIO = scenario()
LAYOUT = layout_of(SCENARIO)


def converse(pieces: list[bytes]) -> bytes:
    """What a client hears that sends these pieces, from a gateway without engines whose clock stands still."""
    context = GatewayContext(SCENARIO, LAYOUT, options=Options(born=1, nonce="t"), clock=lambda: 1_000_000)
    context.routing.replace(static_table(SCENARIO, LAYOUT), 0)
    client, wire = Client(context), Wire()
    client.connection_made(wire)
    for piece in pieces:
        if not wire.closed:
            client.data_received(piece)
    return wire.said


REQUESTS = b"".join(
    [
        b"GET /v1/models/big HTTP/1.1\r\nhost: localhost\r\nX-Long: " + b"y" * 300 + b"\r\n\r\n",
        ask(HELLO),
        POST + b'transfer-encoding: chunked\r\n\r\n5\r\n{"mod\r\nA;a=b\r\nel":"none"\r\n1\r\n}\r\n0\r\nx-t: 1\r\n\r\n',
        b"\r\nHEAD /health HTTP/1.1\r\nhost: localhost\r\n\r\n",
        ask(
            {"model": "small", "messages": []},
            headers="upgrade: h2c\r\nconnection: upgrade, http2-settings\r\nhttp2-settings: x\r\n",
        ),
        b"GET http://x/health HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"OPTIONS /nothing HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
    ]
)
WHOLE = converse([REQUESTS])


def test_many_requests_in_one_piece_are_answered_in_order() -> None:
    statuses = [part[:3] for part in WHOLE.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200", b"503", b"404", b"200", b"503", b"200", b"404"]


@given(cuts=st.lists(st.integers(1, len(REQUESTS) - 1), max_size=30))
def test_requests_mean_the_same_however_they_are_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(set(cuts)), len(REQUESTS)]
    assert converse([REQUESTS[a:b] for a, b in pairwise(edges)]) == WHOLE


def test_requests_mean_the_same_byte_by_byte() -> None:
    assert converse([REQUESTS[k : k + 1] for k in range(len(REQUESTS))]) == WHOLE


@given(data=st.binary(max_size=300), at=st.integers(0, 400))
@settings(max_examples=200)
def test_any_bytes_are_answered_or_waited_for_and_never_break_the_gateway(data: bytes, at: int) -> None:
    for sent in (data, REQUESTS[:at] + data, POST + data):
        said = converse([sent])
        assert not said or said.startswith(b"HTTP/1.1 ")


def test_pipelining_has_a_bound() -> None:
    async def story() -> None:
        async def hang(*_: object) -> None:
            await asyncio.sleep(30)

        async with staged(Engine(script=hang)) as stage:
            context = stage.worker.context
            reader, writer = await asyncio.open_connection("127.0.0.1", stage.worker.port)
            writer.write(ask(HELLO) + b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n" * (PIPELINED + 2))
            await asyncio.sleep(0.1)
            assert len(context.exchanges) == 1
            next(iter(context.exchanges)).stop()
            async with asyncio.timeout(5):
                said = await reader.read()
                while part := await reader.read():
                    said += part
            assert said.count(b"HTTP/1.1 200") == PIPELINED + 1
            assert b"pipelin" in said
            writer.close()

    play(story())


@pytest.mark.parametrize("part", [b"", b"POST /v1/chat/completions HTT", ask(HELLO)[:-3]])
def test_slow_clients_are_sent_away(part: bytes) -> None:
    async def story() -> None:
        limits = {"header_wait": "300ms", "body_wait": "300ms", "idle": "300ms"}
        async with staged(Engine(), limits=limits) as stage:
            reader, writer = await asyncio.open_connection("127.0.0.1", stage.worker.port)
            loop = asyncio.get_running_loop()
            began = loop.time()
            writer.write(part)
            async with asyncio.timeout(5):
                said = await reader.read()
            assert loop.time() - began < 2
            assert said.startswith(b"HTTP/1.1 408") == bool(part)
            writer.close()

    play(story())


def test_a_header_that_trickles_in_is_cut_off_in_time() -> None:
    async def story() -> None:
        async with staged(Engine(), limits={"header_wait": "400ms"}) as stage:
            reader, writer = await asyncio.open_connection("127.0.0.1", stage.worker.port)
            writer.write(b"GET /health HTTP/1.1\r\n")
            said = asyncio.create_task(reader.read())
            for _ in range(30):
                await asyncio.sleep(0.05)
                if said.done():
                    break
                writer.write(b"x-a: b\r\n")
            assert (await said).startswith(b"HTTP/1.1 408")
            writer.close()

    play(story())


def test_headers_have_a_limit() -> None:
    big = b"GET /health HTTP/1.1\r\nhost: localhost\r\n" + b"x-a: " + b"y" * 70_000 + b"\r\n\r\n"
    for pieces in ([big], [big[k : k + 1000] for k in range(0, len(big), 1000)]):
        assert converse(pieces).startswith(b"HTTP/1.1 431 ")


PAYLOADS = st.lists(st.text(max_size=20), min_size=1, max_size=6)


CUTS = st.lists(st.integers(1, 60) | st.sampled_from([300, 1000]), min_size=1, max_size=10)


@given(words=PAYLOADS, cuts=CUTS, crlf=st.booleans())
def test_events_and_chunks_come_out_the_same_however_they_are_cut(words: list[str], cuts: list[int], crlf: bool) -> None:
    events = [event({"content": word}) for word in words] + [b"data: [DONE]\n\n"]
    if crlf:
        events = [one.replace(b"\n", b"\r\n") for one in events]
    data = b"".join(chunk(one) for one in events) + b"0\r\n\r\n"
    body, reader, out, at, k = ChunkedBody(), SseTagger(b'"service_tier":"default",'), b"", 0, 0
    while at < len(data):
        step = cuts[k % len(cuts)]
        out += reader.feed(body.feed(data[at : at + step]))
        at += step
        k += 1
    assert body.done
    assert reader.done
    assert not body.extra
    texts = [line[6:] for line in out.decode().splitlines() if line.startswith("data: {")]
    decoded = [json.loads(text) for text in texts]
    assert [one["choices"][0]["delta"]["content"] for one in decoded] == words
    assert {one["service_tier"] for one in decoded} == {"default"}
    assert reader.count == len(events)


@given(
    pieces=st.lists(st.tuples(st.binary(min_size=1, max_size=40), st.sampled_from([b"%x", b"%X", b"0%x", b"%x;a=b", b"%x \t"]))),
    trailer=st.sampled_from([b"", b"x-a: b\r\n"]),
    cuts=CUTS,
)
def test_every_form_of_chunks_is_taken_off(pieces: list[tuple[bytes, bytes]], trailer: bytes, cuts: list[int]) -> None:
    data = b"".join(form % len(piece) + b"\r\n" + piece + b"\r\n" for piece, form in pieces) + b"0\r\n" + trailer + b"\r\n"
    body, out, at, k = ChunkedBody(), b"", 0, 0
    while at < len(data):
        assert not body.done
        out += body.feed(data[at : at + cuts[k % len(cuts)]])
        at, k = at + cuts[k % len(cuts)], k + 1
    assert body.done
    assert not body.extra
    assert out == b"".join(piece for piece, _ in pieces)


@pytest.mark.parametrize("size", [b"0x3", b"+3", b"-3", b"3_", b"", b"g", b"000000003"])
@pytest.mark.parametrize("before", [b"", b"1\r\na\r\n"])
def test_what_is_no_size_of_a_chunk_is_refused(size: bytes, before: bytes) -> None:
    with pytest.raises(BadAnswer, match="as the size of a chunk"):
        ChunkedBody().feed(before + size + b"\r\nabc\r\n")


@pytest.mark.parametrize(
    "field",
    [
        b"content-length: " + b"1" * 5_000,
        b"Content-Length:" + b"9" * 16,
        b"x: a\rtransfer-encoding: chunked",
        b"x\0: a",
        b" content-length: 5",
        b"transfer-encoding: chunked\r\ntransfer-encoding: chunked",
    ],
)
def test_a_head_that_readers_could_read_in_two_ways_is_refused(field: bytes) -> None:
    with pytest.raises(BadAnswer):
        read_head(b"HTTP/1.1 200 OK\r\nx-a: b\r\n" + field)


def fed(body: ChunkedBody, pieces: list[bytes]) -> bytes:
    return b"".join(body.feed(piece) for piece in pieces)


@pytest.mark.parametrize("line", [b"3;" + b"x" * 5_000 + b"\r\nabc\r\n", b"0\r\nx: " + b"y" * 5_000 + b"\r\n\r\n"])
def test_a_line_within_chunks_has_a_limit_however_it_is_cut(line: bytes) -> None:
    for cut in (len(line), 100):
        with pytest.raises(BadAnswer, match="a line of more than"):
            fed(ChunkedBody(), [line[at : at + cut] for at in range(0, len(line), cut)])


@given(content=st.text(max_size=60), stated=st.sampled_from([None, "auto", 'a"b']), there=st.booleans())
def test_a_body_is_tagged_once_and_otherwise_unchanged(content: str, stated: str | None, there: bool) -> None:
    body = {"id": "x", "choices": [{"message": {"content": content}}], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}
    text = json.dumps(body | ({"service_tier": stated} if there else {})).encode()
    tagged = tag_body(text, b'"service_tier":"flex",', None)
    assert json.loads(tagged) == {**body, "service_tier": "flex"}
    assert tagged.count(b'"service_tier"') == 1 + text.count(b'"service_tier"') - there
    assert usage_of(tagged) == (7, 3)


@given(
    before=st.dictionaries(st.sampled_from(["a", "model", "b"]), st.text(max_size=5)),
    name=st.text(min_size=1, max_size=8),
    inner=st.text(max_size=9),
)
def test_only_the_outer_model_is_replaced(before: dict[str, str], name: str, inner: str) -> None:
    body = {"x": before, "model": name, "tools": [{"model": inner}], "y": f'"model": "{inner}"'}
    assert json.loads(with_model(json.dumps(body).encode(), "new")) == {**body, "model": "new"}


@given(data=st.binary(max_size=200))
def test_bytes_that_are_no_answer_raise_what_is_expected(data: bytes) -> None:
    for read in (read_head, ChunkedBody().feed):
        try:
            read(data)
        except BadAnswer:
            continue
