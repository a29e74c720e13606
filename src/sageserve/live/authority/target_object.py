"""The object of a target: where its bounds stand, who owns them, what was found there before us, and what is applied next.

Every field that we have is in every apply, because one that is left out is deleted. What was found is kept on the object itself,
in an annotation, so that whoever comes later can give it back. Pure. Read next: `target_hand.py`, `give_back.py`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec import Struct

from sageserve.base.config.clusters import Rung
from sageserve.core.authority.records import BoundStep, TargetSight
from sageserve.live.kubernetes.kinds import KINDS, Path
from sageserve.live.kubernetes.objects import Json, KubeObject

ORIGINAL: Final = "sageserve.io/original"
EPOCH: Final = "sageserve.io/epoch"
DECISION: Final = "sageserve.io/decision"
NOBODY: Final = "sageserve-found"
"""Manager of a value that is given back and that nobody owned."""
LWS_NAME: Final = "leaderworkerset.sigs.k8s.io/name"
"""Label of every pod of a LeaderWorkerSet."""
_ABSENT: Final[Mapping[str, tuple[int, int]]] = {
    "HorizontalPodAutoscaler": (1, 100_000),
    "ScaledObject": (0, 100),
    "RayServe": (1, 100),
}
"""What a minimum and a maximum are that do not stand there."""
_UNBOUNDED: Final = (0, 100_000)


class OriginalField(Struct, frozen=True):
    """A field as it was found.

    Args:
        value: of it; None: it was not there.
        manager: whose it was; empty: nobody's.
    """

    value: int | None
    manager: str = ""


@dataclass(frozen=True, slots=True)
class TargetObject:
    """An object of a target, with what it scales, as they were read.

    Args:
        found: the object.
        scaled: what its reference names; None: not read.
        autoscaler: the HPA that KEDA made of it; None: not read.
        rival: who else decides the same, in one sentence; empty: nobody does.
    """

    found: KubeObject
    scaled: KubeObject | None = None
    autoscaler: KubeObject | None = None
    rival: str = ""

    @property
    def pod_labels(self) -> dict[str, str]:
        """That its pods have; none: not known."""
        if self.scaled is not None and self.scaled.kind == "LeaderWorkerSet":
            return {LWS_NAME: self.scaled.name}
        return {} if self.scaled is None else self.scaled.labels("spec", "selector", "matchLabels")

    @property
    def low(self) -> int:
        """Its minimum."""
        return self._bound(KINDS[self.found.kind].low, 0)

    @property
    def high(self) -> int:
        """Its maximum."""
        return self._bound(KINDS[self.found.kind].high, 1)

    def _bound(self, path: Path, which: int) -> int:
        value = self.found.number(*path) if path else None
        return _ABSENT.get(self.found.kind, _UNBOUNDED)[which] if value is None else value

    @property
    def count(self) -> int:
        """Replicas that are asked for."""
        if self.scaled is not None:
            asked = self.scaled.number(*(KINDS[self.scaled.kind].count or ("spec", "replicas")))
            return 1 if asked is None else asked
        return self.found.number("status", "currentReplicas") or 0

    @property
    def ready(self) -> int:
        """Pods that serve."""
        if self.scaled is not None:
            return self.scaled.number("status", "readyReplicas") or 0
        return self.count

    @property
    def desired(self) -> int:
        """What its autoscaler wants."""
        scaler = self.found if self.found.kind == "HorizontalPodAutoscaler" else self.autoscaler
        wanted = None if scaler is None else scaler.number("status", "desiredReplicas")
        return self.count if wanted is None else wanted

    @property
    def epoch(self) -> int:
        """Of the last write of ours."""
        text = self.found.annotations.get(EPOCH, "")
        return int(text) if text.isdigit() else 0

    @property
    def version(self) -> str:
        """Of the object as it was read."""
        return self.found.text("metadata", "resourceVersion")

    def original(self) -> dict[str, OriginalField]:
        """What was found before us, by the field's path; empty: nothing is ours."""
        text = self.found.annotations.get(ORIGINAL, "")
        try:
            return msgspec.json.decode(text, type=dict[str, OriginalField]) if text else {}
        except (ValueError, RecursionError):
            return {}

    def owners(self, path: Path) -> list[str]:
        """Managers that have a field."""
        return list(_managers(self.found, path))


def paths_of(kind: str, rung: Rung) -> tuple[Path, ...]:
    """Fields that a rung lets be written."""
    one = KINDS[kind]
    return {"floor": (one.low,), "bounds": (one.low, one.high)}.get(rung, ())


def dotted(path: Path) -> str:
    """A path as people write it."""
    return ".".join(path)


def foreign_writer(seen: TargetObject, manager: str) -> str:
    """Who took a field that was ours, and what is there now; empty: nobody did."""
    for name in seen.original():
        path = tuple(name.split("."))
        owners = seen.owners(path)
        if manager not in owners:
            who = " and ".join(owners) or "somebody who owns nothing"
            return f"{who} wrote {name}: {seen.found.number(*path)}"
    return ""


def sight_of(seen: TargetObject, wall: int, use: float, *, blind: bool) -> TargetSight:
    """What a ladder is told of an object."""
    original = seen.original()
    low = original.get(dotted(KINDS[seen.found.kind].low))
    own = seen.low if low is None else _ABSENT[seen.found.kind][0] if low.value is None else low.value
    return TargetSight(
        low=seen.low,
        high=seen.high,
        count=seen.count,
        ready=seen.ready,
        desired=seen.desired,
        use=use,
        blind=blind,
        wall=wall,
        own_low=own,
        ours=low is not None,
        high_ours=dotted(KINDS[seen.found.kind].high) in original,
    )


def apply_body(
    seen: TargetObject, rung: Rung, step: BoundStep, marks: Mapping[str, str], *, kept: Mapping[str, OriginalField]
) -> tuple[dict[str, Json], bool]:
    """What is applied, and whether some field in it was not ours before.

    Args:
        seen: the object as it was read.
        rung: that the step was decided on.
        step: the values.
        marks: annotations besides those about the original.
        kept: what was found before us and still counts; of another field, what is there now is the original.
    """
    kind = KINDS[seen.found.kind]
    before, original = kept, dict(kept)
    values = {kind.low: step.low, kind.high: step.high}
    body: dict[str, Json] = {}
    for path in (kind.low, kind.high):
        mine = path in paths_of(seen.found.kind, rung)
        if not mine and dotted(path) not in before:
            continue
        if dotted(path) not in before:
            owner = next((one for one in seen.owners(path) if one), "")
            original[dotted(path)] = OriginalField(seen.found.number(*path), owner)
        value = values[path] if mine else None
        _put(body, path, (seen.low if path == kind.low else seen.high) if value is None else value)
    annotations: Json = {**marks, ORIGINAL: msgspec.json.encode(original).decode()}
    metadata: Json = {
        "uid": seen.found.text("metadata", "uid"),
        "resourceVersion": seen.version,
        "annotations": annotations,
    }
    return {"metadata": metadata, **body}, original.keys() != before.keys()


def _put(body: dict[str, Json], path: Path, value: int) -> None:
    at = body
    for key in path[:-1]:
        inner = at.setdefault(key, {})
        assert isinstance(inner, dict)
        at = inner
    at[path[-1]] = value


def _managers(found: KubeObject, path: Path) -> Iterator[str]:
    for entry in found.parts("metadata", "managedFields"):
        if entry.at("fieldsV1", *(f"f:{part}" for part in path)) is not None:
            yield entry.text("manager")
