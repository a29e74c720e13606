"""Engines that others start and stop, and that somebody tells of: those that come are opened, those that end are left alone.

    open               InstanceComing, InstanceReady
    about to end       InstanceLeaving: nothing new; streams under way end by themselves
    not ready, gone    InstanceLost

Where none of a model in a region would be left because all are there and not ready, those that were open stay: one probe that
fails everywhere at once says more about the probe, and a gateway passes over an engine that fails. While nobody tells, those that
were known last stay, over a restart too: rows are in a file, so that gateways and a new control process mean the same by them. An
order to start or stop is a fault of the caller. Knows no cluster: sources are plugged in.
Read next: `base.py`, `fixed.py`; `live/kubernetes/endpoints.py`, which is a source.
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import msgspec

from sageserve.base.config import ServiceSettings
from sageserve.base.errors import ConfigError, LawBroken
from sageserve.base.units import Micros
from sageserve.core.actions import Release
from sageserve.core.events import InstanceComing, InstanceLeaving, InstanceLost, InstanceReady
from sageserve.core.fleet import Pool
from sageserve.core.layout import Layout
from sageserve.live.actuators.base import Adopted, EngineAddress, Hear, Order
from sageserve.live.private import write_private
from sageserve.live.waiting import within

_LOG: Final = logging.getLogger(__name__)
FILE: Final = "services.json"
FIRST_WITHIN: Final = 5.0  # seconds that the first list is waited for; what comes later is opened later
TOGETHER: Final = 0.05  # seconds: what changes within them is taken in at once


class EngineSource(Protocol):
    """Who tells of engines."""

    name: str
    changed: asyncio.Event

    @property
    def trouble(self) -> str:
        """Why what is known may be old; empty: it is not."""
        ...

    def engines(self) -> Mapping[str, bool | None] | None:
        """Addresses: True: open, None: about to end, False: not ready. None: nothing was ever told."""
        ...

    async def run(self) -> None:
        """Hear until cancelled."""
        ...


@dataclass(frozen=True, slots=True)
class FollowedService:
    """A source, with the pool that its engines are of.

    Args:
        pool: of the layout.
        source: who tells of them.
        served_model: name that they know the model by.
        metrics: path of their metrics.
    """

    pool: Pool
    source: EngineSource
    served_model: str
    metrics: str = "/metrics"


def pool_of_service(layout: Layout, one: ServiceSettings) -> Pool:
    """The pool that engines of a service are of.

    Raises:
        ConfigError: there is none, or instances are set apart for some tiers and nobody says which.
    """
    names = layout.names
    found = [
        pool
        for pool in layout.pools
        if (names.regions[pool.region], names.models[pool.model]) == (one.region, one.model)
        and one.gpu in {None, layout.stocks[pool.stock].gpu}
    ]
    if not found:
        raise ConfigError(
            f"live.services: {one.name}: no pool of the scenario is for {one.model!r} in {one.region!r}",
            hint=f"give {one.region} GPUs of models.{one.model}.engines",
        )
    if len(layout.roles) > 1:
        raise ConfigError(
            f"live.services: {one.name}: instances are set apart for tiers, and nothing says which of its engines are whose",
            hint="choose a strategy whose instances serve all tiers, such as foresight, lt-ua or reactive",
        )
    return found[0]


class FollowedActuator:
    """Instances where sources say they are.

    Args:
        hear: told what happens.
        services: with their pools.
        state: folder of the state.
        first_within: seconds that the first list is waited for.
    """

    def __init__(self, hear: Hear, services: Sequence[FollowedService], state: Path, first_within: float = FIRST_WITHIN) -> None:
        self._hear, self._services, self._path = hear, services, state / FILE
        self._first_within = first_within
        self._rows: dict[str, dict[str, int]] = {one.source.name: {} for one in services}
        self._places: dict[int, EngineAddress] = {}
        self._leaving: set[int] = set()
        self._unplaced: dict[str, int] = {}
        self._used_on: frozenset[int] = frozenset()  # rows that are not ready, and used all the same
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def connect(self) -> tuple[Adopted, ...]:
        """Those that are open, as sources say, or as they were known last where a source says nothing yet."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._follow(one.source)) for one in self._services]
        with suppress(TimeoutError):
            async with asyncio.timeout(self._first_within):
                while any(one.source.engines() is None for one in self._services):
                    await self._changed.wait()
                    self._changed.clear()
        kept = self._load()
        for one in self._services:
            rows, told = kept.get(one.source.name, {}), one.source.engines()
            if told is None and rows:
                _LOG.warning("%s is not followed yet: %d engines known before are used on", one.source.name, len(rows))
            for url in rows if told is None else [url for url, state in told.items() if state]:
                self._place(one, url, rows.get(url))
        for one in self._services:
            if (told := one.source.engines()) is not None and not self._any_ready(one.pool):
                for url in [url for url in kept.get(one.source.name, {}) if told.get(url, True) is False]:
                    self._place(one, url, kept[one.source.name][url])
        self._changed.set()  # for what was told meanwhile, and is about to end
        self._save()
        return tuple(Adopted(row, (), True, place) for row, place in sorted(self._places.items()))

    async def watch(self) -> None:
        """Take in what sources tell, for ever; a fault of one of them ends it."""
        while True:
            await within(self._changed, 1.0)
            for task in self._tasks:
                if task.done():
                    task.result()
            if self._changed.is_set():
                self._changed.clear()
                self.reconcile()
                await asyncio.sleep(TOGETHER)

    async def close(self) -> None:
        """Hear no more; engines stay."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def place(self, instance: int) -> EngineAddress:
        """Where an instance answers, or did last."""
        return self._places[instance]

    def failing(self, least: int = 1) -> tuple[str, ...]:
        """What is not followed, and what has no place; nothing of it fails for lasting."""
        if least > 1:
            return ()
        troubles = ((one.source, one.source.trouble) for one in self._services)
        said = [f"{source.name} is not followed, engines known last stay: {why}." for source, why in troubles if why]
        for one in self._services:
            if used := sum(row in self._used_on for row in self._rows[one.source.name].values()):
                said.append(f"no engine of {one.source.name} is ready: {used} that were are used on, as none would be left.")
            if count := self._unplaced.get(one.source.name):
                rows = one.pool.end - one.pool.begin
                said.append(f"{count} engines of {one.source.name} have no place: {one.pool.name} has room for {rows} instances.")
        return tuple(said)

    def hung(self) -> Mapping[str, int]:
        """Nobody says so."""
        return {}

    def end(self, instance: int, why: str) -> bool:
        """Not ours to do."""
        return False

    def perform(self, now: Micros, action: Order) -> None:
        """That one is empty is taken in, and anything else refused: nothing here can be started or stopped."""
        if not isinstance(action, Release):
            raise LawBroken(f"{action} was asked of engines that someone else runs")
        self._leaving.discard(action.instance)
        for rows in self._rows.values():
            for url in [url for url, row in rows.items() if row == action.instance]:
                del rows[url]
        self._changed.set()  # its row may be another's

    def reconcile(self) -> None:
        """Make rows agree with what sources say."""
        before = {name: dict(rows) for name, rows in self._rows.items()}
        self._used_on = frozenset(self._last_ones())
        for one in self._services:
            if (told := one.source.engines()) is not None:
                self._close(one, told)
        for one in self._services:
            if (told := one.source.engines()) is not None:
                self._open(one, told)
        if before != self._rows or self._leaving:
            self._save()

    def _last_ones(self) -> Iterator[int]:
        """Rows that are there and not ready, where nothing of their model and region is."""
        for one in self._services:
            if (told := one.source.engines()) is not None and not self._any_ready(one.pool):
                rows = self._rows[one.source.name].items()
                yield from (row for url, row in rows if row not in self._leaving and told.get(url, True) is False)

    def _any_ready(self, pool: Pool) -> bool:
        """Whether somebody tells of an engine that is ready, or tells nothing and had one."""
        for one in self._services:
            if (one.pool.region, one.pool.model) == (pool.region, pool.model):
                told = one.source.engines()
                if any(told.values()) if told is not None else self._rows[one.source.name]:
                    return True
        return False

    def _close(self, one: FollowedService, told: Mapping[str, bool | None]) -> None:
        rows = self._rows[one.source.name]
        for url, row in list(rows.items()):
            state = told.get(url, False)
            if (state and row not in self._leaving) or row in self._used_on:
                continue
            if state is None:
                if row not in self._leaving:
                    self._leaving.add(row)
                    self._hear(InstanceLeaving(row, f"{url} of {one.source.name} is about to end"))
                continue
            del rows[url]
            self._leaving.discard(row)
            what = "has ended, and another engine has its address" if state else "is not ready" if url in told else "is gone"
            self._hear(InstanceLost(row, f"{url} of {one.source.name} {what}"))

    def _open(self, one: FollowedService, told: Mapping[str, bool | None]) -> None:
        rows, unplaced = self._rows[one.source.name], 0
        for url in (url for url, state in told.items() if state and url not in rows):
            if self._place(one, url, None):
                self._hear(InstanceComing(rows[url]))
                self._hear(InstanceReady(rows[url]))
            else:
                unplaced += 1
        self._unplaced[one.source.name] = unplaced

    def _place(self, one: FollowedService, url: str, wanted: int | None) -> bool:
        """Give an engine a row: the one it had, where nobody else has it."""
        taken = {row for rows in self._rows.values() for row in rows.values()}
        free = [row for row in range(one.pool.begin, one.pool.end) if row not in taken]
        if not free:
            return False
        row = wanted if wanted in free else free[0]
        assert row is not None
        self._rows[one.source.name][url] = row
        self._places[row] = EngineAddress(url, one.served_model, one.metrics)
        return True

    async def _follow(self, source: EngineSource) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(source.run())
            while True:
                await source.changed.wait()
                source.changed.clear()
                self._changed.set()

    def _load(self) -> dict[str, dict[str, int]]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, dict[str, int]])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            _LOG.warning("which engines there were is forgotten, because %s cannot be read: %s", self._path, error)
            return {}

    def _save(self) -> None:
        kept = {name: {url: row for url, row in rows.items() if row not in self._leaving} for name, rows in self._rows.items()}
        try:
            write_private(self._path, msgspec.json.encode(kept))
        except OSError as error:
            _LOG.error("which engines there are cannot be written: %s", error)
