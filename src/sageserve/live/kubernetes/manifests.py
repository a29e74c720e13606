"""What runs `sageserve watch` in a cluster: one process, its settings, its disk, its ports, and a Role no larger than needed.

The Role is made of the authority of the targets: who only observes may only read. One replica, never two at once: its state
folder has one owner. Nothing runs as root, and nothing but the disk and /tmp is written. Pure.
Read next: `rights.py`, `cli/render_chart.py`.
"""

import hashlib
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Final, TypeAlias

import yaml

from sageserve.base.config import ScalerSettings, Scenario
from sageserve.base.config.clusters import ShareSettings, TargetSettings
from sageserve.live.kubernetes.reader import Right
from sageserve.live.kubernetes.rights import home_of, rights_of, share_rights

Manifest: TypeAlias = "dict[str, object]"

STATE: Final = "/var/lib/sageserve"
SETTINGS: Final = "/etc/sageserve"
FILE: Final = "fleet.yaml"
PORT: Final = 8110
FOLLOWERS: Final = "-scaler"
"""End of the names of what followers are."""
_LABEL: Final = 63
"""Signs that the name of a Service may have (RFC 1035), as may a label's value."""
_HASH: Final = 8
_USER: Final = 65532  # nobody's
_CORE: Final = "v1"
NO_RIGHTS: Final[Mapping[str, object]] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
_RBAC: Final = "rbac.authorization.k8s.io"


@dataclass(frozen=True, slots=True)
class ChartChoices:
    """What is not in the scenario.

    Args:
        image: of the container.
        namespace: where it runs.
        cluster: of live.clusters, the one that it runs in.
        storage: size of its disk, as Kubernetes writes it.
        secrets: folder of the container by name of the Secret whose files it holds.
        monitored: a ServiceMonitor, for the Prometheus operator.
        acts: it carries out what the authority of targets allows; else it needs no right to write.
        followers: that answer KEDA in its place; 0: it answers itself.
    """

    image: str
    namespace: str
    cluster: str
    storage: str
    secrets: Mapping[str, str]
    monitored: bool
    acts: bool = False
    followers: int = 0


def manifests(scenario: Scenario, text: str, choices: ChartChoices) -> list[Manifest]:
    """Objects in the order in which they are to be made.

    Args:
        scenario: which targets, with which authority, and whether KEDA is answered.
        text: the scenario file.
        choices: all else.
    """
    assert scenario.live is not None
    mine = [one for one in scenario.live.targets.values() if one.cluster == choices.cluster]
    made = Made(object_name(scenario.name), choices)
    scaler = scenario.live.scaler
    asked = {} if scaler is None else {"scaler": _port_of(scaler)}
    ports = {"metrics": PORT, **({} if choices.followers else asked)}
    found = [
        made.object(_CORE, "ServiceAccount", automountServiceAccountToken=bool(mine)),
        *made.roles(mine, shares_in(scenario, choices.cluster), follows=scenario.live.clusters[choices.cluster].pods),
        made.object(_CORE, "ConfigMap", data={FILE: text}),
        made.disk(),
        made.deployment(text, ports),
        made.service(ports),
        *(followers_of(made, text, scaler) if choices.followers and scaler is not None else []),
    ]
    return [*found, *([made.monitor()] if choices.monitored else [])]


def shares_in(scenario: Scenario, cluster: str) -> list[ShareSettings]:
    """Objects of a cluster that share requests among regions."""
    return [] if scenario.live is None else [one for one in scenario.live.shares.values() if one.cluster == cluster]


def object_name(fleet: str) -> str:
    """What the objects of a fleet are called: a label as Services need it, with room for the end of those of followers.

    One that is too long is cut, and ends with a hash of the fleet's whole name, so that no two are called the same.
    """
    name = "sageserve-" + re.sub("[^a-z0-9-]", "-", fleet.lower()).rstrip("-")
    most = _LABEL - len(FOLLOWERS)
    if len(name) <= most:
        return name
    return f"{name[: most - _HASH - 1].rstrip('-')}-{hashlib.sha256(fleet.encode()).hexdigest()[:_HASH]}"


def _port_of(scaler: ScalerSettings) -> int:
    return int(scaler.listen.rpartition(":")[2])


