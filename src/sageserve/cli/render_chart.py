"""`sageserve render chart`: what runs `sageserve watch` in a cluster, as plain manifests; `live/kubernetes/` makes them.

Knows options. stdout is the file. Read next: `render_agent.py`; docs/how-to/in-a-cluster.md.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from sageserve.base.errors import ConfigError
from sageserve.cli import complete, render_agent, render_gateways
from sageserve.cli.chart_files import check_names, secret_folders, settings_inside, write_folder

if TYPE_CHECKING:
    from sageserve.base.config import Scenario
    from sageserve.live.kubernetes.agent_manifests import AgentChoices
    from sageserve.live.kubernetes.manifests import ChartChoices


Cluster = Annotated[
    str,
    typer.Option("--cluster", metavar="NAME", help="of live.clusters, the one it runs in", show_default="the only one there is"),
]
Secrets = Annotated[
    list[str] | None,
    typer.Option("--secret", metavar="NAME:FOLDER", help="a Secret whose files stand in FOLDER; may be repeated"),
]
Operator = Annotated[
    bool, typer.Option("--operator", help="with a ServiceMonitor and a PrometheusRule, for the Prometheus operator")
]
Act = Annotated[
    bool, typer.Option("--act", help="it carries out what the authority of targets allows, and has the rights for it")
]
Followers = Annotated[
    int,
    typer.Option("--followers", min=0, metavar="N", help="that answer KEDA in its place, and go on while it is started anew"),
]
Form = Annotated[
    Literal["manifests", "helm"], typer.Option("--format", help="one file of manifests, or a Helm chart in the folder of -o")
]

_EXAMPLES: Final = """[bold]Examples[/bold]

sageserve render chart fleet.yaml --image registry.example/sageserve:1 | kubectl apply --server-side -f -

sageserve render chart fleet.yaml --image … --secret prometheus-token:/var/run/prometheus -o sageserve.yaml

sageserve render chart fleet.yaml --image … --format helm -o deploy/sageserve

