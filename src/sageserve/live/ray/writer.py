"""Deployments of Ray Serve as objects with owners and versions, so that hands, orders and commands act on them as on any other.

    RayServe APP/DEPLOYMENT     spec.minReplicas, maxReplicas: autoscaling_config of the Serve config; spec.replicas: num_replicas
    Lease, ConfigMap            in a file of the state folder

Whose a value is: ours while what we wrote still stands there; else of the Serve config (`serve-config`), or nobody's. A write
reads everything anew, compares, and gives the whole config back with one value changed; Ray compares nothing itself, so that a
`serve deploy` in the same instant may be undone. `scale` of an application with external_scaler_enabled does not have that. Read
next: `deployments.py`, `own_file.py`; `live/authority/hands.py`.
"""

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, TypeVar

import msgspec

from sageserve.base.config.clusters import RAY
from sageserve.live.kubernetes.objects import Json, KubeObject
from sageserve.live.kubernetes.reader import NotRead
from sageserve.live.kubernetes.writer import FieldConflict, NotWritten, ObjectPlace, ObjectWriter, WriteMark
from sageserve.live.ray.dashboard import ServeDashboard
from sageserve.live.ray.deployments import FIELDS, REPLICAS, ServeDeployment, changed_config, deployments_of
from sageserve.live.ray.own_file import DeploymentNotes, OwnFile, WrittenField

CONFIG: Final = "serve-config"
"""Who owns what a Serve config says."""
_PODS: Final = re.compile(r"/namespaces/(?P<app>.+)/pods(?:\?|$)")
Answer = TypeVar("Answer")


