"""What runs gateways in a cluster, and the control that tells them: replicas behind a Service, one control with a disk.

Gateways have no disk and no right, and may be many: they are told over TLS what is open, and are replaced one after another
without cutting a stream. Control is `sageserve up` with a gateway of its own, through which jobs of batches go; it may read the
Services that it follows, and nothing else. Pure.
Read next: `manifests.py`, whose parts these are made of; `gateway_helm.py`, `cli/render_gateways.py`;
docs/how-to/gateways-elsewhere.md.
"""

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Final

from sageserve.base.config import LiveSettings, Scenario
from sageserve.live.kubernetes.manifests import FILE, NO_RIGHTS, SETTINGS, STATE, ChartChoices, Made, Manifest, object_name
from sageserve.live.kubernetes.reader import Right

CONTROL: Final = "-ctrl"
GATEWAY: Final = "-gate"
"""Ends of the names of what control's and gateways' objects are: no longer than those that a name has room for."""
PORT: Final = 8100
PAPERS: Final = "/etc/sageserve-link"
"""Folder of the container with the files of the gateways' Secret, as cert-manager writes it."""
DRAIN_S: Final = 600
"""That an answer may take after its gateway was told to end."""
LEAVING_S: Final = 5
"""For every node to hear that a pod is leaving, before it takes nothing new."""
_LAST_S: Final = 15
_SCRATCH: Final = "/tmp"  # noqa: S108 # of the container


@dataclass(frozen=True, slots=True)
class GatewayChoices:
    """What is not in the scenario.

    Args:
        secret: name of the one with `tls.crt`, `tls.key` and `ca.crt` that gateways show to control.
        replicas: gateways; with `most`, at least.
        most: gateways that an autoscaler may make of them; 0: there is none.
        control: `tls://HOST:PORT` of a control elsewhere; empty: it is here, too.
        region: where the gateways are; empty: the first.
    """

    secret: str
    replicas: int = 2
    most: int = 0
    control: str = ""
    region: str = ""


def gateway_parts(scenario: Scenario, text: str, choices: ChartChoices, asked: GatewayChoices) -> list[Manifest]:
    """Objects in the order in which they are to be made.

    Args:
        scenario: what is served, and which Services are followed.
        text: the scenario file.
        choices: image, namespace, disk and Secrets; each process sees those with files that it reads.
        asked: all else.
    """
    live = scenario.live or LiveSettings()
    fleet = object_name(scenario.name)
    control = [] if asked.control else _control_objects(Made(fleet, choices, CONTROL), live, text)
    mine = replace(choices, secrets=_holding(choices.secrets, read_by_gateways(live)))
    made = Made(fleet, mine, GATEWAY)
    own = [
        made.object("v1", "ServiceAccount", automountServiceAccountToken=False),
        made.object("v1", "ConfigMap", data={FILE: text}),
        _gateways(made, live, text, asked if asked.control else replace(asked, control=address_of(scenario, choices.namespace))),
        made.service({"http": PORT}),
        made.budget(),
    ]
    return [
        *control,
        *own,
        *([_autoscaler(made, asked)] if asked.most else []),
        *([_monitor(made, live)] if mine.monitored else []),
    ]


def link_port(live: LiveSettings) -> int:
    """At which control is reached."""
    return int(live.link.listen.rpartition(":")[2]) if live.link is not None else 0


def address_of(scenario: Scenario, namespace: str) -> str:
    """Where gateways find the control that is here; its certificate must have the name."""
    return f"tls://{object_name(scenario.name)}{CONTROL}.{namespace}.svc:{link_port(scenario.live or LiveSettings())}"


def _control_objects(made: Made, live: LiveSettings, text: str) -> list[Manifest]:
    port = {"link": link_port(live)}
    return [
        made.object("v1", "ServiceAccount", automountServiceAccountToken=bool(live.services)),
        *made.roles_of(_rights(live)),
        made.object("v1", "ConfigMap", data={FILE: text}),
        made.disk(),
        _control(made, text, port),
        made.service(port),
    ]


def _rights(live: LiveSettings) -> Iterator[Right]:
    """To follow Services, or pods by labels."""
    for one in live.services:
        group, plural = ("discovery.k8s.io", "endpointslices") if one.service else ("", "pods")
        space = one.service.partition("/")[0] or one.namespace
        yield from (Right(verb, group, plural, space) for verb in ("list", "watch"))


def _control(made: Made, text: str, ports: Mapping[str, int]) -> Manifest:
    look = {"tcpSocket": {"port": "link"}}  # it listens there from the moment at which it can tell what is open
    container: Manifest = {
        "name": "control",
        "image": made.choices.image,
        "command": ["sageserve"],
        "args": ["up", f"{SETTINGS}/{FILE}", "--state", f"{STATE}/fleet"],
        "env": [{"name": "HOME", "value": STATE}],  # where compiled code is kept, too
        "ports": [{"name": name, "containerPort": port} for name, port in ports.items()],
        "readinessProbe": look,
        "livenessProbe": {**look, "periodSeconds": 30, "failureThreshold": 4},
        "startupProbe": {**look, "periodSeconds": 5, "failureThreshold": 120},  # it compiles once
        "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}},
        "securityContext": dict(NO_RIGHTS),
        "volumeMounts": made.mounts(),
    }
    spec = {**made.pod(container), "serviceAccountName": made.name, "volumes": _volumes(made, disk=True)}
    template = {"metadata": {"labels": made.labels, "annotations": made.marks(text)}, "spec": spec}
    wanted = {"replicas": 1, "strategy": {"type": "Recreate"}, "selector": {"matchLabels": made.labels}, "template": template}
    return made.object("apps/v1", "Deployment", spec=wanted)


