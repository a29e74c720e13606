"""The API server, our rights, and the lease: can we read what we must, and no more than that? Read next: `facts.py`."""

import re
from collections.abc import Iterator
from datetime import datetime

from sageserve.live.doctor.checks import CheckFinding
from sageserve.live.doctor.facts import ClusterFacts, DoctorTarget, write_rights
from sageserve.live.kubernetes.kinds import KINDS
from sageserve.live.kubernetes.objects import fleet_object
from sageserve.live.kubernetes.reader import NotRead, Right
from sageserve.live.kubernetes.rights import READS, rights_of

LEASE_OLD = 60  # seconds without renewal: four times its length


def kube_reach(facts: ClusterFacts) -> Iterator[CheckFinding]:
    """The server answers at all."""
    if facts.unread is not None:
        context = facts.settings.context
        command = f"kubectl {f'--context {context} ' if context else ''}version"
        yield CheckFinding(facts.name, f"the API server does not answer: {facts.unread.detail}", command, "error")


def kube_version(facts: ClusterFacts) -> Iterator[CheckFinding]:
    """New enough for tolerances."""
    match = re.match(r"v?(\d+)\.(\d+)", facts.version)
    if match and (int(match[1]), int(match[2])) < (1, 35):
        said = f"Kubernetes {facts.version} has no tolerance of autoscalers: above ten instances, changes below 10 % do nothing"
        yield CheckFinding(facts.name, said, "kubectl version", "info")


def rbac_rung(facts: ClusterFacts) -> Iterator[CheckFinding]:
    """Every right of the authority."""
    for target in facts.targets:
        needed = rights_of(target.settings, target.home, follows=facts.settings.pods)
        missing = [right for right in needed if facts.rights.get(right) is False]
        if missing:
            verbs = ", ".join(f"{right.verb} {right.plural}" for right in missing[:4])
            said = f"authority {target.settings.authority} needs what we may not: {verbs}"
            yield CheckFinding(target.name, said, _role(target, missing), "error")


def _role(target: DoctorTarget, missing: list[Right]) -> str:
    """One command with a Role of what is missing; the binding is for the cluster's owner to name."""
    resources = dict.fromkeys(
        f"{right.plural.partition('/')[0]}.{right.group}" if right.group else right.plural for right in missing
    )
    subs = {right.plural.partition("/")[2] for right in missing} - {""}
    names = [name + (f"/{min(subs)}" if subs and "." in name else "") for name in resources]
    verbs = dict.fromkeys(right.verb for right in missing)
    return f"kubectl -n {target.namespace} create role sageserve --verb={','.join(verbs)} --resource={','.join(names)}"


def rbac_excess(facts: ClusterFacts) -> Iterator[CheckFinding]:
    """No right to write where nothing is written."""
    for target in facts.targets:
        extra = [right for right in write_rights(target) if facts.rights.get(right) is True]
        if target.acts or not extra:
            continue
        kind = KINDS[target.settings.kind]
        said = f"authority is observe, and yet we may {', '.join(right.verb for right in extra[:4])} {kind.plural}"
        rules = f'{{"rules":[{{"apiGroups":["{kind.group}"],"resources":["{kind.plural}"],"verbs":{_listed(READS)}}}]}}'
        yield CheckFinding(
            target.name, said, f"kubectl -n {target.namespace} patch role sageserve --type merge -p '{rules}'", "warn"
        )


def _listed(words: tuple[str, ...]) -> str:
    return "[" + ",".join(f'"{word}"' for word in words) + "]"


def clock_lease(facts: ClusterFacts) -> Iterator[CheckFinding]:
    """Nobody holds the lease and has stopped renewing it."""
    name = fleet_object(facts.scenario.name)
    for space in sorted({target.namespace for target in facts.targets}):
        lease = facts.find("Lease", space, name)
        if lease is None or not lease.text("spec", "holderIdentity"):
            continue
        renewed = _instant(lease.text("spec", "renewTime"))
        if renewed is not None and facts.now_s - renewed > LEASE_OLD:
            epoch = lease.number("spec", "leaseTransitions") or 0
            said = f"{lease.text('spec', 'holderIdentity')} holds the lease (epoch {epoch}) and has not renewed it for "
            said += f"{facts.now_s - renewed:,.0f} s"
            yield CheckFinding(facts.name, said, f"kubectl -n {space} delete lease {name}", "info")


def _instant(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def unreadable(facts: ClusterFacts, kinds: tuple[str, ...]) -> str:
    """Why objects of these kinds could not be read; empty when they could. Kinds that are not installed are no objects."""
    for (kind, _), found in facts.objects.items():
        if kind in kinds and isinstance(found, NotRead) and found.status != 404:
            return f"{KINDS[kind].plural}: {found.detail}"
    return ""
