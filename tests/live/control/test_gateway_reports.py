"""Reports taken in by what they change add up to what adding all of them up says, and cost no more with many gateways.

Read next: `src/sageserve/live/control/gateway_reports.py`; `test_fleet_view.py` for what is done with them.
"""

from collections import Counter
from collections.abc import Callable, ItemsView, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sageserve.base.units import MINUTE, SECOND
from sageserve.core.pace import ANSWER_WIDTH, LENGTHS
from sageserve.live.control.fleet_view import FleetView
from sageserve.live.control.opened import Missed, Opened
from sageserve.live.wire import AnswerCount, CellCount, EndpointCount, InstanceCount, Report
from tests.core.small import TIERS
from tests.live.control.fleet_view_stage import Scene
from tests.live.control.fleet_view_stage import cell as cell_row

ROWS = st.integers(0, 7)
COUNTS = st.lists(st.tuples(ROWS, st.integers(0, 5), st.integers(0, 9)), max_size=4, unique_by=lambda one: one[0])
BACKLOGS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=3, unique_by=lambda one: one[0])
STEPS = st.lists(
    st.tuples(st.sampled_from(["report", "report", "left", "open", "forget", "close"]), ROWS, COUNTS, BACKLOGS), max_size=30
)


@given(STEPS)
@example([("open", 0, [], []), ("report", 0, [(0, 2, 3)], []), ("forget", 0, [], []), ("report", 0, [(0, 1, 1)], [])])
@example([("open", 0, [], []), ("report", 0, [(0, 2, 3)], []), ("close", 0, [], []), ("report", 0, [(0, 0, 3)], [])])
@example([("open", 0, [], []), ("report", 0, [(0, 2, 3)], [(1, 4)]), ("report", 1, [(0, 1, 1)], [(1, 5)]), ("left", 0, [], [])])
def test_what_is_kept_is_what_the_latest_reports_add_up_to(
    steps: list[tuple[str, int, list[tuple[int, int, int]], list[tuple[int, int]]]],
) -> None:
    scene, latest = Scene(), dict[int, Report]()
    view = scene.view
    for number, (what, at, counts, backlogs) in enumerate(steps):
        before = set(view.opened)
        if what == "report":
            gateway = at % 4
            if gateway not in view.gateways:
                scene.hello(gateway, nonce=str(number))
            instances = tuple(InstanceCount(row, sent, 100 * work, 0) for row, sent, work in counts)
            endpoints = tuple(EndpointCount(e, 0.0, 7.0 * work, 0, 0) for e, work in backlogs)
            scene.report(gateway, instances=instances, endpoints=endpoints)
            latest[gateway] = Report(0, endpoints, instances, (), (), (), 0)
        elif what == "left" and at in latest:
            view.left(at)
            del latest[at]
        elif what == "open" and at not in view.opened:
            view.open(at)
        elif what == "forget":
            view.forget(at)
        elif what == "close" and at in view.opened and view.opened[at].open:
            view.close(at)
        latest = {g: _without(report, before - set(view.opened)) for g, report in latest.items()}
        _compare(scene, latest)


def _without(report: Report, rows: set[int]) -> Report:
    """What is left of it when instances are forgotten: nothing of theirs until the next report."""
    return Report(0, report.endpoints, tuple(one for one in report.instances if one.row not in rows), (), (), (), 0)


def _compare(scene: Scene, latest: dict[int, Report]) -> None:
    slots, view = np.arange(8), scene.view
    in_flight, outstanding = np.zeros(8), {g: np.zeros(8) for g in latest}
    backlog = np.zeros(scene.layout.endpoints)
    for g, report in latest.items():
        for one in report.instances:
            in_flight[one.row] += one.in_flight
            outstanding[g][one.row] += one.outstanding
        for row in report.endpoints:
            backlog[row.endpoint] += row.backlog
    assert np.array_equal(view.in_flight[slots], in_flight)
    assert np.array_equal(view.endpoints["backlog"], backlog)
    for g in latest:
        elsewhere = sum(outstanding.values()) - outstanding[g]
        assert [one.elsewhere for one in view.table(g).instances] == [elsewhere[i] for i in sorted(view.opened)]


