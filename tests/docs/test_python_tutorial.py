"""The tutorial from Python: every block is run in order, as the cells of a notebook, and prints what the page shows.

Read next: docs/tutorial/python.md, `pages.py`.
"""

import contextlib
import inspect
import io
import re
import subprocess
import sys
import types
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pytest

import sageserve
from sageserve.base.errors import ConfigError, PluginError, ResultError, TraceError
from sageserve.plugins import Unified
from tests.docs.pages import agree, blocks
from tests.extended.conftest import given

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "tutorial" / "python.md"
SMALL: Final = {"workload.generate.length": "45m", "workload.generate.requests": 2000}


def test_every_block_prints_what_the_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cells = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", cells)
    found = list(blocks(PAGE.read_text("utf-8")))
    assert sum(block.kind == "python" for block in found) > 5
    for block, after in pairwise(found):
        if block.kind == "python":
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(block.text, f"cell {block.line}", "exec"), vars(cells))  # noqa: S102 # the page's own code
            assert agree(after.text, printed.getvalue().rstrip("\n")), f"line {block.line} prints\n{printed.getvalue()}"


def test_importing_it_costs_nothing() -> None:
    said = "import sys, sageserve; print(sorted({'numpy', 'pyarrow', 'pydantic', 'numba', 'typer'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, encoding="utf-8", check=True)
    assert done.stdout == "[]\n"


def test_all_that_is_promised_is_there() -> None:
    assert all(getattr(sageserve, name) is not None for name in sageserve.__all__)
    assert set(sageserve.__all__) < set(dir(sageserve))
    with pytest.raises(AttributeError, match="no attribute 'shrink'"):
        _ = sageserve.shrink  # there is no command that does either


def test_every_function_is_on_the_page() -> None:
    page = PAGE.read_text("utf-8").partition("## The functions")[2]
    listed = re.findall(r"^\| `(\w+)\(([^)]*)\)`", page, re.MULTILINE)
    functions = {name for name in sageserve.__all__ if name.islower()}
    assert {name for name, _ in listed} == functions
    for name, arguments in listed:
        known = inspect.signature(getattr(sageserve, name)).parameters
        assert {one.strip().removesuffix("=") for one in arguments.split(",")} <= set(known), name


def test_a_table_is_played_as_the_scenario_itself() -> None:
    day = sageserve.load("quickstart", SMALL)
    requests = sageserve.generate(day)
    own, given = sageserve.simulate(day), sageserve.simulate(day, trace=requests)
    for table in (requests, own.requests(), own.timeline(), own.decisions()):
        plain = [kind.value_type if pa.types.is_dictionary(kind) else kind for kind in table.schema.types]
        assert all(pa.types.is_primitive(kind) or pa.types.is_string(kind) for kind in plain), "what every frame of others reads"
        assert table.to_pandas().shape == table.shape
    assert own.summary.gpu_hours == given.summary.gpu_hours
    assert own.requests().num_rows == own.summary.requests.arrived
    assert own.decisions().num_rows == sum(len(entry.decisions) for entry in own.run.journal)


def test_numbers_of_numpy_are_settings() -> None:
    assert sageserve.load("quickstart", {"fleet.start": np.int64(4)}).fleet.start == 4


def test_mistakes_are_errors_of_ours(tmp_path: Path) -> None:
    class Inner(Unified):
        def __init__(self, scenario: object, layout: object, earlier: object) -> None: ...

    day = sageserve.load("quickstart", SMALL)
    with pytest.raises(ConfigError, match="unknown key"):
        sageserve.load("quickstart", {"fleet.strt": 4})
    with pytest.raises(ConfigError, match="loaded already"):
        sageserve.load(day, {"fleet.start": 4})
    with pytest.raises(ConfigError, match="in a function"):
        sageserve.simulate(day, strategy=Inner)
    with pytest.raises(ConfigError, match="strategy='no such'"):
        sageserve.simulate(day, strategy="no such")
    with pytest.raises(ConfigError, match="seed=-1"):
        sageserve.simulate(day, seed=-1)
    with pytest.raises(TraceError):
        sageserve.simulate(day, trace=tmp_path / "nothing.csv")
    with pytest.raises(ConfigError, match="soon"):
        sageserve.plan(day, "soon")
    with pytest.raises(ConfigError, match="is after the end of the demand"):
        sageserve.plan(day, "99h")
    for length, ahead in (("0s", "1h"), ("5m", "0s")):
        with pytest.raises(ConfigError, match="'0s' has no length"):
            sageserve.forecast(day, bin=length, horizon=ahead)
    with pytest.raises(ConfigError, match="there is no strategy 'reactiv'"):
        sageserve.compare(day, "reactiv")
    with pytest.raises(ConfigError, match=r"fleet\.start: .* is no setting: object cannot be written"):
        sageserve.load("quickstart", {"fleet.start": object()})
    with pytest.raises(ResultError, match="no folder"):
        sageserve.report([])
    assert issubclass(PluginError, sageserve.SageServeError)


@pytest.mark.extended
def test_tables_become_frames_of_pandas_and_polars_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    if not (place := given("SAGESERVE_FRAMES")):
        pytest.skip("set SAGESERVE_FRAMES to a folder with pandas and polars: CONTRIBUTING.md says how")
    monkeypatch.syspath_prepend(place)
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    day = sageserve.load("quickstart", SMALL)
    requests = sageserve.generate(day)
    result = sageserve.simulate(day)
    found = sageserve.compare(day, ["reactive"], seeds=[1, 2])
    coming = sageserve.forecast(day, horizon="15m", quantiles=[0.5])
    for table in (requests, result.requests(), result.timeline(), result.decisions(), found.table(), found.tiers(), coming):
        frame, other = table.to_pandas(), polars.from_arrow(table)
        assert isinstance(frame, pandas.DataFrame)
        assert list(frame.columns) == other.columns == table.column_names
        assert (len(frame), other.height) == (table.num_rows, table.num_rows) != (0, 0)
        assert other.rows(named=True) == table.to_pylist()
    for back in (pa.Table.from_pandas(requests.to_pandas()), polars.from_arrow(requests).to_arrow()):
        again = sageserve.simulate(day, trace=back)
        assert again.summary.tiers == sageserve.simulate(day, trace=requests).summary.tiers
