"""Rules of the user's that are asked for every request: which instance, which region, who is let in.

A rule is a function of numbers: its arguments are named after those it wants to see. What it may use is checked before it is
asked, so that it is the same compiled into a simulation and as plain Python in a gateway: numbers of its module, functions of its
module of which the same is true, `math`, and a few built-in functions. What it reads is taken once.
Read next: `sim/kernel/choices/own.py` and `live/gateway/own_choices.py`, which ask; docs/how-to/own-routers.md.
"""

import builtins
import dis
import inspect
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from types import CodeType, FrameType, FunctionType
from typing import Any, Final

from sageserve.base.config import Scenario
from sageserve.base.errors import ConfigError, PluginError, SageServeError
from sageserve.core.plugins import RULE, blamed, find_plugin, where
from sageserve.core.route import INSTANCES, ROUTES

INSTANCE: Final = "instance"
REGION: Final = "region"
ADMISSION: Final = "admission"

_REQUEST: Final = ("prompt", "priority", "batch")
NUMBERS: Final[Mapping[str, tuple[str, ...]]] = {
    INSTANCE: (*_REQUEST, "outstanding", "in_flight", "queued", "found", "pace", "sequences", "kv_tokens", "number"),
    REGION: (*_REQUEST, "utilisation", "busy", "kv", "backlog", "instances", "away"),
    ADMISSION: (*_REQUEST, "wait", "limit", "in_flight", "most", "instances", "service", "patience"),
}
"""The numbers a rule may ask for, in the order in which they lie in memory; docs/how-to/own-routers.md says what each is."""
PLACES: Final = max(len(names) for names in NUMBERS.values())
BUILT_IN: Final[Mapping[str, tuple[str, ...]]] = {INSTANCE: INSTANCES, REGION: ROUTES, ADMISSION: ()}
"""Names of rules that are no code of the user's."""

_LEAST: Final[Mapping[str, float]] = {
    "prompt": 1,
    "pace": 1,
    "sequences": 1,
    "kv_tokens": 1,
    "instances": 1,
    "limit": 1,
    "most": 1,
}
_MOST: Final[Mapping[str, float]] = {
    "priority": 99,
    "batch": 1,
    "pace": 30,
    "number": 9_999,
    "utilisation": 20,
    "busy": 20,
    "kv": 1,
    "instances": 10_000,
    "sequences": 4_096,
}
_WHOLE: Final = frozenset({*_REQUEST, *NUMBERS[INSTANCE], "instances", "most", "patience"}) - {"outstanding", "pace"}
_ROWS: Final = 300
_LINES: Final = 100_000
"""Of a rule, while it is tried: one that has not ended by then is asked for every request, and would hold all of them up."""
_TOKENS: Final = 1e6
_TIME: Final = 1e9  # us
_TIMES: Final = frozenset({"backlog", "away", "wait", "limit", "service", "patience"})
_BUILTINS: Final = ("abs", "bool", "divmod", "float", "int", "len", "max", "min", "pow", "range", "round", "sum")
_FORBIDDEN: Final[Mapping[str, str]] = {
    "STORE_GLOBAL": "changes {name} of its module",
    "DELETE_GLOBAL": "changes {name} of its module",
    "IMPORT_NAME": "imports {name}",
    "STORE_ATTR": "changes {name} of something",
    "PUSH_EXC_INFO": "catches errors (try, with), and what breaks off a rule that does not end is one",
}
_PLAIN: Final = inspect.CO_OPTIMIZED | inspect.CO_NEWLOCALS | inspect.CO_NESTED
_MAY: Final = "a rule may use its arguments, numbers and functions of its module, math, and " + ", ".join(_BUILTINS)


