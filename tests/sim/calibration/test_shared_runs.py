"""The shared measured runs: a fit of the first half stays within the promised errors on the second half."""

from pathlib import Path

import pytest

from sageserve.data.measured.files import read_measured
from sageserve.data.measured.runs import MeasuredRun
from sageserve.sim.calibration.means import validate_means
from sageserve.sim.calibration.validation import validate_run


@pytest.fixture(scope="module")
def runs(shared_data: Path) -> tuple[MeasuredRun, ...]:
    folder = shared_data / "validation"
    if not folder.is_dir():
        pytest.skip("the measured runs of engines are not on this machine")
    return read_measured(folder)


def _of(runs: tuple[MeasuredRun, ...], gpu: str) -> MeasuredRun:
    return next(run for run in runs if run.gpu == gpu and run.requests is not None)


def test_an_engine_without_preemption(runs: tuple[MeasuredRun, ...]) -> None:
    verdict = validate_run(_of(runs, "RTXPRO6000")).verdict
    held, counters = verdict.heldout, verdict.counters
    assert held.requests == 150
    assert held.e2e_mape is not None and held.e2e_mape < 0.02  # noqa: PT018 # a bound of what may be missing
    assert held.tpot_mape is not None and held.tpot_mape < 0.03  # noqa: PT018 # as above
    assert held.ttft_mape is not None and held.ttft_mape < 0.03  # noqa: PT018 # as above
    assert held.e2e_bias is not None and abs(held.e2e_bias) < 0.01  # noqa: PT018 # as above
    assert counters is not None and counters.heldout is not None  # noqa: PT018 # as above
    assert counters.heldout.e2e_mape is not None and counters.heldout.e2e_mape < 0.03  # noqa: PT018 # as above


def test_an_engine_that_preempts(runs: tuple[MeasuredRun, ...]) -> None:
    verdict = validate_run(_of(runs, "RTX4090")).verdict
    held = verdict.heldout
    assert verdict.preemptions > 100
    assert held.e2e_mape is not None and held.e2e_mape < 0.02  # noqa: PT018 # as above
    assert held.tpot_mape is not None and held.tpot_mape < 0.05  # noqa: PT018 # as above
    assert held.ttft_mape is not None and held.ttft_mape < 0.03  # noqa: PT018 # as above
    assert held.e2e_bias is not None and abs(held.e2e_bias) < 0.01  # noqa: PT018 # as above
    assert verdict.counters is not None
    assert "preempts" in verdict.counters.refused


def test_the_roofline_and_one_measured_point(runs: tuple[MeasuredRun, ...]) -> None:
    found = validate_means([run for run in runs if run.requests is None])
    assert len(found) == 6
    for name, verdict in found.items():
        assert abs(verdict.e2e_error) < 0.10, name
        assert verdict.one_point, name
        assert all(abs(error) < 0.05 for error in verdict.one_point.values()), name
