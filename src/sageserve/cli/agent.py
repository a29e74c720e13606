"""`sageserve agent`: follow the plans of a hub in one cluster, as far as its owner's guard lets anybody go.

Fetches, and is never asked; needs no right but those of its targets' authority. Read next: `hub.py`, `acting.py`;
`live/agent/process.py`; docs/how-to/many-clusters.md.
"""

from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sageserve.base.errors import ConfigError
from sageserve.base.urls import shown_url
from sageserve.cli import complete
from sageserve.cli.acting import process_name, refuse_unwritten
from sageserve.cli.acts import note_act
from sageserve.cli.durations import time_of
from sageserve.cli.extras import need
from sageserve.cli.kube import Kubeconfig, pods_of
from sageserve.cli.live_checks import check_clusters
from sageserve.cli.urls import checked_url
from sageserve.cli.wall import wall_now
from sageserve.cli.watch import WatchedState

if TYPE_CHECKING:
    import socket

    from sageserve.base.config import Scenario
    from sageserve.base.config.clusters import AgentSettings
    from sageserve.base.units import Micros
    from sageserve.live.agent.process import ClusterAgent
    from sageserve.live.agent.sealed import TrustedKeys
    from sageserve.live.agent.sink import ReportSink
    from sageserve.live.agent.source import PlanSource
    from sageserve.live.watch.process import FleetWatch

EXAMPLES = """[bold]Examples[/bold]

sageserve agent fleet.yaml --cluster west --plans https://plans.example/ --key hub.pub --guard guard.yaml --report status/

sageserve agent fleet.yaml --cluster west --plans plans/ --key hub.pub --guard guard.yaml --dry-run --for 2m

sageserve hub status status/ [dim]— what it says of itself[/dim]
"""


@dataclass(frozen=True, slots=True)
class _Told:
    """What options said: where plans are, whom to trust, where reports go, the pace, rights, and whether writes are kept."""

    plans: str
    keys: "TrustedKeys"
    report: str
    every: "Micros"
    kubeconfig: Path | None
    ca_file: Path | None
    bearer: Path | None
    dry_run: bool


def agent(  # noqa: PLR0913, PLR0917 # one argument per option
    scenario: Annotated[str, complete.SCENARIO],
    cluster: Annotated[str, typer.Option("--cluster", metavar="NAME", help="of live.clusters: the one this agent acts in")],
    plans: Annotated[
        str, typer.Option("--plans", metavar="URL|DIR", help="where CLUSTER.plan is", show_default="live.clusters.NAME.agent")
    ] = "",
    keys: Annotated[
        list[Path] | None,
        typer.Option("--key", metavar="FILE", help="a hub's .pub; two while one is replaced", show_default="live.clusters'"),
    ] = None,
    guard: Annotated[
        Path | None,
        typer.Option("--guard", metavar="FILE", help="of the cluster's owner", show_default="live.clusters.NAME.guard"),
    ] = None,
    report: Annotated[
        str, typer.Option("--report", metavar="URL|DIR", help="where CLUSTER.status.json is put", show_default="live.clusters'")
    ] = "",
    every: Annotated[str, typer.Option("--every", metavar="DURATION", help="between two fetches")] = "30s",
    length: Annotated[str, typer.Option("--for", metavar="DURATION", help="then stop", show_default="until Ctrl-C")] = "",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="any setting; may be repeated")
    ] = None,
    state: WatchedState = None,
    kubeconfig: Kubeconfig = None,
    ca_file: Annotated[Path | None, typer.Option("--ca-file", metavar="FILE", help="certificates that --plans may have")] = None,
    bearer: Annotated[
        Path | None, typer.Option("--bearer-file", metavar="FILE", help="with a token for --plans, read anew each time")
    ] = None,
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="of its metrics and its report", show_default="nothing listens")
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="writes are checked and not kept, plans not ordered; the lease is")
    ] = False,
) -> None:
    """Follow the sealed plans of a hub in one cluster, within its owner's guard; what is there stays when plans do not come."""
    for extra in ("agents", "kubernetes", "live"):
        need(extra)
    from sageserve.data.scenarios.load import load_scenario
    from sageserve.live.agent.sealed import trusted_keys

    loaded = load_scenario(scenario, overrides=overrides or ())
    whole = guarded(loaded, cluster, guard)
    settings = narrowed(whole, cluster)
    check_clusters(refuse_unwritten(settings), kubeconfig)
    span = time_of("--for", length) if length else 0
    said = of_settings(loaded, cluster, plans, report)
    report = said.report or ""
    if report and "://" not in report and not Path(report).is_dir():
        raise ConfigError(f"--report {report} is no folder", hint=f"mkdir -p {report}")
    trusted = keys or ([Path(said.key)] if said.key is not None else [])
    if not trusted:
        raise ConfigError("no key is trusted, so that no plan would be followed", hint="--key hub.pub, of sageserve hub key")
    ca_file, bearer = ca_file or _path(said.ca_file), bearer or _path(said.bearer_file)
    told = _Told(said.plans, trusted_keys(trusted), report, time_of("--every", every), kubeconfig, ca_file, bearer, dry_run)
    if told.every <= 0:
        raise ConfigError("--every must be more than 0", hint="write 30s")
    with _home(state, whole) as folder, listening_at(listen) as port:
        _run((settings, cluster), folder, told, span, port)


