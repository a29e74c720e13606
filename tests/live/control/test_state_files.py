"""What is left for the next control process: lines survive, torn ones are left out, unknown minutes are not zero.

Read next: `src/sageserve/live/control/state_files.py`.
"""

from pathlib import Path

import numpy as np
import pytest

from sageserve.base.records import Names
from sageserve.base.units import DAY, HOUR, MINUTE
from sageserve.core.actions import Decision, Reason, Source, Start
from sageserve.core.events import DemandSeen, InstanceReady
from sageserve.core.history import DemandHistory
from sageserve.core.work import Entry
from sageserve.live.control import state_files
from sageserve.live.control.state_files import DemandFile, JournalFile, read_lines
from tests.core.small import layout_of, scenario

NAMES = Names(("big", "small"), ("east", "west"), ("iw-f", "iw-n", "niw"))
CELLS = 12
WALL = 1_800_000_000_000_000  # an instant in 2027


def minute(tokens: int) -> DemandSeen:
    return DemandSeen(0, MINUTE, (tokens,) * CELLS, (1,) * CELLS, (2,) * CELLS, (0.0,) * CELLS)


def entry(now: int) -> Entry:
    decision = Decision(1, 1, Reason.UTILISATION_HIGH, 0.8, 5, serving=2, coming=0, done=1)
    return Entry(now, InstanceReady(3), (decision,), (Start(4, Source.VM, (0, 1)),))


def journal(folder: Path) -> JournalFile:
    return JournalFile(folder, layout_of(scenario()), lambda: WALL)


def test_lines_come_back_with_names_and_wall_time(tmp_path: Path) -> None:
    writer = journal(tmp_path)
    for now in range(5):
        writer.write(entry(now))
    lines = read_lines(tmp_path)
    assert [one.line.now for one in lines] == list(range(5))
    assert lines[0].wall == WALL
    assert lines[0].line.decisions[0].pool == layout_of(scenario()).pools[1].name
    assert lines == list(writer.recent)


def test_a_line_cut_off_by_a_kill_is_left_out_and_the_next_process_goes_on(tmp_path: Path) -> None:
    journal(tmp_path).write(entry(1))
    file = next(tmp_path.glob("*.jsonl"))
    file.write_bytes(file.read_bytes() + b'{"wall":17')
    assert [one.line.now for one in read_lines(tmp_path)] == [1]
    journal(tmp_path).write(entry(2))
    assert [one.line.now for one in read_lines(tmp_path)] == [1, 2]


def test_files_turn_over_and_old_ones_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_files, "_FILE_MAX", 1000)
    writer = journal(tmp_path)
    for now in range(200):
        writer.write(entry(now))
    kept = [one.line.now for one in read_lines(tmp_path)]
    assert kept == list(range(kept[0], 200))
    assert len(list(tmp_path.iterdir())) <= state_files._FILES + 1
    assert kept[0] > 0


def test_a_full_disk_loses_lines_and_says_how_many(tmp_path: Path) -> None:
    writer = journal(tmp_path / "journal")
    (tmp_path / "journal").rmdir()
    (tmp_path / "journal").write_text("in the way")
    writer.write(entry(1))
    assert writer.lost == 1
    assert len(writer.recent) == 1


def test_past_demand_ends_at_the_present_and_suits_a_history(tmp_path: Path) -> None:
    kept = DemandFile(tmp_path / "demand", NAMES)
    for k in range(60):
        kept.add(WALL + k * MINUTE, minute(k))
    earlier = DemandFile(tmp_path / "demand", NAMES).load(WALL + HOUR)
    assert earlier is not None
    assert (earlier.start, earlier.bin) == (-HOUR, MINUTE)
    assert earlier.prompt_tokens[:, 0, 0, 0].tolist() == list(range(60))
    history = DemandHistory((2, 2, 3), earlier)
    assert history.tokens()[:, 1, 1, 2].tolist() == [sum(range(15 * k, 15 * k + 15)) for k in range(4)]


def test_minutes_in_which_nobody_counted_lie_between_their_neighbours(tmp_path: Path) -> None:
    kept = DemandFile(tmp_path / "demand", NAMES)
    kept.add(WALL, minute(10))
    kept.add(WALL + 4 * MINUTE, minute(50))
    earlier = kept.load(WALL + 7 * MINUTE)
    assert earlier is not None
    assert np.allclose(earlier.prompt_tokens[:, 0, 0, 0], [10, 20, 30, 40, 50, 50, 50])


def test_old_minutes_and_those_of_other_names_are_dropped(tmp_path: Path) -> None:
    kept = DemandFile(tmp_path / "demand", NAMES)
    kept.add(WALL - 20 * DAY, minute(1))
    assert kept.load(WALL) is None
    kept.add(WALL - HOUR, minute(1))
    assert kept.load(WALL) is not None
    other = DemandFile(tmp_path / "demand", Names(("huge",), ("east",), ("iw-f",)))
    assert other.load(WALL) is None
