"""`sageserve watch`: what SageServe would do with a fleet that others run, from Prometheus alone; nothing is changed anywhere.

Knows options, servers and the state folder; decisions are made in `live/watch/`. stdout: decisions, or JSON lines. stderr: how
it goes. Read next: `watch_lines.py`, how it looks; docs/how-to/watch.md.
"""

import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from sageserve.base.errors import ConfigError, MeasurementError
from sageserve.cli import complete
from sageserve.cli.acting import gates_only
from sageserve.cli.extras import need
from sageserve.cli.gates import gates_of
from sageserve.cli.kube import Kubeconfig, pods_of
from sageserve.cli.live_checks import check_clusters, check_watch
from sageserve.cli.running import watched_folder

if TYPE_CHECKING:
    import asyncio

    from sageserve.base.config import Scenario
    from sageserve.base.units import Micros
    from sageserve.data.rebuild.places import WatchedPool
    from sageserve.live.authority.hands import Hands
    from sageserve.live.prometheus.server import PrometheusServer
    from sageserve.live.scaler.service import ScalerPort
    from sageserve.live.watch.process import FleetWatch
    from sageserve.live.watch.target_pods import TargetPods

EXAMPLES = """[bold]Examples[/bold]

sageserve init fleet.yaml --prometheus http://localhost:9090 [dim]— pools, GPUs and tiers as the server shows them[/dim]

sageserve watch fleet.yaml --prometheus http://localhost:9090

sageserve shadow-report [dim]— later: would it have done harm, or helped?[/dim]

sageserve watch fleet.yaml --strategy foresight --for 8h --json > decisions.jsonl

sageserve watch fleet.yaml --act --dry-run [dim]— what would be written, checked by the server and not kept[/dim]
"""
LOOK_BACK_S: Final = 600.0  # in which the scrape interval shows itself


WatchedState = Annotated[
    Path | None,
    typer.Option("--state", metavar="DIR", help="where what is seen is kept", show_default="~/.local/state/sageserve-watch"),
]


def watch(  # noqa: PLR0913, PLR0917 # one argument per option
    scenario: Annotated[str, complete.SCENARIO],
    prometheus: Annotated[
        str, typer.Option(metavar="URL", help="of the server for all pools", show_default="live.clusters.NAME.prometheus")
    ] = "",
    state: WatchedState = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            autocompletion=complete.strategies,
            metavar="NAME",
            help="the rule that decides; or module:Class, your own",
            show_default="the scenario's",
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="any setting, such as fleet.maximum=40; may be repeated"),
    ] = None,
    every: Annotated[
        str, typer.Option(metavar="DURATION", help="between two looks", show_default="the server's scrape interval")
    ] = "",
    past: Annotated[str, typer.Option(metavar="DURATION", help="of history that forecasts begin with; 0: none")] = "14d",
    length: Annotated[str, typer.Option("--for", metavar="DURATION", help="then stop", show_default="until Ctrl-C")] = "",
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="of metrics, status and the live page; port 0: any free one")
    ] = "127.0.0.1:8110",
    act: Annotated[
        bool, typer.Option("--act", help="carry out what the authority of targets allows: their minima and maxima")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="with --act: writes are checked and not kept; the lease is")] = False,
    kubeconfig: Kubeconfig = None,
    as_json: Annotated[bool, typer.Option("--json", help="minutes, decisions and notes as JSON lines")] = False,
) -> None:
    """Decide for a fleet that others run, and only write it down: no write right, Prometheus alone. Ctrl-C stops it.

    With --act, what targets' authority allows is carried out by one process at a time, and stays when it ends.
    """
    need("live")
    from sageserve.data.rebuild.places import watched_pools

    changes = [*(overrides or ()), *([f"strategy.name={strategy}"] if strategy is not None else [])]
    settings = _settings(scenario, changes)
    _check_act(settings, kubeconfig, act=act, dry_run=dry_run)
    pools = seen_pools(settings, watched_pools(settings))
    spans = {option: _span(option, text) for option, text in (("--every", every), ("--past", past), ("--for", length))}
    folder = watched_folder(state)
    _refuse_ours(folder)
    source = str(Path(scenario).absolute()) if Path(scenario).is_file() else scenario
    with ExitStack() as stack:
        port = stack.enter_context(listening(listen))
        servers = servers_of(stack, settings, pools, prometheus)
        interval = interval_of(servers, pools)
        stack.enter_context(_home(folder, settings, port, (source, tuple(changes))))
        _read_past(servers, settings, pools, folder, spans["--past"])
        pace = interval, spans["--every"] or max(settings.signals.scrape, interval)
        sides = _Sides(servers, pools, pace, port, (kubeconfig, dry_run) if act else None, pods_of(settings, kubeconfig))
        _run(settings, folder, sides, spans["--for"], as_json=as_json)
    typer.echo(f"what was seen is in {folder}; sum it up: sageserve shadow-report {folder}", err=True)


