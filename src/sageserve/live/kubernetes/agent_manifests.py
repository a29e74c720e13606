"""What runs `sageserve agent` in a cluster: processes that fetch plans, the owner's guard, and a Role of what both allow.

The Role writes no more than the guard and the authority of targets together let be done. Agents may be several, of which the one
with the lease acts; none has a disk: what was followed is kept in the cluster, too. The guard's ConfigMap is its owner's to
change. Pure.
Read next: `manifests.py`, whose objects these stand beside; `cli/render_agent.py`; docs/how-to/many-clusters.md.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from sageserve.base.config import Scenario
from sageserve.base.config.clusters import Rung, TargetSettings
from sageserve.live.kubernetes.manifests import (
    FILE,
    NO_RIGHTS,
    PORT,
    SETTINGS,
    STATE,
    ChartChoices,
    Made,
    Manifest,
    manifests,
    object_name,
)
from sageserve.live.kubernetes.reader import Right
from sageserve.live.kubernetes.rights import READS, home_of, rights_of

AGENT: Final = "-agent"
"""End of the names of what agents are."""
GUARD: Final = "-guard"
"""End of the name of the guard's ConfigMap, which is its owner's to change."""
GUARD_FILE: Final = "guard.yaml"
GUARDS: Final = "/etc/sageserve-guard"


@dataclass(frozen=True, slots=True)
class AgentChoices:
    """What is not in the scenario.

    Args:
        plans: URL of the folder where plans are.
        keys: that are trusted: PEM by name of file.
        guard: file of the cluster's owner, as text.
        rungs: how far each target may be acted on by that guard, by name.
        report: URL of the folder where reports go; empty: nowhere.
        bearer: file of the container with a token for both; empty: none.
        ca_file: file of the container with certificates that both may have; empty: the system's.
        every: between two fetches.
        replicas: processes, of which one acts.
    """

    plans: str
    keys: Mapping[str, str]
    guard: str
    rungs: Mapping[str, Rung]
    report: str = ""
    bearer: str = ""
    ca_file: str = ""
    every: str = "30s"
    replicas: int = 1


def parts_of(
    scenario: Scenario, text: str, choices: ChartChoices, agent: AgentChoices | None, *, watches: bool
) -> list[Manifest]:
    """Objects of whoever watches, and of agents beside or instead of it.

    Args:
        scenario: with the targets of the cluster.
        text: the scenario file.
        choices: of both.
        agent: what is asked for; None: none.
        watches: somebody watches.
    """
    found = manifests(scenario, text, choices) if watches else []
    if agent is None:
        return found
    assert scenario.live is not None
    targets = {name: one for name, one in scenario.live.targets.items() if one.cluster == choices.cluster}
    follows = scenario.live.clusters[choices.cluster].pods
    return found + agent_objects(Made(object_name(scenario.name), choices), text, targets, agent, follows=follows)


def agent_objects(
    fleet: Made, text: str, targets: Mapping[str, TargetSettings], agent: AgentChoices, *, follows: bool = False
) -> list[Manifest]:
    """Objects in the order in which they are to be made.

    Args:
        fleet: whose they are.
        text: the scenario file.
        targets: of the cluster, by name.
        agent: all else.
        follows: instances follow the pods of targets.
    """
    made = replace(fleet, part=AGENT)
    found = [
        made.object("v1", "ServiceAccount", automountServiceAccountToken=True),
        *made.roles_of(_rights(targets, agent.rungs, follows=follows)),
        made.object("v1", "ConfigMap", data={FILE: text, **agent.keys}),
        replace(fleet, part=GUARD).object("v1", "ConfigMap", data={GUARD_FILE: agent.guard}),
        _deployment(made, text, agent),
        made.service({"metrics": PORT}),
    ]
    return [*found, *([made.monitor()] if made.choices.monitored else [])]


def allowed(target: TargetSettings, guard: Rung) -> Rung:
    """How far a target may be acted on by its authority and the guard; replicas have no bounds to fall back on."""
    if target.authority == "full" or guard == "full":
        return target.authority if guard == "full" else "observe"
    order: tuple[Rung, ...] = ("observe", "floor", "bounds")
    return order[min(order.index(target.authority), order.index(guard))]


def _rights(targets: Mapping[str, TargetSettings], rungs: Mapping[str, Rung], *, follows: bool) -> Iterator[Right]:
    """Reads as authority asks for them, writes as far as the guard allows them, too."""
    home = home_of(targets.values())
    for name, target in targets.items():
        held = target.model_copy(update={"authority": allowed(target, rungs[name])})
        yield from (one for one in rights_of(target, home, follows=follows) if one.verb in READS)
        yield from rights_of(held, home, follows=follows)


def _deployment(made: Made, text: str, agent: AgentChoices) -> Manifest:
    volumes: list[Manifest] = [
        {"name": "settings", "configMap": {"name": made.name}},
        {"name": "guard", "configMap": {"name": f"{made.fleet}{GUARD}"}},
        {"name": "state", "emptyDir": {}},
        *(one for one in made.volumes() if one["name"] not in {"settings", "state"}),
    ]
    spec = {**made.pod(_container(made, agent)), "serviceAccountName": made.name, "volumes": volumes}
    labels, marks = made.labels, made.marks(text)
    keys = hashlib.sha256("".join(agent.keys.values()).encode()).hexdigest()[:16]
    marks["sageserve.io/keys"] = f"sha256-{keys}"  # they are read when it starts; the guard whenever it changes
    template = {"metadata": {"labels": labels, "annotations": marks}, "spec": spec}
    wanted = {"replicas": agent.replicas, "selector": {"matchLabels": labels}, "template": template}
    return made.object("apps/v1", "Deployment", spec=wanted)


def _container(made: Made, agent: AgentChoices) -> Manifest:
    look = {"httpGet": {"path": "/metrics", "port": "metrics"}}
    words = {
        "--cluster": made.choices.cluster,
        "--plans": agent.plans,
        "--report": agent.report,
        "--every": agent.every,
        "--guard": f"{GUARDS}/{GUARD_FILE}",
        "--state": f"{STATE}/agent",
        "--listen": f"0.0.0.0:{PORT}",
        **({"--bearer-file": agent.bearer} if agent.bearer else {}),
        **({"--ca-file": agent.ca_file} if agent.ca_file else {}),
    }
    keys = [word for name in agent.keys for word in ("--key", f"{SETTINGS}/{name}")]
    return {
        "name": "agent",
        "image": made.choices.image,
        "command": ["sageserve"],
        "args": ["agent", f"{SETTINGS}/{FILE}", *(word for pair in words.items() for word in pair), *keys],
        "env": [{"name": "HOME", "value": STATE}],  # where compiled code is kept, too
        "ports": [{"name": "metrics", "containerPort": PORT}],
        "readinessProbe": look,
        "livenessProbe": {**look, "periodSeconds": 30, "timeoutSeconds": 10, "failureThreshold": 4},
        "startupProbe": {**look, "periodSeconds": 5, "failureThreshold": 120},  # it compiles once where it sees what runs
        "resources": {"requests": {"cpu": "100m", "memory": "512Mi"}},
        "securityContext": dict(NO_RIGHTS),
        "volumeMounts": [*made.mounts(), {"name": "guard", "mountPath": GUARDS, "readOnly": True}],
    }
