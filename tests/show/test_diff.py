"""`sageserve diff`: equal runs differ in nothing, seeds alone are noise, a real change is found, one seed decides nothing.

Read next: `tests/data/results/test_significance.py`, `src/sageserve/show/difference.py`.
"""

import json
import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from sageserve.base.errors import ConfigError, ResultError, SageServeError
from sageserve.base.rng import stream
from sageserve.cli.diff import _repeated
from sageserve.cli.main import app
from sageserve.data.results.run_folder import read_run
from sageserve.data.results.sweep_read import KeptRun, read_kept
from sageserve.show.difference import Difference, Number, Word, difference, number_at
from sageserve.show.sides import Side, pairs_of, sides_of, unlike
from tests.show.conftest import SMALL, called, fits
from tests.show.made import summary_of
from tests.worlds import SMALL_FLEET


def compared(first: Path, second: Path, strategy: str = "reactive") -> Difference:
    pairs = pairs_of(sides_of([first]), sides_of([second]))
    before, after = next(pair for pair in pairs if pair[0].strategy == strategy)
    assert unlike(before, after) == []
    return difference(before, after)


def words(found: Difference) -> set[Word]:
    return {number.word for number in found.numbers}


def number(found: Difference, key: str) -> Number:
    return next(one for one in found.numbers if one.key == key)


def refused(*arguments: str) -> SageServeError:
    result = CliRunner().invoke(app, ["diff", *arguments])
    assert isinstance(result.exception, SageServeError), result.stdout
    return result.exception


def test_equal_runs_differ_in_nothing(results: Path) -> None:
    for first, second in ((results / "one", results / "one"), (results / "three", results / "three")):
        found = compared(first, second)
        assert words(found) == {Word.EQUAL}
        assert found.settings == ()
        assert found.sentence == "Nothing changed: all numbers are equal."


def test_a_run_equals_the_cell_with_its_seed(results: Path) -> None:
    assert words(compared(results / "one", results / "three")) == {Word.EQUAL}


@pytest.mark.parametrize("strategy", ["reactive", "siloed"])
def test_other_seeds_are_noise(results: Path, strategy: str) -> None:
    found = compared(results / "three", results / "others", strategy)
    assert (found.how, found.seeds) == ("welch", ((1, 2, 3), (4, 5, 6)))
    assert words(found) == {Word.EQUAL, Word.NOISE}
    assert "No difference beyond the seeds' spread" in found.sentence
    alone = compared(results / "one", results / "two")
    assert alone.how == "single"
    assert words(alone) == {Word.EQUAL, Word.NOISE}
    assert "what a seed does" in alone.sentence


def test_a_real_change_is_found(results: Path) -> None:
    found = compared(results / "three", results / "four")
    assert (found.how, found.seeds) == ("paired", ((1, 2, 3), (1, 2, 3)))
    assert [(one.key, one.before, one.after) for one in found.settings] == [("fleet.start", "3", "4")]
    total = number(found, "gpu_hours.total")
    assert total.word is Word.CHANGED
    assert total.low is not None
    assert total.low > 0
    cells = [[read_kept(cell) for cell in (results / name).glob("reactive-*")] for name in ("three", "four")]
    means = [sum(cell.summary.gpu_hours.total for cell in side) / 3 for side in cells]
    assert (total.before, total.after) == pytest.approx(tuple(means))
    assert total.change == pytest.approx(means[1] - means[0])
    assert number(found, "requests.arrived").word is Word.EQUAL
    assert f"{sum(one.word is Word.CHANGED for one in found.numbers)} of 42 numbers changed" in found.sentence


def test_one_seed_decides_nothing_and_more_are_offered(results: Path, tmp_path: Path) -> None:
    folder = tmp_path / "siloed"
    called("simulate", SMALL_FLEET, "--strategy", "siloed", "--out", str(folder))
    found = compared(results / "one", folder)
    assert found.how == "single"
    assert Word.CHANGED not in words(found)
    assert number(found, "gpu_hours.total").word is Word.UNKNOWN
    assert number(found, "gpu_hours.total").low is None
    assert number(found, "tiers.iw-f.attainment").word is Word.SAMPLING  # a tenth of a point in 1,400 requests
    assert found.sentence == "One seed only: cannot tell noise from change."
    value = json.loads(CliRunner().invoke(app, ["diff", str(results / "one"), str(folder), "--json"]).stdout)
    offer = value["differences"][0]["more_seeds"]
    assert f"sageserve compare {results / 'one'}/scenario.yaml --strategies reactive --seeds 1..5" in offer[0]
    assert offer[2] == "sageserve diff seeds/before seeds/after"
    text = CliRunner().invoke(app, ["diff", str(results / "one"), str(folder)]).stdout
    assert all(f"  {line}\n" in text for line in offer), "commands are not broken"


def test_the_offered_commands_work(results: Path, tmp_path: Path) -> None:
    value = json.loads(CliRunner().invoke(app, ["diff", str(results / "one"), str(results / "two"), "--json"]).stdout)
    command = value["differences"][0]["more_seeds"][0].split()
    assert command[0] == "sageserve"
    place = tmp_path / "seeds"
    called(*command[1:-1], str(place), "--workers", "1", "--json", settings=())
    assert set(sides_of([place])["reactive"].runs) == {1, 2, 3, 4, 5}
    found = compared(place, results / "three")  # as the offer's last command
    assert found.how == "paired"
    assert words(found) == {Word.EQUAL}


def test_a_cell_brings_the_seeds_beside_it(results: Path) -> None:
    first, second = (next((results / "three").glob(f"{name}-seed2-*")) for name in ("reactive", "siloed"))
    found = compared(first, second)
    assert (found.how, found.seeds) == ("paired", ((1, 2, 3), (1, 2, 3)))
    assert "and the seeds beside it" in found.before
    assert [one.key for one in found.settings] == ["strategy.name"]
    assert number(found, "gpu_hours.total").word is Word.CHANGED


