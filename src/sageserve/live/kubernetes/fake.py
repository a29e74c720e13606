"""An API server's memory, for tests: objects with versions, and every change in order, as a real server keeps them.

Tests put objects here; what is written over HTTP comes by `fake_writes.py`. Unknown kinds are not installed, as without their
CRD. Read next: `fake_api.py`, which answers requests from it.
"""

import asyncio
import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from sageserve.live.kubernetes.kinds import KINDS, KubeKind
from sageserve.live.kubernetes.objects import Json
from sageserve.live.kubernetes.reader import Right
from sageserve.live.waiting import within

Stored: TypeAlias = dict[str, Json]
"""An object as JSON has it."""

Key: TypeAlias = tuple[str, str, str]
"""Kind, namespace and name."""

ChangeKind: TypeAlias = Literal["ADDED", "MODIFIED", "DELETED"]


@dataclass(frozen=True, slots=True)
class ObjectChange:
    """One change: at which version, what happened, and the object after (or before it was deleted)."""

    version: int
    what: ChangeKind
    kind: str
    data: Stored


@dataclass(slots=True)
class FakeCluster:
    """What a server holds.

    Args:
        version: that it says it is.
        allowed: whether the caller has a right; all, unless told otherwise.
        missing: kinds that are not installed.
        forbidden: kinds that may not be read: 403.
        failing: the code with which a request ends, by its method and path; 0: it does not fail.
    """

    version: str = "v1.36.2"
    allowed: Callable[[Right], bool] = field(default=lambda _: True)
    missing: set[str] = field(default_factory=set)
    forbidden: set[str] = field(default_factory=set)
    failing: Callable[[str, str], int] = field(default=lambda *_: 0)
    _objects: dict[Key, Stored] = field(default_factory=dict)
    _changes: list[ObjectChange] = field(default_factory=list)
    _first: int = 1
    _now: int = 1
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def now(self) -> str:
        """The server's clock: a second with each change."""
        return f"2026-11-18T{self._now // 3600 % 24:02}:{self._now // 60 % 60:02}:{self._now % 60:02}Z"

    @property
    def resource_version(self) -> int:
        """Of the last change."""
        return self._now

    def put(self, data: Stored) -> Stored:
        """Add or replace an object; its kind decides where. Returns it as it is kept."""
        kind = str(data["kind"])
        if kind not in KINDS:
            raise KeyError(f"the fake knows no kind {kind}")
        kept = copy.deepcopy(data)
        metadata = kept.setdefault("metadata", {})
        assert isinstance(metadata, dict)
        key = kind, str(metadata.get("namespace", "")), str(metadata["name"])
        self._now += 1
        metadata["resourceVersion"] = str(self._now)
        metadata.setdefault("uid", f"uid-{'-'.join(key)}")
        kept.setdefault("apiVersion", KINDS[kind].api_version)
        what: ChangeKind = "MODIFIED" if key in self._objects else "ADDED"
        self._objects[key] = kept
        self._note(ObjectChange(self._now, what, kind, copy.deepcopy(kept)))
        return kept

    def get(self, kind: str, namespace: str, name: str) -> Stored | None:
        """An object, to be looked at and not changed."""
        return self._objects.get((kind, namespace, name))

    def change(self, kind: str, namespace: str, name: str, change: Callable[[Stored], None]) -> None:
        """ObjectChange an object in place, as a write would."""
        data = copy.deepcopy(self._objects[kind, namespace, name])
        change(data)
        self.put(data)

    def delete(self, kind: str, namespace: str, name: str) -> None:
        """Take an object away."""
        data = self._objects.pop((kind, namespace, name))
        self._now += 1
        self._note(ObjectChange(self._now, "DELETED", kind, data))

    def of(self, kind: str, namespace: str) -> list[Stored]:
        """Objects of a kind in a namespace (empty: in all), by namespace and name."""
        return [data for key, data in sorted(self._objects.items()) if key[0] == kind and namespace in ("", key[1])]

    def forget(self) -> None:
        """Forget past changes, as compaction does: watches from before end in 410."""
        self._first = self._now + 1
        self._changes.clear()

    def since(self, version: int) -> list[ObjectChange] | None:
        """Changes after a version; None when they are forgotten."""
        if version + 1 < self._first:
            return None
        return [change for change in self._changes if change.version > version]

    async def wait(self, seconds: float) -> bool:
        """Until something changes; False when nothing did in that time."""
        return await within(self._changed, seconds)

    def installed(self, group: str, plural: str) -> KubeKind | None:
        """The kind behind a path, where it is installed."""
        found = next((kind for kind in KINDS.values() if (kind.group, kind.plural) == (group, plural)), None)
        return None if found is None or found.kind in self.missing else found

    def _note(self, change: ObjectChange) -> None:
        self._changes.append(change)
        self._changed.set()
        self._changed = asyncio.Event()


SELECTABLE: Final[Mapping[str, tuple[str, ...]]] = {
    "metadata.name": ("metadata", "name"),
    "metadata.namespace": ("metadata", "namespace"),
    "status.phase": ("status", "phase"),
    "spec.nodeName": ("spec", "nodeName"),
    "involvedObject.name": ("involvedObject", "name"),
}
"""Fields that lists can be narrowed by, on this server as on a real one."""
