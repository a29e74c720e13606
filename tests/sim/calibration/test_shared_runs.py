"""The shared measured runs: a fit of the first half stays within the promised errors on the second half, and the page shows it.

Read next: docs/reference/engine-model.md.
"""

import re
from pathlib import Path
from typing import Final

import pytest

from sageserve.data.measured.files import read_measured
from sageserve.data.measured.runs import MeasuredRun
from sageserve.data.measured.validation import LatencyErrors
from sageserve.sim.calibration.means import validate_means
from sageserve.sim.calibration.validation import validate_run
from tests.extended.conftest import given

ROOT: Final = Path(__file__).resolve().parents[3]
PAGE: Final = re.sub(r"\s+", " ", (ROOT / "docs" / "reference" / "engine-model.md").read_text("utf-8"))


def percent(value: float | None, digits: int = 2, sign: str = "") -> str:
    """As the page writes a share."""
    assert value is not None
    return f"{value * 100:{sign}.{digits}f} %".replace("-", "−").replace("−0.0 %", "+0.0 %")


def cells(errors: LatencyErrors) -> str:
    """A row of the table, without its name."""
    off = (percent(one) for one in (errors.e2e_mape, errors.tpot_mape, errors.ttft_mape))
    aside = (percent(one, sign="+") for one in (errors.e2e_bias, errors.tpot_bias, errors.ttft_bias))
    return " | ".join((*off, *aside))


def halves(errors: LatencyErrors) -> str:
    """E2E, TPOT and TTFT in one cell."""
    assert None not in {errors.e2e_mape, errors.tpot_mape, errors.ttft_mape}
    return " / ".join(f"{100 * (one or 0):.2f}" for one in (errors.e2e_mape, errors.tpot_mape, errors.ttft_mape)) + " %"


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
    assert f"| RTX PRO 6000, no preemption | {cells(held)} |" in PAGE
    assert f"| RTX PRO 6000, from the first half's counters alone | {cells(counters.heldout)} |" in PAGE
    curves, low = verdict.curves, verdict.low_load
    assert curves is not None and low.ttft_error_ms is not None  # noqa: PT018 # as above
    running = f"±{curves.running:.1f} of {curves.running_mean:.0f} | ±{curves.waiting:.1f} of {curves.waiting_mean:.0f}"
    assert f"| RTX PRO 6000 | {halves(verdict.fit)} | {running} | not recorded |" in PAGE
    assert (
        f"RTX PRO 6000, {low.requests} requests, {low.ttft_error_ms:.0f} ms off in the median, {percent(low.ttft_mape, 0)}"
        in PAGE
    )


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
    assert f"| RTX 4090, KV cache full, about 180 preemptions | {cells(held)} |" in PAGE
    assert verdict.preemptions == pytest.approx(180, abs=10)
    full = re.search(r"in (\d+)% of the seconds", verdict.counters.refused)
    assert full is not None
    assert f"refused: in {full[1]} % of the seconds" in PAGE
    curves, low = verdict.curves, verdict.low_load
    assert curves is not None and curves.kv_share is not None and low.ttft_error_ms is not None  # noqa: PT018 # as above
    running = f"±{curves.running:.1f} of {curves.running_mean:.0f} | ±{curves.waiting:.1f} of {curves.waiting_mean:.0f}"
    assert f"| RTX 4090 | {halves(verdict.fit)} | {running} | ±{curves.kv_share * 100:.1f} points |" in PAGE
    assert f"RTX 4090, {low.requests} requests, {low.ttft_error_ms:.0f} ms off, {percent(low.ttft_mape, 0)} in the mean" in PAGE


def test_the_roofline_and_one_measured_point(runs: tuple[MeasuredRun, ...]) -> None:
    found = validate_means([run for run in runs if run.requests is None])
    assert len(found) == 6
    for name, verdict in found.items():
        assert abs(verdict.e2e_error) < 0.10, name
        assert verdict.one_point, name
        assert all(abs(error) < 0.05 for error in verdict.one_point.values()), name
        (after,) = verdict.one_point.values()
        row = [percent(one, 1, "+") for one in (verdict.e2e_error, verdict.tpot_error, verdict.ttft_error, after)]
        titles = {"llama-2-70b": "Llama-2-70B", "mixtral-8x7b": "Mixtral-8x7B", "codellama-34b": "CodeLlama-34B"}
        title = next(shown for known, shown in titles.items() if known in name)
        assert f"| {title}, {verdict.tp} GPUs, {name.rpartition('-')[2]} | {' | '.join(row)} |" in PAGE, (name, row)


@pytest.mark.extended
@pytest.mark.parametrize(("folder", "title"), [("dense", "dense"), ("moe", "mixture of experts")])
def test_the_page_shows_how_an_engine_of_our_own_is_fitted(folder: str, title: str) -> None:
    if not given("SAGESERVE_LONG"):
        pytest.skip("six fits, a minute of CPU: set SAGESERVE_LONG to run it")
    for measured in read_measured(ROOT / "bench" / "gpu" / "runs" / "h200" / folder):
        verdict = validate_run(measured).verdict
        held, curves = verdict.heldout, verdict.curves
        assert curves is not None
        share = measured.name.rpartition("load")[2]
        what = f"| {title}, {share}{' of what it can do' if (title, share) == ('dense', '0.5') else ''}"
        row = f"{percent(held.e2e_mape)} | {percent(held.tpot_mape)} | {percent(held.ttft_mape, 1)}"
        assert f"{what} | {row} | ±{curves.running:.1f} of {curves.running_mean:.0f} |" in PAGE
