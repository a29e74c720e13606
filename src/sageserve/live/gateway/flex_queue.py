"""Requests of batch tiers whose clients wait: each has a ticket at control, and goes when its grant comes.

When control goes away the tickets stay, and are handed in again when it is back. Chooses nothing: control's queue manager
does. Read next: `live/wire.py` (Wait, Grant, Gone), `exchange.py`, which waits.
"""

from collections.abc import Callable
from typing import Final, Protocol

from sageserve.base.units import MINUTE, SECOND, Micros
from sageserve.live.wire import Gone, Grant, Refusal, ToControl, Wait

PATIENCE: Final = 10 * MINUTE  # OpenAI's clients give up after it unless told otherwise


class FlexWaiter(Protocol):
    """Who waits."""

    def granted(self, endpoint: int) -> None:
        """It may go, to this endpoint or ANYWHERE."""

    def waited_in_vain(self, retry_after: Micros) -> None:
        """It is to come again later."""


class FlexQueue:
    """Tickets of one gateway.

    Args:
        send: tells control; False when it is away.
    """

    def __init__(self, send: Callable[[ToControl], bool]) -> None:
        self._send = send
        self._tickets: dict[int, tuple[Wait, FlexWaiter, Micros]] = {}
        self._granted: set[int] = set()
        self._last = 0

    def __len__(self) -> int:
        return len(self._tickets)

    def add(self, wait: Callable[[int], Wait], waiter: FlexWaiter, now: Micros) -> int:
        """Queue a request, made with its ticket; the ticket."""
        self._last += 1
        message = wait(self._last)
        self._tickets[self._last] = (message, waiter, now + message.patience)
        self._send(message)
        return self._last

    def take(self, decision: Grant | Refusal) -> None:
        """Control decided. A decision whose client has left was answered by Gone already."""
        found = self._tickets.pop(decision.ticket, None)
        if found is None:
            return
        match decision:
            case Refusal():
                found[1].waited_in_vain(decision.retry_after)
            case Grant():
                self._granted.add(decision.ticket)
                found[1].granted(decision.endpoint)

    def leave(self, ticket: int) -> None:
        """The client left, or its granted request is done."""
        if self._tickets.pop(ticket, None) is not None or ticket in self._granted:
            self._granted.discard(ticket)
            self._send(Gone(ticket))

    def again(self) -> None:
        """Control is back, and knows nothing: hand in all tickets anew."""
        self._granted.clear()
        for message, _, _ in self._tickets.values():
            self._send(message)

    def tidy(self, now: Micros) -> None:
        """Send away those whose patience is over; control has not answered in time."""
        late = [ticket for ticket, (_, _, until) in self._tickets.items() if until <= now]
        for ticket in late:
            _, waiter, _ = self._tickets.pop(ticket)
            self._send(Gone(ticket))
            waiter.waited_in_vain(30 * SECOND)
