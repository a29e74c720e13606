"""`sageserve compare`: a table that fits, JSON that is what simulate prints, seeds, mistakes and resuming.

Read next: `tests/sim/test_sweep.py` for the sweep behind it.
"""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner, Result

from sageserve.base.errors import ConfigError, ResultError
from sageserve.cli import compare_ablate
from sageserve.cli.columns import WIDTH, Column, tables
from sageserve.cli.main import app
from sageserve.cli.seeds import parse_seeds
from sageserve.data.results.comparison import Bound, Comparison, Spread, held, kept_of, needed, owed, spread
from sageserve.data.results.summary import Summary
from sageserve.data.results.sweep_folder import GENERATED
from sageserve.data.results.sweep_read import read_kept, read_sweep
from sageserve.sim.sweep.cell import Finished
from tests.worlds import SMALL_FLEET

SETTINGS = ("--set", "workload.generate.requests=4000", "--set", "workload.generate.length=45m", "--set", "tiers.iw-f.itl=1s")
SMALL = ("compare", SMALL_FLEET, *SETTINGS)
TIMINGS = {"cpu_s", "requests_per_cpu_s"}


def called(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == code, result.stderr
    return result


def untimed(summary: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in summary.items() if key not in TIMINGS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two strategies and the bound with two seeds, kept."""
    place = tmp_path_factory.mktemp("compare") / "out"
    called(*SMALL, "--strategies", "siloed,reactive,oracle", "--seeds", "1..2", "--out", str(place), "--json")
    return place


def again(folder: Path, *arguments: str) -> Result:
    return called(*SMALL, "--strategies", "siloed,reactive,oracle", "--out", str(folder), *arguments)


def test_one_seed_gives_what_simulate_gives(folder: Path) -> None:
    found = json.loads(again(folder, "--seeds", "2", "--json").stdout)
    assert list(found) == ["strategies", "oracle"]
    assert list(found["strategies"]) == ["siloed", "reactive"]
    for name, summary in found["strategies"].items():
        alone = json.loads(called("simulate", SMALL_FLEET, *SETTINGS, "--strategy", name, "--seed", "2", "--json").stdout)
        assert untimed(summary) == untimed(alone)
    bound = msgspec.convert(found["oracle"], Bound)
    reactive = msgspec.convert(found["strategies"]["reactive"], Summary, str_keys=True)
    assert bound.at(bound.promised) == bound.gpu_hours
    assert bound.at(kept_of(reactive)) <= needed(reactive)


def test_a_bound_of_another_version_is_left_out(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "old"
    shutil.copytree(folder, place)
    bounds = list(place.glob("*/bound.json"))
    assert bounds
    for one in bounds:
        one.write_text('{"gpu_hours": 3.0, "models": {}, "loads": {}}')
    assert "reactive" in called("show", str(place)).stdout


def test_several_seeds_are_all_there(folder: Path) -> None:
    found = json.loads(again(folder, "--seeds", "1,2", "--json").stdout)
    for part in (*found["strategies"].values(), found["oracle"]):
        seeds = part.pop("seeds")
        assert list(seeds) == ["1", "2"]
        assert part == seeds["1"] != seeds["2"]


def test_what_is_kept_is_not_played_again(folder: Path) -> None:
    first = again(folder, "--seeds", "1..2", "--json").stdout
    assert again(folder, "--seeds", "1..2", "--json", "--workers", "1").stdout == first  # CPU seconds too
    files = sorted(path.name.rpartition("-")[0] for path in folder.iterdir() if path.is_dir())
    assert files == sorted(f"{name}-seed{seed}" for name in ("siloed", "reactive", "oracle") for seed in (1, 2))


@pytest.mark.parametrize("seeds", ["1", "1..2"])
def test_the_tables_fit_and_say_what_is_asked(folder: Path, seeds: str) -> None:
    text = again(folder, "--seeds", seeds).stdout
    told = text.partition("\n")[2].partition("next: ")[0]  # a path and a command are never broken
    assert max(len(line) for line in told.splitlines()) <= WIDTH
    rows = [line.split() for line in text.splitlines()]
    reactive = next(row for row in rows if row[:1] == ["reactive"])
    assert "+0.0%" in reactive
    for word in ("4,000 requests", "owed", "oracle", "waste", "$", "iw-f", "niw", "on time", "floor", "all models", "token"):
        assert word in text
    assert ("±" in text.partition("\n")[2]) == (seeds == "1..2")


def test_wide_comparisons_become_several_tables_that_fit() -> None:
    columns = [Column("strategy", ["a", "b"]), *(Column(f"column {k}", ["x" * 12, "y"]) for k in range(20))]
    made = list(tables(columns, WIDTH))
    assert len(made) == 3
    assert sum(len(table.columns) - 1 for table in made) == 20
    assert all(table.columns[0].header == "strategy" for table in made)


def test_mistakes_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments, words in (
        (("--strategies", "reactiv"), ("reactiv", "siloed", "oracle")),
        (("--strategies", ","), ("names none",)),
        (("--strategies", "oracle"), ("is a bound", "none here")),
        (("--seeds", "5..1"), ("5..1 runs backwards",)),
        (("--seeds", "x"), ("'x' is no seed",)),
        (("--trace", str(tmp_path / "none.csv")), ("none.csv",)),
        (("--map", "a=b"), ("--trace",)),
        (("--set", "fleet.start=ten"), ("fleet.start=ten",)),
        (("--on", "ray", "--workers", "2"), ("--workers", "Ray") if importlib.util.find_spec("ray") else ("Ray",)),
    ):
        result = CliRunner().invoke(app, [*SMALL, *arguments])
        assert isinstance(result.exception, Exception)
        assert all(word in str(result.exception) for word in words), str(result.exception)
    path = tmp_path / "header.csv"
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n")
    result = called(*SMALL, "--strategies", "reactive", "--trace", str(path), "--json", code=2)
    assert "no requests" in result.stderr
    assert json.loads(result.stdout) == {"strategies": {}}


def test_seeds_are_read_as_written() -> None:
    assert parse_seeds("1..3, 7,2") == [1, 2, 3, 7]
    assert parse_seeds(f"{2**63 - 1}") == [2**63 - 1]
    for text, words in (
        ("", "'': a seed is missing"),
        ("1..3,", "1..3,: a seed is missing"),
        ("1..", "'1..' is no seed"),
        ("-1", "'-1' is no seed"),
        ("1.5", "'1.5' is no seed"),
        ("²", "'²' is no seed"),
        ("1..3, 9..7", "9..7 runs backwards"),
        ("1..1001", "more than 1,000 seeds"),
        ("0..999,1001", "more than 1,000 seeds"),
        (f"{2**63}", "a seed of 19 digits is too great"),
        ("9" * 5000, "a seed of 5000 digits is too great"),
    ):
        with pytest.raises(ConfigError, match=re.escape(words)):
            parse_seeds(text)


def test_ratios_are_taken_seed_by_seed(folder: Path) -> None:
    found = json.loads(again(folder, "--seeds", "1,2", "--json").stdout)
    runs = {
        name: {int(seed): msgspec.convert(one, Summary, str_keys=True) for seed, one in part["seeds"].items()}
        for name, part in found["strategies"].items()
    }
    bounds = {int(seed): msgspec.convert(one, Bound) for seed, one in found["oracle"]["seeds"].items()}
    comparison = Comparison(runs, bounds)
    siloed, reactive = (list(runs[name].values()) for name in ("siloed", "reactive"))
    ratios = [a.gpu_hours.total / b.gpu_hours.total - 1 for a, b in zip(siloed, reactive, strict=True)]
    change = comparison.against("siloed", "reactive", held)
    assert change is not None
    assert change.mean == pytest.approx(sum(ratios) / 2)
    assert change.deviation == pytest.approx(abs(ratios[0] - ratios[1]) / 2**0.5)
    assert comparison.against("siloed", "lt-ua", held) is None
    over = comparison.over_bound("reactive")
    assert over is not None
    assert over.mean == pytest.approx(
        sum(needed(run) / bounds[seed].at(kept_of(run)) for seed, run in runs["reactive"].items()) / 2
    )
    assert owed(reactive[0]) == pytest.approx(needed(reactive[0]) - held(reactive[0]))
    assert spread([None]) is None
    assert spread([3.0, None]) == Spread(3.0, None)


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed here")
def test_without_ray_it_says_how_to_get_it() -> None:
    result = CliRunner().invoke(app, [*SMALL, "--on", "ray"])
    assert isinstance(result.exception, ConfigError)
    assert "sageserve[ray]" in result.exception.hint


@pytest.mark.slow
def test_a_ray_cluster_gives_the_same(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is an extra and not installed here: pip install 'sageserve[ray]'")
    trace = tmp_path / "trace.csv"
    rows = [f"{second},{100 + second},{10 + second % 7}" for second in range(300)]
    trace.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]) + "\n")
    for arguments in (("--seeds", "1,2"), ("--seeds", "1,2", "--trace", str(trace), "--load", "2")):
        found = {}
        for place in ("local", "ray"):
            text = called(*SMALL, "--strategies", "siloed,reactive,oracle", *arguments, "--json", "--on", place).stdout
            found[place] = json.loads(text)
        assert found["ray"]["oracle"] == found["local"]["oracle"]
        for name, part in found["local"]["strategies"].items():
            for seed, summary in part["seeds"].items():
                assert untimed(found["ray"]["strategies"][name]["seeds"][seed]) == untimed(summary)


def test_the_command_is_light_until_it_runs() -> None:
    code = "import sys, sageserve.cli.main; print([m for m in ('numba', 'numpy', 'ray', 'pyarrow') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"


def test_the_frontier_has_a_point_for_every_setting_and_a_verdict(tmp_path: Path) -> None:
    few = ("--set", "workload.generate.requests=4000", "--set", "workload.generate.length=45m", "--workers", "1")
    asked = ("compare", SMALL_FLEET, "--strategies", "reactive,oracle,fixed:3", "--frontier", "--out", str(tmp_path / "f"), *few)
    shown = CliRunner().invoke(app, list(asked), catch_exceptions=False)
    assert shown.exit_code == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert sum(line.startswith("reactive  high ") for line in lines) == 6
    assert sum(line.startswith("fixed:3  ") for line in lines) == 3
    assert max(map(len, (line for line in lines if not line.startswith("For ")))) <= WIDTH
    assert any(line.startswith("For ") and " kept, GPU-hours with owed work: " in line for line in lines)
    again = CliRunner().invoke(app, [*asked, "--json"], catch_exceptions=False)  # from what is kept
    found = json.loads(again.stdout)["frontier"]
    assert [len(found[name]) for name in ("reactive", "fixed:3")] == [6, 3]
    assert set(found["reactive"][0]) == {"knob", "gpu_hours_with_owed", "kept", "spread", "by_seed", "over_bound"}
    assert min(one["over_bound"] for points in found.values() for one in points) >= 1.0
    curve = json.loads(again.stdout)["bound"]["iw-f"]
    assert [one["gpu_hours"] for one in curve] == sorted(one["gpu_hours"] for one in curve)
    assert json.loads(again.stdout)["matched"]["bound"] > 0
    assert set(found["reactive"][0]["kept"]) == {"iw-f", "iw-n", "niw"}
    kept = json.loads((tmp_path / "f" / "frontier.json").read_text())
    assert [one.rsplit("-", 1)[0] for one in kept["cells"]] == ["reactive-high-0.7-seed1", "fixed_3-3-instances-seed1"]
    page = (tmp_path / "f" / "report.html").read_text("utf-8")
    assert re.findall(r'<section class="figure" id="([a-z-]+)"', page)[:3] == ["frontier", "fleet", "capacity"]
    as_given = read_sweep(tmp_path / "f")  # what `show` takes, too: not the setting that ended last
    assert [run.path.name for seeds in as_given.runs.values() for run in seeds.values()] == kept["cells"]
    no_report = CliRunner().invoke(app, [*asked, "--no-report"], catch_exceptions=False)
    assert (no_report.exit_code, (tmp_path / "f" / "frontier.json").exists()) == (0, False)
    with pytest.raises(ResultError, match="no strategy as it is"):
        read_sweep(tmp_path / "f")
    plain = ("compare", SMALL_FLEET, "--strategies", "reactive", "--out", str(tmp_path / "f"), "--no-report", *few)
    assert CliRunner().invoke(app, list(plain), catch_exceptions=False).exit_code == 0
    assert not (tmp_path / "f" / "frontier.json").exists(), "what is in the folder is of the newest command"
    found = read_sweep(tmp_path / "f")
    assert ({name: list(runs) for name, runs in found.runs.items()}, found.left) == ({"reactive": [1]}, 9)


def test_foresight_is_taken_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ("--set", "workload.generate.requests=2000", "--set", "workload.generate.length=30m", "--workers", "1")
    asked = ("compare", SMALL_FLEET, "--ablate", "--out", str(tmp_path / "a"), *few)
    shown = CliRunner().invoke(app, list(asked), catch_exceptions=False)
    assert shown.exit_code == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert [line.split("  ")[0] for line in lines if line.startswith(("all of it ", "without "))] == [
        "all of it",
        *(
            f"without {part}"
            for part in ("promises", "forecast", "response curve", "learning", "batch placement", "guard", "router")
        ),
    ]
    assert max(map(len, (line for line in lines if not line.startswith("worth: ")))) <= WIDTH
    again = CliRunner().invoke(app, [*asked, "--json"], catch_exceptions=False)  # from what is kept
    found = json.loads(again.stdout)
    assert found["tier"] == "iw-f"
    assert found["ablation"][0]["part"] == "promises"
    assert found["whole"]["knob"] == "driven by promises"
    with pytest.raises(ConfigError, match="takes foresight apart"):
        CliRunner().invoke(app, ["compare", SMALL_FLEET, "--ablate", "--strategies", "reactive"], catch_exceptions=False)
    with pytest.raises(ConfigError, match="two questions"):
        CliRunner().invoke(app, ["compare", SMALL_FLEET, "--ablate", "--frontier"], catch_exceptions=False)
    for what in ("report", "show"):
        with pytest.raises(ResultError, match=r"no strategy as it is: foresight-.+ and 11 more"):  # not one variant for the whole
            CliRunner().invoke(app, [what, str(tmp_path / "a")], catch_exceptions=False)
    points = compare_ablate.ablated_cells(SMALL_FLEET, ["foresight"], None, (), GENERATED)
    summary = read_kept(next((tmp_path / "a").glob("foresight-*"))).summary
    capsys.readouterr()
    compare_ablate.show(SMALL_FLEET, points, [None, *[Finished(summary)] * (len(points) - 1)], as_json=False, out=None)
    assert not capsys.readouterr().out, "a setting of the whole is not taken for all of it"


@pytest.mark.parametrize(("more", "said"), [(("--strategies", "oracle"), "has no knob"), (("--baseline", "lt-ua"), "has none")])
def test_a_frontier_is_of_strategies_and_against_nobody(more: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        CliRunner().invoke(app, ["compare", SMALL_FLEET, "--frontier", *more], catch_exceptions=False)
