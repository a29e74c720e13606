"""`sageserve forecast` on small inputs: what it prints, and what it says about mistakes."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from sageserve.base.errors import PlanError, SageServeError, TraceError
from sageserve.base.rng import stream
from sageserve.base.units import HOUR, MINUTE
from sageserve.cli.columns import WIDTH
from sageserve.cli.forecast import app, chart
from sageserve.core.forecast import Series, forecaster
from sageserve.data.traces.series import read_series
from tests.worlds import SMALL_FLEET

HOURS = 96


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Four days of two series per ten minutes, with a daily cycle; one row and one cell are missing."""
    rng = stream(1, "tests/cli/forecast")
    lines = ["t_s,chat,batch"]
    for i in range(HOURS * 6):
        day = 2 + np.sin(2 * np.pi * i / 144)
        chat = "" if i == 50 else f"{1000 * day * rng.lognormal(0, 0.1):.1f}"
        if i != 70:
            lines.append(f"{i * 600},{chat},{10 * rng.lognormal(0, 0.1):.2f}")
    path = tmp_path / "demand.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def run(*arguments: str | Path) -> str:
    """What a command that must succeed prints."""
    result = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


class TestTable:
    def test_scores_beside_both_baselines_and_a_chart(self, table: Path) -> None:
        text = run(table, "--bin", "10m", "--charts", "1")
        assert max(len(line) for line in text.splitlines()) <= 100
        for part in ("blend", "last-value", "seasonal-naive", "cov", "chat", "batch", "20m to 1h", "next hour", "█", "░"):
            assert part in text
        assert text.index("chat") < text.index("batch")  # the largest first
        assert text.count("as blend expects it") == 1

    def test_json_has_scores_and_the_forecast(self, table: Path) -> None:
        found = json.loads(run(table, "--bin", "10m", "--only", "chat", "--json"))["series"]
        assert list(found) == ["chat"]
        scores = found["chat"]["forecasters"]
        assert set(scores) == {"blend", "last-value", "seasonal-naive"}
        span = scores["blend"]["20m to 1h"]
        assert span["wape"] < min(scores[name]["20m to 1h"]["wape"] for name in ("last-value", "seasonal-naive"))
        assert 0.6 < span["coverage"] < 0.95
        assert found["chat"]["forecast"]["start_us"] == HOURS * HOUR
        assert len(found["chat"]["forecast"]["point"]) == 6

    def test_bins_are_summed_and_missing_rows_stay_missing(self, table: Path) -> None:
        found = read_series(table)
        assert found is not None
        assert np.flatnonzero(np.isnan(found["chat"].values)).tolist() == [50, 70]
        assert found["batch"].bin == 10 * MINUTE
        shown = json.loads(run(table, "--bin", "1h", "--horizon", "2h", "--only", "chat", "--json"))
        assert shown["series"]["chat"]["bins"] == HOURS

    def test_a_scenario_brings_its_history(self) -> None:
        found = json.loads(run(SMALL_FLEET, "--bin", "15m", "--only", "iw-f", "--json", "--count", "requests"))["series"]
        assert found
        for name, each in found.items():
            assert len(name.split("/")) == 3
            assert each["forecasters"]["blend"]

    def test_a_trace_file_is_counted(self, tmp_path: Path) -> None:
        rows = [f"{second},m,IW,{100 + second % 7},10" for second in range(0, 12 * 3600, 20)]
        path = tmp_path / "trace.csv"
        path.write_text("arrival_s,model,tier,prompt_tokens,output_tokens\n" + "\n".join(rows) + "\n")
        found = json.loads(run(path, "--json"))["series"]
        assert len(found) == 1
        only = next(iter(found.values()))
        assert only["forecasters"]["blend"]["next hour, summed"]["wape"] < 0.02


def series_file(folder: Path, values: list[float]) -> Path:
    path = folder / "series.csv"
    path.write_text("minute,demand\n" + "".join(f"{5 * i},{value}\n" for i, value in enumerate(values)))
    return path


