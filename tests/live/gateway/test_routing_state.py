"""One table and several gateways: its age counts as time, and what each adds to it is its share of what all do.

Read next: `src/sageserve/live/gateway/routing_state.py`, `src/sageserve/core/route.py`.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sageserve.base.units import MINUTE, SECOND, Micros
from sageserve.core.engine import timing
from sageserve.core.pace import length_column
from sageserve.live.actuators.base import EngineAddress
from sageserve.live.control.fleet_view import FleetView
from sageserve.live.control.opened import Callbacks
from sageserve.live.gateway.demand_counters import DemandCounters
from sageserve.live.gateway.prompt_memory import ANY_BEGINNING
from sageserve.live.gateway.routing_state import RoutingState
from sageserve.live.gateway.targets import Placement
from sageserve.live.wire import VERSION, EndpointRow, Hello, InstanceRow, RoutingTable, ToGateway
from tests.core.small import TIERS, layout_of, scenario

SETTINGS = scenario()
LAYOUT = layout_of(SETTINGS)
AFTER = 30 * SECOND
NEAR, FAR = 0, 2  # the endpoints of the first model in its two regions
CALM = EndpointRow(0.1, 0.1, 0.1, 0.0, 0.0, 100_000, 1)


def instance(row: int, elsewhere: int = 0) -> InstanceRow:
    return InstanceRow(row, row // LAYOUT.slots, f"http://127.0.0.1:{9000 + row}", "", True, elsewhere, 0)


def table(
    *, age: Micros = 0, scraped: Micros = 0, gateways: int = 1, rows: tuple[EndpointRow, ...] = (CALM,) * 4, epoch: str = "e"
) -> RoutingTable:
    instances = (instance(NEAR * LAYOUT.slots), instance(FAR * LAYOUT.slots))
    means = (200.0,) * (len(LAYOUT.names.models) * len(LAYOUT.names.tiers))
    return RoutingTable(1, epoch, scraped, age, rows, instances, means, gateways)


def state_of(one: RoutingTable, now: Micros = 0) -> RoutingState:
    state = RoutingState(SETTINGS, LAYOUT)
    state.replace(one, now)
    return state


def walk(state: RoutingState) -> list[int]:
    return state.walk[0][0][0]


# --- age ---


@pytest.mark.parametrize("age", [0, 1, 20 * SECOND, AFTER, MINUTE])
def test_a_table_is_as_old_as_it_says_plus_the_time_it_has_been_here(age: Micros) -> None:
    state = state_of(table(age=age), now=MINUTE)
    left = AFTER - age
    assert not state.is_blind(MINUTE + left, AFTER)
    assert state.is_blind(MINUTE + left + 1, AFTER)


def test_the_same_scrape_told_again_is_no_younger() -> None:
    state = state_of(table(scraped=5))
    state.replace(table(scraped=5, age=0), now=20 * SECOND)
    assert state.is_blind(AFTER + 1, AFTER)
    state.replace(table(scraped=6, age=10 * SECOND), now=20 * SECOND)
    assert not state.is_blind(AFTER + 10 * SECOND, AFTER)
    state.replace(table(scraped=6, age=0, epoch="another process"), now=40 * SECOND)
    assert not state.is_blind(40 * SECOND + AFTER, AFTER)


def test_own_signals_are_no_table() -> None:
    state = state_of(table())
    state.look(1)
    assert state.is_blind(1, AFTER)
    state.replace(table(scraped=1), now=2)
    assert not state.is_blind(2, AFTER)


AGES = [(0, 0, FAR), (20 * SECOND, 0, NEAR), (0, 20 * SECOND, NEAR), (3 * SECOND, 0, FAR)]


@pytest.mark.parametrize(("age", "passed", "taken"), AGES)
def test_what_was_busy_when_it_was_scraped_has_worked_since(age: Micros, passed: Micros, taken: int) -> None:
    """Busy at 0.8 with a rate of 1 and nothing sent since: 20 s at a half-life of 30 s bring it below 0.7."""
    busy = EndpointRow(0.8, 0.1, 0.8, 1.0, 0.0, 100_000, 1)
    state = state_of(table(age=age, rows=(busy, CALM, CALM, CALM)), now=MINUTE)
    target = state.choose(walk(state), MINUTE + passed)
    assert target is not None
    assert target.endpoint == taken


# --- the expected first token ---


def quickest(*, unfinished: int = 0, region: int = 0, prompt: int = 100) -> int:
    """Where a request goes while others' gateways have so many prompt tokens at the near instance."""
    state = RoutingState(scenario(routing={"region": "quickest"}), LAYOUT)
    near, far = instance(NEAR * LAYOUT.slots), instance(FAR * LAYOUT.slots)
    state.replace(replace(table(), instances=(replace(near, unfinished=unfinished), far)), 0)
    target = state.choose(state.walk[0][0][0], 0, prompt=prompt, region=region)
    assert target is not None
    return target.endpoint


