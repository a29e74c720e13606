"""What every endpoint looked like, minute by minute: the columns behind timeline.parquet.

Knows nothing of files; `data/results/run_folder.py` writes them. Read next: `sim/run.py`, which takes the samples.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sageserve.base.config import Scenario
from sageserve.base.errors import ConfigError
from sageserve.base.records import Bools
from sageserve.base.units import MINUTE, Micros, show_duration
from sageserve.core.fleet import Fleet, State
from sageserve.core.layout import Layout
from sageserve.sim.kernel.engine import Kernel

SAMPLE: Final[Micros] = MINUTE
COUNTS: Final = ("starting", "serving", "draining", "spot", "reclaiming")
INSIDE: Final = {"waiting": "waiting", "running": "running", "inside": "in_flight", "unfilled": "unfilled"}  # of engines
SEEN: Final = ("seen", "kv", "busy")
TOTALS: Final = ("placed", "finished", "preempted", "made")
MODEL: Final = ("batch_waiting",)
FIELDS: Final = (*COUNTS, *SEEN, *INSIDE, *TOTALS, *MODEL)
"""Columns of a timeline. Instance counts; shares of capacity as last scraped; requests waiting, decoding and in all, prompt
tokens not prefilled; totals since the start; jobs in the batch queue of the endpoint's model (all regions together)."""
_STATES: Final = {name: State[name.upper()] for name in COUNTS}


def check_warm_up(scenario: Scenario, window: Micros) -> None:
    """Refuse a warm-up that is no part of the window, no whole number of samples, or beside what tells times from the start.

    Raises:
        ConfigError: it is.
    """
    warm_up = scenario.workload.warm_up
    if warm_up % SAMPLE or (warm_up and warm_up >= window):
        why = (
            "is not a whole number of minutes" if warm_up % SAMPLE else f"leaves nothing of {show_duration(window)} to be judged"
        )
        raise ConfigError(f"workload.warm_up: {show_duration(warm_up)} {why}", hint="for example --warm-up 1h")
    if warm_up and scenario.rollouts:
        raise ConfigError("workload.warm_up: rollouts are judged from the first request on", hint="leave one of them out")


class Timeline:
    """One row per minute and endpoint.

    Args:
        layout: numbers of endpoints and pools.
        samples: how many rows of time to make room for; more are made when needed.
    """

    def __init__(self, layout: Layout, samples: int) -> None:
        self._layout = layout
        self.length = 0
        self.times = np.zeros(samples, np.int64)
        self._columns = {name: np.zeros((samples, layout.endpoints), np.float64 if name in SEEN else np.int64) for name in FIELDS}
        self._full = np.zeros((samples, layout.endpoints), np.bool_)

    def column(self, name: str) -> NDArray[Any]:
        """[samples, endpoints] of one field."""
        return self._columns[name][: self.length]

    @property
    def full(self) -> Bools:
        """bool[samples, endpoints]: none of its pools could hold one instance more, for its maximum or the stock."""
        return self._full[: self.length]

    def begin_at(self, begin: Micros) -> None:
        """Leave out what was sampled before an instant, and count times and totals from it."""
        first = int(np.searchsorted(self.times[: self.length], begin))
        self.length -= first
        self.times = self.times[first:] - begin
        self._full = self._full[first:]
        self._columns = {name: old[first:] for name, old in self._columns.items()}
        for name in TOTALS if self.length else ():
            self._columns[name] -= self._columns[name][0].copy()

    def sample(self, now: Micros, fleet: Fleet, kernel: Kernel) -> None:
        """Add a row for this instant."""
        at = self.length
        if at == len(self.times):
            self.times = np.concatenate((self.times, np.zeros_like(self.times)))
            self._columns = {name: np.concatenate((old, np.zeros_like(old))) for name, old in self._columns.items()}
            self._full = np.concatenate((self._full, np.zeros_like(self._full)))
        self.length += 1
        self.times[at] = now
        for name in (*SEEN, *TOTALS):
            self._columns[name][at] = kernel.endpoints[name]
        for name, counted in INSIDE.items():
            self._columns[name][at] = kernel.counted(counted).reshape(self._layout.endpoints, -1).sum(axis=1)
        for name, state in _STATES.items():
            counts = [0] * self._layout.endpoints
            for pool in self._layout.pools:
                counts[pool.endpoint] += fleet.counts[pool.number][state]
            self._columns[name][at] = counts
        self._full[at] = True
        for pool in self._layout.pools:
            left = fleet.stocks[pool.stock].gpus - fleet.ledger.purchases[pool.stock].held
            if fleet.count(pool.number, State.OFF, State.SPOT) and left >= pool.gpus:
                self._full[at, pool.endpoint] = False
        self._columns["batch_waiting"][at] = kernel.batch_waiting[kernel.endpoints["model"]]
