"""Where one request was sent in vain, and who is charged with that: an instance, the request itself, or nobody.

A connection that breaks off says nothing by itself: an engine may have died, or this very request may be what kills engines. The
next instance tells: when it answers, the first one is left out; when it breaks off, too, the request is charged and nobody is
left out, so that one client's poison takes no instance from the others. Made at a request's first failure, for most have none.
Sends nothing. Read next: `exchange.py`, the owner; `context.py`, which leaves instances out.
"""

from collections.abc import Sequence
from typing import Final

from sageserve.base.units import SECOND, Micros
from sageserve.core.engine.timing import prefill_work
from sageserve.live.gateway.context import LOG, GatewayContext
from sageserve.live.gateway.meter import BREAKS
from sageserve.live.gateway.targets import Placement, Target

_BROKEN_MAX: Final = 2  # sends that broke without an answer: the request itself may be what kills engines
_TRIES: Final = 4
_LEAST: Final = SECOND
_TIMES: Final = 4.0
_PROMISED_MOST: Final = 5 * SECOND
_NEVER_HEARD: Final = 5 * SECOND
_PACE_OVER: Final = 16  # first tokens over which the pace moves
_PACE_MOST: Final = 16.0
_TOLD: Final = 1000.0  # us of expected time below which a ratio says nothing


def note_pace(placed: Placement, took: Micros) -> None:
    """Learn how fast first tokens come from an instance: its profile may be of another engine, or of another day."""
    target, expected = placed.target, placed.wait + placed.prefill
    target.heard = target.heard or 1
    if expected >= _TOLD:
        target.pace += (min(_PACE_MOST, max(1.0, took / expected)) - target.pace) / _PACE_OVER


def is_stuck(placed: Placement, prompt: int, sent: Micros, now: Micros, ttft: Micros | None, *, streamed: bool) -> bool:
    """Whether a request without a first byte waits in vain, as far as control or this gateway can tell.

    The first byte of a whole answer may be long in coming: of those control sees whether tokens are made.
    """
    target = placed.target
    return not target.well or (streamed and now - max(target.heard, sent) > _mute_after(placed, prompt, ttft))


def _mute_after(placed: Placement, prompt: int, ttft: Micros | None) -> Micros:
    """How long nothing at all may come from an instance that a streamed request waits at.

    Several times what its first token should take at the instance's own pace; half the tier's promise where that is longer, for
    a promise that allows for it need not be hurried; and longer once from an instance nothing ever came from, which may compile.
    All of the prompt (tokens) is counted: what is believed to be cached there may be gone.
    """
    target = placed.target
    at_pace = _LEAST + _TIMES * target.pace * (placed.wait + prefill_work(target.profile, prompt, 0))
    longest = max(at_pace, min(_PROMISED_MOST, (ttft or 0) / 2))
    return int(longest if target.heard else max(longest, _NEVER_HEARD))


class Attempts:
    """What failed of one request.

    Args:
        context: what all requests share.
    """

    __slots__ = ("_context", "_suspect", "_tried", "broke")

    def __init__(self, context: GatewayContext) -> None:
        self._context = context
        self._tried: set[int] = set()
        self._suspect: Target | None = None  # broke off; whether it or the request is at fault, the next one shows
        self.broke = 0

    def next(self, target: Target, walk: Sequence[int], now: Micros) -> Target | None:
        """Another instance after this one failed; None when there is none, or it was tried often enough."""
        self._tried.add(target.row)
        if self.broke >= _BROKEN_MAX or len(self._tried) >= _TRIES:
            return None
        return self._context.routing.choose_again(list(walk), target.endpoint, self._tried, now)

    def break_off(self, target: Target, request: bytes) -> bool:
        """A connection broke after the request was sent and before an answer; whether the request is charged with it."""
        self.broke += 1
        if self._suspect is None:
            self._suspect = target
            return False
        self._context.meter.count(BREAKS, ("request",))
        LOG.warning("request %s broke off at %d instances, none of which is left out", request.decode("latin-1"), self.broke)
        return True

    def answered(self, status: int) -> None:
        """Another instance answered: the one before it is at fault, unless this answer is a fault, too."""
        suspect, self._suspect = self._suspect, None
        if suspect is not None and status < 500:
            self._context.trouble(suspect, "it broke off a request that another instance answered")

    def undecided(self) -> None:
        """It broke off, and there is nobody else to ask: nobody is charged."""
        self._context.meter.count(BREAKS, ("nobody",))