def test_a_request_leaves_its_region_when_the_queue_there_is_longer_than_the_way() -> None:
    profile = RoutingState(SETTINGS, LAYOUT).profiles[0]
    way = int(LAYOUT.rtt[0, 1] - LAYOUT.rtt[0, 0])
    tokens = int(way * (1 - 0.1 / 2) / profile["whole"])  # as many as an engine that is a tenth busy prefills on the way
    assert [quickest(unfinished=n) for n in (0, tokens - 1, tokens + 2)] == [NEAR, NEAR, FAR]
    assert quickest(region=1) == FAR, "the way is counted from where the request comes from"


# --- several gateways ---


def send(state: RoutingState, endpoint: int, prompt: int) -> Placement:
    target = state.choose_at(endpoint)
    assert target is not None
    placed = state.weigh(target, prompt, 0, 0)
    state.place(placed)
    return placed


@given(st.integers(1, 5), st.lists(st.integers(1, 3000), max_size=12))
def test_gateways_that_share_the_traffic_expect_what_one_would_that_had_it_all(gateways: int, prompts: list[int]) -> None:
    """Each sees the same utilisation, the same requests in flight, and admits or refuses alike."""
    alone = state_of(table(gateways=1))
    several = [state_of(table(gateways=gateways)) for _ in range(gateways)]
    for prompt in prompts:
        for state in several:
            send(alone, NEAR, prompt)
            send(state, NEAR, prompt)
    for state in several:
        assert state.columns[NEAR]["offered"] == pytest.approx(alone.columns[NEAR]["offered"])
        assert state.loads[NEAR].in_flight * state.gateways == alone.loads[NEAR].in_flight
    for now in (SECOND, AFTER, AFTER + 3 * SECOND):
        for state in [alone, *several]:
            state.look(now)
        for state in several:
            for name in ("busy", "kv", "rate", "backlog"):
                assert state.columns[NEAR][name] == pytest.approx(alone.columns[NEAR][name]), name
        for state in several:
            send(alone, NEAR, 500)
            send(state, NEAR, 500)


class Plane:
    """A control's view of the fleet and the gateways that report to it, all by one clock that a test sets.

    Args:
        gateways: how many.
    """

    def __init__(self, gateways: int) -> None:
        self.now = 0
        self.states = [RoutingState(SETTINGS, LAYOUT) for _ in range(gateways)]
        self.demand = [DemandCounters(SETTINGS, LAYOUT, state) for state in self.states]
        self.mail: list[tuple[int, RoutingTable]] = []
        told = Callbacks(self._send, lambda i: EngineAddress(f"http://127.0.0.1:{9000 + i}", ""), lambda _: None, lambda: (0, 0))
        self.view = FleetView(SETTINGS, LAYOUT, "e", lambda: self.now, told)
        for g in range(gateways):
            self.view.heard(g, Hello(VERSION, g, str(g)))
        for row in (0, 1, FAR * LAYOUT.slots):
            self.view.open(row)
        self.deliver()
        self.report()

    def _send(self, gateway: int, message: ToGateway) -> bool:
        assert isinstance(message, RoutingTable)
        self.mail.append((gateway, message))
        return True

    def deliver(self, late: Micros = 0) -> None:
        """Gateways take in what they were sent, so much later by their clock; the table says how old it was when sent."""
        for gateway, one in self.mail:
            self.states[gateway].replace(replace(one, age=one.age + late), self.now)
        self.mail.clear()

    def report(self) -> None:
        for g, counters in enumerate(self.demand):
            self.view.heard(g, counters.report(0))

    def scrape(self, kv: float) -> None:
        for row in self.view.opened:
            self.view.saw(row, kv=kv, in_flight=0)
        self.view.refresh()


STEPS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from([NEAR, NEAR, FAR]), st.integers(1, 3000), st.sampled_from(["send", "end"])),
    max_size=30,
)


@given(STEPS)
def test_after_a_table_every_gateway_knows_what_all_of_them_have_everywhere(steps: list[tuple[int, int, int, str]]) -> None:
    plane = Plane(3)
    open_: list[tuple[int, Placement]] = []
    for g, endpoint, prompt, what in steps:
        if what == "send":
            open_.append((g, send(plane.states[g], endpoint, prompt)))
        elif open_:
            owner, placed = open_.pop(0)
            plane.states[owner].end(placed, 10, plane.now)
    plane.now = 5 * SECOND
    plane.report()
    plane.scrape(0.3)
    plane.deliver()
    own = [{row: state._outstanding(target) - target.there for row, target in state.targets.items()} for state in plane.states]
    total = {row: sum(one[row] for one in own) for row in plane.view.opened}
    for state in plane.states:
        assert state.gateways == 3
        for row, target in state.targets.items():
            assert state._outstanding(target) == total[row]
            assert state.loads[target.endpoint].outstanding[target.at] == total[row]
        assert state.columns[NEAR]["backlog"] == pytest.approx(plane.view.endpoints[NEAR]["backlog"])
        assert state.columns[NEAR]["offered"] == 0.0
    in_flight = {row: sum(placed.target.row == row for _, placed in open_) for row in plane.view.opened}
    assert {row: int(plane.view.in_flight[row]) for row in plane.view.opened} == in_flight


