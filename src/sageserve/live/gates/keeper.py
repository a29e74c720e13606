"""All gates, as long as a process watches: each gets a new lease again and again, and one of nothing at a clean end.

What only is observed is written down as it would have been. Where this process hangs or is killed, nobody renews, and the gate
closes when the lease ends. Read next: `room.py`, `writer.py`.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from msgspec import structs

from sageserve.base.config import GateSettings
from sageserve.base.units import SECOND, Micros
from sageserve.data.watched.leases import LeaseLine
from sageserve.live.gates.lease import shown_rate
from sageserve.live.gates.room import GateRate
from sageserve.live.gates.writer import GateWriter
from sageserve.live.waiting import within


@dataclass(frozen=True, slots=True)
class GateParts:
    """What is made outside and plugged in.

    Args:
        rate: what a gate may let through now.
        wall: microseconds since 1970.
        me: name of this process; no two have the same.
        acts: whether leases are written where authority says so.
        keep: told every lease that differs from the one before.
    """

    rate: Callable[[GateSettings], GateRate]
    wall: Callable[[], Micros]
    me: str
    acts: bool
    keep: Callable[[LeaseLine], None]


class GateKeeper:
    """The gates of a fleet.

    Args:
        gates: by name.
        parts: what is plugged in.
    """

    def __init__(self, gates: Mapping[str, GateSettings], parts: GateParts) -> None:
        self._gates, self._parts = gates, parts
        self.written: Final = tuple(name for name, one in gates.items() if parts.acts and one.authority == "full")
        self._last: dict[str, LeaseLine] = {}

    async def run(self) -> None:
        """Until cancelled; then nothing more is let through.

        No question to Redis is broken off: each ends within its own time, and the last lease comes after it.
        """
        ending = asyncio.Event()
        kept = [asyncio.create_task(self._keep(name, ending)) for name in self._gates]
        try:
            await asyncio.wait(kept, return_when=asyncio.FIRST_COMPLETED)  # none ends before it is told, unless by a fault
        finally:
            ending.set()
            await asyncio.gather(*kept)

    async def _keep(self, name: str, ending: asyncio.Event) -> None:
        gate = self._gates[name]
        writer = GateWriter(gate, self._parts.me) if name in self.written else None
        try:
            while not ending.is_set():
                await self._lease(name, self._parts.rate(gate), writer)
                await within(ending, gate.every / SECOND)
        finally:
            if writer is not None:
                await self._lease(name, GateRate(0.0, "SageServe ended"), writer, last=True)
                await writer.close()

    async def _lease(self, name: str, found: GateRate, writer: GateWriter | None, *, last: bool = False) -> None:
        rate = 0.0 if found.blind else found.rate
        trouble = "" if writer is None else await writer.write(rate, last=last)
        line = LeaseLine(self._parts.wall(), name, shown_rate(rate), found.why, trouble, writer is not None and not trouble)
        before = self._last.get(name)
        if before is None or structs.replace(before, wall=line.wall) != line:
            self._last[name] = line
            self._parts.keep(line)

    def notes(self) -> tuple[str, ...]:
        """What a person should know, in sentences."""
        found = []
        for name, one in self._last.items():
            if one.trouble:
                found.append(f"Gate {name} gets no lease, and closes by itself: {one.trouble}.")
            elif one.why:
                found.append(f"Gate {name} lets nothing through: {one.why}.")
        return tuple(found)
