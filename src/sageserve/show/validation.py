"""A validation as pictures: per run the curves second by second and the requests one by one, in one HTML file.

The file holds the script that draws it and needs no network. Computes nothing but sizes. Read next:
`data/measured/validation.py`.
"""

from html import escape
from typing import TYPE_CHECKING, Final

import numpy as np
import plotly.graph_objects as go
from plotly.io import to_html
from plotly.subplots import make_subplots

from sageserve.data.measured.validation import Curve, LatencyErrors, RunPicture, RunVerdict, Scatter, Validation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

BLOCKS: Final = " ▁▂▃▄▅▆▇█"
_MEASURED: Final = "#1f77b4"
_SIMULATED: Final = "#d95f02"
_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Measured and simulated engines</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}}
table{{border-collapse:collapse;margin:1rem 0}}td,th{{padding:.2rem .8rem;text-align:right;border-bottom:1px solid #ddd}}
th:first-child,td:first-child{{text-align:left}}</style></head>
<body><main><h1>Measured and simulated engines</h1>
<p>The first half of each run's requests was fitted, the second half judged. Dots on the line came out as measured.</p>
{body}</main></body></html>
"""


def sparkline(values: "Sequence[float]", most: float, width: int) -> str:
    """Bars of at most `width` characters; a full bar is `most`."""
    numbers = np.nan_to_num(np.array(values, np.float64))
    if len(numbers) == 0 or most <= 0:
        return ""
    parts = np.array_split(numbers, min(width, len(numbers)))
    heights = [min(1.0, max(0.0, float(part.mean()) / most)) for part in parts]
    return "".join(BLOCKS[round(height * (len(BLOCKS) - 1))] for height in heights)


def validation_page(found: Validation, pictures: "Mapping[str, RunPicture]") -> str:
    """The whole page."""
    parts, script = [], True
    for name, verdict in found.runs.items():
        parts.append(f"<section><h2>{escape(name)}</h2>{_table(verdict)}")
        for figure in _figures(pictures[name]):
            parts.append(to_html(figure, full_html=False, include_plotlyjs=script, default_height="24rem"))
            script = False
        parts.append("</section>")
    if found.means:
        parts.append(f"<section><h2>Runs of which only means are known</h2>{_means_table(found)}</section>")
    return _PAGE.format(body="\n".join(parts))


def percent(value: float | None, *, signed: bool = False) -> str:
    """Two digits of a percentage, or a dash."""
    if value is None:
        return "–"
    return f"{value * 100:+.2f}%" if signed else f"{value * 100:.2f}%"


def error_cells(errors: LatencyErrors) -> tuple[str, ...]:
    """E2E, TPOT and TTFT MAPE, then the three biases."""
    return (
        *(percent(value) for value in (errors.e2e_mape, errors.tpot_mape, errors.ttft_mape)),
        *(percent(value, signed=True) for value in (errors.e2e_bias, errors.tpot_bias, errors.ttft_bias)),
    )


def _table(verdict: RunVerdict) -> str:
    rows = {"first half (fitted)": verdict.fit, "second half (held out)": verdict.heldout}
    if verdict.counters is not None and verdict.counters.heldout is not None:
        rows["second half, from counters alone"] = verdict.counters.heldout
    titles = ("", "requests", "E2E", "TPOT", "TTFT", "E2E bias", "TPOT bias", "TTFT bias")
    return _html(titles, ((name, str(errors.requests), *error_cells(errors)) for name, errors in rows.items()))


def _means_table(found: Validation) -> str:
    titles = ("", "model", "GPUs", "E2E", "TPOT", "TTFT", "E2E after one point")
    return _html(
        titles,
        (
            (
                name,
                verdict.model,
                f"{verdict.tp} × {verdict.gpu}",
                *(percent(value, signed=True) for value in (verdict.e2e_error, verdict.tpot_error, verdict.ttft_error)),
                ", ".join(percent(value, signed=True) for value in verdict.one_point.values()) or "–",
            )
            for name, verdict in found.means.items()
        ),
    )


def _html(titles: "Sequence[str]", rows: "Iterable[Sequence[str]]") -> str:
    head = "".join(f"<th scope='col'>{escape(title)}</th>" for title in titles)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _figures(picture: RunPicture) -> "list[go.Figure]":
    found = [_requests(picture.scatters)]
    if picture.curves:
        found.insert(0, _seconds(picture.curves))
    return found


def _seconds(curves: "Sequence[Curve]") -> "go.Figure":
    figure = make_subplots(rows=1, cols=len(curves), subplot_titles=[curve.name for curve in curves])
    for column, curve in enumerate(curves, 1):
        for label, values, color in (("measured", curve.measured, _MEASURED), ("simulated", curve.simulated, _SIMULATED)):
            line = go.Scatter(
                x=curve.time_s.tolist(),
                y=values.tolist(),
                name=label,
                line={"color": color},
                legendgroup=label,
                showlegend=column == 1,
            )
            figure.add_trace(line, row=1, col=column)
        figure.update_xaxes(title_text="seconds", row=1, col=column)
    return figure


def _requests(scatters: "Sequence[Scatter]") -> "go.Figure":
    figure = make_subplots(rows=1, cols=len(scatters), subplot_titles=[f"{each.name} (s)" for each in scatters])
    for column, each in enumerate(scatters, 1):
        most = float(max(each.measured.max(), each.simulated.max()))
        figure.add_trace(
            go.Scatter(x=[0, most], y=[0, most], mode="lines", line={"color": "#999"}, showlegend=False), row=1, col=column
        )
        for label, wanted, color in (("first half", 0, _MEASURED), ("second half", 1, _SIMULATED)):
            rows = each.held == wanted
            dots = go.Scatter(
                x=each.measured[rows].tolist(),
                y=each.simulated[rows].tolist(),
                mode="markers",
                name=label,
                marker={"color": color, "size": 5},
                legendgroup=label,
                showlegend=column == 1,
            )
            figure.add_trace(dots, row=1, col=column)
        figure.update_xaxes(title_text="measured", row=1, col=column)
        figure.update_yaxes(title_text="simulated" if column == 1 else "", row=1, col=column)
    return figure
