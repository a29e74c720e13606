"""`sageserve envoy`: an Envoy in front of a running fleet's engines, told what our gateways are told.

Knows options and the state folder. stdout: the bootstrap file; stderr: how it goes. Read next: `live/envoy/process.py`;
docs/how-to/envoy.md.
"""

import asyncio
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from sageserve.base.errors import ConfigError
from sageserve.cli import complete
from sageserve.cli.extras import need
from sageserve.cli.running import State, refuse_watched, running, state_folder
from sageserve.cli.stopping import until_told
from sageserve.cli.urls import checked_url

if TYPE_CHECKING:
    from sageserve.base.config import Scenario

_EXAMPLES = """[bold]Examples[/bold]

sageserve envoy bootstrap fleet.yaml --folder /run/envoy > envoy.json [dim]— to begin with, and to change[/dim]

sageserve envoy run --folder /run/envoy --admin http://127.0.0.1:9901

envoy -c envoy.json
"""

_ADMIN: Final = "http://127.0.0.1:9901"
_FIRST: Final = "the first that is interactive, else the first"

app = typer.Typer(
    help="Let an Envoy send requests where our gateways would: routes and instances as files that it follows.",
    no_args_is_help=True,
    epilog=_EXAMPLES,
    rich_markup_mode="rich",
)

Folder = Annotated[str, typer.Option("--folder", metavar="DIR", help="of the files that Envoy follows")]


@app.command(epilog=_EXAMPLES)
def bootstrap(
    scenario: Annotated[str, complete.SCENARIO],
    folder: Folder,
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="where it takes requests")] = "127.0.0.1:8080",
    admin: Annotated[str, typer.Option(metavar="HOST:PORT", help="of its admin page: for this machine alone")] = "127.0.0.1:9901",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="any setting; may be repeated")
    ] = None,
) -> None:
    """Print a bootstrap file for Envoy: a listener, a cluster for each region and model, an admin page."""
    need("live")
    from sageserve.data.scenarios.load import load_scenario
    from sageserve.live.envoy.bootstrap import bootstrap as made
    from sageserve.live.envoy.process import layout_for

    found = load_scenario(scenario, overrides=overrides or ())
    places = _place("--listen", listen), _place("--admin", admin)
    typer.echo(json.dumps(made(layout_for(found), str(_folder(folder)), *places), indent=2, allow_nan=False))


@app.command(epilog=_EXAMPLES)
def run(
    folder: Folder,
    admin: Annotated[str, typer.Option(metavar="URL", help="of Envoy's admin page")] = _ADMIN,
    region: Annotated[str, typer.Option(metavar="NAME", help="where its requests come from", show_default="the first")] = "",
    tier: Annotated[str, typer.Option(metavar="NAME", help="of its requests", show_default=_FIRST)] = "",
    state: State = None,
) -> None:
    """Keep the files up to date, and report to control what Envoy counts. Ctrl-C stops it; Envoy goes on with what is there."""
    need("live")
    from sageserve.base.kernel import run_plain

    run_plain()
    from sageserve.data.scenarios.load import load_scenario
    from sageserve.live.envoy.process import EnvoyBinding, EnvoyPublisher
    from sageserve.live.gateway.server import clock

    files, page = _folder(folder), checked_url("--admin", admin, _ADMIN)
    refuse_watched(running(state))
    home = state_folder(state)
    settings = load_scenario(home / "scenario.yaml")
    place = EnvoyBinding(
        control=home / "control.sock",
        folder=files,
        admin=page,
        region=_number("region", region, list(settings.regions)),
        tier=_tier(tier, settings),
        told=lambda sentence: typer.echo(f"{time.strftime('%H:%M:%S')}  {sentence}", err=True),
    )
    publisher = EnvoyPublisher(settings, place, clock)
    if settings.tiers[_interactive(settings)].batch:
        typer.echo("note: all tiers are batch tiers, and Envoy lets no request wait: it sends each at once", err=True)
    said = f"files for Envoy in {folder}; Ctrl-C stops, and Envoy goes on with what is there"
    asyncio.run(until_told(lambda: publisher.run(lambda: typer.echo(said, err=True))))


def _interactive(settings: "Scenario") -> str:
    """The first tier whose requests somebody waits for; where there is none, the first."""
    return next((name for name, one in settings.tiers.items() if not one.batch), next(iter(settings.tiers)))


def _tier(name: str, settings: "Scenario") -> int:
    """Number of a tier.

    Raises:
        ConfigError: there is none of that name, or its requests wait for room, which they cannot in Envoy.
    """
    usual = _interactive(settings)
    number = _number("tier", name, list(settings.tiers), usual)
    if name and settings.tiers[name].batch and not settings.tiers[usual].batch:
        interactive = ", ".join(tier for tier, one in settings.tiers.items() if not one.batch)
        raise ConfigError(f"--tier: {name} is a batch tier, and Envoy lets no request wait", hint=f"interactive: {interactive}")
    return number


def _folder(text: str) -> Path:
    """A folder.

    Raises:
        ConfigError: none is named, or a file is there.
    """
    if not text.strip():
        raise ConfigError("--folder names no folder", hint="such as /run/sageserve/envoy")
    found = Path(text).absolute()
    if found.exists() and not found.is_dir():
        raise ConfigError(f"--folder: {found} is no folder", hint="name another one: --folder DIR")
    return found


def _number(what: str, name: str, names: list[str], usual: str = "") -> int:
    """Where a name is among those of the scenario.

    Raises:
        ConfigError: it is not.
    """
    wanted = name or usual or names[0]
    if wanted not in names:
        raise ConfigError(f"--{what}: there is no {wanted!r}", hint=f"there are {', '.join(names)}")
    return names.index(wanted)


def _place(option: str, text: str) -> tuple[str, int]:
    """An address and a port.

    Raises:
        ConfigError: it is none.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise ConfigError(f"{option}: {text!r} is not HOST:PORT", hint="such as 0.0.0.0:8080")
    return host.strip("[]"), int(port)
