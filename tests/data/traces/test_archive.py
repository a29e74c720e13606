"""Our own trace files keep everything, appear whole or not at all, and refuse to be misread."""

import json
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given

from sageserve.base.errors import TraceError
from sageserve.base.records import COUNTS, LABELS, UNSET, Labels, Names, PromptBlocks, Trace
from sageserve.data.traces.archive import write_trace
from sageserve.data.traces.naming import UNNAMED
from sageserve.data.traces.options import TraceOptions
from sageserve.data.traces.read import read_as_is, read_trace
from sageserve.data.traces.readers.arrow_file import MARK
from tests.data.scenes import scenario

names = st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1), min_size=1, unique=True)
tokens = st.integers(1, 2**31 - 1)


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    n = draw(st.integers(1, 30))
    arrival = np.array(sorted(draw(st.lists(st.integers(0, 2**50), min_size=n, max_size=n))), dtype=np.int64)
    of = Names(*(tuple(draw(names)) for _ in range(3)))
    deadline = None
    if draw(st.booleans()):
        later = st.one_of(st.just(UNSET), st.integers(1, 2**55))
        deadline = np.array(draw(st.lists(later, min_size=n, max_size=n)), dtype=np.int64)

    prompt = np.array(draw(st.lists(tokens, min_size=n, max_size=n)), dtype=np.int32)
    cached = None
    if draw(st.booleans()):
        cached = np.array([draw(st.integers(UNSET, length - 1)) for length in prompt.tolist()], dtype=np.int32)

    def codes(known: tuple[str, ...]) -> np.ndarray:
        chosen = draw(st.lists(st.integers(0, len(known) - 1), min_size=n, max_size=n))
        return np.array(chosen, dtype=np.uint8)

    def maybe(least: int, most: int) -> np.ndarray | None:
        return np.array(draw(st.lists(st.integers(least, most), min_size=n, max_size=n))) if draw(st.booleans()) else None

    labels, counts = {}, {}
    for label in draw(st.sets(st.sampled_from(LABELS))):
        known = tuple(draw(names))
        chosen = draw(st.lists(st.integers(UNSET, len(known) - 1), min_size=n, max_size=n))
        labels[label] = Labels(np.array(chosen, dtype=np.int32), known)
    for count in draw(st.sets(st.sampled_from(COUNTS))):
        counts[count] = np.array(draw(st.lists(st.integers(UNSET, 2**31 - 1), min_size=n, max_size=n)), dtype=np.int32)
    blocks = None
    if draw(st.booleans()):
        hashes = draw(st.lists(st.lists(st.integers(0, 2**64 - 1), max_size=3), min_size=n, max_size=n))
        values = np.array([one for each in hashes for one in each], dtype=np.uint64)
        blocks = PromptBlocks(np.cumsum([len(each) for each in hashes]), values, draw(st.sampled_from((16, 512))))
    return Trace(
        arrival=arrival,
        prompt=prompt,
        output=np.array(draw(st.lists(tokens, min_size=n, max_size=n)), dtype=np.int32),
        model=codes(of.models),
        region=codes(of.regions),
        tier=codes(of.tiers),
        names=of,
        window=int(arrival[-1]) + 1 + draw(st.integers(0, 2**40)),
        deadline=deadline,
        cached=cached,
        notes=tuple(draw(st.lists(st.text(st.characters(codec="utf-8")), max_size=3))),
        start=draw(st.none() | st.integers(0, 2**50)),
        labels=labels,
        counts=counts,
        delay=maybe(UNSET, 2**50),
        blocks=blocks,
    ).check()


def label_texts(trace: Trace) -> dict[str, list[str | None]]:
    return {
        label: [None if code == UNSET else each.names[code] for code in each.codes.tolist()]
        for label, each in trace.labels.items()
    }


def assert_same(one: Trace, other: Trace) -> None:
    for column in ("arrival", "prompt", "output", "model", "region", "tier"):
        left, right = getattr(one, column), getattr(other, column)
        assert left.dtype == right.dtype
        assert np.array_equal(left, right), column
    assert one.names == other.names
    assert one.window == other.window
    assert one.start == other.start
    assert label_texts(one) == label_texts(other)
    assert {count: column.tolist() for count, column in one.counts.items()} == {
        count: column.tolist() for count, column in other.counts.items()
    }
    assert (one.blocks is None) == (other.blocks is None)
    if one.blocks is not None and other.blocks is not None:
        assert one.blocks.size == other.blocks.size
        assert one.blocks.ends.tolist() == other.blocks.ends.tolist()
        assert one.blocks.hashes.tolist() == other.blocks.hashes.tolist()
    for left, right in ((one.deadline, other.deadline), (one.cached, other.cached), (one.delay, other.delay)):
        assert (left is None) == (right is None)
        if left is not None and right is not None:
            assert np.array_equal(left, right)


