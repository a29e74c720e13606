"""PromQL of what is asked: selectors of a pool's series, and of gateways; histograms added up by the server.

Names come from the alias table, matchers from settings. Knows no server. Read next: `read.py`, `sight.py`.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from sageserve.data.history.collect import HISTOGRAMS, plain_metrics
from sageserve.data.history.names import ALIASES, FRONTS, PREFIXES, WRAPPERS, EngineSignal, FrontSignal, canonical, name_pattern
from sageserve.data.history.raw import INSTANCE, PARTS

_LABEL: Final = re.compile(r"[a-zA-Z_]\w*")


def quoted(text: str) -> str:
    """A string of PromQL."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def matchers(labels: Mapping[str, str]) -> str:
    """Matchers of labels as settings have them: `=~` in front of a value makes it a regular expression.

    Raises:
        ValueError: a name that is none of a label.
    """
    parts = []
    for label, value in labels.items():
        if not _LABEL.fullmatch(label):
            raise ValueError(f"{label!r} is not the name of a label")
        parts.append(f"{label}=~{quoted(value[2:])}" if value.startswith("=~") else f"{label}={quoted(value)}")
    return ",".join(parts)


def selector(names: str, labels: str) -> str:
    """Series whose name matches a regular expression, and whose labels match."""
    return "{" + f"__name__=~{quoted(names)}" + (f",{labels}" if labels else "") + "}"


def plain_names() -> str:
    """A regular expression of all names under which signals are recorded that are read sample by sample."""
    return _names(plain_metrics(ALIASES))


def watched_names() -> str:
    """The same, and how much of their memory engines have in use."""
    memory = [alias for alias in ALIASES if alias.signal is EngineSignal.KV_USE]
    return _names(plain_metrics(ALIASES) | {name for alias in memory for name in (alias.metric, alias.over) if name})


def _names(metrics: Iterable[str]) -> str:
    begins = "|".join(sorted({prefix.rstrip(":_") for prefix in PREFIXES.values()}))
    ends = sorted({_bare(metric) for metric in metrics})
    return f"(?:{'|'.join(WRAPPERS)})?(?:{begins})[:_](?:{'|'.join(ends)})"


def front_names() -> str:
    """The same of the counters of gateways."""
    return "|".join(sorted({alias.metric for alias in FRONTS if alias.signal is FrontSignal.ARRIVALS}))


def every_name() -> str:
    """The same of all that any alias stands for."""
    return name_pattern()


def _bare(metric: str) -> str:
    for prefix in PREFIXES.values():
        metric = metric.removeprefix(prefix)
    return metric


def histogram_names(recorded: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """By signal of an engine, its histograms' names as they are recorded, best first, without `_bucket`."""
    found: dict[str, tuple[str, ...]] = {}
    names = [name.removesuffix("_bucket") for name in recorded if name.endswith("_bucket")]
    for signal in HISTOGRAMS:
        wanted = [alias.metric for alias in ALIASES if alias.signal is signal and alias.read == "histogram"]
        mine = [name for metric in wanted for name in sorted(names, key=len) if canonical(name) == metric]
        if mine:
            found[signal.value] = tuple(mine)
    return found


def growth(names: Iterable[str], end: str, labels: str, window_s: int, by: tuple[str, ...] = ()) -> str:
    """What counters grew by in each window, all instances together: `new or old`, and each instance once.

    Args:
        names: best first, without `end`.
        end: `_bucket`, `_sum`, or nothing.
        labels: matchers.
        window_s: seconds.
        by: labels to keep.
    """
    once = ",".join((*INSTANCE, *PARTS))
    kept = ",".join(by)
    parts = [f"sum by ({kept}) (max by ({once}) (increase({name}{end}{{{labels}}}[{window_s}s])))" for name in names]
    return " or ".join(parts)
