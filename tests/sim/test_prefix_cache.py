"""What the prefix cache saves, and what it does not: worked examples on reference and kernel, and laws of the kernel.

Read next: docs/reference/kernel.md; `test_kernel_against_reference.py`, whose worlds hold cached prompts too.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sageserve.base.errors import TraceError
from sageserve.base.records import REQUEST, UNSET, Names, Trace, cached_tokens
from sageserve.sim.kernel.engine import Kernel
from sageserve.sim.kernel.state import Setup
from tests.sim.cases import fresh_rows, make_case, seeded, watch
from tests.sim.reference import Reference
from tests.sim.test_reference_by_hand import END, PLAIN, Make, engine, rows


@pytest.fixture(params=[Reference, Kernel])
def make(request: pytest.FixtureRequest) -> Make:
    kind: Make = request.param
    return kind


def played(make: Make, setup: Setup, requests: NDArray[Any], cached: list[int]) -> list[tuple[int, int]]:
    """(first, finish) of every request when so many tokens of its prompt are cached and one instance is open."""
    requests["cached"] = cached
    sim = make(setup, requests)
    sim.open(0)
    sim.run_until(END)
    return [(int(r["first"]), int(r["finish"])) for r in sim.requests]


def test_a_request_fills_one_cache_line() -> None:
    assert REQUEST.itemsize == 64


def test_only_what_is_not_cached_is_computed(make: Make) -> None:
    # prefill 100 + (50 - 32) -> 1118; two more tokens at 100 + 10 each -> 1338
    assert played(make, PLAIN, rows(PLAIN, (1_000, 50, 3)), [32]) == [(1_118, 1_338)]


def test_what_is_computed_attends_to_what_is_cached(make: Make) -> None:
    # 20 tokens after 30: 100 + 20 + 20 x (30 + 10)
    setup = replace(PLAIN, profiles=engine(attention=1))
    assert played(make, setup, rows(setup, (0, 50, 1)), [30]) == [(920, 920)]


def test_chunks_begin_after_the_cached_part(make: Make) -> None:
    # 10 tokens after 32, then 8 after 42: 110 + 10 x 37, 108 + 8 x 46
    setup = replace(PLAIN, profiles=engine(attention=1, chunked=1, max_batched=10))
    assert played(make, setup, rows(setup, (0, 50, 1)), [32]) == [(480 + 476, 480 + 476)]


def test_a_prompt_that_is_cached_leaves_room_for_others_in_the_batch(make: Make) -> None:
    # budget 30, prefill-first: 20 + 10 go together -> 130; with nothing cached the second would have had to wait
    setup = replace(PLAIN, profiles=engine(max_batched=30))
    assert played(make, setup, rows(setup, (0, 20, 1), (0, 40, 1)), [0, 30]) == [(130, 130), (130, 130)]


def test_cached_tokens_take_memory(make: Make) -> None:
    # 51 + 51 + room for 2 would be 104 of 103: one after the other
    setup = replace(PLAIN, profiles=engine(kv_tokens=103), context=np.array([100], np.int64))
    assert played(make, setup, rows(setup, (0, 50, 3), (0, 50, 3)), [40, 40]) == [(110, 330), (440, 660)]


def test_a_preempted_request_finds_its_cached_part_again(make: Make) -> None:
    # 60 tokens of memory. Both prefilled at 108; nine iterations of 120 fit -> 1188, 10 tokens each.
    # Request 1 leaves. Request 0 alone: ten of 110 -> 2288. Request 1 needs 30 - 16 prefilled -> 2402; nine more -> 3392
    setup = replace(PLAIN, profiles=engine(kv_tokens=60), context=np.array([60], np.int64))
    found = played(make, setup, rows(setup, (0, 20, 20), (0, 20, 20)), [16, 16])
    assert found == [(108, 2_288), (108, 3_392)]


def one_request(prompt: int, cached: NDArray[np.int32] | None) -> Trace:
    return Trace(
        arrival=np.zeros(1, np.int64),
        prompt=np.array([prompt], np.int32),
        output=np.ones(1, np.int32),
        model=np.zeros(1, np.uint8),
        region=np.zeros(1, np.uint8),
        tier=np.zeros(1, np.uint8),
        names=Names(("m",), ("r",), ("t",)),
        window=1,
        cached=cached,
    )


@pytest.mark.parametrize(
    ("prompt", "share", "found"),
    [(100, 0.0, 0), (100, 0.5, 48), (100, 1.0, 96), (96, 1.0, 95), (16, 1.0, 15), (15, 1.0, 0), (1, 1.0, 0)],
)
def test_a_share_is_found_in_whole_blocks_and_one_token_is_left(prompt: int, share: float, found: int) -> None:
    assert cached_tokens(one_request(prompt, None), (share,)).tolist() == [found]
    assert cached_tokens(one_request(prompt, np.array([UNSET], np.int32)), (share,)).tolist() == [found]


def test_what_the_trace_says_counts() -> None:
    assert cached_tokens(one_request(100, np.array([7], np.int32)), (0.5,)).tolist() == [7]
    assert cached_tokens(one_request(100, np.array([0], np.int32)), (0.5,)).tolist() == [0]


@pytest.mark.parametrize("cached", [100, 101, -2])
def test_a_trace_that_leaves_nothing_to_compute_is_refused(cached: int) -> None:
    with pytest.raises(TraceError, match="cached"):
        one_request(100, np.array([cached], np.int32)).check()


@pytest.mark.parametrize("seed", range(20))
def test_nothing_cached_is_the_same_as_not_saying(seed: int) -> None:
    case = make_case(seeded(seed))
    plain = replace(case, setup=replace(case.setup, prefix_hits=()), trace=replace(case.trace, cached=None))
    zeros = np.zeros(len(case.trace), np.int32)
    said = replace(
        case, setup=replace(case.setup, prefix_hits=(0.5,) * case.setup.models), trace=replace(case.trace, cached=zeros)
    )
    kernels = ((Kernel(each.setup, fresh_rows(each), each.turns), each) for each in (plain, said))
    one, other = ([stop.requests for stop in watch(kernel, each)] for kernel, each in kernels)
    assert len(one) == len(other)
    assert all((a == b).all() for a, b in zip(one, other, strict=True))


@given(st.booleans(), st.integers(2, 800), st.integers(9, 300), st.data())
def test_more_cached_never_delays_the_first_token_of_the_only_request(
    chunked: bool, prompt: int, budget: int, data: st.DataObject
) -> None:
    more = data.draw(st.integers(1, prompt - 1))
    less = data.draw(st.integers(0, more - 1))
    # no floor: it may hide what the last piece saves, and not what the earlier ones cost more by reading what is cached
    setup = replace(PLAIN, profiles=engine(prefill=2, attention=0.3, chunked=int(chunked), max_batched=budget))
    (later, _), (sooner, _) = (played(Kernel, setup, rows(setup, (0, prompt, 1)), [cached])[0] for cached in (less, more))
    assert sooner < later


def test_engine_time_is_saved() -> None:
    setup = replace(PLAIN, profiles=engine(kv_tokens=100_000, chunked=1, max_batched=64))
    flood = [(0, 60 + i % 40, 5) for i in range(200)]
    prompts = rows(setup, *flood)["prompt"]
    ends, work = [], []
    for share in (0.0, 0.25, 0.5, 0.75):
        requests = rows(setup, *flood)
        requests["cached"] = prompts * share
        kernel = Kernel(setup, requests)
        kernel.open(0)
        kernel.run_until(END)
        ends.append(int(kernel.requests["finish"].max()))
        work.append(float(kernel.demand_work[0]))
    assert ends == sorted(ends, reverse=True)
    assert work == sorted(work, reverse=True)
    assert ends[0] - ends[3] >= 0.7 * prompts.sum(), "a microsecond per token that need not be computed"
