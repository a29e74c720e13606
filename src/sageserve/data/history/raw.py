"""One raw series as it was recorded, and whose it is: which instance, which part of it, and which of several copies.

Prometheus adds labels of its own to what an engine says, and two Prometheus servers record the same pod twice. An instance is a
pod and a port; of what engines say, only the labels in PARTS tell parts of one instance apart. Whatever differs beside those
is a copy, and of copies one is read. Knows no metric. Read next: `collect.py`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from sageserve.base.records import Floats, Ints

INSTANCE: Final = ("cluster", "namespace", "pod", "instance")
"""Labels that name an instance; `instance` is address and port."""

PARTS: Final = (
    *("model_name", "model", "target_model_name", "gen_ai_request_model"),
    *("engine", "engine_type", "dp_rank", "tp_rank", "pp_rank", "moe_ep_rank"),
    *("finished_reason", "is_streaming", "cache_source", "le"),
    *("priority", "fairness_id", "tier", "region", "code", "request_type"),
    *("num_gpu_blocks", "block_size"),
)
"""Labels by which programs tell their own series apart."""

Part: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RawSeries:
    """One series.

    Args:
        labels: all of them, `__name__` among them.
        time: int64[n], microseconds since 1970, rising.
        value: float64[n].
    """

    labels: Mapping[str, str]
    time: Ints
    value: Floats

    def __len__(self) -> int:
        return len(self.time)

    @property
    def name(self) -> str:
        """The metric, as it was recorded."""
        return self.labels.get("__name__", "")

    @property
    def instance(self) -> str:
        """Which instance it is of, for people and as a key."""
        return instance_of(self.labels)

    @property
    def part(self) -> Part:
        """What tells it apart from other series of that metric and instance."""
        return tuple(self.labels.get(key, "") for key in PARTS)

    def between(self, begin: int, end: int) -> "RawSeries":
        """Its samples from `begin` (inclusive) to `end` (exclusive)."""
        first, last = np.searchsorted(self.time, (begin, end))
        return RawSeries(self.labels, self.time[first:last], self.value[first:last])


def instance_of(labels: Mapping[str, str]) -> str:
    """Which instance labels are of, for people and as a key."""
    found = [labels[key] for key in INSTANCE if key in labels]
    return "/".join(found) if found else "?"


@dataclass(frozen=True, slots=True)
class Copies:
    """Series that say the same thing of one instance: (metric, instance, part) with the labels in which they differ."""

    metric: str
    instance: str
    labels: tuple[str, ...]
    count: int


def without_copies(found: Iterable[RawSeries]) -> tuple[list[RawSeries], list[Copies]]:
    """One series of each metric, instance and part; the holes of the fullest copy are filled from the others.

    Args:
        found: series of one stretch of time, in any order.
    """
    groups: dict[tuple[str, str, Part], list[RawSeries]] = {}
    for one in found:
        groups.setdefault((one.name, one.instance, one.part), []).append(one)
    kept, copies = [], []
    for (name, instance, _), same in groups.items():
        kept.append(same[0] if len(same) == 1 else _joined(same))
        if len(same) > 1:
            copies.append(Copies(name, instance, _differing(same), len(same)))
    return kept, copies


def label_matches(value: str, wanted: str) -> bool:
    """Whether a label's value is what settings ask for; regular expressions match whole values, as in PromQL."""
    if not wanted.startswith("=~"):
        return value == wanted
    try:
        return re.fullmatch(wanted[2:], value) is not None
    except re.error:
        return False


def _joined(same: list[RawSeries]) -> RawSeries:
    """The fullest copy, and where it has a hole of more than two and a half of its steps, what others have in there.

    Two servers scrape at different instants, so mixing them sample by sample would only add noise; counters of one engine are
    the same for both.
    """
    first, *others = sorted(same, key=lambda one: (-len(one), sorted(one.labels.items())))
    time, value = first.time, first.value
    for other in others:
        if len(time) == 0:
            time, value = other.time, other.value
            continue
        inside = _far_from(other.time, time)
        if inside.any():
            order = np.argsort(np.concatenate((time, other.time[inside])), kind="stable")
            value = np.concatenate((value, other.value[inside]))[order]
            time = np.concatenate((time, other.time[inside]))[order]
    return RawSeries(first.labels, time, value)


def _far_from(candidates: Ints, time: Ints) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which candidates lie in holes of `time`, or before and after all of it."""
    reach = hole_after(time)
    after = np.searchsorted(time, candidates)
    left = np.where(after > 0, candidates - time[np.maximum(after - 1, 0)], reach + 1)
    right = np.where(after < len(time), time[np.minimum(after, len(time) - 1)] - candidates, reach + 1)
    inner = (after > 0) & (after < len(time))
    return np.where(inner, left + right > reach, np.minimum(left, right) > reach // 2)


def hole_after(time: Ints) -> int:
    """Microseconds between two samples beyond which one was missed: two and a half of the usual steps."""
    steps = np.diff(time)
    return int(np.median(steps) * 2.5) if len(steps) else 150_000_000


def _differing(same: list[RawSeries]) -> tuple[str, ...]:
    keys = sorted({key for one in same for key in one.labels})
    return tuple(key for key in keys if len({one.labels.get(key) for one in same}) > 1)
