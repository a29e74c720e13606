"""The user's own code in results: an edited strategy, or a module it imports, gives another key and is played again.

Read next: `tests/core/test_own_code.py`.
"""

import importlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sageserve.base.config import Scenario
from sageserve.cli.main import app
from sageserve.data.own_code import own_code
from sageserve.data.results.plans import scenario_hash
from sageserve.data.results.sweep_folder import GENERATED, Kept, key_of
from sageserve.data.results.sweep_read import read_sweep
from sageserve.data.scenarios.load import load_scenario
from sageserve.sim.sweep.cell import Cell, Failed, Finished, Outcome
from sageserve.sim.sweep.run import sweep
from tests.sim.test_sweep import SMALL, Here

RULE = """from sageserve.plugins import Unified
import scale_parts.numbers

class Mine(Unified):
    def __init__(self, scenario, layout, earlier): ...
    @staticmethod
    def initial(scenario, layout):
        return (scale_parts.numbers.START,) * len(layout.pools)
    def handle(self, now, event, fleet): ...
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a strategy in two modules, the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "scale_parts").mkdir()
    (tmp_path / "scale_parts" / "numbers.py").write_text("START = 3\n", "utf-8")
    (tmp_path / "scale_rule.py").write_text(RULE, "utf-8")
    yield tmp_path
    forget()


def forget() -> None:
    """As a new process would begin."""
    for name in [name for name in sys.modules if name.startswith("scale_")]:
        del sys.modules[name]
    importlib.invalidate_caches()


def mine(seed: int = 1) -> Scenario:
    return load_scenario("quickstart", overrides=[*SMALL, "strategy.name=scale_rule:Mine", f"seed={seed}"])


def edit(here: Path, start: int) -> None:
    (here / "scale_parts" / "numbers.py").write_text(f"START = {start}\n", "utf-8")


def test_a_key_changes_with_the_code_and_with_what_it_imports(here: Path) -> None:
    first = key_of(mine(), GENERATED, "")
    forget()
    assert key_of(mine(), GENERATED, "") == first
    hashed = scenario_hash(mine())
    edit(here, 4)
    forget()
    second = key_of(mine(), GENERATED, "")
    assert second != first
    assert scenario_hash(mine()) != hashed
    (here / "scale_rule.py").write_text(RULE + "# a comment counts too\n", "utf-8")
    forget()
    assert key_of(mine(), GENERATED, "") not in {first, second}
    assert own_code(load_scenario("quickstart")) == {}


def test_a_file_edited_after_its_import_counts_as_it_was(here: Path) -> None:
    before = own_code(mine())
    edit(here, 9)
    assert own_code(mine()) == before
    importlib.reload(sys.modules["scale_parts.numbers"])
    assert own_code(mine()) != before


def test_a_sweep_plays_an_edited_strategy_again_and_shows_it_alone(here: Path) -> None:
    kept, player = Kept(here / "out"), Here()
    (first,) = sweep([Cell("scale_rule:Mine-seed1", mine())], player, kept=kept)
    forget()
    (again,) = sweep([Cell("scale_rule:Mine-seed1", mine())], player, kept=kept)
    assert isinstance(first, Finished)
    assert again == first
    assert player.played == ["scale_rule:Mine-seed1"], "what is kept is not played again"
    edit(here, 4)
    forget()
    newer = sweep([Cell("scale_rule:Mine-seed2", mine(2))], player, kept=kept)[0]
    assert player.played == ["scale_rule:Mine-seed1", "scale_rule:Mine-seed2"]
    assert isinstance(newer, Finished)
    assert newer.summary.instance_hours.total > first.summary.instance_hours.total
    found = read_sweep(here / "out")
    assert {name: list(seeds) for name, seeds in found.runs.items()} == {"scale_rule:Mine": [2]}, "not with seeds of older code"
    assert found.left == 1


def test_a_worker_that_found_other_code_has_no_result(here: Path) -> None:
    class Elsewhere(Here):
        def run(self, cells: Sequence[Cell], interrupted: Callable[[], bool]) -> Iterator[tuple[int, Outcome]]:
            edit(here, 4)
            forget()
            yield from super().run(cells, interrupted)

    (outcome,) = sweep([Cell("mine", mine())], Elsewhere())
    assert isinstance(outcome, Failed)
    assert outcome.mistake


def test_a_summary_says_which_code_it_is_of(here: Path) -> None:
    asked = [
        "simulate",
        "quickstart",
        "--json",
        "--strategy",
        "scale_rule:Mine",
        *(word for one in SMALL for word in ("--set", one)),
    ]
    done = CliRunner().invoke(app, asked, catch_exceptions=False)
    assert list(json.loads(done.stdout)["own_code"]) == ["scale_rule:Mine"]
