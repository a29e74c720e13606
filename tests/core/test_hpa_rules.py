"""Kubernetes' algorithm on cases worked out by hand; the arithmetic stands beside each.

Documented at kubernetes.io, "Horizontal Pod Autoscaling": desired = ceil(current x metric / target), left alone within the
tolerance; pods that are not seen slow a change down; behaviours bound it.
Read next: `src/sageserve/core/strategies/hpa_rules.py`.
"""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sageserve.base.config import HpaPolicySettings, HpaScaleDownSettings, HpaScalingSettings
from sageserve.base.units import MINUTE, SECOND
from sageserve.core.strategies.hpa_rules import Behaviour, Kind, MetricSeen, largest, wanted_by

TENTH = (0.1, 0.1)


@pytest.mark.parametrize(
    ("seen", "target", "wanted"),
    [
        # --- all pods seen: ceil(ready x mean / target) ---
        (MetricSeen(200.0, ready=1), 100.0, 2),  # 200/100 = 2.0: doubled
        (MetricSeen(400.0, ready=2), 100.0, 4),  # mean 200: 2 x 2.0 = 4
        (MetricSeen(100.0, ready=2), 100.0, 1),  # mean 50: 2 x 0.5 = 1
        (MetricSeen(0.0, ready=5), 100.0, 0),  # 5 x 0 = 0: the minimum stops it, not the metric
        (MetricSeen(16.0, ready=3), 4.0, 4),  # 16/12 = 1.333; 3 x 1.333 = 4
        (MetricSeen(17.0, ready=3), 4.0, 5),  # 17/12 = 1.417; 3 x 1.417 = 4.25, up to 5
        # --- within the tolerance nothing happens ---
        (MetricSeen(44.0, ready=42), 1.0, 42),  # 44 wanted of 42: 44/42 = 1.048 <= 1.1
        (MetricSeen(46.2, ready=42), 1.0, 42),  # 1.1 exactly is still within
        (MetricSeen(47.0, ready=42), 1.0, 47),  # 1.119 is not
        (MetricSeen(9.0, ready=10), 1.0, 10),  # 0.9 exactly is within
        (MetricSeen(8.9, ready=10), 1.0, 9),  # 0.89: ceil(8.9)
        # --- unready pods count as idle when growing, and not at all when shrinking ---
        (MetricSeen(600.0, ready=3, unready=3), 100.0, 6),  # 3 x 2.0 would be 6; over 6 pods 1.0: nothing happens
        (MetricSeen(900.0, ready=3, unready=3), 100.0, 9),  # over 6 pods 1.5: ceil(1.5 x 6) = 9, as without them
        (MetricSeen(330.0, ready=3, unready=1), 100.0, 4),  # 1.1 grows; over 4 pods 0.825 would shrink: nothing
        (MetricSeen(150.0, ready=3, unready=3), 100.0, 2),  # 0.5 shrinks: ceil(0.5 x 3) = 2, coming ones apart
        # --- missing metrics: idle when growing, at the target when shrinking ---
        (MetricSeen(400.0, ready=2, missing=2), 100.0, 4),  # 2.0; over 4 pods 1.0: nothing
        (MetricSeen(600.0, ready=2, missing=2), 100.0, 6),  # 3.0; over 4 pods 1.5: ceil(1.5 x 4) = 6
        (MetricSeen(50.0, ready=2, missing=2), 100.0, 3),  # 0.25; (50 + 200)/400 = 0.625: ceil(0.625 x 4) = 3
        (MetricSeen(150.0, ready=2, missing=8), 100.0, 10),  # 0.75; (150 + 800)/1000 = 0.95 is within the tolerance
        (MetricSeen(0.0, ready=1, missing=1), 100.0, 1),  # 0; (0 + 100)/200 = 0.5: ceil(0.5 x 2) = 1
        (MetricSeen(200.0, ready=2, missing=2), 100.0, 2),  # 1.0 counts as not shrinking: over 4 pods 0.5: ceil(2)
        (MetricSeen(600.0, ready=2, missing=1, unready=1), 100.0, 6),  # 3.0; over all 4 pods 1.5: 6
    ],
)
def test_a_metric_of_pods(seen: MetricSeen, target: float, wanted: int) -> None:
    assert wanted_by("pods", seen, target, TENTH) == wanted


