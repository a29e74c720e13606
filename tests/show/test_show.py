"""`sageserve show`: numbers are the run's own, counted again by hand; the page fits, and is plain where nobody shows colours.

Read next: `test_verdict.py`, `src/sageserve/show/account.py`.
"""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from sageserve.base.errors import ResultError
from sageserve.base.units import SECOND
from sageserve.cli.columns import WIDTH
from sageserve.cli.main import app
from sageserve.core.actions import Blocked
from sageserve.data.results.run_folder import read_run
from sageserve.show.account import Account, account
from sageserve.show.format import NONE, change, count, listed, money, percent, seconds
from sageserve.show.spark import BARS, MISSING, PLAIN, bars
from sageserve.show.story import BLOCKED
from tests.show.conftest import fits


def shown(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["show", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def told(results: Path) -> Account:
    return account(read_run(results / "run"))


def test_the_account_holds_the_summary_itself(results: Path) -> None:
    found = json.loads(shown(str(results / "run"), "--json"))
    assert found["summary"] == json.loads((results / "run" / "summary.json").read_text())
    assert set(found) == {"summary", "verdict", "lines", "choices"}


def test_lines_add_up_to_the_tables(results: Path, told: Account) -> None:
    run = read_run(results / "run")
    lines = told.lines
    assert lines is not None
    requests, window = run.requests().to_pandas(), run.summary.window_s
    timeline = run.timeline().to_pandas()
    inside = timeline[timeline["time_us"] < window * SECOND]
    assert lines.bin_s * len(lines.endpoints[0].demand) == pytest.approx(window)
    for one in lines.endpoints:
        mine = requests[(requests["region"] == one.region) & (requests["model"] == one.model)]
        assert sum(one.demand) * lines.bin_s == pytest.approx(len(mine))
        first = mine["arrival_us"] < lines.bin_s * SECOND
        assert one.demand[0] * lines.bin_s == pytest.approx(first.sum())
        rows = inside[(inside["region"] == one.region) & (inside["model"] == one.model)]
        part = rows[rows["time_us"] < lines.bin_s * SECOND]
        assert one.serving[0] == pytest.approx(part["serving"].mean())
        assert one.utilisation[0] == pytest.approx((part["seen"] * part["serving"]).sum() / part["serving"].sum())
        assert max(one.serving) <= rows["serving"].max()
    for flow in lines.flows:
        there = requests[(requests["region"] == flow.origin) & requests["served_region"].notna()]
        assert flow.requests == (there["served_region"] == flow.served).sum()
        assert flow.share == pytest.approx(flow.requests / len(there))
    assert any(flow.origin != flow.served for flow in lines.flows)


def test_the_backlog_is_that_of_the_queue_and_the_oldest_job(results: Path, told: Account) -> None:
    run = read_run(results / "run")
    lines = told.lines
    assert lines is not None
    requests, timeline = run.requests().to_pandas(), run.timeline().to_pandas()
    assert {one.model for one in lines.backlog} == set(run.summary.models)
    assert max(max(one.waiting) for one in lines.backlog) > 0
    for one in lines.backlog:
        jobs = requests[(requests["tier"] == "niw") & (requests["model"] == one.model)]
        first = (jobs["arrival_us"] + jobs["ttft_us"].fillna(np.inf)).to_numpy(np.float64)
        arrival = jobs["arrival_us"].to_numpy()
        rows = timeline[timeline["model"] == one.model]
        for number in (0, len(one.waiting) // 2, len(one.waiting) - 1):
            begin, end = number * lines.bin_s * SECOND, (number + 1) * lines.bin_s * SECOND
            part = rows[(rows["time_us"] >= begin) & (rows["time_us"] < end)]
            assert one.waiting[number] == part["batch_waiting"].max()
            ages = [
                max([0.0, *(now - arrival[(arrival <= now) & (first > now)]).tolist()]) / SECOND
                for now in part["time_us"].unique()
            ]
            assert one.oldest_s[number] == pytest.approx(max(ages))


def test_decisions_are_those_of_the_journal(results: Path, told: Account) -> None:
    found = told.choices
    assert found is not None
    decisions = [decided.decision for line in read_run(results / "run").journal() for decided in line.decisions]
    assert found.decisions == len(decisions) == sum(one.decisions for one in found.reasons) > 0
    assert sum(one.done for one in found.reasons) == sum(one.done for one in decisions)
    for one in found.reasons:
        mine = [each for each in decisions if each.reason.value == one.reason and (each.change > 0) == (one.wanted > 0)]
        assert (one.decisions, one.wanted) == (len(mine), sum(each.change for each in mine))
    assert found.blocked
    for stopped in found.blocked:
        mine = [each for each in decisions if each.blocked.value == stopped.why]
        assert stopped.decisions == len(mine)
        assert stopped.missing == sum(abs(each.change - each.done) for each in mine)
        assert stopped.words == BLOCKED[Blocked(stopped.why)]
    assert max(abs(one.wanted) for one in found.largest) == max(abs(each.change) for each in decisions)
    assert all(one.words for one in found.largest)


def test_the_page_of_a_run_fits_and_tells_all(results: Path) -> None:
    text = shown(str(results / "run"))
    assert max(len(line) for line in text.splitlines()) <= WIDTH
    assert "\x1b" not in text
    summary = read_run(results / "run").summary
    for word in (
        *("promises", "demand", "capacity", "utilisation", "batch queue", "oldest job", "scale decisions", "region flows"),
        *(f"{summary.gpu_hours.total:.1f}", f"${summary.cost_usd.total:,.0f}", "eastus/llama-2-70b", "risk", "blocked", "notes"),
        *(f"{tier.finished:,}" for tier in summary.tiers.values()),
    ):
        assert word in text, word
    assert any(sum(letter in BARS for letter in line) > 40 for line in text.splitlines())


def test_the_page_of_a_comparison_has_the_verdict_and_the_spread(results: Path) -> None:
    text = shown(str(results / "three"))
    assert fits(text, results)
    assert text.startswith("Use reactive: ")
    for word in ("saves", "not siloed", "next", "±", "oracle"):
        assert word in text, word
    assert f"{results / 'three'}: 4,000 requests over 45m, fcfs, signal load, 3 seeds; mean" in " ".join(text.split())
    assert str(results / "three") in text, "a path is not broken"
    found = json.loads(shown(str(results / "three"), "--json"))
    assert found["verdict"]["strategy"] == "reactive"
    cell = next((results / "three").glob("siloed-seed2-*"))
    assert found["strategies"]["siloed"]["seeds"]["2"] == json.loads((cell / "summary.json").read_text())
    assert list(found["oracle"]["seeds"]) == ["1", "2", "3"]


def test_cells_of_other_settings_are_left_out(results: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(results / "three", mixed)
    for cell in (results / "four").glob("reactive-*"):
        shutil.copytree(cell, mixed / cell.name)  # keeps its time: written later than the others
    text = shown(str(mixed))
    assert "6 results of other settings in this folder are left out" in text
    assert "siloed" not in text.partition("left out")[0].replace("Against siloed", "")


def test_a_cell_of_a_comparison_is_told_by_its_summary(results: Path) -> None:
    cell = next((results / "three").glob("siloed-seed2-*"))
    result = CliRunner().invoke(app, ["show", str(cell)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "simulate" in result.stderr
    assert "capacity" not in result.stdout
    assert "siloed takes" in result.stdout


@pytest.mark.parametrize("missing", ["nowhere", "file", "empty", "damaged", "part", "sweep"])
def test_bad_folders_are_told(results: Path, tmp_path: Path, missing: str) -> None:
    place = tmp_path / missing
    if missing == "file":
        place.write_text("")
    elif missing in {"damaged", "part"}:
        shutil.copytree(results / "one", place)
        (place / "summary.json").write_text("{") if missing == "damaged" else (place / "journal.jsonl.zst").unlink()
    elif missing != "nowhere":
        place.mkdir()
        (place / "SWEEP").touch() if missing == "sweep" else None
    result = CliRunner().invoke(app, ["show", str(place)])
    assert isinstance(result.exception, ResultError)
    assert str(place) in result.exception.message
    assert result.exception.hint


def test_colours_are_for_terminals_that_want_them(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes the output for a terminal
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "140")
    coloured = shown(str(results / "run"))
    assert "\x1b[1m" in coloured
    assert max(len(line) for line in re.sub(r"\x1b\[[0-9;]*m", "", coloured).splitlines()) <= WIDTH
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in shown(str(results / "run"))


def test_outputs_without_the_characters_get_others(results: Path) -> None:
    result = CliRunner(charset="ascii").invoke(app, ["show", str(results / "run")], catch_exceptions=False)
    text = result.stdout_bytes.decode("ascii")
    assert "capacity" in text
    assert re.search(r"[_.\-:=+*#]{30}", text)


@given(st.lists(st.none() | st.floats(0, 1000), max_size=60), st.floats(1, 1000))
def test_bars_keep_order_and_scale(values: list[float | None], top: float) -> None:
    text = bars(values, top)
    assert len(text) == len(values)
    levels = [BARS.index(mark) if mark in BARS else None for mark in text]
    for value, level in zip(values, levels, strict=True):
        assert (level is None) == (value is None)
        if value is not None and level is not None:
            assert (level == 0) == (value == 0)
            assert level == len(BARS) - 1 if value >= top else level <= len(BARS) - 1
    known = sorted((v, n) for v, n in zip(values, levels, strict=True) if v is not None and n is not None)
    assert [level for _, level in known] == sorted(level for _, level in known)
    assert text.translate(PLAIN).isascii()
    assert MISSING not in BARS


def test_numbers_read_as_people_say_them() -> None:
    assert [percent(value) for value in (None, 0.99999, 1.0, 0.5)] == [NONE, "99.99%", "100%", "50.00%"]
    assert [seconds(value) for value in (None, 0.085, 2.494, 90.0, 7200.0, 1e6)] == [
        NONE,
        "85ms",
        "2.49s",
        "1.50m",
        "2.00h",
        "11.6d",
    ]
    assert [money(value, "USD") for value in (9.8, 2361.2, -9.8)] == ["$9.80", "$2,361", "-$9.80"]
    assert [money(value, "EUR") for value in (9.8, -2361.2)] == ["EUR 9.80", "-EUR 2,361"]
    assert [count(1, "seed"), count(3, "seed"), change(-0.113)] == ["1 seed", "3 seeds", "-11.3%"]
    assert [listed(()), listed(["a"]), listed(["a", "b", "c"])] == ["none", "a", "a, b and c"]
