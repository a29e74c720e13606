"""What each strategy costs for as much kept, as its one knob is turned: the frontier, by tier.

Read next: `sim/sweep/frontier.py` for how points come about, docs/reference/strategies.md.
"""

from collections.abc import Sequence

from sageserve.data.results.comparison import BoundPoint, Frontier, FrontierPoint
from sageserve.show.figures.parts import DASHES, Fields, Figure, FigureTable, Json, View, numbers, stroke

_SAYS = (
    "One knob of each strategy turned: the GPU-hours it needs, owed work included, against the share of requests kept in time."
    " Lower and further right is better. Hollow points are beaten: another strategy is more than 1 % cheaper and keeps as much in"
    " every tier, with every seed. The dotted line is the promise, the dashed one the share at which costs are compared. The grey"
    " curve is the oracle's bound: nobody who keeps the other promises can be below it."
)
_COST = "GPU-hours with owed work"
_HOURS = "gpu_hours_with_owed"
_BOUND = "bound"


def frontier(swept: Frontier) -> Figure:
    """Cost against share kept, a line for each strategy and a view for each tier."""
    tiers = dict.fromkeys(tier for points in swept.points.values() for one in points for tier in one.kept)
    tight = None if swept.matched is None else swept.matched.tier
    views = [_view(swept, tier) for tier in sorted(tiers, key=lambda tier: tier != tight)]
    none = "no setting was played to its end."
    return Figure("frontier", "What does as much kept cost?", _SAYS, views, nothing=none, notes=_matched(swept))


def _matched(swept: Frontier) -> tuple[str, ...]:
    match = swept.matched
    if match is None:
        return ("No two strategies keep the same, so their costs are not to be compared.",)
    found = {name: cost for name, cost in match.gpu_hours.items() if cost is not None}
    costs = ", ".join(f"{name} {cost:,.0f}" for name, cost in sorted(found.items(), key=lambda one: one[1]))
    never = ", ".join(name for name in match.gpu_hours if name not in found)
    least = f" Nobody can do it with less than {match.bound:,.0f} (the oracle's bound)." if match.bound else ""
    return (f"For {match.kept:.2%} of {match.tier} kept: {costs} GPU-hours" + (f"; never: {never}." if never else ".") + least,)


def _view(swept: Frontier, tier: str) -> View:
    bound = swept.bound.get(tier, ())
    traces = [
        *([_curve(bound)] if bound else []),
        *(_line(swept, name, tier, number) for number, name in enumerate(swept.points)),
    ]
    match = swept.matched
    shapes: list[Json] = []
    for x, dash in ((swept.promised.get(tier), "dot"), (match.kept if match and match.tier == tier else None, "dash")):
        if x is not None:
            at: Fields = {"type": "line", "x0": x * 100, "x1": x * 100, "y0": 0, "y1": 1, "yref": "y domain", "xref": "x"}
            shapes.append({**at, "line": stroke("@ink", dash, 1.5)})
    layout: Fields = {
        "height": 420,
        "hovermode": "closest",
        "xaxis": {"title": {"text": f"% of {tier} in time"}},
        "yaxis": {"title": {"text": _COST}},
        "shapes": shapes,
    }
    columns = ("strategy", "knob", _COST, "± over seeds", f"% of {tier} kept", "× bound", "beaten by")
    rows = tuple(
        (
            name,
            one.knob,
            *numbers((one.gpu_hours_with_owed, _deviation(one, _HOURS), _share(one, tier), one.over_bound or float("nan")), 6),
            by or "",
        )
        for name, points in swept.points.items()
        for one, by in zip(points, swept.beaten[name], strict=True)
    )
    alt = f"GPU-hours with owed work against the share of {tier} kept, for {', '.join(swept.points)}."
    tables = {"Points": FigureTable(columns, rows)}
    if bound:
        least = tuple(tuple(numbers((100 * one.kept, one.gpu_hours), 6)) for one in bound)
        tables["Bound"] = FigureTable((f"% of {tier} kept", "GPU-hours at least"), least)
    return View({"tier": tier}, alt, traces, layout, tables)


def _curve(bound: Sequence[BoundPoint]) -> Fields:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": _BOUND,
        "x": numbers([100 * one.kept for one in bound], 6),
        "y": numbers([one.gpu_hours for one in bound], 6),
        "line": stroke("@ink", "solid", 1),
        "opacity": 0.5,
        "col": "",
        "hovertemplate": "at least %{y:,.0f} GPU-hours for %{x:.2f}% kept<extra>" + _BOUND + "</extra>",
    }


def _line(swept: Frontier, name: str, tier: str, number: int) -> Fields:
    ranked = sorted(zip(swept.points[name], swept.beaten[name], strict=True), key=lambda one: _share(one[0], tier))
    points = [one for one, _ in ranked]
    colour = f"@c{number % 8}"
    more: Fields = {}
    if any(one.spread for one in points):
        more = {
            "error_x": _bars([100 * _deviation(one, tier) for one in points], colour),
            "error_y": _bars([_deviation(one, _HOURS) for one in points], colour),
        }
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": numbers([_share(one, tier) for one in points], 6),
        "y": numbers([one.gpu_hours_with_owed for one in points], 6),
        "text": [one.knob for one in points],
        "line": stroke(colour, DASHES[number % len(DASHES)], 1.5),
        "marker": {
            "size": 8,
            "color": colour,
            "symbol": ["circle" if by is None else "circle-open" for _, by in ranked],
        },
        "col": "",
        "hovertemplate": "%{text}<br>%{y:,.0f} GPU-hours, %{x:.2f}% kept<extra>" + name + "</extra>",
        **more,
    }


def _share(point: FrontierPoint, tier: str) -> float:
    return 100 * point.kept.get(tier, float("nan"))


def _deviation(point: FrontierPoint, what: str) -> float:
    return (point.spread or {}).get(what, 0.0)


def _bars(sizes: Sequence[float], colour: str) -> Fields:
    return {"type": "data", "array": numbers(sizes), "color": colour, "thickness": 1, "width": 3}
