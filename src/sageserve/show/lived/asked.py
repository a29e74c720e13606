"""Lines of requests summed up: by tier what became of them and how long they took, by key what they used.

Reads them one by one: two numbers of each answered one are held. Read next: `data/watched/request_lines.py`.
"""

from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from sageserve.base.units import SECOND, Micros
from sageserve.data.results.summary import Quantiles
from sageserve.data.watched.request_lines import RequestLine, read_request_lines
from sageserve.show.lived.records import LivedTenant

_ERROR: Final = 400
_TOO_MANY: Final = 429
_LEFT: Final = 499


@dataclass(slots=True)
class AskedLines:
    """Requests of one tier of which lines were kept."""

    answered: int = 0
    turned_away: int = 0
    left: int = 0
    failed: int = 0
    tenants: dict[str, list[int]] = field(default_factory=dict)  # requests, answered, turned away, tokens of prompts, of answers
    _first: "array[int]" = field(default_factory=lambda: array("q"))
    _e2e: "array[int]" = field(default_factory=lambda: array("q"))

    def __len__(self) -> int:
        """How many there are."""
        return self.answered + self.turned_away + self.left + self.failed

    def add(self, line: RequestLine) -> None:
        """One more."""
        good = line.status < _ERROR
        self.answered += good
        self.turned_away += line.status == _TOO_MANY
        self.left += line.status == _LEFT
        self.failed += not good and line.status not in {_TOO_MANY, _LEFT}
        if good:
            self._e2e.append(line.duration_us)
            if line.first_us is not None:
                self._first.append(line.first_us)
        counts = self.tenants.setdefault(line.tenant, [0] * 5)
        for place, more in enumerate((1, good, line.status == _TOO_MANY, line.prompt_tokens or 0, line.output_tokens)):
            counts[place] += more

    def first_s(self) -> Quantiles:
        """Seconds until the first of an answer came."""
        return _quantiles(self._first)

    def e2e_s(self) -> Quantiles:
        """Seconds until its end."""
        return _quantiles(self._e2e)


def _quantiles(times: "array[int]") -> Quantiles:
    if not len(times):
        return Quantiles(None, None, None)
    found = np.quantile(np.array(times, np.int64), (0.5, 0.95, 0.99)).tolist()
    return Quantiles(*(round(one / SECOND, 6) for one in found))


def asked_of(state: Path, begin: Micros, end: Micros) -> dict[str, AskedLines]:
    """By tier; empty where no lines were kept.

    Args:
        state: folder of the state.
        begin: microseconds since 1970.
        end: likewise.
    """
    found: dict[str, AskedLines] = {}
    for line in read_request_lines(state, begin, end):
        if (one := found.get(line.tier)) is None:
            one = found[line.tier] = AskedLines()
        one.add(line)
    return found


def tenants_of(asked: dict[str, AskedLines]) -> dict[str, LivedTenant]:
    """By name of the keys, over all tiers; who asked most comes first."""
    sums: dict[str, list[int]] = {}
    for tier in asked.values():
        for name, counts in tier.tenants.items():
            sums[name] = [a + b for a, b in zip(sums.get(name, [0] * 5), counts, strict=True)]
    ordered = sorted(sums.items(), key=lambda each: (-each[1][0], each[0]))
    return {name: LivedTenant(*counts) for name, counts in ordered}