@pytest.mark.parametrize(
    ("seen", "target", "wanted"),
    [
        (MetricSeen(44.0, ready=42), 1.0, 42),  # 44/42 = 1.048: nothing
        (MetricSeen(88.0, ready=60, unready=24), 1.0, 84),  # all 84 pods count, seen or not: 1.048
        (MetricSeen(100.0, ready=60, unready=24), 1.0, 100),  # 1.19: ceil(100 / 1)
        (MetricSeen(7.0, ready=2), 2.0, 4),  # 7/(2 x 2) = 1.75: ceil(7 / 2)
        (MetricSeen(0.0, ready=3), 2.0, 0),  # nothing waits
        (MetricSeen(3.0, ready=0), 2.0, 2),  # none there: no ratio, ceil(3 / 2)
    ],
)
def test_an_external_metric_per_pod(seen: MetricSeen, target: float, wanted: int) -> None:
    assert wanted_by("external", seen, target, TENTH) == wanted


@pytest.mark.parametrize("kind", ["pods", "external"])
def test_what_cannot_be_read_asks_for_nothing(kind: Kind) -> None:
    assert wanted_by(kind, MetricSeen(None, ready=3), 1.0, TENTH) is None
    if kind == "pods":
        assert wanted_by(kind, MetricSeen(0.0, ready=0, unready=3), 1.0, TENTH) is None, "no pod shows it"


def test_each_direction_may_have_its_own_tolerance() -> None:
    seen = MetricSeen(44.0, ready=42)
    assert wanted_by("pods", seen, 1.0, (0.1, 0.0)) == 44, "behaviour.scaleUp.tolerance 0 acts on 44 of 42"
    assert wanted_by("pods", MetricSeen(41.0, ready=42), 1.0, (0.1, 0.0)) == 42
    assert wanted_by("pods", MetricSeen(41.0, ready=42), 1.0, (0.0, 0.1)) == 41


@pytest.mark.parametrize(
    ("current", "answers", "wanted"),
    [
        (5, [3, 7], 7),  # the largest
        (5, [3, 4], 4),
        (5, [None, 7], 7),  # one unreadable: growing goes on
        (5, [None, 3], None),  # and shrinking stops
        (5, [None, 5], 5),
        (5, [None, None], None),
    ],
)
def test_several_metrics(current: int, answers: Sequence[int | None], wanted: int | None) -> None:
    assert largest(current, answers) == wanted


def played(
    up: HpaScalingSettings, down: HpaScalingSettings, begin: int, steps: Sequence[tuple[int, int]], most: int = 1000
) -> list[int]:
    """Counts after syncs at (second, wanted)."""
    behaviour, counts, current = Behaviour(up, down), [], begin
    for second, wanted in steps:
        new = behaviour.limit(second * SECOND, current, wanted, (1, most))
        behaviour.note(second * SECOND, new - current)
        current = new
        counts.append(current)
    return counts


UP, DOWN = HpaScalingSettings(), HpaScaleDownSettings()
NOW = HpaScaleDownSettings(stabilisation=0)


def pods(count: int, seconds: int) -> HpaPolicySettings:
    return HpaPolicySettings.model_validate({"pods": count, "period": f"{seconds}s"})


def percent(share: int, seconds: int) -> HpaPolicySettings:
    return HpaPolicySettings.model_validate({"percent": share, "period": f"{seconds}s"})


