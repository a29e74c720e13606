"""An agent on the fake API server: what it follows, what it refuses, what it cuts, and what stays when plans do not come."""

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from sageserve.base.errors import ConfigError
from sageserve.base.units import HOUR, MINUTE, SECOND
from sageserve.live.agent.plan_record import ClusterPlan, TargetPlan, encoded
from sageserve.live.agent.report import AgentReport, read_reports
from sageserve.live.agent.sealed import seal
from sageserve.live.agent.verdict import ExpectedPlan, JudgedPlan, PlanRefused, RefusedPlan, judge
from sageserve.live.authority.orders import FleetOrders, PlanMark, PlannedCount, change_orders, read_orders
from sageserve.live.kubernetes.writer import NotWritten
from tests.live.agent.stage import OTHER, SECRET, Handed, Here, guarded, plan, sealed, trusted
from tests.live.authority.stage import WALL, Field, played

DAY = 24 * HOUR


async def here(folder: Path, guard: str = "default: {min: 0, max: 16, rung: bounds}\n", **target: object) -> Here:
    """An agent that has the lease, over four that run with a minimum of two."""
    found = Here(folder, guarded(folder, guard, **target), await Field().made(low=2, count=4))
    await found.settle()
    return found


def said(one: Here) -> AgentReport:
    [(_, report)] = read_reports(one.folder)
    assert isinstance(report, AgentReport)
    return report


async def orders(one: Here) -> FleetOrders:
    read = await read_orders(one.field.outside(), one.agent.hands._orders)
    assert not isinstance(read, NotWritten)
    return read[0]


# --- following ---


def test_a_plan_is_followed_by_the_ramp_and_reported(tmp_path: Path) -> None:
    async def story() -> None:
        one = await here(tmp_path)
        one.source.file = sealed(plan(9, length=2 * HOUR))
        await one.turn()
        assert one.field.bounds()[0] == 6  # half of what runs, beyond it
        await one.run(3 * MINUTE)
        assert one.field.bounds()[0] == 9
        report = said(one)
        assert (report.follows, report.sequence, report.plan, report.refused) == ("in-force", 7, "hash7", "")
        assert (report.age, report.at, report.holder) == (one.field.now, WALL + one.field.now, "one")
        target = report.targets["big"]
        assert (target.planned, target.followed, target.why, target.low, target.count) == (9, 9, "", 9, 9)
        assert one.field.found().annotations["sageserve.io/decision"].endswith("#hash7")
        assert ("plan", {"sequence": 7, "plan": "hash7", "targets": "big=9"}) in one.field.told
        assert sum(act == "plan" for act, _ in one.field.told) == 1

    played(story)


def test_its_own_wishes_do_not_count_before_or_after_a_plan(tmp_path: Path) -> None:
    async def story() -> None:
        one = await here(tmp_path)
        await one.run(5 * MINUTE, MINUTE)  # the pool would like nine
        assert (one.field.bounds()[0], said(one).follows, said(one).refused) == (2, "none", "unreachable")
        one.source.file = sealed(plan(4, begins=WALL + one.field.now, length=5 * MINUTE))
        await one.run(20 * MINUTE, MINUTE)
        assert one.field.bounds()[0] == 4

    played(story)


def test_a_dry_run_says_what_would_be_followed_and_keeps_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        one = await here(tmp_path, "default: {min: 0, max: 5, rung: bounds}\n")
        one.dry_run = True
        one.begun()
        one.source.file = sealed(plan(9, length=DAY))
        await one.run(MINUTE)
        report = said(one)
        assert (report.follows, report.notes) == ("none", ("A dry run: plan 7 would be followed.",))
        assert (report.targets["big"].planned, report.targets["big"].followed) == (9, 5)
        assert (await orders(one), one.field.bounds()[0]) == (FleetOrders(), 2)

    played(story)


def test_what_a_person_has_ended_stays_ended_until_the_next_plan(tmp_path: Path) -> None:
    async def story() -> None:
        one = await here(tmp_path)
        one.source.file = sealed(plan(4, length=DAY))
        await one.run(MINUTE)
        ended = lambda found: structs.replace(found, plans={})  # noqa: E731 # one line, once
        await change_orders(one.field.outside(), one.agent.hands._orders, ended)
        await one.run(5 * MINUTE)
        assert (await orders(one)).plans == {}
        mine = lambda found: structs.replace(found, plans={"big": PlannedCount(3, WALL + DAY, "mine")})  # noqa: E731 # as `apply` does
        await change_orders(one.field.outside(), one.agent.hands._orders, mine)
        await one.run(MINUTE)
        assert (await orders(one)).plans["big"].plan == "mine"
        one.source.file = sealed(plan(5, 8, length=DAY))
        await one.run(MINUTE)
        assert (await orders(one)).plans["big"] == PlannedCount(5, WALL + DAY, "hash8")

    played(story)


