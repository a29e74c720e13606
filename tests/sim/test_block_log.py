"""The log of blocks accounts for every microsecond and every token of an engine's work, and changes nothing.

Read next: `sim/kernel/bookkeeping.py`; docs/reference/kernel.md for what a block is.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sageserve.base.config import ProfileSettings
from sageserve.base.rng import stream
from sageserve.core.perf import block_time, iteration_time, profile_rows
from sageserve.sim import replay as replaying
from sageserve.sim.replay import Arrivals, ReplayedBlocks, replay, replay_blocks
from tests.sim.case_doors import ODD

ENGINE = ProfileSettings(
    gpu="g",
    tp=1,
    gpus=1,
    iteration_ms=((1, 7 * ODD), (40, 7 * ODD), (200, 9 * ODD), (256, 12 * ODD)),
    eager_ms=1.5 * ODD,
    decode_us_per_sequence=110 * ODD,
    kv_ns_per_token=80 * ODD,
    attention_ns_per_token2=3 * ODD,
    first_token_ms=4.0,
    kv_tokens=200_000,
    max_sequences=16,
    max_batched_tokens=256,
    source="made up",
)


@st.composite
def cases(draw: st.DrawFn) -> tuple[ProfileSettings, Arrivals]:
    """An engine, roomy or full, chunked or not, and requests that come slowly or all at once."""
    random = stream(draw(st.integers(0, 10_000)), "tests/blocks")
    n = draw(st.integers(1, 60))
    chunked = draw(st.booleans())
    profile = ENGINE.model_copy(update={"chunked": chunked, "kv_tokens": draw(st.sampled_from([2_100, 200_000]))})
    arrival = np.sort(random.integers(0, draw(st.sampled_from([1, 2_000_000, 60_000_000])), n))
    prompt = random.integers(1, 1_500, n)
    cached = np.where(random.uniform(size=n) < 0.5, prompt // 2, 0) if draw(st.booleans()) else None
    return profile, Arrivals(arrival, prompt, random.integers(1, 300, n), cached)


def ends(profile: ProfileSettings, blocks: ReplayedBlocks) -> list[int]:
    """When each block ends, iteration by iteration from the formula."""
    row = profile_rows([profile])[0]
    found = []
    for start, count, tokens, attention, decoding, kv in zip(
        blocks.start, blocks.iterations, blocks.tokens, blocks.attention, blocks.decoding, blocks.kv, strict=True
    ):
        times = [
            iteration_time(row, tokens, attention + j * float(tokens) ** 2, decoding, kv + j * decoding) for j in range(count)
        ]
        found.append(int(start) + block_time(sum(times), 0.0, 1))
    return found


@given(case=cases())
def test_every_microsecond_between_arrival_and_finish_is_a_blocks(case: tuple[ProfileSettings, Arrivals]) -> None:
    profile, arrivals = case
    played, blocks = replay_blocks(profile, arrivals)
    end = ends(profile, blocks)
    begins = set(arrivals.arrival.tolist())
    assert (blocks.iterations >= 1).all()
    for i, start in enumerate(blocks.start[1:].tolist()):
        assert start == end[i] or (start > end[i] and start in begins)
    entry = round(profile.first_token_ms * 1_000)
    for times in (played.ttft, played.e2e):
        assert set((arrivals.arrival + times - entry).tolist()) <= set(end)


@given(case=cases())
def test_every_token_is_computed_once_unless_it_was_preempted(case: tuple[ProfileSettings, Arrivals]) -> None:
    profile, arrivals = case
    played, blocks = replay_blocks(profile, arrivals)
    computed = int((blocks.tokens * blocks.iterations).sum())
    found = 0 if arrivals.cached is None else int(arrivals.cached.sum())
    least = int(arrivals.prompt.sum()) - found
    assert computed == least if played.preemptions == 0 else computed > least
    # The first token comes from the prompt, and so does the one after each preemption.
    made = int((blocks.decoding * blocks.iterations).sum())
    assert made == int((arrivals.output - 1).sum()) - played.preemptions or played.preemptions > 0
    assert made <= int((arrivals.output - 1).sum())


@given(case=cases())
def test_a_log_changes_nothing(case: tuple[ProfileSettings, Arrivals]) -> None:
    with_log, without = replay_blocks(*case)[0], replay(*case)
    assert (with_log.ttft == without.ttft).all()
    assert (with_log.e2e == without.e2e).all()
    assert with_log.preemptions == without.preemptions


def test_a_log_that_was_too_short_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    random = stream(1, "tests/blocks/short")
    arrivals = Arrivals(np.arange(20) * 50_000, random.integers(1, 900, 20), random.integers(1, 90, 20))
    _, whole = replay_blocks(ENGINE, arrivals)
    monkeypatch.setattr(replaying, "_BLOCKS_PER_REQUEST", 1)
    _, again = replay_blocks(ENGINE, arrivals)
    assert len(whole.start) > 20
    assert all((getattr(whole, name) == getattr(again, name)).all() for name in ReplayedBlocks.__slots__)


def test_a_request_alone_has_a_block_for_its_prompt_and_one_for_its_answer() -> None:
    curve = ((1, 7.0), (100, 10.0), (200, 15.0))
    profile = ENGINE.model_copy(update={"iteration_ms": curve, "eager_ms": 0.1, "attention_ns_per_token2": 3.0})
    _, blocks = replay_blocks(profile, Arrivals(np.zeros(1, np.int64), np.array([100]), np.array([10])))
    assert blocks.start.tolist() == [0, 10_000 + 100 + 15]
    assert blocks.iterations.tolist() == [1, 9]
    assert blocks.tokens.tolist() == [100, 0]
    assert blocks.attention.tolist() == [5_000.0, 0.0]
    assert blocks.decoding.tolist() == [0, 1]
    assert blocks.kv.tolist() == [0, 101]
