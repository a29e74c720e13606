"""One line, one answer or one record that nobody can digest: it fails by itself, with a reason, and nothing else notices.

Read next: `gateway.py` for what engines answer here, `src/sageserve/live/batches/job_client.py`.
"""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import openai
import pytest
import sqlalchemy

from sageserve.base.config import LiveSettings
from sageserve.live.batches import gateway_lines, job_client
from sageserve.live.batches.gateway_lines import GatewayAnswer
from sageserve.live.store.models import BadData, Batch, Committed, File, Job, Lease, NewJob, Result
from sageserve.live.store.sql import SqlStore, open_store
from tests.live.batches.gateway import POISON, FakeGateway
from tests.live.batches.plane import Plane, Served, served
from tests.live.batches.test_api import CHAT, client_of, finished, line, lines_of, submit, until

LIVE: Final = LiveSettings.model_validate({"jobs": {"attempts": 2}})
DEEP: Final = b'{"custom_id": "deep", "method": "POST", "url": "%b", "body": {"model": "big", "x": %b1%b}}' % (
    CHAT.encode(),
    b"[" * 1000,
    b"]" * 1000,
)
TEXTS: Final[dict[str, tuple[bytes, str]]] = {
    "deep": (DEEP, "invalid_json_line"),
    "deep in the frame": (b'{"x": ' + b"[" * 1000 + b"]" * 1000 + b"}", "invalid_json_line"),
    "nul": (json.dumps({**line(1), "custom_id": "a\0b"}).encode(), "invalid_custom_id"),
    "surrogate": (json.dumps(line(1)).encode().replace(b'"c1"', b'"\\ud800"'), "invalid_json_line"),
    "latin-1": (json.dumps(line(1, x="é"), ensure_ascii=False).encode("latin-1"), "invalid_json_line"),
    "utf-16": (json.dumps(line(1)).encode("utf-16"), "invalid_json_line"),
}


@pytest.fixture(scope="module")
def gateway() -> Iterator[FakeGateway]:
    with FakeGateway().running() as one:
        yield one


@pytest.fixture(scope="module", params=["sqlite", "memory", "postgres"])
def service(gateway: FakeGateway, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Served]:
    where = request.getfixturevalue("postgres") if request.param == "postgres" else request.param
    with served(Plane(open_store(where, tmp_path_factory.mktemp("state")), gateway.url, LIVE)) as one:
        yield one


def test_a_line_that_cannot_be_read_is_told_by_its_number_and_other_tenants_are_served(service: Served) -> None:
    bad = client_of(service, "bad")
    batches = {name: submit(bad, line(), text) for name, (text, _) in TEXTS.items()}
    good = client_of(service, "good")
    assert finished(good, submit(good, line())).status == "completed"
    for name, (_, code) in TEXTS.items():
        over = finished(bad, batches[name])
        assert over.errors is not None, name
        assert over.errors.data is not None, name
        # A line break of UTF-16 is one byte of two: what follows it is a line of its own.
        assert (over.errors.data[0].code, over.errors.data[0].line) == (code, 2), name


def test_whatever_an_engine_answers_to_one_line_is_that_lines_own(service: Served, gateway: FakeGateway) -> None:
    client = client_of(service)
    wanted = [line(poison=name) for name in POISON]
    over = finished(client, submit(client, line(), *wanted, line()))
    assert over.status == "completed"
    done = {one["custom_id"]: one for one in lines_of(client, over.output_file_id)}
    failed = {one["custom_id"]: one for one in lines_of(client, over.error_file_id)}
    assert len(done) + len(failed) == len(POISON) + 2
    named = {name: sent["custom_id"] for name, sent in zip(POISON, wanted, strict=True)}
    bad = {"unauthorised", "forbidden", "gzip", "deep", "deep lines"}
    assert {name for name, custom in named.items() if custom in failed} == bad
    assert failed[named["unauthorised"]]["response"]["status_code"] == 401
    assert "deep" in failed[named["deep"]]["error"]["message"]
    assert done[named["nul"]]["response"]["body"] == {"answer": "\0"}
    assert isinstance(done[named["half"]]["response"]["body"], str)
    assert over.usage is None or over.usage.output_tokens == 4, "an engine's impossible counts are not added up"


