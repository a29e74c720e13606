"""The source of the user's own code that a scenario names, as a hash: a result is of the code that made it.

A module counts with every module it imports, as far as they are no part of Python, of SageServe or of other installed packages.
A file is read once, when its hash is first asked for after the import; whoever plays a run asks before. Imports what the scenario
names. Read next: `results/sweep_folder.py`, whose keys hold it; `core/plugins.py`.
"""

import ast
import hashlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Final

from sageserve.base.config import Scenario
from sageserve.core.forecast import FORECASTERS
from sageserve.core.forecast.own import own_forecaster
from sageserve.core.own_rules import own_rules
from sageserve.core.plugins import is_library, is_part_of_sageserve
from sageserve.core.strategies import STRATEGIES
from sageserve.core.strategies.fixed import fixed_kind
from sageserve.core.strategies.own import own_kind

_READ: Final[dict[str, tuple[object, str, tuple[str, ...]]]] = {}
"""By module: the spec it was imported with, the hash of its file, and what it imports. A module imported again has a new spec."""


def own_code(scenario: Scenario) -> dict[str, str]:
    """SHA-256 of the source behind each name of the user's own code in a scenario; empty where there is none.

    Raises:
        ConfigError: the code is not there.
        PluginError: it cannot be imported.
    """
    rules, found = scenario.strategy, {}
    if rules.name not in STRATEGIES and fixed_kind(rules.name) is None and (kind := own_kind(rules.name)) is not None:
        found[rules.name] = source_digest(kind.target)
    for name in (rules.planned.forecaster, rules.foresight.forecaster):
        if name not in FORECASTERS and (own := own_forecaster(name)) is not None:
            found[name] = source_digest(own.target)
    return found | {rule.name: source_digest(rule.function) for rule in own_rules(scenario)}


def _module_of(target: object) -> str:
    return str(getattr(target, "__module__", None) or type(target).__module__)


def source_digest(target: object) -> str:
    """SHA-256 of the module of a class, and of all it imports of the user's own; of its own lines where no file holds it."""
    module = _module_of(target)
    family, seen, waiting = module.partition(".")[0], dict[str, str](), [module]
    while waiting:
        name = waiting.pop()
        found = sys.modules.get(name)
        if name in seen or found is None or not _is_theirs(found, family):
            continue
        seen[name], imported = _read(name, found)
        waiting += [*imported, *_parents(name)]
    digest = hashlib.sha256() if seen else hashlib.sha256(_lines(target))
    for name in sorted(seen):
        digest.update(f"{name}\0{seen[name]}\0".encode())
    return digest.hexdigest()


def _lines(target: object) -> bytes:
    """Of a class that was typed into a notebook."""
    try:
        return inspect.getsource(target if isinstance(target, type) else type(target)).encode()
    except (OSError, TypeError):
        return b""


def _is_theirs(module: ModuleType, family: str) -> bool:
    file = getattr(module, "__file__", None)
    if file is None or is_part_of_sageserve(file):
        return False
    return module.__name__.partition(".")[0] == family or not is_library(file)


def _read(name: str, module: ModuleType) -> tuple[str, tuple[str, ...]]:
    """Hash and imports of a module's file, read once for each time it is imported."""
    known = _READ.get(name)
    if known is not None and known[0] is module.__spec__:
        return known[1], known[2]
    assert module.__file__ is not None
    content = Path(module.__file__).read_bytes()
    imported = tuple(_imports(name, content)) if module.__file__.endswith(".py") else ()
    _READ[name] = module.__spec__, hashlib.sha256(content).hexdigest(), imported
    return _READ[name][1], imported


def _imports(name: str, content: bytes) -> Iterator[str]:
    package = str(getattr(sys.modules[name], "__package__", "") or "")
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            start = ".".join([*above, *([node.module] if node.module else [])])
            yield start
            yield from (f"{start}.{alias.name}" for alias in node.names)


def _parents(name: str) -> Iterator[str]:
    while "." in name:
        name = name.rpartition(".")[0]
        yield name
