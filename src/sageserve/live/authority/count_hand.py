"""A target that has a count: its replicas, through the subresource `scale`, and which pods go.

`scale` takes no annotations, so that what was found and who wrote last are kept beside the orders: the record of an epoch is
there before its first write. A write is bound to the version that was read, takes a field of another's only where the settings
say so, and lowers nothing before those who go are marked. Read next: `target_hand.py`, `drains.py`; `give_back.py`.
"""

from collections.abc import Sequence
from urllib.parse import quote

from msgspec import structs

from sageserve.core.authority.records import BoundStep, TargetSight
from sageserve.live.authority.drains import COST, FIRST, DrainOrder, addresses, drain_order
from sageserve.live.authority.orders import FleetOrders, HeldCount, change_orders
from sageserve.live.authority.pods import PodList, PodSeen
from sageserve.live.authority.target_hand import PoolAsked, TargetHand
from sageserve.live.authority.target_object import NOBODY, TargetObject, dotted
from sageserve.live.kubernetes.kinds import KINDS, Path
from sageserve.live.kubernetes.objects import KubeObject
from sageserve.live.kubernetes.writer import FieldConflict, NotWritten, ObjectPlace, ObjectWriter, WriteMark, path_of


class CountHand(TargetHand):
    """A Deployment, a StatefulSet or a LeaderWorkerSet."""

    _going: tuple[str, ...] = ()
    _marked = False  # somebody may be marked to go, and the count was not lowered yet

    @property
    def _field(self) -> Path:
        return KINDS[self.settings.kind].count

    def _epoch(self, seen: TargetObject) -> int:
        return 0 if self.held is None else self.held.epoch

    def _mine(self, seen: TargetObject) -> bool:
        return self._tools.manager in seen.owners(self._field)

    def _foreign(self, seen: TargetObject) -> str:
        held = self.held
        if held is None or self._mine(seen):
            return ""
        if not held.written and (seen.count, _others(seen, self._field, self._tools.manager)) == (held.found, _named(held)):
            return ""  # it is as it was found: our first write did not come through
        who = " and ".join(_others(seen, self._field, self._tools.manager)) or "somebody who owns nothing"
        return f"{who} wrote {dotted(self._field)}: {seen.count}"

    def _sight(self, seen: TargetObject, asked: PoolAsked) -> TargetSight:
        return TargetSight(
            low=seen.count,
            high=self.settings.max,
            count=seen.count,
            ready=seen.ready,
            desired=seen.count,
            use=asked.use,
            blind=asked.blind,
            wall=self._tools.wall(),
            ours=self.held is not None and self._mine(seen),
        )

    def _to_be_told(self, seen: TargetObject, step: BoundStep) -> bool:
        return False

    async def _write(self, seen: TargetObject, step: BoundStep, asked: PoolAsked) -> tuple[KubeObject | NotWritten, bool]:
        assert step.count is not None
        tools, new, self._going = self._tools, self.held is None, ()
        others = _others(seen, self._field, self._tools.manager)
        if new and others and not self.settings.take_over:
            conflicts = tuple(FieldConflict(dotted(self._field), f'conflict with "{one}"') for one in others)
            return NotWritten(409, "Conflict", f"{dotted(self._field)} belongs to {' and '.join(others)}", conflicts), True
        through = self._mine(seen)
        if not tools.dry_run and (kept := await self._keep_held(seen.count, others, through=through)) is not None:
            return kept, new
        if (step.count < seen.count or self._marked) and (unmarked := await self._choose(seen, step.count, asked)) is not None:
            return unmarked, new
        if not tools.keeper.elector.may_write(tools.now()):
            return NotWritten(0, "NoLease", "the lease was lost while this was prepared"), new
        done = await tools.writer.scale(self.place, step.count, seen.version, self._mark(self._decision(asked)))
        if isinstance(done, KubeObject) and not tools.dry_run:
            await self._keep_held(seen.count, others, through=True)  # where that fails, the next write says so again
        return done, new

    async def _keep_held(self, count: int, others: Sequence[str], *, through: bool) -> NotWritten | None:
        """Keep what was found, and under which epoch is written, before anything is; what came in between, or None."""
        tools, epoch = self._tools, self._tools.keeper.elector.epoch
        before = self.held or HeldCount(count, next(iter(others), ""))
        wanted = structs.replace(before, epoch=epoch, written=before.written or through)
        if wanted == self.held:
            return None

        def change(orders: FleetOrders) -> FleetOrders:
            newer = (one := orders.held.get(self.name)) is not None and one.epoch > epoch
            gone = self.name in orders.demoted
            return orders if newer or gone else structs.replace(orders, held=orders.held | {self.name: wanted})

        done = await change_orders(tools.writer, tools.orders, change)
        if isinstance(done, NotWritten):
            return NotWritten(done.status, done.reason, f"what was found cannot be kept: {done.detail}", done.conflicts)
        if done.held.get(self.name) != wanted:
            return NotWritten(0, "NoLease", "another process writes, or the target was demoted meanwhile")
        self.held = wanted
        return None

    async def _choose(self, seen: TargetObject, count: int, asked: PoolAsked) -> NotWritten | None:
        """Mark who goes; why not, or None."""
        tools = self._tools
        pods: Sequence[PodSeen] = ()
        if self.settings.kind == "Deployment":
            found = await pods_of(tools.writer, self.place, seen.pod_labels)
            if isinstance(found, NotWritten):
                return NotWritten(found.status, found.reason, f"pods cannot be read, so nobody is chosen to go: {found.detail}")
            pods = found
        order = drain_order((self.settings.kind, self.place.name), pods, (seen.count, count), addresses(asked.busy))
        self._going, self._marked = order.going, not tools.dry_run and (self._marked or bool(order.mark))
        failed = await mark_pods(tools.writer, self.place.namespace, order, self._mark(self._decision(asked)))
        if failed is None and not tools.dry_run:
            self._marked = bool(order.mark or order.kept)  # by this try, or by one before it
        return failed

    def _over(self, seen: TargetObject) -> str:
        return "a mark of pods that were to go" if self._marked else ""

    async def _take_away(self, seen: TargetObject, mark: WriteMark) -> NotWritten | None:
        failed = await unmark_pods(self._tools.writer, self.place, seen.pod_labels, mark)
        self._marked = failed is not None
        return failed

    def _wrote(self, seen: TargetObject, step: BoundStep) -> None:
        self._marked = False
        self._tools.told("count", self._facts(step) | {"was": seen.count, "withheld": step.withheld.value})

    def _facts(self, step: BoundStep) -> dict[str, str | int]:
        found: dict[str, str | int] = {"target": self.name, "object": f"{self.settings.kind} {self.settings.name}"}
        found |= {} if step.count is None else {dotted(self._field): step.count}
        found |= {"going": " ".join(self._going)} if self._going else {}
        return found | {"epoch": self._tools.keeper.elector.epoch}


