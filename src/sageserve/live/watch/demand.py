"""Demand as counters show it, cumulative by cell, with the instant up to which it is known: what gateways report elsewhere.

What was counted is known a scrape or two later. While nothing answers, the instant stands still and what came meanwhile is read
afterwards; while one pool is not seen for longer than signals are believed, its requests are taken to go on as they were, because
unknown is not zero. Asks nobody. Read next: `looks.py`, `cells.py`; `process.py`, which reports this to the fleet view.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from sageserve.base.config import Scenario
from sageserve.base.units import HOUR, MINUTE, Micros
from sageserve.core.layout import Layout
from sageserve.core.perf import OUTPUT_GUESS, prefill_work, request_work
from sageserve.data.history.collect import PoolCollector
from sageserve.data.history.fronts import FrontCollector
from sageserve.data.history.records import Grid
from sageserve.data.rebuild.demand import DemandStream, PlacedFront, PlacedPool, demand_of
from sageserve.data.rebuild.places import WatchedPool, place_fronts, place_pools
from sageserve.live.prometheus.server import RawAnswer
from sageserve.live.watch.cells import CellShares, CellTable, Stream
from sageserve.live.watch.looks import ClusterLook

LAG: Final = 2
"""Scrape intervals after which all of an interval's samples are there."""
BEHIND_MOST: Final[Micros] = HOUR
"""What is read afterwards at most, once somebody answers again; what is older is taken to have gone on as before."""
BACK: Final[Micros] = 5 * MINUTE
"""Samples from before what is counted, so that growth across its begin is known."""
_PROMPT_GUESS: Final = 1000.0
_FADE: Final = 2.0**-6  # of what was learnt of lengths, with each minute's worth of requests


