"""How a model's requests are shared among regions until the next scrape: as our own router would, asked for a hundred of them.

The router looks at a region, counts what it has sent there since the scrape, and goes on to the next when that is full. Envoy
only knows shares; so the router is asked for a hundred requests that stand for as much work as comes in that time, and what it
says is counted. Read next: `core/route.py`; `gateway/routing_state.py`, which is asked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sageserve.base.units import Micros
from sageserve.live.gateway.routing_state import RoutingState

ASKED: Final = 100


@dataclass(frozen=True, slots=True)
class Traffic:
    """What comes until the next scrape.

    Args:
        rates: engine time per time that was sent to endpoints of late, by whom this is about.
        scraped: when signals were scraped, by the router's clock.
        ahead: until they are again.
        region: where requests come from.
        tier: of them.
    """

    rates: Mapping[int, float]
    scraped: Micros
    ahead: Micros
    region: int
    tier: int


def shares_of(routing: RoutingState, walk: Sequence[int], traffic: Traffic) -> dict[int, int]:
    """Of a hundred requests, how many go to each endpoint; empty: none is open.

    Args:
        routing: as it was last told; it is left as it was.
        walk: endpoints of the model, nearest first.
        traffic: what comes.
    """
    rates, ahead = traffic.rates, traffic.ahead
    ways = [e for e in walk if routing.loads[e].targets]
    if len(ways) <= 1:
        return dict.fromkeys(ways, ASKED)
    before = [routing.columns[e]["offered"] for e in ways]
    work = sum(rates.get(e, 0.0) for e in walk) * ahead / ASKED
    sent = dict.fromkeys(ways, 0)
    for turn in range(ASKED):
        passed = turn * ahead // ASKED
        for e in ways:
            others = max(0.0, routing.columns[e]["rate"] - rates.get(e, 0.0))
            routing.columns[e]["offered"] = others * passed + sent[e] * work
        target = routing.choose(ways, traffic.scraped + passed, region=traffic.region, tier=traffic.tier)
        if target is not None:
            sent[target.endpoint] += 1
    for e, offered in zip(ways, before, strict=True):
        routing.columns[e]["offered"] = offered
    return {e: n for e, n in sent.items() if n}
