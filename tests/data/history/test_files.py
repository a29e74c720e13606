"""Histories from files: OpenMetrics text and saved answers give what the network gives; what is neither is refused by name."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from sageserve.base.errors import MeasurementError
from sageserve.data.history.collect import PoolCollector
from sageserve.data.history.files import read_files
from sageserve.data.history.raw import RawSeries
from sageserve.data.history.records import Grid
from sageserve.data.rebuild.render import write_openmetrics
from tests.data.history.made import BEGIN, STEP, engine, matrix, series

POOL = engine([0.0, 2, 4, 6, 8, 10, 12, 14, 16], [1.0, 3, 3, 1, 1, 1, 1, 1, 1])


def same(found: list[RawSeries], wanted: list[RawSeries]) -> bool:
    held = {tuple(sorted(one.labels.items())): one for one in found}
    return len(held) == len(wanted) and all(
        np.array_equal(held[tuple(sorted(one.labels.items()))].time, one.time)
        and np.array_equal(held[tuple(sorted(one.labels.items()))].value, one.value, equal_nan=True)
        for one in wanted
    )


def test_openmetrics_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "history.om"
    assert write_openmetrics(path, iter(POOL)) == 45
    assert same(list(read_files([path])), POOL)
    packed = tmp_path / "history.om.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert same(list(read_files([packed])), POOL)


def test_saved_answers_are_read_whatever_printed_them(tmp_path: Path) -> None:
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    one.write_bytes(matrix(POOL[:2]))
    two.write_bytes(b"\n  " + matrix(POOL[2:]).replace(b",", b" ,\n"))
    told: list[tuple[int, int]] = []
    assert same(list(read_files([one, two], lambda done, whole: told.append((done, whole)))), POOL)
    assert told[-1][0] == told[-1][1]


def test_both_kinds_of_files_make_one_pool(tmp_path: Path) -> None:
    text, answer = tmp_path / "a.om", tmp_path / "b.json"
    write_openmetrics(text, iter(POOL[:3]))
    answer.write_bytes(matrix(POOL[3:]))
    collector = PoolCollector("pool", Grid(BEGIN, STEP, 8))
    collector.add(read_files([text, answer]))
    assert collector.finish().arrivals.tolist() == [4, 2, 0, 2, 2, 2, 2, 2]


def test_labels_may_hold_anything_and_exemplars_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "odd.om"
    path.write_text(
        '# TYPE a gauge\na{pod="x } \\" # {",b="\\\\n\\n"} 1.5 1700000000.25 # {trace="z"} 0.5 1700000000\n# EOF\n', "utf-8"
    )
    found = next(read_files([path]))
    assert dict(found.labels) == {"__name__": "a", "pod": 'x } " # {', "b": "\\n\n"}
    assert (found.time.tolist(), found.value.tolist()) == ([1_700_000_000_250_000], [1.5])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("vllm:num_requests_running 1 1700000000\n", "no `# EOF` at its end"),
        ("vllm:num_requests_running 1\n# EOF\n", ":1 has no time"),
        ("vllm:num_requests_running 1 1700000000000\n# EOF\n", "they are milliseconds"),
        ("a 1 1700000015\na 2 1700000000\n# EOF\n", "out of order"),
        ("<html>\n# EOF\n", ":1 is no sample"),
        ('{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[1,"2"]]}]}}', "without a name"),
        ('{"status":"error","error":"parse error"}', "parse error"),
        ('{"status":"success","data":{"resultType":"matrix","result":[{"metric"', "in the middle"),
    ],
)
def test_what_is_no_history_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "history.txt"
    path.write_text(text, "utf-8")
    with pytest.raises(MeasurementError) as caught:
        list(read_files([path]))
    assert said in caught.value.message
    assert "history.txt" in caught.value.message
    assert caught.value.hint


def test_a_missing_and_a_broken_file_are_told(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="cannot read"):
        list(read_files([tmp_path / "none.om"]))
    cut = tmp_path / "cut.om.gz"
    cut.write_bytes(gzip.compress(b"a 1 1700000000\n" * 9999)[:60])
    with pytest.raises(MeasurementError, match="cannot read"):
        list(read_files([cut]))


def test_a_negative_step_is_caught_by_series_too(tmp_path: Path) -> None:
    path = tmp_path / "back.json"
    path.write_bytes(matrix([series("a", [1, 2], BEGIN, -STEP)]))
    with pytest.raises(MeasurementError, match="out of order"):
        list(read_files([path]))
