"""What a new user meets: tables that fit any terminal without losing a digit, and commands to go on with that run as printed.

Read next: `test_simulate.py`, `test_compare.py` for what is in the tables.
"""

import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from sageserve.base.errors import ConfigError, ResultError
from sageserve.cli.columns import Column, tables
from sageserve.cli.compare import finish
from sageserve.cli.main import app
from sageserve.data.scenarios.load import load_scenario
from sageserve.data.workload.generate import generate
from sageserve.sim.results.summary import summarise
from sageserve.sim.run import simulate
from tests.sim.test_sweep import Here
from tests.worlds import SMALL_FLEET

LONG = "a-model-with-a-name-of-forty-letters-it-has"
TIGHT = (
    "workload.generate.requests=20000",
    "workload.generate.length=45m",
    "fleet.minimum=1",
    "fleet.start=1",
    "fleet.maximum=2",
)
SMALL = ("workload.generate.requests=2000", "workload.generate.length=45m")
ANSI = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparisons are played in this process, which has the simulator compiled."""
    monkeypatch.setattr("sageserve.cli.compare.runner", lambda *_: Here())


def sets(settings: Sequence[str]) -> str:
    return " ".join(f"--set {one}" for one in settings)


def typed(line: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, shlex.split(line)[1:], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return ANSI.sub("", done.stdout)


def following(text: str) -> list[str]:
    """The commands a text says to go on with."""
    return re.findall(r"^(?:next: |      )(sageserve .*)$", text, re.MULTILINE)


def words(text: str) -> set[str]:
    """What a table says, wherever it stands, but for names that may be broken; sentences, which may be too, apart."""
    return {word for line in text.splitlines() for word in line.split() if re.search(r"\d", word) and LONG not in word}


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scenario with a model of a long name."""
    path = tmp_path_factory.mktemp("long") / "long.yaml"
    models = f"models: {{llama-3.1-8b: null, {LONG}: {{context: 8192, engines: {{h100-80gb: llama-3.1-8b/h100-80gb/tp1}}}}}}"
    shapes = (
        "{share: 1, hours: ["
        + ", ".join("1" * 24)
        + "], days: [1, 1, 1, 1, 1, 1, 1], prompt: [[0, 9], [1, 99]], output: [[0, 9], [1, 99]]}"
    )
    generated = f"workload: {{generate: {{shapes: {{llama-3.1-8b: null, {LONG}: {{interactive: {shapes}, batch: {shapes}}}}}}}}}"
    assign = "  assign: {model: {llama-3.1-8b: null}}"
    path.write_text(f"extends: {SMALL_FLEET}\n{models}\n{generated[:-1]}, {assign.strip()}}}\n", "utf-8")
    return path


@pytest.mark.parametrize("command", ["simulate", "compare"])
def test_nothing_is_cut_and_no_column_is_lost_at_any_width(command: str, scenario: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    more = "--strategies reactive,fixed:2" if command == "compare" else ""
    told = {}
    for width in (60, 80, 100, 140):
        monkeypatch.setenv("COLUMNS", str(width))
        text = typed(f"sageserve {command} {scenario} {sets(TIGHT)} {more}")
        own = [line for line in text.splitlines() if "sageserve " not in line and str(scenario) not in line]
        assert max(map(len, own)) <= min(width, 100)
        assert "…" not in text
        table = [line for line in own if not line.startswith(("speed", "cost", "waste", "utilisation"))]
        told[width] = words("\n".join(table))
    assert told[60] >= told[100] == told[140]
    assert told[80] >= told[100]


def test_a_name_of_any_length_leaves_room_for_numbers() -> None:
    columns = [Column("name", ["x" * 100, "y"]), Column("a\nnumber", ["123,456.7", "1"]), Column("b", ["9" * 20, "2"])]
    for width in (40, 60, 100):
        made = list(tables(columns, width))
        assert sum(len(table.columns) - 1 for table in made) == 2


def test_what_is_said_next_can_be_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my trace.csv").write_text(
        "time,model,prompt_tokens,output_tokens\n0,m,100,10\n60,m,200,20\n600,m,9,9\n", "utf-8"
    )
    trace = "--trace 'my trace.csv' --map '*=llama-2-70b' --load 2"
    first = f"sageserve simulate {SMALL_FLEET} {trace} --set 'about=a b' {sets(SMALL)} --seed 3"
    said = following(typed(first))
    assert len(said) == 3
    assert all("--trace 'my trace.csv'" in line and "--set 'about=a b'" in line and "--seed 3" in line for line in said)
    assert "--load 3" in said[1]
    for line in said:
        assert following(typed(line + " --no-report" * ("--out" in line)))
    assert (tmp_path / "runs" / "first" / "summary.json").is_file()
    assert "--out runs/2" in following(typed(first))[2]
    compared = typed(f"sageserve compare {SMALL_FLEET} {sets(SMALL)} --strategies reactive,siloed")
    (again,) = following(compared)
    assert "--strategies reactive,siloed --seeds 1..5" in again
    (alone,) = following(typed(again.replace("1..5", "1,2") + ""))
    assert following(typed(alone))


