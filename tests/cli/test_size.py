"""What follows on a sizing: the scenario it writes, and the command to go on with. Plays nothing.

Read next: `cli/size.py`; tests/docs/test_how_many_gpus.py for the command as a user types it.
"""

import json
from pathlib import Path
from typing import Final

import msgspec
import pytest
from typer.testing import CliRunner

from sageserve.base.errors import ConfigError
from sageserve.cli import size as command
from sageserve.cli.main import app
from sageserve.data.scenarios.load import load_scenario
from sageserve.data.traces.options import TraceOptions
from sageserve.sim.sizing import run
from sageserve.sim.sizing.plays import Interrupted
from sageserve.sim.sizing.records import FleetLine, Growth, QuotaLine, ReserveLine, Sizing, Survival
from tests.worlds import SMALL_FLEET

PLAIN: Final = TraceOptions()
POOL: Final = "eastus/llama-2-70b/h100-80gb"
SIZED: Final = Sizing(
    fleet=[FleetLine("eastus", "llama-2-70b", "h100-80gb", 17, 136)],
    quota={"eastus/h100-80gb": QuotaLine(136, 17, 128, 8), "centralus/h100-80gb": QuotaLine(0, 0, 128, 0)},
    cost_per_month_usd=1.0,
    proof={},
    cost={},
    less=[],
    safety=0.999,
    windows=20,
    requests=100,
    plays=20,
    scenario=SMALL_FLEET,
)


def following(options: TraceOptions = PLAIN, to: Path | None = None, **given: str) -> str:
    flags = {f"--{name.replace('_', '-')}": value for name, value in given.items()}
    return command._next(["a b.yaml", "--set", "fleet.minimum=1"], {**command.USUAL, **flags}, options, to)


def test_the_next_command_asks_the_same_again_and_keeps_the_answer() -> None:
    assert following() == "sageserve size 'a b.yaml' --set fleet.minimum=1 -o sized.yaml"
    asked = following(safety="99.9%", for_strategy="foresight", growth="1.5", windows="30", survive="vm", lead_time="12w")
    flags = "--safety 99.9% --for-strategy foresight --growth 1.5 --survive vm --lead-time 12w --windows 30"
    assert asked == f"sageserve size 'a b.yaml' --set fleet.minimum=1 {flags} -o sized.yaml"


def test_what_was_written_is_played_with_the_traffic_it_is_for() -> None:
    trace = TraceOptions(files=(Path("t.csv"),), load=2.0)
    assert following(to=Path("s.yaml"), growth="1.5") == "sageserve simulate s.yaml"  # the file has the growth
    assert following(trace, Path("s.yaml"), growth="1.5") == "sageserve simulate s.yaml --trace t.csv --load 3"
    assert following(trace, growth="1.5").endswith("--growth 1.5 --trace t.csv --load 2 -o sized.yaml")


def written(path: Path, sizing: Sizing, options: TraceOptions = PLAIN) -> Path:
    settings = load_scenario(SMALL_FLEET)
    command._write(path, SMALL_FLEET, settings, ["tiers.iw-f.ttft=3s"], sizing, options, replace=False)
    return path


def test_the_file_has_the_fleet_the_stock_and_the_traffic_of_the_answer(tmp_path: Path) -> None:
    grown = msgspec.structs.replace(SIZED, growth=Growth(1.5, 100, 1.0), survive=Survival("vm", 100, 1.0))
    found = load_scenario(written(tmp_path / "sized.yaml", grown))
    assert (found.strategy.name, found.fleet.starts, found.fleet.maximum) == ("fixed", {POOL: 17}, 17)
    stocks = {name: region.gpus["h100-80gb"].gpus for name, region in found.regions.items()}
    assert stocks == {"eastus": 136, "centralus": 128}
    assert found.workload.generate.requests == 600_000  # 1.5 times those of the scenario
    assert found.tiers["iw-f"].patience == 3_000_000
    assert "99.9% safe, for 1.5 times the traffic, also without any one VM" in found.about
    trace = TraceOptions(files=(Path("t.csv"),))
    assert load_scenario(written(tmp_path / "t.yaml", grown, trace)).workload.generate.requests == 400_000


def test_a_strategy_is_given_its_maximum_and_what_is_best_reserved(tmp_path: Path) -> None:
    best = {"eastus/h100-80gb": ReserveLine(64, 1.0)}
    sizing = msgspec.structs.replace(SIZED, strategy="foresight", reserve=best)
    found = load_scenario(written(tmp_path / "room.yaml", sizing))
    assert (found.strategy.name, found.fleet.maximum, found.fleet.starts) == ("foresight", 17, {})
    assert (found.regions["eastus"].gpus["h100-80gb"].reserved, found.regions["eastus"].gpus["h100-80gb"].gpus) == (64, 136)
    assert found.fleet.endpoints is None, "there is one endpoint, and the maximum for all is its own"
    lines = [*SIZED.fleet, FleetLine("centralus", "llama-2-70b", "h100-80gb", 5, 40)]
    found = load_scenario(written(tmp_path / "more.yaml", msgspec.structs.replace(sizing, fleet=lines)))
    assert [found.fleet.at(region, "llama-2-70b").maximum for region in ("eastus", "centralus")] == [17, 5]


def test_one_more_nine_of_a_strategy_is_refused_and_not_forgotten() -> None:
    asked = ["size", SMALL_FLEET, "--for-strategy", "reactive", "--one-more-nine"]
    with pytest.raises(ConfigError, match="does not depend on the safety"):
        CliRunner().invoke(app, asked, catch_exceptions=False)
    asked = ["size", SMALL_FLEET, "--safety", "99.9999999%", "--one-more-nine"]
    with pytest.raises(ConfigError, match="it would be 100%"):
        CliRunner().invoke(app, asked, catch_exceptions=False)


@pytest.mark.parametrize(
    ("stopped", "missing", "gpus", "kept"),
    [
        (0, "nothing is sized", None, False),
        (1, "without --growth and --survive and --one-more-nine, and {} is not written", 136, False),
        (2, "without --survive and --one-more-nine, and {} is not written", 144, False),
        (3, "without --one-more-nine\n", 152, True),
    ],
)
def test_what_was_found_before_somebody_stopped_it_is_given(
    stopped: int, missing: str, gpus: int | None, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([136, 144, 152][:stopped])

    def solve(*_: object) -> Sizing:
        if (gpus := next(answers, None)) is None:
            raise Interrupted("stopped before there was an answer")
        return msgspec.structs.replace(SIZED, quota={"eastus/h100-80gb": QuotaLine(gpus, gpus // 8, 128, gpus - 128)})

    monkeypatch.setattr(run, "size", solve)
    monkeypatch.setattr(command, "compile_once", lambda: None)
    to = tmp_path / "sized.yaml"
    asked = ["size", SMALL_FLEET, "--growth", "1.5", "--survive", "vm", "--one-more-nine", "--json", "-o", str(to)]
    found = CliRunner().invoke(app, asked)
    assert found.exit_code == command.INTERRUPTED
    assert missing.format(to) in found.stderr
    answer = json.loads(found.stdout) if gpus else None
    assert (answer and sum(line["gpus"] for line in answer["quota"].values()), to.exists()) == (gpus, kept)
