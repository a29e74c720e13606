"""`sageserve render gateways`: gateways behind a Service, and the control that tells them, as manifests or a Helm chart.

Knows options, and what cannot run in a pod. stdout is the file. Read next: `render_chart.py`;
`live/kubernetes/gateway_manifests.py`; docs/how-to/gateways-elsewhere.md.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal
from urllib.parse import urlsplit

import typer

from sageserve.base.errors import ConfigError
from sageserve.cli import complete
from sageserve.cli.chart_files import check_names, check_secret, secret_folders, settings_inside, write_folder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sageserve.base.config import LiveSettings, Scenario
    from sageserve.live.kubernetes.gateway_manifests import GatewayChoices

EXAMPLES: Final = """[bold]Examples[/bold]

sageserve render gateways fleet.yaml --image registry.example/sageserve:1 --gateway-secret gateway-tls \\
  --secret control-tls:/etc/control | kubectl apply --server-side -f - [dim]— and control, in the same cluster[/dim]

sageserve render gateways fleet.yaml --image … --gateway-secret gateway-tls --control tls://control.example:7002 \\
  --replicas 3 --max-replicas 12 [dim]— control is elsewhere[/dim]

sageserve render gateways fleet.yaml --image … --gateway-secret gateway-tls --secret … --format helm -o deploy/gateways
"""
_FAR: Final = re.compile(r"tls://[^/?# ]+:[0-9]+")
Replicas = Annotated[int, typer.Option(min=1, metavar="N", help="gateways; at least, with --max-replicas")]
Most = Annotated[int, typer.Option("--max-replicas", min=0, metavar="N", help="that an autoscaler may make of them; 0: none")]
Paper = Annotated[
    str, typer.Option(metavar="NAME", help="of the Secret with tls.crt, tls.key and ca.crt that gateways show to control")
]
Elsewhere = Annotated[
    str, typer.Option(metavar="URL", help="tls://HOST:PORT of a control elsewhere", show_default="control runs here, too")
]
Region = Annotated[str, typer.Option(metavar="NAME", help="where these gateways are", show_default="the first")]
Secrets = Annotated[
    list[str] | None,
    typer.Option("--secret", metavar="NAME:FOLDER", help="a Secret whose files stand in FOLDER; may be repeated"),
]


def gateways(  # noqa: PLR0913, PLR0917 # one argument per option
    scenario: Annotated[str, complete.SCENARIO],
    image: Annotated[str, typer.Option(metavar="NAME", help="of the container, which has `sageserve` on its PATH")],
    gateway_secret: Paper,
    namespace: Annotated[str, typer.Option("-n", "--namespace", metavar="NAME", help="where they run")] = "sageserve",
    replicas: Replicas = 2,
    most: Most = 0,
    control: Elsewhere = "",
    region: Region = "",
    storage: Annotated[str, typer.Option(metavar="SIZE", help="of control's disk: batches, and five weeks of minutes")] = "5Gi",
    secrets: Secrets = None,
    operator: Annotated[bool, typer.Option("--operator", help="with a ServiceMonitor, for the Prometheus operator")] = False,
    form: Annotated[
        Literal["manifests", "helm"], typer.Option("--format", help="one file of manifests, or a Helm chart in the folder of -o")
    ] = "manifests",
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="PATH", help="write it there", show_default="print it")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="any setting, such as live.limits.body=8MiB; may be repeated"),
    ] = None,
) -> None:
    """Write manifests of gateways behind a Service and, without --control, of the control that tells them."""
    from importlib.metadata import version

    from sageserve.data.documents import write_text
    from sageserve.data.scenarios.load import load_scenario, resolved_yaml
    from sageserve.live.kubernetes.gateway_helm import gateway_chart
    from sageserve.live.kubernetes.gateway_manifests import GatewayChoices, gateway_parts
    from sageserve.live.kubernetes.manifests import ChartChoices, as_documents
    from sageserve.live.simulated_only import refuse_simulated_only

    settings = load_scenario(scenario, overrides=overrides or ())
    refuse_simulated_only(settings)
    check_names(namespace, image, storage)
    folders = secret_folders(secrets or ())
    asked = GatewayChoices(gateway_secret, replicas, most, control, region)
    _check(settings, asked, folders)
    choices = ChartChoices(image, namespace, "", storage, folders, operator)
    inside = _inside(settings)
    kept = resolved_yaml(settings if control else inside)  # where control is elsewhere, that one's: their marks are to be equal
    if form == "helm":
        write_folder(gateway_chart(settings, kept, choices, asked, version("sageserve")), out, namespace)
        return
    text = as_documents(gateway_parts(settings, kept, choices, asked))
    write_text(out, text) if out is not None else typer.echo(text, nl=False)


def _inside(settings: "Scenario") -> "Scenario":
    """Settings as a pod of the cluster whose Services are followed has them: its own account in the place of a context."""
    followed = {one.cluster for one in settings.live.services} if settings.live is not None else set()
    for name in sorted(followed):
        settings = settings_inside(settings, name)
    return settings


def _check(settings: "Scenario", asked: "GatewayChoices", folders: "Mapping[str, str]") -> None:
    """Refuse what cannot run in pods.

    Raises:
        ConfigError: why.
    """
    from sageserve.base.config import LiveSettings
    from sageserve.base.config.link import LOOPBACK
    from sageserve.live.kubernetes.gateway_manifests import read_by_control, read_by_gateways
    from sageserve.live.link_port import check_address

    live = settings.live or LiveSettings()
    check_secret("--gateway-secret", asked.secret)
    if asked.region and asked.region not in settings.regions:
        raise ConfigError(f"there is no region {asked.region!r}", hint=f"regions are {', '.join(settings.regions)}")
    if asked.most and asked.most < asked.replicas:
        raise ConfigError(
            f"--max-replicas {asked.most} is below --replicas {asked.replicas}",
            hint="give more of the one, or fewer of the other",
        )
    if not live.keys:
        raise ConfigError(
            "gateways behind a Service are asked from elsewhere, and without live.keys they refuse that",
            hint="sageserve key new NAME, and its lines into the scenario",
        )
    _check_variables(live)
    if live.records:
        raise ConfigError("live.records: gateways in pods have no disk to write lines to", hint="--set live.records=false")
    store = urlsplit(live.store)
    if store.password or "password=" in store.query:
        raise ConfigError(
            "live.store: its password would stand in a ConfigMap",
            hint="a certificate that PostgreSQL knows: ?sslcert=/…&sslkey=/… in the address, and --secret",
        )
    if asked.control:
        check_address(asked.control)
        if not _FAR.fullmatch(asked.control):
            raise ConfigError(f"--control: {asked.control} is not tls://HOST:PORT", hint="such as tls://control.example:7002")
        _check_files(read_by_gateways(live), folders)
        return
    if live.ours:
        raise ConfigError(
            "control would start engines in its own pod", hint="live.actuator: kubernetes with live.services, or fixed"
        )
    if len({one.cluster for one in live.services}) > 1:
        raise ConfigError("live.services are in several clusters, and a pod is in one", hint="--control, for the others")
    if live.link is None or live.link.tls is None or live.link.listen.rpartition(":")[0] in LOOPBACK:
        raise ConfigError(
            "gateways reach control through live.link, under TLS",
            hint="live.link: {listen: 0.0.0.0:7002, tls: {certificate: /…, key: /…, client_ca: /…}}; or --control tls://…",
        )
    if live.link.listen.endswith(":0"):
        raise ConfigError("live.link.listen: a Service needs a port by number", hint="--set live.link.listen=0.0.0.0:7002")
    _check_files(read_by_control(live), folders)


def _check_variables(live: "LiveSettings") -> None:
    names = [*live.inherit, *(one.bearer_env for one in live.access.values() if one.bearer_env is not None)]
    if names:
        raise ConfigError(
            f"{names[0]} is a variable of this machine, and pods have none", hint="a file in a Secret: bearer_file, and --secret"
        )


def _check_files(files: list[str], folders: "Mapping[str, str]") -> None:
    from sageserve.live.kubernetes.gateway_manifests import PAPERS, held

    for name, folder in folders.items():
        if held(PAPERS, folder) or held(folder, PAPERS):
            raise ConfigError(f"--secret {name}: {PAPERS} is where the files of --gateway-secret stand", hint="another folder")
    lost = next((one for one in files if not any(held(folder, one) for folder in folders.values())), None)
    if lost is not None:
        raise ConfigError(
            f"{lost} is named in the settings, and no pod has it", hint=f"--secret NAME:{Path(lost).parent}, with the file in it"
        )
