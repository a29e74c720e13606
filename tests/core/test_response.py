"""The response curve: tables and closed forms, what must make it rise or fall, and the instances it says are worth their price.

How near it is to the simulator is measured by `python -m bench.response`. Read next: `src/sageserve/core/response.py`.
"""

from math import exp, factorial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sageserve.base.rng import stream
from sageserve.core.response import (
    BIN_SLACKS,
    MIX_WIDTH,
    SLACK_BINS,
    RequestMix,
    arrays_of,
    fewest,
    held,
    instances_for,
    late,
    mix_of,
    must_wait,
    note_request,
    slack_bin,
    sustainable,
)

FULL = 0.9


@st.composite
def mixes(draw: st.DrawFn) -> RequestMix:
    """Prompts of 10 ms to 2 s, answers up to ten times as long, any slacks."""
    prefill = draw(st.floats(1e4, 2e6))
    count = draw(st.integers(1, 6))
    slacks = sorted(draw(st.floats(1e3, 1e7)) for _ in range(count))
    shares = np.array([draw(st.floats(0.1, 1.0)) for _ in range(count)])
    return RequestMix(
        prefill_us=prefill,
        variation=draw(st.floats(0, 3)),
        decode_us=prefill * draw(st.floats(0, 10)),
        step_us=draw(st.floats(0, 1e5)),
        slacks=tuple(slacks),
        weights=tuple((shares / shares.sum()).tolist()),
        eligible=draw(st.floats(0.05, 1)),
    )


servers = st.integers(1, 60)
loads = st.floats(0, 0.99)


@pytest.mark.parametrize(
    ("count", "offered", "waits"),
    [  # chance to wait, tables of M/M/c in textbooks
        (1, 0.5, 0.5),
        (1, 0.9, 0.9),
        (2, 1.0, 1 / 3),
        (2, 1.5, 0.642857),
        (3, 2.0, 4 / 9),
        (4, 3.0, 0.509434),
        (5, 4.0, 0.554113),
        (10, 8.0, 0.409180),
    ],
)
def test_the_chance_to_wait_is_what_tables_say(count: int, offered: float, waits: float) -> None:
    assert must_wait(count, offered / count) == pytest.approx(waits, abs=1e-6)


@given(st.integers(1, 30), st.floats(0.01, 0.99))
def test_the_chance_to_wait_is_its_definition(count: int, load: float) -> None:
    offered = count * load
    last = offered**count / factorial(count) / (1 - load)
    assert must_wait(count, load) == pytest.approx(last / (sum(offered**k / factorial(k) for k in range(count)) + last))


# ------------------------------------------------------------------------------------------------ the curve


@given(st.floats(0.01, 0.95), st.floats(0, 10))
def test_prompts_alone_of_exponential_length_wait_as_in_the_closed_form(load: float, wait: float) -> None:
    alone = RequestMix(1e6, 1.0, 0.0, 0.0, (wait * 1e6,), (1.0,))
    assert late(1, load, alone) == pytest.approx(load * exp(-(1 - load) * wait))


def test_decoding_is_felt_by_half() -> None:
    """Half of the time is decoding: at load 0.8 prompts keep an engine, of which 0.8 is left, busy by a half."""
    mix = RequestMix(1e5, 1.0, 1e5, 0.0, (1e5,), (1.0,))
    assert late(1, 0.8, mix) == pytest.approx(0.5 * exp(-0.5 * 0.8))


def test_a_prompt_first_waits_for_the_iteration_in_progress() -> None:
    mix = RequestMix(1e5, 1.0, 0.0, 1e4, (4e3, 8e3), (0.25, 0.75))
    assert late(40, 0.3, mix) == pytest.approx(0.25, abs=1e-3)  # two steps times 0.3 are 6 ms
    assert late(40, 0.1, mix) == pytest.approx(0.0, abs=1e-3)


@given(servers, loads, mixes())
def test_late_is_a_share_and_rises_with_load(count: int, load: float, mix: RequestMix) -> None:
    found = late(count, load, mix)
    assert 0 <= found <= 1
    assert late(count, load + (1 - load) / 3, mix) >= found - 1e-12
    assert late(count, 0.0, mix) == 0
    assert late(count, 1.0, mix) == 1


@given(servers, loads, mixes())
def test_more_instances_more_slack_and_more_even_prompts_make_fewer_late(count: int, load: float, mix: RequestMix) -> None:
    found = late(count, load, mix) + 1e-12
    assert late(count + 1, load, mix) <= found
    assert late(count, load, replace(mix, slacks=tuple(2 * slack for slack in mix.slacks))) <= found
    assert late(count, load, replace(mix, variation=mix.variation / 2)) <= found
    assert late(count, load, replace(mix, step_us=mix.step_us / 2)) <= found


