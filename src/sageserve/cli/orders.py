"""`sageserve freeze`, `thaw`, `override`, `release`: what a person says of targets that are acted on, and gives back.

Orders are kept in the cluster, where the process that acts reads them, and the one after it. Read next: `kube.py`;
`live/authority/orders.py`; docs/how-to/raise-the-floor.md.
"""

import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer

from sageserve.base.errors import ConfigError, SageServeError
from sageserve.cli.acting import acted_on
from sageserve.cli.acts import note_act
from sageserve.cli.extras import need
from sageserve.cli.kube import Kubeconfig, guard_of, ours_of, shares_at, targets_at, watched_settings, writer_of
from sageserve.cli.watch import WatchedState

if TYPE_CHECKING:
    from sageserve.base.config import LiveSettings, Scenario
    from sageserve.base.units import Micros
    from sageserve.live.authority.orders import FleetOrders
    from sageserve.live.kubernetes.writer import NotWritten, ObjectPlace, ObjectWriter

Where = Annotated[str, typer.Argument(metavar="WHERE", help="a target, or the pool, region or cluster of some, or all")]
Target = Annotated[str, typer.Argument(metavar="TARGET", help="its name in live.targets")]
Answer = TypeVar("Answer")
OVERRIDE_MOST_H: Final = 24
FREEZE_MOST_D: Final = 31
Change = Callable[[tuple[str, ...], "FleetOrders"], "FleetOrders"]


def freeze(
    where: Where,
    length: Annotated[str, typer.Option("--for", metavar="DURATION", help="until it ends by itself, 31d at most")],
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="for whoever finds it")] = "",
    state: WatchedState = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Carry no decision out for a while: bounds stay as they are, overrides work."""
    from msgspec import structs

    from sageserve.base.units import DAY
    from sageserve.core.authority.records import TargetOrder

    until = _until(length, FREEZE_MOST_D * DAY)

    def change(names: tuple[str, ...], orders: "FleetOrders") -> "FleetOrders":
        new = {
            name: structs.replace(orders.targets.get(name, TargetOrder()), frozen_until=until, freeze_why=why) for name in names
        }
        return structs.replace(orders, targets=orders.targets | new)

    names = _order(state, where, kubeconfig, change)
    _done(state, "freeze", names, {"for": length, "why": why})
    typer.echo(f"frozen until {_clock(until)}: {', '.join(names)}")


def thaw(where: Where, state: WatchedState = None, kubeconfig: Kubeconfig = None) -> None:
    """Carry decisions out again: ends freezes and plans, and gives targets their authority back after the cause is mended."""
    from msgspec import structs

    before: dict[str, str] = {}
    ordered: set[str] = set()

    def change(names: tuple[str, ...], orders: "FleetOrders") -> "FleetOrders":
        ordered.update(name for name in names if name in orders.targets and orders.targets[name].frozen_until)
        ordered.update(name for name in names if name in orders.plans)
        before.update({name: f"{one.cause.value}: {one.detail}" for name, one in orders.demoted.items() if name in names})
        kept = {
            name: structs.replace(one, frozen_until=0, freeze_why="") if name in names else one
            for name, one in orders.targets.items()
        }
        held = {name: one for name, one in orders.held.items() if name not in before}  # what is there now is the original
        demoted = {name: one for name, one in orders.demoted.items() if name not in names}
        plans = {name: one for name, one in orders.plans.items() if name not in names}
        return structs.replace(orders, targets=kept, demoted=demoted, held=held, plans=plans)

    names = _order(state, where, kubeconfig, change)
    _done(state, "thaw", names, {})
    for name in names:
        if name in before or name in ordered:
            typer.echo(f"{name} is acted on again{f'; it was demoted, {before[name]}' if name in before else ''}")
        else:
            typer.echo(f"{name}: no freeze and no plan is ordered, and it has its authority: nothing changed")


def override(
    wanted: Annotated[str, typer.Argument(metavar="TARGET=N", help="instances, between the target's min and max")],
    length: Annotated[str, typer.Option("--for", metavar="DURATION", help="until it ends by itself, 24h at most")],
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="for whoever finds it, and for the audit log")],
    state: WatchedState = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Want a number of instances instead of what decisions want; ramp, pace and budget hold all the same."""
    from msgspec import structs

    from sageserve.base.units import HOUR
    from sageserve.core.authority.records import TargetOrder

    need("kubernetes")
    name, _, text = wanted.partition("=")
    if not text.isdigit():
        raise ConfigError(f"{wanted!r} is no target with a number", hint="sageserve override llama70=12 --for 2h --why launch")
    if not why.strip():
        raise ConfigError("--why is empty", hint="say it for whoever finds it: --why 'launch of a product'")
    until, count = _until(length, OVERRIDE_MOST_H * HOUR), int(text)
    folder, settings, live = watched_settings(state)
    if name not in live.targets:
        targets_at(live, name)
        raise ConfigError(f"{name!r} is more than one target", hint="an override is of one target, by its name")
    ours_of(live, (name,))
    target, guard = live.targets[name], guard_of(live, name)
    least, most = max(target.min, guard.low), min(target.max, guard.high)
    if not least <= count <= most:
        raise ConfigError(
            f"{name} may have {least} to {most} instances, not {count}", hint=f"{name}={min(max(count, least), most)}"
        )
    _run(_check_budget(folder, settings, (name, count), kubeconfig))

    def change(names: tuple[str, ...], orders: "FleetOrders") -> "FleetOrders":
        if (held := orders.demoted.get(names[0])) is not None:
            raise ConfigError(f"{names[0]} is only observed: {held.detail}", hint=f"sageserve thaw {names[0]}, then again")
        one = structs.replace(orders.targets.get(names[0], TargetOrder()), count=count, until=until, why=why)
        return structs.replace(orders, targets=orders.targets | {names[0]: one})

    names = _order(state, name, kubeconfig, change)
    _done(state, "override", names, {"count": count, "for": length, "why": why})
    typer.echo(f"{name} is held to {count} instances until {_clock(until)}")


