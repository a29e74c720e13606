"""The board: where each instance is, what was sent there, and where the next request goes.

Holds the last Table, this gateway's own counts, and nothing else; reads no clock and opens no connection. Every number follows
docs/reference/kernel.md (Arrival, Signals), so that a live request is placed as the simulator would place it. Decisions are
those of `core/route.py`. Read next: `plain.py` for how they are called, `reckon.py` for what is reported.
"""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Final
from urllib.parse import urlsplit

from sageserve.base.config import Scenario
from sageserve.base.units import SECOND, Micros
from sageserve.core.admit import predicted_wait
from sageserve.core.layout import Layout
from sageserve.core.route import ROUTES
from sageserve.core.signals import SIGNALS
from sageserve.live.gateway.plain import Row, decode_work, pick_endpoint, pick_instance, prefill_work, rows_of
from sageserve.live.wire import InstanceRow, Table

_GUESS: Final = 200.0  # output tokens before any were seen, as in the simulator; the mean of the paper's week is 222
_SLOW: Final = 256  # requests over which the mean output length moves
_LEAVE_OUT: Final = 2 * SECOND  # an instance in trouble, when there is no control to say that it is well again


class Seat:
    """An instance that requests may be sent to, and what this gateway has there."""

    __slots__ = (
        "at",
        "authority",
        "endpoint",
        "failures",
        "host",
        "inside",
        "model",
        "open",
        "port",
        "prefix",
        "profile",
        "row",
        "served",
        "there",
        "trouble",
        "unfinished",
        "url",
        "weight",
    )

    def __init__(self, one: InstanceRow, profile: Row, model: int) -> None:
        parts = urlsplit(one.url)
        self.at = -1  # where it is among those of its endpoint that may be chosen
        self.row = one.row
        self.endpoint = one.endpoint
        self.url = one.url
        self.host = parts.hostname or "127.0.0.1"
        self.port = parts.port or 80
        self.prefix = parts.path.rstrip("/").encode()
        self.authority = parts.netloc.rpartition("@")[2].encode()
        self.profile = profile
        self.model = model
        self.weight = int(profile["weight"])
        self.inside = 0
        self.unfinished = 0  # prompt tokens sent whose first token has not come
        self.failures = 0
        self.trouble: Micros = 0  # left out until then
        self.update(one)

    def update(self, one: InstanceRow) -> None:
        """Take over what control says of it."""
        self.served = one.served_model
        self.open = one.open
        self.there = one.elsewhere  # outstanding tokens times weight that other gateways sent


class Spot:
    """What this gateway counts at an endpoint, and the seats that may be chosen there."""

    __slots__ = (
        "all",
        "backlog",
        "finished",
        "held",
        "inside",
        "loads",
        "offered",
        "placed",
        "rate",
        "seats",
        "seen_offered",
        "sequences",
    )

    def __init__(self) -> None:
        self.all: list[Seat] = []
        self.sequences = 0  # that the open seats can run together
        self.seats: list[Seat] = []  # of all, those that are open and out of trouble
        self.loads: list[int] = []  # outstanding, seat by seat
        self.offered = 0.0  # microseconds of engine time, cumulative
        self.seen_offered = 0.0  # of that, at the last own look
        self.rate = 0.0
        self.backlog = 0.0  # microseconds of prefill not finished
        self.placed = 0
        self.finished = 0
        self.inside = 0
        self.held = 0.0  # tokens of requests inside: prompt and half an answer


class Placement:
    """One request at one seat."""

    __slots__ = ("begun", "held", "model", "prefill", "prompt", "seat", "tier", "wait", "work")

    def __init__(self, seat: Seat, prompt: int, model: int, tier: int) -> None:
        self.seat = seat
        self.prompt = prompt
        self.model = model
        self.tier = tier
        self.begun = False
        self.prefill = 0.0
        self.work = 0.0
        self.held = 0.0
        self.wait = 0.0  # predicted, microseconds until its prefill begins


