"""`sageserve scaler`: one of several that answer KEDA, from what the process that watches said last.

Knows options and ports. stderr: how it goes. Read next: `watch.py`, the leader; `live/scaler/follow.py`; docs/how-to/keda.md.
"""

import os
import time
from typing import TYPE_CHECKING, Annotated

import typer

from sageserve.base.errors import ConfigError
from sageserve.cli import complete
from sageserve.cli.extras import need
from sageserve.cli.urls import checked_url

if TYPE_CHECKING:
    from sageserve.live.scaler.follow import FollowingScaler
    from sageserve.live.scaler.service import ScalerPort

EXAMPLES = """[bold]Examples[/bold]

sageserve scaler fleet.yaml --leader http://sageserve-fleet.sageserve.svc:8110
"""


def scaler(
    scenario: Annotated[str, complete.SCENARIO],
    leader: Annotated[str, typer.Option("--leader", metavar="URL", help="of `sageserve watch`, where its metrics are")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="any setting; may be repeated")
    ] = None,
) -> None:
    """Answer KEDA beside others, from what the process that watches said last; nothing is answered from what is too old."""
    need("live")
    need("keda")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # it writes on the terminal, and is asked when it is loaded
    from sageserve.base.kernel import run_plain

    run_plain()  # half of the memory
    from sageserve.data.scenarios.load import load_scenario
    from sageserve.live.scaler.follow import FollowingScaler
    from sageserve.live.scaler.service import ScalerPort
    from sageserve.live.scaler.table import HeardTable

    settings = load_scenario(scenario, overrides=overrides or ())
    if settings.live is None or settings.live.scaler is None:
        raise ConfigError(f"{settings.name} has no live.scaler", hint="--set live.scaler.listen=0.0.0.0:7001")
    checked_url("--leader", leader, "http://sageserve-fleet:8110")
    following = FollowingScaler(settings.live.targets, HeardTable(leader, settings.name), _now)
    port = ScalerPort(settings.live.scaler, following)
    port.opened = lambda address: typer.echo(f"scaler     {address}", err=True)
    _run(leader, following, port)


def _now() -> int:
    """Microseconds since some instant; never goes back."""
    return time.monotonic_ns() // 1000


def _run(leader: str, following: "FollowingScaler", port: "ScalerPort") -> None:
    """Answer until SIGINT or SIGTERM."""
    import asyncio

    from sageserve.cli.stopping import until_told
    from sageserve.live.scaler.follow import follow

    def told(sentence: str) -> None:
        typer.echo(f"{time.strftime('%H:%M:%S')}  {sentence}", err=True)

    asyncio.run(until_told(port.serve, lambda: follow(leader, following, _now, told)))
