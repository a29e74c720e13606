"""A plan as patches for a repository: the count of every pool in the field of the object that decides it. Writes no cluster.

    {"kustomization.yaml": ..., "serving-llama70.yaml": ...}    a Kustomize component, to be listed in an overlay's `components`

The minimum of what scales is set where there is one, so that the owner's autoscaler goes on above it; else the number of
replicas. Counts stay within the target's bounds. Pure. Read next: `kinds.py`; `cli/plan.py`, which writes the files.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

import yaml

from sageserve.base.config.clusters import TargetSettings
from sageserve.live.kubernetes.kinds import ALL_RUNGS, KINDS, KubeKind

Tree: TypeAlias = "dict[str, Tree | str | int]"
KUSTOMIZATION: Final = "kustomization.yaml"


@dataclass(frozen=True, slots=True)
class TargetPatch:
    """What is changed of one object.

    Args:
        target: its name in the settings.
        file: of the patch.
        field: that is set, such as spec.minReplicas.
        count: its value.
        wanted: what the plan says; another number where the target's bounds forbid it.
        text: the patch.
    """

    target: str
    file: str
    field: str
    count: int
    wanted: int
    text: str


def patches_of(
    counts: Mapping[str, int], targets: Mapping[str, TargetSettings], annotations: Mapping[str, str]
) -> tuple[TargetPatch, ...]:
    """Patches, one for each target whose pool has a count, in the order of the settings.

    Args:
        counts: instances by pool.
        targets: by name.
        annotations: of every object that is patched.
    """
    return tuple(_patches(counts, targets, annotations))


def _patches(
    counts: Mapping[str, int], targets: Mapping[str, TargetSettings], annotations: Mapping[str, str]
) -> Iterator[TargetPatch]:
    mine = {name: target for name, target in targets.items() if target.pool in counts}
    for (name, target), file in zip(mine.items(), file_names(mine), strict=True):
        if target.kind in ALL_RUNGS:
            continue  # no object of Kubernetes
        kind, wanted = KINDS[target.kind], counts[target.pool]
        field = kind.low or kind.count
        count = min(max(wanted, target.min), target.max)
        yield TargetPatch(name, file, ".".join(field), count, wanted, _text(kind, target, count, annotations))


def file_names(targets: Iterable[str]) -> Iterator[str]:
    """A file for the patch of each target, by its name: none takes another's or that of the component."""
    taken = {KUSTOMIZATION}
    for name in targets:
        stem = name.replace("/", "--")
        while (file := f"{stem}.yaml").lower() in taken:  # a target may be called kustomization, or a--b beside a/b
            stem += "-patch"
        taken.add(file.lower())
        yield file


def _text(kind: KubeKind, target: TargetSettings, count: int, annotations: Mapping[str, str]) -> str:
    namespace, name = target.name.split("/", 1)
    metadata: Tree = {"name": name, "namespace": namespace, "annotations": dict(annotations)}
    tree: Tree = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata}
    here = tree
    *path, last = kind.low or kind.count
    for part in path:
        below: Tree = {}
        here[part] = below
        here = below
    here[last] = count
    return yaml.safe_dump(tree, sort_keys=False)


def kustomization(patches: Iterable[TargetPatch]) -> str:
    """The component that has these patches."""
    return component({"path": one.file} for one in patches)


def component(patches: Iterable[Tree]) -> str:
    """A Kustomize component: of each patch its file, and of one that does not say it itself the object."""
    tree = {"apiVersion": "kustomize.config.k8s.io/v1alpha1", "kind": "Component", "patches": list(patches)}
    return yaml.safe_dump(tree, sort_keys=False)
