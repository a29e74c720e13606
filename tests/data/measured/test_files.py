"""Measured runs as files: what is written is read again, what is missing is assumed aloud, what is wrong is refused."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sageserve.base.errors import MeasurementError
from sageserve.data.measured.files import BYTES_MAX, choose, read_measured, read_series
from sageserve.data.measured.runs import EngineLimits, MeasuredRun, MeasuredSeries, means_of, requests_of
from sageserve.data.measured.write import write_measured

HEAD = "arrival_s,input_tokens,output_tokens,ttft_ms,e2e_ms\n"


def run_of(rows: list[tuple[int, int, int, int, int]], name: str = "one") -> MeasuredRun:
    columns = dict(zip(("arrival", "prompt", "output", "ttft", "decode"), np.array(rows, np.int64).T, strict=True))
    columns["arrival"] = np.sort(columns["arrival"]) - columns["arrival"].min()
    columns["e2e"] = columns["ttft"] + columns.pop("decode")
    requests = requests_of(columns, "made up")
    series = MeasuredSeries(
        time=np.array([1_000_000, 2_000_000]),
        prompt_rate=np.array([10.0, 0.0]),
        output_rate=np.array([1.0, 2.5]),
        running=np.array([1.0, 2.0]),
        waiting=np.array([0.0, 3.0]),
        kv_share=np.array([0.25, np.nan]),
        preemptions=np.array([0.0, 1.0]),
    )
    limits = EngineLimits(64, 1024, 16_000, 16, chunked=False, prefix_caching=True)
    return MeasuredRun(name, limits, "m", "g", 2, 3, "vLLM 1", "s", requests=requests, series=series, means=means_of(requests))


row = st.tuples(*[st.integers(1, 10**6)] * 5)


@given(st.lists(row, min_size=1, max_size=20))
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, int, int, int, int]]
) -> None:
    folder, written = tmp_path_factory.mktemp("runs"), run_of(rows)
    write_measured(folder, [written, run_of(rows, "two")])
    read = choose(read_measured(folder), "one")
    assert read.limits == written.limits
    assert (read.model, read.gpu, read.tp, read.dp, read.engine, read.source) == ("m", "g", 2, 3, "vLLM 1", "s")
    assert read.requests is not None
    assert written.requests is not None
    for name in ("arrival", "prompt", "output", "ttft", "tpot", "e2e"):
        assert np.array_equal(getattr(read.requests, name), getattr(written.requests, name)), name
    assert read.series is not None
    assert written.series is not None
    for name in ("time", "prompt_rate", "output_rate", "running", "waiting", "kv_share", "preemptions"):
        assert np.array_equal(getattr(read.series, name), getattr(written.series, name), equal_nan=True), name


def test_ranks_are_read(tmp_path: Path) -> None:
    (tmp_path / "experiments.csv").write_text("experiment,model,gpu,tp,dp,in_mean,out_mean\na,m,g,2,4,10,10\nb,m,g,2,,10,10\n")
    assert [run.dp for run in read_measured(tmp_path)] == [4, 1]


def test_requests_alone_are_enough(tmp_path: Path) -> None:
    (tmp_path / "requests.csv").write_text(HEAD + "100.5,10,3,20,60\n100,7,1,5,5\n", "utf-8")
    (run,) = read_measured(tmp_path)
    assert run.requests is not None
    assert run.requests.arrival.tolist() == [0, 500_000]
    assert run.requests.tpot.tolist() == [-1, 20_000]
    assert run.limits == EngineLimits()
    assert "defaults" in run.notes[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("arrival_s,input_tokens\n1,2\n", "has no column output_tokens, ttft_ms, e2e_ms"),
        (HEAD + "0,10,3,x,60\n", "row 1: ttft_ms: 'x' is not a number"),
        (HEAD + "0,10,3,20,60\n1,10,3,,60\n", "row 2: ttft_ms is empty"),
        (HEAD + "0,10,3,80,60\n", "e2e_ms is less than ttft_ms"),
        (HEAD + "0,0,3,20,60\n", "input_tokens must be at least 1"),
        (HEAD + "0,10,3,inf,60\n", "is not a number"),
        ("e2e_ms," + HEAD + "9,0,10,3,20,60\n", "has 2 columns called 'e2e_ms', at positions 1 and 6"),
        (HEAD, "requests.csv: there is a header and no row"),
    ],
)
def test_wrong_requests_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "requests.csv").write_text(text, "utf-8")
    with pytest.raises(MeasurementError, match=said):
        read_measured(tmp_path)


def test_folders_without_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="holds no measured run"):
        read_measured(tmp_path)
    with pytest.raises(MeasurementError, match="does not exist"):
        read_measured(tmp_path / "nowhere")


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "requests.csv").open("wb") as file:
        file.truncate(BYTES_MAX + 1)
    with pytest.raises(MeasurementError, match="larger than"):
        read_measured(tmp_path)


def test_seconds_must_increase(tmp_path: Path) -> None:
    path = tmp_path / "timeseries.csv"
    path.write_text("t_s,prompt_tok_s,gen_tok_s,running,waiting\n2,1,1,1,0\n1,1,1,1,0\n", "utf-8")
    with pytest.raises(MeasurementError, match="t_s does not increase"):
        read_series(path)


def test_several_runs_must_be_told_apart(tmp_path: Path) -> None:
    write_measured(tmp_path, [run_of([(1, 1, 1, 1, 1)]), run_of([(1, 1, 1, 1, 1)], "other")])
    with pytest.raises(MeasurementError, match="there are 2 runs"):
        choose(read_measured(tmp_path), "")
