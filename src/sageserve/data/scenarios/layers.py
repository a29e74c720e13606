"""Scenario files laid over each other: built-in names and paths, `extends`, the profile library, `--set`.

Laying follows JSON Merge Patch (RFC 7386): mappings merge key by key, anything else replaces what was
there, null removes it. A model's engine may name a profile of the library or of a file (relative to the file that
names it); it is replaced by the profile's settings. Must not know which keys exist or what they mean, except
`extends`, `models.*.engines.*`, `models.*.disaggregated.decode.*` and `adapters` of these. Read next:
`data/profiles/library.py` for names of profiles, `load.py`, which types the result.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec
from pydantic import ValidationError

from sageserve.base.config import AdapterSettings
from sageserve.base.errors import ConfigError
from sageserve.base.urls import shown_text
from sageserve.data.billing.carbon import hourly_carbon
from sageserve.data.documents import BUILTIN, read_file, source_name, suggest
from sageserve.data.yaml_positions import Complaint, Document, Keys, SourcePlace, Value, read_value

_CHAIN_MAX: Final = 20  # files deep; people extend two or three
_PROFILES: Final = "profiles"  # file of the library: no scenario
_DERIVED: Final = ("slots", "size", "adapter_us", "any_us")  # of an engine's adapters
_KEY: Final = re.compile(r'"([^"]*)"|([^."]+)')


def builtin_names() -> tuple[str, ...]:
    """Names of the scenarios and parts of scenarios that ship with the package, sorted."""
    return tuple(sorted(path.stem for path in BUILTIN.glob("*.yaml") if path.stem != _PROFILES))


def find(reference: str, folder: Path) -> Path:
    """The file a name or path stands for; paths are relative to `folder`.

    Raises:
        ConfigError: there is no such built-in scenario and no such file.
    """
    if not reference.endswith((".yaml", ".yml")) and "/" not in reference:
        if reference in builtin_names():
            return BUILTIN / f"{reference}.yaml"
        _refuse_other(folder / reference)
        raise ConfigError(
            f"no built-in scenario is called {reference!r}{suggest(reference, builtin_names())}",
            hint="`sageserve scenario list` shows all; write ./name.yaml for a file of your own",
        )
    path = folder / Path(reference).expanduser()
    if not path.is_file():
        raise ConfigError(f"there is no file {path}", hint="give a scenario file or a name of `sageserve scenario list`")
    return path


def _refuse_other(path: Path) -> None:
    """Say what a file or folder is that was given in the place of a scenario."""
    if path.is_dir():
        raise ConfigError(f"{path} is a folder, not a scenario", hint="name the scenario.yaml in it, if it is a result")
    if path.is_file():
        raise ConfigError(
            f"{path} is no scenario: the name of a scenario file ends in .yaml",
            hint=f"name a scenario; simulate, size and compare take a trace beside it: --trace {path}",
        )


def is_engine(keys: Keys) -> bool:
    """Whether an engine's settings are there."""
    return keys[:1] == ("models",) and (len(keys), *keys[2:-1]) in ((4, "engines"), (5, "disaggregated", "decode"))


def _inside(value: Value) -> Iterable[tuple[str | int, Value]]:
    if isinstance(value, dict):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, list) else []


