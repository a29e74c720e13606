"""Five minutes with an engine: single requests, rising concurrency, then a minute of open loop that no fit may see.

What is sent adapts to what the engine has shown so far: a slow one gets shorter prompts and answers, and concurrency stops rising
where the batch is full. Refuses engines whose times vary too much to mean anything. Writes no file.
Read next: `plan.py` for the lengths, `load.py` for the loops, `outcome.py` for what is made of it.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Final

import numpy as np

from sageserve.base.errors import MeasurementError
from sageserve.base.rng import stream
from sageserve.base.units import SECOND
from sageserve.live.benchmark.client import Body, EngineClient, RequestFailed, connect, now_us
from sageserve.live.benchmark.load import Next, Stretch, Told, closed_loop, open_loop
from sageserve.live.benchmark.plan import (
    OPEN_LOAD,
    BenchmarkOptions,
    Mix,
    fixed_lengths,
    levels_of,
    mix_for,
    poisson_arrivals,
)
from sageserve.live.benchmark.shape import RequestStyle, find_context, find_shape, find_version
from sageserve.live.benchmark.watch import WatchedCounters, metrics_page, watching

FAILED_MOST: Final = 0.05  # of the requests of a stretch
NOISE_MOST: Final = 0.3  # middle half of the times of equal requests, over their median
CAPACITY_LEAST: Final = 1.05  # throughput must grow by so much from level to level
OPEN_LEAST: Final = 20  # requests of the open loop, for a mean that means something
_FIXED_LEAST: Final = 3
_FIXED_OUTPUT: Final = 16
_WARM: Final = 8  # requests at once
_HARDER: Final = 1.5  # TPOT grows by about so much from level to level
_FULL: Final = 0.9  # share of KV memory above which it is memory that bounds the batch

Tell = Callable[[str, float, float], None]
"""Told what is going on, seconds done and seconds in all."""


@dataclass(slots=True)
class Benchmarked:
    """Everything that was measured.

    Args:
        options: as asked for.
        shape: how the engine was asked.
        context: tokens, if known.
        fixed: single requests of one prompt length each, by length.
        levels: the closed loop, by rising concurrency.
        opened: the open loop.
        watched: the engine's counters.
        engine: its name and version, as far as it says.
        batch_limit: max_num_seqs as the engine's counters showed it; None when they did not.
        notes: what the user should know, in sentences.
    """

    options: BenchmarkOptions
    shape: RequestStyle
    context: int | None
    watched: WatchedCounters
    engine: str = ""
    fixed: dict[int, Stretch] = field(default_factory=dict)
    levels: list[Stretch] = field(default_factory=list)
    opened: Stretch | None = None
    batch_limit: int | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def stretches(self) -> list[Stretch]:
        """The closed loop in the order of time."""
        return [*self.fixed.values(), *self.levels]


async def benchmark(options: BenchmarkOptions, tell: Tell) -> Benchmarked:
    """Put an engine under load and measure it.

    Args:
        options: which engine, how long, within which limits.
        tell: told about progress.

    Raises:
        MeasurementError: the engine cannot be asked, does not stream, fails too often, or is too noisy.
    """
    levels = levels_of(options)
    async with connect(options.url, options.key) as client:
        tell("find out how to ask", 0.0, options.minutes * 60)
        context = options.context or await find_context(client, options.model)
        shape = await find_shape(client, options.model, options.seed)
        async with watching(client, options.metrics_url or metrics_page(client.root)) as watched:
            engine = f"{watched.family} {await find_version(client)}".strip()
            session = _Session(client, Benchmarked(options, shape, context, watched, engine), tell)
            await session.warm_up()
            await session.single_requests()
            mix = await session.closed_loops(levels)
            await session.open_loop(mix)
            return session.found


class _Session:
    """The benchmark while it goes on."""

    def __init__(self, client: EngineClient, found: Benchmarked, tell: Tell) -> None:
        self.client = client
        self.found = found
        self.options = found.options
        self.tell = tell
        self.began = now_us()

    def told(self, what: str) -> Told:
        """Tells progress under this name."""
        total = self.options.minutes * 60

        def tell() -> None:
            self.tell(what, min((now_us() - self.began) / SECOND, total), total)

        tell()
        return tell

    async def warm_up(self) -> None:
        """What is slow the first time is made slow before the clock counts: connections, memory, compiled shapes."""
        told = self.told("warm up")
        largest = fixed_lengths(self.options, self.found.context)[-1]
        most = min(_WARM, self.options.max_sequences or _WARM)
        lengths = [largest, *[_FIXED_OUTPUT] * most]
        bodies = [self._body(f"warm/{number}", length, _FIXED_OUTPUT) for number, length in enumerate(lengths)]
        results = await asyncio.gather(*(self.client.ask(body) for body in bodies), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, RequestFailed):
                raise result
        told()
        self.began = now_us()

    def _body(self, name: str, prompt: int, output: int) -> Body:
        shape = self.found.shape
        return shape.body(shape.prompts.make(prompt, stream(self.options.seed, f"benchmark/{name}")), output)

    async def single_requests(self) -> None:
        """One after the other, at each prompt length, as long as the longest still fits the time."""
        lengths = fixed_lengths(self.options, self.found.context)
        slot = self.options.lengths_s / len(lengths)
        expected = 0.0
        for number, length in enumerate(lengths):
            if expected * _FIXED_LEAST > 2 * slot * SECOND:
                self.found.notes.append(f"prompts of {length} tokens and more were left out: they would take too long")
                return
            took = await self._single(length, slot)
            if number + 1 < len(lengths):
                expected = took * lengths[number + 1] / length

    async def _single(self, length: int, seconds: float) -> float:
        """The median time of requests of this prompt length."""
        what = f"prompts of {length} tokens, one at a time"
        told, rng = self.told(what), stream(self.options.seed, f"benchmark/fixed/{length}")
        shape = self.found.shape

        def source() -> Body:
            return shape.body(shape.prompts.make(length, rng), _FIXED_OUTPUT)

        stretch = await closed_loop(self.client, what, [source], seconds, told)
        while len(stretch.samples) < _FIXED_LEAST and not stretch.failures:
            await stretch.ask(self.client, source())
            stretch.ended = stretch.until = now_us()
        _check_failures(stretch)
        _check_noise(stretch)
        self.found.fixed[length] = stretch
        return float(median(sample.e2e for sample in stretch.samples))

    async def closed_loops(self, levels: tuple[int, ...]) -> Mix:
        """Every level in turn, until the engine's batch is full; the lengths of the last one."""
        found, level_us = self.found, self.options.levels_s * SECOND / len(levels)
        ttft = {length: round(float(np.median(stretch.ttft))) for length, stretch in found.fixed.items()}
        tpot = median(time for stretch in found.fixed.values() for time in stretch.tpot or [0.0])
        mix = mix_for(self.options, found.context, ttft=ttft, tpot=tpot, level_us=level_us)
        for number, level in enumerate(levels):
            what = f"{level} at a time"
            sources = [self._source(mix, f"{level}/{client}") for client in range(level)]
            stretch = await closed_loop(self.client, what, sources, level_us / SECOND, self.told(what))
            _check_failures(stretch)
            found.levels.append(stretch)
            if self.options.max_sequences is None and number + 1 < len(levels) and self._is_full():
                found.notes.append(f"concurrency was raised no further than {level}: the engine's batch is full")
                break
            expected = _HARDER * fmean(stretch.tpot or [tpot])
            mix = mix_for(self.options, found.context, ttft=ttft, tpot=expected, level_us=level_us)
        return mix

    def _is_full(self) -> bool:
        """Whether the last level shows that more concurrency only means more waiting."""
        last = self.found.levels[-1]
        limit = _batch_limit(self.found.watched, last)
        if limit is not None:
            self.found.batch_limit = limit
            return True
        if len(self.found.levels) < 2:
            return False
        return last.tokens_per_s < CAPACITY_LEAST * self.found.levels[-2].tokens_per_s

    def _source(self, mix: Mix, name: str) -> Next:
        rng, shape = stream(self.options.seed, f"benchmark/level/{name}"), self.found.shape

        def source() -> Body:
            prompt, output = mix.draw(rng)
            return shape.body(shape.prompts.make(prompt, rng), output)

        return source

    async def open_loop(self, mix: Mix) -> None:
        """Poisson arrivals at a share of what the engine was seen to finish; kept out of every fit."""
        seconds = self.options.open_s
        capacity = max(stretch.capacity for stretch in self.found.levels)
        due = poisson_arrivals(OPEN_LOAD * capacity, seconds, stream(self.options.seed, "benchmark/arrivals"))
        if len(due) < OPEN_LEAST:
            raise MeasurementError(
                f"the engine finishes {capacity:.2f} requests a second: {len(due)} in {seconds:.0f} s cannot judge a profile",
                hint=f"measure longer (--minutes) or shorter answers (--output-high); {OPEN_LEAST} are needed",
            )
        what = f"open loop at {OPEN_LOAD * capacity:.2f} requests/s"
        stretch = await open_loop(self.client, what, due, self._source(mix, "open"), self.told(what))
        _check_failures(stretch)
        self.found.opened = stretch