def _settings(scenario: str, changes: Sequence[str]) -> "Scenario":
    """The scenario, with all that it needs installed and in its place."""
    from sageserve.data.scenarios.load import load_scenario

    settings = load_scenario(scenario, overrides=changes)
    check_watch(settings)
    return settings


@dataclass(frozen=True, slots=True)
class _Sides:
    """Whom a process speaks to: servers by cluster, pools there, scrape interval and pace of looks (us), and the open port.

    `acts` is the kubeconfig and whether writes are dry runs; None: nothing is written. `pods` are those that instances follow.
    """

    servers: "Mapping[str, PrometheusServer]"
    pools: "Sequence[WatchedPool]"
    pace: "tuple[Micros, Micros]"
    listening: socket.socket
    acts: tuple[Path | None, bool] | None = None
    pods: "Mapping[str, TargetPods]" = field(default_factory=dict)


def _check_act(settings: "Scenario", kubeconfig: Path | None, *, act: bool, dry_run: bool) -> None:
    """Options and authority fit together."""
    if act:
        from sageserve.cli.acting import refuse_unwritten

        check_clusters(refuse_unwritten(settings), kubeconfig)
        return
    follows = settings.live is not None and any(one.pods for one in settings.live.clusters.values())
    for option, given in (("--dry-run", dry_run), ("--kubeconfig", kubeconfig is not None and not follows)):
        if given:
            raise ConfigError(f"{option} is of --act", hint="add --act")
    live = settings.live
    acting = [name for name, one in (live.targets if live else {}).items() if one.authority != "observe"]
    acting += [f"gate {name}" for name, one in (live.gates if live else {}).items() if one.authority != "observe"]
    if acting:
        typer.echo(f"nothing is written to {', '.join(acting)} without --act, whatever their authority", err=True)


def _span(option: str, text: str) -> "Micros":
    if not text or text == "0":
        return 0
    from sageserve.base.units import duration_us

    try:
        return duration_us(text)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}", hint="write 15s, 6h or 14d") from None


def seen_pools(settings: "Scenario", pools: "Sequence[WatchedPool]") -> "Sequence[WatchedPool]":
    """Those of the pools that a Prometheus shows; of a cluster that only its agent sees, it tells.

    Raises:
        ConfigError: nothing is left to be watched.
    """
    clusters = {} if settings.live is None else settings.live.clusters
    unseen = [name for name, one in clusters.items() if one.agent is not None and one.prometheus is None]
    found = [one for one in pools if one.cluster not in unseen]
    if not found:
        raise ConfigError(
            f"{', '.join(unseen)}: only agents see what runs there, so that nothing is left to be watched",
            hint=f"live.clusters.{unseen[0]}.prometheus, where the hub reaches it; sageserve hub status tells what agents say",
        )
    if unseen:
        typer.echo(f"not watched: {', '.join(unseen)}, of which only its agent tells", err=True)
    return found