class Stack:
    """A document that others are laid over, one after the other; `document` is the result."""

    def __init__(self) -> None:
        self.document = Document()

    def add_file(self, path: Path, *, chain: tuple[Path, ...] = ()) -> None:
        """Lay what a file extends, in order, and then the file itself.

        Raises:
            ConfigError: a file cannot be read, or files extend each other in a circle.
        """
        if path.resolve() in chain or len(chain) >= _CHAIN_MAX:
            way = " > ".join(source_name(link) for link in (*chain, path))
            raise ConfigError(
                f"scenario files extend each other in a circle or too deeply: {way}", hint="take one of these `extends` out"
            )
        layer = read_file(path)
        extended = layer.values.pop("extends", [])
        names: list[Value] = extended if isinstance(extended, list) else [extended]
        for name in names:
            if isinstance(name, str):
                self._extend(name, path, layer, (*chain, path.resolve()))
            else:
                where = str(layer.place(("extends",)) or "")
                layer.complaints.append(Complaint(where, ("extends",), "give names or paths of scenarios"))
        if names:  # who extends another says its own name
            for own in ("name", "about"):
                self._forget((own,), self.document.values.pop(own, None))
        self.add(layer)

    def _extend(self, name: str, path: Path, layer: Document, chain: tuple[Path, ...]) -> None:
        try:
            target = find(name, path.parent)
        except ConfigError as error:
            layer.complaints.append(Complaint(str(layer.place(("extends",)) or ""), ("extends",), error.message))
        else:
            self.add_file(target, chain=chain)

    def add(self, layer: Document) -> None:
        """Lay a document over what is there."""
        self.document.complaints.extend(layer.complaints)
        self._lay(self.document.values, layer.values, layer, ())

    def add_setting(self, text: str) -> None:
        """Lay one `key.path=value` over what is there.

        Raises:
            ConfigError: as `layer_of`.
        """
        self.add(self.layer_of(text))

    def layer_of(self, text: str) -> Document:
        """A document of one `key.path=value`; keys that hold dots are found in what is there, or quoted.

        Raises:
            ConfigError: no `=`, no key, or a value that is not YAML.
        """
        told = shown_text(text)
        left, equals, right = text.partition("=")
        parts = [quoted or plain for quoted, plain in _KEY.findall(left)]
        if not equals or not all(part.strip() for part in parts) or not parts:
            raise ConfigError(f"--set {told}: not a setting", hint="write --set key.path=value, as in --set fleet.start=10")
        try:
            value = read_value(right.strip())
        except ValueError as error:
            raise ConfigError(f"--set {told}: the value is {error}", hint="values are YAML: 1h, [1, 2], {a: 1}") from None
        keys = self._known_keys([part.strip() for part in parts])
        place = SourcePlace(f"--set {told}")
        layer = Document(places={keys[:end]: place for end in range(1, len(keys) + 1)})
        node = layer.values
        for key in keys[:-1]:
            inner: dict[str, Value] = {}
            node[key] = inner
            node = inner
        node[keys[-1]] = value
        return layer

    def _known_keys(self, parts: list[str]) -> tuple[str, ...]:
        """Join parts of names with dots: at each level the longest key that exists wins."""
        keys: tuple[str, ...] = ()
        node: Value = self.document.values
        while parts:
            if isinstance(node, str) and is_engine(keys):
                node = self._profile(node, keys)
            known = node if isinstance(node, dict) else {}
            count = next((n for n in range(len(parts), 1, -1) if ".".join(parts[:n]) in known), 1)
            key = ".".join(parts[:count])
            keys, parts, node = (*keys, key), parts[count:], known.get(key)
        return keys

    def _lay(self, base: dict[str, Value], over: dict[str, Value], layer: Document, keys: Keys) -> None:
        for key, value in over.items():
            here = (*keys, key)
            below = base.get(key)
            if isinstance(value, dict):
                if isinstance(below, str) and is_engine(here):
                    below = self._profile(below, here)
                if not isinstance(below, dict):
                    self._forget(here, below)
                    below = {}
                base[key] = below
                self._keep_place(here, layer)
                self._lay(below, value, layer, here)
            else:
                self._forget(here, below)
                base[key] = value
                if value is None:
                    del base[key]
                self._keep_places(here, value, layer)

    def _forget(self, keys: Keys, value: Value) -> None:
        self.document.places.pop(keys, None)
        for key, inner in _inside(value):
            self._forget((*keys, key), inner)

    def _keep_places(self, keys: Keys, value: Value, layer: Document) -> None:
        self._keep_place(keys, layer)
        for key, inner in _inside(value):
            self._keep_places((*keys, key), inner, layer)

    def _keep_place(self, keys: Keys, layer: Document) -> None:
        if place := layer.place(keys):
            self.document.places[keys] = place

    def _profile(self, name: str, keys: Keys) -> dict[str, Value]:
        """The settings of a named profile, placed at `keys`; empty, and a complaint, when there is none."""
        from sageserve.data.profiles.library import named  # noqa: PLC0415 # two megabytes of every gateway: the scenario of a fleet that runs names none

        place = self.document.place(keys)
        folder = Path(place.source).parent if place and place.line else Path()
        try:
            found = named(name, folder)
        except ConfigError as error:
            self.document.complaints.append(Complaint(str(place or ""), keys, error.message))
            return {}
        for at, written in found.places.items():
            if at or not place:
                self.document.places[*keys, *at] = written
        for key in found.values:
            self.document.places.setdefault((*keys, key), found.places.get((), SourcePlace(name)))
        return dict(found.values)

    def read_carbon(self) -> None:
        """Put the numbers of a CSV file where a region's carbon names one, as seen from the file that names it."""
        regions = self.document.values.get("regions")
        for region, settings in regions.items() if isinstance(regions, dict) else ():
            if isinstance(settings, dict) and isinstance(name := settings.get("carbon"), str):
                place = self.document.place(("regions", region, "carbon"))
                folder = Path(place.source).parent if place and place.line else Path()
                try:
                    settings["carbon"] = [*hourly_carbon(folder / name)]
                except ConfigError as error:
                    self.document.complaints.append(Complaint(str(place or ""), ("regions", region, "carbon"), error.message))

    def name_engines(self) -> None:
        """Put the settings of library profiles where engines name one."""
        models = self.document.values.get("models")
        for model, settings in models.items() if isinstance(models, dict) else ():
            if isinstance(settings, dict):
                self._name_engines(settings.get("engines"), ("models", model, "engines"), settings)
                if isinstance(apart := settings.get("disaggregated"), dict):
                    self._name_engines(apart.get("decode"), ("models", model, "disaggregated", "decode"), settings)

    def _name_engines(self, engines: Value, keys: Keys, model: dict[str, Value]) -> None:
        for gpu, engine in engines.items() if isinstance(engines, dict) else ():
            named = str(keys[1])
            if isinstance(engine, str) and isinstance(engines, dict):
                from sageserve.data.profiles.naming import known_model, other_model  # noqa: PLC0415 # as above

                named = known_model(engine.partition("/")[0]) or named  # a file is of the model that it is given to
                engines[gpu] = self._profile(engine, (*keys, gpu))
                if text := other_model(engine.partition("/")[0], str(keys[1])):
                    self.document.notes.append(f"{'.'.join(map(str, (*keys, gpu)))}: the profile {engine} {text}")
            settings = engines[gpu] if isinstance(engines, dict) else None
            if isinstance(settings, dict) and isinstance(told := settings.get("adapters", model.get("adapters")), dict):
                served = model.get("engine") or settings.get("engine") or ""
                self._derive_adapters(settings, told, named, str(served), (*keys, gpu))

    def _derive_adapters(self, engine: dict[str, Value], told: dict[str, Value], model: str, served: str, keys: Keys) -> None:
        """Say of an engine's adapters what follows from the engine, the model and the GPU."""
        from sageserve.data.profiles.library import adapters_of  # noqa: PLC0415 # as above

        try:
            known = AdapterSettings.model_validate_json(msgspec.json.encode(told), strict=True)
        except ValidationError:
            return  # is complained of where all settings are
        gpu, tp = engine.get("gpu"), engine.get("tp")
        if isinstance(gpu, str) and isinstance(tp, int):
            every = adapters_of(known, model=model, engine=served, gpu=gpu, tp=tp).model_dump(mode="json", exclude_none=True)
            more: dict[str, Value] = {key: every[key] for key in _DERIVED if key in every and key not in told}
            engine["adapters"] = {**more, **told}
            for key in more:
                self.document.places.setdefault((*keys, "adapters", key), SourcePlace("derived: model, GPU and engine"))
