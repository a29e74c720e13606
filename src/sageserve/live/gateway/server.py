"""One gateway process: listens, keeps its word with control, looks after connections, and drains when told to stop.

The only place of the gateway with a clock, signals and timers. Without control a table is made from `live.instances`, and
signals from own counts. Read next: `client.py` for what a connection does, `cli/gateway.py` for several processes on one port.
"""

import asyncio
import gc
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import uvloop

from sageserve.base.config import Scenario
from sageserve.base.errors import ConfigError, in_words
from sageserve.base.units import SECOND, Micros
from sageserve.base.version import __version__
from sageserve.core.strategies import layout_of
from sageserve.live.address import family_of
from sageserve.live.audit import note
from sageserve.live.certificates import ServedCertificate
from sageserve.live.gateway.client import Client
from sageserve.live.gateway.context import LOG, GatewayContext, Options
from sageserve.live.gateway.kept_table import EVERY_LOOKS, TableFile
from sageserve.live.gateway.meter import Snapshots
from sageserve.live.gateway.process_limits import give_back_memory, raise_limits
from sageserve.live.gateway.request_lines import RequestLines
from sageserve.live.gateway.static_table import static_table
from sageserve.live.link import LinkClient
from sageserve.live.link_port import ControlAddress
from sageserve.live.waiting import within
from sageserve.live.wire import (
    VERSION,
    Grant,
    Hello,
    Refusal,
    RoutingTable,
    SpentElsewhere,
    ToGateway,
    TurnedAway,
    Welcome,
    layout_mark,
    settings_mark,
)

LOOK_S: Final = 0.25  # between two looks: reports to control, deadlines of connections
_MINUTE: Final = 240  # looks
_ALIVE: Final = 4  # looks between two signs of life
_TIDY: Final = 4  # looks between two of the less urgent kind
_TABLE_WITHIN_S: Final = 5.0  # what a gateway waits for to be told of instances before it answers that there are none
_LINGER_S: Final = 1.0  # kept connections are open so long after SIGTERM: a request on its way is answered, and told to close
_BACKLOG: Final = 4096  # connections the kernel holds until they are accepted


@dataclass(frozen=True, slots=True)
class GatewayBinding:
    """Where a gateway process listens and whom it talks to.

    Args:
        host: address to listen on.
        port: 0 for any free one.
        control: control's socket, or its address on another machine; None: static, from `live.instances`.
        drain_s: seconds that requests under way are given after SIGTERM.
        folder: where processes behind one port leave their counts; None: there is one process.
        traces: OTLP address that spans are sent to; empty: none.
        audit: folder of the audit log; None: there is none.
        table: file that keeps what control said last; None: none does.
        keeps: it is this process that writes it.
        sockets: descriptors of sockets that listen already and outlive this process, one for each that shares the port; none: it
            opens one of its own.
        inner: descriptor of a socket that listens on this machine for the fleet's own processes, in plain HTTP; -1: none.
        ready: called once requests are taken in, and instances are known.
        alive: called every second from then on.
        options: the rest.
    """

    host: str
    port: int
    control: Path | ControlAddress | None = None
    drain_s: float = 30.0
    folder: Path | None = None
    traces: str = ""
    audit: Path | None = None
    table: Path | None = None
    keeps: bool = True
    sockets: tuple[int, ...] = ()
    inner: int = -1
    ready: Callable[[], None] = lambda: None
    alive: Callable[[], None] = lambda: None
    options: Options = field(default_factory=Options)


