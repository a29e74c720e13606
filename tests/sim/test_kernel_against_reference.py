"""The compiled kernel gives the times of the naive reference, to the microsecond, on hundreds of small random worlds.

A failing seed is repeated with `differs(make_case(seeded(seed)))`. Read next: docs/reference/kernel.md, `reference.py`.
"""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sim.cases import make_case, seeded
from tests.sim.compare import differs, play

CHUNK = 40
CHUNKS = 12
LEAST = {
    "preempted": 1_000,
    "partly prefilled": 2_000,
    "blocks ended by a cut": 500,
    "promoted": 400,
    "waited at the door": 800,
    "drained while busy": 300,
    "reopened while draining": 100,
    "refused": 1_000,
    "fed": 1_000,
    "cached": 3_000,
    "partly prefilled after a cached part": 300,
    "preempted with a cached prompt": 300,
    "found again after preemption": 100,
    "shed": 1_000,
    "quickest by more than the way": 1_000,
    "sent again": 200,
    "broken off": 50,
    "beyond the cap": 500,
    "came again": 150,
    "given up": 50,
    "turns that followed": 2_000,
    "turns that never came": 500,
    "conversation in the cache": 200,
    "opened with a past": 50,
    "blocks in the cache": 400,
    "blocks shared while used": 1_000,
    "blocks evicted": 5_000,
    "blocks of answers": 150,
    "blocks never finished": 25,
    "more in the cache than expected": 150,
    "less in the cache than expected": 40,
}
"""How often each rule must have been tried over the cases of `COVERED` seeds and the crowded ones of `CROWDED`."""
COVERED = 400
CROWDED = 240


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_every_time_placement_and_signal_agrees(chunk: int) -> None:
    for seed in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        difference = differs(make_case(seeded(seed)))
        assert not difference, f"seed {seed}: {difference}"


@pytest.mark.parametrize("chunk", range(3))
def test_crowded_worlds_agree(chunk: int) -> None:
    for seed in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        difference = differs(make_case(seeded(seed), crowded=True))
        assert not difference, f"seed {seed}: {difference}"


@given(st.data())
@settings(max_examples=60)
def test_generated_worlds_agree(data: st.DataObject) -> None:
    case = make_case(lambda low, high: data.draw(st.integers(low, high)), most_requests=12)
    assert differs(case) == ""


def test_cases_try_every_rule_often() -> None:
    counts: Counter[str] = Counter()
    for seed in range(COVERED):
        counts += play(make_case(seeded(seed)))[1].counts
    for seed in range(CROWDED):
        counts += play(make_case(seeded(seed), crowded=True))[1].counts
    missed = {name: counts[name] for name, least in LEAST.items() if counts[name] < least}
    assert not missed, f"the cases no longer reach: {missed}"
