"""The manifests as a Helm chart: the same objects, with what differs from cluster to cluster taken from values.

    Chart.yaml, values.yaml, values.schema.json, fleet.yaml (the settings), rules.yaml (alerts, if asked for), templates/
    guard.yaml (of the cluster's owner, where there is an agent: each of both parts is then switched by a value)

Rights are made from the settings, so that a chart is of one scenario: whoever changes its targets renders it anew. Pure.
Read next: `manifests.py`, `agent_manifests.py`, `cli/render_chart.py`; tests/live/kubernetes/test_helm.py.
"""

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import yaml

from sageserve.base.config import Scenario
from sageserve.live.kubernetes.agent_manifests import AGENT, GUARD, GUARD_FILE, AgentChoices, parts_of
from sageserve.live.kubernetes.manifests import FILE, ChartChoices, Manifest, as_documents, object_name

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
    "HELM-AGENT-PLANS": "{{ .Values.agent.plans | toJson }}",
    "HELM-AGENT-REPORT": "{{ .Values.agent.report | toJson }}",
    "HELM-AGENT-EVERY": "{{ .Values.agent.every | toJson }}",
    "HELM-AGENT-REPLICAS": "{{ .Values.agent.replicas | toJson }}",
    "HELM-AGENT-RESOURCES": "{{ .Values.agent.resources | toJson }}",
    "helm-namespace": "{{ .Release.Namespace }}",
    "HELM-SETTINGS": f'{{{{ .Files.Get "{FILE}" | toJson }}}}',
    "HELM-GUARD": f'{{{{ .Files.Get "{GUARD_FILE}" | toJson }}}}',
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
    "watch": ("object", "the process that watches"),
    "agent": ("object", "processes that fetch plans, of which one acts"),
}
_PARTS: Final[Mapping[str, Mapping[str, tuple[str, str]]]] = {
    "watch": {"enabled": ("boolean", "it runs")},
    "agent": {
        "enabled": ("boolean", "they run"),
        "plans": ("string", "URL of the folder where plans are"),
        "report": ("string", "URL of the folder where reports are put; empty: nowhere"),
        "every": ("string", "between two fetches"),
        "replicas": ("integer", "how many; all but one wait"),
        "resources": ("object", "of the container"),
    },
}
"""What is in those values that are of a part."""


def helm_chart(  # noqa: PLR0913 # what differs is said by name
    scenario: Scenario,
    text: str,
    choices: ChartChoices,
    rules: str,
    version: str,
    *,
    agent: AgentChoices | None = None,
    watches: bool = True,
) -> dict[str, str]:
    """Files of a chart, by their path in it.

    Args:
        scenario: which targets, with which authority, and whether KEDA is answered.
        text: the scenario file.
        choices: all else; what values can say is their default.
        rules: alert rules; empty: none.
        version: of this program.
        agent: processes that fetch plans; None: the chart has none.
        watches: whether the process that watches runs, where there are agents too.
    """
    marked = replace(choices, image="HELM-IMAGE", storage="HELM-STORAGE", namespace="helm-namespace", monitored=True)
    found = parts_of(scenario, text, marked, agent, watches=True)
    values: dict[str, Any] = {"image": choices.image, "storage": choices.storage, "serviceMonitor": choices.monitored}
    if agent is not None:
        kept_too = {"plans": agent.plans, "report": agent.report, "every": agent.every, "replicas": agent.replicas}
        values |= {"watch": {"enabled": watches}, "agent": {"enabled": True, **kept_too}}
    name = object_name(scenario.name)
    files: dict[str, str] = {}
    for one in found:
        kept = _marked(one, values)
        part = kept["metadata"]["name"].removeprefix(name)
        file = f"{TEMPLATES}/{_file(kept, part, [*files])}"
        switches = [] if agent is None else ["agent.enabled" if part in {AGENT, GUARD} else "watch.enabled"]
        switches += ["serviceMonitor"] if kept["kind"] == "ServiceMonitor" else []
        files[file] = _template(as_documents([kept]), switches)
    if agent is not None:
        files[GUARD_FILE] = agent.guard
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


def _marked(manifest: Manifest, values: dict[str, Any]) -> dict[str, Any]:
    """An object with marks where values go; defaults that only it knows are put into the values."""
    found: dict[str, Any] = copy.deepcopy(manifest)
    if found["kind"] == "ConfigMap":
        marks = {FILE: "HELM-SETTINGS", GUARD_FILE: "HELM-GUARD"}
        found["data"] = {key: marks.get(key, text) for key, text in found["data"].items()}
    if found["kind"] == "Deployment":
        template = found["spec"]["template"]
        template["metadata"]["annotations"]["sageserve.io/settings"] = "HELM-HASH"
        container = template["spec"]["containers"][0]
        if container["name"] == "watch":
            values |= {"resources": container["resources"], "nodeSelector": {}, "tolerations": [], "imagePullSecrets": []}
            container["resources"] = "HELM-RESOURCES"
        elif container["name"] == "agent":
            values["agent"]["resources"] = container["resources"]
            container["resources"], found["spec"]["replicas"] = "HELM-AGENT-RESOURCES", "HELM-AGENT-REPLICAS"
            _mark_words(container["args"])
        else:
            values |= {"followers": found["spec"]["replicas"]}
            found["spec"]["replicas"] = "HELM-FOLLOWERS"
        template["spec"] |= {
            "nodeSelector": "HELM-SELECTOR",
            "tolerations": "HELM-TOLERATIONS",
            "imagePullSecrets": "HELM-SECRETS",
        }
    return found


def _mark_words(words: list[str]) -> None:
    """Of a command whose options values say."""
    for option in ("plans", "report", "every"):
        words[words.index(f"--{option}") + 1] = f"HELM-AGENT-{option.upper()}"


def _file(manifest: Mapping[str, Any], part: str, taken: list[str]) -> str:
    """Such as role-serving.yaml: there may be one of a kind in several namespaces."""
    space = manifest["metadata"]["namespace"]
    first = f"{manifest['kind'].lower()}{part}"
    if space == "helm-namespace" and f"{TEMPLATES}/{first}.yaml" not in taken:
        return f"{first}.yaml"
    return f"{first}{'.' if part else '-'}{space}.yaml"  # no namespace has a dot, and one may be called as a part is


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


def _schema(values: Mapping[str, object]) -> str:
    """Of values: a misspelt one is refused."""
    known: dict[str, Any] = {key: {"type": kind, "description": about} for key, (kind, about) in _ABOUT.items() if key in values}
    for part, inner in _PARTS.items():
        if part in known:
            keys = {key: {"type": kind, "description": about} for key, (kind, about) in inner.items()}
            known[part] |= {"additionalProperties": False, "properties": keys}
    if "agent" in known:
        known["agent"]["properties"]["replicas"] |= {"minimum": 0}
        known["agent"]["properties"]["plans"] |= {"minLength": 1}
        known["agent"] |= {"required": ["plans"]}
    if "followers" in known:
        known["followers"] |= {"minimum": 1}
    known["image"] |= {"minLength": 1}
    known["storage"] |= {"pattern": "^[1-9][0-9]*(Ki|Mi|Gi|Ti|K|M|G|T)?$"}
    tree = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "additionalProperties": False,
        "required": ["image", "storage"],
        "properties": {"global": {"type": "object"}, **known},
    }
    return json.dumps(tree, indent=2, allow_nan=False) + "\n"
