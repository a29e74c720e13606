"""An engine that is a process of this machine: what is remembered of it here, and the note that its supervisor keeps.

Does nothing. Read next: `local.py`.
"""

import asyncio
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from msgspec import Struct

from sageserve.base.units import SECOND, Micros
from sageserve.live.actuators.base import Post

STOP_WITHIN: Final = 30 * SECOND
"""What the emulated engine has to end, and one whose settings are not known any more."""


class EnginePhase(Enum):
    """Where an engine is."""

    STARTING = "starting"
    SERVING = "serving"
    DONATED = "donated"
    STOPPING = "stopping"


class EngineNote(Struct, frozen=True):
    """What the supervisor keeps for whoever comes back."""

    row: int
    run: int
    url: str
    gpus: tuple[int, ...]
    pool: str  # under other settings its rows may have other numbers
    place: int  # among the rows of its pool
    revision: int = 0


@dataclass(slots=True)
class EngineProcess:
    """One run of an engine."""

    post: Post
    note: EngineNote
    name: str  # of its process
    phase: EnginePhase = EnginePhase.STARTING
    why: str = ""  # it was ended by us while it served
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def patience(self) -> Micros:
        """How long it has to end by itself."""
        return self.post.command.stop_within if self.post.command else STOP_WITHIN
