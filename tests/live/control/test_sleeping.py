"""What control makes of who waits at which gateway, and what it says of endpoints that sleep.

Read next: `src/sageserve/live/control/sleeping.py`, `live_door.py` beside it.
"""

from pathlib import Path

from sageserve.base.units import MINUTE, SECOND
from sageserve.core.actions import Action, Blocked, Decision, Reason, Source, Start
from sageserve.core.events import DoorSeen, Event, InstanceReady, Observed, StartFailed
from sageserve.core.work import Entry
from sageserve.live.control.sleeping import Sleep, Sleeping, begun_before
from sageserve.live.wire import EndpointCount, InstanceCount, Report, WaitingCount
from tests.core.small import fleet_of
from tests.live.control.fleet_view_stage import Scene

ZERO = {"start": 0, "minimum": 0, "maximum": 2}
CELL = 1  # east, big, the second tier


def waiting(
    scene: Scene,
    gateway: int,
    *held: WaitingCount,
    endpoints: tuple[EndpointCount, ...] = (),
    instances: tuple[InstanceCount, ...] = (),
) -> None:
    means = (200.0,) * (len(scene.layout.names.models) * len(scene.layout.names.tiers))
    scene.view.heard(gateway, Report(0, endpoints, instances, (), (), means, 0, (), held))


def test_who_waits_is_summed_over_gateways_and_told_at_once_when_the_first_comes() -> None:
    scene, asked = Scene(fleet=ZERO), list[int]()
    scene.view._told.asked = lambda: asked.append(scene.now)
    for number, nonce in ((0, "one"), (1, "two")):
        scene.hello(number, nonce)
    assert not list(scene.view.doors(looked=False)), "nobody waits"
    waiting(scene, 0, WaitingCount(CELL, 2))
    waiting(scene, 1, WaitingCount(CELL, 3), WaitingCount(7, 1))
    assert len(asked) == 2
    (seen,) = scene.view.doors(looked=False)
    assert (seen.held[CELL], seen.held[7], sum(seen.held)) == (5, 1, 6)
    assert not list(scene.view.doors(looked=False)), "it was told"
    waiting(scene, 0, WaitingCount(CELL, 4))
    assert not list(scene.view.doors(looked=False)), "more of them are no news"
    scene.view.left(1)
    (seen,) = scene.view.doors(looked=True)
    assert (seen.held[CELL], sum(seen.held)) == (4, 4), "whose gateway is gone wait no more"
    waiting(scene, 0)
    waiting(scene, 0, WaitingCount(CELL, 1))
    assert list(scene.view.doors(looked=False)), "the first one again"


def test_work_is_what_was_placed_since_or_is_there() -> None:
    scene = Scene(fleet=ZERO)
    scene.hello()
    scene.view.open(0)
    waiting(scene, 0)
    (seen,) = scene.view.doors(looked=True)
    assert not any(seen.worked)
    waiting(scene, 0, endpoints=(EndpointCount(0, 1.0, 0.0, 3, 0),), instances=(InstanceCount(0, 1, 9, 0),))
    assert [one.worked[0] for one in scene.view.doors(looked=True)] == [True]
    waiting(scene, 0, endpoints=(EndpointCount(0, 1.0, 0.0, 3, 0),), instances=(InstanceCount(0, 1, 9, 0),))
    assert [one.worked[0] for one in scene.view.doors(looked=True)] == [True], "a long answer is work"
    waiting(scene, 0, endpoints=(EndpointCount(0, 1.0, 0.0, 3, 1),))
    assert [one.worked[0] for one in scene.view.doors(looked=True)] == [False]


def test_a_fleet_in_which_none_sleeps_hears_of_no_door() -> None:
    scene = Scene()
    scene.hello()
    waiting(scene, 0, WaitingCount(CELL, 2))
    assert not list(scene.view.doors(looked=True))
    assert scene.table(0).asleep == ()


class Night:
    """What is said of sleeping endpoints, told line by line."""

    def __init__(self) -> None:
        self.scene = Scene(fleet=ZERO)
        self.fleet = fleet_of(self.scene.layout)
        self.sleeping = Sleeping(self.scene.layout, self.fleet, self.scene.view.held, lambda: self.scene.now)

    def hear(self, event: Event, *actions: Action, blocked: Blocked | None = None) -> bool:
        decision = Decision(0, 1, Reason.WOKEN, 0.0, 0, 0, 0, done=0 if blocked else 1, blocked=blocked or Blocked.NOT)
        return self.sleeping.hear(Entry(self.scene.now, event, (decision,) if actions or blocked else (), actions))

    def begin(self) -> None:
        gpus = self.fleet.room(0)
        self.fleet.start(0, self.scene.now, gpus)
        assert self.hear(DoorSeen((), ()), Start(0, Source.VM, gpus))


