"""A line that a full disk cut off costs no other one, in each of the files that grow by lines.

Read next: `src/sageserve/data/growing.py`.
"""

import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from sageserve.base.units import HOUR, MINUTE
from sageserve.core.events import DemandSeen
from sageserve.core.layout import names_of
from sageserve.core.strategies import layout_of
from sageserve.core.work import Entry
from sageserve.data.growing import append_lines
from sageserve.data.results.journal import newest_stamped, read_stamped
from sageserve.data.watched.minutes import MinuteFiles, PoolMinute, WatchedMinute, read_minutes
from sageserve.live.control.state_files import DemandFile, JournalFile
from tests.core.small import scenario


def full_after(path: Path, more: int, write: Callable[[], None]) -> None:
    """Write with room for so many bytes behind what a file holds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + more, hard))
    try:
        write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_is_cut_off_is_said_and_costs_no_other_line(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    append_lines(path, b"one\n")
    with pytest.raises(OSError, match="large"):
        full_after(path, 2, lambda: append_lines(path, b"second\n"))
    append_lines(path, b"third\nfourth\n")
    assert path.read_bytes() == b"one\nse\nthird\nfourth\n"
    assert path.stat().st_mode & 0o777 == 0o600
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(OSError, match="link"):
        append_lines(tmp_path / "link", b"led elsewhere\n")


def test_each_file_that_grows_goes_on_with_the_next_line(tmp_path: Path) -> None:
    layout = layout_of(scenario())
    names = names_of(scenario())
    cells = (1,) * (len(names.regions) * len(names.models) * len(names.tiers))
    minutes, demand = MinuteFiles(tmp_path), DemandFile(tmp_path / "demand.jsonl", names)
    journal = JournalFile(tmp_path / "journal", layout, lambda: HOUR)
    seen = DemandSeen(0, MINUTE, cells, cells, cells, tuple(map(float, cells)))
    for k in range(3):

        def write(at: int = k) -> None:
            journal.write(Entry(at, seen, (), ()))
            minutes.add(WatchedMinute(HOUR + at, (PoolMinute("a/b/c", 1, 1),), ()))
            demand.add(HOUR + at, seen)

        if k != 1:
            write()
            continue
        for path in [*tmp_path.rglob("*.jsonl")]:
            with path.open("ab") as out:
                last = path.read_bytes().splitlines()[-1]
                damaged = last.replace(b':"', b':"\xff') + b"\n"  # no UTF-8: a disk lost a byte of it
                out.write(damaged * (b"\xff" in damaged) + last[:9])  # and what a full disk leaves of the next one
    assert [one.line.now for one in read_stamped(tmp_path / "journal")] == [0, 2]
    assert [one.line.now for one in newest_stamped(tmp_path / "journal", 1 << 20)] == [0, 2]
    assert [one.wall for one in read_minutes(tmp_path)] == [HOUR, HOUR + 2]
    assert [one.wall for one in DemandFile(tmp_path / "demand.jsonl", names)._kept()] == [HOUR, HOUR + 2]
