"""An instance that is there and gets nothing done is found out, sent nothing, told of, and replaced; a busy one is left alone.

Read next: `src/sageserve/live/control/liveness.py`.
"""

import asyncio
from dataclasses import dataclass, field

import httpx
import pytest

from sageserve.base.units import SECOND
from sageserve.cli.control import _makes_a_token
from sageserve.live.actuators.base import EngineAddress
from sageserve.live.control.liveness import Liveness, Probed
from sageserve.live.control.opened import Missed
from sageserve.live.wire import Trouble
from tests.live.control.fleet_view_stage import Scene

AFTER = 60 * SECOND


@dataclass
class Ward:
    """Two instances of one model that may hang, a clock set by hand, and what was done about them."""

    scene: Scene = field(default_factory=Scene)
    dumb: set[int] = field(default_factory=set)
    ended: list[tuple[int, str]] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    ours: bool = True
    says: Probed = Probed.NOTHING  # those that are dumb

    def __post_init__(self) -> None:
        self.scene.hello()
        for i in (0, 1):
            self.scene.view.open(i)
        self.liveness = Liveness(self.scene.view, self.probe, self.end, AFTER, lambda: self.scene.now)

    async def probe(self, place: EngineAddress) -> Probed:
        i = int(place.url.rpartition(":")[2]) - 9000
        self.asked.append(i)
        return self.says if i in self.dumb else Probed.MADE

    def end(self, instance: int, why: str) -> bool:
        self.ended.append((instance, why))
        return self.ours

    def pass_time(self, seconds: int, *, made: tuple[float | None, float | None] = (None, None), busy: int = 1) -> None:
        """Time passes, and control scrapes and looks once; `made` are token counts of the two."""
        self.scene.now += seconds * SECOND
        for i, count in enumerate(made):
            self.scene.view.saw(i, kv=0.5, in_flight=busy, made=count)
        asyncio.run(self.liveness.look())

    @property
    def well(self) -> list[tuple[bool, bool]]:
        return [(one.open, one.well) for one in self.scene.table(0).instances]


def test_an_engine_whose_counts_stand_still_is_asked_left_out_and_replaced() -> None:
    ward = Ward(dumb={0})
    for step in range(20):
        ward.pass_time(10, made=(5.0, float(step)))
        if ward.liveness.notes():
            break
    assert ward.asked
    assert set(ward.asked) == {0}, "the other one makes tokens"
    assert ward.well == [(False, False), (True, True)]
    assert "Instance 0 takes requests and has made no token" in ward.liveness.notes()[0]
    ward.pass_time(60, made=(5.0, 100.0))
    assert ward.ended == []
    ward.pass_time(1, made=(5.0, 101.0))
    assert [i for i, _ in ward.ended] == [0]
    assert (ward.liveness.ended, ward.liveness.notes()) == (1, ())


@pytest.mark.parametrize("busy", [0, 3])
def test_an_engine_that_is_idle_or_makes_tokens_or_does_not_count_them_is_not_asked(busy: int) -> None:
    for counts in ([0.0] * 30, list(range(30)), [None] * 30):
        if busy and counts[0] == counts[-1] == 0.0:
            continue
        ward = Ward(dumb={0, 1})
        for count in counts:
            ward.pass_time(30, made=(count, count), busy=busy)
        assert (ward.asked, ward.ended) == ([], [])


def test_an_engine_that_a_gateway_calls_mute_is_left_out_until_it_makes_a_token() -> None:
    ward = Ward(dumb={0})
    ward.scene.view.heard(0, Trouble(0, "nothing comes", mute=True))
    ward.pass_time(1, busy=0)
    assert ward.well == [(False, False), (True, True)]
    for _ in range(5):
        ward.pass_time(10, busy=0)
        assert ward.well == [(False, False), (True, True)], "its metrics are fine, and say nothing"
    ward.dumb.clear()
    ward.pass_time(1, busy=0)
    assert ward.well == [(True, True), (True, True)]
    assert ward.ended == []
    assert ward.liveness.notes() == ()