class TestJudgedToTheEnd:
    def test_a_verdict_per_series_in_words(self, table: Path) -> None:
        text = run(table, "--bin", "10m", "--charts", "0")
        assert "chat: blend misses by" in text
        assert "its 80 % interval held" in " ".join(text.split())
        found = json.loads(run(table, "--bin", "10m", "--only", "chat", "--json"))["series"]["chat"]
        assert found["verdict"].startswith("blend misses by")
        assert found["notes"] == []

    def test_a_short_history_is_judged_by_what_fits(self, tmp_path: Path) -> None:
        path = series_file(tmp_path, [5.0 + i % 3 for i in range(11)])
        text = " ".join(run(path, "--charts", "0").split())
        assert "55m of history: judged 25m ahead, because 1h is more than half of it" in text
        found = json.loads(run(path, "--json"))["series"]["demand"]
        assert found["forecasters"]["blend"]["next 25m"]["judged"] == 10
        assert len(found["forecast"]["point"]) == 12, "it is forecast as far as was asked"

    def test_one_bin_is_forecast_and_not_judged(self, tmp_path: Path) -> None:
        path = tmp_path / "trace.csv"
        path.write_text("arrival_s,prompt_tokens,output_tokens\n0,10,1\n310,10,1\n")
        found = next(iter(json.loads(run(path, "--json"))["series"].values()))
        assert (found["bins"], found["verdict"]) == (1, "nothing could be judged")
        assert "nothing could be judged" in run(path)

    def test_no_demand_is_null_and_a_dash(self, tmp_path: Path) -> None:
        path = series_file(tmp_path, [0.0] * 4 + [20.0] + [0.0] * 60)
        text = run(path)
        assert "nan" not in text
        assert "no demand in the judged bins" in text
        score = json.loads(run(path, "--json"))["series"]["demand"]["forecasters"]["blend"]["20m to 1h"]
        assert (score["wape"], score["bias"]) == (None, None)

    def test_a_quantile_far_above_everything_seen_has_a_note(self, tmp_path: Path) -> None:
        path = series_file(tmp_path, [1.5**i for i in range(60)])
        assert "times the largest value seen" in run(path, "--forecasters", "last-value")
        found = json.loads(run(path, "--forecasters", "last-value", "--json"))["series"]["demand"]
        assert max(max(row) for row in found["forecast"]["quantiles"]) > 10 * 1.5**59
        assert "do not plan by it" in found["notes"][-1]

    def test_a_trace_without_one_whole_bin_says_how_long_it_is(self, tmp_path: Path) -> None:
        path = tmp_path / "trace.csv"
        path.write_text("arrival_s,prompt_tokens,output_tokens\n0,10,1\n70,10,1\n")
        found = mistake(path)
        assert "2m long: no bin of 5m is whole" in found.message
        assert "--bin" in found.hint


def mistake(*arguments: str | Path) -> SageServeError:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    assert isinstance(result.exception, SageServeError), result.output
    assert result.exception.hint
    return result.exception


def test_mistakes_are_named(table: Path, tmp_path: Path) -> None:
    assert isinstance(mistake(table, "--forecasters", "crystal-ball"), PlanError)
    assert "cannot be summed" in mistake(table, "--bin", "15m").message
    assert "is not a duration" in mistake(table, "--bin", "15").message
    assert "no length" in mistake(table, "--horizon", "0s").message
    assert "is not known" in mistake(table, "--count", "words").message
    assert "there are: chat" in mistake(table, "--only", "nothing").hint
    uneven, words = tmp_path / "uneven.csv", tmp_path / "words.csv"
    uneven.write_text("minute,a\n0,1\n1,1\n2.3,1\n4,2\n")
    words.write_text("hour,a\n0,1\n1,many\n")
    assert isinstance(mistake(uneven), TraceError)
    assert "no number" in mistake(words).message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("minute,a,a\n0,1,2\n5,1,2\n", "has 2 columns called 'a', at positions 2 and 3"),
        ("minute,a\n0,1\n5,-3\n", "row 2: a is -3 (1 of 2 rows)"),
        ("minute,a\n0,inf\n5,1\n", "row 1: a is inf"),
        ("minute,a\n0,1\n", "has fewer than two rows"),
        ("minute,a\n0,1\n5,1\n5,2\n", "row 3: its time is missing or not later"),
        ("minute,a\n0,1\n,1\n5,2\n", "row 2: its time is missing"),
        ("minute,a,b\n0,1,\n5,1,\n10,1,\n", "b has no value at all"),
    ],
)
def test_a_series_that_makes_no_sense_is_told_by_its_row(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "series.csv"
    path.write_text(text)
    assert said in mistake(path).message


def test_the_chart_shows_height_and_the_upper_quantile() -> None:
    series = Series(np.tile([1.0, 4.0], 72), 10 * MINUTE)
    coming = forecaster("last-value").fit(series).predict(6, (0.1, 0.9))
    lines = [line.plain for line in chart(series, coming, WIDTH)]
    assert len(lines) == 6
    assert {len(line) for line in lines} == {len(lines[0])}
    assert float(lines[0].split()[0]) == pytest.approx(max(4.0, coming.values.max()), rel=0.01)
    past, ahead = lines[-1].split("│")
    assert set(past[11:]) <= set(" ▁▂▃▄▅▆▇█")
    assert set(ahead) == {"█"}
