"""The fleet view: what gateways count becomes demand, signals and tables; what is not heard of is blind, never idle.

Read next: `fleet_view_stage.py`, `src/sageserve/live/control/fleet_view.py`.
"""

import itertools

import pytest

from sageserve.base.units import MINUTE, SECOND
from sageserve.core.events import InstanceDrained
from sageserve.live.control.opened import Missed
from sageserve.live.wire import CellCount, EndpointCount, InstanceCount, RoutingTable, Trouble
from tests.live.control.fleet_view_stage import BLIND_AFTER, Scene, cell


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_demand_is_what_reports_add_to_each_other(scene: Scene) -> None:
    scene.hello()
    scene.report(cells=(cell(0, prompt=1000, requests=10),))  # counted before this process listened
    scene.report(cells=(cell(0, prompt=1500, output=70, requests=15, work=2.5), cell(3, prompt=40, requests=1)))
    prompt, output, requests, could, missed, work, *_ = scene.view.counters()
    assert (prompt[0], output[0], requests[0], work[0]) == (500, 70, 5, 2.5)
    assert (prompt[3], requests[3]) == (40, 1)
    assert prompt.sum() == 540
    assert could.sum() == missed.sum() == 0


def test_missed_is_what_came_late_or_was_turned_away(scene: Scene) -> None:
    scene.hello()
    scene.report()
    scene.report(cells=(CellCount(2, 0, 0, 9, 0.0, finished=6, refused=1, on_time=4, could=7),))
    counters = scene.view.counters()
    assert (counters[3][2], counters[4][2]) == (7, 3)


def test_a_link_that_is_made_anew_loses_and_doubles_nothing(scene: Scene) -> None:
    scene.hello(0, nonce="7")
    scene.report(0, cells=(cell(0, requests=1),))
    scene.report(0, cells=(cell(0, requests=5),))
    scene.view.left(0)
    scene.hello(1, nonce="7")
    scene.report(1, cells=(cell(0, requests=9),))
    assert scene.view.counters()[2][0] == 8


def test_a_process_with_the_number_of_a_dead_one_is_another(scene: Scene) -> None:
    """The second gateway has counted less than the first had when it died: nothing is taken back for that."""
    scene.hello(0, nonce="first")
    scene.report(0, cells=(cell(0, prompt=10_000, requests=100),))
    scene.report(0, cells=(cell(0, prompt=20_000, requests=200),))
    scene.view.left(0)
    scene.hello(1, nonce="second")
    scene.report(1, cells=(cell(0, prompt=50, requests=1),))
    scene.report(1, cells=(cell(0, prompt=150, requests=2),))
    prompt, _, requests, *_ = scene.view.counters()
    assert (prompt[0], requests[0]) == (10_100, 101)


def test_a_gateway_knows_of_instances_once_it_says_so(scene: Scene) -> None:
    """What waits for a fleet to serve must not ask a gateway that has yet to hear of the last instance."""
    assert scene.view.knowing() == 0, "without a gateway nobody knows"
    scene.hello()
    scene.report()
    assert scene.view.knowing() == 1
    before = scene.view._version
    scene.view.open(0)
    scene.report(version=before)
    assert scene.view.knowing() == 0
    scene.report(version=before + 1)
    scene.view.refresh()
    assert scene.view.knowing() == 1, "a newer table that tells of no other instance changes nothing"
    scene.hello(1, nonce="two")
    assert scene.view.knowing() == 1


def test_gateways_that_come_and_go_for_ever_are_forgotten(scene: Scene) -> None:
    scene.hello(0, nonce="stays")
    scene.report(0, cells=(cell(0, requests=1),))
    for number in range(1, 500):
        scene.hello(number, nonce=f"gateway {number}")
        scene.report(number, cells=(cell(0, requests=1),))
        scene.view.left(number)
        scene.report(0, cells=(cell(0, requests=1 + number),))
    assert len(scene.view._reports._known) < 100
    assert scene.view.counters()[2][0] == 499
    scene.hello(500, nonce="gateway 499")
    scene.report(500, cells=(cell(0, requests=11),))
    assert scene.view.counters()[2][0] == 509, "the latest may come back"


