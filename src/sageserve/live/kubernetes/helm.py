"""The manifests as a Helm chart: the same objects, with what differs from cluster to cluster taken from values.

    Chart.yaml, values.yaml, values.schema.json, fleet.yaml (the settings), rules.yaml (alerts, if asked for), templates/
    guard.yaml (of the cluster's owner, where there is an agent: each of both parts is then switched by a value)

Rights are made from the settings, so that a chart is of one scenario: whoever changes its targets renders it anew. Pure.
Read next: `chart_values.py`, `manifests.py`, `agent_manifests.py`, `cli/render_chart.py`; tests/live/kubernetes/test_helm.py.
"""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import yaml

from sageserve.base.config import Scenario
from sageserve.live.kubernetes.agent_manifests import AGENT, GUARD, GUARD_FILE, AgentChoices, parts_of
from sageserve.live.kubernetes.chart_values import (
    ABOUT,
    DISK,
    NAMESPACE,
    TEMPLATES,
    About,
    mark_pod,
    template_file,
    template_text,
    values_file,
    values_schema,
)
from sageserve.live.kubernetes.manifests import FILE, ChartChoices, Manifest, as_documents, object_name

RULES: Final = "rules.yaml"
_MARKS: Final[Mapping[str, str]] = {
    "HELM-RESOURCES": "{{ .Values.resources | toJson }}",
    "HELM-FOLLOWERS": "{{ .Values.followers | toJson }}",
    "HELM-AGENT-PLANS": "{{ .Values.agent.plans | toJson }}",
    "HELM-AGENT-REPORT": "{{ .Values.agent.report | toJson }}",
    "HELM-AGENT-EVERY": "{{ .Values.agent.every | toJson }}",
    "HELM-AGENT-REPLICAS": "{{ .Values.agent.replicas | toJson }}",
    "HELM-AGENT-RESOURCES": "{{ .Values.agent.resources | toJson }}",
    "HELM-GUARD": f'{{{{ .Files.Get "{GUARD_FILE}" | toJson }}}}',
}
_ABOUT: Final[About] = {
    **ABOUT,
    "storage": (dict(DISK), "size of its disk: five weeks of minutes and a journal"),
    "followers": ({"type": "integer", "minimum": 1}, "processes that answer KEDA with what the one that watches said last"),
    "serviceMonitor": (
        {"type": "boolean"},
        "a ServiceMonitor, and alert rules where the chart has some, for the Prometheus operator",
    ),
    "resources": ({"type": "object"}, "of the container"),
    "watch": ({"type": "object"}, "the process that watches"),
    "agent": ({"type": "object", "required": ["plans"]}, "processes that fetch plans, of which one acts"),
}
_PARTS: Final[Mapping[str, About]] = {
    "watch": {"enabled": ({"type": "boolean"}, "it runs")},
    "agent": {
        "enabled": ({"type": "boolean"}, "they run"),
        "plans": ({"type": "string", "minLength": 1}, "URL of the folder where plans are"),
        "report": ({"type": "string"}, "URL of the folder where reports are put; empty: nowhere"),
        "every": ({"type": "string"}, "between two fetches"),
        "replicas": ({"type": "integer", "minimum": 0}, "how many; all but one wait"),
        "resources": ({"type": "object"}, "of the container"),
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
    marked = replace(choices, image="HELM-IMAGE", storage="HELM-STORAGE", namespace=NAMESPACE, monitored=True)
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
        file = template_file(kept, part, files)
        switches = [] if agent is None else ["agent.enabled" if part in {AGENT, GUARD} else "watch.enabled"]
        switches += ["serviceMonitor"] if kept["kind"] == "ServiceMonitor" else []
        files[file] = template_text(as_documents([kept]), _MARKS, switches)
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
        "values.yaml": values_file(values, _ABOUT),
        "values.schema.json": values_schema(values, _ABOUT, _PARTS),
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
        mark_pod(template)
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
    return found


def _mark_words(words: list[str]) -> None:
    """Of a command whose options values say."""
    for option in ("plans", "report", "every"):
        words[words.index(f"--{option}") + 1] = f"HELM-AGENT-{option.upper()}"
