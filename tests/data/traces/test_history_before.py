"""`--history`: what forecasters know of the time before a trace.

Read next: `data/traces/changes/window.py`.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from sageserve.base.errors import TraceError
from sageserve.base.units import HOUR, MINUTE
from sageserve.data.results.sweep_folder import key_of, source_of
from sageserve.data.traces.options import TraceOptions
from sageserve.data.traces.requests import Requests
from sageserve.data.workload.requests import requests_for
from tests.core.small import scenario

HEADER = "arrival,model,region,tier,prompt,output\n"


def of(tmp_path: Path, name: str, times: list[str], prompt: int = 100) -> Path:
    path = tmp_path / name
    path.write_text(HEADER + "".join(f"{time},big,east,iw-f,{prompt},10\n" for time in times), "utf-8")
    return path


def read(files: Path, history: Path, **more: object) -> Requests:
    return requests_for(scenario(), replace(TraceOptions(files=(files,), history=(history,)), **more))  # type: ignore[arg-type] # of tests


def test_it_ends_where_the_trace_begins(tmp_path: Path) -> None:
    history = of(tmp_path, "past.csv", [str(k * 60) for k in range(30)], prompt=200)
    found = read(of(tmp_path, "now.csv", ["0", "60", "120"]), history)
    assert found.earlier is not None
    assert (found.earlier.start, found.earlier.bin) == (-30 * MINUTE, MINUTE)
    assert found.earlier.prompt_tokens[:, 0, 0, 0].tolist() == [200.0] * 30
    assert len(found.trace) == 3
    assert "forecasters know the 30m before it" in " ".join(found.trace.notes)
    cut = read(of(tmp_path, "now.csv", ["0", "60", "120"]), history, begin="2m").earlier
    assert cut is not None
    assert cut.prompt_tokens[-3:, 0, 0, 0].tolist() == [200.0, 100.0, 100.0], "what --from cuts off follows"
    doubled = read(of(tmp_path, "now.csv", ["0", "60", "120"]), history, load=2.0).earlier
    assert doubled is not None
    assert doubled.requests.sum() == 60


def test_dates_place_it_and_what_lies_later_is_not_known(tmp_path: Path) -> None:
    history = of(tmp_path, "past.csv", [f"2026-03-02T{hour:02}:00:00Z" for hour in range(6)])
    found = read(of(tmp_path, "now.csv", ["2026-03-02T04:00:00Z", "2026-03-02T04:30:00Z"]), history).earlier
    assert found is not None
    assert (found.start, found.requests.sum()) == (-4 * HOUR, 4)
    gap = read(of(tmp_path, "now.csv", ["2026-03-02T08:00:00Z", "2026-03-02T08:30:00Z"]), history)
    assert gap.earlier is not None
    assert (gap.earlier.start, gap.earlier.requests.sum()) == (-8 * HOUR, 6)
    assert "between them count as silence" in " ".join(gap.trace.notes)
    with pytest.raises(TraceError, match="nothing of --history lies before"):
        read(of(tmp_path, "now.csv", ["2026-03-01T08:00:00Z"]), history)


def test_it_needs_a_trace_and_true_minutes(tmp_path: Path) -> None:
    history = of(tmp_path, "past.csv", ["0", "300"])
    with pytest.raises(TraceError, match="--history speaks of a trace file"):
        requests_for(scenario(), TraceOptions(history=(history,)))
    with pytest.raises(TraceError, match="--time-scale changes their length"):
        read(of(tmp_path, "now.csv", ["0"]), history, time_scale=2.0)


def test_kept_results_are_of_one_history(tmp_path: Path) -> None:
    now, settings = of(tmp_path, "now.csv", ["0"]), scenario()
    pasts = [None, of(tmp_path, "a.csv", ["0", "300"]), of(tmp_path, "b.csv", ["0", "301"])]
    sources = [source_of(TraceOptions(files=(now,), history=() if past is None else (past,))) for past in pasts]
    assert len({key_of(settings, source, "code") for source in sources}) == 3
