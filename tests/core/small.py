"""A fleet small enough to know by heart, its scenario, and hand-made traces for it.

Two regions 70 ms apart, two models, eight GPUs per VM and instance. Any iteration takes 10 ms plus 20 us per prompt token, so a
lone request of 500 tokens has its first token after 20 ms. Read next: `test_fleet.py`, `tests/laws/test_known_mistakes.py`.
"""

from collections.abc import Iterable

import numpy as np

from sageserve.base.config import Scenario
from sageserve.base.records import UNSET, Trace
from sageserve.base.units import MINUTE, Micros
from sageserve.core.fleet import Fleet, State
from sageserve.core.layout import Layout, lay_out, names_of
from sageserve.core.strategies import StrategyKind, layout_of
from sageserve.data.scenarios.load import check

ENGINE: dict[str, object] = {
    "gpu": "h100",
    "tp": 8,
    "gpus": 8,
    "iteration_ms": [[1, 10.02], [10_001, 210.02]],
    "decode_us_per_sequence": 0.0,
    "kv_ns_per_token": 0.0,
    "attention_ns_per_token2": 0.0,
    "kv_tokens": 100_000,
    "source": "made up: 10 ms and 20 us per token",
}
__all__ = ["layout_of"]  # beside what is made here
PRICE = {"on_demand": "80/h", "reserved": "40/h", "spot": "8/h"}
TIERS: dict[str, object] = {
    "iw-f": {"ttft": "1s", "priority": 0},
    "iw-n": {"ttft": "60s", "priority": 1},
    "niw": {"deadline": "24h", "priority": 2},
}
Row = tuple[Micros, str, str, str, int, int]
"""Arrival, model, region, tier, prompt, output."""


def scenario(*, gpus: int = 80, **changes: object) -> Scenario:
    """The small scenario; `gpus` per region, `changes` replace whole sections."""
    stock = {"h100": {"gpus": gpus, "reserved": min(gpus, 16), "price": PRICE}}
    tree: dict[str, object] = {
        "name": "small",
        "gpus": {"h100": {"memory": "80GiB", "start": "10m"}},
        "regions": {"east": {"gpus": stock, "rtt": {"west": "70ms"}}, "west": {"gpus": stock}},
        "models": {name: {"context": 8_000, "engines": {"h100": ENGINE}} for name in ("big", "small")},
        "tiers": TIERS,
        "fleet": {"start": 2 if gpus >= 32 else 1, "minimum": 1, "maximum": 4},
        "admission": "off",  # everybody waits, so that what happens can be worked out by hand
    }
    return check(Scenario.model_validate(tree | changes))


def fleet_of(layout: Layout) -> Fleet:
    """A fleet in which nothing has started."""
    return Fleet(layout.pools, layout.stocks, layout.instances, np.zeros(layout.instances, np.int32))


def starts_by_role(kind: StrategyKind, settings: Scenario) -> tuple[int, ...]:
    """Instances that an endpoint starts with, by role; the same at every endpoint that has pools."""
    layout = lay_out(settings, kind.roles(settings), kind.minimum)
    counts = dict.fromkeys(((pool.region, pool.model, pool.role) for pool in layout.pools), 0)
    for pool, count in zip(layout.pools, kind.initial(settings, layout), strict=True):
        counts[pool.region, pool.model, pool.role] += count
    (same,) = {tuple(counts[g, m, o] for o in range(len(layout.roles))) for g, m, _ in counts}
    return same


def row(at: Micros, *, model: str = "big", region: str = "east", tier: str = "iw-f", prompt: int = 500, output: int = 10) -> Row:
    """One request."""
    return at, model, region, tier, prompt, output


def trace(settings: Scenario, rows: Iterable[Row], *, window: Micros = 0, deadlines: dict[int, Micros] | None = None) -> Trace:
    """A trace of rows in order of arrival; the window ends at the first whole minute after the last unless given."""
    names, listed = names_of(settings), sorted(rows, key=lambda one: one[0])
    deadline = np.full(len(listed), UNSET, np.int64)
    for number, time in (deadlines or {}).items():
        deadline[number] = time
    last = listed[-1][0] if listed else 0
    return Trace(
        arrival=np.array([one[0] for one in listed], np.int64),
        prompt=np.array([one[4] for one in listed], np.int32),
        output=np.array([one[5] for one in listed], np.int32),
        model=np.array([names.models.index(one[1]) for one in listed], np.uint8),
        region=np.array([names.regions.index(one[2]) for one in listed], np.uint8),
        tier=np.array([names.tiers.index(one[3]) for one in listed], np.uint8),
        names=names,
        window=window or (last // MINUTE + 1) * MINUTE,
        deadline=deadline,
    ).check()


def hours(fleet: Fleet, *states: State) -> float:
    """GPU-hours that instances of all pools passed in these states."""
    return sum(row[state] for row in fleet.ledger.gpu_us for state in states) / (60 * MINUTE)
