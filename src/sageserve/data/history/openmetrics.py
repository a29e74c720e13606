"""OpenMetrics text with times, as `promtool tsdb create-blocks-from openmetrics` takes it: lines become raw series.

    vllm:num_requests_running{model_name="m",pod="p"} 3 1700000000.000
    # EOF

Samples of a series may stand anywhere in the file, in order of time. Exemplars are passed over. Knows no file and no metric.
Read next: `files.py`.
"""

import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from sageserve.base.errors import MeasurementError
from sageserve.data.history.raw import RawSeries

_LINE: Final = re.compile(r'([A-Za-z_:][\w:]*)((?:\{(?:[^"}]|"(?:[^"\\]|\\.)*")*\})?)[ \t]+(\S+)(?:[ \t]+(\S+))?')
_LABEL: Final = re.compile(r'\s*([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"\s*,?')
_ESCAPED: Final = re.compile(r'\\(["\\n])')
_MILLISECONDS: Final = 1e11  # as seconds this is the year 5138: Prometheus' older text format writes milliseconds


@dataclass(slots=True)
class _Column:
    labels: dict[str, str]
    time: "array[float]" = field(default_factory=lambda: array("d"))
    value: "array[float]" = field(default_factory=lambda: array("d"))


def read_openmetrics(lines: Iterable[str], source: str) -> Iterator[RawSeries]:
    """The series of a text, in the order in which they begin.

    Args:
        lines: of the text.
        source: what messages call it.

    Raises:
        MeasurementError: a line is no sample, a sample has no time, times go back, or the text is cut off before `# EOF`.
    """
    found: dict[tuple[str, str], _Column] = {}
    ended = False
    for number, line in enumerate(lines, start=1):
        if line[:1] == "#" or not line.strip():
            ended = ended or line.startswith("# EOF")
            continue
        match = _LINE.match(line)
        if match is None:
            raise MeasurementError(f"{source}:{number} is no sample of OpenMetrics", hint="a line is: name{labels} value time")
        name, labels, value, time = match.groups()
        column = found.get((name, labels))
        if column is None:
            column = found[name, labels] = _Column({"__name__": name} | _labels(labels))
        try:
            column.value.append(float(value))
            column.time.append(float(time))
        except (TypeError, ValueError):
            raise MeasurementError(
                f"{source}:{number} has no time: a page of an engine says what is, not what was",
                hint="record it with Prometheus, or save query_range's answer",
            ) from None
    if not ended:
        raise MeasurementError(
            f"{source} has no `# EOF` at its end: it is cut off, or is no OpenMetrics text",
            hint="OpenMetrics text ends with that line",
        )
    for column in found.values():
        yield _series(column, source)


def _labels(text: str) -> dict[str, str]:
    return {key: _ESCAPED.sub(_plain, value) for key, value in _LABEL.findall(text[1:-1])}


def _plain(match: "re.Match[str]") -> str:
    return "\n" if match[1] == "n" else match[1]


def _series(column: _Column, source: str) -> RawSeries:
    time = np.frombuffer(column.time) if column.time else np.zeros(0)
    if len(time) and not 0 <= float(time.max()) < _MILLISECONDS:
        raise MeasurementError(
            f"{source} has times beyond the year 5000: they are milliseconds, as in Prometheus' older text format",
            hint="OpenMetrics writes seconds",
        )
    micros = np.rint(time * 1e3).astype(np.int64) * 1000
    if len(micros) > 1 and int(np.diff(micros).min()) <= 0:
        raise MeasurementError(f"{source}: the samples of {column.labels} are out of order", hint="sort them by time")
    return RawSeries(column.labels, micros, np.frombuffer(column.value))
