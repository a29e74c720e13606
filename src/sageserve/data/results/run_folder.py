"""The folder a run leaves behind, written whole or marked PARTIAL, and read again for reports.

    summary.json          what it cost and which promises were kept (`summary.py`)
    requests.parquet      one row per request that arrived
    timeline.parquet      one row per minute and endpoint
    costs.parquet         who pays what, line by line (`data/billing/allocations.py`)
    scenario.yaml         the resolved scenario; loads back to an equal one
    journal.jsonl.zst     events, decisions and actions (`journal.py`)
    report.html           the same to look at (`show/report.py`); may be missing
    PARTIAL               only after an interruption

summary.json is put in place last: a folder without it is not a result. Knows file formats, no simulator: columns come
from `sim/results/export.py`. Read next: `tables.py` for the columns.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from sageserve.base.config import Scenario
from sageserve.base.errors import ResultError
from sageserve.base.units import SECOND, Micros
from sageserve.data.billing.allocations import Allocation, read_allocations, write_allocations
from sageserve.data.results.journal import JournalLine, is_state_folder, read_journal, write_journal
from sageserve.data.results.summary import Summary, parse_summary, summary_json
from sageserve.data.results.tables import RequestFrame, RequestNames, TimelineFrame, request_table, timeline_tables
from sageserve.data.scenarios.load import load_scenario, resolved_yaml

SUMMARY: Final = "summary.json"
REQUESTS: Final = "requests.parquet"
TIMELINE: Final = "timeline.parquet"
COSTS: Final = "costs.parquet"
SCENARIO: Final = "scenario.yaml"
JOURNAL: Final = "journal.jsonl.zst"
PARTIAL: Final = "PARTIAL"
REPORT: Final = "report.html"
CONTENT: Final = (REQUESTS, TIMELINE, COSTS, SCENARIO, JOURNAL)
"""What a result has beside its summary."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Everything that is written about a run.

    Args:
        summary: as shown to the user.
        scenario: as it was played, every default filled in.
        names: what the codes in `requests` mean.
        requests: the requests in order of arrival, block after block; taken once.
        timeline: minute by minute.
        journal: lines in order; taken once.
        costs: who pays what.
    """

    summary: Summary
    scenario: Scenario
    names: RequestNames
    requests: Iterable[RequestFrame]
    timeline: TimelineFrame
    journal: Iterable[JournalLine]
    costs: Sequence[Allocation]


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A result folder that was found to be whole; large tables are read when they are asked for."""

    path: Path
    summary: Summary
    scenario: Scenario

    @property
    def warm_up(self) -> Micros:
        """Microseconds that were played before the window; instants of the journal there are below 0."""
        told = self.summary.warm_up_s
        return 0 if told is msgspec.UNSET else round(told * SECOND)

    def timeline(self) -> pa.Table:
        """The timeline, all of it."""
        return _read_table(self.path / TIMELINE, None)

    def requests(self, columns: list[str] | None = None) -> pa.Table:
        """The requests; naming columns keeps long runs small in memory."""
        return _read_table(self.path / REQUESTS, columns)

    def request_parts(self, columns: list[str]) -> Iterator[pa.Table]:
        """The requests in parts, as they were written; memory is that of one part."""
        try:
            with pq.ParquetFile(self.path / REQUESTS) as file:
                for group in range(file.num_row_groups):
                    yield file.read_row_group(group, columns=columns)
        except (OSError, pa.ArrowInvalid) as error:
            raise ResultError(f"{self.path / REQUESTS} cannot be read ({error})", hint="simulate again with --out") from None

    def costs(self) -> tuple[Allocation, ...]:
        """Who pays what, line by line."""
        try:
            return read_allocations(self.path / COSTS)
        except (OSError, pa.ArrowInvalid, msgspec.ValidationError) as error:
            raise ResultError(f"{self.path / COSTS} cannot be read ({error})", hint="simulate again with --out") from None

    def journal(self) -> Iterator[JournalLine]:
        """The journal, line by line."""
        return read_journal(self.path / JOURNAL)


