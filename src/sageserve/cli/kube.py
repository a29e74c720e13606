"""Clusters for commands: the kubeconfig, the settings of what is watched, and its targets by name.

Reads the environment; must not write to a cluster. Read next: `orders.py`, `promote.py`, `acting.py`.
"""

import os
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from sageserve.base.errors import ConfigError
from sageserve.cli.extras import need
from sageserve.cli.wall import wall_now

if TYPE_CHECKING:
    from sageserve.base.config import LiveSettings, Scenario
    from sageserve.core.authority.records import GuardRange
    from sageserve.core.layout import Layout
    from sageserve.live.actuators.followed import FollowedService
    from sageserve.live.kubernetes.writer import ObjectWriter
    from sageserve.live.watch.target_pods import TargetPods

Kubeconfig = Annotated[
    Path | None,
    typer.Option("--kubeconfig", metavar="FILE", help="of the clusters", show_default="KUBECONFIG, or the pod's service account"),
]

_PASSED: Final = ("KUBE", "AWS_", "AZURE_", "AAD_", "GOOGLE_", "CLOUDSDK_")
"""How variables begin that say where a cluster is, and who asks: those of Kubernetes, and those that clouds' plug-ins read."""


def kubeconfig_file() -> Path | None:
    """What kubectl would use: the first file of KUBECONFIG, else the one of the home folder; none: there is neither."""
    named = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
    path = Path(named) if named else Path.home() / ".kube" / "config"
    return path if path.is_file() else None


def watched_settings(state: Path | None) -> "tuple[Path, Scenario, LiveSettings]":
    """The folder of what is watched, and the settings that it is watched with.

    Raises:
        ConfigError: nothing was watched there, or no targets.
    """
    from sageserve.cli.running import watched_folder
    from sageserve.data.scenarios.load import load_scenario

    folder = watched_folder(state)
    if not (folder / "scenario.yaml").is_file():
        raise ConfigError(f"nothing was watched in {folder}", hint="name the folder of `sageserve watch`, with --state")
    settings = load_scenario(folder / "scenario.yaml")
    if settings.live is None or not settings.live.targets:
        raise ConfigError(f"{settings.name} has no targets", hint="write live.clusters and live.targets, and watch it again")
    return folder, settings, settings.live


def targets_at(live: "LiveSettings", where: str) -> tuple[str, ...]:
    """Targets that a word names: one by its name, or those of a pool, region or cluster, or all.

    Raises:
        ConfigError: there are none.
    """
    from sageserve.data.documents import suggest

    found = tuple(
        name for name, one in live.targets.items() if where in {"all", name, one.cluster, one.pool, one.pool.split("/", 1)[0]}
    )
    if not found:
        known = [*live.targets, *live.clusters, *(one.pool for one in live.targets.values()), "all"]
        raise ConfigError(f"there is no target {where!r}{suggest(where, known)}", hint=f"targets: {', '.join(live.targets)}, all")
    return found


def shares_at(live: "LiveSettings", where: str) -> tuple[str, ...]:
    """Objects with shares that are written, and that a word names: one by its name, those of a cluster, or all."""
    found = {name: one for name, one in live.shares.items() if one.authority == "full"}
    return tuple(name for name, one in found.items() if where in {"all", name, one.cluster})


def by_agents(live: "LiveSettings", names: Iterable[str]) -> tuple[str, ...]:
    """Those of the targets that are in clusters of agents."""
    return tuple(name for name in names if live.clusters[live.targets[name].cluster].agent is not None)


def ours_of(live: "LiveSettings", names: tuple[str, ...]) -> tuple[str, ...]:
    """Targets that can be written from here; those of agents are left out, which is said.

    Raises:
        ConfigError: all of them are of agents.
    """
    theirs = by_agents(live, names)
    clusters = ", ".join(dict.fromkeys(live.targets[name].cluster for name in theirs))
    if theirs and len(theirs) == len(names):
        raise ConfigError(
            f"{', '.join(theirs)}: acted on by the agent of {clusters} alone, and nothing here can write there",
            hint="publish a plan for it: sageserve hub publish; or say it in that cluster, in the pod of its agent",
        )
    if theirs:
        typer.echo(f"left to the agent of {clusters}: {', '.join(theirs)}", err=True)
    return tuple(name for name in names if name not in theirs)


