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

from sageserve.base.config import AdapterSettings, ProfileSettings
from sageserve.base.errors import ConfigError, Infeasible
from sageserve.data.documents import BUILTIN, read_file, suggest
from sageserve.data.profiles.engines import usual_limits, usual_slots
from sageserve.data.profiles.hardware import gpu_named, gpu_names, is_model, model_names, shape
from sageserve.data.profiles.roofline import DEFAULTS, TENSOR_PARALLEL, Parallelism, roofline
from sageserve.data.yaml_positions import Document, Keys, SourcePlace, Value, read_value

PROFILES: Final = "profiles"
NOT_MODELLED: Final = ("encoders of images and audio",)
"""What engines do and no profile knows; docs/reference/limits.md says which way that moves results."""
_ADAPTER_BANDWIDTH: Final = 0.60
"""Share of a GPU's bandwidth at which a LoRA adapter is read: 83.9 MB in 28.9 us on an H200 (docs/reference/engine-model.md)."""
_ADAPTER_LAYER_US: Final = 35.0
"""Of each layer, that adapters are on and any computes: (558 + 567) us of 32 layers, in the same run."""
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


def adapters_of(told: AdapterSettings, *, model: str, engine: str, gpu: str, tp: int) -> AdapterSettings:
    """The same, with what follows from the engine, the model and the GPU where nobody says it; what does not stays open.

    Args:
        told: what is said.
        model: its name, perhaps not one of ours.
        engine: with or without its version; empty: vLLM.
        gpu: GPU type, perhaps not one of ours.
        tp: GPUs of a rank.
    """
    size, each, once = told.size, told.adapter_us, told.any_us
    known = shape(model) if is_model(model) else None
    if size is None and known is not None:
        size = known.adapter_bytes_on(tp, told.rank)
    if each is None and size is not None and gpu in gpu_names():
        each = float(f"{size / (gpu_named(gpu).bandwidth * 1e6 * _ADAPTER_BANDWIDTH):.4g}")  # TB/s are 1e6 bytes a microsecond
    if once is None and known is not None:
        once = known.layers * _ADAPTER_LAYER_US
    more = {"slots": told.slots or usual_slots(engine), "size": size, "adapter_us": each, "any_us": once}
    return told.model_copy(update=more)


def adapting(listed: ListedProfile, text: str) -> ListedProfile:
    """The same profile with the adapter slots that an option says: `{slots: 8, rank: 16}`.

    Raises:
        ConfigError: the text says something else, or slots leave no memory.
    """
    hint = "write --adapters '{slots: 8, rank: 16}'; size, adapter_us and any_us, too, where the model or the GPU is not known"
    profile, model = listed.profile, listed.model or listed.name.partition("/")[0]
    try:
        told = AdapterSettings.model_validate_json(msgspec.json.encode(read_value(text)), strict=True)
        filled = adapters_of(told, model=model, engine=profile.engine, gpu=profile.gpu, tp=profile.tp)
        return replace(listed, profile=profile.with_adapters(filled))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(str(key) for key in one['loc'])}: {one['msg']}" for one in error.errors(include_url=False))
        raise ConfigError(f"--adapters {text}: {faults}", hint=hint) from None
    except ValueError as error:
        raise ConfigError(f"--adapters {text}: {error}", hint=hint) from None


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
