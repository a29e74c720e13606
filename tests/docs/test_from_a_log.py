"""The walk from a log to GPUs, dollars and a report: a short log in this environment, and a million rows from a wheel on demand.

Read next: docs/how-to/from-a-log.md, `pages.py`.
"""

import os
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

import pytest

from sageserve.data.scenarios.load import load_scenario
from tests.docs.conftest import Typed
from tests.docs.pages import Step, agree, do, steps
from tests.extended.conftest import given
from tests.installed.conftest import Installed, install

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "from-a-log.md"
WHOLE: Final = "make_log 1000000 8"
SHORT: Final = "make_log 1000 0.1"
BOUGHT: Final = "to have"


def walk(
    page: str, folder: Path, programs: Path, left_out: Collection[str] = (), typed: Typed | None = None
) -> Iterator[tuple[Step, str]]:
    """Every step and what it printed, with the programs of an environment first, and without some variables of this one."""
    around = {name: value for name, value in os.environ.items() if name not in left_out}  # noqa: TID251 # as in a shell
    own = {"PATH": f"{programs}{os.pathsep}{around['PATH']}", "HOME": str(folder), "COLUMNS": "100", "LC_ALL": "C.UTF-8"}
    for step in steps(page):
        yield step, do(step, folder, around | own) if typed is None else typed(step, around | own)


def test_a_log_becomes_gpus_by_type_and_region_dollars_and_a_report(tmp_path: Path, typed: Typed) -> None:
    page = PAGE.read_text("utf-8")
    assert WHOLE in page
    short = page.replace(WHOLE, SHORT)
    printed = {step.text: said for step, said in walk(short, tmp_path, Path(sys.executable).parent, typed=typed)}
    (sizing,) = [said for text, said in printed.items() if text.startswith("sageserve size")]
    bought = {line.split()[0]: line.split()[-1] for line in sizing.partition(BOUGHT)[2].splitlines() if "/h100-80gb " in line}
    assert set(bought) == {"us-east/h100-80gb", "eu-west/h100-80gb"}
    assert sum(float(dollars.replace(",", "")) for dollars in bought.values()) > 0
    assert load_scenario(tmp_path / "sized.yaml").strategy.name == "fixed"
    report = (tmp_path / "plan-of-june" / "report.html").read_text("utf-8")
    assert "fixed" in report
    assert "<script src=" not in report


@pytest.mark.extended
def test_a_million_rows_from_a_wheel(tmp_path: Path, repo_root: Path) -> None:
    if not given("SAGESERVE_LONG"):
        pytest.skip("some minutes: set SAGESERVE_LONG to run it")
    place = tmp_path / "wheel"
    place.mkdir()
    install(repo_root, place)
    ours = {"PYTHONPATH", "VIRTUAL_ENV", "NUMBA_CACHE_DIR", "XDG_CACHE_HOME"}
    for step, said in walk(PAGE.read_text("utf-8"), tmp_path, Installed(place).program.parent, ours):
        assert not step.shown or agree(step.shown, said), f"line {step.shown_line}: {step.text}\nprints\n{said}"
