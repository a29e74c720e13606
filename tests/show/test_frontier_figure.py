"""The frontier's figure: what it draws of points, by hand.

Read next: `src/sageserve/show/figures/frontier.py`.
"""

import json
from typing import Any

from msgspec.structs import replace

from sageserve.data.results.comparison import BoundPoint, Frontier, FrontierPoint, Match
from sageserve.show.figures.frontier import frontier
from sageserve.show.figures.parts import View


def point(knob: str, hours: float, chat: float, *, deviation: float | None = None) -> FrontierPoint:
    kept = {"chat": chat, "batch": 1.0}
    spread = None if deviation is None else {"gpu_hours_with_owed": deviation, "chat": deviation / 1000, "batch": 0.0}
    return FrontierPoint(knob, hours, kept, spread, {1: (hours, kept)})


def swept(*, deviation: float | None = None, match: bool = True) -> Frontier:
    points = {
        "a": (point("high 1", 100.0, 0.99, deviation=deviation), point("high 2", 80.0, 0.9, deviation=deviation)),
        "b": (point("worth 1", 90.0, 0.99, deviation=deviation),),
    }
    matched = Match("chat", 0.95, {"a": 91.0, "b": 90.0, "c": None}) if match else None
    return Frontier(points, {"a": ("b", None), "b": (None,)}, matched, {"chat": 0.95, "batch": 0.95}, ())


def sent(view: View) -> list[Any]:
    """Traces and layout as the page gets them."""
    found: list[Any] = json.loads(json.dumps([view.data, view.layout]))
    return found


def test_every_point_is_at_its_share_and_cost_and_hollow_when_beaten() -> None:
    view = frontier(swept()).views[0]
    assert view.keys == {"tier": "chat"}, "the tier that costs are compared for comes first"
    (first, second), layout = sent(view)
    assert (first["name"], first["x"], first["y"], first["text"]) == ("a", [90, 99], [80, 100], ["high 2", "high 1"])
    assert first["marker"]["symbol"] == ["circle", "circle-open"]
    assert (second["x"], second["y"]) == ([99], [90])
    assert [one["x0"] for one in layout["shapes"]] == [95, 95]
    assert ("a", "high 1", 100, 0, 99, None, "b") in view.tables["Points"].rows


def test_what_nobody_can_go_below_is_a_curve_of_its_own() -> None:
    plain = swept()
    points = {name: tuple(replace(one, over_bound=1.25) for one in mine) for name, mine in plain.points.items()}
    bound = {"chat": (BoundPoint(0.9, 60.0), BoundPoint(0.99, 80.0))}
    told = replace(plain, points=points, bound=bound, matched=Match("chat", 0.95, {"a": 91.0, "b": 90.0}, 71.4))
    drawn = frontier(told)
    (curve, *lines), _ = sent(drawn.views[0])
    assert (curve["name"], curve["x"], curve["y"], len(lines)) == ("bound", [90, 99], [60, 80], 2)
    assert drawn.views[0].tables["Bound"].rows == ((90, 60), (99, 80))
    assert ("a", "high 1", 100, 0, 99, 1.25, "b") in drawn.views[0].tables["Points"].rows
    assert "less than 71" in drawn.notes[0]
    assert "Bound" not in drawn.views[1].tables, "there is none of batch"


def test_spreads_are_bars_and_one_seed_has_none() -> None:
    assert all("error_y" not in one for one in frontier(swept()).views[0].data)
    drawn = sent(frontier(swept(deviation=3.0)).views[0])[0][0]
    assert drawn["error_y"]["array"] == [3, 3]
    assert drawn["error_x"]["array"] == [0.3, 0.3]


def test_it_says_what_as_much_kept_costs_and_who_never_keeps_it() -> None:
    assert frontier(swept()).notes == ("For 95.00% of chat kept: b 90, a 91 GPU-hours; never: c.",)
    assert "not to be compared" in frontier(swept(match=False)).notes[0]
    assert [view.keys["tier"] for view in frontier(swept(match=False)).views] == ["chat", "batch"]
    assert frontier(Frontier({}, {}, None, {}, ())).views == []
