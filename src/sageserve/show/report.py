"""The report: run folders in, one HTML file out that needs no network: verdict, numbers side by side, and figures below.

    write_report([Path("runs/day")], Path("report.html"))

Gathers, has things read and drawn, and fills the page; computes nothing itself. Equal folders give equal bytes: CPU times are
left out. Read next: `page.py` for the first screen, `reading.py` and `figures/` for the rest, docs/how-to/read-a-report.md.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from sageserve.base.errors import ResultError
from sageserve.core.strategies import STRATEGIES
from sageserve.data.results.comparison import Bound, Comparison, Frontier
from sageserve.data.results.run_folder import RunFolder, is_whole, read_run
from sageserve.data.results.summary import Summary
from sageserve.data.results.sweep_read import is_sweep, read_frontier, read_sweep
from sageserve.show.figures import batch, capacity, forecasts, promises, reasons, usage
from sageserve.show.figures.frontier import frontier
from sageserve.show.figures.parts import Figure, Json, View
from sageserve.show.page import FirstScreen, Preface, page_of
from sageserve.show.reading import RunReading, read

_TEMPLATES: Final = Path(__file__).parent / "templates"
_POINTS: Final = 720  # buckets per line of one run or two
_FEWER: Final = 1_800  # buckets per line, times strategies, of more: the file stays small
_FEWEST: Final = 240

Tell = Callable[[int, int], None]


@dataclass(slots=True)
class Material:
    """What was found in the folders.

    Args:
        runs: summaries by strategy (or folder, where two runs have one strategy and seed) and seed.
        bounds: the oracle's by seed.
        whole: by strategy, the first seed that has its requests, timeline and journal.
        notes: what the reader should know, in sentences.
        frontier: of a sweep over knobs; None where there was none.
    """

    runs: dict[str, dict[int, Summary]] = field(default_factory=dict)
    bounds: dict[int, Bound] = field(default_factory=dict)
    whole: dict[str, RunFolder] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    frontier: Frontier | None = None

    @property
    def comparison(self) -> Comparison:
        """Strategies in the order they are known by, other names after them."""
        known = [*STRATEGIES]
        names = sorted(self.runs, key=lambda name: (known.index(name) if name in known else len(known), name))
        return Comparison({name: self.runs[name] for name in names}, self.bounds)


def write_report(folders: Sequence[Path], out: Path, progress: Tell | None = None, preface: Preface | None = None) -> int:
    """Write the report of runs, of sweeps, or of both; the file appears under its name only when it is complete.

    Args:
        folders: of `simulate --out` and of `compare --out`.
        out: the file; an older one is replaced.
        progress: told how many runs of how many are read.
        preface: what it says beside the results.

    Returns:
        Its size in bytes.

    Raises:
        ResultError: a folder cannot be read, or the file not be written.
    """
    return write_page(report_html(gather(folders), progress, preface), out)


def write_page(page: str, out: Path) -> int:
    """Write a page; the file appears under its name only when it is complete. Gives its size in bytes.

    Raises:
        ResultError: it cannot be written.
    """
    text = page.encode()
    part = out.with_name(f".{out.name}.part-{os.getpid()}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(text)
        part.replace(out)
    except OSError as error:
        raise ResultError(f"{out} cannot be written: {error.strerror or error}", hint="choose another place with -o") from None
    finally:
        part.unlink(missing_ok=True)
    return len(text)


def gather(folders: Sequence[Path]) -> Material:
    """Everything that lies in the folders.

    Raises:
        ResultError: one of them is no result, or its results cannot be read.
    """
    found = Material()
    for folder in folders:
        if is_sweep(folder):
            _take_sweep(found, folder)
        else:
            _take_run(found, read_run(folder))
    shapes = {
        (run.scenario, run.window_s, run.requests.arrived) for runs in found.runs.values() for run in list(runs.values())[:1]
    }
    if len(shapes) > 1:
        told = "; ".join(sorted(f"{name}: {count:,} requests over {window / 3600:g} h" for name, window, count in shapes))
        found.notes.append(f"These runs did not play the same requests ({told}), so their costs cannot be compared one to one.")
    return found


def report_html(material: Material, progress: Tell | None = None, preface: Preface | None = None) -> str:
    """The page."""
    total = len(material.whole)
    buckets = _POINTS if total <= 2 else max(_FEWEST, min(_POINTS, _FEWER // total))
    readings: dict[str, RunReading] = {}
    for name in material.comparison.runs:
        if name in material.whole:
            readings[name] = read(material.whole[name], buckets)
            if progress is not None:
                progress(len(readings), total)
    page = page_of(material.comparison, readings, material.notes, preface)
    names = next(iter(readings.values())).digest.layout.names if readings else None
    window_s = max((run.summary.window_s for run in readings.values()), default=0.0)
    shown = Choosable(tuple(readings), () if names is None else names.models, window_s / 60)
    first = [] if material.frontier is None else [frontier(material.frontier)]
    return fill(page, [*first, *(figures_of(readings) if readings else [])], shown)


def figures_of(readings: Mapping[str, RunReading]) -> list[Figure]:
    """The sections, in order."""
    several = [capacity.fleet(readings)] if len(readings) > 1 else []
    return [
        *several,
        capacity.capacity(readings),
        promises.latencies(readings),
        promises.kept(readings),
        batch.backlog(readings),
        usage.heat(readings),
        usage.hours(readings),
        forecasts.forecasts(readings),
        usage.flows(readings),
        reasons.reasons(readings),
        reasons.plans(readings),
    ]


@dataclass(frozen=True, slots=True)
class Choosable:
    """What a reader of a page may choose to see: strategies, models, and a stretch of so many minutes."""

    strategies: tuple[str, ...]
    models: tuple[str, ...]
    minutes: float


def fill(page: FirstScreen, figures: Sequence[Figure], shown: Choosable) -> str:
    """The page as HTML.

    Args:
        page: its first screen.
        figures: below.
        shown: what their views differ in.
    """
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    drawn = [figure for figure in figures if figure.views]
    without = tuple(f"Without a figure here: {one.title} {one.nothing}" for one in figures if not one.views)
    return environment.get_template("report.html.j2").render(
        page=page,
        figures=told_once(page, drawn),
        without=without,
        strategies=list(shown.strategies),
        models=list(shown.models),
        minutes=shown.minutes,
        embedded=_embedded,
        view_json=_view,
        style=Markup((_TEMPLATES / "report.css").read_text("utf-8")),  # noqa: S704 # our own file
        script=Markup((_TEMPLATES / "report.js").read_text("utf-8")),  # noqa: S704 # our own file
        plotly=Markup(get_plotlyjs()),  # noqa: S704 # the library's own file
    )


def told_once(page: FirstScreen, figures: Sequence[Figure]) -> list[Figure]:
    """The figures without notes that were read further up."""
    told = {*page.notes, *(note for sheet in page.sheets for note in sheet.notes)}
    found = []
    for figure in figures:
        fresh = [note for note in dict.fromkeys(figure.notes) if note not in told]
        told.update(fresh)
        found.append(replace(figure, notes=tuple(fresh)))
    return found


def _view(view: View) -> Markup:
    tables = {title: {"columns": table.columns, "rows": table.rows} for title, table in view.tables.items()}
    return _embedded({"alt": view.alt, "data": view.data, "layout": view.layout, "tables": tables})


def _embedded(value: Json) -> Markup:
    """JSON that may stand inside a script element: no `<` can end it early."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))  # noqa: S704 # escaped in the same breath


def _take_sweep(found: Material, folder: Path) -> None:
    if found.frontier is None:
        found.frontier = read_frontier(folder)
    sweep = read_sweep(folder)
    found.bounds.update(sweep.bounds)
    if sweep.left:
        found.notes.append(f"{sweep.left} results with other settings lie in {folder.name} too; they are not shown.")
    thin = []
    for name, seeds in sweep.runs.items():
        found.runs.setdefault(name, {}).update({seed: run.summary for seed, run in seeds.items()})
        whole = next((run.path for run in seeds.values() if is_whole(run.path)), None)
        if whole is None:
            thin.append(name)
        else:
            found.whole.setdefault(name, read_run(whole))
    if thin:
        found.notes.append(
            f"Only the summaries of {', '.join(thin)} were kept, so their figures are missing: give the compare command"
            " again with --out."
        )


def _take_run(found: Material, run: RunFolder) -> None:
    name = run.summary.strategy
    if run.summary.seed in found.runs.get(name, {}):
        name = run.path.resolve().name  # two runs of one strategy and seed differ in settings: the folder tells them apart
        if name in found.runs:
            name = str(run.path)
    found.runs.setdefault(name, {})[run.summary.seed] = run.summary
    found.whole.setdefault(name, run)
