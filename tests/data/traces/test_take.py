"""Taking rows of a trace takes all that these requests carry, and only that.

Read next: `base/records.py`.
"""

from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from sageserve.base.errors import TraceError
from sageserve.base.records import UNSET, Labels, Names, PromptBlocks, Trace


def carrying(hashes: list[list[int]]) -> Trace:
    """Requests that carry everything; the prompt's length tells them apart."""
    n = len(hashes)
    numbers = np.arange(n)
    return Trace(
        arrival=numbers * 10,
        prompt=(numbers + 1).astype(np.int32),
        output=np.ones(n, np.int32),
        model=np.zeros(n, np.uint8),
        region=np.zeros(n, np.uint8),
        tier=np.zeros(n, np.uint8),
        names=Names(("m",), ("r",), ("t",)),
        window=n * 10 + 1,
        labels={"session": Labels((numbers % 3 - 1).astype(np.int32), ("a", "b"))},
        counts={"turn": (numbers * 2).astype(np.int32)},
        delay=np.where(numbers % 2, numbers * 1000, UNSET),
        blocks=PromptBlocks(
            np.cumsum([len(each) for each in hashes]), np.array([one for each in hashes for one in each], np.uint64), 512
        ),
    ).check()


def hashes_of(trace: Trace, row: int) -> list[int]:
    assert trace.blocks is not None
    end = int(trace.blocks.ends[row])
    found: list[int] = trace.blocks.hashes[end - int(trace.blocks.counts()[row]) : end].tolist()
    return found


@given(st.lists(st.lists(st.integers(0, 2**64 - 1), max_size=4), min_size=1, max_size=12), st.data())
def test_what_a_request_carries_goes_with_it(hashes: list[list[int]], data: st.DataObject) -> None:
    whole = carrying(hashes)
    rows = np.array(data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=20)), dtype=np.int64)
    some = whole.take(rows)
    assert some.prompt.tolist() == (rows + 1).tolist()
    assert some.counts["turn"].tolist() == (rows * 2).tolist()
    assert some.labels["session"].codes.tolist() == (rows % 3 - 1).tolist()
    assert some.delay is not None
    assert some.delay.tolist() == [row * 1000 if row % 2 else UNSET for row in rows.tolist()]
    assert [hashes_of(some, place) for place in range(len(rows))] == [hashes[row] for row in rows.tolist()]


def test_columns_of_another_length_and_unknown_codes_are_refused() -> None:
    whole = carrying([[1], [2, 3]])
    with pytest.raises(TraceError, match="same number of rows"):
        replace(whole, counts={"turn": np.zeros(3, np.int32)}).check()
    with pytest.raises(TraceError, match="session code"):
        replace(whole, labels={"session": Labels(np.array([0, 2], np.int32), ("a", "b"))}).check()
