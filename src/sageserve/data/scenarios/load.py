"""Scenarios from files: one checked, frozen `Scenario` from a built-in name or a YAML file, and where each value came from.

    loaded = load("quickstart", overrides=["fleet.start=4"])
    loaded.scenario.fleet.start            # 4
    loaded.origin(("fleet", "start"))      # --set fleet.start=4

Stages: read and lay over each other (`layers.py`), type (pydantic), check that it can work (`checks.py`).
Each stage reports everything it finds at once. Must not simulate, and must not change a value it was given.
Read next: `base/config/scenario.py` for the tree itself.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from pydantic import BaseModel, ValidationError

from sageserve.base.config import Scenario
from sageserve.base.errors import ConfigError, Infeasible
from sageserve.data.documents import BUILTIN
from sageserve.data.scenarios.checks import problems, remarks
from sageserve.data.scenarios.errors import MISSING, complaints_of, node_at, on_one_screen
from sageserve.data.scenarios.layers import Stack, builtin_names, find, is_engine
from sageserve.data.scenarios.problem import SettingProblem
from sageserve.data.yaml_positions import Complaint, Document, Keys, SourcePlace, Value, write_yaml

_OF_ALL: Final = ("adapters", "speculative")  # that a model may say for all of its engines


@dataclass(frozen=True, slots=True)
class Loaded:
    """A scenario and the document it came from."""

    scenario: Scenario
    document: Document

    def origin(self, keys: Keys) -> str:
        """Where a value came from: `file:line`, the `--set` that gave it, or `default: <its reason>`."""
        engine = next((keys[:end] for end in (4, 5) if is_engine(keys[:end])), ())
        if engine and (said := self._of_engine(engine, keys[len(engine) :])):
            return said
        if place := self.document.places.get(keys):
            return str(place)
        if keys == ("name",):
            return "name of the file"
        parent = node_at(keys[:-1])
        if isinstance(parent, type) and issubclass(parent, BaseModel) and keys:
            field = parent.model_fields[str(keys[-1])]
            if (switch := self._switch(keys)) is not None and dict(self.leaves()).get(keys) != field.default:
                return str(switch)
            return f"default: {field.description}"
        return str(self.document.place(keys) or "default")

    def _of_engine(self, engine: Keys, below: Keys) -> str:
        """Where a value of an engine came from that is not as it was written there; empty: it is."""
        model, adapters, places = engine[:2], (*engine, "adapters"), self.document.places
        of = self.scenario.models[str(engine[1])]
        engines = of.engines if engine[2] == "engines" or of.disaggregated is None else of.disaggregated.decode
        told = self._written(adapters) or self._written((*model, "adapters"))
        counted = isinstance(told, dict) and told.get("counted") is True
        if engines[str(engine[-1])].adapters is not None and not counted:  # their memory is taken off here
            if below == ("kv_tokens",):
                return f"{self.document.place((*engine, *below)) or 'default'}, less the slots of adapters"
            if below == ("adapters", "counted"):
                return "derived: they are taken off kv_tokens"
        if below[0] in _OF_ALL and (*engine, below[0]) not in places and (*engine, *below) not in places:
            return str(places.get((*model, *below), ""))
        return ""

    def _written(self, keys: Keys) -> Value:
        """What the document has at some keys; None: nothing."""
        node: Value = self.document.values
        for key in keys:
            node = node.get(str(key)) if isinstance(node, dict) else None
        return node

    def _switch(self, keys: Keys) -> SourcePlace | None:
        """Where a word was written that stands for the whole node of a value, such as `admission: off`."""
        node: Value = self.document.values
        for end, key in enumerate(keys[:-1], start=1):
            node = node.get(str(key)) if isinstance(node, dict) else None
            if isinstance(node, str) and keys[:end] in self.document.places:
                return self.document.places[keys[:end]]
        return None

    def remarks(self) -> list[str]:
        """What works, and yet may say little."""
        return [*self.document.notes, *remarks(self.scenario)]

    def leaves(self) -> Iterator[tuple[Keys, Value]]:
        """Every value of the resolved tree in the order of the tree, with its keys; lists are single values."""
        return _leaves((), dump(self.scenario, defaults=True))


def _leaves(keys: Keys, value: Value) -> Iterator[tuple[Keys, Value]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves((*keys, key), inner)
    else:
        yield keys, value


def dump(scenario: Scenario, *, defaults: bool = False) -> dict[str, Value]:
    """The resolved tree as plain values with units; `defaults` keeps settings that are none."""
    values: dict[str, Value] = scenario.model_dump(mode="json", exclude_none=not defaults)
    models = values["models"]
    for model in models.values() if isinstance(models, dict) and not defaults else ():
        _say_once(model)
    return values


def _say_once(model: Value) -> None:
    """Leave out of its engines what is said of the model, so that who changes it there changes it."""
    assert isinstance(model, dict)
    apart = model.get("disaggregated")
    for engines in (model["engines"], apart.get("decode") if isinstance(apart, dict) else None):
        for engine in engines.values() if isinstance(engines, dict) else ():
            if isinstance(engine, dict) and "speculative" in engine and engine["speculative"] == model.get("speculative"):
                del engine["speculative"]


def resolved_yaml(scenario: Scenario) -> str:
    """One self-contained scenario file, every default written out; loads back to an equal scenario, equal bytes."""
    return write_yaml(dump(scenario))


def load(reference: str | Path, *, overrides: Sequence[str] = ()) -> Loaded:
    """Read, resolve and check a scenario.

    Args:
        reference: a built-in name, or the path of a YAML file.
        overrides: settings `key.path=value` that win over the files, later ones over earlier ones.

    Raises:
        ConfigError: unreadable, unknown keys, wrong values or references; all of them in one message.
        Infeasible: every value is legal, but together they cannot work; the message shows the arithmetic.
    """
    path = reference if isinstance(reference, Path) else find(reference, Path())
    stack = Stack()
    stack.add_file(path)
    for override in overrides:
        stack.add_setting(override)
    stack.name_engines()
    stack.read_carbon()
    stack.document.values.setdefault("name", path.stem)
    scenario = _typed(stack.document, path.stem)
    _check(scenario, stack.document)
    return Loaded(scenario, stack.document)


def load_scenario(reference: str | Path, *, overrides: Sequence[str] = ()) -> Scenario:
    """The scenario of `load`, for callers that do not ask where values came from."""
    return load(reference, overrides=overrides).scenario


def _typed(document: Document, name: str) -> Scenario:
    found = list(document.complaints)
    if unread := [one for one in found if not one.keys]:  # whatever is missing then is missing for that reason
        raise ConfigError(on_one_screen(name, unread), hint="mend that first; `sageserve scenario show quickstart` is an example")
    try:
        scenario = Scenario.model_validate_json(msgspec.json.encode(document.values), strict=True)
    except ValidationError as error:
        known = {complaint.keys for complaint in found}
        more = [one for one in complaints_of(error, document) if not any(one.keys[: len(k)] == k for k in known if k)]
        found += [one for one in more if not (("extends",) in known and one.text == MISSING)]  # it may be in what is extended
        raise ConfigError(on_one_screen(name, found), hint=_way_out(found)) from None
    if found:
        raise ConfigError(on_one_screen(name, found), hint=_way_out(found))
    return scenario


def _way_out(complaints: Sequence[Complaint]) -> str:
    if any("engine profile" in complaint.text for complaint in complaints):
        from sageserve.data.profiles.library import profile_entries  # noqa: PLC0415 # two megabytes of a gateway, whose scenario names none

        return f"measured profiles: {', '.join(profile_entries())}; `sageserve profile list` shows those derived for other models"
    return "`sageserve scenario schema` describes every key; `sageserve scenario show quickstart` is a working example"


def _check(scenario: Scenario, document: Document) -> None:
    found = problems(scenario)
    if not found:
        return
    complaints = [Complaint(str(document.place(one.keys) or ""), one.keys, one.text) for one in found]
    kind = Infeasible if any(one.arithmetic for one in found) else ConfigError
    raise kind(on_one_screen(scenario.name, complaints), hint=_hints(found))


def _hints(found: Sequence[SettingProblem]) -> str:
    return "\n".join(dict.fromkeys(one.hint for one in found if one.hint))


def check(scenario: Scenario) -> Scenario:
    """The scenario itself, if it can work; for scenarios made in code.

    Raises:
        ConfigError: a name that is not defined.
        Infeasible: the settings cannot work together.
    """
    _check(scenario, Document())
    return scenario


def catalogue() -> Iterator[tuple[str, str, bool]]:
    """Every built-in file: its name, what it is about, and whether it runs by itself or is a part for `extends`."""
    for name in builtin_names():
        stack = Stack()
        stack.add_file(BUILTIN / f"{name}.yaml")
        values = stack.document.values
        workload = values.get("workload")
        generate = workload.get("generate") if isinstance(workload, dict) else None
        whole = "models" in values and isinstance(generate, dict) and "shapes" in generate
        yield name, str(values.get("about", "")), whole