@given(servers, loads, mixes(), st.floats(0.1, 10))
def test_only_ratios_of_times_matter(count: int, load: float, mix: RequestMix, factor: float) -> None:
    longer = replace(
        mix,
        prefill_us=mix.prefill_us * factor,
        decode_us=mix.decode_us * factor,
        step_us=mix.step_us * factor,
        slacks=tuple(slack * factor for slack in mix.slacks),
    )
    assert late(count, load, longer) == pytest.approx(late(count, load, mix), abs=1e-9)


@given(servers, st.floats(0, FULL), mixes(), st.floats(1e-3, 1), st.floats(1, 4))
def test_the_more_minutes_differ_the_more_are_late(count: int, load: float, mix: RequestMix, uneven: float, more: float) -> None:
    less = replace(mix, uneven=uneven)
    found = late(count, load, less)
    assert late(count, load, mix) - 1e-9 <= found <= late(count, load, replace(mix, uneven=uneven * more)) + 1e-5
    assert 0 <= found <= 1 + 1e-9
    assert late(count, load + (FULL - load) / 3, less) >= found - 1e-9
    assert late(count + 1, load, less) <= found + 1e-9
    assert late(count, load, replace(less, slacks=tuple(2 * slack for slack in mix.slacks))) <= found + 1e-9


def test_minutes_that_differ_by_nothing_are_the_curve_to_the_byte() -> None:
    mix = RequestMix(2e5, 0.5, 3e5, 1e4, (1e5, 1e6, 3e6), (0.25, 0.25, 0.5))
    for plain, taken in zip(arrays_of(mix), arrays_of(replace(mix, uneven=0.0)), strict=True):
        assert plain.tobytes() == taken.tobytes()
    assert late(2, 0.5, replace(mix, uneven=1e-9)) == pytest.approx(late(2, 0.5, mix), rel=1e-3)
    share, load = 0.4, 0.5
    left = 1 - 0.5 * (1 - share) * load
    busy = share * load / left
    pace = 4 * (1 - busy) / (1.5 * 2e5 / left)
    waits = [weight * exp(-pace * (slack - 1e4)) for slack, weight in zip(mix.slacks, mix.weights, strict=True)]
    assert late(2, 0.5, mix) == pytest.approx(must_wait(2, busy) * sum(waits), rel=1e-12)


@pytest.mark.parametrize(("load", "uneven"), [(0.4, 0.3), (0.4, 0.9), (0.6, 0.3), (0.6, 0.6)])
def test_of_very_many_instances_full_minutes_are_late_as_where_work_flows(load: float, uneven: float) -> None:
    """A fluid queue of prompts alone, minute by minute: what is left over is worked off later."""
    minutes, waited, slack = 20_000, 0.0, 3 / 60
    late_work = work = 0.0
    for rate in load * stream(1, "response/minutes").gamma(1 / uneven, uneven, minutes):
        path = np.maximum(waited + (rate - 1) * (np.arange(20) + 0.5) / 20, 0.0)  # what a request waits, by when it comes
        late_work, work = late_work + rate * (path > slack).mean(), work + rate
        waited = max(waited + rate - 1, 0.0)
    mix = RequestMix(1e3, 0.0, 0.0, 0.0, (3e6,), (1.0,), uneven=uneven)
    assert late(500, load, mix) == pytest.approx(late_work / work, abs=0.03)


def test_who_is_late_at_an_even_rate_is_late_in_quiet_minutes_too() -> None:
    mix = RequestMix(2e4, 0.0, 2e4, 1e5, (5e4,), (1.0,))  # iterations in progress take 60 ms at a load of 0.3
    assert late(4, 0.3, mix) == 1
    assert late(4, 0.3, replace(mix, uneven=0.5)) == pytest.approx(1)


def test_where_minutes_differ_more_instances_are_enough() -> None:
    mix = RequestMix(2e5, 0.5, 3e5, 1e4, (1e5, 1e6, 3e6), (0.25, 0.25, 0.5))
    even, uneven = (held(replace(mix, uneven=one), 1e7, 8) for one in (0.0, 0.5))
    assert (uneven[1:] < 0.8 * even[1:]).all()
    assert (np.diff(uneven) >= 0).all()


def test_where_nobody_can_be_in_time_nobody_is_late_for_queueing() -> None:
    hopeless = RequestMix(1e6, 0.5, 1e6, 1e4, (), (), 0.0)
    assert late(4, 0.9, hopeless) == 0
    assert held(hopeless, 1e9, 4).tolist() == pytest.approx([FULL * n for n in range(5)])


