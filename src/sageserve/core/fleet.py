"""The fleet: the one home of mutable state. Pools, instances (replicas of a model) and their lives, stocks of GPUs, the ledger.

State changes only by the verbs below, each of which looks up its move in a table; an illegal move raises and changes
nothing. GPUs have numbers: an instance holds its own, and no two instances ever hold the same one.
Knows no policy and no clock. Read next: `ledger.py`, `controller.py`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from numpy.typing import NDArray

from sageserve.base.errors import LawBroken
from sageserve.base.units import HOUR, Micros
from sageserve.core.ledger import Ledger, Purchase


class State(IntEnum):
    """Where an instance is in its life."""

    OFF = 0
    STARTING = 1
    SERVING = 2
    DRAINING = 3
    SPOT = 4
    RECLAIMING = 5


class Signal(IntEnum):
    """What moves an instance from one state to the next."""

    START = 0
    READY = 1
    FAIL = 2
    DRAIN = 3
    DONATE = 4
    RELEASE = 5
    RECLAIM = 6
    TAKE = 7  # the cloud takes a donated instance, or another model takes its GPUs
    LOSE = 8  # it died


MOVES: Final[Mapping[tuple[State, Signal], State]] = {
    (State.OFF, Signal.START): State.STARTING,
    (State.STARTING, Signal.READY): State.SERVING,
    (State.STARTING, Signal.FAIL): State.OFF,
    (State.SERVING, Signal.DRAIN): State.DRAINING,
    (State.DRAINING, Signal.DONATE): State.SPOT,
    (State.DRAINING, Signal.RELEASE): State.OFF,
    (State.SPOT, Signal.RECLAIM): State.RECLAIMING,
    (State.SPOT, Signal.TAKE): State.OFF,
    (State.RECLAIMING, Signal.READY): State.SERVING,
    (State.RECLAIMING, Signal.FAIL): State.OFF,
    (State.RECLAIMING, Signal.TAKE): State.OFF,
    (State.SERVING, Signal.LOSE): State.OFF,
    (State.DRAINING, Signal.LOSE): State.OFF,
}  # any other pair raises, and nothing changes


@dataclass(frozen=True, slots=True)
class Role:
    """A share of a model's instances set apart for some tiers."""

    name: str
    tiers: tuple[int, ...]
    queued: bool  # batch work of these tiers comes from the queue manager


@dataclass(frozen=True, slots=True)
class Pool:
    """All instances of one model in one region on one GPU type (and role). Codes, and the rows of its instances."""

    number: int
    name: str
    region: int
    model: int
    role: int
    endpoint: int
    profile: int
    stock: int
    gpus: int  # per instance
    begin: int
    end: int
    minimum: int  # of its endpoint, while it has any
    sleeps: bool = False  # its endpoint may have none

    @property
    def floor(self) -> int:
        """Instances that its endpoint has at least, whatever happens."""
        return 0 if self.sleeps else self.minimum

    def limit(self, fit: int) -> str:
        """Why it has no more than so many instances: what the fleet's settings allow, or what there is."""
        return f"at most {fit} are allowed" if fit == self.end - self.begin else f"only {fit} fit into the stock"


