"""`sageserve doctor`: is what SageServe would decide on true and allowed? Reads clusters, or a state folder; writes nothing.

Knows options and how results look. stdout is the result: lines, or one JSON object per check. Exit 0: clean, 1: errors, 2:
something could not be checked. Read next: `live/doctor/`, docs/reference/doctor.md.
"""

import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from sageserve.base.errors import ConfigError
from sageserve.cli.extras import need
from sageserve.cli.kube import kubeconfig_file
from sageserve.cli.running import State, state_folder

if TYPE_CHECKING:
    from sageserve.base.config import Scenario
    from sageserve.base.units import Micros
    from sageserve.live.doctor.checks import CheckFinding, CheckResult

EXAMPLES = """[bold]Examples[/bold]

sageserve doctor fleet.yaml

sageserve doctor --local [dim]— the fleet of this machine: modes, binds, keys, secrets, the audit log[/dim]

sageserve doctor fleet.yaml --json | jq 'select(.state != "ok")'
"""
_COLOURS = {"error": "red", "warn": "yellow", "info": "cyan"}


def doctor(  # noqa: PLR0913, PLR0917 # one argument per option
    scenario: Annotated[
        str | None,
        typer.Argument(
            metavar="SCENARIO", help="a YAML file with live.clusters and live.targets; with --local: the settings of the fleet"
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="any setting, such as live.safety.blind_after=2m; may be repeated"),
    ] = None,
    kubeconfig: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="of the clusters; without one, cluster checks are skipped", show_default="KUBECONFIG"),
    ] = None,
    local: Annotated[bool, typer.Option("--local", help="check the fleet of a state folder instead of clusters")] = False,
    state: State = None,
    audit_head: Annotated[
        str, typer.Option(metavar="HASH", help="with --local: a hash that the audit log had, kept elsewhere")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object per check")] = False,
) -> None:
    """Check Prometheus, series, rights, other writers, KEDA, pods and promises of all targets; say how to mend what is wrong."""
    need("live")
    for option, given, fits in (
        ("--audit-head", audit_head, local),
        ("--state", state, local),
        ("--kubeconfig", kubeconfig, not local),
    ):
        if given and not fits:
            said, hint = ("is not of --local", "leave it out") if local else ("is of --local", "add --local")
            raise ConfigError(f"{option} {said}", hint=hint)
    if local:
        from sageserve.cli.doctor_local import examine_local

        found, where = examine_local(scenario, overrides or (), state_folder(state), audit_head)
        _answer(found, where, as_json=as_json)
    elif scenario is None:
        raise ConfigError("there is no scenario to check", hint="name a YAML file with live.clusters, or give --local")
    else:
        _check_clusters(scenario, overrides or (), kubeconfig, as_json=as_json)


def _check_clusters(scenario: str, overrides: Sequence[str], kubeconfig: Path | None, *, as_json: bool) -> None:
    import asyncio  # late: it takes a tenth of what --help takes

    from sageserve.data.scenarios.load import load_scenario

    settings = load_scenario(scenario, overrides=overrides)
    if settings.live is None or not settings.live.clusters:
        raise ConfigError(
            f"{settings.name} names no cluster: there is nothing to check",
            hint="write `live: {clusters: {east: {prometheus: {url: http://localhost:9090}}}}`, and targets in it",
        )
    results = asyncio.run(examined(settings, kubeconfig or kubeconfig_file()))
    _answer(results, f"{len(settings.live.targets)} targets", as_json=as_json)


def _answer(results: "Sequence[CheckResult]", of: str, *, as_json: bool) -> None:
    from sageserve.live.doctor.run import exit_code

    if as_json:
        for line in json_lines(results):
            typer.echo(line)
    else:
        _show(results, of)
    raise typer.Exit(exit_code(results))


async def examined(settings: "Scenario", kubeconfig: Path | None) -> "tuple[CheckResult, ...]":
    """All checks of the clusters."""
    from sageserve.live.doctor.run import DoctorSources, examine
    from sageserve.live.kubernetes.reader import ClusterReader, cluster_config
    from sageserve.live.prometheus.server import PrometheusServer

    assert settings.live is not None
    servers, readers, without = {}, {}, {}
    async with AsyncExitStack() as stack:
        for name, cluster in settings.live.clusters.items():
            if cluster.prometheus is not None:
                servers[name] = stack.enter_context(PrometheusServer(cluster.prometheus))
            if cluster.agent is not None:
                without[name] = "an agent acts there"
                continue
            if cluster.ray is not None:
                without[name] = "a Ray cluster"
                continue
            if kubeconfig is None:
                without[name] = "no kubeconfig"
                continue
            try:
                readers[name] = await stack.enter_async_context(ClusterReader(cluster_config(cluster.context, kubeconfig)))
            except ConfigError as error:
                if cluster.context is not None:
                    raise
                without[name] = error.message
        now = time.time_ns() // 1000
        return await examine(settings, DoctorSources(servers, readers, without, await _agents(settings, stack, now)), now)


async def _agents(settings: "Scenario", stack: AsyncExitStack, now: "Micros") -> "dict[str, list[CheckFinding]]":
    """What is wrong with agents, by cluster."""
    from sageserve.live.agent.heard import ReportReader, printable, troubles
    from sageserve.live.doctor.checks import CheckFinding

    return {
        name: [
            CheckFinding(f"live.clusters.{name}", printable(one.said), one.next, "error" if one.grave else "warn")
            for one in troubles(name, found, now)
        ]
        for name, found in (await ReportReader(settings, stack).read()).items()
    }


def json_lines(results: "Sequence[CheckResult]") -> list[str]:
    """One JSON object per check, in the order of the checks."""
    import msgspec

    return [
        msgspec.json.encode(
            {
                "id": one.check.id,
                "state": one.state,
                "severity": one.check.severity,
                "proves": one.check.proves,
                "findings": one.findings,
                "reason": one.reason,
            }
        ).decode()
        for one in results
    ]


def _show(results: "Sequence[CheckResult]", of: str) -> None:
    console = Console(soft_wrap=True, highlight=False, emoji=False)
    for one in results:
        for finding in one.findings:
            colour = _COLOURS[finding.severity]
            said = f"{escape(finding.where)}: {escape(finding.said)}"
            console.print(f"[bold {colour}]{finding.severity}[/] [bold]{one.check.id}[/] {said}")
            console.print(f"      {escape(finding.next)}", style="dim")
    for state, words in (("unknown", "could not be checked"), ("skipped", "skipped")):
        by_reason: dict[str, list[str]] = {}
        for one in results:
            if one.state == state:
                by_reason.setdefault(one.reason, []).append(one.check.id)
        for reason, ids in by_reason.items():
            console.print(f"{words} ({escape(reason)}): {', '.join(ids)}", style="dim")
    counts = {severity: sum(f.severity == severity for one in results for f in one.findings) for severity in _COLOURS}
    made = sum(one.state in ("ok", "found") for one in results)
    said = ", ".join(f"{count} {severity}" for severity, count in counts.items() if count) or "nothing is wrong"
    console.print(f"{made} checks of {of}: {said}")