def test_an_engine_that_answers_nobody_is_replaced_without_being_asked() -> None:
    ward = Ward()
    ward.scene.view.missed(1, Missed.SILENT)
    asyncio.run(ward.liveness.look())
    assert ward.well == [(True, True), (False, False)]
    assert ward.liveness.notes()[0].startswith("Nothing answers at instance 1")
    ward.scene.now += AFTER + 1
    asyncio.run(ward.liveness.look())
    assert [i for i, _ in ward.ended] == [1]
    assert ward.asked == []


def test_of_several_that_hang_one_is_ended_at_a_time_and_what_is_not_ours_is_told_of_for_ever() -> None:
    for ours in (True, False):
        ward = Ward(dumb={0, 1}, ours=ours)
        for i in (0, 1):
            ward.scene.view.heard(0, Trouble(i, "nothing comes", mute=True))
        ward.pass_time(1, busy=0)
        assert ward.well == [(True, False), (True, False)], "the last ones of a model are left open"
        ward.pass_time(61, busy=0)
        assert len({i for i, _ in ward.ended}) == (1 if ours else 2)
        assert len(ward.liveness.notes()) == (1 if ours else 2)
        assert ward.liveness.ended == ours


def test_an_engine_that_makes_tokens_is_none_that_hangs_though_one_more_takes_it_long() -> None:
    ward = Ward(dumb={0})
    for step in range(1, 20):
        ward.scene.view.heard(0, Trouble(0, "nothing comes", mute=True))
        ward.pass_time(10, made=(float(step), float(step)), busy=200)
        if step == 1:
            assert ward.well[0] == (False, False), "nothing is known of its counts yet"
        else:
            assert ward.well[0] == (True, True)
    assert (ward.asked, ward.ended, ward.liveness.notes()) == ([0], [], ())


def test_an_engine_that_hangs_is_not_well_because_its_requests_were_taken_elsewhere() -> None:
    ward = Ward(dumb={0})
    for step in range(20):
        ward.pass_time(10, made=(5.0, float(step)))
        if ward.liveness.notes():
            break
    for step in range(6):
        ward.pass_time(10, made=(5.0, 100.0 + step), busy=0)
        assert ward.well[0] == (False, False)
    assert ward.ended == []
    ward.pass_time(1, made=(5.0, 200.0), busy=0)
    assert [i for i, _ in ward.ended] == [0]


def test_an_engine_that_refuses_to_be_asked_is_never_ended_and_tried_again() -> None:
    ward = Ward(dumb={0}, says=Probed.REFUSED)
    ward.scene.view.heard(0, Trouble(0, "nothing comes", mute=True))
    for _ in range(7):
        ward.pass_time(10, busy=0)
        assert ward.well[0] == (False, False)
    ward.pass_time(1, busy=0)
    assert (ward.well[0], ward.ended, ward.liveness.notes()) == ((True, True), [], ())


@pytest.mark.parametrize(
    ("status", "found"),
    [
        (200, Probed.MADE),
        (401, Probed.REFUSED),
        (404, Probed.REFUSED),
        (429, Probed.REFUSED),
        (500, Probed.NOTHING),
        (503, Probed.NOTHING),
        (None, Probed.NOTHING),
    ],
)
def test_what_an_engine_answers_to_the_question_for_a_token_says_how_it_is(status: int | None, found: Probed) -> None:
    def engine(request: httpx.Request) -> httpx.Response:
        if status is None:
            raise httpx.ReadTimeout("nothing came", request=request)
        return httpx.Response(status, json={})

    async def ask() -> Probed:
        async with httpx.AsyncClient(transport=httpx.MockTransport(engine)) as client:
            return await _makes_a_token(client, EngineAddress("http://engine:1", "", "big"))

    assert asyncio.run(ask()) is found
