"""How promises were kept: latencies as cumulative shares on a log axis, and the share kept over time, by tier.

Read next: `show/reduce.py` for the bins.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from msgspec import UNSET

from sageserve.base.records import Floats, Ints
from sageserve.base.units import MINUTE
from sageserve.show.figures.parts import DASHES, Fields, Figure, Json, View, numbers, panel, panels, series, stroke
from sageserve.show.reading import RunReading
from sageserve.show.reduce import edges_s

_LATENCY = (
    "Each line rises to the share of finished requests that took no longer than the time below it: the further left,"
    " the faster. The"
    " dotted upright line is the promise. Exact p50, p95 and p99 are in the table of promises above."
)
_TICKS = (0.001, 0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 36000.0, 86400.0)
_LABELS = ("1ms", "10ms", "100ms", "1s", "10s", "1m", "10m", "1h", "10h", "24h")


def latencies(readings: Mapping[str, RunReading]) -> Figure:
    """CDFs of TTFT and E2E: of all tiers for one run, of all strategies for one tier where there are several."""
    some = next(iter(readings.values()))
    tiers = some.digest.layout.names.tiers
    if len(readings) == 1:
        lines = [(tier, some, k) for k, tier in enumerate(tiers)]
        views = [_cdf({}, lines, f"of each tier: {', '.join(tiers)}")]
    else:
        views = [
            _cdf({"tier": tier}, [(name, one, k) for name, one in readings.items()], f"of {tier}") for k, tier in enumerate(tiers)
        ]
    return Figure("latencies", "How long did requests wait?", _LATENCY, views)


def _cdf(keys: Mapping[str, str], lines: Sequence[tuple[str, RunReading, int]], what: str) -> View:
    paced = any(tier.itl_s is not None for _, one, _ in lines for tier in one.summary.tiers.values())
    kinds = {"TTFT": "Time to first token (TTFT)", "E2E": "Time to the last token (E2E)"}
    if paced:
        kinds["TPOT"] = "Time per token after the first (TPOT)"
    traces: list[Fields] = []
    for row, kind in enumerate(kinds):
        for number, (title, one, tier) in enumerate(lines):
            x, y = _cumulative({"TTFT": one.digest.ttft, "E2E": one.digest.e2e, "TPOT": one.digest.pace}[kind][tier])
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": title,
                    "x": numbers(x),
                    "y": numbers(y * 100, 5),
                    "line": stroke(f"@c{number % 8}", DASHES[number % len(DASHES)]),
                    "legendgroup": title,
                    "showlegend": row == 0,
                    "col": f"{kind} {title}: % of requests",
                    "hovertemplate": "%{y:.2f}% within %{x:.3s}s<extra>" + title + "</extra>",
                    **panel(row),
                }
            )
    layout = panels(list(kinds.values()), "% of requests", height=230)
    axis: dict[str, Json] = {"type": "log", "tickvals": list(_TICKS), "ticktext": list(_LABELS), "title": {"text": "time"}}
    layout["xaxis"] = {"anchor": f"y{len(kinds)}", **axis}
    layout["shapes"] = _promises(lines)
    times = "time to first token, to the last token and per token" if paced else "time to first token and time to last token"
    alt = f"Cumulative shares of requests by {times}, {what}, on a logarithmic time axis."
    return View(keys, alt, traces, layout)


def _promises(lines: Sequence[tuple[str, RunReading, int]]) -> list[Json]:
    """An upright line at each promise, in the panel of what is promised; none where it depends on the prompt."""
    shapes: list[Json] = []
    done = set()
    for number, (_, one, tier) in enumerate(lines):
        promised = one.summary.tiers[one.digest.layout.names.tiers[tier]]
        if tier in done:
            continue
        done.add(tier)
        axis = "y" if promised.promise == "ttft" else "y2"
        at = {} if promised.growth_s is not UNSET else {axis: promised.promise_s}
        if promised.itl_s is not None:
            at["y3"] = promised.itl_s
        colour = f"@c{number % 8}" if len(lines) == len({k for _, _, k in lines}) and len(lines) > 1 else "@ink"
        line = stroke(colour, "dot", 1.5)
        shapes += [
            {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": f"{axis} domain", "xref": "x", "line": line}
            for axis, x in at.items()
        ]
    return shapes


def _cumulative(counts: Ints) -> tuple[Floats, Floats]:
    """Latency and share at the bins where something is; nothing for nothing."""
    total = int(counts.sum())
    if total == 0:
        return np.zeros(0), np.zeros(0)
    share = np.cumsum(counts) / total
    first = int(np.flatnonzero(counts)[0])
    keep = np.zeros(len(counts), np.bool_)
    keep[max(0, first - 1) :] = True
    keep &= np.concatenate(([True], np.diff(share) > 0)) | (np.arange(len(counts)) == max(0, first - 1))
    return edges_s()[keep], share[keep]


def kept(readings: Mapping[str, RunReading]) -> Figure:
    """The share of requests whose promise was kept, by the time they arrived."""
    views = [_kept(name, one) for name, one in readings.items()]
    says = "By the time a request arrived. The dashed level is what was promised; a dip says when it was not kept."
    return Figure("kept", "When were promises missed?", says, views, timed=True)


def _kept(name: str, one: RunReading) -> View:
    tiers = one.digest.layout.names.tiers
    width = one.digest.grid.width * max(1, one.digest.grid.count // 240)  # few requests per bucket say little
    group = width // one.digest.grid.width
    step = width / MINUTE
    traces, shapes, bottoms = list[Fields](), list[Json](), list[float]()
    for number, tier in enumerate(tiers):
        share = _share(one.digest.met[number], one.digest.arrived[number], group)
        look: Fields = {
            "line": stroke(f"@c{number % 8}", width=1.6),
            "col": f"{tier}: % kept",
            "connectgaps": False,
            **panel(number),
        }
        traces.append(series(tier, share * 100, start=step / 2, step=step, **{**look, "showlegend": False}))
        axis = "y" if number == 0 else f"y{number + 1}"
        level = one.summary.tiers[tier].percentile * 100
        line = stroke("@ink", "dash", 1.2)
        shapes.append({"type": "line", "xref": "paper", "x0": 0, "x1": 1, "yref": axis, "y0": level, "y1": level, "line": line})
        bottoms.append(min(level, float(np.nanmin(share, initial=1.0)) * 100))
    layout = panels([f"{tier}: {one.summary.tiers[tier].percentile:.0%} promised" for tier in tiers], "% kept", height=140)
    for number, bottom in enumerate(bottoms):
        settings = layout["yaxis" if number == 0 else f"yaxis{number + 1}"]
        assert isinstance(settings, dict)
        settings |= {"range": [max(-1.0, bottom - 5), 101], "rangemode": "normal"}
    layout["shapes"] = shapes
    return View({"strategy": name}, f"Share of promises kept over time under {name}, one panel per tier.", traces, layout)


def _share(met: Ints, arrived: Ints, group: int) -> Floats:
    pad = -len(met) % group
    sums = [np.pad(one, (0, pad)).reshape(-1, group).sum(axis=1).astype(np.float64) for one in (met, arrived)]
    sums[1][sums[1] == 0] = np.nan
    return np.asarray(sums[0] / sums[1])
