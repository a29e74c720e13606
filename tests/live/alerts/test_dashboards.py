"""Dashboards: every expression is PromQL, names metrics and labels that are exported, and Grafana can lay the figures out.

Read next: `src/sageserve/live/alerts/boards.py`, `grafana.py`.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from msgspec import structs
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from sageserve.base.errors import ConfigError
from sageserve.cli.main import app
from sageserve.data.history.names import ALIASES, EngineKind
from sageserve.data.watched.minutes import PoolMinute
from sageserve.live.alerts.boards import boards_of
from sageserve.live.alerts.figures import Board, Panel
from sageserve.live.alerts.grafana import all_json, as_json
from sageserve.live.alerts.rules import Source, rules_of
from sageserve.live.control.admin import CapacityCollector, FleetCollector
from sageserve.live.control.minute_book import EndpointCapacity
from sageserve.live.control.status import QueueRole, Status
from sageserve.live.gateway import meter
from sageserve.live.watch.serve import DemandAge
from tests.core.small import scenario
from tests.live.control.test_page import made

SOURCES: tuple[Source, ...] = ("gateway", "engines")
GIVEN = {"$__rate_interval": "5m", "$model": ".*", "$region": ".*"}
SCRAPED = {"le", "job", "instance"}


def boards(source: Source) -> tuple[Board, Board]:
    return boards_of(scenario(), source)


def expressions(source: Source) -> Iterator[str]:
    """Of dashboards and of alerts."""
    for board in boards(source):
        yield from (query.expr for panel in board.panels() for query in panel.queries)
        yield from (choice.query.partition("(")[2].rpartition(",")[0] for choice in board.choices)
    groups: Any = rules_of(scenario(), source)["groups"]
    yield from (rule["expr"] for group in groups for rule in group["rules"])


class Aged:
    """What a process that watches says of its demand."""

    def behind_s(self) -> float:
        return 12.0


class Counted:
    """What a process knows of demand beside capacity."""

    def pools(self, now: int) -> tuple[PoolMinute, ...]:
        return (PoolMinute("r/m/gpu", 1, 1),)

    def ends(self) -> tuple[EndpointCapacity, ...]:
        return (EndpointCapacity("r", "m", 0.5, 1, 1.0),)


def exported() -> dict[str, set[str]]:
    """Metrics of a gateway, of a control process and of one that watches, as they leave them, and the labels of each."""
    registry = CollectorRegistry()
    registry.register(FleetCollector(waiting, lambda: {("planned", "not"): 1}))
    registry.register(CapacityCollector(Counted(), lambda: 0))
    registry.register(DemandAge(Aged()))  # type: ignore[arg-type] # of a watch, its demand's age alone
    one = meter.Meter(("m",), ("t",), ("r",))
    for name, labels in meter.NAMED.items():
        one.count(name, tuple("x" for _ in labels))
    for name in (meter.BROKEN, meter.ABORTED):
        one.count(name)
    row = one.lines[0][0]
    row.codes[0, 200] = 1
    for histogram in (row.ttft, row.duration, row.per_token):
        histogram.add(1.0)
    text = generate_latest(registry).decode() + meter.show(one.samples()).decode()
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def waiting() -> Status:
    """A status in which batch work waits, in a queue that is shared."""
    status = structs.replace(made(), queue=QueueRole("leader", "node-a", 1, 0.2))
    return structs.replace(status, endpoints=tuple(structs.replace(one, slack_batch_s=60.0) for one in status.endpoints))


def named(expression: str) -> list[tuple[str, set[str]]]:
    """Metrics of an expression with the labels that it matches or keeps of them.

    Raises:
        ValueError: it is no PromQL.
    """
    for variable, value in GIVEN.items():
        expression = expression.replace(variable, value)
    found: list[tuple[str, set[str]]] = []
    kept: list[set[str]] = [set()]

    def enter(node: promql_parser.Expr) -> None:
        match node:
            case promql_parser.AggregateExpr():
                kept.append(set(node.modifier.labels) if node.modifier is not None else set())
            case promql_parser.VectorSelector(name=str(name)):
                found.append((name, kept[-1] | {one.name for one in node.matchers.matchers}))
            case _:
                pass

    def leave(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.AggregateExpr):
            kept.pop()

    promql_parser.walk(promql_parser.parse(expression), enter, leave)
    return found


@pytest.mark.parametrize("source", SOURCES)
def test_every_metric_and_label_is_exported(source: Source) -> None:
    ours = exported()
    engines = {alias.metric for alias in ALIASES if alias.engine is EngineKind.VLLM}
    seen = 0
    for expression in expressions(source):
        for name, labels in named(expression):
            seen += 1
            plain = name.removesuffix("_bucket").removesuffix("_count")
            if name.startswith("sageserve:"):  # recorded by the rules beside it
                assert labels <= {"tier", "gen_ai_request_model", "model_name"}, expression
            elif plain in engines:
                assert labels <= {"model_name", *SCRAPED}, expression
            else:
                assert name in ours, f"nobody exports {name}: {expression}"
                assert labels <= ours[name] | SCRAPED, f"{name} has no {labels - ours[name]}: {expression}"
    assert seen > 50


def test_what_is_no_promql_or_nobodys_metric_is_found() -> None:
    with pytest.raises(ValueError, match="unclosed"):
        named("sum(rate(a[5m])")
    assert dict(named('sum by (tier) (rate(gone_total{model=~"$model"}[$__rate_interval])) / b')) == {
        "gone_total": {"tier", "model"},
        "b": set(),
    }


@pytest.mark.parametrize("source", SOURCES)
def test_grafana_can_lay_them_out(source: Source) -> None:
    for board, text in zip(boards(source), all_json(boards(source)).values(), strict=True):
        found = json.loads(text)
        assert as_json(board) == text, "the same bytes every time"
        panels = found["panels"]
        assert found["uid"] == board.name
        assert len({one["id"] for one in panels}) == len(panels) == len(board.sections) + len(list(board.panels()))
        places = [tuple(one["gridPos"][name] for name in "xywh") for one in panels]
        taken = [(x + dx, y + dy) for x, y, w, h in places for dx in range(w) for dy in range(h)]
        assert len(set(taken)) == len(taken), "figures lie over each other"
        assert {one["datasource"]["uid"] for one in panels if one["type"] != "row"} == {"${datasource}"}
        assert [one["name"] for one in found["templating"]["list"]] == ["datasource", *(choice.name for choice in board.choices)]
        for panel in board.panels():
            assert panel.about
            assert len({query.legend for query in panel.queries}) == len(panel.queries), panel.title


def test_budgets_are_those_of_the_promises() -> None:
    promises, fleet = boards("gateway")
    budget: Panel = next(promises.panels())
    assert [query.expr.rpartition("/ ")[2] for query in budget.queries] == ["0.05", "0.05"]
    assert all(query.instant and "[30d]" in query.expr for query in budget.queries)
    assert "iw-f: 1s for 0.95" in budget.about
    assert any("slack" in query.expr for panel in fleet.panels() for query in panel.queries)
    assert not any("slack" in query.expr for panel in boards("engines")[1].panels() for query in panel.queries)
    with pytest.raises(ConfigError, match="no tier that promises"):
        boards_of(scenario(tiers={"batch": {"deadline": "24h"}}), "gateway")


def test_the_command_writes_files_or_an_object_for_kubernetes(tmp_path: Path) -> None:
    ran = CliRunner().invoke(app, ["dashboards", "quickstart", "-o", str(tmp_path / "boards")])
    assert ran.exit_code == 0, ran.output
    files = sorted((tmp_path / "boards").iterdir())
    assert [one.name for one in files] == ["sageserve-fleet.json", "sageserve-promises.json"]
    assert set(ran.stdout.split()) == set(map(str, files))
    ran = CliRunner().invoke(app, ["dashboards", "quickstart", "--of", "engines", "--config-map"])
    found = yaml.safe_load(ran.stdout)
    assert (found["kind"], found["metadata"]["labels"]) == ("ConfigMap", {"grafana_dashboard": "1"})
    assert json.loads(found["data"]["sageserve-fleet.json"])["title"] == "SageServe quickstart: fleet"
    ran = CliRunner().invoke(app, ["dashboards", "quickstart"])
    assert isinstance(ran.exception, ConfigError)
