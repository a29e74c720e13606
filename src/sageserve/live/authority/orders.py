"""What people said of targets, and which targets are demoted: a ConfigMap in the cluster, so that a new leader knows it.

    sageserve-FLEET-orders    orders.json: {"targets": {NAME: {frozen_until, count, until, …}}, "demoted": {NAME: {cause, …}},
                                            "held": {NAME: {found, manager, epoch, …}}, "plans": {NAME: {count, …}},
                                            "hub": {sequence, digest, …}}

Commands and the leader change it, each bound to the version that it read. Read next: `hands.py`; `cli/orders.py`.
"""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from msgspec import Struct, structs

from sageserve.core.authority.records import Demotion, TargetOrder
from sageserve.live.kubernetes.objects import Json, KubeObject
from sageserve.live.kubernetes.writer import NotWritten, ObjectPlace, ObjectWriter, WriteMark

KEY: Final = "orders.json"
TRIES: Final = 5


class HeldCount(Struct, frozen=True):
    """Replicas that are ours: the subresource `scale` takes no annotations, so what was found is kept here.

    Args:
        found: replicas before our first write.
        manager: whose they were; empty: nobody's.
        epoch: of the newest writer.
        written: some write of ours is known to have come through.
    """

    found: int
    manager: str = ""
    epoch: int = 0
    written: bool = False


class PlannedCount(Struct, frozen=True):
    """Instances that a reviewed plan wants in the place of decisions.

    Args:
        count: instances.
        until: the plan expires, microseconds since 1970.
        plan: the beginning of its hash.
    """

    count: int
    until: int
    plan: str


class PlanMark(Struct, frozen=True):
    """The newest plan of a hub that was followed: no older one is followed after it, by whichever agent.

    Args:
        sequence: of it.
        digest: SHA-256 of what was sealed.
        plan: the beginning of the hash of its inputs.
        not_before: when it began to hold, microseconds since 1970.
        until: when it ends, or did.
    """

    sequence: int
    digest: str
    plan: str
    not_before: int
    until: int


class FleetOrders(Struct, frozen=True):
    """Everything that was said, and what must outlive whoever acts.

    Args:
        targets: orders, by target.
        demoted: by target.
        held: counts that we decide, by target.
        plans: counts of reviewed plans, by target.
        hub: the newest plan that an agent has put there; None: none has.
    """

    targets: dict[str, TargetOrder] = {}
    demoted: dict[str, Demotion] = {}
    held: dict[str, HeldCount] = {}
    plans: dict[str, PlannedCount] = {}
    hub: PlanMark | None = None


async def read_orders(writer: ObjectWriter, place: ObjectPlace) -> tuple[FleetOrders, str] | NotWritten:
    """Orders, and the version of what holds them; empty where nothing was ever said."""
    found = await writer.get("ConfigMap", place.name, place.namespace)
    if not isinstance(found, KubeObject):
        return (FleetOrders(), "") if found.status == 404 else NotWritten(found.status, "NotRead", found.detail)
    try:
        orders = msgspec.json.decode(found.text("data", KEY) or "{}", type=FleetOrders)
    except (ValueError, RecursionError) as error:
        detail = f"{KEY} of ConfigMap {place.namespace}/{place.name} is not ours: {error}"
        return NotWritten(0, "Unreadable", detail)
    return orders, found.text("metadata", "resourceVersion")


async def change_orders(
    writer: ObjectWriter, place: ObjectPlace, change: Callable[[FleetOrders], FleetOrders]
) -> FleetOrders | NotWritten:
    """Change what was said; tried again when somebody else changed it meanwhile."""
    last = NotWritten(409, "Conflict", "it is changed all the time")
    for _ in range(TRIES):
        read = await read_orders(writer, place)
        if isinstance(read, NotWritten):
            return read
        orders, version = read
        new = change(orders)
        if new == orders:
            return orders
        body: Mapping[str, Json] = {"data": {KEY: msgspec.json.encode(new).decode()}}
        mark = WriteMark(place.name)
        done = await (writer.replace(place, body, version, mark) if version else writer.create(place, body, mark))
        if isinstance(done, KubeObject):
            return new
        if not done.stale:
            return done
        last = done
    return last


def without_ended(orders: FleetOrders, wall: int) -> FleetOrders:
    """Orders that still hold."""
    kept = {name: one for name, one in orders.targets.items() if wall < max(one.frozen_until, one.until)}
    plans = {name: one for name, one in orders.plans.items() if wall < one.until}
    return structs.replace(orders, targets=kept, plans=plans)
