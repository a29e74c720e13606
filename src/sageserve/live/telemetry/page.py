"""A metrics page in Prometheus' text format: its samples by name, names without what pipelines put before them.

Lines that no signal needs are dropped before they are parsed: a page has ten times more than is read. Knows no signal.
Read next: `data/history/names.py`, `seen.py`.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from sageserve.data.history.names import PREFIXES, canonical

_NAME: Final = re.compile(r"^(?:# (?:TYPE|HELP) )?([A-Za-z_:][A-Za-z0-9_:]*)")
_PARTS: Final = ("_bucket", "_sum", "_count")  # of a histogram; `_total` belongs to a counter's own name


class NotAPage(ValueError):
    """The text is not in Prometheus' format."""


@dataclass(frozen=True, slots=True)
class MetricSample:
    """One line."""

    labels: dict[str, str]
    value: float


@dataclass(slots=True)
class MetricsPage:
    """Samples by canonical name."""

    samples: dict[str, list[MetricSample]] = field(default_factory=dict)

    def of(self, name: str) -> list[MetricSample]:
        """The samples of a name; none when it is not on the page."""
        return self.samples.get(name, [])


def read_page(text: str, wanted: Collection[str]) -> MetricsPage:
    """The samples of the wanted metrics.

    Args:
        text: a page.
        wanted: canonical names; of histograms without `_bucket`, `_sum`, `_count`.

    Raises:
        NotAPage: it cannot be parsed.
    """
    lines = [line for line in text.splitlines() if _is_wanted(line, wanted)]
    page = MetricsPage()
    try:
        for family in text_string_to_metric_families("\n".join(lines) + "\n"):
            for sample in family.samples:
                page.samples.setdefault(canonical(sample.name), []).append(MetricSample(dict(sample.labels), sample.value))
    except (ValueError, KeyError, IndexError) as error:  # the parser raises whatever its indexing happens to raise
        raise NotAPage(f"not Prometheus' text format: {error}") from None
    return page


def engine_names(text: str) -> set[str]:
    """Canonical names on a page that begin as some engine's do."""
    names = {canonical(match[1]) for line in text.splitlines() if (match := _NAME.match(line)) and line[0] != "#"}
    return {name for name in names if name.startswith(tuple(PREFIXES.values()))}


def _is_wanted(line: str, wanted: Collection[str]) -> bool:
    match = _NAME.match(line)
    if match is None or line.startswith("# HELP"):
        return False
    name = canonical(match[1])
    if line[0] == "#":  # the type of a counter is told of its name without `_total`, by some writers
        return name in wanted or f"{name}_total" in wanted
    return name in wanted or any(name.endswith(part) and name.removesuffix(part) in wanted for part in _PARTS)
