"""Orders of batches that come twice, and from keys that may not give them.

Read next: `src/sageserve/live/batches/routes.py`.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from sageserve.base.config import LiveSettings
from sageserve.live.store.sql import open_store
from tests.live.batches.gateway import FakeGateway
from tests.live.batches.plane import Plane, Served, served
from tests.live.batches.test_api import CHAT, client_of, finished, line, submit, until, upload

KEYS = [
    {"name": "few", "sha256": "a" * 64, "tiers": ["iw-f"]},
    {"name": "all", "sha256": "b" * 64},
    {"name": "half", "sha256": "c" * 64, "tiers": ["niw"]},
    {"name": "half", "sha256": "d" * 64, "tiers": ["iw-f"]},
]


@pytest.fixture(scope="module", params=["sqlite", "memory"])
def service(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Served]:
    with FakeGateway().running() as gateway:
        store = open_store(request.param, tmp_path_factory.mktemp("state"))
        with served(Plane(store, gateway.url, LiveSettings.model_validate({"keys": KEYS}))) as one:
            yield one


def order(service: Served, file: str, key: str, owner: str = "all", window: str = "24h") -> httpx.Response:
    body = {"input_file_id": file, "endpoint": CHAT, "completion_window": window}
    return httpx.post(f"{service.url}/v1/batches", json=body, headers={"idempotency-key": key, "x-sageserve-key": owner})


def test_an_order_under_one_idempotency_key_makes_one_batch(service: Served) -> None:
    client = client_of(service, "all")
    file = upload(client, line())
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: order(service, file, "once"), range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert order(service, file, "twice").json()["id"] != answers[0].json()["id"]
    assert order(service, file, "once", window="2h").status_code == 409, "another order"
    theirs = upload(client_of(service, "anyone"), line())
    assert order(service, theirs, "once", owner="anyone").json()["id"] != answers[0].json()["id"], "another owner's"
    assert order(service, file, "x" * 256).status_code == 400
    assert len([one for one in client.batches.list() if one.input_file_id == file]) == 2


@pytest.mark.parametrize("name", ["few", "half"])
def test_a_name_of_which_any_key_lacks_the_tier_of_batches_makes_none(service: Served, name: str) -> None:
    file = upload(client_of(service, name), line())
    refused = order(service, file, "once", owner=name)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "permission_denied")
    assert client_of(service, name).batches.list().data == []


def test_a_limit_of_one_key_holds_its_own_jobs_back_and_no_others(tmp_path: Path) -> None:
    live = LiveSettings.model_validate({"jobs": {"attempts": 2, "in_hand": 4}})
    with FakeGateway().running() as gateway, served(Plane(open_store("memory", tmp_path), gateway.url, live)) as service:
        few, all_ = client_of(service, "few"), client_of(service, "all")
        held = submit(few, *(line(limit=30) for _ in range(20)))
        until(lambda: len(gateway.heads) > 0)
        assert finished(all_, submit(all_, *(line() for _ in range(30)))).status == "completed"
        assert finished(few, held).request_counts.completed == 20  # type: ignore[union-attr] # it has some
        assert sum(head["x-sageserve-key"] == "few" for head in gateway.heads) < 20 + 100, "they do not ask again and again"