@dataclass(frozen=True, slots=True)
class Stock:
    """GPUs of one type in one region, in VMs of `per_vm`; what is left over is a smaller VM."""

    name: str
    gpu: str  # the type
    gpus: int
    per_vm: int
    purchase: Purchase
    carbon: tuple[float, ...] = ()  # what the CO2 of a GPU's hour at work is worth, by the hour from 0 on, again and again

    @property
    def region(self) -> str:
        """Name of where they are: what stands before the type in their own."""
        return self.name.removesuffix(f"/{self.gpu}")

    def carbon_cost(self, begin: Micros, end: Micros) -> float:
        """What the CO2 of a GPU's hour at work is worth between two times, begin < end, in the currency of prices."""
        if not self.carbon:
            return 0.0
        worth = 0.0
        for hour in range(begin // HOUR, -(-end // HOUR)):
            inside = min(end, (hour + 1) * HOUR) - max(begin, hour * HOUR)
            worth += self.carbon[hour % len(self.carbon)] * inside
        return worth / (end - begin)


class Fleet:
    """Instances, pools and stocks.

    Args:
        pools: in order of their numbers.
        stocks: in order of their numbers.
        instances: how many instance rows there are.
        in_flight: int[instances], requests that were sent to an instance and have not come back; written by the shell.
    """

    def __init__(self, pools: tuple[Pool, ...], stocks: tuple[Stock, ...], instances: int, in_flight: NDArray[Any]) -> None:
        self.pools = pools
        self.stocks = stocks
        self.in_flight = in_flight
        self.state = [State.OFF] * instances
        self.since: list[Micros] = [0] * instances
        self.gpus: list[tuple[int, ...]] = [()] * instances
        self.pool_of = [-1] * instances
        for pool in pools:
            self.pool_of[pool.begin : pool.end] = [pool.number] * (pool.end - pool.begin)
        self.revision = [0] * instances  # that a row was started in last
        self.wanted = [0] * len(pools)  # revision in which a pool's next instance starts
        self.surge: set[int] = set()  # that start beside those a rollout is going to replace
        self.counts = [[0] * len(State) for _ in pools]
        for pool in pools:
            self.counts[pool.number][State.OFF] = pool.end - pool.begin
        self.took: dict[int, Micros] = {}  # what a start takes by pool, where it was measured
        self.now: Micros = 0  # the instant of the latest verb
        self._free = [_free_gpus(stock) for stock in stocks]
        self._used = [[0] * len(free) for free in self._free]  # GPUs that instances hold on each VM, without donated ones
        self.ledger = Ledger(len(pools), len(State), [stock.purchase for stock in stocks])

    def measured_start(self, pool: int, took: Micros) -> None:
        """Starts of a pool were measured: from being asked for to serving."""
        self.took[pool] = took

    # --- looking ---

    def count(self, pool: int, *states: State) -> int:
        """Instances of a pool in any of these states."""
        return sum(self.counts[pool][state] for state in states)

    def serving(self, pool: int) -> int:
        """Instances of a pool that serve."""
        return self.counts[pool][State.SERVING]

    def coming(self, pool: int) -> int:
        """Instances of a pool that will serve: starting or being reclaimed; not those of a rollout, which replace others."""
        extra = sum(self.pool_of[i] == pool for i in self.surge) if self.surge else 0
        return self.counts[pool][State.STARTING] + self.counts[pool][State.RECLAIMING] - extra

    def rows(self, pool: int, state: State) -> Iterator[int]:
        """Instances of a pool in a state, lowest row first."""
        here = self.pools[pool]
        return (i for i in range(here.begin, here.end) if self.state[i] is state)

    def held(self, stock: int) -> int:
        """GPUs of a stock that instances hold, donated ones included."""
        return self.ledger.purchases[stock].held + self.ledger.purchases[stock].donated

    def unplanned(self, stock: int) -> int:
        """GPUs of a stock that no serving or coming instance holds: free, donated, or of instances about to be empty."""
        here = self.stocks[stock]
        held = (State.SERVING, State.STARTING, State.RECLAIMING)
        busy = sum(self.count(p.number, *held) * p.gpus for p in self.pools if p.stock == stock)
        return here.gpus - busy

    def room(self, pool: int) -> tuple[int, ...]:
        """Numbers of free GPUs on one VM for one more instance of this pool; empty when there are none."""
        here = self.pools[pool]
        per_vm = self.stocks[here.stock].per_vm
        for vm, free in enumerate(self._free[here.stock]):
            if free.bit_count() >= here.gpus:
                numbers = [n for n in range(per_vm) if free >> n & 1][: here.gpus]
                return tuple(vm * per_vm + n for n in numbers)
        return ()

    def fits(self, pool: int) -> int:
        """How many more instances of this pool find room, one after another."""
        here = self.pools[pool]
        return sum(free.bit_count() // here.gpus for free in self._free[here.stock])

    # --- verbs ---

    def start(self, i: int, now: Micros, gpus: tuple[int, ...], *, initial: bool = False, revision: int = 0) -> None:
        """Instance `i` begins to start on these GPUs, which must be free; `initial` ones are not counted as starts."""
        pool = self.pools[self.pool_of[i]]
        stock = self.stocks[pool.stock]
        per_vm = stock.per_vm
        if len(set(gpus)) != pool.gpus or len(gpus) != pool.gpus:
            raise LawBroken(f"instance {i} of {pool.name} needs {pool.gpus} GPUs and was given {gpus}")
        if not all(0 <= n < stock.gpus and n // per_vm == gpus[0] // per_vm for n in gpus):
            raise LawBroken(f"instance {i} of {pool.name} needs GPUs of one VM of {stock.name}, not {gpus}")
        free = self._free[pool.stock]
        if not all(free[n // per_vm] >> (n % per_vm) & 1 for n in gpus):
            raise LawBroken(f"instance {i} of {pool.name} would share GPUs {gpus} with another instance")
        self._move(i, Signal.START, now)
        for n in gpus:
            free[n // per_vm] &= ~(1 << n % per_vm)
        self.gpus[i] = gpus
        self.revision[i] = revision
        self._hold(i, now, pool.gpus)
        self.ledger.starts += not initial

    def ready(self, i: int, now: Micros) -> None:
        """Instance `i` serves."""
        self._move(i, Signal.READY, now)

    def fail(self, i: int, now: Micros) -> None:
        """The start of instance `i` came to nothing."""
        self._move(i, Signal.FAIL, now)
        self.ledger.failures += 1
        self._give_back(i, now, donated=False)

    def lose(self, i: int, now: Micros) -> None:
        """Instance `i`, which served or drained, is gone."""
        self._move(i, Signal.LOSE, now)
        self.ledger.failures += 1
        self._give_back(i, now, donated=False)

    def drain(self, i: int, now: Micros) -> None:
        """Instance `i` receives nothing more."""
        self._move(i, Signal.DRAIN, now)

    def donate(self, i: int, now: Micros) -> None:
        """Instance `i`, drained, goes to the spot market."""
        self._move(i, Signal.DONATE, now)
        self._hold(i, now, -len(self.gpus[i]), donated=len(self.gpus[i]))

    def release(self, i: int, now: Micros) -> None:
        """Instance `i`, drained, gives its GPUs back."""
        self._move(i, Signal.RELEASE, now)
        self._give_back(i, now, donated=False)

    def reclaim(self, i: int, now: Micros) -> None:
        """Instance `i` comes back from the spot market."""
        self._move(i, Signal.RECLAIM, now)
        self._hold(i, now, len(self.gpus[i]), donated=-len(self.gpus[i]))
        self.ledger.reclaims += 1

    def take(self, i: int, now: Micros) -> None:
        """A donated instance is gone: the cloud took it, or its GPUs go to another model."""
        donated = self.state[i] is State.SPOT
        self._move(i, Signal.TAKE, now)
        self.ledger.taken += 1
        self._give_back(i, now, donated=donated)

    def settle(self, now: Micros) -> None:
        """Count the time of every instance up to `now` and close the ledger."""
        self._count_all(now)
        self.ledger.close(now)

    def restart(self, now: Micros) -> None:
        """Count from `now` on alone."""
        self._count_all(now)
        self.ledger.restart(now)

    def _count_all(self, now: Micros) -> None:
        self._go_on(now)
        for i, state in enumerate(self.state):
            self._count_time(i, state, now)

    def _move(self, i: int, signal: Signal, now: Micros) -> None:
        old = self.state[i]
        new = MOVES.get((old, signal))
        if new is None:
            raise LawBroken(f"instance {i} is {old.name} at {now} us and cannot {signal.name}")
        self._go_on(now)
        self._count_time(i, old, now)
        pool = self.pool_of[i]
        self.counts[pool][old] -= 1
        self.counts[pool][new] += 1
        self.state[i] = new
        self.surge.discard(i)

    def _go_on(self, now: Micros) -> None:
        if now < self.now:
            raise LawBroken(f"time goes back: from {self.now} to {now} us")
        self.now = now

    def _count_time(self, i: int, state: State, now: Micros) -> None:
        if state is not State.OFF:
            pool = self.pools[self.pool_of[i]]
            self.ledger.spent(pool.number, state, (now - self.since[i]) * pool.gpus)
        self.since[i] = now

    def _give_back(self, i: int, now: Micros, *, donated: bool) -> None:
        pool = self.pools[self.pool_of[i]]
        per_vm = self.stocks[pool.stock].per_vm
        for n in self.gpus[i]:
            self._free[pool.stock][n // per_vm] |= 1 << n % per_vm
        self._hold(i, now, 0 if donated else -pool.gpus, donated=-pool.gpus if donated else 0)
        self.gpus[i] = ()

    def _hold(self, i: int, now: Micros, held: int, *, donated: int = 0) -> None:
        """Instance `i` holds its GPUs from now on, or no longer; a VM is bought with the first and given back with the last."""
        pool = self.pools[self.pool_of[i]]
        stock = self.stocks[pool.stock]
        vm = self.gpus[i][0] // stock.per_vm
        used = self._used[pool.stock]
        before, after = used[vm], used[vm] + held
        used[vm] = after
        size = min(stock.per_vm, stock.gpus - vm * stock.per_vm)
        self.ledger.hold(pool.stock, now, held=held, bought=size * ((after > 0) - (before > 0)), donated=donated)
        self.ledger.count(pool.number, now, (held > 0) - (held < 0))


def _free_gpus(stock: Stock) -> list[int]:
    """One number per VM; bit n says that its n-th GPU is free."""
    whole, rest = divmod(stock.gpus, stock.per_vm)
    return [(1 << stock.per_vm) - 1] * whole + ([(1 << rest) - 1] if rest else [])
