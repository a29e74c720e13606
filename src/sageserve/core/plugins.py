"""Code of the user's: a strategy, forecaster or rule as `module:Name`, or registered by an installed package as an entry point.

Finds and imports it, checks how it can be called, and turns whatever goes wrong in it into one sentence with the user's own file
and line. Knows no strategy and no forecaster. The current folder is searched last: no file there hides an installed module.
Read next: `strategies/own.py`, `forecast/own.py`; docs/how-to/own-strategies.md for how one is written.
"""

import inspect
import sys
import sysconfig
import traceback
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from types import CodeType, FunctionType
from typing import Final

from sageserve.base.errors import ConfigError, PluginError, SageServeError

STRATEGY: Final = "strategy"
FORECASTER: Final = "forecaster"
RULE: Final = "rule"
GROUPS: Final[Mapping[str, str]] = {
    STRATEGY: "sageserve.strategies",
    FORECASTER: "sageserve.forecasters",
    RULE: "sageserve.rules",
}
"""Groups of entry points, by the word for what they hold."""

_PACKAGE: Final = __file__.rpartition("core")[0]
_PLACES: Final = frozenset(sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib", "purelib", "platlib"))
_TRACE: Final = "`sageserve --debug COMMAND ...` prints the whole traceback"


def find_plugin(kind: str, name: str) -> object | None:
    """What the user's code calls `name`: the attribute of `module:Name`, or an entry point; None when it is neither.

    Args:
        kind: STRATEGY, FORECASTER or RULE.
        name: as it was given.

    Raises:
        ConfigError: the module is not there, or has no such name.
        PluginError: an exception was raised while it was imported.
    """
    module, colon, attribute = name.partition(":")
    if not colon:
        found = next(iter(entry_points(group=GROUPS[kind], name=name)), None)
        return None if found is None else _attribute(kind, name, found.module, found.attr)
    if not module or not attribute:
        raise ConfigError(
            f"the {kind} {name!r} is no module:Name",
            hint="write it as in mine:my_rule, for function my_rule of mine.py"
            if kind == RULE
            else f"write it as in mine:My{kind.title()}, for class My{kind.title()} of mine.py",
        )
    return _attribute(kind, name, module, attribute)


def registered(kind: str) -> tuple[str, ...]:
    """Names of the entry points that installed packages register."""
    return tuple(sorted({found.name for found in entry_points(group=GROUPS[kind])}))


def _attribute(kind: str, name: str, module: str, attribute: str) -> object:
    if module.endswith(".py"):
        raise ConfigError(
            f"the {kind} {name}: a module is named without its .py", hint=f"write {module.removesuffix('.py')}:{attribute}"
        )
    if "" not in sys.path:
        sys.path.append("")  # the current folder, where a program that is installed does not look by itself
    try:
        found: object = import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
            raise ConfigError(
                f"the {kind} {name}: there is no module {error.name!r} in the current folder or among what is installed",
                hint=f"run the command in the folder of {error.name.partition('.')[0]}.py, or name that folder in PYTHONPATH",
            ) from error
        raise blamed(f"{kind} {name} cannot be imported", error) from error
    except Exception as error:  # whatever the user's own module raises
        raise blamed(f"{kind} {name} cannot be imported", error) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"the {kind} {name}: {_file(module)} defines no {part!r}", hint=_there_are(kind, found, module))
        found = getattr(found, part)
    return found


def _file(module: str) -> str:
    return getattr(sys.modules[module], "__file__", None) or module


def _there_are(kind: str, found: object, module: str) -> str:
    thing, word = (FunctionType, "function") if kind == RULE else (type, "class")
    names = [name for name, value in vars(found).items() if isinstance(value, thing) and value.__module__ == module]
    return f"it defines {', '.join(names)}" if names else f"it defines no {word}: was another file meant?"


def where(thing: object) -> str:
    """`file:line` of a class or function of the user's; its name where Python does not know."""
    code: CodeType | None = getattr(inspect.unwrap(thing) if callable(thing) else thing, "__code__", None)
    if code is not None:
        return f"{code.co_filename}:{code.co_firstlineno}"
    try:
        target = thing if inspect.isclass(thing) else type(thing)
        return f"{inspect.getfile(target)}:{inspect.getsourcelines(target)[1]}"
    except (OSError, TypeError):
        return repr(thing)


def check_call(what: str, function: Callable[..., object], *names: str) -> None:
    """Refuse what cannot be called with arguments of these names, in this order.

    Raises:
        ConfigError: it cannot.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of what is not written in Python, such as dict
        raise ConfigError(
            f"{where(function)}: nobody can see how {what} is called", hint="name a class or a function that is written in Python"
        ) from None
    try:
        signature.bind(*names)
    except TypeError:
        mine = getattr(function, "__func__", function)
        place = where(mine.__init__ if inspect.isclass(mine) and "__init__" in vars(mine) else mine)
        takes = ", ".join(signature.parameters) or "nothing"
        raise ConfigError(
            f"{place}: {what} takes {takes}, and is called with {', '.join(names)}", hint=f"write def ...({', '.join(names)})"
        ) from None


def blamed(what: str, error: BaseException) -> SageServeError:
    """The error to raise for one that came out of the user's code: what it was, and the last line of theirs it passed."""
    if isinstance(error, ConfigError):
        return error  # said on purpose, and says where
    place, said = _last_line_of_theirs(error), str(error).partition("\n")[0]
    if isinstance(error, SyntaxError) and error.filename:
        place, said = f"{error.filename}:{error.lineno}: ", error.msg
    return PluginError(f"{place}{what}: {type(error).__name__}" + (f": {said}" if said else ""), hint=_TRACE)


def _last_line_of_theirs(error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not is_part_of_sageserve(frame.filename)]
    theirs = [frame for frame in frames if not is_library(frame.filename)] or frames
    return f"{theirs[-1].filename}:{theirs[-1].lineno}: " if theirs else ""


def is_part_of_sageserve(file: str) -> bool:
    """Whether a source file is one of this package, or of Python's own machinery."""
    return file.startswith((_PACKAGE, "<frozen "))


def is_library(file: str) -> bool:
    """Whether a source file belongs to Python or to an installed package."""
    return file.startswith(tuple(f"{place}/" for place in _PLACES))
