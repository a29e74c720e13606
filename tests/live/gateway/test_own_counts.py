"""What one gateway counts at its targets, and the signals it makes of its own counts when nobody scrapes.

Read next: `src/sageserve/live/gateway/routing_state.py`; `test_routing_state.py` for tables and several gateways.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sageserve.base.units import MINUTE, SECOND, Micros
from sageserve.core.engine.timing import prefill_work, request_work
from sageserve.live.gateway.python_kernels import predicted_wait
from sageserve.live.gateway.routing_state import RoutingState
from sageserve.live.gateway.targets import Placement
from sageserve.live.wire import EndpointRow, InstanceRow, RoutingTable
from tests.core.small import layout_of, scenario

SETTINGS = scenario()
LAYOUT = layout_of(SETTINGS)
MODELS, TIERS = len(LAYOUT.names.models), len(LAYOUT.names.tiers)
NEAR = 0  # the endpoint of the first model in the first region
FIRST = NEAR * LAYOUT.slots
MEAN = 300.0
QUIET = (EndpointRow(0.0, 0.0, 0.0, 0.0, 0.0, 100_000, 1),) * LAYOUT.endpoints


def row(at: int, url: str = "http://engine:9000", *, elsewhere: int = 0, opened: bool = True) -> InstanceRow:
    return InstanceRow(at, at // LAYOUT.slots, url, "", opened, elsewhere, 0)


def state_of(*rows: InstanceRow, gateways: int = 1) -> RoutingState:
    """A state that knows instances and has no signals yet."""
    state = RoutingState(SETTINGS, LAYOUT)
    state.replace(RoutingTable(1, "e", 0, 0, QUIET, rows, (MEAN,) * (MODELS * TIERS), gateways), 0)
    return state


def sent(state: RoutingState, prompts: list[int], at: int = FIRST) -> list[Placement]:
    """Requests of those lengths, placed at one target."""
    made = [state.weigh(state.targets[at], prompt, 0, 0) for prompt in prompts]
    for one in made:
        state.place(one)
    return made


# --- what a request is expected to need ---


@given(st.lists(st.tuples(st.integers(0, 3_000), st.integers(0, MODELS - 1), st.integers(0, TIERS - 1)), max_size=12))
def test_what_is_remembered_of_the_last_request_never_answers_for_another(asked: list[tuple[int, int, int]]) -> None:
    state = state_of(row(FIRST))
    state.output_mean = [100.0 + k for k in range(MODELS * TIERS)]
    for prompt, model, tier in asked:
        profile = state.profiles[model]
        mean = 100.0 + model * TIERS + tier
        assert state.work(profile, prompt, model, tier) == request_work(profile, prompt, 0, mean)


def test_two_engines_of_one_model_take_their_own_time_for_the_same_request() -> None:
    state = state_of(row(FIRST))
    state.output_mean = [MEAN] * (MODELS * TIERS)
    slow = state.profiles[0].copy()
    slow["decode"] += 1_000.0
    one, other = (state.work(profile, 700, 0, 0) for profile in (state.profiles[0], slow))
    assert one == state.work(state.profiles[0], 700, 0, 0)
    assert other > one, "what was computed for one engine is no other's"


def test_a_request_is_weighed_before_it_is_counted() -> None:
    state = state_of(row(FIRST))
    target = state.targets[FIRST]
    sent(state, [1_000, 2_000])
    one = state.weigh(target, 500, 0, 0)
    assert (one.prompt, one.model, one.tier, one.begun, one.target) == (500, 0, 0, False, target)
    assert one.prefill == prefill_work(target.profile, 500, 0)
    assert one.work == request_work(target.profile, 500, 0, MEAN)
    assert one.held == 500 + MEAN / 2, "half of what it will write is there on average"
    before = sum(prefill_work(target.profile, prompt, 0) for prompt in (1_000, 2_000))
    assert one.wait == predicted_wait(before, 2, int(target.profile["max_sequences"]), one.work, 1)
    assert state.loads[NEAR].in_flight == 2


# --- what is outstanding ---


@given(st.lists(st.tuples(st.sampled_from(["send", "begin", "end", "break"]), st.integers(1, 5_000)), max_size=40))
def test_counts_are_those_of_the_requests_that_are_there(steps: list[tuple[str, int]]) -> None:
    """The same request may begin once, and a request that ends has begun."""
    state = state_of(row(FIRST, elsewhere=7))
    target, load = state.targets[FIRST], state.loads[NEAR]
    there: list[Placement] = []
    for step, number in steps:
        if step == "send":
            there += sent(state, [number])
        elif there:
            one = there[number % len(there)]
            if step == "begin":
                state.begin(one)
            else:
                there.remove(one)
                state.end(one, None if step == "break" else 0, 0)
        waiting = [one for one in there if not one.begun]
        assert target.in_flight == load.in_flight == len(there)
        assert target.unfinished == sum(one.prompt for one in waiting)
        assert load.backlog == pytest.approx(sum(one.prefill for one in waiting))
        assert load.held == pytest.approx(sum(one.held for one in there))
        expected = (target.unfinished + state.guess[0] * len(there)) * target.weight + 7
        assert load.outstanding == [expected]


def test_the_shorter_queue_is_chosen_and_whoever_was_tried_is_not() -> None:
    state = state_of(row(FIRST, "http://a:1"), row(FIRST + 1, "http://b:2"), row(2 * LAYOUT.slots, "http://c:3"))
    sent(state, [100])
    walk = state.walk[0][0][0]
    chosen = state.choose_at(NEAR)
    assert chosen is state.targets[FIRST + 1] is state.choose(walk, 0)
    assert state.choose_again(walk, NEAR, {FIRST + 1}, 0) is state.targets[FIRST], "the same endpoint first"
    assert state.choose_again(walk, NEAR, {FIRST, FIRST + 1}, 0) is state.targets[2 * LAYOUT.slots]
    assert state.choose_again(walk, NEAR, {FIRST, FIRST + 1, 2 * LAYOUT.slots}, 0) is None


def test_mean_lengths_move_with_what_is_finished_and_not_with_what_breaks() -> None:
    state = state_of(row(FIRST))
    one, other = sent(state, [10, 10])
    state.end(one, None, 0)
    assert state.output_mean[0] == MEAN
    state.end(other, 1_324, 0)
    assert state.output_mean[0] == MEAN + 1_024 / 256
    assert state.output_mean[1:] == [MEAN] * (MODELS * TIERS - 1)


@pytest.mark.parametrize(("times", "freed"), [([0], 1), ([0, 1_000], 1), ([0, 1_001], 2), ([5, 900, 1_800, 1_006], 2)])
def test_answers_that_end_together_free_an_engine_once(times: list[Micros], freed: int) -> None:
    """Those within a millisecond of the first ended with one iteration of the engine."""
    state = state_of(row(FIRST))
    for one, now in zip(sent(state, [1] * len(times)), sorted(times), strict=True):
        state.end(one, 5, now)
    broken = sent(state, [1])
    state.end(broken[0], None, MINUTE)
    assert state.loads[NEAR].freed == freed, "a request that broke off frees nothing by itself"


def test_a_closed_target_frees_nobody() -> None:
    state = state_of(row(FIRST))
    one = sent(state, [1])[0]
    state.targets[FIRST].open = False
    state.end(one, 5, 0)
    assert state.loads[NEAR].freed == 0


# --- own signals ---


def obvious(rate: float, offered: float, passed: Micros, half_life: float) -> float:
    """A mean over past spans in which a span weighs half as much for every half-life since."""
    forgotten: float = 0.5 ** (passed / half_life)
    return forgotten * rate + (1 - forgotten) * offered / passed


@pytest.mark.parametrize("gateways", [1, 3])
def test_own_counts_become_the_signals_that_a_scrape_would_bring(gateways: int) -> None:
    state = state_of(row(FIRST), row(FIRST + 1, "http://b:2"), gateways=gateways)
    load, column = state.loads[NEAR], state.columns[NEAR]
    state.look(5 * SECOND)
    assert column["rate"] == 0.0, "nothing is known of the time before the first look"
    assert state.is_blind(5 * SECOND, after=SECOND)
    rate, now = 0.0, 5 * SECOND
    for prompts, passed in (([1_000, 500], 2 * SECOND), ([], 3 * SECOND), ([800], SECOND)):
        before = load.offered
        sent(state, prompts)
        state.look(now := now + passed)
        rate = obvious(rate, (load.offered - before) * gateways, passed, state.half_life)
        tokens = 2 * state.profiles[0]["kv_tokens"]
        assert column["rate"] == pytest.approx(rate)
        assert column["offered"] == 0.0
        assert column["backlog"] == load.backlog * gateways
        assert column["kv_tokens"] == tokens
        assert column["kv"] == pytest.approx(load.held * gateways / tokens)
        assert column["busy"] == pytest.approx((rate + load.backlog * gateways / state.half_life) / 2)
        assert column["open"] == 2


def test_an_endpoint_without_instances_has_signals_of_nothing() -> None:
    state = state_of(row(FIRST))
    state.look(SECOND)
    other = state.columns[2]
    assert (other["kv"], other["busy"], other["kv_tokens"], other["open"]) == (0.0, 0.0, 0, 0)


# --- who is there ---


def test_a_state_is_known_from_its_first_table() -> None:
    state = RoutingState(SETTINGS, LAYOUT)
    assert not state.known
    assert all(set(column.values()) == {0} for column in state.columns), "nothing is known of any endpoint"
    assert {"backlog", "busy", "kv", "kv_tokens", "offered", "open", "rate"} <= set(state.columns[0])
    assert all(load.offered == load.seen_offered == 0 for load in state.loads)
    assert state_of().known


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://engine", ("engine", 80, b"", b"engine")),
        ("http://engine:9000/", ("engine", 9000, b"", b"engine:9000")),
        ("http://engine:9000/v2/openai/", ("engine", 9000, b"/v2/openai", b"engine:9000")),
        ("http://name:word@engine:9000", ("engine", 9000, b"", b"engine:9000")),
    ],
)
def test_an_address_is_taken_apart(url: str, expected: tuple[str, int, bytes, bytes]) -> None:
    target = state_of(row(FIRST, url)).targets[FIRST]
    assert (target.host, target.port, target.prefix, target.authority) == expected


def test_an_instance_keeps_its_counts_over_tables_unless_it_is_another() -> None:
    state = state_of(row(FIRST, "http://a:1"), row(FIRST + 1, "http://b:2"))
    sent(state, [100])
    sent(state, [200], FIRST + 1)
    before = dict(state.targets)
    means = (MEAN,) * (MODELS * TIERS)
    again = (row(FIRST, "http://a:1", elsewhere=5), row(FIRST + 1, "http://elsewhere:3"))
    state.replace(RoutingTable(2, "e", 1, 0, QUIET, again, means, 1), SECOND)
    assert state.version == 2
    kept, new = state.targets[FIRST], state.targets[FIRST + 1]
    assert kept is before[FIRST]
    assert (kept.in_flight, kept.there) == (1, 5)
    assert new is not before[FIRST + 1]
    assert (new.in_flight, new.url) == (0, "http://elsewhere:3")
    gone = before[FIRST + 1]
    state.end(Placement(gone, 200, 0, 0), 1, SECOND)
    assert state.loads[NEAR].outstanding == [(100 + state.guess[0]) * kept.weight + 5, 0], "what has moved is nobody's here"


def test_trouble_is_over_at_its_instant() -> None:
    state = state_of(row(FIRST), row(FIRST + 1))
    target, other = state.targets[FIRST], state.targets[FIRST + 1]
    assert target.trouble == 0
    state.leave_out(target, SECOND)
    assert (target.failures, target.trouble) == (1, 3 * SECOND)
    assert state.loads[NEAR].targets == [other]
    state.heal(3 * SECOND - 1)
    assert state.loads[NEAR].targets == [other]
    state.heal(3 * SECOND)
    assert state.loads[NEAR].targets == [target, other]


def test_the_last_instances_of_a_model_are_used_whatever_became_of_them() -> None:
    state = state_of(row(FIRST), row(FIRST + 1), row(FIRST + 2, opened=False))
    first, second = state.targets[FIRST], state.targets[FIRST + 1]
    state.leave_out(first, 0)
    assert (state.loads[NEAR].targets, state.unwell) == ([second], frozenset())
    state.leave_out(second, 1)
    assert (state.loads[NEAR].targets, state.unwell) == ([first, second], frozenset([0])), "one that is closed is no other one"
    state.heal(2 * SECOND)
    assert (state.loads[NEAR].targets, state.unwell) == ([first], frozenset())
