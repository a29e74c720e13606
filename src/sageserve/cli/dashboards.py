"""`sageserve dashboards`: Grafana dashboards, made of a scenario's promises. Knows options and files; `live/alerts/` makes them.

stdout is the names of the files, or the ConfigMap. Read next: docs/how-to/alerts.md.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from sageserve.cli import complete

EXAMPLES = """[bold]Examples[/bold]

sageserve dashboards fleet.yaml -o dashboards/

sageserve dashboards fleet.yaml --of engines -o dashboards/ [dim]— of a fleet that is watched[/dim]

sageserve dashboards fleet.yaml --config-map | kubectl apply -n monitoring -f -
"""


def dashboards(
    scenario: Annotated[str, complete.SCENARIO],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="DIR", help="write a JSON file each there", show_default=False)
    ] = None,
    of: Annotated[
        Literal["gateway", "engines"],
        typer.Option("--of", help="whose times: our gateway's, by tier; or engines', of a fleet that is watched"),
    ] = "gateway",
    config_map: Annotated[
        bool, typer.Option("--config-map", help="print a ConfigMap that Grafana's sidecar finds, instead")
    ] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="any setting, such as tiers.chat.ttft=2s; may be repeated"),
    ] = None,
) -> None:
    """Write Grafana dashboards: error budget and times by tier, demand and capacity, decisions, batch work, what is not seen."""
    from sageserve.base.errors import ConfigError
    from sageserve.cli.extras import need
    from sageserve.data.documents import write_texts
    from sageserve.data.scenarios.load import load_scenario
    from sageserve.live.alerts.boards import boards_of

    need("grafana")
    if (out is None) != config_map:
        raise ConfigError(
            "say where the dashboards go", hint="-o DIR for files, or --config-map to print an object for Kubernetes"
        )
    from sageserve.live.alerts.grafana import all_json, as_config_map

    texts = all_json(boards_of(load_scenario(scenario, overrides=overrides or ()), of))
    if out is None:
        typer.echo(as_config_map(texts), nl=False)
        return
    files = {f"{name}.json": text for name, text in texts.items()}
    write_texts(out, files)
    for name in files:
        typer.echo(str(out / name))
