"""Errors are told apart by prompt, company and time, so that one sees where they lie.

Read next: `src/sageserve/sim/calibration/judge.py`.
"""

import numpy as np
import pytest

from sageserve.base.units import SECOND
from sageserve.data.measured.runs import MeasuredRequests
from sageserve.sim.calibration.judge import judge_parts
from sageserve.sim.replay import Replayed

N = 90
PROMPT = np.tile([100, 500, 2000], N // 3)
E2E = np.full(N, SECOND)
MEASURED = MeasuredRequests(np.arange(N) * SECOND // 2, PROMPT, np.full(N, 10), E2E // 10, E2E // 10, E2E)


def replayed(e2e: object) -> Replayed:
    took = np.asarray(e2e, np.int64)
    return Replayed(MEASURED.ttft, MEASURED.tpot, took, MEASURED.arrival + took, 0)


def test_an_error_of_long_prompts_is_found_there_and_nowhere_else() -> None:
    chosen = ~MEASURED.first_half()
    parts = judge_parts(MEASURED, replayed(np.where(PROMPT == 2000, 1.2, 1.0) * E2E), chosen)
    by = {name: [part for part in parts if part.by == name] for name in ("prompt", "company", "time")}
    assert all(sum(part.requests for part in found) == 45 for found in by.values())
    assert by["prompt"][-1].low == by["prompt"][-1].high == 2000
    assert by["prompt"][-1].e2e_mape == pytest.approx(0.2)
    assert by["prompt"][0].e2e_mape == 0.0
    assert [part.e2e_bias for part in by["time"]] == pytest.approx([1 / 15] * 3, abs=0.01)
    assert by["time"][0].low == pytest.approx(22.5), "seconds since the first arrival of the run"
    assert len(by["company"]) == 1, "everybody met one other"


def test_an_error_that_grows_is_found_in_time() -> None:
    parts = judge_parts(MEASURED, replayed(E2E * np.linspace(1.0, 1.3, N)), np.ones(N, np.bool_))
    errors = [part.e2e_mape or 0.0 for part in parts if part.by == "time"]
    assert errors == sorted(errors)
    assert errors[-1] > 4 * errors[0]


def test_nothing_is_told_of_nobody() -> None:
    assert judge_parts(MEASURED, replayed(E2E), np.zeros(N, np.bool_)) == ()
