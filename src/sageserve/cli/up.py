"""`sageserve up`, `status`, `down`: a whole fleet on one machine, its state, its end.

Wires the processes together (supervisor, control, gateways) and reads the environment; what they do is in `live/`. Engines are
started by the control process through the supervisor. Read next: `live/supervisor/`, `live/control/process.py`, `live/gateway/`.
"""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer
from msgspec import structs

from sageserve.base.errors import ConfigError, SageServeError
from sageserve.cli import complete
from sageserve.cli.acts import note_act
from sageserve.cli.durations import time_of
from sageserve.cli.extras import need
from sageserve.cli.gateway import INTERNAL_KEY
from sageserve.cli.kube import cluster_variables
from sageserve.cli.live_checks import check_up
from sageserve.cli.ports import held_port, public_sockets
from sageserve.cli.reload import mark_of, write_fleet
from sageserve.cli.running import (
    FLEET,
    Running,
    State,
    ask_status,
    last_words,
    lives,
    named,
    running,
    say_deaths,
    state_folder,
    what_keeps_dying,
)
from sageserve.cli.unit import UnitFleet, unit

if TYPE_CHECKING:
    from sageserve.base.config import LiveSettings, Scenario
    from sageserve.base.units import Micros
    from sageserve.live.supervisor.messages import Begin

EXAMPLES = """[bold]Examples[/bold]

  sageserve up --detach [dim]— two regions, two models, emulated engines, nothing to configure[/dim]

  curl localhost:8100/v1/chat/completions -H 'content-type: application/json' \\
    -d '{"model": "llama-3.1-8b", "messages": [{"role": "user", "content": "hello"}]}'

  sageserve status [dim]— instances, utilisation, promises[/dim]

  sageserve down

  sageserve up fleet.yaml --unit > ~/.config/systemd/user/sageserve.service

  sageserve up fleet.yaml --set live.safety.act=false [dim]— watch what it would do, change nothing[/dim]
"""

_READY_WITHIN_S: Final = 300.0  # a first start also imports and compiles
_DOWN_WITHIN_S: Final = 90.0
_SILENCE: Final = 15_000_000  # us of a control or gateway process that is killed then: each speaks every second
_DRAIN_S: Final = 3600  # a gateway's own patience; who ends it has no more, and asks a second time
_GATEWAY: Final = "gateway"  # name of the service; one that another has taken the place of has it in front of a dot
_ME: Final = (sys.executable, "-m", "sageserve.cli.main")
_BACKLOG: Final = 4096  # connections the kernel holds until they are taken in
_FOLDER_AT_MOST: Final = 103 - len("/supervisor.sock.new")  # 103 bytes is a socket's path on macOS, the shortest; Linux has 107


def up(  # noqa: PLR0913, PLR0917 # one argument per option
    scenario: Annotated[str, complete.SCENARIO] = "local",
    state: State = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="of the gateway", show_default="live.port")] = None,
    speed: Annotated[
        float | None, typer.Option(min=0.001, max=1000, help="of emulated engines", show_default="live.speed")
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            autocompletion=complete.strategies,
            metavar="NAME",
            help="the rule that scales; or module:Class, your own",
            show_default="the scenario's",
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="any setting, such as fleet.start=2; may be repeated")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="come back once it serves; `sageserve down` stops it")] = False,
    as_unit: Annotated[bool, typer.Option("--unit", help="start nothing: print a systemd unit that does this")] = False,
) -> None:
    """Start a whole fleet on this machine: engines, gateway, controller. Ctrl-C stops it."""
    need("live")
    from sageserve.data.scenarios.load import load_scenario, resolved_yaml
    from sageserve.live.private import make_private, write_private

    given = {"strategy.name": strategy, "live.port": port, "live.speed": speed}
    changes = [f"{key}={value}" for key, value in given.items() if value is not None]
    settings = load_scenario(scenario, overrides=[*(overrides or ()), *changes])
    check_up(settings)
    folder = state_folder(state)
    _check_length(folder)
    source = str(Path(scenario).absolute()) if Path(scenario).is_file() else scenario
    if as_unit:
        _print_unit(settings, source, [*(overrides or ()), *changes], folder)
        return
    passed = _environment(settings)
    if detach:
        fixed = settings.live is not None and not settings.live.ours
        _detach(folder, [a for a in sys.argv[1:] if a not in {"--detach", "-d"}], any if fixed else all)
        return
    make_private(folder)
    from sageserve.live.supervisor.service import keep, only_one

    with only_one(folder):  # nothing of a fleet that runs there is overwritten
        pass
    services, found = _services(folder, settings)
    content = resolved_yaml(settings).encode()
    write_private(folder / "scenario.yaml", content)
    write_fleet(folder, structs.replace(found, source=source, overrides=(*(overrides or ()), *changes), applied=mark_of(content)))
    note_act(folder, "up", {"scenario": settings.name, "settings": mark_of(content), "url": found.url})
    typer.echo(f"gateway    {found.url}/v1\nlive page  {found.url}/ui\nlogs       {folder / 'logs'}", err=True)
    try:
        keep(folder, passed, services, on_hang_up=None if _has_terminal() else _reloading(folder), told=say_deaths(folder))
    finally:
        (folder / FLEET).unlink(missing_ok=True)
        note_act(folder, "ended", {"scenario": settings.name})


