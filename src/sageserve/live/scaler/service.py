"""The port that KEDA asks at: gRPC, over TLS where settings say so; certificates that are renewed are used from then on.

Specs of the metric are answered always, also for a target that is not there: without them KEDA builds its HPA without our
trigger, and says nothing. Everything else refuses what is not known. Read next: `answers.py`, `live/watch/process.py`, which
knows what is wished.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Final, NoReturn

import grpc
from grpc import aio

from sageserve.base.config import ScalerSettings, ScalerTlsSettings, TargetSettings
from sageserve.base.errors import ConfigError
from sageserve.live.key_files import KeyFiles
from sageserve.live.scaler.answers import (
    NOTHING_SAID,
    NoCount,
    PoolWish,
    RefusalCode,
    SaidOfTarget,
    TargetCount,
    answer,
    count_of,
)
from sageserve.live.scaler.messages import (
    METRIC,
    SERVICE,
    KedaTrigger,
    active,
    metric_spec,
    metric_value,
    read_asked,
    read_metrics_asked,
)
from sageserve.live.scaler.table import ToldTarget
from sageserve.live.waiting import within

_LOG: Final = logging.getLogger(__name__)
AGAIN_S: Final = 30.0
"""Between two messages of a stream in which nothing changes."""
_LARGEST: Final = 64 << 10  # bytes of a question; KEDA's have some hundred
_CODES: Final = {RefusalCode.NOT_FOUND: grpc.StatusCode.NOT_FOUND, RefusalCode.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE}
_GRACE_S: Final = 1.0
AGE: Final = "sageserve-age-ms"
"""Of trailing metadata: how old what is told is, where it was told by another process."""

_Context = aio.ServicerContext[bytes, bytes]


class Scaler:
    """Answers KEDA.

    Args:
        targets: by name.
        wish_of: what is wanted of a pool now.
        said_of: what people say of a target.
    """

    def __init__(
        self,
        targets: Mapping[str, TargetSettings],
        wish_of: Callable[[str], PoolWish],
        said_of: Callable[[str], SaidOfTarget] = lambda _: NOTHING_SAID,
    ) -> None:
        self.answered: Counter[tuple[str, str]] = Counter()  # by call and gRPC's code
        self._targets = targets
        self._wish_of, self._said_of = wish_of, said_of
        self._last: dict[str, int] = {}  # what was answered, by target
        self._changed = asyncio.Event()

    def look(self) -> None:
        """What is wished may have changed: streams say so at once."""
        self._changed.set()
        self._changed = asyncio.Event()

    def answer(self, asked: KedaTrigger) -> TargetCount | NoCount:
        """How many instances, or why not."""
        found = answer(self._targets, self._wish_of, asked, self._said_of, self._last)
        if isinstance(found, TargetCount):
            self._last[found.target] = found.count
        return found

    def age_s(self, target: str) -> float | None:  # of a follower alone
        """How old what is told of a target is; None: it is found when it is asked for."""
        return None

    def table(self, age_s_of: Callable[[str], float]) -> dict[str, ToldTarget]:
        """What would be told of each target that KEDA asks for, for followers: it counts as told.

        Args:
            age_s_of: how old what is seen of a pool is; an override and a refusal hold whatever is seen.
        """
        found = {}
        for name, target in self._targets.items():
            if not target.keda:
                continue
            said = self._said_of(name)
            one = count_of(name, target, self._wish_of, said, self._last.get(name))
            if isinstance(one, NoCount):
                found[name] = ToldTarget(why=one.why)
                continue
            self._last[name] = one.count
            found[name] = ToldTarget(one.count, age_s_of(target.pool) if said.override is None else 0.0)
        return found

    def handlers(self) -> grpc.GenericRpcHandler:
        """The calls, by name; messages are read and written here, so that what cannot be read is answered."""
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        calls: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            "GetMetricSpec": unary(self._get_metric_spec),
            "GetMetrics": unary(self._get_metrics),
            "IsActive": unary(self._is_active),
            "StreamIsActive": stream(self._stream_is_active),
        }
        return grpc.method_handlers_generic_handler(SERVICE, calls)

    async def _get_metric_spec(self, _request: bytes, _context: _Context) -> bytes:
        self.answered["GetMetricSpec", "ok"] += 1
        return metric_spec()

    async def _get_metrics(self, request: bytes, context: _Context) -> bytes:
        try:
            asked, name = read_metrics_asked(request)
        except ValueError as error:
            await self._abort(context, "GetMetrics", grpc.StatusCode.INVALID_ARGUMENT, str(error))
        return metric_value(name or METRIC, (await self._told(context, "GetMetrics", asked)).count)

    async def _is_active(self, request: bytes, context: _Context) -> bytes:
        asked = await self._asked(context, "IsActive", request)
        return active((await self._told(context, "IsActive", asked)).count > 0)

    async def _stream_is_active(self, request: bytes, context: _Context) -> AsyncIterator[bytes]:
        """At once, whenever it changes, and twice a minute; what becomes unknown ends it, and KEDA asks again."""
        asked = await self._asked(context, "StreamIsActive", request)
        said: bool | None = None
        again = 0.0
        clock = asyncio.get_running_loop().time
        while True:
            changed = self._changed
            found = (await self._told(context, "StreamIsActive", asked)).count > 0
            if found != said or clock() >= again:
                said, again = found, clock() + AGAIN_S
                yield active(found)
            await within(changed, max(again - clock(), 0.0))

    async def _asked(self, context: _Context, call: str, request: bytes) -> KedaTrigger:
        try:
            return read_asked(request)
        except ValueError as error:
            await self._abort(context, call, grpc.StatusCode.INVALID_ARGUMENT, str(error))

    async def _told(self, context: _Context, call: str, asked: KedaTrigger) -> TargetCount:
        found = self.answer(asked)
        if isinstance(found, NoCount):
            await self._abort(context, call, _CODES[found.code], found.why)
        if (age_s := self.age_s(found.target)) is not None:
            context.set_trailing_metadata(((AGE, str(round(1000 * age_s))),))
        self.answered[call, "ok"] += 1
        return found

    async def _abort(self, context: _Context, call: str, code: grpc.StatusCode, why: str) -> NoReturn:
        self.answered[call, code.name.lower().replace("_", "-")] += 1
        await context.abort(code, why)


class ScalerPort:
    """The open port.

    Args:
        settings: where, and with which certificate.
        scaler: answers.
    """

    def __init__(self, settings: ScalerSettings, scaler: Scaler) -> None:
        self.scaler: Final = scaler
        self.opened: Callable[[str], None] = lambda _: None  # told HOST:PORT
        self._settings = settings

    async def open(self) -> aio.Server:
        """Begin to answer.

        Raises:
            ConfigError: the port cannot be had, or the certificate cannot be read.
        """
        settings = self._settings
        server = aio.server(options=(("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", _LARGEST)))
        server.add_generic_rpc_handlers((self.scaler.handlers(),))
        try:
            if settings.tls is None:
                port = server.add_insecure_port(settings.listen)
            else:
                port = server.add_secure_port(settings.listen, _credentials(settings.tls))
        except RuntimeError:  # which says nothing but how to debug gRPC
            raise ConfigError(
                f"live.scaler.listen: {settings.listen} cannot be opened",
                hint="does another one watch? Give another port, or 0 for any free one",
            ) from None
        await server.start()
        self.opened(f"{settings.listen.rpartition(':')[0]}:{port}")
        return server

    async def serve(self) -> None:
        """Answer until cancelled; calls under way are let finish."""
        server = await self.open()
        try:
            await server.wait_for_termination()
        finally:
            await server.stop(_GRACE_S)


def _credentials(settings: ScalerTlsSettings) -> grpc.ServerCredentials:
    """A certificate that is read again when its files change; with `client_ca`, whoever has none of it is turned away.

    Raises:
        ConfigError: a file cannot be read.
    """
    files = KeyFiles((settings.certificate, settings.key, settings.client_ca))
    try:
        first = _configuration(settings)
    except OSError as error:
        raise ConfigError(
            f"live.scaler.tls: {error.filename}: {error.strerror}", hint="PEM files; the key without a password"
        ) from None

    def latest() -> grpc.ServerCertificateConfiguration | None:
        if not files.are_others():
            return None
        try:
            return _configuration(settings)
        except OSError as error:
            _LOG.error("the new certificate cannot be read, the one before stays: %s", error)
            return None

    asks = settings.client_ca is not None
    return grpc.dynamic_ssl_server_credentials(first, latest, asks)  # type: ignore[arg-type] # None says: as before


def _configuration(settings: ScalerTlsSettings) -> grpc.ServerCertificateConfiguration:
    pair = Path(settings.key).read_bytes(), Path(settings.certificate).read_bytes()
    authority = Path(settings.client_ca).read_bytes() if settings.client_ca is not None else None
    return grpc.ssl_server_certificate_configuration([pair], root_certificates=authority)
