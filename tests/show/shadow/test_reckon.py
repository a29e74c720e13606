"""A shadow report of minutes made by hand, each number with its arithmetic; forecasts against what came; the folder; the page.

Read next: `src/sageserve/show/shadow/reckon.py`.
"""

import json
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from sageserve.base.errors import ResultError
from sageserve.base.units import DAY, HOUR, MINUTE, Micros
from sageserve.cli.main import app
from sageserve.core.actions import Blocked, Decision, Reason
from sageserve.core.events import EndpointSeen, Observed
from sageserve.core.strategies import layout_of
from sageserve.core.work import FitAsked, Forecasted
from sageserve.data.results.journal import Decided, JournalLine, Stamped
from sageserve.data.scenarios.load import resolved_yaml
from sageserve.data.watched.minutes import KEEP, MINUTES, EndpointMinute, MinuteFiles, PoolMinute, WatchedMinute, read_minutes
from sageserve.show.shadow.read import ShadowReading, read_shadow
from sageserve.show.shadow.reckon import ShadowEndpoint, counts_of
from sageserve.show.shadow.shadow_page import shadow_page
from tests.live.watch.stage import BEGIN, POOL, one_pool

Row = tuple[int, int, int]
"""did, would, needed."""


def write(state: Path, rows: Sequence[Row | None], *, tokens: int = 6000) -> None:
    """A state folder with these minutes; None: it was not seen."""
    (state / "journal").mkdir(parents=True, exist_ok=True)
    (state / "scenario.yaml").write_text(resolved_yaml(one_pool()), "utf-8")
    (state / MINUTES).mkdir(exist_ok=True)
    lines = []
    for number, row in enumerate(rows):
        did, would, needed = row or (9, 0, 99)
        pools = (PoolMinute(POOL, did, would),)
        blind = "" if row else "no series"
        minute = WatchedMinute(BEGIN + number * MINUTE, pools, (EndpointMinute("east/big", 1.0, needed, blind, tokens),))
        lines.append(msgspec.json.encode(minute) + b"\n")
    with (state / MINUTES / "minutes-20260921.jsonl").open("ab") as out:
        out.write(b"".join(lines))


def reckoned(state: Path, rows: Sequence[Row | None]) -> ShadowEndpoint:
    write(state, rows)
    (one,) = read_shadow(state).report.endpoints
    return one


def test_harm_is_what_would_have_been_taken_of_what_was_needed_and_ran(tmp_path: Path) -> None:
    one = reckoned(tmp_path, [(5, 3, 4), (5, 4, 4), (5, 3, 2), (3, 1, 4)])
    assert one.harm == (4 - 3) + 0 + 0 + (3 - 1)  # in the last minute three ran where four were needed, and one would have
    assert (one.harm_minutes, one.help) == (2, 0)


def test_help_is_what_would_have_been_added_of_what_was_needed_and_did_not_run(tmp_path: Path) -> None:
    one = reckoned(tmp_path, [(2, 5, 4), (2, 3, 4), (4, 6, 4), (2, 2, 4)])
    assert one.help == (4 - 2) + (3 - 2) + 0 + 0
    assert one.harm == 0


def test_waste_dollars_and_broken_minutes_of_both_sides(tmp_path: Path) -> None:
    one = reckoned(tmp_path, [(5, 3, 4), (2, 5, 4)])
    per_minute = 80 / 60  # a VM of eight GPUs at 80 an hour is one instance
    assert one.did.instance_hours == pytest.approx((5 + 2) / 60)
    assert one.did.waste_hours == pytest.approx((5 - 4) / 60)
    assert one.did.cost_usd == pytest.approx((5 + 2) * per_minute)
    assert one.did.waste_usd == pytest.approx((5 - 4) * per_minute)
    assert (one.did.short_minutes, one.would.short_minutes) == (1, 1)
    assert one.would.waste_usd == pytest.approx((5 - 4) * per_minute)
    report = read_shadow(tmp_path).report
    assert report.saves_usd == pytest.approx((7 - 8) * per_minute)
    assert report.broken_minutes_saved == 0


def test_agreement_lets_one_instance_and_a_tenth_pass(tmp_path: Path) -> None:
    one = reckoned(tmp_path, [(5, 6, 5), (5, 7, 5), (30, 33, 5), (30, 34, 5)])
    assert one.agreement == 2 / 4


def test_lead_is_for_how_long_a_change_had_been_asked_for(tmp_path: Path) -> None:
    up = [(4, 4, 4), (4, 5, 4), (4, 5, 4), (4, 6, 4), (5, 6, 5), (5, 5, 5)]  # asked for at 1, done at 4: three minutes
    down = [(5, 4, 4), (4, 4, 4)]  # one minute
    alone = [(6, 6, 4)]  # nobody asked
    one = reckoned(tmp_path, [*up, *down, *alone])
    assert (one.changes, one.foreseen, one.lead_minutes) == (3, 2, 2.0)
    assert (one.wishes, one.followed) == (2, 2)
    assert one.did.changes_per_day == pytest.approx(3 * 1440 / 9)
    assert one.would.changes_per_day == pytest.approx(5 * 1440 / 9)  # 5, 6, 5, 4, 6


