"""`sageserve apply`: a plan that was reviewed is handed to the process that acts, which carries it out until it expires.

A plan is an order like any other: kept in the cluster, so that a new leader knows it; below an override and a freeze, above
decisions; and subject to ramp, pace, headroom, guard and budget. Read next: `orders.py`, `plan.py`;
docs/how-to/plan-and-explain.md.
"""

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from sageserve.base.errors import ConfigError
from sageserve.cli.acting import acted_on
from sageserve.cli.acts import note_act
from sageserve.cli.extras import need
from sageserve.cli.kube import Kubeconfig, guard_of, ours_of, watched_settings, writer_of
from sageserve.cli.streams import answer_json
from sageserve.cli.wall import show_wall, wall_now
from sageserve.cli.watch import WatchedState

if TYPE_CHECKING:
    from sageserve.base.config import LiveSettings, Scenario
    from sageserve.base.units import Micros
    from sageserve.data.results.plans import PlanFile
    from sageserve.live.authority.orders import FleetOrders
    from sageserve.live.kubernetes.writer import ObjectPlace, ObjectWriter

EXAMPLES = """[bold]Examples[/bold]

sageserve plan fleet.yaml --at 14h -o plan.json && sageserve plan show plan.json

sageserve apply plan.json --begin 2026-11-30T14:00 --timezone Europe/Berlin --dry-run

sageserve apply plan.json --begin 2026-11-30T14:00 --timezone Europe/Berlin
"""
EARLY: Final = 60_000_000  # microseconds by which clocks may differ
POLL_S: Final = 0.5
PATIENCE_S: Final = 6.0  # a lease is renewed every 2 s
DRIFTED, EXPIRED, PARTLY = 2, 3, 5


@dataclass(frozen=True, slots=True)
class PlannedTarget:
    """What a plan means for a target.

    Args:
        target: its name.
        cluster: of it.
        now: replicas that are asked for in the cluster; None: not read.
        planned_from: instances the plan began with.
        planned: instances the plan wants.
        count: the same within the target's bounds and the cluster's guard.
        ordered: it is handed on.
        why: it is not, or something else than what the plan says; empty: neither.
    """

    target: str
    cluster: str
    now: int | None
    planned_from: int
    planned: int
    count: int
    ordered: bool = False
    why: str = ""


def apply(  # noqa: PLR0913, PLR0917 # one argument per option
    path: Annotated[Path, typer.Argument(metavar="PLAN", help="a plan.json")],
    begin: Annotated[str, typer.Option("--begin", metavar="TIME", help="when the plan's instant is, such as 2026-11-30T14:00")],
    zone: Annotated[str, typer.Option("--timezone", metavar="ZONE", help="of --begin")] = "UTC",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="check everything, and order nothing")] = False,
    state: WatchedState = None,
    kubeconfig: Kubeconfig = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the answer as JSON")] = False,
) -> None:
    """Hand a reviewed plan to the process that acts: its counts stand in the place of decisions until the plan expires."""
    need("kubernetes")
    import asyncio

    from sageserve.cli.render_plan_files import wall_clock
    from sageserve.show.plan_file import solved_plan

    begins = wall_clock("apply", begin, zone)
    assert begins is not None
    folder, settings, live = watched_settings(state)
    file = solved_plan(path)
    refuse_other(file, settings)
    wall, until = wall_now(), round(begins.timestamp() * 1e6) + file.expires_at - file.made_at
    if said := _untimely(file, wall, until):
        end_with(EXPIRED, said, "plan again, or say when the plan's instant is: --begin TIME")
    planned = planned_targets(file, live)
    made = file.solved.plan.input_hash[:12]
    found, code, said = asyncio.run(_order(settings, live, planned, _Order(made, until, kubeconfig, folder, dry_run)))
    if any(one.ordered for one in found) and not dry_run:
        counts = ", ".join(f"{one.target}={one.count}" for one in found if one.ordered)
        note_act(folder, "apply", {"plan": made, "targets": counts, "until": show_wall(until)})
    if as_json:
        rows = [{name: getattr(one, name) for name in PlannedTarget.__slots__} for one in found]
        typer.echo(answer_json({"plan": made, "until_us": until, "dry_run": dry_run, "error": said, "targets": rows}))
    else:
        for one in found:
            typer.echo(_line(one, dry_run=dry_run))
    if code:
        end_with(code, said, "" if code == PARTLY else "plan again with --now, or mend what differs")
    if not as_json:
        typer.echo(
            "nothing was ordered"
            if dry_run
            else f"plan {made} stands until {show_wall(until)}; sageserve status says how far it is"
        )


