"""The JSON Schema of scenario files, for editors and other programs.

It describes a file, not the resolved tree: a file may extend others, so no key is required; null takes away an entry that
an extended file has; an engine may be the name of a library profile, and admission a switch. Read next: `layers.py` for what
these mean.
"""

from pydantic import JsonValue

from sageserve.base.config import Scenario
from sageserve.data.profiles.library import profile_entries

Schema = dict[str, JsonValue]


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
    admission = _within(_within(schema, "properties"), "admission")
    node = {"$ref": admission.pop("$ref")}
    admission["anyOf"] = [node, {"enum": ["on", "off"], "description": "`off` is short for `{act: false}`"}]
    _within(schema, "properties")["extends"] = {
        "description": "built-in names or paths of scenario files that this one is laid over, in order",
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
    }
    return schema


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
