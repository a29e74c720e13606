"""What a key's batches leave is kept for as long as it says; and a clock that is wrong for a moment ends and deletes nothing.

Read next: `src/sageserve/live/batches/lifecycle.py`, `store_thread.py`.
"""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sageserve.base.config import KeySettings, LiveSettings
from sageserve.base.errors import ConfigError
from sageserve.base.units import DAY, HOUR, MINUTE, SECOND, Micros
from sageserve.core.layout import names_of
from sageserve.data.watched.minutes import MinuteFiles, WatchedMinute, last_minute, newest_minute, note_doubt
from sageserve.live.batches.api_context import kept_for
from sageserve.live.batches.gateway_lines import GatewayAnswer
from sageserve.live.batches.job_client import Retry
from sageserve.live.batches.lifecycle import BatchLifecycle
from sageserve.live.batches.runner import BatchRunner, Door
from sageserve.live.batches.store_thread import GRACE, SteadyWall, StoreThread
from sageserve.live.gateway.keys import KeyRing, hash_of
from sageserve.live.store.memory import MemoryStore
from sageserve.live.store.models import Batch, BatchState, File, Job, ListRange, NewJob, Result
from tests.core.small import scenario

ALL = ListRange(None, 100)
BEGIN: Micros = 1_790_000_000_000_000


def key(name: str, keep: str | None, number: int = 0) -> KeySettings:
    return KeySettings.model_validate({"name": name, "sha256": hash_of(f"{name}{number}".encode()), "keep": keep})


@dataclass
class Kept:
    """A store whose clocks are moved by hand: the machine's, and that of the process."""

    keys: tuple[KeySettings, ...] = ()
    written: Micros | None = BEGIN
    wall: Micros = BEGIN
    passed: Micros = 0
    store: MemoryStore = field(default_factory=MemoryStore)

    def __post_init__(self) -> None:
        self.begin_process()

    def begin_process(self) -> None:
        self.passed = 0
        self.time = SteadyWall(lambda: self.wall, lambda: self.passed, lambda: self.written)
        self.lifecycle = BatchLifecycle(StoreThread(self.store), ("m",), LiveSettings(keys=self.keys), self.time)
        self.time.sure()

    def go_on(self, by: Micros) -> None:
        self.wall += by
        self.passed += by
        asyncio.run(self.lifecycle.look())

    def add(self, name: str, owner: str, ends: Micros | None = None) -> None:
        self.store.begin_file(File(name, owner, "n", "batch", self.time.now(), ends))
        self.store.append(name, 0, b"a prompt")
        self.store.finish_file(name, 8)

    def files(self, owner: str) -> list[str]:
        return [one.id for one in self.store.files(owner, ALL, None)]


def test_files_and_batches_are_kept_for_as_long_as_their_key_says() -> None:
    one = Kept((key("short", "2h"), key("long", None)))
    for owner in ("short", "long", "gone"):
        one.add(f"file-{owner}", owner, BEGIN + 30 * DAY)
        made = one.store.add_batch(
            Batch(f"batch-{owner}", owner, "/v1/x", f"file-{owner}", "24h", {"a": "b"}, 1, BEGIN, BEGIN + DAY)
        )
        one.store.reject(made.number, [], BEGIN + HOUR)
    one.go_on(HOUR)
    assert (one.files("short"), len(one.store.batches("short", ALL))) == (["file-short"], 1)
    one.go_on(HOUR + MINUTE)
    assert (one.files("short"), len(one.store.batches("short", ALL))) == ([], 1), "a batch counts from its end"
    assert one.store.piece("file-short", 0) is None
    one.go_on(HOUR)
    assert one.store.batches("short", ALL) == []
    for owner in ("long", "gone"):
        assert (one.files(owner), len(one.store.batches(owner, ALL))) == ([f"file-{owner}"], 1)


def test_what_is_asked_for_is_shortened_and_never_lengthened() -> None:
    live = LiveSettings(keys=(key("short", "2h"), key("short", "2h", 1), key("long", "60d")))
    assert [kept_for(live, "short", asked) for asked in (None, HOUR, DAY)] == [2 * HOUR, HOUR, 2 * HOUR]
    assert [kept_for(live, who, None) for who in ("long", "nobody")] == [30 * DAY, 30 * DAY]
    with pytest.raises(ConfigError, match="differ in keep"):
        KeyRing([key("a", "1h"), key("a", None, 1)], ("t",))


def test_a_clock_that_is_wrong_when_a_process_begins_deletes_and_ends_nothing() -> None:
    one = Kept()
    one.add("file", "me", BEGIN + DAY)
    made = one.store.add_batch(Batch("batch", "me", "/v1/x", "file", "24h", {}, 1, BEGIN, BEGIN + DAY))
    one.store.hold(made.number, "m", [NewJob(1, "c", b"{}")])
    one.store.accept(made.number, "m", BEGIN)
    one.wall += 40 * DAY
    one.begin_process()
    one.go_on(MINUTE)
    assert (one.files("me"), one.store.batch("me", "batch").state) == (["file"], BatchState.IN_PROGRESS)
    one.wall -= 40 * DAY  # it is put right
    one.go_on(MINUTE)
    assert one.time.now() == BEGIN + 2 * MINUTE
    assert one.time.sure()
    one.go_on(DAY)
    assert (one.files("me"), one.store.batch("me", "batch").state) == (["file-batch-error"], BatchState.EXPIRED)


