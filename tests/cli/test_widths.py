"""Every command's tables in narrow and wide terminals: no line is too long, no number is cut and none is missing.

Read next: `test_first_contact.py` for simulate and compare, `src/sageserve/cli/columns.py`.
"""

import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from sageserve.base.units import HOUR, MINUTE
from sageserve.cli.columns import WIDTH, StackedTable, terminal
from sageserve.cli.forecast import chart
from sageserve.cli.main import app
from sageserve.cli.top import picture
from sageserve.core.forecast import Series, forecaster
from tests.installed.commands import FEW
from tests.worlds import SMALL_FLEET

WIDTHS = (60, 80, 100, 140)
LONG = "a-model-with-a-name-of-forty-letters-it-has"
SMALL = ("--set", "workload.generate.requests=2000", "--set", "workload.generate.length=45m", "--no-report")
ANSI = re.compile(r"\x1b\[[0-9;]*m")
NUMBER = re.compile(r"[-+±$]?\d[\d.,]*(?:%|x|s|ms|m|h|d|/h)?")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, a trace whose model has a long name, and a series of it."""
    folder = tmp_path_factory.mktemp("widths")
    rows = "\n".join(f"{60 * i},{LONG},{LONG},{10_000 + 123 * i},{1_000 + 17 * i}" for i in range(90))
    (folder / "trace.csv").write_text(f"time,model,region,prompt_tokens,output_tokens\n{rows}\n", "utf-8")
    series = "\n".join(f"{600 * i},{1000 + i % 144},{10 + i % 7}" for i in range(48 * 6))
    (folder / "series.csv").write_text(f"t_s,{LONG},short\n{series}\n", "utf-8")
    for seed in ("1", "2"):
        done = CliRunner().invoke(
            app, ["simulate", SMALL_FLEET, "--strategy", "lt-ua", "--seed", seed, "--out", str(folder / seed), *SMALL]
        )
        assert done.exit_code == 0, done.output
    return folder


@pytest.mark.parametrize(
    "line",
    [
        "scenario list",
        "scenario show quickstart",
        "profile list",
        "profile list --model llama-3.1-8b",
        "profile show llama-3.1-8b/h100-80gb/tp1",
        "trace inspect trace.csv",
        "forecast series.csv --bin 1h",
        "show 1",
        "diff 1 2",
        "costs 1",
        f"plan {SMALL_FLEET} --at 10h",
        "explain 1 eastus/llama-2-70b",
        f"size {SMALL_FLEET} --workers 1 {' '.join(FEW)} --set tiers.iw-f.ttft=5s",
    ],
)
def test_no_number_is_cut_or_missing_in_any_terminal(line: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("FORCE_COLOR", "1")
    told = {}
    for width in (60, 140):  # what lies between is tried on a table of all kinds of columns below
        monkeypatch.setenv("COLUMNS", str(width))
        done = CliRunner().invoke(app, line.split(), catch_exceptions=False)
        assert done.exit_code == 0, done.output
        text = ANSI.sub("", done.stdout)
        assert "…" not in text
        told[width] = (text, {word for word in text.split() if NUMBER.fullmatch(word)})
    assert told[60][1] >= told[140][1]
    for width, (text, _) in told.items():
        lines = [one.rstrip() for one in text.splitlines() if "sageserve " not in one]  # a command is copied: never broken
        assert max(map(len, lines)) <= min(width, WIDTH)


@pytest.mark.parametrize("width", WIDTHS)
def test_parts_begin_with_the_keys_and_break_names_where_words_end(width: int) -> None:
    table = StackedTable("name", "tier", *(f"number {n}" for n in range(12)), left=2, keys=2, title="all")
    table.add_column("why")
    table.add_row(LONG, "iw-f", *(f"{n},123,456.7" for n in range(12)), "because of a reason with many words in it")
    console = Console(width=width)
    with console.capture() as captured:
        console.print(table)
    lines = captured.get().splitlines()
    assert max(map(len, lines)) <= width
    assert sum(line.startswith("name ") for line in lines) > 1
    for n in range(12):
        assert sum(f" {n},123,456.7" in line for line in lines) == 1
    assert lines[0].strip() == "all"
    assert all(line.split(" ")[0].endswith(("-", "has")) for line in lines[2:] if line.startswith("a-"))
    assert " ".join(captured.get().split()).count("reason") == 1


@pytest.mark.parametrize("width", WIDTHS)
def test_a_chart_is_as_wide_as_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(width))
    series = Series(np.tile([1.0, 4.0], 288), 10 * MINUTE)
    coming = forecaster("last-value").fit(series).predict(12 * HOUR // series.bin, (0.1, 0.9))
    lines = [line.plain for line in chart(series, coming, terminal().width)]
    assert max(map(len, lines)) <= min(width, WIDTH)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_running_fleet_fits_and_is_used_to_the_full_at_most(width: int) -> None:
    from tests.live.control.test_page import made  # noqa: PLC0415 # skipped, as that file is, where there is no browser

    console = Console(width=width)
    with console.capture() as captured:
        console.print(picture(made()))
    text = captured.get()
    assert max(len(line.rstrip()) for line in text.splitlines() if "http" not in line) <= width
    assert "100% +30%" in text
    assert "requests since control began" in text, "what is counted begins anew with control"
    assert not re.search(r"1[1-9]\d%", text)


def test_no_word_of_a_last_column_is_broken_where_there_is_room(capsys: pytest.CaptureFixture[str]) -> None:
    table = StackedTable("setting", "before", "after", left=3)
    table.add_row("fleet.start", "3", "4")
    terminal().print(table)
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["setting", "before", "after"],
        ["fleet.start", "3", "4"],
    ]
