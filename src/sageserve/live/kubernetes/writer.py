"""Writes to a Kubernetes cluster: server-side apply, merge patches, `scale`, whole objects bound to the version that was read.

    done = await writer.apply(place, body, WriteMark("sageserve-fleet"), force=False)

Requests go through lightkube's own HTTP client: its connection, certificates and tokens. Its typed calls are not used, because
they send no header of ours, and what a 409 says of the other manager is in parts of the answer that they drop. What a server
refuses is a `NotWritten`, never an exception. Read next: `reader.py`; `fake_writes.py`, which answers in tests.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from sageserve.live.kubernetes.kinds import KINDS, KubeKind
from sageserve.live.kubernetes.objects import Json, KubeObject
from sageserve.live.kubernetes.reader import ClusterReader, NotRead

if TYPE_CHECKING:
    import httpx2

Answer = TypeVar("Answer")
APPLY: Final = "application/apply-patch+yaml"  # JSON is YAML
MERGE: Final = "application/merge-patch+json"
DECISION_HEADER: Final = "x-sageserve-decision"


@dataclass(frozen=True, slots=True)
class ObjectPlace:
    """An object by kind, namespace and name."""

    kind: str
    namespace: str
    name: str

    @property
    def path(self) -> str:
        """Of its API."""
        return path_of(KINDS[self.kind], self.namespace, self.name)


@dataclass(frozen=True, slots=True)
class WriteMark:
    """How a write is signed.

    Args:
        manager: of the fields.
        decision: its number, for the server's audit log; empty: none.
        dry_run: it is checked and not kept.
    """

    manager: str
    decision: str = ""
    dry_run: bool = False

    def query(self) -> dict[str, str]:
        """Of the address."""
        return {"fieldManager": self.manager} | ({"dryRun": "All"} if self.dry_run else {})


@dataclass(frozen=True, slots=True)
class FieldConflict:
    """A field that another manager has: `.spec.minReplicas`, and the server's sentence, which names the manager."""

    field: str
    said: str

    @property
    def manager(self) -> str:
        """Who has it."""
        parts = self.said.split('"')
        return parts[1] if len(parts) > 2 else self.said


@dataclass(frozen=True, slots=True)
class NotWritten:
    """A write that came to nothing.

    Args:
        status: of HTTP; 0: no answer came, and whether it was written is not known.
        reason: in Kubernetes' words.
        detail: in one sentence.
        conflicts: fields of other managers.
    """

    status: int
    reason: str
    detail: str
    conflicts: tuple[FieldConflict, ...] = ()

    @property
    def stale(self) -> bool:
        """Whether the object had just changed: read it again and try once more."""
        return self.status == 409 and not self.conflicts


def path_of(kind: KubeKind, namespace: str, name: str = "") -> str:
    """Of an object, or of all of its kind in a namespace."""
    root = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    space = f"/namespaces/{namespace}" if kind.namespaced else ""
    return f"{root}{space}/{kind.plural}{f'/{name}' if name else ''}"


class ObjectWriter(ABC):
    """Whatever has objects with owners and versions: a Kubernetes cluster, or what is made to look like one."""

    @abstractmethod
    async def get(self, kind: str, name: str, namespace: str = "") -> KubeObject | NotRead:
        """One object."""

    @abstractmethod
    async def list(self, kind: str, namespace: str = "*") -> list[KubeObject] | NotRead:
        """All objects of a kind in a namespace, or in all."""

    @abstractmethod
    async def read_as(self, path: str, kind: type[Answer]) -> Answer | NotWritten:
        """An answer whose parts of a type alone are read."""

    @abstractmethod
    async def apply(
        self, place: ObjectPlace, body: Mapping[str, Json], mark: WriteMark, *, force: bool = False
    ) -> KubeObject | NotWritten:
        """Fields of the body are ours from then on, and those we had and left out are not."""

    @abstractmethod
    async def merge(
        self, place: ObjectPlace, body: Mapping[str, Json], mark: WriteMark, sub: str = ""
    ) -> KubeObject | NotWritten:
        """Change fields, and nothing else."""

    @abstractmethod
    async def scale(self, place: ObjectPlace, count: int, version: str, mark: WriteMark) -> KubeObject | NotWritten:
        """Set the replicas of an object that was read at a version."""

    @abstractmethod
    async def create(self, place: ObjectPlace, body: Mapping[str, Json], mark: WriteMark) -> KubeObject | NotWritten:
        """A new object."""

    @abstractmethod
    async def replace(
        self, place: ObjectPlace, body: Mapping[str, Json], version: str, mark: WriteMark
    ) -> KubeObject | NotWritten:
        """A whole object, if it has not changed since a version of it was read."""


