"""Endpoints that may have no instance, for people and for gateways: which sleep, which are woken, and why one is not.

Read from the fleet and from the journal's lines; decides nothing. Read next: `core/zero.py`, which decides; `live_door.py`;
docs/how-to/scale-to-zero.md.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from sageserve.base.records import Ints
from sageserve.base.units import Micros
from sageserve.core.actions import Blocked, Reason, Reclaim, Start
from sageserve.core.events import InstanceReady, StartFailed
from sageserve.core.fleet import Fleet
from sageserve.core.layout import Layout
from sageserve.core.work import Entry
from sageserve.live.actuators.start_failures import pause_after
from sageserve.live.control.rollout_file import run_mark
from sageserve.live.private import write_private
from sageserve.live.wire import AsleepRow

LASTING: Final = 3  # starts that fail in a row: one may have met a port that another program took just then
_FILE: Final = "begun"
_LOG: Final = logging.getLogger(__name__)
_BLOCKED: Final[Mapping[Blocked, str]] = {
    Blocked.NO_STOCK: "no GPUs that it may use are free",
    Blocked.NO_SLOT: "its pools have their maximum",
    Blocked.SHADOW: "live.safety.act is false, so that nothing is started",
}


class Sleep(StrEnum):
    """How an endpoint is that may have no instance."""

    ASLEEP = "asleep"
    WAKING = "waking"
    AWAKE = "awake"


@dataclass(slots=True)
class _End:
    """What is remembered of one endpoint."""

    failures: int = 0
    in_a_row: int = 0
    took: Micros = 0  # its last start
    why: str = ""  # it has none
    told: str = ""  # the same for clients, who need not know what an engine said


class Sleeping:
    """The endpoints of one fleet that may sleep.

    Args:
        layout: which they are.
        fleet: what they have.
        held: requests that wait for an instance, by cell.
        now: the loop's clock.
    """

    def __init__(self, layout: Layout, fleet: Fleet, held: Ints, now: Callable[[], Micros]) -> None:
        self._layout = layout
        self._fleet = fleet
        self._held = held
        self._now = now
        self._ends = {e: _End() for e, wakes in enumerate(layout.wakes.tolist()) if wakes}
        self._pools = {e: layout.endpoint_pools(e) for e in self._ends}
        self._began: dict[int, Micros] = {}  # by instance that is coming, after the pause that failures before it brought
        rows = layout.walk.reshape(-1, layout.walk.shape[-1]).tolist()
        self._first = [next((e for e in row if e in self._ends), -1) for row in rows]  # by cell: who is woken first

    def hear(self, entry: Entry) -> bool:
        """Take in a line of the journal; whether gateways should be told."""
        if not self._ends:
            return False
        news = False
        if isinstance(entry.event, StartFailed):
            self._began.pop(entry.event.instance, None)
        match entry.event:
            case StartFailed(instance=i, why=why) if (end := self._of(i)) is not None:
                end.failures, end.in_a_row = end.failures + 1, end.in_a_row + 1
                times = "its start failed" if end.in_a_row == 1 else f"{end.in_a_row:,} starts failed in a row"
                end.why, news = f"{times}, the last one because it {why}", True
                end.told = f"{times}; `sageserve status` says why"
            case InstanceReady(instance=i) if (end := self._of(i)) is not None:
                end.took, end.in_a_row = max(0, entry.now - self._began.pop(i, entry.now)), 0
                end.why = end.told = ""
            case _:
                pass
        for action in entry.actions:
            if isinstance(action, Start | Reclaim) and (woken := self._of(action.instance)) is not None:
                self._began[action.instance] = entry.now + pause_after(woken.in_a_row)
                woken.why = woken.told = ""
                news = True
        for decision in entry.decisions:
            end = self._ends.get(self._fleet.pools[decision.pool].endpoint)
            if end is not None and decision.reason is Reason.WOKEN and decision.blocked is not Blocked.NOT:
                why = _BLOCKED.get(decision.blocked, f"what is wanted cannot be done ({decision.blocked})")
                news |= why != end.why
                end.why = end.told = why
        return news

    def state(self, endpoint: int) -> Sleep | None:
        """How an endpoint is; None: it keeps an instance always."""
        pools = self._pools.get(endpoint)
        if pools is None:
            return None
        if any(self._fleet.serving(pool.number) for pool in pools):
            return Sleep.AWAKE
        return Sleep.WAKING if any(self._fleet.coming(pool.number) for pool in pools) else Sleep.ASLEEP

    def held(self, endpoint: int) -> int:
        """Requests that wait, by the endpoint that is woken for them first."""
        return sum(int(self._held[cell]) for cell, first in enumerate(self._first) if first == endpoint)

    def rows(self) -> tuple[AsleepRow, ...]:
        """Those that sleep, for gateways."""
        return tuple(self._row(e, end) for e, end in self._ends.items() if self.state(e) is not Sleep.AWAKE)

    def notes(self) -> tuple[str, ...]:
        """Who waits where nothing comes, in sentences."""
        found = []
        for e, end in self._ends.items():
            if end.why and self.state(e) is Sleep.ASLEEP and (held := self.held(e)):
                found.append(f"{held:,} requests wait for {self._layout.endpoint_name(e)}, which has no instance: {end.why}.")
        return tuple(found)

    def left_asleep(self, initial: tuple[int, ...]) -> tuple[int, ...]:
        """What a fleet goes on with that an earlier control process began: who slept sleeps on."""
        return tuple(0 if pool.endpoint in self._ends else count for pool, count in zip(self._layout.pools, initial, strict=True))

    def _row(self, e: int, end: _End) -> AsleepRow:
        coming = self.state(e) is Sleep.WAKING
        since = [self._began[i] for pool in self._pools[e] for i in range(pool.begin, pool.end) if i in self._began]
        left = max(0, min(since) + end.took - self._now()) if coming and since else end.took + pause_after(end.in_a_row)
        why = end.told or ("one is being started" if coming else "")
        return AsleepRow(e, coming, end.failures, end.in_a_row >= LASTING, left, why)

    def _of(self, instance: int) -> _End | None:
        return self._ends.get(instance // self._layout.slots)


def begun_before(state: Path, secret: str) -> bool:
    """Whether an earlier control process of this run of the fleet brought up what it begins with; noted for the next one."""
    path, mark = state / _FILE, run_mark(secret).encode()
    try:
        if path.read_bytes() == mark:
            return True
    except FileNotFoundError:
        pass
    except OSError as error:
        _LOG.error("whether the fleet has begun before cannot be read: %s", error)
    try:
        write_private(path, mark)
    except OSError as error:
        _LOG.error("that the fleet has begun cannot be written: %s", error)
    return False
