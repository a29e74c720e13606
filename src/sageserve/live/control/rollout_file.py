"""Rollouts as they are kept over restarts of control: settings, and how far each is.

One file of the state folder, replaced at once; of a run of the fleet that is over it is read once more, and set aside.
Decides nothing. Read next: `live_rollouts.py`, the owner.
"""

import logging
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct, structs
from pydantic import ValidationError

from sageserve.base.config import EngineCommand, RolloutSettings
from sageserve.base.units import Micros
from sageserve.core.actions import RolloutStep
from sageserve.core.rollout_plan import RolloutMemory
from sageserve.live.private import write_private

FILE: Final = "rollouts.json"
_DIGITS: Final = 16
_LOG: Final = logging.getLogger(__name__)


class KeptRollout(Struct, frozen=True):
    """One rollout; times by the clock of whoever has it."""

    revision: int
    settings: RolloutSettings
    at: Micros
    memory: RolloutMemory | None


class _One(Struct, frozen=True):
    revision: int
    settings: dict[str, Any]
    at: Micros
    memory: RolloutMemory | None


class _Kept(Struct, frozen=True):
    run: str
    layout: str
    origin: Micros  # the clock's zero, microseconds since 1970
    rollouts: tuple[_One, ...]


def rolled_out(state: Path, secret: str) -> dict[str, EngineCommand]:
    """How engines are run of models whose latest rollout is done, where it brought a command.

    Args:
        state: folder of the fleet.
        secret: of this run of it; rollouts of another one changed engines that are gone.
    """
    try:
        kept = msgspec.json.decode((state / FILE).read_bytes(), type=_Kept)
        if kept.run != run_mark(secret):
            return {}
        latest = {str(one.settings["model"]): one for one in kept.rollouts}  # in the order in which they were begun
        done = [one for one in latest.values() if one.memory is not None and one.memory.step is RolloutStep.DONE]
        found = [RolloutSettings.model_validate(one.settings) for one in done]
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, ValidationError, KeyError):
        return {}  # control says in its log what is wrong with it
    return {one.model: one.engine for one in found if one.engine is not None}


def run_mark(secret: str) -> str:
    """Of a run of a fleet; its secret has many bytes, so nothing is told by it."""
    return sha256(secret.encode()).hexdigest()[:_DIGITS]


class RolloutFile:
    """Where they are kept.

    Args:
        state: folder of the fleet.
        secret: of this run of it.
        layout: mark of what numbers of endpoints and instances mean.
        origin: zero of the clock, microseconds since 1970.
        tiers: how many there are.
    """

    def __init__(self, state: Path, secret: str, layout: str, origin: Micros, tiers: int) -> None:
        self._path = state / FILE
        self._run = run_mark(secret)
        self._layout = layout
        self._origin = origin
        self._tiers = tiers
        self.earlier: tuple[KeptRollout, ...] = ()  # of the run before this one

    def save(self, rollouts: Sequence[KeptRollout], origin: Micros) -> None:
        """Write them down; a full disk loses what is new."""
        ones = tuple(
            _One(one.revision, one.settings.model_dump(mode="json", exclude_none=True), one.at, one.memory) for one in rollouts
        )
        try:
            write_private(self._path, msgspec.json.encode(_Kept(self._run, self._layout, origin, ones)))
        except OSError as error:
            _LOG.error("how far rollouts are cannot be written: %s", error)

    def load(self) -> tuple[KeptRollout, ...]:
        """Those of this run, by this process's clock; none of another one."""
        try:
            kept = msgspec.json.decode(self._path.read_bytes(), type=_Kept)
            found = tuple(self._read(one, kept) for one in kept.rollouts)
        except FileNotFoundError:
            return ()
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, ValidationError) as error:
            _LOG.error("rollouts are forgotten, because %s cannot be read: %s", self._path, error)
            return ()
        if kept.run == self._run:
            return found
        self.earlier = found
        return ()

    def _read(self, one: _One, kept: _Kept) -> KeptRollout:
        by, memory = kept.origin - self._origin, one.memory
        if memory is not None:
            memory = memory.shifted(by)
            if kept.layout != self._layout:  # numbers of then mean something else now
                memory = structs.replace(memory, extra={}, held={}, surging={}, owed={})
            counts = [seen for _, seen in memory.seen] + ([] if memory.base is None else [memory.base])
            if any(len(seen.asked) != 2 * self._tiers for seen in counts):
                memory = structs.replace(memory, seen=(), base=None)
        return KeptRollout(one.revision, RolloutSettings.model_validate(one.settings), one.at + by, memory)
