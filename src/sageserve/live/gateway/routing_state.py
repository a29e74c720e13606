"""The routing state: where each instance is, what was sent there, and where the next request goes.

Holds the last RoutingTable, this gateway's own counts, and nothing else; reads no clock and opens no connection. An instance in
trouble is left out for a while, which is all the circuit breaker there is; where every one of a model is, none is left out. Every
number follows docs/reference/kernel.md (Arrival, Signals), so that a live request is placed, or turned away, as the simulator
would. Decisions are those of `core/route.py` and `core/admit.py`. Read next: `targets.py` for what there is,
`python_kernels.py` for how decisions are called, `demand_counters.py` for what is reported.
"""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Final

from sageserve.base.config import Scenario
from sageserve.base.promise import allowed
from sageserve.base.units import SECOND, Micros
from sageserve.core.engine import timing
from sageserve.core.layout import Layout
from sageserve.core.own_rules import own_rules
from sageserve.core.perf import OUTPUT_GUESS
from sageserve.core.route import QUICKEST, ROUTES
from sageserve.core.signals import SIGNALS
from sageserve.live.gateway.own_choices import OwnChoices
from sageserve.live.gateway.prompt_memory import ANY_BEGINNING, Beginning, pick
from sageserve.live.gateway.python_kernels import (
    Row,
    engines_of,
    expected_first,
    is_admitted,
    pick_endpoint,
    pick_instance,
    predicted_wait,
)
from sageserve.live.gateway.targets import TOGETHER, EndpointLoad, Placement, Target, trial_of
from sageserve.live.wire import InstanceRow, RoutingTable

_SLOW: Final = 256  # requests over which the mean output length moves
_LEAVE_OUT_MUTE: Final = 30 * SECOND  # each time it is tried costs a request its first seconds
_LEAVE_OUT: Final = 2 * SECOND  # an instance in trouble, when there is no control to say that it is well again


