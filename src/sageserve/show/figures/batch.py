"""Non-interactive work: what is left to do, how old the oldest of it is, and how near to their deadlines jobs finish.

Read next: `show/reduce.py`, `BatchSeries`.
"""

from collections.abc import Mapping

import numpy as np

from sageserve.base.units import MINUTE
from sageserve.show.figures.parts import Fields, Figure, Json, View, panel, panels, series, stroke
from sageserve.show.minutes import line
from sageserve.show.reading import RunReading

_SAYS = (
    "Top: jobs that arrived and are not done, and those of them that wait in the batch queue. Middle: how long the"
    " oldest unfinished job"
    " has been there. Bottom: hours that were left to the deadline when jobs finished, the closest of each moment;"
    " below zero is too late."
)


def backlog(readings: Mapping[str, RunReading]) -> Figure:
    """The figure."""
    title = "Is non-interactive work in danger of being late?"
    views = [_view(name, one) for name, one in readings.items() if one.digest.jobs is not None]
    return Figure(
        "backlog", title, _SAYS, views, timed=True, nothing="" if views else "No tier of this scenario is a batch tier."
    )


def _view(name: str, one: RunReading) -> View:
    jobs, grid, minutes = one.digest.jobs, one.digest.grid, one.minutes
    assert jobs is not None
    step = grid.width / MINUTE
    queued = line(minutes.times, _queued(one), grid)

    def curve(title: str, values: object, row: int, look: Fields) -> Fields:
        more: Fields = {"line": look, "col": title, **panel(row)}
        return series(title, np.asarray(values, np.float64), start=step, step=step, **more)

    unit, second = ("hours", 3600.0) if float(jobs.oldest_s.max(initial=0)) >= 2 * 3600 else ("minutes", 60.0)
    traces = [
        curve("not done", jobs.outstanding, 0, stroke("@c0")),
        series("in the batch queue", queued.values, start=queued.start, step=queued.step, line=stroke("@c1", "dash", 1.5)),
        curve(f"age of the oldest ({unit})", jobs.oldest_s / second, 1, stroke("@c3")),
        {**curve("closest to its deadline (hours left)", jobs.slack_s / 3600, 2, stroke("@c2")), "mode": "lines+markers"},
    ]
    traces[3]["marker"] = {"size": 3, "color": "@c2"}
    layout = panels(["Jobs", "Age of the oldest job", "Time left when done"], ["jobs", unit, "hours"], height=150)
    late = int((jobs.slack_s < 0).sum())
    lines: list[Json] = [_level("y3", 0.0)]
    if (
        float(np.max(jobs.oldest_s, initial=0)) > jobs.patience_s / 3 and second == 3600.0
    ):  # else the level would flatten the line
        lines.append(_level("y2", jobs.patience_s / 3600))
    layout["shapes"] = lines
    worst = np.nanmin(jobs.slack_s) / 3600 if np.isfinite(jobs.slack_s).any() else float("nan")
    alt = (
        f"Batch work under {name}: at most {jobs.outstanding.max(initial=0):,} jobs unfinished, the oldest"
        f" {jobs.oldest_s.max(initial=0) / 3600:.1f} hours old; the closest job had {worst:.1f} hours left."
        f" {'No moment with a late job.' if late == 0 else f'{late} moments with late jobs.'}"
    )
    return View({"strategy": name}, alt, traces, layout)


def _queued(one: RunReading) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """float64[T]: jobs in batch queues; the timeline tells each model's once per endpoint."""
    first = [one.minutes.rows(model=model)[0] for model in dict.fromkeys(one.minutes.models)]
    return np.asarray(one.minutes.columns["batch_waiting"][:, first].sum(axis=1).astype(np.float64))


def _level(axis: str, value: float) -> Json:
    line = stroke("@ink", "dash", 1.2)
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "yref": axis, "y0": value, "y1": value, "line": line}
