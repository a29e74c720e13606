"""Energy and CO2 by hand: watts over what instances held, the grid's grams where and when they drew them; nothing unless given.

Read next: `src/sageserve/sim/results/energy.py`, docs/reference/money.md.
"""

from pathlib import Path

import pytest
from msgspec import UNSET

from sageserve.base.config import Scenario
from sageserve.base.errors import ConfigError, SageServeError
from sageserve.base.units import HOUR, MINUTE
from sageserve.data.billing.carbon import MOST_HOURS, hourly_carbon
from sageserve.data.results.summary import Energy
from sageserve.data.scenarios.load import load_scenario
from sageserve.sim.results.summary import summarise
from sageserve.sim.run import simulate
from tests.core.small import ENGINE, PRICE, row, scenario, trace
from tests.worlds import SMALL_FLEET

POWER = {"idle": 100, "busy": 700}


def played(*, carbon: object = None, power: object = None, at: int = MINUTE) -> Energy | object:
    """One instance of eight GPUs for two hours, three quarters of the eight GPUs of a VM more: six that nothing runs on."""
    stock = {"h100": {"gpus": 16, "price": PRICE}}
    settings = scenario(
        regions={"east": {"gpus": stock}},
        models={
            "big": {"context": 8_000, "engines": {"h100": ENGINE}},
            "small": {"context": 8_000, "engines": {"h100": {**ENGINE, "gpus": 2, "tp": 2}}},
        },
        fleet={"start": 1, "minimum": 1},
        strategy={"name": "fixed"},
    )
    values = settings.model_dump()
    values["gpus"]["h100"]["power"], values["regions"]["east"]["carbon"] = power, carbon
    settings = Scenario.model_validate(values)
    rows = [row(at + k, prompt=7000, output=900) for k in range(40)]
    return summarise(simulate(settings, trace(settings, rows, window=2 * HOUR)), 1.0).energy


def test_kilowatt_hours_are_watts_over_what_was_held() -> None:
    found = played(power=POWER, carbon=400)
    assert isinstance(found, Energy)
    line = found.lines["east/h100"]
    assert 0 < line.busy_gpu_hours < 16
    assert line.busy_gpu_hours + line.other_gpu_hours == pytest.approx(2 * 16)  # two VMs for two hours, whole
    assert line.kwh == pytest.approx(0.7 * line.busy_gpu_hours + 0.1 * line.other_gpu_hours)
    assert found.kg_co2 == pytest.approx(0.4 * found.kwh)
    assert (found.kwh, found.kg_co2) == (line.kwh, line.kg_co2)


def test_an_hour_counts_by_what_was_drawn_in_it() -> None:
    early, late = (played(power=POWER, carbon=[100, 500], at=at) for at in (MINUTE, 70 * MINUTE))
    assert isinstance(early, Energy)
    assert isinstance(late, Energy)
    assert early.kwh == pytest.approx(late.kwh, rel=0.02)
    assert early.kg_co2 is not None
    assert late.kg_co2 is not None
    assert 0.1 < early.kg_co2 / early.kwh < 0.3 < late.kg_co2 / late.kwh < 0.5
    flat = played(power={"idle": 300, "busy": 300}, carbon=[100, 500])  # whatever they do: half of it in each hour
    assert isinstance(flat, Energy)
    assert flat.kg_co2 == pytest.approx(0.3 * flat.kwh)


def test_nothing_is_said_where_nothing_is_given() -> None:
    assert played() is UNSET
    some = played(power=POWER)
    assert isinstance(some, Energy)
    assert some.kg_co2 is None


def test_a_file_is_read_beside_the_scenario_and_mistakes_say_where(tmp_path: Path) -> None:
    power = "gpus: {h100-80gb: {power: {idle: 70, busy: 700}}, a100-80gb: {power: {idle: 60, busy: 400}}}"
    regions = "regions: {eastus: {carbon: grid.csv}, centralus: {carbon: 410.5}}"
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text(f"extends: {SMALL_FLEET}\n{power}\n{regions}\n")
    (tmp_path / "grid.csv").write_text("hour,g_per_kwh\n0,410\n1,390.5\n")
    found = load_scenario(fleet)
    assert (found.regions["eastus"].carbon, found.regions["centralus"].carbon) == ((410.0, 390.5), 410.5)
    (tmp_path / "grid.csv").write_text("hour,g_per_kwh\n0,410\n1,much\n")
    with pytest.raises(SageServeError, match=r"grid\.csv:3: 'much' is no amount"):
        load_scenario(fleet)
    for text, words in {
        f"{power}\nregions: {{eastus: {{carbon: 400}}}}": "no `carbon`, which eastus has",
        "regions: {eastus: {carbon: 400}, centralus: {carbon: 400}}": "carbon without energy",
        f"{power}\ncarbon_price: 85": "a price of CO2 that nobody counts",
        "gpus: {h100-80gb: {power: {idle: 700, busy: 70}}}": "busy 70 W < idle 700 W",
    }.items():
        fleet.write_text(f"extends: {SMALL_FLEET}\n{text}\n")
        with pytest.raises(SageServeError, match=words):
            load_scenario(fleet)
    for text, words in {
        "kwh\n1\n": "no column g_per_kwh",
        "g_per_kwh\n" + "1\n" * (MOST_HOURS + 1): "8,785 hours",
        "g_per_kwh\n1\n\n2\n": r"grid\.csv:3: 0 cells under a header of 1",
        "g_per_kwh\n1,5\n": r"grid\.csv:2: 2 cells under a header of 1",
    }.items():
        (tmp_path / "grid.csv").write_text(text)
        with pytest.raises(ConfigError, match=words):
            hourly_carbon(tmp_path / "grid.csv")
