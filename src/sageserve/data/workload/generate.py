"""Workloads without a file: requests drawn from a scenario's traffic settings, and the demand before them.

Arrivals are an inhomogeneous Poisson process per (model, region, tier) with an exact total; lengths are drawn from
quantile points. With `conversations` the process is that of their starts (`conversations.py`). Equal scenarios give equal bytes;
what is drawn for one purpose never shifts another.
Read next: `rates.py` for the rates, `builtin/traffic-o365.yaml` for measured ones.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from sageserve.base.config import Scenario
from sageserve.base.errors import ConfigError
from sageserve.base.records import UNSET, Demand, Floats, Ints, Labels, Names, Trace
from sageserve.base.rng import stream
from sageserve.base.units import DAY, MINUTE, show_duration
from sageserve.data.traces.context import context_notes
from sageserve.data.workload.conversations import draw, growth, mean_turns, told_apart
from sageserve.data.workload.rates import CHUNK, Streams, length_table, lengths_of, minutes_of, rates_of, streams_of

if TYPE_CHECKING:
    from sageserve.data.traces.readers.batches import Progress

_ANOTHER: Final = 1 << 62  # between the seeds of a window and of the one before it: nobody plays both


def generate(scenario: Scenario, progress: "Progress | None" = None) -> Trace:
    """Draw exactly `workload.generate.requests` requests over `workload.generate.length`.

    The shares of groups, models, regions and tiers hold in expectation; planned bursts and growth are part of the
    total, they do not add to it.

    Args:
        scenario: settings and seed.
        progress: told how many requests of how many are drawn.

    Raises:
        ConfigError: the settings describe no traffic, name what the scenario does not define, or have bad points.
    """
    settings = scenario.workload.generate
    streams = streams_of(scenario)
    tables = _tables(streams)
    if settings.conversations.turns:
        return _conversations(scenario, streams, tables)
    keys, of = _starts(scenario, streams, settings.requests)
    prompt = lengths_of(of, tables[0][streams.shape], stream(scenario.seed, "window/prompt"))
    if progress is not None:
        progress(settings.requests // 2, settings.requests)
    output = lengths_of(of, tables[1][streams.shape], stream(scenario.seed, "window/output"))
    if progress is not None:
        progress(settings.requests, settings.requests)
    return _trace(scenario, streams, (keys, of, prompt, output))


def _conversations(scenario: Scenario, streams: Streams, tables: tuple[Floats, Floats]) -> Trace:
    """Conversations of interactive streams, and the requests of batch streams."""
    turns = mean_turns(scenario)
    weight = np.where(streams.interactive, streams.weight / turns, streams.weight)  # of starts; the shares are of requests
    rarer = replace(streams, weight=weight)
    found = told_apart(draw(scenario, streams, tables, lambda count: _starts(scenario, rarer, count)))
    trace = _trace(scenario, streams, (found.arrival, found.stream, found.prompt.astype(np.int32), found.output))
    sessions = int(found.session.max(initial=UNSET)) + 1
    if not sessions:
        return trace
    several = int((found.session != UNSET).sum())
    return replace(
        trace,
        labels={"session": Labels(found.session, tuple(f"c{number + 1}" for number in range(sessions)))},
        counts={"turn": found.turn},
        delay=found.delay,
        notes=(*trace.notes, f"{several:,} of them are turns of {sessions:,} conversations"),
    )


def _trace(
    scenario: Scenario, streams: Streams, columns: tuple[Ints, NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]
) -> Trace:
    """A trace of arrivals, the stream of each, prompts and outputs."""
    settings = scenario.workload.generate
    arrival, of, prompt, output = columns
    model = streams.model[of]
    notes = (
        f"{settings.requests:,} requests generated over {show_duration(settings.length)} with seed {scenario.seed}",
        *context_notes(prompt, output, model, scenario),
    )
    return Trace(
        arrival=arrival,
        prompt=prompt,
        output=output,
        model=model,
        region=streams.region[of],
        tier=streams.tier[of],
        names=Names(tuple(scenario.models), tuple(scenario.regions), tuple(scenario.tiers)),
        window=settings.length,
        notes=notes,
    )


def history(scenario: Scenario) -> Demand:
    """Demand per minute over `workload.generate.history` before t = 0, from the same rates, without making requests.

    Counts are Poisson; token sums have the mean and variance of that many drawn lengths, those of prompts grown as conversations
    grow them.

    Raises:
        ConfigError: as `generate`.
    """
    count = minutes_of(scenario.workload.generate.history)
    shape = (count, len(scenario.regions), len(scenario.models), len(scenario.tiers))
    requests, prompt, output = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    if count:
        streams = streams_of(scenario)
        where = slice(None), streams.region, streams.model, streams.tier
        drawn = stream(scenario.seed, "history/counts").poisson(rates_of(scenario, streams, -count, count))
        requests[where] = drawn
        prompts, outputs = _tables(streams)
        prompt[where] = _sums(drawn, prompts[streams.shape], scenario.seed, "history/prompt")
        if scenario.workload.generate.conversations.turns:
            longer = np.where(streams.interactive, growth(scenario, (prompts, outputs))[streams.shape], 1.0)
            prompt[where] = np.rint(prompt[where] * longer)
        output[where] = _sums(drawn, outputs[streams.shape], scenario.seed, "history/output")
    return Demand(-count * MINUTE, MINUTE, prompt, output, requests)


def window_before(scenario: Scenario) -> Scenario:
    """The same scenario one window earlier, as usual: as many requests as the rates say of it, no bursts, another seed.

    What is chosen on it has seen nothing of the scenario's own window.

    Raises:
        ConfigError: as `generate`, or the rates say that nothing arrives in it.
    """
    settings = scenario.workload.generate
    minutes = minutes_of(settings.length)
    expected = round(float(rates_of(scenario, streams_of(scenario), -minutes, minutes).sum()))
    if expected < 1:
        raise ConfigError(
            f"nothing arrives in the {show_duration(settings.length)} before the window of {scenario.name}",
            hint="move workload.generate.begins, or give a trace of the past with --trace",
        )
    begins = (settings.begins - settings.length) % (7 * DAY)
    earlier = settings.model_copy(update={"requests": expected, "begins": begins, "bursts": ()})
    workload = scenario.workload.model_copy(update={"generate": earlier})
    seed = (scenario.seed + _ANOTHER) % 2**63
    return scenario.model_copy(update={"name": f"{scenario.name[:90]}-before", "seed": seed, "workload": workload})


def _starts(scenario: Scenario, streams: Streams, total: int) -> tuple[Ints, NDArray[np.int32]]:
    """That many arrivals in order, and the stream of each."""
    keys, bits = _keys(scenario, streams, total)
    of = (keys & ((1 << bits) - 1)).astype(np.int32)
    keys >>= bits
    return keys, of


def _keys(scenario: Scenario, streams: Streams, total: int) -> tuple[Ints, int]:
    """Sorted arrivals with their stream in the lowest bits, so that one sort orders everything; and how many bits."""
    settings = scenario.workload.generate
    minutes = minutes_of(settings.length)
    bits = max(1, (len(streams) - 1).bit_length())
    if settings.length.bit_length() + bits > 62:  # a key is a signed 64-bit number
        raise ConfigError(f"workload.generate.length {show_duration(settings.length)} is too long to generate", hint="such as 4w")
    rates = rates_of(scenario, streams, 0, minutes)
    last = settings.length - (minutes - 1) * MINUTE
    rates[-1] *= last / MINUTE
    counts = _exact_counts(total, rates, scenario.seed)
    cells = np.add.outer(np.arange(minutes) * MINUTE << bits, np.arange(len(streams)))
    keys: Ints = np.repeat(cells.ravel(), counts.ravel())
    tail = int(counts[-1].sum())
    rng = stream(scenario.seed, "window/times")
    for first in range(0, len(keys), CHUNK):
        part = keys[first : first + CHUNK]
        offsets = rng.integers(0, MINUTE, size=len(part))
        inside = max(0, len(keys) - tail - first)  # rows of this chunk before the last minute, which may be cut
        offsets[inside:] = offsets[inside:] * last // MINUTE
        part += offsets << bits
    keys.sort()
    return keys, bits


def _exact_counts(total: int, rates: Floats, seed: int) -> Ints:
    """Poisson counts given their total: multinomial over all cells, so the total is exact."""
    level = rates.sum()
    if not np.isfinite(level) or not level > 0:
        raise ConfigError(
            "workload.generate: the rates are 0 or infinite all through the window",
            hint="look at hours, days and growth_per_week",
        )
    return stream(seed, "window/counts").multinomial(total, (rates / level).ravel()).reshape(rates.shape)


def _tables(streams: Streams) -> tuple[Floats, Floats]:
    """Inverse length distributions, float64[shapes, steps + 1], of prompts and of outputs."""
    prompts, outputs = [], []
    for model, group, shape in streams.shapes:
        where = f"workload.generate.shapes.{model}.{group}"
        prompts.append(length_table(shape.prompt, f"{where}.prompt"))
        outputs.append(length_table(shape.output, f"{where}.output"))
    return np.array(prompts), np.array(outputs)


def _sums(counts: Ints, tables: Floats, seed: int, name: str) -> Floats:
    """Sums of that many lengths: gamma with their mean and variance, which is never negative and 0 for none."""
    middles = (tables[:, 1:] + tables[:, :-1]) / 2
    mean, variance = middles.mean(axis=1), middles.var(axis=1) + 1e-9  # a constant length has no variance
    draws = stream(seed, name).standard_gamma(counts * mean**2 / variance) * variance / mean
    sums: Floats = np.maximum(np.rint(draws), counts)
    return sums
