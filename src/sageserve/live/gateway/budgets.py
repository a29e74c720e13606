"""What keys may use in a day, and what they have used: tokens and dollars, of all gateway processes together.

A day is UTC's. Each process counts what was used through it and tells control, which keeps it over restarts and says what was
used through the others. Known is what was said last, so that requests of a quarter of a second, and those under way, may go
beyond a budget. The day is told by a clock that nobody sets: a step of the machine's clock gives no second budget.
Read next: `keys.py` for limits a minute, `live/control/spending.py`.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from sageserve.base.config import LiveSettings
from sageserve.base.errors import ConfigError
from sageserve.base.units import DAY, SECOND, Micros
from sageserve.live.gateway.api_error import ApiError, budget_spent
from sageserve.live.wire import KeySpent, Spent, SpentElsewhere

_MICRO: Final = 1_000_000


class _Budget(NamedTuple):
    """Of one name; None: no limit."""

    tokens: int | None
    micro_dollars: int | None


class DayBudgets:
    """Budgets of all keys that have one.

    Args:
        live: keys and prices.
        models: names in order of their codes.
        wall: microseconds since 1970.
        clock: microseconds that nobody sets.

    Raises:
        ConfigError: a key has a budget in dollars, and a model has no price.
    """

    def __init__(
        self, live: LiveSettings, models: Sequence[str], wall: Callable[[], Micros], clock: Callable[[], Micros]
    ) -> None:
        self._budgets = {
            key.name: _Budget(key.tokens_per_day, None if key.dollars_per_day is None else round(key.dollars_per_day * _MICRO))
            for key in live.keys
            if key.tokens_per_day or key.dollars_per_day
        }
        dear = next((name for name, budget in self._budgets.items() if budget.micro_dollars is not None), None)
        unpriced = [model for model in models if model not in live.prices]
        if dear is not None and unpriced:
            raise ConfigError(
                f"live.keys: {dear} has dollars_per_day, and live.prices has no price of {unpriced[0]}",
                hint="write live.prices.MODEL: {input: 0.2, output: 0.6}, in dollars a million tokens",
            )
        self._prices = [live.prices.get(model) for model in models]
        self._clock = clock
        self._origin = wall() - clock()
        self._day = self._now() // DAY
        self._own: dict[str, KeySpent] = {}
        self._elsewhere: dict[str, KeySpent] = {}
        self._told: dict[str, KeySpent] = {}

    def _now(self) -> Micros:
        return self._origin + self._clock()

    def __contains__(self, name: str) -> bool:
        return name in self._budgets

    def used(self, name: str) -> KeySpent:
        """What a key has used today, through whichever process."""
        self._turn()
        here, there = self._own.get(name), self._elsewhere.get(name)
        tokens = (here.tokens if here else 0) + (there.tokens if there else 0)
        return KeySpent(name, tokens, (here.micro_dollars if here else 0) + (there.micro_dollars if there else 0))

    def check(self, name: str) -> None:
        """Whether a key may ask for more.

        Raises:
            ApiError: it has used what it may use today.
        """
        budget = self._budgets.get(name)
        if budget is None:
            return
        used = self.used(name)
        if budget.tokens is not None and used.tokens >= budget.tokens:
            raise self._spent(f"{used.tokens:,} of {budget.tokens:,} tokens")
        if budget.micro_dollars is not None and used.micro_dollars >= budget.micro_dollars:
            raise self._spent(f"{used.micro_dollars / _MICRO:.2f} of {budget.micro_dollars / _MICRO:.2f} dollars")

    def _spent(self, what: str) -> ApiError:
        again = (self._day + 1) * DAY
        return budget_spent(what, datetime.fromtimestamp(again // SECOND, UTC).isoformat(), again - self._now())

    def note(self, name: str, model: int, prompt: int, output: int) -> None:
        """Count what a key used."""
        if name not in self._budgets:
            return
        self._turn()
        price, before = self._prices[model], self._own.get(name) or KeySpent(name, 0, 0)
        cost = round(prompt * price.input + output * price.output) if price else 0
        self._own[name] = KeySpent(name, before.tokens + prompt + output, before.micro_dollars + cost)

    def hear(self, message: SpentElsewhere) -> None:
        """Control says what was used through others."""
        self._turn()
        if message.day == self._day:
            self._elsewhere = {one.name: one for one in message.keys}

    def report(self, *, anew: bool = False) -> Spent | None:
        """What was used through this process today; None when nothing was since it was said last. `anew`: say it all the same."""
        self._turn()
        if not self._own or (self._own == self._told and not anew):
            return None
        self._told = dict(self._own)
        return Spent(self._day, tuple(self._own.values()))

    def _turn(self) -> None:
        """Begin a new day."""
        day = self._now() // DAY
        if day != self._day:
            self._day = day
            self._own, self._elsewhere, self._told = {}, {}, {}