def release(target: Target, state: WatchedState = None, kubeconfig: Kubeconfig = None) -> None:
    """Give the object of a target back as it was found, and only observe the target from then on."""
    from msgspec import structs

    from sageserve.core.authority.records import Demotion, DemotionCause
    from sageserve.live.authority.give_back import give_back, give_back_count
    from sageserve.live.authority.share_hand import give_back_shares
    from sageserve.live.kubernetes.kinds import ALL_RUNGS, COUNTED
    from sageserve.live.kubernetes.objects import fleet_object
    from sageserve.live.kubernetes.writer import NotWritten, ObjectPlace

    need("kubernetes")
    folder, settings, live = watched_settings(state)
    if target not in live.targets and target not in live.shares:
        targets_at(live, target)
        raise ConfigError(f"{target!r} is more than one target", hint="give back one at a time, by its name")
    share, one = live.shares.get(target), live.targets.get(target) or live.shares[target]
    if share is None:
        ours_of(live, (target,))
    wall = time.time_ns() // 1000

    def change(names: tuple[str, ...], orders: "FleetOrders") -> "FleetOrders":
        demotion = Demotion(DemotionCause.RELEASED, "given back by a person", wall)
        return structs.replace(orders, demoted=orders.demoted | dict.fromkeys(names, demotion))

    def forget(orders: "FleetOrders") -> "FleetOrders":
        return structs.replace(orders, held={name: each for name, each in orders.held.items() if name != target})

    async def work() -> tuple[str, ...]:
        async with AsyncExitStack() as stack:
            writer = await writer_of(stack, live, one.cluster, kubeconfig, folder)
            orders = _place(live, one.cluster, settings.name)
            kept = await _changed(writer, orders, partial(change, (target,)))
            namespace, name = one.name.split("/", 1)
            place, ours = ObjectPlace(one.kind, namespace, name), fleet_object(settings.name)
            if share is not None:
                found = await give_back_shares(writer, share, place, ours)
            elif one.kind in COUNTED or (one.kind in ALL_RUNGS and one.authority == "full"):
                found = await give_back_count(writer, place, ours, kept.held.get(target))
            else:
                found = await give_back(writer, place, ours)
            if isinstance(found, NotWritten):
                raise _refusal(found)
            await _changed(writer, orders, forget)
            return found

    said = _run(work())
    _done(state, "release", (target,), {"fields": len(said)})
    for line in said or (f"nothing of {one.kind} {one.name} is ours",):
        typer.echo(line)
    typer.echo(f"{target} is only observed from now on; to go on: sageserve thaw {target}")


