"""The bench that judges derived profiles on measured points: what it leaves out, and that nothing judges itself.

Read next: `bench/points.py`, `tests/sim/test_points.py`.
"""

from dataclasses import replace

import numpy as np
import pytest

from bench.points import Judged, anchored, cross_validated, fold_of, judge, left_out
from tests.sim.test_points import POINT


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({}, ""),
        ({"mode": "disagg"}, "different pools"),
        ({"dp": 8, "ep": 4}, "parallelism is not clear"),
        ({"clients": 1_000, "prompt": 60_000, "e2e_ms": 200.0}, "peak rates would take longer"),
        ({"clients": 0}, "neither a fixed concurrency nor a rate"),
        ({"clients": 0, "rate": 2.0}, "no fixed concurrency"),
        ({"ttft_ms": None}, "a latency is missing"),
        ({"gpu": "ascend_910"}, "without a name"),
        ({"dtype": "fp8 or fp4"}, "without a name"),
    ],
)
def test_rows_are_left_out_by_their_columns(changed: dict[str, object], why: str) -> None:
    found = left_out(replace(POINT, **changed))  # type: ignore[arg-type] # fields by name
    assert why in found
    assert bool(found) == bool(why)


def points(count: int) -> list[Judged]:
    """Several concurrencies of each configuration, each a tenth slower than predicted."""
    one = judge(POINT)
    assert isinstance(one, Judged)
    assert one.band == 0.17
    off = np.log([1 / 1.1] * 3)
    return [
        replace(one, point=replace(POINT, prompt=1 + size, clients=clients), off=off)
        for size in range(count)
        for clients in (1, 4, 16)
    ]


def test_nothing_is_judged_by_what_it_was_fitted_to() -> None:
    several = points(40)
    odd = replace(several[0], off=np.log([3.0] * 3))
    same = [replace(point, off=odd.off) if point.configuration == odd.configuration else point for point in several]
    left, bands = cross_validated(same, lambda point: point.configuration)
    mine = np.array([point.configuration == odd.configuration for point in same])
    fold = np.array([fold_of(point.configuration) for point in same])
    assert left[~mine, 0] == pytest.approx(0.0), "one factor sets right what all share"
    assert left[mine, 0] == pytest.approx(np.log(3.3)), "its own points did not help it"
    assert bands[fold == fold[0]] == pytest.approx(0.0), "nor did they widen the band they are judged by"


def test_one_point_sets_its_configuration_right() -> None:
    assert anchored(points(3)) == pytest.approx(np.zeros(6))
