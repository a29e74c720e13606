"""What a run held and what that cost: a line for each region and GPU type, in cents that add up, and counts over time.

A line is what a finance department can check: GPUs committed, hours, prices, amounts. Read next: `core/ledger.py` for how it was
counted, docs/reference/money.md.
"""

from collections.abc import Iterable, Mapping

from sageserve.base.units import HOUR, Micros
from sageserve.core.ledger import Level, Purchase
from sageserve.data.results.summary import Cost, GpuCounts, StockCost
from sageserve.sim.run import Run

_DIGITS = 6
_MOST_OF_TIME = 0.99


def cost_of_run(run: Run) -> Cost:
    """Dollars by region/gpu, and their sums."""
    return summed(
        {stock.name: _line(each) for stock, each in zip(run.layout.stocks, run.fleet.ledger.purchases, strict=True)},
    )


def summed(lines: Mapping[str, StockCost]) -> Cost:
    """The cost that lines come to: sums of their cents, so that whoever adds them up finds the same."""

    def total(amounts: Iterable[float]) -> float:
        return sum(round(100 * amount) for amount in amounts) / 100

    return Cost(
        total=total(amount for line in lines.values() for amount in (line.reserved, line.on_demand)),
        reserved=total(line.reserved for line in lines.values()),
        on_demand=total(line.on_demand for line in lines.values()),
        spot_income=total(line.spot_income for line in lines.values()),
        unused=total(line.unused for line in lines.values()),
        lines=dict(lines),
    )


def _line(bought: Purchase) -> StockCost:
    def dollars(gpu_us: int, price: float) -> float:
        return round(gpu_us / HOUR * price, 2)

    return StockCost(
        reserved_gpus=bought.reserved,
        reserved_gpu_hours=round(bought.reserved_us / HOUR, _DIGITS),
        reserved_per_gpu_hour=round(bought.price_reserved, _DIGITS),
        reserved=dollars(bought.reserved_us, bought.price_reserved),
        unused=dollars(bought.unused_us, bought.price_reserved),
        on_demand_gpu_hours=round(bought.on_demand_us / HOUR, _DIGITS),
        on_demand_per_gpu_hour=round(bought.price_on_demand, _DIGITS),
        on_demand=dollars(bought.on_demand_us, bought.price_on_demand),
        spot_gpu_hours=round(bought.donated_us / HOUR, _DIGITS),
        spot_per_gpu_hour=round(bought.price_spot, _DIGITS),
        spot_income=dollars(bought.donated_us, bought.price_spot),
    )


def counts_of_run(run: Run) -> dict[str, GpuCounts]:
    """GPUs that each pool held; what its instances held together, without donated ones."""
    pools = zip(run.layout.pools, run.fleet.ledger.counts, strict=True)
    return {pool.name: counted(level, pool.gpus) for pool, level in pools}


def stock_counts_of_run(run: Run) -> dict[str, GpuCounts]:
    """GPUs of the VMs in use, by region/gpu."""
    stocks = zip(run.layout.stocks, run.fleet.ledger.purchases, strict=True)
    return {stock.name: counted(each.level, 1) for stock, each in stocks}


def curves_of_run(run: Run) -> dict[str, dict[int, float]]:
    """Hours by GPUs of the VMs in use, by region/gpu: the load-duration curve of what is bought."""
    stocks = zip(run.layout.stocks, run.fleet.ledger.purchases, strict=True)
    return {
        stock.name: {gpus: round(us / HOUR, _DIGITS) for gpus, us in sorted(each.level.time.items())} for stock, each in stocks
    }


def counted(level: Level, gpus: int) -> GpuCounts:
    """The curve of a count in four numbers; p99 is the least that was enough in 99 % of the time.

    Args:
        level: the curve.
        gpus: of each that is counted.
    """
    total: Micros = sum(level.time.values())
    if not total:
        return GpuCounts(0, 0, 0.0, 0)
    passed, p99 = 0, 0
    for value in sorted(level.time):
        passed, p99 = passed + level.time[value], value
        if passed >= _MOST_OF_TIME * total:
            break
    mean = sum(value * time for value, time in level.time.items()) / total
    return GpuCounts(max(level.time) * gpus, p99 * gpus, round(mean * gpus, _DIGITS), min(level.time) * gpus)
