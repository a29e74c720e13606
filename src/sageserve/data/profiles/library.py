"""Engine profiles by name: measured ones that ship, ones derived for any known model and GPU, and those of a user's file.

    named("llama-2-70b/h100-80gb/tp8")      # measured: builtin/profiles.yaml
    named("qwen3-32b/h200/tp2")             # derived: roofline.py
    named("kimi-k2.5-nvfp4/b200/tp1dp4ep4") # derived, with data parallel ranks that share out the experts
    named("qwen3-32b/h200/tp2@sglang-0.5")  # derived, with the limits and the scheduling that are usual for that engine
    named("./mine.yaml#chat", Path("runs")) # from runs/mine.yaml, which has `profiles: {chat: {...}}`

A measured profile wins over a derived one of the same name. Knows names and files; must not know how a coefficient comes about.
Read next: `data/scenarios/layers.py`, which puts profiles where scenarios name them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Final, Literal

import msgspec
from pydantic import ValidationError

from sageserve.base.config import ProfileSettings
from sageserve.base.errors import ConfigError, Infeasible
from sageserve.data.documents import BUILTIN, read_file, suggest
from sageserve.data.profiles.engines import usual_limits
from sageserve.data.profiles.hardware import gpu_named, gpu_names, is_model, model_names, shape
from sageserve.data.profiles.roofline import DEFAULTS, TENSOR_PARALLEL, Parallelism, roofline
from sageserve.data.yaml_positions import Document, Keys, SourcePlace, Value, read_value

PROFILES: Final = "profiles"
NOT_MODELLED: Final = (
    "LoRA adapters that are swapped",
    "encoders of images and audio",
)
"""What engines do and no profile knows; docs/reference/limits.md says which way that moves results."""
_FILE: Final = re.compile(r"^(?P<path>[^#]+\.ya?ml)(?:#(?P<name>.+))?$")
_DERIVED: Final = re.compile(
    r"^(?P<model>[^/]+)/(?P<gpu>[^/]+)/tp(?P<tp>[1-9][0-9]?)(?:dp(?P<dp>[1-9][0-9]?))?(?:ep(?P<ep>[1-9][0-9]{0,2}))?(?:@(?P<engine>[^/@]+))?$"
)
_HINT: Final = "`sageserve profile list` shows all; ./mine.yaml#name is one of a file of your own"

Origin = Literal["measured", "derived", "file"]


@dataclass(frozen=True, slots=True)
class NamedProfile:
    """A profile as a scenario may hold it.

    Args:
        values: settings as plain values.
        places: where each was written, by its key; empty key for the profile itself.
        origin: where it comes from.
    """

    values: dict[str, Value]
    places: dict[Keys, SourcePlace]
    origin: Origin


@dataclass(frozen=True, slots=True)
class ListedProfile:
    """A profile of the library under its name."""

    name: str
    model: str
    gpu: str
    tp: int
    origin: Origin
    profile: ProfileSettings


@cache
def profile_library() -> Document:
    """The engine profiles that ship with the package: `profiles.<name>.<setting>`.

    Raises:
        ConfigError: the file of the package is damaged.
    """
    library = read_file(BUILTIN / f"{PROFILES}.yaml")
    if library.complaints:
        raise ConfigError(f"the profile library is damaged: {library.complaints[0]}", hint="install the package again")
    return library


def profile_entries() -> dict[str, Value]:
    """The profiles that ship, by name."""
    return _entries(profile_library())


def named(name: str, folder: Path = Path()) -> NamedProfile:
    """The profile a name or `file.yaml#name` stands for; paths are relative to `folder`.

    Raises:
        ConfigError: no such profile, model, GPU or file.
        Infeasible: the model does not fit on such GPUs; shows the arithmetic.
    """
    if match := _FILE.match(name):
        return _of_file(folder / Path(match["path"]).expanduser(), match["name"])
    if name in profile_entries():
        return _of(profile_library(), name, "measured")
    match = _DERIVED.match(name)
    if match and is_model(match["model"]) and match["gpu"] in gpu_names() and int(match["tp"]) in TENSOR_PARALLEL:
        ways = Parallelism(int(match["tp"]), int(match["dp"] or 1), int(match["ep"] or 1))
        values = _plain(derive(match["model"], match["gpu"], ways, match["engine"] or ""))
        return NamedProfile(values, {(): SourcePlace("derived by the roofline")}, "derived")
    raise ConfigError(f"no engine profile is called {name!r}{_meant(name)}", hint=_HINT)


def profile_named(name: str, folder: Path = Path()) -> ListedProfile:
    """The checked profile of a name, of `file.yaml#name`, or of a file that holds one.

    Raises:
        ConfigError: no such profile, or one with wrong settings.
        Infeasible: as for `named`.
    """
    found = named(name, folder)
    try:
        profile = ProfileSettings.model_validate_json(msgspec.json.encode(found.values), strict=True)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(str(key) for key in one['loc'])}: {one['msg']}" for one in error.errors(include_url=False))
        raise ConfigError(f"{name}: {faults}", hint="docs/reference/profiles.md describes every setting") from None
    match = _DERIVED.match(name)
    return ListedProfile(name, match["model"] if match else "", profile.gpu, profile.tp, found.origin, profile)


def speculating(listed: ListedProfile, text: str) -> ListedProfile:
    """The same profile with the speculation that an option says: `{tokens: 3, acceptance: 0.7, draft: 0.05}`.

    Raises:
        ConfigError: the text says something else, or drafts do not fit into an iteration.
    """
    hint = "write --speculative '{tokens: 3, acceptance: 0.7, draft: 0.05}'"
    try:
        told = read_value(text)
    except ValueError as error:
        raise ConfigError(f"--speculative {text}: {error}", hint=hint) from None
    try:
        values = listed.profile.model_dump() | {"speculative": told}
        return replace(listed, profile=ProfileSettings.model_validate(values))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(str(key) for key in one['loc'])}: {one['msg']}" for one in error.errors(include_url=False))
        raise ConfigError(f"--speculative {text}: {faults}", hint=hint) from None


@cache
def derive(model: str, gpu: str, ways: Parallelism, engine: str = "") -> ProfileSettings:
    """The profile by arithmetic.

    Args:
        model, gpu: our names.
        ways: how an instance is spread over its GPUs.
        engine: with or without its version, whose limits it has; empty: vLLM's of 2025.

    Raises:
        ConfigError: an unknown model, GPU or engine.
        Infeasible: it does not fit; shows the arithmetic.
    """
    shaped, rates = shape(model), gpu_named(gpu)
    limits = usual_limits(engine, rates, gpu, ways.tp) if engine else DEFAULTS
    try:
        return roofline(shaped, rates, ways, name=gpu, limits=limits)
    except Infeasible as error:
        raise Infeasible(f"{model}/{gpu}/{ways}: {error.message}", hint=error.hint) from None


def library(model: str | None = None, gpu: str | None = None) -> Iterator[ListedProfile]:
    """Every profile that can be had by name, in the order of models, GPUs and parallelism; those that do not fit are left out.

    Args:
        model: only of this model.
        gpu: only on this GPU.

    Raises:
        ConfigError: no profile has such a model or GPU.
    """
    models = [model] if model else [*model_names()]
    gpus = [gpu] if gpu else [*gpu_names()]
    for one in models:
        shape(one)
        for on in gpus:
            gpu_named(on)
            yield from _fitting(one, on)


def _fitting(model: str, gpu: str) -> Iterator[ListedProfile]:
    for tp in TENSOR_PARALLEL:
        name = f"{model}/{gpu}/tp{tp}"
        try:
            yield profile_named(name)
        except Infeasible:
            continue


def _entries(document: Document) -> dict[str, Value]:
    entries = document.values.get(PROFILES)
    return entries if isinstance(entries, dict) else {}


def _of(document: Document, name: str, origin: Origin) -> NamedProfile:
    entry = _entries(document)[name]
    assert isinstance(entry, dict)
    places = {at[2:]: place for at, place in document.places.items() if at[:2] == (PROFILES, name)}
    return NamedProfile(dict(entry), places, origin)


def _of_file(path: Path, name: str | None) -> NamedProfile:
    document = read_file(path)
    if document.complaints:
        raise ConfigError(str(document.complaints[0]), hint="a profile file is YAML: `profiles: {name: {...}}`")
    entries = {key: entry for key, entry in _entries(document).items() if isinstance(entry, dict)}
    if not entries:
        raise ConfigError(f"{path} holds no profiles", hint="a profile file is YAML: `profiles: {name: {...}}`")
    if name is None and len(entries) == 1:
        (name,) = entries
    if name is None:
        raise ConfigError(f"{path} holds {len(entries)} profiles", hint=f"say which: {path}#{next(iter(entries))}")
    if name not in entries:
        raise ConfigError(f"{path} has no profile {name!r}{suggest(name, list(entries))}", hint=_HINT)
    return _of(document, name, "file")


def _plain(profile: ProfileSettings) -> dict[str, Value]:
    values: dict[str, Value] = profile.model_dump(mode="json", exclude_none=True)
    return values


def _meant(name: str) -> str:
    """What to write instead: the nearest known part of a name of three parts, else the nearest name that ships."""
    parts = name.split("/")
    if len(parts) != 3:
        return suggest(name, [*profile_entries(), *(f"{model}/h100-80gb/tp1" for model in model_names())])
    model, gpu, _ = parts
    for part, known, found in ((model, model_names(), is_model(model)), (gpu, gpu_names(), gpu in gpu_names())):
        if not found:
            longer = [one for one in known if one.startswith(part)]  # h100 is nearer to h100-80gb than to h200
            return f"; did you mean {longer[0]!r}?" if longer else suggest(part, known)
    return suggest(name, [f"{model}/{gpu}/tp{count}" for count in TENSOR_PARALLEL])
