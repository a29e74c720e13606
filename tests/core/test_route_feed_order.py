"""The per-request decisions, one at a time: which endpoint, which instance, how many jobs, which request is next.

Read next: `src/sageserve/core/route.py`, `feed.py`, `order.py`.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sageserve.base.errors import Infeasible
from sageserve.base.units import HOUR, SECOND
from sageserve.core.columns import ENDPOINT
from sageserve.core.feed import FILL, STEPS, allowance, is_urgent, predicted
from sageserve.core.order import DPA, EDF, FCFS, PF, TIER, order_key
from sageserve.core.route import (
    CLOSED,
    LEAST,
    NEAREST,
    QUICKEST,
    THRESHOLD,
    expected,
    expected_first,
    pick_endpoint,
    pick_instance,
)
from sageserve.core.signals import BUSY, KV, LOAD, signal
from tests.core.small import scenario

EXPIRED = 600 * SECOND
NOW = 10**12
HALF_LIFE = 30.0 * SECOND
RULES = np.dtype([("route", "i8"), ("signal", "i8"), ("threshold", "f8"), ("half_life", "f8")])


def endpoints(*rows: tuple[float, int]) -> NDArray[Any]:
    """(seen, open instances) of each."""
    columns = np.zeros(len(rows), ENDPOINT)
    columns["seen"] = columns["busy"] = columns["rate"] = [row[0] for row in rows]
    columns["open"] = [row[1] for row in rows]
    columns["rate"] *= columns["open"]
    return columns


def rules(route: int, kind: int = LOAD) -> np.void:
    """The part of the kernel's world that routing reads."""
    row = np.zeros(1, RULES)
    row["route"], row["signal"], row["threshold"], row["half_life"] = route, kind, 0.7, HALF_LIFE
    one: np.void = row[0]
    return one


FLEETS = [
    # walk: nearest first          threshold nearest least
    ([(0.1, 2), (0.0, 2), (0.9, 2)], 0, 0, 1),
    ([(0.69, 2), (0.1, 2), (0.0, 2)], 0, 0, 2),
    ([(0.70, 2), (0.5, 2), (0.1, 2)], 1, 0, 2),  # at the threshold is not below it
    ([(0.9, 2), (0.8, 2), (0.85, 2)], 1, 0, 1),  # all above: the least utilised
    ([(0.9, 2), (0.9, 2), (0.9, 2)], 0, 0, 0),  # equals: the nearest
    ([(0.0, 0), (0.9, 2), (0.8, 2)], 2, 1, 2),  # nothing open in the nearest
    ([(0.0, 0), (0.0, 0), (0.95, 1)], 2, 2, 2),
    ([(0.0, 0), (0.0, 0), (0.0, 0)], -1, -1, -1),
]


@pytest.mark.parametrize(("fleet", "threshold", "nearest", "least"), FLEETS)
def test_endpoint(fleet: list[tuple[float, int]], threshold: int, nearest: int, least: int) -> None:
    walk = np.array([0, 1, 2, -1], np.int32)
    found = [pick_endpoint(rules(route), endpoints(*fleet), walk, 0, 4, 0) for route in (THRESHOLD, NEAREST, LEAST)]
    assert found == [threshold, nearest, least]


@pytest.mark.parametrize(
    ("busy", "rate", "elapsed", "us"),
    [
        (0.0, 0.0, 0, 90_000.0),
        (0.5, 0.0, 0, 120_000.0),  # decoding takes half of what it is busy: (30 + 60) ms / 0.75
        (3.0, 0.0, 0, 180_000.0),  # and never more than half
        (-1.0, 0.0, 0, 90_000.0),
        (1.0, 1.0, HALF_LIFE, 90_000.0 / (1 - 0.5 * (1 - np.log(2) / 2))),  # two are open, and nothing came since the scrape
    ],
)
def test_a_first_token_comes_after_the_prompts_before_it_at_the_pace_that_decoding_leaves(
    busy: float, rate: float, elapsed: int, us: float
) -> None:
    there = endpoints((busy, 2))[0]
    there["busy"], there["rate"] = busy, rate
    assert expected_first(rules(QUICKEST), there, elapsed, 30_000.0, 60_000.0) == pytest.approx(us)