def test_a_comparison_says_its_verdict_and_what_it_is_against(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one = f"sageserve compare {SMALL_FLEET} {sets(SMALL)} --strategies siloed"
    text = typed(f"{one} --baseline fixed:3")
    assert re.search(r"^Use fixed:3: |^Use siloed: ", text, re.MULTILINE)
    assert re.search(r"^Against (fixed:3|siloed): ", text, re.MULTILINE)
    assert "vs" in text
    typed(f"sageserve simulate {SMALL_FLEET} {sets(SMALL)} --strategy fixed:4 --out kept --no-report")
    kept = typed(f"{one} --baseline kept")
    assert re.search(r"^kept +\d", kept, re.MULTILINE)
    with pytest.raises(ResultError, match="kept was played with"):
        typed(f"{one} --baseline kept --set workload.generate.requests=1000")
    with pytest.raises(ConfigError, match="--baseline: there is no strategy 'reactiv'; did you mean reactive"):
        typed(f"{one} --baseline reactiv")


def test_utilisation_is_at_most_all_and_what_is_beyond_is_pressure() -> None:
    scenario = load_scenario(SMALL_FLEET, overrides=[*TIGHT, "admission=off", "workload.generate.requests=60000"])
    run = simulate(scenario, generate(scenario))
    found, seen = summarise(run, 1.0).utilisation, run.timeline.column("seen")
    assert seen.max() > 1
    assert found.mean is not None
    assert found.busy is not None
    assert found.pressure is not None
    assert 0 < found.busy <= found.mean <= 1
    serving = run.timeline.column("serving")
    assert found.mean + found.pressure == pytest.approx((seen * serving).sum() / serving.sum(), abs=1e-5)


def test_it_is_a_module_too() -> None:
    done = subprocess.run([sys.executable, "-m", "sageserve", "--version"], capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.startswith("sageserve ")


def test_a_shell_completes_scenarios_strategies_and_profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").touch()
    for line, wanted in (
        ("sageserve simulate qui", "quickstart"),
        ("sageserve simulate mi", "mine.yaml"),
        ("sageserve compare quickstart --strategies reactive,fore", "reactive,foresight"),
        ("sageserve profile show llama-3.1-8b/h100-80gb/tp1", "llama-3.1-8b/h100-80gb/tp1"),
        ("sageserve profile show llama-3.1-8b/h200", "llama-3.1-8b/h200/"),
    ):
        asked = {"_SAGESERVE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
        done = CliRunner().invoke(app, [], env=asked, prog_name="sageserve")
        assert wanted in done.stdout.split(), done.output


@pytest.mark.parametrize(("there", "said"), [(True, "kept in"), (False, "nothing is kept in")])
def test_an_interrupted_sweep_names_a_folder_only_if_there_is_one(
    tmp_path: Path, there: bool, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "out"
    if there:
        place.mkdir()
    with pytest.raises(typer.Exit):
        finish([None], place)
    assert said in capsys.readouterr().err
