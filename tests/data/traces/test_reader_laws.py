"""Whatever a trace is written as, reading it gives the truth or refuses: traces × formats × quirks.

More examples than the suite's: `pytest --hypothesis-profile=explore` tries ten thousand. Read next: `writers.py`.
"""

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from sageserve.base.errors import TraceError
from sageserve.base.records import UNSET
from sageserve.data.traces.options import TraceOptions
from sageserve.data.traces.read import read_as_is
from tests.data.traces.writers import Truth, Written, csv_files, json_files, parquet_files, truths

SUITE = 300
EXAMPLES = SUITE if settings().max_examples < SUITE else 10_000  # the profile of the suite asks for fewer than this law needs


@st.composite
def files(draw: st.DrawFn) -> tuple[Truth, Written]:
    truth = draw(truths())
    return truth, draw(draw(st.sampled_from([csv_files, json_files, parquet_files]))(truth))


@given(files())
@settings(max_examples=EXAMPLES)
def test_reading_gives_the_truth_or_refuses(tmp_path_factory: pytest.TempPathFactory, file: tuple[Truth, Written]) -> None:
    truth, written = file
    path = tmp_path_factory.getbasetemp() / "law.data"
    path.write_bytes(written.content)
    options = TraceOptions(columns=written.columns, max_dropped=0.0)
    if written.unclear:
        with pytest.raises(TraceError, match="two ways"):
            read_as_is(path, options)
        return
    trace, report = read_as_is(path, options)
    cut = [time // written.resolution * written.resolution for time in truth.time]
    assert trace.start == cut[0]
    assert [trace.start + at for at in trace.arrival.tolist()] == cut
    assert trace.prompt.tolist() == truth.prompt
    assert trace.output.tolist() == truth.output
    assert [trace.names.models[code] for code in trace.model] == truth.model
    found = [UNSET] * len(trace) if trace.cached is None else trace.cached.tolist()
    assert found == [UNSET if value is None else value for value in truth.cached]
    assert report.rows == report.kept == len(truth.time)
