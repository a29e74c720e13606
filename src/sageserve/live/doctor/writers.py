"""Objects of targets, and who else writes them: two writers on one count undo each other. Read next: `facts.py`."""

import json
from collections.abc import Iterator

from sageserve.data.documents import suggest
from sageserve.live.doctor.checks import CheckFinding
from sageserve.live.doctor.facts import ClusterFacts, DoctorTarget
from sageserve.live.kubernetes.kinds import KINDS, OWNERS, SCALERS
from sageserve.live.kubernetes.objects import Json, KubeObject, fleet_object
from sageserve.live.kubernetes.reader import NotRead
from sageserve.live.kubernetes.rivals import made_by, points_at, same

OURS = "sageserve"
"""How our own field managers begin."""

_ADAPTER = "DynamoGraphDeploymentScalingAdapter"
"""What holds the count of an object that Dynamo made."""
_FLUX = ("kustomize.toolkit.fluxcd.io/name", "helm.toolkit.fluxcd.io/name")
_ARGO_LABEL, _ARGO_NOTE = "argocd.argoproj.io/instance", "argocd.argoproj.io/tracking-id"
_FLUX_MERGE = "kustomize.toolkit.fluxcd.io/ssa"


def patch(target_object: KubeObject, body: Json) -> str:
    """One command that merges a change into an object."""
    kind = KINDS[target_object.kind]
    text = json.dumps(body, separators=(",", ":"), allow_nan=False)
    return f"kubectl -n {target_object.namespace} patch {kind.resource} {target_object.name} --type merge -p '{text}'"


def target_exists(facts: ClusterFacts) -> Iterator[CheckFinding]:
    """The object is there."""
    for target in facts.targets:
        kind = target.settings.kind
        held = facts.objects.get((kind, target.namespace))
        if isinstance(held, NotRead) or facts.object_of(target) is not None:
            continue
        names = [f"{one.namespace}/{one.name}" for one in held or ()]
        said = f"there is no {kind} {target.settings.name}{suggest(target.settings.name, names)}"
        near = next(
            (name for name in names if name in suggest(target.settings.name, names)), names[0] if names else "NAMESPACE/NAME"
        )
        yield CheckFinding(target.name, said, f"live.targets.{target.name}.name: {near}", "error")


def target_kind(facts: ClusterFacts) -> Iterator[CheckFinding]:
    """Its kind is installed, and can do what its authority needs."""
    for target in facts.targets:
        kind = KINDS[target.settings.kind]
        held = facts.objects.get((target.settings.kind, target.namespace))
        if isinstance(held, NotRead) and held.status == 404:
            said = f"the cluster has no {kind.resource}: the kind is not installed"
            yield CheckFinding(target.name, said, f"kubectl get crd {kind.resource}", "error")
        elif target.settings.authority in ("floor", "bounds") and not kind.low:
            said = f"a {kind.kind} has no minimum and maximum, which authority {target.settings.authority} is about"
            scaler = next((one.kind for one in _scalers(facts, target.namespace) if one.name == target.object_name), "")
            line = f"kind: {scaler}" if scaler else "authority: full"
            yield CheckFinding(target.name, said, f"live.targets.{target.name}.{line}", "error")
        elif target.settings.authority == "full" and not kind.scale and not kind.count:
            said = f"a {kind.kind} has no count, which authority full is about"
            yield CheckFinding(target.name, said, f"live.targets.{target.name}.authority: bounds", "error")


def writer_single(facts: ClusterFacts) -> Iterator[CheckFinding]:
    """Nobody else decides the same count."""
    for target in facts.targets:
        mine, scaled = facts.object_of(target), facts.scaled(target)
        if mine is None or scaled is None:
            continue
        others = [one for one in _scalers(facts, target.namespace) if points_at(one, scaled) and not same(one, mine)]
        others = [one for one in others if not made_by(one, [mine, *others])]
        counted = target.settings.kind not in SCALERS
        if others and (not counted or len(others) > 1 or target.settings.authority == "full"):
            other = others[0]
            said = f"{other.kind} {other.name} also decides the count of {scaled.kind} {scaled.name}"
            yield CheckFinding(
                target.name, said, f"kubectl -n {other.namespace} delete {KINDS[other.kind].resource} {other.name}", "error"
            )
        owner = next((one for one in scaled.parts("metadata", "ownerReferences") if one.text("kind") in OWNERS), None)
        if owner is not None and target.acts and not others:
            said = (
                f"{owner.text('kind')} {owner.text('name')} owns {scaled.kind} {scaled.name} and puts back what is changed there"
            )
            kind = _ADAPTER if owner.text("kind").startswith("Dynamo") else owner.text("kind")
            yield CheckFinding(target.name, said, f"live.targets.{target.name}.kind: {kind}", "error")


