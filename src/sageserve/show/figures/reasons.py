"""Why capacity was changed: instances added and taken away by reason, and what each plan said of each pool.

Read next: `show/why.py` for the words of plans, `show/chronicle.py`.
"""

from collections.abc import Mapping
from typing import Final

from sageserve.base.units import MINUTE
from sageserve.core.actions import Reason
from sageserve.show.chronicle import REASONS, Chronicle
from sageserve.show.figures.parts import Fields, Figure, FigureTable, Json, View, clock, numbers, wrapped
from sageserve.show.reading import RunReading

_KINDS: Final = (
    ("short", "short"),
    ("demand", "demand"),
    ("interactive demand", "demand"),
    ("batch work", "batch work"),
    ("the endpoint's minimum", "minimum"),
    ("one less, and the loss", "spare for a loss"),
    ("needed", "needed later"),
    ("on its way", "needed later"),
    ("with the others", "cheapest mix"),
    ("nothing needs it", "nothing needs it"),
)
_KIND_NAMES: Final = tuple(dict.fromkeys(kind for _, kind in _KINDS))
_OTHER: Final = "other"


def reasons(readings: Mapping[str, RunReading]) -> Figure:
    """Bars: instances added to the right, taken away to the left, by reason."""
    views = [_bars(name, one.chronicle) for name, one in readings.items()]
    says = (
        "Every decision has one reason from a closed list. Instances added reach to the right, instances taken away to"
        " the left; the pale part"
        " was wanted and could not be done."
    )
    return Figure("reasons", "Why was capacity changed?", says, views)


def _bars(name: str, told: Chronicle) -> View:
    used = [reason for reason in Reason if any(change.reason is reason for change in told.changes)]
    rows = []
    for reason in used:
        mine = [change for change in told.changes if change.reason is reason]
        up, down = ([one for one in mine if (one.change > 0) == way] for way in (True, False))
        added, removed = sum(one.done for one in up), sum(one.done for one in down)
        missed = sum(one.change - one.done for one in up), sum(one.change - one.done for one in down)
        rows.append((REASONS[reason], len(mine), added, -abs(removed), missed[0], -abs(missed[1])))
    titles: list[Json] = [row[0] for row in rows]
    kinds = (("added", 2, "@c2"), ("taken away", 3, "@c3"), ("wanted more", 4, "@c2/44"), ("wanted fewer", 5, "@c3/44"))
    traces: list[Fields] = [
        {
            "type": "bar",
            "orientation": "h",
            "name": title,
            "y": titles,
            "x": [row[column] for row in rows],
            "marker": {
                "color": colour,
                "pattern": {"shape": "" if column < 4 else "/", "fgcolor": "@ink", "fillmode": "overlay", "solidity": 0.1},
            },
            "hovertemplate": "%{y}: %{x:+,} instances " + title + "<extra></extra>",
        }
        for title, column, colour in kinds
    ]
    layout: Fields = {
        "barmode": "relative",
        "height": 170 + 40 * len(rows),
        "hovermode": "closest",
        "xaxis": {"title": {"text": "instances"}},
        "yaxis": {"autorange": "reversed", "automargin": True, "showgrid": False},
    }
    columns = ("reason", "decisions", "added", "taken away", "wanted more, not done", "wanted fewer, not done")
    words = "; ".join(f"{row[0]}: {row[1]} decisions, {row[2]:+d} and {row[3]:+d} instances" for row in rows)
    alt = f"Scale decisions under {name} by reason. {words or 'There were none'}."
    return View({"strategy": name}, alt, traces, layout, {"Decisions by reason": FigureTable(columns, tuple(rows))})


def plans(readings: Mapping[str, RunReading]) -> Figure:
    """What each plan said of each pool: a row per pool, a column per plan."""
    title = "What did the plans say, and why?"
    with_one = {name: one for name, one in readings.items() if one.chronicle.plans}
    silent = [name for name in readings if name not in with_one]
    verb = "makes" if len(silent) == 1 else "make"
    words = f"{' and '.join(silent)} {verb} no plan: decisions above are the whole reason."
    notes = [words] if silent and with_one else []
    says = (
        "A row per pool, a column per plan. The colour is what holds the pool's number; hover for the target and the"
        " reason. Ask more with"
        " sageserve explain, which solves the plan again with one more and one less."
    )
    views = [_plans(name, one) for name, one in with_one.items()]
    return Figure("plans", title, says, views, timed=True, nothing="" if views else words, notes=notes)


def kind_of(words: str) -> str:
    """The group of a plan's reason, from how its sentence begins."""
    return next((kind for begin, kind in _KINDS if words.startswith(begin)), _OTHER)


def _plans(name: str, one: RunReading) -> View:
    told = one.chronicle
    kinds = [*_KIND_NAMES, _OTHER]
    found = [[kinds.index(kind_of(plan.reasons[p])) for plan in told.plans] for p in range(len(told.pools))]
    used = sorted({kind for row in found for kind in row})
    codes = [[used.index(kind) for kind in row] for row in found]
    scale: list[Json] = []
    for number, kind in enumerate(used):
        scale += [[number / len(used), f"@k{kind}"], [(number + 1) / len(used), f"@k{kind}"]]
    key: list[Json] = [[kinds[kind], f"@k{kind}"] for kind in used]
    trace: Fields = {
        "type": "heatmap",
        "xm": numbers([plan.at / MINUTE for plan in told.plans], 7),
        "y": list(told.pools),
        "z": [[code + 0.5 for code in row] for row in codes],
        "text": [
            [f"<b>target {plan.targets[p]}</b><br>{wrapped(plan.reasons[p])}" for plan in told.plans]
            for p in range(len(told.pools))
        ],
        "zmin": 0,
        "zmax": len(used),
        "colorscale": scale,
        "showscale": False,
        "key": key,
        "hovertemplate": "%{y}<br>plan of %{x|day %-j %H:%M}<br>%{text}<extra></extra>",
        "xgap": 0,
        "ygap": 2,
    }
    layout: Fields = {
        "height": 150 + 26 * len(told.pools),
        "hovermode": "closest",
        "yaxis": {"autorange": "reversed", "automargin": True, "showgrid": False, "ticks": ""},
    }
    last = told.plans[-1]
    rows = tuple((pool, last.targets[p], last.reasons[p]) for p, pool in enumerate(told.pools))
    troubles = [(clock(plan.at / MINUTE), "; ".join(plan.short)) for plan in told.plans if plan.short]
    troubles += [(clock(at / MINUTE), f"no plan: {why}") for at, why in told.failures]
    tables = {f"The last plan, {clock(last.at / MINUTE)}": FigureTable(("pool", "target", "why"), rows)}
    if troubles:
        tables["What plans could not give"] = FigureTable(("plan of", "what is short"), tuple(troubles))
    short = sum(bool(plan.short) for plan in told.plans)
    alt = (
        f"{len(told.plans)} plans of {name} for {len(told.pools)} pools, {short} of them short of something,"
        f" {len(told.failures)} asked for and not made."
    )
    return View({"strategy": name}, alt, [trace], layout, tables)
