"""KEDA asks over gRPC: every answer and every refusal, streams, certificates. Read next: `keda.py`, its side."""

import asyncio
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio
from prometheus_client import CollectorRegistry, generate_latest

from sageserve.base.config import ScalerSettings, ScalerTlsSettings
from sageserve.base.errors import ConfigError
from sageserve.live.scaler import service
from sageserve.live.scaler.answers import PoolWish
from sageserve.live.scaler.messages import active, metric_spec, metric_value, read_asked, read_metrics_asked
from sageserve.live.scaler.service import Scaler, ScalerPort
from sageserve.live.watch.serve import ScalerAnswers
from tests.live.gateway.test_tls import issue
from tests.live.scaler.keda import Code, Keda, Poll, raw_call, scaler_of
from tests.live.scaler.test_answers import POOL, TARGETS, target

SPEC = ("desired", 1.0)


class Wishes:
    """What is wanted of the one pool, as a test sets it."""

    def __init__(self) -> None:
        self.now = PoolWish(3)
        self.address = ""  # of the port

    def of(self, pool: str) -> PoolWish:
        return self.now if pool == POOL else PoolWish(7)


def play(
    story: Callable[[Scaler, aio.Channel, Wishes], Coroutine[Any, Any, None]],
    settings: ScalerSettings | None = None,
    credentials: grpc.ChannelCredentials | None = None,
) -> None:
    async def run() -> None:
        wishes = Wishes()
        targets = {**TARGETS, "watched": target(keda=False, name="serving/watched", min=2)}
        async with scaler_of(targets, wishes.of, settings, credentials) as (scaler, channel, wishes.address):
            await asyncio.wait_for(story(scaler, channel, wishes), 20)

    asyncio.run(run())


def test_messages_are_those_that_kedas_proto_file_says() -> None:
    """By hand: field 1 name, field 2 namespace, field 3 entries of the map; all of wire type 2."""
    wire = b"\x0a\x03big\x12\x07serving\x1a\x0d\x0a\x06target\x12\x03big"
    found = read_asked(wire)
    assert (found.place, dict(found.metadata)) == ("serving/big", {"target": "big"})
    asked, name = read_metrics_asked(b"\x0a" + bytes([len(wire)]) + wire + b"\x12\x07desired")
    assert (asked, name) == (found, "desired")
    assert active(is_active=True) == b"\x08\x01"
    # the value 3, whole (field 2, varint) and as a float (field 3, eight bytes), in field 1
    assert metric_value("n", 3) == b"\x0a\x0e\x0a\x01n\x10\x03\x19" + b"\x00\x00\x00\x00\x00\x00\x08\x40"
    assert metric_value("n", 0) == b"\x0a\x03\x0a\x01n", "protobuf leaves zeros out, and KEDA reads them as 0"
    assert metric_spec() == b"\x0a\x14\x0a\x07desired\x10\x01\x19" + b"\x00\x00\x00\x00\x00\x00\xf0\x3f"


def test_a_poll_is_answered_or_refused_and_specs_always_are() -> None:
    async def story(scaler: Scaler, channel: aio.Channel, wishes: Wishes) -> None:
        big, unknown = Keda(channel, "serving/big", {"target": "big"}), Keda(channel, "serving/big", {"target": "bug"})
        assert await big.poll() == Poll(SPEC, 3.0, active=True)
        wishes.now = PoolWish(0)
        assert await big.poll() == Poll(SPEC, 1.0, active=True), "its minimum"
        plain = Keda(channel, "serving/x", {"target": "plain"})
        assert await plain.poll() == Poll(SPEC, 0.0, active=False), "it may be at 0, and nothing is wanted"
        wishes.now = PoolWish(3, "no series")
        assert await big.poll() == Poll(SPEC, Code.UNAVAILABLE, Code.UNAVAILABLE)
        assert big.said == "big: no series"
        assert await Keda(channel, "serving/watched", {"target": "watched"}).poll() == Poll(SPEC, 2.0, active=True)
        assert await unknown.poll() == Poll(SPEC, Code.NOT_FOUND, Code.NOT_FOUND)
        assert scaler.answered["GetMetrics", "ok"] == 4
        assert scaler.answered["GetMetrics", "unavailable"] == scaler.answered["IsActive", "not-found"] == 1
        registry = CollectorRegistry()
        registry.register(ScalerAnswers(scaler))
        assert b'sageserve_scaler_answers_total{call="GetMetrics",code="ok"} 4.0' in generate_latest(registry)

    play(story)


