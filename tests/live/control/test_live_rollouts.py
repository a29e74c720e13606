"""Rollouts of a fleet that runs, in virtual time: begun when told, judged by what gateways count, outliving a process.

Engines are on paper and a gateway says what it counted; the loop, the controller and the file are real. Read next:
`src/sageserve/live/control/live_rollouts.py`, `tests/core/test_rollout.py` for the laws of rollouts.
"""

from collections import Counter
from pathlib import Path

import pytest

from sageserve.base.config import RolloutSettings, SpotSettings
from sageserve.base.errors import ConfigError
from sageserve.base.units import MINUTE, SECOND, Micros
from sageserve.core.actions import Reclaim, RolloutStep, Source, Start
from sageserve.core.controller import Controller
from sageserve.core.events import DemandSeen
from sageserve.core.fleet import State
from sageserve.core.strategies import kind_of
from sageserve.core.work import AnyEvent, Entry, Work
from sageserve.live.actuators.base import posts_of
from sageserve.live.actuators.fake import FakeActuator, ScriptedOutcome
from sageserve.live.actuators.revisions import EngineRevisions
from sageserve.live.control.fleet_view import FleetView
from sageserve.live.control.live_rollouts import LiveRollouts, RolloutAsk, RolloutSides
from sageserve.live.control.loop import Loop
from sageserve.live.control.opened import Callbacks
from sageserve.live.control.rollout_check import check_rollout
from sageserve.live.control.rollout_file import RolloutFile
from sageserve.live.wire import VERSION, Hello, Report, RevisionCount, ToGateway
from tests.core.small import fleet_of, layout_of, scenario

SETTINGS = scenario(gpus=80, strategy={"name": "fixed", "check": "5s"}, fleet={"start": 3, "minimum": 1, "maximum": 6})
LAYOUT = layout_of(SETTINGS)
ONE = RolloutSettings.model_validate(
    {"model": "big", "canary": 0.5, "judge_after": "30s", "judge_requests": 40, "engine": {"command": ["true", "{port}"]}}
)
STEP = 5 * SECOND
WALL = 1_800_000_000 * SECOND


class Process:
    """One control process, as far as rollouts are concerned; `begun` is the wall clock's time at which it began."""

    def __init__(self, folder: Path, begun: Micros = WALL, *, run: str = "a", before: "Process | None" = None) -> None:
        self.folder, self.begun, self.now = folder, begun, 0
        self.layout = layout_of(SETTINGS)  # with books of its own
        self.lines: list[Entry] = []
        self.rows: list[tuple[int, ToGateway]] = []
        self.failing: set[int] = set()  # revisions
        self.counts: Counter[tuple[int, bool]] = Counter()
        self.engines, self.fleet = EngineRevisions(), fleet_of(self.layout)
        self.actuator = FakeActuator(self.hear, self.outcome)
        told = Callbacks(self.send, self.actuator.place, self.hear, lambda: (0, 0))
        self.view = FleetView(SETTINGS, self.layout, str(begun), lambda: self.now, told)
        kind = kind_of(SETTINGS)
        controller = Controller(self.fleet, kind(SETTINGS, self.layout, None), SpotSettings(donate=False))
        file = RolloutFile(folder, run, "layout", begun, len(SETTINGS.tiers))
        sides = RolloutSides(
            SETTINGS, self.layout, self.engines, self.view.by_revision, lambda: self.now, lambda: begun + self.now
        )
        self.rollouts = told.trials = LiveRollouts(sides, file)
        self.rollouts.attach(controller.rollouts, self.fleet)
        self.loop = Loop(
            controller=controller, view=self.view, actuator=self.actuator, worker=self, memory=self, check=SETTINGS.strategy.check
        )
        if before is not None:
            self.adopt(before)
        self.rollouts.recall()
        self.view.heard(0, Hello(VERSION, 0, "gateway"))
        self.report()
        self.loop.begin(kind.initial(SETTINGS, self.layout))
        self.step()

    def adopt(self, before: "Process") -> None:
        for i, state in enumerate(before.fleet.state):
            if state is not State.OFF:
                self.fleet.start(i, 0, before.fleet.gpus[i], initial=True, revision=before.fleet.revision[i])
                if state is State.STARTING:
                    self.actuator.perform(0, Start(i, Source.GPUS, before.fleet.gpus[i], before.fleet.revision[i]))
                else:
                    self.actuator._up[i] = False
                    self.fleet.ready(i, 0)
                    self.view.adopt(i)

    def outcome(self, now: Micros, action: Start | Reclaim) -> ScriptedOutcome:
        bad = isinstance(action, Start) and action.revision in self.failing
        return ScriptedOutcome(SECOND, "no such program" if bad else "")

    def hear(self, event: AnyEvent) -> None:
        self.loop.hear(event)

    def send(self, gateway: int, message: ToGateway) -> bool:
        self.rows.append((gateway, message))
        return True

    def submit(self, work: Work) -> None:
        raise AssertionError

    def add(self, seen: DemandSeen) -> None:
        pass

    def write(self, entry: Entry) -> None:
        self.lines.append(entry)
        if self.rollouts.noted():
            self.view.publish()

    def report(self) -> None:
        """What the gateway says: of both versions as many as there are instances of them."""
        found = [
            RevisionCount(0, revision, (asked, 0, 0), (self.counts[revision, True], 0, 0))
            for revision, asked in sorted(self.asked().items())
        ]
        means = (200.0,) * (len(self.layout.names.models) * len(self.layout.names.tiers))
        self.view.heard(0, Report(self.view._version, (), (), (), (), means, 0, tuple(found)))

    def asked(self) -> Counter[int]:
        total: Counter[int] = Counter()
        for (revision, _), count in self.counts.items():
            total[revision] += count
        return total

    def step(self, missing: int = -1) -> None:
        """Five seconds; requests at instances of revision `missing` break their promise."""
        for _ in range(5):
            self.now += SECOND
            self.actuator.play(self.now)
            self.loop.step(self.now)
        for i, here in self.view.opened.items():
            self.view.saw(i, kv=0.3, in_flight=0)
            revision = self.rollouts.trial(i)[0]
            if here.open and revision >= 0:
                self.counts[revision, revision == missing] += 4
        self.report()
        self.view.refresh()

    def play(self, step: RolloutStep, missing: int = -1) -> None:
        for _ in range(200):
            if self.rollouts.status() and self.rollouts.status()[0].step is step:
                return
            self.step(missing)
        raise AssertionError(f"{self.rollouts.status()[0]} and not {step}")

    def revisions(self) -> list[int]:
        big = [i for pool in self.layout.pools if pool.model == 0 for i in range(pool.begin, pool.end)]
        return [self.fleet.revision[i] for i in big if self.fleet.state[i] is State.SERVING]