class RayWriter(ObjectWriter):
    """One Ray cluster.

    Args:
        dashboard: of it.
        own: what Ray does not keep.
    """

    def __init__(self, dashboard: ServeDashboard, own: OwnFile) -> None:
        self._dashboard, self._own = dashboard, own

    # --- reading ---

    async def get(self, kind: str, name: str, namespace: str = "") -> KubeObject | NotRead:
        """One object."""
        if kind != RAY:
            with self._own.opened() as own:
                found = own.objects.get(f"{kind}/{namespace}/{name}")
            return _kept(found) if found is not None else NotRead(404, f"there is no {kind} {namespace}/{name}")
        objects = await self.list(kind, namespace)
        if isinstance(objects, NotRead):
            return objects
        there = next((one for one in objects if one.name == name), None)
        return NotRead(404, f"there is no deployment {name} in application {namespace}") if there is None else there

    async def list(self, kind: str, namespace: str = "*") -> list[KubeObject] | NotRead:
        """Deployments of an application; Ray has nothing else."""
        if kind != RAY:
            return NotRead(404, f"Ray has no {kind}")
        details = await self._dashboard.details()
        if isinstance(details, NotWritten):
            return NotRead(details.status, details.detail)
        with self._own.opened() as own:
            notes = dict(own.notes)
        return [_object(one, notes.get(_key(one))) for one in deployments_of(details, namespace).values()]

    async def read_as(self, path: str, kind: type[Answer]) -> Answer | NotWritten:
        """Replicas of an application, as pods."""
        match = _PODS.search(path)
        details = await self._dashboard.details()
        if match is None or isinstance(details, NotWritten):
            return details if isinstance(details, NotWritten) else NotWritten(404, "NotFound", f"Ray has no {path}")
        items = [_pod(one, each) for one in deployments_of(details, match["app"]).values() for each in one.replicas]
        return msgspec.convert({"items": items}, kind)

    # --- writing ---

    async def create(self, place: ObjectPlace, body: Mapping[str, Json], mark: WriteMark) -> KubeObject | NotWritten:
        """A new lease or ConfigMap."""
        return self._keep(place, body, None)

    async def replace(
        self, place: ObjectPlace, body: Mapping[str, Json], version: str, mark: WriteMark
    ) -> KubeObject | NotWritten:
        """A lease or ConfigMap, if it has not changed since."""
        return self._keep(place, body, version)

    def _keep(self, place: ObjectPlace, body: Mapping[str, Json], version: str | None) -> KubeObject | NotWritten:
        key = f"{place.kind}/{place.namespace}/{place.name}"
        with self._own.opened() as own:
            held = own.objects.get(key)
            if (None if held is None else _kept(held).text("metadata", "resourceVersion")) != version:
                return NotWritten(409, "Conflict", f"{key} has changed")
            own.version += 1
            metadata: Json = {"name": place.name, "namespace": place.namespace, "resourceVersion": str(own.version)}
            made = KubeObject({**body, "kind": place.kind, "metadata": metadata})
            own.objects[key] = msgspec.Raw(msgspec.json.encode(made.data))
            return made

    async def apply(
        self, place: ObjectPlace, body: Mapping[str, Json], mark: WriteMark, *, force: bool = False
    ) -> KubeObject | NotWritten:
        """Bounds in the body are the manager's from then on; those that it had and left out are given up, or taken away again."""
        given = KubeObject(body)
        wanted = {field: value for field in FIELDS if (value := given.number("spec", field)) is not None}
        found = await self._read(place, given.text("metadata", "resourceVersion"))
        if isinstance(found, NotWritten):
            return found
        details, one, notes = found
        conflicts = tuple(
            FieldConflict(f".spec.{field}", f'conflict with "{owner}"')
            for field, value in wanted.items()
            if (owner := _owner(one, notes, field)) not in ("", mark.manager) and one.values.get(field) != value
        )
        if conflicts and not force:
            owners = ", ".join(each.manager for each in conflicts)
            return NotWritten(409, "Conflict", f"the fields belong to {owners}", conflicts)
        mine = [field for field in notes.fields if field in FIELDS and _owner(one, notes, field) == mark.manager]
        left = [field for field in mine if field not in wanted]
        gone = {field: None for field in left if not notes.fields[field].found}
        changes = {field: value for field, value in wanted.items() if one.values.get(field) != value} | gone
        if refused := await self._deploy(details, one, changes, mark):
            return refused
        fields = {name: each for name, each in notes.fields.items() if name not in left}
        fields |= {field: _written(one, notes, field, value, mark.manager) for field, value in wanted.items()}
        return await self._noted(place, DeploymentNotes(fields, given.annotations), mark)

    async def merge(
        self, place: ObjectPlace, body: Mapping[str, Json], mark: WriteMark, sub: str = ""
    ) -> KubeObject | NotWritten:
        """Bounds are set, annotations set or taken away; managed fields that are given over are nobody's of ours any more."""
        given = KubeObject(body)
        found = await self._read(place, given.text("metadata", "resourceVersion"))
        if isinstance(found, NotWritten):
            return found
        details, one, notes = found
        values = {field: value for field in FIELDS if (value := given.number("spec", field)) is not None}
        changes: dict[str, int | None] = {field: value for field, value in values.items() if one.values.get(field) != value}
        if refused := await self._deploy(details, one, changes, mark):
            return refused
        fields = dict(notes.fields) | {
            field: _written(one, notes, field, values[field], mark.manager) for field in changes if field in values
        }
        if given.at("metadata", "managedFields") is not None:
            fields.pop(REPLICAS, None)
        told = given.part("metadata", "annotations").data
        kept = {key: text for key, text in notes.annotations.items() if key not in told}
        kept |= {key: text for key, text in told.items() if isinstance(text, str)}
        return await self._noted(place, DeploymentNotes(fields, kept), mark)

    async def scale(self, place: ObjectPlace, count: int, version: str, mark: WriteMark) -> KubeObject | NotWritten:
        """Set the replicas of a deployment that was read at a version."""
        found = await self._read(place, version)
        if isinstance(found, NotWritten):
            return found
        details, one, notes = found
        if one.scaled_outside and not mark.dry_run:
            refused = await self._dashboard.scale(place.namespace, place.name, count)
        elif one.values[REPLICAS] == count and REPLICAS in one.said:
            refused = None
        else:
            refused = await self._deploy(details, one, {REPLICAS: count}, mark)
        if refused is not None:
            return refused
        field = _written(one, notes, REPLICAS, count, mark.manager)
        return await self._noted(place, DeploymentNotes(dict(notes.fields) | {REPLICAS: field}, notes.annotations), mark)

    async def _read(self, place: ObjectPlace, version: str) -> tuple[KubeObject, ServeDeployment, DeploymentNotes] | NotWritten:
        """Everything as it is now, where the deployment is still as it was at a version (empty: at any)."""
        details = await self._dashboard.details()
        if isinstance(details, NotWritten):
            return details
        one = deployments_of(details, place.namespace).get(place.name)
        if one is None:
            return NotWritten(404, "NotFound", f"there is no deployment {place.name} in application {place.namespace}")
        with self._own.opened() as own:
            notes = own.notes.get(_key(one), DeploymentNotes())
        if version and version != _version(one, notes):
            return NotWritten(409, "Conflict", f"{place.namespace}/{place.name} has changed")
        return details, one, notes

    async def _deploy(
        self, details: KubeObject, one: ServeDeployment, changes: Mapping[str, int | None], mark: WriteMark
    ) -> NotWritten | None:
        if not changes:
            return None
        config = changed_config(details, (one.app, one.name), changes)
        if isinstance(config, str):
            return NotWritten(422, "NotWhole", config)
        return None if mark.dry_run else await self._dashboard.deploy(config)

    async def _noted(self, place: ObjectPlace, notes: DeploymentNotes, mark: WriteMark) -> KubeObject | NotWritten:
        if not mark.dry_run:
            with self._own.opened() as own:
                own.notes[f"{place.namespace}/{place.name}"] = notes
        found = await self.get(RAY, place.name, place.namespace)
        return NotWritten(found.status, "NotRead", found.detail) if isinstance(found, NotRead) else found