class RoutingState:
    """The state behind every choice.

    Args:
        scenario: for the rules of routing.
        layout: the numbers behind its names.

    Raises:
        ConfigError: a rule of the user's is not there, or is none.
        PluginError: it cannot be imported, or gives no number.
    """

    def __init__(self, scenario: Scenario, layout: Layout) -> None:
        self.layout = layout
        self.tiers = len(layout.names.tiers)
        self.models = len(layout.names.models)
        self.profiles = engines_of(layout.profiles)
        self.walk: list[list[list[list[int]]]] = [
            [[[e for e in walk if e >= 0] for walk in tiers] for tiers in models] for models in layout.walk.tolist()
        ]
        self.ways: list[list[int]] = layout.rtt.tolist()  # us, by region of origin and region
        self.half_life = float(scenario.signals.half_life)
        self.admission = scenario.admission
        self._promised = [(tier.patience, tier.growth) for tier in scenario.tiers.values()]
        rules = own_rules(scenario)
        self.rules: Row = {
            "route": 0 if rules.region else ROUTES.index(scenario.routing.region),
            "threshold": scenario.routing.threshold,
            "signal": SIGNALS.index(scenario.signals.kind),
            "half_life": self.half_life,
        }
        self.choices = OwnChoices(rules, [(tier.priority, tier.batch) for tier in scenario.tiers.values()], self.rules)
        columns = ("kv", "busy", "rate", "offered", "backlog", "kv_tokens", "open")
        self.columns: list[Row] = [dict.fromkeys(columns, 0) for _ in range(layout.endpoints)]
        self.loads = [EndpointLoad() for _ in range(layout.endpoints)]
        self.targets: dict[int, Target] = {}
        self.output_mean = [OUTPUT_GUESS] * (self.models * self.tiers)
        self.guess = [int(OUTPUT_GUESS)] * self.models
        self.gateways = 1
        self.version = -1
        self.note = ""
        self.unwell: frozenset[int] = frozenset()  # models all of whose instances are in trouble, and used all the same
        self.own = False  # signals come from own counts: nobody scrapes
        self._scrape: tuple[str, Micros] = ("", -1)
        self._seen: Micros = 0  # own clock: when the signals were scraped
        self._last: tuple[timing.EngineRow | None, tuple[int, int], float, float, float] = (None, (0, 0), 0.0, 0.0, 0.0)
        self._looked: Micros = 0  # own clock: when own counts were last turned into signals

    @property
    def known(self) -> bool:
        """Whether there is a table at all."""
        return self.version >= 0

    def replace(self, table: RoutingTable, now: Micros) -> None:
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
            self._learn_lengths()
        self._take_seats(table.instances)
        self.refresh(now)

    def _take_seats(self, rows: Iterable[InstanceRow]) -> None:
        before, self.targets = self.targets, {}
        for target in before.values():
            target.at = -1
        for load in self.loads:
            load.all = []
        for one in rows:
            known = before.get(one.row)
            same = known is not None and known.url == one.url and known.endpoint == one.endpoint
            target = known if known is not None and same else Target(one, self.profiles[one.profile], self.model_of(one.endpoint))
            target.update(one)
            target.trouble = 0
            self.targets[one.row] = target
            self.loads[one.endpoint].all.append(target)

    def refresh(self, now: Micros) -> None:
        """Say anew who may be chosen, and how much each has."""
        there = {target.model for target in self.targets.values() if target.open}
        self.unwell = frozenset(there - {one.model for one in self.targets.values() if one.open and one.trouble <= now})
        for load, column in zip(self.loads, self.columns, strict=True):
            for target in load.all:
                target.at = -1
            load.targets = sorted(
                (one for one in load.all if one.open and (one.trouble <= now or one.model in self.unwell)),
                key=lambda one: one.row,
            )
            column["open"] = len(load.targets)
            load.trial = trial_of(load.targets, load.trial)
            load.sequences = sum(int(target.profile["ranks"] * target.profile["max_sequences"]) for target in load.targets)
            for at, target in enumerate(load.targets):
                target.at = at
            load.outstanding = [self._outstanding(target) for target in load.targets]

    def _learn_lengths(self) -> None:
        """Refresh the mean output length per model: with the signals, as everything that choices are made by."""
        for m in range(self.models):
            means = self.output_mean[m * self.tiers : (m + 1) * self.tiers]
            self.guess[m] = int(sum(means) / self.tiers + 0.5)

    def look(self, now: Micros) -> None:
        """Turn own counts into signals: what a scrape would have done, when there is none."""
        passed = now - self._looked
        self._looked = now
        self._seen = now
        self.own = True
        for load, column in zip(self.loads, self.columns, strict=True):
            if passed > 0 and passed != now:
                news = (load.offered - load.seen_offered) * self.gateways / passed
                load.rate += (1.0 - 2.0 ** (-passed / self.half_life)) * (news - load.rate)
            load.seen_offered = load.offered
            tokens = sum(target.profile["ranks"] * target.profile["kv_tokens"] for target in load.targets)
            column["rate"], column["offered"], column["backlog"] = load.rate, 0.0, load.backlog * self.gateways
            column["kv_tokens"] = tokens
            column["kv"] = load.held * self.gateways / tokens if tokens else 0.0
            busy = load.rate + column["backlog"] / self.half_life
            column["busy"] = busy / len(load.targets) if load.targets else 0.0
        self._learn_lengths()
        self.refresh(now)

    def is_blind(self, now: Micros, after: Micros) -> bool:
        """Whether signals are own, or too old to be any."""
        return self.own or now - self._seen > after

    def heal(self, now: Micros) -> None:
        """Take targets back whose trouble is over."""
        if any(target.trouble and target.trouble <= now for target in self.targets.values()):
            for target in self.targets.values():
                if target.trouble <= now:
                    target.trouble = 0
            self.refresh(now)

    def model_of(self, endpoint: int) -> int:
        """The model an endpoint serves."""
        return endpoint // len(self.layout.roles) % self.models

    def region_of(self, endpoint: int) -> int:
        """The region an endpoint is in."""
        return endpoint // (len(self.layout.roles) * self.models)

    def choose(
        self, walk: list[int], now: Micros, asked: Beginning = ANY_BEGINNING, *, prompt: int = 1, region: int = 0, tier: int = 0
    ) -> Target | None:
        """The target for a request: endpoint by the router's rule, instance by work and prompt; None when all are closed.

        Args:
            walk: endpoints, nearest first.
            now: own clock.
            asked: how its prompt begins.
            prompt: tokens of it, of which and
            region: from which it comes `quickest` takes account, and rules of the user's of these and its
            tier.
        """
        own = self._own_endpoint(walk, now, prompt, region, tier)
        if own is not None:
            return self.choose_at(own, asked, prompt=prompt, tier=tier) if own >= 0 else None
        if self.rules["route"] == QUICKEST:
            seen = [self.choose_at(e, asked, prompt=prompt, tier=tier) for e in walk]
            targets = [target for target in seen if target is not None]
            times = [self._first_token(target, now, prompt, asked.found(target.prompts), region) for target in targets]
            return targets[times.index(min(times))] if targets else None
        e = pick_endpoint(self.rules, self.columns, walk, 0, len(walk), now - self._seen)
        return self.choose_at(e, asked, prompt=prompt, tier=tier) if e >= 0 else None

    def _own_endpoint(self, walk: list[int], now: Micros, prompt: int, region: int, tier: int) -> int | None:
        """The endpoint that the user's rule chooses; -1: none is open, None: no rule of the user's says."""
        if self.choices.rules.region is None:
            return None
        ways, numbers = self.ways[region], self.choices.request(prompt, tier)
        return self.choices.endpoint(numbers, walk, self.columns, now - self._seen, lambda e: ways[self.region_of(e)])

    def _first_token(self, target: Target, now: Micros, prompt: int, found: int, region: int) -> float:
        """Microseconds until the first token of a request, of which the target has `found` tokens, would be back."""
        profile, e = target.profile, target.endpoint
        queued = (target.unfinished + target.unfinished_there) * profile["whole"] * profile["per_rank"]
        alone = timing.first_time(profile, prompt, found)
        way = self.ways[region][self.region_of(e)] + profile["entry"]
        return way + expected_first(self.rules, self.columns[e], now - self._seen, alone, queued)

    def choose_at(self, endpoint: int, asked: Beginning = ANY_BEGINNING, *, prompt: int = 1, tier: int = 0) -> Target | None:
        """The target for a request at a given endpoint."""
        load = self.loads[endpoint]
        if load.trial is not None:
            turn = load.trial.turn()
            at = turn[pick(asked, [load.outstanding[at] for at in turn], [load.targets[at] for at in turn])]
            load.trial.chosen = load.targets[at]
            return load.targets[at]
        if load.targets and self.choices.rules.instance is not None:
            numbers, first = self.choices.request(prompt, tier), endpoint * self.layout.slots
            guess = self.guess[self.model_of(endpoint)]
            at = self.choices.instance(numbers, load, lambda target: asked.found(target.prompts), first, guess)
            if at >= 0:
                return load.targets[at]
        return load.targets[pick(asked, load.outstanding, load.targets)] if load.targets else None

    def choose_again(self, walk: list[int], first: int, tried: AbstractSet[int], now: Micros) -> Target | None:
        """Another target, after some were tried in vain: in the same endpoint first, then as the router would without them."""
        load = self.loads[first]
        left = [at for at, target in enumerate(load.targets) if target.row not in tried]
        if left:
            return load.targets[left[pick_instance([load.outstanding[at] for at in left], 0, len(left))]]
        elsewhere = [e for e in walk if any(target.row not in tried for target in self.loads[e].targets)]
        if not elsewhere:
            return None
        e = pick_endpoint(self.rules, self.columns, elsewhere, 0, len(elsewhere), now - self._seen)
        return None if e < 0 else self.choose_again(walk, e, tried, now)

    def work(self, profile: timing.EngineRow, prompt: int, model: int, tier: int, found: int = 0) -> float:
        """Microseconds of engine time a request is expected to need; asked twice about the same, it computes once."""
        mean = self.output_mean[model * self.tiers + tier]
        last = self._last
        if last[0] is not profile or last[1] != (prompt, found) or last[2] != mean:
            work = timing.request_work(profile, prompt, found, mean)
            last = self._last = (profile, (prompt, found), mean, timing.prefill_work(profile, prompt, found), work)
        return last[4]

    def weigh(self, target: Target, prompt: int, model: int, tier: int, found: int = 0) -> Placement:
        """What a request, of which the target has `found` tokens, would be there; nothing is counted."""
        one = Placement(target, prompt - found, model, tier)
        one.length = prompt
        mean = self.output_mean[model * self.tiers + tier]
        one.work = self.work(target.profile, prompt, model, tier, found)
        one.prefill = self._last[3]
        one.held = prompt + 0.5 * mean
        load = self.loads[target.endpoint]
        backlog, in_flight = self.columns[target.endpoint]["backlog"], load.in_flight * self.gateways
        one.wait = predicted_wait(backlog, in_flight, load.sequences, one.work, len(load.targets) or 1)
        return one

    def promised(self, tier: int, prompt: int) -> Micros:
        """Microseconds from its arrival to what a request of so many prompt tokens is promised."""
        return allowed(*self._promised[tier], prompt)

    def limit(self, one: Placement) -> float:
        """The longest predicted wait with which a request is let in, microseconds."""
        return self.admission.wait * self.promised(one.tier, one.length)

    def admits(self, one: Placement, part: float = 1.0) -> bool:
        """Whether a request that was weighed may go to its target; `part`: of what the queue there may hold."""
        if not self.admission.act:
            return True
        load = self.loads[one.target.endpoint]
        most = int(part * self.admission.queued * load.sequences)
        limit, in_flight = part * self.limit(one), load.in_flight * self.gateways
        if self.choices.rules.admission is not None:
            numbers = self.choices.request(one.length, one.tier) | {
                "wait": one.wait,
                "limit": limit,
                "in_flight": in_flight,
                "most": most,
                "instances": len(load.targets),
                "service": one.work,
                "patience": self.promised(one.tier, one.length),
            }
            if (own := self.choices.admits(numbers)) is not None:
                return own
        return is_admitted(one.wait, limit, in_flight, most)

    def place(self, one: Placement, asked: Beginning = ANY_BEGINNING) -> None:
        """Count a request as sent to its target."""
        target, prompt = one.target, one.prompt
        load, column = self.loads[target.endpoint], self.columns[target.endpoint]
        load.offered += one.work
        load.backlog += one.prefill
        load.held += one.held
        load.placed += 1
        load.in_flight += 1
        column["offered"] += one.work * self.gateways  # the others get as much: connections are dealt out evenly
        column["backlog"] += one.prefill
        target.in_flight += 1
        target.unfinished += prompt
        target.prompts.note(asked.keys)
        if load.trial is not None:
            load.trial.note(target)
        self._note(load, target)

    def begin(self, one: Placement) -> None:
        """The first token came: its prompt is done."""
        if one.begun:
            return
        load = self.loads[one.target.endpoint]
        self._begin(one, load)
        self._note(load, one.target)

    def _begin(self, one: Placement, load: EndpointLoad) -> None:
        one.begun = True
        target = one.target
        column = self.columns[target.endpoint]
        load.backlog -= one.prefill
        left = column["backlog"] - one.prefill
        column["backlog"] = max(0.0, left)
        target.unfinished -= one.prompt

    def end(self, one: Placement, output: int | None, now: Micros) -> None:
        """A request left its target: finished with `output` tokens, or (None) broken off."""
        target = one.target
        load = self.loads[target.endpoint]
        if not one.begun:
            self._begin(one, load)
        load.held -= one.held
        load.in_flight -= 1
        target.in_flight -= 1
        self._note(load, target)
        if output is not None:
            if target.open and now - target.freed_at > TOGETHER:
                load.freed += 1
                target.freed_at = now
            at = one.model * self.tiers + one.tier
            self.output_mean[at] += (output - self.output_mean[at]) / _SLOW

    def _note(self, load: EndpointLoad, target: Target) -> None:
        if target.at >= 0:
            load.outstanding[target.at] = self._outstanding(target)

    def _outstanding(self, target: Target) -> int:
        """Outstanding tokens times weight: what least-work routing compares."""
        return (target.unfinished + self.guess[target.model] * target.in_flight) * target.weight + target.there

    def leave_out(self, target: Target, now: Micros, *, mute: bool = False) -> None:
        """A target is in trouble: do not choose it until the next table, or for a moment when none will come.

        The last ones of a model are chosen all the same: they may be well by now, and without them there is nothing.
        """
        target.failures += 1
        target.trouble = now + (_LEAVE_OUT_MUTE if mute else _LEAVE_OUT)
        self.refresh(now)
