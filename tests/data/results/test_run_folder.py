"""Result folders: whole or not there, never someone else's, and read back as they were written.

No simulator: columns are made here. Read next: `tests/cli/test_simulate.py` for folders of real runs.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from sageserve.base.errors import ResultError
from sageserve.base.records import UNSET, Names
from sageserve.core.actions import Decision, Drain, Reason
from sageserve.core.events import EndpointSeen, InstanceReady, Observed, StartFailed
from sageserve.data.billing.allocations import Allocation
from sageserve.data.results.journal import Decided, JournalLine, read_journal, write_journal
from sageserve.data.results.run_folder import PARTIAL, REQUESTS, SUMMARY, RunRecord, check_folder, read_run, write_run
from sageserve.data.results.summary import (
    AfterWindow,
    Cost,
    Hours,
    Quantiles,
    RequestCounts,
    Summary,
    TierSummary,
    Utilisation,
)
from sageserve.data.results.tables import RequestFrame, RequestNames, TimelineFrame
from sageserve.data.scenarios.load import load_scenario

SCENARIO = load_scenario("quickstart")
NOTHING = Quantiles(None, None, None)
HOURS = Hours(2.5, 1.0, 0.5, 0.5, 0.5, 3.0, 1.5, 1.0)
SUMMARY_OF_TWO = Summary(
    version="0",
    scenario="small",
    strategy="reactive",
    order="fcfs",
    signal="load",
    seed=1,
    partial=False,
    window_s=60.0,
    played_s=60.0,
    requests=RequestCounts(2, 1, 1, 0),
    tiers={"iw-f": TierSummary(2, 1, 0, 0.5, 0.95, False, "ttft", 1.0, Quantiles(0.1, 0.2, 0.3), NOTHING)},
    models={},
    gpu_hours=HOURS,
    instance_hours=HOURS,
    cost_usd=Cost(3.0, 1.0, 2.0, 0.5),
    utilisation=Utilisation(0.5, None, 0.5),
    after_window=AfterWindow(0, None),
    starts=1,
    start_failures=0,
    reclaims=0,
    spot_taken=0,
    preemptions=0,
    notes=("one", "two"),
    cpu_s=0.1,
    requests_per_cpu_s=20.0,
)
NAMES = RequestNames(
    names=Names(("big", "small"), ("east", "west"), ("iw-f", "iw-n", "niw")),
    pools=("east/big/h100", "west/big/a100"),
    gpus=("h100", "a100"),
    states=("future", "held", "waiting", "prefilling", "running", "finished", "refused"),
)
LINES = (
    JournalLine(0, InstanceReady(3), (), ()),
    JournalLine(
        15_000_000,
        Observed(10_000_000, (EndpointSeen(0.1, 0.2, 0.1),), (0, 4)),
        (Decided("west/big/a100", Decision(1, -1, Reason.UTILISATION_LOW, 0.1, 5_000_000, 3, 0, done=-1)),),
        (Drain(3),),
    ),
    JournalLine(60_000_000, StartFailed(4, "no capacity"), (), ()),
)
COSTS = (Allocation("west", "a100", "big", "niw", "", 1, 100, 7, on_demand_busy=200, reserved_idle=100, prompts=60, outputs=240),)


def frame(n: int = 2, first: int = 0) -> RequestFrame:
    """Requests that alternate between finished on the second pool and waiting nowhere."""
    done = np.arange(n) % 2 == 0
    arrival = np.arange(first, first + n, dtype=np.int64) * 1000
    return RequestFrame(
        arrival=arrival,
        model=np.zeros(n, np.uint8),
        tier=np.full(n, 2, np.uint8),
        region=np.zeros(n, np.uint8),
        prompt=np.full(n, 100, np.int32),
        output=np.full(n, 7, np.int32),
        deadline=arrival + 5,
        served=np.where(done, 1, UNSET),
        instance=np.where(done, 41, UNSET).astype(np.int32),
        pool=np.where(done, 1, UNSET),
        state=np.where(done, 5, 1).astype(np.uint8),
        ttft=np.where(done, 120, UNSET),
        e2e=np.where(done, 900, UNSET),
        met=done,
        cached=np.full(n, 64, np.int32),
    )


def timeline(samples: int = 3) -> TimelineFrame:
    return TimelineFrame(
        times=np.arange(samples, dtype=np.int64) * 60_000_000,
        endpoints=("east/big", "west/big"),
        regions=("east", "west"),
        models=("big", "big"),
        roles=("shared", "shared"),
        columns={"serving": np.arange(samples * 2).reshape(samples, 2), "seen": np.full((samples, 2), 0.25)},
    )


def record(*, summary: Summary = SUMMARY_OF_TWO, frames: tuple[RequestFrame, ...] | None = None) -> RunRecord:
    return RunRecord(summary, SCENARIO, NAMES, (frame(),) if frames is None else frames, timeline(), LINES, COSTS)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write_run(tmp_path / "a" / "run", record())
    found = read_run(tmp_path / "a" / "run")
    assert found.summary == SUMMARY_OF_TWO
    assert found.scenario == SCENARIO
    assert tuple(found.journal()) == LINES
    assert found.costs() == COSTS
    first, second = found.requests().to_pylist()
    assert first == {
        "arrival_us": 0,
        "model": "big",
        "tier": "niw",
        "region": "east",
        "prompt_tokens": 100,
        "output_tokens": 7,
        "deadline_us": 5,
        "cached_tokens": 64,
        "served_region": "west",
        "instance": 41,
        "pool": "west/big/a100",
        "gpu": "a100",
        "state": "finished",
        "ttft_us": 120,
        "e2e_us": 900,
        "met": True,
    }
    assert [name for name, value in second.items() if value is None] == [
        *("served_region", "instance", "pool", "gpu", "ttft_us", "e2e_us")
    ]
    assert second["state"] == "held"
    rows = found.timeline().to_pylist()
    assert [(row["time_us"], row["endpoint"], row["region"], row["serving"]) for row in rows[:3]] == [
        (0, "east/big", "east", 0),
        (0, "west/big", "west", 1),
        (60_000_000, "east/big", "east", 2),
    ]
    assert found.requests(["met"]).column_names == ["met"]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["run"]


def test_blocks_become_row_groups_and_equal_records_equal_bytes(tmp_path: Path) -> None:
    frames = (frame(1000), frame(1000, 1000), frame(10, 2000))
    told: list[int] = []
    write_run(tmp_path / "a", record(frames=frames), progress=told.append)
    write_run(tmp_path / "b", record(frames=frames))
    assert told == [1000, 2000, 2010]
    assert pq.ParquetFile(tmp_path / "a" / REQUESTS).num_row_groups == 3
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")


def test_a_run_without_requests_has_the_same_columns(tmp_path: Path) -> None:
    write_run(tmp_path / "full", record())
    write_run(tmp_path / "none", record(frames=()))
    assert read_run(tmp_path / "none").requests().schema == read_run(tmp_path / "full").requests().schema
    assert read_run(tmp_path / "none").requests().num_rows == 0


def test_a_long_timeline_keeps_its_order(tmp_path: Path) -> None:
    samples = 70_000  # 140,000 rows: more than one row group
    write_run(tmp_path / "run", replace(record(), timeline=timeline(samples)))
    table = read_run(tmp_path / "run").timeline()
    assert table["serving"].to_pylist() == list(range(samples * 2))


def test_a_partial_result_is_marked_and_the_mark_goes_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    write_run(folder, record(summary=msgspec.structs.replace(SUMMARY_OF_TWO, partial=True)))
    assert (folder / PARTIAL).exists()
    assert read_run(folder).summary.partial
    with pytest.raises(ResultError, match="another run"):
        write_run(folder, record())
    write_run(folder, record(), replace=True)
    assert not (folder / PARTIAL).exists()
    assert not read_run(folder).summary.partial


def test_a_foreign_folder_is_refused_and_replace_leaves_its_files(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ResultError, match="not a result") as refused:
        write_run(tmp_path, record())
    assert "--replace" in refused.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    write_run(tmp_path, record(), replace=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    assert read_run(tmp_path).summary == SUMMARY_OF_TWO
    with pytest.raises(ResultError, match="is a file"):
        check_folder(tmp_path / "thesis.tex", replace=True)


def failing() -> Iterator[RequestFrame]:
    yield frame()
    raise KeyboardInterrupt


def test_an_interrupted_write_leaves_the_old_result_whole(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    write_run(folder, record())
    before = bytes_of(folder)
    with pytest.raises(KeyboardInterrupt):
        write_run(folder, replace(record(), requests=failing()), replace=True)
    assert bytes_of(folder) == before
    assert list(tmp_path.iterdir()) == [folder]


def test_a_place_that_cannot_be_written_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultError, match="cannot be written"):
        write_run(tmp_path / "file" / "run", record())


def broken_summary(folder: Path) -> None:
    (folder / SUMMARY).write_bytes((folder / SUMMARY).read_bytes()[:100])


def other_version(folder: Path) -> None:
    (folder / SUMMARY).write_text('{"version": "9"}')


def no_requests(folder: Path) -> None:
    (folder / REQUESTS).unlink()


@pytest.mark.parametrize(
    ("damage", "says"),
    [(broken_summary, "cannot be read"), (other_version, "cannot be read"), (no_requests, "requests.parquet missing")],
)
def test_a_damaged_result_says_what_is_wrong(tmp_path: Path, damage: Callable[[Path], None], says: str) -> None:
    folder = tmp_path / "run"
    write_run(folder, record())
    damage(folder)
    with pytest.raises(ResultError, match=says) as found:
        read_run(folder)
    assert "again" in found.value.hint


def test_no_result_and_truncated_tables(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="there is no result folder"):
        read_run(tmp_path / "nowhere")
    write_run(tmp_path / "run", record())
    (tmp_path / "run" / REQUESTS).write_bytes(b"PAR1")
    with pytest.raises(ResultError, match=r"requests\.parquet cannot be read"):
        read_run(tmp_path / "run").requests()


def test_a_damaged_journal_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl.zst"
    write_journal(path, LINES * 1000)
    assert sum(1 for _ in read_journal(path)) == 3000
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ResultError, match=r"after line [0-9,]+"):
        list(read_journal(path))
