"""Who leads a store: a lease is kept by whoever read it last, and a term that is over changes nothing. Every kind of store.

Read next: `tests/live/batches/test_several.py`, which plays several processes.
"""

from collections.abc import Callable

import pytest

from sageserve.core.authority.records import LeaseRecord
from sageserve.live.store.interface import Store
from sageserve.live.store.models import BatchState, Lease, ListRange, NewJob, Superseded
from tests.live.store.test_store import batch, file, good, kept, running, take


def test_an_earlier_owner_takes_nothing_and_ends_nothing(store: Store) -> None:
    first = store.begin_epoch()
    one = running(store, 2)
    take(store, first, 1, number=one.number)
    second = store.begin_epoch()
    done = store.commit(first, [Lease((one.number, 2), 0)], [good(one.number, 1, b"early")])
    assert (done.recorded, done.late, done.superseded) == ((), 0, True)
    assert [job.key[1] for job in store.queued("m", 9)] == [1, 2]
    again = store.commit(second, [Lease((one.number, 1), 0)], [good(one.number, 1, b"late")])
    assert (again.recorded, again.late, again.superseded) == (((one.number, 1),), 0, False)


def test_nothing_changes_at_an_earlier_epoch_and_everything_can_be_read(store: Store) -> None:
    first = store.at(store.begin_epoch())
    one, still = running(store, 1), store.add_batch(batch(2))
    kept(first, file(1), b"a")
    first.hold(still.number, "m", [NewJob(1, "a", b"{}")])
    second = store.at(store.begin_epoch())
    before = (store.unfinished(), store.queued("m", 9), store.files("me", ListRange(None, 9), None), store.unfinished_jobs())
    changes: list[Callable[[Store], object]] = [
        lambda at: at.begin_file(file(2)),
        lambda at: at.append("file-1", 1, b"b"),
        lambda at: at.finish_file("file-1", 9),
        lambda at: at.drop_file("file-1"),
        lambda at: at.delete_file("me", "file-1"),
        lambda at: at.expire_files(10**18),
        lambda at: at.shorten_files("me", 0),
        lambda at: at.add_batch(batch(3)),
        lambda at: at.begin_reading(still.number),
        lambda at: at.hold(still.number, "m", [NewJob(2, "b", b"{}")]),
        lambda at: at.accept(still.number, "m", 5),
        lambda at: at.reject(still.number, [], 5),
        lambda at: at.cancel(one.number, 5),
        lambda at: at.expire(one.number, 5),
        lambda at: at.finish(one.number, 5),
        lambda at: at.close_batch(one.number, (None, None), 5),
        lambda at: at.forget_batches("me"),
    ]
    for change in changes:
        with pytest.raises(Superseded):
            change(first)
    for at in (first, second):
        assert before == (at.unfinished(), at.queued("m", 9), at.files("me", ListRange(None, 9), None), at.unfinished_jobs())
        assert (at.piece("file-1", 0), at.file("me", "file-1").size) == (b"a", 1)
        assert [o.line for o in at.outcomes(one.number, 0, 9)] == [1]
    second.cancel(one.number, 5)
    assert store.batch("me", one.id).state is BatchState.CANCELLING


def test_a_lease_is_kept_only_by_whoever_has_read_it_last(store: Store) -> None:
    free = store.leader()
    assert (free.holder, free.epoch) == ("", 0)
    mine = store.lead(LeaseRecord("a", 1, "", free.version))
    assert mine == store.leader()
    assert mine is not None
    assert store.lead(LeaseRecord("b", 1, "", free.version)) is None, "another was quicker"
    one = running(store, 2)
    take(store, 1, 1, number=one.number)
    again = store.lead(LeaseRecord("a", 1, "", mine.version))
    assert again is not None
    assert (again.holder, again.epoch, again.renewed != mine.renewed) == ("a", 1, True)
    assert [job.key[1] for job in store.queued("m", 9)] == [2], "a renewal begins nothing"
    other = store.lead(LeaseRecord("b", 2, "", again.version))
    assert other is not None
    assert [job.key[1] for job in store.queued("m", 9)] == [1, 2], "a term begins with what was taken before"
    assert store.commit(1, [], [good(one.number, 1)]).superseded
