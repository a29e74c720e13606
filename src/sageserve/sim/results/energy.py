"""Energy of a run and the CO2 behind it: power by GPU type over what pools held, the grid's carbon where the GPUs are.

    kWh = (busy GPU-hours x busy W + other GPU-hours held x idle W) / 1,000, by region and GPU type
    kg  = kWh x mean of the grid's g/kWh / 1,000, each minute weighted by what its instances drew

Other hours are those of `allocation.py`: idle, starting, and GPUs of VMs in use that no instance held. What is donated is not
ours, and what is reserved and off draws nothing. Read next: docs/reference/money.md ("Energy and CO2").
"""

import numpy as np
from msgspec import UNSET, UnsetType

from sageserve.base.records import Floats
from sageserve.base.units import HOUR
from sageserve.data.results.summary import Energy, StockEnergy
from sageserve.sim.results.allocation import PoolUse, spare_of, uses_of
from sageserve.sim.run import Run

_DIGITS = 6


def energy_of_run(run: Run, idle: Floats) -> Energy | UnsetType:
    """Kilowatt-hours and kilograms; UNSET where the scenario gives no power.

    Args:
        run: finished or interrupted.
        idle: float64[endpoints], share of their serving time in which instances had nothing to do.
    """
    if not any(settings.power for settings in run.scenario.gpus.values()):
        return UNSET
    uses = uses_of(run, idle)
    lines = {stock.name: _line(run, number, uses) for number, stock in enumerate(run.layout.stocks)}
    carbon = [line.kg_co2 for line in lines.values() if line.kg_co2 is not None]
    kg, price = round(sum(carbon), _DIGITS), run.scenario.carbon_price
    return Energy(
        kwh=round(sum(line.kwh for line in lines.values()), _DIGITS),
        kg_co2=kg if carbon else None,
        lines=lines,
        carbon_cost=round(kg / 1000 * price, 2) if carbon and price else None,
    )


def _line(run: Run, number: int, uses: list[PoolUse]) -> StockEnergy:
    stock = run.layout.stocks[number]
    power = run.scenario.gpus[stock.gpu].power
    if power is None:  # of which the fleet holds none: the settings were checked
        return StockEnergy(0.0, 0.0, 0.0, None)
    mine = [use for use in uses if use.stock == number]
    busy = sum(use.busy for use in mine) / HOUR
    other = (sum(use.idle + use.start for use in mine) + spare_of(run, number)) / HOUR
    kwh = round((busy * power.busy + other * power.idle) / 1000, _DIGITS)
    carbon = run.scenario.regions[stock.region].carbon
    kg = None if carbon is None else round(kwh * _grams(run, number, carbon) / 1000, _DIGITS)
    return StockEnergy(round(busy, _DIGITS), round(other, _DIGITS), kwh, kg)


def _grams(run: Run, number: int, carbon: float | tuple[float, ...]) -> float:
    """Grams per kilowatt-hour, on average over what the instances of a stock drew; hours of a list come again after its end."""
    if isinstance(carbon, float):
        return carbon
    power = run.scenario.gpus[run.layout.stocks[number].gpu].power
    assert power is not None
    inside = run.timeline.times[: run.timeline.length] < run.window
    grid = np.array(carbon)[(run.timeline.times[: run.timeline.length][inside] + run.warm_up) // HOUR % len(carbon)]
    drawn = np.zeros(len(grid))
    for pool in run.layout.pools:
        if pool.stock == number:
            serving, draining, starting, reclaiming, busy = (
                run.timeline.column(name)[inside, pool.endpoint]
                for name in ("serving", "draining", "starting", "reclaiming", "busy")
            )
            work = serving * np.minimum(busy, 1) + draining
            drawn += pool.gpus * ((serving + draining + starting + reclaiming) * power.idle + work * (power.busy - power.idle))
    return float((grid * drawn).sum() / drawn.sum()) if drawn.any() else float(grid.mean()) if len(grid) else carbon[0]