class ClusterWriter(ClusterReader, ObjectWriter):
    """One cluster, read and written."""

    async def apply(
        self, place: ObjectPlace, body: Mapping[str, Json], mark: WriteMark, *, force: bool = False
    ) -> KubeObject | NotWritten:
        """Server-side apply: the fields of the body are ours from then on, and those we had and left out are not.

        Args:
            place: of the object.
            body: fields; with `metadata.resourceVersion` the write comes to nothing when the object has changed since.
            mark: whose write it is.
            force: fields of other managers are taken from them.
        """
        one = KINDS[place.kind]
        given = KubeObject(body).part("metadata").data
        metadata: Json = {**given, "name": place.name, "namespace": place.namespace}
        whole = {**body, "apiVersion": one.api_version, "kind": one.kind, "metadata": metadata}
        return await self._write("PATCH", place.path, whole, mark, APPLY, {"force": "true" if force else "false"})

    async def merge(
        self, place: ObjectPlace, body: Mapping[str, Json], mark: WriteMark, sub: str = ""
    ) -> KubeObject | NotWritten:
        """A merge patch of an object, or of its subresource."""
        return await self._write("PATCH", f"{place.path}{f'/{sub}' if sub else ''}", body, mark, MERGE)

    async def scale(self, place: ObjectPlace, count: int, version: str, mark: WriteMark) -> KubeObject | NotWritten:
        """Set the replicas of an object whose `scale` was read at a version."""
        body: Mapping[str, Json] = {"metadata": {"resourceVersion": version}, "spec": {"replicas": count}}
        return await self.merge(place, body, mark, "scale")

    async def read_scale(self, place: ObjectPlace) -> KubeObject | NotWritten:
        """The subresource `scale`: replicas, selector and version."""
        return await self._write("GET", f"{place.path}/scale", None, WriteMark(""))

    async def read_as(self, path: str, kind: type[Answer]) -> Answer | NotWritten:
        """An answer whose parts of a type alone are read: of thousands of pods the rest is never made into objects."""
        import httpx2

        try:
            async with self._few:
                answer = await self._plain.get(path)
            if answer.is_success:
                return msgspec.json.decode(answer.content, type=kind)
            return NotWritten(answer.status_code, "", f"HTTP {answer.status_code}")
        except (httpx2.HTTPError, ValueError, RecursionError) as error:
            return NotWritten(0, "NoAnswer", str(error).splitlines()[0] if str(error) else type(error).__name__)

    async def create(self, place: ObjectPlace, body: Mapping[str, Json], mark: WriteMark) -> KubeObject | NotWritten:
        """A new object."""
        return await self._write("POST", path_of(KINDS[place.kind], place.namespace), _whole(place, body), mark)

    async def replace(
        self, place: ObjectPlace, body: Mapping[str, Json], version: str, mark: WriteMark
    ) -> KubeObject | NotWritten:
        """A whole object, if it has not changed since a version of it was read."""
        return await self._write("PUT", place.path, _whole(place, body, version), mark)

    async def delete(self, place: ObjectPlace, mark: WriteMark) -> KubeObject | NotWritten:
        """Take an object away."""
        return await self._write("DELETE", place.path, None, mark)

    async def _write(
        self,
        method: str,
        path: str,
        body: Mapping[str, Json] | None,
        mark: WriteMark,
        content_type: str = "application/json",
        more: Mapping[str, str] | None = None,
    ) -> KubeObject | NotWritten:
        import httpx2

        headers = {"content-type": content_type} if body is not None else {}
        if mark.decision:
            headers[DECISION_HEADER] = mark.decision
        query = {} if method == "GET" else {**mark.query(), **(more or {})}
        try:
            async with self._few:
                answer = await self._plain.request(
                    method, path, params=query, content=None if body is None else msgspec.json.encode(body), headers=headers
                )
            found = answer.json()
        except (httpx2.HTTPError, ValueError, RecursionError) as error:
            return NotWritten(0, "NoAnswer", str(error).splitlines()[0] if str(error) else type(error).__name__)
        one = KubeObject(found if isinstance(found, Mapping) else {})
        return one if answer.is_success else _refused(answer, one)


def _whole(place: ObjectPlace, body: Mapping[str, Json], version: str = "") -> Mapping[str, Json]:
    one = KINDS[place.kind]
    given = KubeObject(body).part("metadata").data
    metadata: dict[str, Json] = {**given, "name": place.name, "namespace": place.namespace}
    if version:
        metadata["resourceVersion"] = version
    return {**body, "apiVersion": one.api_version, "kind": one.kind, "metadata": metadata}


def _refused(answer: "httpx2.Response", status: KubeObject) -> NotWritten:
    conflicts = tuple(
        FieldConflict(one.text("field"), one.text("message"))
        for one in status.parts("details", "causes")
        if one.text("reason") == "FieldManagerConflict"
    )
    detail = status.text("message") or f"HTTP {answer.status_code}"
    return NotWritten(answer.status_code, status.text("reason"), detail.splitlines()[0], conflicts)