@dataclass(frozen=True, slots=True)
class OwnRule:
    """A rule of the user's, checked.

    Args:
        kind: INSTANCE, REGION or ADMISSION.
        name: as it was given.
        wants: names of its arguments.
        places: of its arguments among the numbers of its kind.
        function: the same function, with nothing but what it may use.
        helpers: functions that it calls, each after those that it calls itself.
    """

    kind: str
    name: str
    wants: tuple[str, ...]
    places: tuple[int, ...]
    function: FunctionType
    helpers: tuple[FunctionType, ...]

    def ask(self, numbers: Mapping[str, float]) -> float:
        """What the rule gives for numbers by their names.

        Raises:
            PluginError: it raised, or gave what is no number.
        """
        given = [float(numbers[name]) for name in self.wants]
        try:
            found = self.function(*given)
        except Exception as error:  # whatever the user's own code raises
            raise self._with(blamed(f"the {self.kind} rule {self.name}", error), given) from error
        if not isinstance(found, bool | int | float) or not math.isfinite(found):
            gave = f"{where(self.function)}: the {self.kind} rule {self.name} gave {found!r}, not a number"
            raise self._with(PluginError(gave), given)
        return float(found)

    def _with(self, error: SageServeError, given: list[float]) -> PluginError:
        told = ", ".join(f"{name} = {value:g}" for name, value in zip(self.wants, given, strict=True))
        return PluginError(
            f"{error.message}, for {told}" if told else error.message,
            hint=error.hint if isinstance(error, ConfigError) else "a rule gives a number for all that can be",
        )


@dataclass(frozen=True, slots=True)
class OwnRules:
    """The rules of the user's that a scenario names; None: a built-in one decides."""

    instance: OwnRule | None = None
    region: OwnRule | None = None
    admission: OwnRule | None = None

    def __iter__(self) -> Iterator[OwnRule]:
        return (one for one in (self.instance, self.region, self.admission) if one is not None)


NO_RULES: Final = OwnRules()


def own_rules(scenario: Scenario) -> OwnRules:
    """The rules of a scenario that are code of the user's.

    Raises:
        ConfigError: the code is not there, or is no rule.
        PluginError: it cannot be imported, or does not give numbers.
    """
    routing, admission = scenario.routing, scenario.admission
    return OwnRules(
        None if routing.instance in BUILT_IN[INSTANCE] else own_rule(INSTANCE, routing.instance),
        None if routing.region in BUILT_IN[REGION] else own_rule(REGION, routing.region),
        own_rule(ADMISSION, admission.rule) if admission.act and admission.rule else None,
    )


def own_rule(kind: str, name: str) -> OwnRule:
    """The rule that the user's code calls so, tried on numbers made up.

    Raises:
        ConfigError: it is not there, or is no rule.
        PluginError: it cannot be imported, or does not give a number for what may come.
    """
    found = find_plugin(RULE, name)
    if found is None:
        close = get_close_matches(name, BUILT_IN[kind], 1)
        raise ConfigError(
            f"no {kind} rule is called {name!r}" + (f": did you mean {close[0]}?" if close else ""),
            hint=f"there are {', '.join(BUILT_IN[kind]) or 'none'}, and module:function of your own",
        )
    found = getattr(found, "py_func", found)  # of what the user compiles already
    if not isinstance(found, FunctionType):
        raise ConfigError(f"the {kind} rule {name} is {found!r}, not a function", hint="name a function: def ...(prompt): ...")
    return _tried(kind, name, found)


@cache
def _tried(kind: str, name: str, found: FunctionType) -> OwnRule:
    """The rule, checked once for each time its module is imported."""
    wants = _arguments(kind, name, found)
    made: dict[FunctionType, FunctionType] = {}
    function = _taken(f"the {kind} rule {name}", found, made, ())
    rule = OwnRule(kind, name, wants, tuple(NUMBERS[kind].index(one) for one in wants), function, tuple(made.values())[:-1])
    with _ending(f"the {kind} rule {name}") as begin:
        for row in made_up(kind):
            begin()
            rule.ask(row)
    return rule


@contextmanager
def _ending(what: str) -> Iterator[Callable[[], None]]:
    """Refuse a rule that goes on and on, where it does; whoever asks it calls what is given before.

    Raises:
        ConfigError: with the line it was at.
    """
    lines = 0

    def begin() -> None:
        nonlocal lines
        lines = 0

    def line(frame: FrameType, event: str, _arg: object) -> Any:  # noqa: ANN401 # itself, as Python calls it
        nonlocal lines
        if frame.f_code.co_filename == __file__:
            return None
        lines += event == "line"
        if lines > _LINES:
            raise ConfigError(
                f"{frame.f_code.co_filename}:{frame.f_lineno}: {what} does not end: it did {_LINES:,} lines for one request",
                hint="a rule is asked for every request: let its loops end soon",
            )
        return line

    before = sys.gettrace()
    sys.settrace(line)
    try:
        yield begin
    finally:
        sys.settrace(before)