def test_a_wish_that_nobody_followed_is_counted_as_such(tmp_path: Path) -> None:
    one = reckoned(tmp_path, [(4, 5, 4), (4, 5, 4), (4, 4, 4), (3, 4, 4)])
    assert (one.wishes, one.followed, one.changes, one.foreseen) == (2, 0, 1, 0)


def test_minutes_that_were_not_seen_are_not_judged(tmp_path: Path) -> None:
    one = reckoned(tmp_path, [(5, 5, 5), None, None, (7, 7, 5)])
    assert (one.seen_minutes, one.blind_minutes) == (2, 2)
    assert (one.harm, one.help, one.changes, one.did.short_minutes) == (0, 0, 0, 0)
    assert one.did.waste_hours == pytest.approx(2 / 60)
    assert one.did.changes_per_day == 0, "what happened meanwhile is not known"


def test_minutes_in_which_promises_broke_are_those_that_engines_measured(tmp_path: Path) -> None:
    write(tmp_path, [(5, 5, 5)])
    assert read_shadow(tmp_path).report.endpoints[0].measured_minutes is None, "engines do not say"
    (path,) = (tmp_path / MINUTES).glob("*")
    shares = (0.02, 0.05, 0.06, 0.5, None)  # the tier promises 95 %
    minutes = [
        WatchedMinute(BEGIN + number * MINUTE, (PoolMinute(POOL, 5, 5),), (EndpointMinute("east/big", 1.0, 5, "", 0, share),))
        for number, share in enumerate(shares)
    ]
    path.write_bytes(b"".join(msgspec.json.encode(minute) + b"\n" for minute in minutes))
    assert read_shadow(tmp_path).report.endpoints[0].measured_minutes == 2


def decided(state: Path, at: Micros, blocked: Blocked) -> None:
    decision = Decision(0, 1, Reason.UTILISATION_HIGH, 0.8, 0, 4, 0, 0, blocked)
    line = JournalLine(at, Observed(at, (EndpointSeen(0.8, 0.8, 0.8),), (0,)), (Decided(POOL, decision),), ())
    keep(state, Stamped(BEGIN + at, line))


def keep(state: Path, *lines: Stamped) -> None:
    with (state / "journal" / "journal-000001.jsonl").open("ab") as out:
        out.write(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))


def test_decisions_are_counted_by_what_kept_them_from_being_done(tmp_path: Path) -> None:
    write(tmp_path, [(4, 5, 4)] * 3)
    for at, blocked in ((0, Blocked.SHADOW), (MINUTE, Blocked.SHADOW), (2 * MINUTE, Blocked.BLIND), (HOUR, Blocked.SHADOW)):
        decided(tmp_path, at, blocked)
    report = read_shadow(tmp_path).report
    assert (report.decisions, report.blocked) == (3, {"shadow": 2, "blind": 1})  # the last one was after the minutes


def test_more_rights_need_a_week_fifty_decisions_no_harm_and_sight(tmp_path: Path) -> None:
    week: list[Row | None] = [(4, 4, 4)] * (7 * 1440)
    write(tmp_path, week)
    for number in range(50):
        decided(tmp_path, number * MINUTE, Blocked.SHADOW)
    assert read_shadow(tmp_path).report.refused == {"east/big": ()}
    for folder, rows, why in (
        ("short", week[:720], "watched for 0.5 of 7 days"),
        ("harm", [(4, 3, 4), *week[:9]], "harm in 1 minutes"),
        ("blind", [*week[:9], *[None] * 60], "unseen for 60 minutes of the last day"),
    ):
        write(tmp_path / folder, rows)
        assert why in read_shadow(tmp_path / folder).report.refused["east/big"]
        assert "0 of 50 decisions" in read_shadow(tmp_path / folder).report.refused["east/big"]


