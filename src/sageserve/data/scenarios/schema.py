"""The JSON Schema of scenario files, for editors and other programs.

It describes a file, not the resolved tree: a file may extend others, so no key is required; null takes away an entry that
an extended file has; an engine may be the name of a library profile, and admission a switch. Read next: `layers.py` for what
these mean. docs/reference/scenario.md is `scenario_page()`, held equal by a test.
"""

from collections.abc import Iterator
from typing import Final

import msgspec
from pydantic import JsonValue

from sageserve.base.config import Scenario
from sageserve.base.units import show_duration
from sageserve.data.profiles.library import profile_entries

Schema = dict[str, JsonValue]

_HEAD: Final = """# The scenario file

Every key of a scenario file: what it takes, its default, and what it is for, with the reason of the number where it has one.
This page is made from the schema that files are checked by. `sageserve scenario schema` prints that for editors,
`sageserve scenario show NAME` a scenario with where each value comes from, and `sageserve init` writes a first one
([how](../how-to/your-own-fleet.md)).

A file may leave out whatever the file it extends has; what is marked *needed* must come from one of them. `null` takes a value
or an entry away.

| kind | written as |
|---|---|
| duration | a number with a unit: `250ms`, `1s`, `15m`, `1h30m`, `7d`, `1w` |
| share | `0.95` or `95%` |
| price | dollars an hour: `98.32/h` |
| size | `80GiB`, `512MB` |
| name | letters, digits, `.`, `_`, `/` and `-`, at most 100 |

"""
_KINDS: Final = {"(us|ms|s|min": "duration", "%$": "share", "/\\s*h$": "price", "[kKMGT]": "size", "._/-]*$": "name"}


def scenario_schema() -> Schema:
    """JSON Schema (draft 2020-12) of a scenario file."""
    schema: Schema = Scenario.model_json_schema(mode="validation")
    _loosen(schema)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "SageServe scenario file"
    names: JsonValue = {"type": "string", "examples": list(profile_entries())}
    properties = _within(_within(_within(schema, "$defs"), "ModelSettings"), "properties")
    engines = _within(_within(properties, "engines"), "patternProperties")
    engines.update({name: {"anyOf": [entry, names]} for name, entry in engines.items()})
    carbon = _within(_within(_within(_within(schema, "$defs"), "RegionSettings"), "properties"), "carbon")
    ways = carbon["anyOf"]
    assert isinstance(ways, list)
    ways.insert(-1, {"type": "string", "description": "a CSV file, as seen from this one"})
    admission = _within(_within(schema, "properties"), "admission")
    node = {"$ref": admission.pop("$ref")}
    admission["anyOf"] = [node, {"enum": ["on", "off"], "description": "`off` is short for `{act: false}`"}]
    _within(schema, "properties")["extends"] = {
        "description": "built-in names or paths of scenario files that this one is laid over, in order",
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
    }
    return schema


def scenario_page() -> str:
    """The page of the documentation: a section for each mapping, a row for each key."""
    schema, strict = scenario_schema(), Scenario.model_json_schema(mode="validation")
    parts, seen = [_HEAD], set[str]()
    waiting: list[tuple[str, Schema, Schema]] = [("", schema, strict)]
    while waiting:
        path, node, checked = waiting.pop(0)
        needed = checked.get("required", [])
        assert isinstance(needed, list)
        parts.append(f"## `{path}`\n\n{node['description']}\n\n" if path else "## The file itself\n\n")
        parts.append("| key | takes | default | what for |\n|---|---|---|---|\n")
        for key, one in _within(node, "properties").items():
            assert isinstance(one, dict)
            own = not path and key == "name"  # the file's, when it is left out
            parts.append(_row(key, one, needed=key in needed and not own))
            for name, many in _named(one):
                if name not in seen:
                    seen.add(name)
                    place = f"{path}.{key}{many}".removeprefix(".")
                    waiting.append((place, _within(_within(schema, "$defs"), name), _within(_within(strict, "$defs"), name)))
        parts.append("\n")
    return "".join(parts).rstrip("\n") + "\n"


def _named(node: JsonValue, many: str = "") -> Iterator[tuple[str, str]]:
    """Mappings a value holds, and whether by a name or in a list."""
    if isinstance(node, list):
        for one in node:
            yield from _named(one, many)
    if isinstance(node, dict):
        if "$ref" in node:
            yield str(node["$ref"]).rsplit("/", 1)[-1], many
        for key, one in node.items():
            yield from _named(one, ".NAME" if key == "patternProperties" else "[]" if key == "items" else many)


def _row(key: str, node: Schema, *, needed: bool) -> str:
    examples = _examples(node)
    about = str(node.get("description", "")) + (f"; for example `{examples}`" if examples else "")
    default = _default(node) if "default" in node else "*needed*" if needed else ""
    return f"| `{key}` | {_takes(node)} | {default} | {about} |\n".replace("||", "| |")


def _examples(node: JsonValue) -> str:
    """The first example of a value, where it has one."""
    if not isinstance(node, dict):
        return ""
    given, ways = node.get("examples"), node.get("anyOf")
    if isinstance(given, list):
        return str(given[0])
    return next((found for one in ways if (found := _examples(one))), "") if isinstance(ways, list) else ""


def _takes(node: JsonValue) -> str:
    assert isinstance(node, dict)
    ways, choices = node.get("anyOf"), node.get("enum")
    if isinstance(ways, list):
        kinds = dict.fromkeys(
            _takes(one) for one in ways if isinstance(one, dict) and "const" not in one and one.get("type") != "null"
        )
        known = [kind for kind in kinds if kind in _KINDS.values()]  # a share is a number too, and need not say so
        return " or ".join(known or kinds)
    if isinstance(choices, list):
        return " or ".join(f"`{one}`" for one in choices)
    if "$ref" in node or "patternProperties" in node:
        return "mapping" if "$ref" in node else "mapping by name"
    match node.get("type"):
        case "array":
            return f"list of {_takes(node['items'])}" if "items" in node else "list"
        case "string":
            return next((kind for part, kind in _KINDS.items() if part in str(node.get("pattern", ""))), "text")
        case "boolean":
            return "true or false"
        case "object":
            return "mapping"
        case word:
            return ("whole number" if word == "integer" else str(word)) + _bounds(node)


def _bounds(node: Schema) -> str:
    words = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [f"{sign} {node[key]:,}" for key, sign in words.items() if isinstance(node.get(key), int) and key in node]
    return f" {' and '.join(found)}" if found else ""


def _default(node: Schema) -> str:
    value = node["default"]
    if isinstance(value, dict) or value is None:
        return "none" if value is None else "below"
    if isinstance(value, int) and not isinstance(value, bool) and "duration" in _takes(node):
        return f"`{show_duration(value)}`" if value else "`0`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{msgspec.json.encode(value).decode()}`"


def _within(schema: Schema, key: str) -> Schema:
    value = schema[key]
    assert isinstance(value, dict)
    return value


def _loosen(node: JsonValue) -> None:
    """Require nothing, and let entries of mappings be null."""
    if isinstance(node, list):
        for item in node:
            _loosen(item)
    if not isinstance(node, dict):
        return
    for name in ("required", "minProperties"):
        if not isinstance(node.get(name), dict):  # a property of that name is a schema
            node.pop(name, None)
    for value in node.values():
        _loosen(value)
    entries = node.get("patternProperties")  # a mapping from names to settings
    if isinstance(entries, dict) and "type" in node:
        node["patternProperties"] = {name: {"anyOf": [entry, {"type": "null"}]} for name, entry in entries.items()}
        node["additionalProperties"] = False
