"""The systemd unit that `up --unit` prints: systemd itself takes it, and its words come out as they went in."""

import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sageserve.cli.main import app
from sageserve.cli.unit import UnitFleet, unit
from sageserve.cli.up import _environment
from sageserve.data.scenarios.load import load_scenario, resolved_yaml


def test_up_prints_a_unit_and_starts_nothing(tmp_path: Path) -> None:
    (tmp_path / "my fleets").mkdir()
    file = tmp_path / "my fleets" / "one.yaml"
    file.write_text("extends: local\n", "utf-8")
    state = tmp_path / "state"
    done = CliRunner().invoke(app, ["up", str(file), "--unit", "--state", str(state), "--port", "0", "--set", "fleet.start=2"])
    assert done.exit_code == 0, done.output
    start = next(line for line in done.output.splitlines() if line.startswith("ExecStart="))
    assert f'up "{file}" --set fleet.start=2 --set live.port=0 --state {state}' in start
    assert f"ExecReload={start.split(' -m ')[0].removeprefix('ExecStart=')} -m sageserve.cli.main reload" in done.output
    assert not state.exists()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on this machine")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    path = tmp_path / "sageserve.service"
    words = ["up", "/a b/100%.yaml", "--set", 'x="$y"']
    fleet = UnitFleet("team/f", Path("/var/lib/sage serve"), ("HF_TOKEN", "HF_HOME"))
    path.write_text(unit(fleet, words, root=True, path="/usr/bin:/opt/a b"), "utf-8")
    done = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True, check=False)  # noqa: S607 # of the system
    assert [line for line in done.stderr.splitlines() if str(path) in line or path.name in line] == []


def test_variables_that_a_fleet_inherits_reach_it_through_its_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)  # whoever prints the unit need not have it
    given = ["up", "local", "--unit", "--state", str(tmp_path / "state")]
    plain = CliRunner().invoke(app, given).stdout
    lines = CliRunner().invoke(app, [*given, "--set", "live.inherit=[HF_TOKEN, HF_HOME]"]).stdout.splitlines()
    service = lines[lines.index("[Service]") : lines.index("[Install]")]
    assert "PassEnvironment=HF_TOKEN HF_HOME" in service
    keyed = CliRunner().invoke(app, [*given, "--set", "live.access={a: {bearer_env: ENGINE_KEY}}"]).stdout
    assert "PassEnvironment=ENGINE_KEY\n" in keyed, "as do those that hold keys of engines"
    assert "EnvironmentFile=-%E/sageserve/local.env" in service
    assert "EnvironmentFile" not in plain
    assert "PassEnvironment" not in plain


def test_variables_are_passed_on_by_name_and_missed_before_anything_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("OTHER", "not named")
    settings = load_scenario("local", overrides=["live.inherit=[HF_TOKEN]"])
    passed = _environment(settings)
    assert (passed["HF_TOKEN"], "OTHER" in passed, "PATH" in passed) == ("secret", False, True)
    assert "secret" not in resolved_yaml(settings)
    monkeypatch.delenv("HF_TOKEN")
    state = tmp_path / "state"
    done = CliRunner().invoke(app, ["up", "local", "--state", str(state), "--set", "live.inherit=[HF_TOKEN]"])
    assert "HF_TOKEN is not set" in str(done.exception)
    assert not state.exists()