def test_an_answer_without_end_is_not_kept(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (gateway_lines, job_client):
        monkeypatch.setattr(module, "ANSWER_MAX", 20)
    client = client_of(service)
    over = finished(client, submit(client, line()))
    assert "longer than 20 bytes" in lines_of(client, over.error_file_id)[0]["error"]["message"]


def test_a_refusal_that_is_no_text_is_tried_again() -> None:
    class Lines:
        async def post(self, path: str, body: bytes, fields: str) -> GatewayAnswer:
            return GatewayAnswer(429, {}, b'{"error": {"code": "\xff"}}')

        def close(self) -> None: ...

    job = Job(1, (1, 1), "big", CHAT, 0, 0, 2, b"{}", "anyone")
    said = asyncio.run(job_client.ask(Lines(), job, b"{}", "its id", ""))
    assert isinstance(said, job_client.Retry)
    assert (said.failed, said.limited) == (False, False)


def test_the_gateways_own_refusal_of_this_processs_key_fails_no_line(service: Served) -> None:
    client, plane = client_of(service), service.plane
    batch = submit(client, line(fails=[401]))
    until(lambda: plane.runner._away_until > plane.time.clock())
    assert client.batches.retrieve(batch.id).request_counts.failed == 0  # type: ignore[union-attr] # it has some
    plane.runner._away_until = 0
    assert finished(client, batch).status == "completed"


class Choosy(SqlStore):
    """A store that takes neither lines nor results with the word it does not like."""

    def hold(self, number: int, model: str, jobs: Any) -> None:  # noqa: ANN401 # as above
        self._look(*(job.body for job in jobs))
        super().hold(number, model, jobs)

    def commit(self, epoch: int, leases: Any, results: Any) -> Committed:  # noqa: ANN401 # as above
        self._look(*(result.body for result in results))
        return super().commit(epoch, leases, results)

    def _look(self, *texts: bytes) -> None:
        if any(b"4761" in text for text in texts):
            raise BadData("not this")


def test_what_the_store_cannot_keep_fails_its_own_line(gateway: FakeGateway, tmp_path: Path) -> None:
    with served(Plane(Choosy(f"sqlite:///{tmp_path}/s.db"), gateway.url, LIVE)) as service:
        client = client_of(service)
        over = finished(client, submit(client, *(line(n) for n in range(60, 80))))  # 69 squared is 4761
        assert over.request_counts is not None
        assert (over.status, over.request_counts.completed, over.request_counts.failed) == ("completed", 19, 1)
        assert lines_of(client, over.error_file_id)[0]["custom_id"] == "c69"
        refused = finished(client, submit(client, *(line(n) for n in range(4750, 4770))))
        assert refused.errors is not None
        assert refused.errors.data is not None
        assert [(one.line, one.code) for one in refused.errors.data] == [(12, "invalid_request")]


def stored(store: SqlStore, name: str, content: bytes) -> Batch:
    """A batch as an earlier process left it: not yet read."""
    file = File(f"file-{name}", "anyone", "in.jsonl", "batch", 0, None)
    store.begin_file(file)
    store.append(file.id, 0, content)
    store.finish_file(file.id, len(content))
    return store.add_batch(Batch(f"batch_{name}", "anyone", CHAT, file.id, "24h", None, 3600, 0, 1 << 60))


def test_control_begins_anew_whatever_was_left_behind(gateway: FakeGateway, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    store = SqlStore(url)
    torn = stored(store, "torn", b"{}")
    deep = stored(store, "deep", DEEP)
    queued = stored(store, "queued", b"")
    store.hold(queued.number, "big", [NewJob(1, "c1", DEEP), NewJob(2, "c2", json.dumps(line(3)["body"]).encode())])
    store.accept(queued.number, "big", 1)
    store.commit(store.begin_epoch(), [Lease((queued.number, 1), 0)], [Result((queued.number, 1), True, 200, "r", b"1")])
    with sqlalchemy.create_engine(url).begin() as connection:
        connection.exec_driver_sql("UPDATE batches SET metadata = '{' WHERE number = ?", (torn.number,))
    store.close()
    with served(Plane(SqlStore(url), gateway.url, LIVE)) as service:
        client = client_of(service)
        assert finished(client, client.batches.retrieve(deep.id)).status == "failed"
        assert finished(client, client.batches.retrieve(queued.id)).status == "completed"
        answer = httpx.get(f"{service.url}/v1/batches/{torn.id}", headers={"x-sageserve-key": "anyone"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")


@pytest.mark.parametrize("fault", [RuntimeError("odd"), RecursionError(), BadData("odd")])
def test_a_fault_of_one_batch_keeps_no_other_one(gateway: FakeGateway, fault: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    plane = Plane(open_store("memory", Path()), gateway.url, LIVE)
    piece: Callable[[str, int], bytes | None] = plane.threaded.store.piece
    files: list[str] = []

    def refuse(file: str, number: int) -> bytes | None:
        files.append(file)
        if file == files[0]:
            raise fault
        return piece(file, number)

    monkeypatch.setattr(plane.threaded.store, "piece", refuse)
    with served(plane) as service:
        client = client_of(service)
        first, second = submit(client, line()), submit(client, line())
        assert finished(client, second).status == "completed"
        over = finished(client, first)
        assert (over.status, over.errors and over.errors.data and over.errors.data[0].code) == ("failed", "internal_error")


@pytest.mark.parametrize("order", [b"[" * 30_000, b'{"metadata": ' + b"[" * 20_000 + b"]" * 20_000 + b"}"])
def test_an_order_that_cannot_be_read_is_a_bad_request(service: Served, order: bytes) -> None:
    answer = httpx.post(f"{service.url}/v1/batches", content=order)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")


def test_ids_and_names_with_any_character_are_answered(service: Served) -> None:
    client = client_of(service)
    part = b'--b\r\ncontent-disposition: form-data; name="%b"%b\r\n\r\n%b\r\n'
    form = part % (b"purpose", b"", b"batch") + part % (b"file", b'; filename="a\0b.jsonl"', b"{}") + b"--b--\r\n"
    kept = httpx.post(f"{service.url}/v1/files", content=form, headers={"content-type": "multipart/form-data; boundary=b"})
    assert (kept.status_code, kept.json()["filename"]) == (200, "ab.jsonl")
    for ask in (
        lambda: client.batches.create(input_file_id="file-\0", endpoint=CHAT, completion_window="24h"),
        lambda: client.files.list(after="\0").data,
    ):
        with pytest.raises((openai.BadRequestError, openai.NotFoundError)):
            ask()
    for path in ("/v1/batches/batch_%00", "/v1/files/%00", "/v1/files/a%ED%A0%80"):
        assert httpx.get(service.url + path).status_code in {400, 404}
