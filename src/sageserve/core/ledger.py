"""The ledger: GPU time by (pool, state), money by price class, starts, and how long every count stood. Its parts add up.

What is reserved is paid whether it is used or not; beyond it, VMs are bought whole. Integer GPU-microseconds, exact whatever the
order of changes. Knows no policy. Read next: `fleet.py`, which writes it; docs/reference/money.md.
"""

from dataclasses import dataclass, field

from sageserve.base.units import Micros


@dataclass(slots=True)
class Level:
    """How long a count stood at each of its values: a load-duration curve."""

    value: int = 0
    since: Micros = 0
    time: dict[int, Micros] = field(default_factory=dict)

    def settle(self, now: Micros) -> None:
        """Count the time since the last change."""
        if now > self.since:
            self.time[self.value] = self.time.get(self.value, 0) + now - self.since
            self.since = now


@dataclass(slots=True)
class Purchase:
    """What one region holds of one GPU type, and what that costs; prices are dollars per GPU-hour.

    Args:
        reserved: GPUs that are committed.
        price_reserved: of each of them, used or not.
        price_on_demand: of each GPU of a VM beyond.
        price_spot: what a donated GPU earns.
        held: GPUs that instances hold, without donated ones.
        bought: GPUs of the VMs that those instances are on.
        donated: GPUs in the spot market.
        since: when it was settled last.
        reserved_us: GPU-microseconds paid at the reserved price.
        unused_us: of these, what no VM in use needed.
        on_demand_us: GPU-microseconds paid on demand.
        held_us: GPU-microseconds that instances held.
        donated_us: GPU-microseconds in the spot market.
        level: of `bought`.
    """

    reserved: int
    price_reserved: float
    price_on_demand: float
    price_spot: float
    held: int = 0
    bought: int = 0
    donated: int = 0
    since: Micros = 0
    reserved_us: int = 0
    unused_us: int = 0
    on_demand_us: int = 0
    held_us: int = 0
    donated_us: int = 0
    level: Level = field(default_factory=Level)

    def settle(self, now: Micros) -> None:
        """Count what was held since the last change."""
        passed = now - self.since
        self.reserved_us += self.reserved * passed
        self.unused_us += max(self.reserved - self.bought, 0) * passed
        self.on_demand_us += max(self.bought - self.reserved, 0) * passed
        self.held_us += self.held * passed
        self.donated_us += self.donated * passed
        self.since = now
        self.level.settle(now)


@dataclass(slots=True)
class Ledger:
    """GPU time by pool and state, and purchases by (region, GPU type).

    Args:
        pools: number of pools.
        states: number of instance states.
        purchases: one entry per stock.
        counts: instances held by pool, without donated ones.
    """

    pools: int
    states: int
    purchases: list[Purchase]
    gpu_us: list[list[int]] = field(init=False)
    counts: list[Level] = field(init=False)
    starts: int = 0
    reclaims: int = 0
    failures: int = 0
    taken: int = 0
    closed: bool = False

    def __post_init__(self) -> None:
        self.gpu_us = [[0] * self.states for _ in range(self.pools)]
        self.counts = [Level() for _ in range(self.pools)]

    def spent(self, pool: int, state: int, gpu_us: int) -> None:
        """Count GPU time that instances of `pool` passed in `state`."""
        if not self.closed:
            self.gpu_us[pool][state] += gpu_us

    def hold(self, stock: int, now: Micros, *, held: int = 0, bought: int = 0, donated: int = 0) -> None:
        """Note that a stock holds that many GPUs more (or fewer) from `now` on: in instances, in VMs in use, donated."""
        purchase = self.purchases[stock]
        if not self.closed:
            purchase.settle(now)
        purchase.held += held
        purchase.bought += bought
        purchase.level.value = purchase.bought
        purchase.donated += donated

    def count(self, pool: int, now: Micros, by: int) -> None:
        """Note that a pool holds that many instances more (or fewer) from `now` on."""
        if not self.closed:
            self.counts[pool].settle(now)
        self.counts[pool].value += by

    def restart(self, now: Micros) -> None:
        """Forget what was counted up to `now`; what is held goes on being held."""
        for purchase in self.purchases:
            purchase.settle(now)
            purchase.reserved_us = purchase.unused_us = purchase.on_demand_us = purchase.held_us = purchase.donated_us = 0
        for level in (*self.counts, *(purchase.level for purchase in self.purchases)):
            level.settle(now)
            level.time = {}
        self.gpu_us = [[0] * self.states for _ in range(self.pools)]
        self.starts = self.reclaims = self.failures = self.taken = 0

    def close(self, now: Micros) -> None:
        """Count everything up to `now`, and nothing after."""
        for purchase in self.purchases:
            purchase.settle(now)
        for level in self.counts:
            level.settle(now)
        self.closed = True
