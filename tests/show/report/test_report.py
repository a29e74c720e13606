"""The report's numbers: those of summary.json to the last digit, and reductions that a second, slower way confirms.

Read next: `test_report_browser.py` for what the page does.
"""

import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from typer.testing import CliRunner

from sageserve.base.errors import ResultError
from sageserve.base.units import MINUTE, SECOND
from sageserve.cli.main import app
from sageserve.data.results.comparison import Comparison
from sageserve.data.results.run_folder import REPORT, SCENARIO, SUMMARY, TIMELINE, check_folder, read_run
from sageserve.show.figures import forecasts, usage
from sageserve.show.figures.parts import Figure, View
from sageserve.show.minutes import line
from sageserve.show.page import page_of
from sageserve.show.reading import RunReading, read
from sageserve.show.reduce import BATCH, INTERACTIVE, TimeBuckets, edges_s
from sageserve.show.report import figures_of, gather, told_once, write_report
from tests.show.made import summary_of

POINTS = 1_500


class Cells(HTMLParser):
    """Every cell with an exact number: (table, row, key) and the number."""

    def __init__(self) -> None:
        super().__init__()
        self.table = self.row = ""
        self.found: list[tuple[str, str, str, float]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "div" and given.get("class") == "sheet":
            self.table = str(given["id"])
        if tag == "tr" and "data-row" in given:
            self.row = str(given["data-row"])
        if tag == "td" and "data-key" in given and "data-exact" in given:
            self.found.append((self.table, self.row, str(given["data-key"]), float(str(given["data-exact"]))))


def looked_up(summary: object, key: str) -> float:
    while key:  # the names of models have dots
        assert isinstance(summary, dict)
        part = max((name for name in summary if f"{key}.".startswith(f"{name}.")), key=len)
        summary, key = summary[part], key[len(part) + 1 :]
    assert isinstance(summary, int | float)
    return summary


@pytest.fixture(scope="module")
def reading(runs: dict[str, Path]) -> RunReading:
    return read(read_run(runs["foresight"]), 720)


def test_every_number_on_the_first_screen_is_that_of_summary_json(compared: Path, runs: dict[str, Path]) -> None:
    cells = Cells()
    cells.feed(compared.read_text("utf-8").split('id="plotly"')[0])
    first = [cell for cell in cells.found if cell[0] == "side-by-side"]
    assert {row for _, row, _, _ in first} == set(runs)
    assert len(first) >= len(runs) * 7  # hours, owed, cost, waste and three tiers
    for _, row, key, exact in cells.found:
        name, _, tier = row.partition(", ")
        assert not tier or key.startswith((f"tiers.{tier}.", f"cost_by.{tier.replace(' ', '.', 1)}."))
        assert exact == looked_up(json.loads((runs[name] / SUMMARY).read_text()), key), (row, key)


def test_the_first_screen_says_which_what_it_saves_and_what_it_risks(compared: Path) -> None:
    text = compared.read_text("utf-8").split('id="tools"')[0]
    assert 'class="chosen"' in text
    assert re.search(r'class="headline">Use \S+: [\d,.]+ GPU-hours', text)
    for word in ("What it risks", "What would help", "against reactive", "× bound", "promised"):
        assert word in text


def test_a_note_is_read_once_and_no_card_is_empty(compared: Path, alone: Path) -> None:
    for page in (compared, alone):
        text = page.read_text("utf-8").split('id="settings"')[0]
        notes = re.findall(r'<p class="note">(.*?)</p>', text, re.DOTALL)
        assert len(notes) == len(set(notes)) >= 1
        assert "nothing to show" not in page.read_text("utf-8")
        for section in text.split('<section class="figure"')[1:]:
            assert 'class="plot"' in section
            assert 'class="view"' in section
    one = Figure("a", "A?", "", [View({}, "all", [])], notes=("said", "said", "new"))
    first = page_of(Comparison({"reactive": {1: summary_of("reactive", 1, 9.0, {"iw-f": 0.99})}}, {}), {}, ["said"])
    assert [figure.notes for figure in told_once(first, [one, one])] == [("new",), ()]


def test_equal_folders_give_equal_bytes_and_nothing_is_left_behind(runs: dict[str, Path], tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_report([runs["reactive"]], tmp_path / f"{name}.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "b.html"]


def test_every_figure_has_words_for_those_who_do_not_see_it(runs: dict[str, Path]) -> None:
    readings = {name: read(read_run(path), 720) for name, path in runs.items()}
    figures = figures_of(readings)
    assert len({figure.name for figure in figures}) == len(figures) >= 11
    for figure in figures:
        assert figure.title.endswith("?")
        assert figure.views or figure.nothing
        for view in figure.views:
            assert len(view.alt) > 30, figure.name
            for trace in view.data:
                y = trace.get("y", [])
                assert isinstance(y, list)
                assert len(y) <= POINTS
                assert json.dumps(trace, allow_nan=False)


def test_hours_by_state_add_up_to_what_is_held(reading: RunReading) -> None:
    parts = usage.split(reading, "all models")
    held = reading.summary.gpu_hours
    assert sum(value for state, value in parts.items() if state != "spot") == pytest.approx(held.total, abs=1e-4)
    assert parts["busy"] + parts["idle"] == pytest.approx(held.serving, abs=1e-4)
    assert 0 < parts["busy"] < held.serving


def test_requests_are_counted_as_the_summary_counts_them(reading: RunReading) -> None:
    digest, summary = reading.digest, reading.summary
    assert digest.flows.sum() == summary.requests.arrived
    for k, (name, tier) in enumerate(summary.tiers.items()):
        assert name == digest.layout.names.tiers[k]
        assert digest.arrived[k].sum() == tier.requests
        assert digest.ttft[k].sum() == digest.e2e[k].sum() == tier.finished
        assert tier.attainment is not None
        assert digest.met[k].sum() / tier.requests == pytest.approx(tier.attainment, abs=1e-5)
        assert (tier.tpot_s is not UNSET) == (name == "iw-f"), "of the one that promises it"
        paced = [] if tier.tpot_s is UNSET else [(digest.pace[k], tier.tpot_s.p95)]
        for counts, exact in ((digest.ttft[k], tier.ttft_s.p95), (digest.e2e[k], tier.e2e_s.p95), *paced):
            at = int(np.searchsorted(np.cumsum(counts), 0.95 * counts.sum()))
            assert edges_s()[at] == pytest.approx(exact, rel=0.05)  # two bins, where few requests lie between neighbours


def test_times_per_token_have_a_panel_of_their_own_where_they_are_promised(runs: dict[str, Path]) -> None:
    readings = {name: read(read_run(path), 720) for name, path in runs.items()}
    (figure,) = (one for one in figures_of(readings) if one.name == "latencies")
    by_tier = {view.keys["tier"]: view for view in figure.views}
    for tier, view in by_tier.items():
        assert {str(trace["col"]).partition(" ")[0] for trace in view.data} == {"TTFT", "E2E", "TPOT"}
        shapes = view.layout["shapes"]
        assert isinstance(shapes, list)
        lines = {shape["yref"]: shape["x0"] for shape in shapes if isinstance(shape, dict)}
        assert (
            lines
            == {"iw-f": {"y domain": 1.0, "y3 domain": 0.2}, "iw-n": {"y domain": 60.0}, "niw": {"y2 domain": 86400.0}}[tier]
        )


def test_no_strategy_keeps_more_than_what_an_idle_engine_could(runs: dict[str, Path]) -> None:
    for path in runs.values():
        one = read(read_run(path), 720)
        tier = one.summary.tiers["iw-f"]
        assert tier.attainment is not None
        assert 0 < one.digest.hopeless[0] <= (1 - tier.attainment) * tier.requests + 1


def test_demand_is_the_work_that_requests_bring(reading: RunReading, runs: dict[str, Path]) -> None:
    table = read_run(runs["foresight"]).requests(["prompt_tokens", "arrival_us", "tier"])
    batch = np.array(table["tier"].to_pylist()) == "niw"
    prompts = table["prompt_tokens"].to_numpy()
    seconds = (
        np.diff(np.minimum(np.arange(reading.digest.tokens.shape[2] + 1) * 15 * MINUTE, reading.digest.grid.window)) / SECOND
    )
    assert (reading.digest.tokens.sum(axis=(0, 1)) * seconds).sum() == pytest.approx(prompts[~batch].sum())
    busy = reading.digest.work.sum(axis=(0, 1))
    assert busy[INTERACTIVE].sum() > 0
    assert busy[BATCH].sum() > 0
    burst = slice(40, 60)
    assert busy[INTERACTIVE, burst].mean() > 1.5 * np.delete(busy[INTERACTIVE], range(40, 60)).mean()


def test_batch_work_is_as_old_as_a_look_at_every_job_says(reading: RunReading, runs: dict[str, Path]) -> None:
    table = read_run(runs["foresight"]).requests(["arrival_us", "e2e_us", "tier", "deadline_us"])
    mine = np.array(table["tier"].to_pylist()) == "niw"
    arrival, e2e = (table[name].fill_null(2**60).to_numpy()[mine] for name in ("arrival_us", "e2e_us"))
    jobs, grid = reading.digest.jobs, reading.digest.grid
    assert jobs is not None
    assert jobs.outstanding.max() > 10
    for bucket in range(0, grid.count, 7):
        now = min((bucket + 1) * grid.width, grid.window)
        there = (arrival < now) & (arrival + e2e >= now)
        assert jobs.outstanding[bucket] == there.sum()
        oldest = (now - arrival[there].min()) / SECOND if there.any() else 0.0
        assert oldest <= jobs.oldest_s[bucket] + 1e-6
        assert jobs.oldest_s[bucket] <= oldest + 60


def test_a_forecast_is_judged_by_the_newest_that_was_made_before(reading: RunReading) -> None:
    seen = forecasts.seen(reading, 0, 0)
    made = [one for one in reading.chronicle.forecasts if one.points[0]]
    assert made
    for number in range(len(seen.point)):
        begins, ends = number * 15 * MINUTE, (number + 1) * 15 * MINUTE
        before = [one for one in made if one.made < ends and one.start <= begins < one.start + len(one.points[0]) * one.bin]
        if before:
            newest = before[-1]
            expected = newest.points[0][(begins - newest.start) // newest.bin] / (newest.bin / SECOND)
            assert seen.point[number] == pytest.approx(expected)
        else:
            assert np.isnan(seen.point[number])


def values_over_time() -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, 100), min_size=2, max_size=400)


@given(values=values_over_time(), most=st.integers(1, 40))
def test_a_shortened_line_keeps_its_highest_and_lowest(values: list[int], most: int) -> None:
    times = np.arange(len(values)) * MINUTE
    grid = TimeBuckets.over(len(values) * MINUTE, most)
    drawn = line(times, np.array(values, float), grid)
    assert len(drawn.values) <= 2 * grid.count + 2
    assert drawn.values.max() == max(values)
    assert drawn.values.min() == min(values)


@given(window=st.integers(1, 40 * 24 * 60 * MINUTE), most=st.integers(10, 1000))
def test_a_grid_covers_its_window(window: int, most: int) -> None:
    grid = TimeBuckets.over(window, most)
    assert (grid.count - 1) * grid.width < window <= grid.count * grid.width
    assert grid.lengths().sum() == pytest.approx(window / SECOND, rel=1e-6)


def test_what_people_write_cannot_break_the_page(runs: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(runs["reactive"], folder)
    text = (folder / SCENARIO).read_text("utf-8")
    evil = "</script><img src=x onerror=alert(1)>"
    (folder / SCENARIO).write_text(re.sub(r"^about:.*(\n  .*)*", f'about: "{evil}"', text, flags=re.MULTILINE), "utf-8")
    write_report([folder], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "onerror=alert(1)&gt;" in page
    assert evil not in page


def test_a_sweep_with_summaries_alone_says_what_is_missing(swept: Path, tmp_path: Path) -> None:
    thin = tmp_path / "thin"
    shutil.copytree(swept, thin)
    for path in thin.glob(f"*/{TIMELINE}"):
        path.unlink()
    material = gather([thin])
    assert not material.whole
    assert any("summaries" in note for note in material.notes)
    write_report([thin], tmp_path / "page.html")
    assert 'class="figure"' not in (tmp_path / "page.html").read_text("utf-8")


def test_runs_of_one_strategy_are_told_apart_by_their_folders(runs: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(runs["reactive"], tmp_path / "again")
    assert list(gather([runs["reactive"], tmp_path / "again"]).runs) == ["reactive", "again"]


def called(*arguments: str) -> Iterator[str]:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    yield from (result.stdout, result.stderr)


def test_simulate_writes_it_and_a_newer_result_replaces_it(tmp_path: Path) -> None:
    small = ("simulate", "quickstart", "--set", "workload.generate.requests=2000", "--set", "workload.generate.length=30m")
    list(called(*small, "--out", str(tmp_path / "run")))
    assert "SageServe" in (tmp_path / "run" / REPORT).read_text("utf-8")
    check_folder(tmp_path / "run", replace=True)
    list(called(*small, "--out", str(tmp_path / "run"), "--replace", "--no-report"))
    assert not (tmp_path / "run" / REPORT).exists()


def test_report_names_its_file_and_refuses_what_is_no_result(runs: dict[str, Path], tmp_path: Path) -> None:
    out, told = called("report", str(runs["lt-ua"]), "-o", str(tmp_path / "page.html"))
    assert out.strip() == str(tmp_path / "page.html")
    assert "MB" in told
    with pytest.raises(ResultError, match="no result folder"):
        write_report([tmp_path / "nothing"], tmp_path / "page.html")
