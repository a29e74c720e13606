"""Every `--json` is JSON that strict readers take: null where a number does not exist, never NaN or Infinity.

The inputs are those where numbers go missing: two requests of one token, so that there is no TPOT, no percentile and hours
without any demand, and a series of zeros. Read next: `tests/test_tidy.py` for the rule on `json.dumps`.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sageserve.cli.main import app
from sageserve.data.measured.write import write_measured
from tests.installed.commands import loaded
from tests.sim.calibration.made import made_run
from tests.worlds import SMALL_FLEET

FLEET = (SMALL_FLEET, "--trace", "{trace}")
RUNS: dict[str, tuple[str, ...]] = {
    "simulate": (*FLEET, "--out", "{folder}/run"),
    "compare": (*FLEET, "--strategies", "siloed,reactive", "--seeds", "1,2", "--out", "{folder}/sweep"),
    "show": ("{folder}/run",),
    "costs": ("{folder}/run",),
    "diff": ("{folder}/sweep", "{folder}/sweep"),
    "explain": ("{folder}/run", "eastus/llama-2-70b/h100-80gb", "--at", "15m"),
    "plan make": (*FLEET, "--at", "15m", "-o", "{folder}/plan.json"),
    "plan show": ("{folder}/plan.json",),
    "forecast": ("{folder}/zeros.csv",),
    "validate": ("--data", "{folder}/measured"),
    "scenario show": (SMALL_FLEET,),
    "scenario list": (),
    "profile list": (),
    "profile show": ("llama-2-70b/h100-80gb/tp8",),
    "profile compare": ("llama-2-70b/h100-80gb/tp8", "llama-2-70b/a100-80gb/tp8"),
    "trace inspect": ("{trace}",),
    "trace formats": (),
    "key new": ("somebody",),
    "swarm": ("--seeds", "2", "--workers", "1"),
}
"""In the order in which one writes what the next reads."""

ELSEWHERE = {
    "backtest": "plays some thirty runs; written by msgspec, read in tests/sim/backtest",
    "doctor": "needs a Prometheus; its lines are written by msgspec",
    "reproduce": "plays studies for minutes; written as compare's",
    "watch": "needs a Prometheus; its lines are read in tests/cli/test_watch_lines.py",
    "shadow-report": "needs a watched fleet; read in tests/show/shadow",
    "plan diff": "needs two plans; read in tests/cli/test_plan_review.py",
    "status": "needs a running fleet",
    "batch status": "needs a running gateway",
    "batch backup": "needs a queue; read in tests/live/store/test_backup.py",
    "batch restore": "likewise",
    "batch erase": "needs a running fleet",
    "rollout begin": "likewise; read in tests/live/test_rollout.py",
    "rollout show": "likewise",
    "rollout stop": "likewise",
    "rollout back": "likewise",
    "apply": "needs a watched fleet that is acted on; read in tests/cli/test_apply.py",
    "hub publish": "needs a plan of a fleet with targets; read in tests/cli/test_hub.py",
    "hub status": "needs reports of agents; read in tests/cli/test_hub.py",
    "promote": "needs a watched fleet; read in tests/cli/test_acting.py",
    "reload": "needs a running fleet",
    "calibrate benchmark": "needs an engine",
    "profile fit": "needs a table of points; read in tests/sim/test_point_fit.py",
    "size": "plays a hundred windows; written by msgspec, read in tests/sim/test_sizing.py",
    "tune": "plays some fifteen runs; written by msgspec",
}


def commands(command: object, *path: str) -> Iterator[str]:
    if any("--json" in option.opts for option in getattr(command, "params", ())):
        yield " ".join(path)
    for name, each in getattr(command, "commands", {}).items():
        yield from commands(each, *path, name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs, and the outputs of the commands so far."""
    path = tmp_path_factory.mktemp("json")
    (path / "two.csv").write_text("arrival_s,model,prompt_tokens,output_tokens\n0,llama-2-70b,100,1\n1200,llama-2-70b,100,1\n")
    (path / "zeros.csv").write_text("minute,demand\n" + "".join(f"{5 * i},0\n" for i in range(40)))
    write_measured(path / "measured", [made_run(requests=100, seconds=30)])
    return path


def test_every_command_with_json_is_tried_or_has_a_reason() -> None:
    found = set(commands(loaded()))
    assert found == {*RUNS, *ELSEWHERE}, "add it to RUNS, or to ELSEWHERE with the reason"


def refuse(word: str) -> object:
    raise AssertionError(f"{word} is no JSON")


def test_every_answer_is_strict_json(folder: Path) -> None:
    for command, arguments in RUNS.items():
        given = [each.format(folder=folder, trace=folder / "two.csv") for each in arguments]
        result = CliRunner().invoke(app, [*command.split(), *given, "--json"], catch_exceptions=False)
        assert result.exit_code == 0, f"{command}: {result.stderr}"
        assert json.loads(result.stdout, parse_constant=refuse) is not None, command
