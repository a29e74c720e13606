"""The last 24 hours: from minutes and the journal to lines, bounded, and the same after a restart.

Read next: `src/sageserve/live/control/day.py`.
"""

from pathlib import Path

import pytest

from sageserve.base.units import DAY, HOUR, MINUTE, SECOND
from sageserve.core.actions import Blocked, Decision, Reason
from sageserve.core.plan.hourly import Plan
from sageserve.core.strategies import layout_of
from sageserve.core.work import Entry, Forecasted, Solved
from sageserve.data.results.journal import LIVE, Stamped, newest_stamped
from sageserve.data.watched.minutes import BacklogMinute, EndpointMinute, MinuteFiles, PoolMinute, TierMinute, WatchedMinute
from sageserve.live.control.day import MOST, LastDay, Unseen
from sageserve.live.control.state_files import JournalFile
from tests.live.watch.stage import POOL, one_pool

NOW = 1_790_000_100 * SECOND // (5 * MINUTE) * 5 * MINUTE
PLAN = Solved(1, Plan((5,), (3,), 0.0, 0.0, 0.0, 0.0, (), (), "optimal", 0.0, ""))


def words(stamped: Stamped) -> tuple[str, ...]:
    return tuple(f"{one.decision.change:+d}" for one in stamped.line.decisions)


def minute(back: int, *, busy: float = 1.0, did: int = 2, blind: str = "", late: float | None = None) -> WatchedMinute:
    """The one that began so many minutes ago."""
    return WatchedMinute(
        NOW - back * MINUTE,
        (PoolMinute(POOL, did, did + 1),),
        (EndpointMinute("east/big", busy, 2, blind, 600, late),),
        (TierMinute("chat", 10, 1 if late else 0),),
        (BacklogMinute("big", back, 60.0 * back),),
    )


def day_of(folder: Path) -> LastDay:
    settings = one_pool()
    return LastDay(settings, layout_of(settings), folder, lambda: NOW, words)


def test_minutes_become_lines_of_five_minutes(tmp_path: Path) -> None:
    day = day_of(tmp_path)
    for back in range(10, 0, -1):
        day.add(
            minute(back, busy=1.0 if back > 5 else 2.0, blind="away" if back in {7, 6} else "", late=0.2 if back == 1 else None)
        )
    found = day.view()
    (east,) = found.endpoints
    assert (found.now_s, found.step_s, len(east.busy)) == (NOW / SECOND, 300.0, 289)
    assert east.busy[-4:] == (None, 1.0, 2.0, None)
    assert (east.needed[-2], east.did[-2], east.would[-2], east.late[-3:]) == (2.0, 2.0, 3.0, (None, 0.2, None))
    assert east.unseen == (Unseen(NOW / SECOND - 420, NOW / SECOND - 300, "away"),)
    (tier,), (backlog,) = found.tiers, found.backlog
    assert (tier.tier, tier.promised, tier.kept[-3:]) == ("chat", 0.95, (1.0, 0.98, None))
    assert (backlog.waiting[-2], backlog.slack_s[-2]) == (1.0, 60.0)


def test_a_forecast_is_told_in_instances(tmp_path: Path) -> None:
    day = day_of(tmp_path)
    day.add(minute(1, busy=2.0))  # 600 tokens a minute keep two busy
    journal = JournalFile(tmp_path / LIVE, layout_of(one_pool()), lambda: NOW)
    points = (9000.0, 18_000.0, 9000.0)
    bands = ((4500.0, 9000.0, 18_000.0),) * 3
    journal.write(Entry(HOUR, Forecasted(1, HOUR, 15 * MINUTE, (points,), (bands,)), (), ()))
    day.hear(journal.recent[-1])
    ahead = day.view().endpoints[0].ahead
    assert ahead is not None
    assert ahead.begins_s == (NOW / SECOND, NOW / SECOND + 900, NOW / SECOND + 1800)
    assert (ahead.middle, ahead.low, ahead.high) == ((2.0, 4.0, 2.0), (1.0,) * 3, (4.0,) * 3)
    journal.write(Entry(HOUR, Forecasted(2, HOUR, 15 * MINUTE, (points,), ()), (), ()))
    day.hear(journal.recent[-1])
    assert (ahead := day.view().endpoints[0].ahead) is not None
    assert ahead.low == ()


def test_a_process_that_begins_anew_shows_what_the_one_before_it_did(tmp_path: Path) -> None:
    files, journal = MinuteFiles(tmp_path), JournalFile(tmp_path / LIVE, layout_of(one_pool()), lambda: NOW - HOUR)
    files.add(minute(3))
    files.add(minute(2 * DAY // MINUTE))
    decision = Decision(0, 2, Reason.UTILISATION_HIGH, 0.8, 0, 2, 0, 0, Blocked.NO_STOCK)
    journal.write(Entry(HOUR, PLAN, (decision,), ()))
    with (tmp_path / LIVE / "journal-000001.jsonl").open("a") as cut:
        cut.write('{"wall": 17')
    found = day_of(tmp_path).view()
    assert [(one.at_s, one.pool, one.words, one.blocked) for one in found.decisions] == [
        (NOW / SECOND - 3600, POOL, "+2", "no-stock")
    ]
    assert [(one.targets, one.short) for one in found.plans] == [({POOL: 5}, "")]
    assert sum(one is not None for one in found.endpoints[0].busy) == 1


def test_decisions_of_files_before_the_newest_are_shown_as_far_as_is_read(tmp_path: Path) -> None:
    folder, layout = tmp_path / LIVE, layout_of(one_pool())
    files = [folder / f"journal-{number:06d}.jsonl" for number in (1, 2, 3)]
    folder.mkdir()
    for change, file in zip((1, 2, 3), files, strict=True):
        file.touch()
        journal = JournalFile(folder, layout, lambda: NOW - HOUR)
        journal.write(Entry(HOUR, PLAN, (Decision(0, change, Reason.PLANNED, 0.8, 0, 2, 0),), ()))
    assert [one.words for one in day_of(tmp_path).view().decisions] == ["+1", "+2", "+3"]
    sizes = [file.stat().st_size for file in files]
    for most, changes in (
        (0, []),
        (sizes[2] - 2, []),
        (sizes[2], [3]),
        (sizes[2] + sizes[1] // 2, [3]),
        (sum(sizes[1:]), [2, 3]),
    ):
        assert [one.line.decisions[0].decision.change for one in newest_stamped(folder, most)] == changes, most


def test_what_is_held_is_bounded(tmp_path: Path) -> None:
    day = day_of(tmp_path)
    journal = JournalFile(tmp_path / LIVE, layout_of(one_pool()), lambda: NOW)
    journal.write(Entry(HOUR, PLAN, (Decision(0, 1, Reason.PLANNED, 0.8, 0, 2, 0),), ()))
    for _ in range(MOST + 5):
        day.hear(journal.recent[-1])
    for back in range(DAY // MINUTE + 60, 0, -1):
        day.add(minute(back))
    found = day.view()
    assert (len(found.decisions), len(found.plans)) == (MOST, MOST)
    assert found.endpoints[0].busy[0] == pytest.approx(1.0)
    assert len(day._minutes) == DAY // MINUTE