sageserve render chart fleet.yaml --image … --no-watch --plans https://plans.example/ --key hub.pub --guard guard.yaml
"""


app = typer.Typer(
    help="Write manifests of what runs in a cluster: who watches (`render chart`), or gateways and control (`render gateways`).",
    no_args_is_help=True,
    epilog=_EXAMPLES,
    rich_markup_mode="rich",
)


@app.callback()
def render() -> None:
    """Write manifests, or a Helm chart, of what runs in a cluster."""


app.command(epilog=render_gateways.EXAMPLES)(render_gateways.gateways)


@app.command(epilog=_EXAMPLES)
def chart(  # noqa: PLR0913, PLR0917 # one argument per option
    scenario: Annotated[str, complete.SCENARIO],
    image: Annotated[str, typer.Option(metavar="NAME", help="of the container, which has `sageserve` on its PATH")],
    namespace: Annotated[str, typer.Option("-n", "--namespace", metavar="NAME", help="where it runs")] = "sageserve",
    cluster: Cluster = "",
    storage: Annotated[str, typer.Option(metavar="SIZE", help="of its disk: five weeks of minutes and a journal")] = "5Gi",
    secrets: Secrets = None,
    operator: Operator = False,
    act: Act = False,
    followers: Followers = 0,
    plans: render_agent.Plans = "",
    guard: render_agent.Guard = None,
    keys: render_agent.Keys = None,
    report: render_agent.Report = "",
    bearer: render_agent.Bearer = "",
    ca_file: render_agent.CaFile = "",
    watches: render_agent.Watches = True,
    form: Form = "manifests",
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="PATH", help="write it there", show_default="print it")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="any setting, such as fleet.maximum=40; may be repeated"),
    ] = None,
) -> None:
    """Write manifests of a process that watches, and that answers KEDA where settings say so: no more rights than it needs.

    With --plans, also of the agents of a cluster whose hub is elsewhere.
    """
    from sageserve.data.documents import write_text
    from sageserve.data.rebuild.places import watched_pools
    from sageserve.data.scenarios.load import load_scenario, resolved_yaml
    from sageserve.live.kubernetes.agent_manifests import parts_of
    from sageserve.live.kubernetes.manifests import ChartChoices, as_documents
    from sageserve.live.simulated_only import refuse_simulated_only

    settings = load_scenario(scenario, overrides=overrides or ())
    refuse_simulated_only(settings, ours=False)
    home = _cluster(settings, cluster)
    if watches:
        watched_pools(settings)
        _refuse_unwatched(settings, home)
    told = render_agent.AgentTold(
        plans, guard, tuple(keys or ()), report, bearer, ca_file, watches=watches, acts=act, followers=followers
    )
    check_names(namespace, image, storage)
    choices = ChartChoices(image, namespace, home, storage, secret_folders(secrets or ()), operator, act, followers)
    _check_followers(settings, followers)
    agent = render_agent.agent_choices(settings, choices, told)
    kept = resolved_yaml(settings_inside(settings, home))
    rules = _rules(settings) if operator else ""
    if form == "helm":
        _write_chart(settings, kept, (choices, agent, watches), rules, out)
        return
    text = as_documents(parts_of(settings, kept, choices, agent, watches=watches)) + (f"---\n{rules}" if rules else "")
    write_text(out, text) if out is not None else typer.echo(text, nl=False)


def _rules(settings: "Scenario") -> str:
    """Alert rules, for the Prometheus operator."""
    from sageserve.live.alerts.rules import as_yaml, rules_of

    return as_yaml(rules_of(settings, "engines", ""), name=f"sageserve-{settings.name}", operator=True)


def _check_followers(settings: "Scenario", followers: int) -> None:
    """Followers have something to answer.

    Raises:
        ConfigError: KEDA is not answered at all.
    """
    if followers and (settings.live is None or settings.live.scaler is None):
        raise ConfigError("--followers answer KEDA, and there is no live.scaler", hint="--set live.scaler.listen=0.0.0.0:7001")


def _write_chart(
    settings: "Scenario", kept: str, parts: "tuple[ChartChoices, AgentChoices | None, bool]", rules: str, out: Path | None
) -> None:
    """Write a Helm chart.

    Raises:
        ConfigError: no folder is named, or it holds what is no chart of this scenario.
    """
    from importlib.metadata import version

    from sageserve.live.kubernetes.helm import helm_chart

    choices, agent, watches = parts
    found = helm_chart(settings, kept, choices, rules, version("sageserve"), agent=agent, watches=watches)
    write_folder(found, out, choices.namespace)


def _cluster(settings: "Scenario", name: str) -> str:
    """Which cluster it runs in.

    Raises:
        ConfigError: there is none, none of that name, or several, or it is one of Ray.
    """
    clusters = settings.live.clusters if settings.live is not None else {}
    if not clusters:
        raise ConfigError(
            f"{settings.name} has no live.clusters, so nothing says where its Prometheus is",
            hint='write live: {clusters: {east: {prometheus: {url: "http://prometheus.monitoring:9090"}}}, targets: …}',
        )
    if name and name not in clusters:
        raise ConfigError(f"--cluster: there is no {name!r} in live.clusters", hint=f"there are {', '.join(clusters)}")
    if not name and len(clusters) > 1:
        raise ConfigError(f"live.clusters has {', '.join(clusters)}", hint="say which one it runs in: --cluster NAME")
    if any(one.ray is not None for one in clusters.values()):
        raise ConfigError(
            "what acts on a Ray cluster keeps its orders beside it, and no manifests are made for that",
            hint="run `sageserve watch --act` on a machine that reaches the dashboard",
        )
    return name or next(iter(clusters))


def _refuse_unwatched(settings: "Scenario", home: str) -> None:
    """Refuse what a process that watches cannot do there.

    Raises:
        ConfigError: no server is named, or nobody reaches the port where KEDA is answered.
    """
    from sageserve.live.kubernetes.manifests import PORT

    assert settings.live is not None
    clusters = settings.live.clusters
    missing = next(
        (each for each, one in clusters.items() if one.prometheus is None and (one.agent is None or each == home)), None
    )
    if missing is not None:
        raise ConfigError(
            f"live.clusters.{missing} has no prometheus: a process without a terminal is told by settings alone",
            hint=f"--set live.clusters.{missing}.prometheus.url=http://prometheus.monitoring:9090",
        )
    scaler = settings.live.scaler
    if scaler is not None and (scaler.listen.endswith(":0") or scaler.listen.startswith(("127.", "localhost:", "[::1]"))):
        raise ConfigError(
            f"live.scaler.listen: {scaler.listen} is reached by nobody outside the pod",
            hint="--set live.scaler.listen=0.0.0.0:7001",
        )
    if scaler is not None and int(scaler.listen.rpartition(":")[2]) == PORT:
        raise ConfigError(
            f"live.scaler.listen: {PORT} is the port of metrics there", hint="--set live.scaler.listen=0.0.0.0:7001"
        )
