"""YAML with places: values as plain Python, and beside them where each was written.

Knows the YAML that scenarios may use: one document of mappings, lists and scalars of YAML 1.2's core schema
(so `1e7` is a number, `yes` and `12:30` are text), keys are text, no tags, no duplicate keys, bounded size,
depth and number of nodes. Must not know what any key means. Read next: `data/scenarios/layers.py` for how documents are
laid over each other.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import yaml

Value: TypeAlias = "bool | int | float | str | list[Value] | dict[str, Value] | None"
Keys: TypeAlias = tuple[str | int, ...]
"""The way from the root to a value: keys of mappings, indices of lists."""

BYTES_MAX: Final = 1 << 20  # a fleet of a hundred models in sixty regions takes about 100 kB
_DEPTH_MAX: Final = 40
_NODES_MAX: Final = 100_000  # aliases inside aliases grow without bound otherwise

_BOOL: Final = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_INT: Final = re.compile(r"^[-+]?[0-9]+(?:_[0-9]+)*$")
_FLOAT: Final = re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:_[0-9]+)*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")  # half a character, from an escape: no encoding has it
_NULL: Final = re.compile(r"^(?:~|null|Null|NULL|)$")
_TAG: Final = "tag:yaml.org,2002:"


@dataclass(frozen=True, slots=True)
class SourcePlace:
    """Where a value was written: a file and a line, or a setting of the command line (line 0)."""

    source: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


@dataclass(frozen=True, slots=True)
class Complaint:
    """One thing that is wrong: where, at which keys, and a sentence."""

    where: str
    keys: Keys
    text: str

    def __str__(self) -> str:
        at = ".".join(str(key) for key in self.keys)
        return ": ".join(part for part in (self.where, at, self.text) if part)


@dataclass(slots=True)
class Document:
    """A mapping, the place of every value in it, what is wrong with it, and what is to be said of it all the same."""

    values: dict[str, Value] = field(default_factory=dict)
    places: dict[Keys, SourcePlace] = field(default_factory=dict)
    complaints: list[Complaint] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def place(self, keys: Keys) -> SourcePlace | None:
        """The place of a value, or of the nearest mapping around it that has one."""
        while keys and keys not in self.places:
            keys = keys[:-1]
        return self.places.get(keys)


class _Loader(yaml.SafeLoader):
    """The pure Python loader, which says best what is wrong and raises where nesting is deep."""


class _QuickLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc] # missing where PyYAML was built without C
    """Ten times as fast; but it may overflow the stack on deep nesting, and takes tabs and lone marks in its own way."""


class _Dumper(yaml.SafeDumper):
    """Quotes what either YAML 1.1 or this module would read as something other than text."""


_Loader.yaml_implicit_resolvers = _QuickLoader.yaml_implicit_resolvers = {}
_Dumper.yaml_implicit_resolvers = {key: list(rules) for key, rules in yaml.SafeDumper.yaml_implicit_resolvers.items()}
for _name, _rule, _first in (
    ("bool", _BOOL, list("tTfF")),
    ("int", _INT, list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
    ("null", _NULL, ["~", "n", "N", ""]),
):
    _Loader.add_implicit_resolver(_TAG + _name, _rule, _first)
    _Dumper.add_implicit_resolver(_TAG + _name, _rule, _first)


class _Reader:
    """One walk over the nodes of one file."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.document = Document()
        self.nodes = 0

    def complain(self, node: yaml.Node, keys: Keys, text: str) -> None:
        self.document.complaints.append(Complaint(f"{self.source}:{node.start_mark.line + 1}", keys, text))

    def value(self, node: yaml.Node, keys: Keys) -> Value:
        self.nodes += 1
        if self.nodes > _NODES_MAX or len(keys) > _DEPTH_MAX:
            if self.nodes <= _NODES_MAX + 1:
                self.complain(node, keys[:3], f"more than {_NODES_MAX} values or {_DEPTH_MAX} levels")
            self.nodes = _NODES_MAX + 1
            return None
        self.document.places.setdefault(keys, SourcePlace(self.source, node.start_mark.line + 1))
        match node:
            case yaml.MappingNode(tag="tag:yaml.org,2002:map"):
                return dict(self.pairs(node, keys))
            case yaml.SequenceNode(tag="tag:yaml.org,2002:seq"):
                return [self.value(item, (*keys, i)) for i, item in enumerate(node.value)]
            case yaml.ScalarNode():
                return self.scalar(node, keys)
            case _:
                self.complain(node, keys, f"tag {node.tag.replace(_TAG, '!!')!r} is not used in scenarios")
                return None

    def pairs(self, node: yaml.MappingNode, keys: Keys) -> Iterator[tuple[str, Value]]:
        seen: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.complain(key, keys, "a key must be a word")
                continue
            name, line = str(key.value), key.start_mark.line + 1
            if name in seen:
                self.complain(key, (*keys, name), f"given twice, first in line {seen[name]}")
                continue
            seen[name] = line
            self.document.places[*keys, name] = SourcePlace(self.source, line)
            yield name, self.value(value, (*keys, name))

    def scalar(self, node: yaml.ScalarNode, keys: Keys) -> Value:
        text = str(node.value)
        match node.tag.removeprefix(_TAG):
            case "str" if text.isascii() or not _SURROGATE.search(text):
                return text
            case "null":
                return None
            case "bool":
                return text.lower() == "true"
            case "int" | "float" if len(text) <= 40:
                return _number(text.replace("_", ""))
            case _:
                self.complain(node, keys, f"cannot read {text[:40]!a}: write plain text or a number")
                return None


