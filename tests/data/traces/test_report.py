"""Of rows that are no requests all are counted, and the first thousand lines of each reason are remembered, whatever the batches.

Read next: `src/sageserve/data/traces/report.py`.
"""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sageserve.data.traces import report
from sageserve.data.traces.columns.convert import BLANK, OTHER, REASONS
from sageserve.data.traces.report import BadCounter

CODES = [code for code in range(1, len(REASONS)) if code not in {BLANK, OTHER}][:3]


@given(st.lists(st.sampled_from([0, *CODES]), max_size=40), st.lists(st.integers(0, 40), max_size=6), st.integers(1, 5))
def test_as_many_lines_are_kept_per_reason_as_are_promised(rows: list[int], cuts: list[int], most: int) -> None:
    kept, report._LINES_KEPT = report._LINES_KEPT, most  # type: ignore[misc] # a thousand in small
    try:
        counter = BadCounter()
        places = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
        for begin, end in pairwise(places):
            counter.add(np.array(rows[begin:end], np.int8))
    finally:
        report._LINES_KEPT = kept  # type: ignore[misc] # as above
    for code in CODES:
        there = [at for at, one in enumerate(rows) if one == code]
        assert counter._counts[REASONS[code]] == len(there)
        assert counter._lines.get(REASONS[code], []) == there[:most]
    assert counter.rows == len(rows)
