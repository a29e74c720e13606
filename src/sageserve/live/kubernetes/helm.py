"""The manifests as a Helm chart: the same objects, with what differs from cluster to cluster taken from values.

    Chart.yaml, values.yaml, values.schema.json, fleet.yaml (the settings), rules.yaml (alerts, if asked for), templates/

Rights are made from the settings, so that a chart is of one scenario: whoever changes its targets renders it anew. Pure.
Read next: `manifests.py`, `cli/render_chart.py`; tests/live/kubernetes/test_helm.py.
"""

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import yaml

from sageserve.base.config import Scenario
from sageserve.live.kubernetes.manifests import FILE, FOLLOWERS, ChartChoices, Manifest, as_documents, manifests

RULES: Final = "rules.yaml"
TEMPLATES: Final = "templates"
_MARKS: Final[Mapping[str, str]] = {
    "HELM-IMAGE": "{{ .Values.image | toJson }}",
    "HELM-STORAGE": "{{ .Values.storage | toJson }}",
    "HELM-RESOURCES": "{{ .Values.resources | toJson }}",
    "HELM-SELECTOR": "{{ .Values.nodeSelector | toJson }}",
    "HELM-TOLERATIONS": "{{ .Values.tolerations | toJson }}",
    "HELM-FOLLOWERS": "{{ .Values.followers | toJson }}",
    "HELM-SECRETS": "{{ .Values.imagePullSecrets | toJson }}",
    "helm-namespace": "{{ .Release.Namespace }}",
    "HELM-SETTINGS": f'{{{{ .Files.Get "{FILE}" | toJson }}}}',
    "HELM-HASH": f'sha256-{{{{ .Files.Get "{FILE}" | sha256sum | trunc 16 }}}}',
}
"""What stands in a template in the place of a mark."""
_ABOUT: Final[Mapping[str, tuple[str, str]]] = {
    "image": ("string", "of the container, which has `sageserve` on its PATH"),
    "storage": ("string", "size of its disk: five weeks of minutes and a journal"),
    "followers": ("integer", "processes that answer KEDA with what the one that watches said last"),
    "serviceMonitor": ("boolean", "a ServiceMonitor, and alert rules where the chart has some, for the Prometheus operator"),
    "resources": ("object", "of the container"),
    "nodeSelector": ("object", "of the pod"),
    "tolerations": ("array", "of the pod"),
    "imagePullSecrets": ("array", "of the pod, each {name: …}"),
}


def helm_chart(scenario: Scenario, text: str, choices: ChartChoices, rules: str, version: str) -> dict[str, str]:
    """Files of a chart, by their path in it.

    Args:
        scenario: which targets, with which authority, and whether KEDA is answered.
        text: the scenario file.
        choices: all else; what values can say is their default.
        rules: alert rules; empty: none.
        version: of this program.
    """
    marked = replace(choices, image="HELM-IMAGE", storage="HELM-STORAGE", namespace="helm-namespace", monitored=True)
    found = manifests(scenario, text, marked)
    values: dict[str, object] = {"image": choices.image, "storage": choices.storage, "serviceMonitor": choices.monitored}
    name = ""
    files: dict[str, str] = {}
    for one in found:
        kept = _marked(one, values)
        name = name or kept["metadata"]["name"]
        file = f"{TEMPLATES}/{_file(kept, name, [*files])}"
        files[file] = _template(as_documents([kept]), only_if="serviceMonitor" if kept["kind"] == "ServiceMonitor" else "")
    if rules:
        files[RULES] = rules
        files[f"{TEMPLATES}/rules.yaml"] = (
            f'{{{{- if .Values.serviceMonitor }}}}\n{{{{ .Files.Get "{RULES}" }}}}\n{{{{- end }}}}\n'
        )
    about = {"apiVersion": "v2", "name": name, "version": "0.1.0", "appVersion": version, "type": "application"}
    about["description"] = f"sageserve watch for {scenario.name}; written by sageserve render chart, of one scenario"
    head = {
        "Chart.yaml": yaml.safe_dump(about, sort_keys=False),
        "values.yaml": _values(values),
        "values.schema.json": _schema(values),
    }
    return {**head, FILE: text, **files}


def _marked(manifest: Manifest, values: dict[str, object]) -> dict[str, Any]:
    """An object with marks where values go; defaults that only it knows are put into the values."""
    found: dict[str, Any] = copy.deepcopy(manifest)
    if found["kind"] == "ConfigMap":
        found["data"] = {FILE: "HELM-SETTINGS"}
    if found["kind"] == "Deployment":
        template = found["spec"]["template"]
        template["metadata"]["annotations"] = {"sageserve.io/settings": "HELM-HASH"}
        container = template["spec"]["containers"][0]
        if container["name"] == "watch":
            values |= {"resources": container["resources"], "nodeSelector": {}, "tolerations": [], "imagePullSecrets": []}
            container["resources"] = "HELM-RESOURCES"
        else:
            values |= {"followers": found["spec"]["replicas"]}
            found["spec"]["replicas"] = "HELM-FOLLOWERS"
        template["spec"] |= {
            "nodeSelector": "HELM-SELECTOR",
            "tolerations": "HELM-TOLERATIONS",
            "imagePullSecrets": "HELM-SECRETS",
        }
    return found


def _file(manifest: Mapping[str, Any], watching: str, taken: list[str]) -> str:
    """Such as role-serving.yaml: there may be one of a kind in several namespaces."""
    space = manifest["metadata"]["namespace"]
    first = manifest["kind"].lower()
    if manifest["metadata"]["name"] != watching:
        return f"{first}{FOLLOWERS}.yaml"
    return f"{first}.yaml" if space == "helm-namespace" and f"{TEMPLATES}/{first}.yaml" not in taken else f"{first}-{space}.yaml"


def _template(text: str, *, only_if: str) -> str:
    for mark, expression in _MARKS.items():
        text = text.replace(mark, expression)
    return f"{{{{- if .Values.{only_if} }}}}\n{text}{{{{- end }}}}\n" if only_if else text


def _values(values: Mapping[str, object]) -> str:
    """With a line about each."""
    parts = [f"# {_ABOUT[key][1]}\n{yaml.safe_dump({key: value}, sort_keys=False)}" for key, value in values.items()]
    return "\n".join(parts)


def _schema(values: Mapping[str, object]) -> str:
    """Of values: a misspelt one is refused."""
    known = {key: {"type": kind, "description": about} for key, (kind, about) in _ABOUT.items() if key in values}
    if "followers" in known:
        known["followers"] |= {"minimum": 1}  # type: ignore[dict-item] # as below
    known["image"] |= {"minLength": 1}  # type: ignore[dict-item] # a number among texts
    known["storage"] |= {"pattern": "^[1-9][0-9]*(Ki|Mi|Gi|Ti|K|M|G|T)?$"}
    tree = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "additionalProperties": False,
        "required": ["image", "storage"],
        "properties": {"global": {"type": "object"}, **known},
    }
    return json.dumps(tree, indent=2, allow_nan=False) + "\n"