# --- refusing ---


def other(**changes: object) -> bytes:
    return sealed(plan(**changes))  # type: ignore[arg-type] # by name


@pytest.mark.parametrize(
    ("file", "why", "words"),
    [
        (None, "unreachable", "the hub is away"),
        (sealed(plan(), OTHER), "unknown-key", "trusted here is"),
        (sealed(plan())[:-9], "broken-seal", "not whole"),
        (b"<html>", "broken-seal", "does not begin"),
        (b"", "broken-seal", "does not begin"),
        (other(fleet="large"), "other-fleet", "'large'"),
        (other(cluster="west"), "other-cluster", "'west'"),
        (other(version="2.0"), "version", "install a newer sageserve"),
        (other(version="0.9"), "version", "there, where it is written"),
        (other(version="1"), "unreadable", "has no version that is one"),
        (seal(b"{}", SECRET), "unreadable", "cannot be read"),
        (seal(b'{"version": "1.0"}', SECRET), "unreadable", "fleet"),
        (other(sequence=5), "old", "sequence 5, and 6 was followed"),
        (other(sequence=6, count=9), "old", "another plan with sequence 6"),
        (other(begins=WALL + HOUR), "not-yet", "begins in"),
        (other(begins=WALL - DAY), "expired", "ended 23h11m"),
    ],
)
def test_a_file_that_may_not_be_followed_changes_nothing_and_is_told(
    file: bytes | None, why: str, words: str, tmp_path: Path
) -> None:
    async def story() -> None:
        one = await here(tmp_path)
        one.source.file = sealed(plan(3, 6, begins=WALL - MINUTE, length=12 * MINUTE))
        await one.turn()
        before, bounds = await orders(one), one.field.bounds()
        one.source.file = file
        one.field.now += MINUTE
        await one.turn()
        report = said(one)
        assert (report.refused, words in report.detail) == (why, True), report.detail
        assert (report.sequence, await orders(one), one.field.bounds()) == (6, before, bounds)
        assert any(note.startswith(f"Not followed ({why}): ") for note in report.notes)
        assert [facts["why"] for act, facts in one.field.told if act == "plan-refused"] == [why]

    played(story)


def test_clocks_may_differ_by_a_minute() -> None:
    for ahead, good in ((59 * SECOND, True), (61 * SECOND, False)):
        found = judge(sealed(plan(begins=WALL + ahead)), ExpectedPlan("small", "east", trusted()), WALL)
        assert isinstance(found, JudgedPlan) is good


def test_an_older_plan_is_refused_by_every_agent_whatever_it_remembers(tmp_path: Path) -> None:
    async def story() -> None:
        one = await here(tmp_path)
        old, new = sealed(plan(3, 7, length=DAY)), sealed(plan(5, 8, length=DAY))
        one.source.file = new
        await one.run(MINUTE)
        one.source.file = old
        (one.state / "followed.json").unlink()
        one.begun()  # remembers nothing: the cluster does
        await one.run(MINUTE)
        assert (said(one).refused, (await orders(one)).plans["big"].count) == ("old", 5)
        one.source.file = new
        await one.run(MINUTE)
        forgotten = lambda _: FleetOrders()  # noqa: E731 # one line, once
        await change_orders(one.field.outside(), one.agent.hands._orders, forgotten)
        one.source.file = old
        one.begun()  # the cluster remembers nothing: it does
        await one.run(MINUTE)
        assert (said(one).refused, (await orders(one)).plans) == ("old", {})
        (one.state / "followed.json").write_text("{")
        with pytest.raises(ConfigError, match="cannot be read"):
            one.begun()

    played(story)


def test_versions_may_be_one_apart() -> None:
    plain = json.loads(encoded(plan()))
    newer = plain | {"version": "1.7", "weather": "fine", "targets": {"big": plain["targets"]["big"] | {"shape": [1]}}}
    found = judge(seal(json.dumps(newer).encode(), SECRET), ExpectedPlan("small", "east", trusted()), WALL)
    assert isinstance(found, JudgedPlan)
    assert structs.replace(found.plan, version="1.0") == plan()
    found = judge(seal(json.dumps(newer | {"version": "2.0"}).encode(), SECRET), ExpectedPlan("small", "east", trusted()), WALL)
    assert isinstance(found, RefusedPlan)
    assert (found.why, found.detail) == (
        PlanRefused.VERSION,
        "the plan is of version 2.0, and 1.x is understood here: here, install a newer sageserve",
    )


