"""Where engines run in stories: what a new control process adopts is told of as real actuators tell it.

Read next: `src/sageserve/live/swarm/cloud.py`; `tests/live/actuators/`, where real engines die while they start.
"""

import pytest

from sageserve.base.units import MINUTE, SECOND
from sageserve.core.actions import Donate, Reclaim, Release, Source, Start
from sageserve.core.events import InstanceReady, StartFailed
from sageserve.live.actuators.base import Heard
from sageserve.live.swarm.cloud import CloudActuator, SwarmCloud
from sageserve.live.swarm.engines import Attempt, SwarmEngine
from sageserve.live.swarm.ground import StoryGround
from sageserve.live.swarm.laws import Laws
from sageserve.live.swarm.virtual_time import VirtualProcess
from tests.core.small import layout_of, scenario

GPUS = tuple(range(8))


class Rig:
    """A cloud with instance 0, and control processes one after another."""

    def __init__(self) -> None:
        self.ground = StoryGround(0, scenario(), layout_of(scenario()))
        self.laws = Laws(self.ground)
        self.cloud = SwarmCloud(self.ground, self.laws, lambda _: True)
        self.heard: list[Heard] = []
        self.adopts()
        self.cloud.perform(0, Start(0, Source.VM, GPUS))
        self.runs(30)
        assert self.heard == [InstanceReady(0)]
        self.heard.clear()

    def adopts(self) -> list[bool]:
        """Another control process comes; which of the instances serve."""
        process = VirtualProcess("control")
        return [one.serves for one in self.cloud.adopt(CloudActuator(self.cloud, self.heard.append, process))]

    def runs(self, seconds: int) -> None:
        self.ground.loop.run_until(self.ground.loop.now + seconds * SECOND)

    @property
    def engine(self) -> SwarmEngine:
        return self.cloud.engines[0]

    def sends(self) -> Attempt:
        one = Attempt(VirtualProcess("gateway"), 1000, 1000, "", lambda: None, lambda _: None, lambda _: None)
        self.cloud.send(0, one)
        return one


@pytest.mark.parametrize("crashes", [True, False])
def test_an_adopted_engine_that_answers_nothing_starts_until_it_serves_or_comes_to_nothing(crashes: bool) -> None:
    rig = Rig()
    rig.engine.frozen = True
    assert rig.adopts() == [False]
    assert not rig.cloud.end(0, "it hangs")  # nobody ends what is still waited for
    if crashes:
        rig.cloud.crash(0)
    else:
        rig.engine.wake()
    rig.runs(MINUTE // SECOND + 1)
    assert rig.heard == [StartFailed(0, "killed") if crashes else InstanceReady(0)]
    assert rig.cloud.end(0, "it hangs") is not crashes


def test_what_an_earlier_control_process_reclaimed_is_adopted_as_it_serves() -> None:
    rig = Rig()
    rig.cloud.perform(0, Donate(0))
    rig.cloud.failing = 1.0
    rig.cloud.perform(0, Reclaim(0))
    assert rig.adopts() == [True]
    rig.runs(30)
    assert rig.heard == []
    assert rig.cloud.end(0, "it hangs")


def test_requests_count_until_an_engine_is_given_away() -> None:
    rig = Rig()
    rig.cloud.perform(0, Donate(0))
    rig.runs(1)
    rig.sends()  # of a gateway that goes by an old table
    rig.cloud.perform(0, Release(0))
    assert not rig.laws.broken
    back = Rig()
    back.cloud.perform(0, Donate(0))
    back.cloud.perform(0, Reclaim(0))
    back.runs(30)
    back.sends()
    back.cloud.perform(0, Release(0))
    assert set(back.laws.broken) == {"drained-in-peace"}
