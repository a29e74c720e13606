"""What everything in a story stands on: its time, its numbers left to chance, its fleet's settings, and what is told of it.

Read next: `world.py`, which adds everything else.
"""

from sageserve.base.config import LiveSettings, Scenario
from sageserve.base.units import SECOND
from sageserve.core.layout import Layout
from sageserve.live.swarm.dice import Dice
from sageserve.live.swarm.virtual_time import VirtualLoop


class StoryGround:
    """The ground of one story.

    Args:
        seed: of the story.
        scenario: of its fleet.
        layout: likewise.
    """

    def __init__(self, seed: int, scenario: Scenario, layout: Layout) -> None:
        self.dice = Dice(seed, "world")
        self.scenario = scenario.model_copy(update={"seed": seed})
        self.layout = layout
        self.safety = (scenario.live or LiveSettings()).safety
        self.pool_of = {row: pool for pool in layout.pools for row in range(pool.begin, pool.end)}
        self.loop = VirtualLoop()  # type: ignore[abstract] # what needs sockets, threads or signals is not there
        self.told: list[str] = []

    def note(self, what: str) -> None:
        """Something that a story tells."""
        self.told.append(f"{self.loop.now / SECOND:8.2f} s  {what}")
