"""`sageserve validate` and `sageserve calibrate` on made-up engines: what they print and write, and what they refuse."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from sageserve.base.errors import MeasurementError, SageServeError
from sageserve.cli.calibrate import app as calibrate
from sageserve.cli.validate import validate
from sageserve.data.measured.write import write_measured
from sageserve.data.profiles.library import named, profile_named
from tests.sim.calibration.made import TRUTH, made_run

validation = typer.Typer()
validation.command()(validate)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one measured run of a known engine."""
    path = tmp_path_factory.mktemp("measured")
    write_measured(path, [made_run(requests=300, seconds=75)])
    return path


def run(app: typer.Typer, *arguments: str | Path) -> str:
    """What a command that must succeed prints."""
    result = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(app: typer.Typer, *arguments: str | Path) -> SageServeError:
    """The mistake a command finds."""
    with pytest.raises(MeasurementError) as caught:
        CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
    return caught.value


def test_json_has_the_promised_shape(folder: Path) -> None:
    found = json.loads(run(validation, "--data", folder, "--json"))
    made = found["runs"]["made"]
    for part in ("fit", "heldout"):
        assert {"e2e_mape", "tpot_mape", "ttft_mape", "e2e_bias"} <= made[part].keys()
    assert 0 <= made["heldout"]["e2e_mape"] < 0.02
    assert made["coefficients"]["kv_tokens"] == TRUTH.kv_tokens
    assert found["means"] == {}


def test_tables_and_pictures(folder: Path, tmp_path: Path) -> None:
    text = run(validation, "--data", folder, "--plots", tmp_path / "pictures")
    for part in ("first half (fitted)", "second half (held out)", "low load", "running", "waiting", "▁"):
        assert part in text
    page = (tmp_path / "pictures" / "validation.html").read_text("utf-8")
    assert "Plotly.newPlot" in page
    assert "<script src=" not in page, "the page needs no network"
    assert "second half" in page


def test_mistakes_of_validate(folder: Path, tmp_path: Path) -> None:
    assert "--data DIR" in refused(validation).hint
    assert "does not exist" in refused(validation, "--data", tmp_path / "nowhere").message
    assert "no run" in refused(validation, "--data", folder, "--run", "unheard-of").message


def test_points_are_predicted_as_a_table_and_as_json(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    header = "id,gpu,tp,model,dtype,isl,osl,concurrency,engine,e2e_ms\n"
    path.write_text(f"{header}a,h100_sxm,1,Qwen/Qwen3-8B,bf16,1000,100,8,vllm 0.19.0,900\nb,p100,1,Qwen/Qwen3-8B,bf16,9,9,1,,\n")
    found = json.loads(run(validation, "--points", path, "--json"))
    first, second = found["points"]
    assert set(first) == {"id", "e2e_ms", "ttft_ms", "tpot_ms", "low_ms", "high_ms"}
    assert second == {"id": "b", "reason": "no rates are known of the GPU p100"}
    assert found["groups"]["vllm, dense"].keys() == {"n", "e2e_mape", "within_15", "median", "covered", "width"}
    text = run(validation, "--points", path)
    for part in ("vllm, dense", "1 of 2 points predicted", "no rates are known of the GPU p100"):
        assert part in text
    assert "--json alone" in refused(validation, "--points", path, "--data", tmp_path).message
    path.write_text(f"{header}b,p100,1,Qwen/Qwen3-8B,bf16,9,9,1,,\n")
    assert "no point of" in refused(validation, "--points", path).message


def test_a_profile_from_logs_is_one_the_library_reads(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.yaml"
    text = run(calibrate, "logs", folder, "--out", out, "--name", "mine", "--gpu", "H100", "--model", "meta-llama/Llama-3.1-8B")
    assert "held-out error" in text
    values = named(f"{out}#mine", tmp_path).values
    assert values["gpu"] == "h100-80gb"
    assert values["kv_tokens"] == TRUTH.kv_tokens
    assert "held out" in str(values["error"])
    assert "requests at" in str(values["fitted"])


def test_a_profile_from_counters(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.yaml"
    text = run(calibrate, "counters", folder / "timeseries.csv", "--out", out, "--name", "mine", "--kv-tokens", "400000")
    assert "s of counters" in text
    base = profile_named(f"{out}#mine", tmp_path).profile.iteration_ms[0][1]
    assert base == pytest.approx(TRUTH.iteration_ms[0][1], rel=0.25)


def test_mistakes_of_calibrate(folder: Path, tmp_path: Path) -> None:
    there = tmp_path / "there.yaml"
    there.write_text("profiles: {}", "utf-8")
    assert "there already" in refused(calibrate, "logs", folder, "--out", there).message
    assert there.read_text("utf-8") == "profiles: {}"
    out = tmp_path / "mine.yaml"
    assert "give one of them" in refused(calibrate, "counters", "--out", out).message
    prometheus = ("counters", "--prometheus", "http://127.0.0.1:1", "--query-window")
    assert "--query-window" in refused(calibrate, *prometheus, "soon", "--out", out).message
    assert "cannot be asked" in refused(calibrate, *prometheus, "5m", "--out", out).message
    assert not out.exists(), "a refusal leaves no file"