def test_states_and_reasons_are_those_of_the_fleet_and_the_journal() -> None:
    night = Night()
    assert [night.sleeping.state(e) for e in range(4)] == [Sleep.ASLEEP] * 4
    waiting_for = WaitingCount(CELL, 2)
    night.scene.hello()
    waiting(night.scene, 0, waiting_for)
    assert night.hear(DoorSeen((), ()), blocked=Blocked.NO_STOCK)
    assert not night.hear(DoorSeen((), ()), blocked=Blocked.NO_STOCK), "no news"
    assert night.sleeping.notes() == ("2 requests wait for east/big, which has no instance: no GPUs that it may use are free.",)
    assert night.sleeping.held(0) == 2
    night.begin()
    assert night.sleeping.state(0) is Sleep.WAKING
    assert night.sleeping.rows()[0].coming
    night.fleet.fail(0, 0)
    assert night.hear(StartFailed(0, "exited with code 1: /secret/path is not there"))
    (row, *_) = night.sleeping.rows()
    assert (row.coming, row.failures, row.lasting) == (False, 1, False)
    assert row.why == "its start failed; `sageserve status` says why", "clients are not told what an engine said"
    assert "/secret/path" in night.sleeping.notes()[0]
    night.scene.now = MINUTE
    night.begin()
    assert night.sleeping.rows()[0].why == "one is being started", "what is over is not the reason any more"
    night.scene.now = MINUTE + 40 * SECOND
    night.fleet.ready(0, night.scene.now)
    assert not night.hear(InstanceReady(0)), "gateways were told when it opened"
    assert night.sleeping.state(0) is Sleep.AWAKE
    assert [row.endpoint for row in night.sleeping.rows()] == [1, 2, 3]
    night.fleet.drain(0, night.scene.now)
    night.fleet.release(0, night.scene.now)
    (row, *_) = night.sleeping.rows()
    assert (row.left, row.why) == (39 * SECOND, ""), "as long as the last start took after its pause"
    assert not night.sleeping.hear(Entry(0, Observed(0, (), ()), (), ()))


def test_starts_that_go_on_failing_are_said_to() -> None:
    night = Night()
    for _ in range(3):
        night.begin()
        night.fleet.fail(0, 0)
        night.hear(StartFailed(0, "exited"))
    assert (night.sleeping.rows()[0].lasting, night.sleeping.rows()[0].failures) == (True, 3)


def test_who_comes_again_does_so_after_the_pause_before_the_next_start() -> None:
    night, told = Night(), list[int]()
    for _ in range(4):
        night.begin()
        night.fleet.fail(0, 0)
        night.hear(StartFailed(0, "exited"))
        told.append(night.sleeping.rows()[0].left)
    assert told == [SECOND, 2 * SECOND, 4 * SECOND, 8 * SECOND]
    night.begin()
    night.scene.now += 3 * SECOND
    assert night.sleeping.rows()[0].left == 5 * SECOND, "the rest of the pause; what a start takes is not known"
    night.scene.now += 45 * SECOND
    night.fleet.ready(0, night.scene.now)
    night.hear(InstanceReady(0))
    night.fleet.drain(0, night.scene.now)
    night.fleet.release(0, night.scene.now)
    assert night.sleeping.rows()[0].left == 40 * SECOND, "a start is as long as it took without the pause"


def test_who_slept_when_control_died_sleeps_on_and_a_new_fleet_begins_anew(tmp_path: Path) -> None:
    assert not begun_before(tmp_path, "the secret of a fleet")
    assert begun_before(tmp_path, "the secret of a fleet")
    assert not begun_before(tmp_path, "of the next one")
    assert not begun_before(tmp_path / "is not there", "of a fleet"), "a full disk stops nothing"
    night = Night()
    assert night.sleeping.left_asleep((2, 2, 2, 2)) == (0, 0, 0, 0)
    kept = Scene()
    assert Sleeping(kept.layout, fleet_of(kept.layout), kept.view.held, lambda: 0).left_asleep((2, 2, 2, 2)) == (2, 2, 2, 2)
