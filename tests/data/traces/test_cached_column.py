"""How many tokens of a prompt were cached: read under any known name, kept in our own files, written with a run's requests.

Read next: `tests/sim/test_prefix_cache.py` for what the simulator makes of them.
"""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from sageserve.base.records import UNSET, Trace
from sageserve.data.results.run_folder import write_run
from sageserve.data.traces.columns.fields import names_of
from sageserve.data.traces.inspect import overview
from sageserve.data.traces.options import TraceOptions
from sageserve.data.traces.read import read_as_is, read_trace
from sageserve.sim.results.export import record_of
from sageserve.sim.results.summary import summarise
from sageserve.sim.run import simulate
from tests.core.small import row, scenario, trace

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(content: str) -> Path:
        path = tmp_path / "trace.data"
        path.write_text(content, "utf-8")
        return path

    return to_file


def cached(found: Trace) -> list[int] | None:
    return None if found.cached is None else found.cached.tolist()


@pytest.mark.parametrize("name", names_of("cached"))
def test_any_format_may_hold_it_under_any_of_its_names(write: Write, name: str) -> None:
    lines = ("0,10,5,0", "1,10,5,8", "2,10,5,", "3,10,5,10", "4,10,5,11", "5,10,5,-1", "6,10,5,2.5")
    found, report = read_as_is(
        write("\n".join((f"timestamp,input_tokens,output_tokens,{name}", *lines))), TraceOptions(max_dropped=1.0)
    )
    assert cached(found) == [0, 8, UNSET, 9], "of a prompt that is cached whole the last token is computed"
    assert [(bad.count, bad.lines) for bad in report.bad] == [(3, (6, 7, 8))]
    assert "cached tokens" in report.bad[0].reason


def test_a_column_of_another_name_is_named_by_option(write: Write) -> None:
    path = write('{"timestamp": 0, "prompt_tokens": 9, "output_tokens": 2, "hits": 4}\n')
    assert cached(read_as_is(path)[0]) is None
    assert cached(read_as_is(path, TraceOptions(columns=("cached_tokens=hits",)))[0]) == [4]


def test_it_is_sorted_with_the_requests(write: Write) -> None:
    found, _ = read_as_is(write("arrival_s,prompt_tokens,output_tokens,cached_tokens\n2,9,1,2\n1,9,1,1\n"))
    assert cached(found) == [1, 2]


def test_the_overview_tells_the_share_of_those_that_say_it(write: Write) -> None:
    header = "arrival_s,prompt_tokens,output_tokens"
    found, _ = read_as_is(write(f"{header},cached_tokens\n1,30,1,10\n2,10,1,\n3,10,1,0\n"))
    assert overview(found, "it").cached_share == pytest.approx(10 / 40)
    found, _ = read_as_is(write(f"{header}\n1,30,1\n"))
    assert overview(found, "it").cached_share is None


def test_a_run_writes_what_it_found_and_can_be_played_again(tmp_path: Path) -> None:
    plain = scenario()
    tree = msgspec.to_builtins(plain.model_dump()["models"])
    tree["big"]["prefix_hits"] = 0.5
    settings = scenario(models=tree)
    rows = [row(at, model=model) for at, model in ((0, "big"), (10_000, "small"), (20_000, "big"))]
    run = simulate(settings, trace(settings, rows))
    assert run.requests["cached"].tolist() == [240, 0, 240]
    write_run(tmp_path / "run", record_of(run, summarise(run, 0.0)))
    again, _ = read_trace(tmp_path / "run" / "requests.parquet", plain)
    assert cached(again) == [240, 0, 240]
    played = simulate(plain, again)
    for column in ("first", "finish"):
        assert (played.requests[column] == run.requests[column]).all()