def test_forecasts_are_judged_on_the_hour_that_was_seen(tmp_path: Path) -> None:
    write(tmp_path, [(4, 4, 4)] * 90, tokens=1000)  # 15,000 in a quarter of an hour
    bin_us = 15 * MINUTE
    quantiles = ((10_000.0, 14_000.0), (12_000.0, 18_000.0), (0.0, 20_000.0), (0.0, 1.0), (0.0, 1.0))
    asked = JournalLine(0, Observed(0, (), ()), (), (FitAsked(1, "blend", 1, 5, (0.1, 0.9)),))
    told = JournalLine(MINUTE, Forecasted(1, 0, bin_us, ((18_000.0, 12_000.0, 15_000.0, 15_000.0, 99.0),), (quantiles,)), (), ())
    keep(tmp_path, *(Stamped(BEGIN + line.now, line) for line in (asked, told)))
    score = read_shadow(tmp_path).report.endpoints[0].forecast
    assert score is not None
    assert score.bins == 5  # those that begin until 61 min, when the hour ahead ends
    assert score.wape == pytest.approx((3000 + 3000 + 0 + 0 + 14_901) / 75_000)
    assert score.bias == pytest.approx((3000 - 3000 - 14_901) / 75_000)
    assert (score.band, score.inside) == ((0.1, 0.9), 2 / 5)


def test_only_the_newest_minutes_count_when_asked(tmp_path: Path) -> None:
    write(tmp_path, [(5, 3, 4)] * 30 + [(4, 4, 4)] * 60)
    assert read_shadow(tmp_path).report.harm == 30
    assert read_shadow(tmp_path, HOUR).report.harm == 0


def test_a_folder_without_minutes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="no folder of"):
        read_shadow(tmp_path)
    write(tmp_path, [])
    with pytest.raises(ResultError, match="holds no minute"):
        read_shadow(tmp_path)


def test_five_weeks_of_days_are_kept(tmp_path: Path) -> None:
    files = MinuteFiles(tmp_path)
    for day in range(KEEP + 2):
        files.add(WatchedMinute(BEGIN + day * DAY, (), ()))
    assert [minute.wall for minute in read_minutes(tmp_path)] == [BEGIN + day * DAY for day in range(2, KEEP + 2)]


def test_minutes_are_summed_up_as_they_are_read_and_not_held() -> None:
    count, layout = 2_000, layout_of(one_pool())
    read = (
        WatchedMinute(BEGIN + at * MINUTE, (PoolMinute(POOL, 5, 3),), (EndpointMinute("east/big", 1.0, 4),))
        for at in range(count)
    )
    tracemalloc.start()
    try:
        found = counts_of(read, layout)["east/big"]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(found.wall) == count
    assert peak < 400 * count  # bytes: nine numbers, thrice for a moment; a minute as objects is 500 and more


def test_a_torn_line_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, [(4, 4, 4)] * 3)
    (path,) = (tmp_path / "minutes").glob("*")
    path.write_bytes(path.read_bytes()[:-20])
    assert read_shadow(tmp_path).report.endpoints[0].seen_minutes == 2
    later = WatchedMinute(BEGIN + 3 * MINUTE, (PoolMinute(POOL, 4, 4),), (EndpointMinute("east/big", 1.0, 4),))
    MinuteFiles(tmp_path).add(later)  # the next process ends it, so that its own first line is not lost with it
    assert read_shadow(tmp_path).report.endpoints[0].seen_minutes == 3
    assert path.read_bytes().count(b"\n") == 4


def test_a_clock_that_was_set_back_leaves_minutes_in_order(tmp_path: Path) -> None:
    write(tmp_path, [(5, 5, 5)] * 3)
    back = WatchedMinute(BEGIN - 10 * MINUTE, (PoolMinute(POOL, 4, 4),), (EndpointMinute("east/big", 1.0, 4),))
    MinuteFiles(tmp_path).add(back)
    found = read_shadow(tmp_path)
    assert found.report.begins_s == (BEGIN - 10 * MINUTE) / 1e6
    assert shadow_page(found)


def reading(state: Path) -> ShadowReading:
    write(state, [(5, 3, 4)] * 40 + [None] * 5 + [(2, 4, 4)] * 40)
    return read_shadow(state)


def test_the_page_and_the_command_say_the_same(tmp_path: Path) -> None:
    page = shadow_page(reading(tmp_path))
    assert "harm: 40 instance-minutes taken from what was needed, and added 80 instance-minutes where too few ran." in page
    assert "east/big: harm in 40 minutes, 40 instance-minutes." in page
    assert page == shadow_page(read_shadow(tmp_path)), "equal folders give equal bytes"
    out = tmp_path / "shadow.html"
    ran = CliRunner().invoke(app, ["shadow-report", str(tmp_path), "--json", "-o", str(out)])
    assert ran.exit_code == 0, ran.output
    assert out.read_text("utf-8") == page
    report = json.loads(ran.stdout)
    assert (report["harm"], report["help"], report["endpoints"][0]["blind_minutes"]) == (40, 80, 5)
    told = CliRunner().invoke(app, ["shadow-report", str(tmp_path)])
    assert "Following reactive would have done harm: 40 instance-minutes" in told.stdout
    assert "no more rights yet: watched for 0.1 of 7 days, 0 of 50 decisions, harm in 40 minutes" in told.stdout