def of_settings(settings: "Scenario", cluster: str, plans: str, report: str) -> "AgentSettings":
    """What options said, and the settings of the cluster where they say nothing.

    Raises:
        ConfigError: nothing says where plans are.
    """
    from sageserve.base.config.clusters import AgentSettings

    there = None if settings.live is None else settings.live.clusters[cluster].agent
    if not plans and there is None:
        raise ConfigError("nothing says where plans are", hint=f"--plans URL, or live.clusters.{cluster}.agent")
    found = there if there is not None else AgentSettings.model_construct(plans=plans)
    return found.model_copy(update={"plans": plans or found.plans, "report": report or found.report})


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def guarded(settings: "Scenario", cluster: str, guard: Path | None) -> "Scenario":
    """The settings, with one cluster under a guard.

    Raises:
        ConfigError: there is no such cluster, it has no target, or nobody guards it.
    """
    from sageserve.data.documents import suggest

    live = settings.live
    clusters = {} if live is None else live.clusters
    if live is None or cluster not in clusters:
        hint = f"live.clusters has {', '.join(clusters) or 'none'}"
        raise ConfigError(f"there is no cluster {cluster!r}{suggest(cluster, list(clusters))}", hint=hint)
    if all(one.cluster != cluster for one in live.targets.values()):
        raise ConfigError(f"cluster {cluster!r} has no target", hint="write live.targets: which object is which pool")
    here = clusters[cluster].model_copy(update={"agent": None})  # it is this one
    here = here if guard is None else here.model_copy(update={"guard": str(guard.absolute())})
    if here.guard is None:
        raise ConfigError(
            f"cluster {cluster!r} has no guard, and without one an agent follows nobody",
            hint="say how far targets may go: --guard FILE, with default: {min: 0, max: 8, rung: floor}",
        )
    return settings.model_copy(update={"live": live.model_copy(update={"clusters": {**clusters, cluster: here}})})


def narrowed(settings: "Scenario", cluster: str) -> "Scenario":
    """The settings with one cluster and its targets alone."""
    live = settings.live
    assert live is not None
    targets = {name: one for name, one in live.targets.items() if one.cluster == cluster}
    here = {cluster: live.clusters[cluster]}
    mine = {"clusters": here, "targets": targets, "shares": {}, "gates": {}}
    return settings.model_copy(update={"live": live.model_copy(update=mine)})