def check_folder(folder: Path, *, replace: bool = False) -> None:
    """Refuse a folder that holds another run or other files, and one that cannot be written, before hours are spent on it.

    Args:
        folder: need not exist.
        replace: what is in it may be replaced; files that are not of a run stay.

    Raises:
        ResultError: it is a file, holds something and `replace` is not given, or cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise ResultError(f"{folder} is a file, not a folder", hint="name another folder with --out")
    if folder.is_dir() and any(folder.iterdir()) and not replace:
        what = "another run" if _is_ours(folder) else "files that are not a result of sageserve"
        raise ResultError(
            f"{folder} holds {what}",
            hint="name an empty or a new folder, or add --replace to write over it (other files in it stay)",
        )
    home = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not home.is_dir() or not os.access(home, os.W_OK | os.X_OK):
        why = "may not be written to" if home.is_dir() else "is a file"
        raise ResultError(f"{folder} cannot be written: {home} {why}", hint="name another folder with --out")


def write_run(folder: Path, record: RunRecord, *, replace: bool = False, progress: Callable[[int], None] | None = None) -> None:
    """Write a run. The folder holds the old result or the new one, never a mixture that passes for a result.

    Args:
        folder: made if needed.
        record: what to write.
        replace: write over what is in the folder.
        progress: told how many requests are written.

    Raises:
        ResultError: the folder is not ours to write to, or writing failed.
    """
    check_folder(folder, replace=replace)
    part = folder.parent / f".{folder.resolve().name}.part-{os.getpid()}"
    try:
        part.mkdir(parents=True)
        _write_files(part, record, progress)
        _put_in_place(part, folder)
    except OSError as error:
        raise ResultError(f"{folder} cannot be written: {error.strerror or error}", hint="choose another place") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def read_run(folder: Path) -> RunFolder:
    """Open a result folder.

    Raises:
        ResultError: there is none, it is incomplete, or it was written by a version that this one cannot read.
    """
    if folder.is_file():
        raise ResultError(f"{folder} is a file, not a result folder", hint="make one: sageserve simulate quickstart --out DIR")
    if not folder.is_dir():
        raise ResultError(f"there is no result folder {folder}", hint="make one: sageserve simulate quickstart --out DIR")
    if is_state_folder(folder):
        raise ResultError(
            f"{folder} is the state folder of a live fleet, not a run",
            hint="`sageserve explain`, `report` and `diff` read it by itself; simulate its scenario.yaml for the rest",
        )
    missing = [name for name in (SUMMARY, *CONTENT) if not (folder / name).is_file()]
    if missing:
        raise ResultError(f"{folder} is not a whole result: {', '.join(missing)} missing", hint="simulate again with --out")
    try:
        summary = parse_summary((folder / SUMMARY).read_bytes())
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ResultError(
            f"{folder / SUMMARY} cannot be read ({error})",
            hint="it was damaged, or written by another version of sageserve: simulate again with --out",
        ) from None
    return RunFolder(folder, summary, load_scenario(folder / SCENARIO))


def is_whole(folder: Path) -> bool:
    """Whether a folder holds every file of a result; those of a sweep may hold no more than the summary."""
    return all((folder / name).is_file() for name in (SUMMARY, *CONTENT))


def _is_ours(folder: Path) -> bool:
    """Whether a folder is a result, or what an interrupted replacement left of one."""
    names = {path.name for path in folder.iterdir()}
    return SCENARIO in names and names <= {SUMMARY, PARTIAL, REPORT, *CONTENT}


def _write_files(part: Path, record: RunRecord, progress: Callable[[int], None] | None) -> None:
    (part / SCENARIO).write_text(resolved_yaml(record.scenario), "utf-8")
    write_journal(part / JOURNAL, record.journal)
    _write_tables(part / TIMELINE, timeline_tables(record.timeline))
    write_allocations(part / COSTS, record.costs)
    _write_tables(part / REQUESTS, _counted(record, progress))
    if record.summary.partial:
        (part / PARTIAL).write_text("interrupted: the files hold what was played until then\n", "utf-8")
    (part / SUMMARY).write_bytes(summary_json(record.summary))


def _counted(record: RunRecord, progress: Callable[[int], None] | None) -> Iterator[pa.Table]:
    written, empty = 0, True
    for frame in record.requests:
        yield request_table(frame, record.names)
        written, empty = written + len(frame.arrival), False
        if progress is not None:
            progress(written)
    if empty:
        yield request_table(RequestFrame.nothing(), record.names)


def _write_tables(path: Path, tables: Iterator[pa.Table]) -> None:
    """One row group per table: memory stays that of one of them."""
    first = next(tables)
    with pq.ParquetWriter(path, first.schema, compression="zstd", version="2.6") as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)


def _put_in_place(part: Path, folder: Path) -> None:
    if not folder.exists() or not any(folder.iterdir()):
        os.replace(part, folder)  # noqa: PTH105 # one name for the one call that is atomic, also over an empty folder
        return
    for name in (SUMMARY, PARTIAL, REPORT):  # a report of the old result would tell of another run
        (folder / name).unlink(missing_ok=True)
    for name in (*CONTENT, PARTIAL, SUMMARY):
        if (part / name).exists():
            os.replace(part / name, folder / name)  # noqa: PTH105 # as above


def _read_table(path: Path, columns: list[str] | None) -> pa.Table:
    try:
        return pq.read_table(path, columns=columns)
    except (OSError, pa.ArrowInvalid) as error:
        raise ResultError(f"{path} cannot be read ({error})", hint="simulate again with --out") from None
