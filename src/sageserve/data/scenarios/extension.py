"""A small scenario file that extends another one by some settings.

Knows no setting. Read next: `layers.py`, which reads such a file.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from sageserve.base.errors import ConfigError
from sageserve.data.documents import write_text
from sageserve.data.scenarios.layers import Stack, builtin_names, find
from sageserve.data.yaml_positions import Value, write_yaml


def write_extension(path: Path, reference: str, settings: Sequence[str], about: str, *, replace: bool = False) -> None:
    """Write a scenario file that is another one with some settings; it appears under its name only when it is complete.

    Args:
        path: of the file.
        reference: a built-in name, or the path of a scenario file.
        settings: `key.path=value`, later ones win.
        about: what it is for, in a sentence.
        replace: also over a file that is there.

    Raises:
        ConfigError: the scenario or a setting cannot be read, the file is there already, or it cannot be written.
    """
    check_place(path, replace=replace)
    text = write_yaml({"extends": [_from(path, reference)], "about": about, **_merged(reference, settings)})
    write_text(path, text)


def check_place(path: Path, *, replace: bool) -> None:
    """Raise ConfigError where a file cannot be written: before the work whose result it is."""
    if path.exists() and not replace:
        raise ConfigError(f"{path} is there already", hint="give another name, or --replace")
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent} is no folder", hint="make it first, or give another path")


def _from(path: Path, reference: str) -> str:
    """How the file at `path` names the other one."""
    if reference in builtin_names():
        return reference
    return os.path.relpath(find(reference, Path()).resolve(), path.parent.resolve())


def _merged(reference: str, settings: Sequence[str]) -> dict[str, Value]:
    """The settings as one tree; `null` stays, for it takes away what the other file has."""
    stack = Stack()
    stack.add_file(find(reference, Path()))
    found: dict[str, Value] = {}
    for setting in settings:
        layer = stack.layer_of(setting)
        stack.add(layer)
        _lay(found, layer.values)
    return found


def _lay(base: dict[str, Value], over: dict[str, Value]) -> None:
    for key, value in over.items():
        below = base.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            _lay(below, value)
        else:
            base[key] = value
