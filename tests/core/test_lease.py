"""One writer: candidates that stand still at any point for up to a minute never write with an old epoch, nor lead together.

Each candidate is a generator that reads, decides and writes, and may be stopped between any two of these, also after "may I
write" was answered yes. Read next: `src/sageserve/core/authority/lease.py`.
"""

import heapq
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field

import pytest

from sageserve.base.rng import stream
from sageserve.base.units import MINUTE, SECOND
from sageserve.core.authority.lease import LeaseElector
from sageserve.core.authority.records import LeaseRecord, LeaseTimes

PAUSES = 10_000
PAUSES_EACH = 50


@dataclass
class Stored:
    """A server: one lease and two objects with versions; epochs of writes in their order."""

    lease: LeaseRecord | None = None
    version: int = 0
    objects: dict[str, tuple[int, int]] = field(default_factory=lambda: {"a": (1, 0), "b": (1, 0)})  # version, epoch
    written: list[tuple[int, str, int]] = field(default_factory=list)
    fenced: bool = True

    def put_lease(self, wanted: LeaseRecord) -> LeaseRecord | None:
        if wanted.version != ("" if self.lease is None else self.lease.version):
            return None
        self.version += 1
        self.lease = LeaseRecord(wanted.holder, wanted.epoch, wanted.renewed, str(self.version))
        return self.lease

    def put(self, now: int, name: str, version: int, epoch: int) -> bool:
        if self.fenced and self.objects[name][0] != version:
            return False
        self.objects[name] = self.objects[name][0] + 1, epoch
        self.written.append((now, name, epoch))
        return True


class Clock:
    """Time that the schedule moves."""

    now = 0


def candidate(me: str, elector: LeaseElector, server: Stored, clock: Clock) -> Generator[None, None, None]:
    while True:
        elector.read(clock.now, server.lease)
        yield
        begun = clock.now
        wanted = elector.wanted(clock.now, f"{me} {clock.now}")
        yield
        if wanted is not None and (stored := server.put_lease(wanted)) is not None:
            yield
            elector.wrote(clock.now, begun, stored)
        yield
        for name in ("a", "b"):
            version, epoch = server.objects[name]
            yield
            elector.saw_epoch(epoch)
            if elector.may_write(clock.now):
                with_epoch = elector.epoch
                yield
                server.put(clock.now, name, version, with_epoch)
            yield


def throws(seed: int) -> Iterator[float]:
    numbers = stream(seed, "lease")
    while True:
        yield from numbers.random(1000).tolist()


def play(seed: int, pauses: int, times: LeaseTimes | None = None, *, fenced: bool = True, restarts: bool = True) -> Stored:
    """So many random pauses of three candidates; leadership is checked at every instant."""
    dice = throws(seed)
    server, clock, left = Stored(fenced=fenced), Clock(), pauses
    electors = [LeaseElector(f"{n}", times) for n in range(3)]
    running = [candidate(f"{n}", electors[n], server, clock) for n in range(3)]
    queue = [(n, n) for n in range(3)]
    lives = 3
    while left:
        clock.now, n = heapq.heappop(queue)
        chance = next(dice)
        if restarts and chance > 0.9995:
            lives += 1
            electors[n] = LeaseElector(f"{lives}", times)
            running[n] = candidate(f"{lives}", electors[n], server, clock)
        next(running[n])
        leaders = sum(one.may_write(clock.now) for one in electors)
        assert leaders <= 1, "two lead at once"
        wait = int(next(dice) * 300_000)  # a step takes up to 0.3 s
        if chance < 0.02:
            left -= 1
            wait = int(next(dice) * MINUTE)
        heapq.heappush(queue, (clock.now + wait, n))
    return server


def old_epochs(server: Stored) -> int:
    newest: dict[str, int] = {}
    found = 0
    for _, name, epoch in server.written:
        found += epoch < newest.get(name, 0)
        newest[name] = max(newest.get(name, 0), epoch)
    return found


