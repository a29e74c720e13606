"""What may be done to a target, by its authority: the rights that it needs.

Facts of the APIs; asks nobody. Read next: `manifests.py`, which makes a Role of them; `live/doctor/access.py`, which asks.
"""

from typing import Final

from sageserve.base.config.clusters import TargetSettings
from sageserve.live.kubernetes.kinds import KINDS
from sageserve.live.kubernetes.reader import Right

READS: Final = ("get", "list", "watch")


def rights_of(target: TargetSettings) -> list[Right]:
    """What a target's authority needs."""
    kind, namespace = KINDS[target.kind], target.name.partition("/")[0]
    found = [Right(verb, kind.group, kind.plural, namespace) for verb in READS]
    found += [Right(verb, "", "pods", namespace) for verb in READS]
    if target.authority in ("floor", "bounds"):
        found.append(Right("patch", kind.group, kind.plural, namespace))
    if target.authority == "full":
        plural = f"{kind.plural}/scale" if kind.scale else kind.plural
        found += [Right(verb, kind.group, plural, namespace) for verb in ("get", "patch")]
        found.append(Right("patch", "", "pods", namespace))
    return found