def test_an_answer_is_as_old_as_its_question(scene: Scene) -> None:
    """A process that stood still finds answers which have waited for it."""
    scene.hello()
    scene.view.open(0)
    scene.view.saw(0, kv=0.1, in_flight=0)
    asked, scene.now = scene.now, scene.now + 10 * MINUTE
    scene.report()
    scene.view.saw(0, kv=0.1, in_flight=0, at=asked)
    assert scene.view.blind() == (0,)
    scene.view.saw(0, kv=0.1, in_flight=0)
    assert scene.view.blind() == ()


def test_signals_follow_what_was_offered_and_how_full_engines_are(scene: Scene) -> None:
    scene.hello()
    scene.view.open(0)
    scene.view.open(1)
    scene.report()
    scene.report(endpoints=(EndpointCount(0, 8.0 * SECOND, 0.0, 4, 4),))
    scene.now = 5 * SECOND
    scene.view.saw(0, kv=0.6, in_flight=3)
    scene.view.saw(1, kv=0.2, in_flight=1)
    scene.view.refresh()
    seen = scene.view.look()
    gain = 1 - 2 ** (-5 / 30)  # a half-life of 30 s
    assert seen.endpoints[0].kv == pytest.approx(0.4)
    assert seen.endpoints[0].busy == pytest.approx(gain * 8 / 5 / 2)
    assert seen.endpoints[0].seen == max(seen.endpoints[0].kv, seen.endpoints[0].busy)
    assert seen.scraped == 5 * SECOND
    assert scene.table(0).endpoints[0].open == 2


def test_silence_of_an_engine_is_blindness_and_idleness_is_not(scene: Scene) -> None:
    scene.hello()
    for i in (0, scene.layout.slots):
        scene.view.open(i)
    scene.now = BLIND_AFTER + 1
    scene.report()
    scene.view.saw(0, kv=0.0, in_flight=0)
    assert scene.view.look().blind == (1,)
    scene.view.saw(scene.layout.slots, kv=0.0, in_flight=0)
    assert scene.view.look().blind == ()


