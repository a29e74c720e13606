"""The manifests of gateways as a Helm chart of their own: the same objects, numbers and names of a cluster taken from values.

    Chart.yaml, values.yaml, values.schema.json, fleet.yaml (the settings), templates/

Control and gateways are switched separately: where control is elsewhere, only gateways run. Pure.
Read next: `gateway_manifests.py`; `helm.py`, the chart of the process that watches; tests/live/kubernetes/test_gateway_chart.py.
"""

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import yaml

from sageserve.base.config import Scenario
from sageserve.live.kubernetes.gateway_manifests import CONTROL, GatewayChoices, gateway_parts
from sageserve.live.kubernetes.helm import TEMPLATES
from sageserve.live.kubernetes.manifests import FILE, ChartChoices, Manifest, as_documents, object_name

_MARKS: Final[Mapping[str, str]] = {
    "HELM-IMAGE": "{{ .Values.image | toJson }}",
    "HELM-STORAGE": "{{ .Values.storage | toJson }}",
    "HELM-SELECTOR": "{{ .Values.nodeSelector | toJson }}",
    "HELM-TOLERATIONS": "{{ .Values.tolerations | toJson }}",
    "HELM-PULL": "{{ .Values.imagePullSecrets | toJson }}",
    "HELM-CONTROL-RESOURCES": "{{ .Values.control.resources | toJson }}",
    "HELM-GATEWAY-RESOURCES": "{{ .Values.gateway.resources | toJson }}",
    "HELM-REPLICAS": "{{ .Values.gateway.replicas | toJson }}",
    "HELM-MOST": "{{ .Values.gateway.maxReplicas | toJson }}",
    "HELM-SECRET": "{{ .Values.gateway.secret | toJson }}",
    "HELM-ADDRESS": "{{ .Values.gateway.control | toJson }}",
    "helm-namespace": "{{ .Release.Namespace }}",
    "HELM-SETTINGS": f'{{{{ .Files.Get "{FILE}" | toJson }}}}',
    "HELM-HASH": f'sha256-{{{{ .Files.Get "{FILE}" | sha256sum | trunc 16 }}}}',
}
"""What stands in a template in the place of a mark."""
_ABOUT: Final[Mapping[str, tuple[dict[str, Any], str]]] = {
    "image": ({"type": "string", "minLength": 1}, "of the container, which has `sageserve` on its PATH"),
    "storage": ({"type": "string", "pattern": "^[1-9][0-9]*(Ki|Mi|Gi|Ti|K|M|G|T)?$"}, "size of control's disk"),
    "serviceMonitor": ({"type": "boolean"}, "a ServiceMonitor of gateways, for the Prometheus operator"),
    "nodeSelector": ({"type": "object"}, "of pods"),
    "tolerations": ({"type": "array"}, "of pods"),
    "imagePullSecrets": ({"type": "array"}, "of pods, each {name: …}"),
    "control": ({"type": "object"}, "the process that decides, and tells gateways"),
    "gateway": ({"type": "object"}, "processes that clients ask"),
}
_PARTS: Final[Mapping[str, Mapping[str, tuple[dict[str, Any], str]]]] = {
    "control": {
        "enabled": ({"type": "boolean"}, "it runs here"),
        "resources": ({"type": "object"}, "of the container"),
    },
    "gateway": {
        "replicas": ({"type": "integer", "minimum": 1}, "how many; at least, where there is an autoscaler"),
        "maxReplicas": ({"type": "integer", "minimum": 1}, "that an autoscaler may make of them"),
        "secret": ({"type": "string", "minLength": 1}, "the Secret with tls.crt, tls.key and ca.crt that they show to control"),
        "control": ({"type": "string", "pattern": "^tls://[^/ ]+:[0-9]+$"}, "where they find it"),
        "resources": ({"type": "object"}, "of the container"),
    },
}