def test_one_that_is_begun_is_tried_judged_and_takes_the_place_of_all(tmp_path: Path) -> None:
    played = Process(tmp_path)
    found = played.rollouts.begin(ONE)
    assert (found.version, found.step, found.model) == (1, RolloutStep.WAITING, "big")
    played.play(RolloutStep.CANARY)
    for _ in range(4):
        played.step()
    table = next(m for _, m in reversed(played.rows) if hasattr(m, "instances"))
    big = [row for row in table.instances if row.endpoint in {pool.endpoint for pool in LAYOUT.pools if pool.model == 0}]
    assert Counter((row.revision, row.trial) for row in big if row.open) == {(0, False): 4, (1, True): 2}
    assert {row.revision for row in table.instances if row not in big} == {-1}, "of another model nothing is counted"
    note = " ".join(played.rollouts.notes())
    assert "big is rolled out: version 1, canary, 2 of 6 instances. Its canaries are judged for" in note
    played.play(RolloutStep.DONE)
    played.step()
    assert played.revisions() == [1] * 6
    (kept,) = played.rollouts.status()[0].kept
    assert (kept.tier, kept.new_asked == kept.new_kept > 0, kept.old_asked > 0) == ("iw-f", True, True)
    assert played.rollouts.trial(0) == (-1, False), "it is over, and nothing is counted any more"
    assert played.rollouts.notes() == ()


def test_one_that_breaks_its_promise_is_taken_back(tmp_path: Path) -> None:
    played = Process(tmp_path)
    played.rollouts.begin(ONE)
    played.play(RolloutStep.UNDONE, missing=1)
    assert played.revisions() == [0] * 6
    assert "broken" in {roll.why.value for _, roll in played.rollouts.status()[0].steps}


def test_one_that_does_not_start_is_given_up_and_the_next_one_may_be_begun(tmp_path: Path) -> None:
    played = Process(tmp_path)
    played.failing.add(1)
    played.rollouts.begin(ONE)
    with pytest.raises(ConfigError, match="a rollout of big is under way: version 1, waiting"):
        played.rollouts.begin(ONE)
    played.play(RolloutStep.UNDONE)
    assert played.revisions() == [0] * 6
    assert played.engines.is_over(1)
    assert played.rollouts.begin(ONE).version == 2
    played.play(RolloutStep.DONE)
    assert played.revisions() == [2] * 6
    assert not played.engines.is_over(2)