# ------------------------------------------------------------------------------------------------ what is worth its price


@given(mixes(), st.floats(1e5, 1e9), st.integers(1, 3))
def test_at_what_is_held_one_more_saves_what_it_costs(mix: RequestMix, worth: float, group: int) -> None:
    smooth = replace(mix, step_us=0.0)
    found = held(smooth, worth, 6, group=group)

    def saves(n: int, load: float) -> float:
        """Price of the requests that an n+1st instance everywhere keeps in time, in prices of an instance."""
        all_ = n * group
        more = late(all_, load, smooth) - late(all_ + 1, load * all_ / (all_ + 1), smooth)
        return more * smooth.eligible * all_ * load / smooth.each_us * worth

    for n in range(1, 7):
        load = found[n] / n
        if found[n - 1] / n + 1e-4 < load < FULL - 1e-4:
            assert saves(n, load - 1e-5) <= 1 + 1e-6
            assert saves(n, load + 1e-5) >= 1 - 1e-6


@given(mixes(), st.floats(1e5, 1e9), st.integers(1, 3))
def test_what_is_held_rises_and_is_less_for_dearer_requests(mix: RequestMix, worth: float, group: int) -> None:
    found = held(mix, worth, 12, group=group)
    assert found[0] == 0
    assert (np.diff(found) >= 0).all()
    assert (found <= FULL * np.arange(13) + 1e-9).all()
    assert held(mix, 0.0, 12, group=group) == pytest.approx(FULL * np.arange(13), abs=1e-5)


def test_demand_between_two_numbers_is_a_fraction_and_beyond_the_last_goes_on() -> None:
    enough = np.array([0.0, 0.5, 1.3, 2.4])
    assert instances_for(np.array([0.0, 0.25, 0.5, 0.9, 2.4, 4.8]), enough) == pytest.approx([0, 0.5, 1, 1.5, 3, 6])


@given(st.floats(0, 60), mixes(), st.floats(0.005, 0.5))
def test_the_fewest_instances_that_keep_a_share_in_time_are_found(busy: float, mix: RequestMix, share: float) -> None:
    count = fewest(busy, mix, share)
    if count < 4096:
        assert count * sustainable(count, mix, share) >= busy
        assert count <= max(1, busy) or (count - 1) * sustainable(count - 1, mix, share) < busy
    load = sustainable(count, mix, share)
    assert late(count, load, mix) <= share + 1e-9
    assert load > 0.999 or late(count, min(load + 1e-3, 1.0), mix) > share


# ------------------------------------------------------------------------------------------------ counting


@given(st.lists(st.tuples(st.integers(1, 10**7), st.integers(0, 10**7), st.integers(-(10**6), 10**9)), min_size=1, max_size=40))
def test_what_is_counted_is_the_mix(requests: list[tuple[int, int, int]]) -> None:
    counted = np.zeros(MIX_WIDTH)
    for prefill, decode, slack in requests:
        note_request(counted, float(prefill), float(prefill + decode), float(slack))
    mix = mix_of(counted, 5.0)
    assert mix is not None
    prompts, answers, slacks = (np.array(column, float) for column in zip(*requests, strict=True))
    assert mix.prefill_us == pytest.approx(prompts.mean())
    assert mix.decode_us == pytest.approx(answers.mean())
    assert mix.variation == pytest.approx(prompts.var() / prompts.mean() ** 2, abs=1e-6)
    assert mix.eligible == pytest.approx((slacks > 0).mean())
    assert mix.step_us == 5.0
    assert sum(mix.weights) == pytest.approx(1.0 if mix.weights else 0.0)
    assert list(mix.slacks) == sorted(mix.slacks)
    within = [slack for slack in slacks if 1100 < slack < 2.5e9]
    assert {BIN_SLACKS[slack_bin(slack)] for slack in within} <= set(mix.slacks)


@given(st.floats(1100, 2.5e9))
def test_a_bin_stands_for_slacks_within_an_eighth(slack: float) -> None:
    assert BIN_SLACKS[slack_bin(slack)] == pytest.approx(slack, rel=0.125)


def test_slacks_beyond_the_bins_are_in_the_outer_ones() -> None:
    assert slack_bin(0.5) == slack_bin(900.0) == 0
    assert slack_bin(1e12) == SLACK_BINS - 1


def test_nothing_counted_is_no_mix() -> None:
    assert mix_of(np.zeros(MIX_WIDTH), 1.0) is None
