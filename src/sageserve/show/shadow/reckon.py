"""What following the decisions would have done, by endpoint: harm, help, lead, agreement, waste, dollars, broken minutes.

Every minute that was seen has three counts, in instances of the model's fastest GPU type: `did` ran, `would` is what decisions
asked for, `needed` keeps the promises. Taken away of what was needed and ran is harm, added of what was needed and did not run
is help:

    harm = max(0, min(did, needed) - would)      help = max(0, min(would, needed) - did)

In minutes that were not seen nothing is judged. Pure arithmetic. Read next: `data/watched/minutes.py` for what is summed up.
"""

import math
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Final

import numpy as np
from msgspec import Struct

from sageserve.base.records import Bools, Floats, Ints
from sageserve.base.units import DAY, MINUTE, Micros
from sageserve.core.fleet import Pool
from sageserve.core.layout import Layout
from sageserve.data.watched.minutes import EndpointMinute, PoolMinute, WatchedMinute
from sageserve.show.shadow.forecast import ForecastScore

AGREE: Final = 0.1
"""Share of what ran by which `would` may differ and still agree; one instance always may."""
DAYS_LEAST: Final = 7
DECISIONS_LEAST: Final = 50
BLIND_MOST: Final = 60
"""Minutes of the last day that may be unseen before a target is given more rights."""
_SMALL: Final = 1e-9


class ShadowSide(Struct, frozen=True):
    """What ran, or what would have.

    Args:
        instance_hours: of the model's fastest GPU type.
        waste_hours: of these, beyond what was needed.
        short_minutes: in which fewer than needed: promises are expected to be broken then.
        cost_usd: on demand.
        waste_usd: of that, for waste.
        changes_per_day: of the count.
    """

    instance_hours: float
    waste_hours: float
    short_minutes: int
    cost_usd: float
    waste_usd: float
    changes_per_day: float


class ShadowEndpoint(Struct, frozen=True):
    """One endpoint.

    Args:
        endpoint: region/model.
        seen_minutes: that are judged.
        blind_minutes: that are not.
        harm: instance-minutes taken away of what ran and was needed.
        help: instance-minutes added of what was needed and did not run.
        harm_minutes: in which there was any harm.
        agreement: share of minutes in which would and did agree; None: none was seen.
        changes: how often what ran changed.
        foreseen: of these, those that decisions asked for before, in the same direction.
        lead_minutes: by how much, the median; None: none was.
        wishes: how often decisions began to ask for another count.
        followed: of these, those after which what ran went the same way.
        measured_minutes: in which engines' own histograms show the tightest promise broken; None: they do not say.
        did: what ran.
        would: what decisions asked for.
        forecast: how good forecasts were; None: there are none to judge.
    """

    endpoint: str
    seen_minutes: int
    blind_minutes: int
    harm: float
    help: float
    harm_minutes: int
    agreement: float | None
    changes: int
    foreseen: int
    lead_minutes: float | None
    wishes: int
    followed: int
    measured_minutes: int | None
    did: ShadowSide
    would: ShadowSide
    forecast: ForecastScore | None = None


@dataclass(frozen=True, slots=True)
class EndpointCounts:
    """One endpoint, minute by minute.

    Args:
        wall: int64[n], where minutes begin, microseconds since 1970.
        did, would: float64[n], capacity in instances of the fastest type.
        needed: float64[n].
        did_usd, would_usd: float64[n], dollars of the minute.
        seen: bool[n].
        tokens: float64[n], interactive prompt tokens that came.
        late: float64[n], share of requests that were late, as measured; NaN: not known.
    """

    wall: Ints
    did: Floats
    would: Floats
    needed: Floats
    did_usd: Floats
    would_usd: Floats
    seen: Bools
    tokens: Floats
    late: Floats


def counts_of(minutes: Iterable[WatchedMinute], layout: Layout) -> dict[str, EndpointCounts]:
    """By name of the endpoint, in the order of the layout.

    Args:
        minutes: in any order, for a clock may have been set back; none is held, for five weeks of them are a gigabyte and more.
        layout: for weights and prices; endpoints and pools that it does not have are left out.
    """
    rows = {
        layout.endpoint_name(at): _Rows(layout, pools) for at in range(layout.endpoints) if (pools := layout.endpoint_pools(at))
    }
    for minute in minutes:
        pools_at = {one.pool: one for one in minute.pools}
        for one in minute.endpoints:
            if one.endpoint in rows:
                rows[one.endpoint].add(minute.wall, one, pools_at)
    return {name: rows.pop(name).counts() for name in tuple(rows)}  # one is held twice at a time


class _Rows:
    """Minutes of one endpoint while they are read: eight bytes a number."""

    def __init__(self, layout: Layout, pools: Iterable[Pool]) -> None:
        self._pools = [
            (one.name, layout.strength(one), layout.stocks[one.stock].purchase.price_on_demand * one.gpus / 60) for one in pools
        ]
        self._numbers = array("d")

    def add(self, wall: Micros, endpoint: EndpointMinute, pools: Mapping[str, PoolMinute]) -> None:
        did = would = did_usd = would_usd = 0.0
        for name, strength, price in self._pools:
            if (one := pools.get(name)) is not None:
                did, would = did + one.did * strength, would + one.would * strength
                did_usd, would_usd = did_usd + one.did * price, would_usd + one.would * price
        late = math.nan if endpoint.late is None else endpoint.late
        row = (wall, did, would, endpoint.needed, did_usd, would_usd, not endpoint.blind, endpoint.tokens, late)
        self._numbers.extend(row)  # microseconds since 1970 are whole numbers of a float until 2255

    def counts(self) -> EndpointCounts:
        table = np.array(self._numbers).reshape(-1, 9)
        wall, did, would, needed, did_usd, would_usd, seen, tokens, late = table[np.argsort(table[:, 0], kind="stable")].T.copy()
        return EndpointCounts(wall.astype(np.int64), did, would, needed, did_usd, would_usd, seen.astype(np.bool_), tokens, late)


