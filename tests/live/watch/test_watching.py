"""A fleet that others run, watched: who is there, what is asked, what would be done, what is not seen; over outages and restarts.

Read next: `stage.py`; `tests/live/prometheus/test_real_prometheus.py` for the same with a real server.
"""

import shutil
from pathlib import Path

import pytest
import yaml

from sageserve.base.config import Scenario
from sageserve.base.units import MINUTE, SECOND
from sageserve.core.actions import Blocked
from sageserve.core.events import InstanceLost, InstanceReady
from sageserve.core.perf import prefill_work, request_work
from sageserve.data.scenarios.load import resolved_yaml
from sageserve.data.watched.minutes import read_minutes
from sageserve.live.control.admin import CapacityCollector
from sageserve.live.control.state_files import DemandFile
from tests.core.small import ENGINE, PRICE
from tests.live.watch.stage import BEGIN, SCRAPE, Pod, WatchStage, one_pool


def serving(stage: WatchStage) -> int:
    return stage.watch.fleet.serving(0)


def test_engines_that_are_recorded_serve_and_those_that_come_and_go_are_followed(tmp_path: Path) -> None:
    stage = WatchStage(tmp_path, [Pod("a"), Pod("b", last=15 * MINUTE), Pod("c", first=12 * MINUTE)])
    stage.look()
    assert (serving(stage), stage.watch.notes()) == (2, ())
    stage.run(3 * MINUTE)
    assert serving(stage) == 3
    stage.run(4 * MINUTE)  # b ended two minutes ago, and is no target any more
    assert serving(stage) == 2
    events = [one.line.event for one in stage.journal() if not one.line.decisions]
    assert [type(event) for event in events] == [InstanceReady, InstanceReady, InstanceReady, InstanceLost]
    lost = events[-1]
    assert isinstance(lost, InstanceLost)
    assert (lost.instance, lost.why) == (1, "b is recorded no more, and is no target of the server")


def test_of_a_larger_fleet_an_agent_sees_its_own_cluster(tmp_path: Path) -> None:
    gpus = {"gpus": {"h100": {"gpus": 80, "price": PRICE}}}
    whole = one_pool(regions={"east": gpus | {"rtt": {"west": "70ms"}}, "west": gpus})
    stage = WatchStage(tmp_path, [Pod("a", per_s=1.0), Pod("b", per_s=1.0)], whole)
    stage.look()
    stage.run(5 * MINUTE)
    asked = stage.watch.asked("east/big/h100")
    assert (asked.blind, asked.runs, stage.watch.asked("west/big/h100").runs) == (False, 2, 0)
    assert not any("west" in one for one in stage.watch.notes())


def test_an_engine_that_cannot_be_scraped_is_unseen_and_not_gone(tmp_path: Path) -> None:
    stage = WatchStage(tmp_path, [Pod("a"), Pod("b", last=12 * MINUTE)])
    stage.failing = frozenset({"b"})
    stage.look()
    stage.run(6 * MINUTE)
    assert serving(stage) == 2
    assert stage.watch.notes() == ("Not seen: east/big/h100: 1 of 2 instances are seen.",)
    assert stage.watch.view.blind() == (0,)
    stage.failing = None  # the server does not say what its targets are
    stage.run(MINUTE)
    assert serving(stage) == 2


def test_a_pool_of_which_nothing_is_recorded_is_unseen_and_not_empty(tmp_path: Path) -> None:
    stage = WatchStage(tmp_path, [Pod("a", last=12 * MINUTE), Pod("b", last=12 * MINUTE)])
    stage.look()
    stage.run(20 * MINUTE)
    assert serving(stage) == 2
    assert "no series" in stage.watch.notes()[0]
    nothing = WatchStage(tmp_path / "other", [])
    nothing.look()
    nothing.run(10 * MINUTE)
    assert nothing.watch.decided == {("below-minimum", "blind"): nothing.watch.decided["below-minimum", "blind"]}
    assert {minute.pools[0].would for minute in nothing.minutes} <= {0}