def planned_targets(file: "PlanFile", live: "LiveSettings") -> list[PlannedTarget]:
    """What a plan means for targets that may be acted on.

    Raises:
        ConfigError: there is none of its pools, or the guard cannot be read.
    """
    lines = {line.pool: line for line in file.pools}
    mine = tuple(name for name, one in live.targets.items() if one.pool in lines)
    if not mine:
        raise ConfigError("no target has a pool of the plan", hint=f"its pools: {', '.join(lines)}")
    found = []
    for name in acted_on(live, ours_of(live, mine)):
        one, guard = live.targets[name], guard_of(live, name)
        line = lines[one.pool]
        count = min(max(line.target, one.min, guard.low), one.max, guard.high)
        why = "" if count == line.target else f"the plan's {line.target} is beyond the target's bounds or the cluster's guard"
        found.append(PlannedTarget(name, one.cluster, None, line.now, line.target, count, why=why))
    return found


@dataclass(frozen=True, slots=True)
class _Order:
    """Which plan, until when, with which rights, in which state folder, and whether it is only tried."""

    plan: str
    until: "Micros"
    kubeconfig: Path | None
    folder: Path
    dry_run: bool


async def _order(
    settings: "Scenario", live: "LiveSettings", planned: list[PlannedTarget], order: _Order
) -> tuple[list[PlannedTarget], int, str]:
    """Look at everything first, then order: raises in all clusters, and lowers once all of these are there."""
    from sageserve.live.authority.hands import orders_place

    async with AsyncExitStack() as stack:
        clusters = dict.fromkeys(one.cluster for one in planned)
        places = {name: orders_place(live, name, settings.name) for name in clusters}
        writers = {name: await writer_of(stack, live, name, order.kubeconfig, order.folder) for name in clusters}
        found: list[PlannedTarget] = []
        for name in clusters:
            mine = [one for one in planned if one.cluster == name]
            found += await _looked(writers[name], live, places[name], mine, order)
        if drifted := [one for one in found if one.why.startswith(_DRIFT)]:
            return found, DRIFTED, f"{len(drifted)} of {len(found)} targets are not as the plan found them; nothing was ordered"
        if order.dry_run:
            return found, 0, ""
        for name in clusters:
            await _refuse_idle(writers[name], name, _lease(places[name], settings.name))
        return await _ordered(writers, places, found, order)


_DRIFT: Final = "drift: "


async def _looked(
    writer: "ObjectWriter", live: "LiveSettings", place: "ObjectPlace", mine: list[PlannedTarget], order: _Order
) -> list[PlannedTarget]:
    """Targets of one cluster as they are."""
    from sageserve.live.authority.hands import look_at_targets
    from sageserve.live.authority.orders import read_orders
    from sageserve.live.authority.target_object import TargetObject
    from sageserve.live.kubernetes.writer import NotWritten

    seen = await look_at_targets(writer, live, [one.target for one in mine])
    orders = await read_orders(writer, place)
    if isinstance(orders, NotWritten):
        raise ConfigError(f"orders cannot be read: {orders.detail}", hint="kubectl auth can-i --list says what you may")
    found = []
    for one in mine:
        at, held = seen[one.target], orders[0].plans.get(one.target)
        if (demoted := orders[0].demoted.get(one.target)) is not None:
            found.append(replace(one, why=f"{_DRIFT}only observed, {demoted.cause.value}: {demoted.detail}"))
        elif not isinstance(at, TargetObject):
            found.append(replace(one, why=f"{_DRIFT}{at}"))
        elif at.count != one.planned_from and (held is None or held.plan != order.plan):  # it may be on its way already
            found.append(replace(one, now=at.count, why=f"{_DRIFT}{at.count} are asked for, the plan found {one.planned_from}"))
        else:
            found.append(replace(one, now=at.count))
    return found


