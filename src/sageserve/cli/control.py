"""`sageserve control`: the control process of a running fleet, which `sageserve up` starts and its supervisor keeps alive.

Reads scenario and internal key, makes the parts and plugs them together. Not meant to be typed. Read next:
`live/control/process.py`.
"""

import os
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar
from urllib.parse import urlsplit

import typer

from sageserve.cli.extras import need
from sageserve.cli.gateway import INTERNAL_KEY, log_as_json, take_engine_keys
from sageserve.cli.wall import wall_now

if TYPE_CHECKING:
    import httpx

    from sageserve.base.config import LiveSettings, Scenario
    from sageserve.core.layout import Layout
    from sageserve.data.results.journal import Stamped
    from sageserve.live.actuators.base import EngineAddress, Hear
    from sageserve.live.actuators.revisions import EngineRevisions
    from sageserve.live.control.engine_clients import EngineClients
    from sageserve.live.control.liveness import Probed
    from sageserve.live.control.opened import MissedScrape
    from sageserve.live.control.process import Home, ManagedActuator


_TOKEN_WITHIN_S = 5.0
_Answer = TypeVar("_Answer")


def control(
    state: Annotated[Path, typer.Argument(metavar="STATE", help="folder of the fleet")],
    http: Annotated[str, typer.Option(help="where it serves files, batches and pages, such as http://127.0.0.1:8200")],
    gateway: Annotated[str, typer.Option(help="URL of the gateway")],
    door: Annotated[str, typer.Option(help="URL of the gateway for jobs of batches", show_default="--gateway")] = "",
) -> None:
    """Control a fleet: hear, decide, act, write down."""
    import asyncio  # late: it takes a tenth of what --help takes

    need("live")
    from sageserve.base.config import LiveSettings
    from sageserve.data.scenarios.load import load_scenario
    from sageserve.live.control.process import Home

    scenario = load_scenario(state / "scenario.yaml")
    live = scenario.live or LiveSettings()
    log_as_json(live.log_level)
    parts = urlsplit(http)
    epoch = f"{os.getpid():x}-{time.time_ns():x}"
    secret = os.environ.pop(INTERNAL_KEY, "")
    os.umask(0o077)  # what is kept here is the user's alone
    home = Home(state, parts.hostname or "127.0.0.1", parts.port or 80, gateway, epoch, secret)
    asyncio.run(_control(scenario, live, home, door or gateway))


async def _control(scenario: "Scenario", live: "LiveSettings", home: "Home", door: str) -> None:

    from sageserve.base.units import SECOND
    from sageserve.cli.stopping import told_to_end
    from sageserve.core.layout import names_of
    from sageserve.data.watched.minutes import last_minute, note_doubt
    from sageserve.live.actuators.revisions import EngineRevisions
    from sageserve.live.batches.api_context import ApiContext
    from sageserve.live.batches.erasure import erase_routes
    from sageserve.live.batches.routes import routes
    from sageserve.live.batches.runner import BatchRunner, Door
    from sageserve.live.batches.store_thread import SteadyWall, StoreThread
    from sageserve.live.control.engine_clients import EngineClients
    from sageserve.live.control.loop import WallClock
    from sageserve.live.control.process import Control, Parts
    from sageserve.live.engine_access import EngineDoors
    from sageserve.live.link import LinkServer
    from sageserve.live.link_port import LinkPort
    from sageserve.live.store.sql import open_store
    from sageserve.live.supervisor.ready import READY, say_alive, say_ready

    stop = told_to_end()
    clock, revisions, signs = WallClock(), EngineRevisions(), os.environ.pop(READY, "")
    store = StoreThread(open_store(live.store, home.state))
    wall = SteadyWall(wall_now, clock.now, lambda: last_minute(home.state), lambda *told: note_doubt(home.state, *told))
    wall.sure()  # before a minute is written that would speak for it
    runner = BatchRunner(store, scenario, names_of(scenario), Door(door, home.secret), wall, me=_name_of(home))
    api = ApiContext(store, wall, live, runner.notify, runner.tier)
    doors = EngineDoors(live, take_engine_keys(live))
    async with EngineClients(doors, live.scrape_timeout / SECOND) as clients:
        parts = Parts(
            actuator=lambda hear, layout: _actuator(scenario, live, home, hear, layout, revisions),
            revisions=revisions,
            scrape=lambda place: _ask(clients, place, _scrape),
            probe=lambda place: _ask(clients, place, _makes_a_token),
            jobs=runner,
            queue_routes=[*routes(api), *erase_routes(api)],
            background=(runner.run,),
            clock=clock,
            wall=wall_now,
            sure=wall.sure,
            role=runner.lead.role,
            words=lambda stamped: decision_words(scenario, stamped),
            ready=say_ready(signs),
            alive=say_alive(signs),
            link=partial(LinkServer, port=LinkPort(live.link, (home.host, home.port), home.secret) if live.link else None),
        )
        try:
            await Control(scenario, home, parts).run(stop)
        finally:
            await store.close()


