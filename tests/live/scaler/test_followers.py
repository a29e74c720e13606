"""Several that answer KEDA where one decides: never another number than the leader's, and none from what is too old.

Read next: `src/sageserve/live/scaler/table.py`, `follow.py`; `keda.py`, KEDA's side.
"""

import asyncio
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import grpc
import httpx
import pytest
from grpc import aio
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from sageserve.base.config import ScalerSettings, TargetSettings
from sageserve.base.errors import ConfigError
from sageserve.base.units import MINUTE, SECOND, Micros
from sageserve.base.urls import shown_url
from sageserve.cli.main import app
from sageserve.live.scaler import follow as following
from sageserve.live.scaler.answers import NoCount, PoolWish, RefusalCode, SaidOfTarget, TargetCount, answer
from sageserve.live.scaler.follow import FollowingScaler, follow
from sageserve.live.scaler.messages import SERVICE, KedaTrigger
from sageserve.live.scaler.service import AGE, Scaler, ScalerPort
from sageserve.live.scaler.table import HeardTable, ScalerTable, ToldTarget
from sageserve.live.watch.serve import serve
from tests.live.prometheus.stub import Asked, stub
from tests.live.scaler.keda import Code, Keda, Poll
from tests.live.scaler.test_answers import TARGETS, asked, target
from tests.live.scaler.test_service import SPEC
from tests.live.watch.command import FLEET
from tests.live.watch.stage import POOL as WATCHED
from tests.live.watch.stage import Pod, WatchStage

LIMIT_S = 90.0
PORT = ("--set", "live.scaler.listen=127.0.0.1:0")
WISHES = st.builds(PoolWish, st.integers(0, 12), st.sampled_from(["", "", "blind"]))
SAID = st.builds(SaidOfTarget, st.none() | st.integers(0, 12), st.none() | st.integers(0, 12), st.booleans())
STEPS = st.lists(st.tuples(st.booleans(), st.integers(0, 60), WISHES, SAID, st.floats(0, 60)), max_size=12)


@given(STEPS)
def test_a_follower_says_what_the_leader_said_last_or_nothing_once_that_is_too_old(
    steps: list[tuple[bool, int, PoolWish, SaidOfTarget, float]],
) -> None:
    now: Micros = 0
    wish, said = PoolWish(0), SaidOfTarget()
    leader = Scaler(TARGETS, lambda _: wish, lambda _: said)
    heard = HeardTable("http://leader", "fleet")
    last: dict[str, tuple[TargetCount | NoCount, Micros, float]] = {}
    before: dict[str, int] = {}
    for comes, passed, wish, said, age_s in steps:  # the leader's, which it reads
        now += passed * SECOND
        if comes:
            heard.take(ScalerTable("fleet", LIMIT_S, leader.table(lambda _, age_s=age_s: age_s)), now)  # type: ignore[misc] # bound now
            for name in TARGETS:
                told = answer(TARGETS, lambda _, wish=wish: wish, asked_of(name), lambda _, said=said: said, before)  # type: ignore[misc] # bound now
                last[name] = told, now, 0.0 if isinstance(told, NoCount) or said.override is not None else age_s
                if isinstance(told, TargetCount):
                    before[name] = told.count
        for name in TARGETS:
            found = heard.told(TARGETS, asked_of(name), now)
            if name not in last or last[name][2] + (now - last[name][1]) / SECOND > LIMIT_S:
                assert isinstance(found, NoCount)
                assert found.code is RefusalCode.UNAVAILABLE
            else:
                assert found == last[name][0]


def asked_of(name: str) -> KedaTrigger:
    return asked(TARGETS[name].name if TARGETS[name].kind == "ScaledObject" else "serving/x", target=name)


def heard_of(table: ScalerTable | None, why: str = "") -> HeardTable:
    found = HeardTable("http://leader", "fleet")
    if table is not None:
        found.take(table, 0)
    if why:
        found.why = why
    return found