# What a process counts: at which cell, and what is added to its eight columns.
MORE = st.lists(st.integers(0, 9), min_size=8, max_size=8)
GROWTH = st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abc"), MORE), max_size=25)


def cell_count(at: int, row: list[int]) -> CellCount:
    prompts, outputs, requests, work, *rest = row
    return CellCount(at, prompts, outputs, requests, float(work), *rest)


@given(GROWTH, st.lists(st.integers(0, 24), max_size=5))
@example([(0, "a", [1, 2, 3, 4, 5, 6, 7, 8]), (0, "a", [9] * 8), (0, "b", [1] * 8), (0, "b", [2] * 8), (1, "a", [3] * 8)], [3])
def test_counts_of_processes_add_up_from_their_first_report_on(steps: list[tuple[int, str, list[int]]], anew: list[int]) -> None:
    """Whoever reports how often and over which link; what was counted before its first report is not this fleet's."""
    scene, numbers = Scene(), dict[str, int]()
    counted: dict[str, dict[int, np.ndarray]] = {}
    first: dict[str, dict[int, np.ndarray]] = {}
    for step, (cell, process, more) in enumerate(steps):
        mine = counted.setdefault(process, {})
        mine[cell] = mine.get(cell, np.zeros(8, np.int64)) + more
        if process not in numbers or step in anew:
            if process in numbers:
                scene.view.left(numbers[process])
            numbers[process] = step
            scene.hello(step, nonce=process)
        cells = tuple(cell_count(at, row.tolist()) for at, row in mine.items())
        ends = tuple(EndpointCount(at, float(row[0]), 0.0, int(row[1]), int(row[2])) for at, row in mine.items())
        scene.report(numbers[process], cells=cells, endpoints=ends)
        first.setdefault(process, {at: row.copy() for at, row in mine.items()})
    whole = np.zeros((4, 8))
    for process, mine in counted.items():
        for at, row in mine.items():
            whole[at] += row - first[process].get(at, 0)
    totals = scene.view.totals
    columns: tuple[np.ndarray, ...] = (totals.prompt, totals.output, totals.requests, totals.work)
    columns = (*columns, totals.finished, totals.refused, totals.on_time, totals.could)
    for at in range(4):
        assert [column[at] for column in columns] == whole[at].tolist()
        ends_of = scene.view.endpoints[at]
        assert [ends_of["offered"], ends_of["placed"], scene.view.freed[at]] == whole[at][:3].tolist()


def test_answers_are_counted_where_a_pace_is_promised_as_far_as_reports_differ() -> None:
    scene = Scene(tiers=TIERS | {"iw-f": {"ttft": "1s", "itl": "50ms"}})
    scene.hello()
    for many in (1.0, 4.0):
        scene.report(answers=(AnswerCount(1, (many, *(2 * many for _ in range(LENGTHS)))),))
    totals = scene.view.totals
    assert totals.answers.shape == (6, ANSWER_WIDTH)  # models x tiers
    assert totals.answers[1].tolist() == [3.0, *([6.0] * LENGTHS)]
    assert totals.answers.sum() == totals.answers[1].sum()
    assert scene.view.counters()[7].tolist() == totals.answers.tolist()
    assert len(Scene().view.counters()[7]) == 0, "nothing is promised"


def test_the_mean_length_of_answers_is_that_of_the_gateways_that_are_there() -> None:
    scene = Scene()
    cells = len(scene.view.output_mean)
    for g, mean in ((0, 100.0), (1, 300.0)):
        scene.hello(g, nonce=str(g))
        scene.view.heard(g, Report(0, (), (), (), (), (mean,) * cells, 0))
    assert scene.view.output_mean.tolist() == [200.0] * cells
    scene.view.left(0)
    scene.view.heard(1, Report(0, (), (), (), (), (320.0,) * cells, 0))
    assert scene.view.output_mean.tolist() == [320.0] * cells