async def _ordered(
    writers: "Mapping[str, ObjectWriter]", places: "Mapping[str, ObjectPlace]", found: list[PlannedTarget], order: _Order
) -> tuple[list[PlannedTarget], int, str]:
    """Order raises, then lowers; a cluster that does not take it ends it there, and what was raised stays."""
    from sageserve.live.authority.orders import change_orders
    from sageserve.live.kubernetes.writer import NotWritten

    done: dict[str, PlannedTarget] = {}
    for raises in (True, False):
        for name, writer in writers.items():
            mine = [one for one in found if one.cluster == name and (one.count >= (one.now or 0)) is raises]
            if not mine:
                continue
            answer = await change_orders(writer, places[name], _planned(mine, order))
            if isinstance(answer, NotWritten):
                left = [done.get(one.target, replace(one, why="not ordered")) for one in found]
                return left, PARTLY, f"cluster {name} does not take it, so nothing further was ordered: {answer.detail}"
            done |= {one.target: replace(one, ordered=True) for one in mine}
    return [done[one.target] for one in found], 0, ""


def _planned(mine: list[PlannedTarget], order: _Order) -> Callable[["FleetOrders"], "FleetOrders"]:
    from msgspec import structs

    from sageserve.live.authority.orders import PlannedCount, without_ended

    new = {one.target: PlannedCount(one.count, order.until, order.plan) for one in mine}
    wall = wall_now()
    return lambda orders: structs.replace(kept := without_ended(orders, wall), plans=kept.plans | new)


def _lease(orders: "ObjectPlace", fleet: str) -> "ObjectPlace":
    from sageserve.live.kubernetes.objects import fleet_object
    from sageserve.live.kubernetes.writer import ObjectPlace

    return ObjectPlace("Lease", orders.namespace, fleet_object(fleet))


async def _refuse_idle(writer: "ObjectWriter", cluster: str, place: "ObjectPlace") -> None:
    """Refuse an order that nobody would carry out: the lease is not renewed before our eyes.

    Raises:
        ConfigError: nobody acts there.
    """
    import asyncio

    from sageserve.live.kubernetes.objects import KubeObject

    first = ""
    for _ in range(max(2, int(PATIENCE_S / POLL_S))):
        found = await writer.get(place.kind, place.name, place.namespace)
        renewed = found.text("spec", "renewTime") if isinstance(found, KubeObject) else ""
        if not isinstance(found, KubeObject) or not found.text("spec", "holderIdentity"):
            break
        if first and renewed != first:
            return
        first = renewed
        await asyncio.sleep(POLL_S)
    raise ConfigError(
        f"nobody acts on {cluster}: Lease {place.namespace}/{place.name} is not renewed",
        hint="start what carries plans out: sageserve watch FLEET --act",
    )


def refuse_other(file: "PlanFile", settings: "Scenario") -> None:
    """Refuse a plan of other settings.

    Raises:
        ConfigError: it is one.
    """
    from sageserve.data.results.plans import scenario_hash

    strategy = settings.strategy.model_copy(update={"name": file.strategy})
    if scenario_hash(settings.model_copy(update={"strategy": strategy})) != file.scenario_hash:
        raise ConfigError(
            f"the plan was made under other settings than {settings.name} has here",
            hint="plan again, with the same file and the same --set options as `sageserve watch` or `hub publish`",
        )


def _untimely(file: "PlanFile", wall: "Micros", until: "Micros") -> str:
    """Why it is not the time for a plan; empty: it is."""
    if wall >= until:
        return f"the plan expired at {show_wall(until)}"
    begins = until - (file.expires_at - file.made_at)
    return f"the plan is for {show_wall(begins)}, which is not yet" if wall < begins - EARLY else ""


def end_with(code: int, said: str, hint: str) -> None:
    """Say what is wrong, and end with a code of its own."""
    typer.echo(f"error: {said}" + (f"\ntry: {hint}" if hint else ""), err=True)
    raise typer.Exit(code)


def _line(one: PlannedTarget, *, dry_run: bool) -> str:
    now = "?" if one.now is None else str(one.now)
    word = "ordered" if one.ordered else "would be ordered" if dry_run and not one.why.startswith(_DRIFT) else "not ordered"
    return f"{one.target}: {now} -> {one.count}, {word}{f' ({one.why})' if one.why else ''}"
