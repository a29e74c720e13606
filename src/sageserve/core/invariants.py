"""Laws of the fleet: what must hold after every event, whatever the strategy. Tests, debug runs and the live loop call this.

Raises `LawBroken` and changes nothing. The laws of requests are in tests/laws, because only a world has requests.
"""

from sageserve.base.errors import LawBroken
from sageserve.base.units import Micros
from sageserve.core.fleet import Fleet, State


def check_fleet(fleet: Fleet, now: Micros) -> None:
    """Check that GPUs are never shared or lost, counts are right, and the ledger adds up.

    Raises:
        LawBroken: one of them does not hold.
    """
    _check_gpus(fleet, now)
    for pool in fleet.pools:
        found = [0] * len(State)
        for i in range(pool.begin, pool.end):
            found[fleet.state[i]] += 1
        if found != fleet.counts[pool.number]:
            raise LawBroken(f"{pool.name} at {now} us: counts {fleet.counts[pool.number]} but states {found}")
    _check_ledger(fleet, now)


def _check_gpus(fleet: Fleet, now: Micros) -> None:
    owner: dict[tuple[int, int], int] = {}
    for pool in fleet.pools:
        for i in range(pool.begin, pool.end):
            if (fleet.state[i] is State.OFF) != (not fleet.gpus[i]):
                raise LawBroken(f"instance {i} of {pool.name} at {now} us is {fleet.state[i].name} with GPUs {fleet.gpus[i]}")
            for n in fleet.gpus[i]:
                if (pool.stock, n) in owner:
                    raise LawBroken(
                        f"GPU {n} of {fleet.stocks[pool.stock].name} at {now} us: {owner[pool.stock, n]} and {i} hold it"
                    )
                owner[pool.stock, n] = i
    for number, stock in enumerate(fleet.stocks):
        held = sum(at == number for at, _ in owner)
        if held != fleet.held(number) or held > stock.gpus:
            raise LawBroken(f"{stock.name} at {now} us: {held} GPUs used, {fleet.held(number)} booked, {stock.gpus} owned")


def _check_ledger(fleet: Fleet, now: Micros) -> None:
    """GPU time by state, with the time since the last change, must equal what purchases say was held."""
    if fleet.ledger.closed:
        return
    by_state = sum(sum(row) for row in fleet.ledger.gpu_us)
    for pool in fleet.pools:
        for i in range(pool.begin, pool.end):
            if fleet.state[i] is not State.OFF:
                by_state += (now - fleet.since[i]) * pool.gpus
    bought = 0
    for purchase in fleet.ledger.purchases:
        bought += purchase.held_us + purchase.donated_us
        bought += (purchase.held + purchase.donated) * (now - purchase.since)
    if by_state != bought:
        raise LawBroken(f"the ledger at {now} us: {by_state} GPU-us by state, {bought} GPU-us bought and donated")