class Counted(tuple[InstanceCount, ...]):
    """What a report says of instances; `READ` counts how often it was gone through."""

    __slots__ = ()

    def __iter__(self) -> Iterator[InstanceCount]:
        READ["reports"] += 1
        return super().__iter__()


class CountedRows(dict[int, Opened]):
    """Opened instances; `READ` counts how often all of them were gone through."""

    def __iter__(self) -> Iterator[int]:
        READ["rows"] += 1
        return super().__iter__()

    def items(self) -> ItemsView[int, Opened]:  # type: ignore[override] # dict_items cannot be named
        READ["rows"] += 1
        return super().items()


READ: Counter[str] = Counter()


def test_what_comes_over_an_old_link_of_a_gateway_counts_nothing() -> None:
    """It connects anew before all that it had sent is read: older counts after newer ones."""
    scene = Scene()
    scene.hello(0, nonce="1")
    scene.view.open(3)
    scene.report(0)
    scene.report(0, cells=(cell_row(0, requests=5),), instances=(InstanceCount(3, 2, 900, 0),))
    scene.hello(1, nonce="1")
    scene.report(1, cells=(cell_row(0, requests=6), cell_row(1, requests=4)), instances=(InstanceCount(3, 1, 400, 0),))
    scene.report(0, cells=(cell_row(0, requests=5),), instances=(InstanceCount(3, 2, 900, 0),))
    scene.view.left(0)
    scene.report(1, cells=(cell_row(0, requests=6), cell_row(1, requests=4)), instances=(InstanceCount(3, 1, 400, 0),))
    assert scene.view.totals.requests[:2].tolist() == [6, 4]
    assert scene.view.in_flight[3] == 1


@pytest.mark.parametrize("gateways", [1, 16])
def test_a_report_is_gone_through_once_however_many_gateways_there_are(gateways: int) -> None:
    scene = Scene()
    scene.view.open(0)
    for g in range(gateways):
        scene.hello(g, nonce=str(g))
    READ.clear()
    for g in range(gateways):
        scene.report(g, instances=Counted([InstanceCount(0, 1, 100, 0)]))
    scene.view.refresh()
    scene.view.publish()
    assert READ["reports"] == gateways


def test_who_takes_work_is_found_once_however_often_it_is_asked() -> None:
    scene = Scene()
    view: FleetView = scene.view
    for i in range(scene.layout.instances):
        if scene.layout.slot_profile[i] >= 0:
            view.open(i)
    view.opened = CountedRows(view.opened)
    changes: list[Callable[[], None]] = [lambda: view.missed(0, Missed.SILENT), lambda: view.close(1), lambda: view.forget(2)]
    for change in changes:
        change()
        view.takes(0)
        READ.clear()
        for _ in range(100):
            assert all(view.takes(e) for e in range(scene.layout.endpoints))
            view.cut_off()
        assert READ["rows"] == 0


def test_a_report_does_not_look_at_instances_that_serve() -> None:
    scene = Scene()
    scene.hello()
    for i in range(4):
        scene.view.open(i)
    scene.view.opened = CountedRows(scene.view.opened)
    READ.clear()
    scene.report(instances=(InstanceCount(0, 1, 100, 0),))
    assert READ["rows"] == 0


def test_queues_are_told_as_engines_of_an_endpoint_count_them() -> None:
    scene = Scene()
    elsewhere = scene.layout.slots
    for i in (0, 1, 2, elsewhere):
        scene.view.open(i)
    scene.view.saw(0, kv=0.5, in_flight=5, waiting=2)
    scene.view.saw(1, kv=0.5, in_flight=4, waiting=4)
    scene.view.saw(2, kv=0.5, in_flight=9, waiting=9)
    scene.view.saw(elsewhere, kv=0.5, in_flight=1)
    scene.view.close(2)  # it drains: no replica any more
    scene.now = SECOND
    scene.view.refresh()
    scene.view.refresh()  # nothing is added up from scrape to scrape
    found = scene.view.engines()
    assert (found.scraped, found.running[:2], found.waiting[:2]) == (SECOND, (3, 1), (6, 0))


