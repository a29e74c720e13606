"""Minutes of a fleet of ours, as `sageserve watch` keeps them of others': what ran, was asked for and needed.

Its gateways count whose a request was and whether it was in time, and the batch queue says what waits: lines have that, too.
Decides nothing. Read next: `minute_book.py`, `data/watched/minutes.py`; docs/how-to/watch.md.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from msgspec import structs

from sageserve.base.config import Scenario
from sageserve.base.records import Demand, Ints
from sageserve.base.units import SECOND, Micros
from sageserve.core.events import DemandSeen
from sageserve.core.fleet import Fleet
from sageserve.core.layout import Layout
from sageserve.core.work import Entry
from sageserve.data.watched.minutes import BacklogMinute, MinuteFiles, TierMinute, WatchedMinute
from sageserve.live.control.minute_book import RECENT, MinuteBook
from sageserve.live.control.wishes import Wishes, follows_plans


class OwnMinutes:
    """Minutes of one control process.

    Args:
        scenario: what the fleet is made of.
        layout: numbers of pools and cells.
        fleet: what runs.
        state: folder of the fleet's state.
        earlier: what was asked before the first instant.
    """

    def __init__(self, scenario: Scenario, layout: Layout, fleet: Fleet, state: Path, earlier: Demand | None) -> None:
        self._layout = layout
        self._wishes = Wishes(fleet, follows=follows_plans(scenario))
        self.book = MinuteBook(scenario, layout, fleet, self._wishes.would, earlier)
        self.files = MinuteFiles(state)
        self._interactive = [k for k, tier in enumerate(scenario.tiers.values()) if not tier.batch]
        self._answered: deque[tuple[Ints, Ints]] = deque(maxlen=RECENT)  # requests and missed, by region, model and tier

    def hear(self, entry: Entry) -> None:
        """A line of the journal."""
        self._wishes.hear(entry)

    def look(self, now: Micros, blind: Sequence[int]) -> None:
        """Take down what runs, where a minute is over.

        Args:
            now: of the loop's clock.
            blind: endpoints whose signals are too old.
        """
        if self.book.due(now):
            self.book.take_down(now, dict.fromkeys(blind, "signals too old"), {})

    def counted(
        self, now: Micros, seen: DemandSeen, wall: Micros, backlog: Mapping[str, tuple[int, Micros | None]]
    ) -> WatchedMinute:
        """A minute's demand is counted: its line, which is kept.

        Args:
            now: of the loop's clock.
            seen: the demand.
            wall: where the minute begins, microseconds since 1970.
            backlog: by model what waits, and microseconds to the deadline that comes first.
        """
        names = self._layout.names
        shape = (len(names.regions), len(names.models), len(names.tiers))
        requests, missed = (np.array(one or (0,) * len(seen.requests)).reshape(shape) for one in (seen.requests, seen.missed))
        self._answered.append((requests, missed))
        minute = self.book.counted(now, seen, wall)
        late = self._late()
        minute = structs.replace(
            minute,
            endpoints=tuple(structs.replace(one, late=late.get(one.endpoint)) for one in minute.endpoints),
            tiers=tuple(
                TierMinute(tier, int(requests[..., k].sum()), int(missed[..., k].sum())) for k, tier in enumerate(names.tiers)
            ),
            backlog=tuple(
                BacklogMinute(model, waiting, None if slack is None else round(slack / SECOND, 1))
                for model, (waiting, slack) in backlog.items()
            ),
        )
        self.files.add(minute)
        return minute

    def _late(self) -> dict[str, float]:
        """Share of the interactive requests of the last minutes that broke their promises, by endpoint that somebody asked."""
        requests, missed = (np.sum([one[at] for one in self._answered], axis=0)[..., self._interactive] for at in (0, 1))
        asked, broken = requests.sum(axis=2), missed.sum(axis=2)
        names = self._layout.names
        return {
            f"{region}/{model}": min(1.0, float(broken[r, m] / asked[r, m]))
            for r, region in enumerate(names.regions)
            for m, model in enumerate(names.models)
            if asked[r, m] > 0
        }