class CountedDemand:
    """Everything that was asked since `begin`.

    Args:
        scenario: for tiers.
        layout: numbers of cells and endpoints.
        watched: pools, in any order.
        begin: microseconds since 1970.
        interval: microseconds between two scrapes.
    """

    def __init__(
        self, scenario: Scenario, layout: Layout, watched: Sequence[WatchedPool], begin: Micros, interval: Micros
    ) -> None:
        self.until = begin - begin % interval
        self.notes: dict[str, None] = {}
        self.shares = CellShares(scenario, layout.names)
        self.requests, self.prompt, self.output, self.work = (np.zeros(self.shares.cells) for _ in range(4))
        self.offered = np.zeros(layout.endpoints)
        self.interval: Final = interval
        self._scenario = scenario
        self._layout = layout
        self._watched = watched
        self._rates: dict[Stream, float] = {}  # requests per interval while it was last seen
        self._means = np.tile([_PROMPT_GUESS, OUTPUT_GUESS], (len(layout.names.models), 1))  # tokens of a request
        self._told: set[Stream] = set()  # of those that are waited for no more: not seen

    def back(self, now: Micros) -> Micros:
        """How far back a look must reach, microseconds."""
        return min(max(now - self.until, 0), BEHIND_MOST) + BACK

    def take(self, looks: Mapping[str, ClusterLook], now: Micros, patience: Micros) -> None:
        """Count what is known since the last time.

        Args:
            looks: by cluster.
            now: microseconds since 1970.
            patience: how long a pool that is not seen is waited for.
        """
        if not any(one.answered for one in looks.values()):
            return
        end = self.until + (now - LAG * self.interval - self.until) // self.interval * self.interval
        if end <= self.until:
            return
        begin = max(self.until, end - BEHIND_MOST // self.interval * self.interval)
        grid = Grid(begin, self.interval, (end - begin) // self.interval)
        pools, streams = self._streams(looks, grid)
        unseen = {_name(one) for one in streams if _name(one) in self._rates and _ends_unseen(one)}
        if unseen - self._told and end - self.until < patience:
            return  # it may be back at the next look
        self._told = unseen
        self._skip(begin)
        self._add(self.shares.table(streams, pools, self._rates))
        self._learn(streams)
        self.until = end

    def request_of(self, model: int) -> tuple[float, float]:
        """Tokens of prompt and answer that a model's requests have had of late; a guess until some were counted."""
        return float(self._means[model, 0]), float(self._means[model, 1])

    def prefill_us(self, model: int, waiting: float) -> float:
        """Microseconds of engine time that prompts of so many requests need."""
        profile = self._layout.profiles[self._layout.fastest(model)]
        return waiting * float(prefill_work(profile, int(self._means[model, 0]), 0))

    def _streams(self, looks: Mapping[str, ClusterLook], grid: Grid) -> tuple[tuple[PlacedPool, ...], tuple[DemandStream, ...]]:
        histories = []
        for one in self._watched:
            collector = PoolCollector(one.pool, grid)
            answer = looks[one.cluster].pools[one.pool]
            if isinstance(answer, RawAnswer):
                collector.add(answer.series)
            histories.append(collector.finish())
        fronts: list[PlacedFront] = []
        notes: list[str] = []
        for cluster, look in looks.items():
            front = FrontCollector(grid)
            if isinstance(look.fronts, RawAnswer):
                front.add(look.fronts.series)
            mine = [one for one in self._watched if one.cluster == cluster]
            fronts += place_fronts(self._scenario, mine, front.finish(), notes)
        self.notes |= dict.fromkeys(notes)
        pools = place_pools(self._watched, histories)
        return pools, demand_of(pools, fronts)

    def _skip(self, begin: Micros) -> None:
        """Time until `begin` is read no more: everything went on as it was."""
        length = begin - self.until
        if length > 0:
            came = {stream: rate * length / self.interval for stream, rate in self._rates.items()}
            self._add(self.shares.steady(came, Grid(self.until, length, 1)))

    def _add(self, table: CellTable) -> None:
        tiers, models = len(self._layout.names.tiers), len(self._layout.names.models)
        for cell in np.flatnonzero(table.requests.sum(axis=0) + table.prompt.sum(axis=0) > 0).tolist():
            at, tier = divmod(cell, tiers)
            region, model = divmod(at, models)
            requests = float(table.requests[:, cell].sum())
            prompt, output = float(table.prompt[:, cell].sum()), float(table.output[:, cell].sum())
            self._learn_lengths(model, requests, prompt, output)
            work = requests * self._work(model)
            self.requests[cell] += requests
            self.prompt[cell] += prompt if prompt > 0 else requests * self._means[model, 0]
            self.output[cell] += output
            self.work[cell] += work
            self.offered[self._endpoint(region, model, tier)] += work

    def _work(self, model: int) -> float:
        """Microseconds of the model's fastest engine that a request takes."""
        profile, (prompt, output) = self._layout.profiles[self._layout.fastest(model)], self._means[model]
        tokens = max(1, int(prompt))
        return float(request_work(profile, tokens, min(int(tokens * self._layout.prefix_hits[model]), tokens - 1), output))

    def _learn_lengths(self, model: int, requests: float, prompt: float, output: float) -> None:
        if requests > 0:
            keep = (1.0 - _FADE) ** requests
            for column, tokens in enumerate((prompt, output)):
                if tokens > 0:
                    self._means[model, column] = keep * self._means[model, column] + (1.0 - keep) * tokens / requests

    def _endpoint(self, region: int, model: int, tier: int) -> int:
        roles = self._layout.roles
        role = next((k for k, one in enumerate(roles) if tier in one.tiers), 0)
        return (region * len(self._layout.names.models) + model) * len(roles) + role

    def _learn(self, streams: Sequence[DemandStream]) -> None:
        for one in streams:
            seen = one.arrivals[np.isfinite(one.arrivals)][-int(BACK // self.interval) :]
            if len(seen):
                before = self._rates.get(_name(one))
                keep = max(0.0, 1.0 - len(seen) * self.interval / BACK)
                mean = float(seen.mean())
                self._rates[_name(one)] = mean if before is None else keep * before + (1.0 - keep) * mean


def _name(one: DemandStream) -> Stream:
    return one.region, one.model, one.tier


def _ends_unseen(one: DemandStream) -> bool:
    """Whether its last interval was not seen."""
    return bool(one.gaps) and one.gaps[-1].last == one.grid.count
