"""Load on an engine for some time: a number of clients that each wait for their answer, or arrivals that wait for nobody.

Requests in flight when the time is up are waited for, so that everything the engine was asked to do is on record. Knows no plan.
Read next: `run.py`, which says how long and how many.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from sageserve.base.records import Ints
from sageserve.base.units import SECOND, Micros
from sageserve.live.benchmark.client import Body, EngineClient, RequestFailed, RequestSample, now_us

PAUSE_S: Final = 0.2  # after a failure: an engine that refuses is not hammered

Next = Callable[[], Body]
Told = Callable[[], None]


@dataclass(slots=True)
class Stretch:
    """What some time of one kind of load came to; times by `now_us`.

    Args:
        name: of the load, for people.
        concurrency: clients of a closed loop; 0 in the open loop.
        began: when the first request was sent.
        until: when no more were sent.
        ended: when the last answer was complete.
        samples: finished requests, by the time they finished.
        failures: what failed, in the engine's words.
        late: the longest a request of the open loop was sent after it was due.
        cpu: share of one core that this process took: near 1, times are the client's and not the engine's.
    """

    name: str
    concurrency: int
    began: Micros
    until: Micros = 0
    ended: Micros = 0
    samples: list[RequestSample] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    late: Micros = 0
    cpu: float = 0.0

    @property
    def rate(self) -> float:
        """Requests finished per second while the load lasted."""
        done = sum(sample.sent + sample.e2e <= self.until for sample in self.samples)
        return done * SECOND / max(self.until - self.began, 1)

    @property
    def capacity(self) -> float:
        """Requests per second that the clients of a closed loop get: their number over the mean time of a request."""
        total = sum(sample.e2e for sample in self.samples)
        return self.concurrency * len(self.samples) * SECOND / max(total, 1)

    @property
    def tokens_per_s(self) -> float:
        """Output tokens per second, until the last answer was complete."""
        return sum(sample.output for sample in self.samples) * SECOND / max(self.ended - self.began, 1)

    @property
    def ttft(self) -> Ints:
        """int64[n]: microseconds."""
        return np.array([sample.ttft for sample in self.samples], np.int64)

    @property
    def tpot(self) -> list[float]:
        """Microseconds per token after the first, of the requests that have more than one."""
        return [sample.tpot for sample in self.samples if sample.tpot is not None]

    @property
    def gaps(self) -> Ints:
        """int64[n]: microseconds between chunks of the same answer, all answers together."""
        parts = [np.diff(np.array(sample.stamps, np.int64)) for sample in self.samples]
        return np.concatenate([np.zeros(0, np.int64), *parts])

    async def ask(self, client: EngineClient, body: Body) -> bool:
        """Send one request and keep what came of it; False when it failed."""
        try:
            self.samples.append(await client.ask(body))
        except RequestFailed as error:
            self.failures.append(str(error))
            return False
        return True


async def closed_loop(client: EngineClient, name: str, clients: Sequence[Next], seconds: float, told: Told) -> Stretch:
    """Every client sends its next request when it has its answer, until the time is up.

    Args:
        client: of the engine.
        name: of the load.
        clients: one source of requests per client.
        seconds: how long requests are sent.
        told: called after every answer.
    """
    stretch, cpu = Stretch(name, len(clients), now_us()), time.process_time()
    stretch.until = stretch.began + round(seconds * SECOND)

    async def work(source: Next) -> None:
        while now_us() < stretch.until:
            if not await stretch.ask(client, source()):
                await asyncio.sleep(PAUSE_S)
            told()

    async with asyncio.TaskGroup() as group:
        for source in clients:
            group.create_task(work(source))
    return _finish(stretch, cpu)


async def open_loop(client: EngineClient, name: str, due: Ints, source: Next, told: Told) -> Stretch:
    """Requests are sent when they are due, whatever the engine does.

    Args:
        client: of the engine.
        name: of the load.
        due: int64[n], microseconds from now, rising.
        source: of requests, in the order they are due.
        told: called after every answer.
    """
    stretch, cpu = Stretch(name, 0, now_us()), time.process_time()
    stretch.until = stretch.began + (int(due[-1]) if len(due) else 0)

    async def one(body: Body) -> None:
        await stretch.ask(client, body)
        told()

    async with asyncio.TaskGroup() as group:
        for at in due.tolist():
            body = source()
            await asyncio.sleep(max(stretch.began + at - now_us(), 0) / SECOND)
            stretch.late = max(stretch.late, now_us() - stretch.began - at)
            group.create_task(one(body))
    return _finish(stretch, cpu)


def _finish(stretch: Stretch, cpu: float) -> Stretch:
    stretch.ended = now_us()
    stretch.cpu = (time.process_time() - cpu) * SECOND / max(stretch.ended - stretch.began, 1)
    return stretch
