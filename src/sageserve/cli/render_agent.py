"""The agents of `sageserve render chart`: plans, the owner's guard, keys that are trusted; judged before a file is written.

Read next: `render_chart.py`, `agent.py`; `live/kubernetes/agent_manifests.py`; docs/how-to/many-clusters.md.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from sageserve.base.errors import ConfigError

if TYPE_CHECKING:
    from sageserve.base.config import Scenario
    from sageserve.base.config.clusters import Rung
    from sageserve.live.kubernetes.agent_manifests import AgentChoices
    from sageserve.live.kubernetes.manifests import ChartChoices

Plans = Annotated[
    str, typer.Option("--plans", metavar="URL", help="with agents, which fetch CLUSTER.plan there", show_default="no agents")
]
Guard = Annotated[
    Path | None,
    typer.Option("--guard", metavar="FILE", help="of the cluster's owner: how far agents may go, and what their Role is of"),
]
Keys = Annotated[list[Path] | None, typer.Option("--key", metavar="FILE", help="a hub's .pub that agents trust")]
Report = Annotated[
    str, typer.Option("--report", metavar="URL", help="where agents put CLUSTER.status.json", show_default="nowhere")
]
Bearer = Annotated[
    str, typer.Option("--bearer-file", metavar="PATH", help="of a --secret, with a token for --plans and --report")
]
CaFile = Annotated[str, typer.Option("--ca-file", metavar="PATH", help="of a --secret, with certificates that these may have")]
Watches = Annotated[
    bool, typer.Option("--watch/--no-watch", help="with the process that watches; agents see what runs by themselves")
]

_MOST: Final = 200_000
"""Bytes of a guard: a ConfigMap has room for a million."""


@dataclass(frozen=True, slots=True)
class AgentTold:
    """What options said of agents, and of who stands beside them."""

    plans: str
    guard: Path | None
    keys: tuple[Path, ...]
    report: str
    bearer: str
    ca_file: str
    watches: bool
    acts: bool
    followers: int


def agent_choices(settings: "Scenario", choices: "ChartChoices", told: AgentTold) -> "AgentChoices | None":
    """What is asked for; None: no agents.

    Raises:
        ConfigError: something is missing or does not go together, a file cannot be read, or the guard lets nothing be done.
    """
    from sageserve.cli.agent import check_url
    from sageserve.live.authority.guard_file import GuardFile
    from sageserve.live.kubernetes.agent_manifests import AgentChoices, allowed

    told = _with_settings(settings, choices.cluster, told)
    if not told.plans:
        _refuse_lonely(told)
        return None
    if told.acts:
        raise ConfigError(f"--act: agents act on {choices.cluster}, and two would contend for it", hint="leave --act out")
    if told.followers and not told.watches:
        raise ConfigError("--followers ask the process that watches, and there is none", hint="leave --no-watch out")
    for option, url in (("--plans", told.plans), ("--report", told.report)):
        if url and "://" not in url:
            raise ConfigError(f"{option} {url}: the pod has no such folder", hint=f"{option} https://plans.example/")
        if url:
            check_url(option, url, told.bearer)
    for option, path in (("--bearer-file", told.bearer), ("--ca-file", told.ca_file)):
        _of_a_secret(option, path, choices)
    if told.guard is None:
        raise ConfigError(
            "--plans without --guard: an agent without a guard follows nobody",
            hint="say how far targets may go: --guard FILE, with default: {min: 0, max: 8, rung: floor}",
        )
    if not told.keys:
        raise ConfigError("--plans without --key: an agent trusts no hub by itself", hint="--key hub.pub, of sageserve hub key")
    assert settings.live is not None
    targets = {name: one for name, one in settings.live.targets.items() if one.cluster == choices.cluster}
    for name, one in targets.items():
        _refuse_unwritable(name, one.kind, one.authority)
    guard = GuardFile(told.guard)
    rungs: dict[str, Rung] = {name: guard.range_of(one.name).rung for name, one in targets.items()}
    if all(allowed(one, rungs[name]) == "observe" for name, one in targets.items()):
        said = "has no target" if not targets else "lets no target be acted on, by its authority and the guard"
        raise ConfigError(
            f"cluster {choices.cluster} {said}, so that there is nothing for an agent",
            hint="live.targets.NAME.authority and the guard's rung: floor, bounds or full",
        )
    return AgentChoices(
        told.plans, _keys(told.keys), _text(told.guard), rungs, told.report, bearer=told.bearer, ca_file=told.ca_file
    )


def _with_settings(settings: "Scenario", cluster: str, told: AgentTold) -> AgentTold:
    """What options leave open, as live.clusters.NAME.agent says it."""
    there = None if settings.live is None else settings.live.clusters[cluster].agent
    if there is None:
        return told
    keys = told.keys or (() if there.key is None else (Path(there.key),))
    bearer, ca_file = told.bearer or there.bearer_file or "", told.ca_file or there.ca_file or ""
    plans, report = told.plans or there.plans, told.report or there.report or ""
    return replace(told, plans=plans, keys=keys, report=report, bearer=bearer, ca_file=ca_file)


def _refuse_lonely(told: AgentTold) -> None:
    """Options of agents go with --plans, and something is to be written."""
    given = (
        ("--guard", told.guard is not None),
        ("--key", bool(told.keys)),
        ("--report", bool(told.report)),
        ("--bearer-file", bool(told.bearer)),
        ("--ca-file", bool(told.ca_file)),
        ("--no-watch", not told.watches),
    )
    for option, there in given:
        if there:
            raise ConfigError(f"{option} is of agents, and they are told where plans are", hint="--plans https://plans.example/")


def _refuse_unwritable(name: str, kind: str, rung: str) -> None:
    from sageserve.cli.acting import rungs_of

    if rung not in rungs_of(kind):
        raise ConfigError(f"live.targets.{name}.authority: {rung} is not what a {kind} is acted on by", hint="authority: observe")


def _of_a_secret(option: str, path: str, choices: "ChartChoices") -> None:
    """A file that the pod has."""
    if not path or any(Path(path).is_relative_to(folder) for folder in choices.secrets.values()):
        return
    folders = ", ".join(choices.secrets.values()) or "none"
    raise ConfigError(
        f"{option} {path}: no --secret stands there (folders: {folders})", hint=f"--secret NAME:{Path(path).parent}"
    )


def _keys(paths: tuple[Path, ...]) -> dict[str, str]:
    """Public keys by the names of files that a ConfigMap can have."""
    from sageserve.cli.extras import need

    need("agents")
    from sageserve.live.agent.sealed import trusted_keys

    return {f"{name}.pub": _text(path) for path in paths for name in trusted_keys([path])}


def _text(path: Path) -> str:
    content = path.read_bytes()
    if len(content) > _MOST:
        raise ConfigError(f"{path} has more than {_MOST:,} bytes", hint="a ConfigMap has no room for it")
    return content.decode("utf-8")
