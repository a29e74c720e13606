"""Strategies by name: the rules that decide how many instances each pool has.

All of them start from one state and use the same router, signal and delays; `base.py` says what one must be able to do.
Read next: `base.py`, docs/reference/strategies.md for when to use which.
"""

import difflib
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Final

from sageserve.base.config import Scenario
from sageserve.base.errors import ConfigError
from sageserve.core.layout import Layout, any_apart, lay_out, unified_roles
from sageserve.core.plugins import STRATEGY, registered
from sageserve.core.strategies.base import Strategy, StrategyKind
from sageserve.core.strategies.fixed import PREFIX, STARTED, fixed_kind
from sageserve.core.strategies.own import own_kind
from sageserve.core.zero import Sleepers


class _Kinds(Mapping[str, StrategyKind]):
    """Strategies by name, each loaded when it is asked for: a gateway needs no forecasts and no plans for its own."""

    _PLACES: Final = {
        "siloed": ("siloed", "Siloed"),
        "hpa": ("hpa", "Hpa"),
        "keda": ("hpa", "Keda"),
        "reactive": ("reactive", "Reactive"),
        "reactive-tuned": ("reactive", "ReactiveTuned"),
        "lt-i": ("planned", "LtI"),
        "lt-u": ("planned", "LtU"),
        "lt-ua": ("planned", "LtUA"),
        "chiron": ("chiron", "Chiron"),
        "foresight": ("foresight", "Foresight"),
    }

    def __getitem__(self, name: str) -> StrategyKind:
        module, kind = self._PLACES[name]
        found: StrategyKind = getattr(import_module(f"{__name__}.{module}"), kind)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._PLACES)

    def __len__(self) -> int:
        return len(self._PLACES)


STRATEGIES: Final[Mapping[str, StrategyKind]] = _Kinds()

_HPA: Final = "hpa"
_KEDA: Final = "keda"
_RECORDED: Final = "recorded"
_TOGETHER: Final = ("siloed", "chiron", _RECORDED)
"""Strategies that take an instance to do all of a request."""

__all__ = [
    "STRATEGIES",
    "Strategy",
    "StrategyKind",
    "kind_of",
    "layout_of",
    "may_sleep",
    "or_one",
    "sleepers_of",
    "strategy_kind",
    "where_zero",
]


def strategy_kind(name: str) -> StrategyKind:
    """The strategy of a name, of `fixed`, `fixed:N` or `module:Class`, or of `recorded`, which needs counts.

    Raises:
        ConfigError: there is none.
        PluginError: the module of the user's own cannot be imported.
    """
    kind: StrategyKind | None = _recorded() if name == _RECORDED else STRATEGIES.get(name) or fixed_kind(name)
    if kind is None and not name.startswith(PREFIX):
        kind = own_kind(name)
    if kind is None:
        known = [*STRATEGIES, *registered(STRATEGY)]
        close = difflib.get_close_matches(name, known, 1)
        meant = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(
            f"strategy.name: there is no strategy {name!r}{meant}",
            hint=f"choose one of {', '.join([*known, STARTED, f'{PREFIX}N'])}, or module:Class for your own",
        )
    return kind


def _recorded() -> StrategyKind:
    from sageserve.core.strategies.recorded import Recorded  # noqa: PLC0415 # loaded when it is asked for, as the others are

    return Recorded


def kind_of(scenario: Scenario) -> StrategyKind:
    """The strategy of a scenario, which can do with the instances that its fleet may come down to.

    Raises:
        ConfigError: there is none, or it can do nothing of nothing and the fleet may come down to that.
        PluginError: the module of the user's own cannot be imported.
    """
    name = scenario.strategy.name
    kind = strategy_kind(name)
    _check_apart(scenario, kind)
    if name == _HPA and (none := may_sleep(scenario)):
        raise ConfigError(
            f"{where_zero(scenario)}: {name} keeps an instance of every model in every region that has its GPUs: of no pod there"
            " is a metric that could ask for the first, and Kubernetes switches it off at 0",
            hint=f"give {or_one(scenario, none[0])}, or let another strategy scale from 0, such as keda",
        )
    return kind


def _check_apart(scenario: Scenario, kind: StrategyKind) -> None:
    """Refuse strategies that cannot scale prefill and decode as pools of their own.

    Raises:
        ConfigError: they are apart, and it is one of these.
    """
    model, name = any_apart(scenario), scenario.strategy.name
    if model and (name in _TOGETHER or kind.roles(scenario) != unified_roles(scenario)):
        can = [one for one in STRATEGIES if one not in _TOGETHER]
        raise ConfigError(
            f"models.{model}.disaggregated: the strategy {name} cannot scale prefill and decode as pools of their own",
            hint=f"choose one of {', '.join([*can, STARTED, f'{PREFIX}N'])}, or leave it out with"
            f" --set models.{model}.disaggregated=null",
        )


def may_sleep(scenario: Scenario) -> list[str]:
    """`region/model` of endpoints that may have no instance while nobody asks for them."""
    if scenario.strategy.name == _KEDA and scenario.strategy.keda.minimum:
        return []  # it keeps them by a rule of its own
    kind = strategy_kind(scenario.strategy.name)
    ends = {f"{region}/{model}": scenario.at(region, model) for region in scenario.regions for model in scenario.models}
    return [end for end, here in ends.items() if here.fleet.minimum == 0 and max(kind.minimum(here)) > 0]


def where_zero(scenario: Scenario) -> str:
    """Which setting lets an endpoint have no instance."""
    return "fleet.minimum: 0" if scenario.fleet.endpoints is None else "fleet.minimum or fleet.endpoints: 0"


def or_one(scenario: Scenario, end: str) -> str:
    """How an endpoint is given one instance at least."""
    if scenario.fleet.endpoints is None:
        return "--set fleet.minimum=1 --set fleet.start=1"
    return f"{end} a minimum and a start of 1 in fleet.endpoints"


def sleepers_of(scenario: Scenario, layout: Layout) -> Sleepers | None:
    """What wakes and leaves endpoints that may have no instance; None: there are none, or KEDA, which does it itself."""
    sleepers = Sleepers(layout, scenario.fleet.idle, full=scenario.routing.threshold)
    return sleepers if sleepers.any and scenario.strategy.name != _KEDA else None


def layout_of(scenario: Scenario) -> Layout:
    """The numbers behind a scenario's names, under its strategy.

    Raises:
        ConfigError: the strategy is not known.
    """
    kind = strategy_kind(scenario.strategy.name)
    _check_apart(scenario, kind)
    return lay_out(scenario, kind.roles(scenario), kind.minimum, sleeps=bool(may_sleep(scenario)))
