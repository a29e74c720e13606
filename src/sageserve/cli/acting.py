"""`sageserve watch --act`: what targets' authority allows is carried out, from the process that watches.

Read next: `watch.py`; `live/authority/hands.py`; docs/how-to/raise-the-floor.md.
"""

import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sageserve.base.errors import ConfigError
from sageserve.cli.acts import note_act
from sageserve.cli.extras import need
from sageserve.cli.kube import by_agents, ours_of
from sageserve.cli.wall import wall_now

if TYPE_CHECKING:
    from sageserve.base.config import LiveSettings, Scenario, TargetSettings
    from sageserve.base.config.clusters import Rung
    from sageserve.live.authority.hands import Hands
    from sageserve.live.watch.process import FleetWatch


def refuse_unwritten(settings: "Scenario") -> "LiveSettings":
    """Refuse what cannot be carried out, before anything begins.

    Raises:
        ConfigError: no target may be acted on, or one in a way that is not there.
    """
    live = settings.live
    if live is not None and gates_only(live):
        return live
    need("kubernetes")
    acting = {} if live is None else {name: one for name, one in live.targets.items() if one.authority != "observe"}
    if live is not None and not acting and any(one.authority == "full" for one in live.shares.values()):
        return live
    if live is None or not acting:
        raise ConfigError(
            "--act: no target may be acted on, all are only observed", hint="sageserve promote TARGET floor says what is missing"
        )
    ours_of(live, tuple(acting))
    for name, one in acting.items():
        refuse_rung(one, one.authority, f"live.targets.{name}")
    return live


def gates_only(live: "LiveSettings") -> bool:
    """Whether gates of batch work are all that is written: no object of a cluster is."""
    rungs = [*(one.authority for one in live.targets.values()), *(one.authority for one in live.shares.values())]
    return set(rungs) <= {"observe"} and any(one.authority == "full" for one in live.gates.values())


def rungs_of(kind: str) -> "tuple[Rung, ...]":
    """How far an object of a kind may be acted on: bounds and counts are different objects, so no kind has all rungs."""
    from sageserve.base.config.clusters import RUNGS
    from sageserve.live.kubernetes.kinds import ALL_RUNGS, BOUNDED, COUNTED

    if kind in ALL_RUNGS:
        return RUNGS
    return ("observe", "floor", "bounds") if kind in BOUNDED else ("observe", "full") if kind in COUNTED else ("observe",)


def refuse_rung(target: "TargetSettings", rung: str, where: str) -> None:
    """Refuse a rung that the target's kind does not have.

    Raises:
        ConfigError: with what can be written instead.
    """
    from sageserve.live.kubernetes.kinds import BOUNDED, COUNTED

    if rung in rungs_of(target.kind):
        return
    bounded, counted = " and ".join(BOUNDED), f"{', '.join(COUNTED[:-1])} and {COUNTED[-1]}"
    if rung == "full":
        said, hint = f"the replicas of a {target.kind} are not written, those of {counted} are", "write bounds or floor"
        if target.kind in BOUNDED:
            hint = "write bounds; or name the object that it scales, and delete the autoscaler: two writers undo each other"
        raise ConfigError(f"{where}.authority: {said}", hint=hint)
    raise ConfigError(
        f"{where}.kind: the bounds of a {target.kind} are not written, those of {bounded} are",
        hint="name the HPA or ScaledObject that scales it"
        + (", or write authority: full, where none does" if target.kind in COUNTED else ", or write authority: observe"),
    )


def acted_on(live: "LiveSettings", names: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the targets that are more than observed.

    Raises:
        ConfigError: none is.
    """
    able = [name for name in names if len(rungs_of(live.targets[name].kind)) > 1]
    found = tuple(name for name in able if live.targets[name].authority in rungs_of(live.targets[name].kind)[1:])
    if found:
        return found
    for name in names:
        refuse_rung(live.targets[name], live.targets[name].authority, f"live.targets.{name}")
    if able:
        rung = rungs_of(live.targets[able[0]].kind)[1]
        hint = f"sageserve promote {able[0]} {rung} says what is missing"
    else:
        hint = f"name the HPA or ScaledObject that scales it as live.targets.{names[0]}.kind and name, and watch it again"
    raise ConfigError(f"{', '.join(names)}: only observed, so nothing is written there", hint=hint)


async def hands_of(
    stack: AsyncExitStack, settings: "Scenario", folder: Path, watching: "FleetWatch", told: tuple[Path | None, bool]
) -> "Hands":
    """What acts, for as long as the stack lives.

    Args:
        stack: of clients.
        settings: with targets.
        folder: of the state, for the audit log.
        watching: decides.
        told: the kubeconfig, and whether writes are only checked by the server.
    """
    from sageserve.cli.kube import writer_of
    from sageserve.live.authority.hands import Hands, HandsParts

    live = refuse_unwritten(settings)
    kubeconfig, dry_run = told
    acting = {name: one for name, one in live.targets.items() if one.authority != "observe"}
    names = [name for name in acting if name not in by_agents(live, acting)]
    shares = {name: one for name, one in live.shares.items() if one.authority == "full"}
    clusters = dict.fromkeys([*(live.targets[name].cluster for name in names), *(one.cluster for one in shares.values())])
    writers = {name: await writer_of(stack, live, name, kubeconfig, folder) for name in clusters}
    typer.echo(
        f"acts on    {', '.join([*names, *shares])}{', as a dry run: the server keeps nothing' if dry_run else ''}", err=True
    )

    def told_of(act: str, facts: Mapping[str, str | int]) -> None:
        note_act(folder, act, facts)  # a full disk stops no write
        typer.echo(f"{act}: {', '.join(f'{key} {value}' for key, value in facts.items())}", err=True)

    parts = HandsParts(
        writers=writers,
        asked=watching.asked,
        now=watching.now,
        wall=wall_now,
        me=process_name(),
        told=told_of,
        dry_run=dry_run,
        started=watching.started,
        shares=_shares(settings, watching),
        pods=watching.pods_in,
    )
    return Hands(settings, parts)


def _shares(settings: "Scenario", watching: "FleetWatch") -> "Callable[[str], Mapping[str, int] | None]":
    """Shares of regions as our own router has them, asked of what is watched."""
    if settings.live is None or not settings.live.shares:
        return lambda _: None
    from sageserve.live.envoy.region_shares import RegionShares
    from sageserve.live.watch.view import SERVERS

    view = watching.view
    return RegionShares(settings, watching.layout, lambda: view.table(SERVERS), view.blind, watching.now).of


def process_name() -> str:
    """This process among all that may hold a lease: its machine, its number, and when that was taken."""
    return f"{socket.gethostname()}-{os.getpid()}-{time.time_ns() // 1_000_000_000}"
