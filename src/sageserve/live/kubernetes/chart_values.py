"""What every chart of ours does with values: marks in objects become expressions, values get a line each, and a schema.

Knows no object. Pure. Read next: `helm.py`, the chart of what watches; `gateway_helm.py`, the chart of gateways.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

import yaml

from sageserve.live.kubernetes.manifests import FILE

TEMPLATES: Final = "templates"
NAMESPACE: Final = "helm-namespace"
"""The mark of the release's namespace, which has to be a name that Kubernetes takes."""
MARKS: Final[Mapping[str, str]] = {
    "HELM-IMAGE": "{{ .Values.image | toJson }}",
    "HELM-STORAGE": "{{ .Values.storage | toJson }}",
    "HELM-SELECTOR": "{{ .Values.nodeSelector | toJson }}",
    "HELM-TOLERATIONS": "{{ .Values.tolerations | toJson }}",
    "HELM-PULL": "{{ .Values.imagePullSecrets | toJson }}",
    NAMESPACE: "{{ .Release.Namespace }}",
    "HELM-SETTINGS": f'{{{{ .Files.Get "{FILE}" | toJson }}}}',
    "HELM-HASH": f'sha256-{{{{ .Files.Get "{FILE}" | sha256sum | trunc 16 }}}}',
}
"""What stands in a template of any chart in the place of a mark."""
About: TypeAlias = Mapping[str, tuple[dict[str, Any], str]]
"""Of values by name: their JSON schema, and what they are."""
ABOUT: Final[About] = {
    "image": ({"type": "string", "minLength": 1}, "of the container, which has `sageserve` on its PATH"),
    "nodeSelector": ({"type": "object"}, "of pods"),
    "tolerations": ({"type": "array"}, "of pods"),
    "imagePullSecrets": ({"type": "array"}, "of pods, each {name: …}"),
}
"""Of values that every chart has."""
DISK: Final[Mapping[str, Any]] = {"type": "string", "pattern": "^[1-9][0-9]*(Ki|Mi|Gi|Ti|K|M|G|T)?$"}
"""Schema of the size of a disk."""


def mark_pod(template: dict[str, Any]) -> None:
    """Put marks where what differs from cluster to cluster goes in a pod's template."""
    template["metadata"].setdefault("annotations", {})["sageserve.io/settings"] = "HELM-HASH"
    template["spec"] |= {"nodeSelector": "HELM-SELECTOR", "tolerations": "HELM-TOLERATIONS", "imagePullSecrets": "HELM-PULL"}


def template_file(manifest: Mapping[str, Any], part: str, taken: Iterable[str]) -> str:
    """Where an object goes, such as templates/role-serving.yaml: there may be one of a kind in several namespaces."""
    space, first = manifest["metadata"]["namespace"], f"{TEMPLATES}/{manifest['kind'].lower()}{part}"
    if space == NAMESPACE and f"{first}.yaml" not in taken:
        return f"{first}.yaml"
    return f"{first}{'.' if part else '-'}{space}.yaml"  # no namespace has a dot, and one may be called as a part is


def template_text(text: str, marks: Mapping[str, str], switches: Iterable[str]) -> str:
    """An object, where all of its switches are on.

    Args:
        text: with marks.
        marks: of this chart, beside those of any.
        switches: values, the outermost first.
    """
    for mark, expression in {**MARKS, **marks}.items():
        text = text.replace(mark, expression)
    for one in reversed([*switches]):
        text = f"{{{{- if .Values.{one} }}}}\n{text}{{{{- end }}}}\n"
    return text


def values_file(values: Mapping[str, object], about: About) -> str:
    """With a line about each."""
    parts = [f"# {about[key][1]}\n{yaml.safe_dump({key: value}, sort_keys=False)}" for key, value in values.items()]
    return "\n".join(parts)


def values_schema(values: Mapping[str, Any], about: About, parts: Mapping[str, About]) -> str:
    """Of values: a misspelt one is refused.

    Args:
        values: those that the chart has.
        about: of all that a chart of this kind may have.
        parts: the same of those that hold others.
    """
    known = _described({key: about[key] for key in values})
    for part in known.keys() & parts.keys():
        inner = _described({key: one for key, one in parts[part].items() if key in values[part]})
        known[part] |= {"additionalProperties": False, "properties": inner}
    tree = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "additionalProperties": False,
        "required": ["image", "storage"],
        "properties": {"global": {"type": "object"}, **known},
    }
    return json.dumps(tree, indent=2, allow_nan=False) + "\n"


def _described(about: About) -> dict[str, dict[str, Any]]:
    return {key: {**schema, "description": text} for key, (schema, text) in about.items()}