def test_only_the_walk_is_looked_at_and_in_its_order() -> None:
    fleet = endpoints((0.0, 1), (0.5, 1), (0.6, 1))
    walk = np.array([0, -1, 2, 1, -1, 0], np.int32)
    assert pick_endpoint(rules(THRESHOLD), fleet, walk, 2, 5, 0) == 2
    assert pick_endpoint(rules(LEAST), fleet, walk, 2, 5, 0) == 1
    assert pick_endpoint(rules(NEAREST), fleet, walk, 1, 5, 0) == -1


def test_what_was_sent_since_the_scrape_counts_and_what_was_offered_as_always_does_not() -> None:
    fleet = endpoints((0.6, 2), (0.1, 2))
    walk = np.array([0, 1], np.int32)
    elapsed = 5 * SECOND
    fleet["offered"][0] = 0.6 * 2 * elapsed  # as much as the rate says
    assert expected(rules(THRESHOLD), fleet[0], elapsed) == pytest.approx(0.6)
    assert pick_endpoint(rules(THRESHOLD), fleet, walk, 0, 2, elapsed) == 0
    fleet["offered"][0] += 0.101 / np.log(2) * 2 * HALF_LIFE  # a flood
    assert expected(rules(THRESHOLD), fleet[0], elapsed) == pytest.approx(0.701)
    assert pick_endpoint(rules(THRESHOLD), fleet, walk, 0, 2, elapsed) == 1
    assert expected(rules(THRESHOLD, KV), fleet[0], elapsed) == 0, "the paper's signal knows memory only"


@given(st.lists(st.integers(0, 5) | st.just(CLOSED), min_size=1, max_size=20), st.integers(0, 5))
def test_instance_with_least_outstanding_lowest_row_of_equals(outstanding: list[int], before: int) -> None:
    column = np.array([-1] * before + outstanding + [-1], np.int64)
    assert pick_instance(column, before, before + len(outstanding)) == before + outstanding.index(min(outstanding))


# ------------------------------------------------------------------------------------------------ feed


@pytest.mark.parametrize(
    ("utilisation", "steps", "fill"),
    [(0.0, 2, 1), (0.49, 2, 1), (0.50, 1, 1), (0.59, 1, 1), (0.60, 0, 0), (0.9, 0, 0), (5.0, 0, 0)],
)
def test_bands_of_the_paper(utilisation: float, steps: int, fill: int) -> None:
    assert allowance(STEPS, utilisation, 0.60, 0.50) == steps
    assert allowance(FILL, utilisation, 0.60, 0.50) == fill


@given(st.floats(0, 2), st.floats(0, 2), st.floats(0, 1), st.floats(0, 1))
def test_a_busier_endpoint_is_never_given_more(one: float, other: float, low: float, high: float) -> None:
    low, high = sorted((low, high))
    for feed in (STEPS, FILL):
        assert allowance(feed, min(one, other), high, low) >= allowance(feed, max(one, other), high, low)


def test_inverted_bands_are_refused() -> None:
    with pytest.raises(Infeasible, match="bands inverted"):
        scenario(batch={"two_below": 0.6, "one_below": 0.5})


@given(st.floats(0, 2), st.floats(0, 2))
def test_signals(kv: float, busy: float) -> None:
    assert [signal(kind, kv, busy) for kind in (LOAD, KV, BUSY)] == [max(kv, busy), kv, busy]


