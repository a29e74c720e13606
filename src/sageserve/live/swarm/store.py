"""The durable queue on paper: the store in memory, which outlives control processes, and a way to it that fails when told to.

What is away may have done what it was asked all the same: its answer was lost, and not the work. Read next: `world.py`.
"""

from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

from sageserve.live.batches.store_thread import StoreThread
from sageserve.live.store.memory import MemoryStore
from sageserve.live.store.models import StoreAway, StoreFull
from sageserve.live.swarm.dice import Dice

_P = ParamSpec("_P")
_T = TypeVar("_T")
_DONE: Final = 0.5  # of the calls that fail while it is away, so many are done
_READS: Final = frozenset(["queued", "unfinished_jobs", "body", "unfinished", "piece", "file", "outcomes", "batch"])


class StoreState:
    """How the store is.

    Args:
        dice: for what is done although it failed.
    """

    def __init__(self, dice: Dice) -> None:
        self.kept = MemoryStore()
        self.away = False
        self.full = False
        self.dice = dice


class SwarmStore(StoreThread):
    """A control process's way to the store.

    Args:
        state: how it is.
    """

    def __init__(self, state: StoreState) -> None:
        super().__init__(state.kept)
        self._state = state

    async def call(self, do: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call a method of the store in its turn."""
        return await super().call(self._ask, do, *args, **kwargs)  # type: ignore[arg-type] # the same arguments, one further in

    def _ask(self, do: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        state, name = self._state, getattr(do, "__name__", "")
        if state.full and name not in _READS:
            raise StoreFull("there is no room to write")
        if not state.away:
            return do(*args, **kwargs)
        if state.dice.chance(_DONE):
            do(*args, **kwargs)
        raise StoreAway("the database is away")