def followers_of(made: "Made", text: str, scaler: ScalerSettings) -> list[Manifest]:
    """Processes that answer KEDA with what the one that watches said last: they have no disk and no right, and may be many.

    Of the Secrets they see those with the certificate that KEDA is shown: they ask no Prometheus.
    """
    tls, port = scaler.tls, _port_of(scaler)
    files = [] if tls is None else [one for one in (tls.certificate, tls.key, tls.client_ca) if one is not None]
    read = [PurePosixPath(posixpath.normpath(one)) for one in files]
    secrets = {name: folder for name, folder in made.choices.secrets.items() if any(one.is_relative_to(folder) for one in read)}
    theirs = replace(made, part=FOLLOWERS, choices=replace(made.choices, secrets=secrets))
    return [theirs.follower(text, port, leader=made.name), theirs.service({"scaler": port}), theirs.budget()]


class _Dumper(yaml.SafeDumper):
    """Files within files as they are written, and nothing by reference."""

    def ignore_aliases(self, data: object) -> bool:  # the signature is yaml's
        """All of it is written out."""
        return True


def _text_node(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text_node)


def as_documents(found: Iterable[Manifest]) -> str:
    """Objects as one YAML file."""
    return yaml.dump_all(found, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)


@dataclass(frozen=True, slots=True)
class Made:
    """Objects of one fleet.

    Args:
        fleet: whose they are.
        choices: of whoever asks for them.
        part: of the name; empty: the process that watches.
    """

    fleet: str
    choices: ChartChoices
    part: str = ""

    @property
    def name(self) -> str:
        """Of all of its objects."""
        return f"{self.fleet}{self.part}"

    @property
    def labels(self) -> dict[str, str]:
        """By which its Service and its Deployment find its pods."""
        return {"app.kubernetes.io/name": "sageserve", "app.kubernetes.io/instance": self.name}

    def object(self, version: str, kind: str, /, namespace: str = "", **content: object) -> Manifest:
        """One, with its labels."""
        metadata = {"name": self.name, "namespace": namespace or self.choices.namespace, "labels": self.labels}
        return {"apiVersion": version, "kind": kind, "metadata": metadata, **content}

    def roles(self, targets: Sequence[TargetSettings], shares: Sequence[ShareSettings], *, follows: bool) -> Iterator[Manifest]:
        """A Role and its binding for every namespace in which there are targets."""
        acts = self.choices.acts
        held = [one if acts else one.model_copy(update={"authority": "observe"}) for one in targets]
        rights = [right for one in held for right in rights_of(one, home_of(targets), follows=follows)]
        for share in shares:
            rights += share_rights(share if acts else share.model_copy(update={"authority": "observe"}), home_of(targets))
        return self.roles_of(rights)

    def roles_of(self, rights: Iterable[Right]) -> Iterator[Manifest]:
        """A Role and its binding for every namespace in which there are rights."""
        spaces: dict[str, dict[tuple[str, str], dict[str, None]]] = {}
        for right in rights:
            verbs = spaces.setdefault(right.namespace, {}).setdefault((right.group, right.plural), {})
            verbs[right.verb] = None
        for space, resources in spaces.items():
            rules = [{"apiGroups": [key[0]], "resources": [key[1]], "verbs": list(verbs)} for key, verbs in resources.items()]
            yield self.object(f"{_RBAC}/v1", "Role", namespace=space, rules=rules)
            bound = {"apiGroup": _RBAC, "kind": "Role", "name": self.name}
            us = {"kind": "ServiceAccount", "name": self.name, "namespace": self.choices.namespace}
            yield self.object(f"{_RBAC}/v1", "RoleBinding", namespace=space, roleRef=bound, subjects=[us])

    def disk(self) -> Manifest:
        """Of the state folder: five weeks of minutes, and the journal."""
        wanted = {"requests": {"storage": self.choices.storage}}
        return self.object(_CORE, "PersistentVolumeClaim", spec={"accessModes": ["ReadWriteOnce"], "resources": wanted})

    def deployment(self, text: str, ports: Mapping[str, int]) -> Manifest:
        """The process; it is started anew when the settings are others."""
        pod = {"metadata": self._marked(text), "spec": self.pod(self._container(ports))}
        spec = {"replicas": 1, "strategy": {"type": "Recreate"}, "selector": {"matchLabels": self.labels}, "template": pod}
        return self.object("apps/v1", "Deployment", spec=spec)

    def follower(self, text: str, port: int, *, leader: str) -> Manifest:
        """Processes that answer in its place; one after another is started anew when the settings are others."""
        look = {"tcpSocket": {"port": "scaler"}}
        container: Manifest = {
            "name": "scaler",
            "image": self.choices.image,
            "command": ["sageserve"],
            "args": ["scaler", f"{SETTINGS}/{FILE}", "--leader", f"http://{leader}:{PORT}"],
            "env": [{"name": "HOME", "value": "/tmp"}],  # noqa: S108 # of the container
            "ports": [{"name": "scaler", "containerPort": port}],
            "readinessProbe": look,
            "livenessProbe": {**look, "periodSeconds": 30},
            "startupProbe": {**look, "periodSeconds": 2, "failureThreshold": 60},
            "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}},
            "securityContext": dict(NO_RIGHTS),
            "volumeMounts": [one for one in self.mounts() if one["name"] != "state"],
        }
        spec = self.pod(container)
        volumes = [one for one in self.volumes() if one["name"] != "state"]
        pod = {**spec, "automountServiceAccountToken": False, "terminationGracePeriodSeconds": 10, "volumes": volumes}
        template = {"metadata": self._marked(text), "spec": pod}
        wanted = {"replicas": self.choices.followers, "selector": {"matchLabels": self.labels}, "template": template}
        return self.object("apps/v1", "Deployment", spec=wanted)

    def budget(self) -> Manifest:
        """That they are not all taken away at once."""
        return self.object(
            "policy/v1", "PodDisruptionBudget", spec={"maxUnavailable": 1, "selector": {"matchLabels": self.labels}}
        )

    def _marked(self, text: str) -> Manifest:
        return {"labels": self.labels, "annotations": self.marks(text)}

    def marks(self, text: str) -> dict[str, str]:
        """Annotations of a pod that is started anew when its settings are others."""
        return {"sageserve.io/settings": f"sha256-{hashlib.sha256(text.encode()).hexdigest()[:16]}"}

    def volumes(self) -> list[Manifest]:
        """Settings, disk, /tmp and Secrets."""
        volumes: list[Manifest] = [
            {"name": "settings", "configMap": {"name": self.fleet}},
            {"name": "state", "persistentVolumeClaim": {"claimName": self.fleet}},
            {"name": "tmp", "emptyDir": {}},
        ]
        volumes += [{"name": f"secret-{name}", "secret": {"secretName": name}} for name in self.choices.secrets]
        return volumes

    def pod(self, container: Manifest) -> Manifest:
        """What runs a container, as nobody."""
        return {
            "serviceAccountName": self.fleet,
            "terminationGracePeriodSeconds": 60,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": _USER,
                "runAsGroup": _USER,
                "fsGroup": _USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": self.volumes(),
        }

    def mounts(self) -> list[Manifest]:
        """Where they stand."""
        mounts: list[Manifest] = [
            {"name": "settings", "mountPath": SETTINGS, "readOnly": True},
            {"name": "state", "mountPath": STATE},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 # of the container
        ]
        secrets = self.choices.secrets.items()
        return [*mounts, *({"name": f"secret-{name}", "mountPath": folder, "readOnly": True} for name, folder in secrets)]

    def _container(self, ports: Mapping[str, int]) -> Manifest:
        look = {"httpGet": {"path": "/metrics", "port": "metrics"}}
        return {
            "name": "watch",
            "image": self.choices.image,
            "command": ["sageserve"],
            "args": [
                "watch",
                f"{SETTINGS}/{FILE}",
                "--state",
                f"{STATE}/watch",
                "--listen",
                f"0.0.0.0:{PORT}",
                *(["--act"] if self.choices.acts else []),
            ],
            "env": [{"name": "HOME", "value": STATE}],  # where compiled code is kept, too
            "ports": [{"name": name, "containerPort": port} for name, port in ports.items()],
            "readinessProbe": look,
            "livenessProbe": {**look, "periodSeconds": 30, "timeoutSeconds": 10, "failureThreshold": 4},
            "startupProbe": {**look, "periodSeconds": 5, "failureThreshold": 120},  # it compiles once, and reads two weeks
            "resources": {"requests": {"cpu": "250m", "memory": "1Gi"}},
            "securityContext": dict(NO_RIGHTS),
            "volumeMounts": self.mounts(),
        }

    def service(self, ports: Mapping[str, int]) -> Manifest:
        """Where Prometheus and KEDA find it."""
        listed: Sequence[Manifest] = [{"name": name, "port": port, "targetPort": name} for name, port in ports.items()]
        return self.object(_CORE, "Service", spec={"selector": self.labels, "ports": listed})

    def monitor(self) -> Manifest:
        """That its metrics are scraped, for the Prometheus operator."""
        spec = {"selector": {"matchLabels": self.labels}, "endpoints": [{"port": "metrics", "interval": "15s"}]}
        return self.object("monitoring.coreos.com/v1", "ServiceMonitor", spec=spec)
