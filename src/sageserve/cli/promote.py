"""`sageserve promote`: may a target be given more authority? Reads what was watched and asks `doctor`; changes nothing.

The settings file is the authority: this prints the one line to change there, or says what is missing. Read next: `kube.py`;
`show/shadow/reckon.py` for the evidence; docs/how-to/raise-the-floor.md.
"""

from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sageserve.base.errors import ConfigError, SageServeError
from sageserve.cli.acts import note_act
from sageserve.cli.extras import need
from sageserve.cli.kube import Kubeconfig, kubeconfig_file, targets_at, watched_settings
from sageserve.cli.streams import answer_json
from sageserve.cli.watch import WatchedState

if TYPE_CHECKING:
    from sageserve.base.config import LiveSettings, Scenario
    from sageserve.base.config.clusters import Rung
    from sageserve.live.doctor.checks import CheckResult

EXAMPLES = """[bold]Examples[/bold]

sageserve promote llama70 floor [dim]— after a week of `sageserve watch`[/dim]

sageserve promote llama70 bounds --accept-risk "staging, nobody depends on it"
"""


def promote(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="its name in live.targets")],
    rung: Annotated[str, typer.Argument(metavar="RUNG", help="floor, bounds, or full of an object that nothing else scales")],
    accept_risk: Annotated[
        str, typer.Option("--accept-risk", metavar="TEXT", help="go on without the evidence; the audit log keeps why")
    ] = "",
    state: WatchedState = None,
    kubeconfig: Kubeconfig = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the answer as JSON")] = False,
) -> None:
    """Say whether a target may be given more authority, what is missing, and the line to change."""
    need("live")
    folder, settings, live = watched_settings(state)
    if target not in live.targets:
        targets_at(live, target)
        raise ConfigError(f"{target!r} is more than one target", hint="promote one at a time, by its name")
    wanted = _next_rung(live, target, rung)
    missing = [
        *_guarded(live, target, wanted),
        *_unwatched(folder, live, target),
        *_unsound(settings, live, (target, wanted), kubeconfig),
        *_unwritable(folder, live, target, wanted),
    ]
    line = f"live.targets.{target}.authority: {wanted}"
    if missing and not accept_risk and not as_json:
        raise SageServeError(
            f"{target} may not be raised to {wanted}: {'; '.join(missing)}",
            hint="watch on and mend what doctor finds; or, knowing better: --accept-risk TEXT",
        )
    allowed = not missing or bool(accept_risk)
    if as_json:
        typer.echo(answer_json({"target": target, "rung": wanted, "allowed": allowed, "missing": missing, "line": line}))
    if missing and accept_risk:
        note_act(folder, "promote", {"target": target, "rung": wanted, "risk": accept_risk, "missing": "; ".join(missing)})
        typer.echo(f"warning: {'; '.join(missing)}", err=True)
    if not as_json:
        typer.echo(f"{target} may be raised to {wanted}. Change one line of the settings, and watch with --act:\n\n  {line}\n")
    if not allowed:
        raise typer.Exit(2)


def _next_rung(live: "LiveSettings", target: str, rung: str) -> "Rung":
    from sageserve.base.config.clusters import RUNGS
    from sageserve.cli.acting import refuse_rung, rungs_of
    from sageserve.data.documents import suggest
    from sageserve.live.kubernetes.kinds import ALL_RUNGS

    settings = live.targets[target]
    wanted = next((one for one in RUNGS if one == rung), None)
    if wanted is None:
        raise ConfigError(f"{rung!r} is no rung{suggest(rung, RUNGS)}", hint=f"rungs: {', '.join(RUNGS)}")
    if RUNGS.index(wanted) <= RUNGS.index(settings.authority):
        raise ConfigError(
            f"{target} has {settings.authority} already", hint="to go down, change the settings: no evidence is asked for"
        )
    refuse_rung(settings, wanted, f"live.targets.{target}")
    above = [one for one in rungs_of(settings.kind) if RUNGS.index(one) > RUNGS.index(settings.authority)]
    apart = settings.kind in ALL_RUNGS and wanted == "full"  # Ray scales it, or we do: no rung leads to the other
    if wanted != above[0] and not apart:
        raise ConfigError(f"{target} has {settings.authority}: one rung at a time", hint=f"sageserve promote {target} {above[0]}")
    return wanted


def _guarded(live: "LiveSettings", target: str, wanted: "Rung") -> list[str]:
    """What the cluster's owner does not allow."""
    from sageserve.base.config.clusters import RUNGS
    from sageserve.cli.kube import guard_of

    allowed = guard_of(live, target).rung
    return [f"the cluster's guard allows {allowed} at most"] if RUNGS.index(allowed) < RUNGS.index(wanted) else []


def _unwatched(folder: Path, live: "LiveSettings", target: str) -> list[str]:
    """What the shadow report lacks."""
    from sageserve.base.errors import ResultError
    from sageserve.data.rebuild.places import pool_parts
    from sageserve.show.shadow.read import read_shadow

    region, model, _ = pool_parts(live.targets[target].pool)
    try:
        refused = read_shadow(folder).report.refused
    except ResultError as error:
        return [error.message]
    return list(refused.get(f"{region}/{model}", ("nothing was watched of it",)))


def _unsound(settings: "Scenario", live: "LiveSettings", wanted: "tuple[str, Rung]", kubeconfig: Path | None) -> list[str]:
    """What doctor finds, or could not look at, with the target on the rung that is asked for."""
    import asyncio  # late: it takes a tenth of what --help takes

    from sageserve.cli.doctor import examined

    name, rung = wanted
    target = live.targets[name].model_copy(update={"authority": rung})
    alone = live.model_copy(update={"targets": {name: target}, "clusters": {target.cluster: live.clusters[target.cluster]}})
    results = asyncio.run(examined(settings.model_copy(update={"live": alone}), kubeconfig or kubeconfig_file()))
    return list(_told(results, asked=live.clusters[target.cluster].ray is None))


def _unwritable(folder: Path, live: "LiveSettings", name: str, rung: "Rung") -> list[str]:
    """Why a deployment of Ray Serve may not be written; of everything else doctor says it."""
    import asyncio  # late: it takes a tenth of what --help takes

    from sageserve.cli.kube import writer_of
    from sageserve.live.kubernetes.reader import NotRead

    target = live.targets[name]
    if live.clusters[target.cluster].ray is None:
        return []

    async def look() -> str:
        async with AsyncExitStack() as stack:
            writer = await writer_of(stack, live, target.cluster, None, folder)
            app, _, deployment = target.name.partition("/")
            found = await writer.get(target.kind, deployment, app)
            return found.detail if isinstance(found, NotRead) else found.text("status", "refused", rung)

    said = asyncio.run(look())
    return [said] if said else []


def _told(results: "tuple[CheckResult, ...]", *, asked: bool) -> list[str]:
    """Findings, and what could not be looked at; of a Ray cluster nothing is asked of Kubernetes."""
    found = [
        f"doctor: {one.check.id}: {finding.said}" for one in results for finding in one.findings if finding.severity == "error"
    ]
    unseen: dict[str, list[str]] = {}
    for one in results:
        if one.state in ("unknown", "skipped") and one.check.severity == "error" and (asked or one.check.needs == "prometheus"):
            unseen.setdefault(one.reason, []).append(one.check.id)
    return [*found, *(f"doctor could not look ({reason}): {', '.join(ids)}" for reason, ids in unseen.items())]
