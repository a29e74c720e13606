"""`sageserve trace` on small files: what it prints, what it writes, and what it leaves behind when it fails."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sageserve.base.errors import TraceError, UnknownName
from sageserve.base.units import HOUR
from sageserve.cli.trace import app, sparkline
from sageserve.data.scenarios.load import load_scenario
from sageserve.data.traces.read import read_as_is
from tests.worlds import SMALL_FLEET

ROWS = "".join(
    f"{second},{'m-large' if second % 3 else 'm-mid'},{'IW' if second % 4 else 'NIW'},{100 + second},{1 + second % 50}\n"
    for second in range(0, 3600, 5)
)
HEADER = "arrival_s,model,tier,prompt_tokens,output_tokens\n"


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "in.csv"
    path.write_text(HEADER + ROWS + "1,m-mid,IW,0,1\n")
    return path


def run(*arguments: str | Path) -> str:
    """What a command that must succeed prints."""
    result = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


class TestInspect:
    def test_the_tables_fit_and_show_every_part(self, trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(trace.parent)  # a long path would not fit, and is not cut
        text = run("inspect", trace.name)
        assert max(len(line) for line in text.splitlines()) <= 100
        for part in ("720 requests over 1h", "m-large", "m-mid", "IW", "NIW", "p99", "(not in the file)", "█"):
            assert part in text
        assert "1 of 721 rows are no requests" in text
        assert "prompt length is below 1 (lines 722)" in text

    def test_conversations_are_shown_where_there_are_any(self, trace: Path, tmp_path: Path) -> None:
        assert "of several turns" not in run("inspect", trace)
        file = tmp_path / "talks.jsonl"
        turn = {"session_id": "a", "input_length": 30, "output_length": 50}
        file.write_text("".join(json.dumps(turn | more) + "\n" for more in ({"timestamp": 0}, {"delay": 2500}, {"delay": 2500})))
        text = run("inspect", file)
        assert "1 conversation of several turns: mean 3, p50 3, p90 3, longest 3" in text
        assert "2 turns wait for the answer before them in a closed loop, then pause: p50 2.5 s" in text
        assert "2 later turns have a prompt that is shorter than the conversation before them" in text
        assert max(len(line) for line in text.splitlines()[1:]) <= 100
        seen = json.loads(run("inspect", file, "--json", "--prompts", "added"))
        assert seen["conversations"]["shorter"] == 0
        assert seen["models"]["-"]["prompt_tokens"]["longest"] == 30 * 3 + 50 * 2

    def test_json_has_the_same_numbers(self, trace: Path) -> None:
        seen = json.loads(run("inspect", trace, "--json"))
        assert seen["requests"] == 720
        assert seen["rows"] == 721
        assert seen["bad"] == [{"reason": "prompt length is below 1", "rows": 1, "lines": [722]}]
        assert sum(seen["rate"]) * seen["bin_s"] == pytest.approx(720)
        assert sum(part["requests"] for part in seen["models"].values()) == 720
        assert seen["tiers"]["IW"]["prompt_tokens"]["longest"] == 3695

    def test_names_can_be_mapped_with_and_without_a_scenario(self, trace: Path) -> None:
        seen = json.loads(run("inspect", trace, "--json", "--map", "m-mid=other"))
        assert set(seen["models"]) == {"m-large", "other"}
        maps = ("--map", "*=llama-2-70b", "--map", "IW=iw-f", "--map", "NIW=niw")
        seen = json.loads(run("inspect", trace, "--json", "--scenario", SMALL_FLEET, *maps))
        assert set(seen["tiers"]) == {"iw-f", "niw"}
        assert sum(part["requests"] for part in seen["regions"].values()) == 720
        with pytest.raises(UnknownName):
            run("inspect", trace, "--scenario", SMALL_FLEET)

    def test_a_scenario_can_be_looked_into_before_it_is_run(self) -> None:
        seen = json.loads(run("inspect", SMALL_FLEET, "--json"))
        assert seen["format"] == "generated"
        assert seen["requests"] == load_scenario(SMALL_FLEET).workload.generate.requests


class TestConvert:
    def test_a_converted_trace_is_the_same_trace(self, trace: Path, tmp_path: Path) -> None:
        out = tmp_path / "out.parquet"
        assert "720 requests over 1h" in run("convert", trace, out)
        one, two = read_as_is(trace)[0], read_as_is(out)[0]
        assert one.arrival.tolist() == two.arrival.tolist()
        assert one.names == two.names

    def test_load_time_scale_and_splicing_are_applied(self, trace: Path, tmp_path: Path) -> None:
        out = tmp_path / "out.parquet"
        run("convert", trace, trace, out, "--load", "0.5", "--time-scale", "2", "--seed", "3")
        made = read_as_is(out)[0]
        assert len(made) == 720
        assert made.window == 4 * HOUR
        assert sum("with seed 3" in note for note in made.notes) == 1

    def test_nothing_is_left_when_it_fails(self, trace: Path, tmp_path: Path) -> None:
        for arguments in (("--max-dropped", "0"), ("--load", "0"), ("--map", "broken")):
            with pytest.raises(TraceError):
                run("convert", trace, tmp_path / "out.parquet", *arguments)
        with pytest.raises(TraceError, match=r"call it .*out\.parquet"):
            run("convert", trace, tmp_path / "out.csv")
        with pytest.raises(TraceError, match="no folder"):
            run("convert", trace, tmp_path / "nowhere" / "out.parquet")
        assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


class TestGenerate:
    def test_options_reach_the_generator_and_bytes_repeat(self, tmp_path: Path) -> None:
        one, two, other = (tmp_path / f"{name}.parquet" for name in ("one", "two", "other"))
        options = ("--requests", "5000", "--length", "2h", "--interactive", "50%", "--burst", "1h/10m/8")
        for path, seed in ((one, "4"), (two, "4"), (other, "5")):
            run("generate", SMALL_FLEET, path, *options, "--seed", seed)
        assert one.read_bytes() == two.read_bytes() != other.read_bytes()
        trace = read_as_is(one)[0]
        assert len(trace) == 5000
        assert trace.window == 2 * HOUR
        inside = ((trace.arrival >= HOUR) & (trace.arrival < HOUR * 7 // 6)).mean()
        assert inside > 0.3  # 10 of 120 minutes without the burst

    def test_a_broken_burst_is_explained(self, tmp_path: Path) -> None:
        with pytest.raises(Exception, match="write AT/LENGTH/FACTOR"):
            run("generate", SMALL_FLEET, tmp_path / "x.parquet", "--burst", "1h")


def test_a_sparkline_tells_nothing_from_little() -> None:
    assert sparkline([0, 0.001, 4, 8]) == " ▁▄█"
    assert sparkline([0, 0]) == "  "
    assert sparkline([]) == ""
