"""`sageserve gateway` and `sageserve key new`: the public door of a fleet, and the keys that open it.

Starts the processes and reads the environment; must not know how a request is served. stdout is the result (a key), the log
goes to stderr. Read next: `live/gateway/server.py`.
"""

import logging
import os
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from sageserve.base.errors import ConfigError
from sageserve.cli import complete
from sageserve.cli.extras import need
from sageserve.cli.streams import answer_json

if TYPE_CHECKING:
    from sageserve.base.config import LiveSettings, Scenario
    from sageserve.live.gateway.server import GatewayBinding
    from sageserve.live.link_port import ControlAddress

INTERNAL_KEY = "SAGESERVE_INTERNAL_KEY"
"""Variable that holds the key of this deployment's own processes."""

EXAMPLES = """[bold]Examples[/bold]

  sageserve gateway fleet.yaml [dim]— in front of the engines listed in live.instances[/dim]

  sageserve gateway fleet.yaml --control state/control.sock --workers 2 [dim]— told by a control process what is open[/dim]

  sageserve gateway fleet.yaml --control tls://control.example:7002 --control-ca ca.pem \\
    --control-certificate gateway.pem --control-key gateway.key [dim]— by one on another machine[/dim]

  curl localhost:8100/v1/models
"""

key_app = typer.Typer(help="API keys of the gateway.", no_args_is_help=True)

Reference = Annotated[str, complete.SCENARIO]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="lay a setting over the file; YAML value; may be repeated"),
]
Workers = Annotated[int | None, typer.Option(min=1, max=64, help="processes that share the port; default: live.workers")]
DrainSeconds = Annotated[
    float, typer.Option(min=0, help="seconds that requests under way are given after SIGTERM; a second one ends them")
]
ControlPlace = Annotated[
    str | None,
    typer.Option(
        metavar="SOCKET|URL",
        help="socket of the control process, or tls://HOST:PORT of its live.link; none: engines of live.instances",
    ),
]
ControlAuthority = Annotated[
    Path | None, typer.Option(metavar="FILE", help="PEM: who may have signed control's certificate; none: the system's")
]
ControlCertificate = Annotated[
    Path | None, typer.Option(metavar="FILE", help="PEM: the certificate that control knows this gateway by")
]
TableOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="keeps what control said last, to begin with for an hour while it is away")
]
ControlKey = Annotated[Path | None, typer.Option(metavar="FILE", help="of that certificate, without a password")]


def gateway(  # noqa: PLR0913, PLR0917 # one argument per option
    scenario: Reference,
    overrides: Overrides = None,
    control: ControlPlace = None,
    control_ca: ControlAuthority = None,
    control_certificate: ControlCertificate = None,
    control_key: ControlKey = None,
    host: Annotated[str | None, typer.Option(help="address to listen on; default: live.host")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="default: live.port")] = None,
    workers: Workers = None,
    worker: Annotated[int, typer.Option(min=0, help="number of the first process, when others start more of them")] = 0,
    region: Annotated[str | None, typer.Option(help="where requests come from that name no region; default: the first")] = None,
    upstream_admin: Annotated[str, typer.Option(help="URL of control's HTTP server: files, batches, pages")] = "",
    traces: Annotated[str, typer.Option(help="OTLP address for spans, such as http://127.0.0.1:4318/v1/traces")] = "",
    drain: DrainSeconds = 30.0,
    audit: Annotated[
        Path | None, typer.Option(metavar="DIR", help="folder of the audit log, which is told each minute how keys were used")
    ] = None,
    table: TableOption = None,
    inner: Annotated[int, typer.Option(hidden=True, help="descriptor of this machine's own door, in plain HTTP")] = -1,
    sockets: Annotated[str, typer.Option(hidden=True, help="descriptors that listen already, with commas between")] = "",
) -> None:
    """Serve OpenAI's API in front of all engines of a scenario."""
    need("live")
    from sageserve.base.kernel import run_plain

    run_plain()  # half a second and 70 MB less per process
    from sageserve.data.scenarios.load import load_scenario
    from sageserve.live.gateway.context import Options
    from sageserve.live.gateway.server import GatewayBinding
    from sageserve.live.supervisor.ready import READY, say_alive, say_ready

    found = load_scenario(scenario, overrides=overrides or ())
    live = _live(found)
    log_as_json(live.log_level)
    options = Options(
        region=_region(found, region),
        worker=worker,
        admin=upstream_admin,
        internal=os.environ.pop(INTERNAL_KEY, ""),
        engine_keys=take_engine_keys(live),
        born=int(datetime.now(UTC).timestamp()),
        host=socket.gethostname(),
    )
    place = GatewayBinding(
        host=host or live.host,
        port=live.port if port is None else port,
        control=_control(control, (control_ca, control_certificate, control_key)),
        drain_s=drain,
        traces=traces,
        audit=audit,
        table=_table(table, control),
        sockets=tuple(map(int, sockets.split(","))) if sockets else (),
        inner=inner,
        ready=say_ready(os.environ.get(READY, "")),
        alive=say_alive(os.environ.pop(READY, "")),
        options=options,
    )
    _serve(found, place, workers or live.workers)


def _region(found: "Scenario", named: str | None) -> int:
    if named is not None and named not in found.regions:
        raise ConfigError(f"there is no region {named!r}", hint=f"regions are {', '.join(found.regions)}")
    return list(found.regions).index(named) if named else 0


