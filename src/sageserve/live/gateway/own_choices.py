"""Rules of the user's in a gateway: what they are told of a request and of each choice, and what is done when they fail.

The numbers are those that `sim/kernel/choices/own.py` writes down, from what this gateway knows. A rule that raises, or gives no
number, decides nothing: the built-in one does, and it is counted and told. So it is with one that thinks for too long
(`rule_limit.py`), which is then not asked for a while. Knows no clock. Read next: `routing_state.py`;
docs/how-to/own-routers.md for what each number is.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from sageserve.base.errors import SageServeError
from sageserve.core.engine.timing import WEIGHT_ONE
from sageserve.core.own_rules import ADMISSION, INSTANCE, REGION, OwnRule, OwnRules
from sageserve.live.gateway.python_kernels import Row, expected, expected_busy
from sageserve.live.gateway.rule_limit import RuleLimit
from sageserve.live.gateway.targets import EndpointLoad, Target

Numbers = dict[str, float]
Answer = TypeVar("Answer")
TOO_HIGH: Final = float("inf")
_FEWEST: Final = 10
_MOST: Final = 10_000
"""Decisions that a rule is left out of once it was broken off, twice as many each time: in the end they cost 10 µs each."""


@dataclass(slots=True)
class _Rest:
    """How a rule that was broken off is left out."""

    times: int = 0
    left: int = 0
    ended: int = 0

    def is_over(self) -> bool:
        """Whether the rule is asked for this decision."""
        self.left = max(0, self.left - 1)
        return self.left == 0

    def forgive(self) -> None:
        """It ended in time."""
        self.ended += 1
        if self.ended >= _MOST:
            self.times = 0

    def begin(self) -> int:
        """It was broken off: for how many decisions it is left out."""
        left = min(_MOST, _FEWEST << min(self.times, 20))
        self.times, self.left, self.ended = self.times + 1, left + 1, 0
        return left


class OwnChoices:
    """The user's rules, each asked where a built-in one would be.

    Args:
        rules: of the scenario.
        tiers: priority of each tier, and whether it is one of batch work.
        routing: what utilisation is expected by, beside what was scraped.
    """

    def __init__(self, rules: OwnRules, tiers: Sequence[tuple[int, bool]], routing: Mapping[str, float]) -> None:
        self.rules = rules
        self._routing = routing
        self._tiers = tiers
        self._limit = RuleLimit() if any(rules) else None
        self.failures = 0
        self.failed = ""  # what was said of the last failure
        self._rests = {INSTANCE: _Rest(), REGION: _Rest(), ADMISSION: _Rest()}

    @property
    def finds(self) -> bool:
        """Whether a rule wants to know what instances have of a prompt."""
        return self.rules.instance is not None and "found" in self.rules.instance.wants

    def request(self, prompt: int, tier: int) -> Numbers:
        """What every rule is told of a request."""
        priority, batch = self._tiers[tier]
        return {"prompt": prompt, "priority": priority, "batch": batch}

    def instance(self, asked: Numbers, load: EndpointLoad, found: Callable[[Target], int], first: int, guess: int) -> int:
        """Which of the targets of an endpoint has the lowest score, the first of equals; -1: the built-in rule is to say.

        Args:
            asked: of the request.
            load: the endpoint, one of whose targets is open.
            found: tokens of the prompt that a target has.
            first: row of the endpoint's first instance.
            guess: tokens that an answer of the model is taken to have.
        """
        return self._decide(self.rules.instance, lambda rule: self._lowest(rule, asked, load, found, first, guess), -1)

    def _lowest(  # as `instance`
        self, rule: OwnRule, asked: Numbers, load: EndpointLoad, found: Callable[[Target], int], first: int, guess: int
    ) -> int:
        scores = []
        for target, work in zip(load.targets, load.outstanding, strict=True):
            profile, weight = target.profile, target.weight
            elsewhere = max(0, round((target.there / weight - target.unfinished_there) / max(1, guess))) if target.there else 0
            asked |= {
                "outstanding": work / WEIGHT_ONE,
                "in_flight": target.in_flight + elsewhere,
                "queued": target.unfinished + target.unfinished_there,
                "found": found(target) if self.finds else 0,
                "pace": weight / WEIGHT_ONE,
                "sequences": profile["ranks"] * profile["max_sequences"],
                "kv_tokens": profile["ranks"] * profile["kv_tokens"],
                "number": target.row - first,
            }
            scores.append(rule.ask(asked))
        return scores.index(min(scores))

    def endpoint(
        self, asked: Numbers, walk: Sequence[int], columns: Sequence[Row], elapsed: int, away: Callable[[int], int]
    ) -> int | None:
        """The open endpoint of a walk with the lowest score, the first of equals; -1: none is open; None: ask the built-in rule.

        Args:
            asked: of the request.
            walk: endpoints, nearest first.
            columns: what was scraped of each, and counted since.
            elapsed: microseconds since the scrape.
            away: microseconds of round trip to an endpoint.
        """
        return self._decide(self.rules.region, lambda rule: self._nearest(rule, asked, walk, columns, elapsed, away), None)

    def _nearest(  # as `endpoint`
        self,
        rule: OwnRule,
        asked: Numbers,
        walk: Sequence[int],
        columns: Sequence[Row],
        elapsed: int,
        away: Callable[[int], int],
    ) -> int:
        best, least = -1, 0.0
        for e in walk:
            column = columns[e]
            if column["open"] == 0:
                continue
            asked |= {
                "utilisation": expected(self._routing, column, elapsed),
                "busy": expected_busy(self._routing, column, elapsed),
                "kv": column["kv"],
                "backlog": max(column["backlog"], 0.0),
                "instances": column["open"],
                "away": away(e),
            }
            score = rule.ask(asked)
            if best < 0 or score < least:
                best, least = e, score
        return best

    def admits(self, numbers: Numbers) -> bool | None:
        """Whether a request is let in; None: the built-in rule is to say."""
        return self._decide(self.rules.admission, lambda rule: rule.ask(numbers) != 0.0, None)

    def _decide(self, rule: OwnRule | None, ask: Callable[[OwnRule], Answer], instead: Answer) -> Answer:
        """What a rule says; where it raises, gives no number or takes too long, what lets the built-in one decide."""
        if rule is None or self._limit is None or not (rest := self._rests[rule.kind]).is_over():
            return instead
        try:
            with self._limit:
                said = ask(rule)
        except SageServeError as error:
            left = f"; it is left out of the next {rest.begin():,} decisions" if self._limit.over else ""
            self.failures, self.failed = self.failures + 1, error.message + left
            return instead
        rest.forgive()
        return said
