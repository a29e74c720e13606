"""Why promises were missed: each cause made by hand, one request each, and the law that causes add up to what was missed.

Read next: `src/sageserve/sim/results/causes.py`.
"""

from sageserve.base.units import MINUTE, SECOND
from sageserve.data.results.summary import Summary
from sageserve.sim.results.summary import summarise
from sageserve.sim.run import simulate
from tests.core.small import TIERS, Row, row, scenario, trace


def played(rows: list[Row], **changes: object) -> Summary:
    """One instance of each model in the east."""
    fleet = {"start": 0, "minimum": 0, "starts": {"east/big/h100": 1, "east/small/h100": 1}}
    settings = scenario(fleet=fleet, strategy={"name": "fixed"}, **changes)  # type: ignore[arg-type] # sections, not the number of GPUs
    return summarise(simulate(settings, trace(settings, rows, window=10 * MINUTE)), 1.0)


def test_each_cause_is_found_by_itself() -> None:
    tiers = {**TIERS, "iw-f": {"ttft": "100ms"}, "paced": {"ttft": "60s", "itl": "15ms"}}
    near, far = 3_000, 2_000  # 10 ms and 20 us per token: 70 ms and 5 ms of way, 50 ms and 70 ms
    cases = {
        "alone": [row(0, prompt=6_000)],  # 130 ms
        "network": [row(0, prompt=far, region="west")],
        "refused": [row(0, prompt=8_500)],
        "pace": [row(0, tier="paced"), row(SECOND // 20, tier="iw-n", prompt=7_000)],  # 10 ms a token, but for one of 150 ms
        "queue": [row(0, prompt=near), row(SECOND // 50, prompt=near)],  # the second waits for the first
    }
    for cause, rows in cases.items():
        found = played(rows, tiers=tiers)
        tier = found.tiers[rows[0][3]]
        wanted = {"alone": 1} if cause == "refused" else {cause: 1}  # so long a prompt is too long for an idle engine, too
        assert tier.missed == wanted, cause
        assert found.models["big"].tiers[rows[0][3]].missed == wanted
        assert tier.possible == (0.0 if cause in {"alone", "network", "refused"} else 1.0)
    assert played(cases["pace"], tiers=tiers).tiers["paced"].itl_s == 0.015


def test_a_way_that_was_long_by_chance_is_the_network() -> None:
    rows = [row(k * SECOND, prompt=500) for k in range(40)]  # one at a time: 20 ms, and a way of 5 ms in the median
    found = played(rows, tiers={**TIERS, "iw-f": {"ttft": "30ms"}}, faults={"rtt_spread": 1.0})
    assert found.tiers["iw-f"].missed.keys() == {"network"}


def test_causes_add_up_to_what_was_missed() -> None:
    rows = [row(k * SECOND // 50, prompt=200 + 97 * k % 7_000, region=("east", "west")[k % 2]) for k in range(600)]
    found = played(rows, admission={"act": True})
    for tiers in (found.tiers, found.models["big"].tiers):
        one = tiers["iw-f"]
        assert one.attainment is not None
        assert sum(one.missed.values()) == one.requests - round(one.attainment * one.requests)
        assert len(one.missed) > 1
        assert one.possible is not None
        assert one.possible >= one.attainment
