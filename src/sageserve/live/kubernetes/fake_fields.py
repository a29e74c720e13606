"""Who owns which field of an object: server-side apply and plain updates as a real server keeps them in `managedFields`.

    applied(live, body, manager)     fields of the body are the manager's; those it had and left out go, unless another has them
    updated(live, after, manager)    what changed is the manager's, and nobody else's any more

A field is a path to a value; lists are one value (a real server looks into lists of named things). Where a real server differs,
this is wrong. Knows no request. Read next: `fake_writes.py`.
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from sageserve.live.kubernetes.fake import Stored
from sageserve.live.kubernetes.kinds import Path
from sageserve.live.kubernetes.objects import Json, KubeObject

Operation: TypeAlias = Literal["Apply", "Update"]
OWNERLESS: Final = {
    ("apiVersion",),
    ("kind",),
    ("metadata", "name"),
    ("metadata", "namespace"),
    ("metadata", "uid"),
    ("metadata", "resourceVersion"),
    ("metadata", "creationTimestamp"),
    ("metadata", "generation"),
    ("metadata", "managedFields"),
}


@dataclass(frozen=True, slots=True)
class FieldOwner:
    """A manager with the way it writes: the same name may be two."""

    manager: str
    operation: Operation
    subresource: str = ""


@dataclass(frozen=True, slots=True)
class OwnerConflict:
    """A field that another has, with another value."""

    owner: FieldOwner
    path: Path
    api_version: str
    time: str

    @property
    def said(self) -> str:
        """As a real server says it."""
        sub = f' with subresource "{self.owner.subresource}"' if self.owner.subresource else ""
        if self.owner.operation == "Update":
            return f'conflict with "{self.owner.manager}"{sub} using {self.api_version} at {self.time}'
        return f'conflict with "{self.owner.manager}"{sub}'


Owned: TypeAlias = dict[FieldOwner, set[Path]]


def leaves(data: Json, path: Path = ()) -> Iterator[tuple[Path, Json]]:
    """Every field with its value."""
    if isinstance(data, Mapping):
        for key, value in data.items():
            yield from leaves(value, (*path, key))
    elif path not in OWNERLESS:
        yield path, data


def owned(live: Stored) -> Owned:
    """Fields by owner."""
    found: Owned = {}
    for entry in KubeObject(live).parts("metadata", "managedFields"):
        operation: Operation = "Apply" if entry.text("operation") == "Apply" else "Update"
        owner = FieldOwner(entry.text("manager"), operation, entry.text("subresource"))
        found[owner] = set(_paths(entry.part("fieldsV1").data))
    return found


def _paths(tree: Mapping[str, Json], path: Path = ()) -> Iterator[Path]:
    for key, value in tree.items():
        if key.startswith("f:") and isinstance(value, Mapping):
            inner = (*path, key.removeprefix("f:"))
            if not any(one.startswith("f:") for one in value):
                yield inner
            yield from _paths(value, inner)


def applied(live: Stored, body: Stored, manager: str, *, force: bool, time: str) -> tuple[Stored, tuple[OwnerConflict, ...]]:
    """An object after an apply, and the conflicts that stand against it; with any, it is as it was."""
    me, owners = FieldOwner(manager, "Apply"), owned(live)
    wanted = dict(leaves(body))
    before = dict(leaves(live))
    conflicts = tuple(
        OwnerConflict(owner, path, str(live.get("apiVersion", "")), time)
        for path, value in wanted.items()
        if path in before and before[path] != value
        for owner, paths in owners.items()
        if owner != me and path in paths
    )
    if conflicts and not force:
        return live, conflicts
    after = copy.deepcopy(live)
    for one in conflicts:
        owners[one.owner].discard(one.path)
    left = owners.get(me, set()) - set(wanted)
    for path in left:
        if not any(path in paths for owner, paths in owners.items() if owner != me):
            _remove(after, path)
    whole = merged(after, body)
    assert isinstance(whole, dict)
    owners[me] = set(wanted)
    return _kept(copy.deepcopy(whole), owners, time), ()


def updated(live: Stored, after: Stored, owner: FieldOwner, *, time: str) -> Stored:
    """An object after a plain update, with what changed made the owner's; owners that it names itself are taken as given."""
    given = KubeObject(after).at("metadata", "managedFields")
    old, new, owners = dict(leaves(live)), dict(leaves(after)), owned(after if given else live)
    changed = {path for path, value in new.items() if path not in old or old[path] != value}
    gone = set(old) - set(new)
    for one, paths in owners.items():
        paths.difference_update(gone | (changed if one != owner else set()))
    owners.setdefault(owner, set()).update(changed)
    return _kept(after, owners, time)


def merged(data: Json, patch: Json) -> Json:
    """A JSON merge patch: null takes a field away."""
    if not isinstance(patch, Mapping):
        return patch
    found = dict(data) if isinstance(data, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = merged(found.get(key), value)
    return found


def _kept(after: Stored, owners: Owned, time: str) -> Stored:
    metadata = after["metadata"]
    assert isinstance(metadata, dict)
    for key in ("annotations", "labels"):
        if metadata.get(key) == {}:  # of none, a real server has no map
            del metadata[key]
    before = {
        (one.text("manager"), one.text("operation"), one.text("subresource")): one
        for one in KubeObject(after).parts("metadata", "managedFields")
    }
    entries: list[Json] = []
    for owner, paths in owners.items():
        if not paths:
            continue
        fields = _tree(paths)
        was = before.get((owner.manager, owner.operation, owner.subresource))
        at = was.text("time") if was is not None and was.at("fieldsV1") == fields else time
        entry: Stored = {
            "manager": owner.manager,
            "operation": owner.operation,
            "apiVersion": after.get("apiVersion", ""),
            "time": at,
            "fieldsType": "FieldsV1",
            "fieldsV1": fields,
        }
        entries.append(entry | ({"subresource": owner.subresource} if owner.subresource else {}))
    metadata["managedFields"] = entries
    return after


def _tree(paths: set[Path]) -> Stored:
    tree: Stored = {}
    for path in sorted(paths):
        at: Stored = tree
        for key in path:
            inner = at.setdefault(f"f:{key}", {})
            assert isinstance(inner, dict)
            at = inner
    return tree


def _remove(data: Stored, path: Path) -> None:
    """Take a field away, and annotations or labels of which none is left."""
    trail: list[Stored] = [data]
    for key in path[:-1]:
        inner = trail[-1].get(key)
        if not isinstance(inner, dict):
            return
        trail.append(inner)
    trail[-1].pop(path[-1], None)
    if len(trail) == 3 and path[0] == "metadata" and not trail[-1]:
        trail[-2].pop(path[1])
