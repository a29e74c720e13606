"""Small worlds whose times are worked out in comments, played on the reference and on the compiled kernel.

Unless an example says otherwise an iteration takes 100 + 1 per prompt token + 10 per decoding sequence, microseconds.
Read next: docs/reference/kernel.md for the rules, `test_kernel_against_reference.py` for worlds nobody worked out.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sageserve.base.config.models import KNOTS
from sageserve.base.records import UNSET, Names, Trace
from sageserve.core.feed import STEPS
from sageserve.core.order import EDF, FCFS, TIER
from sageserve.core.perf import PROFILE
from sageserve.core.route import LEAST, NEAREST
from sageserve.core.signals import KV
from sageserve.sim.kernel.engine import Kernel
from sageserve.sim.kernel.state import DONE, HELD, PLACE, PROMOTED, REFUSED, Setup, request_rows
from tests.sim.case_engines import NOTHING
from tests.sim.cases import LIMITS, Simulator
from tests.sim.reference import Reference

Make = Callable[[Setup, NDArray[Any]], Simulator]
END = 900_000


@pytest.fixture(params=[Reference, Kernel])
def make(request: pytest.FixtureRequest) -> Make:
    kind: Make = request.param
    return kind


def engine(base: float = 100, prefill: float = 1, decode: float = 10, **fields: float) -> NDArray[Any]:
    """One PROFILE row: a curve that is one straight line, and what a sequence takes beyond a token."""
    row = np.zeros(1, PROFILE)
    plain = {"kv_tokens": 1_000, "weight": 1_000, "gpus": 1, "ranks": 1, "per_rank": 1, "decode": decode - prefill}
    plain |= {"max_sequences": 8, "max_batched": 500, "evicts": 1, "graphs": 8, "mixed": fields.get("chunked", 0)}
    for name, value in (plain | fields).items():
        row[name] = value
    row["shared_tokens"] = NOTHING
    row["tokens"] = [1.0, 501.0, *[np.inf] * (KNOTS - 2)]
    row["time"][:, :2], row["slope"][:, :2] = (base + prefill, base + 501 * prefill), (prefill, prefill)
    row["per_sequence"], row["per_kv"], row["per_token"] = (1 / row[of] for of in LIMITS)
    row["whole"] = base / row["max_batched"] + prefill
    return row


def tier(**fields: int) -> NDArray[Any]:
    """One TIER row."""
    row = np.zeros(1, TIER)
    row["patience"] = 500_000
    for name, value in fields.items():
        row[name] = value
    return row


PLAIN = Setup(
    regions=1,
    models=1,
    roles=1,
    slots=1,
    profiles=engine(),
    slot_profile=np.zeros(1, np.int32),
    context=np.array([1_000], np.int64),
    tiers=tier(),
    walk=np.zeros((1, 1, 1, 1), np.int32),
    feeds=np.array([True]),
    order=FCFS,
    route=NEAREST,
    threshold=0.7,
    signal=KV,
    scrape=1_000_000,
    half_life=60e6,
    feed=STEPS,
    two_below=0.5,
    one_below=0.6,
    promote_after=10**12,
    safety=0.0,
    output_guess=100.0,
)


def rows(setup: Setup, *requests: tuple[int, ...]) -> NDArray[Any]:
    """REQUEST rows of (arrival, prompt, output[, tier[, region]]), all of model 0."""
    full = np.array([(*one, 0, 0)[:5] if len(one) == 3 else (*one, 0)[:5] for one in requests])
    trace = Trace(
        arrival=full[:, 0].astype(np.int64),
        prompt=full[:, 1].astype(np.int32),
        output=full[:, 2].astype(np.int32),
        model=np.zeros(len(full), np.uint8),
        region=full[:, 4].astype(np.uint8),
        tier=full[:, 3].astype(np.uint8),
        names=Names(("m",), ("r",) * setup.regions, ("t",) * len(setup.tiers)),
        window=END,
    )
    return request_rows(trace, setup)


def times(make: Make, setup: Setup, *requests: tuple[int, ...]) -> list[tuple[int, int]]:
    """(first, finish) of every request when all instances are open from the start."""
    sim = make(setup, rows(setup, *requests))
    for i in range(setup.endpoints * setup.slots):
        sim.open(i)
    sim.run_until(END)
    return [(int(r["first"]), int(r["finish"])) for r in sim.requests]


def test_alone(make: Make) -> None:
    # prefill 100 + 50 -> 1150; two more tokens at 100 + 10 each -> 1370
    assert times(make, PLAIN, (1_000, 50, 3)) == [(1_150, 1_370)]


def test_one_token_is_first_and_last(make: Make) -> None:
    assert times(make, PLAIN, (1_000, 50, 1)) == [(1_150, 1_150)]


def test_an_iteration_that_prefills_runs_without_graphs(make: Make) -> None:
    # prefill takes 400 more, 550; decoding does not know it: 110 per token
    assert times(make, replace(PLAIN, profiles=engine(eager=400)), (0, 50, 3)) == [(550, 770)]


def test_the_curve_bends_where_its_knots_are(make: Make) -> None:
    # 100 up to 40 tokens, 5 us per token beyond: a prompt of 50 takes 150, decoding 100 + 9 per sequence
    setup = replace(PLAIN, profiles=engine())
    setup.profiles["tokens"][0, :3], setup.profiles["time"][0, :3], setup.profiles["slope"][0, :3] = (
        (1, 40, 140),
        (100, 100, 600),
        (0, 5, 5),
    )
    assert times(make, setup, (0, 50, 3)) == [(150, 150 + 2 * 109)]


def test_decoding_slows_down_as_memory_grows(make: Make) -> None:
    # kv 1 us per token: tokens 2 and 3 read 51 and 52 -> 161 + 162
    assert times(make, replace(PLAIN, profiles=engine(kv=1)), (0, 50, 3)) == [(150, 150 + 323)]


def test_a_block_is_rounded_once(make: Make) -> None:
    # prefill 100.25 -> 100; three tokens 300.75 -> 301, where three roundings would give 300
    assert times(make, replace(PLAIN, profiles=engine(base=100.25, prefill=0, decode=0)), (0, 5, 4)) == [(100, 401)]


def test_what_arrives_together_is_prefilled_together(make: Make) -> None:
    # 100 + 50 + 30 = 180, then both decode: 100 + 2*10
    assert times(make, PLAIN, (0, 50, 2), (0, 30, 2)) == [(180, 300), (180, 300)]


def test_an_arrival_cuts_the_block_and_prefill_pauses_decoding(make: Make) -> None:
    # request 0: first 150, tokens at 260, 370; request 1 comes at 300 and joins at 370: 100 + 20 -> 490.
    # request 0 has 3 tokens then; the other 8 take 110 each -> 490 + 880
    assert times(make, PLAIN, (0, 50, 11), (300, 20, 1)) == [(150, 1_370), (490, 490)]


def test_an_arrival_at_the_end_of_an_iteration_joins_right_there(make: Make) -> None:
    # 260 is the end of an iteration: request 1 is prefilled from 260 to 380; 9 tokens are left of request 0
    assert times(make, PLAIN, (0, 50, 11), (260, 20, 1)) == [(150, 380 + 9 * 110), (380, 380)]


def test_chunks_of_a_long_prompt(make: Make) -> None:
    # budget 32: pieces of 32, 32, 6 take 132 + 132 + 106
    setup = replace(PLAIN, profiles=engine(chunked=1, max_batched=32))
    assert times(make, setup, (0, 70, 1)) == [(370, 370)]


def test_chunks_attend_to_the_chunks_before(make: Make) -> None:
    # attention 0.5: 132 + 0.5*32*16 = 388; 132 + 0.5*32*48 = 900; 106 + 0.5*6*67 = 307
    setup = replace(PLAIN, profiles=engine(chunked=1, max_batched=32, attention=0.5))
    assert times(make, setup, (0, 70, 1)) == [(388 + 900 + 307,) * 2]


def test_chunks_leave_room_for_decoding(make: Make) -> None:
    # request 0: first 110, next 220, where the block is cut. 31 prompt tokens fit beside it: 100 + 31 + 10 -> 361;
    # the other 9: 100 + 9 + 10 -> 480. Request 0 has 4 tokens at 480, the other 6 take 110 each
    setup = replace(PLAIN, profiles=engine(chunked=1, max_batched=32))
    assert times(make, setup, (0, 10, 10), (150, 40, 1)) == [(110, 480 + 660), (480, 480)]


def test_memory_overflows_and_the_latest_is_preempted(make: Make) -> None:
    # 60 tokens of memory. Both prefilled at 140, 42 tokens used; nine iterations of 120 fit -> 1220, 10 tokens each.
    # 60 + 2 > 60: request 1 leaves. Request 0 alone: 11 tokens at 1330, 20 at 2320.
    # Request 1 needs 30 prefilled -> 2450 with token 11; nine more -> 3440
    setup = replace(PLAIN, profiles=engine(kv_tokens=60), context=np.array([60], np.int64))
    sim = make(setup, rows(setup, (0, 20, 20), (0, 20, 20)))
    sim.open(0)
    sim.run_until(END)
    assert sim.requests["first"].tolist() == [140, 140]
    assert sim.requests["finish"].tolist() == [2_320, 3_440]
    assert sim.endpoints["preempted"].tolist() == [1]


def test_earliest_deadline_first(make: Make) -> None:
    # one at a time: request 0 until 150; then request 2 (tier 1, due sooner) before request 1
    setup = replace(
        PLAIN,
        order=EDF,
        tiers=np.concatenate([tier(), tier(patience=1_000)]),
        walk=np.zeros((1, 1, 2, 1), np.int32),
        profiles=engine(max_sequences=1),
    )
    found = times(make, setup, (0, 50, 1), (10, 20, 1), (20, 30, 1, 1))
    assert found == [(150, 150), (400, 400), (280, 280)]


def test_too_long_is_refused(make: Make) -> None:
    setup = replace(PLAIN, context=np.array([50], np.int64))
    sim = make(setup, rows(setup, (0, 50, 5), (0, 49, 5)))
    sim.open(0)
    sim.run_until(END)
    # the second fits with one token of output: the row was clipped
    assert (sim.requests["state"] & PLACE).tolist() == [REFUSED, DONE]
    assert sim.requests["finish"].tolist() == [UNSET, 149]
    assert sim.finished()


def test_the_door_opens_at_the_next_scrape(make: Make) -> None:
    setup = replace(PLAIN, scrape=2_000)
    sim = make(setup, rows(setup, (100, 50, 1)))
    sim.run_until(5_000)
    assert int(sim.requests["state"][0]) == HELD
    sim.open(0)
    sim.run_until(6_000)
    assert int(sim.requests["instance"][0]) == 0
    sim.run_until(END)
    assert int(sim.requests["finish"][0]) == 6_150


def test_batch_work_is_fed_while_predicted_utilisation_is_low(make: Make) -> None:
    # each job adds (100 + 100)/1000; at 0, 0.2 and 0.4 one is given, at 0.6 none
    setup = replace(PLAIN, tiers=tier(batch=1))
    sim = make(setup, rows(setup, *[(10 + n, 100, 100) for n in range(5)]))
    sim.open(0)
    sim.run_until(100)
    assert sim.requests["instance"].tolist() == [0, 0, 0, UNSET, UNSET]
    assert sim.requests["state"][3:].tolist() == [HELD, HELD]
    # the three finish together; what was fed still counts until the scrape, which gives two
    sim.run_until(1_000_000)
    assert sim.requests["instance"].tolist() == [0] * 5


def test_an_old_job_is_promoted(make: Make) -> None:
    # nothing is ever fed; age passes 10 ms at the scrape at 12 ms
    setup = replace(PLAIN, tiers=tier(batch=1), one_below=0.0, two_below=0.0, promote_after=10_000, scrape=4_000)
    sim = make(setup, rows(setup, (0, 50, 1)))
    sim.open(0)
    sim.run_until(END)
    assert int(sim.requests["first"][0]) == 12_150
    assert int(sim.requests["state"][0]) == DONE | PROMOTED


def test_draining_finishes_what_it_has(make: Make) -> None:
    setup = replace(PLAIN, slots=2, slot_profile=np.zeros(2, np.int32))
    sim = make(setup, rows(setup, (0, 50, 3), (500, 50, 3), (500, 50, 3)))
    sim.open(0)
    sim.open(1)
    sim.run_until(100)
    assert not sim.drain(0)
    assert sim.run_until(END)
    # 150 + 2*110 = 370; everything later goes to instance 1
    assert (sim.now, list(sim.drained)) == (370, [0])
    assert sim.drain(1)
    sim.open(1)
    assert not sim.run_until(END)
    assert sim.requests["instance"].tolist() == [0, 1, 1]
    assert sim.endpoints["open"].tolist() == [1]


def test_the_least_utilised_region_is_what_was_last_scraped(make: Make) -> None:
    # endpoint 0 holds 51 of 1000 tokens at the scrape at 1000: the request at 2500 goes to endpoint 1,
    # and so does the one at 2600, because nobody has looked since
    setup = replace(
        PLAIN,
        regions=2,
        slot_profile=np.zeros(2, np.int32),
        feeds=np.array([True, True]),
        route=LEAST,
        scrape=1_000,
        walk=np.array([[[[0, 1]]], [[[1, 0]]]], np.int32),
    )
    sim = make(setup, rows(setup, (0, 50, 500), (2_500, 10, 2), (2_600, 10, 2)))
    sim.open(0)
    sim.open(1)
    sim.run_until(3_000)
    assert sim.requests["instance"].tolist() == [0, 1, 1]
    # an arrival at 0 is prefilled from 0; its decode block starts at 150 with 51 tokens
    sim.run_until(END)
    assert sim.finished()


def test_the_order_at_one_instant(make: Make) -> None:
    # run_until(1000) shows the scrape at 1000, not the arrival at 1000; an action then comes before that arrival
    setup = replace(PLAIN, slots=2, slot_profile=np.zeros(2, np.int32), scrape=1_000)
    sim = make(setup, rows(setup, (1_000, 50, 1)))
    sim.open(0)
    sim.run_until(1_000)
    assert int(sim.requests["instance"][0]) == UNSET
    assert sim.drain(0)
    sim.open(1)
    sim.run_until(END)
    assert int(sim.requests["instance"][0]) == 1