def _print_unit(settings: "Scenario", source: str, overrides: list[str], folder: Path) -> None:
    from sageserve.live.engine_access import variables_of

    words = [word for one in overrides for word in ("--set", one)]
    path = os.environ.get("PATH", os.defpath)
    inherit = (*settings.live.inherit, *variables_of(settings.live)) if settings.live is not None else ()
    fleet = UnitFleet(settings.name, folder, inherit)
    typer.echo(unit(fleet, ["up", source, *words], root=os.geteuid() == 0, path=path), nl=False)


def _check_length(folder: Path) -> None:
    """Refuse a folder in which no Unix socket can have its place."""
    if (left := _FOLDER_AT_MOST - len(os.fsencode(folder))) < 0:
        raise ConfigError(
            f"the path of the state folder is {-left} bytes too long for the sockets in it: {folder}",
            hint=f"--state names another; {_FOLDER_AT_MOST} bytes at most",
        )


def _services(folder: Path, settings: "Scenario") -> "tuple[list[Begin], Running]":
    from sageserve.base.config import LiveSettings
    from sageserve.live.address import url_of
    from sageserve.live.engine_access import EngineDoors, variables_of
    from sageserve.live.supervisor.messages import Begin, Restart

    live = settings.live or LiveSettings()
    EngineDoors(live, os.environ)  # what cannot be used is said now
    sockets = public_sockets(live, _BACKLOG)
    port = int(sockets[0].getsockname()[1])
    descriptors = tuple(one.detach() for one in sockets)
    control_url = f"http://127.0.0.1:{held_port()}"
    url = url_of(live.host, port, "http" if live.tls is None else "https")
    door, inner = _own_door(live)
    key = secrets.token_urlsafe(32)  # a credential must not follow from a seed
    secret = {INTERNAL_KEY: key, **{name: os.environ[name] for name in variables_of(live)}}
    to_control = (*_ME, "control", str(folder), "--http", control_url, "--gateway", url, "--door", door or url)
    control = Begin(0, "control", to_control, secret | cluster_variables(live), restart=Restart(), signs=1, silence=_SILENCE)
    path = str(folder / "scenario.yaml")
    asked = (
        "--control",
        str(folder / "control.sock"),
        "--upstream-admin",
        control_url,
        "--port",
        str(port),
        "--audit",
        str(folder),
        "--inner",
        str(inner),
    )
    given = ("--sockets", ",".join(map(str, descriptors)), "--drain", str(_DRAIN_S))
    argv = (*_ME, "gateway", path, *asked, *given)
    gateway = Begin(0, _GATEWAY, argv, secret, restart=Restart(), signs=live.workers, silence=_SILENCE)
    gateway = structs.replace(gateway, descriptors=(*descriptors, *([inner] if door else [])))
    return [control, gateway], Running(os.getpid(), url, control_url, settings.name, key, door)


def _own_door(live: "LiveSettings") -> tuple[str, int]:
    """Where this machine's own processes reach the gateway when the public port speaks TLS: URL and descriptor, or nothing.

    Raises:
        ConfigError: the certificate cannot be used.
    """
    from sageserve.live.certificates import ServedCertificate
    from sageserve.live.gateway.server import listen

    if live.tls is None:
        return "", -1
    ServedCertificate(live.tls)
    own = listen("127.0.0.1", 0)
    own.listen(_BACKLOG)
    return f"http://127.0.0.1:{own.getsockname()[1]}", own.detach()


def _environment(settings: "Scenario") -> dict[str, str]:
    """What all processes of the fleet get of ours.

    Raises:
        ConfigError: a variable that the settings name is not set.
    """
    named = settings.live.inherit if settings.live is not None else ()
    if lacking := [name for name in named if name not in os.environ]:
        raise ConfigError(
            f"live.inherit: {lacking[0]} is not set here",
            hint=f"export {lacking[0]}=…, or take it out; under systemd it is set in the unit's EnvironmentFile",
        )
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "VIRTUAL_ENV", "PYTHONPATH", *named)
    return {name: os.environ[name] for name in kept if name in os.environ}