class Board:
    """The state behind every choice.

    Args:
        scenario: for the rules of routing.
        layout: the numbers behind its names.
    """

    def __init__(self, scenario: Scenario, layout: Layout) -> None:
        self.layout = layout
        self.tiers = len(layout.names.tiers)
        self.models = len(layout.names.models)
        self.profiles = rows_of(layout.profiles)
        self.walk: list[list[list[list[int]]]] = [
            [[[e for e in walk if e >= 0] for walk in tiers] for tiers in models] for models in layout.walk.tolist()
        ]
        self.half_life = float(scenario.signals.half_life)
        self.rules: Row = {
            "route": ROUTES.index(scenario.routing.region),
            "threshold": scenario.routing.threshold,
            "signal": SIGNALS.index(scenario.signals.kind),
            "half_life": self.half_life,
        }
        columns = ("kv", "busy", "rate", "offered", "backlog", "kv_tokens", "open")
        self.columns: list[Row] = [dict.fromkeys(columns, 0) for _ in range(layout.endpoints)]
        self.spots = [Spot() for _ in range(layout.endpoints)]
        self.seats: dict[int, Seat] = {}
        self.output_mean = [_GUESS] * (self.models * self.tiers)
        self.guess = [int(_GUESS)] * self.models
        self.gateways = 1
        self.version = -1
        self.note = ""
        self.own = False  # signals come from own counts: nobody scrapes
        self._scrape: tuple[str, Micros] = ("", -1)
        self._seen: Micros = 0  # own clock: when the signals were scraped
        self._last: tuple[Row, int, float, float, float] = ({}, 0, 0.0, 0.0, 0.0)
        self._looked: Micros = 0  # own clock: when own counts were last turned into signals

    @property
    def known(self) -> bool:
        """Whether there is a table at all."""
        return self.version >= 0

    def replace(self, table: Table, now: Micros) -> None:
        """Take over a table: instances at once; signals only when they are of a new scrape."""
        self.gateways = max(1, table.gateways)
        self.version = table.version
        self.note = table.note
        if (table.epoch, table.scraped) != self._scrape and len(table.endpoints) == len(self.columns):
            self._scrape = (table.epoch, table.scraped)
            self._seen = now - table.age
            self.own = False
            for column, row in zip(self.columns, table.endpoints, strict=True):
                column.update(kv=row.kv, busy=row.busy, rate=row.rate, backlog=row.backlog, offered=0.0, kv_tokens=row.kv_tokens)
        if len(table.output_mean) == len(self.output_mean):
            self.output_mean = list(table.output_mean)
        self._take_seats(table.instances)
        self.refresh(now)

    def _take_seats(self, rows: Iterable[InstanceRow]) -> None:
        before, self.seats = self.seats, {}
        for seat in before.values():
            seat.at = -1
        for spot in self.spots:
            spot.all = []
        for one in rows:
            known = before.get(one.row)
            same = known is not None and known.url == one.url and known.endpoint == one.endpoint
            seat = known if known is not None and same else Seat(one, self.profiles[one.profile], self.model_of(one.endpoint))
            seat.update(one)
            seat.trouble = 0
            self.seats[one.row] = seat
            self.spots[one.endpoint].all.append(seat)

    def refresh(self, now: Micros) -> None:
        """Say anew who may be chosen, and how much each has."""
        for m in range(self.models):
            means = self.output_mean[m * self.tiers : (m + 1) * self.tiers]
            self.guess[m] = int(sum(means) / self.tiers + 0.5)
        for spot, column in zip(self.spots, self.columns, strict=True):
            for seat in spot.all:
                seat.at = -1
            spot.seats = sorted((seat for seat in spot.all if seat.open and seat.trouble <= now), key=lambda seat: seat.row)
            column["open"] = len(spot.seats)
            spot.sequences = sum(int(seat.profile["max_sequences"]) for seat in spot.seats)
            for at, seat in enumerate(spot.seats):
                seat.at = at
            spot.loads = [self._load(seat) for seat in spot.seats]

    def look(self, now: Micros) -> None:
        """Turn own counts into signals: what a scrape would have done, when there is none."""
        passed = now - self._looked
        self._looked = now
        self._seen = now
        self.own = True
        for spot, column in zip(self.spots, self.columns, strict=True):
            if passed > 0 and passed != now:
                news = (spot.offered - spot.seen_offered) * self.gateways / passed
                spot.rate += (1.0 - 2.0 ** (-passed / self.half_life)) * (news - spot.rate)
            spot.seen_offered = spot.offered
            tokens = sum(seat.profile["kv_tokens"] for seat in spot.seats)
            column["rate"], column["offered"], column["backlog"] = spot.rate, 0.0, spot.backlog * self.gateways
            column["kv_tokens"] = tokens
            column["kv"] = spot.held * self.gateways / tokens if tokens else 0.0
            busy = spot.rate + column["backlog"] / self.half_life
            column["busy"] = busy / len(spot.seats) if spot.seats else 0.0
        self.refresh(now)

    def is_blind(self, now: Micros, after: Micros) -> bool:
        """Whether signals are own, or too old to be any."""
        return self.own or now - self._seen > after

    def heal(self, now: Micros) -> None:
        """Take seats back whose trouble is over."""
        if any(seat.trouble and seat.trouble <= now for seat in self.seats.values()):
            for seat in self.seats.values():
                if seat.trouble <= now:
                    seat.trouble = 0
            self.refresh(now)

    def model_of(self, endpoint: int) -> int:
        """The model an endpoint serves."""
        return endpoint // len(self.layout.roles) % self.models

    def region_of(self, endpoint: int) -> int:
        """The region an endpoint is in."""
        return endpoint // (len(self.layout.roles) * self.models)

    def choose(self, walk: list[int], now: Micros) -> Seat | None:
        """The seat for a request: endpoint by the router's rule, instance by outstanding tokens; None when all are closed."""
        e = pick_endpoint(self.rules, self.columns, walk, 0, len(walk), now - self._seen)
        if e < 0:
            return None
        spot = self.spots[e]
        return spot.seats[pick_instance(spot.loads, 0, len(spot.loads))]

    def choose_at(self, endpoint: int) -> Seat | None:
        """The seat for a request at a given endpoint."""
        spot = self.spots[endpoint]
        return spot.seats[pick_instance(spot.loads, 0, len(spot.loads))] if spot.seats else None

    def choose_again(self, walk: list[int], first: int, tried: AbstractSet[int], now: Micros) -> Seat | None:
        """Another seat, after some were tried in vain: in the same endpoint first, then as the router would without them."""
        spot = self.spots[first]
        left = [at for at, seat in enumerate(spot.seats) if seat.row not in tried]
        if left:
            return spot.seats[left[pick_instance([spot.loads[at] for at in left], 0, len(left))]]
        elsewhere = [e for e in walk if any(seat.row not in tried for seat in self.spots[e].seats)]
        if not elsewhere:
            return None
        e = pick_endpoint(self.rules, self.columns, elsewhere, 0, len(elsewhere), now - self._seen)
        return None if e < 0 else self.choose_again(walk, e, tried, now)

    def work(self, profile: Row, prompt: int, model: int, tier: int) -> float:
        """Microseconds of engine time a request is expected to need; asked twice about the same, it computes once."""
        mean = self.output_mean[model * self.tiers + tier]
        last = self._last
        if last[0] is not profile or last[1] != prompt or last[2] != mean:
            prefill = prefill_work(profile, prompt)
            last = self._last = (profile, prompt, mean, prefill, prefill + decode_work(profile, prompt, mean))
        return last[4]

    def weigh(self, seat: Seat, prompt: int, model: int, tier: int) -> Placement:
        """What a request would be at a seat; nothing is counted."""
        one = Placement(seat, prompt, model, tier)
        mean = self.output_mean[model * self.tiers + tier]
        one.work = self.work(seat.profile, prompt, model, tier)
        one.prefill = self._last[3]
        one.held = prompt + 0.5 * mean
        spot = self.spots[seat.endpoint]
        one.wait = predicted_wait(
            backlog=self.columns[seat.endpoint]["backlog"],
            inside=spot.inside * self.gateways,
            seats=spot.sequences,
            work=one.work,
            instances=len(spot.seats) or 1,
        )
        return one

    def place(self, one: Placement) -> None:
        """Count a request as sent to its seat."""
        seat, prompt = one.seat, one.prompt
        spot, column = self.spots[seat.endpoint], self.columns[seat.endpoint]
        spot.offered += one.work
        spot.backlog += one.prefill
        spot.held += one.held
        spot.placed += 1
        spot.inside += 1
        column["offered"] += one.work * self.gateways  # the others get as much: connections are dealt out evenly
        column["backlog"] += one.prefill
        seat.inside += 1
        seat.unfinished += prompt
        self._note(spot, seat)

    def begin(self, one: Placement) -> None:
        """The first token came: its prompt is done."""
        if one.begun:
            return
        spot = self.spots[one.seat.endpoint]
        self._begin(one, spot)
        self._note(spot, one.seat)

    def _begin(self, one: Placement, spot: Spot) -> None:
        one.begun = True
        seat = one.seat
        column = self.columns[seat.endpoint]
        spot.backlog -= one.prefill
        left = column["backlog"] - one.prefill
        column["backlog"] = max(0.0, left)
        seat.unfinished -= one.prompt

    def end(self, one: Placement, output: int | None) -> None:
        """A request left its seat: finished with `output` tokens, or (None) broken off."""
        seat = one.seat
        spot = self.spots[seat.endpoint]
        if not one.begun:
            self._begin(one, spot)
        spot.held -= one.held
        spot.inside -= 1
        seat.inside -= 1
        self._note(spot, seat)
        if output is not None:
            spot.finished += 1
            at = one.model * self.tiers + one.tier
            self.output_mean[at] += (output - self.output_mean[at]) / _SLOW

    def _note(self, spot: Spot, seat: Seat) -> None:
        if seat.at >= 0:
            spot.loads[seat.at] = self._load(seat)

    def _load(self, seat: Seat) -> int:
        """Outstanding tokens times weight: what least-work routing compares."""
        return (seat.unfinished + self.guess[seat.model] * seat.inside) * seat.weight + seat.there

    def leave_out(self, seat: Seat, now: Micros) -> None:
        """A seat refused or broke a connection: do not choose it until the next table, or for a moment when none will come."""
        seat.failures += 1
        seat.trouble = now + _LEAVE_OUT
        self.refresh(now)
