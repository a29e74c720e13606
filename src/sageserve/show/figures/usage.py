"""Where GPU time and requests went: hours by state, utilisation of every endpoint over time, and flows between regions.

Hours are those of summary.json; only the split of serving into busy and idle comes from the timeline. Read next:
`show/minutes.py`.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from sageserve.base.units import MINUTE
from sageserve.data.results.summary import Hours
from sageserve.show.figures.parts import ALL, Fields, Figure, FigureTable, Json, View, numbers
from sageserve.show.minutes import means
from sageserve.show.reading import RunReading

_STATES = ("busy", "idle", "starting", "reclaiming", "draining", "spot")
_COLOURS = ("@c2", "@c4", "@c5", "@c7", "@c3", "@c6")
_PATTERNS = ("", "/", "x", "+", "\\", ".")
_HOURS = (
    "Busy and idle are the two parts of serving: an instance that serves and computes, and one that waits for requests. Starting,"
    " reclaiming and draining are waste: paid for, and not serving. Spot hours are donated and not paid for."
)


def hours(readings: Mapping[str, RunReading]) -> Figure:
    """Stacked bars: a bar per strategy, by model."""
    models = next(iter(readings.values())).digest.layout.names.models
    views = [_bars(readings, model) for model in ([ALL, *models] if len(models) > 1 else models)]
    return Figure("hours", "Where did the GPU-hours go?", _HOURS, views)


def split(one: RunReading, model: str) -> dict[str, float]:
    """GPU-hours by state; the first five add up to what summary.json says is held."""
    if model == ALL:
        parts = [split(one, each) for each in one.summary.models]
        return {state: sum(part[state] for part in parts) for state in _STATES}
    held: Hours = one.summary.models[model].gpu_hours
    busy = held.serving * min(1.0, one.minutes.busy_share(model))
    rest = {state: float(getattr(held, state)) for state in _STATES[2:]}
    return {"busy": busy, "idle": held.serving - busy, **rest}


def _pattern(shape: str) -> Fields:
    """The second channel beside colour."""
    return {"shape": shape, "fgcolor": "@bg", "fillmode": "overlay", "size": 7, "solidity": 0.2}


def _bars(readings: Mapping[str, RunReading], model: str) -> View:
    found = {name: split(one, model) for name, one in readings.items()}
    traces: list[Fields] = [
        {
            "type": "bar",
            "orientation": "h",
            "name": state,
            "y": list(found),
            "x": numbers([found[name][state] for name in found], 6),
            "marker": {"color": _COLOURS[k], "pattern": _pattern(_PATTERNS[k])},
            "hovertemplate": "%{y}: %{x:,.1f} GPU-hours " + state + "<extra></extra>",
        }
        for k, state in enumerate(_STATES)
    ]
    layout: Fields = {
        "barmode": "stack",
        "legend": {"traceorder": "normal"},
        "height": 150 + 44 * len(found),
        "hovermode": "closest",
        "xaxis": {"title": {"text": "GPU-hours"}},
        "yaxis": {"autorange": "reversed", "automargin": True, "showgrid": False},
    }
    rows: list[tuple[Json, ...]] = [(name, *(round(parts[state], 3) for state in _STATES)) for name, parts in found.items()]
    alt = "; ".join(f"{name}: " + ", ".join(f"{parts[state]:,.0f} {state}" for state in _STATES) for name, parts in found.items())
    table = FigureTable(("strategy", *(f"{state} (GPU h)" for state in _STATES)), tuple(rows))
    return View({"model": model}, f"GPU-hours by state, {model}. {alt}.", traces, layout, {"GPU-hours by state": table})


def heat(readings: Mapping[str, RunReading]) -> Figure:
    """Utilisation of every endpoint over time."""
    views = [_heat(name, one) for name, one in readings.items()]
    says = (
        "A row per endpoint, dark where it is idle and light where it is full: the signal the policies see (the larger"
        " of memory and engine"
        " time, unless the scenario says otherwise), mean of each moment. Blank: nothing served."
    )
    return Figure("heat", "Which endpoints were full, and when?", says, views, timed=True)


def _heat(name: str, one: RunReading) -> View:
    minutes, grid = one.minutes, one.digest.grid
    seen = np.where(minutes.columns["serving"] > 0, np.minimum(minutes.columns["seen"], 1), np.nan)
    group = max(1, grid.count // 360)  # more columns than pixels say nothing
    wide = means(minutes.times, np.nan_to_num(seen, nan=0.0), grid)
    there = means(minutes.times, np.isfinite(seen).astype(np.float64), grid)
    value = _grouped(np.where(there > 0, wide / np.maximum(there, 1e-9), np.nan), group)
    step = grid.width * group / MINUTE
    trace: Fields = {
        "type": "heatmap",
        "xt": [step / 2, step],
        "y": list(minutes.endpoints),
        "z": [numbers(row, 3) for row in value.T],
        "zmin": 0,
        "zmax": 1,
        "colorscale": "Cividis",
        "colorbar": {"title": {"text": "utilisation"}, "tickformat": ".0%", "thickness": 12},
        "hovertemplate": "%{y}<br>%{x|day %-j %H:%M}: %{z:.0%}<extra></extra>",
        "hoverongaps": False,
    }
    layout: Fields = {
        "height": 140 + 24 * len(minutes.endpoints),
        "hovermode": "closest",
        "yaxis": {"autorange": "reversed", "automargin": True, "showgrid": False, "ticks": ""},
    }
    mean = one.summary.utilisation.mean
    told = "" if mean is None else f" Mean over serving instances: {mean:.1%}."
    return View(
        {"strategy": name}, f"Utilisation of {len(minutes.endpoints)} endpoints over time under {name}.{told}", [trace], layout
    )


def _grouped(
    values: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]", group: int
) -> "np.ndarray[tuple[int, ...], np.dtype[np.float64]]":
    """Means of so many rows at a time, gaps left out."""
    if group == 1:
        return values
    pad = np.full((-len(values) % group, values.shape[1]), np.nan)
    block = np.concatenate((values, pad)).reshape(-1, group, values.shape[1])
    there = np.isfinite(block)
    count = there.sum(axis=1).astype(np.float64)
    count[count == 0] = np.nan
    return np.asarray(np.where(there, block, 0.0).sum(axis=1) / count)


def flows(readings: Mapping[str, RunReading]) -> Figure:
    """From the region of origin to the region that served."""
    names = next(iter(readings.values())).digest.layout.names
    title = "Where were requests served?"
    if len(names.regions) == 1:
        return Figure("flows", title, "", nothing="There is one region, so nothing can flow.")
    models = [ALL, *names.models] if len(names.models) > 1 else list(names.models)
    views = [_flows(name, one, model) for name, one in readings.items() for model in models]
    says = "Left: where requests arrive. Right: where they are served. Wide crossing bands mean that regions help each other out."
    return Figure("flows", title, says, views)


def _flows(name: str, one: RunReading, model: str) -> View:
    names = one.digest.layout.names
    counts = one.digest.flows.sum(axis=0) if model == ALL else one.digest.flows[names.models.index(model)]
    places = [*names.regions, "not served"]
    pairs = [(g, s, int(counts[g, s])) for g in range(len(names.regions)) for s in range(len(places)) if counts[g, s]]
    total = max(1, sum(count for _, _, count in pairs))
    away = sum(count for g, s, count in pairs if g != s) / total
    rows = tuple((names.regions[g], places[s], count, round(100 * count / total, 3)) for g, s, count in pairs)
    layout: Fields = {"height": 110 + 90 * len(names.regions), "hovermode": "closest"}
    alt = f"Requests of {model} under {name} from region of origin to region that served: {away:.1%} were served away from home."
    table = FigureTable(("origin", "served in", "requests", "% of all"), rows)
    sankey = _sankey(places, pairs)
    return View({"strategy": name, "model": model}, alt, [sankey], layout, {"Requests by origin and place": table})


def _sankey(places: Sequence[str], pairs: Sequence[tuple[int, int, int]]) -> Fields:
    regions = len(places) - 1
    total = max(1, sum(count for _, _, count in pairs))

    def told(place: str, word: str, side: int, number: int) -> str:
        count = sum(pair[2] for pair in pairs if pair[side] == number)
        return f"{word}{place} {count / total:.1%}"

    label: list[Json] = [told(place, "from ", 0, number) for number, place in enumerate(places[:-1])]
    label += [told(place, "in " if number < regions else "", 1, number) for number, place in enumerate(places)]
    used = {g for g, _, _ in pairs} | {regions + s for _, s, _ in pairs}
    order = sorted(used)
    return {
        "type": "sankey",
        "arrangement": "fixed",
        "node": {
            "label": [label[node] for node in order],
            "color": [f"@c{node % regions % 8}" if node < 2 * regions else "@c3" for node in order],
            "pad": 18,
            "thickness": 16,
            "line": {"width": 0},
            "hovertemplate": "%{label}: %{value:,} requests<extra></extra>",
        },
        "link": {
            "source": [order.index(g) for g, _, _ in pairs],
            "target": [order.index(regions + s) for _, s, _ in pairs],
            "value": [count for _, _, count in pairs],
            "color": [f"@c{g % 8}/55" for g, _, _ in pairs],
            "hovertemplate": "%{source.label}, served %{target.label}: %{value:,} requests<extra></extra>",
        },
    }