def test_a_clock_that_is_wrong_is_doubted_by_the_next_process_too(tmp_path: Path) -> None:
    files = MinuteFiles(tmp_path)
    wall, passed = BEGIN, 0

    def process() -> SteadyWall:
        return SteadyWall(
            lambda: wall + passed, lambda: passed, lambda: last_minute(tmp_path), lambda *told: note_doubt(tmp_path, *told)
        )

    def write() -> None:
        files.add(WatchedMinute(wall + passed - MINUTE, (), ()))

    def doubts() -> SteadyWall:
        nonlocal passed
        begun = process()
        assert not begun.sure()
        passed += 2 * MINUTE
        write()
        assert not begun.sure()
        return begun

    write()
    wall += 40 * DAY
    doubts()
    one = doubts()
    before = (newest_minute(tmp_path), last_minute(tmp_path))
    assert before == (BEGIN + 40 * DAY + 3 * MINUTE, BEGIN)
    wall -= 40 * DAY
    assert one.sure()
    assert (newest_minute(tmp_path), last_minute(tmp_path)) == (BEGIN - MINUTE, BEGIN)
    write()
    assert last_minute(tmp_path) == BEGIN + 4 * MINUTE
    wall += 40 * DAY
    assert not process().sure()
    wall -= 40 * DAY
    assert process().sure(), "put right between two processes"
    wall += 2 * DAY  # away, and back
    one = process()
    assert not one.sure()
    passed += GRACE
    write()
    assert one.sure()
    assert last_minute(tmp_path) == wall + passed, "what was written in doubt counts"
    assert not list(tmp_path.glob("doubt*"))


def test_a_fleet_that_was_away_for_long_deletes_an_hour_later() -> None:
    one = Kept()
    one.add("file", "me", BEGIN + DAY)
    one.wall += 40 * DAY
    one.begin_process()
    one.go_on(GRACE - MINUTE)
    assert one.files("me") == ["file"]
    one.go_on(MINUTE)
    assert one.files("me") == []


@pytest.mark.parametrize(("written", "away"), [(None, 40 * DAY), (BEGIN, 23 * HOUR)], ids=["nothing was written", "a day"])
def test_a_time_that_nothing_speaks_against_is_believed(written: Micros | None, away: Micros) -> None:
    one = Kept(written=written)
    one.add("file", "me", BEGIN + HOUR)
    one.wall += away
    one.begin_process()
    one.go_on(0)
    assert one.files("me") == []


async def held_up(one: Kept, said: Retry) -> list[bool]:
    """Whether a job may begin: after an answer, once the clock is put right, and when what it waits for is over."""
    settings = scenario()
    runner = BatchRunner(StoreThread(one.store), settings, names_of(settings), Door("http://x", "", lambda *_: Lines()), one.time)
    runner._lines = Lines()
    runner._ask = lambda *_: asyncio.sleep(0, said)  # type: ignore[method-assign] # what the gateway answers
    runner._buffers["big"].fill([Job(BEGIN, (1, 1), "big", "/v1/x", BEGIN, 0, 2, b"{}", "me")])
    runner.launch(0, 1, "me")
    await asyncio.gather(*runner._tasks.values())
    await asyncio.sleep(0.01)  # until it is put back
    found = []
    for passed in (0, 0, said.after):
        one.passed += passed
        one.time.sure()
        found.append(not runner.heads(0))
        one.wall = BEGIN + one.passed  # it is put right
    return found


class Lines:
    """Nothing is sent."""

    async def post(self, path: str, body: bytes, fields: str) -> GatewayAnswer:
        raise AssertionError

    def close(self) -> None: ...


@pytest.mark.parametrize("limited", [False, True], ids=["the gateway is away", "a key's limit is used up"])
def test_jobs_wait_no_longer_when_the_clock_is_put_right(limited: bool) -> None:  # a case
    one = Kept()
    one.wall += 40 * DAY
    one.begin_process()
    said = Retry(SECOND, failed=False, away=not limited, limited=limited, last=Result((1, 1), good=False))
    assert asyncio.run(held_up(one, said)) == [True, True, False]


def test_a_batch_with_a_fault_waits_no_longer_when_the_clock_is_put_right(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Kept()
    one.wall += 40 * DAY
    one.begin_process()
    made = one.store.add_batch(Batch("batch", "me", "/v1/x", "file", "24h", {}, 1, BEGIN, BEGIN + DAY))
    one.store.cancel(made.number, BEGIN)
    with monkeypatch.context() as faulty:
        faulty.setattr(one.store, "outcomes", lambda *_: 1 // 0)
        one.go_on(0)
    assert one.store.batch("me", "batch").state is BatchState.CANCELLING
    one.wall -= 40 * DAY
    one.go_on(2 * SECOND)
    assert one.store.batch("me", "batch").state is BatchState.CANCELLED
