"""The client's side of a request, as everything behind it sees it; `client.py` is the only one there is.

Named, so that exchanges, relays and passages say what they need without knowing HTTP. Read next: `client.py`, `exchange.py`.
"""

import asyncio
from typing import Protocol

from sageserve.base.units import Micros
from sageserve.live.gateway.api_error import ApiError


class Downstream(Protocol):
    """The client's connection."""

    paused: bool  # it does not keep up
    modern: bool  # HTTP/1.1: knows the chunked coding
    transport: asyncio.Transport

    def refuse(self, problem: ApiError, own: bytes) -> None:
        """Answer with an error; `own` are header lines to add."""

    def finished(self) -> None:
        """The answer is complete."""

    def cut(self) -> None:
        """The answer cannot be completed: close so that the client sees it."""

    def ending(self) -> bytes:
        """The header line that says whether the connection is kept."""

    def hold(self, wait: bool) -> None:
        """Take no more of the body for now, or take on."""

    def write(self, data: bytes) -> None:
        """Send bytes."""

    def check(self, now: Micros) -> None:
        """Send away who is too slow."""

    def leave(self) -> None:
        """Close at once."""

    def retire(self) -> None:
        """The gateway drains: close if nothing is being answered."""