def test_no_pause_leads_to_a_write_with_an_old_epoch() -> None:
    writes, epochs = 0, 0
    for seed in range(PAUSES // PAUSES_EACH):
        server = play(seed, PAUSES_EACH)
        assert old_epochs(server) == 0
        writes, epochs = writes + len(server.written), epochs + max(epoch for *_, epoch in server.written)
    assert writes > PAUSES
    assert epochs > PAUSES / 25  # it did change hands


def broken(times: LeaseTimes | None = None, *, fenced: bool = True) -> bool:
    try:
        return any(old_epochs(play(seed, PAUSES_EACH, times, fenced=fenced)) for seed in range(20))
    except AssertionError:
        return True


def test_bugs_made_on_purpose_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not broken()
    assert broken(fenced=False)  # a lease alone does not stop one that stood still
    assert broken(LeaseTimes(length=5 * SECOND))  # shorter than what its holder believes
    assert broken(LeaseTimes(write_within=MINUTE, give_up=2 * MINUTE))
    with monkeypatch.context() as planted:
        wrote = LeaseElector.wrote
        planted.setattr(LeaseElector, "wrote", lambda self, now, _, stored: wrote(self, now, now, stored))
        assert broken()  # a renewal that counts from when it was heard of
    with monkeypatch.context() as planted:
        planted.setattr(LeaseElector, "saw_epoch", lambda *_: None)
        planted.setattr(LeaseElector, "_lapse", lambda *_: None)
        planted.setattr(LeaseElector, "may_write", lambda self, _: self.epoch > 0)
        assert broken()


def renewals(elector: LeaseElector, server: Stored, until: int, begins: int = 0) -> Iterator[int]:
    for now in range(begins, until, SECOND):
        elector.read(now, server.lease)
        if (wanted := elector.wanted(now, str(now))) is not None and (stored := server.put_lease(wanted)) is not None:
            elector.wrote(now, now, stored)
            yield now


def test_the_holder_renews_every_two_seconds_and_another_takes_over_within_seventeen() -> None:
    server, first, second = Stored(), LeaseElector("first"), LeaseElector("second")
    assert list(renewals(first, server, 9 * SECOND)) == [0, 2 * SECOND, 4 * SECOND, 6 * SECOND, 8 * SECOND]
    assert (first.epoch, first.may_write(15 * SECOND), first.may_write(15 * SECOND + 1)) == (1, True, False)
    assert (first.leads(18 * SECOND), first.leads(18 * SECOND + 1)) == (True, False)
    taken = next(renewals(second, server, MINUTE, begins=9 * SECOND))
    assert taken - 8 * SECOND <= 17 * SECOND
    assert (second.epoch, second.holder) == (2, "second")
    first.read(taken + SECOND, server.lease)
    assert (first.leads(taken + SECOND), first.holder) == (False, "second")


def test_who_ends_lets_go_and_the_next_one_need_not_wait() -> None:
    server, first, second = Stored(), LeaseElector("first"), LeaseElector("second")
    assert list(renewals(first, server, SECOND)) == [0]
    free = first.let_go()
    assert free is not None
    assert server.put_lease(free) is not None
    assert (first.may_write(0), first.let_go()) == (False, None)
    assert list(renewals(second, server, 2 * SECOND, begins=SECOND)) == [SECOND]
    assert second.epoch == 2


def test_a_lease_that_was_deleted_does_not_begin_epochs_anew() -> None:
    server, first = Stored(), LeaseElector("first")
    list(renewals(first, server, SECOND))
    server.lease = None
    first.read(SECOND, None)
    assert not first.leads(SECOND)
    assert list(renewals(first, server, 2 * SECOND, begins=SECOND)) == [SECOND]
    assert first.epoch == 2
    fresh = LeaseElector("fresh")
    fresh.saw_epoch(7)
    server.lease = None
    assert list(renewals(fresh, server, SECOND)) == [0]
    assert fresh.epoch == 8
    fresh.saw_epoch(9)
    assert not fresh.may_write(0)
