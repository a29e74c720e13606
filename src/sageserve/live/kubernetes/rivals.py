"""Who else decides the count of an object: autoscalers that point at it, and owners that put back what is changed in it.

Two writers on one count undo each other, so whoever acts refuses to be the second one, and says what to change instead. Owners
are known by `ownerReferences` alone. Pure. Read next: `kinds.py`; `live/doctor/writers.py`, which says the same beforehand.
"""

from collections.abc import Iterable
from typing import Final

from sageserve.live.kubernetes.kinds import OWNERS, SCALERS
from sageserve.live.kubernetes.objects import KubeObject

INSTEAD: Final[dict[str, str]] = {
    "LLMInferenceService": "spec.scaling.minReplicas and maxReplicas of it, or spec.replicas without scaling",
    "VLLMRuntime": "spec.autoscalingConfig of it, or spec.deploymentConfig.replicas",
    "ModelDeployment": "its spec.replicas, or a ScaledObject on it",
    "DynamoGraphDeployment": "spec.replicas of its DynamoGraphDeploymentScalingAdapter",
    "DynamoComponentDeployment": "spec.replicas of its DynamoGraphDeploymentScalingAdapter",
    "StormService": "its spec.replicas, or the bounds of its PodAutoscaler",
    "ScaledObject": "its minReplicaCount and maxReplicaCount: make it the target",
}
"""What is to be changed in the place of an object that such an owner made."""


def points_at(one: KubeObject, scaled: KubeObject) -> bool:
    """Whether an autoscaler's reference names an object."""
    reference = one.part("spec", "scaleTargetRef")
    return (reference.text("kind") or "Deployment", reference.text("name")) == (scaled.kind, scaled.name)


def same(one: KubeObject, other: KubeObject) -> bool:
    """Whether both are one object of a namespace."""
    return (one.kind, one.name) == (other.kind, other.name)


def made_by(one: KubeObject, makers: Iterable[KubeObject]) -> bool:
    """Whether some of these made it: KEDA makes an HPA for each ScaledObject, which is no second writer."""
    owners = {(owner.text("kind"), owner.text("name")) for owner in one.parts("metadata", "ownerReferences")}
    return any(
        (maker.kind, maker.name) in owners or (maker.kind == "ScaledObject" and one.name == f"keda-hpa-{maker.name}")
        for maker in makers
    )


def owner_of(one: KubeObject) -> KubeObject | None:
    """The owner whose controller puts back what is changed in an object; none: nobody is known to."""
    known = (*OWNERS, "ScaledObject") if one.kind in SCALERS else OWNERS
    return next((owner for owner in one.parts("metadata", "ownerReferences") if owner.text("kind") in known), None)


def rival_of(mine: KubeObject, scaled: KubeObject | None, scalers: Iterable[KubeObject]) -> str:
    """Who else decides, and what to do instead, in one sentence; empty: nobody does.

    Args:
        mine: the object that would be written.
        scaled: whose count it decides; the same where it holds the count itself.
        scalers: autoscalers of its namespace.
    """
    if (owner := owner_of(mine)) is not None:
        kind, name = owner.text("kind"), owner.text("name")
        return f"{kind} {name} made {mine.kind} {mine.name} and puts back what is changed there; change {INSTEAD[kind]}"
    others = [one for one in scalers if scaled is not None and points_at(one, scaled) and not same(one, mine)]
    other = next((one for one in others if not made_by(one, [mine, *others])), None)
    if other is None or scaled is None:
        return ""
    return f"{other.kind} {other.name} also decides the count of {scaled.kind} {scaled.name}; delete it, or make it the target"
