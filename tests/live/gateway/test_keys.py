"""Budgets of keys as they behave: what is let in, what a refusal uses up, what settling gives back, what gateways share.

Read next: `src/sageserve/live/gateway/keys.py`; `test_refusals.py` for how a client sees it.
"""

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sageserve.base.config import KeySettings, LiveSettings
from sageserve.base.errors import ConfigError
from sageserve.base.units import MINUTE, SECOND
from sageserve.live.audit import FOLDER, AuditCheck, verify
from sageserve.live.gateway.api_error import ApiError
from sageserve.live.gateway.context import Options
from sageserve.live.gateway.keys import INTERNAL, Bucket, KeyAccount, KeyRing, hash_of
from sageserve.live.gateway.server import GatewayBinding, GatewayProcess
from tests.core.small import scenario
from tests.live.gateway.stage import DONE, HELLO, STREAM_HEAD, Engine, chunk, event, play, staged, whole
from tests.live.gateway.test_conformance import says

TIERS = ("fast", "slow")


def is_let_in(holder: KeyAccount, tokens: int, now: int = 0) -> bool:
    try:
        holder.charge(tokens, now)
    except ApiError:
        return False
    return True


def left(holder: KeyAccount) -> dict[str, int]:
    """What header lines say is left."""
    lines = (line.split(": ") for line in holder.fields().decode().splitlines())
    return {name.removeprefix("x-ratelimit-remaining-"): int(value) for name, value in lines if "remaining" in name}


def test_a_limit_on_tokens_refuses_what_does_not_fit_and_a_refusal_uses_up_nothing() -> None:
    holder = KeyAccount("h", requests=2, tokens=100)
    assert is_let_in(holder, 60)
    assert left(holder) == {"requests": 1, "tokens": 40}
    with pytest.raises(ApiError) as refused:
        holder.charge(50, 0)
    assert "tokens" in refused.value.message
    assert refused.value.retry_after == 10 * MINUTE // 100, "until ten more have come"
    assert left(holder) == {"requests": 1, "tokens": 40}, "neither of the one nor of the other"
    assert is_let_in(holder, 40)
    assert left(holder) == {"requests": 0, "tokens": 0}
    with pytest.raises(ApiError) as refused:
        holder.charge(0, 0)
    assert "requests" in refused.value.message
    assert refused.value.retry_after == 30 * SECOND