def _kept(raw: msgspec.Raw) -> KubeObject:
    return KubeObject(msgspec.json.decode(raw))


def _key(one: ServeDeployment) -> str:
    return f"{one.app}/{one.name}"


def _owner(one: ServeDeployment, notes: DeploymentNotes | None, field: str) -> str:
    """Whose a field is; empty: nobody's."""
    held = None if notes is None else notes.fields.get(field)
    if held is not None and one.values.get(field) == held.value:
        return held.manager
    return CONFIG if field in one.said else ""


def _written(one: ServeDeployment, notes: DeploymentNotes, field: str, value: int, manager: str) -> WrittenField:
    held = notes.fields.get(field)
    mine = held is not None and one.values.get(field) == held.value
    return WrittenField(manager, value, held.found if held is not None and mine else field in one.said)


def _version(one: ServeDeployment, notes: DeploymentNotes | None) -> str:
    known: Json = [one.app, one.name, sorted(one.said), {key: one.values[key] for key in sorted(one.values)}]
    own = msgspec.json.encode(notes or DeploymentNotes())
    return hashlib.sha256(msgspec.json.encode(known) + own).hexdigest()[:16]


def _object(one: ServeDeployment, notes: DeploymentNotes | None) -> KubeObject:
    """A deployment as an object."""
    owners: dict[str, list[str]] = {}
    for field in (*FIELDS, REPLICAS):
        if owner := _owner(one, notes, field):
            owners.setdefault(owner, []).append(field)
    managed: Json = [
        {"manager": owner, "operation": "Update", "fieldsV1": {"f:spec": {f"f:{field}": {} for field in fields}}}
        for owner, fields in owners.items()
    ]
    metadata: Json = {
        "name": one.name,
        "namespace": one.app,
        "uid": _key(one),
        "resourceVersion": _version(one, notes),
        "annotations": {} if notes is None else notes.annotations,
        "managedFields": managed,
    }
    labels: Json = {"app": one.app, "deployment": one.name}
    running = sum(each.text("state") == "RUNNING" for each in one.replicas)
    refused: Json = {"floor": one.unbounded, "bounds": one.unbounded, "full": one.uncounted}
    return KubeObject(
        {
            "kind": RAY,
            "metadata": metadata,
            "spec": {**one.values, "selector": {"matchLabels": labels}},
            "status": {"readyReplicas": running, "refused": refused},
        }
    )


def _pod(one: ServeDeployment, replica: KubeObject) -> dict[str, Json]:
    """A replica as a pod; when it became ready is not known."""
    state, begun = replica.text("state"), replica.at("start_time_s")
    seconds = float(begun) if isinstance(begun, int | float) else 0.0
    made = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    metadata: dict[str, Json] = {
        "name": replica.text("replica_id"),
        "uid": replica.text("replica_id"),
        "creationTimestamp": made,
        "labels": {"app": one.app, "deployment": one.name},
    }
    if state in {"STOPPING", "STOPPED"}:
        metadata["deletionTimestamp"] = made
    conditions: Json = [{"type": "Ready", "status": "True" if state == "RUNNING" else "False"}]
    phase = "Running" if state == "RUNNING" else "Pending"
    return {"metadata": metadata, "status": {"phase": phase, "conditions": conditions}}