@pytest.mark.parametrize(
    ("heard", "now", "expected"),
    [
        (heard_of(None), 0, "big: nothing was heard from http://leader: it was not asked yet"),
        (heard_of(None, "refused"), 0, "big: nothing was heard from http://leader: refused"),
        (heard_of(ScalerTable("fleet", 90, {"big": ToldTarget(3)})), 90 * SECOND, 3),
        (heard_of(ScalerTable("fleet", 90, {"big": ToldTarget(3, 30)}), "refused"), 60 * SECOND, 3),
        (
            heard_of(ScalerTable("fleet", 90, {"big": ToldTarget(3, 31)}), "refused"),
            MINUTE,
            "is 1m31s old, and holds for 1m30s; refused",
        ),
        (heard_of(ScalerTable("fleet", 9e9, {"big": ToldTarget(3)})), 61 * MINUTE, "is 1h1m old, and holds for 1h"),
        (heard_of(ScalerTable("fleet", 90, {"big": ToldTarget(3, -1e9)})), 91 * SECOND, "is 1m31s old"),
        (heard_of(ScalerTable("fleet", 90, {"big": ToldTarget(99)})), 0, 8),
        (heard_of(ScalerTable("fleet", 90, {"big": ToldTarget(0)})), 0, 1),
        (heard_of(ScalerTable("fleet", 90, {"big": ToldTarget(None, 0, "big: no series")})), 0, "big: no series"),
        (heard_of(ScalerTable("fleet", 90, {"other": ToldTarget(3)})), 0, "big: http://leader does not know it"),
        (heard_of(ScalerTable("another", 90, {"big": ToldTarget(3)})), 0, "it answers for fleet another, and this is fleet"),
    ],
)
def test_what_is_wrong_is_said_and_never_a_number(heard: HeardTable, now: Micros, expected: str | int) -> None:
    found = heard.told(TARGETS, asked_of("big"), now)
    if isinstance(expected, int):
        assert found == TargetCount("big", expected)
    else:
        assert isinstance(found, NoCount)
        assert found.code is RefusalCode.UNAVAILABLE
        assert expected in found.why


def test_names_and_minima_are_the_followers_own_whatever_the_leader_says() -> None:
    targets: Mapping[str, TargetSettings] = {**TARGETS, "watched": target(keda=False, name="serving/watched", min=2)}
    heard = heard_of(None)
    assert heard.told(targets, asked("serving/watched"), 0) == TargetCount("watched", 2)
    found = heard.told(targets, asked(target="bug"), 0)
    assert isinstance(found, NoCount)
    assert found.code is RefusalCode.NOT_FOUND


def test_an_override_is_told_while_blind_as_long_as_the_leader_is_heard() -> None:
    said = SaidOfTarget(override=5)
    leader = Scaler(TARGETS, lambda _: PoolWish(3, "big: no server answers"), lambda _: said)
    heard = heard_of(ScalerTable("fleet", LIMIT_S, leader.table(lambda _: 300.0)))
    assert heard.told(TARGETS, asked_of("big"), 90 * SECOND) == TargetCount("big", 5)
    assert isinstance(heard.told(TARGETS, asked_of("big"), 91 * SECOND), NoCount)
    said = SaidOfTarget(frozen=True)
    heard.take(ScalerTable("fleet", LIMIT_S, leader.table(lambda _: 300.0)), 0)
    found = heard.told(TARGETS, asked_of("big"), 0)
    assert isinstance(found, NoCount)
    assert "no server answers" in found.why, "the leader's own reason, not an age"


def test_what_was_heard_of_a_fleet_ends_where_another_one_answers() -> None:
    heard = heard_of(ScalerTable("fleet", 90, {"big": ToldTarget(3)}))
    heard.take(ScalerTable("another", 90, {"big": ToldTarget(7)}), SECOND)
    found = heard.told(TARGETS, asked_of("big"), SECOND)
    assert isinstance(found, NoCount)
    assert "it answers for fleet another, and this is fleet" in found.why
    heard.take(ScalerTable("fleet", 90, {"big": ToldTarget(4)}), 2 * SECOND)
    assert heard.told(TARGETS, asked_of("big"), 2 * SECOND) == TargetCount("big", 4)


@pytest.mark.parametrize(
    "url", ["http://me:SECRET@leader:8110", "me:SECRET@leader:8110", "http://me:SEC://RET/SECRET@leader:8110"]
)
def test_a_password_of_the_leader_is_in_no_sentence(url: str) -> None:
    assert shown_url(url) in {"http://leader:8110", "leader:8110"}
    found = HeardTable(url, "fleet").told(TARGETS, asked_of("big"), 0)
    assert isinstance(found, NoCount)
    assert "SEC" not in found.why


def test_a_follower_sends_the_password_of_its_leader_and_says_it_to_nobody() -> None:
    said: list[str] = []
    nested = b'{"x":' + b"[" * 100_000
    replies = iter([(b"", 500), (b"", 404), (b"{", 200), (nested, 200), (b" " * (following._LARGEST + 1), 200)])

    def reply(one: Asked) -> None:
        assert one.headers["Authorization"].startswith("Basic ")
        body, status = next(replies)
        one.answer(body, status)

    async def hear(url: str) -> None:
        async with httpx.AsyncClient() as client:
            for _ in range(5):
                with pytest.raises(ValueError, match="http://127") as error:
                    await following._table(client, url)
                said.append(str(error.value))

    with stub(reply) as server:
        asyncio.run(hear(server.url.replace("//", "//me:SECRET@")))
    assert not any("SECRET" in one or "me" in one.split("/")[2] for one in said)


