"""What every store does: files, batches and jobs keep their laws, whatever is underneath.

Read next: `src/sageserve/live/store/interface.py`.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from sageserve.live.store.interface import SMALL, Store
from sageserve.live.store.models import (
    BATCH_MOVES,
    BadMove,
    Batch,
    BatchSignal,
    BatchState,
    File,
    JobState,
    Lease,
    LineError,
    ListRange,
    NewJob,
    Result,
    Unknown,
    Usage,
)

ALL = ListRange(None, 100)


def file(number: int = 1, owner: str = "me", ends: int | None = None) -> File:
    return File(f"file-{number}", owner, f"n{number}", "batch", number, ends)


def kept(store: Store, one: File, *pieces: bytes) -> File:
    store.begin_file(one)
    for number, data in enumerate(pieces):
        store.append(one.id, number, data)
    store.finish_file(one.id, sum(map(len, pieces)))
    return store.file(one.owner, one.id)


def batch(number: int = 1, owner: str = "me", ends: int = 10**15) -> Batch:
    return Batch(f"batch_{number}", owner, "/v1/x", "file-1", "24h", {"a": "b"}, 3600, 1000 + number, ends)


def running(store: Store, jobs: int, one: Batch | None = None, model: str = "m") -> Batch:
    made = store.add_batch(one or batch())
    store.hold(made.number, model, [NewJob(k, f"c{k}", b"{}") for k in range(1, jobs + 1)])
    assert store.accept(made.number, model, 2000) == jobs
    return store.batch(made.owner, made.id)


def good(number: int, line: int, answer: bytes = b"{}") -> Result:
    return Result((number, line), True, 200, "r", answer, "", Usage(1, 0, 2, 0))


def bad(number: int, line: int) -> Result:
    return Result((number, line), False, 500, "r", b"null")


def take(store: Store, epoch: int, *lines: int, number: int = 1) -> None:
    store.commit(epoch, [Lease((number, line), 0) for line in lines], [])


def test_a_file_is_shown_when_it_is_complete(store: Store) -> None:
    store.begin_file(file())
    store.append("file-1", 0, b"ab")
    with pytest.raises(Unknown):
        store.file("me", "file-1")
    assert store.files("me", ALL, None) == []
    store.append("file-1", 1, b"c")
    store.finish_file("file-1", 3)
    assert store.file("me", "file-1") == replace(file(), size=3, ready=True)
    assert [store.piece("file-1", k) for k in range(3)] == [b"ab", b"c", None]


def test_a_file_begun_again_or_dropped_leaves_nothing_behind(store: Store) -> None:
    store.begin_file(file())
    store.append("file-1", 0, b"old")
    store.begin_file(file())
    assert store.piece("file-1", 0) is None
    store.drop_file("file-1")
    with pytest.raises(Unknown):
        store.append("file-1", 0, b"x")
    with pytest.raises(Unknown):
        store.finish_file("file-1", 1)


def test_a_file_is_its_owners(store: Store) -> None:
    kept(store, file(), b"a")
    for foreign in (lambda: store.file("you", "file-1"), lambda: store.delete_file("you", "file-1")):
        with pytest.raises(Unknown):
            foreign()
    assert store.files("you", ALL, None) == []
    store.delete_file("me", "file-1")
    assert store.piece("file-1", 0) is None
    with pytest.raises(Unknown):
        store.delete_file("me", "file-1")


def test_lists_come_in_pages_both_ways(store: Store) -> None:
    made = [kept(store, file(k)).id for k in range(1, 6)]
    kept(store, file(9, "you"))
    for newest in (True, False):
        expected = made[::-1] if newest else made
        first = store.files("me", ListRange(None, 2, newest), None)
        rest = store.files("me", ListRange(first[-1].id, 10, newest), "batch")
        assert [one.id for one in first + rest] == expected
    assert store.files("me", ALL, "batch_output") == []
    with pytest.raises(Unknown):
        store.files("me", ListRange("file-9", 2), None)


def test_files_expire(store: Store) -> None:
    for number, ends in ((1, 50), (2, 51), (3, None)):
        kept(store, file(number, ends=ends), b"x")
    assert store.expire_files(50) == 1
    assert [one.id for one in store.files("me", ALL, None)] == ["file-3", "file-2"]
    assert store.piece("file-1", 0) is None


def test_files_of_one_owner_are_kept_for_no_longer_than_is_said(store: Store) -> None:
    for number, ends in ((1, 50), (2, 10**9), (3, None)):
        kept(store, file(number, ends=ends), b"x")
    kept(store, file(9, "you"), b"x")
    made = store.file("me", "file-3").created_at
    assert store.shorten_files("me", 1000) == 2
    assert store.shorten_files("me", 1000) == 0
    ends_at = [one.expires_at for one in store.files("me", ListRange(None, 9, newest_first=False), None)]
    assert ends_at == [50, store.file("me", "file-2").created_at + 1000, made + 1000]
    assert store.file("you", "file-9").expires_at is None


def test_batches_are_numbered_listed_and_owned(store: Store) -> None:
    made = [store.add_batch(batch(k)) for k in (1, 2, 3)]
    assert [one.number for one in made] == sorted({one.number for one in made})
    assert store.batch("me", "batch_2") == replace(batch(2), number=made[1].number)
    assert [one.id for one in store.batches("me", ListRange("batch_3", 1))] == ["batch_2"]
    assert store.batches("you", ALL) == []
    with pytest.raises(Unknown):
        store.batch("you", "batch_2")


def test_jobs_are_due_by_deadline_then_batch_then_line(store: Store) -> None:
    late, soon, also = (running(store, 2, batch(k, ends=ends)) for k, ends in ((1, 300), (2, 100), (3, 100)))
    running(store, 1, batch(4, ends=1), model="other")
    expected = [(one.number, line) for one in (soon, also, late) for line in (1, 2)]
    jobs = store.queued("m", 10)
    assert [job.key for job in jobs] == expected
    assert [job.key for job in store.queued("m", 3)] == expected[:3]
    assert (jobs[0].deadline, jobs[0].url, jobs[0].created_at, jobs[0].body) == (100, "/v1/x", 1002, b"{}")
    assert store.unfinished_jobs() == {"m": 6, "other": 1}


def test_a_long_batch_of_one_owner_leaves_room_for_the_jobs_of_others(store: Store) -> None:
    long = running(store, 9, batch(1, ends=100))
    running(store, 9, batch(2, ends=101))
    theirs = running(store, 3, replace(batch(3, ends=300), owner="you"))
    jobs = store.queued("m", 4)
    assert [(job.owner, job.key) for job in jobs] == [
        ("me", (long.number, 1)),
        ("me", (long.number, 2)),
        ("you", (theirs.number, 1)),
        ("you", (theirs.number, 2)),
    ]
    assert len(store.queued("m", 30)) == 18, "fifteen of mine, over two batches, and the three of theirs"


def test_large_bodies_come_one_by_one(store: Store) -> None:
    made = store.add_batch(batch())
    body = b"x" * (SMALL + 1)
    store.hold(made.number, "m", [NewJob(1, "a", body), NewJob(2, "b", b"y")])
    store.accept(made.number, "m", 1)
    assert [(job.size, job.body) for job in store.queued("m", 9)] == [(SMALL + 1, None), (1, b"y")]
    assert store.body((made.number, 1)) == body
    assert store.body((made.number, 3)) is None


def test_nothing_is_queued_before_all_lines_are_read(store: Store) -> None:
    made = store.add_batch(batch())
    store.hold(made.number, "m", [NewJob(1, "a", b"{}")])
    assert store.queued("m", 9) == []
    assert store.unfinished_jobs() == {}
    store.begin_reading(made.number)  # the process died in between
    store.hold(made.number, "m", [NewJob(1, "a", b"{}"), NewJob(2, "b", b"{}")])
    assert store.accept(made.number, "m", 5) == 2
    assert (store.batch("me", "batch_1").total, store.batch("me", "batch_1").model) == (2, "m")


def test_a_result_is_recorded_once(store: Store) -> None:
    epoch = store.begin_epoch()
    one = running(store, 3)
    take(store, epoch, 1, 2, number=one.number)
    done = store.commit(epoch, [], [good(one.number, 1, b"1"), good(one.number, 1, b"2"), bad(one.number, 2), good(99, 1)])
    assert (set(done.recorded), done.late, done.superseded) == ({(one.number, 1), (one.number, 2)}, 2, False)
    late = store.commit(epoch, [], [bad(one.number, 1)])
    assert (late.recorded, late.late) == ((), 1)
    now = store.batch("me", "batch_1")
    assert (now.total, now.done, now.failed, now.usage) == (3, 1, 1, Usage(1, 0, 2, 0))
    outcomes = store.outcomes(one.number, 0, 10)
    assert [(o.line, o.state, o.result.body if o.result else None) for o in outcomes] == [
        (1, JobState.DONE, b"1"),
        (2, JobState.FAILED, b"null"),
        (3, JobState.QUEUED, None),
    ]
    assert [o.line for o in store.outcomes(one.number, 1, 1)] == [2]


def test_leases_of_a_dead_owner_go_back_to_the_queue(store: Store) -> None:
    first = store.begin_epoch()
    one = running(store, 3)
    store.commit(first, [Lease((one.number, 1), 0), Lease((one.number, 2), 2)], [good(one.number, 1)])
    assert [job.key[1] for job in store.queued("m", 9)] == [3]
    second = store.begin_epoch()
    assert second > first
    assert [(job.key[1], job.attempts) for job in store.queued("m", 9)] == [(2, 2), (3, 0)]


def test_a_new_owner_drops_half_written_files_and_keeps_whole_ones(store: Store) -> None:
    kept(store, file(1), b"a")
    store.begin_file(file(2))
    store.append("file-2", 0, b"b")
    store.begin_epoch()
    assert store.piece("file-1", 0) == b"a"
    assert store.piece("file-2", 0) is None
    with pytest.raises(Unknown):
        store.finish_file("file-2", 1)


@pytest.mark.parametrize("end", ["cancel", "expire"])
def test_what_is_over_takes_no_results(store: Store, end: str) -> None:
    epoch = store.begin_epoch()
    one = running(store, 4)
    take(store, epoch, 1, 2, number=one.number)
    store.commit(epoch, [], [good(one.number, 1)])
    getattr(store, end)(one.number, 3000)
    done = store.commit(epoch, [Lease((one.number, 3), 0)], [good(one.number, 2)])
    assert (done.recorded, done.late) == ((), 1)
    now = store.batch("me", "batch_1")
    assert (now.done, now.failed, now.over) == (1, 3, True)
    state = {"cancel": JobState.CANCELLED, "expire": JobState.EXPIRED}[end]
    assert [o.state for o in store.outcomes(one.number, 0, 9)] == [JobState.DONE, state, state, state]
    assert store.queued("m", 9) == []


def test_closing_shows_files_and_forgets_jobs(store: Store) -> None:
    epoch = store.begin_epoch()
    one = running(store, 1)
    with pytest.raises(BadMove):
        store.finish(one.number, 1)
    store.commit(epoch, [], [good(one.number, 1)])
    store.finish(one.number, 3000)
    output = replace(file(7), purpose="batch_output", size=4)
    store.begin_file(output)
    store.append(output.id, 0, b"line")
    store.close_batch(one.number, (output, None), 4000)
    now = store.batch("me", "batch_1")
    assert (now.state, now.output_file, now.error_file, now.done) == (BatchState.COMPLETED, "file-7", None, 1)
    assert now.stamps == {"in_progress": 2000, "finalizing": 3000, "completed": 4000}
    assert store.file("me", "file-7").size == 4
    assert store.outcomes(one.number, 0, 9) == []
    assert store.commit(epoch, [], [good(one.number, 1)]).late == 1
    assert store.unfinished() == []


def test_a_batch_is_closed_with_its_files_or_not_at_all(store: Store) -> None:
    epoch = store.begin_epoch()
    one = running(store, 1)
    store.commit(epoch, [], [good(one.number, 1)])
    store.finish(one.number, 3000)
    with pytest.raises(Unknown):
        store.close_batch(one.number, (replace(file(7), size=4), None), 4000)
    assert store.batch("me", "batch_1").state is BatchState.FINALIZING
    assert len(store.outcomes(one.number, 0, 9)) == 1


def test_a_rejected_batch_keeps_its_errors_and_no_jobs(store: Store) -> None:
    made = store.add_batch(batch())
    store.hold(made.number, "m", [NewJob(1, "a", b"{}")])
    store.reject(made.number, [LineError("code", "why", 2, "url")], 5)
    now = store.batch("me", "batch_1")
    assert (now.state, now.errors) == (BatchState.FAILED, (LineError("code", "why", 2, "url"),))
    assert store.outcomes(made.number, 0, 9) == []


def test_a_batch_cancelled_while_it_is_read_runs_nothing(store: Store) -> None:
    made = store.add_batch(batch())
    store.hold(made.number, "m", [NewJob(1, "a", b"{}")])
    store.cancel(made.number, 5)
    for late in (
        lambda: store.hold(made.number, "m", [NewJob(2, "b", b"{}")]),
        lambda: store.accept(made.number, "m", 6),
    ):
        with pytest.raises(BadMove):
            late()
    assert store.outcomes(made.number, 0, 9) == []
    assert store.batch("me", "batch_1").state is BatchState.CANCELLING


def test_moves_that_are_not_in_the_table_change_nothing(store: Store) -> None:
    verbs: dict[BatchSignal, Callable[[int], object]] = {
        BatchSignal.ACCEPT: lambda n: store.accept(n, "m", 9),
        BatchSignal.REJECT: lambda n: store.reject(n, [], 9),
        BatchSignal.FINISH: lambda n: store.finish(n, 9),
        BatchSignal.CANCEL: lambda n: store.cancel(n, 9),
        BatchSignal.EXPIRE: lambda n: store.expire(n, 9),
        BatchSignal.CLOSE: lambda n: store.close_batch(n, (None, None), 9),
    }
    assert set(verbs) == set(BatchSignal)
    for k, state in enumerate(BatchState):
        made = store.add_batch(replace(batch(k), state=state))
        for signal, verb in verbs.items():
            if (state, signal) not in BATCH_MOVES:
                with pytest.raises(BadMove):
                    verb(made.number)
        assert store.batch("me", f"batch_{k}") == made


def test_stamps_are_set_once_and_never_go_back(store: Store) -> None:
    one = running(store, 1)
    store.cancel(one.number, 1)  # the clock was set back
    store.close_batch(one.number, (None, None), 2)
    assert store.batch("me", "batch_1").stamps == {"in_progress": 2000, "cancelling": 2000, "cancelled": 2000}


def test_what_was_kept_is_there_when_opened_again(fresh: Callable[[], Store]) -> None:
    store = fresh()
    epoch = store.begin_epoch()
    one = running(store, 2)
    kept(store, file(5), b"abc")
    store.commit(epoch, [], [good(one.number, 1, b"answer")])
    again = fresh()
    assert again.begin_epoch() == epoch + 1
    assert again.batch("me", "batch_1").done == 1
    result = again.outcomes(one.number, 0, 1)[0].result
    assert result is not None
    assert (result.good, result.status, result.body) == (True, 200, b"answer")
    assert again.piece("file-5", 0) == b"abc"


def test_batches_of_one_owner_that_are_over_are_forgotten_and_nothing_else(store: Store) -> None:
    store.begin_epoch()
    mine, other, still = running(store, 1), running(store, 1, batch(2, "you")), running(store, 2, batch(3))
    for one in (mine, other):
        store.cancel(one.number, 3000)
        store.close_batch(one.number, (None, None), 4000)
    assert store.forget_batches("me") == 1
    with pytest.raises(Unknown):
        store.batch("me", mine.id)
    assert store.outcomes(mine.number, 0, 10) == []
    assert store.batch("you", other.id).state is BatchState.CANCELLED
    assert [one.number for one in store.unfinished()] == [still.number]
    assert store.unfinished_jobs() == {"m": 2}
    assert store.forget_batches("nobody") == 0
    assert store.forget_batches("you", 4000) == 0
    assert store.forget_batches("you", 4001) == 1


def test_a_batch_that_was_forgotten_cannot_be_moved_and_nobody_is_hurt(store: Store) -> None:
    store.begin_epoch()
    gone = running(store, 1)
    store.cancel(gone.number, 3000)
    store.close_batch(gone.number, (None, None), 4000)
    assert store.forget_batches("me") == 1
    for move in (store.cancel, store.expire, store.finish):
        with pytest.raises(Unknown):
            move(gone.number, 5000)
