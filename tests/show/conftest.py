"""Results that reports are made of: one run with decisions and batch work, and comparisons over seeds. Made once.

Read next: `made.py` for summaries with chosen numbers.
"""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from sageserve.cli.columns import WIDTH
from sageserve.cli.main import app
from sageserve.data.results.sweep_folder import Kept
from sageserve.data.scenarios.load import load_scenario
from sageserve.sim.sweep.cell import Bounded, Cell, Finished
from sageserve.sim.sweep.run import sweep
from tests.sim.test_sweep import Here
from tests.worlds import SMALL_FLEET

SMALL = ("workload.generate.requests=4000", "workload.generate.length=45m")
TIGHT = ("workload.generate.requests=20000", "workload.generate.length=1h", "fleet.minimum=1", "fleet.start=1", "fleet.maximum=2")


def called(*arguments: str, settings: tuple[str, ...] = SMALL) -> str:
    """What a command printed."""
    words = [word for one in settings for word in ("--set", one)]
    result = CliRunner().invoke(app, [*arguments, *words], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def fits(text: str, folder: Path) -> bool:
    """Whether no line is too long but those that name a place below the folder: these are there to be copied."""
    return all(len(line) <= WIDTH or str(folder) in line for line in text.splitlines())


def swept(place: Path, seeds: range, *settings: str, bound: bool = False) -> None:
    """A comparison of reactive and siloed as `compare --out` keeps it, played in this process."""
    cells = []
    for seed in seeds:
        for name in ("reactive", "siloed"):
            scenario = load_scenario(SMALL_FLEET, overrides=[*SMALL, *settings, f"strategy.name={name}", f"seed={seed}"])
            cells.append(Cell(f"{name}-seed{seed}", scenario))
        if bound:
            scenario = load_scenario(SMALL_FLEET, overrides=[*SMALL, *settings, f"seed={seed}"])
            cells.append(Cell(f"oracle-seed{seed}", scenario, what="bound"))
    outcomes = sweep(cells, Here(), kept=Kept(place))
    assert all(isinstance(outcome, Finished | Bounded) for outcome in outcomes)


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once: a run whose decisions are blocked, comparisons and single runs.

    `three` has seeds 1 to 3 and the bound, `others` seeds 4 to 6, `four` fleet.start=4; `one` and `two` are runs of these seeds.
    """
    folder = tmp_path_factory.mktemp("results")
    called("simulate", SMALL_FLEET, "--strategy", "reactive", "--out", str(folder / "run"), settings=TIGHT)
    swept(folder / "three", range(1, 4), bound=True)
    swept(folder / "others", range(4, 7))
    swept(folder / "four", range(1, 4), "fleet.start=4")
    for seed, name in ((1, "one"), (2, "two")):
        called("simulate", SMALL_FLEET, "--strategy", "reactive", "--seed", str(seed), "--out", str(folder / name))
    return folder
