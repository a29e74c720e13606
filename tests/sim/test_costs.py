"""Money as a spreadsheet has it: three instances, two price classes and a commitment, to the cent; and counts over time.

Read next: `src/sageserve/sim/results/costs.py`, docs/reference/money.md.
"""

from hypothesis import given
from hypothesis import strategies as st

from sageserve.base.units import HOUR, MINUTE
from sageserve.core.ledger import Level
from sageserve.data.results.summary import Cost, GpuCounts, StockCost
from sageserve.sim.results.costs import counted, summed
from sageserve.sim.results.summary import summarise
from sageserve.sim.run import simulate
from tests.core.small import ENGINE, row, scenario, trace

HALF = {"h100": {**ENGINE, "gpus": 4, "tp": 4}}


def bought(*, reserved: int, price: dict[str, str], hours: int = 5) -> Cost:
    """Three instances of four GPUs on VMs of eight, two in the east and one in the west, for some hours."""
    stock = {"h100": {"gpus": 128, "reserved": reserved, "price": price}}
    settings = scenario(
        regions={"east": {"gpus": stock, "rtt": {"west": "70ms"}}, "west": {"gpus": stock}},
        models={name: {"context": 8_000, "engines": HALF} for name in ("big", "small")},
        fleet={"start": 0, "minimum": 0, "starts": {"east/big/h100": 1, "east/small/h100": 1, "west/big/h100": 1}},
        strategy={"name": "fixed"},
    )
    played = trace(settings, [row(MINUTE)], window=hours * HOUR)
    return summarise(simulate(settings, played), 1.0).cost_usd


def test_a_spreadsheet_has_the_same_cents() -> None:
    cost = bought(reserved=8, price={"on_demand": "98.32/h", "reserved": "61.27/h"})
    east, west = cost.lines["east/h100"], cost.lines["west/h100"]
    assert (east.reserved, east.on_demand, east.unused) == (306.35, 0.0, 0.0)  # 5 h x 1 VM x 61.27; both instances are on it
    assert (west.reserved, west.on_demand, west.unused) == (306.35, 0.0, 0.0)  # its half that nothing runs on is paid too
    assert (cost.total, cost.reserved, cost.on_demand) == (612.70, 612.70, 0.0)


def test_whole_vms_are_paid_on_demand_and_per_gpu_is_the_same_money() -> None:
    vms = bought(reserved=0, price={"on_demand": "98.32/h"})
    assert (vms.total, vms.lines["west/h100"].on_demand_gpu_hours) == (983.20, 40.0)  # 5 h x 2 VMs: 4 GPUs of 8 in the west
    assert vms.lines["west/h100"].on_demand_per_gpu_hour == 12.29
    assert bought(reserved=0, price={"on_demand": "12.29/h", "per": "gpu"}) == vms


def test_a_commitment_changes_cost_by_its_arithmetic() -> None:
    price = {"on_demand": "98.32/h", "reserved": "61.27/h"}
    none, all_of_it = bought(reserved=0, price=price), bought(reserved=128, price=price)
    assert none.total == 983.20
    assert all_of_it.total == 2 * 5 * 16 * 61.27  # two regions, 16 VMs each, used or not
    assert all_of_it.unused == 2 * 5 * 15 * 61.27
    assert round(all_of_it.total - none.total, 2) == 8820.00  # 9,803.20 - 983.20


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9)), max_size=20))
def test_lines_add_up_to_the_cent_whatever_they_are(cents: list[tuple[int, int, int]]) -> None:
    lines = {
        str(k): StockCost(0, 0.0, 0.0, a / 100, 0.0, 0.0, 0.0, b / 100, 0.0, 0.0, c / 100) for k, (a, b, c) in enumerate(cents)
    }
    cost = summed(lines)
    assert round(100 * cost.total) == sum(a + b for a, b, _ in cents)  # what is donated takes nothing off
    assert round(100 * cost.spot_income) == sum(c for *_, c in cents)


@given(st.dictionaries(st.integers(0, 50), st.integers(1, 10**12), min_size=1))
def test_counts_are_those_of_time_laid_out(time: dict[int, int]) -> None:
    found = counted(Level(time=time), 8)
    total = sum(time.values())
    assert (found.minimum, found.peak) == (8 * min(time), 8 * max(time))
    assert found.minimum <= found.mean + 1e-6
    assert found.mean <= found.peak + 1e-6
    enough = sum(us for value, us in time.items() if 8 * value <= found.p99)
    fewer = sum(us for value, us in time.items() if 8 * value < found.p99)
    assert fewer < 0.99 * total <= enough + 1e-3
    assert counted(Level(), 8) == GpuCounts(0, 0, 0.0, 0)