@pytest.mark.parametrize("late", [0, 10 * SECOND, 25 * SECOND])
def test_gateways_that_hear_the_same_aged_table_choose_alike(late: Micros) -> None:
    plane = Plane(2)
    for _ in range(40):
        for state in plane.states:
            send(state, NEAR, 3000)
    plane.now = 5 * SECOND
    plane.report()
    plane.scrape(0.2)
    plane.deliver(late)
    for passed in (0, 10 * SECOND, 30 * SECOND):
        chosen = set()
        for state in plane.states:
            target = state.choose(walk(state), plane.now + passed)
            assert target is not None
            chosen.add(target.endpoint)
            assert state.is_blind(plane.now + passed, AFTER) is (late + passed > AFTER)
        assert len(chosen) == 1


def test_a_table_that_is_sent_between_two_scrapes_says_how_old_its_signals_are() -> None:
    plane = Plane(2)
    plane.now = 5 * SECOND
    plane.scrape(0.2)
    plane.mail.clear()
    plane.now = 25 * SECOND
    plane.view.open(2)  # an instance came: everyone is told at once
    assert [one.age for _, one in plane.mail] == [20 * SECOND] * 2
    plane.deliver()
    for state in plane.states:
        assert 2 in state.targets
        assert not state.is_blind(35 * SECOND, AFTER)
        assert state.is_blind(35 * SECOND + 1, AFTER)


def test_a_gateway_leaves_out_what_it_could_not_reach_until_the_next_table() -> None:
    state = state_of(table())
    target = state.targets[0]
    state.leave_out(target, 5)
    assert state.choose_at(NEAR) is None
    assert state.columns[NEAR]["open"] == 0
    state.heal(5 + 2 * SECOND - 1)
    assert state.choose_at(NEAR) is None
    state.heal(5 + 2 * SECOND)
    assert state.choose_at(NEAR) is target
    state.leave_out(target, 5)
    state.replace(table(), 6)
    assert state.choose_at(NEAR) is target


# --- canaries ---


@given(st.integers(1, 5), st.integers(0, 5), st.lists(st.booleans(), min_size=1, max_size=120))
def test_canaries_get_their_share_of_requests_and_never_more(new: int, old: int, ends: list[bool]) -> None:
    rows = tuple(replace(instance(row), revision=int(row < new), trial=row < new) for row in range(min(LAYOUT.slots, new + old)))
    state = state_of(replace(table(), instances=rows))
    trials, all_rows, tried = sum(row.trial for row in rows), len(rows), 0
    running: list[Placement] = []
    for count, over in enumerate(ends, 1):
        target = state.choose_at(0)
        assert target is not None
        running.append(state.weigh(target, 100, 0, 0))
        state.place(running[-1])
        tried += target.trial
        assert trials == all_rows or 0 <= count * trials - tried * all_rows < all_rows, (
            "as many as are due, whatever is under way"
        )
        if over:
            state.end(running.pop(0), 10, count)


def test_requests_go_where_there_is_least_to_do_among_canaries_and_among_the_others() -> None:
    rows = tuple(replace(instance(row), revision=int(row == 1), trial=row == 1) for row in range(3))
    state = state_of(replace(table(), instances=rows))
    went = []
    for _ in range(6):
        target = state.choose_at(0)
        assert target is not None
        state.place(state.weigh(target, 100, 0, 0))
        went.append(target.row)
    assert went == [0, 2, 1, 0, 2, 1]


def test_a_gateway_counts_lengths_and_slow_answers_where_a_pace_is_promised() -> None:
    settings = scenario(tiers=TIERS | {"iw-f": {"ttft": "1s", "itl": "50ms"}})
    counters = DemandCounters(settings, LAYOUT, state_of(table()))
    cells = [counters.arrived(0, 1, tier, 100) for tier in (0, 0, 1, 2)]
    for cell, slow in zip(cells, (False, True, False, False), strict=True):
        counters.finished(cell, 100, 9, 1_000.0, slow=slow)
    told = counters.report(0)
    assert [(each.row, each.counted[length_column(9)], sum(each.counted)) for each in told.answers] == [(3, 2, 2), (4, 1, 1)]
    assert [one.on_time for one in told.cells] == [1, 1, 1]
    plain = DemandCounters(SETTINGS, LAYOUT, state_of(table()))
    plain.finished(plain.arrived(0, 0, 0, 100), 100, 9, 1_000.0)
    assert plain.report(0).answers == ()


def test_the_work_of_a_request_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for when it is counted and when it is weighed, and is the dearest number of the two."""
    state = state_of(table())
    asked: list[int] = []
    counters = DemandCounters(SETTINGS, LAYOUT, state)
    real = timing.request_work

    def noted(profile: timing.EngineRow, context: int, cached: int, output: float) -> float:
        asked.append(context)
        return real(profile, context, cached, output)

    monkeypatch.setattr(timing, "request_work", noted)
    for prompt in (100, 200, 300):
        counters.arrived(0, 0, 0, prompt)
        target = state.choose(walk(state), MINUTE, ANY_BEGINNING, prompt=prompt, region=0, tier=0)
        assert target is not None
        state.place(state.weigh(target, prompt, 0, 0))
    assert asked == [100, 200, 300]