async def pods_of(writer: ObjectWriter, place: ObjectPlace, labels: dict[str, str]) -> list[PodSeen] | NotWritten:
    """Pods that have these labels, as they are now."""
    if not labels:
        return []
    wanted = quote(",".join(f"{key}={value}" for key, value in sorted(labels.items())))
    found = await writer.read_as(f"{path_of(KINDS['Pod'], place.namespace)}?labelSelector={wanted}", PodList)
    return found if isinstance(found, NotWritten) else found.items


async def mark_pods(writer: ObjectWriter, namespace: str, order: DrainOrder, mark: WriteMark) -> NotWritten | None:
    """Write and take away marks; why that failed, or None. A pod that has just gone needs none."""
    for names, cost in ((order.clear, None), (order.mark, FIRST)):
        for name in names:
            body = {"metadata": {"annotations": {COST: cost}}}
            done = await writer.merge(ObjectPlace("Pod", namespace, name), body, mark)
            if isinstance(done, NotWritten) and done.status != 404:
                return NotWritten(done.status, done.reason, f"pod {name} cannot be marked to go: {done.detail}")
    return None


async def unmark_pods(writer: ObjectWriter, place: ObjectPlace, labels: dict[str, str], mark: WriteMark) -> NotWritten | None:
    """Take our marks from pods; why that failed, or None."""
    pods = await pods_of(writer, place, labels)
    if isinstance(pods, NotWritten):
        return pods
    names = tuple(pod.metadata.name for pod in pods if pod.metadata.annotations.get(COST) == FIRST)
    return await mark_pods(writer, place.namespace, DrainOrder(clear=names), mark)


def _others(seen: TargetObject, field: Path, manager: str) -> list[str]:
    """Who has the count, besides us: another fleet of ours is somebody else, too."""
    return list(dict.fromkeys(one for one in seen.owners(field) if one not in {manager, NOBODY}))


def _named(held: HeldCount) -> list[str]:
    return [held.manager] if held.manager else []
