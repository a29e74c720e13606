"""A first scenario from what a server records: it loads, its pools are those that are there, and what was guessed is marked.

Read next: `test_discover.py`, whose fleet this is.
"""

import json
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sageserve.base.units import HOUR, SECOND
from sageserve.cli.main import app
from sageserve.data.rebuild.places import watched_pools
from sageserve.data.rebuild.render import render, write_openmetrics
from sageserve.data.scenarios.draft import Draft, draft_text, left_to_decide
from sageserve.data.scenarios.load import load_scenario
from sageserve.live.prometheus.drafted import DraftOptions, drafted
from tests.live.prometheus.real import backfill, prometheus
from tests.live.prometheus.test_discover import ENGINES, KNOWN, Rows, found, pods
from tests.live.prometheus.test_real_prometheus import played

OPTIONS = DraftOptions("mine", "http://prom:9090", "h100-80gb")


def draft(known: dict[str, Rows] = KNOWN, name: str = "llama-3.1-70b") -> tuple[Draft, tuple[str, ...]]:
    engines = [*pods("llama-h100", name, 3), *pods("llama-a100", name, 2), *pods("spare-h100", name, 1)]
    return drafted(found(engines, known), OPTIONS)


def test_a_fleet_is_drafted_as_it_stands(tmp_path: Path) -> None:
    one, notes = draft()
    path = tmp_path / "mine.yaml"
    path.write_text(text := draft_text(one), "utf-8")
    scenario = load_scenario(path)
    assert scenario.fleet.starts == {
        "region-1/llama-3.1-70b/a100-80gb": 2,
        "region-1/llama-3.1-70b/h100-80gb": 4,  # two workloads of one kind, of which one does not say what it runs on
    }
    engines = scenario.models["llama-3.1-70b"].engines
    assert {gpu: engine.gpus for gpu, engine in engines.items()} == {"h100-80gb": 8, "a100-80gb": 4}
    assert list(scenario.tiers) == ["priority-100", "priority-0"]
    assert scenario.live is not None
    assert {tier: each.priority for tier, each in scenario.live.tiers.items()} == {"priority-100": 100, "priority-0": 0}
    (a100, h100) = watched_pools(scenario)
    assert h100.labels["pod"] == r"=~llama\-h100-.+|spare\-h100-.+"
    assert (a100.cluster, a100.labels["namespace"]) == ("watched", "serving")
    assert any("are one pool" in note for note in notes)
    assert any("does not say what it runs on; h100-80gb is taken" in note for note in notes)
    assert sum("nothing says what object" in said for _, said in left_to_decide(text)) == 2


def test_an_autoscaler_says_how_many_there_may_be() -> None:
    engines = pods("llama-h100", "llama-3.1-8b", 3)
    one, _ = drafted(found(engines, KNOWN), OPTIONS)
    (pool,) = one.pools
    assert (pool.instances, pool.low, pool.high, pool.most) == (3, 1, 24, 24)
    (alone,) = drafted(found(engines, {}), OPTIONS)[0].pools
    assert (alone.high, alone.most) == (0, 6)


def test_a_password_of_the_server_is_not_written_down() -> None:
    options = DraftOptions("mine", "http://bob:hunter2@prom:9090", "h100-80gb")
    one, notes = drafted(found(pods("llama-h100", "llama-3.1-8b", 3), KNOWN), options)
    assert 'url: "http://prom:9090"' in draft_text(one)
    assert "hunter2" not in draft_text(one)
    assert any("live.clusters.watched.prometheus.basic" in note for note in notes)


def test_what_nobody_records_is_said_and_taken_for_granted(tmp_path: Path) -> None:
    one, notes = drafted(found(ENGINES, {}), OPTIONS)
    assert [model.name for model in one.models] == ["qwen", "llama"]
    assert all(model.candidates for model in one.models), "neither name is of a known model"
    assert one.tiers == ("chat",)
    assert any("no GPU is recorded" in note for note in notes)
    (tmp_path / "mine.yaml").write_text(draft_text(one), "utf-8")
    load_scenario(tmp_path / "mine.yaml")


def test_from_a_server_to_an_answer_without_an_edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two commands: what a real Prometheus recorded becomes a scenario, and that one is backtested."""
    monkeypatch.chdir(tmp_path)
    begin = (int(time.time()) - 4_000) // 60 * 60 * SECOND  # noqa: TID251 # a server answers about now
    write_openmetrics(tmp_path / "history.om", iter(list(render(played(2_000, HOUR), begin, 4_200 * SECOND, 15 * SECOND))))
    backfill(tmp_path, tmp_path / "history.om")
    with prometheus(tmp_path, "", "--storage.tsdb.retention.time=100y") as url:
        made = CliRunner().invoke(app, ["init", "fleet.yaml", "--prometheus", url], catch_exceptions=False)
        assert made.exit_code == 0, made.output
        assert "next: sageserve backtest fleet.yaml" in made.stdout
        more = ["--policies", "recorded,fixed:2", "--seeds", "1", "--no-error", "--json"]
        answer = CliRunner().invoke(app, ["backtest", "fleet.yaml", *more], catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    said = json.loads(answer.stdout)
    assert 3_600 < said["policies"]["recorded"]["window_s"] < 4_200, "of the day that is asked for, what was recorded"
    assert "samples begin at" in " ".join(said["notes"])
    assert f"--prometheus {url} --match" in said["checks"]["profile"]["next"] or said["checks"]["profile"]["state"] != "wrong"
