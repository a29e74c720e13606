"""`sageserve alerts`: rules for Prometheus, made of a scenario's promises. Knows options and files; `live/alerts/` makes them.

stdout is the file. Read next: docs/how-to/alerts.md.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from sageserve.cli import complete

EXAMPLES = """[bold]Examples[/bold]

sageserve alerts fleet.yaml -o rules.yaml && promtool check rules rules.yaml

sageserve alerts fleet.yaml --of engines [dim]— of a fleet that is watched, by its engines' own histograms[/dim]

sageserve alerts fleet.yaml --operator | kubectl apply -n monitoring -f -
"""


def alerts(
    scenario: Annotated[str, complete.SCENARIO],
    of: Annotated[
        Literal["gateway", "engines"],
        typer.Option("--of", help="whose times: our gateway's, by tier; or engines', of a fleet that is watched"),
    ] = "gateway",
    operator: Annotated[bool, typer.Option("--operator", help="as a PrometheusRule of the Prometheus operator")] = False,
    runbooks: Annotated[
        str,
        typer.Option(
            metavar="URL", help="where your copy of this documentation is, for links", show_default="paths in the project"
        ),
    ] = "",
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="write it there", show_default="print it")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="any setting, such as tiers.chat.ttft=2s; may be repeated"),
    ] = None,
) -> None:
    """Write alert rules for Prometheus: burn rates of each tier's error budget, failures, blindness, too few instances."""
    from sageserve.data.documents import write_text
    from sageserve.data.scenarios.load import load_scenario
    from sageserve.live.alerts.rules import as_yaml, rules_of

    settings = load_scenario(scenario, overrides=overrides or ())
    text = as_yaml(rules_of(settings, of, runbooks), name=f"sageserve-{settings.name}", operator=operator)
    if out is None:
        typer.echo(text, nl=False)
        return
    write_text(out, text)
