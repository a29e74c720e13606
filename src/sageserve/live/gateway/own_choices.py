"""Rules of the user's in a gateway: what they are told of a request and of each choice, and what is done when they fail.

The numbers are those that `sim/kernel/choices/own.py` writes down, from what this gateway knows. A rule that raises, or gives no
number, decides nothing: the built-in one does, and it is counted and told. So it is with one that thinks for too long
(`rule_limit.py`). Knows no clock. Read next: `routing_state.py`;
docs/how-to/own-routers.md for what each number is.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

from sageserve.base.errors import SageServeError
from sageserve.core.engine.timing import WEIGHT_ONE
from sageserve.core.own_rules import OwnRule, OwnRules
from sageserve.live.gateway.python_kernels import Row, expected, expected_busy
from sageserve.live.gateway.rule_limit import RuleLimit
from sageserve.live.gateway.targets import EndpointLoad, Target

Numbers = dict[str, float]
Instead = TypeVar("Instead", int, None)
TOO_HIGH: Final = float("inf")


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
        rule = self.rules.instance
        if rule is None or self._limit is None:
            return -1
        try:
            with self._limit:
                return self._lowest(rule, asked, load, found, first, guess)
        except SageServeError as error:
            return self._failed(error, -1)

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
        rule = self.rules.region
        if rule is None or self._limit is None:
            return None
        try:
            with self._limit:
                return self._nearest(rule, asked, walk, columns, elapsed, away)
        except SageServeError as error:
            return self._failed(error, None)

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
        rule = self.rules.admission
        if rule is None or self._limit is None:
            return None
        try:
            with self._limit:
                return rule.ask(numbers) != 0.0
        except SageServeError as error:
            return self._failed(error, None)

    def _failed(self, error: SageServeError, instead: Instead) -> Instead:
        """A rule raised, gave no number or took too long: what is said, so that the built-in rule decides."""
        self.failures += 1
        self.failed = error.message
        return instead