def gateway_chart(scenario: Scenario, text: str, choices: ChartChoices, asked: GatewayChoices, version: str) -> dict[str, str]:
    """Files of a chart, by their path in it.

    Args:
        scenario: what is served, and which Services are followed.
        text: the scenario file.
        choices: image, namespace, disk and Secrets; what values can say is their default.
        asked: of gateways; `control` is where they find it, and empty where it is a part of the chart.
        version: of this program.
    """
    here = not asked.control
    marked = replace(choices, image="HELM-IMAGE", storage="HELM-STORAGE", namespace="helm-namespace", monitored=True)
    values: dict[str, Any] = {"image": choices.image, "storage": choices.storage, "serviceMonitor": choices.monitored}
    values |= {"nodeSelector": {}, "tolerations": [], "imagePullSecrets": []}
    values |= {"control": {"enabled": True}} if here else {}
    grown = {"maxReplicas": asked.most} if asked.most else {}
    values["gateway"] = {"replicas": asked.replicas, **grown, "secret": asked.secret}
    values["gateway"] |= {} if here else {"control": asked.control}
    name = object_name(scenario.name)
    files: dict[str, str] = {}
    found = gateway_parts(scenario, text, marked, replace(asked, secret="HELM-SECRET", control="" if here else "HELM-ADDRESS"))  # noqa: S106 # a mark
    for one in found:
        kept = _marked(one, values)
        part = kept["metadata"]["name"].removeprefix(name)
        switches = ["control.enabled"] if part == CONTROL else []
        switches += ["serviceMonitor"] if kept["kind"] == "ServiceMonitor" else []
        files[_file(kept, part, files)] = _template(as_documents([kept]), switches)
    about = {"apiVersion": "v2", "name": f"{name}-gateways", "version": "0.1.0", "appVersion": version, "type": "application"}
    about["description"] = f"gateways of {scenario.name}; written by sageserve render gateways, of one scenario"
    head = {"Chart.yaml": yaml.safe_dump(about, sort_keys=False), "values.yaml": _values(values)}
    return {**head, "values.schema.json": _schema(values), FILE: text, **files}


def _marked(manifest: Manifest, values: dict[str, Any]) -> dict[str, Any]:
    """An object with marks where values go; defaults that only it knows are put into the values."""
    found: dict[str, Any] = copy.deepcopy(manifest)
    if found["kind"] == "ConfigMap":
        found["data"] = {FILE: "HELM-SETTINGS"}
    if found["kind"] == "HorizontalPodAutoscaler":
        found["spec"] |= {"minReplicas": "HELM-REPLICAS", "maxReplicas": "HELM-MOST"}
    if found["kind"] == "Deployment":
        template = found["spec"]["template"]
        template["metadata"]["annotations"] = {"sageserve.io/settings": "HELM-HASH"}
        container = template["spec"]["containers"][0]
        values[container["name"]]["resources"] = container["resources"]
        container["resources"] = f"HELM-{container['name'].upper()}-RESOURCES"
        if container["name"] == "gateway" and "replicas" in found["spec"]:
            found["spec"]["replicas"] = "HELM-REPLICAS"
        template["spec"] |= {
            "nodeSelector": "HELM-SELECTOR",
            "tolerations": "HELM-TOLERATIONS",
            "imagePullSecrets": "HELM-PULL",
        }
    return found


def _file(manifest: Mapping[str, Any], part: str, taken: Mapping[str, str]) -> str:
    """Such as role-ctrl.serving.yaml: there may be one of a kind in several namespaces."""
    space, first = manifest["metadata"]["namespace"], f"{TEMPLATES}/{manifest['kind'].lower()}{part}"
    plain = space == "helm-namespace" and f"{first}.yaml" not in taken
    return f"{first}.yaml" if plain else f"{first}.{space}.yaml"


def _template(text: str, switches: list[str]) -> str:
    """An object, where all of its switches are on."""
    for mark, expression in _MARKS.items():
        text = text.replace(mark, expression)
    for one in reversed(switches):
        text = f"{{{{- if .Values.{one} }}}}\n{text}{{{{- end }}}}\n"
    return text


def _values(values: Mapping[str, object]) -> str:
    """With a line about each."""
    parts = [f"# {_ABOUT[key][1]}\n{yaml.safe_dump({key: value}, sort_keys=False)}" for key, value in values.items()]
    return "\n".join(parts)


def _schema(values: Mapping[str, Any]) -> str:
    """Of values: a misspelt one is refused."""
    known: dict[str, Any] = {key: {**_ABOUT[key][0], "description": _ABOUT[key][1]} for key in values}
    for part, inner in _PARTS.items():
        if part in known:
            keys = {key: {**kind, "description": about} for key, (kind, about) in inner.items() if key in values[part]}
            known[part] |= {"additionalProperties": False, "properties": keys}
    tree = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "additionalProperties": False,
        "required": ["image", "storage"],
        "properties": {"global": {"type": "object"}, **known},
    }
    return json.dumps(tree, indent=2, allow_nan=False) + "\n"