def test_several_runs_are_a_side(results: Path) -> None:
    cells = sorted(str(cell) for cell in (results / "four").glob("reactive-*"))
    ours = [str(results / "one"), str(results / "two")]
    result = CliRunner().invoke(app, ["diff", *ours, "--against", *cells, "--json"], catch_exceptions=False)
    value = json.loads(result.stdout)["differences"][0]
    assert (value["how"], value["seeds"]) == ("paired", [[1, 2], [1, 2]])
    assert value["settings"] == [{"key": "fleet.start", "before": "3", "after": "4"}]


def test_against_takes_all_up_to_the_next_option() -> None:
    assert list(_repeated(["a", "--against", "b", "c", "--json"])) == ["a", "--against", "b", "--against", "c", "--json"]
    assert list(_repeated(["a", "--against=b", "c"])) == ["a", "--against=b", "--against", "c"]
    assert list(_repeated(["a", "b", "--json"])) == ["a", "b", "--json"]
    assert list(_repeated(["a", "--against"])) == ["a", "--against"]


def test_the_page_fits(results: Path) -> None:
    for second in ("four", "others", "three"):
        result = CliRunner().invoke(app, ["diff", str(results / "three"), str(results / second)], catch_exceptions=False)
        assert fits(result.stdout, results)
        assert "\x1b" not in result.stdout
    text = CliRunner().invoke(app, ["diff", str(results / "three"), str(results / "four")]).stdout
    for word in ("fleet.start", "gpu_hours.total", "changed", "numbers equal", f"{results / 'four'}: siloed, seeds 1, 2, 3"):
        assert word in text, word


def test_other_requests_are_refused_unless_told(results: Path, tmp_path: Path) -> None:
    called("simulate", SMALL_FLEET, "--strategy", "reactive", "--load", "1.5", "--out", str(tmp_path / "more"))
    shorter = (*SMALL, "workload.generate.length=30m")
    called("simulate", SMALL_FLEET, "--strategy", "reactive", "--out", str(tmp_path / "less"), settings=shorter)
    error = refused(str(results / "one"), str(tmp_path / "more"))
    assert isinstance(error, ResultError)
    assert "load × 1.5" in error.message
    assert "4,000 and 6,000" in error.message
    assert "--anyway" in error.hint
    error = refused(str(results / "one"), str(tmp_path / "less"))
    assert "workload.generate.length is 45m in one and 30m in the other" in error.message
    assert "the window is 45m in one and 30m" in error.message
    arguments = ["diff", str(results / "one"), str(tmp_path / "less"), "--anyway", "--json"]
    value = json.loads(CliRunner().invoke(app, arguments, catch_exceptions=False).stdout)["differences"][0]
    assert any("window" in caution for caution in value["cautions"])
    assert "what a seed does" not in value["sentence"]


def test_an_interrupted_run_is_refused(results: Path) -> None:
    whole = read_kept(results / "one")
    part = Side("part", {1: replace_summary(whole, partial=True, played_s=600.0)})
    assert any("interrupted after 10m" in reason for reason in unlike(Side("whole", {1: whole}), part))


def replace_summary(run: KeptRun, **changes: object) -> KeptRun:
    return KeptRun(run.path, replace(run.summary, **changes), run.scenario)


def test_bad_folders_are_told(results: Path, tmp_path: Path) -> None:
    one, three = str(results / "one"), str(results / "three")
    oracle = str(next((results / "three").glob("oracle-seed1-*")))
    shutil.copytree(results / "one", tmp_path / "again")
    for arguments, kind, word in (
        ((one,), ConfigError, "two folders"),
        ((one, one, one), ConfigError, "--against"),
        ((one, str(tmp_path / "none")), ResultError, "does not exist"),
        ((one, str(tmp_path)), ResultError, "summary.json"),
        ((one, oracle), ResultError, "summary.json"),
        ((one, str(results / "two"), "--against", three, one), ResultError, "whole comparison"),
        ((one, str(tmp_path / "again"), "--against", three), ResultError, "both have seed 1"),
        ((one, str(results / "run"), "--against", three), ResultError, "differ in more than the seed"),
    ):
        error = refused(*arguments)
        assert isinstance(error, kind)
        assert word in str(error), str(error)
        assert error.hint


def test_numbers_are_those_of_the_summary(results: Path) -> None:
    summary = read_run(results / "one").summary
    found = compared(results / "one", results / "one")
    assert number(found, "tiers.iw-f.ttft_s.p95").after == summary.tiers["iw-f"].ttft_s.p95
    assert number(found, "cost_usd.total").before == summary.cost_usd.total
    assert number_at(summary, "tiers/none/attainment") is None


def test_false_alarms_are_rare(results: Path) -> None:
    """The same service over and over, forty numbers each: a change is seen where there is none in few of the comparisons."""
    scenario = read_kept(results / "one").scenario
    draws = stream(3, "alarms").normal(size=(100, 2, 3, 4))

    def side(rows: list[list[float]], first: int) -> Side:
        runs = {}
        for seed, row in enumerate(rows, start=first):
            kept = {tier: 0.9 + 0.001 * value for tier, value in zip(("iw-f", "iw-n", "niw"), row, strict=False)}
            summary = summary_of("reactive", seed, 100 + row[3], kept)
            runs[seed] = KeptRun(results / "one", summary, scenario)
        return Side("made", runs)

    for first in (1, 4):  # equal seeds, other seeds
        alarms = sum(Word.CHANGED in words(difference(side(pair[0], 1), side(pair[1], first))) for pair in draws.tolist())
        assert alarms < 0.1 * len(draws)
