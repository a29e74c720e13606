"""The published files, read in full, and the generated week beside the one it was calibrated on."""

import csv
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from sageserve.base.config import Scenario
from sageserve.base.records import Trace
from sageserve.base.units import HOUR, SECOND
from sageserve.data.scenarios.load import load_scenario
from sageserve.data.traces.options import TraceOptions
from sageserve.data.traces.read import read_as_is, read_trace
from sageserve.data.workload.generate import generate

MODELS = {
    "llama-2-70b": "Llama-2-70B(A)",
    "bloom-176b": "Bloom-176B(B)",
    "llama-3.1-8b": "Llama-3.1-8B(C)",
    "llama-3.2-3b": "Llama-3.2-3B(D)",
}
DAILY = ("llama-2-70b", "llama-3.1-8b")  # the other IW series go on and off, or were recorded for two days
DIGITS = 0.05  # the quantiles were digitised to 5 %


@pytest.fixture(scope="module")
def week() -> Scenario:
    return load_scenario("o365-week", overrides=["workload.generate.requests=400000"])


@pytest.fixture(scope="module")
def generated(week: Scenario) -> Trace:
    return generate(week)


@pytest.mark.parametrize(("name", "rows", "last"), [("conv", 19_366, 3501.722), ("code", 8_819, 3435.948)])
def test_azure_2023_is_read_whole(shared_data: Path, name: str, rows: int, last: float) -> None:
    path = shared_data / "azure2023" / f"AzureLLMInferenceTrace_{name}.csv.gz"
    trace, report = read_as_is(path)
    assert (report.format, report.rows, report.kept, report.bad) == ("azure", rows, rows, ())
    assert trace.arrival[0] == 0
    assert trace.arrival[-1] / SECOND == pytest.approx(last, abs=0.01)


def test_azure_fits_a_scenario_with_everything_filled_in(shared_data: Path, week: Scenario) -> None:
    path = shared_data / "azure2023" / "AzureLLMInferenceTrace_conv.csv.gz"
    trace, _ = read_trace(path, week, TraceOptions(maps=("*=llama-2-70b",)))
    assert len(trace.check()) == 19_366
    assert set(trace.model.tolist()) == {0}
    regions = np.bincount(trace.region) / len(trace)
    assert regions == pytest.approx(np.array([43, 30, 28]) / 101, abs=0.02)


def test_servegens_week_is_read_whole(shared_data: Path, week: Scenario) -> None:
    path = shared_data / "servegen_week" / "tiered_7d.parquet"
    maps = ("m-large=llama-2-70b", "m-mid=llama-3.1-8b", "m-small=llama-3.2-3b", "deepseek-r1=bloom-176b")
    trace, report = read_trace(path, week, TraceOptions(maps=(*maps, "IW=iw-n", "NIW=niw")))
    assert (report.rows, report.kept) == (3_624_862, 3_624_862)
    assert trace.window == 7 * 24 * HOUR
    counts = dict(zip(trace.names.models, np.bincount(trace.model).tolist(), strict=True))
    assert counts["llama-2-70b"] == 967_540
    assert np.bincount(trace.tier).tolist() == [0, 2_610_313, 1_014_549]


def test_the_built_in_traffic_is_what_the_script_prints(shared_data: Path, repo_root: Path) -> None:
    script = repo_root / "bench" / "calibrate_traffic.py"
    spec = importlib.util.spec_from_file_location("calibrate_traffic", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    shipped = repo_root / "src" / "sageserve" / "data" / "builtin" / "traffic-o365.yaml"
    assert module.render(shared_data / "o365_nov2024") == shipped.read_text()


def test_iw_is_72_percent(generated: Trace) -> None:
    assert np.mean(generated.tier < 2) == pytest.approx(0.72, abs=0.003)


@pytest.mark.parametrize("model", DAILY)
def test_the_generated_week_follows_the_real_one(shared_data: Path, generated: Trace, model: str) -> None:
    with (shared_data / "o365_nov2024" / "prompt_tokens_per_hour_nov2024.csv").open() as file:
        real = np.array([float(row[f"{MODELS[model]}_prod"]) for row in csv.DictReader(file)])
    mine = (generated.model == generated.names.models.index(model)) & (generated.tier < 2)
    made = np.bincount(generated.arrival[mine] // HOUR, weights=generated.prompt[mine], minlength=168)
    assert np.corrcoef(real, made)[0, 1] > 0.8


@pytest.mark.parametrize("model", MODELS)
def test_the_generated_lengths_follow_the_real_ones(shared_data: Path, generated: Trace, model: str) -> None:
    known = json.loads((shared_data / "o365_nov2024" / "lengths.json").read_text())
    mine = generated.model == generated.names.models.index(model)
    for column, key in ((generated.prompt, "prompt_tokens"), (generated.output, "output_tokens")):
        for quantile, tokens in zip(known["quantiles"], known[key][model], strict=True):
            made = float(np.quantile(column[mine], quantile))
            assert made == pytest.approx(tokens, rel=DIGITS, abs=1)


def test_regions_share_the_week_as_measured(generated: Trace) -> None:
    assert np.bincount(generated.region) / len(generated) == pytest.approx(np.array([43, 30, 28]) / 101, abs=0.005)
