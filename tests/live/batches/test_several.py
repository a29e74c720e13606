"""Of several control processes on one store one runs the batch queue, whatever happens to them; the others stand by.

Stories in virtual time, on the store in memory and on PostgreSQL, and a fault that they must see. That each change by itself is
refused is tried in `tests/live/store/test_leader.py`. Read next: `several.py`.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from sageserve.base.config import LiveSettings
from sageserve.base.units import SECOND
from sageserve.live.batches.queue_lead import TIMES, QueueLead
from sageserve.live.batches.store_thread import StoreThread
from sageserve.live.store.memory import MemoryStore
from sageserve.live.store.sql import open_store
from tests.live.batches.plane import Plane
from tests.live.batches.several import Group
from tests.live.store.conftest import _emptied

AT_MOST_S = (TIMES.length + TIMES.every) / SECOND + 1.5
"""Another one leads, and has begun jobs."""


class SharedMemory(MemoryStore):
    """As if other processes had it open, too."""

    @property
    def shared(self) -> bool:
        return True


def in_memory(seed: int, kind: type[MemoryStore] = SharedMemory, members: int = 3) -> Group:
    return Group(seed, [kind()] * members)


def played(group: Group, seconds: int = 60, calm: int = 60) -> list[str]:
    try:
        group.story(seconds, calm)
        return group.broken
    finally:
        group.loop.wind_up()


@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_one_runs_the_queue_and_every_line_is_answered_once(seed: int) -> None:
    group = in_memory(seed)
    assert played(group) == []
    assert group.stores[0].leader().epoch > 1, "it changed hands"


@pytest.fixture
def on_postgres(postgres: str, tmp_path: Path) -> Callable[[int], Group]:
    url = _emptied(postgres)
    return lambda seed: Group(seed, [open_store(url, tmp_path) for _ in range(2)])


def test_so_it_is_on_postgresql(on_postgres: Callable[[int], Group]) -> None:
    group = on_postgres(1)
    assert group.stores[0].shared
    assert played(group, 12, 28) == []
    assert group.stores[0].leader().epoch > 1, "it changed hands"
    for store in group.stores:
        store.close()


class AnyEpoch(SharedMemory):
    """Planted: results and leases of a term that is over are taken down."""

    def commit(self, epoch: int, leases: object, results: object) -> object:  # type: ignore[override] # as it is
        return super().commit(self.leader().epoch, leases, results)  # type: ignore[arg-type] # likewise


def test_stories_see_that_an_epoch_is_not_checked() -> None:
    assert any(one.startswith("changed") for seed in range(12) for one in played(in_memory(seed, AnyEpoch)))


@pytest.mark.parametrize("deed", ["begin_reading", "hold", "accept", "finish", "begin_file", "append"])
def test_a_leader_that_stands_still_while_it_takes_a_batch_on_does_no_harm(deed: str) -> None:
    group = in_memory(4, members=2)
    group.play(2)
    group.stops_after = deed
    group.submit(5)
    group.play(60)
    assert group.stores[0].leader().epoch == 2
    group.end()
    group.loop.wind_up()
    assert group.broken == []


def begun_late(deed: str) -> list[str]:
    """A leader that has read what to do next stands still, or is cut off, until another one leads, and goes on."""
    group = in_memory(2, members=2)
    group.play(2)
    (first,) = [one for one in group.members if one.leads]
    first.fed = False
    group.submit(5)
    group.play(2)
    assert first.runner.waiting(0) == 5
    getattr(group, deed)(first, 15)
    group.loop.tell(None, 14 * SECOND, setattr, first, "fed", True)
    group.play(60)
    group.end()
    group.loop.wind_up()
    return group.broken


@pytest.mark.parametrize("deed", ["freeze", "cut"])
def test_a_former_leader_begins_nothing(deed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert begun_late(deed) == []
    monkeypatch.setattr(QueueLead, "may_begin", lambda self: bool(self.epoch))
    assert any(one.startswith("begun") for one in begun_late(deed)), "so it would"


@pytest.mark.parametrize("fault", ["killed", "stands still", "is cut off", "is asked to end"])
def test_another_one_leads_within_seconds(fault: str) -> None:
    group = in_memory(3, members=2)
    group.play(2)
    (first,) = [one for one in group.members if one.leads]
    (other,) = [one for one in group.members if not one.leads]
    assert (first.runner.lead.role(), other.runner.lead.role()) != (None, None)
    group.submit(10)
    group.play(1)
    begun = sum(group.runs.values())
    assert begun > 0
    end = {"killed": group.kill, "is asked to end": group.stop}.get(fault)
    if end is not None:
        end(first)
    elif fault == "stands still":
        group.freeze(first, 60)
    else:
        group.cut(first, 60)
    group.play(2.0 if fault == "is asked to end" else AT_MOST_S)
    assert other.leads
    assert other.runner.lead.epoch > 1
    assert sum(group.runs.values()) > begun
    group.play(90)
    group.end()
    assert group.broken == []
    assert sum(one.leads for one in group.members) == 1
    group.loop.wind_up()


def test_a_leader_keeps_what_it_has_while_the_database_is_away() -> None:
    group = in_memory(5, members=2)
    group.play(2)
    group.submit(6)
    group.play(0.5)
    (first,) = [one for one in group.members if one.leads]
    epoch = first.runner.lead.epoch
    for one in group.members:
        group.cut(one, 20)
    group.play(60)
    group.end()
    assert group.broken == []
    assert (first.runner.lead.epoch, group.stores[0].leader().epoch) == (epoch, epoch)
    assert max(group.runs.values()) == 1, "no result was thrown away"
    group.loop.wind_up()


def test_what_people_are_told_of_it() -> None:
    group = in_memory(7, members=2)
    asked = [one.runner.lead for one in group.members]
    before = asked[0].role()
    assert before is not None
    assert (before.role, before.words) == ("standby", "This process stands by for the batch queue: nobody runs it yet.")
    group.play(3)
    leader, standby = sorted((one.role() for one in asked), key=lambda role: role.role if role else "")
    assert leader is not None
    assert standby is not None
    assert leader.words == "This process runs the batch queue (epoch 1)."
    assert standby.words == f"This process stands by for the batch queue: {leader.leader} runs it (epoch 1)."
    assert (standby.leader, standby.epoch) == (leader.leader, 1)
    (by,) = [one for one in group.members if not one.leads]
    group.cut(by, 10)
    group.play(3)
    told = by.runner.lead.role()
    assert told is not None
    assert told.words == "Who runs the batch queue is not known: cut off."
    group.loop.wind_up()


def test_a_store_that_nobody_else_can_have_needs_no_election() -> None:
    group = in_memory(9, MemoryStore, members=1)
    group.play(1)
    lead = group.members[0].runner.lead
    assert (lead.epoch, lead.role(), group.stores[0].leader().holder) == (1, None, "")
    group.loop.wind_up()


class TakenOver(MemoryStore):
    """Another process comes to lead while an upload is written, and drops what is half written; more than twice if it must."""

    left = 2

    def append(self, file: str, number: int, data: bytes) -> None:
        if self.left:
            self.left -= 1
            self.begin_epoch()
        super().append(file, number, data)


@pytest.mark.parametrize(("times", "status"), [(2, 200), (3, 404)])
def test_an_upload_outlives_a_change_of_leaders(times: int, status: int) -> None:
    store = TakenOver()
    store.left = times
    plane = Plane(store, "http://127.0.0.1:9", LiveSettings())

    async def upload() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(plane.app), base_url="http://control") as client:
            return await client.post("/v1/files", files={"file": ("in.jsonl", b"abc")}, data={"purpose": "batch"})

    answer = asyncio.run(upload())
    assert answer.status_code == status
    if status == 200:
        assert store.piece(answer.json()["id"], 0) == b"abc"


def test_a_database_that_hangs_without_an_error_is_trouble_too() -> None:
    now = [0]

    async def lead() -> QueueLead:
        store = StoreThread(SharedMemory())
        found = QueueLead(store, "me", lambda: now[0])
        await found.win()
        await store.close()
        return found

    led = asyncio.run(lead())
    for silent, said in ((TIMES.length, ""), (TIMES.length + 1, f"not answered for {TIMES.length // SECOND} s")):
        now[0] = silent
        role = led.role()
        assert role is not None
        assert (role.role, bool(role.trouble)) == ("leader", bool(said))
        assert said in role.trouble


def test_jobs_of_a_model_that_the_leader_does_not_have_are_told_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    group = in_memory(1, members=1)
    group.play(2)
    monkeypatch.setattr(group.stores[0], "unfinished_jobs", lambda: {"gone": 3})
    for _ in range(3):
        group.submit(1)
        group.play(2)
    group.loop.wind_up()
    said = [record.getMessage() for record in caplog.records if "gone" in record.getMessage()]
    assert said == ["3 jobs wait for the model gone, which this scenario does not have: nobody runs them"]