def guard_of(live: "LiveSettings", name: str) -> "GuardRange":
    """What the owner of a target's cluster allows.

    Raises:
        ConfigError: the guard cannot be read.
    """
    from sageserve.live.authority.guard_file import GuardFile

    target = live.targets[name]
    guard = live.clusters[target.cluster].guard
    return GuardFile(None if guard is None else Path(guard)).range_of(target.name)


def pods_of(settings: "Scenario", kubeconfig: Path | None) -> "dict[str, TargetPods]":
    """Pods of targets, by cluster, where instances are to follow them.

    Raises:
        ConfigError: a cluster's file, context or account cannot be used.
    """
    live = settings.live
    clusters = [] if live is None else [name for name, one in live.clusters.items() if one.pods]
    if live is None or not clusters:
        return {}
    need("kubernetes")
    from sageserve.live.kubernetes.reader import ClusterReader, cluster_config
    from sageserve.live.watch.target_pods import TargetPods

    found = {}
    for name in clusters:
        targets = {target: one for target, one in live.targets.items() if one.cluster == name}
        reader = ClusterReader(cluster_config(live.clusters[name].context, kubeconfig or kubeconfig_file()))
        found[name] = TargetPods(name, targets, reader, wall_now)
    return found


def services_of(live: "LiveSettings", layout: "Layout") -> "list[FollowedService]":
    """Engines of all services, with their pools.

    Raises:
        ConfigError: a service fits no pool, or a cluster's file, context or account cannot be used.
    """
    from sageserve.live.actuators.followed import FollowedService, pool_of_service
    from sageserve.live.kubernetes.endpoints import ServiceEngines
    from sageserve.live.kubernetes.reader import ClusterReader, cluster_config

    found = []
    for one in live.services:
        reader = ClusterReader(cluster_config(live.clusters[one.cluster].context, kubeconfig_file()))
        pool = pool_of_service(layout, one)
        found.append(FollowedService(pool, ServiceEngines(one, reader), one.served_model or one.model, one.metrics))
    return found


def cluster_variables(live: "LiveSettings") -> dict[str, str]:
    """What of the environment the control process needs to reach clusters whose services it follows, plug-ins included."""
    return {name: text for name, text in os.environ.items() if live.services and name.startswith(_PASSED)}


async def writer_of(
    stack: AsyncExitStack, live: "LiveSettings", cluster: str, kubeconfig: Path | None, folder: Path
) -> "ObjectWriter":
    """A client of a cluster, for as long as the stack lives; what Ray does not keep is in the state folder.

    Raises:
        ConfigError: an agent acts there, and nobody here; or its file, context or account cannot be used.
    """
    if live.clusters[cluster].agent is not None:
        raise ConfigError(
            f"cluster {cluster} is acted on by its agent alone, and nothing here can write there",
            hint="publish a plan for it: sageserve hub publish; or say it in that cluster, in the pod of its agent",
        )
    if (ray := live.clusters[cluster].ray) is not None:
        from sageserve.live.ray.dashboard import ServeDashboard
        from sageserve.live.ray.own_file import OwnFile
        from sageserve.live.ray.writer import RayWriter

        return RayWriter(await stack.enter_async_context(ServeDashboard(ray)), OwnFile(folder, cluster))
    from sageserve.live.kubernetes.reader import cluster_config
    from sageserve.live.kubernetes.writer import ClusterWriter

    config = cluster_config(live.clusters[cluster].context, kubeconfig or kubeconfig_file())
    return await stack.enter_async_context(ClusterWriter(config))
