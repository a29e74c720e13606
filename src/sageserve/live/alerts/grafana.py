"""Figures as Grafana's dashboards: JSON that is imported, provisioned from a folder, or found by its sidecar in a ConfigMap.

Built with Grafana's own typed builders (extra `grafana`). Read next: `boards.py`, what is on them; `cli/dashboards.py`.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Final

import yaml
from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common, dashboard

from sageserve.live.alerts.figures import Board, Panel

HEIGHT: Final = 8
_SOURCE: Final = dashboard.DataSourceRef(type_val="prometheus", uid="${datasource}")


def as_json(board: Board) -> str:
    """A dashboard as Grafana reads it, its bytes the same every time."""
    built = builders.Dashboard(board.title).uid(board.name).description(board.about).tags(["sageserve"])
    built = built.time("now-24h", "now").refresh("30s").timezone("browser").tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
    built = built.with_variable(builders.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    for choice in board.choices:
        variable = builders.QueryVariable(choice.name).datasource(_SOURCE).query(choice.query).multi(True).include_all(True)
        built = built.with_variable(variable.all_value(".*").refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED))
    ids = count(1)
    for section in board.sections:
        built = built.with_row(builders.Row(section.title).id(next(ids)))
        for panel in section.panels:
            built = built.with_panel(_panel(panel).id(next(ids)))
    return json.dumps(built.build(), cls=JSONEncoder, indent=2, sort_keys=True, allow_nan=False) + "\n"


def as_config_map(texts: Mapping[str, str]) -> str:
    """Dashboards by name as one ConfigMap, with the label that Grafana's sidecar looks for."""
    head = {"name": "sageserve-dashboards", "labels": {"grafana_dashboard": "1"}}
    data = {f"{name}.json": text for name, text in texts.items()}
    return yaml.safe_dump({"apiVersion": "v1", "kind": "ConfigMap", "metadata": head, "data": data}, sort_keys=False, width=150)


def _panel(panel: Panel) -> stat.Panel | timeseries.Panel:
    built: stat.Panel | timeseries.Panel = stat.Panel() if panel.kind == "numbers" else _lines(panel)
    built = (
        built.title(panel.title).description(panel.about).datasource(_SOURCE).unit(panel.unit).span(panel.width).height(HEIGHT)
    )
    if panel.marks:
        steps = [dashboard.Threshold(value, colour) for value, colour in panel.marks]
        built = built.thresholds(builders.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(steps))
    for number, one in enumerate(panel.queries):
        query = prometheus.Dataquery().expr(one.expr).legend_format(one.legend).ref_id(_letter(number)).datasource(_SOURCE)
        built = built.with_target(query.instant() if one.instant else query.range())
    return built


def _lines(panel: Panel) -> timeseries.Panel:
    found = timeseries.Panel().fill_opacity(20 if panel.stacked else 0).show_points(common.VisibilityMode.NEVER)
    if panel.stacked:
        found = found.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL))
    if panel.marks:
        found = found.thresholds_style(common_builders.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED))
    return found


def _letter(number: int) -> str:
    """A, B, … Z, AA: how Grafana names queries."""
    first, last = divmod(number, 26)
    return (_letter(first - 1) if first else "") + chr(ord("A") + last)


def all_json(boards: Sequence[Board]) -> dict[str, str]:
    """Texts by name."""
    return {board.name: as_json(board) for board in boards}
