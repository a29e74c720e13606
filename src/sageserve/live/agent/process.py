"""The agent of one cluster: it fetches its plan, judges it, orders what may be followed, and reports, beside the hands that act.

A plan is an order like one of `sageserve apply`: kept in the cluster, with the mark of the newest one, so that no agent follows
an older one after it; below overrides and freezes; and carried out by the ladder, under the guard, by whoever holds the lease.
Nothing is decided here: without a plan that holds, bounds stay as they are. Read next: `verdict.py`; `live/authority/hands.py`.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec
from msgspec import structs

from sageserve.base.config import Scenario
from sageserve.base.errors import ConfigError, in_words
from sageserve.base.units import SECOND, Micros, show_duration
from sageserve.core.authority.records import LadderRules
from sageserve.live.agent.plan_record import ClusterPlan, TargetPlan
from sageserve.live.agent.report import AgentReport, TargetReport
from sageserve.live.agent.sealed import TrustedKeys
from sageserve.live.agent.sink import NotReported, ReportSink
from sageserve.live.agent.source import NotFetched, PlanSource
from sageserve.live.agent.verdict import ExpectedPlan, JudgedPlan, PlanRefused, RefusedPlan, judge
from sageserve.live.authority.hands import ClusterHands, Hands, HandsParts, orders_place
from sageserve.live.authority.orders import FleetOrders, PlanMark, PlannedCount, change_orders, read_orders, without_ended
from sageserve.live.authority.target_hand import PoolAsked, TargetHand
from sageserve.live.kubernetes.writer import NotWritten
from sageserve.live.private import write_private

ROUND: Final[Micros] = 5 * SECOND
FETCH_S: Final = 20.0
MARK: Final = "followed.json"


@dataclass(frozen=True, slots=True)
class AgentParts:
    """What is made outside and plugged in.

    Args:
        source: of plans.
        keys: that are trusted.
        state: the agent's own folder.
        reports: where what it says of itself goes; None: nowhere.
        sight: how a pool is: utilisation, blindness, what runs; what it asks is not asked.
        hands: as for whoever acts; `asked` is the agent's own.
        every: microseconds between two fetches.
    """

    source: PlanSource
    keys: TrustedKeys
    state: Path
    reports: ReportSink | None
    sight: Callable[[str], PoolAsked]
    hands: HandsParts
    every: Micros = 30 * SECOND


class ClusterAgent:
    """One process, for one cluster.

    Args:
        scenario: with the targets of that cluster, and of no other.
        cluster: its name.
        parts: what is plugged in.
    """

    def __init__(self, scenario: Scenario, cluster: str, parts: AgentParts) -> None:
        live = scenario.live
        assert live is not None
        self._fleet, self._cluster, self._live, self._parts = scenario.name, cluster, live, parts
        self._place = orders_place(live, cluster, scenario.name)
        self._writer = parts.hands.writers[cluster]
        self.acting: Final = Hands(scenario, replace(parts.hands, asked=self.asked))
        self.hands: Final[ClusterHands] = self.acting.clusters[0]
        self._kept = _read_mark(parts.state / MARK)
        self._plan: ClusterPlan | None = None  # the newest that was judged good
        self._judged: JudgedPlan | None = None  # the same until it is ordered: the lease may come later than the plan
        self._heard: Micros = 0
        self._fetch_at: Micros = parts.hands.now()
        self._in_force_at: Micros | None = None  # by the monotonic clock
        self._report_at: Micros = parts.hands.now()
        self.refused: RefusedPlan | None = None
        self.unreported = ""  # why no report could be left; empty: one was
        self.trouble = ""  # why nothing could be ordered; empty: it could
        self._told = ""

    # --- what decides ---

    @property
    def mark(self) -> PlanMark | None:
        """The newest plan that was followed, here or by another agent."""
        found = [one for one in (self._kept, self.hands.orders.hub) if one is not None]
        return max(found, key=lambda one: one.sequence, default=None)

    def asked(self, pool: str) -> PoolAsked:
        """What nobody asks of a pool, and how it is: whatever a plan wants, the hands find among the orders."""
        now, wall, mark = self._parts.hands.now(), self._parts.hands.wall(), self.mark
        if mark is None or wall < mark.until:
            self._in_force_at = now
        ended = now if mark is None else now - max(0, wall - mark.until)
        heard = ended if self._in_force_at is None else max(ended, self._in_force_at)
        return replace(self._parts.sight(pool), count=None, heard=heard)

    def leads(self) -> bool:
        """It holds the lease now."""
        return self.hands.keeper.elector.leads(self._parts.hands.now())

    # --- rounds ---

    async def turn(self) -> None:
        """Fetch when it is time, and report."""
        if self._parts.hands.now() >= self._fetch_at:
            self._fetch_at = self._parts.hands.now() + self._parts.every
            await self.pull()
        await self._order_judged()
        await self.report()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.turn()
            await asyncio.sleep(ROUND / SECOND)

    async def pull(self) -> None:
        """Fetch the newest plan, and order it where it may be followed."""
        try:
            async with asyncio.timeout(FETCH_S):
                sealed = await self._parts.source.fetch()
        except NotFetched as error:
            self._refuse(RefusedPlan(PlanRefused.UNREACHABLE, str(error)))
            return
        except TimeoutError:
            self._refuse(RefusedPlan(PlanRefused.UNREACHABLE, f"the plan was not there after {FETCH_S:.0f} s"))
            return
        wall = self._parts.hands.wall()
        self._heard = wall
        read = await read_orders(self._writer, self._place)
        if isinstance(read, NotWritten):
            self.trouble = f"orders cannot be read, so no plan is followed: {read.detail}"
            return
        self.trouble = ""
        last = max((one for one in (self._kept, read[0].hub) if one), key=lambda one: one.sequence, default=None)
        found = judge(sealed, ExpectedPlan(self._fleet, self._cluster, self._parts.keys, last), wall)
        if isinstance(found, RefusedPlan):
            self._refuse(found)
            return
        self.refused, self._plan, self._judged = None, found.plan, found
        await self._order_judged()

    async def _order_judged(self) -> None:
        """Order the plan that was judged last, once, as soon as the lease is here, and while it holds."""
        hands, found = self._parts.hands, self._judged
        if found is None or hands.dry_run or not self.hands.keeper.elector.may_write(hands.now()):
            return
        self._judged = None
        if hands.wall() < found.plan.valid_until:
            await self._order(found)

    async def _order(self, found: JudgedPlan) -> None:
        """Put a plan among the orders; one that another agent has put there since, and is newer, stays."""
        wall, mark = self._parts.hands.wall(), found.mark
        new = {
            name: PlannedCount(count, found.plan.valid_until, found.plan.plan)
            for name, one in found.plan.targets.items()
            if (count := self._followed(name, one)[0]) is not None
        }

        def change(orders: FleetOrders) -> FleetOrders:
            if (last := orders.hub) is not None and (
                last.sequence > mark.sequence or (last.sequence == mark.sequence and last != mark)
            ):
                return orders
            kept = without_ended(orders, wall)
            if last == mark:  # what a person has ended or put in its place since is theirs
                new_here = {name: one for name, one in new.items() if _is_of(kept.plans.get(name), one)}
                return structs.replace(kept, plans=kept.plans | new_here)
            return structs.replace(kept, plans=new, hub=mark)

        done = await change_orders(self._writer, self._place, change)
        if isinstance(done, NotWritten):
            self.trouble = f"the plan cannot be ordered: {done.detail}"
            return
        if done.hub != mark:
            return  # another agent was quicker with a newer one: the next fetch brings it here
        if self._kept != mark:
            self._keep(mark)
            counts = ", ".join(f"{name}={one.count}" for name, one in new.items())
            self._parts.hands.told("plan", {"sequence": mark.sequence, "plan": mark.plan, "targets": counts})

    def _keep(self, mark: PlanMark) -> None:
        """Remember here, too, what was followed: an older sageserve that changes orders drops what it does not know."""
        self._kept, self._told = mark, ""
        try:
            write_private(self._parts.state / MARK, msgspec.json.encode(mark))
        except OSError as error:
            self.trouble = f"what was followed cannot be remembered: {error.strerror}"

    def _refuse(self, refused: RefusedPlan) -> None:
        self.refused = refused
        if self._told != refused.why:
            self._told = refused.why
            self._parts.hands.told("plan-refused", {"why": refused.why.value, "detail": refused.detail})

    def _followed(self, name: str, one: TargetPlan) -> tuple[int | None, str]:
        """Instances of a plan that are followed, and why they are others than planned; None: it is not followed at all."""
        target = self._live.targets.get(name)
        if target is None:
            return None, "there is no such target here"
        if (target.kind, target.name, target.pool) != (one.kind, one.object, one.pool):
            here = f"here it is {target.kind} {target.name} of {target.pool}"
            return None, f"{here}, and the plan means {one.kind} {one.object} of {one.pool}"
        hand = self._hand(name)
        if hand is None:
            return None, "it is only observed here"
        if hand.ladder.allowed == "observe":
            return None, "the guard lets it only be observed"
        return clipped(one.count, hand.ladder.rules)

    def _hand(self, name: str) -> TargetHand | None:
        return next((hand for hand in self.hands.hands if hand.name == name), None)

    # --- reports ---

    async def report(self) -> None:
        """Leave what there is to say where the hub finds it, unless another agent leads and says it."""
        now, sink, elector = self._parts.hands.now(), self._parts.reports, self.hands.keeper.elector
        if sink is None or now < self._report_at or (elector.holder and not elector.leads(now)):
            return
        self._report_at = now + sink.every
        try:
            async with asyncio.timeout(FETCH_S):
                await sink.put(self.said())
        except NotReported as error:
            self._unreport(str(error))
        except TimeoutError:
            self._unreport(f"the report was not taken within {FETCH_S:.0f} s")
        else:
            self.unreported = ""

    def _unreport(self, why: str) -> None:
        """Say once that nobody hears of it: the report itself cannot."""
        if not self.unreported:
            self._parts.hands.told("unreported", {"detail": why})
        self.unreported = why

    def said(self) -> AgentReport:
        """What there is to say now."""
        wall, mark, refused = self._parts.hands.wall(), self.mark, self.refused
        return AgentReport(
            fleet=self._fleet,
            cluster=self._cluster,
            agent=self._parts.hands.me,
            at=wall,
            follows="none" if mark is None else "in-force" if wall < mark.until else "expired",
            sequence=0 if mark is None else mark.sequence,
            plan="" if mark is None else mark.plan,
            age=0 if mark is None else max(0, wall - mark.not_before),
            until=0 if mark is None else mark.until,
            heard=self._heard,
            refused="" if refused is None else refused.why.value,
            detail="" if refused is None else refused.detail,
            holder=self.hands.keeper.elector.holder,
            targets=self._targets(mark),
            notes=tuple(self.notes()),
        )

    def notes(self) -> list[str]:
        """What a person should know, in sentences."""
        wall, mark = self._parts.hands.wall(), self.mark
        found = [f"{one}." for one in (self.trouble, self.unreported) if one]
        if self._parts.hands.dry_run and self._plan is not None:
            found.append(f"A dry run: plan {self._plan.sequence} would be followed.")
        if self.refused is not None:
            found.append(f"Not followed ({self.refused.why.value}): {self.refused.detail}.")
        if mark is not None and wall >= mark.until:
            hold = self._live.safety.hold_for
            ago, left = (show_duration(one // SECOND * SECOND) for one in (wall - mark.until, mark.until + hold - wall))
            after = f"for {left} more, then they fall slowly to `min`" if wall < mark.until + hold else "or fall slowly to `min`"
            found.append(f"Plan {mark.sequence} ended {ago} ago: bounds stay as they are {after}.")
        return [*found, *self.hands.notes()]

    def _targets(self, mark: PlanMark | None) -> dict[str, TargetReport]:
        plan = self._plan
        at_hand = plan is not None and (self._parts.hands.dry_run or (mark is not None and plan.sequence == mark.sequence))
        planned: Mapping[str, TargetPlan] = plan.targets if plan is not None and at_hand else {}
        found = {}
        for name in dict.fromkeys((*self._live.targets, *planned)):
            found[name] = self._target(name, planned.get(name))
        return found

    def _target(self, name: str, one: TargetPlan | None) -> TargetReport:
        hand, target = self._hand(name), self._live.targets.get(name)
        count, why = (None, "") if one is None else self._followed(name, one)
        if target is None:
            assert one is not None
            return TargetReport(pool=one.pool, object=f"{one.kind} {one.object}", planned=one.count, why=why)
        known = TargetReport(
            pool=target.pool,
            object=f"{target.kind} {target.name}",
            planned=None if one is None else one.count,
            followed=count,
            why=why,
            blind=self._parts.sight(target.pool).blind,
        )
        if hand is None:
            return known
        known = structs.replace(
            known,
            ready=hand.pods.ready,
            coming=hand.pods.coming,
            stuck=hand.pods.stuck,
            rung=hand.ladder.rung,
            withheld=hand.step.withheld.value,
            note=hand.note(),
        )
        if (seen := hand.seen) is None:
            return known
        low, high = (seen.low, seen.high) if target.authority != "full" else (None, None)
        return structs.replace(known, low=low, high=high, count=seen.count, ready=max(seen.ready, known.ready))


def clipped(count: int, rules: LadderRules) -> tuple[int, str]:
    """A plan's count within the settings and the guard, and what cut it; where they contradict each other, the less."""
    guard = rules.guard
    bounds = (
        (guard.high, "the guard's max", count > guard.high),
        (rules.high, "the target's max here", count > rules.high),
        (guard.low, "the guard's min", count < guard.low),
        (rules.low, "the target's min here", count < rules.low),
    )
    found = min(max(count, rules.low, guard.low), rules.high, guard.high)
    why = next((f"{value} is {what}" for value, what, cut in bounds if cut and value == found), "")
    return found, why or ("" if found == count else "the target's min and max here and the guard's contradict each other")


def _is_of(held: PlannedCount | None, one: PlannedCount) -> bool:
    return held is not None and (held.plan, held.until) == (one.plan, one.until)


def _read_mark(path: Path) -> PlanMark | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=PlanMark)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        hint = "take it away where ConfigMap sageserve-FLEET-orders still has `hub`: that is remembered, too"
        raise ConfigError(f"{path}, which plan was followed, cannot be read: {in_words(error)}", hint=hint) from None