def test_what_is_no_message_is_refused_and_the_next_one_answered() -> None:
    async def story(_scaler: Scaler, channel: aio.Channel, _wishes: Wishes) -> None:
        for call in ("GetMetrics", "IsActive"):
            with pytest.raises(aio.AioRpcError) as refused:
                await raw_call(channel, call)(b"\xff\xff")
            assert refused.value.code() is Code.INVALID_ARGUMENT
        with pytest.raises(aio.AioRpcError) as refused:
            await raw_call(channel, "GetMetrics")(b"\x0a" * 100_000)
        assert refused.value.code() is Code.RESOURCE_EXHAUSTED
        with pytest.raises(aio.AioRpcError) as refused:
            await raw_call(channel, "StreamMetricSpec")(b"")
        assert refused.value.code() is Code.UNIMPLEMENTED, "KEDA does without it"
        assert (await Keda(channel, "serving/big", {}).poll()).value == 3.0

    play(story)


def test_a_stream_says_at_once_what_changes_and_ends_with_what_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(scaler: Scaler, channel: aio.Channel, wishes: Wishes) -> None:
        messages = Keda(channel, "serving/x", {"target": "plain"}).stream()
        assert await anext(messages) == active(is_active=True)
        scaler.look()  # nothing changed: nothing is said
        wishes.now = PoolWish(0)
        scaler.look()
        assert await anext(messages) == active(is_active=False)
        wishes.now = PoolWish(0, "blind")
        scaler.look()
        with pytest.raises(aio.AioRpcError) as refused:
            await anext(messages)
        assert refused.value.code() is Code.UNAVAILABLE
        monkeypatch.setattr(service, "AGAIN_S", 0.01)
        wishes.now = PoolWish(1)
        again = Keda(channel, "serving/x", {"target": "plain"}).stream()
        assert [await anext(again) for _ in range(3)] == [active(is_active=True)] * 3, "also when nothing changes"

    play(story)


def test_a_port_that_is_taken_or_a_certificate_that_is_not_there_is_said(tmp_path: Path) -> None:
    async def story(_scaler: Scaler, _channel: aio.Channel, wishes: Wishes) -> None:
        with pytest.raises(ConfigError, match=r"live\.scaler\.listen"):
            await ScalerPort(ScalerSettings(listen=wishes.address), Scaler({}, Wishes().of)).open()
        tls = ScalerTlsSettings(certificate=str(tmp_path / "none.crt"), key=str(tmp_path / "none.key"))
        with pytest.raises(ConfigError, match=r"none\.key: No such file"):
            await ScalerPort(ScalerSettings(listen="127.0.0.1:0", tls=tls), Scaler({}, Wishes().of)).open()

    play(story)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not on this machine")
def test_with_a_client_authority_whoever_shows_no_certificate_is_turned_away_and_new_files_are_used(tmp_path: Path) -> None:
    ours, theirs = issue(tmp_path, "ours"), issue(tmp_path, "theirs")
    tls = ScalerTlsSettings(certificate=str(ours[0]), key=str(ours[1]), client_ca=str(theirs[0]))
    known = grpc.ssl_channel_credentials(ours[0].read_bytes(), theirs[1].read_bytes(), theirs[0].read_bytes())

    async def story(_scaler: Scaler, channel: aio.Channel, wishes: Wishes) -> None:
        assert (await Keda(channel, "serving/big", {}).poll()).value == 3.0
        async with aio.secure_channel(wishes.address, grpc.ssl_channel_credentials(ours[0].read_bytes())) as stranger:
            assert (await Keda(stranger, "serving/big", {}).poll()).value is Code.UNAVAILABLE
        renewed = issue(tmp_path, "ours")  # another certificate in the same files
        fresh = grpc.ssl_channel_credentials(renewed[0].read_bytes(), theirs[1].read_bytes(), theirs[0].read_bytes())
        async with aio.secure_channel(wishes.address, fresh) as later:
            assert (await Keda(later, "serving/big", {}).poll()).value == 3.0

    play(story, ScalerSettings(listen="127.0.0.1:0", tls=tls), known)