def test_why_an_instance_is_not_seen_is_kept_until_it_is() -> None:
    scene = Scene()
    scene.view.open(0)
    scene.view.missed(0, Missed.BLIND, "no metrics")
    assert scene.view.why_not_seen() == [], "once is chance"
    scene.now += MINUTE
    scene.view.missed(0, Missed.BLIND, "it serves another model")
    assert scene.view.why_not_seen() == [(0, "it serves another model")]
    scene.view.saw(0, kv=0.0, in_flight=0)
    assert scene.view.why_not_seen() == []


# --- who had requests and is gone ---

BUSY = (InstanceCount(0, 30, 900, 0),)
OWN, ENVOY = 0, 1


def with_envoy(told: dict[str, Any]) -> Scene:
    """An idle gateway of ours, and who speaks for an Envoy; both have reported."""
    scene = Scene()
    scene.view.open(0)
    scene.view.saw(0, kv=0.04, in_flight=30)
    scene.hello(OWN, nonce="own")
    scene.hello(ENVOY, nonce="envoy", worker=9, stays=True)
    scene.report(OWN)
    scene.report(ENVOY)
    pass_(scene, 200 * SECOND)
    scene.report(ENVOY, **told)
    return scene


def pass_(scene: Scene, time: int) -> None:
    """Time passes; the engine and our gateway are heard of at its end."""
    scene.now += time
    scene.view.saw(0, kv=0.04, in_flight=30)
    scene.report(OWN)
    if scene.view._reports.gateways.get(ENVOY) is not None and time > 100 * SECOND:
        scene.report(ENVOY)


@pytest.mark.parametrize("told", [{"instances": BUSY}, {"cells": (cell_row(0, requests=5),)}], ids=["under way", "of late"])
@pytest.mark.parametrize("gone", [True, False], ids=["gone", "silent"])
def test_nothing_is_sure_while_who_had_requests_is_away(told: dict[str, Any], gone: bool) -> None:
    scene = with_envoy(told)
    view = scene.view
    pass_(scene, 4 * SECOND)
    assert (view.blind(), view.away()) == ((), ())
    scene.report(ENVOY, **told)  # the second time none came
    if gone:
        view.left(ENVOY)
    pass_(scene, 20 * SECOND)
    everything = tuple(range(scene.layout.endpoints))
    assert view.blind() == view.look().blind == everything
    assert "was last heard of 20 s ago: no instance is taken away until it is back, or for 580 s more" in view.away()[0]
    number = 2 if gone else ENVOY
    if gone:
        scene.hello(number, nonce="begun anew", worker=9, stays=True)
        assert view.blind() == everything, "it sees nothing yet"
    scene.report(number, instances=BUSY)
    assert (view.blind(), view.away(), view.look().blind) == ((), (), everything), "how busy it is has to be learned"
    for _ in range(25):
        pass_(scene, 4 * SECOND)
        scene.report(number, instances=BUSY)
    assert view.look().blind == ()


def test_who_is_away_is_waited_for_so_long_and_not_longer() -> None:
    scene = with_envoy({"instances": BUSY})
    scene.view.left(ENVOY)
    pass_(scene, 599 * SECOND)
    assert scene.view.blind() != ()
    pass_(scene, 2 * SECOND)
    assert (scene.view.blind(), scene.view.away()) == ((), ())


def test_who_had_nothing_or_comes_again_is_not_missed() -> None:
    scene = with_envoy({})
    scene.view.left(ENVOY)
    assert scene.view.blind() == ()
    scene.hello(2, nonce="two")
    scene.report(2, instances=BUSY, cells=(cell_row(0, requests=3),))
    scene.now += SECOND
    scene.report(2, cells=(cell_row(0, requests=4),))
    scene.view.left(2)
    assert scene.view.blind() == (), "a gateway of ours that has answered all says goodbye by that"
    scene.hello(3, nonce="three")
    scene.report(3, instances=BUSY)
    scene.view.left(3)
    assert scene.view.blind() != ()
    scene.hello(4, nonce="three", worker=3)
    scene.report(4, instances=BUSY)
    assert scene.view.blind() == (), "its counts go on where they were"