def reckon(name: str, counts: EndpointCounts, forecast: ForecastScore | None = None, budget: float = 0.05) -> ShadowEndpoint:
    """Sum an endpoint up.

    Args:
        name: region/model.
        counts: its minutes.
        forecast: how good its forecasts were.
        budget: share of requests that the tightest promise lets be late.
    """
    measured = counts.late[counts.seen & np.isfinite(counts.late)]
    seen = counts.seen
    did, would, needed = counts.did[seen], counts.would[seen], counts.needed[seen]
    harm = np.maximum(np.minimum(did, needed) - would, 0.0)
    agree = np.abs(would - did) <= np.maximum(1.0, AGREE * did) + _SMALL
    changes = list(_changes(counts))
    leads = [lead for _, lead in changes if lead]
    wishes, followed = _wishes(counts, {at for at, _ in changes})
    return ShadowEndpoint(
        endpoint=name,
        seen_minutes=int(seen.sum()),
        blind_minutes=int((~seen).sum()),
        harm=float(harm.sum()),
        help=float(np.maximum(np.minimum(would, needed) - did, 0.0).sum()),
        harm_minutes=int((harm > _SMALL).sum()),
        agreement=float(agree.mean()) if len(agree) else None,
        changes=len(changes),
        foreseen=len(leads),
        lead_minutes=float(median(leads)) if leads else None,
        wishes=wishes,
        followed=followed,
        measured_minutes=int((measured > budget).sum()) if len(measured) else None,
        did=_side(counts, counts.did, counts.did_usd),
        would=_side(counts, counts.would, counts.would_usd),
        forecast=forecast,
    )


def _side(counts: EndpointCounts, held: Floats, usd: Floats) -> ShadowSide:
    seen = counts.seen
    beside = seen[1:] & seen[:-1] & (np.diff(counts.wall) < 2 * MINUTE)
    changed = int((beside & (np.abs(np.diff(held)) > _SMALL)).sum())
    held, usd, needed = held[seen], usd[seen], counts.needed[seen]
    waste = np.maximum(held - needed, 0.0)
    share = np.divide(waste, held, out=np.zeros_like(waste), where=held > 0)
    days = max(len(held), 1) * MINUTE / DAY
    return ShadowSide(
        instance_hours=float(held.sum()) / 60,
        waste_hours=float(waste.sum()) / 60,
        short_minutes=int((held < needed - _SMALL).sum()),
        cost_usd=float(usd.sum()),
        waste_usd=float((usd * share).sum()),
        changes_per_day=changed / days,
    )


def _adjacent(counts: EndpointCounts, row: int) -> bool:
    """Whether a minute and the one before were both seen, and nothing lies between them."""
    near = counts.wall[row] - counts.wall[row - 1] < 2 * MINUTE
    return bool(counts.seen[row] and counts.seen[row - 1] and near)


def _changes(counts: EndpointCounts) -> Iterator[tuple[int, int]]:
    """(row, minutes for which decisions had asked for it) of every change of what ran."""
    asked = np.sign(np.round(counts.would - counts.did, 6))
    for row in range(1, len(counts.did)):
        way = np.sign(counts.did[row] - counts.did[row - 1])
        if way == 0 or not _adjacent(counts, row):
            continue
        before = row - 1
        while before >= 0 and asked[before] == way and (before == row - 1 or _adjacent(counts, before + 1)):
            before -= 1
        yield row, row - 1 - before


def _wishes(counts: EndpointCounts, changed: set[int]) -> tuple[int, int]:
    """How often decisions began to ask for another count, and how often what ran then went that way."""
    asked = np.sign(np.round(counts.would - counts.did, 6)) * counts.seen
    wishes = followed = 0
    row = 0
    while row < len(asked):
        way, begin = asked[row], row
        while row < len(asked) and asked[row] == way:
            row += 1
        if way != 0:
            wishes += 1
            ways = [np.sign(counts.did[at] - counts.did[at - 1]) for at in range(begin + 1, row + 1) if at in changed]
            followed += way in ways
    return wishes, followed


def refusals(endpoint: ShadowEndpoint, counts: EndpointCounts, decisions: int) -> tuple[str, ...]:
    """Why a target of an endpoint should not be given more rights yet; nothing: it may, as far as this report knows.

    Args:
        endpoint: summed up.
        counts: its minutes.
        decisions: on it.
    """
    watched = endpoint.seen_minutes + endpoint.blind_minutes
    found = []
    if watched < DAYS_LEAST * 1440:
        found.append(f"watched for {watched / 1440:.1f} of {DAYS_LEAST} days")
    if decisions < DECISIONS_LEAST:
        found.append(f"{decisions:,} of {DECISIONS_LEAST} decisions")
    if endpoint.harm_minutes:
        found.append(f"harm in {endpoint.harm_minutes:,} minutes")
    latest: Micros = int(counts.wall[-1]) - DAY if len(counts.wall) else 0
    blind = int((~counts.seen & (counts.wall > latest)).sum())
    if blind >= BLIND_MOST:
        found.append(f"unseen for {blind:,} minutes of the last day")
    return tuple(found)