def _scalers(facts: ClusterFacts, namespace: str) -> list[KubeObject]:
    return [one for kind in SCALERS for one in facts.of(kind, namespace)]


def field_owner(facts: ClusterFacts) -> Iterator[CheckFinding]:
    """The fields that we would write are ours to write."""
    for target in facts.targets:
        found = facts.object_of(target)
        if found is None or not target.acts or target.settings.take_over:
            continue
        for path in _written(target):
            owner = next((m for m in _managers(found, path) if not m.startswith(OURS)), None)
            if owner is not None:
                said = f"{'.'.join(path)} of {found.kind} {found.name} belongs to {owner}"
                yield CheckFinding(target.name, said, f"live.targets.{target.name}.take_over: true", "error")
                break


def _written(target: DoctorTarget) -> list[tuple[str, ...]]:
    kind = KINDS[target.settings.kind]
    wanted = {"floor": (kind.low,), "bounds": (kind.low, kind.high), "full": (kind.count,)}.get(target.settings.authority, ())
    return [path for path in wanted if path]


def _managers(found: KubeObject, path: tuple[str, ...]) -> Iterator[str]:
    for entry in found.parts("metadata", "managedFields"):
        if entry.at("fieldsV1", *(f"f:{part}" for part in path)) is not None:
            yield entry.text("manager")


def gitops_drift(facts: ClusterFacts) -> Iterator[CheckFinding]:
    """What we would write is not put back from git."""
    for target in facts.targets:
        found = facts.object_of(target)
        if found is None or not target.acts:
            continue
        labels = found.labels("metadata", "labels")
        if any(label in labels for label in _FLUX) and found.annotations.get(_FLUX_MERGE) not in ("Merge", "IfNotPresent"):
            said = f"Flux applies {found.kind} {found.name} from git and puts back what is changed"
            yield CheckFinding(target.name, said, patch(found, {"metadata": {"annotations": {_FLUX_MERGE: "Merge"}}}), "warn")
        app = labels.get(_ARGO_LABEL) or found.annotations.get(_ARGO_NOTE, "").split(":")[0]
        if app and not _argo_ignores(facts, app):
            said = f"Argo CD application {app} applies {found.kind} {found.name} from git and puts back what is changed"
            rule = {
                "group": KINDS[found.kind].group,
                "kind": found.kind,
                "managedFieldsManagers": [fleet_object(facts.scenario.name)],
            }
            text = json.dumps({"spec": {"ignoreDifferences": [rule]}}, separators=(",", ":"), allow_nan=False)
            command = f"kubectl -n argocd patch applications.argoproj.io {app} --type merge -p '{text}'"
            yield CheckFinding(target.name, said, command, "warn")


def _argo_ignores(facts: ClusterFacts, app: str) -> bool:
    found = next((one for one in facts.of("Application", "argocd") if one.name == app), None)
    rules = found.parts("spec", "ignoreDifferences") if found is not None else []
    return any(name.startswith(OURS) for rule in rules for name in rule.texts("managedFieldsManagers"))


def hpa_zero(facts: ClusterFacts) -> Iterator[CheckFinding]:
    """A minimum of an HPA does something."""
    for target in facts.targets:
        if target.settings.kind != "HorizontalPodAutoscaler" or not target.acts:
            continue
        scaled = facts.scaled(target)
        if scaled is not None and scaled.number("spec", "replicas") == 0:
            said = f"{scaled.kind} {scaled.name} has 0 replicas: its HPA is switched off, and a minimum does nothing"
            command = f"kubectl -n {target.namespace} scale {KINDS[scaled.kind].resource} {scaled.name} --replicas=1"
            yield CheckFinding(target.name, said, command, "error")


def hpa_tolerance(facts: ClusterFacts) -> Iterator[CheckFinding]:
    """Above ten instances every number can be reached."""
    for target in facts.targets:
        found = facts.object_of(target)
        if found is None or target.settings.kind not in ("HorizontalPodAutoscaler", "ScaledObject"):
            continue
        path = ("spec", "behavior") if found.kind == "HorizontalPodAutoscaler" else _KEDA_BEHAVIOR
        exact = [_is_zero(found.at(*path, way, "tolerance")) for way in ("scaleUp", "scaleDown")]
        if target.settings.max > 10 and not all(exact):
            off = int(target.settings.max / 11)
            said = f"changes below 10 % are ignored: at {target.settings.max} instances it may be {off} off"
            body: Json = {"scaleUp": {"tolerance": "0"}, "scaleDown": {"tolerance": "0"}}
            for part in reversed(path):
                body = {part: body}
            yield CheckFinding(target.name, said, patch(found, body), "info")


_KEDA_BEHAVIOR = ("spec", "advanced", "horizontalPodAutoscalerConfig", "behavior")


def _is_zero(value: Json) -> bool:
    return value is not None and str(value) in ("0", "0.0")
