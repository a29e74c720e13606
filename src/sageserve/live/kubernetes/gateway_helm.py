"""The manifests of gateways as a Helm chart of their own: the same objects, numbers and names of a cluster taken from values.

    Chart.yaml, values.yaml, values.schema.json, fleet.yaml (the settings), templates/

Control and gateways are switched separately: where control is elsewhere, only gateways run. Pure.
Read next: `gateway_manifests.py`; `chart_values.py`; tests/live/kubernetes/test_gateway_chart.py.
"""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import yaml

from sageserve.base.config import Scenario
from sageserve.live.kubernetes.chart_values import (
    ABOUT,
    DISK,
    NAMESPACE,
    About,
    mark_pod,
    template_file,
    template_text,
    values_file,
    values_schema,
)
from sageserve.live.kubernetes.gateway_manifests import CONTROL, GatewayChoices, gateway_parts
from sageserve.live.kubernetes.manifests import FILE, ChartChoices, Manifest, as_documents, object_name

_MARKS: Final[Mapping[str, str]] = {
    "HELM-CONTROL-RESOURCES": "{{ .Values.control.resources | toJson }}",
    "HELM-GATEWAY-RESOURCES": "{{ .Values.gateway.resources | toJson }}",
    "HELM-REPLICAS": "{{ .Values.gateway.replicas | toJson }}",
    "HELM-MOST": "{{ .Values.gateway.maxReplicas | toJson }}",
    "HELM-SECRET": "{{ .Values.gateway.secret | toJson }}",
    "HELM-ADDRESS": "{{ .Values.gateway.control | toJson }}",
}
_ABOUT: Final[About] = {
    **ABOUT,
    "storage": (dict(DISK), "size of control's disk"),
    "serviceMonitor": ({"type": "boolean"}, "a ServiceMonitor of gateways, for the Prometheus operator"),
    "control": ({"type": "object"}, "the process that decides, and tells gateways"),
    "gateway": ({"type": "object"}, "processes that clients ask"),
}
_PARTS: Final[Mapping[str, About]] = {
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
    marked = replace(choices, image="HELM-IMAGE", storage="HELM-STORAGE", namespace=NAMESPACE, monitored=True)
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
        files[template_file(kept, part, files)] = template_text(as_documents([kept]), _MARKS, switches)
    about = {"apiVersion": "v2", "name": f"{name}-gateways", "version": "0.1.0", "appVersion": version, "type": "application"}
    about["description"] = f"gateways of {scenario.name}; written by sageserve render gateways, of one scenario"
    head = {"Chart.yaml": yaml.safe_dump(about, sort_keys=False), "values.yaml": values_file(values, _ABOUT)}
    return {**head, "values.schema.json": values_schema(values, _ABOUT, _PARTS), FILE: text, **files}


def _marked(manifest: Manifest, values: dict[str, Any]) -> dict[str, Any]:
    """An object with marks where values go; defaults that only it knows are put into the values."""
    found: dict[str, Any] = copy.deepcopy(manifest)
    if found["kind"] == "ConfigMap":
        found["data"] = {FILE: "HELM-SETTINGS"}
    if found["kind"] == "HorizontalPodAutoscaler":
        found["spec"] |= {"minReplicas": "HELM-REPLICAS", "maxReplicas": "HELM-MOST"}
    if found["kind"] == "Deployment":
        template = found["spec"]["template"]
        mark_pod(template)
        container = template["spec"]["containers"][0]
        values[container["name"]]["resources"] = container["resources"]
        container["resources"] = f"HELM-{container['name'].upper()}-RESOURCES"
        if container["name"] == "gateway" and "replicas" in found["spec"]:
            found["spec"]["replicas"] = "HELM-REPLICAS"
    return found