def test_what_is_asked_for_is_done_and_what_cannot_be_is_refused(tmp_path: Path) -> None:
    played = Process(tmp_path)
    with pytest.raises(ConfigError, match="no rollout of 'big' was begun"):
        played.rollouts.ask(RolloutAsk("big", "stop"))
    played.rollouts.begin(ONE)
    played.play(RolloutStep.CANARY)
    for _ in range(3):
        played.step()
    played.rollouts.ask(RolloutAsk("big", "stop"))
    played.play(RolloutStep.STOPPED)
    played.step()
    assert Counter(played.revisions()) == {0: 4, 1: 2}
    with pytest.raises(ConfigError, match="there is nothing to stop"):
        played.rollouts.ask(RolloutAsk("big", "stop"))
    with pytest.raises(ConfigError, match="'halt' cannot be asked"):
        played.rollouts.ask(RolloutAsk("big", "halt"))
    played.rollouts.ask(RolloutAsk("big", "back"))
    played.play(RolloutStep.UNDONE)
    played.step()
    assert played.revisions() == [0] * 6


@pytest.mark.parametrize("steps", [1, 2, 4, 9, 13])
def test_the_next_process_goes_on_where_this_one_was_killed(tmp_path: Path, steps: int) -> None:
    first = Process(tmp_path)
    first.rollouts.begin(ONE)
    for _ in range(steps):
        first.step()
    asked = sum(first.asked().values())
    second = Process(tmp_path, WALL + 10 * MINUTE, before=first)
    (found,) = second.rollouts.status()
    assert found.begun_s == (WALL + 10 * SECOND) / SECOND
    assert found.step is first.rollouts.status()[0].step
    second.play(RolloutStep.DONE)
    for _ in range(3):
        second.step()
    assert second.revisions() == [1] * 6
    rolls = [roll for _, roll in second.rollouts.status()[0].steps]
    assert [roll.step for roll in rolls] == [RolloutStep.CANARY, RolloutStep.ROLLING, RolloutStep.DONE]
    assert rolls[1].new_asked + rolls[1].old_asked >= min(asked, 40), "what was counted before is not lost"


def test_another_run_of_the_fleet_begins_with_its_settings_and_says_so(tmp_path: Path) -> None:
    first = Process(tmp_path)
    first.rollouts.begin(ONE)
    first.play(RolloutStep.DONE)
    second = Process(tmp_path, WALL + MINUTE, run="b")
    assert second.revisions() == [0] * 6
    assert second.rollouts.status() == ()
    (note,) = second.rollouts.notes()
    assert note.startswith("big had been rolled out to another version before")


def test_engines_of_a_revision_are_run_as_its_rollout_says() -> None:
    engines, post = EngineRevisions(), posts_of(SETTINGS, LAYOUT)[0]
    engines.add(1, ONE)
    engines.add(2, ONE.model_copy(update={"engine": None, "engine_time": 2.0}))
    engines.add(3, ONE.model_copy(update={"model": "small"}))
    assert engines.post(post, 0) == post
    command = engines.post(post, 1).command
    assert command is not None
    assert command.command == ("true", "{port}")
    assert (engines.post(post, 2).command, engines.post(post, 2).engine_time) == (None, 2.0)
    assert engines.post(post, 3).command is None, "of another model, as after a mistake: the settings' own"


@pytest.mark.parametrize(
    ("changes", "settings", "says"),
    [
        ({"model": "bib"}, {}, "there is no model 'bib'; did you mean 'big'"),
        ({"engine": {"command": ["new"]}}, {}, "does not say {port}"),
        ({"engine": {"command": ["new", "{port}", "{prot}"]}}, {}, "unknown word {prot}"),
        ({"engine": {"command": ["vlm", "serve", "{port}"]}}, {}, "engine: there is no program 'vlm' that can be run here"),
        ({"engine": {"command": ["sh", "{port}"], "environment": {"PATH": "/"}}}, {}, "there is no program 'sh'"),
        ({"engine": None}, {"engines": {"big": {"command": ["old", "{port}"]}}}, "how the new version of big is run is not said"),
        ({}, {"safety": {"act": False}}, "safety.act is off"),
        ({}, {"actuator": "fixed"}, "engines that others run"),
    ],
)
def test_what_cannot_be_rolled_out_is_refused(changes: dict[str, object], settings: dict[str, object], says: str) -> None:
    one = RolloutSettings.model_validate(ONE.model_dump(mode="json", exclude_none=True) | changes)
    with pytest.raises(ConfigError, match=says):
        check_rollout(one, scenario(live=settings))


def test_where_no_first_token_is_promised_nothing_can_be_judged() -> None:
    with pytest.raises(ConfigError, match="no tier promises a first token"):
        check_rollout(ONE, scenario(tiers={"niw": {"deadline": "24h"}}))
