"""Writes to the fake API server: create, update, delete, patches by merge and by apply, dry runs, `scale` and `status`.

Refused as a real server refuses: 403 without the right, 409 for a version that is old or a field of another's, 422 for a minimum
above the maximum (built in for an HPA, a CEL rule of KEDA's CRD). Read next: `fake_fields.py`, `fake_api.py`.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

import msgspec

from sageserve.live.kubernetes.fake import FakeCluster, Stored
from sageserve.live.kubernetes.fake_fields import FieldOwner, OwnerConflict, applied, merged, updated
from sageserve.live.kubernetes.kinds import KubeKind
from sageserve.live.kubernetes.objects import Json, KubeObject
from sageserve.live.kubernetes.reader import Right

APPLY: Final = "application/apply-patch+yaml"
MERGE: Final = "application/merge-patch+json"
_VERBS: Final = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_STALE: Final = "the object has been modified; please apply your changes to the latest version and try again"
Causes: TypeAlias = tuple[Mapping[str, str], ...]


class ServerRefusal(Exception):
    """An answer that is an error.

    Args:
        code: of HTTP.
        reason: in Kubernetes' words.
        message: for people.
        causes: of it.
    """

    def __init__(self, code: int, reason: str, message: str, causes: Causes = ()) -> None:
        super().__init__(message)
        self.code, self.reason, self.causes = code, reason, causes

    def status(self) -> Stored:
        """As an answer's body."""
        found: Stored = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": str(self),
            "reason": self.reason,
            "code": self.code,
        }
        return found | ({"details": {"causes": [dict(one) for one in self.causes]}} if self.causes else {})


@dataclass(frozen=True, slots=True)
class WriteRequest:
    """A write as it came.

    Args:
        method: of HTTP.
        kind, namespace, name: what is written; the name is empty where something is created.
        sub: subresource; empty: the object itself.
        query: of its address.
        content_type: of its body.
        body: as it came.
        agent: who asks, where no field manager is named.
    """

    method: str
    kind: KubeKind
    namespace: str
    name: str
    sub: str
    query: Mapping[str, str]
    content_type: str
    body: bytes
    agent: str

    @property
    def manager(self) -> str:
        """The field manager."""
        return self.query.get("fieldManager") or self.agent.split("/")[0] or "unknown"


def write(cluster: FakeCluster, request: WriteRequest) -> tuple[int, Stored]:
    """Carry a write out: the code and the body of its answer.

    Raises:
        ServerRefusal: it is not carried out.
    """
    kind, sub = request.kind, request.sub
    plural = f"{kind.plural}/{sub}" if sub else kind.plural
    right = Right(_VERBS.get(request.method, ""), kind.group, plural, request.namespace)
    if not cluster.allowed(right):
        raise ServerRefusal(
            403, "Forbidden", f'{kind.resource} "{request.name}" is forbidden: User "fake" cannot {right.verb} {plural}'
        )
    if request.query.get("dryRun", "All") != "All":
        raise ServerRefusal(422, "Invalid", f'dryRun: Unsupported value: "{request.query["dryRun"]}": supported values: "All"')
    if sub and (sub not in {"scale", "status"} or (sub == "scale" and not kind.scale)):
        raise ServerRefusal(404, "NotFound", "the server could not find the requested resource")
    live = cluster.get(kind.kind, request.namespace, request.name) if request.name else None
    if request.method == "POST":
        return _create(cluster, request)
    if request.method == "PATCH" and request.content_type == APPLY and live is None and not sub:
        return _create_by_apply(cluster, request)
    if live is None:
        raise ServerRefusal(404, "NotFound", f'{kind.resource} "{request.name}" not found')
    if request.method == "DELETE":
        if "dryRun" not in request.query:
            cluster.delete(kind.kind, request.namespace, request.name)
        return 200, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
    after = _after(cluster, request, live)
    kept = live if _same(live, after) else _store(cluster, request, after)
    return 200, scale_of(kind, kept) if sub == "scale" else kept


