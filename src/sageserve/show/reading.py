"""A run folder, read once and reduced to what figures need.

Reads files through `data`; draws nothing. Read next: `reduce.py`, `minutes.py`, `chronicle.py`.
"""

from dataclasses import dataclass

from sageserve.base.config import Scenario
from sageserve.base.units import SECOND
from sageserve.data.results.run_folder import RunFolder
from sageserve.data.results.summary import Summary
from sageserve.show.chronicle import Chronicle, chronicle
from sageserve.show.minutes import Minutes, minutes_of
from sageserve.show.reduce import Digest, TimeBuckets, digest_of


@dataclass(frozen=True, slots=True)
class RunReading:
    """Everything a report knows of one run.

    Args:
        summary: as written.
        scenario: as it was played.
        digest: the requests.
        minutes: the timeline.
        chronicle: the journal.
    """

    summary: Summary
    scenario: Scenario
    digest: Digest
    minutes: Minutes
    chronicle: Chronicle

    def gpus_of(self, model: str) -> float:
        """GPUs per instance of a model: the mean over what was held, where its pools differ."""
        one = self.summary.models[model]
        return one.gpu_hours.total / one.instance_hours.total if one.instance_hours.total else 0.0


def read(run: RunFolder, buckets: int) -> RunReading:
    """Read a run.

    Args:
        run: whole, with requests, timeline and journal.
        buckets: at most, over the window.

    Raises:
        ResultError: a file cannot be read.
    """
    grid = TimeBuckets.over(max(1, round(run.summary.window_s * SECOND)), buckets)
    return RunReading(run.summary, run.scenario, digest_of(run, grid), minutes_of(run), chronicle(run))
