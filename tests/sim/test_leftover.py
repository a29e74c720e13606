"""The work a strategy leaves behind at the end of the window, against sums worked out by hand.

Read next: `test_summary.py` for the other numbers of a summary.
"""

import pytest

from sageserve.base.units import HOUR, MINUTE
from sageserve.core.perf import prefill_work, request_work
from sageserve.sim.results.summary import summarise, work_gpu_hours
from sageserve.sim.run import simulate
from tests.sim.test_summary import scenario, trace


def owed(*rows: tuple[int, str, str, int, int]) -> tuple[float, float, float]:
    """GPU-hours owed at the end of a minute, and the decode and prefill work of 500 tokens after 100 in GPU-hours."""
    settings = scenario()
    run = simulate(settings, trace(settings, *rows, window=MINUTE))
    profile = run.layout.profiles[0]
    scale = 8 / HOUR
    prefill = prefill_work(profile, 100, 0)
    return float(work_gpu_hours(run).sum()), (request_work(profile, 100, 0, 500.0) - prefill) * scale, prefill * scale


def test_nothing_is_owed_for_what_was_done_or_refused() -> None:
    assert owed((1_000, "job", "east", 100, 50), (59_000, "fast", "east", 1000, 3))[0] == 0.0


def test_a_request_without_a_first_token_is_owed_whole() -> None:
    left, decode, prefill = owed((59_995, "job", "east", 100, 500))  # its first token would come 5 ms after the end
    assert left == pytest.approx(decode + prefill)
    assert left > 0


def test_of_a_request_in_decoding_the_rest_is_owed() -> None:
    left, decode, _ = owed((56_000, "job", "east", 100, 500))  # first token at 56.01 s, last at 61 s: 1 of 4.99 s is left
    assert left == pytest.approx(decode * 1.0 / 4.99)


def test_the_summary_says_what_is_owed() -> None:
    settings = scenario()
    rows = [(59_000 + k, "job", "east", 100, 800) for k in range(400)]  # 256 at a time: most wait at the end
    run = simulate(settings, trace(settings, *rows, window=MINUTE))
    assert summarise(run, 1.0).after_window.work_gpu_hours == pytest.approx(work_gpu_hours(run).sum(), abs=1e-6)
    assert work_gpu_hours(run).sum() > 1e-5