def servers_of(stack: ExitStack, settings: "Scenario", pools: "Sequence[WatchedPool]", url: str) -> "dict[str, PrometheusServer]":
    """Prometheus of each cluster, for as long as the stack lives; one address may stand for all of them."""
    from sageserve.cli.backtest_history import server_of
    from sageserve.live.prometheus.server import PrometheusServer

    clusters = dict.fromkeys(one.cluster for one in pools)
    return {name: stack.enter_context(PrometheusServer(server_of(settings, name, url))) for name in clusters}


def interval_of(servers: "Mapping[str, PrometheusServer]", pools: "Sequence[WatchedPool]") -> "Micros":
    """The longest scrape interval that shows itself.

    Raises:
        MeasurementError: a server does not answer.
    """
    from sageserve.base.units import SECOND
    from sageserve.data.history.collect import spacing
    from sageserve.live.prometheus import queries
    from sageserve.live.prometheus.server import NotSeen

    found = []
    for one in pools:
        selector = queries.selector(queries.plain_names(), queries.matchers(one.labels))
        answer = servers[one.cluster].raw(selector, LOOK_BACK_S, time.time())
        if isinstance(answer, NotSeen):
            url = servers[one.cluster].url
            raise MeasurementError(answer.detail, hint=f"look whether it answers: curl {url}/api/v1/status/buildinfo")
        if any(len(series) > 2 for series in answer.series):
            found.append(max(SECOND, round(spacing(answer.series) / SECOND) * SECOND))
    return max(found, default=15 * SECOND)


@contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    """An open port.

    Raises:
        ConfigError: it cannot be opened.
    """
    host, _, port = address.rpartition(":")
    try:
        opened = socket.create_server((host.strip("[]"), int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (ValueError, OverflowError):
        raise ConfigError(
            f"--listen {address!r} is no address", hint="write 127.0.0.1:8110, or port 0 for any free one"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"--listen {address}: {error.strerror}", hint="is another one watching? Give another port, or 0 for any free one"
        ) from None
    with opened:
        yield opened


def _refuse_ours(folder: Path) -> None:
    from sageserve.live.store.interface import STORE_FILE

    if (folder / STORE_FILE).exists() or (folder / "control.sock").exists():
        raise ConfigError(f"{folder} is the state of a fleet of ours", hint="name another folder with --state")


@contextmanager
def _home(folder: Path, settings: "Scenario", listening: socket.socket, named: tuple[str, tuple[str, ...]]) -> Iterator[None]:
    """The state folder, which says where this process is as long as it lives."""
    from sageserve.cli.reload import write_fleet
    from sageserve.cli.running import FLEET, Running
    from sageserve.data.scenarios.load import resolved_yaml
    from sageserve.live.private import make_private, write_private
    from sageserve.live.supervisor.service import only_one

    make_private(folder)
    host, port = listening.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    with only_one(folder):
        write_private(folder / "scenario.yaml", resolved_yaml(settings).encode())
        write_fleet(folder, Running(os.getpid(), "", url, settings.name, "", source=named[0], overrides=named[1]))
        typer.echo(f"metrics    {url}/metrics\nlive page  {url}/ui\nstate      {folder}", err=True)
        try:
            yield
        finally:
            (folder / FLEET).unlink(missing_ok=True)


def _read_past(
    servers: "Mapping[str, PrometheusServer]",
    settings: "Scenario",
    pools: "Sequence[WatchedPool]",
    folder: Path,
    past: "Micros",
) -> None:
    """Put what was asked for before now, and since an earlier process ended, where forecasts find it."""
    from sageserve.base.units import MINUTE, show_duration
    from sageserve.cli.progress import bar
    from sageserve.core.layout import names_of
    from sageserve.live.control.state_files import DemandFile
    from sageserve.live.watch.past import read_past

    now = time.time_ns() // 1000 // MINUTE * MINUTE
    kept = DemandFile(folder / "demand.jsonl", names_of(settings))
    newest = kept.newest()
    begin = max(now - past, -(-(newest or 0) // MINUTE) * MINUTE)
    if not past or begin >= now:
        return
    with bar("read the past") as tell:
        found = read_past(servers, settings, pools, (begin, now), lambda _, done, total: tell(done, total))
    for wall, seen in found.minutes:
        kept.add(wall, seen)
    for note in dict.fromkeys(found.notes):
        typer.echo(f"past: {note}", err=True)
    typer.echo(f"past       {show_duration(len(found.minutes) * MINUTE)} of demand read", err=True)


def _run(settings: "Scenario", folder: Path, sides: _Sides, length: "Micros", *, as_json: bool) -> None:
    import asyncio  # late: it takes a tenth of what --help takes

    from sageserve.base.units import SECOND
    from sageserve.cli.acting import hands_of
    from sageserve.cli.control import decision_words
    from sageserve.cli.watch_lines import WatchLines
    from sageserve.live.agent.heard import AgentsHeard
    from sageserve.live.authority.hands import Hands
    from sageserve.live.control.loop import WallClock
    from sageserve.live.watch.process import FleetWatch, WatchParts
    from sageserve.live.watch.serve import serve

    lines = WatchLines(lambda stamped: decision_words(settings, stamped), as_json=as_json)

    def looked() -> None:
        lines.looked(watching)
        if port is not None:
            port.scaler.look()

    parts = WatchParts(
        servers=sides.servers,
        watched=sides.pools,
        interval=sides.pace[0],
        every=sides.pace[1],
        clock=WallClock(),
        wall=lambda: time.time_ns() // 1000,
        words=lambda stamped: decision_words(settings, stamped),
        wrote=lines.wrote,
        passed=lines.passed,
        looked=looked,
        more_notes=lambda: tuple(chain(heard.notes(), *(one.notes() for one in hands), *(one.notes() for one in gates))),
        acts=lambda: bool(hands) or any(one.written for one in gates),
        pods=sides.pods,
    )
    heard = AgentsHeard(settings, folder, parts.wall)
    watching = FleetWatch(settings, folder, parts)
    hands: list[Hands] = []
    writes = sides.acts is not None and not sides.acts[1]
    gates = gates_of(settings, folder, watching, parts.every, acts=writes)
    port = _scaler(settings, watching, hands)
    answers = [] if port is None else [port.serve]

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, _asked_to_stop, number, stop, folder)
        if length:
            asyncio.get_running_loop().call_later(length / SECOND, stop.set)
        pages = lambda: serve(watching, sides.listening, port.scaler if port is not None else None)  # noqa: E731 # one line, once
        async with AsyncExitStack() as stack:
            if sides.acts is not None and not (settings.live is not None and gates_only(settings.live)):
                hands.append(await hands_of(stack, settings, folder, watching, sides.acts))
            acting = [*(one.run for one in hands), *(one.run for one in gates)]
            await watching.run(stop, pages, *answers, *([heard.run] if heard.found else []), *acting)

    try:
        asyncio.run(run())
    finally:
        lines.ended()


def _scaler(settings: "Scenario", watching: "FleetWatch", hands: "Sequence[Hands]") -> "ScalerPort | None":
    """KEDA's side, where settings have one; who acts knows what people say, and says it here too."""
    assert settings.live is not None
    if settings.live.scaler is None:
        return None
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # it writes on the terminal, and is asked when it is loaded
    from sageserve.live.scaler.answers import NOTHING_SAID, SaidOfTarget
    from sageserve.live.scaler.service import Scaler, ScalerPort

    def said(target: str) -> SaidOfTarget:
        return hands[0].said(target) if hands else NOTHING_SAID

    port = ScalerPort(settings.live.scaler, Scaler(settings.live.targets, watching.wish, said))
    port.opened = lambda address: typer.echo(f"scaler     {address}", err=True)
    return port


def _asked_to_stop(number: int, stop: "asyncio.Event", folder: Path) -> None:
    """The first signal waits for the question under way, whose thread nothing else ends; the next one for nothing.

    Every other file is written by the thread that hears this, so none of them is half written now.
    """
    from sageserve.cli.running import FLEET

    if stop.is_set():
        (folder / FLEET).unlink(missing_ok=True)
        os._exit(128 + number)
    stop.set()
    typer.echo("stopping once the server has answered what it was asked (again: at once)", err=True)
