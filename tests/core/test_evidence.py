"""Evidence that an endpoint is too full: one look where metrics are quiet, several where they are noisy, however much is over.

Read next: `src/sageserve/core/strategies/evidence.py`.
"""

from math import exp, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sageserve.base.rng import stream
from sageserve.base.units import SECOND
from sageserve.core.events import EndpointSeen, Observed
from sageserve.core.strategies.evidence import Evidence

MARK = 0.8
SCRAPE = 30 * SECOND


def watched(truth: list[float], noise: float, seed: int = 1, *, blind: bool = False) -> tuple[Evidence, list[bool]]:
    """Scrapes of one endpoint that may be 0.8 full; at each, whether a look above that is to be believed."""
    evidence, draw, told = Evidence(1, 0.1), stream(seed, "evidence"), []
    for k, full in enumerate(truth):
        seen = full * exp(noise * draw.standard_normal())
        event = Observed(k * SCRAPE, (EndpointSeen(seen, 0.0, seen),), (0,), (0,) if blind else ())
        for _ in range(2):  # a strategy looks more often than engines are scraped
            evidence.see(event, lambda _, seen=seen: log(seen / MARK))  # type: ignore[misc] # bound here
        told.append(seen > MARK and evidence.is_enough(0))
        if told[-1]:
            evidence.used(0)
    return evidence, told


@given(st.floats(0.3, 1.5), st.integers(0, 1_000))
def test_one_look_is_enough_where_metrics_are_quiet(full: float, seed: int) -> None:
    evidence, told = watched([full] * 40, 0.03, seed)
    assert evidence.noise(0) < 0.1
    assert told == [True] * 40 if full > 1.0 else not any(told) or full > 0.7


def test_a_burst_is_no_noise() -> None:
    evidence, told = watched([0.5] * 20 + [1.0] * 3 + [0.5] * 20, 0.0)
    assert told == [False] * 20 + [True] * 3 + [False] * 20
    assert evidence.noise(0) == 0.0


@pytest.mark.parametrize("noise", [0.2, 0.3, 0.5])
def test_noise_is_told_from_what_is_seen(noise: float) -> None:
    found = [watched([0.6] * 60, noise, seed)[0].noise(0) for seed in range(40)]
    assert np.mean(found) == pytest.approx(noise, rel=0.1)


def test_noise_alone_starts_next_to_nothing_and_twice_the_demand_is_believed_within_two_minutes() -> None:
    false, waits = 0, []
    for seed in range(40):
        false += sum(watched([0.55] * 240, 0.3, seed)[1][18:])
        told = watched([0.6] * 40 + [1.2] * 20, 0.3, seed)[1]
        waits.append(told[40:].index(True))
    looks_above = sum(
        sum(0.55 * exp(0.3 * z) > MARK for z in stream(seed, "evidence").standard_normal(240)) for seed in range(40)
    )
    assert false < 0.03 * looks_above
    assert max(waits) <= 8
    assert np.mean(waits) <= 3


def test_who_is_not_seen_tells_nothing() -> None:
    evidence, _ = watched([0.6] * 60, 0.5, blind=True)
    assert evidence.noise(0) == 0.0