def _number(text: str) -> int | float | str:
    """An int where it is whole and fits 64 bits (1e7 counts things), else a float; text when no float holds it."""
    number = float(text)
    if abs(number) == float("inf"):
        return text
    if abs(number) < 2**63 and "." not in text and number.is_integer():
        return int(number) if "e" in text.lower() else int(text)
    return number


def read_yaml(text: str, source: str, *, ours: bool = False) -> Document:
    """The document in a text; what is wrong is collected in its `complaints`, with lines.

    Args:
        text: YAML, one document whose root is a mapping; empty counts as an empty mapping.
        source: what to call it in places and complaints.
        ours: it came with the package, and is shallow and plain: it is read by the loader in C.
    """
    reader = _Reader(source)
    try:
        root = yaml.compose(text, Loader=_QuickLoader if ours else _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{source}:{mark.line + 1}" if mark else source
        what = "; ".join(part for part in (error.context, error.problem) if part)
        reader.document.complaints.append(Complaint(where, (), f"not valid YAML: {what}"))
        return reader.document
    except (yaml.YAMLError, RecursionError) as error:
        what = "nested too deeply" if isinstance(error, RecursionError) else str(error).splitlines()[0]
        reader.document.complaints.append(Complaint(source, (), f"not valid YAML: {what}"))
        return reader.document
    if root is None or (isinstance(root, yaml.ScalarNode) and not root.value):
        return reader.document
    value = reader.value(root, ())
    if isinstance(value, dict):
        reader.document.values = value
    elif not reader.document.complaints:
        reader.complain(root, (), "a scenario is a mapping of settings, such as `seed: 1`")
    return reader.document


def read_value(text: str) -> Value:
    """The value of a `--set` in YAML syntax.

    Raises:
        ValueError: not valid YAML.
    """
    wrapped = read_yaml("value: " + text if "\n" not in text else f"value:\n{text}", "--set")
    if wrapped.complaints:
        raise ValueError(wrapped.complaints[0].text)
    return wrapped.values["value"]


def write_yaml(value: Value) -> str:
    """YAML text that `read_yaml` reads back to an equal value; equal values give equal text."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100, default_flow_style=None)