def test_what_was_fed_since_the_scrape_counts() -> None:
    row = np.zeros(1, ENDPOINT)
    row["busy"], row["kv"], row["open"], row["kv_tokens"] = 0.2, 0.4, 2, 1_000
    assert predicted(LOAD, row[0], HALF_LIFE) == pytest.approx(0.4)
    row["fed_work"], row["fed_tokens"] = 24 * SECOND, 100
    assert predicted(BUSY, row[0], HALF_LIFE) == pytest.approx(0.2 + 24 / 60)
    assert predicted(KV, row[0], HALF_LIFE) == pytest.approx(0.5)
    assert predicted(LOAD, row[0], HALF_LIFE) == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("age", "slack", "urgent"),
    [
        (0, 24 * HOUR, False),
        (10 * HOUR, 14 * HOUR, False),
        (10 * HOUR + 1, 14 * HOUR - 1, True),  # the paper's 10 h
        (HOUR, 20 * SECOND, False),
        (HOUR, 20 * SECOND - 1, True),  # less slack than twice its service time
        (0, -1, True),
    ],
)
def test_when_a_job_is_promoted(age: int, slack: int, urgent: bool) -> None:
    assert is_urgent(age, slack, 10.0 * SECOND, 10 * HOUR, 2.0) is urgent


# ------------------------------------------------------------------------------------------------ order


def tiers() -> NDArray[Any]:
    """iw-f, iw-n, niw of the paper."""
    rows = np.zeros(3, TIER)
    rows["urgent"], rows["expired"] = SECOND, EXPIRED
    rows["rank"], rows["batch"] = (0, 1, 2), (0, 0, 1)
    return rows


def key(order: int, tier: int, slack: int, *, promoted: bool = False, arrival: int = 0) -> int:
    return order_key(order, tiers()[tier], promoted, arrival, NOW + slack, NOW)


DPA_CLASSES = [
    # from most to least urgent, each with its extremes: (tier, slack, promoted)
    [(0, -EXPIRED - 1, False), (1, -EXPIRED - 1, False), (2, -EXPIRED - 1, False), (0, -(10**11), False)],  # severely expired
    [(0, 0, False), (0, SECOND - 1, False), (2, 0, True)],  # urgent iw-f, and promoted batch
    [(1, 0, False), (1, SECOND - 1, False)],  # urgent iw-n
    [(0, SECOND, False), (0, 10**11, False), (2, HOUR, True)],  # other iw-f
    [(1, SECOND, False), (1, 10**11, False)],  # other iw-n
    [(0, -1, False), (1, -EXPIRED, False), (2, -1, False), (2, -1, True)],  # recently expired
    [(2, 0, False), (2, SECOND - 1, False), (2, 10**11, False)],  # batch
]


def test_dpa_classes_follow_each_other() -> None:
    for above, below in pairwise(DPA_CLASSES):
        worst = max(key(DPA, tier, slack, promoted=promoted) for tier, slack, promoted in above)
        best = min(key(DPA, tier, slack, promoted=promoted) for tier, slack, promoted in below)
        assert worst < best


@pytest.mark.parametrize("members", DPA_CLASSES)
def test_inside_a_dpa_class_least_slack_goes_first(members: list[tuple[int, int, bool]]) -> None:
    by_slack = sorted(members, key=lambda one: one[1])
    by_key = sorted(members, key=lambda one: key(DPA, one[0], one[1], promoted=one[2]))
    assert [one[1] for one in by_key] == [one[1] for one in by_slack]


request = st.tuples(st.integers(0, 2), st.integers(-(10**10), 10**10), st.booleans(), st.integers(0, NOW))


@given(request, request)
def test_fcfs_edf_and_pf_compare_what_they_are_named_after(
    one: tuple[int, int, bool, int], other: tuple[int, int, bool, int]
) -> None:
    def keys(order: int) -> list[int]:
        return [key(order, tier, slack, promoted=promoted, arrival=arrival) for tier, slack, promoted, arrival in (one, other)]

    def rank(which: tuple[int, int, bool, int]) -> int:
        return 0 if which[2] else which[0]

    assert keys(FCFS) == [one[3], other[3]]
    assert keys(EDF) == [NOW + one[1], NOW + other[1]]
    first, second = keys(PF)
    assert (first < second) == ((rank(one), one[3]) < (rank(other), other[3]))
