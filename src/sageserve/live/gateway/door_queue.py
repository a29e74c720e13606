"""Requests for endpoints that have no instance: held until one is open, and told why when none comes.

Control hears in every report how many wait, and wakes an endpoint of their walk; its next table lets them in, in order, without
being judged again. How many may wait is bounded as in a simulation (`admission.queued` of one instance), and by `live.limits`.
Whoever has waited too long, or waited for a start that failed, is answered with the reason. Chooses nothing.
Read next: `exchange.py`, which waits; `core/zero.py`, which wakes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from sageserve.base.config import LimitSettings
from sageserve.base.units import MINUTE, SECOND, Micros, show_duration
from sageserve.core.layout import Layout
from sageserve.live.gateway.api_error import ApiError, no_capacity, not_started
from sageserve.live.gateway.routing_state import RoutingState
from sageserve.live.wire import AsleepRow, RoutingTable, WaitingCount

LONGEST: Final = 10 * MINUTE  # as long as OpenAI's clients wait
_LITTLE: Final = 15 * SECOND  # where starts go on failing: time enough for control to hear of it and try again
_AGAIN: Final = 10 * SECOND  # where nobody knows how long a start takes
_AGAIN_MOST: Final = 2 * MINUTE  # OpenAI's clients retry no later


class HeldRequest(Protocol):
    """Who waits."""

    def let_in(self) -> bool:
        """Something is open for it, as it seems; False when it stays."""

    def refuse(self, problem: ApiError) -> None:
        """It waited in vain."""


class Knock(NamedTuple):
    """What is known of a request that waits: where it is counted, its tier, tokens of its prompt, bytes of its body."""

    cell: int
    tier: int
    prompt: int
    size: int


@dataclass(slots=True)
class _Held:
    walk: Sequence[int]
    cell: int
    size: int  # bytes
    since: Micros
    until: Micros


class DoorQueue:
    """Those that one gateway holds.

    Args:
        layout: which endpoints may have no instance.
        routing: what is open.
        limits: how many may wait, and how long.
        refused: told the cell of each that is turned away.
    """

    def __init__(
        self, layout: Layout, routing: RoutingState, limits: LimitSettings, refused: Callable[[int], None] = lambda _: None
    ) -> None:
        self._names = layout.names.models
        self._wakes = layout.wakes.tolist()
        self._first = [int(layout.slot_profile[e * layout.slots]) for e in range(layout.endpoints)]
        self._ends = [layout.endpoint_name(e) for e in range(layout.endpoints)]
        self._routing = routing
        self._limits = limits
        self._refused = refused
        self._held: dict[HeldRequest, _Held] = {}  # in order of arrival
        self._cells: dict[int, int] = {}
        self._bytes = 0
        self._rows: dict[int, AsleepRow] = {}
        self._epoch = ""
        self.asked: Callable[[], None] = lambda: None  # told when the first of a cell begins to wait

    def __len__(self) -> int:
        return len(self._held)

    def counts(self) -> tuple[WaitingCount, ...]:
        """How many wait, by cell."""
        return tuple(WaitingCount(cell, count) for cell, count in self._cells.items())

    def hold(self, waiter: HeldRequest, knock: Knock, walk: Sequence[int], now: Micros) -> bool:
        """Keep a request for which nothing is open; False where no endpoint of its walk is ever woken.

        Raises:
            ApiError: as many wait as may.
        """
        first = next((e for e in walk if self._wakes[e]), -1)
        if first < 0:
            return False
        if (full := self._full(first, knock)) is not None:
            self._refused(knock.cell)
            raise no_capacity(f"{self._sleeps(walk)}, and {full}.", self._again(walk))
        row, patience = self._rows.get(first), self._patience(knock)
        if row is not None and row.lasting:
            patience = min(patience, _LITTLE)
        self._held[waiter] = _Held(walk, knock.cell, knock.size, now, now + patience)
        self._bytes += knock.size
        before = self._cells.get(knock.cell, 0)
        self._cells[knock.cell] = before + 1
        if before == 0:
            self.asked()
        return True

    def leave(self, waiter: HeldRequest) -> None:
        """It waits no more."""
        if (one := self._held.pop(waiter, None)) is None:
            return
        self._bytes -= one.size
        self._cells[one.cell] -= 1
        if not self._cells[one.cell]:
            del self._cells[one.cell]

    def replace(self, table: RoutingTable) -> None:
        """A new table: let in whom something is open for, and answer those for whom a start failed since the last one."""
        before = self._rows if table.epoch == self._epoch else {}
        self._epoch, self._rows = table.epoch, {row.endpoint: row for row in table.asleep}
        failed = {e for e, row in self._rows.items() if e in before and row.failures > before[e].failures}
        for waiter, one in list(self._held.items()):
            if any(self._routing.loads[e].targets for e in one.walk) and waiter.let_in():
                self.leave(waiter)
            elif failed.intersection(one.walk) and not any(self._rows[e].coming for e in one.walk if e in self._rows):
                self._send_away(waiter, one, not_started(f"{self._sleeps(one.walk)}.", self._again(one.walk)))

    def tidy(self, now: Micros) -> None:
        """Send away those who have waited as long as they may."""
        for waiter, one in list(self._held.items()):
            if one.until <= now:
                waited = show_duration((now - one.since) // SECOND * SECOND)
                problem = no_capacity(f"It waited {waited}: {self._sleeps(one.walk)}.", self._again(one.walk))
                self._send_away(waiter, one, problem)

    def _send_away(self, waiter: HeldRequest, one: _Held, problem: ApiError) -> None:
        self._refused(one.cell)
        self.leave(waiter)
        waiter.refuse(problem)

    def _patience(self, knock: Knock) -> Micros:
        promised = self._routing.promised(knock.tier, knock.prompt)
        return min(LONGEST, max(promised, self._limits.held_for))

    def _full(self, first: int, knock: Knock) -> str | None:
        """Why a request cannot be kept; None: it can."""
        admission, alike = self._routing.admission, self._cells.get(knock.cell, 0)
        if admission.act:
            profile = self._routing.profiles[self._first[first]]
            most = int(admission.queued * profile["ranks"] * profile["max_sequences"])
            if alike * self._routing.gateways >= most:
                return f"{most:,} of this tier, as many as one instance would be let have, wait for it already"
        if len(self._held) >= self._limits.held:
            return f"{self._limits.held:,} requests, as many as may, wait already"
        if self._bytes + knock.size > self._limits.held_bodies:
            return "as many bytes of requests as may wait already"
        return None

    def _sleeps(self, walk: Sequence[int]) -> str:
        """What is said of the endpoints that could serve a request."""
        rows = [self._rows[e] for e in walk if e in self._rows]
        told = next((row for row in rows if row.why), None)
        end = next(e for e in walk if self._wakes[e]) if told is None else told.endpoint
        return f"{self._ends[end]} has no instance" + ("" if told is None else f": {told.why}")

    def _again(self, walk: Sequence[int]) -> Micros:
        left = [self._rows[e].left for e in walk if e in self._rows and self._rows[e].left > 0]
        return min(_AGAIN_MOST, max(SECOND, min(left, default=_AGAIN)))
