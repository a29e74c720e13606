"""How the pods of watched pools counted when that last changed: a file in the state folder, for `explain`.

Written by `live/watch/followed_pods.py`. Read next: `minutes.py`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from sageserve.base.units import Micros

PODS: Final = "pods.json"


class PodCount(Struct, frozen=True):
    """Pods of a pool; those that are late are among those that come."""

    ready: int
    coming: int
    late: int
    unschedulable: int
    gated: int
    leaving: int
    why: str

    def sentence(self) -> str:
        """As people read it."""
        named = {
            "coming": self.coming,
            "late": self.late,
            "unschedulable": self.unschedulable,
            "held back by a quota": self.gated,
            "told to end": self.leaving,
        }
        parts = [f"{self.ready} ready", *(f"{count} {word}" for word, count in named.items() if count)]
        return f"its pods: {', '.join(parts)}" + (f" ({self.why})" if self.why else "")


class PodCounts(Struct, frozen=True):
    """By pool, and since when: microseconds since 1970."""

    wall: Micros
    pools: Mapping[str, PodCount]


def read_pods(state: Path) -> PodCounts | None:
    """The latest; None: no pods are followed, or the file cannot be read."""
    try:
        return msgspec.json.decode((state / PODS).read_bytes(), type=PodCounts)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
