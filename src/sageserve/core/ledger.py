"""The ledger: GPU time by (pool, state), money by price class, starts. Its parts add up to what was held.

Integer GPU-microseconds, exact whatever the order of changes. Knows no policy. Read next: `fleet.py`, which writes it.
"""

from dataclasses import dataclass, field

from sageserve.base.units import HOUR, Micros


@dataclass(slots=True)
class Purchase:
    """What one region holds of one GPU type, and what that costs; prices are dollars per GPU-hour."""

    reserved: int
    price_reserved: float
    price_on_demand: float
    price_spot: float
    held: int = 0
    donated: int = 0
    since: Micros = 0
    reserved_us: int = 0  # GPU-microseconds paid at the reserved price
    on_demand_us: int = 0
    donated_us: int = 0

    def settle(self, now: Micros) -> None:
        """Count what was held since the last change."""
        passed = now - self.since
        self.reserved_us += min(self.held, self.reserved) * passed
        self.on_demand_us += max(self.held - self.reserved, 0) * passed
        self.donated_us += self.donated * passed
        self.since = now

    @property
    def cost(self) -> float:
        """Dollars paid so far; donated time costs nothing here and is counted as income apart."""
        return (self.reserved_us * self.price_reserved + self.on_demand_us * self.price_on_demand) / HOUR

    @property
    def income(self) -> float:
        """Dollars the spot market paid so far."""
        return self.donated_us * self.price_spot / HOUR


@dataclass(slots=True)
class Ledger:
    """GPU time by pool and state, and purchases by (region, GPU type).

    Args:
        pools: number of pools.
        states: number of instance states.
        purchases: one entry per stock.
    """

    pools: int
    states: int
    purchases: list[Purchase]
    gpu_us: list[list[int]] = field(init=False)
    starts: int = 0
    reclaims: int = 0
    failures: int = 0
    taken: int = 0
    closed: bool = False

    def __post_init__(self) -> None:
        self.gpu_us = [[0] * self.states for _ in range(self.pools)]

    def spent(self, pool: int, state: int, gpu_us: int) -> None:
        """Count GPU time that instances of `pool` passed in `state`."""
        if not self.closed:
            self.gpu_us[pool][state] += gpu_us

    def hold(self, stock: int, now: Micros, *, held: int = 0, donated: int = 0) -> None:
        """Note that a stock holds that many GPUs more (or fewer), bought or donated, from `now` on."""
        purchase = self.purchases[stock]
        if not self.closed:
            purchase.settle(now)
        purchase.held += held
        purchase.donated += donated

    def close(self, now: Micros) -> None:
        """Count everything up to `now`, and nothing after."""
        for purchase in self.purchases:
            purchase.settle(now)
        self.closed = True
