"""Keys share what there is: under load each gets its weight, and one that asks for ten times its share costs others nothing.

In virtual time: the routing state, the shares and the accounts are the gateway's own, engines are queues that prefill one prompt
after the other. Read next: `src/sageserve/live/gateway/gateway_shares.py`, `tests/core/test_fair_share.py`.
"""

from collections import Counter
from dataclasses import dataclass, field
from heapq import heappop, heappush

import numpy as np
import pytest

from sageserve.base.config import KeySettings
from sageserve.base.units import SECOND
from sageserve.live.gateway.gateway_shares import GatewayShares
from sageserve.live.gateway.keys import KeyRing, hash_of
from sageserve.live.gateway.routing_state import RoutingState
from sageserve.live.gateway.targets import Placement
from tests.live.gateway.test_admission import IW_F, state

PROMPT = 500


@dataclass
class Seen:
    """What became of each key's requests."""

    asked: Counter[str] = field(default_factory=Counter)
    served: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)

    def share(self, name: str) -> float:
        return self.served[name] / self.served.total()

    def promise(self, name: str) -> float:
        return self.kept[name] / self.asked[name]


def play(offered: dict[str, float], weights: dict[str, float], seconds: int = 20) -> Seen:
    """Poisson arrivals, each key's in parts of what two engines can prefill."""
    routing, draw, seen = state(), np.random.Generator(np.random.PCG64(5)), Seen()
    keys = [KeySettings(name=name, sha256=hash_of(name.encode()), weight=weight) for name, weight in weights.items()]
    ring = KeyRing(keys, ("iw-f", "iw-n", "niw"))
    shares = GatewayShares(routing, ring)
    took = _weigh(routing).prefill
    per_us = 2 / took
    ends: list[tuple[int, int, str, int, Placement]] = []
    arrivals = sorted(
        (int(at), name)
        for name, load in offered.items()
        for at in np.cumsum(draw.exponential(1 / (load * per_us), int(load * per_us * seconds * SECOND)))
        if at < seconds * SECOND
    )
    free = [0, 0]
    for number, (now, name) in enumerate(arrivals):
        while ends and ends[0][0] <= now:
            end, _, owner, arrived, placed = heappop(ends)
            routing.begin(placed)
            routing.end(placed, 1, end)
            seen.kept[owner] += end - arrived <= SECOND
        seen.asked[name] += 1
        placed = _weigh(routing)
        if shares.admits(placed, ring.account(name), 0, now):
            routing.place(placed)
            engine = placed.target.row
            free[engine] = max(free[engine], now) + int(took)
            heappush(ends, (free[engine], number, name, now, placed))
            seen.served[name] += 1
    return seen


def _weigh(routing: RoutingState) -> Placement:
    target = routing.choose_at(0)
    assert target is not None
    return routing.weigh(target, PROMPT, 0, IW_F)


@pytest.mark.parametrize(
    ("offered", "weights", "wanted"),
    [
        ({"a": 2.0, "b": 6.0}, {"a": 1.0, "b": 1.0}, 1 / 2),
        ({"a": 3.0, "b": 3.0}, {"a": 3.0, "b": 1.0}, 3 / 4),
        ({"a": 0.6, "b": 5.0}, {"a": 1.0, "b": 1.0}, 1 / 2),
        ({"a": 0.2, "b": 5.0}, {"a": 1.0, "b": 1.0}, 1 / 5),
    ],
)
def test_under_saturation_each_key_gets_its_share_and_what_others_leave(
    offered: dict[str, float], weights: dict[str, float], wanted: float
) -> None:
    seen = play(offered, weights)
    assert seen.share("a") == pytest.approx(wanted, abs=0.05)


def test_a_key_that_asks_for_ten_times_its_share_costs_others_no_promise() -> None:
    weights = {"quiet": 1.0, "loud": 1.0}
    calm = play({"quiet": 0.4, "loud": 0.5}, weights)
    storm = play({"quiet": 0.4, "loud": 5.0}, weights)
    assert storm.promise("quiet") >= calm.promise("quiet") - 0.005
