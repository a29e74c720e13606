"""One cell of a sweep: a scenario with everything settled, and playing it to a summary.

The same code plays a cell in this process, in a worker process and on a cluster, so the result is the same everywhere.
Must not know who runs it. Read next: `run.py`, `processes.py`, `cluster.py`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from sageserve.base.config import Scenario
from sageserve.base.errors import LawBroken, SageServeError
from sageserve.base.records import Trace
from sageserve.data.results.comparison import Bound
from sageserve.data.results.run_folder import write_run
from sageserve.data.results.summary import Summary
from sageserve.data.results.sweep_folder import GENERATED, SweepSource, key_of
from sageserve.data.scenarios.load import dump
from sageserve.data.traces.changes.transform import resample
from sageserve.data.traces.requests import Requests
from sageserve.data.workload.requests import requests_for
from sageserve.sim.oracle import oracle_bound
from sageserve.sim.results.export import record_of
from sageserve.sim.results.summary import summarise
from sageserve.sim.run import Simulation

_TRAFFIC = ("seed", "regions", "models", "tiers", "workload")  # the settings that requests are made from


@dataclass(frozen=True, slots=True)
class Cell:
    """One simulation of a sweep.

    Args:
        name: for people, and for the folder its result is kept in.
        scenario: strategy, seed and every other setting in place.
        source: where the requests come from.
        what: a run of the scenario's strategy, or the bound that no strategy can go below.
        whole: its requests, timeline and journal are kept too, where results are kept; the result is the same without.
        folder: where they are written; None: nowhere. Set by the sweep.
        model: only the requests of this one are played, whose instances no other model uses; empty: all.
    """

    name: str
    scenario: Scenario
    source: SweepSource = GENERATED
    what: Literal["run", "bound"] = "run"
    whole: bool = False
    folder: Path | None = None
    model: str = ""

    def key(self, code: str) -> str:
        """Equal keys give equal results; `code` is the hash of the code that plays it."""
        return key_of(self.scenario, self.source, f"{self.what} {self.model} {code}")

    def traffic(self) -> str:
        """Equal traffic is played with the same requests; of regions only their names matter to it."""
        values = dump(self.scenario)
        values["regions"] = list(self.scenario.regions)
        return repr(([values[name] for name in _TRAFFIC], self.source))


@dataclass(frozen=True, slots=True)
class Finished:
    """A cell's result; `remarks` is what the reader of its trace left out."""

    summary: Summary
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Bounded:
    """The least that any strategy could do."""

    bound: Bound


@dataclass(frozen=True, slots=True)
class Failed:
    """Why a cell has no result; `mistake`: of what was given, not of SageServe or of the machine."""

    message: str
    hint: str = ""
    mistake: bool = False


Outcome: TypeAlias = Finished | Bounded | Failed


class Player:
    """Plays cells, and keeps the requests of the last one for the next."""

    def __init__(self) -> None:
        self._traffic = ""
        self._requests: Requests | None = None
        self._recorded: tuple[str, Requests] | None = None  # what the last window was resampled from

    def play(self, cell: Cell, *, interrupted: Callable[[], bool] | None = None, given: Requests | None = None) -> Outcome | None:
        """The summary of a cell, or why there is none; None when it was interrupted.

        Args:
            cell: what to play.
            interrupted: asked every simulated minute whether to stop.
            given: the requests, when they need not be made or read.
        """
        try:
            requests = given or self.requests(cell)
            if cell.model:
                requests = replace(requests, trace=_of_model(requests.trace, cell.model))
            if cell.what == "bound":
                return Bounded(oracle_bound(cell.scenario, requests.trace))
            began = time.process_time()
            run = Simulation(cell.scenario, requests.trace, earlier=requests.earlier).play(interrupted=interrupted)
            if run.partial:
                return None
            summary = summarise(run, time.process_time() - began)
            if cell.folder is not None:
                write_run(cell.folder, record_of(run, summary), replace=True)
            return Finished(summary, tuple(requests.remarks()))
        except SageServeError as error:
            return Failed(error.message, error.hint, mistake=not isinstance(error, LawBroken))

    def requests(self, cell: Cell) -> Requests:
        """The requests of a cell."""
        traffic = cell.traffic()
        if self._requests is None or traffic != self._traffic:
            self._requests = None  # the old ones are not needed while the new ones are made
            self._requests = self._made(cell)
            self._traffic = traffic
        return self._requests

    def _made(self, cell: Cell) -> Requests:
        """The requests, from those of the last cell where the two are windows of one trace: a file is read once."""
        options = cell.source.options
        if options.resampled is None:
            return requests_for(cell.scenario, options)
        plain = replace(cell, source=replace(cell.source, options=replace(options, resampled=None)))
        recorded = plain.traffic()
        if self._recorded is None or self._recorded[0] != recorded:
            self._recorded = recorded, requests_for(cell.scenario, plain.source.options)
        found = self._recorded[1]
        return replace(found, trace=resample(found.trace, options.resampled))


def _of_model(trace: Trace, model: str) -> Trace:
    """The requests of one model; codes stay."""
    return trace.take(np.flatnonzero(trace.model == trace.names.models.index(model)))