def test_the_whole_budget_at_once_and_then_nothing() -> None:
    holder = KeyAccount("h", requests=2, tokens=100)
    assert is_let_in(holder, 100)
    assert not is_let_in(holder, 50)
    assert is_let_in(holder, 50, now=MINUTE // 2)


def test_settling_gives_back_what_was_not_used_and_takes_what_was_used_besides() -> None:
    holder = KeyAccount("h", tokens=100)
    holder.charge(100, 0)
    holder.settle(100, 10, 0)
    assert left(holder) == {"tokens": 90}
    assert not is_let_in(holder, 91)
    assert is_let_in(holder, 90)
    holder.settle(90, 190, 0)
    assert left(holder) == {"tokens": 0}, "overdrawn is told as none"
    assert not is_let_in(holder, 1, now=MINUTE)
    assert is_let_in(holder, 1, now=MINUTE + MINUTE // 50)


def test_time_before_a_request_took_too_much_does_not_pay_for_it() -> None:
    """It ran for ten minutes alone: the bucket was full again after one."""
    holder = KeyAccount("h", tokens=100)
    assert is_let_in(holder, 100)
    holder.settle(100, 1_100, 10 * MINUTE)
    assert not is_let_in(holder, 1, now=19 * MINUTE)
    assert is_let_in(holder, 1, now=19 * MINUTE + SECOND)


def test_what_is_settled_late_neither_costs_nor_gives() -> None:
    """What is settled by when an answer began may be settled after something later was charged."""
    holder = KeyAccount("h", tokens=60)
    assert is_let_in(holder, 60, now=MINUTE)
    holder.settle(0, 0, MINUTE // 2)
    assert not is_let_in(holder, 2, now=MINUTE + SECOND)
    assert is_let_in(holder, 1, now=MINUTE + SECOND)


def test_more_than_a_minute_s_worth_waits_for_a_full_bucket() -> None:
    holder = KeyAccount("h", tokens=100)
    assert is_let_in(holder, 1_000)
    assert not is_let_in(holder, 1_000, now=9 * MINUTE), "nine hundred are owed still"
    assert is_let_in(holder, 1_000, now=10 * MINUTE)


def test_without_limits_everything_is_let_in_and_nothing_is_told() -> None:
    holder = KeyAccount("h")
    assert not holder.limited
    assert all(is_let_in(holder, 10**9) for _ in range(1000))
    holder.settle(1, 10**9, 0)
    assert holder.fields() == b""


@pytest.mark.parametrize("gateways", [1, 2, 5])
def test_gateways_that_share_a_limit_let_in_no_more_together(gateways: int) -> None:
    holders = [KeyAccount("h", requests=10, tokens=1_000) for _ in range(gateways)]
    for holder in holders:
        holder.share(gateways)
    let_in = sum(is_let_in(holder, 100) for holder in holders for _ in range(20))
    assert let_in == 10
    assert all(left(holder) == {"requests": 0, "tokens": 0} for holder in holders)


def test_a_gateway_that_joins_takes_its_share_of_what_others_have() -> None:
    holder = KeyAccount("h", requests=10)
    assert left(holder) == {"requests": 10}
    holder.share(2)
    assert sum(is_let_in(holder, 0) for _ in range(20)) == 5
    holder.share(1)
    assert not is_let_in(holder, 0)
    assert is_let_in(holder, 0, now=6 * SECOND)


@dataclass
class Slow:
    """A limit as one would say it: every second adds a sixtieth, never above the limit."""

    limit: int
    level: float = field(init=False)
    at: int = 0

    def __post_init__(self) -> None:
        self.level = self.limit

    def pass_to(self, now: int) -> None:
        for _ in range((now - self.at) // SECOND):
            self.level = min(self.limit, self.level + self.limit / 60)
        self.at = now


STEPS = st.lists(
    st.tuples(st.sampled_from(["charge", "charge", "settle"]), st.integers(0, 130), st.integers(0, 130), st.integers(0, 20)),
    max_size=60,
)


@given(STEPS)
def test_budgets_are_what_an_obvious_one_says(steps: list[tuple[str, int, int, int]]) -> None:
    holder = KeyAccount("h", requests=3 * 60, tokens=2 * 60)
    requests, tokens, now = Slow(3 * 60), Slow(2 * 60), 0
    for what, amount, used, passed in steps:
        now += passed * SECOND
        requests.pass_to(now)
        tokens.pass_to(now)
        if what == "settle":
            holder.settle(amount, used, now)
            tokens.level += amount - used
            continue
        fits = requests.level >= 1 and tokens.level >= min(amount, 120)
        assert is_let_in(holder, amount, now) is fits
        if fits:
            requests.level -= 1
            tokens.level -= amount


def test_a_bucket_that_was_never_used_is_full_whenever_it_is_looked_at() -> None:
    assert Bucket(60).fill(10**15) == 60
    assert Bucket(60).wait(60, 10**15) == 0
    assert Bucket(60).wait(61, 10**15) == 0


# --- who may ask ---


def ring(*names: str, internal: str = "", **more: object) -> KeyRing:
    keys = [KeySettings.model_validate({"name": name, "sha256": hash_of(name.encode()), **more}) for name in names]
    return KeyRing(keys, TIERS, internal)


def test_keys_are_found_by_what_they_are_and_not_by_how_they_begin() -> None:
    keys = ring("alice", "bob", internal="inside")
    assert keys.find(b"Bearer alice", loopback=False).name == "alice"
    assert keys.find(b"bearer  bob ", loopback=False).name == "bob"
    assert keys.find(b"BEARER inside", loopback=False).name == INTERNAL
    assert keys.find(b"Bearer inside", loopback=False).internal
    assert not keys.find(b"Bearer alice", loopback=False).internal
    for wrong in (
        None,
        b"alice",
        b"Bearer",
        b"Bearer alic",
        b"Bearer alice2",
        b"Basic alice",
        b"Bearer " + hash_of(b"alice").encode(),
    ):
        with pytest.raises(ApiError) as refused:
            keys.find(wrong, loopback=True)
        assert refused.value.status == 401
        assert refused.value.message.startswith("You did not provide" if wrong is None else "Incorrect")


def test_a_key_ends_at_its_date_and_two_of_one_name_overlap_on_one_budget() -> None:
    now = [0]
    old = KeySettings(name="a", sha256=hash_of(b"old"), expires="2027-03-31", requests_per_minute=2, tokens_per_minute=100)
    new = KeySettings(name="a", sha256=hash_of(b"new"), requests_per_minute=2, tokens_per_minute=100)
    keys = KeyRing([old, new], TIERS, wall=lambda: now[0])
    end = int(datetime(2027, 3, 31, tzinfo=UTC).timestamp()) * SECOND
    now[0] = end - 1
    first, second = (keys.find(b"Bearer " + word, loopback=False) for word in (b"old", b"new"))
    first.account.charge(1, 0)
    second.account.charge(1, 0)
    with pytest.raises(ApiError, match="requests"):
        second.account.charge(1, 0)
    now[0] = end
    with pytest.raises(ApiError) as refused:
        keys.find(b"Bearer old", loopback=True)
    assert (refused.value.status, refused.value.code) == (401, "api_key_expired")
    assert keys.find(b"Bearer new", loopback=False) is second
    with pytest.raises(ConfigError, match="2027-02-31"):
        KeyRing([KeySettings(name="a", sha256="0" * 64, expires="2027-02-31")], TIERS)


def test_how_often_keys_were_used_is_told_to_the_audit_log_once(tmp_path: Path) -> None:
    keys = tuple(KeySettings(name="a", sha256=hash_of(word)) for word in (b"one", b"two"))
    binding = GatewayBinding("127.0.0.1", 0, audit=tmp_path, options=Options(internal="inside"))
    worker = GatewayProcess(scenario().model_copy(update={"live": LiveSettings(keys=keys)}), binding)
    for word in (b"one", b"one", b"inside", b"none"):
        with suppress(ApiError):
            worker.context.keys.find(b"Bearer " + word, loopback=False)
    asyncio.run(worker._note_use())
    asyncio.run(worker._note_use())  # nothing was used since
    (line,) = (tmp_path / FOLDER / "audit-000001.jsonl").read_text("utf-8").splitlines()
    assert json.loads(line)["facts"] == {f"a {hash_of(b'one')[:8]}": 2, "unknown": 1}
    assert verify(tmp_path) == AuditCheck(1, 1, json.loads(line)["hash"])


def test_without_keys_this_machine_alone_may_ask() -> None:
    keys = ring(internal="inside")
    assert keys.open
    assert keys.find(None, loopback=True).name == "anyone"
    assert keys.find(b"Bearer whatever", loopback=True).name == "anyone"
    assert keys.find(b"Bearer inside", loopback=True).name == INTERNAL
    with pytest.raises(ApiError) as refused:
        keys.find(None, loopback=False)
    assert refused.value.status == 401


def test_tiers_of_a_key_are_those_it_names() -> None:
    few = ring("few", tiers=["slow"], tier="slow").find(b"Bearer few", loopback=False)
    assert few.tier == 1
    few.check_tier(1, TIERS)
    with pytest.raises(ApiError, match="fast"):
        few.check_tier(0, TIERS)
    for unknown in ({"tiers": ["gold"]}, {"tier": "gold"}):
        with pytest.raises(ConfigError, match="gold"):
            ring("k", **unknown)


def test_limits_of_a_key_reach_its_holder_and_are_shared() -> None:
    keys = ring("k", requests_per_minute=10, tokens_per_minute=100)
    holder = keys.find(b"Bearer k", loopback=False).account
    assert left(holder) == {"requests": 10, "tokens": 100}
    keys.share(2)
    assert sum(is_let_in(holder, 0) for _ in range(20)) == 5


def test_keys_of_one_name_share_one_account() -> None:
    def key(secret: bytes, **more: object) -> KeySettings:
        return KeySettings.model_validate({"name": "k", "sha256": hash_of(secret), **more})

    keys = KeyRing([key(b"old", requests_per_minute=2), key(b"new", requests_per_minute=2)], TIERS)
    old, new = (keys.find(b"Bearer " + secret, loopback=False).account for secret in (b"old", b"new"))
    assert [is_let_in(account, 0) for account in (old, new, old)] == [True, True, False]
    assert keys.account("k") is old
    assert not keys.account("gone").limited
    with pytest.raises(ConfigError, match="differ in weight"):
        KeyRing([key(b"old", weight=2.0), key(b"new")], TIERS)
    weights = [KeyRing([key(b"old", **said)], TIERS, weights={"k": 3.0}).account("k").weight for said in ({}, {"weight": 2.0})]
    assert weights == [3.0, 2.0], "what tenants say, where the key says nothing"


@given(st.integers(1, 10_000), st.integers(1, 64))
@example(15, 11)  # 15 / 11 x 11 is below 15
def test_a_full_bucket_says_its_whole_limit_however_it_is_shared(limit: int, gateways: int) -> None:
    holder = KeyAccount("h", requests=limit)
    holder.share(gateways)
    assert holder.requests is not None
    holder.requests.fill(0)
    assert left(holder) == {"requests": limit}


# --- what the engine says it took ---


@pytest.mark.parametrize("stream", [False, True])
def test_tokens_are_settled_by_the_engine_s_count_and_not_by_our_guess(stream: bool) -> None:
    async def story() -> None:
        usage = {"prompt_tokens": 50_000, "completion_tokens": 3, "total_tokens": 50_003}
        body = {"id": "c", "object": "chat.completion", "created": 1, "model": "big", "choices": [], "usage": usage}
        last = chunk(event({"content": "one"}, "stop", usage=usage)) + chunk(DONE) + b"0\r\n\r\n"
        engine = Engine(script=says(STREAM_HEAD + last if stream else whole(body)))
        keys = [{"name": "k", "sha256": hash_of(b"k"), "tokens_per_minute": 100_000}]
        async with staged(engine, keys=keys) as stage, httpx.AsyncClient(base_url=stage.url) as client:
            headers, known = {"authorization": "Bearer k"}, []
            for _ in range(3):
                got = await client.post("/v1/chat/completions", json={**HELLO, "stream": stream}, headers=headers)
                known.append((got.status_code, int(got.headers.get("x-ratelimit-remaining-tokens", -1))))
        assert known[0][1] > 99_000, "a guess, so far"
        assert 45_000 < known[1][1] < 55_000
        assert known[2][1] < 5_000

    play(story())
