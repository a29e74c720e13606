"""What `sageserve watch` says: decisions that are new, notes once however long they last, JSON lines for machines.

Read next: `tests/live/watch/` for what is decided; `tests/live/prometheus/test_real_prometheus.py` for the command itself.
"""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sageserve.base.errors import SageServeError
from sageserve.base.units import MINUTE
from sageserve.cli.main import app
from sageserve.cli.reload import write_fleet
from sageserve.cli.running import Running
from sageserve.cli.watch_lines import WatchLines, progress_line
from sageserve.data.results.journal import Stamped
from sageserve.live.store.interface import STORE_FILE
from tests.live.watch.command import FLEET
from tests.live.watch.stage import Pod, WatchStage


def words(stamped: Stamped) -> tuple[str, ...]:
    return tuple("because" for _ in stamped.line.decisions)


def told(state: Path, capsys: pytest.CaptureFixture[str], *, as_json: bool) -> tuple[list[str], list[str]]:
    """Lines on stdout and stderr, of a fleet that is idle, then away, then back."""
    stage = WatchStage(state, [Pod("a"), Pod("b"), Pod("c")])
    lines = WatchLines(words, as_json=as_json)

    def run(minutes: int) -> None:
        for _ in range(4 * minutes):
            stage.run(MINUTE // 4)
            lines.looked(stage.watch)

    stage.look()
    run(5)
    stage.away = True
    run(10)
    stage.away = False
    run(3)
    for stamped in stage.journal():
        lines.wrote(stamped)
    for minute in stage.minutes:
        lines.passed(minute)
    lines.ended()
    found = capsys.readouterr()
    return found.out.splitlines(), found.err.splitlines()


def test_a_decision_and_a_note_are_said_once_while_they_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = told(tmp_path, capsys, as_json=False)
    assert [line.split("  ")[1:3] for line in out[:1]] == [["east/big/h100", "3 -> 2"]]
    assert len(out) <= 2, "the same decision is made every few seconds, and said again after a quarter of an hour"
    assert sum("Nothing is seen" in line for line in err) == 1
    assert sum("Demand is counted up to" in line for line in err) == 1
    assert sum("endpoints seen" in line for line in err) == 1


def test_machines_get_a_json_object_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = told(tmp_path, capsys, as_json=True)
    found = [json.loads(line) for line in out]
    assert {key for one in found for key in one} == {"decision", "minute", "note"}
    decision = next(one["decision"] for one in found if "decision" in one)
    assert decision.keys() >= {"wall_s", "held", "pool", "change", "reason", "blocked", "words"}
    assert (decision["pool"], decision["held"]) == ("east/big/h100", 3)


@pytest.mark.parametrize("left", [STORE_FILE, "control.sock"])
def test_the_folder_of_a_fleet_of_ours_is_left_alone(tmp_path: Path, left: str) -> None:
    (tmp_path / left).touch()
    (tmp_path / "scenario.yaml").write_text(FLEET, "utf-8")
    with pytest.raises(SageServeError, match="is the state of a fleet of ours"):
        CliRunner().invoke(
            app,
            ["watch", str(tmp_path / "scenario.yaml"), "--state", str(tmp_path), "--listen", "127.0.0.1:0"],
            catch_exceptions=False,
        )
    assert (tmp_path / "scenario.yaml").read_text("utf-8") == FLEET


def test_progress_is_one_line(tmp_path: Path) -> None:
    stage = WatchStage(tmp_path, [Pod("a", per_s=2.0), Pod("b")])
    stage.look()
    stage.run(3 * MINUTE)
    line = progress_line(stage.watch)
    assert "1 of 1 endpoints seen, 2 instances, 2.0 requests/s; would hold " in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--prometheus", "prom"], "'prom' is not the address of a server"),
        (["--prometheus", "http://127.0.0.1:9"], "cannot be asked"),
        (["--prometheus", "http://127.0.0.1:9", "--for", "soon"], "--for"),
        (
            ["--prometheus", "http://127.0.0.1:9", "--strategy", "siloed", "--set", "tiers.niw={deadline: 24h}"],
            "sets instances apart",
        ),
        ([], "nothing says where the history is"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, words: list[str], said: str) -> None:
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text(FLEET, "utf-8")
    ran = CliRunner().invoke(app, ["watch", str(fleet), "--state", str(tmp_path / "state"), "--listen", "127.0.0.1:0", *words])
    assert ran.exit_code != 0
    assert said in str(ran.exception)
    assert not (tmp_path / "state").exists()


NOBODY = ["--prometheus", "http://127.0.0.1:9"]  # who asks there first is told that nobody answers


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["strategy.name=siloed", "tiers.niw={deadline: 24h}"], "sets instances apart"),
        (["fleet.minimum=0"], "could have no instance"),
        (
            ["live.scaler={tls: {certificate: /nowhere/tls.crt, key: /nowhere/tls.key}}"],
            "live.scaler.tls.certificate: /nowhere/tls",
        ),
        (["live.scaler={tls: {certificate: /etc/hostname, key: /etc/hostname}}"], "/etc/hostname cannot be used"),
        (
            ["live.clusters.here.prometheus={url: 'http://p', bearer_file: /nowhere/t}"],
            "prometheus.bearer_file: /nowhere/t cannot",
        ),
    ],
)
def test_what_is_refused_is_refused_before_anybody_is_asked_and_by_scenario_check_too(
    tmp_path: Path, settings: list[str], said: str
) -> None:
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text(FLEET, "utf-8")
    words = [str(fleet), *(word for one in settings for word in ("--set", one))]
    ran = CliRunner().invoke(app, ["watch", *words, *NOBODY, "--state", str(tmp_path / "state")])
    assert isinstance(ran.exception, SageServeError)
    assert said in ran.exception.message
    assert not (tmp_path / "state").exists()
    checked = CliRunner().invoke(app, ["scenario", "check", *words])
    assert checked.exit_code == 0, checked.output
    assert f"`sageserve watch` would refuse it here: {ran.exception.message}" in checked.stdout


