"""How wrong a derived profile may be: what held 90 % of the measured points of its engine, GPUs and kind of model.

    band_of(shape("qwen3-32b"), gpu_named("h200"), "vllm")     # 17 %, of 110 points

Where no point was measured on such GPUs the band is that of the engine on others, UNSEEN at least; an engine without any
point has the widest of its kind of model. The facts are in `facts/bands.yaml`. Read next: `roofline.py`, which prints them;
`bench/points.py`.
"""

from functools import cache
from typing import Final, Literal

import msgspec
from pydantic import Field

from sageserve.base.config.settings import Settings
from sageserve.data.profiles.hardware import Gpu, ModelShape, facts

UNSEEN: Final = 30  # percent, at least, on GPUs of which no point is known
GpuClass = Literal["hopper", "blackwell", "any"]
_CHIPS: Final[dict[GpuClass, tuple[str, ...]]] = {"hopper": ("H100", "H200"), "blackwell": ("B200", "B300")}
_TITLES: Final = {"hopper": "H100 and H200", "blackwell": "B200, B300 and their GB", "any": "GPUs of all sorts"}


class ErrorBand(Settings):
    """Percent of mean E2E that held 90 % of so many measured points."""

    engine: str = Field(description="without its version")
    gpus: GpuClass = Field(description="class of GPUs")
    kind: Literal["dense", "mixture"] = Field(description="of models")
    percent: int = Field(ge=1, le=99, description="predicted over measured E2E is within so much of one")
    points: int = Field(ge=1, description="measured points it is of")

    def __str__(self) -> str:
        """`±17 % E2E (held by 90 % of 110 measured points of vllm, dense models on H100 and H200)`."""
        models = "dense models" if self.kind == "dense" else "mixtures of experts"
        of = f"{self.points} measured points of {self.engine}, {models} on {_TITLES[self.gpus]}"
        return f"±{self.percent} % E2E (held by 90 % of {of})"


@cache
def error_bands() -> tuple[ErrorBand, ...]:
    """All bands.

    Raises:
        ConfigError: the file of the package is damaged.
    """
    entries = facts("bands")
    assert isinstance(entries, list)
    return tuple(ErrorBand.model_validate_json(msgspec.json.encode(entry), strict=True) for entry in entries)


def gpu_class(gpu: Gpu) -> GpuClass:
    """The class of a GPU; any: no point is known of its like."""
    chip = gpu.name.split()[1] if " " in gpu.name else gpu.name
    return next((name for name, chips in _CHIPS.items() if chip.endswith(chips)), "any")


def band_of(shape: ModelShape, gpu: Gpu, engine: str) -> ErrorBand:
    """The band of a derived profile.

    Args:
        shape: of the model.
        gpu: that it runs on.
        engine: with or without its version.
    """
    kind, name, here = "dense" if shape.experts is None else "mixture", engine.split(maxsplit=1)[0], gpu_class(gpu)
    alike = [one for one in error_bands() if one.kind == kind]
    of_engine = {one.gpus: one for one in alike if one.engine == name}
    if not of_engine:
        return max(alike, key=lambda one: one.percent)
    found = of_engine.get(here, of_engine["any"])
    return found if here != "any" else found.model_copy(update={"percent": max(found.percent, UNSEEN)})
