"""KEDA's side of an external scaler: which calls it makes in which order, and how it reads what it is told.

After KEDA's own code (pkg/scalers/external_scaler.go): a poll asks for the specs, then the metrics, then whether it is active; a
float counts only above 0, else the whole number beside it; the name is asked for without the prefix `s0-`.
Read next: `test_service.py`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from grpc import aio

from sageserve.base.config import ScalerSettings, TargetSettings
from sageserve.live.scaler.answers import PoolWish
from sageserve.live.scaler.messages import SERVICE, TYPES
from sageserve.live.scaler.service import Scaler, ScalerPort

Code = grpc.StatusCode


@dataclass(frozen=True)
class Poll:
    """What one poll comes to."""

    spec: tuple[str, float] | None
    value: float | grpc.StatusCode
    active: bool | grpc.StatusCode


def raw_call(channel: aio.Channel, call: str) -> "aio.UnaryUnaryMultiCallable[bytes, bytes]":
    """A call that takes any bytes."""
    return channel.unary_unary(f"/{SERVICE}/{call}")


class Keda:
    """Asks for one ScaledObject."""

    def __init__(self, channel: aio.Channel, place: str, metadata: Mapping[str, str]) -> None:
        namespace, name = place.split("/")
        self.ref = TYPES["ScaledObjectRef"](name=name, namespace=namespace, scalerMetadata=dict(metadata))
        self._channel = channel

    async def ask(self, call: str, message: Any, answer: str) -> Any:  # noqa: ANN401 # protobuf's classes are made at run time
        """One call; a status code where it is refused."""
        method = raw_call(self._channel, call)
        try:
            return TYPES[answer].FromString(await method(message.SerializeToString(), timeout=5))
        except aio.AioRpcError as error:
            self.said = error.details() or ""
            return error.code()

    async def poll(self) -> Poll:
        """Specs, metrics, activity."""
        specs = await self.ask("GetMetricSpec", self.ref, "GetMetricSpecResponse")
        spec = None if isinstance(specs, Code) else specs.metricSpecs[0]
        asked = TYPES["GetMetricsRequest"](scaledObjectRef=self.ref, metricName=spec.metricName if spec is not None else "")
        values = await self.ask("GetMetrics", asked, "GetMetricsResponse")
        value: float | grpc.StatusCode = values
        if not isinstance(values, Code):
            first = values.metricValues[0]
            value = first.metricValueFloat if first.metricValueFloat > 0 else float(first.metricValue)
        active = await self.ask("IsActive", self.ref, "IsActiveResponse")
        size = None if spec is None else (spec.metricName, spec.targetSizeFloat or float(spec.targetSize))
        return Poll(size, value, active if isinstance(active, Code) else active.result)

    async def stream(self) -> AsyncIterator[bytes]:
        """Whether it is active, as an external-push trigger holds it open."""
        call: aio.UnaryStreamMultiCallable[bytes, bytes] = self._channel.unary_stream(f"/{SERVICE}/StreamIsActive")
        async for message in call(self.ref.SerializeToString()):
            yield message


@asynccontextmanager
async def scaler_of(
    targets: Mapping[str, TargetSettings],
    wish_of: Callable[[str], PoolWish],
    settings: ScalerSettings | None = None,
    credentials: grpc.ChannelCredentials | None = None,
) -> AsyncIterator[tuple[Scaler, aio.Channel, str]]:
    """A port on this machine, a channel to it, and its address."""
    port = ScalerPort(settings or ScalerSettings(listen="127.0.0.1:0"), Scaler(targets, wish_of))
    opened: list[str] = []
    port.opened = opened.append
    serving = await port.open()
    address = opened[0].replace("127.0.0.1", "localhost") if credentials else opened[0]
    channel = aio.secure_channel(address, credentials) if credentials else aio.insecure_channel(address)
    try:
        yield port.scaler, channel, address
    finally:
        await channel.close()
        await serving.stop(0)
        await asyncio.sleep(0)


async def poll(address: str, place: str) -> Poll:
    """One poll of the ScaledObject at `place`, NAMESPACE/NAME, by a process elsewhere."""
    async with aio.insecure_channel(address) as channel:
        return await Keda(channel, place, {}).poll()