def test_a_cluster_that_cannot_be_written_to_is_refused_before_anybody_is_asked(tmp_path: Path) -> None:
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text(FLEET, "utf-8")
    act = [
        "watch",
        str(fleet),
        *NOBODY,
        "--state",
        str(tmp_path / "state"),
        "--act",
        "--set",
        "live.targets.small.authority=floor",
    ]
    ran = CliRunner().invoke(app, [*act, "--kubeconfig", str(tmp_path / "nowhere")])
    assert "nowhere" in str(ran.exception)
    assert "127.0.0.1:9" not in str(ran.exception)
    ran = CliRunner().invoke(app, [*act, "--set", "live.clusters.here.guard=/nowhere/guard.yaml"])
    assert "the guard /nowhere/guard.yaml cannot be read" in str(ran.exception)


def test_who_asks_after_the_end_is_told_what_is_left(tmp_path: Path) -> None:
    (tmp_path / "minutes").mkdir()
    ran = CliRunner().invoke(app, ["status", "--state", str(tmp_path)])
    assert isinstance(ran.exception, SageServeError)
    assert ran.exception.message == f"nobody watches in {tmp_path} any more"
    assert f"sageserve shadow-report {tmp_path};" in (ran.exception.hint or "")
    for url, source, said in (
        ("", "", "shadow-report"),
        ("http://x", "my fleet.yaml", "sageserve up 'my fleet.yaml' --detach --set a=1 --state"),
    ):
        write_fleet(tmp_path, Running(1, url, "", "tiny", "", source=source, overrides=("a=1",)))
        ran = CliRunner().invoke(app, ["status", "--state", str(tmp_path)])
        assert isinstance(ran.exception, SageServeError)
        assert said in (ran.exception.hint or "")
