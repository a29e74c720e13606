"""`sageserve tune`: a table and a choice, JSON, a file that plays, and mistakes.

Read next: `tests/sim/test_tuning.py` for the choice.
"""

import json
from pathlib import Path

import pytest
from typer import Exit
from typer.testing import CliRunner, Result

from sageserve.base.errors import ConfigError
from sageserve.cli.columns import WIDTH
from sageserve.cli.compare import finish
from sageserve.cli.main import app
from sageserve.cli.tune import NOTHING
from sageserve.data.scenarios.load import load_scenario
from sageserve.sim.sweep.tuning import CANDIDATES
from tests.worlds import SMALL_FLEET

SETTINGS = ("--set", "workload.generate.requests=4000", "--set", "workload.generate.length=45m")
SMALL = ("tune", SMALL_FLEET, *SETTINGS, "--workers", "1")


def called(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == code, result.stderr
    return result


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A file that was written, and what was printed beside it."""
    path = tmp_path_factory.mktemp("tune") / "tuned.yaml"
    return path, called(*SMALL, "--strategy", "keda", "-o", str(path)).stdout


def test_the_table_fits_and_has_every_trial(tuned: tuple[Path, str]) -> None:
    lines = tuned[1].splitlines()
    assert all(sum(line.startswith(f"{one.name} ") for line in lines) >= 1 for one in CANDIDATES["keda"])
    assert max(len(line) for line in lines if str(tuned[0]) not in line) <= WIDTH
    assert sum("← taken" in line for line in lines) == 1
    assert lines[-1] == f"next: sageserve compare {tuned[0]} --strategies keda"


def test_the_file_is_the_scenario_with_the_choice(tuned: tuple[Path, str]) -> None:
    path, text = tuned
    name = next(line for line in text.splitlines() if line.endswith("← taken")).split("  ")[0]
    changes = next(one.changes for one in CANDIDATES["keda"] if one.name == name)
    settings = [value for option, value in zip(SETTINGS[::2], SETTINGS[1::2], strict=True) if option == "--set"]
    plain = load_scenario(SMALL_FLEET, overrides=[*settings, "strategy.name=keda", *changes])
    written = load_scenario(path)
    assert written.model_copy(update={"name": plain.name, "about": plain.about}) == plain
    assert called("simulate", str(path), "--json").exit_code == 0


def test_json_has_the_trials_and_the_choice_among_them() -> None:
    found = json.loads(called(*SMALL, "--seeds", "1,2", "--json").stdout)
    assert found["strategy"] == "reactive-tuned"
    assert found["chosen"] in found["trials"]
    assert [trial["candidate"]["name"] for trial in found["trials"]] == [one.name for one in CANDIDATES["reactive-tuned"]]
    assert all(set(trial["attainment"]) == {"iw-f", "iw-n", "niw"} for trial in found["trials"])


def test_an_own_file_is_extended_from_where_the_new_one_lies(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "mine.yaml").write_text(f"extends: {SMALL_FLEET}\nfleet: {{start: 4}}\n", "utf-8")
    path = tmp_path / "below" / "tuned.yaml"
    called("tune", str(tmp_path / "mine.yaml"), *SETTINGS, "--workers", "1", "-o", str(path))
    assert "../mine.yaml" in path.read_text("utf-8")
    assert load_scenario(path).fleet.start == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--strategy", "foresight"), "nothing to tune"),
        (("-o", "{there}"), "is there already"),
        (("-o", "{folder}/missing/tuned.yaml"), "is no folder"),
        (("--seeds", "x"), "is no seed"),
        (("--set", "workload.generate.shapes=null"), "no traffic"),
    ],
)
def test_mistakes_are_told_before_anything_is_played(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    there = tmp_path / "there.yaml"
    there.write_text("mine\n", "utf-8")
    given = [word.format(there=there, folder=tmp_path) for word in arguments]
    with pytest.raises(ConfigError) as error:
        called(*SMALL, *given)
    assert said in f"{error.value.message}"
    assert [path.name for path in tmp_path.iterdir()] == ["there.yaml"]
    assert there.read_text("utf-8") == "mine\n"


def test_an_interruption_chooses_nothing_and_names_no_option_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Exit) as left:
        finish([None], None, without=NOTHING)
    assert left.value.exit_code == 130
    said = capsys.readouterr().err
    assert said == "interrupted: 0 of 1 are finished; nothing is chosen\n"