def _arguments(kind: str, name: str, function: FunctionType) -> tuple[str, ...]:
    """The numbers it wants, by name.

    Raises:
        ConfigError: nobody has such a number.
    """
    known, wants = NUMBERS[kind], inspect.signature(function).parameters
    for one in wants.values():
        if one.kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD or one.default is not inspect.Parameter.empty:
            raise ConfigError(
                f"{where(function)}: the {kind} rule {name} takes {one}, which nothing is given for",
                hint="a rule has plain arguments, without * and without a default",
            )
        if one.name not in known:
            close = get_close_matches(one.name, known, 1)
            raise ConfigError(
                f"{where(function)}: the {kind} rule {name} asks for {one.name!r}, which no {kind} has"
                + (f": did you mean {close[0]}?" if close else ""),
                hint=f"an {kind} rule may ask for {', '.join(known)}".replace("an region", "a region"),
            )
    return tuple(wants)


def _taken(what: str, function: FunctionType, made: dict[FunctionType, FunctionType], inside: tuple[str, ...]) -> FunctionType:
    """The same function with nothing but what it may use, and that as it is now.

    Raises:
        ConfigError: it uses something else.
    """
    if function in made:
        return made[function]
    if function.__code__.co_flags & ~_PLAIN or function.__closure__ or function.__defaults__ or function.__kwdefaults__:
        said = f"{what} is no plain function: it yields, awaits, has defaults, or uses names of a function around it"
        raise ConfigError(f"{where(function)}: {said}", hint=_MAY)
    scope: dict[str, object] = {"__builtins__": {name: getattr(builtins, name) for name in _BUILTINS}}
    for line, operation, name in _used(function.__code__):
        if operation in _FORBIDDEN:
            wrong = _FORBIDDEN[operation].format(name=name)
        elif operation != "LOAD_GLOBAL" or (name not in function.__globals__ and name in _BUILTINS):
            continue
        elif name in inside or name == function.__name__:
            wrong = f"calls {name}, which calls it"
        else:
            wrong = _take(what, function, name, scope, made, (*inside, function.__name__))
        if wrong:
            raise ConfigError(f"{function.__code__.co_filename}:{line}: {what} {wrong}", hint=_MAY)
    copy = FunctionType(function.__code__, scope, function.__name__)
    copy.__qualname__, copy.__module__ = function.__qualname__, function.__module__
    made[function] = copy
    return copy


def _take(
    what: str,
    function: FunctionType,
    name: str,
    scope: dict[str, object],
    made: dict[FunctionType, FunctionType],
    inside: tuple[str, ...],
) -> str:
    """Take over what a name of its module means; what is wrong with it, or nothing."""
    missing = object()
    value = function.__globals__.get(name, getattr(builtins, name, missing))
    value = getattr(value, "py_func", value)
    if value is missing:
        return f"uses {name}, which its module does not define"
    if isinstance(value, FunctionType):
        scope[name] = _taken(what, value, made, inside)
    elif value is math or _is_number(value) or (callable(value) and getattr(math, getattr(value, "__name__", ""), None) is value):
        scope[name] = value
    else:
        return (
            f"uses {name}, which is {'the module ' + value.__name__ if inspect.ismodule(value) else 'a ' + type(value).__name__}"
        )
    return ""


def _is_number(value: object) -> bool:
    return isinstance(value, bool | int | float) or (isinstance(value, tuple) and all(_is_number(one) for one in value))


def _used(code: CodeType) -> Iterator[tuple[int, str, str]]:
    """Line, operation and name of everything that is done with names, in functions inside it, too."""
    line = code.co_firstlineno
    for one in dis.get_instructions(code):
        line = one.starts_line or line
        if one.opname in _FORBIDDEN or one.opname == "LOAD_GLOBAL":
            yield line, one.opname, str(one.argval)
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _used(inner)


def made_up(kind: str) -> Iterator[dict[str, float]]:
    """Numbers as they may come, the least and the most of each among them; always the same."""
    seed = 1
    for _ in range(_ROWS):
        row: dict[str, float] = {}
        for name in NUMBERS[kind]:
            seed = (seed * 6_364_136_223_846_793_005 + 1_442_695_040_888_963_407) % 2**64
            least, most = _LEAST.get(name, 0.0), _MOST.get(name, _TIME if name in _TIMES else _TOKENS)
            share = (seed >> 33) / 2**31
            value = (least, most, least + share * (most - least), min(most, least + 10.0 ** (6 * share) - 1))[seed >> 11 & 3]
            row[name] = math.floor(value) if name in _WHOLE else value
        if "found" in row:
            row["found"] = min(row["found"], row["prompt"] - 1)
        yield row
