"""One value of a scenario file set in its text: every other character stays, comments and order too.

    set_values(Path("fleet.yaml"), ["fleet.start=4"])

A value that is there is replaced where it stands, and is no guess any more; a new key goes to the end of the mapping around it.
The file is checked before it is put in place; its line ends and its mode stay, and a link still leads to it.
Read next: `load.py`, `draft.py`, `extension.py` for a file that extends another.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import yaml

from sageserve.base.errors import ConfigError
from sageserve.data.documents import read_file, write_text
from sageserve.data.scenarios.layers import Stack, builtin_names
from sageserve.data.scenarios.load import load
from sageserve.data.yaml_positions import Value

_MARK: Final = re.compile(r"[ \t]*#[ \t]*(?:guess|unsure):[^\r\n]*")
_NULL: Final = "tag:yaml.org,2002:null"
_PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/%-]*")


def set_values(path: Path, settings: Sequence[str]) -> None:
    """Set values of a scenario file; it is replaced only when the result is a scenario that can work.

    Args:
        path: of the file.
        settings: `key.path=value`.

    Raises:
        ConfigError: the file or a setting cannot be read, or the result is wrong.
    """
    if str(path) in builtin_names() and not path.exists():
        raise ConfigError(
            f"{path} is built in, and stays as it is",
            hint=f"write a file with the line `extends: {path}`, and set its values",
        )
    document = read_file(path)
    if document.complaints:
        raise ConfigError(str(document.complaints[0]), hint="mend the file first")
    text = path.read_bytes().decode("utf-8")  # as it is: a text file opened as one would lose its line ends
    for setting in settings:
        stack = Stack()
        stack.add_file(path)  # for keys that hold dots, of this file and of those it extends
        keys, value = _leaf(stack.layer_of(setting).values)
        text = _set(text, keys, value)
    part = path.with_name(f".{path.stem}.part-{os.getpid()}.yaml")
    try:
        part.write_text(text, "utf-8", newline="")
        load(part, overrides=[f"name={path.stem}"] if "name" not in document.values else [])
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}", hint="check its permissions") from None
    except ConfigError as error:
        raise type(error)(
            f"nothing was changed; {error.message.replace(part.name, path.name).replace(part.stem, path.stem)}", hint=error.hint
        ) from None
    finally:
        part.unlink(missing_ok=True)
    write_text(path, text)


def _leaf(values: dict[str, Value]) -> tuple[list[str], Value]:
    """The keys of a setting and its value; a value that is a mapping is written whole."""
    keys: list[str] = []
    node: Value = values
    while isinstance(node, dict) and len(node) == 1 and not (keys and not node):
        ((key, node),) = node.items()
        keys.append(key)
    return keys, node


def _set(text: str, keys: Sequence[str], value: Value) -> str:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is None:
        start = "" if not text or text.endswith("\n") else "\n"
        return text + _lines(text, start + _block(keys, value, 0))
    node: yaml.Node = root
    for depth, key in enumerate(keys):
        if not isinstance(node, yaml.MappingNode):
            if node.tag != _NULL:
                name = ".".join(keys[:depth])
                raise ConfigError(
                    f"nothing was changed; {name} is one value, which holds no {key!r}",
                    hint=f"set {name}=VALUE, or check the key",
                )
            return _replace(text, node, _flow(_nested(keys[depth:], value)))
        found = next((inner for name, inner in node.value if str(name.value) == key), None)
        if found is None:
            return _add(text, node, keys[depth:], value)
        node = found
    return _replace(text, node, _flow(value))


def _replace(text: str, node: yaml.Node, written: str) -> str:
    begin, end = node.start_mark.index, node.end_mark.index
    old = text[begin:end]
    if isinstance(node, yaml.ScalarNode):  # a text of several lines ends where the next key begins
        end = begin + len(old.rstrip())
    elif "\n" in old:  # and so does a block
        lines = old.splitlines(keepends=True)
        while not lines[-1].strip() or lines[-1].lstrip().startswith("#"):  # those are about what comes next
            lines.pop()
        end = begin + len("".join(lines).rstrip())
    if begin == end and text[begin - 1] == ":":
        written = f" {written}"
    rest = text[end:]
    line, newline, below = rest.partition("\n")
    return text[:begin] + written + _MARK.sub("", line) + newline + below


def _add(text: str, node: yaml.MappingNode, keys: Sequence[str], value: Value) -> str:
    if node.flow_style:
        inner = f"{_key(keys[0])}: {_flow(_nested(keys[1:], value))}"
        if not node.value:
            end = node.end_mark.index - 1
            return f"{text[:end]}{inner}{text[end:]}"
        last_key, last = node.value[-1]
        end = max(last.end_mark.index, last_key.end_mark.index)  # a comma and a comment after it stay where they are
        return f"{text[:end]}, {inner}{text[end:]}"
    last_key, last = node.value[-1]
    end = text.find("\n", len(text[: max(last.end_mark.index, last_key.end_mark.index)].rstrip()))
    end = len(text) if end < 0 else end - (text[end - 1] == "\r")
    block = _lines(text, f"\n{_block(keys, value, node.start_mark.column).rstrip()}")
    return f"{text[:end]}{block}{text[end:] or _lines(text, chr(10))}"


def _lines(text: str, more: str) -> str:
    """Lines with the ends that the text has."""
    return more.replace("\n", "\r\n") if "\r\n" in text else more


def _nested(keys: Sequence[str], value: Value) -> Value:
    for key in reversed(keys):
        value = {key: value}
    return value


def _block(keys: Sequence[str], value: Value, indent: int) -> str:
    lines = [f"{' ' * (indent + 2 * depth)}{_key(key)}:" for depth, key in enumerate(keys)]
    return "\n".join(lines) + f" {_flow(value)}\n"


def _flow(value: Value) -> str:
    """A value as YAML on one line."""
    match value:
        case dict():
            return "{" + ", ".join(f"{_key(key)}: {_flow(inner)}" for key, inner in value.items()) + "}"
        case list():
            return f"[{', '.join(_flow(inner) for inner in value)}]"
        case str() if _PLAIN.fullmatch(value) and isinstance(yaml.safe_load(value), str):
            return value
        case _:
            return msgspec.json.encode(value).decode()


def _key(name: str) -> str:
    return _flow(name)