class GatewayProcess:
    """A gateway process.

    Args:
        scenario: the resolved scenario.
        place: where it listens and whom it talks to.

    Raises:
        ConfigError: the scenario or the place cannot work.
    """

    def __init__(self, scenario: Scenario, place: GatewayBinding) -> None:
        layout = layout_of(scenario)
        self._place = place
        snapshots = Snapshots(place.folder, place.options.worker)
        self.context = GatewayContext(scenario, layout, options=place.options, clock=clock, wall=wall, snapshots=snapshots)
        self._server: asyncio.Server | None = None
        self._link: LinkClient | None = None
        self._looks = 0
        self._own_look: Micros = scenario.signals.scrape
        self._next_look: Micros = 0
        self._stopping = asyncio.Event()
        self._enough = asyncio.Event()  # nothing is waited for any more
        self._told = asyncio.Event()  # control said what is open
        self._was_ready = False
        live = self.context.live
        self._certificate = ServedCertificate(live.tls) if live.tls is not None else None
        self._inner: asyncio.Server | None = None
        self._noting: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._table = TableFile(place.table, layout_mark(layout), keeps=place.keeps) if place.table is not None else None
        if live.records:
            if place.audit is None:
                raise ConfigError(
                    "live.records: there is no folder for them", hint="sageserve gateway --audit DIR, or sageserve up"
                )
            self.context.lines = RequestLines(place.audit, place.options.worker)
        self.port = place.port
        if place.control is None:
            self.context.routing.replace(static_table(scenario, layout), clock())

    async def start(self) -> None:
        """Listen, and connect to control.

        Raises:
            ConfigError: the address cannot be listened on.
        """
        place, context = self._place, self.context
        loop = asyncio.get_running_loop()
        listening = self._socket()
        self.port = int(listening.getsockname()[1])
        if place.control is not None:
            context.controlled = True
            mine = place.options
            layout, settings = layout_mark(context.layout), settings_mark(context.scenario)
            hello = Hello(VERSION, mine.worker, mine.nonce, layout, host=mine.host, release=__version__, settings=settings)
            self._link = LinkClient(place.control, hello, self._hear, self._control_changed)
            context.tell = self._link.send
            context.door.asked = self._report
            self._link.start()
        else:
            self._look_alone(clock())
        context.loud = LOG.isEnabledFor(logging.DEBUG)
        if place.traces:
            from sageserve.live.gateway.spans import tracer_to

            context.tracer = tracer_to(place.traces)
        if (
            place.sockets or self._table is not None
        ) and not context.routing.known:  # whoever connects meanwhile waits in the socket, or is taken in by another
            await within(self._told, _TABLE_WITHIN_S)
        self._begin_with_kept()
        secured = self._certificate.context if self._certificate is not None else None
        self._server = await loop.create_server(lambda: Client(context), sock=listening, backlog=_BACKLOG, ssl=secured)
        if place.inner >= 0:
            own = socket.socket(fileno=place.inner)
            self._inner = await loop.create_server(lambda: Client(context), sock=own, backlog=_BACKLOG)
        self._timer = loop.call_later(LOOK_S, self._look)
        self._say_ready()

    def _begin_with_kept(self) -> None:
        """Control is away: what it said last is better than nothing."""
        if self._table is not None and not self.context.routing.known and (kept := self._table.load(wall())) is not None:
            self.context.replace(kept)
            self._look_alone(clock())

    def _socket(self) -> socket.socket:
        place = self._place
        if place.sockets:
            own = place.sockets[place.options.worker % len(place.sockets)]
            for other in set(place.sockets) - {own}:
                os.close(other)  # held open here, it would take connections in after its own process has ended
            return socket.socket(fileno=own)
        try:
            return listen(place.host, place.port)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {place.host}:{place.port}: {in_words(error)}", hint="choose another --port"
            ) from error

    def _say_ready(self) -> None:
        """Once it listens and knows instances; told of them later, it is ready later."""
        if self._server is not None and self.context.routing.known and not self._was_ready:
            self._was_ready = True
            self._place.ready()

    def stop(self) -> None:
        """Begin to drain; asked again, end what is left at once."""
        if self._stopping.is_set():
            self._enough.set()
        self._stopping.set()

    async def serve(self) -> None:
        """Until told to stop; then let requests under way finish, up to a limit."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        await self._stopping.wait()
        await self.drain()

    async def drain(self) -> None:
        """Take nothing new, finish what is under way, and close everything."""
        context = self.context
        context.draining = True
        LOG.info("draining: %d requests under way", len(context.exchanges))
        for server in (self._server, self._inner):
            if server is not None:
                server.close()
        begun = clock()
        until, linger = begun + int(self._place.drain_s * SECOND), begun + int(_LINGER_S * SECOND)
        while (context.exchanges or (context.clients and clock() < linger)) and clock() < until and not self._enough.is_set():
            await asyncio.sleep(LOOK_S / 5)  # requests end in many places, none of which knows of this
            if clock() >= linger:
                for client in list(context.clients):
                    client.retire()
        for exchange in list(context.exchanges):
            exchange.stop()
        for client in list(context.clients):
            client.retire()
        if context.clients:
            await asyncio.sleep(LOOK_S)  # for the last bytes to be taken
        self._report()
        await self.close()

    async def close(self) -> None:
        """Hang up on everyone."""
        self._timer.cancel()
        await self._note_use()
        if self._table is not None:
            await asyncio.to_thread(self._table.save)
        if self.context.lines is not None:
            await self.context.lines.close()
        for server in (self._server, self._inner):
            if server is not None:
                server.close()
        if self._link is not None:
            await self._link.close()
        for client in list(self.context.clients):
            client.leave()
        self.context.snapshots.leave(self.context.meter)
        self.context.close()
        if self.context.tracer is not None:
            await asyncio.to_thread(self.context.tracer.close)

    def _hear(self, message: ToGateway) -> None:
        match message:
            case RoutingTable():
                self.context.replace(message)
                self._told.set()
                if self._table is not None:
                    self._table.hear(message, wall())
                self._say_ready()
            case SpentElsewhere():
                self.context.budgets.hear(message)
            case Grant() | Refusal():
                self.context.waiting.take(message)
            case Welcome(secret=secret):
                self._believe(secret)
            case TurnedAway():  # the link has said so
                pass

    def _believe(self, secret: str) -> None:
        """Control on another machine tells the fleet's secret: it takes requests in at the same port."""
        if secret and isinstance(control := self._place.control, ControlAddress):
            self.context.believe(secret)
            if not self._place.options.admin:
                self.context.admin = control.host, control.port, control.access

    def _control_changed(self, there: bool) -> None:
        self.context.hears = there
        LOG.info("control is %s", "connected" if there else "away: going on with what was last heard")
        if there:
            self.context.routing.version = min(self.context.routing.version, 0)  # control may count its tables anew
            self.context.waiting.again()
            self._report(anew=True)

    def _report(self, *, anew: bool = False) -> None:
        if self._link is not None and self._link.connected:
            context = self.context
            self._link.send(context.demand.report(len(context.exchanges), context.door.counts()))
            if (spent := self.context.budgets.report(anew=anew)) is not None:
                self._link.send(spent)

    def _look(self) -> None:
        """What is due a few times a second."""
        self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)  # first: a look that fails is not the last one
        context, now = self.context, clock()
        self._looks += 1
        for exchange in list(context.exchanges):
            exchange.check(now)
        for client in list(context.clients):
            client.check(now)
        context.waiting.tidy(now)
        context.door.tidy(now)
        self._report()
        if self._table is not None and self._looks % EVERY_LOOKS == 0:
            self._keeping = asyncio.get_running_loop().create_task(asyncio.to_thread(self._table.save))
        if self._was_ready and self._looks % _ALIVE == 0:
            self._place.alive()
        if self._looks % _TIDY == 0:
            context.tidy(now)
            if self._certificate is not None:
                self._certificate.look()
            context.routing.heal(now)
            context.snapshots.leave(context.meter)
            if self._looks % _MINUTE == 0:
                self._noting = asyncio.get_running_loop().create_task(self._note_use())
            if (
                context.routing.known
                and now >= self._next_look
                and context.routing.is_blind(now, context.live.safety.blind_after)
            ):
                self._look_alone(now)

    async def _note_use(self) -> None:
        """Write down how often each key was used since the last time."""
        used = self.context.keys.take_use()
        if self._place.audit is None or not used:
            return
        try:
            await asyncio.to_thread(note, self._place.audit, wall(), f"gateway {self._place.options.worker}", "keys used", used)
        except OSError as error:
            LOG.error("the audit log cannot be written: %s", error)

    def _look_alone(self, now: Micros) -> None:
        """Nobody scrapes for us: take own counts for signals."""
        self._next_look = now + self._own_look
        self.context.routing.look(now)


def clock() -> Micros:
    """Microseconds since some instant; never goes back."""
    return time.monotonic_ns() // 1000  # noqa: TID251 # the gateway's one clock


def wall() -> Micros:
    """Microseconds since 1970."""
    return time.time_ns() // 1000  # noqa: TID251 # keys expire at a date


def listen(host: str, port: int) -> socket.socket:
    """A socket that other processes may share the port of."""
    listening = socket.socket(family_of(host), socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind((host, port))
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening


def run(scenario: Scenario, place: GatewayBinding) -> None:
    """Serve until SIGTERM or SIGINT."""
    raise_limits()
    gc.collect()
    give_back_memory()
    gc.freeze()  # what was loaded stays: a full collection would look at it for 50 ms each time
    uvloop.run(_run(scenario, place))


async def _run(scenario: Scenario, place: GatewayBinding) -> None:
    worker = GatewayProcess(scenario, place)
    await worker.start()
    LOG.info("gateway listens on %s:%d", place.host, worker.port)
    await worker.serve()