@contextmanager
def _home(state: Path | None, settings: "Scenario") -> Iterator[Path]:
    """The state folder, where freeze, thaw, override and release find what this process acts on."""
    from sageserve.cli.running import watched_folder
    from sageserve.data.scenarios.load import resolved_yaml
    from sageserve.live.private import make_private, write_private
    from sageserve.live.supervisor.service import only_one

    folder = watched_folder(state)
    make_private(folder)
    with only_one(folder):
        write_private(folder / "scenario.yaml", resolved_yaml(settings).encode())
        typer.echo(f"state      {folder}", err=True)
        yield folder


def _run(where: "tuple[Scenario, str]", folder: Path, told: _Told, length: "Micros", port: "socket.socket | None") -> None:
    import asyncio  # late: it takes a tenth of what --help takes

    from sageserve.base.units import SECOND
    from sageserve.cli.stopping import told_to_end
    from sageserve.live.waiting import run_until

    async def run() -> None:
        stop = told_to_end()
        if length:
            asyncio.get_running_loop().call_later(length / SECOND, stop.set)
        with ExitStack() as servers:
            watching = _watching(servers, where[0], folder, told.kubeconfig)
            async with AsyncExitStack() as stack:
                here = await _agent_of(stack, where, folder, told, watching)
                parts = [here.acting.run, here.run, *_pages(here, watching, port)]
                if watching is None:
                    await run_until(stop, parts)
                else:
                    await watching.run(stop, *parts)

    asyncio.run(run())


def _pages(
    here: "ClusterAgent", watching: "FleetWatch | None", port: "socket.socket | None"
) -> "list[Callable[[], Coroutine[None, None, None]]]":
    """What serves its pages; nothing, where no port is open."""
    if port is None:
        return []
    from sageserve.live.agent.page import serve
    from sageserve.live.control.admin import FleetCollector

    seen = watching
    more = [] if seen is None else [FleetCollector(seen.status, lambda: dict(seen.decided))]
    return [lambda: serve(here, port, more)]


@contextmanager
def listening_at(address: str) -> "Iterator[socket.socket | None]":
    """A port, as long as it is open; None where none is asked for."""
    from sageserve.cli.watch import listening

    if not address:
        yield None
        return
    with listening(address) as opened:
        host, number = opened.getsockname()[:2]
        typer.echo(f"metrics    http://{f'[{host}]' if ':' in host else host}:{number}/metrics", err=True)
        yield opened


async def _agent_of(
    stack: AsyncExitStack, where: "tuple[Scenario, str]", folder: Path, told: _Told, watching: "FleetWatch | None"
) -> "ClusterAgent":
    """The agent, with all that is plugged in."""
    from sageserve.cli.kube import writer_of
    from sageserve.live.agent.process import AgentParts, ClusterAgent
    from sageserve.live.authority.hands import HandsParts
    from sageserve.live.authority.target_hand import PoolAsked
    from sageserve.live.control.loop import WallClock

    settings, cluster = where
    assert settings.live is not None
    clock = WallClock()
    now = clock.now if watching is None else watching.now

    def told_of(act: str, facts: Mapping[str, str | int]) -> None:
        note_act(folder, act, facts)
        typer.echo(f"{act}: {', '.join(f'{key} {value}' for key, value in facts.items())}", err=True)

    def unseen(_: str) -> PoolAsked:
        return PoolAsked(None, 1.0, blind=True, heard=now())

    sight: Callable[[str], PoolAsked] = unseen if watching is None else watching.asked
    hands = HandsParts(
        writers={cluster: await writer_of(stack, settings.live, cluster, told.kubeconfig, folder)},
        asked=sight,
        now=now,
        wall=wall_now,
        me=process_name(),
        told=told_of,
        dry_run=told.dry_run,
        started=watching.started if watching is not None else lambda *_: None,
        pods=watching.pods_in if watching is not None else lambda *_: None,
    )
    names = [name for name, one in settings.live.targets.items() if one.authority != "observe"]
    typer.echo(f"acts on    {', '.join(names)}{', as a dry run: nothing is kept' if told.dry_run else ''}", err=True)
    source, sink = await _source(stack, cluster, told), await _sink(stack, told)
    return ClusterAgent(settings, cluster, AgentParts(source, told.keys, folder, sink, sight, hands, told.every))