def _detach(folder: Path, arguments: list[str], enough: Callable[[Iterable[bool]], bool]) -> None:
    """Start the same command in a session of its own, and wait until `enough` of its endpoints serve."""
    from sageserve.live.private import make_private, open_private

    make_private(folder)
    log = folder / "up.log"
    with os.fdopen(open_private(log), "wb") as out:
        child = subprocess.Popen(  # noqa: S603 # this program again, with the arguments it was given
            [*_ME, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    end = time.monotonic() + _READY_WITHIN_S  # the command line waits for a process
    while time.monotonic() < end:
        if child.poll() is not None:
            words = last_words(log.read_text("utf-8", "replace"))
            raise SageServeError(f"the fleet did not start: {words}", hint=f"all of it is in {log}")
        if why := what_keeps_dying(folder, child.pid):
            raise SageServeError(
                f"the fleet does not serve: {why}",
                hint=f"mend that, or `sageserve down{named(folder)}`: it is started again and again; see {folder / 'logs'}",
            )
        if _serves(folder, child.pid, enough):
            found = running(folder)
            typer.echo(f"gateway    {found.url}/v1\nlive page  {found.url}/ui\nstop it    sageserve down{named(folder)}")
            return
        time.sleep(0.1)
    raise SageServeError(
        f"the fleet does not serve after {_READY_WITHIN_S:.0f} s", hint=f"see {folder / 'logs'}; sageserve down{named(folder)}"
    )


def _serves(folder: Path, pid: int, enough: Callable[[Iterable[bool]], bool]) -> bool:
    """Whether endpoints have an instance that serves and gateways know it: all of them, or any where others run the engines."""
    try:
        found = running(folder)
        state = ask_status(found) if found.pid == pid else None
    except SageServeError:
        return False  # not yet
    if state is None or not 0 < state.gateway.processes == state.gateway.knowing:
        return False
    if state.failing:
        raise SageServeError(
            f"the fleet runs, and engines do not start: {state.failing[0]}",
            hint=f"mend the engine's command, then `sageserve down{named(folder)}` and `up`;"
            f" `sageserve status{named(folder)}` says what serves",
        )
    return enough(end.sleep == "asleep" or any(pool.serving for pool in end.pools) for end in state.endpoints)


def status(
    state: State = None,
    as_json: Annotated[bool, typer.Option("--json", help="everything, for machines")] = False,
) -> None:
    """Say how the running fleet is: instances, utilisation, promises, decisions."""
    need("live")
    from sageserve.cli.top import draw_status

    there = running(state)
    try:
        found = ask_status(there)
    except SageServeError as error:
        why = what_keeps_dying(state_folder(state), there.pid)
        raise SageServeError(f"{error.message}: {why}" if why else error.message, hint=error.hint) from None
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(found)).decode())
    else:
        draw_status(found)


def down(
    state: State = None,
    now: Annotated[bool, typer.Option("--now", help="do not wait for answers under way")] = False,
    drain: Annotated[bool, typer.Option("--drain", help="wait for all of them; otherwise half a minute")] = False,
    within: Annotated[
        str | None, typer.Option(metavar="DURATION", help="with --drain: at most so long", show_default="1h, and no more")
    ] = None,
) -> None:
    """Stop the running fleet and every process of it: first the gateway, which finishes what it has, then what is behind it."""
    import asyncio  # late: it takes a tenth of what --help takes

    if drain and now:
        raise ConfigError("--drain and --now exclude each other", hint="give one of them")
    if within is not None and not drain:
        raise ConfigError("--within says how long --drain waits", hint=f"sageserve down --drain --within {within}")
    patience = _patience(within)
    found, folder = running(state), state_folder(state)
    note_act(folder, "down", {"how": "drain" if drain else "now" if now else "half a minute"})
    if drain:
        typer.echo("finishing what is under way; nothing new is taken in", err=True)
        asyncio.run(_end_gateways(folder, patience))
    os.kill(found.pid, signal.SIGTERM)
    end = time.monotonic() + _DOWN_WITHIN_S  # the command line waits for a process
    while lives(folder):
        if now or time.monotonic() > end:
            os.kill(found.pid, signal.SIGTERM)  # the second one does not wait
            now = False
        time.sleep(0.05)
    typer.echo("stopped", err=True)


def _patience(within: str | None) -> "Micros":
    from sageserve.base.units import SECOND

    patience = _DRAIN_S * SECOND if within is None else time_of("--within", within)
    if patience > _DRAIN_S * SECOND:
        raise ConfigError(f"--within {within} is longer than the hour a gateway finishes its answers for", hint="1h at most")
    return patience


async def _end_gateways(folder: Path, patience: "Micros") -> None:
    """The one that serves, and those before it, which still finish what they had when settings were reloaded."""
    import asyncio

    from sageserve.live.supervisor.client import SupervisorClient
    from sageserve.live.supervisor.messages import Life
    from sageserve.live.supervisor.service import SOCKET

    supervisor = await SupervisorClient(folder / SOCKET, lambda _: None).connect()
    try:
        there = [process.name for process in await supervisor.look() if process.life is not Life.ENDED]
        mine = [name for name in there if name.partition(".")[0] == _GATEWAY]
        await asyncio.gather(*(supervisor.end(name, patience) for name in mine))
    finally:
        await supervisor.close()


def _has_terminal() -> bool:
    """Whether a hang-up may come from a terminal that was closed."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _reloading(folder: Path) -> "Begin":
    from sageserve.live.supervisor.messages import Begin

    return Begin(0, "reload", (*_ME, "reload", "--state", str(folder)))
