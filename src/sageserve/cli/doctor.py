"""`sageserve doctor`: is what SageServe would decide on there, true and allowed? Reads Prometheus and clusters, writes nothing.

Knows options and how results look. stdout is the result: lines, or one JSON object per check. Exit 0: clean, 1: errors, 2:
something could not be checked. Read next: `live/doctor/`, docs/reference/doctor.md.
"""

import asyncio
import os
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from sageserve.cli.extras import need

if TYPE_CHECKING:
    from sageserve.base.config import Scenario
    from sageserve.live.doctor.checks import CheckResult

EXAMPLES = """[bold]Examples[/bold]

sageserve doctor fleet.yaml

sageserve doctor fleet.yaml --json | jq 'select(.state != "ok")'
"""
_COLOURS = {"error": "red", "warn": "yellow", "info": "cyan"}


def doctor(
    scenario: Annotated[str, typer.Argument(metavar="SCENARIO", help="a YAML file with live.clusters and live.targets")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="any setting, such as live.safety.blind_after=2m; may be repeated"),
    ] = None,
    kubeconfig: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="of the clusters; without one, cluster checks are skipped", show_default="KUBECONFIG"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object per check")] = False,
) -> None:
    """Check Prometheus, series, rights, other writers, KEDA, pods and promises of all targets; say how to mend what is wrong."""
    need("live")
    from sageserve.base.errors import ConfigError
    from sageserve.data.scenarios.load import load_scenario
    from sageserve.live.doctor.run import exit_code

    settings = load_scenario(scenario, overrides=overrides or ())
    if settings.live is None or not settings.live.clusters:
        raise ConfigError(
            f"{settings.name} names no cluster: there is nothing to check",
            hint="write `live: {clusters: {east: {prometheus: {url: http://localhost:9090}}}}`, and targets in it",
        )
    results = asyncio.run(_examine(settings, kubeconfig or _kubeconfig()))
    if as_json:
        for line in json_lines(results):
            typer.echo(line)
    else:
        _show(results, len(settings.live.targets))
    raise typer.Exit(exit_code(results))


def _kubeconfig() -> Path | None:
    """What kubectl would use: the first file of KUBECONFIG, else the one of the home folder; none: there is neither."""
    named = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
    path = Path(named) if named else Path.home() / ".kube" / "config"
    return path if path.is_file() else None


async def _examine(settings: "Scenario", kubeconfig: Path | None) -> "tuple[CheckResult, ...]":
    from sageserve.base.errors import ConfigError
    from sageserve.live.doctor.run import DoctorSources, examine
    from sageserve.live.kubernetes.reader import ClusterReader, cluster_config
    from sageserve.live.prometheus.server import PrometheusServer

    assert settings.live is not None
    servers, readers, without = {}, {}, {}
    async with AsyncExitStack() as stack:
        for name, cluster in settings.live.clusters.items():
            if cluster.prometheus is not None:
                servers[name] = stack.enter_context(PrometheusServer(cluster.prometheus))
            if kubeconfig is None:
                without[name] = "no kubeconfig"
                continue
            try:
                readers[name] = await stack.enter_async_context(ClusterReader(cluster_config(cluster.context, kubeconfig)))
            except ConfigError as error:
                if cluster.context is not None:
                    raise
                without[name] = error.message
        return await examine(settings, DoctorSources(servers, readers, without), time.time_ns() // 1000)


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


def _show(results: "Sequence[CheckResult]", targets: int) -> None:
    console = Console(soft_wrap=True, highlight=False)
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
    console.print(f"{made} checks of {targets} targets: {said}")
