"""What may be done to a target, by its authority: the rights that it needs.

Facts of the APIs; asks nobody. Read next: `manifests.py`, which makes a Role of them; `live/doctor/access.py`, which asks.
"""

from collections.abc import Iterable
from typing import Final

from sageserve.base.config.clusters import ShareSettings, TargetSettings
from sageserve.live.kubernetes.kinds import BOUNDED, COUNTED, KINDS, SCALERS
from sageserve.live.kubernetes.reader import Right

READS: Final = ("get", "list", "watch")
KEEPS: Final = ("get", "create", "update")
"""What the lease and the orders of a fleet need."""


def home_of(targets: Iterable[TargetSettings]) -> str:
    """The namespace of the lease and the orders of a cluster's targets: that of the first one."""
    return next((one.name.partition("/")[0] for one in targets), "")


def share_rights(share: ShareSettings, home: str) -> list[Right]:
    """What an object needs that shares requests among regions."""
    kind, namespace = KINDS[share.kind], share.name.partition("/")[0]
    found = [Right(verb, kind.group, kind.plural, namespace) for verb in READS]
    if share.authority == "full":
        found += [Right(verb, "coordination.k8s.io", "leases", home) for verb in KEEPS]
        found += [Right(verb, "", "configmaps", home) for verb in KEEPS]
        found.append(Right("patch", kind.group, kind.plural, namespace))
    return found


def rights_of(target: TargetSettings, home: str, *, follows: bool = False) -> list[Right]:
    """What a target's authority needs.

    Args:
        target: of a cluster.
        home: where the lease and the orders of that cluster are.
        follows: instances follow its pods.
    """
    kind, namespace = KINDS[target.kind], target.name.partition("/")[0]
    found = [Right(verb, kind.group, kind.plural, namespace) for verb in READS]
    found += [Right(verb, "", "pods", namespace) for verb in READS]
    if follows and target.kind in BOUNDED and not target.selector:  # which pods there are says what it scales
        found += [Right("get", one.group, one.plural, namespace) for one in map(KINDS.__getitem__, COUNTED)]
    if target.authority != "observe":
        found += [Right(verb, "coordination.k8s.io", "leases", home) for verb in KEEPS]
        found += [Right(verb, "", "configmaps", home) for verb in KEEPS]
    if target.authority in ("floor", "bounds"):
        beside = [KINDS[one] for one in (*COUNTED, "HorizontalPodAutoscaler") if one != target.kind]
        found += [Right(verb, one.group, one.plural, namespace) for one in beside for verb in ("get", "list")]
        found.append(Right("patch", kind.group, kind.plural, namespace))
    if target.authority == "full":
        plural = f"{kind.plural}/scale" if kind.scale else kind.plural
        found += [Right(verb, kind.group, plural, namespace) for verb in ("get", "patch")]
        found += [Right("list", one.group, one.plural, namespace) for one in map(KINDS.__getitem__, SCALERS)]
        found.append(Right("patch", "", "pods", namespace))
    return found
