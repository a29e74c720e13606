"""What is left for the next control process: lines survive, torn ones are left out, unknown minutes are not zero.

Read next: `src/sageserve/live/control/state_files.py`.
"""

import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from sageserve.base.records import Names
from sageserve.base.units import DAY, HOUR, MINUTE
from sageserve.core.actions import Decision, Reason, Source, Start
from sageserve.core.events import DemandSeen, InstanceReady
from sageserve.core.history import DemandHistory
from sageserve.core.work import Entry
from sageserve.data.results.journal import read_stamped
from sageserve.live.control import state_files
from sageserve.live.control.state_files import DemandFile, JournalFile
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
    lines = list(read_stamped(tmp_path))
    assert [one.line.now for one in lines] == list(range(5))
    assert lines[0].wall == WALL
    assert lines[0].line.decisions[0].pool == layout_of(scenario()).pools[1].name
    assert lines == list(writer.recent)


def test_a_line_cut_off_by_a_kill_is_left_out_and_the_next_process_goes_on(tmp_path: Path) -> None:
    journal(tmp_path).write(entry(1))
    file = next(tmp_path.glob("*.jsonl"))
    file.write_bytes(file.read_bytes() + b'{"wall":17')
    assert [one.line.now for one in read_stamped(tmp_path)] == [1]
    journal(tmp_path).write(entry(2))
    assert [one.line.now for one in read_stamped(tmp_path)] == [1, 2]


def test_files_turn_over_and_old_ones_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_files, "_FILE_MAX", 1000)
    writer = journal(tmp_path)
    for now in range(200):
        writer.write(entry(now))
    kept = [one.line.now for one in read_stamped(tmp_path)]
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


def test_old_minutes_are_dropped(tmp_path: Path) -> None:
    kept = DemandFile(tmp_path / "demand", NAMES)
    kept.add(WALL - 20 * DAY, minute(1))
    assert kept.load(WALL) is None
    kept.add(WALL - HOUR, minute(1))
    earlier = kept.load(WALL)
    assert earlier is not None
    assert earlier.start == -HOUR
    assert (tmp_path / "demand").read_bytes().count(b"\n") == 2, "a header and one minute"


def by_cell() -> DemandSeen:
    """A minute in which each cell saw another number."""
    numbers = tuple(range(1, CELLS + 1))
    return DemandSeen(0, MINUTE, numbers, numbers, numbers, (0.0,) * CELLS)


def tokens(path: Path, names: Names, wall: int = WALL + HOUR) -> dict[tuple[str, str, str], int]:
    """What the first known minute says, by region, model and tier; empty when nothing is known."""
    earlier = DemandFile(path, names).load(wall)
    if earlier is None:
        return {}
    cells = product(names.regions, names.models, names.tiers)
    return dict(zip(cells, map(int, earlier.prompt_tokens[0].ravel()), strict=True))


@pytest.mark.parametrize(
    "names",
    [
        Names(("big", "small", "new"), ("east", "west"), ("iw-f", "iw-n", "niw")),
        Names(("big", "small"), ("north", "east", "west"), ("iw-f", "iw-n", "niw")),
        Names(("big", "small"), ("east", "west"), ("niw", "iw-f", "extra", "iw-n")),
        Names(("small",), ("west", "east"), ("iw-n",)),
    ],
    ids=["a new model", "a new region", "a new tier and another order", "fewer of all"],
)
def test_demand_under_other_names_is_kept_as_far_as_they_are_the_same(tmp_path: Path, names: Names) -> None:
    path = tmp_path / "demand.jsonl"
    DemandFile(path, NAMES).add(WALL, by_cell())
    before, was = tokens(path, NAMES), path.read_bytes()
    assert list(before.values()) == list(range(1, CELLS + 1))
    now = tokens(path, names)
    assert now == {cell: before.get(cell, 0) for cell in now}
    (aside,) = (other for other in tmp_path.iterdir() if other != path)
    assert aside.read_bytes() == was, "nothing is lost"
    assert tokens(path, names) == now
    assert len(list(tmp_path.iterdir())) == 2, "it is set aside once"
    DemandFile(path, names).add(WALL + MINUTE, DemandSeen(0, MINUTE, *((7,) * len(now),) * 3, (0.0,) * len(now)))
    later = DemandFile(path, names).load(WALL + HOUR)
    assert later is not None
    assert int(later.prompt_tokens[-1].max()) == 7


def test_demand_of_names_that_are_all_others_is_not_taken_for_zero(tmp_path: Path) -> None:
    path = tmp_path / "demand.jsonl"
    DemandFile(path, NAMES).add(WALL, by_cell())
    assert tokens(path, Names(("huge",), ("east",), ("iw-f",))) == {}
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("first", [b"", b"{", b'{"models":[1]}', b"[]"])
def test_a_file_that_does_not_say_its_names_is_set_aside(tmp_path: Path, first: bytes) -> None:
    path = tmp_path / "demand.jsonl"
    path.write_bytes(first + b"\nand more\n")
    assert tokens(path, NAMES) == {}
    assert sorted(other.read_bytes() for other in tmp_path.iterdir() if other != path) == [first + b"\nand more\n"]


def test_without_room_for_a_copy_the_old_file_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object) -> None:
        raise OSError("No space left on device")

    path = tmp_path / "demand.jsonl"
    DemandFile(path, NAMES).add(WALL, by_cell())
    was = path.read_bytes()
    monkeypatch.setattr(shutil, "copyfile", no_room)
    monkeypatch.setattr(Path, "write_bytes", no_room)
    names = Names(("big",), ("east",), ("iw-f",))
    assert tokens(path, names) == {("east", "big", "iw-f"): 1}, "known now, though it could not be written"
    (aside,) = tmp_path.iterdir()
    assert (aside != path, aside.read_bytes()) == (True, was)


@pytest.mark.parametrize("wrong", [40 * DAY, 13 * DAY, -40 * DAY, -HOUR])
def test_a_clock_that_is_wrong_for_a_moment_costs_no_demand(tmp_path: Path, wrong: int) -> None:
    path = tmp_path / "demand.jsonl"
    for day in range(14):
        DemandFile(path, NAMES).add(WALL - day * DAY, minute(day + 1))
    before = DemandFile(path, NAMES).load(WALL + MINUTE)
    DemandFile(path, NAMES).load(WALL + wrong)
    after = DemandFile(path, NAMES).load(WALL + MINUTE)
    assert before is not None
    assert after is not None
    assert np.array_equal(before.prompt_tokens, after.prompt_tokens)


def test_a_minute_that_was_counted_twice_counts_once(tmp_path: Path) -> None:
    """The clock was set back: the later line is the one that is believed."""
    path = tmp_path / "demand.jsonl"
    kept = DemandFile(path, NAMES)
    for number in (10, 20, 30):
        kept.add(WALL, minute(number))
    earlier = kept.load(WALL + MINUTE)
    assert earlier is not None
    assert earlier.prompt_tokens.shape[0] == 1
    assert earlier.prompt_tokens[0, 0, 0, 0] == 30


def test_lines_of_another_length_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "demand.jsonl"
    kept = DemandFile(path, NAMES)
    kept.add(WALL, minute(10))
    with path.open("ab") as out:
        out.write(b"[%d,[1],[1],[1]]\n" % (WALL + MINUTE))
    earlier = kept.load(WALL + 2 * MINUTE)
    assert earlier is not None
    assert earlier.prompt_tokens[:, 0, 0, 0].tolist() == [10, 10]