def scale_of(kind: KubeKind, live: Stored) -> Stored:
    """The subresource `scale` of an object."""
    one = KubeObject(live)
    labels = one.labels("spec", "selector", "matchLabels") or one.labels("spec", "selector")
    metadata = {key: one.text("metadata", key) for key in ("name", "namespace", "uid", "resourceVersion")}
    status: Stored = {"replicas": one.number("status", "replicas") or 0}
    if labels:
        status["selector"] = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
    spec: Stored = {"replicas": one.number(*kind.count) or 0}
    return {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": metadata, "spec": spec, "status": status}


def _after(cluster: FakeCluster, request: WriteRequest, live: Stored) -> Stored:
    """The object after an update or a patch."""
    body = _decoded(request)
    _check_version(request, live, body)
    owner = FieldOwner(request.manager, "Update", request.sub)
    if request.method == "PUT":
        if not KubeObject(body).text("metadata", "resourceVersion"):
            raise ServerRefusal(422, "Invalid", "metadata.resourceVersion: Invalid value: 0x0: must be specified for an update")
        return updated(live, _narrowed(request, live, body), owner, time=cluster.now())
    match request.content_type:
        case "application/apply-patch+yaml":
            body.pop("status", None)
            after, conflicts = applied(live, body, _manager(request), force=_forced(request), time=cluster.now())
            if conflicts:
                raise _conflict(conflicts)
            return after
        case "application/merge-patch+json":
            whole = scale_of(request.kind, live) if request.sub == "scale" else live
            found = merged(whole, body)
            assert isinstance(found, dict)
            return updated(live, _narrowed(request, live, found), owner, time=cluster.now())
        case other:
            raise ServerRefusal(415, "UnsupportedMediaType", f"the fake knows no patch {other!r}")


def _narrowed(request: WriteRequest, live: Stored, after: Stored) -> Stored:
    """What of a whole object a write may change: its count, its status, or all but that."""
    if request.sub == "scale":
        kept = copy.deepcopy(live)
        at: Json = kept
        for key in request.kind.count[:-1]:
            at = at[key] if isinstance(at, dict) else None
        assert isinstance(at, dict)
        at[request.kind.count[-1]] = KubeObject(after).number("spec", "replicas") or 0
        return kept
    if request.sub == "status":
        return copy.deepcopy(live) | {"status": copy.deepcopy(after.get("status", {}))}
    status = {"status": copy.deepcopy(live["status"])} if "status" in live else {}
    return {key: copy.deepcopy(value) for key, value in after.items() if key != "status"} | status


def _create(cluster: FakeCluster, request: WriteRequest) -> tuple[int, Stored]:
    body = _decoded(request)
    name = KubeObject(body).name
    if KubeObject(body).text("metadata", "resourceVersion"):
        raise ServerRefusal(400, "BadRequest", "resourceVersion should not be set on objects to be created")
    if cluster.get(request.kind.kind, request.namespace, name) is not None:
        raise ServerRefusal(409, "AlreadyExists", f'{request.kind.resource} "{name}" already exists')
    return 201, _store(cluster, request, _new(cluster, request, body, FieldOwner(request.manager, "Update")))


def _create_by_apply(cluster: FakeCluster, request: WriteRequest) -> tuple[int, Stored]:
    body = _decoded(request)
    metadata = KubeObject(body).part("metadata")
    if metadata.text("uid") or metadata.text("resourceVersion"):
        said = f"the provided object specified uid {metadata.text('uid')}, and no existing object was found"
        raise ServerRefusal(409, "Conflict", f'Operation cannot be fulfilled on {request.kind.resource} "{request.name}": {said}')
    return 201, _store(cluster, request, _new(cluster, request, body, FieldOwner(_manager(request), "Apply")))


def _new(cluster: FakeCluster, request: WriteRequest, body: Stored, owner: FieldOwner) -> Stored:
    metadata = dict(KubeObject(body).part("metadata").data) | {"namespace": request.namespace}
    fresh: Stored = body | {"kind": request.kind.kind, "apiVersion": request.kind.api_version, "metadata": metadata}
    empty: Stored = {"apiVersion": request.kind.api_version, "kind": request.kind.kind, "metadata": {}}
    if owner.operation == "Update":
        return updated(empty, fresh, owner, time=cluster.now())
    after, _ = applied(empty | {"metadata": metadata}, fresh, owner.manager, force=False, time=cluster.now())
    return after


def _store(cluster: FakeCluster, request: WriteRequest, after: Stored) -> Stored:
    _default(request.kind, after)
    _admit(request, KubeObject(after))
    return copy.deepcopy(after) if "dryRun" in request.query else copy.deepcopy(cluster.put(after))


def _same(live: Stored, after: Stored) -> bool:
    """Whether nothing but times changed: then nothing is written."""

    def bare(data: Stored) -> Stored:
        found = copy.deepcopy(data)
        metadata = found["metadata"]
        assert isinstance(metadata, dict)
        for entry in metadata.get("managedFields") or ():
            entry.pop("time", None)
        return found

    return bare(live) == bare(after)


def _decoded(request: WriteRequest) -> Stored:
    try:
        body = msgspec.json.decode(request.body)
    except msgspec.DecodeError as error:
        raise ServerRefusal(400, "BadRequest", f"the body is no JSON: {error}") from None
    if not isinstance(body, dict):
        raise ServerRefusal(400, "BadRequest", "the body is no object")
    return body


def _check_version(request: WriteRequest, live: Stored, body: Stored) -> None:
    for key in ("uid", "resourceVersion"):
        given = KubeObject(body).text("metadata", key)
        if given and given != KubeObject(live).text("metadata", key):
            where = f'{request.kind.resource} "{request.name}"'
            raise ServerRefusal(409, "Conflict", f"Operation cannot be fulfilled on {where}: {_STALE}")


def _manager(request: WriteRequest) -> str:
    if not request.query.get("fieldManager"):
        raise ServerRefusal(400, "BadRequest", "PatchOptions.meta.k8s.io is invalid: fieldManager: is required for apply patch")
    return request.query["fieldManager"]


def _forced(request: WriteRequest) -> bool:
    return request.query.get("force") in {"true", "1"}


def _conflict(conflicts: tuple[OwnerConflict, ...]) -> ServerRefusal:
    causes = tuple(
        {"reason": "FieldManagerConflict", "message": one.said, "field": "." + ".".join(one.path)} for one in conflicts
    )
    many = f"{len(conflicts)} conflict{'s' if len(conflicts) > 1 else ''}"
    listed = ", ".join(f"{one['message']}: {one['field']}" for one in causes)
    return ServerRefusal(409, "Conflict", f"Apply failed with {many}: {listed}", causes)


def _default(kind: KubeKind, after: Stored) -> None:
    """What a server fills in."""
    spec = after.get("spec")
    if kind.kind == "HorizontalPodAutoscaler" and isinstance(spec, dict):
        spec.setdefault("minReplicas", 1)


def _admit(request: WriteRequest, after: KubeObject) -> None:
    """What a server refuses of an object."""
    kind = request.kind
    if kind.kind not in {"HorizontalPodAutoscaler", "ScaledObject"}:
        return
    low, high = after.number(*kind.low), after.number(*kind.high)
    said, field = "", "spec"
    if kind.kind == "HorizontalPodAutoscaler":
        if low is not None and low < 1:
            said, field = f"Invalid value: {low}: must be greater than or equal to 1", "spec.minReplicas"
        elif high is None or high < (low or 1):
            said, field = f"Invalid value: {high}: must be greater than or equal to `minReplicas`", "spec.maxReplicas"
    elif low is not None and high is not None and low > high:
        said = 'Invalid value: "object": minReplicaCount must not be greater than maxReplicaCount'
    if said:
        where = f'{kind.kind}.{kind.group} "{request.name}" is invalid: {field}: {said}'
        raise ServerRefusal(422, "Invalid", where, ({"reason": "FieldValueInvalid", "message": said, "field": field},))
