"""The compiled kernel gives the times of the naive reference, to the microsecond, on hundreds of small random worlds.

A failing seed is repeated with `differs(make_case(seeded(seed)))`. Read next: docs/reference/kernel.md, `reference.py`.
"""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sim.cases import make_case, seeded
from tests.sim.compare import differs, first_difference, play, watched

PARTS = 2
PLAIN = 200
CROWDED = 120
LEAST = {
    "preempted": 500,
    "accepted after the last token": 500,
    "partly prefilled": 1_500,
    "blocks ended by a cut": 700,
    "promoted": 800,
    "waited at the door": 700,
    "drained while busy": 250,
    "reopened while draining": 100,
    "refused": 1_000,
    "fed": 1_500,
    "cached": 1_500,
    "partly prefilled after a cached part": 150,
    "preempted with a cached prompt": 80,
    "found again after preemption": 50,
    "shed": 500,
    "quickest by more than the way": 600,
    "sent again": 120,
    "broken off": 30,
    "beyond the cap": 150,
    "came again": 100,
    "given up": 25,
    "held for one that sleeps": 50,
    "woken while requests waited": 50,
    "turns that followed": 2_000,
    "turns that never came": 500,
    "conversation in the cache": 200,
    "opened with a past": 100,
    "blocks in the cache": 300,
    "blocks shared while used": 400,
    "blocks evicted": 5_000,
    "blocks of answers": 300,
    "blocks never finished": 6,
    "handed over": 1_500,
    "waited for the link": 500,
    "nowhere to land": 100,
    "passed over, for nobody decodes there": 20,
    "fuller where it is decoded": 400,
    "drained by handing over": 10,
    "lost when prefilled": 5,
    "more in the cache than expected": 40,
    "less in the cache than expected": 20,
    "ahead of others": 300,
    "turned away for others": 20,
    "silent for long": 5,
    "fed before what is due sooner": 20,
    "promoted out of turn": 10,
    "passed over for a slot": 300,
    "found its adapter": 800,
    "adapters that made way": 300,
    "chosen by what is loaded": 300,
}
"""How often each rule must have been tried in each part, of `PLAIN` worlds and `CROWDED` ones."""


@pytest.mark.parametrize("part", range(PARTS))
def test_every_time_placement_and_signal_agrees_and_every_rule_is_tried_often(part: int) -> None:
    counts: Counter[str] = Counter()
    for seed in range(part * PLAIN, (part + 1) * PLAIN):
        counts += agreed(seed)
    for seed in range(part * CROWDED, (part + 1) * CROWDED):
        counts += agreed(seed, crowded=True)
    missed = {name: counts[name] for name, least in LEAST.items() if counts[name] < least}
    assert not missed, f"the cases no longer reach: {missed}"


def agreed(seed: int, *, crowded: bool = False) -> Counter[str]:
    """How often the reference used each rule in a world that the kernel agrees on."""
    case = make_case(seeded(seed), crowded=crowded)
    expected, reference = play(case)
    difference = first_difference(expected, watched(case))
    assert not difference, f"seed {seed}{', crowded' if crowded else ''}: {difference}"
    return reference.counts


@given(st.data())
@settings(max_examples=60)
def test_generated_worlds_agree(data: st.DataObject) -> None:
    case = make_case(lambda low, high: data.draw(st.integers(low, high)), most_requests=12)
    assert differs(case) == ""