def _check_failures(stretch: Stretch) -> None:
    failed, total = len(stretch.failures), len(stretch.failures) + len(stretch.samples)
    if total == 0 or failed > FAILED_MOST * total:
        first = stretch.failures[0] if stretch.failures else "no request was sent"
        raise MeasurementError(
            f"{stretch.name}: {failed} of {total} requests failed; the first: {first}",
            hint="an engine that refuses load cannot be measured under it: lower --levels, or lift its limits",
        )


def _check_noise(stretch: Stretch) -> None:
    """Equal requests, alone on the engine, must take about equally long."""
    times = [sample.e2e for sample in stretch.samples]
    if len(times) <= _FIXED_LEAST:
        return
    low, middle, high = np.quantile(times, [0.25, 0.5, 0.75])
    if (high - low) / middle > NOISE_MOST:
        raise MeasurementError(
            f"too noisy: {stretch.name}, took from {low / 1000:.1f} to {high / 1000:.1f} ms (middle half)",
            hint="benchmark an engine that nobody else uses, on a machine that does nothing else",
        )


def _batch_limit(watched: WatchedCounters, stretch: Stretch) -> int | None:
    """max_num_seqs, where the batch stayed below what was offered while requests waited and memory was left."""
    readings = [each for each in watched.readings if stretch.began <= each.time <= stretch.until]
    running = [each.get("running") or 0.0 for each in readings]
    waiting = [each.get("waiting") or 0.0 for each in readings]
    memory = [each.get("kv_share") or 0.0 for each in readings]
    if len(readings) < 3 or median(waiting) < 1 or max(memory) > _FULL:
        return None
    most = round(max(running))
    return most if 0 < most < stretch.concurrency else None
