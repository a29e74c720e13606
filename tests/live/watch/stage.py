"""A process that watches on a stage: its clocks are set by hand, and what servers say is made up, sample by sample.

Read next: `test_watching.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sageserve.base.config import Scenario
from sageserve.base.units import MINUTE, SECOND, Micros
from sageserve.data.history.raw import RawSeries
from sageserve.data.rebuild.places import WatchedPool
from sageserve.data.results.journal import Stamped, read_stamped
from sageserve.data.watched.minutes import WatchedMinute
from sageserve.live.control.loop import WallClock
from sageserve.live.prometheus.server import NotSeen, NotSeenReason, PrometheusServer, RawAnswer
from sageserve.live.watch.looks import ClusterLook
from sageserve.live.watch.process import FleetWatch, WatchParts
from sageserve.live.watch.target_pods import TargetPods
from tests.core.small import ENGINE, PRICE, scenario

BEGIN = 1_790_000_040 * SECOND
SCRAPE = 15 * SECOND
POOL = "east/big/h100"
AWAY = NotSeen(NotSeenReason.UNREACHABLE, "http://prom cannot be asked: refused")


class HandClock(WallClock):
    """A clock that stands where it is put."""

    def __init__(self) -> None:
        self.at: Micros = 1

    def now(self) -> Micros:
        return self.at


def one_pool(**changes: object) -> Scenario:
    """One model in one region, one tier; `changes` replace whole sections."""
    return scenario(
        gpus=80,
        **{
            "regions": {"east": {"gpus": {"h100": {"gpus": 80, "reserved": 16, "price": PRICE}}}},
            "models": {"big": {"context": 8_000, "engines": {"h100": ENGINE}}},
            "tiers": {"chat": {"ttft": "1s"}},
            "fleet": {"start": 2, "minimum": 1, "maximum": 8},
            "strategy": {"name": "reactive"},
            **changes,
        },
    )


@dataclass
class Pod:
    """An engine that others run, from its first sample to its last."""

    name: str
    first: Micros = 0
    last: Micros = 1 << 60
    per_s: float = 0.0  # requests
    running: float = 0.0
    waiting: float = 0.0
    memory: float = 0.0  # share in use
    counted: list[tuple[Micros, float]] = field(default_factory=list)

    def series(self, begin: Micros, end: Micros) -> list[RawSeries]:
        """Its samples in a stretch of time, from the stage's begin."""
        first = -(-max(begin, self.first) // SCRAPE) * SCRAPE
        times = np.arange(first, min(end, self.last), SCRAPE, dtype=np.int64)
        done = self.per_s * (times - self.first) / SECOND
        values = {
            "vllm:num_requests_running": np.full(len(times), self.running),
            "vllm:num_requests_waiting": np.full(len(times), self.waiting),
            "vllm:kv_cache_usage_perc": np.full(len(times), self.memory),
            "vllm:request_success_total": done,
            "vllm:prompt_tokens_total": 500 * done,
            "vllm:generation_tokens_total": 100 * done,
        }
        return [
            RawSeries({"__name__": name, "pod": self.name, "model_name": "big"}, BEGIN + times, value)
            for name, value in values.items()
        ]


class WatchStage:
    """A process, the pods it watches, and everything it said.

    Args:
        state: its folder.
        settings: of the fleet.
        engines: of the one pool.
        at: since the stage's begin, when the process begins.
        pods: by cluster, where instances follow them.
    """

    def __init__(
        self,
        state: Path,
        engines: Sequence[Pod],
        settings: Scenario | None = None,
        at: Micros = 10 * MINUTE,
        pods: Mapping[str, TargetPods] | None = None,
    ) -> None:
        self.pods = list(engines)
        self.failing: frozenset[str] | None = frozenset()
        self.away = False
        self.state = state
        self.clock = HandClock()
        self.began = at
        self.minutes: list[WatchedMinute] = []
        self.servers: dict[str, PrometheusServer] = {}  # none: `look` makes up what they say
        parts = WatchParts(
            servers=self.servers,
            watched=[WatchedPool(POOL, "", {"model_name": "big"})],
            interval=SCRAPE,
            every=SCRAPE,
            clock=self.clock,
            wall=lambda: BEGIN + self.at,
            words=lambda stamped: tuple("" for _ in stamped.line.decisions),
            passed=self.minutes.append,
            pods=pods or {},
        )
        self.watch = FleetWatch(settings or one_pool(), state, parts)

    @property
    def at(self) -> Micros:
        """Now, since the stage's begin."""
        return self.began + self.clock.at - 1

    def look(self) -> None:
        """One look, and a step of the loop."""
        back = max(self.watch.demand.back(BEGIN + self.at), 2 * self.watch.limit)
        series = [one for pod in self.pods for one in pod.series(self.at - back, self.at)]
        answer = AWAY if self.away else RawAnswer(tuple(series))
        said = ClusterLook({POOL: answer}, answer, None if self.away else self.failing)
        self.watch.take({"": said}, BEGIN + self.at, self.clock.at)
        self.watch.loop.step(self.clock.at)

    def run(self, length: Micros) -> None:
        """Look every scrape interval for so long."""
        for _ in range(length // SCRAPE):
            self.clock.at += SCRAPE
            self.look()

    def journal(self) -> list[Stamped]:
        """What was written down."""
        return list(read_stamped(self.state / "journal"))
