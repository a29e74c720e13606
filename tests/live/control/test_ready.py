"""Who runs a shared batch queue, as monitors and people are told. Read next: `tests/live/batches/test_several.py`."""

import asyncio

import httpx
import pytest
from msgspec import structs
from starlette.applications import Starlette

from sageserve.live.control.admin import routes
from sageserve.live.control.status import QueueRole
from tests.live.control.test_page import made, made_day

LEADER = QueueRole("leader", "node-a", 3, 0.2)
STANDBY = QueueRole("standby", "node-b", 4, 0.2)


def asked(queue: QueueRole | None, path: str) -> httpx.Response:
    pages = Starlette(routes=routes(lambda: structs.replace(made(), queue=queue), dict, made_day))

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(pages), base_url="http://control") as client:
            return await client.get(path)

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("queue", "status", "said"),
    [
        (None, 200, "alone"),
        (LEADER, 200, "leader"),
        (STANDBY, 200, "standby"),
        (structs.replace(STANDBY, trouble="it is away"), 503, "unknown"),
    ],
)
def test_a_monitor_is_told_whether_batches_are_taken_and_by_whom(queue: QueueRole | None, status: int, said: str) -> None:
    found = asked(queue, "/admin/ready")
    assert (found.status_code, found.json()["status"]) == (status, said)
    assert (found.json()["queue"] or {}).get("leader") == (queue.leader if queue else None)


@pytest.mark.parametrize(
    ("queue", "leads", "epoch"),
    [
        (LEADER, "1.0", "3.0"),
        (STANDBY, "0.0", "4.0"),
        (structs.replace(LEADER, trouble="the database is away: nobody runs it, and an alert is to say so"), "0.0", "3.0"),
    ],
)
def test_metrics_say_who_runs_the_queue(queue: QueueRole, leads: str, epoch: str) -> None:
    lines = asked(queue, "/admin/metrics").text.splitlines()
    assert f"sageserve_batch_leader {leads}" in lines
    assert f"sageserve_batch_epoch {epoch}" in lines


def test_a_queue_that_nobody_else_can_have_has_no_such_metrics() -> None:
    assert "sageserve_batch_leader" not in asked(None, "/admin/metrics").text
