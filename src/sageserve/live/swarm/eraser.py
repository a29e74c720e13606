"""An operator of a story who erases what is kept of a tenant, as `sageserve batch erase` does: until nothing is left.

The tenant hands nothing in any more. Control may be killed meanwhile, and the database be away; in the end nothing of the tenant
is kept, and all of others. Read next: `live/batches/erasure.py`, `clients.py`.
"""

from typing import Final

from sageserve.base.units import SECOND, Micros
from sageserve.live.batches.api_context import ApiContext
from sageserve.live.batches.erasure import erase
from sageserve.live.store.models import ListRange, StoreError
from sageserve.live.swarm.dice import Dice
from sageserve.live.swarm.world import SwarmWorld

SHARE: Final = 0.3  # of the stories that have one
_AGAIN: Final[Micros] = 2 * SECOND
_ALL: Final = ListRange(None, 1000)


class Eraser:
    """Erases one tenant, if the seed says so.

    Args:
        world: of the story.
        dice: for whether, when and whom.
        owners: of batches.
    """

    def __init__(self, world: SwarmWorld, dice: Dice, owners: tuple[str, ...]) -> None:
        self.tenant = ""  # whose everything goes, from when it was asked for
        self._world = world
        self._done = False
        if dice.chance(SHARE):
            world.loop.tell(None, dice.between(5, 60) * SECOND, self._begin, dice.pick(owners))

    def _begin(self, tenant: str) -> None:
        self.tenant = tenant
        self._world.note(f"what is kept of {tenant} is erased")
        self._ask()

    def _ask(self) -> None:
        """Ask control, if there is one; whatever comes of it is looked at in a while."""
        world = self._world
        if self._done:
            return
        if world.process is not None and world.api is not None:
            world.loop.tell(world.process, 0, self._work, world.api)
        world.loop.tell(None, _AGAIN, self._ask)

    def _work(self, api: ApiContext) -> None:
        self._task = self._world.loop.create_task(self._erase(api))

    async def _erase(self, api: ApiContext) -> None:
        try:
            told = await erase(api, self.tenant)
        except StoreError:
            return  # it is asked again
        self._done = self._done or not told.left

    def check(self) -> None:
        """What must hold once everything is over."""
        kept, laws = self._world.store.kept, self._world.laws
        if not self.tenant:
            return
        files, batches = kept.files(self.tenant, _ALL, None), kept.batches(self.tenant, _ALL)
        if not self._done:
            laws.breaks("erased-is-gone", f"what is kept of {self.tenant} still ends: {len(batches)} batches")
        elif files or batches:
            laws.breaks("erased-is-gone", f"{len(files)} files and {len(batches)} batches of {self.tenant} are still there")
