"""Engines by name and version, and what they do where nobody says otherwise.

    engine_named("vLLM 0.19.0")                                # name vllm, version (0, 19, 0)
    usual_limits("sglang 0.5.9", gpu_named("h200"), "h200", 2)  # prefill first, pieces of 8,192 tokens, 2,048 sequences
    other_engine("vllm 0.19", "sglang 0.5")                    # why a profile of the one says little of the other

The facts are in `facts/engines.yaml`, each with its source. How fast an engine is does not follow from them. Knows no model. Read
next: `roofline.py`, which puts limits into a profile; docs/reference/profiles.md, "Engines".
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import Final

import msgspec
from pydantic import Field

from sageserve.base.config.settings import Settings
from sageserve.base.errors import ConfigError
from sageserve.base.units import Size
from sageserve.data.documents import suggest
from sageserve.data.profiles.hardware import Gpu, facts
from sageserve.data.profiles.roofline import DEFAULTS, BatchLimits

_SPELT: Final = {
    "tensorrt-llm": "trtllm",
    "trt-llm": "trtllm",
    "tensorrt_llm": "trtllm",
    "llamacpp": "llama.cpp",
    "llama-cpp": "llama.cpp",
}
_WORDS: Final = re.compile(r"^([a-z][a-z0-9._]*?(?:-llm|-cpp|\.cpp)?)(?:[ -]+v?b?(\d[^ ]*).*)?$")
_NUMBERS: Final = re.compile(r"^\d+(?:\.\d+)*")
_FOUR: Final = 4  # GPUs of tensor parallelism, from which on SGLang takes other graphs


class EngineBatch(Settings):
    """What an iteration takes at most, on GPUs of at least so much memory."""

    memory: Size = Field(description="of a GPU, from which on this row holds")
    max_sequences: int = Field(ge=1, description="of an iteration")
    max_batched_tokens: int = Field(ge=1, description="of an iteration")
    graphs: int | None = Field(default=None, ge=1, description="sequences that decode in CUDA graphs; none: any number")
    graphs_tp4: int | None = Field(default=None, ge=1, description="the same from four GPUs on; none: the same number")


class EngineDefaults(Settings):
    """What an engine does from a version on."""

    since: str = Field(description="first version")
    chunked: bool = Field(description="as in a profile")
    mixed: bool = Field(description="as in a profile")
    evicts: bool = Field(description="as in a profile")
    prefix_caching: bool = Field(description="as in a profile")
    batches: tuple[EngineBatch, ...] = Field(min_length=1, description="by memory, ascending")
    as_if: dict[str, Size] = Field(default={}, description="GPUs that are taken for ones of another memory")
    source: str = Field(description="where that is written")


class KnownEngine(Settings):
    """An engine and what is known of its versions."""

    title: str = Field(description="as its makers write it")
    adapter_slots: int | None = Field(default=None, description="for LoRA adapters; none: not known")
    versions: tuple[EngineDefaults, ...] = Field(min_length=1, description="ascending")


@dataclass(frozen=True, slots=True)
class EngineName:
    """An engine's name as it is written here, and its version in numbers; empty: not said."""

    name: str
    version: tuple[int, ...]

    def __str__(self) -> str:
        """`vllm 0.19.0`, or `vllm`."""
        return f"{self.name} {'.'.join(map(str, self.version))}" if self.version else self.name


def engine_named(text: str) -> EngineName | None:
    """The engine that a text names as people do: `vLLM 0.19`, `trtllm-1.2.0rc6`, `TensorRT-LLM`, `llama.cpp b7000`; or None."""
    found = _WORDS.match(text.strip().lower())
    if found is None:
        return None
    numbers = _NUMBERS.match(found[2] or "")
    name = _SPELT.get(found[1], found[1])
    return EngineName(name, _version(numbers[0]) if numbers else ())


@cache
def known_engines() -> dict[str, KnownEngine]:
    """Engines whose defaults are known, by name.

    Raises:
        ConfigError: the file of the package is damaged.
    """
    entries = facts("engines")
    assert isinstance(entries, dict)
    return {name: KnownEngine.model_validate_json(msgspec.json.encode(entry), strict=True) for name, entry in entries.items()}


def usual_limits(text: str, gpu: Gpu, gpu_name: str, tp: int) -> BatchLimits:
    """How an engine fills its iterations where nobody says otherwise.

    Args:
        text: engine and version, as people write them; without a version the newest that is known.
        gpu: that it runs on.
        gpu_name: ours, of that GPU.
        tp: GPUs of a rank.

    Raises:
        ConfigError: no such engine, or an older version than is known.
    """
    found, engines = engine_named(text), known_engines()
    if found is None or found.name not in engines:
        raise ConfigError(
            f"no defaults of the engine {text!r} are known{suggest(found.name if found else text, list(engines))}",
            hint=f"known: {', '.join(engines)}",
        )
    rows = [row for row in engines[found.name].versions if not found.version or _version(row.since) <= found.version]
    if not rows:
        since = engines[found.name].versions[0].since
        raise ConfigError(
            f"the defaults of {found} are not known, those from {since} on are",
            hint="leave the engine out of the name and set the limits of your own engine in a profile file",
        )
    row = rows[-1]
    memory = row.as_if.get(gpu_name, gpu.memory)
    batch = [one for one in row.batches if one.memory <= memory][-1]
    return BatchLimits(
        max_sequences=batch.max_sequences,
        max_batched_tokens=batch.max_batched_tokens,
        chunked=row.chunked,
        mixed=row.mixed,
        evicts=row.evicts,
        prefix_caching=row.prefix_caching,
        graph_sequences=batch.graphs_tp4 if batch.graphs_tp4 and tp >= _FOUR else batch.graphs,
        engine=str(found),
    )


def usual_slots(text: str) -> int | None:
    """Slots for LoRA adapters that an engine has where nobody says otherwise; None: not known. No name: vLLM's."""
    found = engine_named(text or DEFAULTS.engine)
    return known_engines()[found.name].adapter_slots if found is not None and found.name in known_engines() else None


def unknown_engine(text: str) -> str:
    """That nothing is known of an engine, and what may be meant; empty when it is known."""
    found, known = engine_named(text), list(known_engines())
    if found is not None and found.name in known:
        return ""
    return f"nothing is known of an engine {text!r}{suggest(found.name if found else text, known)}"


def other_engine(profile: str, served: str) -> str:
    """Why a profile of one engine says little of another, in a few words; empty when it is of that engine and version.

    Versions are one when all numbers that both say are the same: 0.19 and 0.19.1 are.

    Args:
        profile: engine and version of the profile; empty: not said.
        served: of whoever serves.
    """
    ours, theirs = engine_named(profile), engine_named(served)
    if theirs is None:
        return ""
    if ours is None:
        return f"does not say of which engine it is, and {theirs} serves"
    if ours.name != theirs.name:
        return f"is of {ours}, and {theirs} serves: engines differ by 15 to 32 % on one configuration"
    shared = min(len(ours.version), len(theirs.version))
    if ours.version[:shared] != theirs.version[:shared]:
        return f"is of {ours}, and {theirs} serves: versions of one engine differ by 14 % in the median"
    return ""


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))
