"""Fair shares: whoever waits is served in proportion to weight, whatever the others ask for, and nobody saves up.

Read next: `src/sageserve/core/fair_share.py`; `tests/live/gateway/test_shares.py` for what it does to promises.
"""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from sageserve.base.units import SECOND
from sageserve.core.fair_share import ASKING, QUANTUM, SAVED, FairShare

WEIGHTS = st.lists(st.sampled_from([0.5, 1.0, 2.0, 5.0]), min_size=2, max_size=5)


@given(WEIGHTS, st.lists(st.integers(1, 1000), min_size=50, max_size=100))
def test_who_always_waits_is_never_further_behind_than_a_piece_of_work_of_each(weights: list[float], costs: list[int]) -> None:
    account, names = FairShare(), [f"t{k}" for k in range(len(weights))]
    weight = dict(zip(names, weights, strict=True))
    served = Counter[str]()
    for cost in costs:
        who = account.first(names)
        account.charge(who, weight[who], cost)
        served[who] += cost
        levels = [served[name] / weight[name] for name in names]
        assert max(levels) - min(levels) <= 2 * 1000 / min(weights)


@given(st.integers(10, 100), st.floats(0.5, 4.0))
def test_shares_are_within_five_per_cent_under_saturation(cost: int, weight: float) -> None:
    account, served = FairShare(), Counter[str]()
    weights, costs = {"small": 1.0, "large": weight}, {"small": 10, "large": cost}
    while sum(served.values()) < 20_000:
        who = account.first(["large", "small"])
        account.charge(who, weights[who], costs[who])
        served[who] += costs[who]
    assert abs(served["large"] / sum(served.values()) - weight / (1 + weight)) < 0.05


def test_who_was_away_has_saved_nothing_and_who_was_alone_owes_nothing() -> None:
    account = FairShare()
    account.first(["a", "b"])
    for _ in range(1000):
        account.charge(account.first(["a"]), 1.0, 100)
    turns = []
    for _ in range(10):
        turns.append(account.first(["a", "b"]))
        account.charge(turns[-1], 1.0, 100)
    assert abs(turns.count("a") - 5) <= 1


def test_equals_go_in_the_order_in_which_they_are_named() -> None:
    account = FairShare()
    assert account.first(["b", "a"]) == "b"
    account.charge("b", 1.0, 10)
    assert account.first(["b", "a"]) == "a"


def test_whoever_asks_knows_how_far_ahead_it_is_and_the_silent_hold_nobody_back() -> None:
    account = FairShare()
    assert account.lead("a", 0) == 0.0
    account.charge("a", 2.0, 1000)
    assert account.lead("a", 1) == 0.0, "alone"
    assert account.lead("b", 1) == 0.0
    account.charge("a", 2.0, 1000)
    assert account.lead("a", 2) == 500.0
    account.charge("a", 2.0, -200)
    assert account.lead("a", 3) == 400.0, "less was used than expected"
    assert account.lead("a", 2 + ASKING) == 0.0, "the other one left"


def test_names_that_come_and_go_take_no_room() -> None:
    account = FairShare()
    for k in range(10_000):
        account.lead(f"t{k}", k * SECOND)
        account.charge(f"t{k}", 1.0, 1.0)
    assert len(account._levels) < 200


def test_who_asked_for_little_may_ask_for_a_burst_at_once_and_then_for_as_much_as_others() -> None:
    account = FairShare()
    for now in range(1_000):  # for long, one asks for a hundredth of what the other does
        for name, tokens in (("little", 10.0), ("much", 1_000.0)):
            account.lead(name, now)
            account.charge(name, 1.0, tokens)
    taken = 0.0
    while account.lead("little", 1_000) <= QUANTUM:
        account.charge("little", 1.0, 1_000.0)
        taken += 1_000.0
    assert SAVED <= taken <= SAVED + 3 * QUANTUM


def test_only_whoever_had_most_is_held_back() -> None:
    account = FairShare()
    for name, tokens in (("a", 0.0), ("b", 4 * QUANTUM), ("most", 16 * QUANTUM)):
        account.lead(name, 0)
        account.charge(name, 1.0, tokens)
    assert [account.lead(name, 1) for name in ("a", "b", "most")] == [0.0, 0.0, 16 * QUANTUM]
