"""Profiles that meet measured points of one's own: derived ones, with one factor on all of their times.

    fit_points(read_points(path))      # a profile per configuration, or the reason why a point takes part in none

A configuration is what is fixed while concurrency and lengths vary: model, format, GPU, parallelism, engine. Its factor is the
median of those at which each point is met, found with the simulator in the loop; what it is worth is told by the points in turn,
each judged by the factor of the others. One point is enough. Read next: `predict.py`, which plays a point.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import exp, log
from statistics import fmean, median
from typing import Final

from sageserve.base.config import ProfileSettings
from sageserve.base.errors import SageServeError
from sageserve.data.measured.points import MeasuredPoint
from sageserve.data.profiles.naming import known_gpu, model_in
from sageserve.data.profiles.roofline import scaled
from sageserve.sim.points.predict import derived, played_e2e_ms, ways_of, why_not

FURTHEST: Final = 4.0
"""A factor beyond which a point is not what the profile is about: another unit, several replicas, a cache."""
NEAR: Final = 0.002  # of the logarithm of a time: met
ROUNDS: Final = 12


@dataclass(frozen=True, slots=True)
class ScaledProfile:
    """A profile that was scaled to points, and how far it is from them; errors are mean |predicted / measured - 1| of E2E.

    Args:
        name: of the profile, as those of the library are named.
        profile: with its source, range and error.
        points: that took part.
        factor: on all times.
        before: error of the derived profile.
        after: error of this one.
        heldout: error of points that took no part, each judged by the factor of the others; None where there is one.
    """

    name: str
    profile: ProfileSettings
    points: int
    factor: float
    before: float
    after: float
    heldout: float | None


def fit_points(
    points: Sequence[MeasuredPoint], progress: Callable[[int], None] | None = None
) -> tuple[list[ScaledProfile], dict[str, str]]:
    """Profiles for the points of a table, and why points take part in none, by their id.

    A row that is there twice takes part once: held out, it would be judged by itself.

    Args:
        points: with measured E2E.
        progress: told how many points are done.
    """
    why: dict[str, str] = {}
    groups: dict[str, list[tuple[MeasuredPoint, ProfileSettings, float]]] = {}
    rows: dict[MeasuredPoint, int] = {}
    for number, point in enumerate(points, start=1):
        reason = why_not(point) or ("" if point.e2e_ms is not None else "its E2E was not measured")
        if (first := rows.setdefault(replace(point, id="", note=""), number)) != number and not reason:
            reason = f"row {number} is row {first} again"
        if not reason:
            try:
                profile = derived(point)
                met = (point, profile, _factor(point, profile))
                groups.setdefault(_name(point), []).append(met)
            except SageServeError as error:
                reason = error.message
        if reason:
            called = point.id or f"row {number}"
            why[f"{called} (row {number})" if called in why else called] = reason
        if progress is not None:
            progress(number)
    return [_fitted(name, group) for name, group in groups.items()], why


def _name(point: MeasuredPoint) -> str:
    """As the library names profiles, with the engine as it is written."""
    engine = f"@{'-'.join(point.engine.split())}" if point.engine else ""
    cache = f"-kv{point.kv_dtype}" if point.kv_dtype else ""
    return f"{model_in(point.model, point.dtype)}{cache}/{known_gpu(point.gpu)}/{ways_of(point)}{engine}"


def _factor(point: MeasuredPoint, profile: ProfileSettings) -> float:
    """The factor on all times at which a point's mean E2E is as measured.

    Raises:
        SageServeError: it is further off than FURTHEST, or cannot be played.
    """
    assert point.e2e_ms is not None
    low, high, at = 1 / FURTHEST, FURTHEST, 1.0
    for _ in range(ROUNDS):
        ratio = point.e2e_ms / played_e2e_ms(point, scaled(profile, at, ""))
        if abs(log(ratio)) < NEAR:
            return at
        low, high = (at, high) if ratio > 1 else (low, at)
        at = at * ratio if low < at * ratio < high else (low * high) ** 0.5
    if at < 1.05 / FURTHEST or at > FURTHEST / 1.05:
        side = "slower" if at > 1 else "faster"
        raise SageServeError(f"it is more than {FURTHEST:g} times {side} than the profile derived for it")
    return at


def _fitted(name: str, group: list[tuple[MeasuredPoint, ProfileSettings, float]]) -> ScaledProfile:
    factors = [log(factor) for _, _, factor in group]
    factor = exp(median(factors))
    errors = [_error(point, profile, factor) for point, profile, _ in group]
    apart = [
        _error(point, profile, exp(median(factors[:number] + factors[number + 1 :])))
        for number, (point, profile, _) in enumerate(group)
        if len(group) > 1
    ]
    what = group[0][0].id if len(group) == 1 else f"{len(group)} measured points"
    best = scaled(group[-1][1], factor, what).model_copy(update={"engine": group[0][0].engine[:80], "fitted": _range(group)})
    if apart:
        told = (
            f"E2E {fmean(apart):.1%} off in the mean, {max(apart):.1%} at most: each of {len(group)} points judged by the others"
        )
        best = best.model_copy(update={"error": told})
    before = fmean(_error(point, profile, 1.0) for point, profile, _ in group)
    return ScaledProfile(name, best, len(group), factor, before, fmean(errors), fmean(apart) if apart else None)


def _error(point: MeasuredPoint, profile: ProfileSettings, factor: float) -> float:
    assert point.e2e_ms is not None
    return abs(played_e2e_ms(point, scaled(profile, factor, "")) / point.e2e_ms - 1)


def _range(group: list[tuple[MeasuredPoint, ProfileSettings, float]]) -> str:
    points = [point for point, _, _ in group]
    parts = (
        ("clients", [point.clients for point in points if point.clients]),
        ("prompt tokens", [point.prompt for point in points]),
        ("output tokens", [point.output for point in points]),
    )
    return ", ".join(f"{min(values):,} to {max(values):,} {what}" for what, values in parts if values)
