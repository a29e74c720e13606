"""The LoRA adapters of one emulated rank: slots, what is loaded, and who is passed over until one is free.

Which slot a request takes is the function of `core/engine/rules.py` that the simulator compiles; docs/reference/kernel.md,
"Adapters", has the rules. Knows no time. Read next: `batch.py`, the caller.
"""

from collections.abc import Iterable
from typing import Protocol

from sageserve.core.engine.rules import AdapterSlot, slot_for
from sageserve.core.engine.timing import EngineRow, adapters_time


class Asking(Protocol):
    """Whoever asks for an adapter."""

    adapter: int  # -1: for none


class AdapterSlots:
    """Slots of a rank.

    Args:
        row: of the engine; without slots, adapters are nothing to it.
    """

    def __init__(self, row: EngineRow) -> None:
        self._row = row
        self._slots = [AdapterSlot(adapter=-1, users=0, used=0) for _ in range(row["slots"])]
        self._clock = 0
        self.loads = 0
        """For the iteration that is composed."""

    def _slot(self, one: Asking) -> AdapterSlot | None:
        """The slot that it takes, if it needs one and one is to be had."""
        if one.adapter < 0 or not self._slots:
            return None
        k = slot_for(self._slots, 0, len(self._slots), one.adapter)
        return self._slots[k] if k >= 0 else None

    def has_none_for(self, one: Asking) -> bool:
        """Whether all slots are in use by other adapters."""
        return one.adapter >= 0 and bool(self._slots) and self._slot(one) is None

    def admit(self, one: Asking) -> None:
        """It joins the batch."""
        if (slot := self._slot(one)) is not None:
            self.loads += slot["adapter"] != one.adapter
            slot["adapter"] = one.adapter
            slot["users"] += 1

    def leave(self, one: Asking) -> None:
        """It is no longer in the batch."""
        if (slot := self._slot(one)) is not None:
            slot["users"] -= 1
            if slot["users"] == 0:
                self._clock += 1
                slot["used"] = self._clock

    def time(self, computing: Iterable[Asking]) -> float:
        """Microseconds that an iteration of these takes more."""
        if not self._slots:
            return 0.0
        return adapters_time(self._row, len({one.adapter for one in computing if one.adapter >= 0}), self.loads)
