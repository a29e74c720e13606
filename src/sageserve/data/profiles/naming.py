"""What others call a model, a GPU or a format, and what it is called here.

    known_model("meta-llama/Llama-3.1-70B-Instruct")               # llama-3.1-70b
    model_in("nvidia/Llama-3.1-70B-Instruct-FP8", "fp8")           # llama-3.1-70b-fp8
    known_gpu("H100")                                              # h100-80gb
    known_gpu("NVIDIA-A100-SXM4-80GB")                             # a100-80gb

Knows names only. Read next: `hardware.py`, which has the shapes and rates behind ours.
"""

import re
from collections.abc import Sequence
from typing import Final

from sageserve.data.profiles.hardware import FORMATS, gpu_names, is_model, model_names, shape

_ORGANISATION: Final = re.compile(r"^.*/")
_VARIANT: Final = re.compile(r"(-instruct|-chat|-hf|-base|-it|-v\d+(\.\d+)*|-\d{4})+$")
_FORMAT: Final = re.compile(r"(-fp8-dynamic|-fp8|-nvfp4)$", re.IGNORECASE)
_META: Final = re.compile(r"meta-(?=llama-)", re.IGNORECASE)
_BOARD: Final = re.compile(r"[-_ ](sxm\d?|pcie|hbm\d?e?)(?=[-_ ]|$)", re.IGNORECASE)
_MAKER: Final = re.compile(r"^((nvidia|amd|tesla|geforce|instinct)[-_ ]+)+", re.IGNORECASE)
_SIZES: Final = ("layers", "hidden", "heads", "kv_heads", "intermediate", "experts")
_WEIGHTS: Final = {
    "bf16": "bf16",
    "fp16": "bf16",
    "fp8": "fp8",
    "fp4": "nvfp4",
    "nvfp4": "nvfp4",
    "mxfp4": "mxfp4",
    "int4": "int4",
}


def known_model(name: str) -> str | None:
    """Our name of a model, from a hub's; None when its shape is not known."""
    bare = _META.sub("", _ORGANISATION.sub("", name.lower()))
    return _same(_VARIANT.sub("", bare), model_names()) or _same(bare, model_names())


def other_model(profile: str, served: str) -> str:
    """How a profile's model differs from the one that is served, by their names; empty where it does not, or who knows.

    Other formats of the same weights are the same model, and so are models of one architecture: they take the same time.
    """
    ours, theirs = known_model(profile), known_model(served)
    if ours is None or theirs is None:
        return ""
    one, other = shape(ours), shape(theirs)
    if all(getattr(one, size) == getattr(other, size) for size in _SIZES):
        return ""
    return f"is of {ours}, {one.published:g} billion parameters; {served} has {other.published:g}"


def model_in(name: str, weights: str) -> str | None:
    """Our name of a model in the format of its weights (bf16, fp8, fp4, mxfp4, int4); None when there is none."""
    plain, wanted = known_model(_FORMAT.sub("", name)), _WEIGHTS.get(weights.strip().lower())
    if plain is None or wanted is None:
        return None
    if (
        shape(plain).weights == "mxfp4" or shape(plain).weights == wanted
    ):  # published in mxfp4: other words are about its KV cache
        return plain
    found = f"{plain}-{wanted}"
    return found if wanted in FORMATS and is_model(found) else None


def known_gpu(name: str) -> str | None:
    """Our name of a GPU type, from what people write; None when its rates are not known."""
    bare = _MAKER.sub("", _BOARD.sub("", name))
    return _same(bare, gpu_names()) or _begins(bare, gpu_names())


def _same(name: str, known: Sequence[str]) -> str | None:
    return next((each for each in known if _plain(each) == _plain(name)), None)


def _begins(name: str, known: Sequence[str]) -> str | None:
    """The first known name that begins with this one, in whole words and with a number: h100 is one, h20 and rtx are none."""
    plain = _plain(name)
    if not re.search(r"\d", plain):
        return None
    return next((each for each in known if any(_plain(each[:end]) == plain for end in _ends(each))), None)


def _ends(name: str) -> list[int]:
    return [place for place, letter in enumerate(name) if letter == "-"]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
