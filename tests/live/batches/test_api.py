"""The Files and Batch APIs under OpenAI's own client: shapes, states, errors, and what a line becomes.

Read next: `src/sageserve/live/batches/`.
"""

import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import openai
import pytest
from openai.types import Batch

from sageserve.base.config import LiveSettings
from sageserve.base.units import HOUR
from sageserve.live.store.sql import open_store
from tests.live.batches.gateway import FakeGateway
from tests.live.batches.plane import Plane, Served, served, wall_us

CHAT: Final = "/v1/chat/completions"
OVER = {"completed", "failed", "expired", "cancelled"}
LIVE = LiveSettings.model_validate({"limits": {"lines": 3000, "file": "2MB"}, "jobs": {"attempts": 3}})


@pytest.fixture(scope="module")
def gateway() -> Iterator[FakeGateway]:
    with FakeGateway().running() as one:
        yield one


@pytest.fixture(scope="module")
def service(gateway: FakeGateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    plane = Plane(open_store("sqlite", tmp_path_factory.mktemp("state")), gateway.url, LIVE)
    with served(plane) as one:
        yield one


def client_of(service: Served, key: str = "anyone") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{service.url}/v1", api_key="x", max_retries=0, default_headers={"x-sageserve-key": key})


@pytest.fixture
def client(service: Served) -> openai.OpenAI:
    return client_of(service)


_numbers = iter(range(1000, 10**9))


def line(number: int | None = None, **body: Any) -> dict[str, Any]:  # noqa: ANN401 # JSON
    n = next(_numbers) if number is None else number
    return {"custom_id": f"c{n}", "method": "POST", "url": CHAT, "body": {"model": "big", "n": n, **body}}


def upload(client: openai.OpenAI, *lines: dict[str, Any] | bytes, name: str = "in.jsonl") -> str:
    text = b"\n".join(one if isinstance(one, bytes) else json.dumps(one).encode() for one in lines)
    return client.files.create(file=(name, text), purpose="batch").id


def submit(client: openai.OpenAI, *lines: dict[str, Any] | bytes, **more: Any) -> Batch:  # noqa: ANN401 # JSON
    return client.batches.create(
        input_file_id=upload(client, *lines), endpoint=CHAT, completion_window=more.pop("window", "24h"), **more
    )


def until(check: Callable[[], bool], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds  # noqa: TID251 # a test waits for a thread
    while not check():
        assert time.monotonic() < end, "it did not happen"  # noqa: TID251 # as above
        time.sleep(0.04)


def finished(client: openai.OpenAI, batch: Batch) -> Batch:
    until(lambda: client.batches.retrieve(batch.id).status in OVER)
    return client.batches.retrieve(batch.id)


def lines_of(client: openai.OpenAI, file: str | None) -> list[dict[str, Any]]:
    return [] if file is None else [json.loads(text) for text in client.files.content(file).text.splitlines()]


def test_files_are_kept_listed_read_and_deleted(client: openai.OpenAI) -> None:
    content = b"x" * 1_500_000 + b"\n"
    made = client.files.create(file=("big.jsonl", io.BytesIO(content)), purpose="batch")
    assert (made.bytes, made.filename, made.purpose, made.object) == (len(content), "big.jsonl", "batch", "file")
    assert made.expires_at == made.created_at + 30 * 24 * 3600
    brief = client.files.create(file=("b", b"{}"), purpose="batch", expires_after={"anchor": "created_at", "seconds": 7200})
    assert brief.expires_at == brief.created_at + 7200
    assert client.files.retrieve(made.id) == made
    assert client.files.content(made.id).content == content
    assert [one.id for one in client.files.list(limit=1)][:2] == [brief.id, made.id], "pages follow each other, newest first"
    oldest = [one.id for one in client.files.list(order="asc")]
    assert oldest == [one.id for one in client.files.list()][::-1]
    assert client.files.delete(made.id).deleted
    for gone in (
        lambda: client.files.retrieve(made.id),
        lambda: client.files.content(made.id),
        lambda: client.files.delete(made.id),
    ):
        with pytest.raises(openai.NotFoundError):
            gone()


@pytest.mark.parametrize("size", [1 << 16, (1 << 16) + 1, 1 << 20])
@pytest.mark.parametrize("chunked", [False, True])
def test_an_order_that_is_too_long_is_refused_whether_it_says_its_length_or_not(
    service: Served, size: int, chunked: bool
) -> None:
    order = json.dumps({"input_file_id": "file-none", "endpoint": CHAT, "completion_window": "24h"}).encode()
    order += b" " * (size - len(order))
    pieces = (order[at : at + 10_000] for at in range(0, size, 10_000))
    answer = httpx.post(f"{service.url}/v1/batches", content=pieces if chunked else order)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == ((413, "request_too_large") if size > 1 << 16 else (400, "file_not_found"))
    assert size <= 1 << 16 or "65536 bytes" in error["message"].replace(",", "")


@pytest.mark.parametrize("chunked", [False, True])
def test_an_upload_that_is_too_long_is_refused_whether_it_says_its_length_or_not(service: Served, chunked: bool) -> None:
    body = b"--b\r\ncontent-disposition: form-data; name=file; filename=f\r\n\r\n" + b"x" * 4_000_000 + b"\r\n--b--\r\n"
    pieces = (body[at : at + 100_000] for at in range(0, len(body), 100_000))
    headers = {"content-type": "multipart/form-data; boundary=b"}
    answer = httpx.post(f"{service.url}/v1/files", content=pieces if chunked else body, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


@pytest.mark.parametrize(
    ("form", "kind"),
    [
        ({"purpose": "fine-tune"}, openai.BadRequestError),
        ({"purpose": "batch", "expires_after": {"anchor": "created_at", "seconds": 5}}, openai.BadRequestError),
        ({"purpose": "batch", "expires_after": {"anchor": "yesterday", "seconds": 5000}}, openai.BadRequestError),
    ],
)
def test_a_wrong_upload_is_refused(client: openai.OpenAI, form: dict[str, Any], kind: type[openai.APIStatusError]) -> None:
    with pytest.raises(kind) as caught:
        client.files.create(file=("f", b"{}"), **form)
    assert caught.value.type == "invalid_request_error"
    assert caught.value.param


def test_a_file_over_the_limit_is_refused_and_leaves_nothing(client: openai.OpenAI) -> None:
    before = [one.id for one in client.files.list()]
    for size in (2_000_001, 4_000_000):
        with pytest.raises(openai.APIStatusError) as caught:
            client.files.create(file=("f", b"x" * size), purpose="batch")
        assert (caught.value.status_code, caught.value.code) == (413, "request_too_large")
    assert [one.id for one in client.files.list()] == before


def test_a_batch_is_run_and_every_line_is_in_one_file(client: openai.OpenAI, gateway: FakeGateway) -> None:
    good = [line() for _ in range(40)]
    refused = line(fails=[400])
    flaky = line(fails=[500, 429, 503, 429])  # one failed attempt, and three times not now
    broken = line(fails=[500, 502, 504])
    batch = submit(client, *good, refused, flaky, broken, metadata={"who": "me"})
    assert (batch.status, batch.object, batch.endpoint, batch.metadata) == ("validating", "batch", CHAT, {"who": "me"})
    assert batch.expires_at == batch.created_at + 24 * 3600
    done = finished(client, batch)
    assert done.status == "completed"
    assert done.errors is None
    assert done.request_counts is not None
    assert (done.request_counts.total, done.request_counts.completed, done.request_counts.failed) == (43, 41, 2)
    stamps = [done.created_at, done.in_progress_at, done.finalizing_at, done.completed_at]
    assert all(stamps)
    assert stamps == sorted(stamps, key=lambda at: at or 0)
    assert done.usage is not None
    assert (done.usage.input_tokens, done.usage.output_tokens, done.usage.total_tokens) == (41 * 3, 41 * 2, 41 * 5)
    output, errors = lines_of(client, done.output_file_id), lines_of(client, done.error_file_id)
    assert [one["custom_id"] for one in output] == [one["custom_id"] for one in [*good, flaky]], "in the order of the input"
    assert all(one["response"]["body"]["answer"] == int(one["custom_id"][1:]) ** 2 for one in output)
    assert all(one["response"]["status_code"] == 200 and one["response"]["request_id"] and one["error"] is None for one in output)
    assert [(one["custom_id"], one["response"]["status_code"]) for one in errors] == [
        (refused["custom_id"], 400),
        (broken["custom_id"], 504),
    ]
    assert len({one["id"] for one in output + errors}) == 43
    runs = [gateway.runs[one["body"]["n"]] for one in (good[0], refused, flaky, broken)]
    assert runs == [1, 1, 5, 3]


def test_jobs_carry_the_internal_key_their_endpoint_and_tier(client: openai.OpenAI, gateway: FakeGateway) -> None:
    finished(client, submit(client, line()))
    head = gateway.heads[-1]
    assert (head["authorization"], head["x-sageserve-endpoint"], head["x-sageserve-tier"]) == ("Bearer internal-key", "1", "niw")


def test_a_broken_connection_is_an_attempt(client: openai.OpenAI, gateway: FakeGateway) -> None:
    cut = line(cut=True)
    done = finished(client, submit(client, cut))
    (error,) = lines_of(client, done.error_file_id)
    assert done.output_file_id is None
    assert error["response"] is None
    assert error["error"]["code"] == "request_failed"
    assert gateway.runs[cut["body"]["n"]] == 3


WRONG: list[tuple[str, bytes | dict[str, Any], int | None]] = [
    ("invalid_json_line", b"{not json", 2),
    ("invalid_request", {"custom_id": "x", "method": "POST", "url": CHAT}, 2),
    ("duplicate_custom_id", line(1), 2),
    ("invalid_method", {**line(2), "method": "GET"}, 2),
    ("invalid_url", {**line(2), "url": "/v1/embeddings"}, 2),
    ("model_not_found", {**line(2), "body": {"model": "nobody"}}, 2),
    ("mismatched_model", {**line(2), "body": {"model": "small"}}, 2),
    ("invalid_custom_id", {**line(2), "custom_id": ""}, 2),
    ("invalid_request", line(2, stream=True), 2),
    ("invalid_json_line", b'{"custom_id": "\xff"}', 2),
]


@pytest.mark.parametrize(("code", "second", "at"), WRONG, ids=[f"{k}-{wrong[0]}" for k, wrong in enumerate(WRONG)])
def test_a_wrong_line_fails_the_batch_and_nothing_is_run(
    client: openai.OpenAI, gateway: FakeGateway, code: str, second: bytes | dict[str, Any], at: int | None
) -> None:
    before = sum(gateway.runs.values())
    done = finished(client, submit(client, line(1), second))
    assert done.status == "failed"
    assert done.failed_at
    assert done.errors is not None
    assert done.errors.data is not None
    assert [(error.code, error.line) for error in done.errors.data] == [(code, at)]
    assert done.output_file_id is None
    assert sum(gateway.runs.values()) == before


def test_an_empty_file_and_one_of_too_many_lines_fail(client: openai.OpenAI) -> None:
    for lines, code in (([b"\n"], "empty_file"), ([line(k) for k in range(1, 3002)], "too_many_requests")):
        done = finished(client, submit(client, *lines))
        assert done.status == "failed"
        assert done.errors is not None
        assert done.errors.data is not None
        assert done.errors.data[0].code == code


@pytest.mark.parametrize(
    "wrong",
    [
        {"endpoint": "/v1/audio"},
        {"completion_window": "48h"},
        {"completion_window": "soon"},
        {"input_file_id": "file-nothing"},
        {"metadata": {str(k): "v" for k in range(17)}},
    ],
)
def test_a_wrong_order_is_refused(client: openai.OpenAI, wrong: dict[str, Any]) -> None:
    order = {"input_file_id": upload(client, line()), "endpoint": CHAT, "completion_window": "24h", **wrong}
    with pytest.raises(openai.BadRequestError) as caught:
        client.batches.create(**order)
    assert caught.value.param == next(iter(wrong))


def test_a_cancelled_batch_stops_and_says_what_was_not_run(client: openai.OpenAI, gateway: FakeGateway) -> None:
    quick, slow = line(), line(wait=60)
    batch = submit(client, quick, slow)
    until(lambda: gateway.inside > 0 and (client.batches.retrieve(batch.id).request_counts or done_none()).completed == 1)
    before = gateway.cancelled
    assert client.batches.cancel(batch.id).status == "cancelling"
    done = finished(client, batch)
    assert done.status == "cancelled"
    assert done.cancelling_at
    assert done.cancelled_at
    assert client.batches.cancel(batch.id) == done, "once more changes nothing"
    assert [one["custom_id"] for one in lines_of(client, done.output_file_id)] == [quick["custom_id"]]
    assert [one["error"]["code"] for one in lines_of(client, done.error_file_id)] == ["batch_cancelled"]
    until(lambda: gateway.cancelled > before)


def done_none() -> Any:  # noqa: ANN401 # never reached once a batch is in progress
    raise AssertionError("a batch has counts")


def test_a_batch_that_is_over_cannot_be_cancelled(client: openai.OpenAI) -> None:
    batch = submit(client, line())
    finished(client, batch)
    with pytest.raises(openai.ConflictError):
        client.batches.cancel(batch.id)


def test_batches_are_listed_newest_first_in_pages(client: openai.OpenAI) -> None:
    made = [submit(client, line()).id for _ in range(3)]
    assert [one.id for one in client.batches.list(limit=2)][:3] == made[::-1]
    with pytest.raises(openai.BadRequestError):
        client.batches.list(limit=101)
    with pytest.raises(openai.NotFoundError):
        client.batches.list(after="batch_nothing")


def test_what_one_key_made_no_other_sees(service: Served) -> None:
    mine, theirs = client_of(service, "me"), client_of(service, "them")
    batch = submit(mine, line())
    done = finished(mine, batch)
    assert not list(theirs.batches.list())
    assert not list(theirs.files.list())
    for look in (
        lambda: theirs.batches.retrieve(batch.id),
        lambda: theirs.batches.cancel(batch.id),
        lambda: theirs.files.content(batch.input_file_id),
        lambda: theirs.files.content(str(done.output_file_id)),
        lambda: theirs.files.delete(batch.input_file_id),
    ):
        with pytest.raises(openai.NotFoundError):
            look()
    with pytest.raises(openai.BadRequestError):
        theirs.batches.create(input_file_id=batch.input_file_id, endpoint=CHAT, completion_window="24h")


def test_time_runs_out_by_the_clock_and_not_by_steps_of_the_wall(gateway: FakeGateway, tmp_path: Path) -> None:
    step = [0]
    plane = Plane(open_store("memory", tmp_path), gateway.url, LIVE, lambda: wall_us() + step[0])
    with served(plane) as service:
        client = client_of(service)
        quick, slow = line(), line(wait=60)
        batch = submit(client, quick, slow, window="1h")
        until(lambda: client.batches.retrieve(batch.id).request_counts.completed == 1)  # type: ignore[union-attr] # it has counts
        for hours in (48, -48):
            step[0] = hours * HOUR
            plane.runner.notify()
            time.sleep(0.3)
            assert client.batches.retrieve(batch.id).status == "in_progress"
        real = plane.clock
        plane.clock = lambda: real() + HOUR
        done = finished(client, batch)
        assert done.status == "expired"
        assert done.expired_at is not None
        assert done.expires_at is not None
        assert done.expired_at >= done.expires_at
        assert [one["custom_id"] for one in lines_of(client, done.output_file_id)] == [quick["custom_id"]]
        (error,) = lines_of(client, done.error_file_id)
        assert (error["custom_id"], error["response"], error["error"]["code"]) == (slow["custom_id"], None, "batch_expired")


def test_jobs_survive_a_gateway_that_is_away(tmp_path: Path) -> None:
    gateway = FakeGateway()
    with gateway.running():
        port = gateway.port
    plane = Plane(open_store("memory", tmp_path), f"http://127.0.0.1:{port}", LIVE)
    with served(plane) as service:
        client = client_of(service)
        batch = submit(client, *(line() for _ in range(20)))
        until(lambda: client.batches.retrieve(batch.id).status == "in_progress")
        time.sleep(1.5)
        assert client.batches.retrieve(batch.id).status == "in_progress", "a gateway that is away is nobody's failed attempt"
        with gateway.running(port):
            done = finished(client, batch)
    assert done.request_counts is not None
    assert done.request_counts.completed == 20
