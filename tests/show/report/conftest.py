"""Runs that reports are made of, and the folder that screenshots are kept in.

Read next: `test_report.py` for the numbers, `test_report_browser.py` for the page in a browser.
"""

import os
from pathlib import Path

import pytest

from sageserve.data.results.sweep_folder import Kept
from sageserve.data.scenarios.load import load_scenario
from sageserve.show.report import write_report
from sageserve.sim.sweep.cell import Bounded, Cell, Finished
from sageserve.sim.sweep.run import sweep
from tests.sim.test_sweep import Here
from tests.worlds import SMALL_FLEET

NAMES = ("reactive", "lt-ua", "foresight")
SETTINGS = (
    *("workload.generate.requests=16000", "workload.generate.length=2h", "fleet.minimum=1", "fleet.start=1", "fleet.maximum=3"),
    "tiers.iw-f.itl=200ms",
    "workload.generate.bursts=[{at: 40m, length: 20m, factor: 3, tiers: [iw-f, iw-n]}]",
)


def cells() -> list[Cell]:
    """Three strategies that keep everything, and the bound."""
    found = [
        Cell(f"{name}-seed1", load_scenario(SMALL_FLEET, overrides=[*SETTINGS, f"strategy.name={name}"]), whole=True)
        for name in NAMES
    ]
    return [*found, Cell("oracle-seed1", load_scenario(SMALL_FLEET, overrides=SETTINGS), what="bound")]


@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a comparison with requests, timelines and journals."""
    folder = tmp_path_factory.mktemp("swept")
    outcomes = sweep(cells(), Here(), kept=Kept(folder))
    assert all(isinstance(outcome, Finished | Bounded) for outcome in outcomes)
    return folder


@pytest.fixture(scope="session")
def runs(swept: Path) -> dict[str, Path]:
    """The run folders of the comparison, by strategy."""
    return {name: next(swept.glob(f"{name}-seed1-*")) for name in NAMES}


@pytest.fixture(scope="session")
def compared(swept: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the comparison."""
    page = tmp_path_factory.mktemp("pages") / "compared.html"
    write_report([swept], page)
    return page


@pytest.fixture(scope="session")
def alone(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of one run."""
    page = tmp_path_factory.mktemp("pages") / "alone.html"
    write_report([runs["foresight"]], page)
    return page


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots go: SAGESERVE_PICTURES, to keep them as build products, or a folder that is forgotten."""
    given = os.environ.get("SAGESERVE_PICTURES")  # noqa: TID251  # a test run is told where its products go
    folder = Path(given) if given else tmp_path_factory.mktemp("pictures")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