class Doubled:
    """A leader that watches, with its page, and one follower, in one process; the follower's clock is set by hand."""

    def __init__(self, folder: Path) -> None:
        self.stage = WatchStage(folder / "state", [Pod(f"p{n}", per_s=1, running=2) for n in range(3)])
        self.stage.run(MINUTE)
        self.targets = {"big": target(pool=WATCHED, min=1)}
        self.leader = Scaler(self.targets, self.stage.watch.wish)
        self.now: Micros = 0
        self.told: list[str] = []
        self.heard = HeardTable("leader", self.stage.watch.name)
        self.follower = FollowingScaler(self.targets, self.heard, lambda: self.now)
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listening.getsockname()[1]}/"

    async def until(self, sentence: str) -> None:
        async with asyncio.timeout(10):
            while not (self.told and sentence in self.told[-1]):  # noqa: ASYNC110 # the follower says it
                await asyncio.sleep(0.01)


async def age_of(channel: aio.Channel, ref: bytes) -> int:
    """What is said beside an answer, in milliseconds."""
    method: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE}/IsActive")
    call = method(ref)
    await call
    return int(dict(await call.trailing_metadata())[AGE])


async def story(folder: Path) -> None:
    one = Doubled(folder)
    pages = asyncio.create_task(serve(one.stage.watch, one.listening, one.leader))
    asks = asyncio.create_task(follow(one.url, one.follower, lambda: one.now, one.told.append))
    port = ScalerPort(ScalerSettings(listen="127.0.0.1:0"), one.follower)
    opened: list[str] = []
    port.opened = opened.append
    server = await port.open()
    try:
        async with aio.insecure_channel(opened[0]) as channel:
            keda = Keda(channel, "serving/big", {})
            await one.until("the leader is heard")
            assert await keda.poll() == Poll(SPEC, 3.0, active=True)
            one.now += 10 * SECOND
            assert 10_000 <= await age_of(channel, keda.ref.SerializeToString()) < 26_000
            stream = keda.stream()
            assert await anext(stream) == b"\x08\x01"
            pages.cancel()  # the leader is started anew
            with suppress(asyncio.CancelledError):
                await pages
            one.listening.close()
            await one.until("the leader is not heard")
            assert await keda.poll() == Poll(SPEC, 3.0, active=True)
            one.now += round(one.stage.watch.limit) + SECOND  # since it was asked last, which may be just now
            assert await keda.poll() == Poll(SPEC, Code.UNAVAILABLE, Code.UNAVAILABLE)
            with pytest.raises(aio.AioRpcError) as refused:
                await anext(stream)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    finally:
        asks.cancel()
        pages.cancel()
        await server.stop(0)


def test_followers_answer_on_while_the_leader_is_started_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "EVERY_S", 0.02)
    asyncio.run(story(tmp_path))


def test_a_url_that_cannot_be_asked_is_a_reason_and_no_end() -> None:
    told: list[str] = []

    async def story() -> None:
        scaler = FollowingScaler(TARGETS, HeardTable("http://h:abc", "fleet"), lambda: 0)
        asks = asyncio.create_task(follow("http://h:abc", scaler, lambda: 0, told.append))
        await asyncio.wait([asks], timeout=0.05)
        assert not asks.done()
        asks.cancel()

    asyncio.run(story())
    assert [one.partition(":")[0] for one in told] == ["the leader is not heard"]


def test_the_age_of_sight_is_that_of_the_instance_seen_the_longest_ago(tmp_path: Path) -> None:
    stage = WatchStage(tmp_path, [Pod("a", per_s=1), Pod("b", per_s=1)])
    stage.run(MINUTE)
    assert stage.watch.sight_age_s(WATCHED) == 0
    stage.away = True
    stage.run(MINUTE)
    assert stage.watch.sight_age_s(WATCHED) == 60


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--leader", "http://x:8110"], "has no live.scaler"),
        (["--leader", "x:8110", *PORT], "--leader: 'x:8110' is no URL"),
        (["--leader", "http://h:abc", *PORT], "--leader: 'http://h:abc' is no URL"),
        (["--leader", "http://h:99999", *PORT], "--leader: 'http://h:99999' is no URL"),
        (["--leader", "http://[::1", *PORT], "--leader: 'http://[::1' is no URL"),
        (["--leader", "http://a\x07b", *PORT], "is no URL"),
        (["--leader", "http://me:SECRET@h:abc", *PORT], "--leader: what was given is no URL"),
    ],
)
def test_the_command_refuses_what_cannot_work(tmp_path: Path, words: list[str], said: str) -> None:
    (tmp_path / "fleet.yaml").write_text(FLEET, "utf-8")
    found = CliRunner().invoke(app, ["scaler", str(tmp_path / "fleet.yaml"), *words]).exception
    assert isinstance(found, ConfigError), "which ends with 2"
    assert said in str(found)
