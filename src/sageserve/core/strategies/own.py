"""Strategies of the user's: checked when they are found, and watched while they decide.

What the class raises becomes one sentence with its file and line, and what it answers is looked at before the controller acts on
it. A simulation ends there; a live fleet goes on without that answer (`OwnStrategy.outlive`).
Read next: `base.py`, `core/plugins.py`.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from sageserve.base.config import Scenario
from sageserve.base.errors import ConfigError, PluginError, SageServeError
from sageserve.base.records import Demand
from sageserve.base.units import Micros
from sageserve.core.actions import Decision, Feed, Reason
from sageserve.core.fleet import Fleet, Role
from sageserve.core.layout import Layout
from sageserve.core.plugins import STRATEGY, blamed, check_call, find_plugin, where
from sageserve.core.strategies.base import Strategy
from sageserve.core.work import AnyEvent, Fit, Solve, SolveAhead, Work

_MADE_WITH: Final = ("scenario", "layout", "earlier")
_ANSWERS: Final = "handle gives any number of Decision, Feed, Fit, Solve and SolveAhead"


def own_kind(name: str) -> "OwnStrategyKind | None":
    """The strategy that the user's code calls so; None when no code does.

    Raises:
        ConfigError: it is not there, or is no strategy.
        PluginError: an exception was raised while it was imported.
    """
    found = find_plugin(STRATEGY, name)
    return None if found is None else OwnStrategyKind(name, found)


class OwnStrategyKind:
    """A strategy kind of the user's, whose answers are checked.

    Args:
        name: as it was given.
        target: what was found under that name.

    Raises:
        ConfigError: it is no strategy, or its methods take other arguments than they are called with.
    """

    def __init__(self, name: str, target: object) -> None:
        self.name = name
        self.target: Any = target  # checked below, call by call
        if not callable(target):
            raise ConfigError(f"the strategy {name} is {target!r}, not a class", hint="name a class with a method `handle`")
        for method in ("roles", "minimum"):
            self._check(method, "scenario")
        self._check("initial", "scenario", "layout")
        if isinstance(target, type):
            self._check("handle", "self", "now", "event", "fleet")
        check_call(f"{name}, when it is made,", target, *_MADE_WITH)

    def _check(self, method: str, *names: str) -> None:
        found = getattr(self.target, method, None)
        if not callable(found):
            ready = "inherit from sageserve.plugins.Unified, which has roles, minimum and initial"
            raise ConfigError(
                f"{where(self.target)}: {self.name} has no method {method}({', '.join(names)})",
                hint="what a strategy must have is said in sageserve.plugins.Strategy" if method == "handle" else ready,
            )
        check_call(f"{self.name}.{method}", found, *names)

    def roles(self, scenario: Scenario) -> tuple[Role, ...]:
        """Its roles, at least one."""
        found = self._call("roles", scenario)
        if not isinstance(found, tuple) or not found or not all(isinstance(role, Role) for role in found):
            raise self._useless(f"{self.name}.roles gave {found!r}, not a tuple of Role", self.target.roles)
        return found

    def minimum(self, scenario: Scenario) -> tuple[int, ...]:
        """Instances every endpoint keeps, by role."""
        return self._counts("minimum", self._call("minimum", scenario), len(self.roles(scenario)), "role")

    def initial(self, scenario: Scenario, layout: Layout) -> tuple[int, ...]:
        """Instances every pool starts with, by its number."""
        return self._counts("initial", self._call("initial", scenario, layout), len(layout.pools), "pool")

    def __call__(self, scenario: Scenario, layout: Layout, earlier: Demand | None) -> "OwnStrategy":
        """Make the strategy."""
        try:
            made = self.target(scenario, layout, earlier)
        except Exception as error:  # whatever the user's own code raises
            raise blamed(f"the strategy {self.name} cannot be made", error) from error
        return OwnStrategy(self.name, made, layout)

    def _counts(self, method: str, found: object, count: int, each: str) -> tuple[int, ...]:
        if not isinstance(found, tuple) or len(found) != count or not all(type(n) is int and n >= 0 for n in found):
            wanted = f"a tuple of {count} whole number{'s' if count > 1 else ''}, one per {each}"
            raise self._useless(f"{self.name}.{method} gave {found!r}, not {wanted}", getattr(self.target, method))
        return found

    def _call(self, method: str, *given: object) -> object:
        try:
            return getattr(self.target, method)(*given)
        except Exception as error:  # whatever the user's own code raises
            raise blamed(f"{self.name}.{method}", error) from error

    @staticmethod
    def _useless(text: str, method: object) -> PluginError:
        return PluginError(f"{where(method)}: {text}", hint="sageserve.plugins.Unified has the usual answers")


class OwnStrategy:
    """A strategy of the user's at work.

    Args:
        name: as it was given.
        made: theirs.
        layout: for what there is to decide about.
    """

    def __init__(self, name: str, made: Strategy, layout: Layout) -> None:
        self._name = name
        self._made = made
        self._pools = len(layout.pools)
        self._endpoints = layout.endpoints
        self._tell: Callable[[str], None] | None = None

    def outlive(self, tell: Callable[[str], None]) -> None:
        """From now on an error ends only the answer it is raised in, and is told: a fleet that serves is held, not dropped."""
        self._tell = tell

    def handle(self, now: Micros, event: AnyEvent, fleet: Fleet) -> Iterator[Decision | Feed | Work]:
        """What theirs answers, each part checked before it is carried out."""
        try:
            yield from self._answers(now, event, fleet)
        except SageServeError as error:
            if self._tell is None:
                raise
            self._tell(error.message)

    def _answers(self, now: Micros, event: AnyEvent, fleet: Fleet) -> Iterator[Decision | Feed | Work]:
        try:
            found = self._made.handle(now, event, fleet)
        except Exception as error:  # whatever the user's own code raises
            raise self._blamed(event, error) from error
        if not isinstance(found, Iterable | None):
            raise self._refused(f"answered {found!r}", _ANSWERS)
        answers = iter(found or ())
        while True:
            try:
                answer = next(answers)
            except StopIteration:
                return
            except Exception as error:  # as above
                raise self._blamed(event, error) from error
            self._check(answer)
            yield answer

    def _blamed(self, event: AnyEvent, error: Exception) -> SageServeError:
        return blamed(f"the strategy {self._name}, told {type(event).__name__},", error)

    def _check(self, answer: object) -> None:
        match answer:
            case Decision(pool=pool, change=change, reason=reason):
                if type(pool) is not int or not 0 <= pool < self._pools:
                    raise self._refused(
                        f"decided about pool {pool!r}", f"pools are numbered 0 to {self._pools - 1}: layout.pools"
                    )
                if type(change) is not int or not change:
                    raise self._refused(f"wanted a change of {change!r} instances", "change is a whole number, and not 0")
                if not isinstance(reason, Reason):
                    raise self._refused(
                        f"gave the reason {reason!r}", "reasons are those of sageserve.plugins.Reason, such as OWN_RULE"
                    )
            case Feed(endpoint=endpoint):
                if type(endpoint) is not int or not 0 <= endpoint < self._endpoints:
                    raise self._refused(f"fed endpoint {endpoint!r}", f"endpoints are numbered 0 to {self._endpoints - 1}")
            case Fit() | Solve() | SolveAhead():
                pass
            case _:
                raise self._refused(f"answered {answer!r}", _ANSWERS)

    def _refused(self, did: str, hint: str) -> PluginError:
        return PluginError(f"{where(type(self._made).handle)}: the strategy {self._name} {did}", hint=hint)
