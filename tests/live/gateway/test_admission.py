"""The gateway's routing state by itself: who is let in, when a place came free, and what is learned when.

That it decides as the simulator does is in `tests/parity/test_front_door.py`. Read next: `core/admit.py`, `routing_state.py`.
"""

import pytest

from sageserve.base.units import SECOND
from sageserve.live.gateway.routing_state import RoutingState
from sageserve.live.gateway.targets import Placement
from sageserve.live.wire import EndpointRow, InstanceRow, RoutingTable
from tests.core.small import ENGINE, TIERS, layout_of, scenario

IW_F, IW_N = 0, 1
CALM = EndpointRow(0.1, 0.1, 0.1, 0.1, 0.0, 100_000, 1)
MEANS = (100.0,) * 6


def state(*, gateways: int = 1, admission: object = "on", tiers: dict[str, object] | None = None) -> RoutingState:
    """Two instances of one endpoint that can run four requests each."""
    engines = {"h100": ENGINE | {"max_sequences": 4}}
    models = {name: {"context": 8_000, "engines": engines} for name in ("big", "small")}
    settings = scenario(gpus=80, models=models, admission=admission, tiers={**TIERS, **(tiers or {})})
    made = RoutingState(settings, layout_of(settings))
    made.replace(table(1, gateways=gateways), 0)
    return made


def table(scraped: int, *, gateways: int = 1, is_open: bool = True, means: tuple[float, ...] = MEANS) -> RoutingTable:
    rows = tuple(InstanceRow(row, 0, f"http://127.0.0.1:{9000 + row}", "", is_open, 0, 0) for row in (0, 1))
    return RoutingTable(scraped, "e", scraped, 0, (CALM,) * 4, rows, means, gateways)


def weigh(routing: RoutingState, tier: int = IW_F) -> Placement:
    target = routing.choose_at(0)
    assert target is not None
    return routing.weigh(target, 500, 0, tier)


def send(routing: RoutingState, requests: int) -> list[Placement]:
    placed = []
    for _ in range(requests):
        placed.append(weigh(routing))
        routing.place(placed[-1])
    return placed


def test_who_would_wait_for_longer_than_promised_is_not_let_in() -> None:
    routing = state()
    routing.columns[0]["backlog"] = 2.0 * SECOND  # of two instances
    assert routing.admits(weigh(routing))
    routing.columns[0]["backlog"] = 2.1 * SECOND
    assert not routing.admits(weigh(routing))
    assert routing.admits(weigh(routing, IW_N)), "it is promised a minute"


def test_a_long_prompt_may_wait_for_longer_where_the_promise_grows() -> None:
    routing = state(tiers={"iw-f": {"ttft": "500ms", "ttft_per_1k_tokens": "1s"}})
    routing.columns[0]["backlog"] = 1.9 * SECOND  # of two instances: a prompt of 500 tokens may wait for a second
    assert routing.admits(weigh(routing))
    routing.columns[0]["backlog"] = 2.1 * SECOND
    assert not routing.admits(weigh(routing))


def test_the_limit_is_the_scenarios() -> None:
    routing = state(admission={"wait": 2.0})
    routing.columns[0]["backlog"] = 3.9 * SECOND
    assert routing.admits(weigh(routing))
    routing.columns[0]["backlog"] = 4.1 * SECOND
    assert not routing.admits(weigh(routing))


@pytest.mark.parametrize(("gateways", "most"), [(1, 32), (2, 16), (3, 11)])
def test_no_more_than_so_many_are_in_flight_in_all_gateways_together(gateways: int, most: int) -> None:
    routing = state(gateways=gateways)
    for one in send(routing, most - 1):
        routing.begin(one)
    routing.columns[0]["backlog"] = 0.0
    one = weigh(routing, IW_N)
    one.wait = 0.0
    assert routing.admits(one)
    routing.place(one)
    assert not routing.admits(one)


def test_off_lets_everybody_in() -> None:
    routing = state(admission="off")
    routing.columns[0]["backlog"] = 1e12
    send(routing, 100)
    assert routing.admits(weigh(routing))


def test_answers_that_end_together_free_one_place_for_the_feed_rule() -> None:
    routing = state()
    first, second, third, fourth, broken = send(routing, 5)
    same = [one for one in (first, second, third, fourth, broken) if one.target is first.target]
    assert len(same) == 3
    routing.end(same[0], 10, SECOND)
    routing.end(same[1], 10, SECOND + 500)
    assert routing.loads[0].freed == 1, "one iteration ended both"
    routing.end(same[2], 10, SECOND + 2_000)
    assert routing.loads[0].freed == 2
    other = [one for one in (first, second, third, fourth, broken) if one.target is not first.target]
    routing.end(other[0], None, SECOND + 9_000)
    assert routing.loads[0].freed == 2, "it was broken off: nothing was finished"
    routing.replace(table(2, is_open=False), 2 * SECOND)
    routing.end(other[1], 10, 2 * SECOND)
    assert routing.loads[0].freed == 2, "nothing new may go to where it was"


def test_lengths_are_learned_with_the_signals_and_not_when_an_instance_opens() -> None:
    routing = state()
    assert routing.guess[0] == 100
    routing.output_mean[:3] = [400.0] * 3
    routing.replace(table(1, means=(7.0,) * 6), SECOND)
    assert routing.guess[0] == 100, "the same scrape"
    assert routing.output_mean[0] == 400.0
    routing.replace(table(2, means=(7.0,) * 6), SECOND)
    assert routing.guess[0] == 7