@given(trace=traces())
def test_nothing_is_lost_on_the_way_to_a_file_and_back(trace: Trace, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("archive") / "trace.parquet"
    write_trace(path, trace)
    back, report = read_as_is(path)
    assert_same(trace, back)
    assert back.notes[: len(trace.notes)] == trace.notes
    assert report.rows == report.kept == len(trace)


def small(**changes: object) -> Trace:
    trace = Trace(
        arrival=np.array([0, 5, 9], dtype=np.int64),
        prompt=np.array([1, 2, 3], dtype=np.int32),
        output=np.array([4, 5, 6], dtype=np.int32),
        model=np.array([0, 1, 0], dtype=np.uint8),
        region=np.array([0, 0, 1], dtype=np.uint8),
        tier=np.array([0, 1, 2], dtype=np.uint8),
        names=Names(("big", "small"), ("east", "west"), ("iw-f", "iw-n", "niw")),
        window=10,
    )
    return replace(trace, **changes)  # type: ignore[arg-type]  # any field of a trace


def test_the_same_trace_gives_the_same_bytes(tmp_path: Path) -> None:
    paths = tmp_path / "a.parquet", tmp_path / "b.parquet"
    for path in paths:
        write_trace(path, small())
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_other_tools_see_names_and_plain_columns(tmp_path: Path) -> None:
    write_trace(tmp_path / "t.parquet", small())
    table = pq.read_table(tmp_path / "t.parquet")
    assert table.column("tier").to_pylist() == ["iw-f", "iw-n", "niw"]
    assert table.column("arrival_us").to_pylist() == [0, 5, 9]
    assert "deadline_us" not in table.column_names


def test_names_can_be_mapped_when_read_again(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_trace(path, small(names=Names(("a", "b"), ("east", "west"), ("iw-f", "iw-n", "niw"))))
    trace, _ = read_trace(path, scenario(), TraceOptions(maps=("a=small", "b=big")))
    assert [trace.names.models[code] for code in trace.model] == ["small", "big", "small"]
    assert trace.window == 10


def test_what_was_not_said_stays_unsaid(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    unsaid = small(names=Names(("big", "small"), (UNNAMED,), ("iw-f", "iw-n", "niw")), region=np.zeros(3, np.uint8))
    write_trace(path, unsaid)
    assert read_as_is(path)[0].names.regions == (UNNAMED,)
    assert any("no region column" in note for note in read_trace(path, scenario())[0].notes)


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken.parquet").mkdir()
    with pytest.raises(TraceError, match="cannot be written"):
        write_trace(tmp_path / "taken.parquet", small())
    assert [path.name for path in tmp_path.iterdir()] == ["taken.parquet"]


def test_an_interrupted_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_trace(path, small())
    before = path.read_bytes()

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_trace(path, small(notes=("new",)), interrupt)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["t.parquet"]


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({"version": 99}, "version 99; this sageserve reads version 2"),
        ({"version": 2}, "metadata is damaged"),
        ([], "metadata is damaged"),
        ({"version": "~"}, "metadata is damaged"),
    ],
)
def test_files_of_other_versions_are_refused(tmp_path: Path, metadata: object, says: str) -> None:
    path = tmp_path / "t.parquet"
    write_trace(path, small())
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({MARK: json.dumps(metadata).encode().replace(b"~", b"\xff")}), path)
    with pytest.raises(TraceError, match=says):
        read_as_is(path)


def test_rows_that_another_tool_broke_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_trace(path, small())
    table = pq.read_table(path)
    table = table.set_column(table.column_names.index("output_tokens"), "output_tokens", pa.array([4, 0, 6]))
    pq.write_table(table, path)
    trace, report = read_as_is(path, TraceOptions(max_dropped=1.0))
    assert len(trace) == 2
    assert report.bad[0].lines == (2,)


def test_a_late_start_is_kept_in_our_own_files(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    late = small(arrival=np.array([2**50, 2**50 + 1, 2**50 + 2], dtype=np.int64), window=2**51)
    write_trace(path, late)
    assert_same(late, read_as_is(path)[0])
