"""One trace, two front doors: the live plane places, holds, feeds, promotes and turns away as the simulator does.

Worlds are drawn: engines, tiers, routing, feed rules, admission, strategies' roles, and instances that open and drain on the way.
In each the live plane of `front_door.py` and the simulator's kernel must agree on every placement, time, state and signal.
A failing seed is repeated with `differs(make_live_case(seeded(seed)))`. Read next: `live_mutants.py`, what would not go unseen.
"""

from collections import Counter

from tests.parity.live_cases import differs, make_live_case
from tests.sim.cases import seeded

CASES = 80
LEAST = {
    "shed": 400,
    "refused while it waited": 40,
    "given up": 150,
    "came again": 300,
    "fed": 1_500,
    "promoted": 500,
    "waited at the door": 400,
    "drained while busy": 80,
    "held for one that sleeps": 100,
    "woken while requests waited": 10,
    "turned away for others": 50,
    "taken before what is due sooner": 20,
}
"""How often each rule must have been tried over all cases."""


def test_live_plane_and_simulator_agree_and_every_rule_is_tried_often() -> None:
    counts: Counter[str] = Counter()
    for seed in range(CASES):
        difference = differs(make_live_case(seeded(seed)), counts)
        assert not difference, f"seed {seed}: {difference}"
    missed = {name: counts[name] for name, least in LEAST.items() if counts[name] < least}
    assert not missed, f"the cases no longer reach: {missed}"
