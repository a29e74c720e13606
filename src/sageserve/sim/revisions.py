"""Revisions of engines in a simulated world: how fast each is, what each instance ran when, and what requests got of it.

A revision is the number of a rollout (from 1, in the order of `rollouts`); 0 is what engines are at the beginning. Knows no
policy. Read next: `core/rollout.py`, which decides; `results/rollouts.py`, which sums up.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sageserve.base.config import Scenario
from sageserve.base.records import UNSET, Bools, Ints
from sageserve.base.units import Micros, show_duration
from sageserve.core.events import RevisionsSeen
from sageserve.core.layout import Layout
from sageserve.core.perf import slowed
from sageserve.core.rollout import Rollout
from sageserve.core.rollout_plan import RolloutPlan, plan_of
from sageserve.sim.kernel.engine import Kernel


def plans_of(scenario: Scenario, layout: Layout) -> tuple[RolloutPlan, ...]:
    """What a scenario rolls out, in numbers."""
    models, tiers = layout.names.models, scenario.tiers
    return tuple(plan_of(one, number, one.at, models, tiers) for number, one in enumerate(scenario.rollouts, 1))


def too_late(scenario: Scenario, window: Micros) -> tuple[str, ...]:
    """Rollouts that nothing is served during, in a sentence each."""
    return tuple(
        f"rollouts[{i}] is due at {show_duration(one.at)}, and the window ends at {show_duration(window)}:"
        " its canaries are asked little or nothing"
        for i, one in enumerate(scenario.rollouts)
        if one.at >= window
    )


def revised(scenario: Scenario, profiles: NDArray[Any]) -> NDArray[Any]:
    """PROFILE rows as given, and behind them the same once more for every rollout, as fast as its engines are."""
    return np.concatenate([profiles, *(slowed(profiles, one.engine_time) for one in scenario.rollouts)])


class SimulatedRevisions:
    """What each instance runs.

    Args:
        scenario: for `rollouts` and tiers.
        layout: for round trips.
        kernel: the engines.
    """

    def __init__(self, scenario: Scenario, layout: Layout, kernel: Kernel) -> None:
        self._scenario, self._layout, self._kernel = scenario, layout, kernel
        self._first = kernel.engines["profile"][: layout.instances].copy()
        self._rows = len(kernel.world.setup.profiles) // (1 + len(scenario.rollouts))
        self._changes: dict[int, list[tuple[Micros, int]]] = {}  # of rows that ever ran another revision: since when, which
        tiers = list(scenario.tiers.values())
        self._batch = np.array([tier.batch for tier in tiers])
        self._gap = np.array([0 if tier.itl is None else tier.itl for tier in tiers], np.int64)
        self._region = np.arange(layout.instances) // (layout.instances // len(layout.names.regions))

    def start(self, now: Micros, i: int, revision: int) -> None:
        """A closed instance begins to start in a revision."""
        if revision != self._latest(i):
            self._changes.setdefault(i, [(0, 0)]).append((now, revision))
            self._kernel.revise(i, int(self._first[i]) + self._rows * revision)

    def _latest(self, i: int) -> int:
        return self._changes[i][-1][1] if i in self._changes else 0

    def start_failure(self, revision: int) -> float:
        """Chance that a start in a revision comes to nothing, beside that of any start."""
        return self._scenario.rollouts[revision - 1].start_failure if revision else 0.0

    def of(self, rows: NDArray[Any]) -> Ints:
        """int64[n]: the revision that served each of some REQUEST rows; UNSET where none did."""
        found = np.where(rows["instance"] == UNSET, UNSET, 0)
        when = np.where(rows["first"] == UNSET, rows["arrival"], rows["first"])
        for i, changes in self._changes.items():
            here = np.flatnonzero(rows["instance"] == i)
            times, revisions = np.array(changes, np.int64).T
            found[here] = revisions[np.searchsorted(times, when[here], "right") - 1]
        return found

    def seen(self, now: Micros, judged: Sequence[Rollout]) -> Iterator[RevisionsSeen]:
        """What requests of models that are rolled out got so far, by revision."""
        for one in judged:
            rows = self._since(one.begun)
            rows = rows[(rows["model"] == one.plan.model) & ~self._batch[rows["tier"]] & (rows["instance"] != UNSET)]
            asked, missed = self._outcome(rows, now)
            cell = rows["tier"] + len(self._batch) * (self.of(rows) == one.plan.revision)
            counts = (np.bincount(cell[part], minlength=2 * len(self._batch)) for part in (asked, missed))
            yield RevisionsSeen(one.plan.model, *(tuple(each.tolist()) for each in counts))

    def _since(self, begun: Micros) -> NDArray[Any]:
        """Rows of requests that arrived since an instant; those of a closed loop that wait for an answer are in no order."""
        world, rows = self._kernel.world.record, self._kernel.requests
        alone = rows[: int(world["next_row"])]
        turns = rows[int(world["alone"]) :]
        alone = alone[np.searchsorted(alone["arrival"], begun) :]
        return np.concatenate([alone, turns[turns["arrival"] >= begun]]) if len(turns) else alone

    def _outcome(self, rows: NDArray[Any], now: Micros) -> tuple[Bools, Bools]:
        """Of which it is known how they went, and those of them whose promise was broken."""
        served, allowed = rows["first"] != UNSET, rows["deadline"] - rows["arrival"]
        way = self._layout.rtt[rows["region"], self._region[rows["instance"]]]
        late = np.where(served, rows["first"] - rows["arrival"] + way > allowed, now - rows["arrival"] > allowed)
        gap = self._gap[rows["tier"]]
        done = rows["finish"] != UNSET
        slow = (gap > 0) & done & (rows["finish"] - rows["first"] > gap * (rows["output"] - 1))
        missed = late | slow
        asked = missed | (served & ((gap == 0) | done))
        return asked, missed