def test_an_engine_that_does_not_tell_its_memory_is_not_empty(scene: Scene) -> None:
    scene.view.open(0)
    places = int(scene.layout.profiles[scene.layout.slot_profile[0]]["max_sequences"])
    scene.view.saw(0, kv=None, in_flight=places // 4)
    scene.now = SECOND
    scene.view.refresh()
    assert scene.view.look().endpoints[0].kv == pytest.approx(places // 4 / places)
    scene.view.saw(0, kv=None, in_flight=3 * places)
    scene.view.refresh()
    assert scene.view.look().endpoints[0].kv == 1.0
    scene.view.saw(0, kv=0.25, in_flight=3 * places)
    scene.view.refresh()
    assert scene.view.look().endpoints[0].kv == 0.25


def test_what_nothing_reaches_gets_no_requests_while_another_one_answers(scene: Scene) -> None:
    models = len(scene.layout.names.models)
    here, there = 0, models * scene.layout.slots  # one model in two regions
    scene.hello()
    scene.view.open(here)
    scene.view.open(there)

    def is_open() -> list[bool]:
        scene.view.publish()
        return [one.open for one in scene.table(0).instances]

    scene.view.missed(here, Missed.BLIND)
    assert is_open() == [True, True], "blind is not dead"
    scene.view.missed(here, Missed.SILENT)
    assert is_open() == [False, True]
    assert not scene.view.takes(0)
    assert scene.view.takes(models)
    scene.view.missed(there, Missed.SILENT)
    assert is_open() == [True, True], "when none answers it may be us"
    scene.view.saw(there, kv=0.0, in_flight=0)
    assert is_open() == [False, True]
    scene.view.saw(here, kv=0.0, in_flight=0)
    assert is_open() == [True, True]


def test_what_was_never_seen_is_not_taken_for_empty(scene: Scene) -> None:
    scene.hello()
    scene.view.open(0)
    assert scene.view.blind() == (), "it only just opened"
    assert scene.view.look().blind == (0,)
    scene.view.saw(0, kv=0.0, in_flight=0)
    assert scene.view.look().blind == ()


def test_a_control_process_that_comes_back_takes_nothing_away_before_it_has_learned(scene: Scene) -> None:
    scene.hello()
    scene.view.adopt(0)
    scene.view.open(scene.layout.slots)
    scene.view.saw(scene.layout.slots, kv=0.1, in_flight=1)
    assert scene.view.blind() == (0,), "nobody has looked at it yet"
    scene.view.saw(0, kv=0.1, in_flight=1)
    assert scene.view.blind() == ()
    assert scene.view.look().blind == (0,), "its rate began at nothing"
    scene.now = 3 * scene.settings.signals.half_life
    scene.report()
    scene.view.saw(0, kv=0.1, in_flight=1)
    scene.view.saw(scene.layout.slots, kv=0.1, in_flight=1)
    assert scene.view.look().blind == ()


def test_without_gateways_everything_is_blind(scene: Scene) -> None:
    everything = tuple(range(scene.layout.endpoints))
    assert scene.view.look().blind == everything
    scene.hello()
    assert scene.view.look().blind == ()
    scene.now = BLIND_AFTER + 1
    assert scene.view.look().blind == everything


def test_an_instance_is_drained_once_every_gateway_knows_and_has_nothing_there(scene: Scene) -> None:
    scene.hello(0, nonce="1")
    scene.hello(1, nonce="2")
    scene.view.open(3)
    scene.report(0, instances=(InstanceCount(3, 2, 900, 0),))
    before = scene.view._version
    scene.report(1, version=before)
    scene.view.close(3)
    assert scene.table(0).instances[0].open is False
    scene.report(0, version=before)
    assert scene.drained == []  # it has nothing there, and may still send something
    scene.report(0)
    assert scene.drained == []  # the other one has not heard yet
    scene.report(1)
    assert scene.drained == [InstanceDrained(3)]
    assert scene.view.opened == {}


def test_what_a_lost_gateway_had_sent_holds_an_instance_up_as_long_as_it_is_there(scene: Scene) -> None:
    """Whoever lost sight of a gateway does not know that it has ended: frozen or cut off, its requests go on."""
    scene.hello(0, nonce="1")
    scene.hello(1, nonce="2")
    scene.view.open(3)
    scene.report(0, instances=(InstanceCount(3, 2, 900, 0),))
    scene.report(1)
    scene.view.close(3)
    scene.report(1)
    assert scene.drained == []
    scene.view.left(0)
    for in_flight in (2, 0):
        scene.now += SECOND
        scene.view.saw(3, kv=0.1, in_flight=in_flight)
        scene.view.refresh()
        assert scene.drained == [InstanceDrained(3)] * (not in_flight)


def test_a_lost_gateway_does_not_hold_up_for_ever_what_does_not_say_how_it_is(scene: Scene) -> None:
    scene.hello(0, nonce="1")
    scene.hello(1, nonce="2")
    scene.view.open(3)
    scene.view.left(0)
    scene.view.close(3)
    scene.report(1)
    assert scene.drained == []
    scene.now += 10 * MINUTE
    scene.report(1)
    assert scene.drained == [InstanceDrained(3)]


@pytest.mark.parametrize("round_", range(20))
def test_without_gateways_the_engine_says_when_it_is_drained(round_: int) -> None:
    """By a clock that goes on between any two lines, as every real one does."""
    scene = Scene()
    clock = itertools.count(round_)
    scene.view._now = lambda: next(clock)
    rows = range(10)
    for i in rows:
        scene.view.open(i)
        scene.view.saw(i, kv=0.1, in_flight=i % 3)
    scene.view.refresh()
    for i in rows:
        scene.view.close(i)
    scene.view.refresh()
    assert scene.drained == [], "what was seen before they were closed says nothing"
    for left in (1, 0):
        for i in rows:
            scene.view.saw(i, kv=0.1, in_flight=(i % 3) * left)
        scene.view.refresh()
        empty = [i for i in rows if not (i % 3) * left]
        assert sorted(one.instance for one in scene.drained) == empty


def test_a_gateway_that_is_not_heard_of_holds_no_instance_up_that_is_empty(scene: Scene) -> None:
    scene.hello(0, nonce="1")
    scene.hello(1, nonce="2")
    scene.view.open(3)
    scene.report(0, instances=(InstanceCount(3, 2, 900, 0),))
    scene.report(1)
    scene.view.close(3)
    scene.now = BLIND_AFTER + 1  # the first one has stopped
    scene.report(1)
    scene.view.saw(3, kv=0.1, in_flight=2)
    scene.view.refresh()
    assert scene.drained == [], "its requests run there still"
    scene.view.saw(3, kv=0.0, in_flight=0)
    scene.view.refresh()
    assert scene.drained == [InstanceDrained(3)]


def test_gateways_hear_of_each_other_s_load_but_not_of_their_own(scene: Scene) -> None:
    scene.hello(0, nonce="1")
    scene.hello(1, nonce="2")
    scene.view.open(0)
    scene.report(0, instances=(InstanceCount(0, 1, 300, 0, 90),))
    scene.report(1, instances=(InstanceCount(0, 2, 700, 0, 500),))
    scene.view.refresh()
    assert [scene.table(g).instances[0].elsewhere for g in (0, 1)] == [700, 300]
    assert [scene.table(g).instances[0].unfinished for g in (0, 1)] == [500, 90]
    assert scene.table(0).gateways == 2
    assert int(scene.view.in_flight[0]) == 3


def test_an_instance_that_a_gateway_cannot_reach_is_left_out_for_a_while(scene: Scene) -> None:
    scene.hello()
    scene.view.open(0)
    scene.view.open(1)
    scene.now = SECOND
    scene.view.heard(0, Trouble(0, "connection refused"))
    scene.view.refresh()
    assert [one.open for one in scene.table(0).instances] == [False, True]
    assert scene.view.unwell() == ()
    scene.view.heard(0, Trouble(1, "connection refused"))
    scene.view.refresh()
    assert [one.open for one in scene.table(0).instances] == [True, True], "the last ones of a model are left open"
    assert scene.view.unwell() == (scene.view.layout.names.models[0],)
    scene.now = 2 * SECOND
    scene.view.saw(0, kv=0.1, in_flight=0)
    scene.view.refresh()
    assert scene.table(0).instances[0].open


def test_versions_only_grow(scene: Scene) -> None:
    scene.hello()
    for i in range(3):
        scene.view.open(i)
    scene.view.close(1)
    scene.view.forget(0)
    scene.view.refresh()
    versions = [message.version for _, message in scene.sent if isinstance(message, RoutingTable)]
    assert versions == sorted(set(versions))
    assert [(row.row, row.open) for row in scene.table(0).instances] == [(1, False), (2, True)]


# --- at the instant ---


def test_an_engine_is_blind_after_its_time_and_not_at_it(scene: Scene) -> None:
    scene.view.open(0)
    scene.view.saw(0, kv=0.5, in_flight=1)
    scene.now = BLIND_AFTER
    scene.hello()
    assert scene.view.blind() == ()
    scene.now += 1
    assert scene.view.blind() == (0,)


@pytest.mark.parametrize(("kind", "column"), [("kv", "kv"), ("busy", "busy")])
def test_the_signal_is_the_one_that_is_asked_for(kind: str, column: str) -> None:
    scene = Scene(signals={"kind": kind})
    scene.hello()
    scene.view.open(0)
    scene.view.saw(0, kv=0.25, in_flight=1)
    scene.report(endpoints=(EndpointCount(0, 0.0, 0.0, 0, 0),))
    scene.report(endpoints=(EndpointCount(0, 9e6, 3e6, 4, 0),))
    scene.now = 10 * SECOND
    scene.view.refresh()
    row = scene.view.endpoints[0]
    assert row["kv"] != row["busy"]
    assert row["seen"] == row[column] > 0


def test_an_instance_is_told_by_where_it_is_and_what_its_model_is_called_there(scene: Scene) -> None:
    scene.hello()
    scene.view.open(1)
    told = scene.table(0).instances[0]
    assert (told.row, told.endpoint, told.url, told.served_model, told.open) == (1, 0, "http://127.0.0.1:9001", "m", True)


def test_marks_of_the_feed_are_set_one_by_one(scene: Scene) -> None:
    before = scene.view.endpoints[["one_below", "two_below"]].tolist()
    scene.view.set_feed(1, one_below=0.25, two_below=0.125)
    after = scene.view.endpoints[["one_below", "two_below"]].tolist()
    assert after == [before[0], (0.25, 0.125), *before[2:]]


def test_requests_at_another_instance_hold_nothing_up(scene: Scene) -> None:
    scene.hello()
    scene.view.open(0)
    scene.view.open(1)
    scene.report(version=scene.table(0).version, instances=(InstanceCount(1, 2, 100, 0),))
    scene.view.close(0)
    scene.view.close(1)
    scene.report(version=scene.table(0).version, instances=(InstanceCount(1, 2, 100, 0),))
    assert [event.instance for event in scene.drained] == [0]
