"""Exact logs of engines drawn at random: bases of 4 to 40 ms, loads of 0.15 to 1.3 of what they can do, and every kind of limit.

On demand, some minutes: CONTRIBUTING.md has the command. Read next: `test_truth.py`.
"""

import os

import numpy as np
import pytest

from sageserve.base.rng import stream
from sageserve.sim.calibration.coefficients import NAMES
from sageserve.sim.calibration.fit.told import TOLD
from sageserve.sim.calibration.judge import judge
from sageserve.sim.calibration.logs import arrivals_of
from sageserve.sim.replay import replay
from tests.sim.calibration.test_truth import Log, fitted, made_log

LIMITS: tuple[dict[str, int | bool], ...] = (
    {},
    {"chunked": False, "max_batched_tokens": 4_096},
    {"max_batched_tokens": 512},
    {"kv_tokens": 12_000},
    {"kv_tokens": 15_000, "prefix_caching": True},
)
ENGINES = 30


def drawn(seed: int) -> Log:
    random = stream(seed, "tests/many-truths")
    low, high = np.log([4, 8, 10, 20, 0.3]), np.log([40, 150, 200, 200, 5])
    base, token, decode, kv, attention = np.exp(random.uniform(low, high)).tolist()
    streamed = random.choice([0.0, random.uniform(0.1, 0.9)])
    eager = random.choice([1e-4, random.uniform(0.2, 3.0)])
    curve = (base * (1 - streamed), max(base * streamed, 1e-4), token, float(eager))
    return Log(
        (*curve, decode, kv, attention, random.uniform(2, 25)),
        random.uniform(0.15, 1.3),
        requests=int(random.integers(200, 500)),
        ramp=bool(random.integers(0, 2)),
        cached=bool(random.integers(0, 3) == 0),
        limits=LIMITS[seed % len(LIMITS)],
    )


@pytest.mark.extended
@pytest.mark.skipif("SAGESERVE_LONG" not in os.environ, reason="some minutes: set SAGESERVE_LONG=1")  # noqa: TID251 # asked for by hand
@pytest.mark.parametrize("seed", range(ENGINES))
def test_what_is_said_to_be_told_is_right(seed: int) -> None:
    log = drawn(seed)
    requests = made_log(log, seed)
    found = fitted(log, requests)
    error = judge(requests, replay(found.profile, arrivals_of(requests)), ~requests.first_half()).e2e_mape
    assert error is not None
    assert error < 0.003
    for name, share, true, our in zip(NAMES, found.spread.values(), log.values, found.values.tolist(), strict=True):
        nearly = abs(our - true) < TOLD * (true if true > 0.01 else 1.0)
        assert share > TOLD or nearly, f"{name} is {our}, not {true}, and said to be known to {share:.1%}"
