"""`sageserve scenario`: what it prints fits a terminal, is the same every time, and can be piped."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sageserve.base.errors import ConfigError
from sageserve.cli.columns import WIDTH
from sageserve.cli.scenario import app, check
from sageserve.data.scenarios.load import load_scenario
from tests.worlds import SMALL_FLEET


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_show_prints_values_and_their_origin_within_the_width() -> None:
    text = printed("show", "quickstart", "--set", "fleet.start=4", "--set", "seed=7")
    assert all(len(line) <= WIDTH for line in text.splitlines())
    rows = [line.split() for line in text.splitlines()]
    assert ["seed", "7", "--set", "seed=7"] in rows
    assert ["start", "4", "--set", "fleet.start=4"] in rows
    assert any(row[:2] == ["ttft", "5s"] and row[2].startswith("quickstart.yaml:") for row in rows)
    assert any("default:" in row for row in rows)
    assert printed("show", "quickstart", "--set", "fleet.start=4", "--set", "seed=7") == text


def test_show_as_json_holds_the_tree_and_an_origin_for_every_value() -> None:
    shown = json.loads(printed("show", "o365-week", "--json", "--set", "models.bloom-176b.context=16384"))
    assert shown["scenario"]["models"]["bloom-176b"]["context"] == 16384
    assert shown["from"]["models.bloom-176b.context"] == "--set models.bloom-176b.context=16384"
    assert shown["from"]['models."llama-3.1-8b".context'].startswith("fleet-o365.yaml:")
    assert shown["from"]["workload.generate.requests"].startswith("o365-paper-week.yaml:")
    assert shown["from"]["strategy.reactive.high"].startswith("default: ")


def test_list_names_every_scenario() -> None:
    text = printed("list")
    assert all(name in text for name in ("quickstart", "o365-week", "o365-peak", "fleet-o365"))
    assert all(len(line) <= WIDTH for line in text.splitlines())
    assert {row["name"] for row in json.loads(printed("list", "--json"))} >= {"quickstart", "o365-week", "o365-peak"}


def test_schema_is_a_json_schema() -> None:
    schema = json.loads(printed("schema"))
    assert schema["$schema"].endswith("2020-12/schema")
    assert {"extends", "fleet", "regions"} <= set(schema["properties"])
    assert "required" not in schema


def test_the_page_about_scenario_files_is_what_the_schema_says(repo_root: Path) -> None:
    page = (repo_root / "docs" / "reference" / "scenario.md").read_text("utf-8")
    assert page == printed("schema", "--markdown"), "run: sageserve scenario schema --markdown > docs/reference/scenario.md"
    for row in (
        "| `ttft` | duration |",
        "| `percentile` | share | `0.95` |",
        "## `models.NAME.engines.NAME`",
        "for example `98.32/h`",
    ):
        assert row in page
    assert "| `name` | name |  | of the scenario" in page, "which the file's name stands in for"


def test_check_says_what_a_good_scenario_is() -> None:
    assert "4 models x 3 regions = 12 endpoints, 240 instances" in printed("check", "o365-week")
    more = printed("check", "o365-week", "--set", "fleet.starts={eastus/llama-2-70b/h100-80gb: 21}")
    assert "12 endpoints, 241 instances" in more, "a pool that starts elsewhere counts as it does in a run"


def test_check_points_out_profiles_of_another_engine() -> None:
    said = printed("check", SMALL_FLEET, "--set", "models.llama-2-70b.engine=sglang 0.5")
    assert (
        "note: models.llama-2-70b.engines.h100-80gb: the profile does not say of which engine it is, and sglang 0.5 serves"
        in said
    )
    assert "note:" not in printed("check", "quickstart")
    typed = printed("check", SMALL_FLEET, "--set", "models.llama-2-70b.engine=vlm 0.19")
    assert "note: models.llama-2-70b.engine: nothing is known of an engine 'vlm 0.19'; did you mean 'vllm'?" in typed
    own = printed("check", SMALL_FLEET, "--set", "models.llama-2-70b.engine=foo")
    assert "an engine 'foo'; there is vllm, sglang, trtllm, llama.cpp" in own
    assert "nothing is known" not in said
    with pytest.raises(ConfigError, match="names no engine"):
        printed("check", SMALL_FLEET, "--set", "models.llama-2-70b.engine=7 of 9")


def test_check_refuses_what_a_simulation_refuses() -> None:
    with pytest.raises(ConfigError, match=r"fleet\.minimum: 0: hpa keeps an instance of every model"):
        check("quickstart", ["fleet.minimum=0", "fleet.start=0", "strategy.name=hpa"])
    for name in ("fixed", "reactive"):
        check("quickstart", ["fleet.minimum=0", "fleet.start=0", f"strategy.name={name}"])


def test_check_counts_what_is_apart_as_two(capsys: pytest.CaptureFixture[str]) -> None:
    check("quickstart", ["models.llama-3.3-70b.disaggregated={link: 100GB/s}"])
    assert "2 models x 2 regions = 6 endpoints" in capsys.readouterr().out


def test_check_notes_that_work_leaves_its_origin_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    told = "may be served outside the region they enter"

    def said(*settings: str) -> str:
        check("quickstart", [f"tiers.{setting}" for setting in settings])
        return capsys.readouterr().err

    tiers = list(load_scenario("quickstart").tiers)
    assert f"note: {', '.join(tiers)} {told}" in said()
    assert f"note: {', '.join(tiers[1:])} {told}" in said(f"{tiers[0]}.regions=any"), "who says so knows"
    assert told not in said(*(f"{name}.regions=any" for name in tiers))


def test_check_warns_of_promises_that_idle_engines_miss(capsys: pytest.CaptureFixture[str]) -> None:
    check("o365-paper-week", None)
    assert "warning: iw-f of llama-2-70b is out of reach: idle engines serve 73.6% within 1s" in capsys.readouterr().err
    check("o365-paper-week", ["tiers.iw-f.ttft_per_1k_tokens=2s"])
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize("command", ["show", "check"])
def test_a_wrong_scenario_raises_for_the_shell_to_print(command: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("extends: quickstart\nfleet: {strat: 4}\n")
    with pytest.raises(ConfigError, match="did you mean 'start'"):
        CliRunner().invoke(app, [command, str(path)], catch_exceptions=False)
