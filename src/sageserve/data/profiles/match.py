"""Which profile a model's name means on a GPU type, and which others it may mean.

    match_profile("meta-llama/Llama-3.1-8B-Instruct", "h100-80gb", 8192)     # llama-3.1-8b/h100-80gb/tp1, sure
    match_profile("my-company/assistant-8b", "h100-80gb", 8192)              # one of that size, unsure

Knows names and sizes. Read next: `naming.py` for names that are known, `library.py`; `data/scenarios/draft.py`, which asks.
"""

import difflib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from sageserve.base.errors import ConfigError, Infeasible
from sageserve.data.documents import suggest
from sageserve.data.profiles.hardware import gpu_names, model_names, shape
from sageserve.data.profiles.library import library, profile_named
from sageserve.data.profiles.naming import known_model

_USUAL: Final = ("llama-3.1-70b", "llama-3.1-8b", "qwen3-32b")  # stand for a model of which not even the size is known
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)b\b")


@dataclass(frozen=True, slots=True)
class MatchedProfile:
    """A profile, and how sure it is.

    Args:
        profile: its name in the library.
        candidates: others that it may be; empty: it is sure.
        context: tokens, as many as were wanted or the model holds.
    """

    profile: str
    candidates: tuple[str, ...]
    context: int


def match_profile(name: str, gpu: str, context: int, gpus: int = 0) -> MatchedProfile:
    """The profile of a model on a GPU type: of as many GPUs as an instance has, else of the fewest that hold such requests.

    Args:
        name: of the model, as whoever serves it writes it.
        gpu: type.
        context: tokens of the longest prompt with its answer.
        gpus: of an instance; 0: not known.

    Raises:
        ConfigError: no such GPU type, or no known model fits on it.
    """
    if gpu not in gpu_names():
        raise ConfigError(f"no GPU is called {gpu!r}{suggest(gpu, gpu_names())}", hint=f"known: {', '.join(gpu_names())}")
    known = known_model(name)
    ranked = [known] if known else list(_alike(name))
    fitting = [
        (one, found)
        for model in ranked
        if (one := _of_so_many(model, gpu, gpus) or _smallest(model, gpu, context))
        and (found := min(context, shape(model).context))
    ]
    if not fitting:
        raise ConfigError(
            f"no profile on {gpu} holds {name} with {context:,} tokens of context",
            hint="name another --gpu, or see `sageserve profile list`",
        )
    profile, held = fitting[0]
    return MatchedProfile(profile, () if known else tuple(one for one, _ in fitting[1:4]), held)


def _alike(name: str) -> Iterator[str]:
    """Known models that a name may mean, the likeliest first: alike in letters, then of a like size, then any."""
    names = [*model_names()]
    low = name.lower().rpartition("/")[2]
    near = difflib.get_close_matches(low, names, 4, cutoff=0.6)
    sizes = [float(found) for found in _SIZE.findall(low)]
    if not sizes:
        return iter(dict.fromkeys([*near, *_USUAL, *names]))
    by_size = sorted(names, key=lambda one: (abs(math.log(shape(one).published / sizes[0])), "distill" in one, one))
    return iter(dict.fromkeys([*near, *by_size]))


def _of_so_many(model: str, gpu: str, gpus: int) -> str:
    """The profile of that many GPUs; empty: there is none."""
    name = f"{model}/{gpu}/tp{gpus}"
    try:
        return profile_named(name).name if gpus else ""
    except (ConfigError, Infeasible):
        return ""


def _smallest(model: str, gpu: str, context: int) -> str:
    """The profile of fewest GPUs that holds a few full-length requests; the largest where none does; empty: it does not fit."""
    found = [*library(model, gpu)]
    wanted = min(context, shape(model).context)
    roomy = [one for one in found if one.profile.kv_tokens >= 4 * wanted] or [
        one for one in found if one.profile.kv_tokens >= wanted
    ][-1:]
    return roomy[0].name if roomy else ""