def test_what_is_asked_is_counted_and_what_it_would_do_is_written_down_and_not_done(tmp_path: Path) -> None:
    stage = WatchStage(tmp_path, [Pod("a", per_s=50.0, running=9.0), Pod("b", per_s=50.0, running=9.0)])
    stage.look()
    stage.run(10 * MINUTE)
    told = [minute.endpoints[0] for minute in stage.minutes]
    assert len(told) == 9, "the tenth minute is counted once its samples are all there"
    demand = stage.watch.demand
    assert demand.requests[0] == pytest.approx(100 * (10 * MINUTE - 2 * SCRAPE) / 1e6)
    assert demand.prompt[0] == pytest.approx(500 * demand.requests[0])
    assert demand.output[0] == pytest.approx(100 * demand.requests[0])
    each = float(request_work(stage.watch.layout.profiles[0], 500, 0, 100.0))
    assert told[-1].busy == pytest.approx(100 * each / 1e6, rel=0.15), "a hundred requests a second"
    assert told[-1].needed > told[-1].busy
    assert ("utilisation-high", "shadow") in stage.watch.decided
    assert serving(stage) == 2
    assert stage.minutes[-1].pools[0].would == 3
    assert all(not one.line.actions for one in stage.journal())
    assert list(read_minutes(tmp_path)) == stage.minutes


def test_what_engines_say_of_themselves_is_what_decisions_see(tmp_path: Path) -> None:
    stage = WatchStage(tmp_path, [Pod("a", per_s=1.0, running=9.0, waiting=3.0, memory=0.7), Pod("b", memory=0.3)])
    stage.look()
    stage.run(6 * MINUTE)  # lengths of requests are learnt
    status = stage.watch.status()
    assert [(each.kv, each.in_flight) for each in status.instances] == [(0.7, 12), (0.3, 0)]
    (engines,) = zip(stage.watch.view.engines().running, stage.watch.view.engines().waiting, strict=True)
    assert engines == (9, 3)
    prompts = 3 * prefill_work(stage.watch.layout.profiles[0], 500, 0)
    assert stage.watch.view.endpoints["backlog"][0] == pytest.approx(float(prompts), rel=0.1), "what prompts that wait will take"


def test_while_nothing_answers_demand_waits_and_is_counted_afterwards(tmp_path: Path) -> None:
    stage = WatchStage(tmp_path, [Pod("a", per_s=2.0)])
    stage.look()
    stage.run(4 * MINUTE)
    stage.away = True
    stage.run(10 * MINUTE)
    assert len(stage.minutes) == 3
    assert stage.watch.notes()[0] == "Nothing is seen: http://prom cannot be asked: refused."
    assert stage.watch.view.blind() == (0,)
    stage.away = False
    stage.run(2 * MINUTE)
    assert len(stage.minutes) == 15
    assert stage.watch.notes() == ()
    assert stage.watch.demand.requests[0] == pytest.approx(2 * (16 * MINUTE - 2 * SCRAPE) / 1e6)
    busy = [minute.endpoints[0].busy for minute in stage.minutes]
    assert min(busy[4:]) == pytest.approx(max(busy[4:]), rel=0.3), "no minute of the outage was told as nothing"
    assert {bool(minute.endpoints[0].blind) for minute in stage.minutes[7:13]} == {True}


def test_the_demand_of_a_pool_that_is_not_seen_goes_on_as_it_was(tmp_path: Path) -> None:
    stage = WatchStage(tmp_path, [Pod("a", per_s=2.0), Pod("b", per_s=2.0)])
    stage.look()
    stage.run(6 * MINUTE)
    before = stage.watch.demand.requests[0]
    stage.failing = frozenset({"a", "b"})
    for pod in stage.pods:
        pod.last = stage.at
    stage.run(10 * MINUTE)
    assert stage.watch.demand.requests[0] - before == pytest.approx(4 * 600, rel=0.1)


def test_the_next_process_goes_on_where_this_one_was(tmp_path: Path) -> None:
    pods = [Pod("a", per_s=2.0, running=1.0), Pod("b", last=13 * MINUTE), Pod("c", per_s=1.0)]
    first = WatchStage(tmp_path, pods)
    first.look()
    first.run(2 * MINUTE)
    rows = dict(first.watch._instances.rows("east/big/h100"))  # whose row is whose is said nowhere else
    second = WatchStage(tmp_path, [*pods, Pod("d", first=15 * MINUTE)], at=20 * MINUTE)
    second.look()
    now = second.watch._instances.rows("east/big/h100")  # as above
    assert {name: now[name] for name in ("a", "c")} == {name: rows[name] for name in ("a", "c")}
    assert now["d"] not in rows.values()
    lost = [one.line.event for one in second.journal() if isinstance(one.line.event, InstanceLost)]
    assert lost == [InstanceLost(rows["b"], "b ended while nobody watched")]
    assert serving(second) == 3
    kept = DemandFile(tmp_path / "demand.jsonl", second.watch.layout.names).newest()
    assert kept == BEGIN + 11 * MINUTE - 1, "the first process counted a minute, and its clock began at 1"


