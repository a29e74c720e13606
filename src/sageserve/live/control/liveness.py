"""Whether instances that are there get anything done: an engine may answer for its health and its metrics, and make no token.

Suspect is an instance that nothing answers at, one that a gateway calls mute, and one that has requests and whose token counts
stand still for longer than prompts of its whole context take. A suspect is asked for one token: an answer clears it, and so do
counts that move. One that gives none is unwell: gateways send requests without a first byte elsewhere, and after
`safety.hung_after` it is ended, to be replaced, one at a time, where it is ours to end. One that refuses to be asked is not
ended: requests are tried there again. Decides nothing else. Read next: `fleet_view.py`, which is told; `process.py`.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from enum import Enum
from typing import Final

from sageserve.base.units import SECOND, Micros
from sageserve.core.engine.timing import prefill_work
from sageserve.live.actuators.base import EngineAddress
from sageserve.live.control.fleet_view import FleetView
from sageserve.live.control.opened import Opened

_LOG: Final = logging.getLogger(__name__)
_LEAST: Final = 10 * SECOND  # counts that stand still for less say nothing
_PREFILLS: Final = 2.0  # prompts of a whole context that an engine may be busy with before its counts move


class Probed(Enum):
    """What an engine did that was asked for one token."""

    MADE = "made"  # the token
    NOTHING = "nothing"  # no answer, or one that says it is broken
    REFUSED = "refused"  # it may not be asked so: that says nothing


class Liveness:
    """Suspects among the instances of a fleet.

    Args:
        view: instances, and what was seen of them.
        probe: asks an engine for one token.
        end: ends an instance for a reason; False where that is not ours to do.
        after: microseconds from the first suspicion until it is ended.
        now: the loop's clock.
    """

    def __init__(
        self,
        view: FleetView,
        probe: Callable[[EngineAddress], Coroutine[None, None, Probed]],
        end: Callable[[int, str], bool],
        after: Micros,
        now: Callable[[], Micros],
    ) -> None:
        self.ended = 0  # instances that hung and were ended
        self._view = view
        self._probe = probe
        self._end = end
        self._after = after
        self._now = now
        self._still: dict[int, tuple[float | None, Micros]] = {}  # token counts, and since when they are what they are
        self._since: dict[int, Micros] = {}  # of those that are unwell
        self._refused: set[int] = set()  # of those, who cannot be asked

    def notes(self) -> tuple[str, ...]:
        """Who is unwell, in sentences."""
        opened, then = self._view.opened, "its requests go elsewhere where they can."
        silent = {i for i in self._since if i in opened and not opened[i].answers}
        return tuple(
            f"Nothing answers at instance {i}: {then}" if i in silent else f"Instance {i} {self._why(i)}: {then}"
            for i in sorted(self._since)
        )

    async def run(self, every: Micros) -> None:
        """Look until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(every / SECOND)

    async def look(self) -> None:
        """Find suspects, ask them, and say what follows."""
        now, opened = self._now(), self._view.opened
        suspects = [i for i, here in opened.items() if self._is_suspect(i, here, now)]
        called = self._since.keys() | {i for i, here in opened.items() if here.mute}
        for i in called - set(suspects):
            self._clear(i)
        asked = [(i, opened[i]) for i in suspects]
        answers = await asyncio.gather(*(self._answers(here) for _, here in asked))
        for (i, here), answered in zip(asked, answers, strict=True):
            if opened.get(i) is not here:
                continue  # it ended, or is another one by now
            if answered is Probed.MADE:
                self._clear(i)
            else:
                self._call_unwell(i, now, refused=answered is Probed.REFUSED)
        self._end_one()

    async def _answers(self, here: Opened) -> Probed:
        return await self._probe(here.place) if here.answers else Probed.NOTHING

    def _is_suspect(self, i: int, here: Opened, now: Micros) -> bool:
        if not here.answers:
            return True
        made, since = self._still.get(i, (None, now))
        moved = here.made is not None and made is not None and here.made != made
        known = i in self._since
        if here.made != made or (here.in_flight == 0 and not known):
            self._still[i] = here.made, (since := now)
        if moved:  # it works, however long those waited that called it mute
            return False
        # That one known to be unwell has no requests any more shows only that gateways took them away.
        return here.mute or known or (here.made is not None and now - since > self._patience(i))

    def _patience(self, i: int) -> Micros:
        """How long an engine's counts may stand still while it has requests."""
        layout = self._view.layout
        profile = layout.profiles[layout.slot_profile[i]]
        context = int(layout.context[int(self._view.endpoints[i // layout.slots]["model"])])
        return int(_LEAST + _PREFILLS * prefill_work(profile, context, 0))

    def _call_unwell(self, i: int, now: Micros, *, refused: bool) -> None:
        (self._refused.add if refused else self._refused.discard)(i)
        if i not in self._since:
            self._since[i] = now
            _LOG.warning("instance %d at %s %s", i, self._view.opened[i].place.url, self._why(i))
        self._view.set_well(i, well=False)

    def _clear(self, i: int) -> None:
        self._since.pop(i, None)
        if (here := self._view.opened.get(i)) is None:
            self._still.pop(i, None)
        else:
            self._still[i] = here.made, self._now()
        self._refused.discard(i)
        self._view.set_well(i, well=True)

    def _end_one(self) -> None:
        """End the one that is overdue for longest; the others have their turn when they are looked at again.

        Who cannot be asked has no other way back than requests, and is given some.
        """
        now = self._now()
        late = sorted((since, i) for i, since in self._since.items() if now - since > self._after)
        for _, i in late:
            if i in self._refused:
                self._clear(i)
            elif self._end(i, self._why(i)):
                _LOG.error("instance %d is ended, to be replaced: it %s", i, self._why(i))
                self.ended += 1
                self._clear(i)
                return

    def _why(self, i: int) -> str:
        here, seconds = self._view.opened.get(i), (self._now() - self._since.get(i, self._now())) // SECOND
        silent = here is not None and not here.answers
        return f"has answered nobody for {seconds} s" if silent else f"takes requests and has made no token for {seconds} s"
