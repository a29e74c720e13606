"""The requests a command plays: read from files or generated, joined, cut, filled, loaded; the one way from options to a trace.

Decides the order of the stages; each is a function of its own, loaded when it has something to do: all that reads and
changes traces takes a quarter of a second. Read next: `options.py`, `read.py`, `changes/join.py`, `changes/window.py`,
`changes/transform.py`.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from sageserve.base.config import Scenario
from sageserve.base.records import Demand, Trace
from sageserve.data.traces.options import TraceOptions

if TYPE_CHECKING:
    from sageserve.data.traces.readers.batches import Progress
    from sageserve.data.traces.report import ReadReport

Watch: TypeAlias = "Callable[[str], AbstractContextManager[Progress | None]]"
"""Given what is being done, something to tell how much of it is done."""


@dataclass(frozen=True, slots=True)
class Requests:
    """What is played.

    Args:
        trace: the requests.
        earlier: demand per minute before time 0, where it is known.
        reports: of the files they were read from.
    """

    trace: Trace
    earlier: Demand | None = None
    reports: "tuple[ReadReport, ...]" = ()

    def remarks(self) -> list[str]:
        """What was left out of files, one line per kind and file."""
        return [f"{report.source}: left out {line}" for report in self.reports for line in report.bad_lines()]


@contextmanager
def unwatched(_what: str) -> "Iterator[Progress | None]":
    """Nobody watches."""
    yield None


def requests_of(options: TraceOptions, scenario: Scenario | None, watch: Watch = unwatched) -> Requests:
    """Read the files of some options and do what they say.

    Args:
        options: with at least one file.
        scenario: that the requests must fit; None: they keep the names they have.
        watch: asked for somebody to tell about progress.

    Raises:
        TraceError: a file cannot be read, or an option cannot be followed.
        UnknownName: the files have names the scenario does not define.
    """
    from sageserve.data.traces.changes.join import join  # noqa: PLC0415 # as the module says
    from sageserve.data.traces.changes.window import FIRST, cut, known_before  # noqa: PLC0415 # likewise
    from sageserve.data.traces.read import read_as_is, read_trace  # noqa: PLC0415 # likewise

    def read(path: Path) -> "tuple[Trace, ReadReport]":
        with watch(f"read {path.name}") as tell:
            return read_as_is(path, options, tell) if scenario is None else read_trace(path, scenario, options, tell)

    traces, reports = [], []
    for path in options.files:
        trace, report = read(path)
        if options.begin == FIRST and trace.start is None and len(options.files) > 1:
            trace, _ = cut(trace, FIRST, None)  # laid end to end, each of them begins at its first request
        traces.append(trace)
        reports.append(report)
    found = Requests(join(traces, end_to_end=options.end_to_end), None, tuple(reports))
    if options.history:
        past = [read(path) for path in options.history]
        trace, earlier = known_before(found.trace, join([one for one, _ in past], end_to_end=options.end_to_end), options)
        found = Requests(trace, earlier, (*reports, *(report for _, report in past)))
    return changed(found, options, _seed(options, scenario))


def changed(requests: Requests, options: TraceOptions, seed: int) -> Requests:
    """Requests cut, scaled and loaded as options say; what is cut off before them becomes history.

    Raises:
        TraceError: an option cannot be followed, or the window is mostly silence.
    """
    if options == TraceOptions(seed=options.seed):
        return requests
    from sageserve.data.traces.changes.transform import (  # noqa: PLC0415 # as the module says
        demand_before,
        load,
        load_earlier,
        resample,
        scale_time,
    )
    from sageserve.data.traces.changes.window import check_filled, cut  # noqa: PLC0415 # likewise

    trace, before = cut(requests.trace, options.begin, options.until)
    if requests.reports and not all(report.own for report in requests.reports):
        trace = check_filled(trace, options)
    trace = load(scale_time(trace, options.time_scale), options.load, seed)
    if options.resampled is not None:
        trace = resample(trace, options.resampled)
    earlier = demand_before(requests.earlier, before)
    if earlier is not None and options.time_scale != 1.0:
        earlier = None  # minutes of another length
    return replace(requests, trace=trace, earlier=None if earlier is None else load_earlier(earlier, options.load))


def _seed(options: TraceOptions, scenario: Scenario | None) -> int:
    if options.seed is not None:
        return options.seed
    return 1 if scenario is None else scenario.seed
