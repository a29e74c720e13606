"""Engines that someone else runs: they are routed to and watched, never started or stopped.

Rows are given out in the order of the settings, pool by pool. An order to start or stop is a fault of the caller: with fixed
engines the guard is in shadow mode, so that decisions are written down and not carried out.
Read next: `base.py`, `core/safety.py`.
"""

import asyncio
from collections.abc import Mapping

from sageserve.base.config import FixedInstance
from sageserve.base.errors import ConfigError, LawBroken
from sageserve.base.units import Micros
from sageserve.core.layout import Layout
from sageserve.live.actuators.base import Adopted, EngineAddress, Order


class FixedActuator:
    """Instances at addresses that were given.

    Args:
        layout: numbers of pools and rows.
        instances: where they are.

    Raises:
        ConfigError: a region, model or GPU type that no pool has, or more instances than a pool has rows.
    """

    def __init__(self, layout: Layout, instances: tuple[FixedInstance, ...]) -> None:
        self._places: dict[int, EngineAddress] = {}
        for number, one in enumerate(instances):
            row = _row(layout, one, self._places, f"live.instances[{number}]")
            self._places[row] = EngineAddress(one.url.rstrip("/"), one.served_model or one.model)

    async def connect(self) -> tuple[Adopted, ...]:
        """All of them, without GPUs of their own."""
        return tuple(Adopted(row, (), True, place) for row, place in self._places.items())

    async def watch(self) -> None:
        """Never: there is nothing that could be lost."""
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Nothing is held."""

    def place(self, instance: int) -> EngineAddress:
        """Where an instance answers."""
        return self._places[instance]

    def failing(self, least: int = 1) -> tuple[str, ...]:  # one of an interface
        """Nothing is started here."""
        return ()

    def hung(self) -> Mapping[str, int]:
        """Nobody says so."""
        return {}

    def end(self, instance: int, why: str) -> bool:
        """Not ours to do."""
        return False

    def perform(self, now: Micros, action: Order) -> None:
        """Refuse: nothing here can be started or stopped."""
        raise LawBroken(f"{action} was asked of engines that someone else runs")


def _row(layout: Layout, one: FixedInstance, taken: dict[int, EngineAddress], where: str) -> int:
    names = layout.names
    for pool in layout.pools:
        if names.regions[pool.region] != one.region or names.models[pool.model] != one.model:
            continue
        if one.gpu is not None and layout.stocks[pool.stock].gpu != one.gpu:
            continue
        free = [row for row in range(pool.begin, pool.end) if row not in taken]
        if not free:
            raise ConfigError(
                f"{where}: {pool.name} has room for {pool.end - pool.begin} instances, and there are more",
                hint="raise fleet.maximum, or that of fleet.endpoints",
            )
        return free[0]
    gpu = f" on {one.gpu}" if one.gpu else ""
    raise ConfigError(
        f"{where}: no pool of the scenario is for {one.model!r} in {one.region!r}{gpu}",
        hint=f"models are {', '.join(names.models)}; regions are {', '.join(names.regions)}",
    )
