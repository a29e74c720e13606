"""Engines on paper: they take requests, make tokens, answer scrapes and probes, and go wrong in whatever way they are told to.

An engine serves so many requests at once, the others wait; a first token and the rest take as long as the prompt and the answer
are. Knows no gateway: whoever sent a request is called back. Read next: `cloud.py`, which starts and ends them.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sageserve.base.units import NEVER, Micros
from sageserve.live.control.liveness import Probed
from sageserve.live.control.opened import Missed
from sageserve.live.swarm.virtual_time import VirtualLoop, VirtualProcess

PLACES: Final = 8
_WAY: Final[Micros] = 1000  # to whoever asked
_BASE: Final[Micros] = 20_000
_PROMPT_TOKEN: Final[Micros] = 50
_OUTPUT_TOKEN: Final[Micros] = 10_000
_SCRAPE_TIMEOUT_S: Final = 2.0
_PROBE_TIMEOUT_S: Final = 5.0
KV_TOKENS: Final = 100_000


@dataclass(slots=True, eq=False)
class Attempt:
    """A request at one engine.

    Args:
        sender: the gateway's process.
        prompt: tokens.
        output: tokens.
        poison: what the engine does instead of answering well; empty: nothing.
        began: told when the first token came.
        done: told the status of the answer.
        broke: told why there is none.
    """

    sender: VirtualProcess
    prompt: int
    output: int
    poison: str
    began: Callable[[], None]
    done: Callable[[int], None]
    broke: Callable[[str], None]
    over: bool = False
    taken_at: Micros = 0  # by the engine


class SwarmEngine:
    """One engine.

    Args:
        loop: whose time it is.
        row: of its instance.
    """

    def __init__(self, loop: VirtualLoop, row: int) -> None:
        self.row = row
        self.dead = False
        self.hung = False  # takes requests, answers for its metrics, makes no token
        self.frozen = False  # takes connections and answers nothing
        self.blind = False  # serves, and does not say how it is
        self.lie: float | None = None  # the share of its memory that it claims to use; None: the truth
        self.stale = False  # what it says of itself does not change
        self.sick = False  # answers 500
        self.slow = 1.0
        self.frozen_at: Micros = 0
        self.given_at: Micros = NEVER  # when control gave it away; what a gateway sends later is not control's to wait for
        self.left_at: list[Micros] = []  # when a living gateway took a request away that it had stood still with
        self.inside: dict[Attempt, None] = {}
        self._loop = loop
        self._made = 0
        self._running = 0
        self._waiting: deque[Attempt] = deque()
        self._stalled: list[tuple[Callable[[Attempt], None], Attempt]] = []
        self._said: tuple[float, int, int, float] | None = None

    # --- requests ---

    def take(self, one: Attempt) -> None:
        """A request came."""
        if self.dead:
            self._break(one, "connection refused")
            return
        self.inside[one], one.taken_at = None, self._loop.now
        if self._running < PLACES:
            self._begin(one)
        else:
            self._waiting.append(one)

    def leave(self, one: Attempt) -> None:
        """Whoever sent it hung up."""
        if not one.over:
            if not one.sender.killed and any(other is one for _, other in self._stalled):
                self.left_at.append(self._loop.now)
            self._end(one)

    def _begin(self, one: Attempt) -> None:
        self._running += 1
        self._later(_BASE + one.prompt * _PROMPT_TOKEN, self._first, one)

    def _later(self, takes: Micros, then: Callable[[Attempt], None], one: Attempt) -> None:
        self._loop.tell(None, int(takes * self.slow), then, one)

    def _first(self, one: Attempt) -> None:
        if one.over:
            return
        if self.hung or self.frozen:
            self._stalled.append((self._first, one))
            return
        if one.poison == "break":
            self._end(one)
            self._break(one, "connection reset")
            return
        self._made += one.prompt
        self._loop.tell(one.sender, _WAY, one.began)
        self._later(one.output * _OUTPUT_TOKEN, self._last, one)

    def _last(self, one: Attempt) -> None:
        if one.over:
            return
        if self.hung or self.frozen:
            self._stalled.append((self._last, one))
            return
        self._made += one.output
        self._end(one)
        status = 500 if self.sick else int(one.poison) if one.poison.isdigit() else 200
        self._loop.tell(one.sender, _WAY, one.done, status)

    def _end(self, one: Attempt) -> None:
        one.over = True
        del self.inside[one]
        if one in self._waiting:
            self._waiting.remove(one)
            return
        self._running -= 1
        if self._waiting and not self.dead:
            self._begin(self._waiting.popleft())

    def _break(self, one: Attempt, why: str) -> None:
        self._loop.tell(one.sender, _WAY, one.broke, why)

    # --- what happens to it ---

    def end(self) -> None:
        """Its process is gone, with everything in it."""
        self.dead = True
        for one in list(self.inside):
            self._end(one)
            self._break(one, "connection reset")

    def wake(self) -> None:
        """It goes on with what stood still."""
        self.hung = self.frozen = False
        self.left_at.clear()
        stalled, self._stalled = self._stalled, []
        for then, one in stalled:
            self._loop.tell(None, 0, then, one)

    # --- what control asks ---

    async def scrape(self) -> tuple[float | None, int, int, float | None] | Missed:
        """How it is, as it says."""
        await asyncio.sleep(_SCRAPE_TIMEOUT_S if self.frozen or self.blind else 0.005)
        if self.dead or self.frozen:
            return Missed.SILENT
        if self.blind:
            return Missed.BLIND
        if not self.stale or self._said is None:
            kv = self.lie if self.lie is not None else sum(one.prompt + one.output for one in self.inside) / KV_TOKENS
            self._said = min(1.0, kv), len(self.inside), len(self._waiting), float(self._made)
        return self._said

    async def probe(self) -> Probed:
        """One token."""
        stands = self.hung or self.frozen
        await asyncio.sleep(_PROBE_TIMEOUT_S if stands else 0.05)
        return Probed.NOTHING if stands or self.dead or self.sick else Probed.MADE

    @property
    def honest(self) -> bool:
        """Whether what it says of itself is true."""
        return self.lie is None and not self.stale