def test_a_report_of_another_version_is_read_or_refused_alike(tmp_path: Path) -> None:
    report = AgentReport(
        fleet="small", cluster="east", agent="one", at=1, follows="none", sequence=0, plan="", age=0, until=0, heard=0,
        refused="", detail="", holder="", targets={}, notes=(),
    )  # fmt: skip
    plain = json.loads(encoded(report))
    (tmp_path / "a.status.json").write_text(json.dumps(plain | {"version": "1.9", "mood": "good"}), "utf-8")
    (tmp_path / "b.status.json").write_text(json.dumps(plain | {"version": "2.0"}), "utf-8")
    (tmp_path / "c.status.json").write_text("{", "utf-8")
    (tmp_path / "other.json").write_text("{", "utf-8")
    found = dict(read_reports(tmp_path))
    assert found[tmp_path / "a.status.json"] == structs.replace(report, version="1.9")
    assert "is of version 2.0" in str(found[tmp_path / "b.status.json"])
    assert "cannot be read" in str(found[tmp_path / "c.status.json"])
    assert len(found) == 3


# --- the guard ---


@pytest.mark.parametrize(
    ("guard", "count", "followed", "why"),
    [
        ("default: {min: 0, max: 5, rung: bounds}\n", 12, 5, "5 is the guard's max"),
        ("targets: {serving/llama: {min: 4, max: 8, rung: floor}}\n", 1, 4, "4 is the guard's min"),
        ("default: {min: 0, max: 99, rung: full}\n", 50, 20, "20 is the target's max here"),
        ("default: {min: 0, max: 99, rung: full}\n", 3, 3, ""),
        ("targets: {serving/other: {min: 0, max: 8}}\n", 9, None, "the guard lets it only be observed"),
        ("default: {min: 0, max: 9, rung: observe}\n", 9, None, "the guard lets it only be observed"),
    ],
)
def test_a_plan_is_cut_by_the_guard_which_says_so(guard: str, count: int, followed: int | None, why: str, tmp_path: Path) -> None:
    async def story() -> None:
        one = await here(tmp_path, guard)
        one.source.file = sealed(plan(count, length=DAY))
        await one.run(8 * MINUTE, 65 * SECOND)
        target = said(one).targets["big"]
        assert (target.planned, target.followed, target.why) == (count, followed, why)
        assert one.field.bounds()[0] == (min(followed, 16) if followed is not None else 2)  # the object's own maximum is 16

    played(story)


@pytest.mark.parametrize(
    ("targets", "why"),
    [
        ({"none": TargetPlan("a/b/c", "Deployment", "x/y", 3)}, "there is no such target here"),
        ({"big": TargetPlan("east/big/h100", "Deployment", "serving/llama", 3)}, "and the plan means Deployment serving/llama"),
        ({"big": TargetPlan("east/big/a100", "ScaledObject", "serving/llama", 3)}, "of east/big/a100"),
    ],
)
def test_a_target_that_is_another_here_is_not_followed(targets: dict[str, TargetPlan], why: str, tmp_path: Path) -> None:
    async def story() -> None:
        one = await here(tmp_path)
        one.source.file = sealed(plan(targets=targets, length=DAY))
        await one.run(MINUTE)
        found = said(one).targets[next(iter(targets))]
        assert (found.planned, found.followed, why in found.why) == (3, None, True)
        assert ((await orders(one)).plans, one.field.bounds()[0]) == ({}, 2)

    played(story)


def test_a_guards_step_slows_a_plan_and_never_speeds_it(tmp_path: Path) -> None:
    async def story(step: int, first: int) -> None:
        folder = tmp_path / str(step)
        folder.mkdir()
        one = await here(folder, f"default: {{min: 0, max: 16, rung: bounds, step: {step}}}\n")
        one.source.file = sealed(plan(12, length=DAY))
        await one.turn()
        assert one.field.bounds()[0] == first

    played(lambda: story(1, 5))
    played(lambda: story(0, 4))
    played(lambda: story(9, 6))


FILES = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 12), st.sampled_from((SECRET, SECRET, SECRET, OTHER)), st.integers(0, 2)),
    min_size=1,
    max_size=5,
)