@pytest.mark.parametrize(
    ("up", "down", "begin", "steps", "counts"),
    [
        # 4 pods or 100 % in 15 s, the larger: from 1 to 5, to 10, to 20, to 40
        (UP, DOWN, 1, [(0, 90), (15, 90), (30, 90), (45, 90)], [5, 10, 20, 40]),
        # within one period only the rest of it is left: 5 of 1 at 0 s; at 5 s the period began with 1
        (UP, DOWN, 1, [(0, 90), (5, 90), (15, 90)], [5, 5, 10]),
        # the smaller of both policies: 1 + 4, but 100 % of 1 is 2; of 2: 4; of 4: 8 = 4 + 4; of 8: 12
        (UP.model_copy(update={"select": "min"}), DOWN, 1, [(0, 90), (15, 90), (30, 90), (45, 90)], [2, 4, 8, 12]),
        (UP.model_copy(update={"select": "disabled"}), DOWN, 3, [(0, 90)], [3]),
        # 5 min of stabilisation: the most wanted of the last 5 min counts
        (UP, DOWN, 10, [(0, 10), (60, 4), (120, 3), (299, 4), (301, 4), (361, 4)], [10, 10, 10, 10, 4, 4]),
        # the count found at the first sync counts as a recommendation; 12 wanted once holds for 5 min
        (UP, DOWN, 10, [(0, 4), (60, 12), (120, 4), (359, 4), (361, 4)], [10, 12, 12, 12, 4]),
        # without it at once
        (UP, NOW, 10, [(0, 4)], [4]),
        # 10 % in 60 s: int(50 x 0.9) = 45; 40 s later the period still began with 50; then int(45 x 0.9) = 40
        (UP, HpaScaleDownSettings(stabilisation=0, policies=(percent(10, 60),)), 50, [(0, 1), (40, 1), (60, 1)], [45, 45, 40]),
        # 2 pods in 60 s or 10 %: the larger change, then the smaller
        (UP, HpaScaleDownSettings(stabilisation=0, policies=(percent(10, 60), pods(2, 60))), 50, [(0, 1)], [45]),
        (
            UP,
            HpaScaleDownSettings(stabilisation=0, policies=(percent(10, 60), pods(2, 60)), select="min"),
            50,
            [(0, 1)],
            [48],
        ),
        # percentages never leave a small fleet where it is when growing (up), and may when shrinking: int(3 x 0.9) = 2
        (HpaScalingSettings(policies=(percent(10, 60),)), DOWN, 3, [(0, 90)], [4]),
        (UP, HpaScaleDownSettings(stabilisation=0, policies=(percent(10, 60),)), 3, [(0, 1)], [2]),
        # stabilised growth: the least wanted of the last minute counts
        (
            HpaScalingSettings.model_validate({"stabilisation": "1m"}),
            DOWN,
            2,
            [(0, 2), (15, 6), (30, 6), (59, 6), (61, 6)],
            [2, 2, 2, 2, 6],
        ),
    ],
)
def test_behaviours(
    up: HpaScalingSettings, down: HpaScalingSettings, begin: int, steps: list[tuple[int, int]], counts: list[int]
) -> None:
    assert played(up, down, begin, steps) == counts


def test_bounds_win() -> None:
    assert played(UP, NOW, 4, [(0, 90)], most=6) == [6]
    assert played(UP, NOW, 4, [(0, 0)]) == [1]
    assert played(UP, DOWN, 9, [(0, 9)], most=6) == [6], "a lowered maximum acts at the next sync, whatever the behaviour"


@given(
    st.lists(st.tuples(st.integers(1, 120), st.integers(0, 50)), min_size=1, max_size=30),
    st.integers(1, 40),
    st.booleans(),
)
def test_no_policy_is_ever_exceeded(gaps: list[tuple[int, int]], begin: int, gentle: bool) -> None:
    up = HpaScalingSettings(policies=(pods(4, 60), percent(50, 30)), select="min" if gentle else "max")
    down = HpaScaleDownSettings.model_validate({"stabilisation": "2m", "policies": (pods(3, 60),)})
    behaviour, now, current, history = Behaviour(up, down), 0, begin, [(-10_000 * SECOND, begin)]
    for gap, wanted in gaps:
        now += gap * SECOND
        new = behaviour.limit(now, current, wanted, (1, 40))
        behaviour.note(now, new - current)
        if new > current:
            assert new <= max(wanted, 1)
        history.append((now, new))
        current = new
        within = [count for at, count in history if at > now - MINUTE]
        before = [count for at, count in history if at <= now - MINUTE][-1]
        lost = sum(max(0, a - b) for a, b in zip([before, *within], within, strict=False))
        gained = sum(max(0, b - a) for a, b in zip([before, *within], within, strict=False))
        assert lost - gained <= 3, "3 pods net in any minute"