def _control(named: str | None, files: tuple[Path | None, Path | None, Path | None]) -> "Path | ControlAddress | None":
    """Where control is.

    Raises:
        ConfigError: nowhere, or its files cannot be used.
    """
    if named is None or "://" not in named:
        if any(files):
            raise ConfigError(
                "--control-ca, --control-certificate and --control-key are of a control on another machine",
                hint="--control tls://HOST:PORT",
            )
        return Path(named) if named is not None else None
    from sageserve.base.config import EngineAccess
    from sageserve.live.certificates import out_of_date
    from sageserve.live.link_port import ControlAddress

    ca, certificate, key = (None if one is None else str(one.absolute()) for one in files)
    if (certificate is None) != (key is None):
        raise ConfigError("--control-certificate and --control-key belong together", hint="give both")
    found = ControlAddress(named, EngineAccess(ca_file=ca, certificate=certificate, key=key))
    if certificate is not None and (why := out_of_date(certificate, datetime.now(UTC))):
        logging.getLogger("sageserve.live.gateway").error(
            "--control-certificate %s: %s; control lets nobody in with it, until it is renewed there", certificate, why
        )
    return found


def _table(path: Path | None, control: str | None) -> Path | None:
    """Where what control says is kept.

    Raises:
        ConfigError: it could not be.
    """
    if path is None:
        return None
    if control is None:
        raise ConfigError("--table keeps what control says, and there is no control", hint="--control SOCKET, or tls://HOST:PORT")
    if path.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        raise ConfigError(
            f"--table {path}: no file can be written there", hint="a file in a folder that is there, of this user alone"
        )
    return path


def take_engine_keys(live: "LiveSettings") -> dict[str, str]:
    """Keys of engines out of the environment, which nothing that is started from here is to have."""
    from sageserve.live.engine_access import variables_of

    return {name: os.environ.pop(name, "") for name in variables_of(live)}


def _live(found: "Scenario") -> "LiveSettings":
    from sageserve.base.config import LiveSettings

    return found.live or LiveSettings()


def _serve(found: "Scenario", place: "GatewayBinding", workers: int) -> None:
    from dataclasses import replace

    from sageserve.live.gateway.prefork import run_many
    from sageserve.live.gateway.server import run

    if place.control is None and _live(found).services:
        raise ConfigError("live.services are followed by control, and there is none", hint="`sageserve up` starts both")

    def one(number: int, folder: Path | None) -> None:
        nonce = f"{os.getpid():x}{os.urandom(4).hex()}"
        options = replace(place.options, worker=place.options.worker + number, nonce=nonce)
        run(found, replace(place, folder=folder, options=options, keeps=number == 0))

    if workers == 1:
        one(0, None)
    elif place.port == 0 and not place.sockets:
        raise ConfigError("several workers need a port of their own choice", hint="give --port, or --workers 1")
    else:
        run_many(one, workers, (*place.sockets, *([place.inner] if place.inner >= 0 else [])))


class _Lines(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "from": record.name,
            "pid": record.process,
            "said": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def log_as_json(level: str) -> None:
    """Send the log to stderr, one JSON object per line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in ("httpx", "httpx2", "alembic"):  # every scrape, every plug-in
        logging.getLogger(chatty).setLevel("WARNING")


@key_app.command("new")
def new_key(
    name: Annotated[str, typer.Argument(help="whose it is, as it appears in logs and metrics")],
    role: Annotated[
        str,
        typer.Option(metavar="ROLE", help="tenant: asks; operator: asks and sees the pages; read-only: only sees them"),
    ] = "tenant",
    expires: Annotated[
        str | None, typer.Option(metavar="WHEN", help="days from now, such as 90d, or a date: 2027-03-31", show_default="never")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of YAML")] = False,
) -> None:
    """Make an API key; it is shown once, and the scenario keeps only its hash."""
    need("live")
    import secrets  # a credential must not follow from a seed

    from sageserve.base.config import RESERVED_NAMES, ROLES
    from sageserve.live.gateway.keys import hash_of

    if role not in ROLES:
        raise ConfigError(f"there is no role {role!r}", hint=f"choose one of {', '.join(ROLES)}")
    if name in RESERVED_NAMES:
        raise ConfigError(f"{name!r} is a name of SageServe's own", hint="choose another one for the key")
    key = f"sk-sageserve-{secrets.token_urlsafe(32)}"
    digest = hash_of(key.encode())
    until = _end(expires) if expires else None
    if as_json:
        typer.echo(answer_json({"name": name, "role": role, "key": key, "sha256": digest, "expires": until}))
        return
    typer.echo(f"# the key, shown this once: {key}")
    more = "" if role == "tenant" else f", role: {role}"
    more += f', expires: "{until}"' if until else ""
    typer.echo(f"live:\n  keys:\n    - {{name: {name}, sha256: {digest}{more}}}")


def _end(said: str) -> str:
    """A date as settings have it, from one or from days that are to pass."""
    from sageserve.base.config import KeySettings
    from sageserve.base.units import SECOND, duration_us
    from sageserve.live.gateway.keys import end_of

    if not said[:4].isdigit() or "-" not in said:
        try:
            end = datetime.fromtimestamp(datetime.now(UTC).timestamp() + duration_us(said) // SECOND, UTC)
        except (ValueError, OverflowError) as error:
            raise ConfigError(f"--expires: {error}", hint="write 90d, or 2027-03-31") from None
        return end.strftime("%Y-%m-%dT%H:%MZ")
    try:
        last = end_of(KeySettings(name="new", sha256="0" * 64, expires=said))
    except ValueError:
        raise ConfigError(f"--expires: {said!r} is no date", hint="write 90d, 2027-03-31 or 2027-03-31T18:00Z") from None
    if last is not None and last <= datetime.now(UTC).timestamp() * SECOND:
        raise ConfigError(f"--expires: {said} has passed, nobody could use that key", hint="write a later date, or 90d")
    return said
