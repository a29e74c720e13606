"""Whether a fetched file is a plan that may be followed now, in a closed list of reasons why not. Pure.

    sealed by a trusted key -> a version that is understood -> of this fleet and cluster -> a newer sequence -> in its time

The order matters: of a file that nobody trusted has sealed nothing is read but its first line. Read next: `process.py`.
"""

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sageserve.base.units import SECOND, Micros, show_duration
from sageserve.live.agent.plan_record import ClusterPlan, decoded
from sageserve.live.agent.sealed import NotUnsealed, TrustedKeys, unseal
from sageserve.live.authority.orders import PlanMark

EARLY: Final[Micros] = 60 * SECOND
"""By which clocks may differ."""


class PlanRefused(StrEnum):
    """Why a plan is not followed."""

    UNREACHABLE = "unreachable"  # nothing could be fetched
    UNKNOWN_KEY = "unknown-key"
    BROKEN_SEAL = "broken-seal"  # also a file that is cut, or none of ours
    VERSION = "version"
    UNREADABLE = "unreadable"  # sealed, and yet no plan
    OTHER_FLEET = "other-fleet"
    OTHER_CLUSTER = "other-cluster"
    OLD = "old"  # an older sequence, or another plan with the same one
    NOT_YET = "not-yet"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class RefusedPlan:
    """A plan that is not followed, and why in one sentence."""

    why: PlanRefused
    detail: str


@dataclass(frozen=True, slots=True)
class JudgedPlan:
    """A plan that may be followed, and how it is remembered."""

    plan: ClusterPlan
    mark: PlanMark


@dataclass(frozen=True, slots=True)
class ExpectedPlan:
    """Whose plan is waited for, sealed by whom, and what was followed last."""

    fleet: str
    cluster: str
    keys: TrustedKeys
    last: PlanMark | None = None


def judge(sealed: bytes, expected: ExpectedPlan, wall: Micros) -> JudgedPlan | RefusedPlan:
    """Judge a fetched file at an instant, microseconds since 1970."""
    opened = unseal(sealed, expected.keys)
    if isinstance(opened, NotUnsealed):
        return RefusedPlan(PlanRefused.UNKNOWN_KEY if opened.key else PlanRefused.BROKEN_SEAL, opened.detail)
    plan = decoded(opened.content, ClusterPlan, "the plan")
    if isinstance(plan, str):
        return RefusedPlan(PlanRefused.VERSION if "of version" in plan else PlanRefused.UNREADABLE, plan)
    found = PlanMark(plan.sequence, hashlib.sha256(opened.content).hexdigest(), plan.plan, plan.not_before, plan.valid_until)
    return _misplaced(plan, expected) or _outdated(found, expected.last) or _untimely(plan, wall) or JudgedPlan(plan, found)


def _misplaced(plan: ClusterPlan, expected: ExpectedPlan) -> RefusedPlan | None:
    if plan.fleet != expected.fleet:
        return RefusedPlan(PlanRefused.OTHER_FLEET, f"the plan is for fleet {plan.fleet!r}, and this is {expected.fleet!r}")
    if plan.cluster != expected.cluster:
        return RefusedPlan(
            PlanRefused.OTHER_CLUSTER, f"the plan is for cluster {plan.cluster!r}, and this is {expected.cluster!r}"
        )
    return None


def _outdated(found: PlanMark, last: PlanMark | None) -> RefusedPlan | None:
    if last is None or found.sequence > last.sequence or found == last:
        return None
    if found.sequence < last.sequence:
        said = f"the plan has sequence {found.sequence}, and {last.sequence} was followed already"
    else:
        said = f"another plan with sequence {found.sequence} was followed already"
    return RefusedPlan(PlanRefused.OLD, said)


def _untimely(plan: ClusterPlan, wall: Micros) -> RefusedPlan | None:
    if wall >= plan.valid_until:
        ago = show_duration((wall - plan.valid_until) // SECOND * SECOND)
        return RefusedPlan(PlanRefused.EXPIRED, f"plan {plan.sequence} ended {ago} ago, and there is no newer one")
    if wall < plan.not_before - EARLY:
        ahead = show_duration((plan.not_before - wall) // SECOND * SECOND)
        return RefusedPlan(PlanRefused.NOT_YET, f"plan {plan.sequence} begins in {ahead}: is a clock wrong?")
    return None
