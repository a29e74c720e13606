"""Counts of pools and gateways, interval by interval, become demand by cell: requests and tokens by region, model and tier.

A cell is (region x models + model) x tiers + tier. Requests come from gateways where they count, else from engines; tokens from
engines, shared out by requests. Classes that nothing tells apart are shared as the settings' traffic says. Knows no server.
Read next: `demand.py` for what is counted now, `past.py` for what was counted before.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from sageserve.base.config import Scenario
from sageserve.base.records import Bools, Floats, Ints, Names
from sageserve.data.history.records import NO_INSTANCE, NOT_SCRAPED, Grid
from sageserve.data.rebuild.demand import UNKNOWN, DemandStream, PlacedPool
from sageserve.data.rebuild.tiers import hour_of_week, hourly_shares

Stream = tuple[str, str, str]
"""Region, model and tier of a stream."""
_COLUMNS: Final = ("prompt_tokens", "output_tokens")


@dataclass(frozen=True, slots=True)
class CellTable:
    """Demand on a grid.

    Args:
        grid: of all arrays.
        requests, prompt, output: float64[count, cells].
        dark: bool[count], where some stream was not seen and nothing says what came meanwhile.
    """

    grid: Grid
    requests: Floats
    prompt: Floats
    output: Floats
    dark: Bools


class CellShares:
    """How streams become cells.

    Args:
        scenario: for tiers and their hourly shares.
        names: of models, regions and tiers.
    """

    def __init__(self, scenario: Scenario, names: Names) -> None:
        self._scenario = scenario
        self._names = names
        self._hourly: dict[tuple[str, str], Floats] = {}
        self.notes: dict[str, None] = {}  # what is guessed, in sentences
        self.cells: Final = len(names.regions) * len(names.models) * len(names.tiers)

    def table(
        self, streams: Sequence[DemandStream], pools: Sequence[PlacedPool], held: Mapping[Stream, float] | None = None
    ) -> CellTable:
        """Demand of these streams.

        Args:
            streams: on one grid.
            pools: on the same, for their tokens.
            held: requests per interval that a stream which is not seen is taken to go on with, be it that its instances are
                not scraped or not there; none: in the first case intervals are dark, in the second nothing came.
        """
        grid = streams[0].grid
        found = self._nothing(grid)
        for place in sorted({(one.region, one.model) for one in streams}):
            mine = [one for one in streams if (one.region, one.model) == place]
            self._add(found, place, mine, pools, held)
        return found

    def steady(self, requests: Mapping[Stream, float], grid: Grid) -> CellTable:
        """So many requests of each stream in every interval; their tokens are not known."""
        found = self._nothing(grid)
        for (region, model, tier), count in requests.items():
            cells, columns = self._cells((region, model), tier, grid)
            found.requests[:, cells] += count * columns
        return found

    def _nothing(self, grid: Grid) -> CellTable:
        requests, prompt, output = (np.zeros((grid.count, self.cells)) for _ in range(3))
        return CellTable(grid, requests, prompt, output, np.zeros(grid.count, np.bool_))

    def _add(
        self,
        table: CellTable,
        place: tuple[str, str],
        streams: Sequence[DemandStream],
        pools: Iterable[PlacedPool],
        held: Mapping[Stream, float] | None,
    ) -> None:
        requests = np.stack([_filled(one, table.dark, held) for one in streams])
        total = requests.sum(axis=0)
        shares = np.divide(requests, total, out=np.full_like(requests, 1.0 / len(streams)), where=total > 0)
        mine = [one.history for one in pools if (one.region, one.model) == place]
        for stream, counted, share in zip(streams, requests, shares, strict=True):
            cells, columns = self._cells(place, stream.tier, table.grid)
            table.requests[:, cells] += counted[:, None] * columns
            for name, into in zip(_COLUMNS, (table.prompt, table.output), strict=True):
                tokens = np.sum([_tokens(getattr(one, name), total) for one in mine], axis=0) if mine else np.zeros(len(total))
                into[:, cells] += (tokens * share)[:, None] * columns

    def _cells(self, place: tuple[str, str], tier: str, grid: Grid) -> tuple[Ints, Floats]:
        """The cells of a region and model, and float64[count, tiers]: shares of requests of a tier, or of UNKNOWN, in them."""
        tiers, region, model = self._names.tiers, self._names.regions.index(place[0]), self._names.models.index(place[1])
        cells = (region * len(self._names.models) + model) * len(tiers) + np.arange(len(tiers))
        if tier != UNKNOWN or len(tiers) == 1:
            found = np.zeros((grid.count, len(tiers)))
            found[:, tiers.index(tier) if tier != UNKNOWN else 0] = 1.0
            return cells, found
        if place not in self._hourly:
            self._hourly[place], guess = hourly_shares(self._scenario, *place)
            if guess:
                self.notes[guess] = None
        return cells, self._hourly[place][[hour_of_week(int(at)) for at in grid.edges()[:-1]]]


def _filled(stream: DemandStream, dark: Bools, held: Mapping[Stream, float] | None) -> Floats:
    """Arrivals without NaN: growth over gaps spread evenly; where nothing is known, what is held, or dark."""
    found = stream.filled()
    for gap in stream.gaps:
        if held is None and gap.why == NO_INSTANCE:
            found[gap.first : gap.last] = 0.0  # what is at its edge would be spread over days
        if gap.grown > 0:
            continue
        if held is not None:
            found[gap.first : gap.last] = held.get((stream.region, stream.model, stream.tier), 0.0)
        elif NOT_SCRAPED in gap.why:
            dark[gap.first : gap.last] = True
    return found


def _tokens(column: Floats, requests: Floats) -> Floats:
    """Tokens by interval; where they were not seen, as many for each request as where they were."""
    seen = np.isfinite(column)
    asked = float(requests[seen].sum())
    mean = float(column[seen].sum()) / asked if asked > 0 else 0.0
    return np.where(seen, np.nan_to_num(column), requests * mean)
