"""Where one request was sent in vain, and who is charged with that: an instance, the request itself, or nobody.

A connection that breaks off says nothing by itself: an engine may have died, or this very request may be what kills engines. The
next instance tells: when it answers, the first one is left out; when it breaks off, too, the request is charged and nobody is
left out, so that one client's poison takes no instance from the others. Made at a request's first failure, for most have none.
Sends nothing. Read next: `exchange.py`, the owner; `context.py`, which leaves instances out.
"""

from collections.abc import Sequence
from typing import Final

from sageserve.base.units import SECOND, Micros
from sageserve.core.engine.timing import iteration_time, prefill_work
from sageserve.live.gateway.context import LOG, GatewayContext
from sageserve.live.gateway.meter import BREAKS
from sageserve.live.gateway.request import ApiCall
from sageserve.live.gateway.targets import Placement, Target
from sageserve.live.wire import Trouble

_BROKEN_MAX: Final = 2  # sends that broke without an answer: the request itself may be what kills engines
_TRIES: Final = 4
_LEAST: Final = SECOND
_TIMES: Final = 4.0
_PROMISED_MOST: Final = 5 * SECOND
_NEVER_HEARD: Final = 5 * SECOND
_WHOLE_LEAST: Final = 20 * SECOND
_TELL_AGAIN: Final = 10 * SECOND
_PACE_OVER: Final = 16  # first tokens over which the pace moves
_PACE_MOST: Final = 16.0
_TOLD: Final = 1000.0  # us of expected time below which a ratio says nothing


def note_pace(placed: Placement, took: Micros) -> None:
    """Learn how fast first tokens come from an instance: its profile may be of another engine, or of another day."""
    target, expected = placed.target, placed.wait + placed.prefill
    target.heard = target.heard or 1
    if expected >= _TOLD:
        target.pace += (min(_PACE_MOST, max(1.0, took / expected)) - target.pace) / _PACE_OVER


def waits_in_vain(context: GatewayContext, placed: Placement, call: ApiCall, sent: Micros, now: Micros) -> bool:
    """Whether a request without a first byte should go elsewhere; control is to look at an instance that owes a whole answer."""
    promises = call.stream and context.ttft[call.tier] is not None
    ttft = context.routing.promised(call.tier, call.prompt) if promises else None
    if is_stuck(placed, call.prompt, sent, now, ttft, streamed=call.stream):
        return True
    if not call.stream and is_overdue(placed, call.prompt, context.routing.guess[call.model], sent, now):
        ask_control(context, placed.target, now)
    return False


def is_stuck(placed: Placement, prompt: int, sent: Micros, now: Micros, ttft: Micros | None, *, streamed: bool) -> bool:
    """Whether a request without a first byte waits in vain, as far as control or this gateway can tell.

    The first byte of a whole answer may be long in coming: of those control sees whether tokens are made.
    """
    target = placed.target
    return not target.well or (streamed and now - max(target.heard, sent) > _mute_after(placed, prompt, ttft))


def is_overdue(placed: Placement, prompt: int, output: int, sent: Micros, now: Micros) -> bool:
    """Whether a whole answer is so late that control should ask the instance for a token; it may just be long.

    Several times what the prompt and a usual answer (tokens) take in the fullest batch, during which nothing at all came from the
    instance: not of other requests either, some of which would have ended.
    """
    target, profile = placed.target, placed.target.profile
    fullest = iteration_time(profile, 0.0, 0.0, int(profile["max_sequences"]), int(profile["kv_tokens"]))
    usual = placed.wait + prefill_work(profile, prompt, 0) + output * fullest
    return now - max(target.heard, sent) > _WHOLE_LEAST + _TIMES * target.pace * usual


def ask_control(context: GatewayContext, target: Target, now: Micros) -> None:
    """Have control find out whether an instance hangs, where a request can go nowhere else, or need not yet."""
    if target.well and (target.told_at == 0 or now - target.told_at > _TELL_AGAIN):
        target.told_at = now
        context.tell(Trouble(target.row, "nothing comes from it", mute=True))


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
