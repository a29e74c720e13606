"""Leases in a real Redis: whole, over when their writer is, and nobody else's.

Read next: `gate.py`, a gate written from the contract; `src/sageserve/live/gates/writer.py`.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import pytest
from redis import Redis

from sageserve.base.config import GateSettings
from sageserve.base.units import SECOND
from sageserve.data.watched.leases import LeaseLine
from sageserve.live.gates.keeper import GateKeeper, GateParts
from sageserve.live.gates.room import GateRate
from sageserve.live.gates.writer import GateWriter
from tests.live.gates.gate import FIELDS, lets_through

KEY = "gate:llama"
EVERY = SECOND // 10
WRITES = 400


def gate(server: Path, **changes: object) -> GateSettings:
    """Settings of a gate; `changes` replace single ones."""
    settings = {"redis": f"unix://{server}", "control_key": KEY, "pool_id": "llama", "region": "east", "model": "big"}
    return GateSettings.model_validate({"authority": "full", "every": "100ms", **settings, **changes})


def through(redis: "Redis") -> float:
    """What the gate lets through now."""
    found = {str(field): str(value) for field, value in redis.hgetall(KEY).items()}
    seconds, micros = redis.time()
    return lets_through(found, "llama", seconds * 1000 + micros // 1000)


def keeper(
    settings: GateSettings, rate: Callable[[], GateRate], kept: list[LeaseLine], me: str = "me", *, acts: bool = True
) -> GateKeeper:
    """What keeps one gate."""
    parts = GateParts(rate=lambda _: rate(), wall=lambda: 1, me=me, acts=acts, keep=kept.append)
    return GateKeeper({"llama": settings}, parts)


def kept_while(one: GateKeeper, until: Callable[[], bool]) -> None:
    """Keep gates until something is so, then end cleanly."""

    async def run() -> None:
        task = asyncio.create_task(one.run())
        async with asyncio.timeout(20):
            while not until():  # noqa: ASYNC110 # what is waited for is in Redis
                await asyncio.sleep(0.002)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())


def test_a_reader_never_sees_a_torn_hash(redis_server: Path, redis: "Redis") -> None:
    torn: list[dict[str, str]] = []
    reads, done = 0, threading.Event()

    def read() -> None:
        nonlocal reads
        with Redis(unix_socket_path=str(redis_server), decode_responses=True) as mine:
            while not done.is_set():
                with mine.pipeline(transaction=True) as both:
                    found, expires = both.hgetall(KEY).pexpiretime(KEY).execute()
                number = found.get("decision_id", "").rpartition("/")[2]
                whole = set(found) == set(FIELDS) and found["max_admission_rps"] == number
                if found and not (whole and found["valid_until_unix_ms"] == str(expires)):
                    torn.append(found)
                reads += 1

    async def write() -> None:
        one = GateWriter(gate(redis_server, every="1m"), "me")  # which is patient
        for number in range(1, WRITES + 1):
            assert await one.write(float(number)) == ""
        await one.close()

    readers = [threading.Thread(target=read) for _ in range(2)]
    for each in readers:
        each.start()
    try:
        asyncio.run(write())
    finally:
        done.set()
        for each in readers:
            each.join()
    assert not torn
    assert reads > WRITES
    assert redis.hget(KEY, "decision_id") == f"me/{WRITES}"


def test_the_end_of_a_lease_is_three_intervals_away_by_redis_clock(redis_server: Path, redis: "Redis") -> None:
    async def write() -> None:
        one = GateWriter(gate(redis_server, every="1s"), "me")
        assert await one.write(2.5) == ""
        await one.close()

    seconds, micros = redis.time()
    asyncio.run(write())
    until = int(redis.hget(KEY, "valid_until_unix_ms") or 0)
    assert 3000 <= until - (seconds * 1000 + micros // 1000) < 5000
    assert redis.pexpiretime(KEY) == until
    assert through(redis) == 2.5


def lease_on(server: Path) -> None:
    """Keep a gate until this process is killed."""
    asyncio.run(keeper(gate(server), lambda: GateRate(5.0), []).run())


def test_a_writer_that_is_killed_closes_the_gate_within_three_intervals(redis_server: Path, redis: "Redis") -> None:
    child = get_context("spawn").Process(target=lease_on, args=(redis_server,))
    child.start()
    try:
        end = time.perf_counter() + 30
        while redis.hget(KEY, "decision_id") in {None, "me/1"} or through(redis) != 5.0:  # it is renewed, at least once
            assert time.perf_counter() < end
            assert child.is_alive()
            time.sleep(0.01)
    finally:
        child.kill()
        killed = time.perf_counter()
        child.join()
    while through(redis) > 0:
        assert time.perf_counter() - killed < 3 * EVERY / SECOND + 1.0, "of this one a slow machine may have the second"
    time.sleep(0.01)
    assert not redis.exists(KEY)


def test_a_clean_end_leases_nothing_at_once(redis_server: Path, redis: "Redis") -> None:
    kept: list[LeaseLine] = []
    kept_while(keeper(gate(redis_server, every="1m"), lambda: GateRate(5.0), kept), lambda: through(redis) == 5.0)
    found = redis.hgetall(KEY)
    assert (found["max_admission_rps"], found["decision_id"]) == ("0", "me/end")
    assert set(found) == set(FIELDS)
    assert redis.pttl(KEY) > 0
    assert [(one.rate, one.written) for one in kept] == [("5", True), ("0", True)]


def test_what_is_not_seen_lets_nothing_through_whatever_was_found(redis_server: Path, redis: "Redis") -> None:
    one = keeper(gate(redis_server), lambda: GateRate(5.0, "east/big is not seen", blind=True), [])
    kept_while(one, lambda: redis.exists(KEY) == 1)
    assert through(redis) == 0
    assert redis.hget(KEY, "max_admission_rps") == "0"


@pytest.mark.parametrize(("changes", "acts"), [({"authority": "observe"}, True), ({}, False)])
def test_without_authority_or_without_act_it_is_only_written_down(
    redis_server: Path, redis: "Redis", changes: dict[str, object], acts: bool
) -> None:
    kept: list[LeaseLine] = []
    rates = iter([GateRate(5.0), GateRate(5.0), GateRate(0.0, "east/big is not seen", blind=True)])
    one = keeper(gate(redis_server, **changes), lambda: next(rates, GateRate(1.5)), kept, acts=acts)
    kept_while(one, lambda: len(kept) == 3)
    assert not redis.exists(KEY)
    assert [(each.rate, each.why, each.written) for each in kept] == [
        ("5", "", False),
        ("0", "east/big is not seen", False),
        ("1.5", "", False),
    ]
    assert not one.written


def test_two_writers_do_not_undo_each_other_and_an_end_is_handed_over_at_once(redis_server: Path, redis: "Redis") -> None:
    async def both() -> None:
        settings = gate(redis_server, every="1m")
        first, second = GateWriter(settings, "first"), GateWriter(settings, "second")
        assert await first.write(1.0) == ""
        assert await second.write(2.0) == f"{KEY} is held by first"
        assert await second.write(0.0, last=True) == f"{KEY} is held by first"
        assert through(redis) == 1.0
        assert await first.write(0.0, last=True) == ""
        assert await second.write(2.0) == ""
        assert await first.write(1.0) == f"{KEY} is held by second"
        assert through(redis) == 2.0
        await first.close()
        await second.close()

    asyncio.run(both())


def test_a_key_that_is_no_lease_stays_as_it_is_and_the_trouble_is_said(redis_server: Path, redis: "Redis") -> None:
    async def tried() -> str:
        one = GateWriter(gate(redis_server), "me")
        said = await one.write(1.0)
        await one.close()
        return said

    redis.hset(KEY, "mine", "1")
    assert asyncio.run(tried()) == f"{KEY} is held by something that is no lease"
    redis.delete(KEY)
    redis.set(KEY, "text")
    assert "WRONGTYPE" in asyncio.run(tried())
    assert redis.get(KEY) == "text"


def test_a_redis_that_is_away_or_wants_a_password_is_said_and_later_written_again(
    redis_server: Path, redis: "Redis", tmp_path: Path
) -> None:
    async def tried(**changes: object) -> str:
        one = GateWriter(gate(redis_server, **changes), "me")
        said = await one.write(1.0)
        await one.close()
        return said

    away = tmp_path / "away.sock"
    assert str(away) in asyncio.run(tried(redis=f"unix://{away}"))
    password = tmp_path / "password"
    assert "cannot read" in asyncio.run(tried(password_file=str(password)))
    redis.acl_setuser("sage", enabled=True, passwords=["+right-one"], keys=["*"], commands=["+@all"])
    password.write_text("wrong-one\n", "utf-8")
    said = asyncio.run(tried(user="sage", password_file=str(password)))
    assert "WRONGPASS" in said or "invalid username-password" in said
    assert "wrong-one" not in said
    password.write_text("right-one\n", "utf-8")
    assert asyncio.run(tried(user="sage", password_file=str(password))) == ""
    assert through(redis) == 1.0
