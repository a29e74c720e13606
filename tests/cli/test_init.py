"""`sageserve init`: what it writes runs as it says, from a trace and from nothing, and its page shows what it prints.

Read next: `tests/data/scenarios/test_draft.py` for what is decided.
"""

import re
import shlex
from pathlib import Path
from typing import Final

import pytest
from typer.testing import CliRunner, Result

from sageserve.base.errors import ConfigError, TraceError
from sageserve.cli.main import app
from tests.docs.pages import agree, steps

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "your-own-fleet.md"
_ROWS: Final = [
    f"{k},{('acme llama:8b', 'gpt-4o')[k % 2]},{('us east', 'eu')[k % 3 > 1]},{('chat', 'bulk')[k % 5 > 3]},{200 + k},50"
    for k in range(900)
]
TRACE: Final = "\n".join(["time,model,region,tier,prompt_tokens,output_tokens", *_ROWS, ""])


def typed(line: str) -> Result:
    done = CliRunner().invoke(app, shlex.split(line)[1:], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


def test_the_page_prints_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for step in steps(PAGE.read_text("utf-8")):
        printed = "\n".join(line.rstrip() for line in typed(step.text).stdout.splitlines())
        assert agree(step.shown, printed), f"line {step.line} prints\n{printed}"


def test_a_trace_becomes_a_scenario_in_which_it_is_played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my trace.csv").write_text(TRACE, "utf-8")
    said = typed("sageserve init fleet.yaml --trace 'my trace.csv' --load 2").stdout
    following = re.search(r"^next: (sageserve simulate .*)$", said, re.MULTILINE)
    assert following is not None
    assert "--trace 'my trace.csv' --load 2" in following[1]
    assert typed(f"{following[1]} --json").stdout.startswith("{")
    played = typed(following[1]).stdout
    assert "1,800 requests" in played
    assert "gpt-4o" in played
    generated = typed("sageserve simulate fleet.yaml").stdout
    assert re.search(r"1,\d\d\d requests|1,800 requests", generated)


def test_what_is_there_is_not_lost_and_mistakes_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fleet.yaml").write_text("mine", "utf-8")
    (tmp_path / "t.csv").write_text(TRACE, "utf-8")
    for line, error, said in (
        ("sageserve init fleet.yaml", ConfigError, "is there already"),
        ("sageserve init other.csv", ConfigError, "no name of a scenario file"),
        ("sageserve init no/where.yaml", ConfigError, "is no folder"),
        ("sageserve init a.yaml --gpu h101", ConfigError, "no GPU is called 'h101'"),
        ("sageserve init a.yaml --trace no.csv", TraceError, "no.csv"),
        ("sageserve init a.yaml --trace t.csv --model x", ConfigError, "those of the trace"),
        ("sageserve init a.yaml --trace no.csv --model x", ConfigError, "those of the trace"),
        ("sageserve init a.yaml --trace t.csv --region x", ConfigError, "the regions are those of the trace"),
        ("sageserve init a.yaml --region us --region us", ConfigError, "--region us is given twice"),
        ("sageserve init a.yaml --model m --model m", ConfigError, "--model m is given twice"),
        ("sageserve init a.yaml --map a=b", TraceError, "no --trace was given"),
    ):
        with pytest.raises(error, match=re.escape(said)):
            CliRunner().invoke(app, shlex.split(line)[1:], catch_exceptions=False)
    assert (tmp_path / "fleet.yaml").read_text("utf-8") == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fleet.yaml", "t.csv"]
