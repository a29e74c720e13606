"""Every command that takes a trace takes the same options for it, and a hint names only options that there are.

Read next: `tests/data/traces/test_time_and_part.py` for what the options do.
"""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sageserve.base.errors import SageServeError
from sageserve.cli.main import app, show_error
from tests.installed.commands import commands
from tests.worlds import SMALL_FLEET

TRACES = ("simulate", "compare", "plan make", "forecast", "trace inspect", "trace convert")
BLOCK = {
    *("--column", "--map", "--from", "--until", "--load", "--time-scale", "--all-at", "--rate", "--expand", "--chars-per-token"),
    *("--image-tokens", "--max-dropped", "--drop-outliers", "--keep-gaps", "--end-to-end"),
}
OPTION = re.compile(r"--[a-z][a-z-]+")
ROWS = "timestamp,in,out,model,extra\n" + "".join(f"{1748736000 + second},{100 + second},5,m,x\n" for second in range(60))


def options_of(name: str) -> set[str]:
    """The options of a command, by its words."""
    return {option for parameter in dict(commands())[name].params for option in parameter.opts}


@pytest.mark.parametrize("name", TRACES)
def test_a_command_that_takes_a_trace_takes_every_option_for_it(name: str) -> None:
    assert options_of(name) >= BLOCK


@pytest.mark.parametrize("name", ["simulate", "compare", "size", "tune"])
def test_what_plays_may_know_what_came_before_and_warm_up(name: str) -> None:
    assert options_of(name) >= {"--history", "--warm-up"}
    result = CliRunner().invoke(app, [name, SMALL_FLEET, "--warm-up", "6"])
    assert isinstance(result.exception, SageServeError)
    assert "workload.warm_up: 6 has no unit" in str(result.exception)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "log.csv"
    path.write_text(ROWS)
    return path


@pytest.mark.parametrize(
    "command",
    [
        ("simulate", SMALL_FLEET, "--json", "--trace"),
        ("plan", "make", SMALL_FLEET, "--at", "0s", "--json", "--trace"),
        ("forecast", "--bin", "1m", "--horizon", "1m", "--json"),
        ("trace", "inspect", "--json"),
    ],
)
def test_columns_parts_maps_and_load_reach_the_reader(trace: Path, command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*command, str(trace), "--column", "prompt=in", "--column", "output=nowhere"])
    assert isinstance(result.exception, SageServeError)
    assert "--column output=nowhere: the file has no column" in str(result.exception)
    cut = ("--column", "prompt=in", "--column", "output=out", "--map", "model:*=llama-2-70b", "--from", "2h", "--load", "0.5")
    result = CliRunner().invoke(app, [*command, str(trace), *cut])
    assert "nothing arrives between --from 2h" in str(result.exception)


def test_what_a_run_plays_is_cut_mapped_and_thinned(trace: Path) -> None:
    options = ("--column", "prompt=in", "--column", "output=out", "--map", "*=llama-2-70b", "--until", "30s", "--load", "0.5")
    result = CliRunner().invoke(app, ["simulate", SMALL_FLEET, "--json", "--trace", str(trace), *options], catch_exceptions=False)
    assert '"arrived": 15' in result.stdout
    assert "cut from 0s to 30s: 30 of 60 requests" in result.stdout
    assert "extra (x)" in result.stdout, "a column that means nothing is listed where a run tells of its trace"


@pytest.mark.parametrize("option", [("--map", "a=b"), ("--column", "prompt=x"), ("--rate", "2"), ("--keep-gaps",)])
def test_options_that_speak_of_a_file_need_one(option: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, ["simulate", SMALL_FLEET, *option])
    assert f"{option[0]} speaks of a trace file" in str(result.exception)


def test_a_generated_workload_can_be_cut_and_remembers_what_came_before() -> None:
    small = ("--set", "workload.generate.requests=4000", "--set", "workload.generate.length=2h")
    result = CliRunner().invoke(app, ["simulate", SMALL_FLEET, *small, "--from", "1h", "--json"], catch_exceptions=False)
    assert '"window_s": 3600.0' in result.stdout


@pytest.mark.parametrize("command", [("trace", "inspect"), ("forecast",)])
def test_a_missing_path_is_said_to_be_missing(command: tuple[str, ...], tmp_path: Path) -> None:
    for name in (str(tmp_path / "gone.csv"), "gone.jsonl"):
        result = CliRunner().invoke(app, [*command, name])
        assert f"{name} does not exist" in str(result.exception)


def test_hints_of_readers_name_options_that_every_command_has() -> None:
    known = set.intersection(*(options_of(name) for name in TRACES)) | {"--trace", "--history"}  # said of it where it was given
    folder = Path(__file__).resolve().parents[2] / "src" / "sageserve" / "data" / "traces"
    for path in folder.rglob("*.py"):
        if path.name not in {"catalog.py", "series.py"}:  # a page of the docs, and the reader of `forecast` alone
            named = set(OPTION.findall(path.read_text("utf-8"))) - {"--help", "--save-detailed", "--output-details"}
            assert named <= known | {"--json"}, path.name


def test_a_place_that_cannot_be_written_is_the_users_to_mend(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    for arguments in (
        ("plan", SMALL_FLEET, "--at", "1h", "-o", str(tmp_path / "file" / "plan.json")),
        ("simulate", SMALL_FLEET, "--out", str(tmp_path / "file" / "run")),
        ("trace", "generate", SMALL_FLEET, str(tmp_path / ("a" * 300 + ".parquet")), "--requests", "10"),
    ):
        result = CliRunner().invoke(app, arguments)
        assert result.exception is not None
        assert show_error(result.exception, debug=False) == 2
        assert "cannot be written" in capsys.readouterr().err