def _name_of(home: "Home") -> str:
    """What this process is called among those that share a batch queue: as the one before that it is started in place of.

    A state folder has one control process at a time, and all that a run of a fleet starts there know one secret.
    """
    import hashlib
    import socket

    return f"{socket.gethostname()}:{home.state.absolute()} {hashlib.sha256(home.secret.encode()).hexdigest()[:8]}"


def _actuator(  # one argument per part
    scenario: "Scenario", live: "LiveSettings", home: "Home", hear: "Hear", layout: "Layout", revisions: "EngineRevisions"
) -> "ManagedActuator":
    from sageserve.live.actuators.base import posts_of
    from sageserve.live.actuators.fixed import FixedActuator
    from sageserve.live.actuators.local import LocalActuator

    if live.actuator == "fixed":
        return FixedActuator(layout, live.instances)
    if live.services:
        from sageserve.cli.kube import services_of
        from sageserve.live.actuators.followed import FollowedActuator

        return FollowedActuator(hear, services_of(live, layout), home.state)
    return LocalActuator(hear, posts_of(scenario, layout), home.state, speed=live.speed, revisions=revisions)


async def _ask(
    clients: "EngineClients", place: "EngineAddress", ask: "Callable[[httpx.AsyncClient, EngineAddress], Awaitable[_Answer]]"
) -> "_Answer":
    """Ask an engine something, in the way that it is spoken to."""
    async with clients.at(place.url) as client:
        return await ask(client, place)


async def _scrape(
    client: "httpx.AsyncClient", place: "EngineAddress"
) -> "tuple[float | None, int, int, float | None] | MissedScrape":
    from sageserve.data.history.names import EngineSignal
    from sageserve.live.control.opened import Missed, MissedScrape
    from sageserve.live.telemetry.scrape import scrape
    from sageserve.live.telemetry.seen import BlindReason, EngineSeen

    seen = await scrape(client, place.url + place.metrics, place.served_model)
    if isinstance(seen, EngineSeen):
        made = [seen.counters[name] for name in (EngineSignal.PROMPT_TOKENS, EngineSignal.OUTPUT_TOKENS) if name in seen.counters]
        return seen.kv_use, round(seen.in_flight), round(seen.waiting), sum(made) if made else None
    if seen.why is BlindReason.UNREACHABLE or (seen.why is BlindReason.TIMEOUT and not await _answers(client, place.url)):
        return MissedScrape(Missed.SILENT, seen.detail)
    return MissedScrape(Missed.BLIND, seen.detail)


async def _makes_a_token(client: "httpx.AsyncClient", place: "EngineAddress") -> "Probed":
    """Ask an engine for one token: that it may not, or not here, says nothing of whether it could."""
    import httpx

    from sageserve.live.control.liveness import Probed

    ask = {"model": place.served_model, "prompt": "a", "max_tokens": 1}
    try:
        got = await client.post(f"{place.url}/v1/completions", json=ask, timeout=_TOKEN_WITHIN_S)
    except httpx.HTTPError:
        return Probed.NOTHING
    if got.is_success:
        return Probed.MADE
    return Probed.NOTHING if got.is_server_error else Probed.REFUSED


async def _answers(client: "httpx.AsyncClient", url: str) -> bool:
    """Whether anything at all comes back: metrics may be silent where the engine is well."""
    import httpx

    try:
        await client.get(f"{url}/health")
    except httpx.HTTPError:
        return False
    return True


def decision_words(scenario: "Scenario", stamped: "Stamped") -> tuple[str, ...]:
    """The decisions of a journal line in sentences."""
    from sageserve.show.story import event_of

    return tuple(event_of(stamped.line.now, decided, scenario).words for decided in stamped.line.decisions)