def _gateways(made: Made, live: LiveSettings, text: str, asked: GatewayChoices) -> Manifest:
    """One after another is replaced, the new one first; the old one leaves, and then finishes what it has."""
    spec = {
        **made.pod(_gateway(made, live, asked)),
        "serviceAccountName": made.name,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": LEAVING_S + DRAIN_S + _LAST_S,
        "volumes": [*_volumes(made, disk=False), {"name": "link", "secret": {"secretName": asked.secret}}],
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": made.labels},
            }
        ],
    }
    template = {"metadata": {"labels": made.labels, "annotations": made.marks(text)}, "spec": spec}
    step = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    count = {} if asked.most else {"replicas": asked.replicas}  # an autoscaler's number is its own
    wanted = {**count, "strategy": step, "selector": {"matchLabels": made.labels}, "template": template}
    return made.object("apps/v1", "Deployment", spec=wanted)


def _gateway(made: Made, live: LiveSettings, asked: GatewayChoices) -> Manifest:
    scheme = "HTTPS" if live.tls is not None else "HTTP"
    ready, alive = ({"httpGet": {"path": path, "port": "http", "scheme": scheme}} for path in ("/health/ready", "/health"))
    words = {
        "--host": "0.0.0.0",  # noqa: S104 # of a pod
        "--port": str(PORT),
        "--control": asked.control,
        "--control-ca": f"{PAPERS}/ca.crt",
        "--control-certificate": f"{PAPERS}/tls.crt",
        "--control-key": f"{PAPERS}/tls.key",
        "--table": f"{_SCRATCH}/table",  # it outlives the process, and not the pod
        "--drain": str(DRAIN_S),
        **({"--region": asked.region} if asked.region else {}),
    }
    mounts = [one for one in made.mounts() if one["name"] != "state"]
    return {
        "name": "gateway",
        "image": made.choices.image,
        "command": ["sageserve"],
        "args": ["gateway", f"{SETTINGS}/{FILE}", *(word for pair in words.items() for word in pair)],
        "env": [{"name": "HOME", "value": _SCRATCH}],
        "ports": [{"name": "http", "containerPort": PORT}],
        "lifecycle": {"preStop": {"sleep": {"seconds": LEAVING_S}}},  # the image has no shell
        "readinessProbe": {**ready, "periodSeconds": 2, "failureThreshold": 2},
        "livenessProbe": {**alive, "periodSeconds": 30, "timeoutSeconds": 10, "failureThreshold": 4},
        "startupProbe": {**alive, "periodSeconds": 2, "failureThreshold": 60},
        "resources": {"requests": {"cpu": "500m", "memory": "256Mi"}},
        "securityContext": dict(NO_RIGHTS),
        "volumeMounts": [*mounts, {"name": "link", "mountPath": PAPERS, "readOnly": True}],
    }


def _volumes(made: Made, *, disk: bool) -> list[Manifest]:
    state: list[Manifest] = [{"name": "state", "persistentVolumeClaim": {"claimName": made.name}}] if disk else []
    others = [one for one in made.volumes() if one["name"] not in {"settings", "state"}]
    return [{"name": "settings", "configMap": {"name": made.name}}, *state, *others]


def _autoscaler(made: Made, asked: GatewayChoices) -> Manifest:
    """By CPU time, which is what a gateway runs out of; streams of one that goes are finished, so that it may go slowly."""
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": made.name}
    metric = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}}
    spec = {"scaleTargetRef": target, "minReplicas": asked.replicas, "maxReplicas": asked.most, "metrics": [metric]}
    return made.object("autoscaling/v2", "HorizontalPodAutoscaler", spec=spec)


def _monitor(made: Made, live: LiveSettings) -> Manifest:
    secured = {"scheme": "https", "tlsConfig": {"insecureSkipVerify": True}} if live.tls is not None else {}  # it asks addresses
    ends = [{"port": "http", "interval": "15s", **secured}]
    spec = {"selector": {"matchLabels": made.labels}, "endpoints": ends}
    return made.object("monitoring.coreos.com/v1", "ServiceMonitor", spec=spec)


def read_by_gateways(live: LiveSettings) -> list[str]:
    """Files of the settings that a gateway reads."""
    files = [live.tls.certificate, live.tls.key] if live.tls is not None else []
    for one in live.access.values():
        files += [each for each in (one.ca_file, one.certificate, one.key, one.bearer_file) if each is not None]
    return files


def read_by_control(live: LiveSettings) -> list[str]:
    """Files of the settings that control, and the gateway beside it, reads."""
    link = live.link.tls if live.link is not None else None
    return [*read_by_gateways(live), *([link.certificate, link.key, link.client_ca] if link is not None else [])]


def _holding(secrets: Mapping[str, str], files: list[str]) -> dict[str, str]:
    """Secrets in whose folders one of the files is."""
    return {name: folder for name, folder in secrets.items() if any(held(folder, one) for one in files)}


def held(folder: str, file: str) -> bool:
    """Whether a file stands in a folder of the container."""
    return PurePosixPath(posixpath.normpath(file)).is_relative_to(folder)