def _until(length: str, most: "Micros") -> "Micros":
    from sageserve.base.units import show_duration
    from sageserve.cli.durations import time_of

    span = time_of("--for", length)
    if not 0 < span <= most:
        raise ConfigError(f"--for {length} is not between 0 and {show_duration(most)}", hint="give it again when it ends")
    return time.time_ns() // 1000 + span


def _order(state: Path | None, where: str, kubeconfig: Path | None, change: Change) -> tuple[str, ...]:
    """Change the orders of targets in their clusters."""
    need("kubernetes")
    folder, settings, live = watched_settings(state)
    shares = shares_at(live, where)
    names = () if where in shares else _targets(live, where, shares)
    clusters = {name: live.targets[name].cluster for name in names} | {name: live.shares[name].cluster for name in shares}

    async def work() -> None:
        async with AsyncExitStack() as stack:
            for cluster in dict.fromkeys(clusters.values()):
                mine = tuple(name for name, there in clusters.items() if there == cluster)
                writer = await writer_of(stack, live, cluster, kubeconfig, folder)
                await _changed(writer, _place(live, cluster, settings.name), partial(change, mine))

    _run(work())
    return tuple(clusters)


def _targets(live: "LiveSettings", where: str, shares: tuple[str, ...]) -> tuple[str, ...]:
    """Targets that take orders; where shares do, too, there may be none, which is said.

    Raises:
        ConfigError: there are none, and no shares.
    """
    try:
        return acted_on(live, ours_of(live, targets_at(live, where)))
    except ConfigError as error:
        if not shares:
            raise
        typer.echo(f"of shares alone: {error.message}", err=True)
        return ()


def _place(live: "LiveSettings", cluster: str, fleet: str) -> "ObjectPlace":
    from sageserve.live.authority.hands import orders_place

    return orders_place(live, cluster, fleet)


async def _changed(
    writer: "ObjectWriter", place: "ObjectPlace", change: Callable[["FleetOrders"], "FleetOrders"]
) -> "FleetOrders":
    from sageserve.live.authority.orders import change_orders, without_ended
    from sageserve.live.kubernetes.writer import NotWritten

    wall = time.time_ns() // 1000
    done = await change_orders(writer, place, lambda orders: change(without_ended(orders, wall)))
    if isinstance(done, NotWritten):
        raise _refusal(done)
    return done


def _refusal(done: "NotWritten") -> SageServeError:
    return SageServeError(f"the cluster does not take it: {done.detail}", hint="kubectl auth can-i --list says what you may")


async def _check_budget(folder: Path, settings: "Scenario", wanted: tuple[str, int], kubeconfig: Path | None) -> None:
    """Refuse more than a budget leaves.

    Raises:
        ConfigError: with the number that is possible.
    """
    from sageserve.live.authority.budget import budget_room
    from sageserve.live.authority.hands import held_by, look_at_targets

    need("kubernetes")
    (name, count), live = wanted, settings.live
    assert live is not None
    if not live.safety.budget.gpus and live.safety.budget.per_hour is None:
        return
    held: dict[str, int] = {}
    async with AsyncExitStack() as stack:
        for cluster in live.clusters:
            mine: Mapping[str, object] = {key: one for key, one in live.targets.items() if one.cluster == cluster}
            if mine and live.clusters[cluster].agent is None:
                writer = await writer_of(stack, live, cluster, kubeconfig, folder)
                held |= held_by(await look_at_targets(writer, live, tuple(mine)))
    room = budget_room(settings, name, held)
    if room is not None and count > room:
        raise ConfigError(f"live.safety.budget leaves {name} {room} instances, not {count}", hint=f"{name}={room}")


def _run(work: Coroutine[None, None, Answer]) -> Answer:
    import asyncio  # late: it takes a tenth of what --help takes

    return asyncio.run(work)


def _done(state: Path | None, act: str, names: tuple[str, ...], facts: Mapping[str, str | int]) -> None:
    folder, _, _ = watched_settings(state)
    note_act(folder, act, {"targets": ", ".join(names), **facts})


def _clock(wall: "Micros") -> str:
    return time.strftime("%a %H:%M", time.localtime(wall / 1e6))
