"""What to reserve of a load that changes: solved exactly over its load-duration curve.

A GPU that is reserved costs its price all the time, one on demand only while it is used. Reserving one more is worth it while the
share of time in which it is used, times the price on demand, is more than the price reserved: the classic rule for base load and
peak load, and exact because cost is convex in what is reserved. Only whole VMs are reserved. Plays nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tariff:
    """Prices of a GPU-hour, and how many GPUs are sold at once; without a reserved price there is nothing to reserve."""

    on_demand: float
    reserved: float | None
    per_vm: int

    @property
    def committed(self) -> float:
        """What is reserved costs this."""
        return self.on_demand if self.reserved is None else self.reserved


def best_reserve(curve: Mapping[int, float], tariff: Tariff) -> int:
    """The GPUs that are cheapest to reserve, the fewest of equals.

    Args:
        curve: time by GPUs in use.
        tariff: prices.
    """
    if tariff.reserved is None or not curve:
        return 0
    reserve, most = 0, max(curve)
    while reserve < most and cost_per_hour(curve, reserve + tariff.per_vm, tariff) < cost_per_hour(curve, reserve, tariff) - 1e-9:
        reserve += tariff.per_vm
    return reserve


def cost_per_hour(curve: Mapping[int, float], reserve: int, tariff: Tariff) -> float:
    """Mean dollars an hour with so many GPUs reserved and the rest on demand."""
    total = sum(curve.values())
    beyond = sum(max(gpus - reserve, 0) * time for gpus, time in curve.items()) / total if total else 0.0
    return reserve * tariff.committed + beyond * tariff.on_demand