async def _source(stack: AsyncExitStack, cluster: str, told: _Told) -> "PlanSource":
    from sageserve.live.agent.source import FolderSource, ServerSource, server_client

    if "://" not in told.plans:
        if (told.ca_file is not None or told.bearer is not None) and "://" not in told.report:
            raise ConfigError("--ca-file and --bearer-file are of a server", hint="--plans https://…")
        return FolderSource(Path(told.plans), cluster)
    check_url("--plans", told.plans, told.bearer)
    client = await stack.enter_async_context(server_client(told.ca_file))
    return ServerSource(told.plans, cluster, client, told.bearer)


async def _sink(stack: AsyncExitStack, told: _Told) -> "ReportSink | None":
    from sageserve.live.agent.sink import FolderSink, ServerSink
    from sageserve.live.agent.source import server_client

    if "://" not in told.report:
        return FolderSink(Path(told.report)) if told.report else None
    check_url("--report", told.report, told.bearer)
    client = await stack.enter_async_context(server_client(told.ca_file))
    return ServerSink(told.report, client, told.bearer)


def check_url(option: str, url: str, bearer: Path | str | None) -> None:
    """Refuse what is no address of a server, or would be sent a secret in the clear.

    Raises:
        ConfigError: it is one of these.
    """
    scheme, _, rest = url.partition("://")
    if scheme.lower() not in {"http", "https"}:
        raise ConfigError(f"{option} {shown_url(url)}: it takes a folder, or a server over https", hint=f"{option} https://…")
    if "@" in rest.partition("/")[0]:
        raise ConfigError(f"{option}: a URL with a password would be shown and sent as it is", hint="--bearer-file FILE")
    checked_url(option, url, "https://plans.example/fleet/")
    if "?" in url or "#" in url:  # which may be a signature, and is not shown
        said = f"{option}: a file's name is put behind the URL, so that it has neither a query nor a fragment"
        raise ConfigError(said, hint=f"{option} https://plans.example/fleet/")
    if scheme.lower() == "http" and bearer:
        raise ConfigError("--bearer-file: a token is not sent in the clear", hint=f"{option} https://…")


def _watching(stack: ExitStack, settings: "Scenario", folder: Path, kubeconfig: Path | None) -> "FleetWatch | None":
    """Sight of what runs, where the cluster's Prometheus is named; none: nothing is ever lowered."""
    from sageserve.cli.control import decision_words
    from sageserve.cli.live_checks import check_watch
    from sageserve.cli.watch import interval_of, servers_of
    from sageserve.data.rebuild.places import watched_pools
    from sageserve.live.control.loop import WallClock
    from sageserve.live.watch.process import FleetWatch, WatchParts

    assert settings.live is not None
    if all(one.prometheus is None for one in settings.live.clusters.values()):
        typer.echo("no Prometheus is named for this cluster, so nothing is lowered: live.clusters.NAME.prometheus", err=True)
        return None
    check_watch(settings, whole=False)
    pools = watched_pools(settings, whole=False)
    servers = servers_of(stack, settings, pools, "")
    interval = interval_of(servers, pools)
    parts = WatchParts(
        servers=servers,
        watched=pools,
        interval=interval,
        every=max(settings.signals.scrape, interval),
        clock=WallClock(),
        wall=wall_now,
        words=lambda stamped: decision_words(settings, stamped),
        acts=lambda: True,
        pods=pods_of(settings, kubeconfig),
    )
    return FleetWatch(settings, folder, parts)