def test_more_engines_than_the_settings_have_room_for_are_said(tmp_path: Path) -> None:
    pods = [Pod(name) for name in "abcd"]
    stage = WatchStage(tmp_path, pods, one_pool(fleet={"start": 1, "minimum": 1, "maximum": 3}))
    stage.look()
    assert serving(stage) == 3
    assert stage.watch.notes() == (
        "1 instances of east/big/h100 have no place in the settings: its maximum is 3, and east/h100 has 80 GPUs.",
    )


def test_more_engines_than_there_are_gpus_are_said(tmp_path: Path) -> None:
    regions = {"east": {"gpus": {"h100": {"gpus": 16, "reserved": 16, "price": PRICE}}}}
    stage = WatchStage(tmp_path, [Pod(name) for name in "abcd"], one_pool(regions=regions))
    stage.look()
    stage.run(MINUTE)
    assert serving(stage) == 2
    assert stage.watch.notes() == (
        "2 instances of east/big/h100 have no place in the settings: its maximum is 8, and east/h100 has 16 GPUs.",
    )


def test_what_cannot_be_written_down_is_said(tmp_path: Path) -> None:
    stage = WatchStage(tmp_path, [Pod("a", per_s=2.0), Pod("b", per_s=2.0)])
    stage.look()
    shutil.rmtree(tmp_path / "minutes")
    stage.run(3 * MINUTE)
    assert stage.watch.notes() == ("2 lines could not be written: is the disk full?",)


def test_requests_of_classes_that_nothing_tells_apart_are_shared_and_none_is_counted_twice(tmp_path: Path) -> None:
    tiers = {"chat": {"ttft": "1s"}, "slow": {"ttft": "60s", "priority": 1}}
    stage = WatchStage(tmp_path, [Pod("a", per_s=2.0)], one_pool(tiers=tiers))
    stage.look()
    stage.run(3 * MINUTE)
    counted = stage.watch.demand.requests
    assert counted.sum() == pytest.approx(2 * (3 * MINUTE - 2 * SCRAPE) / SECOND)
    assert counted.min() > 0
    assert stage.watch.notes() != (), "that they are shared is said"


def test_what_serves_is_counted_in_instances_of_the_fastest_type_as_what_is_needed(tmp_path: Path) -> None:
    tree = yaml.safe_load(resolved_yaml(one_pool()))
    for kinds in (tree["gpus"], tree["regions"]["east"]["gpus"]):
        kinds["quick"] = kinds["h100"]
    tree["models"]["big"]["engines"]["quick"] = {**ENGINE, "gpu": "quick", "iteration_ms": [[1, 5], [10_001, 105]]}
    settings = Scenario.model_validate(tree)
    stage = WatchStage(tmp_path, [Pod("a", per_s=2.0), Pod("b"), Pod("c")], settings)
    stage.look()
    stage.run(3 * MINUTE)
    worth = stage.watch.layout.strength(stage.watch.layout.pools[0])
    assert 0 < worth < 1
    found = {one.name: one.samples for one in CapacityCollector(stage.watch.book, stage.watch.now).collect()}
    (serving,), (needed,) = found["sageserve_serving_instances"], found["sageserve_needed_instances"]
    assert serving.value == pytest.approx(3 * worth, abs=1e-3)
    assert serving.labels == needed.labels == {"region": "east", "model": "big"}


def test_what_safety_would_have_kept_from_being_done_is_not_counted_as_wanted(tmp_path: Path) -> None:
    stage = WatchStage(tmp_path, [Pod("a"), Pod("b")])
    stage.look()
    stage.run(3 * MINUTE)
    assert {one.decision.blocked for line in stage.journal() for one in line.line.decisions} <= {Blocked.SHADOW, Blocked.BLIND}
    assert stage.watch.pools()[0].would == 1  # idle, and seen: one less
    stage.failing = frozenset({"a"})
    stage.pods[0].last = stage.at
    stage.run(12 * MINUTE)
    assert stage.watch.pools()[0].would == 2  # blind: nobody would have been drained
