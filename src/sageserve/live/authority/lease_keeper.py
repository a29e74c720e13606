"""The lease of a fleet in one cluster, read and renewed as an elector says. Read next: `core/authority/lease.py`, `hands.py`."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

from sageserve.base.units import SECOND, Micros
from sageserve.core.authority.lease import LeaseElector
from sageserve.core.authority.records import LeaseRecord, LeaseTimes
from sageserve.live.kubernetes.objects import Json, KubeObject
from sageserve.live.kubernetes.reader import NotRead
from sageserve.live.kubernetes.writer import NotWritten, ObjectPlace, ObjectWriter, WriteMark

LENGTH_S: Final = LeaseTimes().length // SECOND


class LeaseKeeper:
    """One candidate in one cluster.

    Args:
        writer: the cluster.
        place: of the lease.
        me: name of this process; no two have the same.
        now: the monotonic clock.
        wall: the wall clock, microseconds since 1970; only ever written.
    """

    def __init__(
        self, writer: ObjectWriter, place: ObjectPlace, me: str, now: Callable[[], Micros], wall: Callable[[], Micros]
    ) -> None:
        self.elector: Final = LeaseElector(me)
        self.trouble = ""  # why the lease could not be read or written; empty: it could
        self._writer, self._place, self._now, self._wall = writer, place, now, wall
        self._mark = WriteMark(place.name)

    async def keep(self) -> None:
        """Read it, and take or renew it when it is time."""
        found = await self._writer.get("Lease", self._place.name, self._place.namespace)
        if isinstance(found, NotRead) and found.status != 404:
            self.trouble = f"the lease cannot be read: {found.detail}"
            return
        self.elector.read(self._now(), None if isinstance(found, NotRead) else _record(found))
        begun = self._now()
        wanted = self.elector.wanted(begun, self._stamp())
        if wanted is not None:
            await self._store(wanted, begun)

    async def let_go(self) -> None:
        """Give it up, so that another need not wait."""
        if (free := self.elector.let_go()) is not None:
            await self._writer.replace(self._place, _body(free), free.version, self._mark)

    async def _store(self, wanted: LeaseRecord, begun: Micros) -> None:
        if wanted.version:
            done = await self._writer.replace(self._place, _body(wanted), wanted.version, self._mark)
        else:
            done = await self._writer.create(self._place, _body(wanted), self._mark)
        if isinstance(done, NotWritten):
            stale = done.stale  # another was quicker
            self.trouble = "" if stale else f"the lease cannot be written: {done.detail}"
            return
        self.trouble = ""
        self.elector.wrote(self._now(), begun, _record(done))

    def _stamp(self) -> str:
        return datetime.fromtimestamp(self._wall() / SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _record(found: KubeObject) -> LeaseRecord:
    spec = found.part("spec")
    return LeaseRecord(
        spec.text("holderIdentity"),
        spec.number("leaseTransitions") or 0,
        spec.text("renewTime"),
        found.text("metadata", "resourceVersion"),
    )


def _body(record: LeaseRecord) -> Mapping[str, Json]:
    spec: Json = {
        "holderIdentity": record.holder,
        "leaseDurationSeconds": LENGTH_S,
        "leaseTransitions": record.epoch,
        "renewTime": record.renewed or None,
    }
    return {"spec": spec}