@settings(max_examples=12, deadline=None)
@given(files=FILES, low=st.integers(0, 6), more=st.integers(0, 10), rung=st.sampled_from(("floor", "bounds")))
def test_no_sequence_of_files_moves_a_target_beyond_the_guard(
    files: list[tuple[int, int, object, int]], low: int, more: int, rung: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, high = tmp_path_factory.mktemp("guarded"), low + more

    async def story() -> None:
        one = await here(folder, f"default: {{min: {low}, max: {high}, rung: {rung}}}\n", authority="bounds")
        followed = 0
        for count, sequence, key, minutes in files:
            one.source.file = sealed(plan(count, sequence, length=DAY), key)  # type: ignore[arg-type] # one of two keys
            await one.run(minutes * 65 * SECOND + 35 * SECOND, 35 * SECOND)
            bounds = one.field.bounds()
            assert bounds[0] is not None
            assert bounds[0] <= max(high, 2), "above the guard, and what was found"
            assert bounds[1] is not None
            assert rung == "bounds" or bounds[1] == 16
            now = said(one).sequence
            assert now >= followed, "an older plan was followed"
            followed = now

    played(story)


# --- when plans do not come ---


def test_when_a_plan_ends_in_an_outage_bounds_stay_and_it_says_so(tmp_path: Path) -> None:
    async def story() -> None:
        one = await here(tmp_path)
        one.source.file = sealed(plan(9, length=HOUR))
        await one.run(5 * MINUTE)
        one.source.file = None
        await one.run(5 * HOUR, 10 * MINUTE)
        report = said(one)
        assert (one.field.bounds()[0], report.follows, report.refused) == (9, "expired", "unreachable")
        assert any("Plan 7 ended 4h15m ago: bounds stay as they are for 1h45m more" in note for note in report.notes), (
            report.notes
        )
        one.begun()  # how long ago it ended is known after a restart, too
        one.field.blind = True
        await one.run(3 * HOUR, 20 * MINUTE)
        assert one.field.bounds()[0] == 9  # blind: for ever
        one.field.blind = False
        await one.run(4 * HOUR, 5 * MINUTE)
        assert one.field.bounds()[0] == 2  # to what was found, by the pace
        one.source.file = sealed(plan(6, 8, begins=WALL + one.field.now))
        await one.run(5 * MINUTE)
        assert (one.field.bounds()[0], said(one).follows) == (6, "in-force")

    played(story)


def test_orders_that_cannot_be_read_or_kept_leave_everything_and_are_told(tmp_path: Path) -> None:
    async def story() -> None:
        one = await here(tmp_path)
        one.source.file = sealed(plan(4, length=DAY))
        for method in ("GET", "POST"):
            one.field.cluster.failing = lambda asked, path, method=method: (
                500 if (asked, "configmaps" in path) == (method, True) else 0
            )  # type: ignore[misc] # its default binds it
            await one.run(MINUTE)
            assert one.field.bounds()[0] == 2
            assert any("cannot be read" in note or "cannot be ordered" in note for note in said(one).notes)
        one.field.cluster.failing = lambda *_: 0
        await one.run(MINUTE)
        assert (one.field.bounds()[0], said(one).notes) == (4, ())

    played(story)


def test_of_two_agents_the_one_with_the_lease_orders_and_reports(tmp_path: Path) -> None:
    async def story() -> None:
        one = await here(tmp_path)
        two = Here(tmp_path, one.scenario, one.field, Handed(sealed(plan(4, length=DAY))), "two")
        await two.turn()
        assert ((await orders(one)).hub, list(read_reports(tmp_path))) == (None, [])
        one.source.file = two.source.file
        await one.turn()
        assert (said(one).agent, (await orders(one)).plans["big"].count) == ("one", 4)
        two.source.file = sealed(plan(5, 8, length=DAY))
        await two.run(2 * MINUTE, 5 * SECOND)  # the first one is gone
        assert (said(two).agent, said(two).sequence) == ("two", 8)
        await one.agent.pull()  # it wakes up with the older one
        await one.agent.hands.round()
        assert ((await orders(one)).plans["big"].count, one.field.bounds()[0]) == (5, 5)
        assert one.agent.refused is not None
        assert one.agent.refused.why is PlanRefused.OLD
        assert one.field.found().annotations["sageserve.io/epoch"] == "2"

    played(story)


def test_a_newer_plan_that_was_ordered_meanwhile_stays(tmp_path: Path) -> None:
    async def story() -> None:
        one = await here(tmp_path)
        newer = PlanMark(9, "digest", "hash9", WALL, WALL + DAY)
        found = judge(sealed(plan(4, length=DAY)), ExpectedPlan("small", "east", trusted()), WALL + one.field.now)
        assert isinstance(found, JudgedPlan)
        await change_orders(one.field.outside(), one.agent.hands._orders, lambda held: structs.replace(held, hub=newer))
        await one.agent._order(found)
        assert await orders(one) == FleetOrders(hub=newer)
        assert msgspec.json.decode(encoded(found.plan), type=ClusterPlan) == found.plan

    played(story)
